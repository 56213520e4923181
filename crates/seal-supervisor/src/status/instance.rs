//! Which of the supervisors of a stage this one is, in the same words after each restart.
//!
//! Process ids would make new series of metrics at every start. A supervisor is known by the name
//! of its configuration, and where several of a stage have the same, by a number that it holds by
//! the kernel's lock as long as it lives.

use std::path::{Path, PathBuf};

use seal_host::Slots;
use seal_types::StageName;

/// How many supervisors of one stage and configuration can be told apart.
const MOST: u32 = 1000;

/// The name, held as long as this lives.
#[derive(Debug)]
pub(super) struct Instance {
    name: String,
    path: PathBuf,
    held: Option<(Slots, u32)>,
}

impl Instance {
    /// The name of a supervisor of `stage` with this configuration: that of the file, with `-2` and
    /// so on where others have it already.
    pub(super) fn take(runtime_dir: &Path, stage: StageName, config: &Path) -> Self {
        let stem = config.file_stem().unwrap_or_default().to_string_lossy();
        let name = if stem.is_empty() { "supervisor".into() } else { seal_types::shown(&stem) };
        let plain = |c: char| if c.is_alphanumeric() || c == '-' { c } else { '_' };
        let file: String = name.chars().map(plain).collect();
        let path = runtime_dir.join(format!("instances-{stage}-{file}.slots"));
        let held = Slots::open(&path).and_then(|slots| {
            for number in 0..MOST {
                if slots.try_take(number)? {
                    return Ok(Some((slots, number)));
                }
            }
            Ok(None)
        });
        match held {
            Ok(Some((slots, number))) => {
                let name = match number {
                    0 => name.into_owned(),
                    number => format!("{name}-{}", number + 1),
                };
                Self { name, path, held: Some((slots, number)) }
            }
            Ok(None) => Self { name: format!("{name}-more"), path, held: None },
            // Metrics of two supervisors with one name would be taken for one, no more.
            Err(error) => {
                tracing::debug!(%error, "supervisors of one stage cannot be told apart in metrics");
                Self { name: name.into_owned(), path, held: None }
            }
        }
    }

    /// Holds the name again where the runtime directory was removed.
    pub(super) fn renew(&mut self) {
        let Some((slots, number)) = &mut self.held else { return };
        if slots.is_in_place() {
            return;
        }
        // Who has it meanwhile has the same name; both had it then in any case.
        if let Ok(new) = Slots::open(&self.path)
            && new.try_take(*number).is_ok()
        {
            *slots = new;
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_supervisor_has_its_name_back_after_a_restart_and_two_have_two() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let take = |stage, config| Instance::take(dir.path(), stage, Path::new(config));
        let first = take(StageName::Pc1, "/etc/seal/processors.toml");
        let second = take(StageName::Pc1, "/other/processors.toml");
        assert_eq!((first.name(), second.name()), ("processors", "processors-2"));
        // Another stage or configuration has names of its own.
        assert_eq!(take(StageName::C2, "/etc/seal/processors.toml").name(), "processors");
        assert_eq!(take(StageName::Pc1, "/etc/seal/gpu box.toml").name(), "gpu box");
        drop(first);
        let mut second = second;
        let file = dir.path().join("instances-pc1-processors.slots");
        std::fs::remove_file(&file).expect("ours");
        second.renew();
        let again = take(StageName::Pc1, "/etc/seal/processors.toml");
        assert_eq!((again.name(), second.name()), ("processors", "processors-2"));
        let third = take(StageName::Pc1, "/etc/seal/processors.toml");
        assert_eq!(third.name(), "processors-3", "the second still has its name");
        assert_eq!(take(StageName::Pc1, "/").name(), "supervisor");
        assert_eq!(
            Instance::take(Path::new("/no/such"), StageName::Pc1, Path::new("a.toml")).name(),
            "a"
        );
    }
}
