//! What processes hold in the runtime directory, and hold again when that was removed.
//!
//! A lock is on a file, and is gone with its name: whoever comes later makes another file, and
//! finds nothing locked there. So a thread looks, as long as anything is held, whether each file is
//! still in its place, and takes in the new one what was held in the old one. Whoever comes to a
//! file that is new leaves the others some time for that ([`wait_for_keepers`]).

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
        match crate::start_thread("keeper", look_after) {
            Ok(_) => keeper.runs = true,
            Err(error) => tracing::warn!(
                %error,
                "no thread looks whether the runtime directory is removed; what this process holds \
                 there would be lost with it"
            ),
        }
    }
}

/// How long those that held something in a file that was removed have to take it again in the new
/// one.
const MAKING_ANEW: Duration = LOOK_EVERY.saturating_mul(4);

/// To be called by whoever comes to a file that is never written: where it is so new that it may have
/// been made in the place of one that was removed, those that held something there come first.
pub(crate) fn wait_for_keepers(file: &Path) {
    let age = std::fs::metadata(file).and_then(|file| file.modified());
    let age = age.ok().and_then(|made| made.elapsed().ok()).unwrap_or_default();
    thread::sleep(MAKING_ANEW.saturating_sub(age));
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
    slots: Mutex<Option<InHand>>,
}

/// What is held of the slots.
#[derive(Debug)]
struct InHand {
    slots: Slots,
    /// What another process has taken in a new file, until it gives that up.
    missing: Vec<u32>,
    /// Those in files that were removed, or moved away and may come back.
    former: Vec<Slots>,
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
        let in_hand = InHand { slots, missing: Vec::new(), former: Vec::new() };
        let (runtime_dir, slots) = (runtime_dir.to_path_buf(), Mutex::new(Some(in_hand)));
        let held = Arc::new(Held { runtime_dir, name, numbers, slots });
        let weak: Weak<Held> = Arc::downgrade(&held);
        keep(weak);
        Ok(Some(Self(held)))
    }
}

fn open(runtime_dir: &Path, name: &str) -> Result<Slots, FileError> {
    let slots = slots_in(runtime_dir, name)?;
    wait_for_keepers(&runtime_dir.join(name));
    Ok(slots)
}

impl Drop for KeptSlots {
    fn drop(&mut self) {
        // The thread may have the rest in its hands just now.
        self.0.slots().take();
    }
}

impl Held {
    fn slots(&self) -> MutexGuard<'_, Option<InHand>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept for Held {
    fn renew(&self) -> Result<(), FileError> {
        let mut held = self.slots();
        let Some(held) = held.as_mut() else { return Ok(()) };
        let was_missing = if held.slots.is_in_place() {
            held.missing.len()
        } else {
            let new = slots_in(&self.runtime_dir, self.name)?;
            held.former.push(std::mem::replace(&mut held.slots, new));
            held.missing.clone_from(&self.numbers);
            0
        };
        let mut failed = None;
        let slots = &mut held.slots;
        held.missing.retain(|number| match slots.try_take(*number) {
            Ok(taken) => !taken,
            Err(error) => {
                failed = Some(error);
                true
            }
        });
        if held.missing.len() > was_missing && failed.is_none() {
            let (name, missing) = (self.name, &held.missing);
            tracing::error!(name, ?missing, "another process has what this one still uses");
        }
        failed.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Instant;

    use super::*;

    /// Removes a runtime directory and waits until so many slots of this file are held again.
    pub(crate) fn remove_and_await(runtime_dir: &Path, name: &str, count: usize) {
        // What is held may be held again at once, in the midst of a removal.
        let away = runtime_dir.with_extension("away");
        std::fs::rename(runtime_dir, &away).expect("ours");
        std::fs::remove_dir_all(away).expect("ours");
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
