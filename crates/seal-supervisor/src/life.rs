//! By what others know that this supervisor lives: a file in the runtime directory
//! (`alive/sPID-CHANCE`) whose lock it holds, see [`seal_host::Alive`].
//!
//! What its executors start bears the file's name ([`crate::strays`]). The file is removed at an
//! orderly end, or by a supervisor that starts later and has ended what was left.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use seal_host::{
    Alive, FileError, Life, RuntimeDir, life_at, lives_in, parent_of, read_text, remake,
    unlike_others,
};

/// This supervisor's life.
#[derive(Debug)]
pub(crate) struct OwnLife {
    path: PathBuf,
    alive: Alive,
}

/// Where the files are.
pub(crate) fn directory(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("alive")
}

/// What stands in such a file: which start of the machine and which pid namespace its supervisor
/// belongs to. It only tells who may remove the file.
pub(crate) fn told() -> String {
    let boot = read_text(Path::new("/proc/sys/kernel/random/boot_id")).unwrap_or_default();
    let namespace = seal_host::pid_namespace(Path::new("/proc")).unwrap_or_default();
    format!("{} {namespace}\n", boot.trim())
}

impl OwnLife {
    /// Begins to show it.
    pub(crate) fn begin(runtime_dir: &RuntimeDir) -> Result<Self, FileError> {
        let path = directory(runtime_dir.path()).join(unlike_others());
        let alive = show(&path)?;
        Ok(Self { path, alive })
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
        if let Some(runtime_dir) = self.path.ancestors().nth(2) {
            remake(runtime_dir)?;
        }
        self.alive = show(&self.path)?;
        Ok(true)
    }
}

impl Drop for OwnLife {
    fn drop(&mut self) {
        if self.alive.is_in_place() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn show(path: &Path) -> Result<Alive, FileError> {
    let dir = parent_of(path);
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(FileError::of("create", dir)(error))
        }
        _ => Alive::begin(path, &told()),
    }
}

/// Removes the files of supervisors that have ended, after all that they left was ended: those of
/// this pid namespace, whose processes are seen from here, and of earlier starts of the machine.
pub(crate) fn remove_ended(dir: &Path) {
    let own = told();
    let boot = own.split(' ').next();
    for path in lives_in(dir) {
        if !matches!(life_at(&path), Life::Ended) {
            continue;
        }
        let Ok(told) = read_text(&path) else { continue };
        if told == own || told.split(' ').next() != boot {
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
        remove_ended(&directory(run.path()));
        assert!(path.exists(), "it lives");
        fs::remove_dir_all(directory(run.path())).expect("ours");
        assert!(life.renew().expect("made again") && !life.renew().expect("there"));
        fs::remove_dir_all(run.path()).expect("ours");
        assert!(life.renew().expect("made again, with all above it"));
        assert!(matches!(life_at(&path), Life::Lives));
        drop(life);
        assert!(!path.exists());
    }

    #[test]
    fn only_the_dead_whose_processes_are_seen_are_forgotten() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let boot = told().split(' ').next().expect("told").to_owned();
        let texts = [told(), format!("{boot} 1\n"), "another 1\n".to_owned()];
        let paths = texts.map(|text| {
            let path = dir.path().join(unlike_others());
            fs::write(&path, text).expect("writable");
            path
        });
        remove_ended(dir.path());
        let [own, container, before] = paths.map(|path| path.exists());
        assert!(!own && container && !before);
    }
}
