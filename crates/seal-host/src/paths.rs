//! What paths lead to: the directory of a file, what lies behind links, and whether two paths are
//! one file.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::FileError;

/// Links that are followed from one name (as the kernel does, path_resolution(7)).
const MOST_LINKS: u32 = 40;

/// The directory that `path` lies in. [`Path::parent`] gives an empty path for a name alone, which
/// no system call takes.
pub fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        // A root, or an empty path.
        None if path.as_os_str().is_empty() => Path::new("."),
        None => path,
    }
}

/// Where a file at `path` really lies, or would if it were made: a symbolic link at its end is
/// followed, also one to nothing.
pub fn behind_links(path: &Path) -> Result<PathBuf, FileError> {
    let mut path = path.to_path_buf();
    for _ in 0..MOST_LINKS {
        match fs::read_link(&path) {
            Ok(target) => path = parent_of(&path).join(target),
            // EINVAL: it is there and no link.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(path),
            Err(error) => return Err(FileError::of("find", &path)(error)),
        }
    }
    let looped = io::Error::from_raw_os_error(libc::ELOOP);
    Err(FileError::of("find", &path)(looped))
}

/// Two paths that are the same file.
#[derive(Debug, thiserror::Error)]
#[error(
    "{first} {} and {second} {} are the same file, so that one would take the place of the other; \
     name another file for one of them",
    first_path.display(), second_path.display()
)]
pub struct SameFile {
    /// What people know the first one as.
    pub first: String,
    /// Its path.
    pub first_path: PathBuf,
    /// What people know the second one as.
    pub second: String,
    /// Its path.
    pub second_path: PathBuf,
}

/// What a path leads to.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Place {
    /// A file: device and inode.
    There(u64, u64),
    /// Nothing yet: the directory, and the name in it.
    Free(u64, u64, OsString),
}

/// What `path` leads to; `None` if it can lead to no file at all, which is told when it is used.
fn place(path: &Path) -> Option<Place> {
    if let Ok(meta) = path.metadata() {
        return Some(Place::There(meta.dev(), meta.ino()));
    }
    let end = behind_links(path).ok()?;
    let dir = parent_of(&end).metadata().ok()?;
    Some(Place::Free(dir.dev(), dir.ino(), end.file_name()?.to_owned()))
}

/// Finds a path of `named` that is the same file as another one of them or of `others`: by device
/// and inode, through links of both kinds, and by directory and name where there is no file yet.
/// Those of `others` are not compared with each other.
pub fn find_same_file<'p>(
    named: &[(&str, &'p Path)],
    others: impl IntoIterator<Item = (String, PathBuf)>,
) -> Option<SameFile> {
    let mut places: HashMap<Place, (&str, &'p Path)> = HashMap::new();
    let same = |first: &(&str, &Path), second: String, second_path: PathBuf| SameFile {
        first: first.0.to_owned(),
        first_path: first.1.to_path_buf(),
        second,
        second_path,
    };
    for (name, path) in named {
        let Some(place) = place(path) else { continue };
        if let Some(first) = places.get(&place) {
            return Some(same(first, (*name).to_owned(), path.to_path_buf()));
        }
        places.insert(place, (name, path));
    }
    others.into_iter().find_map(|(name, path)| {
        let first = places.get(&place(&path)?)?;
        Some(same(first, name, path))
    })
}

/// A path that would be taken for a file of somebody else's, and removed.
#[derive(Debug, thiserror::Error)]
#[error(
    "{key} {} is called like what an earlier sealing leaves in {}, which is removed there; use \
     another name or directory for it",
    path.display(), dir.display()
)]
pub struct TakenForRemains {
    /// What people know it as.
    pub key: String,
    /// The path.
    pub path: PathBuf,
    /// The directory.
    pub dir: PathBuf,
}

/// Finds a path of `named` that is in one of `dirs`, or leads there through links, under a name that
/// `goes` from there.
pub fn find_taken_for_remains(
    named: &[(&str, &Path)],
    dirs: &[&Path],
    goes: impl Fn(&str) -> bool,
) -> Option<TakenForRemains> {
    let identity = |dir: &Path| dir.metadata().ok().map(|meta| (meta.dev(), meta.ino()));
    for (key, path) in named {
        // A link goes by its own name, and what it leads to by that one.
        for path in [Some(path.to_path_buf()), behind_links(path).ok()].into_iter().flatten() {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let place = identity(parent_of(&path)).filter(|_| goes(name));
            let Some(place) = place else { continue };
            if let Some(dir) = dirs.iter().find(|dir| identity(dir) == Some(place)) {
                return Some(TakenForRemains { key: (*key).to_owned(), path, dir: dir.into() });
            }
        }
    }
    None
}

