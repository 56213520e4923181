//! A file that lies in memory only, for foreign code that reads nothing but files.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// A new, empty file in memory. It is gone when this is dropped and nobody has it open or mapped.
#[derive(Debug)]
pub struct FileInMemory(File);

impl FileInMemory {
    /// Makes one. `name` is what tools show for it. It can grow and never become shorter: foreign
    /// code that has it mapped would end the process.
    pub fn new(name: &str) -> io::Result<Self> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let descriptor = memfd_create(name, flags)?;
        fcntl(&descriptor, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK))?;
        Ok(Self(File::from(descriptor)))
    }

    /// For writing and reading.
    pub fn file(&self) -> &File {
        &self.0
    }

    /// A path by which this process can open the file as long as this value lives.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_is_written_can_be_read_by_its_path_until_it_is_gone() {
        let memory = FileInMemory::new("seal-exec test").expect("memory");
        memory.file().write_all(b"points").expect("memory has room");
        let path = memory.path();
        let opened = File::open(&path).expect("by its path");
        assert_eq!(std::fs::read(&path).expect("by its path"), b"points");
        assert!(
            std::fs::read_link(&path)
                .is_ok_and(|at| at.display().to_string().contains("seal-exec test"))
        );
        let by_others = File::options().write(true).open(&path).expect("by its path");
        by_others.set_len(5).expect_err("it may be mapped");
        drop(memory);
        assert_eq!(opened.metadata().expect("still open").len(), 6);
    }
}
