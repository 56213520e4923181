//! Opening files that somebody else names: files only, and never a wait.
//!
//! To open a FIFO waits for who writes into it, perhaps for ever; to open a device may do anything.
//! So what lies at a path is looked at before it is opened, and again when it is open.

use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::stat::{major, minor};

use crate::FileError;

/// What `/dev/zero` is, under whatever name (devices.txt of the kernel: memory devices).
const ZEROS: (u64, u64) = (1, 5);
/// A file server that has leased a file to somebody gives it back within this time
/// (`/proc/sys/fs/lease-break-time`, 45 s).
const LEASE_ENDS_WITHIN: Duration = Duration::from_secs(50);

/// Something else lies at a path than what is wanted there.
#[derive(Debug, thiserror::Error)]
#[error("it is {found} and not {wanted}")]
pub struct WrongKind {
    /// What it is.
    pub found: &'static str,
    /// What it has to be.
    pub wanted: &'static str,
}

impl FileError {
    /// What is wrong if something else lies at the path than what is wanted there: a FIFO, for
    /// example. It stays so, however often it is tried.
    pub fn wrong_kind(&self) -> Option<&WrongKind> {
        self.source.get_ref()?.downcast_ref()
    }
}

/// What lies at the path of an input that may be without data.
#[derive(Debug)]
pub enum Input {
    /// A file.
    File(File),
    /// As many zeros as are wanted: `/dev/zero`, or another name of it.
    Zeros,
}

/// Opens a file for reading, also behind a symbolic link. Anything but a regular file is an error
/// that says what it is.
pub fn open_input(path: &Path) -> Result<File, FileError> {
    const WANTED: &str = "a regular file";
    match open_checked(path, WANTED, |meta| meta.is_file())? {
        (file, meta) if meta.is_file() => Ok(file),
        (_, meta) => Err(wrong_kind(path, &meta, WANTED)),
    }
}

/// As [`open_input`], but `/dev/zero` too.
pub fn open_input_or_zeros(path: &Path) -> Result<Input, FileError> {
    let meta = path.metadata().map_err(FileError::of("open", path))?;
    if is_zeros(&meta) {
        return Ok(Input::Zeros);
    }
    match open_input(path) {
        Err(error) if error.wrong_kind().is_some() => {
            Err(wrong_kind(path, &meta, "a regular file or /dev/zero"))
        }
        opened => Ok(Input::File(opened?)),
    }
}

/// Opens a directory.
pub fn open_dir(path: &Path) -> Result<File, FileError> {
    Ok(open_checked(path, "a directory", Metadata::is_dir)?.0)
}

/// Reads a file whole, as [`open_input`] opens it.
pub fn read_input(path: &Path) -> Result<Vec<u8>, FileError> {
    read_all(&mut open_input(path)?, path)
}

/// Reads a text whole, as [`open_input`] opens it.
pub fn read_text(path: &Path) -> Result<String, FileError> {
    let invalid = |_| io::Error::new(io::ErrorKind::InvalidData, "it is no text in UTF-8");
    String::from_utf8(read_input(path)?).map_err(invalid).map_err(FileError::of("read", path))
}

/// Reads a file of our own, of which there may be none. Nobody has a reason to put a symbolic link
/// there, so one is an error.
pub fn read_own(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(FileError::of("read", path)(error)),
        Ok(meta) if !meta.is_file() => return Err(wrong_kind(path, &meta, OWN)),
        Ok(_) => {}
    }
    let opened =
        OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    match opened {
        Ok(file) => {
            let meta = file.metadata().map_err(FileError::of("query", path))?;
            if !meta.is_file() {
                return Err(wrong_kind(path, &meta, OWN));
            }
            read_all(&mut file.take(MOST_OWN), path).map(Some)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::of("read", path)(error)),
    }
}

/// Our own files are much shorter. What is longer is read so far, and cannot be understood then.
const MOST_OWN: u64 = 64 << 20;
/// What a name of our own has to be.
const OWN: &str = "a file that this software has made, which follows no links here; remove it";

/// Opens the file of a lock, making it if it is not there; never through a link.
pub fn open_lock(path: &Path) -> Result<File, FileError> {
    if let Ok(meta) = path.symlink_metadata()
        && !meta.is_file()
    {
        return Err(wrong_kind(path, &meta, OWN));
    }
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .map_err(FileError::of("open", path))
}

fn read_all(file: &mut impl Read, path: &Path) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(FileError::of("read", path))?;
    Ok(bytes)
}

fn open_checked(
    path: &Path,
    wanted: &'static str,
    is_wanted: fn(&Metadata) -> bool,
) -> Result<(File, Metadata), FileError> {
    let since = Instant::now();
    loop {
        let meta = path.metadata().map_err(FileError::of("open", path))?;
        if !is_wanted(&meta) {
            return Err(wrong_kind(path, &meta, wanted));
        }
        // Whatever has come there meanwhile, nothing waits.
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
        match OpenOptions::new().read(true).custom_flags(flags).open(path) {
            Ok(file) => {
                let meta = file.metadata().map_err(FileError::of("query", path))?;
                if !is_wanted(&meta) {
                    return Err(wrong_kind(path, &meta, wanted));
                }
                return Ok((file, meta));
            }
            // A file on lease, which its holder has been asked to give back.
            Err(error)
                if error.kind() == io::ErrorKind::WouldBlock
                    && since.elapsed() < LEASE_ENDS_WITHIN =>
            {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) => return Err(FileError::of("open", path)(error)),
        }
    }
}

