//! By what others know that this supervisor lives: a file in the runtime directory
//! (`alive/sPID-CHANCE`) whose lock it holds, see [`seal_host::Alive`].
//!
//! What its executors start bears the file's name ([`crate::strays`]). The file is removed at an
//! orderly end, if all that executors left behind was found until then. Otherwise it is removed by
//! a supervisor that starts later and has ended what was left.
//!
//! The directory may be removed while supervisors run. Then each shows its life in the new one, and
//! tells there which directories it was in before: what was started then bears their marks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use seal_host::{
    Alive, FileError, Life, RuntimeDir, life_at, lives_in, parent_of, read_text, remake,
    unlike_others,
};

/// This supervisor's life.
#[derive(Debug)]
pub(crate) struct OwnLife {
    runtime_dir: PathBuf,
    path: PathBuf,
    alive: Alive,
    /// Its signs in directories that were removed, or moved away: whoever finds one there must not
    /// take this supervisor for dead.
    former: Vec<Alive>,
    /// Which directories it has been shown in, the present one last.
    scopes: Vec<String>,
    searches: Searches,
}

/// How many searches for what executors left behind have not found everything, or not yet. While
/// there are any, the file of the life has to outlive its supervisor.
#[derive(Clone, Debug, Default)]
pub(crate) struct Searches(Arc<AtomicUsize>);

impl Searches {
    pub(crate) fn begin(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    /// One has found everything.
    pub(crate) fn found_everything(&self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }

    fn are_open(&self) -> bool {
        self.0.load(Ordering::SeqCst) > 0
    }
}

/// Supervisors that have ended, by their names, and in which directories each has been.
pub(crate) type Ended = BTreeMap<String, BTreeSet<String>>;

/// Where the files are.
pub(crate) fn directory(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("alive")
}

/// Which directory that is, by whatever path somebody reaches it.
pub(crate) fn scope_of(runtime_dir: &Path) -> Option<String> {
    let meta = fs::metadata(runtime_dir).ok()?;
    Some(format!("{}-{}", meta.dev(), meta.ino()))
}

/// What stands first in such a file: which start of the machine and which pid namespace its
/// supervisor belongs to. It only tells who may remove the file.
pub(crate) fn told() -> String {
    let boot = read_text(Path::new("/proc/sys/kernel/random/boot_id")).unwrap_or_default();
    let namespace = seal_host::pid_namespace(Path::new("/proc"));
    let namespace = namespace.map_or_else(|| UNKNOWN.to_owned(), |number| number.to_string());
    format!("{} {namespace}\n", boot.trim())
}

/// In place of a pid namespace that is not told.
const UNKNOWN: &str = "unknown";

impl OwnLife {
    /// Begins to show it.
    pub(crate) fn begin(runtime_dir: &RuntimeDir) -> Result<Self, FileError> {
        let runtime_dir = runtime_dir.path().to_path_buf();
        let path = directory(&runtime_dir).join(unlike_others());
        let scopes: Vec<_> = scope_of(&runtime_dir).into_iter().collect();
        let alive = show(&path, &scopes)?;
        let (former, searches) = (Vec::new(), Searches::default());
        Ok(Self { runtime_dir, path, alive, former, scopes, searches })
    }

    /// The searches for what its executors left behind.
    pub(crate) fn searches(&self) -> &Searches {
        &self.searches
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }

