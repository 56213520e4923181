//! The directory whose files all processes of this project on a machine share: locks, status.
//!
//! Whoever can write in it, or put another one in its place, can hold or break every lock. So it
//! belongs to one user and nobody else may write in it, and the same holds for every directory and
//! symbolic link on the way to it, except that sticky directories, such as `/tmp`, will do: in them
//! only its owner can replace an entry.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use crate::{FileError, Slots};

/// As many symbolic links the kernel follows in one path.
const LINKS_MOST: usize = 40;

/// The directory of root, and of services that systemd runs.
pub const SYSTEM_RUNTIME_DIR: &str = "/run/seal-exec";

/// An open runtime directory.
#[derive(Debug)]
pub struct RuntimeDir {
    path: PathBuf,
    /// Keeps cleaners of temporary files away: they leave a directory alone that is locked.
    _guard: File,
}

/// A runtime directory that cannot be trusted or used.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeDirError {
    /// It cannot be made or read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is a symbolic link or no directory.
    #[error("the runtime directory {} is not a directory; remove it or set SEAL_RUNTIME_DIR", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// Somebody else could hold or break the locks in it.
    #[error(
        "the runtime directory {} belongs to user {owner} and has mode {mode:o}; it must belong to \
         user {user} and be writable by nobody else: run as its owner, take the right to write \
         from others, or choose another one by SEAL_RUNTIME_DIR",
        path.display()
    )]
    NotPrivate {
        /// The path.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Its mode.
        mode: u32,
        /// Who it must belong to.
        user: u32,
    },
    /// Only its owner may look at it.
    #[error(
        "the runtime directory {} belongs to user {owner}: look at it as that user or as root",
        path.display()
    )]
    NotReadable {
        /// The path.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// Somebody else could put another one in its place.
    #[error(
        "the runtime directory lies in {}, which belongs to user {owner} and has mode {mode:o}: \
         others could replace it; choose another place by SEAL_RUNTIME_DIR",
        path.display()
    )]
    ParentNotSafe {
        /// The directory above.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Its mode.
        mode: u32,
    },
    /// Its path would lead elsewhere from another working directory, and with it every lock.
    #[error(
        "the runtime directory {} is not an absolute path: processes in other working directories \
         would not share its limits and locks; set SEAL_RUNTIME_DIR, --runtime-dir or runtime_dir \
         to an absolute path, such as {}",
        path.display(), absolute.display()
    )]
    Relative {
        /// The path.
        path: PathBuf,
        /// Where it leads from here.
        absolute: PathBuf,
    },
    /// Somebody else could make the path lead elsewhere.
    #[error(
        "the path to the runtime directory leads through the symbolic link {} of user {owner}, who \
         could point it elsewhere; choose another place by SEAL_RUNTIME_DIR",
        path.display()
    )]
    LinkNotSafe {
        /// The link.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
}

impl RuntimeDirError {
    /// Whether what was configured makes no sense anywhere; else it cannot be had here and now.
    pub fn is_nonsense(&self) -> bool {
        matches!(self, Self::Relative { .. })
    }
}

impl RuntimeDir {
    /// Whether `path` can be the one of a runtime directory, wherever it leads.
    pub fn check(path: &Path) -> Result<(), RuntimeDirError> {
        absolute(path).map(|_| ())
    }

