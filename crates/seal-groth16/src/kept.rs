//! What is made for a sector size on first use and then kept.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;

use seal_types::SectorSize;

use crate::Groth16Error;
use crate::step::{At, LOOK_EVERY, ProveStep, step};

/// A slot for each sector size, filled or not.
pub(crate) type Slots<T> = Mutex<BTreeMap<SectorSize, Arc<Mutex<Option<Arc<T>>>>>>;

/// What is kept for a sector size, made on first use.
pub(crate) fn kept<T>(
    slots: &Slots<T>,
    sector_size: SectorSize,
    at: &mut At<'_>,
    make: impl FnOnce(&mut At<'_>) -> Result<T, Groth16Error>,
) -> Result<Arc<T>, Groth16Error> {
    let slot = lock(slots).entry(sector_size).or_default().clone();
    // Held while it is made: a second task of the same size waits instead of making it again.
    let mut slot = wait_for(&slot, &mut || step(at, ProveStep::Waiting { sector_size }))?;
    if let Some(there) = &*slot {
        return Ok(there.clone());
    }
    let made = Arc::new(make(at)?);
    *slot = Some(made.clone());
    Ok(made)
}

/// Whether there is something for a sector size, or it is just being made.
pub(crate) fn is_filled<T>(slots: &Slots<T>, sector_size: SectorSize) -> bool {
    let slot = lock(slots).get(&sector_size).cloned();
    slot.is_some_and(|slot| match slot.try_lock() {
        Ok(slot) => slot.is_some(),
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().is_some(),
        Err(TryLockError::WouldBlock) => true,
    })
}

/// Waits for what a mutex guards, and asks now and then whether to. As for [`lock`], a panic of
/// another leaves it whole.
pub(crate) fn wait_for<'m, T>(
    mutex: &'m Mutex<T>,
    go_on: &mut dyn FnMut() -> Result<(), Groth16Error>,
) -> Result<MutexGuard<'m, T>, Groth16Error> {
    loop {
        match mutex.try_lock() {
            Ok(guard) => return Ok(guard),
            Err(TryLockError::Poisoned(poisoned)) => return Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => {
                go_on()?;
                thread::sleep(LOOK_EVERY);
            }
        }
    }
}

/// What a panicking task leaves behind is whole: slots are only ever filled.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
