//! What processes hold in the runtime directory, and hold again when that was removed.
//!
//! A lock is on a file, and is gone with its name: whoever comes later makes another file, and finds
//! nothing locked there. So a thread looks, as long as anything is held, whether each file is still
//! in its place, and takes in the new one what was held in the old one. Whoever finds no file and
//! makes it leaves the others some time for that ([`wait_for_keepers`]).

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use crate::runtime_dir::slots_in;
use crate::{FileError, Slots};

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Something that is held by a file.
pub(crate) trait Kept: Debug + Send + Sync {
    /// Holds it again if its file is not in its place. Nothing after it was given up.
    fn renew(&self) -> Result<(), FileError>;
}

#[derive(Debug)]
struct Keeper {
    held: Vec<Weak<dyn Kept>>,
    runs: bool,
    /// The last failure, told once.
    trouble: Option<String>,
}

static KEEPER: Mutex<Keeper> = Mutex::new(Keeper { held: Vec::new(), runs: false, trouble: None });

fn keeper() -> MutexGuard<'static, Keeper> {
    KEEPER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looks after what is held until the last that knows of it drops it.
pub(crate) fn keep(held: Weak<dyn Kept>) {
    let mut keeper = keeper();
    keeper.held.push(held);
    if !keeper.runs {
        match thread::Builder::new().name("keeper".to_owned()).spawn(look_after) {
            Ok(_) => keeper.runs = true,
            Err(error) => tracing::warn!(
                %error,
                "no thread looks whether the runtime directory is removed; what this process holds \
                 there would be lost with it"
            ),
        }
    }
}

/// To be called by whoever has just made a file because there was none: those that held something in
/// one that was removed take it again first.
pub(crate) fn wait_for_keepers() {
    thread::sleep(LOOK_EVERY * 3);
}

fn look_after() {
    loop {
        thread::sleep(LOOK_EVERY);
        let mut keeper = keeper();
        keeper.held.retain(|held| held.strong_count() > 0);
        if keeper.held.is_empty() {
            keeper.runs = false;
            return;
        }
        let held: Vec<_> = keeper.held.iter().filter_map(Weak::upgrade).collect();
        drop(keeper);
        let failed = held.iter().filter_map(|held| held.renew().err()).next();
        let told = failed.map(|error| format!("{error}: {}", error.source));
        let mut keeper = self::keeper();
        if told != keeper.trouble {
            if let Some(error) = &told {
                tracing::error!(
                    error,
                    "the runtime directory was removed, and what this process holds there cannot \
                     be held again; it is tried on"
                );
            }
            keeper.trouble = told;
        }
    }
}

/// Slots of a file in a runtime directory, all or none of them, until this is dropped.
#[derive(Debug)]
pub(crate) struct KeptSlots(Arc<Held>);

#[derive(Debug)]
struct Held {
    runtime_dir: PathBuf,
    name: &'static str,
    numbers: Vec<u32>,
    /// `None` once they are given up.
    slots: Mutex<Option<Slots>>,
}

impl KeptSlots {
    /// Takes them, or none if some of them are taken, by this process or another one.
    pub(crate) fn try_take(
        runtime_dir: &Path,
        name: &'static str,
        numbers: Vec<u32>,
    ) -> Result<Option<Self>, FileError> {
        let mut slots = open(runtime_dir, name)?;
        loop {
            for number in &numbers {
                if !slots.try_take(*number)? {
                    return Ok(None);
                }
            }
            // It may have been removed since it was opened.
            if slots.is_in_place() {
                break;
            }
            slots = open(runtime_dir, name)?;
        }
        let (runtime_dir, slots) = (runtime_dir.to_path_buf(), Mutex::new(Some(slots)));
        let held = Arc::new(Held { runtime_dir, name, numbers, slots });
        let weak: Weak<Held> = Arc::downgrade(&held);
        keep(weak);
        Ok(Some(Self(held)))
    }
}

fn open(runtime_dir: &Path, name: &str) -> Result<Slots, FileError> {
    let is_new = !runtime_dir.join(name).exists();
    let slots = slots_in(runtime_dir, name)?;
    if is_new {
        wait_for_keepers();
    }
    Ok(slots)
}

impl Drop for KeptSlots {
    fn drop(&mut self) {
        // The thread may have the rest in its hands just now.
        self.0.slots().take();
    }
}

impl Held {
    fn slots(&self) -> MutexGuard<'_, Option<Slots>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept for Held {
    fn renew(&self) -> Result<(), FileError> {
        let mut held = self.slots();
        if held.as_ref().is_none_or(Slots::is_in_place) {
            return Ok(());
        }
        let slots = slots_in(&self.runtime_dir, self.name)?;
        for number in &self.numbers {
            if !slots.try_take(*number)? {
                let name = self.name;
                tracing::error!(name, number, "another process has what this one still uses");
            }
        }
        *held = Some(slots);
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Instant;

    use super::*;

    /// Removes a runtime directory and waits until so many slots of this file are held again.
    pub(crate) fn remove_and_await(runtime_dir: &Path, name: &str, count: usize) {
        std::fs::remove_dir_all(runtime_dir).expect("ours");
        let begin = Instant::now();
        let held = || {
            let slots = Slots::open_to_look(&runtime_dir.join(name)).expect("readable")?;
            Some(slots.held_by_others(1024).expect("lockable").len())
        };
        while held() != Some(count) {
            assert!(begin.elapsed().as_secs() < 60, "nobody holds {name} again");
            thread::yield_now();
        }
    }

    #[test]
    fn what_was_given_up_is_not_taken_again() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let run = crate::RuntimeDir::open(&dir.path().join("run")).expect("ours");
        let take = || KeptSlots::try_take(run.path(), "x.slots", vec![1, 2]).expect("lockable");
        let held = take().expect("free");
        let inside = Arc::clone(&held.0);
        drop(held);
        std::fs::remove_dir_all(run.path()).expect("ours");
        inside.renew().expect("nothing to do");
        assert!(!run.path().exists());
        assert!(take().is_some());
    }
}
