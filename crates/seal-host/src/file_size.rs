//! The limit on the size of files (`RLIMIT_FSIZE`).
//!
//! A write beyond it raises SIGXFSZ, which ends the process with all its tasks; where the signal is
//! ignored, the write fails with EFBIG and one task is told.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Whether the signal had its default action before this process ignored it.
static WAS_DEFAULT: AtomicBool = AtomicBool::new(false);

/// Lets writes beyond the limit fail instead of ending this process. Children that it starts have
/// the action that it had itself before.
pub fn ignore_file_size_signal() -> io::Result<()> {
    if set(SigHandler::SigIgn)?.handler() == SigHandler::SigDfl {
        WAS_DEFAULT.store(true, Ordering::Relaxed);
    }
    Ok(())
}

/// Whether children are to have the default action.
pub(crate) fn was_default() -> bool {
    WAS_DEFAULT.load(Ordering::Relaxed)
}

/// Gives the signal its default action. Async-signal-safe.
pub(crate) fn set_default() -> io::Result<()> {
    set(SigHandler::SigDfl).map(|_| ())
}

/// Async-signal-safe.
fn set(handler: SigHandler) -> io::Result<SigAction> {
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: sigaction(2) with `SigIgn` or `SigDfl` (all callers) installs no function that could
    // run at a bad moment; the structures it reads and writes are nix's own.
    unsafe { sigaction(Signal::SIGXFSZ, &action) }.map_err(io::Error::from)
}

/// The error of a write, with the limit if that is what it met.
pub(crate) fn told(error: io::Error) -> io::Error {
    if error.raw_os_error() != Some(libc::EFBIG) {
        return error;
    }
    match getrlimit(Resource::RLIMIT_FSIZE) {
        Ok((limit, _)) if limit != RLIM_INFINITY => io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!(
                "this process may write files of at most {limit} bytes; raise RLIMIT_FSIZE \
                 (ulimit -f, LimitFSIZE= of the unit)"
            ),
        ),
        _ => error,
    }
}
