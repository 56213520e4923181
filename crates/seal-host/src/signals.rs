//! Which signals ask this process to end.
//!
//! Whoever starts a process may have it ignore signals, as `nohup` does with SIGHUP and a shell
//! without job control with SIGINT and `&`; the kernel hands that down through exec. A process that
//! then installs handlers, or waits for these signals, takes back what was asked for on purpose.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};

/// The signals by which a session, a terminal or a service manager asks a process to end.
const ENDING: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];

/// Those of SIGTERM, SIGINT and SIGHUP that this process does not ignore. To be asked before
/// anything is done about them: what is ignored now was so at the start, and stays ignored.
pub fn ending_signals() -> io::Result<Vec<Signal>> {
    let mut heeded = Vec::new();
    for signal in ENDING {
        if is_ignored(signal)? {
            tracing::info!(%signal, "ignored since the start of the process; it stays ignored");
        } else {
            heeded.push(signal);
        }
    }
    Ok(heeded)
}

/// Lets the signals of [`ending_signals`] reach this thread and those that it starts: a mask of
/// blocked signals is inherited like what is ignored, but nobody means it, and a process that can
/// only be killed loses what it could have answered.
pub fn unblock(signals: &[Signal]) -> io::Result<()> {
    Ok(signals.iter().copied().collect::<SigSet>().thread_unblock()?)
}

/// Whether this process ignores `signal`.
fn is_ignored(signal: Signal) -> io::Result<bool> {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: the second argument is null, so nothing is changed; the third points to memory of
    // this function of the type that the call writes, and lives until it has returned.
    let asked = unsafe { libc::sigaction(signal as i32, ptr::null(), action.as_mut_ptr()) };
    Errno::result(asked)?;
    // SAFETY: all bytes were zero, which is a value of each field (integers, a mask of integers
    // and an optional function), and the call has succeeded and written the action over them.
    let action = unsafe { action.assume_init() };
    Ok(action.sa_sigaction == libc::SIG_IGN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_rust_runtime_ignores_is_seen_and_the_rest_is_not() {
        assert!(is_ignored(Signal::SIGPIPE).expect("asked"));
        assert!(!is_ignored(Signal::SIGUSR2).expect("asked"));
    }

    #[test]
    fn a_signal_that_was_blocked_can_be_had_again() {
        let blocked = |signal| SigSet::thread_get_mask().expect("asked").contains(signal);
        let mut set = SigSet::empty();
        set.add(Signal::SIGUSR2);
        set.thread_block().expect("ours");
        assert!(blocked(Signal::SIGUSR2));
        unblock(&[Signal::SIGUSR2]).expect("ours");
        assert!(!blocked(Signal::SIGUSR2));
    }
}
