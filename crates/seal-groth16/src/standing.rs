//! What is thought of a device, by what it has computed.
//!
//! A device is tried before it is believed. When it has computed wrongly it is suspect: it is tried
//! again, and goes on if it passes. The second time it is left out until the process ends: the
//! processor takes its place where that is allowed, and otherwise every task is refused.
//!
//! What spoils a device or its parameters shows in everything that is made before they are read
//! anew. That is one fault, however many proofs it spoils and whenever they are looked at.

use std::sync::{Mutex, MutexGuard};

use seal_cuda::{Before, Opinion, Trust};
use seal_wire::{DeviceReport, DeviceStanding};

use crate::kept::lock;

/// What is done without a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Without {
    /// Tasks fail.
    #[default]
    Refuse,
    /// The processor proves.
    Processor,
}

/// What is thought of one device.
#[derive(Debug)]
pub(crate) struct Standing {
    without: Without,
    trust: Trust,
    /// Whether it has been tried since it was opened, or since it computed wrongly.
    tried: Mutex<bool>,
}

impl Standing {
    /// Of a device that is named by model and UUID, before it has computed anything.
    pub(crate) fn new(device: String, without: Without) -> Self {
        Self { without, trust: Trust::new(device), tried: Mutex::new(false) }
    }

    /// Takes into account what earlier processes have found.
    pub(crate) fn remember(&self, before: &Before) {
        self.trust.remember(before);
    }

    /// Whether it has passed its trial and is in use.
    pub(crate) fn is_believed(&self) -> bool {
        *self.tried() && !self.is_left_out()
    }

    pub(crate) fn is_left_out(&self) -> bool {
        self.trust.is_left_out()
    }

    /// Whether the processor does what it would do.
    pub(crate) fn is_replaced(&self) -> bool {
        self.is_left_out() && self.may_be_replaced()
    }

    /// Whether the processor may take its place.
    pub(crate) fn may_be_replaced(&self) -> bool {
        self.without == Without::Processor
    }

    /// What it computed wrongly, or why it is not used.
    pub(crate) fn reason(&self) -> Option<String> {
        self.trust.opinion().reason
    }

    /// It has computed correctly what it was tried with.
    pub(crate) fn passed(&self) {
        *self.tried() = true;
    }

    /// How many faults are known: the number of a reading of parameters that begins now.
    pub(crate) fn faults(&self) -> u64 {
        self.trust.opinion().wrong
    }

    /// It has computed `what` wrongly, from parameters of the reading with this number: it is tried
    /// again, or left out. `None`: a fault was found since that reading began, and this is the same
    /// one.
    pub(crate) fn wrong(&self, reading: u64, what: &str) -> Option<seal_cuda::Standing> {
        let mut tried = self.tried();
        if self.faults() > reading {
            return None;
        }
        *tried = false;
        Some(self.trust.wrong(what))
    }

    fn tried(&self) -> MutexGuard<'_, bool> {
        lock(&self.tried)
    }

    /// It cannot even be tried.
    pub(crate) fn leave_out(&self, reason: String) {
        self.trust.leave_out(reason);
    }

    /// As the parent is told, with what would take its place.
    pub(crate) fn report(&self, replacement: &str) -> DeviceReport {
        let Opinion { standing, wrong, reason, .. } = self.trust.opinion();
        let standing = match standing {
            seal_cuda::Standing::Good => DeviceStanding::Good,
            seal_cuda::Standing::Suspect => DeviceStanding::Suspect,
            seal_cuda::Standing::LeftOut => DeviceStanding::LeftOut,
        };
        let replaced = standing == DeviceStanding::LeftOut && self.may_be_replaced();
        let replaced_by = replaced.then(|| replacement.to_owned());
        let device = self.trust.device().to_owned();
        DeviceReport { device, standing, wrong, reason, replaced_by }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(standing: &Standing) -> (DeviceStanding, u64, Option<String>) {
        let report = standing.report("cpu");
        (report.standing, report.wrong, report.replaced_by)
    }

    #[test]
    fn a_device_is_tried_then_believed_then_suspect_then_left_out() {
        for (without, replaced_by) in
            [(Without::Refuse, None), (Without::Processor, Some("cpu".to_owned()))]
        {
            let standing = Standing::new("GPU".to_owned(), without);
            assert!(!standing.is_believed() && !standing.is_left_out());
            standing.passed();
            assert!(standing.is_believed());
            assert_eq!(told(&standing), (DeviceStanding::Good, 0, None));

            assert_eq!(standing.wrong(0, "partition 3"), Some(seal_cuda::Standing::Suspect));
            assert!(!standing.is_believed() && !standing.is_left_out(), "it is tried again");
            assert_eq!(told(&standing), (DeviceStanding::Suspect, 1, None));
            standing.passed();
            assert!(standing.is_believed());
            assert_eq!(told(&standing), (DeviceStanding::Suspect, 1, None), "it is not forgotten");

            assert_eq!(standing.wrong(1, "partition 5"), Some(seal_cuda::Standing::LeftOut));
            standing.passed();
            assert!(standing.is_left_out() && !standing.is_believed(), "for good");
            assert_eq!(standing.is_replaced(), replaced_by.is_some());
            assert_eq!(told(&standing), (DeviceStanding::LeftOut, 2, replaced_by));
            assert_eq!(standing.reason().as_deref(), Some("partition 5"));
        }
    }

    #[test]
    fn what_is_found_wrong_of_an_older_reading_is_the_fault_that_is_known() {
        let standing = Standing::new("GPU".to_owned(), Without::Refuse);
        standing.passed();
        let old = standing.faults();
        assert_eq!(standing.wrong(old, "partition 3"), Some(seal_cuda::Standing::Suspect));
        assert_eq!(standing.wrong(old, "partition 4"), None, "before it is tried again");
        assert!(!standing.is_believed());
        standing.passed();
        assert_eq!(standing.wrong(old, "partition 5"), None, "and after it");
        assert!(standing.is_believed(), "it has passed since");
        assert_eq!(standing.reason().as_deref(), Some("partition 3"));
        let new = standing.faults();
        assert_eq!(standing.wrong(new, "partition 6"), Some(seal_cuda::Standing::LeftOut));
    }

    #[test]
    fn a_device_that_cannot_be_tried_has_computed_nothing_wrongly() {
        let standing = Standing::new("GPU".to_owned(), Without::Processor);
        standing.leave_out("no code for it".to_owned());
        assert_eq!(told(&standing), (DeviceStanding::LeftOut, 0, Some("cpu".to_owned())));
    }
}