/// Says what lies at `path`.
pub(crate) fn wrong_kind(path: &Path, meta: &Metadata, wanted: &'static str) -> FileError {
    let found = if is_zeros(meta) { "/dev/zero" } else { kind(meta.file_type()) };
    let wrong = WrongKind { found, wanted };
    FileError::of("use", path)(io::Error::new(io::ErrorKind::InvalidInput, wrong))
}

fn kind(kind: FileType) -> &'static str {
    match kind {
        _ if kind.is_dir() => "a directory",
        _ if kind.is_symlink() => "a symbolic link",
        _ if kind.is_fifo() => "a FIFO",
        _ if kind.is_socket() => "a socket",
        _ if kind.is_block_device() => "a block device",
        _ if kind.is_char_device() => "a character device",
        _ if kind.is_file() => "a regular file",
        _ => "something unknown",
    }
}

fn is_zeros(meta: &Metadata) -> bool {
    meta.file_type().is_char_device() && (major(meta.rdev()), minor(meta.rdev())) == ZEROS
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::Mode;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    #[test]
    fn what_is_no_file_is_told_at_once_and_by_what_it_is() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = |name: &str| dir.path().join(name);
        nix::unistd::mkfifo(&path("fifo"), Mode::S_IRWXU).expect("writable");
        let _socket = UnixListener::bind(path("socket")).expect("writable");
        fs::create_dir(path("directory")).expect("writable");
        symlink(path("fifo"), path("link")).expect("writable");
        symlink("/dev/zero", path("zeros")).expect("writable");
        for (path, what) in [
            (path("fifo"), "a FIFO"),
            (path("link"), "a FIFO"),
            (path("socket"), "a socket"),
            (path("directory"), "a directory"),
            ("/dev/null".into(), "a character device"),
            (path("zeros"), "/dev/zero"),
        ] {
            let error = open_input(&path).expect_err("no file");
            let text = format!("{error}: {}", error.source);
            assert!(text.contains(&*path.to_string_lossy()), "{text}");
            assert!(text.ends_with(&format!(": it is {what} and not a regular file")), "{text}");
            assert!(error.wrong_kind().is_some());
            for read in [read_input, |path: &Path| read_text(path).map(String::into_bytes)] {
                assert!(read(&path).expect_err("no file").wrong_kind().is_some());
            }
            if what != "a directory" {
                let error = open_dir(&path).expect_err("no directory");
                assert!(error.source.to_string().ends_with("and not a directory"), "{error}");
            }
            let zeros = open_input_or_zeros(&path);
            assert_eq!(matches!(zeros, Ok(Input::Zeros)), what == "/dev/zero", "{zeros:?}");
        }
        let error = open_input(&path("missing")).expect_err("nothing is there");
        assert!(error.wrong_kind().is_none());
        assert_eq!(error.source.kind(), io::ErrorKind::NotFound);
        fs::write(path("file"), "text").expect("writable");
        symlink(path("file"), path("to-file")).expect("writable");
        assert_eq!(read_text(&path("to-file")).expect("a file"), "text");
        assert!(matches!(open_input_or_zeros(&path("file")), Ok(Input::File(_))));
        assert!(open_dir(&path("file")).expect_err("a file").wrong_kind().is_some());
        open_dir(&path("directory")).expect("a directory");
    }

    #[test]
    fn links_at_names_of_our_own_are_refused_by_name() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = |name: &str| dir.path().join(name);
        assert!(read_own(&path("own")).expect("none").is_none());
        fs::write(path("own"), "mine").expect("writable");
        assert_eq!(read_own(&path("own")).expect("readable").as_deref(), Some(&b"mine"[..]));
        symlink(path("own"), path("link")).expect("writable");
        symlink(path("nothing"), path("dangling")).expect("writable");
        nix::unistd::mkfifo(&path("fifo"), Mode::S_IRWXU).expect("writable");
        for (name, what) in
            [("link", "a symbolic link"), ("dangling", "a symbolic link"), ("fifo", "a FIFO")]
        {
            for error in
                [read_own(&path(name)).map(drop), open_lock(&path(name)).map(drop)].map(Result::err)
            {
                let error = error.expect("not ours");
                assert!(error.to_string().ends_with(name), "{error}");
                assert!(error.source.to_string().starts_with(&format!("it is {what}")), "{error}");
            }
        }
        assert!(!path("nothing").exists(), "it was made through the link");
        open_lock(&path("own")).expect("a file");
        assert_eq!(fs::read(path("own")).expect("readable"), b"mine", "it was cut");
    }
}
