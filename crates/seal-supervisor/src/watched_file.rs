//! The configuration as it was when it was read, to see whether somebody has changed it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often the file is looked at while somebody waits for its change. Editors replace it or write
/// it in place, and it may lie on a network file system, where the kernel tells of no change.
pub(crate) const LOOK_AT_FILE: Duration = Duration::from_millis(500);

/// A file at one moment.
#[derive(Clone, Debug)]
pub struct WatchedFile {
    path: PathBuf,
    seen: Option<Identity>,
}

/// Device, inode, length, and the times of the last changes of content and of anything.
type Identity = (u64, u64, u64, (i64, i64), (i64, i64));

impl WatchedFile {
    /// The file as it is now. To be called before it is read: what changes meanwhile counts.
    pub fn now(path: &Path) -> Self {
        Self { path: path.to_path_buf(), seen: identity(path) }
    }

    /// Whether it is another one now, or has come or gone.
    pub fn has_changed(&self) -> bool {
        identity(&self.path) != self.seen
    }
}

fn identity(path: &Path) -> Option<Identity> {
    let meta = fs::metadata(path).ok()?;
    let (modified, changed) =
        ((meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec()));
    Some((meta.dev(), meta.ino(), meta.len(), modified, changed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_comes_is_replaced_or_goes_has_changed() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("c.toml");
        let absent = WatchedFile::now(&path);
        assert!(!absent.has_changed());
        fs::write(&path, "a").expect("writable");
        assert!(absent.has_changed());
        let there = WatchedFile::now(&path);
        assert!(!there.has_changed());
        let other = dir.path().join("other");
        fs::write(&other, "b").expect("writable");
        fs::rename(&other, &path).expect("ours");
        assert!(there.has_changed());
        fs::remove_file(&path).expect("ours");
        assert!(there.has_changed());
    }
}
