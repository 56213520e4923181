//! On which file system a path lies, for errors that name it: where locks are needed, one that
//! cannot lock is of no use, and its name tells a person where to look.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::sys::statfs::fstatfs;

use crate::FileError;

/// A mounted file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSystem {
    /// Its type as the kernel calls it, such as `nfs4`; a number where it does not tell.
    pub kind: String,
    /// Where it is mounted, if that is known.
    pub mount_point: Option<PathBuf>,
    /// What is mounted there: a device, or a server and its path.
    pub source: Option<String>,
}

impl FileSystem {
    /// The one that `path` lies on, or would if it were there.
    pub fn of(path: &Path) -> io::Result<Self> {
        Self::within(Path::new("/proc"), path)
    }

    fn within(proc_root: &Path, path: &Path) -> io::Result<Self> {
        let absolute = std::path::absolute(path)?;
        let there = absolute.ancestors().find(|path| path.symlink_metadata().is_ok());
        // Nothing is opened but the name, so a FIFO or a device is no trouble.
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH)
            .open(there.unwrap_or(Path::new("/")))?;
        if let Some(mounted) = mounted(proc_root, &opened) {
            return Ok(mounted);
        }
        let magic = fstatfs(&opened)?.filesystem_type();
        Ok(Self { kind: format!("type {:#x}", magic.0), mount_point: None, source: None })
    }
}

impl std::fmt::Display for FileSystem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the file system {}", self.kind)?;
        if let Some(mount_point) = &self.mount_point {
            write!(f, " at {}", mount_point.display())?;
        }
        match &self.source {
            Some(source) if *source != self.kind && source != "none" => write!(f, " ({source})"),
            _ => Ok(()),
        }
    }
}

/// Whether an error means that a file system, or the server behind it, has no locks: no other
/// attempt there would have one.
pub fn is_without_locks(error: &io::Error) -> bool {
    // A file system that knows nothing of locks may say any of these.
    const WITHOUT: [i32; 4] = [libc::ENOLCK, libc::EOPNOTSUPP, libc::ENOSYS, libc::EINVAL];
    error.raw_os_error().is_some_and(|code| WITHOUT.contains(&code))
}

/// An adapter for `map_err` where the lock on `path` is needed: if its file system cannot lock,
/// the error names that, and `remedy` says what to do.
pub fn lock_failed(path: &Path, remedy: &str) -> impl FnOnce(io::Error) -> FileError {
    let remedy = remedy.to_owned();
    let path = path.to_path_buf();
    move |error| {
        if !is_without_locks(&error) {
            return FileError::of("lock", &path)(error);
        }
        let file_system = FileSystem::of(&path)
            .map_or_else(|_| "its file system".to_owned(), |file_system| file_system.to_string());
        let text = format!("{file_system} has no locks ({error}); {remedy}");
        FileError::of("lock", &path)(io::Error::new(error.kind(), text))
    }
}

/// What is mounted where an open file lies, as the kernel tells it.
fn mounted(proc_root: &Path, opened: &File) -> Option<FileSystem> {
    let info = proc_root.join(format!("self/fdinfo/{}", opened.as_raw_fd()));
    let info = fs::read_to_string(info).ok()?;
    let id = info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim();
    // What is mounted need not be named in UTF-8.
    let mounts = fs::read(proc_root.join("self/mountinfo")).ok()?;
    let line = |line: &[u8]| {
        let text = String::from_utf8_lossy(line);
        let mut fields = text.split(' ');
        if fields.next()? != id {
            return None;
        }
        let mount_point = fields.nth(3)?.to_owned();
        // Some optional fields, and a hyphen after them.
        let mut fields = fields.skip_while(|field| *field != "-").skip(1);
        let (kind, source) = (fields.next()?.to_owned(), fields.next()?);
        Some(FileSystem {
            kind,
            mount_point: Some(PathBuf::from(std::ffi::OsString::from_vec(plain(&mount_point)))),
            source: Some(String::from_utf8_lossy(&plain(source)).into_owned()),
        })
    };
    mounts.split(|byte| *byte == b'\n').find_map(line)
}

/// A field of mountinfo without the escapes of blanks and the like (`\040`).
fn plain(field: &str) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut rest = field.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| *first == b'\\');
        let escaped = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        plain.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &after[3..] } else { after };
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_system_of_a_path_is_named_as_the_kernel_names_it() {
        let proc_fs = FileSystem::of(Path::new("/proc/self/status")).expect("mounted");
        assert_eq!((proc_fs.kind.as_str(), proc_fs.mount_point), ("proc", Some("/proc".into())));
        let dir = tempfile::tempdir().expect("a temporary directory");
        let there = FileSystem::of(dir.path()).expect("there");
        assert_eq!(FileSystem::of(&dir.path().join("not/yet")).expect("its place is"), there);
        let mount_point = there.mount_point.clone().expect("told");
        assert!(dir.path().starts_with(&mount_point), "{there}");
        assert!(there.to_string().contains(&format!(" at {}", mount_point.display())), "{there}");
    }

    #[test]
    fn without_proc_the_number_of_its_type_is_told() {
        let nowhere = tempfile::tempdir().expect("a temporary directory");
        let told = FileSystem::within(nowhere.path(), nowhere.path()).expect("there").to_string();
        assert!(told.starts_with("the file system type 0x"), "{told}");
    }

    #[test]
    fn a_lock_that_the_file_system_cannot_give_names_it_and_the_remedy() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for code in [libc::ENOLCK, libc::EOPNOTSUPP, libc::ENOSYS] {
            let error = lock_failed(dir.path(), "use another directory");
            let error = error(io::Error::from_raw_os_error(code));
            let kind = FileSystem::of(dir.path()).expect("there").kind;
            let told = error.source.to_string();
            assert!(told.starts_with(&format!("the file system {kind} at /")), "{told}");
            assert!(told.ends_with("; use another directory"), "{told}");
            assert!(error.to_string().contains("cannot lock /"), "{error}");
        }
        // Anything else may pass, and is told as it is.
        let error = lock_failed(dir.path(), "x")(io::Error::from_raw_os_error(libc::EINTR));
        assert_eq!(error.source.raw_os_error(), Some(libc::EINTR));
    }

    #[test]
    fn mount_points_with_blanks_are_read() {
        let proc_root = tempfile::tempdir().expect("a temporary directory");
        let opened = File::open(proc_root.path()).expect("there");
        let info = proc_root.path().join("self/fdinfo");
        fs::create_dir_all(&info).expect("writable");
        let number = opened.as_raw_fd().to_string();
        fs::write(info.join(number), "pos:\t0\nflags:\t0\nmnt_id:\t42\n").expect("writable");
        let mounts = "41 1 0:1 / / rw - ext4 /dev/a rw\n\
                      42 41 0:7 / /mnt/a\\040b\\134 rw shared:3 master:1 - nfs4 host:/a\\040b rw\n";
        fs::write(proc_root.path().join("self/mountinfo"), mounts).expect("writable");
        let found = mounted(proc_root.path(), &opened).expect("there");
        assert_eq!(found.to_string(), "the file system nfs4 at /mnt/a b\\ (host:/a b)");
    }
}