    /// Opens the directory, making it if it is not there.
    pub fn open(path: &Path) -> Result<Self, RuntimeDirError> {
        let user = nix::unistd::geteuid().as_raw();
        let path = way_to(absolute(path)?, user, true)?;
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(FileError::of("create", &path)(error).into());
            }
            _ => {}
        }
        Self::of_user(path, user)
    }

    /// Opens the directory only to read in it; `None` if it is not there. Root may look at that of
    /// any user, as long as that user alone can write in it.
    pub fn find(path: &Path) -> Result<Option<Self>, RuntimeDirError> {
        let user = nix::unistd::geteuid();
        let found = match normal(absolute(path)?)?.symlink_metadata() {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(FileError::of("examine", path)(error).into()),
        };
        let owner = if user.is_root() { found.uid() } else { user.as_raw() };
        let path = way_to(path, owner, false)?;
        match Self::of_user(path, owner) {
            Err(RuntimeDirError::File(error))
                if error.source.kind() == io::ErrorKind::PermissionDenied =>
            {
                Err(RuntimeDirError::NotReadable { path: error.path, owner: found.uid() })
            }
            opened => opened.map(Some),
        }
    }

    /// Opens the directory at a path that leads nowhere else, which must be `user`'s.
    fn of_user(path: PathBuf, user: u32) -> Result<Self, RuntimeDirError> {
        // What is opened is what is judged, whatever stands at the path a moment later.
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
            .open(&path);
        let guard = opened.map_err(|error| match error.raw_os_error() {
            Some(libc::ENOTDIR | libc::ELOOP) => {
                RuntimeDirError::NotADirectory { path: path.clone() }
            }
            _ => FileError::of("open", &path)(error).into(),
        })?;
        let found = guard.metadata().map_err(FileError::of("examine", &path))?;
        let (owner, mode) = owner_and_mode(&found);
        if owner != user || mode & 0o022 != 0 {
            return Err(RuntimeDirError::NotPrivate { path, owner, mode, user });
        }
        // Nothing depends on it, and anybody who can read the directory could hold another lock on
        // it: it is taken if it is free. All locks that mean something are on files within.
        if let Err(error) = guard.try_lock_shared() {
            tracing::debug!(%error, path = %path.display(), "cleaners are not kept away");
        }
        Ok(Self { path, _guard: guard })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A path that means the same in every working directory.
fn absolute(path: &Path) -> Result<&Path, RuntimeDirError> {
    if path.is_absolute() {
        return Ok(path);
    }
    let absolute = normal(path).unwrap_or_else(|_| PathBuf::from(SYSTEM_RUNTIME_DIR));
    Err(RuntimeDirError::Relative { path: path.to_path_buf(), absolute })
}

/// Makes a runtime directory again that was removed while processes use it, such as one in `/tmp`
/// by a cleaner. Locks that are held on what was removed are not known in the new one.
pub fn remake(runtime_dir: &Path) -> Result<(), FileError> {
    if runtime_dir.is_dir() {
        return Ok(());
    }
    let made = RuntimeDir::open(runtime_dir);
    made.map_err(|error| match error {
        RuntimeDirError::File(error) => error,
        error => FileError::of("make again", runtime_dir)(io::Error::other(error)),
    })?;
    tracing::warn!(path = %runtime_dir.display(), "the runtime directory was removed; it is made again");
    Ok(())
}

/// Opens a file of slots in a runtime directory, making again what was removed.
pub(crate) fn slots_in(runtime_dir: &Path, name: &str) -> Result<Slots, FileError> {
    let file = runtime_dir.join(name);
    match Slots::open(&file) {
        Err(error) if error.source.kind() == io::ErrorKind::NotFound => {
            remake(runtime_dir)?;
            Slots::open(&file)
        }
        opened => opened,
    }
}

/// The absolute path without what does not matter, such as a slash at its end, behind which a
/// symbolic link would be followed.
fn normal(path: &Path) -> Result<PathBuf, FileError> {
    let absolute = std::path::absolute(path).map_err(FileError::of("make absolute", path))?;
    Ok(absolute.components().collect())
}

/// The same place as a path in which only the last part may still be a symbolic link. Every
/// directory and link on the way is judged: but for `user` and root nobody may be able to change
/// where it leads. Directories that are missing are made where `make` says so.
fn way_to(path: &Path, user: u32, make: bool) -> Result<PathBuf, RuntimeDirError> {
    let path = normal(path)?;
    let mut parts = parts(&path);
    let last = match parts.back() {
        Some(last) if last != ".." => parts.pop_back(),
        _ => None,
    };
    let examine = |path: &Path| path.symlink_metadata().map_err(FileError::of("examine", path));
    let mut way = PathBuf::from("/");
    let top = examine(&way)?;
    let is_trusted = |owner: u32, dir: &Path| {
        let anybodys = dir.symlink_metadata().is_ok_and(|dir| owner_and_mode(&dir).1 & 0o022 != 0);
        // Where anybody can make an entry, a number that stands for many is nobody's.
        is_trusted(owner, user, if anybodys { 0 } else { top.uid() })
    };
    let judge = |path: &Path, found: &Metadata| {
        let (owner, mode) = owner_and_mode(found);
        // In a sticky directory only the owner of an entry can replace it.
        let replaceable = mode & 0o022 != 0 && mode & 0o1000 == 0;
        if replaceable || !is_trusted(owner, crate::parent_of(path)) {
            let path = path.to_path_buf();
            return Err(RuntimeDirError::ParentNotSafe { path, owner, mode });
        }
        Ok(())
    };
    judge(&way, &top)?;
    let mut links = 0;
    while let Some(part) = parts.pop_front() {
        if part == ".." {
            way.pop();
            continue;
        }
        let next = way.join(&part);
        let mut found = next.symlink_metadata();
        if make && found.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            match DirBuilder::new().mode(0o755).create(&next) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(FileError::of("create", &next)(error).into());
                }
                _ => found = next.symlink_metadata(),
            }
        }
        let found = found.map_err(FileError::of("examine", &next))?;
        if found.is_symlink() {
            if !is_trusted(found.uid(), &way) {
                return Err(RuntimeDirError::LinkNotSafe { path: next, owner: found.uid() });
            }
            links += 1;
            if links > LINKS_MOST {
                let error = io::Error::from_raw_os_error(libc::ELOOP);
                return Err(FileError::of("follow", &next)(error).into());
            }
            let target = fs::read_link(&next).map_err(FileError::of("read", &next))?;
            if target.is_absolute() {
                way = PathBuf::from("/");
            }
            for part in self::parts(&target).into_iter().rev() {
                parts.push_front(part);
            }
        } else if found.is_dir() {
            judge(&next, &found)?;
            way = next;
        } else {
            return Err(RuntimeDirError::NotADirectory { path: next });
        }
    }
    Ok(match last {
        Some(last) => way.join(last),
        None => way,
    })
}

