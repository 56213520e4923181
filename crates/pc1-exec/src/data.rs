//! The sector's data: the staged file that comes in and the copy that PC2 will encode.

use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use seal_host::{FileError, PartFile, copy_exact, is_all_holes};
use seal_types::SectorSize;

use crate::Pc1Error;

/// What `filecoin-proofs` accepts as the staged file of a sector without data.
const DEV_ZERO: &str = "/dev/zero";

/// The staged file of one sector.
#[derive(Debug)]
pub(crate) struct Staged {
    path: PathBuf,
    size: SectorSize,
    file: Option<File>,
}

impl Staged {
    /// Opens `in_path`. A file of the wrong length is padded with zeros or cut, as
    /// `filecoin-proofs` does, with a warning: `comm_d` decides whether that was right.
    pub(crate) fn open(in_path: &Path, size: SectorSize) -> Result<Self, Pc1Error> {
        let path = in_path.to_path_buf();
        if in_path == Path::new(DEV_ZERO) {
            return Ok(Self { path, size, file: None });
        }
        let file = seal_host::open_read(in_path)?;
        let meta = file.metadata().map_err(FileError::of("query", in_path))?;
        if !meta.is_file() {
            return Err(Pc1Error::Path { key: "in_path", path, wanted: "a file or /dev/zero" });
        }
        if meta.len() != size.bytes() {
            tracing::warn!(
                in_path = %in_path.display(), length = meta.len(), wanted = size.bytes(),
                "the staged file has not the size of the sector and is {}",
                if meta.len() < size.bytes() { "padded with zeros" } else { "cut" }
            );
        }
        let file = if is_all_holes(&file, in_path)? { None } else { Some(file) };
        Ok(Self { path, size, file })
    }

    /// Where the data comes from.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether all data is known to be zero without reading it: a sector without data (CC).
    pub(crate) fn is_zero(&self) -> bool {
        self.file.is_none()
    }

    /// The data, exactly as long as the sector.
    pub(crate) fn reader(&self) -> Result<impl Read + Send + use<>, Pc1Error> {
        let data: Box<dyn Read + Send> = match &self.file {
            // Opened anew: a reader of its own position.
            Some(_) => Box::new(seal_host::open_read(&self.path)?),
            None => Box::new(io::empty()),
        };
        Ok(data.chain(io::repeat(0)).take(self.size.bytes()))
    }

    /// Copies the data to `out_path`, which appears whole. A sector without data stays sparse.
    pub(crate) fn copy_to(
        &self,
        out_path: &Path,
        progress: &dyn Fn(u64),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(), Pc1Error> {
        let part = PartFile::create(&copy_target(out_path))?;
        if self.is_zero() {
            let set = part.file().set_len(self.size.bytes());
            set.map_err(FileError::of("set the length of", part.part_path()))?;
            part.finish()?;
            progress(self.size.bytes());
            return Ok(());
        }
        let copied = copy_exact(
            (&mut self.reader()?, &self.path),
            (&mut part.file(), part.part_path()),
            self.size.bytes(),
            &mut |done| {
                progress(done);
                if cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            },
        )?;
        if copied.is_none() {
            return Err(Pc1Error::Cancelled);
        }
        part.finish()?;
        Ok(())
    }
}

/// Where the copy for `out_path` goes. A link is followed: what it points to is the file that
/// other software will open.
fn copy_target(out_path: &Path) -> PathBuf {
    fs::canonicalize(out_path).unwrap_or_else(|_| out_path.to_path_buf())
}

/// Removes what a killed PC1 has left of the copy for `out_path`. The caller has the sector's
/// directory for itself.
pub(crate) fn remove_stale_copy(out_path: &Path) -> Result<(), Pc1Error> {
    Ok(PartFile::remove_stale(&copy_target(out_path))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn copied(in_path: &Path) -> (Vec<u8>, u64) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let out = dir.path().join("sealed");
        fs::write(&out, vec![1; 5000]).expect("writable");
        let staged = Staged::open(in_path, SectorSize::KIB_2).expect("readable");
        staged.copy_to(&out, &|_| {}, &|| false).expect("writable");
        let blocks = fs::metadata(&out).expect("there").blocks();
        (fs::read(&out).expect("readable"), blocks)
    }

    #[test]
    fn short_data_is_padded_and_long_data_cut() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let staged = dir.path().join("staged");
        fs::write(&staged, [7; 2000]).expect("writable");
        let mut expected = vec![7; 2000];
        expected.resize(2048, 0);
        assert_eq!(copied(&staged).0, expected);
        fs::write(&staged, [7; 3000]).expect("writable");
        assert_eq!(copied(&staged).0, [7; 2048]);
    }

    #[test]
    fn a_sector_without_data_stays_sparse() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let staged = dir.path().join("staged");
        File::create(&staged).and_then(|file| file.set_len(2048)).expect("writable");
        for path in [staged.as_path(), Path::new(DEV_ZERO)] {
            assert_eq!(copied(path), (vec![0; 2048], 0), "{}", path.display());
        }
    }

    #[test]
    fn written_zeros_are_data() {
        let staged = tempfile::NamedTempFile::new().expect("a temporary file");
        fs::write(staged.path(), [0; 2048]).expect("writable");
        let opened = Staged::open(staged.path(), SectorSize::KIB_2).expect("readable");
        assert!(!opened.is_zero());
    }

    #[test]
    fn a_directory_is_not_a_staged_file() {
        let error = Staged::open(Path::new("/dev"), SectorSize::KIB_2).unwrap_err();
        assert!(error.to_string().contains("in_path /dev is not a file"), "{error}");
    }

    #[test]
    fn a_link_keeps_pointing_to_the_copy() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (file, link) = (dir.path().join("real"), dir.path().join("link"));
        fs::write(&file, "").expect("writable");
        std::os::unix::fs::symlink(&file, &link).expect("writable");
        let staged = Staged::open(Path::new(DEV_ZERO), SectorSize::KIB_2).expect("readable");
        staged.copy_to(&link, &|_| {}, &|| false).expect("writable");
        assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
        assert_eq!(fs::metadata(&file).expect("there").len(), 2048);
    }
}
