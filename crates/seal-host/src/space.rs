//! Free space of file systems, and holes in files.

use std::fs::File;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;
use nix::unistd::Whence;

use crate::FileError;

/// Not enough space, or not known how much there is.
#[derive(Debug, thiserror::Error)]
pub enum SpaceError {
    /// The file system has less than is needed.
    #[error(
        "{} has {free} bytes free{by} and {needed} are needed; free space there or use another \
         directory",
        path.display()
    )]
    TooLittle {
        /// A directory on the file system.
        path: PathBuf,
        /// What is free for this user.
        free: u64,
        /// What the work will write.
        needed: u64,
        /// What of that others have reserved.
        reserved: u64,
        /// Who has reserved how much, in words; empty if nobody has.
        by: String,
    },
    /// The file system does not answer.
    #[error(transparent)]
    Unknown(#[from] FileError),
}

/// Bytes that this user may still write on the file system that holds `path`.
pub fn free_bytes(path: &Path) -> Result<u64, FileError> {
    let stat = statvfs(path)
        .map_err(|errno| FileError::of("query the free space of", path)(errno.into()))?;
    Ok(stat.blocks_available() * stat.fragment_size())
}

/// Checks that `needed` bytes are free where `path` lies.
pub fn require_free(path: &Path, needed: u64) -> Result<(), SpaceError> {
    let free = free_bytes(path)?;
    if free < needed {
        return Err(SpaceError::TooLittle {
            path: path.to_path_buf(),
            free,
            needed,
            reserved: 0,
            by: String::new(),
        });
    }
    Ok(())
}

/// Whether the file holds no data at all, only a length: every byte of it reads as zero without
/// reading it. File systems that cannot tell answer `false`.
pub fn is_all_holes(file: &File, path: &Path) -> Result<bool, FileError> {
    match nix::unistd::lseek(file, 0, Whence::SeekData) {
        Ok(_) => {
            nix::unistd::lseek(file, 0, Whence::SeekSet)
                .map_err(|errno| FileError::of("seek in", path)(errno.into()))?;
            Ok(false)
        }
        // ENXIO: no data behind the offset.
        Err(nix::errno::Errno::ENXIO) => Ok(true),
        Err(_) => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn names_the_place_and_both_numbers_when_space_is_short() {
        let error = require_free(Path::new("/"), u64::MAX).unwrap_err();
        assert!(error.to_string().starts_with("/ has "), "{error}");
        assert!(error.to_string().contains(&u64::MAX.to_string()), "{error}");
        assert!(require_free(Path::new("/"), 0).is_ok());
    }

    #[test]
    fn tells_holes_from_data() {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.as_file().set_len(1 << 20).expect("writable");
        let path = file.path().to_path_buf();
        assert!(is_all_holes(file.as_file(), &path).expect("readable"));
        file.write_all(&[0]).expect("writable");
        assert!(!is_all_holes(file.as_file(), &path).expect("readable"));
    }
}
