//! Wrong results are written down in the runtime directory, so that a core or device that repeats
//! is known after a restart, and to whoever looks at the machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use seal_host::{KeptLines, RuntimeDir};
use seal_options::Common;
use seal_types::Stage;
use seal_wire::{CORRUPTION_FILE, Corruption, ErrorCode, TaskError, to_line, wrong_devices};

use crate::runtime_dir::runtime_dir_path;

/// Records that could not be written and are kept in memory.
const UNWRITTEN_MOST: usize = 1000;

/// What is known of wrong results on this machine.
#[derive(Debug)]
pub struct CorruptionLog {
    stage: Stage,
    dir: PathBuf,
    /// What could not be written; it counts as long as this process lives.
    unwritten: Mutex<Vec<Corruption>>,
}

impl CorruptionLog {
    /// That in the runtime directory `dir`, for an executor of `stage`. The directory is made when
    /// there is something to be written.
    pub fn in_dir(stage: Stage, dir: &Path) -> Self {
        Self { stage, dir: dir.to_path_buf(), unwritten: Mutex::default() }
    }

    /// That in the runtime directory that is set.
    pub fn of(stage: Stage, common: &Common) -> Self {
        Self::in_dir(stage, &runtime_dir_path(common))
    }

    /// The file.
    pub fn path(&self) -> PathBuf {
        self.dir.join(CORRUPTION_FILE)
    }

    /// Writes down what was found, of `sector` if it is of one, and logs it.
    pub fn note(&self, sector: Option<&str>, found: Corruption) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let found = Corruption {
            at: now.as_secs(),
            stage: self.stage.name().to_owned(),
            sector: found.sector.or_else(|| sector.map(str::to_owned)),
            ..found
        };
        tracing::error!(
            kind = found.kind.name(),
            sector = found.sector,
            layer = found.layer,
            node = found.node,
            file = found.path,
            cpu = found.cpu,
            cpus = found.cpus,
            device = found.device,
            "a wrong result (docs/corruption.md says what to test): {}",
            found.what
        );
        if let Err(error) = self.write(&found) {
            tracing::warn!(
                "the wrong result is remembered by this process only: {}",
                error.message
            );
            let mut unwritten = self.unwritten();
            if unwritten.len() < UNWRITTEN_MOST {
                unwritten.push(found);
            }
        }
    }

    /// All that is known, the oldest first.
    pub fn all(&self) -> Vec<Corruption> {
        let mut all = Corruption::read_all(&KeptLines::at(&self.path()).read());
        all.extend(self.unwritten().iter().cloned());
        all
    }

    /// How often each GPU has computed wrongly, by model and UUID, and what is to be said of it.
    pub fn wrong_devices(&self) -> BTreeMap<String, (u64, String)> {
        let path = self.path();
        let told = |(device, found): (&str, Vec<&Corruption>)| {
            let count = found.len() as u64;
            let last = found.last().map_or("", |found| &found.what);
            let text = format!(
                "{count} wrong results of it are on record, the last one: {last}. When it is mended \
                 or replaced, remove {}",
                path.display()
            );
            (device.to_owned(), (count, text))
        };
        wrong_devices(&self.all()).into_iter().map(told).collect()
    }

    fn write(&self, found: &Corruption) -> Result<(), TaskError> {
        let opened = RuntimeDir::open(&self.dir)
            .map_err(|error| TaskError::from_error(ErrorCode::Io, &error))?;
        let lines = KeptLines::at(&opened.path().join(CORRUPTION_FILE));
        lines.add(&to_line(found)).map_err(|error| TaskError::from_error(ErrorCode::Io, &error))
    }

    fn unwritten(&self) -> std::sync::MutexGuard<'_, Vec<Corruption>> {
        self.unwritten.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use seal_wire::{CorruptionKind, cpus_left_out};

    fn label(cpu: u32) -> Corruption {
        Corruption { cpu: Some(cpu), ..Corruption::new(CorruptionKind::Label, "wrong") }
    }

    #[test]
    fn what_was_found_is_known_to_the_next_process_until_the_file_is_removed() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let run = dir.path().join("run");
        let log = CorruptionLog::in_dir(Stage::Pc1, &run);
        assert!(log.all().is_empty() && !run.exists());
        log.note(Some("s-t01000-1"), label(4));
        log.note(None, label(4));
        let next = CorruptionLog::in_dir(Stage::C2, &run);
        let all = next.all();
        assert_eq!(all[0].sector.as_deref(), Some("s-t01000-1"));
        assert_eq!((all[1].sector.as_deref(), &*all[1].stage), (None, "pc1"));
        assert_eq!(cpus_left_out(&all), [4].into());
        std::fs::remove_file(next.path()).expect("there");
        assert!(next.all().is_empty() && log.all().is_empty());
    }

    #[test]
    fn a_gpu_that_computed_wrongly_in_one_process_is_told_to_the_next_one() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let run = dir.path().join("run");
        let wrong = |what: &str| Corruption {
            device: Some("A100 (GPU-7)".to_owned()),
            ..Corruption::new(CorruptionKind::Device, what)
        };
        CorruptionLog::in_dir(Stage::Pc2, &run).note(None, wrong("row 3"));
        CorruptionLog::in_dir(Stage::C2, &run).note(None, wrong("row 4"));
        let next = CorruptionLog::in_dir(Stage::Pc2, &run);
        let (count, text) = next.wrong_devices()["A100 (GPU-7)"].clone();
        assert_eq!(count, 2);
        let file = next.path().display().to_string();
        assert!(text.contains("row 4") && text.contains(&format!("remove {file}")), "{text}");
        std::fs::remove_file(next.path()).expect("there");
        assert!(next.wrong_devices().is_empty());
    }

    #[test]
    fn what_cannot_be_written_counts_as_long_as_the_process_lives() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("file");
        std::fs::write(&file, "").expect("writable");
        let log = CorruptionLog::in_dir(Stage::Pc1, &file);
        log.note(None, label(4));
        assert_eq!(log.all().len(), 1);
        assert_eq!(log.all()[0].cpu, Some(4));
    }
}
