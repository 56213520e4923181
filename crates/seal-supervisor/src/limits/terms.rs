//! What a supervisor wants of limits and locks, and whether it agrees with another one.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use seal_limits::{Order, Resource};

use super::LimitsError;
use super::table::Member;

/// What a supervisor wants of limits and locks.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    /// Its stage.
    pub(crate) stage: String,
    /// What is limited, and to how many.
    pub(crate) counts: BTreeMap<Resource, NonZeroU32>,
    /// Who gets a lock first.
    pub(crate) orders: BTreeMap<Resource, Order<String>>,
    /// The least time between two starts of the stage.
    pub(crate) spacing: Duration,
}

impl Terms {
    /// Whether anything is to hold between supervisors.
    pub(crate) fn bind(&self) -> bool {
        !self.counts.is_empty() || !self.spacing.is_zero()
    }

    /// What others are told of this supervisor.
    pub(super) fn member(&self) -> Member {
        let Self { stage, counts, orders, spacing } = self.clone();
        let (pid, pid_namespace) = (std::process::id(), own_namespace());
        Member { pid, pid_namespace, stage, counts, orders, spacing: Some(spacing) }
    }

    /// Whether a supervisor with these terms can share limits and locks with `member`.
    pub(super) fn agree_with(&self, member: &Member) -> Result<(), LimitsError> {
        let disagree = |what: String, wanted: String, other: String| {
            let elsewhere = member.pid_namespace != own_namespace();
            let elsewhere = if elsewhere { " in another pid namespace" } else { "" };
            let (stage, pid) = (member.stage.clone(), format!("{}{elsewhere}", member.pid));
            Err(LimitsError::Disagreement { what, wanted, other, stage, pid })
        };
        for (resource, wanted) in &self.counts {
            match member.counts.get(resource) {
                Some(other) if other != wanted => {
                    return disagree(resource.to_string(), wanted.to_string(), other.to_string());
                }
                _ => {}
            }
        }
        for (resource, wanted) in &self.orders {
            match member.orders.get(resource) {
                Some(other) if other != wanted => {
                    let what = format!("the order of {resource}");
                    return disagree(what, told_order(wanted), told_order(other));
                }
                _ => {}
            }
        }
        match member.spacing.filter(|_| member.stage == self.stage) {
            Some(other) if other != self.spacing => {
                let what = format!("limitation.staggered of {}", self.stage);
                let told = |spacing: Duration| match spacing {
                    Duration::ZERO => "not set".to_owned(),
                    spacing => humantime::format_duration(spacing).to_string(),
                };
                disagree(what, told(self.spacing), told(other))
            }
            _ => Ok(()),
        }
    }
}

fn told_order(order: &Order<String>) -> String {
    match order {
        Order::Turns => "\"turns\"".to_owned(),
        Order::Arrival => "\"arrival\"".to_owned(),
        Order::Priority(stages) => format!("\"priority\" of {}", stages.join(", ")),
    }
}

/// 0 where it cannot be told.
fn own_namespace() -> u64 {
    seal_host::pid_namespace(Path::new("/proc")).unwrap_or_default()
}
