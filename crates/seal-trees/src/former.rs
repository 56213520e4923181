//! What a former PC2 left in a sector: temporaries, which go at once, and results, which stay
//! until there is something in their place.
//!
//! Results of a former run may be all that a sector has: with a damaged layer they cannot be made
//! again. So a run that fails leaves them alone. Only where the disk has no room for both do they
//! go earlier, and then everything they were made of has been read and found good before.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use seal_host::{
    FileError, PartFile, free_bytes, part_target, read_dir_names, remove_if_there,
    remove_stale_parts,
};
use seal_types::{P_AUX, T_AUX};

/// Bytes of a block in what the kernel says of a file (stat(2)).
const STAT_BLOCK: u64 = 512;

/// Whether a file of a cache directory is a result of PC2, complete or not.
fn is_result(name: &str) -> bool {
    let tree = name.strip_prefix("sc-02-data-").is_some_and(|rest| {
        (rest.starts_with("tree-c") || rest.starts_with("tree-r-last")) && rest.ends_with(".dat")
    });
    tree || name == P_AUX || name == T_AUX
}

/// Whether a file of this name in a cache directory is removed, sooner or later: a result or a
/// temporary of one.
pub(crate) fn is_removed(name: &str) -> bool {
    let of = part_target(name.as_ref()).and_then(|target| target.to_str());
    is_result(name) || of.is_some_and(is_result)
}

/// Removes the temporaries of a PC2 that was interrupted.
pub(crate) fn remove_temporaries(cache_dir: &Path, sealed_path: &Path) -> Result<(), FileError> {
    remove_stale_parts(cache_dir, |name| name.to_str().is_some_and(is_result))?;
    PartFile::remove_stale(sealed_path)
}

/// The results of a former PC2.
#[derive(Debug)]
pub(crate) struct Former {
    files: Vec<PathBuf>,
    /// What their removal frees.
    bytes: u64,
}

impl Former {
    /// Those in `cache_dir`, under their own names.
    pub(crate) fn find(cache_dir: &Path) -> Result<Self, FileError> {
        let mut former = Self { files: Vec::new(), bytes: 0 };
        for name in read_dir_names(cache_dir)?.into_iter().filter(|name| is_result(name)) {
            let path = cache_dir.join(name);
            let meta = fs::symlink_metadata(&path).map_err(FileError::of("query", &path))?;
            // A second name, or what a link names, keeps its space.
            if meta.is_file() && meta.nlink() == 1 {
                former.bytes += meta.blocks() * STAT_BLOCK;
            }
            former.files.push(path);
        }
        Ok(former)
    }

    /// Whether `needed` bytes would be free in `dir` without them.
    pub(crate) fn would_make_room(&self, dir: &Path, needed: u64) -> Result<bool, FileError> {
        Ok(self.bytes > 0 && free_bytes(dir)?.saturating_add(self.bytes) >= needed)
    }

    /// Removes those that are not among `kept`.
    pub(crate) fn remove_all_but(&self, kept: &[&Path]) -> Result<(), FileError> {
        for file in self.files.iter().filter(|file| !kept.contains(&file.as_path())) {
            tracing::debug!(file = %file.display(), "removing a result of a former PC2");
            remove_if_there(file)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporaries_go_and_results_are_found() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let others = [
            ".sc-02-data-layer-1.dat.part",
            ".seal-exec.json",
            "sc-02-data-layer-1.dat",
            "sc-02-data-tree-d.dat",
        ];
        let results = ["p_aux", "sc-02-data-tree-c.dat", "sc-02-data-tree-r-last-15.dat", "t_aux"];
        let temporaries = [
            ".p_aux.part",
            ".sc-02-data-tree-c-3.dat.part",
            ".sc-02-data-tree-c-3.dat.0123456789abcdef.part",
        ];
        for name in others.iter().chain(&results).chain(&temporaries) {
            fs::write(dir.path().join(name), "x").expect("writable");
        }
        let sealed = dir.path().join("sealed");
        fs::write(dir.path().join(".sealed.part"), "x").expect("writable");
        fs::write(dir.path().join(".sealed.0123456789abcdef.part"), "x").expect("writable");
        remove_temporaries(dir.path(), &sealed).expect("removable");
        let names = || read_dir_names(dir.path()).expect("readable");
        let mut left = [&others[..], &results].concat();
        left.sort_unstable();
        assert_eq!(names(), left);

        let former = Former::find(dir.path()).expect("readable");
        let kept = dir.path().join("p_aux");
        former.remove_all_but(&[&kept]).expect("removable");
        let mut left = [&others[..], &["p_aux"]].concat();
        left.sort_unstable();
        assert_eq!(names(), left);
    }

    #[test]
    fn only_what_has_no_other_name_makes_room() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let room = |needed| {
            let former = Former::find(dir.path()).expect("readable");
            former.would_make_room(dir.path(), needed).expect("a file system")
        };
        assert!(!room(0), "there is nothing to remove");
        let tree = dir.path().join("sc-02-data-tree-c.dat");
        fs::write(&tree, vec![1; 1 << 20]).expect("writable");
        fs::File::open(&tree).and_then(|file| file.sync_all()).expect("a file");
        assert!(room(1));
        assert!(!room(u64::MAX));
        fs::hard_link(&tree, dir.path().join("another-name")).expect("linkable");
        assert!(!room(1));
    }
}