/// Whether a directory of `owner` on the way to one of `user` changes nothing for the worse. The
/// owner of `/` can lead every path elsewhere. It is root, but not by number in a user namespace
/// of anybody else, where root is shown as the number of all who are not mapped.
fn is_trusted(owner: u32, user: u32, owner_of_top: u32) -> bool {
    owner == user || owner == 0 || owner == owner_of_top
}

/// The names in a path, `..` among them.
fn parts(path: &Path) -> VecDeque<OsString> {
    let named = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    });
    named.collect()
}

/// The directory where none is configured: root's own, so that all processes of the machine agree
/// whatever session they come from, or the user's in `/tmp`. That of a login session
/// (`XDG_RUNTIME_DIR`) goes when the user logs out, and services need not have one.
pub fn default_runtime_dir() -> PathBuf {
    match nix::unistd::geteuid() {
        user if user.is_root() => PathBuf::from(SYSTEM_RUNTIME_DIR),
        user => PathBuf::from(format!("/tmp/seal-exec-{user}")),
    }
}

/// Where earlier versions have it by default, in a login session whose `XDG_RUNTIME_DIR` this is;
/// `None` if they have it where this one does.
pub fn earlier_runtime_dir(xdg_runtime_dir: Option<&Path>) -> Option<PathBuf> {
    let session = xdg_runtime_dir.filter(|dir| dir.is_absolute());
    session.filter(|_| !nix::unistd::geteuid().is_root()).map(|dir| dir.join("seal-exec"))
}

