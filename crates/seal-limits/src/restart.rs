//! When an executor that died is started again.

use std::time::Duration;

/// How long to wait before starting an executor again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestartPolicy {
    /// The wait before the first restart. Each further one waits twice as long.
    pub first_wait: Duration,
    /// The longest wait.
    pub longest_wait: Duration,
    /// After so many starts in a row that did not become ready it counts as crash-looping.
    pub loop_after: u32,
    /// The wait between starts of an executor that is crash-looping.
    pub loop_wait: Duration,
}

/// An executor that lived so long is as good as one that answered a task.
const SOUND: Duration = Duration::from_secs(60);

/// What has happened to one executor lately.
///
/// ```
/// use std::time::Duration;
/// use seal_limits::{AfterDeath, History, RestartPolicy};
///
/// let policy = RestartPolicy {
///     first_wait: Duration::from_secs(1),
///     longest_wait: Duration::from_secs(10),
///     loop_after: 3,
///     loop_wait: Duration::from_secs(300),
/// };
/// let mut history = History::default();
/// let lived = Some(Duration::from_secs(5));
/// for seconds in [1, 2, 4, 8, 10] {
///     let wait = Duration::from_secs(seconds);
///     assert_eq!(history.died(lived, &policy), AfterDeath::Start { wait });
/// }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct History {
    failed_starts: u32,
    restarts: u32,
}

/// What is to be done about an executor that died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterDeath {
    /// Start it again.
    Start {
        /// After this time.
        wait: Duration,
    },
    /// Its starts fail again and again: start it again, and tell requests that there is no use in
    /// waiting for it.
    CrashLoop {
        /// After this time.
        wait: Duration,
        /// So many starts in a row have failed.
        failed_starts: u32,
    },
}

impl History {
    /// The executor answered: it works.
    pub fn answered(&mut self) {
        *self = Self::default();
    }

    /// Whether its last starts failed again and again.
    pub fn is_looping(&self, policy: &RestartPolicy) -> bool {
        self.failed_starts >= policy.loop_after
    }

    /// The executor died, `lived` after it became ready, or before (`None`).
    pub fn died(&mut self, lived: Option<Duration>, policy: &RestartPolicy) -> AfterDeath {
        match lived {
            Some(lived) if lived >= SOUND => *self = Self::default(),
            Some(_) => self.failed_starts = 0,
            None => self.failed_starts = self.failed_starts.saturating_add(1),
        }
        let factor = 1_u32.checked_shl(self.restarts).unwrap_or(u32::MAX);
        self.restarts = self.restarts.saturating_add(1);
        if self.failed_starts >= policy.loop_after {
            let (wait, failed_starts) = (policy.loop_wait, self.failed_starts);
            return AfterDeath::CrashLoop { wait, failed_starts };
        }
        let wait = policy.first_wait.saturating_mul(factor).min(policy.longest_wait);
        AfterDeath::Start { wait }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RestartPolicy = RestartPolicy {
        first_wait: Duration::from_secs(1),
        longest_wait: Duration::from_secs(10),
        loop_after: 3,
        loop_wait: Duration::from_secs(300),
    };

    fn after(seconds: u64) -> AfterDeath {
        AfterDeath::Start { wait: Duration::from_secs(seconds) }
    }

    #[test]
    fn waits_grow_to_the_cap_and_start_afresh_with_an_answer() {
        let mut history = History::default();
        let soon = Some(Duration::from_secs(1));
        let waits: Vec<_> = (0..6).map(|_| history.died(soon, &POLICY)).collect();
        assert_eq!(waits, [1, 2, 4, 8, 10, 10].map(after));
        history.answered();
        assert_eq!(history.died(soon, &POLICY), after(1));
        assert_eq!(history.died(Some(SOUND), &POLICY), after(1));
        for _ in 0..100 {
            assert!(matches!(history.died(soon, &POLICY), AfterDeath::Start { .. }));
        }
    }

    #[test]
    fn starts_that_fail_in_a_row_are_a_crash_loop_that_is_tried_slowly_and_can_end() {
        let mut history = History::default();
        let looping =
            |failed_starts| AfterDeath::CrashLoop { wait: POLICY.loop_wait, failed_starts };
        assert_eq!(history.died(None, &POLICY), after(1));
        assert_eq!(history.died(None, &POLICY), after(2));
        assert_eq!(history.died(Some(Duration::ZERO), &POLICY), after(4));
        assert_eq!(history.died(None, &POLICY), after(8));
        assert_eq!(history.died(None, &POLICY), after(10));
        assert_eq!(history.died(None, &POLICY), looping(3));
        assert_eq!(history.died(None, &POLICY), looping(4));
        history.answered();
        assert_eq!(history.died(None, &POLICY), after(1));
    }
}
