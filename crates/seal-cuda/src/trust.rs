//! What is thought of a device by what it has computed: after one wrong result it is tried again,
//! after a second one it is left out.
//!
//! Public reports have devices that compute wrongly always, and others that do so now and then. A
//! single fault may pass with the context it happened in; a second one is no accident any more.
//! Nothing wrong is forgotten until the process ends, and not then either where somebody keeps a
//! record of it and tells the next process ([`Trust::remember`]).
//!
//! Knows nothing of what is computed, nor how it was found to be wrong.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The record of one device in this process.
#[derive(Debug)]
pub struct Trust {
    device: String,
    opinion: Mutex<Opinion>,
}

/// What earlier processes have found wrong of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Before {
    /// How often it has computed wrongly.
    pub wrong: u64,
    /// What is to be said of that.
    pub told: String,
}

/// What is thought of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opinion {
    /// Whether it is believed.
    pub standing: Standing,
    /// How often it has computed wrongly in this process.
    pub wrong: u64,
    /// What it computed wrongly the last time.
    pub reason: Option<String>,
    /// What computes in its place once it is left out.
    pub replaced_by: Option<String>,
}

/// Whether a device is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has computed nothing wrongly.
    Good,
    /// It has computed wrongly once.
    Suspect,
    /// It has computed wrongly again: it must not be used.
    LeftOut,
}

impl Trust {
    /// A device of which nothing bad is known.
    pub fn new(device: impl Into<String>) -> Self {
        let opinion =
            Opinion { standing: Standing::Good, wrong: 0, reason: None, replaced_by: None };
        Self { device: device.into(), opinion: Mutex::new(opinion) }
    }

    /// The device, by model and UUID.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Takes into account what earlier processes have found. That is counted by them.
    pub fn remember(&self, before: &Before) {
        let mut opinion = self.lock();
        opinion.standing = match before.wrong {
            0 => return,
            1 => Standing::Suspect,
            _ => Standing::LeftOut,
        };
        opinion.reason = Some(before.told.clone());
    }

    /// Notes that it has computed something wrongly, and what. Returns what is thought of it now.
    pub fn wrong(&self, reason: impl Into<String>) -> Standing {
        let mut opinion = self.lock();
        opinion.wrong += 1;
        opinion.standing = match opinion.standing {
            Standing::Good => Standing::Suspect,
            Standing::Suspect | Standing::LeftOut => Standing::LeftOut,
        };
        opinion.reason = Some(reason.into());
        opinion.standing
    }

    /// Notes that it has computed something wrongly, and leaves it out at once: where nothing was
    /// computed with it yet, it need not be tried again.
    pub fn fails_its_trial(&self, reason: impl Into<String>) {
        self.wrong(reason);
        self.lock().standing = Standing::LeftOut;
    }

    /// Notes that it cannot be used, though it has computed nothing wrongly, and why.
    pub fn leave_out(&self, reason: impl Into<String>) {
        let mut opinion = self.lock();
        opinion.standing = Standing::LeftOut;
        opinion.reason = Some(reason.into());
    }

    /// Notes what computes in its place once it is left out.
    pub fn replaced_by(&self, what: impl Into<String>) {
        self.lock().replaced_by = Some(what.into());
    }

    /// Whether it must not be used.
    pub fn is_left_out(&self) -> bool {
        self.lock().standing == Standing::LeftOut
    }

    /// What is thought of it now. Waits for nothing.
    pub fn opinion(&self) -> Opinion {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Opinion> {
        // Whoever panics has changed nothing half-way.
        self.opinion.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_left_out_after_the_second_wrong_result_and_for_good() {
        let trust = Trust::new("A100 (GPU-7)");
        assert_eq!((trust.opinion().standing, trust.opinion().wrong), (Standing::Good, 0));
        assert_eq!(trust.wrong("row 3"), Standing::Suspect);
        assert!(!trust.is_left_out());
        for wrong in 2..4 {
            assert_eq!(trust.wrong("column 5"), Standing::LeftOut);
            assert!(trust.is_left_out());
            assert_eq!(trust.opinion().wrong, wrong);
        }
        for (wrong, standing) in
            [(0, Standing::Good), (1, Standing::Suspect), (2, Standing::LeftOut)]
        {
            let next = Trust::new("A100 (GPU-7)");
            next.remember(&Before { wrong, told: "row 3 is on record".to_owned() });
            // They are not counted twice.
            assert_eq!((next.opinion().standing, next.opinion().wrong), (standing, 0));
            assert_eq!(next.opinion().reason.is_some(), wrong > 0);
            assert_eq!(next.wrong("row 4") == Standing::LeftOut, wrong > 0);
        }
        let at_once = Trust::new("A100 (GPU-8)");
        at_once.fails_its_trial("row 1");
        assert!(at_once.is_left_out() && at_once.opinion().wrong == 1);
        let unusable = Trust::new("A100 (GPU-8)");
        unusable.leave_out("too small");
        assert!(unusable.is_left_out() && unusable.opinion().wrong == 0);
        trust.replaced_by("cpu");
        let opinion = trust.opinion();
        assert_eq!(opinion.reason.as_deref(), Some("column 5"));
        assert_eq!(opinion.replaced_by.as_deref(), Some("cpu"));
    }
}
