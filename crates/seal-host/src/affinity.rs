//! Which cpus a thread may run on, and which ones there are.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::mem::size_of_val;
use std::path::Path;

use crate::{CpuSet, FileError};

/// Bits of the masks given to the kernel: as many cpus as Linux can be built for.
const MASK_BITS: usize = 8192;

/// A set of cpus in the kernel's form. It owns no memory beyond itself, so it can be used between
/// fork and exec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CpuMask([u64; MASK_BITS / 64]);

impl CpuMask {
    /// The mask of a set, or `None` if a cpu is beyond what a mask holds.
    pub(crate) fn of(cpus: &CpuSet) -> Option<Self> {
        let mut mask = Self([0; MASK_BITS / 64]);
        for cpu in cpus.iter() {
            let cpu = cpu as usize;
            *mask.0.get_mut(cpu / 64)? |= 1 << (cpu % 64);
        }
        Some(mask)
    }

    /// Confines the calling thread. Async-signal-safe.
    pub(crate) fn apply(&self) -> io::Result<()> {
        self.apply_to(0)
    }

    /// Confines a thread; 0 is the calling one. Async-signal-safe.
    fn apply_to(&self, thread: libc::pid_t) -> io::Result<()> {
        // SAFETY: the pointer is to `self.0`, which is valid for reading the given number of bytes
        // during the call; the kernel reads a bit mask of any length and only that. Numbers of no
        // thread are an error.
        let result = unsafe {
            libc::sched_setaffinity(
                thread,
                size_of_val(&self.0),
                self.0.as_ptr().cast::<libc::cpu_set_t>(),
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// The cpus the calling thread is confined to. Async-signal-safe.
    pub(crate) fn current() -> io::Result<Self> {
        let mut mask = Self([0; MASK_BITS / 64]);
        // SAFETY: the pointer is to `mask.0`, which is valid for writing the given number of bytes
        // during the call; the kernel writes at most that many, and any bits are a valid mask.
        let result = unsafe {
            libc::sched_getaffinity(
                0,
                size_of_val(&mask.0),
                mask.0.as_mut_ptr().cast::<libc::cpu_set_t>(),
            )
        };
        if result == 0 { Ok(mask) } else { Err(io::Error::last_os_error()) }
    }

    fn cpus(&self) -> CpuSet {
        let bits = (0..MASK_BITS).filter(|bit| self.0[bit / 64] >> (bit % 64) & 1 == 1);
        bits.filter_map(|bit| u32::try_from(bit).ok()).collect()
    }
}

/// A thread that could not be put where it belongs.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The kernel refuses.
    #[error("cannot confine a thread to cpus {cpus}")]
    Refused {
        /// The cpus.
        cpus: CpuSet,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// The kernel grants something else.
    #[error(
        "a thread was to be confined to cpus {cpus}, but the kernel grants {granted}; they may be \
         switched off or outside this process's cgroup"
    )]
    NotGranted {
        /// The cpus.
        cpus: CpuSet,
        /// What was read back.
        granted: CpuSet,
    },
}

/// The cpus that the calling thread may use now: what its cgroup and its parent leave it.
pub fn allowed_cpus() -> io::Result<CpuSet> {
    CpuMask::current().map(|mask| mask.cpus())
}

/// Confines the calling thread to one cpu, and reads back that it is.
pub fn bind_current_thread(cpu: u32) -> Result<(), BindError> {
    confine_current_thread(&[cpu].into_iter().collect())
}

/// Confines the calling thread, and threads that it starts, to some cpus, and reads back that it
/// is.
pub fn confine_current_thread(cpus: &CpuSet) -> Result<(), BindError> {
    let refused = |source| BindError::Refused { cpus: cpus.clone(), source };
    let mask =
        CpuMask::of(cpus).ok_or_else(|| refused(io::Error::from_raw_os_error(libc::EINVAL)))?;
    mask.apply().map_err(refused)?;
    let granted = CpuMask::current().map_err(refused)?;
    // The kernel drops cpus it does not grant without an error.
    if granted == mask {
        Ok(())
    } else {
        Err(BindError::NotGranted { cpus: cpus.clone(), granted: granted.cpus() })
    }
}

/// Confines the threads that this process has now to the cpus of the calling one: for libraries
/// that start threads before `main`, when nobody has said yet where they belong.
pub fn confine_like_this_thread() -> io::Result<()> {
    let mask = CpuMask::current()?;
    let mut done = BTreeSet::new();
    // Threads that start meanwhile are found by another look: theirs are those of their parents.
    loop {
        let mut threads = threads()?;
        threads.retain(|thread| done.insert(*thread));
        if threads.is_empty() {
            return Ok(());
        }
        confine_all(&mask, &threads)?;
    }
}

fn threads() -> io::Result<Vec<libc::pid_t>> {
    let mut threads = Vec::new();
    for entry in fs::read_dir("/proc/self/task")? {
        let name = entry?.file_name();
        threads.extend(name.to_str().and_then(|name| name.parse::<libc::pid_t>().ok()));
    }
    Ok(threads)
}

fn confine_all(mask: &CpuMask, threads: &[libc::pid_t]) -> io::Result<()> {
    for thread in threads {
        match mask.apply_to(*thread) {
            // It has ended.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
            other => other?,
        }
    }
    Ok(())
}

/// The cpus that are switched on, from sysfs (`/sys` as `sys_root`). Where it is not mounted or
/// tells of no cpus, as in some containers, those that this process may use.
pub fn online_cpus(sys_root: &Path) -> Result<CpuSet, FileError> {
    let path = sys_root.join("devices/system/cpu/online");
    match read_cpu_set(&path) {
        Err(error) if error.source.kind() == io::ErrorKind::NotFound => {
            tracing::debug!("{} is not there; the cpus are those allowed", path.display());
            allowed_cpus().map_err(FileError::of("read", &path))
        }
        read => read,
    }
}

/// The cpus among `wanted` that the kernel lets this process use, whatever its present confinement:
/// asked by confining a thread that does nothing else.
pub fn grantable_cpus(wanted: &CpuSet) -> io::Result<CpuSet> {
    let Some(mask) = CpuMask::of(wanted) else {
        return Ok(CpuSet::default());
    };
    let ask = move || match mask.apply() {
        Ok(()) => CpuMask::current().map(|granted| granted.cpus()),
        // EINVAL: not a single cpu of the mask may be used.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(CpuSet::default()),
        Err(error) => Err(error),
    };
    let asker = crate::start_thread("cpu probe", ask)?;
    asker.join().unwrap_or_else(|_| Err(io::Error::other("the thread that asked panicked")))
}

pub(crate) fn read_cpu_set(path: &Path) -> Result<CpuSet, FileError> {
    let text = fs::read_to_string(path).map_err(FileError::of("read", path))?;
    CpuSet::from_kernel(&text)
        .map_err(|error| FileError::of("understand", path)(io::Error::other(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_fake_machine() {
        let sys = tempfile::tempdir().expect("a temporary directory");
        let cpu = sys.path().join("devices/system/cpu");
        fs::create_dir_all(&cpu).expect("writable");
        fs::write(cpu.join("online"), "0-95\n").expect("writable");
        assert_eq!(online_cpus(sys.path()).expect("readable").len(), 96);
        fs::write(cpu.join("online"), "many\n").expect("writable");
        let error = online_cpus(sys.path()).unwrap_err();
        assert_eq!(error.verb, "understand");
    }

    #[test]
    fn the_kernel_grants_only_cpus_there_are() {
        let current = CpuMask::current().expect("always readable").cpus();
        let first: CpuSet = current.iter().take(1).collect();
        let wanted: CpuSet = first.iter().chain([8000, 8001]).collect();
        assert_eq!(grantable_cpus(&wanted).expect("asked"), first);
        assert!(grantable_cpus(&[8000].into_iter().collect()).expect("asked").is_empty());
        assert!(grantable_cpus(&[1 << 30].into_iter().collect()).expect("asked").is_empty());
        assert_eq!(CpuMask::current().expect("always readable").cpus(), current);
    }

    #[test]
    fn a_thread_is_bound_or_there_is_an_error() {
        let allowed = allowed_cpus().expect("always readable");
        for cpu in allowed.iter() {
            let bound = std::thread::spawn(move || {
                bind_current_thread(cpu).expect("one of the allowed cpus");
                allowed_cpus().expect("always readable")
            });
            assert_eq!(bound.join().expect("no panic"), [cpu].into_iter().collect());
        }
        assert_eq!(allowed_cpus().expect("always readable"), allowed);
        let refused = bind_current_thread(8000).unwrap_err();
        assert_eq!(refused.to_string(), "cannot confine a thread to cpus 8000");
        let first = allowed.iter().next().expect("a thread runs somewhere");
        let partly = std::thread::spawn(move || {
            confine_current_thread(&[first, 8000].into_iter().collect()).unwrap_err().to_string()
        });
        let text = partly.join().expect("no panic");
        assert!(text.contains(&format!("confined to cpus {first},8000")), "{text}");
        assert!(text.contains(&format!("grants {first};")), "{text}");
    }

    #[test]
    fn threads_of_others_are_confined_and_those_that_ended_are_passed_over() {
        let all = CpuMask::current().expect("always readable");
        let first = all.cpus().iter().next().expect("a thread runs somewhere");
        let one: CpuSet = [first].into_iter().collect();
        let (tell, told) = std::sync::mpsc::channel();
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || {
            tell.send(nix::unistd::gettid().as_raw()).expect("the test waits");
            gone.recv().expect("the test goes on");
            allowed_cpus().expect("always readable")
        });
        let thread = told.recv().expect("it tells");
        assert!(threads().expect("readable").contains(&thread));
        let mask = CpuMask::of(&one).expect("within the mask");
        // Above what the kernel counts threads by.
        confine_all(&mask, &[thread, 1 << 23]).expect("one of ours, and none");
        go.send(()).expect("it waits");
        assert_eq!(other.join().expect("no panic"), one);
        assert_eq!(CpuMask::current().expect("always readable"), all, "nobody else");
    }

    #[test]
    fn masks_and_sets_say_the_same() {
        let cpus: CpuSet = [0, 63, 64, 8191].into_iter().collect();
        assert_eq!(CpuMask::of(&cpus).expect("within the mask").cpus(), cpus);
        assert_eq!(CpuMask::of(&[8192].into_iter().collect()), None);
    }
}
