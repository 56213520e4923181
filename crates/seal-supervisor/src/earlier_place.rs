//! Supervisors of an earlier version that run with another default runtime directory: of a user
//! who is not root they have it in the login session. What is to hold between all supervisors would
//! hold among those and among these.

use std::path::Path;

use seal_wire::ExitCode;

use crate::limits::Terms;
use crate::run::{Failure, because, earlier_place};
use crate::status::{Looker, MachineStatus, collect};

/// Refuses a start in `dir`, the default, as long as supervisors of an earlier version run in theirs
/// and `terms` are to hold between all. Without any, there is what is to be told.
pub(crate) fn check(dir: &Path, terms: &Terms) -> Result<Option<String>, Failure> {
    let Some(earlier) = earlier_place(dir).filter(|dir| dir.exists()) else { return Ok(None) };
    let there = collect(&earlier, &mut Looker::default()).map_err(because(ExitCode::Start))?;
    match apart(&there, dir, &earlier) {
        Some(text) if terms.bind() => Err(Failure { code: ExitCode::Start, text }),
        told => Ok(told),
    }
}

fn apart(there: &MachineStatus, dir: &Path, earlier: &Path) -> Option<String> {
    // Those of this version have an instance, and were told to be there by somebody.
    let others = there.supervisors.iter().filter(|other| other.instance.is_empty());
    let others: Vec<_> = others
        .map(|other| format!("{} (version {}, pid {})", other.stage, other.version, other.name()))
        .collect();
    (!others.is_empty()).then(|| {
        format!(
            "supervisors of an earlier version run with another default runtime directory, \
             {earlier}: {}; this one, of version {} and later, has {dir}, and limits, locks and claims \
             of cores would not hold between them; end those, or set SEAL_RUNTIME_DIR={earlier} for \
             this one as long as they run",
            others.join(", "),
            env!("CARGO_PKG_VERSION"),
            earlier = earlier.display(),
            dir = dir.display(),
        )
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::status::busy;

    #[test]
    fn supervisors_of_an_earlier_version_elsewhere_are_named_with_both_versions_and_places() {
        let mut there = busy();
        there.supervisors.truncate(1);
        there.supervisors[0].instance = String::new();
        there.supervisors[0].version = "0.0.9".to_owned();
        let (dir, earlier) = (Path::new("/tmp/seal-exec-7"), Path::new("/run/user/7/seal-exec"));
        let told = apart(&there, dir, earlier).expect("it is of an earlier version");
        let own = format!("of version {}", env!("CARGO_PKG_VERSION"));
        for part in ["version 0.0.9, pid ", &own, "/tmp/seal-exec-7", "=/run/user/7/seal-exec "] {
            assert!(told.contains(part), "{part}: {told}");
        }
        there.supervisors[0].instance = "0".to_owned();
        assert_eq!(
            apart(&there, dir, earlier),
            None,
            "somebody has set it for one of this version"
        );
    }

    #[test]
    fn only_what_is_to_hold_between_supervisors_is_a_reason() {
        let (counts, orders) = (BTreeMap::new(), BTreeMap::new());
        let stage = "pc1".to_owned();
        let none = Terms { stage, counts, orders, spacing: Duration::ZERO };
        assert!(!none.bind());
        assert!(Terms { spacing: Duration::from_secs(1), ..none }.bind());
    }
}
