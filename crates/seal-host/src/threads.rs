//! Threads that may not be had.
//!
//! Limits of processes (`RLIMIT_NPROC`, pids limits of containers) and of memory (`RLIMIT_AS`) make
//! the start of a thread fail at any time. The plain ways to start one panic then, which would end
//! a process with all its tasks; here it is an error of the one task that wanted the thread.

use std::io;
use std::thread::{Builder, Scope, ScopedJoinHandle};

/// Starts a thread of `scope`.
pub fn start_scoped<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    Builder::new().name(name.to_owned()).spawn_scoped(scope, work)
}
