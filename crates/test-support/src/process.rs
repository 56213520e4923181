//! What the kernel counts of a running process, for benchmarks.

use std::fs;

/// Memory that a process has now, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Its own: anonymous pages, shared memory and huge pages.
    pub own: u64,
    /// Pages of files that it has mapped: the kernel can drop them, and processes share them.
    pub files: u64,
}

impl Memory {
    /// Of the process `pid`; `None` if it is gone.
    pub fn of(pid: u32) -> Option<Self> {
        Some(Self::read(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?))
    }

    fn read(status: &str) -> Self {
        let bytes = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let kib = value.and_then(|value| value.trim().strip_suffix(" kB")?.trim().parse().ok());
            kib.map_or(0, |kib: u64| kib << 10)
        };
        let own = ["RssAnon", "RssShmem", "HugetlbPages"].map(bytes).iter().sum();
        Self { own, files: bytes("RssFile") }
    }

    /// The larger of both, each for itself.
    pub fn max(self, other: Self) -> Self {
        Self { own: self.own.max(other.own), files: self.files.max(other.files) }
    }
}

/// Processor time, in nanoseconds, that the threads of `pid` have used whose names begin with
/// `prefix`. `None` if the kernel does not tell, or the process is gone.
pub fn thread_cpu_ns(pid: u32, prefix: &str) -> Option<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let dir = thread.ok()?.path();
        // A thread may end between two looks.
        let Ok(name) = fs::read_to_string(dir.join("comm")) else { continue };
        if name.starts_with(prefix) {
            let Ok(times) = fs::read_to_string(dir.join("schedstat")) else { return None };
            sum += times.split_whitespace().next()?.parse::<u64>().ok()?;
        }
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_memory_is_told_from_that_of_files() {
        let status = "VmHWM:\t  99 kB\nRssAnon:\t  12 kB\nRssFile:\t  5 kB\nRssShmem:\t  1 kB\n\
                      HugetlbPages:\t  2048 kB\n";
        assert_eq!(Memory::read(status), Memory { own: 2061 << 10, files: 5 << 10 });
        assert_eq!(Memory::read("nothing"), Memory::default());
    }

    #[test]
    fn this_process_has_memory_and_its_threads_use_the_processor() {
        let memory = Memory::of(std::process::id()).expect("it is running");
        assert!(memory.own > 0 && memory.files > 0, "{memory:?}");
        let busy = std::thread::Builder::new().name("busy-thread".to_owned()).spawn(|| {
            let began = std::time::Instant::now();
            while began.elapsed() < std::time::Duration::from_millis(50) {
                std::hint::spin_loop();
            }
            thread_cpu_ns(std::process::id(), "busy-")
        });
        let used = busy.expect("a thread").join().expect("no panic");
        // None where the kernel keeps no such statistics.
        assert!(used.is_none_or(|ns| ns > 0), "{used:?}");
        assert!(thread_cpu_ns(std::process::id(), "no-such-").is_none_or(|ns| ns == 0));
    }
}
