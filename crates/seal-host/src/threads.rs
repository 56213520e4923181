//! Threads that may not be had.
//!
//! Limits of processes (`RLIMIT_NPROC`, pids limits of containers) and of memory (`RLIMIT_AS`) make
//! the start of a thread fail at any time. The plain ways to start one panic then, which would end
//! a process with all its tasks; here it is an error of the one task that wanted the thread.

use std::io;
use std::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle};

use memmap2::MmapOptions;

/// What a thread maps for its stack, as the standard library has it.
const STACK: usize = 2 << 20;
/// What one maps that does little, of which there may be many.
const SMALL_STACK: usize = 256 << 10;
/// What the standard library maps for a thread's signal stack before the thread does anything. It
/// ends the process where that cannot be had.
const SIGNAL_STACK: usize = 256 << 10;

/// Starts a thread.
pub fn start_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    start_with(STACK, name, work)
}

/// Starts a thread that needs little stack.
pub fn start_small_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    start_with(SMALL_STACK, name, work)
}

fn start_with<T: Send + 'static>(
    stack: usize,
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    has_room(stack)?;
    Builder::new().name(name.to_owned()).stack_size(stack).spawn(work)
}

/// Starts a thread of `scope`.
pub fn start_scoped<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    has_room(STACK)?;
    Builder::new().name(name.to_owned()).stack_size(STACK).spawn_scoped(scope, work)
}

/// Whether there is address space for the stacks of one more thread. Others may take it before the
/// thread does: then the process ends, but no longer wherever the last of it is used up.
fn has_room(stack: usize) -> io::Result<()> {
    MmapOptions::new().len(stack + SIGNAL_STACK).map_anon().map(drop)
}
