//! Limits and locks that hold across all supervisors sharing a runtime directory.
//!
//! A resource that so many tasks may hold has so many slot files (`lock-gpu1.0`, `limit-pc1.27`);
//! a task holds the kernel's lock on one of them. The kernel releases it when the holder dies,
//! however it dies, so nothing is ever left locked and nobody has to clean up.
//!
//! Who finds a resource taken looks again a few times a second. So that the one who has it does
//! not take it again and again in between, there is a turn (`lock-gpu1.turn`): slots are taken only
//! by the holder of the turn, who keeps it while it waits, unless it has just had its turn.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use seal_host::{FileError, FileLock};
use seal_limits::{Needs, Resource, Semaphores};

use crate::runtime_dir::{RuntimeDir, RuntimeDirError};

/// How often a supervisor looks again at a resource that another one holds.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// How long the last winner of a resource lets others wait for it first: long enough for each of
/// them to look twice.
const AFTER_YOU: Duration = Duration::from_millis(500);

/// What a running task holds. The kernel's locks end when this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Held {
    _slots: Vec<FileLock>,
}

/// The semaphores of one supervisor.
#[derive(Debug)]
pub(crate) struct SharedSemaphores {
    dir: RuntimeDir,
    counts: BTreeMap<Resource, NonZeroU32>,
    turns: BTreeMap<Resource, FileLock>,
    won: BTreeMap<Resource, Instant>,
    wanted: BTreeSet<Resource>,
    trouble: Option<String>,
}

impl SharedSemaphores {
    pub(crate) fn new(dir: RuntimeDir, counts: BTreeMap<Resource, NonZeroU32>) -> Self {
        let (turns, won) = (BTreeMap::new(), BTreeMap::new());
        Self { dir, counts, turns, won, wanted: BTreeSet::new(), trouble: None }
    }

    /// Ends a round of attempts: turns at resources that nobody here asked for are given up.
    pub(crate) fn end_round(&mut self) {
        let wanted = std::mem::take(&mut self.wanted);
        self.turns.retain(|resource, _| wanted.contains(resource));
    }

    fn take_all(&mut self, needs: &Needs) -> Result<Option<Held>, FileError> {
        let limited: Vec<_> = needs
            .iter()
            .filter_map(|need| self.counts.get(need).map(|count| (need.clone(), *count)))
            .collect();
        let mut slots = Vec::new();
        for (resource, count) in &limited {
            self.wanted.insert(resource.clone());
            if !self.turns.contains_key(resource) {
                match FileLock::try_take(&self.file(resource, "turn"))? {
                    Some(turn) => self.turns.insert(resource.clone(), turn),
                    None => return Ok(None),
                };
            }
            match self.take_slot(resource, *count)? {
                Some(slot) => slots.push(slot),
                None => return Ok(None),
            }
        }
        let now = Instant::now();
        for (resource, _) in limited {
            self.turns.remove(&resource);
            self.won.insert(resource, now);
        }
        Ok(Some(Held { _slots: slots }))
    }

    fn take_slot(
        &self,
        resource: &Resource,
        count: NonZeroU32,
    ) -> Result<Option<FileLock>, FileError> {
        for number in 0..count.get() {
            let slot = FileLock::try_take(&self.file(resource, &number.to_string()))?;
            if slot.is_some() {
                return Ok(slot);
            }
        }
        Ok(None)
    }

    /// Lets others wait first where this supervisor has just won.
    fn let_others_wait(&mut self) {
        let won = &self.won;
        self.turns.retain(|resource, _| {
            won.get(resource).is_none_or(|instant| instant.elapsed() > AFTER_YOU)
        });
    }

    fn file(&self, resource: &Resource, suffix: &str) -> PathBuf {
        let (kind, name) = match resource {
            Resource::Lock(name) => ("lock", name),
            Resource::Limit(name) => ("limit", name),
        };
        self.dir.path().join(format!("{kind}-{}.{suffix}", file_name(name)))
    }

    /// Says once what is wrong with the files, and makes their directory again if it was removed.
    fn recover(&mut self, error: &FileError) {
        let text = format!("{error}: {}", error.source);
        if self.trouble.as_ref() != Some(&text) {
            tracing::error!(error = text, "limits and locks cannot be used; tasks wait");
        }
        self.trouble = Some(text);
        if !self.dir.path().exists() {
            match reopen(&self.dir) {
                Ok(dir) => self.dir = dir,
                Err(error) => tracing::error!(%error, "the runtime directory cannot be made again"),
            }
        }
    }
}

fn reopen(dir: &RuntimeDir) -> Result<RuntimeDir, RuntimeDirError> {
    RuntimeDir::open(dir.path())
}

