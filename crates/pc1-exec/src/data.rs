//! The sector's data: the staged file that comes in and the copy that PC2 will encode.

use std::fs::File;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use seal_host::{
    FileError, Input, PartFile, behind_links, copy_exact, is_all_holes, open_input_or_zeros,
};
use seal_types::SectorSize;

use crate::Pc1Error;

/// The staged file of one sector.
#[derive(Debug)]
pub(crate) struct Staged {
    path: PathBuf,
    size: SectorSize,
    dev_zero: bool,
    /// None if all data is zero.
    file: Option<File>,
}

impl Staged {
    /// Opens `in_path`. A file of the wrong length is padded with zeros or cut, as
    /// `filecoin-proofs` does, with a warning: `comm_d` decides whether that was right.
    pub(crate) fn open(in_path: &Path, size: SectorSize) -> Result<Self, Pc1Error> {
        let path = in_path.to_path_buf();
        let opened = open_input_or_zeros(in_path)
            .map_err(|error| Pc1Error::of_path("in_path", "a file or /dev/zero", error))?;
        let file = match opened {
            Input::Zeros => return Ok(Self { path, size, dev_zero: true, file: None }),
            Input::File(file) => file,
        };
        let meta = file.metadata().map_err(FileError::of("query", in_path))?;
        if meta.len() != size.bytes() {
            tracing::warn!(
                in_path = %in_path.display(), length = meta.len(), wanted = size.bytes(),
                "the staged file has not the size of the sector and is {}",
                if meta.len() < size.bytes() { "padded with zeros" } else { "cut" }
            );
        }
        let file = if is_all_holes(&file, in_path)? { None } else { Some(file) };
        Ok(Self { path, size, dev_zero: false, file })
    }

    /// Where the data comes from.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is `/dev/zero`, which is nobody's file.
    pub(crate) fn is_dev_zero(&self) -> bool {
        self.dev_zero
    }

    /// Whether all data is known to be zero without reading it: a sector without data (CC).
    pub(crate) fn is_zero(&self) -> bool {
        self.file.is_none()
    }

    /// The data, exactly as long as the sector: of the file that was opened, whatever lies at its
    /// path by now.
    pub(crate) fn reader(&self) -> impl Read + Send {
        let data: Box<dyn Read + Send> = match &self.file {
            Some(file) => Box::new(FromStart { file, at: 0 }),
            None => Box::new(io::empty()),
        };
        data.chain(io::repeat(0)).take(self.size.bytes())
    }

    /// Copies the data to `out_path`, which appears whole. A sector without data stays sparse.
    pub(crate) fn copy_to(
        &self,
        out_path: &Path,
        progress: &dyn Fn(u64),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(), Pc1Error> {
        let part = PartFile::create(&behind_links(out_path)?)?;
        if self.is_zero() {
            let set = part.file().set_len(self.size.bytes());
            set.map_err(FileError::of("set the length of", part.part_path()))?;
            part.finish()?;
            progress(self.size.bytes());
            return Ok(());
        }
        let copied = copy_exact(
            (&mut self.reader(), &self.path),
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

/// Reads a file from its start with a position of its own.
struct FromStart<'f> {
    file: &'f File,
    at: u64,
}

impl Read for FromStart<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(bytes, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// Finds out whether the copy for `out_path` can be made, and removes what a killed PC1 has left of
/// it. A link there is followed: what it points to is the file that other software will open.
pub(crate) fn check_copy(out_path: &Path) -> Result<(), Pc1Error> {
    // Made and removed: nothing else knows as surely.
    let part = behind_links(out_path).and_then(|target| PartFile::create(&target));
    part.map(drop).map_err(|error| Pc1Error::of_path("out_path", "a file", error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    const DEV_ZERO: &str = "/dev/zero";

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
        let text = "in_path /dev is not a file or /dev/zero: it is a directory";
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn a_link_keeps_pointing_to_the_copy_whether_there_was_a_file_or_not() {
        for there in [true, false] {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let (file, link) = (dir.path().join("real"), dir.path().join("link"));
            if there {
                fs::write(&file, "").expect("writable");
            }
            std::os::unix::fs::symlink("real", &link).expect("writable");
            let staged = Staged::open(Path::new(DEV_ZERO), SectorSize::KIB_2).expect("readable");
            check_copy(&link).expect("writable");
            staged.copy_to(&link, &|_| {}, &|| false).expect("writable");
            assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
            assert_eq!(fs::metadata(&file).expect("there").len(), 2048);
        }
    }

    #[test]
    fn what_is_read_is_what_was_opened_and_from_its_start_each_time() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("staged");
        fs::write(&path, [7; 2048]).expect("writable");
        let staged = Staged::open(&path, SectorSize::KIB_2).expect("readable");
        fs::remove_file(&path).expect("ours");
        fs::write(&path, [9; 2048]).expect("writable");
        for _ in 0..2 {
            let mut read = Vec::new();
            staged.reader().read_to_end(&mut read).expect("readable");
            assert_eq!(read, [7; 2048]);
        }
    }

    #[test]
    fn a_copy_is_never_put_in_the_place_of_what_is_no_file() {
        for out_path in ["/dev/null", "/dev"] {
            let error = check_copy(Path::new(out_path)).unwrap_err();
            let start = format!("out_path {out_path} is not a file: it is a ");
            assert!(error.to_string().starts_with(&start), "{error}");
        }
    }
}