/// Whether `file` is still what is found at `path`, as far as can be told. Where the file system
/// does not answer, nothing is known to have changed: whoever holds the file goes on holding it, and
/// neither tries again without end nor opens the file anew each time.
pub(crate) fn is_in_place(path: &Path, file: &fs::File) -> bool {
    let identity = |meta: fs::Metadata| (meta.dev(), meta.ino());
    let own = file.metadata().map(identity);
    match (own, fs::symlink_metadata(path).map(identity)) {
        (Ok(own), Ok(there)) => own == there,
        (_, Err(error)) => {
            !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        }
        (Err(_), Ok(_)) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_file_is_in_its_place_until_it_is_known_to_be_gone() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("run/x.slots");
        let parent = path.parent().expect("a directory");
        fs::create_dir(parent).expect("writable");
        let file = fs::File::create(&path).expect("writable");
        assert!(is_in_place(&path, &file));
        let other = fs::File::create(dir.path().join("other")).expect("writable");
        assert!(!is_in_place(&path, &other));
        fs::remove_dir_all(parent).expect("ours");
        assert!(!is_in_place(&path, &file));
        fs::write(parent, "").expect("writable");
        assert!(!is_in_place(&path, &file), "there is a file in the place of its directory");
        // A loop of links is what the kernel cannot follow: it says nothing of the file.
        fs::remove_file(parent).expect("ours");
        symlink(parent, parent).expect("writable");
        assert!(is_in_place(&path, &file));
    }

    #[test]
    fn the_directory_of_a_name_alone_is_the_working_directory() {
        for (path, parent) in [
            ("sealed", "."),
            ("", "."),
            ("a/b", "a"),
            ("./b", "."),
            ("/b", "/"),
            ("/", "/"),
            ("a/b/", "a"),
        ] {
            assert_eq!(parent_of(Path::new(path)), Path::new(parent), "{path}");
        }
    }

    #[test]
    fn one_file_under_two_names_is_found_however_they_are_made_the_same() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = |name: &str| dir.path().join(name);
        fs::create_dir(path("cache")).expect("writable");
        symlink(path("cache"), path("to-cache")).expect("writable");
        fs::write(path("cache/there"), "").expect("writable");
        fs::write(path("other"), "").expect("writable");
        fs::hard_link(path("cache/there"), path("hard")).expect("writable");
        symlink(path("cache/there"), path("soft")).expect("writable");
        symlink("soft", path("soft-of-soft")).expect("writable");
        symlink(path("cache/free"), path("dangling")).expect("writable");
        symlink("loop", path("loop")).expect("writable");
        let same = |a: &str, b: &str| {
            let (a, b) = (path(a), path(b));
            let within = find_same_file(&[("a", &a), ("b", &b)], []).is_some();
            let across = find_same_file(&[("a", &a)], [("b".to_owned(), b)]);
            assert_eq!(within, across.is_some());
            within
        };
        for name in ["cache/there", "to-cache/there", "hard", "soft", "soft-of-soft"] {
            assert!(same("cache/there", name), "{name}");
            assert!(!same("other", name), "{name}");
            assert!(!same("cache/free", name), "{name}");
        }
        for name in ["cache/free", "to-cache/free", "cache/../cache/free", "dangling"] {
            assert!(same("cache/free", name), "{name}");
            assert!(!same("cache/free2", name), "{name}");
        }
        // What can be no file is nothing that could be taken for another one.
        assert!(!same("loop", "loop") && !same("nowhere/x", "nowhere/x"));
    }

    #[test]
    fn a_path_that_would_be_removed_with_remains_is_found_itself_or_behind_links() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = |name: &str| dir.path().join(name);
        fs::create_dir(path("cache")).expect("writable");
        symlink(path("cache"), path("to-cache")).expect("writable");
        symlink(path("cache/x.old"), path("leads-there")).expect("writable");
        symlink(path("elsewhere"), path("cache/link.old")).expect("writable");
        let found = |name: &str| {
            let path = path(name);
            let goes = |name: &str| name.ends_with(".old");
            find_taken_for_remains(&[("out_path", &path)], &[&dir.path().join("cache")], goes)
        };
        for name in ["cache/a.old", "to-cache/a.old", "leads-there", "cache/link.old"] {
            let found = found(name).expect(name).to_string();
            assert!(found.starts_with("out_path /") && found.contains(".old is called"), "{found}");
        }
        for name in ["cache/a.new", "a.old", "to-cache", "nowhere/a.old"] {
            assert!(found(name).is_none(), "{name}");
        }
    }

    #[test]
    fn both_names_are_told() {
        let path = Path::new("/no-such-file");
        let found = find_same_file(&[("in_path", path), ("out_path", path)], []);
        let text = found.expect("the same").to_string();
        assert!(text.starts_with("in_path /no-such-file and out_path /no-such-file are"), "{text}");
    }
}
