//! How long a task waits for what another process still has locked.

use std::time::Duration;

use seal_host::{ENDING_TAKES, LOCK_WAIT};

use crate::Environment;

/// A setting that is none.
#[derive(Debug, thiserror::Error)]
#[error("{LOCK_WAIT}={given:?}: {reason}; write a time, such as 2m or 1h")]
pub struct NoLockWait {
    given: String,
    reason: humantime::DurationError,
}

/// What the environment says, or the default.
pub fn lock_wait(environment: &Environment) -> Result<Duration, NoLockWait> {
    match environment.get(LOCK_WAIT).filter(|given| !given.is_empty()) {
        None => Ok(ENDING_TAKES),
        Some(given) => humantime::parse_duration(&given)
            .map_err(|reason| NoLockWait { given: given.clone(), reason }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_taken_and_nothing_else() {
        let of = |given: &[(&str, &str)]| lock_wait(&Environment::of(given));
        assert_eq!(of(&[]).expect("the default"), Duration::from_secs(120));
        assert_eq!(of(&[(LOCK_WAIT, "")]).expect("the default"), ENDING_TAKES);
        assert_eq!(of(&[(LOCK_WAIT, "1h 5s")]).expect("a time"), Duration::from_secs(3605));
        for given in ["5", "soon", "-1s"] {
            let error = of(&[(LOCK_WAIT, given)]).expect_err(given).to_string();
            assert!(error.starts_with(&format!("SEAL_LOCK_WAIT={given:?}: ")), "{error}");
        }
    }
}
