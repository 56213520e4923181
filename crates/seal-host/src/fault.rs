//! Taking the pages of memory, by threads where it belongs.
//!
//! A page that cannot be had is an error here. Where a program just writes to such a page, the
//! kernel ends it.

use std::fs::File;
use std::io::{self, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use memmap2::{Advice, MmapMut};

use crate::{BindError, CpuSet, bind_current_thread, start_scoped};

/// A step in which pages are touched.
const STEP: usize = 64 << 20;

/// Why pages were not taken.
#[derive(Debug)]
pub(crate) enum FaultError {
    /// There are none.
    Pages(io::Error),
    /// A thread could not be put where it belongs.
    Thread(BindError),
    /// No thread could be started.
    NoThread(io::Error),
}

/// Takes all pages of `map`, by a thread on each of `cpus`. Calls `faulted` with the size of each
/// part that is done.
pub(crate) fn fault_in(
    map: &mut MmapMut,
    cpus: &CpuSet,
    faulted: &(dyn Fn(usize) + Sync),
) -> Result<(), FaultError> {
    let len = map.len();
    let step = |step: usize| (step * STEP, STEP.min(len - step * STEP));
    let populated = {
        let map = &*map;
        on_cpus(cpus, len.div_ceil(STEP), &|number| {
            let (offset, bytes) = step(number);
            populate(map, offset, bytes)?;
            faulted(bytes);
            Ok(())
        })
    };
    match populated {
        Err(FaultError::Pages(error)) if error.raw_os_error() == Some(libc::EINVAL) => {}
        done => return done,
    }
    // Kernels before 5.14 cannot populate.
    read_into(map, cpus, faulted)
}

/// Takes pages by having the kernel write zeros into them, which fails where there are none.
fn read_into(
    map: &mut MmapMut,
    cpus: &CpuSet,
    faulted: &(dyn Fn(usize) + Sync),
) -> Result<(), FaultError> {
    let steps: Vec<_> = map.chunks_mut(STEP).map(|chunk| Mutex::new(Some(chunk))).collect();
    on_cpus(cpus, steps.len(), &|number| {
        let chunk = steps[number].lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(chunk) = chunk else { return Ok(()) };
        File::open("/dev/zero")?.read_exact(chunk)?;
        faulted(chunk.len());
        Ok(())
    })
}

fn populate(map: &MmapMut, offset: usize, bytes: usize) -> io::Result<()> {
    loop {
        match map.advise_range(Advice::PopulateWrite, offset, bytes) {
            Err(error)
                if [Some(libc::EINTR), Some(libc::EAGAIN)].contains(&error.raw_os_error()) => {}
            done => return done,
        }
    }
}

/// Does steps 0 to `steps` with a thread on each of `cpus`, or one like the calling one.
fn on_cpus(
    cpus: &CpuSet,
    steps: usize,
    work: &(dyn Fn(usize) -> io::Result<()> + Sync),
) -> Result<(), FaultError> {
    let next = AtomicUsize::new(0);
    let take = || -> Result<(), FaultError> {
        loop {
            let step = next.fetch_add(1, Ordering::Relaxed);
            if step >= steps {
                return Ok(());
            }
            work(step).map_err(FaultError::Pages)?;
        }
    };
    if cpus.is_empty() {
        return take();
    }
    let bound = |cpu: u32| {
        bind_current_thread(cpu).map_err(FaultError::Thread)?;
        take()
    };
    std::thread::scope(|scope| {
        let start = |cpu| start_scoped(scope, "pages", move || bound(cpu));
        // Fewer threads take longer; without any there is nobody on the right node.
        let mut threads = Vec::new();
        for started in cpus.iter().map(start) {
            match started {
                Ok(thread) => threads.push(thread),
                Err(error) if threads.is_empty() => return Err(FaultError::NoThread(error)),
                Err(error) => {
                    tracing::debug!(%error, threads = threads.len(), "fewer threads take pages");
                    break;
                }
            }
        }
        threads.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn all_pages_are_taken_on_all_cpus_and_counted() {
        let cpus = crate::allowed_cpus().expect("always readable");
        for cpus in [CpuSet::default(), cpus] {
            let mut map = MmapMut::map_anon(STEP + 4096).expect("memory");
            let counted = AtomicU64::new(0);
            let count = |bytes| {
                counted.fetch_add(bytes as u64, Ordering::Relaxed);
            };
            fault_in(&mut map, &cpus, &count).expect("memory");
            assert_eq!(counted.into_inner(), (STEP + 4096) as u64);
        }
    }

    #[test]
    fn kernels_that_cannot_populate_read_into_the_pages() {
        let mut map = MmapMut::map_anon(STEP + 8192).expect("memory");
        let counted = AtomicU64::new(0);
        let count = |bytes| {
            counted.fetch_add(bytes as u64, Ordering::Relaxed);
        };
        let cpus = crate::allowed_cpus().expect("always readable");
        read_into(&mut map, &cpus, &count).expect("memory");
        assert_eq!(counted.into_inner(), (STEP + 8192) as u64);
        let nodes = crate::memory::percent_by_node(&map);
        assert!(nodes.is_none_or(|nodes| nodes.values().sum::<u8>() >= 99));
    }

    #[test]
    fn the_first_error_ends_it() {
        let failing = |step: usize| {
            if step == 3 { Err(io::Error::from_raw_os_error(libc::ENOMEM)) } else { Ok(()) }
        };
        let error = on_cpus(&CpuSet::default(), 10, &failing).unwrap_err();
        assert!(
            matches!(error, FaultError::Pages(error) if error.raw_os_error() == Some(libc::ENOMEM))
        );
    }
}