    /// Shows it again where somebody has removed the directory. Returns whether that was so.
    pub(crate) fn renew(&mut self) -> Result<bool, FileError> {
        if self.alive.is_in_place() {
            return Ok(false);
        }
        remake(&self.runtime_dir)?;
        if let Some(scope) = scope_of(&self.runtime_dir) {
            self.scopes.retain(|known| *known != scope);
            self.scopes.push(scope);
        }
        let new = show(&self.path, &self.scopes)?;
        self.former.push(std::mem::replace(&mut self.alive, new));
        Ok(true)
    }
}

impl Drop for OwnLife {
    fn drop(&mut self) {
        if self.searches.are_open() {
            tracing::warn!(
                "not everything that executors left behind was found; the next supervisor looks \
                 for it"
            );
        } else if self.alive.is_in_place() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn show(path: &Path, scopes: &[String]) -> Result<Alive, FileError> {
    let dir = parent_of(path);
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(FileError::of("create", dir)(error))
        }
        _ => Alive::begin(path, &format!("{}{}\n", told(), scopes.join(" "))),
    }
}

/// The supervisors that have ended, of those known in `dir`, the directory of lives of the runtime
/// directory `scope`.
pub(crate) fn ended(dir: &Path, scope: &str) -> Ended {
    let paths = lives_in(dir).into_iter();
    let ended = paths.filter(|path| matches!(life_at(path), Life::Ended)).filter_map(|path| {
        let life = path.file_name()?.to_str()?.to_owned();
        let text = read_text(&path).ok()?;
        let been: Vec<_> = text.lines().nth(1).unwrap_or_default().split(' ').collect();
        let mut scopes = BTreeSet::from([scope.to_owned()]);
        // In a copy of a runtime directory no file is locked, whoever lives: such a file tells of
        // another directory than the one it is in.
        if been.last() == Some(&scope) {
            scopes.extend(been.into_iter().map(str::to_owned));
        }
        Some((life, scopes))
    });
    ended.collect()
}

/// Removes the files of supervisors that have ended, after all that they left was ended: those of
/// this pid namespace, whose processes are seen from here, and of earlier starts of the machine.
pub(crate) fn remove(dir: &Path, ended: &Ended) {
    let own = told();
    let (boot, namespace) = own.trim_end().split_once(' ').unwrap_or_default();
    for life in ended.keys() {
        let path = dir.join(life);
        let Ok(text) = read_text(&path) else { continue };
        let first = text.lines().next().unwrap_or_default();
        let there = first.split_once(' ').unwrap_or_default();
        if there.0 != boot || there.1 == namespace && namespace != UNKNOWN {
            let _ = fs::remove_file(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_shown_until_its_end_and_again_where_it_was_removed() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let run = RuntimeDir::open(&dir.path().join("run")).expect("ours");
        let mut life = OwnLife::begin(&run).expect("writable");
        let path = directory(run.path()).join(life.name());
        assert!(matches!(life_at(&path), Life::Lives));
        let scope = scope_of(run.path()).expect("there");
        assert_eq!(ended(&directory(run.path()), &scope), Ended::new(), "it lives");
        fs::remove_dir_all(directory(run.path())).expect("ours");
        assert!(life.renew().expect("made again") && !life.renew().expect("there"));
        fs::remove_dir_all(run.path()).expect("ours");
        assert!(life.renew().expect("made again, with all above it"));
        assert!(matches!(life_at(&path), Life::Lives));
        let text = fs::read_to_string(&path).expect("ours");
        let scopes: Vec<_> = text.lines().nth(1).expect("two lines").split(' ').collect();
        assert_eq!(scopes.last().copied(), scope_of(run.path()).as_deref());
        assert_eq!(scopes, life.scopes);
        drop(life);
        assert!(!path.exists());
    }

    #[test]
    fn only_the_dead_whose_processes_are_seen_are_forgotten() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let boot = told().split(' ').next().expect("told").to_owned();
        let texts = [told() + "1-2\n", format!("{boot} 1\n1-2\n"), "another 1\n".to_owned()];
        let paths = texts.map(|text| {
            let path = dir.path().join(unlike_others());
            fs::write(&path, text).expect("writable");
            path
        });
        let ended = ended(dir.path(), "1-2");
        assert_eq!(ended.len(), 3);
        remove(dir.path(), &ended);
        let [own, container, before] = paths.map(|path| path.exists());
        assert!(!own && container && !before);
    }
}
