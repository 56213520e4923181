//! Which parameter files have had their digest checked.
//!
//! Hashing the file of a production size takes the better part of a minute, so it is done once: a
//! list beside the parameters remembers each file that had the digest it has to have, by length,
//! time of change and inode. Who can write the list can also write the parameters; it saves time
//! and guards against nothing.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use seal_host::{FileError, PartFile, read_own};
use serde::{Deserialize, Serialize};

/// Name of the list.
pub(crate) const CHECKED: &str = "seal-exec-checked-params.json";

/// By what a file is known to be the one that was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    size: u64,
    /// Seconds and nanoseconds of the last change.
    mtime: (i64, i64),
    inode: u64,
}

impl Identity {
    /// That of the file at `path` as it is now.
    pub(crate) fn of(path: &Path) -> Result<Self, FileError> {
        let metadata = std::fs::metadata(path).map_err(FileError::of("look at", path))?;
        Ok(Self {
            size: metadata.len(),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            inode: metadata.ino(),
        })
    }
}

/// A file that had a good digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    #[serde(flatten)]
    identity: Identity,
    blake2b_16: String,
}

/// The list, by file name.
#[derive(Default, Serialize, Deserialize)]
struct Stamps {
    note: String,
    files: BTreeMap<String, Stamp>,
}

impl Stamps {
    /// The list of a directory. One that cannot be read counts as empty: then files are checked.
    fn read(dir: &Path) -> Self {
        let path = dir.join(CHECKED);
        let stamps = match read_own(&path) {
            Ok(Some(text)) => serde_json::from_slice(&text).map_err(|error| error.to_string()),
            Ok(None) => Ok(Self::default()),
            Err(error) => Err(error.source.to_string()),
        };
        stamps.unwrap_or_else(|error| {
            tracing::warn!(
                path = %path.display(),
                error,
                "the list of checked parameters cannot be read; they are checked again"
            );
            Self::default()
        })
    }
}

/// Whether the file `name` in `dir` had the digest `expected` when it was what it is now.
pub(crate) fn is_checked(dir: &Path, name: &str, identity: Identity, expected: &str) -> bool {
    let stamp = Stamps::read(dir).files.remove(name);
    stamp.is_some_and(|stamp| stamp.identity == identity && stamp.blake2b_16 == expected)
}

/// Remembers that the file `name` in `dir` has the digest it has to have. A directory that cannot
/// be written to only costs another check at the next start.
pub(crate) fn remember(dir: &Path, name: &str, identity: Identity, digest: &str) {
    let mut stamps = Stamps::read(dir);
    stamps.note = "Parameter files whose digest c2-exec has checked. A file that has changed is \
                   checked again; without this list, all are."
        .to_owned();
    stamps.files.insert(name.to_owned(), Stamp { identity, blake2b_16: digest.to_owned() });
    let written =
        serde_json::to_vec_pretty(&stamps).map_err(|error| error.to_string()).and_then(|text| {
            let write = || {
                let mut part = PartFile::create(&dir.join(CHECKED))?;
                part.write_all(&text)?;
                part.finish()
            };
            write().map_err(|error: FileError| format!("{error}: {}", error.source))
        });
    if let Err(error) = written {
        tracing::warn!(
            error,
            "that the digest of {name} is good cannot be remembered; it is checked again at the \
             next start"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_until_anything_about_it_changes() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("x.params");
        std::fs::write(&path, "one").expect("writable");
        let identity = Identity::of(&path).expect("there");
        assert!(!is_checked(dir.path(), "x.params", identity, "aa"));
        remember(dir.path(), "x.params", identity, "aa");
        assert!(is_checked(dir.path(), "x.params", identity, "aa"));
        assert!(!is_checked(dir.path(), "x.params", identity, "bb"), "another digest is wanted");
        assert!(!is_checked(dir.path(), "y.params", identity, "aa"));
        for changed in [
            Identity { size: 4, ..identity },
            Identity { mtime: (identity.mtime.0, identity.mtime.1 + 1), ..identity },
            Identity { inode: identity.inode + 1, ..identity },
        ] {
            assert!(!is_checked(dir.path(), "x.params", changed, "aa"), "{changed:?}");
        }
        remember(dir.path(), "y.params", identity, "cc");
        assert!(is_checked(dir.path(), "x.params", identity, "aa"), "others are kept");
    }

    #[test]
    fn a_link_in_the_place_of_the_list_is_replaced_and_never_followed() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (path, victim) = (dir.path().join("x.params"), dir.path().join("victim"));
        std::fs::write(&path, "one").expect("writable");
        let identity = Identity::of(&path).expect("there");
        remember(dir.path(), "x.params", identity, "aa");
        std::fs::rename(dir.path().join(CHECKED), &victim).expect("ours");
        let list = std::fs::read(&victim).expect("readable");
        std::os::unix::fs::symlink(&victim, dir.path().join(CHECKED)).expect("writable");
        assert!(!is_checked(dir.path(), "x.params", identity, "aa"), "the link was followed");
        remember(dir.path(), "y.params", identity, "bb");
        assert_eq!(std::fs::read(&victim).expect("readable"), list, "it was written through");
        assert!(is_checked(dir.path(), "y.params", identity, "bb"));
    }

    #[test]
    fn a_damaged_list_only_means_another_check() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("x.params");
        std::fs::write(&path, "one").expect("writable");
        let identity = Identity::of(&path).expect("there");
        std::fs::write(dir.path().join(CHECKED), "{").expect("writable");
        assert!(!is_checked(dir.path(), "x.params", identity, "aa"));
        remember(dir.path(), "x.params", identity, "aa");
        assert!(is_checked(dir.path(), "x.params", identity, "aa"));
        // A place that cannot be written to is no error.
        remember(&dir.path().join("nowhere"), "x.params", identity, "aa");
    }
}