impl Semaphores for SharedSemaphores {
    type Held = Held;

    fn try_take(&mut self, needs: &Needs) -> Option<Held> {
        match self.take_all(needs) {
            Ok(Some(held)) => {
                self.trouble = None;
                Some(held)
            }
            Ok(None) => {
                self.let_others_wait();
                None
            }
            Err(error) => {
                self.turns.clear();
                self.recover(&error);
                None
            }
        }
    }
}

/// `name` as part of a file name: different names give different file names, and none leaves the
/// directory.
fn file_name(name: &str) -> String {
    let mut safe = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-') {
            safe.push(char::from(byte));
        } else {
            let _ = write!(safe, "%{byte:02x}");
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(name: &str) -> Resource {
        Resource::Lock(name.to_owned())
    }

    fn needs(names: &[&str]) -> Needs {
        names.iter().map(|name| lock(name)).collect()
    }

    /// A supervisor's view of locks that one task may hold at a time.
    fn supervisor(dir: &tempfile::TempDir, names: &[&str]) -> SharedSemaphores {
        let counts = names.iter().map(|name| (lock(name), NonZeroU32::MIN)).collect();
        SharedSemaphores::new(RuntimeDir::open(&dir.path().join("run")).expect("ours"), counts)
    }

    #[test]
    fn a_count_holds_across_supervisors() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let two = NonZeroU32::MIN.saturating_add(1);
        let open = || {
            let run = RuntimeDir::open(&dir.path().join("run")).expect("ours");
            SharedSemaphores::new(run, BTreeMap::from([(lock("gpu"), two)]))
        };
        let (mut one, mut other) = (open(), open());
        let first = one.try_take(&needs(&["gpu"])).expect("free");
        let _second = other.try_take(&needs(&["gpu"])).expect("one is left");
        assert!(one.try_take(&needs(&["gpu"])).is_none());
        drop(first);
        assert!(other.try_take(&needs(&["gpu"])).is_some());
    }

    #[test]
    fn nothing_is_held_when_something_is_missing() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut one = supervisor(&dir, &["a", "b"]);
        let mut other = supervisor(&dir, &["a", "b"]);
        let b = one.try_take(&needs(&["b"])).expect("free");
        assert!(other.try_take(&needs(&["a", "b"])).is_none());
        // The other one waits with its turn at `a` until its round ends without it.
        other.end_round();
        other.end_round();
        assert!(one.try_take(&needs(&["a"])).is_some());
        drop(b);
        assert!(other.try_take(&needs(&["a", "b"])).is_some());
    }

    #[test]
    fn who_waits_comes_before_who_has_just_had_it() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut greedy = supervisor(&dir, &["gpu"]);
        let mut patient = supervisor(&dir, &["gpu"]);
        let held = greedy.try_take(&needs(&["gpu"])).expect("free");
        // The winner wants it again at once, and does not keep the turn.
        assert!(greedy.try_take(&needs(&["gpu"])).is_none());
        assert!(patient.try_take(&needs(&["gpu"])).is_none());
        drop(held);
        assert!(greedy.try_take(&needs(&["gpu"])).is_none(), "the other one was first");
        let held = patient.try_take(&needs(&["gpu"])).expect("its turn");
        drop(held);
        assert!(greedy.try_take(&needs(&["gpu"])).is_some());
    }

    #[test]
    fn a_turn_is_given_up_by_who_no_longer_asks() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut one = supervisor(&dir, &["gpu"]);
        let mut gone = supervisor(&dir, &["gpu"]);
        let held = one.try_take(&needs(&["gpu"])).expect("free");
        assert!(gone.try_take(&needs(&["gpu"])).is_none());
        gone.end_round();
        drop(held);
        assert!(one.try_take(&needs(&["gpu"])).is_none(), "still asked for in that round");
        gone.end_round();
        assert!(one.try_take(&needs(&["gpu"])).is_some());
    }

    #[test]
    fn a_removed_directory_is_made_again() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut one = supervisor(&dir, &["gpu"]);
        std::fs::remove_dir_all(dir.path().join("run")).expect("ours");
        assert!(one.try_take(&needs(&["gpu"])).is_none());
        assert!(one.try_take(&needs(&["gpu"])).is_some());
    }

    #[test]
    fn names_become_file_names_that_stay_apart() {
        for (name, file) in
            [("gpu1", "gpu1"), ("gpu 1", "gpu%201"), ("../x", "%2e%2e%2fx"), ("a%20", "a%2520")]
        {
            assert_eq!(file_name(name), file);
        }
    }
}