fn owner_and_mode(found: &Metadata) -> (u32, u32) {
    (found.uid(), found.mode() & 0o7777)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn who_owns_the_top_is_trusted_as_root_is_whatever_number_a_user_namespace_shows() {
        const UNMAPPED: u32 = 65534;
        assert!(is_trusted(0, 1000, 0) && is_trusted(1000, 1000, 0));
        assert!(!is_trusted(1001, 1000, 0) && !is_trusted(UNMAPPED, 1000, 0));
        assert!(is_trusted(UNMAPPED, 0, UNMAPPED) && is_trusted(UNMAPPED, 1000, UNMAPPED));
        assert!(!is_trusted(1001, 1000, UNMAPPED));
    }

    #[test]
    fn the_directory_is_made_private() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("a/b");
        assert!(RuntimeDir::find(&path).expect("can be looked for").is_none());
        let opened = RuntimeDir::open(&path).expect("can be made");
        let mode = fs::metadata(opened.path()).expect("there").mode();
        assert_eq!(mode & 0o7777, 0o700);
        RuntimeDir::open(&path).expect("several processes share it");
        assert!(RuntimeDir::find(&path).expect("ours").is_some());
        let above = fs::metadata(dir.path().join("a")).expect("made too").mode();
        assert_eq!(above & 0o022, 0, "{above:o}");
    }

    #[test]
    fn what_others_could_tamper_with_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("open");
        fs::create_dir(&path).expect("writable");
        for mode in [0o777, 0o720, 0o1777] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("ours");
            let error = RuntimeDir::open(&path).unwrap_err().to_string();
            assert!(error.contains(&format!("has mode {mode:o}; it must belong to")), "{error}");
        }
        let link = dir.path().join("link");
        symlink(dir.path(), &link).expect("writable");
        let error = RuntimeDir::open(&link).unwrap_err().to_string();
        assert!(error.contains("link is not a directory"), "{error}");
        let file = dir.path().join("file");
        fs::write(&file, "").expect("writable");
        let error = RuntimeDir::open(&file).unwrap_err().to_string();
        assert!(error.contains("file is not a directory"), "{error}");
    }

    #[test]
    fn a_place_where_others_could_replace_it_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let parent = dir.path().join("shared");
        fs::create_dir(&parent).expect("writable");
        fs::set_permissions(&parent, fs::Permissions::from_mode(0o777)).expect("ours");
        let error = RuntimeDir::open(&parent.join("run")).unwrap_err().to_string();
        assert!(error.contains("others could replace it"), "{error}");
        fs::set_permissions(&parent, fs::Permissions::from_mode(0o1777)).expect("ours");
        RuntimeDir::open(&parent.join("run")).expect("as in /tmp");
    }

    #[test]
    fn every_directory_on_the_way_is_judged_however_the_path_is_written() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let open = dir.path().join("open");
        for under in ["run", "sub/run", "sub/../sub/run", "sub/"] {
            let _ = fs::remove_dir_all(&open);
            fs::create_dir(&open).expect("writable");
            fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).expect("ours");
            let error = RuntimeDir::open(&open.join(under)).unwrap_err().to_string();
            assert!(error.contains("open, which belongs to user"), "{under}: {error}");
            assert_eq!(fs::read_dir(&open).expect("there").count(), 0, "nothing was made in it");
        }
        // Sticky ones do not help those below them.
        let below = dir.path().join("sticky/open");
        fs::create_dir_all(&below).expect("writable");
        for (path, mode) in [(dir.path().join("sticky"), 0o1777), (below.clone(), 0o777)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("ours");
        }
        assert!(RuntimeDir::open(&below.join("run")).is_err());
        fs::set_permissions(&below, fs::Permissions::from_mode(0o755)).expect("ours");
        RuntimeDir::open(&below.join("run")).expect("nobody else can replace it");
    }

    #[test]
    fn a_link_is_refused_in_its_place_and_followed_on_the_way() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let there = dir.path().join("there");
        RuntimeDir::open(&there).expect("can be made");
        let link = dir.path().join("link");
        symlink("there", &link).expect("writable");
        for end in ["", "/", "/.", "//"] {
            let path = PathBuf::from(format!("{}{end}", link.display()));
            let error = RuntimeDir::open(&path).unwrap_err().to_string();
            assert!(error.contains("link is not a directory"), "{end}: {error}");
            assert!(RuntimeDir::find(&path).is_err(), "{end}");
        }
        let through = RuntimeDir::open(&link.join("run/")).expect("the link is ours");
        assert_eq!(through.path(), there.join("run"));
        // The link is judged, and where it leads.
        let open = dir.path().join("open");
        fs::create_dir(&open).expect("writable");
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).expect("ours");
        symlink(&open, dir.path().join("to-open")).expect("writable");
        assert!(RuntimeDir::open(&dir.path().join("to-open/run")).is_err());
        symlink("round", dir.path().join("round")).expect("writable");
        let error = RuntimeDir::open(&dir.path().join("round/run")).unwrap_err();
        assert!(matches!(error, RuntimeDirError::File(_)), "{error}");
    }

    #[test]
    fn a_relative_path_is_refused_with_the_absolute_one() {
        // Tests must not change the working directory, which is that of this crate.
        let here = std::env::current_dir().expect("there");
        for (path, absolute) in [("run-rel", here.join("run-rel")), ("./x/y/", here.join("x/y"))] {
            let tried = [
                RuntimeDir::open(Path::new(path)).map(|_| ()),
                RuntimeDir::find(Path::new(path)).map(|_| ()),
            ];
            for error in tried.map(Result::unwrap_err) {
                assert!(error.is_nonsense());
                let told = error.to_string();
                assert!(told.ends_with(&format!("such as {}", absolute.display())), "{told}");
            }
            assert!(!here.join(path).exists());
        }
        assert!(RuntimeDir::open(Path::new("")).unwrap_err().is_nonsense());
    }

    #[test]
    fn a_lock_that_somebody_holds_on_the_directory_keeps_nobody_out() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("run");
        fs::create_dir(&path).expect("writable");
        // Others can read it, and so lock it for as long as they like.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("ours");
        let other = File::open(&path).expect("readable");
        other.lock().expect("free");
        RuntimeDir::open(&path).expect("it is used all the same");
        assert!(RuntimeDir::find(&path).expect("and looked at").is_some());
        let slots = slots_in(&path, "cpus.slots").expect("ours");
        assert!(slots.try_take(0).expect("what counts is locked within"));
        let mode = fs::metadata(path.join("cpus.slots")).expect("there").mode();
        assert_eq!(mode & 0o077, 0, "nobody else can open it");
    }

    #[test]
    fn a_directory_that_was_removed_is_made_again_with_what_is_needed_in_it() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("a/run");
        let run = RuntimeDir::open(&path).expect("ours");
        for removed in [dir.path().join("a"), path.clone(), path.join("cpus.slots")] {
            let first = slots_in(run.path(), "cpus.slots").expect("there");
            assert!(first.try_take(3).expect("lockable"));
            match removed.is_dir() {
                true => fs::remove_dir_all(&removed).expect("ours"),
                false => fs::remove_file(&removed).expect("ours"),
            }
            assert!(!first.is_in_place());
            let again = slots_in(run.path(), "cpus.slots").expect("made again");
            assert!(again.is_in_place() && again.try_take(3).expect("lockable"));
            assert_eq!(fs::metadata(&path).expect("there").mode() & 0o7777, 0o700);
        }
        // Where it cannot be, that is the error.
        fs::remove_dir_all(dir.path().join("a")).expect("ours");
        fs::write(dir.path().join("a"), "").expect("writable");
        let error = slots_in(run.path(), "cpus.slots").unwrap_err();
        assert!(error.to_string().contains(&*dir.path().to_string_lossy()), "{error}");
    }

    #[test]
    fn only_root_looks_at_the_directory_of_another_user() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let run = dir.path().join("run");
        RuntimeDir::open(&run).expect("can be made");
        assert!(RuntimeDir::find(&run).expect("ours").is_some());
        if let Err(error) = std::os::unix::fs::chown(&run, Some(4242), None) {
            return crate::child::tests::note_skipped(&format!("only root gives away: {error}"));
        }
        assert!(RuntimeDir::find(&run).expect("root may look").is_some());
        let error = RuntimeDir::open(&run).unwrap_err().to_string();
        assert!(error.contains("belongs to user 4242") && error.contains("run as its owner"));
        fs::set_permissions(&run, fs::Permissions::from_mode(0o720)).expect("root may");
        assert!(RuntimeDir::find(&run).is_err(), "others can write in it");
        // A third user on the way could lead root to another directory.
        fs::set_permissions(&run, fs::Permissions::from_mode(0o700)).expect("root may");
        std::os::unix::fs::chown(dir.path(), Some(4243), None).expect("root may");
        assert!(RuntimeDir::find(&run).is_err());
    }

    #[test]
    fn the_default_does_not_hang_on_a_login_session() {
        let user = nix::unistd::geteuid();
        let session = Some(Path::new("/run/user/7"));
        let earlier = earlier_runtime_dir(session);
        if user.is_root() {
            assert_eq!(default_runtime_dir(), Path::new("/run/seal-exec"));
            assert_eq!(earlier, None);
        } else {
            assert_eq!(default_runtime_dir(), PathBuf::from(format!("/tmp/seal-exec-{user}")));
            assert_eq!(earlier, Some("/run/user/7/seal-exec".into()));
        }
        for path in [Some(Path::new("relative")), None] {
            assert_eq!(earlier_runtime_dir(path), None);
        }
    }
}
