//! How much of a core a thread gets when others want it too.

use std::io;

/// Lets the calling thread, and threads that it starts, take turns with threads of the usual
/// priority less often: at `nice` 5 about a quarter of a core that is wanted all the time, all of
/// it where nobody else wants it. On Linux niceness belongs to a thread, other than POSIX says.
///
/// # Errors
/// What the operating system says.
pub fn yield_to_others(nice: u8) -> io::Result<()> {
    // SAFETY: `setpriority` takes numbers only; 0 is the calling thread.
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, i32::from(nice)) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Field 19 of the thread's line in /proc, counted behind the name.
    fn niceness() -> i32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("readable");
        let (_, fields) = stat.rsplit_once(')').expect("a name");
        fields
            .split_ascii_whitespace()
            .nth(16)
            .and_then(|nice| nice.parse().ok())
            .expect("a number")
    }

    #[test]
    fn only_the_calling_thread_yields() {
        let before = niceness();
        let yielding = std::thread::spawn(|| {
            yield_to_others(15).expect("lowering is always allowed");
            niceness()
        });
        assert_eq!(yielding.join().expect("no panic"), 15);
        assert_eq!(niceness(), before);
    }
}
