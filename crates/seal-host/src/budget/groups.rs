//! The cgroups above this process that have a controller.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::Roots;
use crate::cgroup::{Version, find_mount};

/// A cgroup, as far as limits go.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) version: Version,
    pub(super) dir: PathBuf,
    /// Its path below what is mounted.
    pub(super) name: String,
}

/// The groups with `controller` that this process is in, its own first. Empty where there is no
/// such hierarchy or nothing is known of it.
pub(super) fn chain(roots: &Roots, controller: &str) -> Vec<Group> {
    let read = |name: &str| {
        let path = roots.proc.join("self").join(name);
        let text = fs::read_to_string(&path);
        text.inspect_err(|error| {
            tracing::debug!(%error, "no limits of cgroups are known: {}", path.display());
        })
    };
    let (Ok(mountinfo), Ok(cgroup)) = (read("mountinfo"), read("cgroup")) else {
        return Vec::new();
    };
    let Some(mount) = find_mount(&mountinfo, &cgroup, controller) else { return Vec::new() };
    let within = |dir: &&Path| dir.starts_with(&mount.top);
    let group = |dir: &Path| {
        let below = dir.strip_prefix(&mount.top).unwrap_or(Path::new(""));
        Group {
            version: mount.version,
            dir: dir.to_path_buf(),
            name: format!("/{}", below.display()),
        }
    };
    mount.own.ancestors().take_while(within).map(group).collect()
}

impl Group {
    /// A number in one of its files; `max` is none, as is a file that is not there.
    pub(super) fn number(&self, file: &str) -> Option<u64> {
        self.text(file)?.trim().parse().ok()
    }

    /// The text of one of its files, if it can be read.
    pub(super) fn text(&self, file: &str) -> Option<String> {
        let path = self.dir.join(file);
        match fs::read_to_string(&path) {
            Ok(text) => Some(text),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::debug!(%error, "a limit is not known: {}", path.display());
                }
                None
            }
        }
    }
}
