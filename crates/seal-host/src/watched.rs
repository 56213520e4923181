//! Memory maps of files that others can cut: a page that is gone fails the map, not the process.
//!
//! A page of a mapped file that the file does not have any more, or that cannot be read, reaches
//! the thread that touches it as SIGBUS, whose default is the end of the process with everything in
//! it. Here a handler looks the address up among the maps that are watched, notes that this map has
//! failed, puts zeros in the place of what is gone and lets the thread go on. What it computes from
//! then on is wrong, so whoever reads a watched map asks for its fault before a result is believed.
//! Every other SIGBUS is handed to whoever had the signal before, which as a rule is the end of the
//! process.
//!
//! Why this is sound:
//! - The handler changes memory only where a live [`Watched`] owns the map. It acts on the fault of
//!   a thread that reads through a borrow of that map, so the map can be neither dropped nor moved
//!   until the handler has returned. A slot that is being changed (its version is odd, or another
//!   one afterwards) belongs to some other map, and is passed over.
//! - It is async-signal-safe: it reads atomics in slots that are never freed, and makes system calls
//!   (mmap, sigaction, raise). It takes no lock, allocates nothing and leaves `errno` as it was.
//! - Pages beyond the end of a file cannot be read by anybody, so zeros in their place change no
//!   byte that a thread could have seen. Where a page cannot be read for another reason, the pages
//!   after it change under their readers, as they would if the file was written to: `memmap2`'s
//!   caveat, with the same answer, that nothing read from a failed map is believed.
//! - The fault is noted before the zeros are there: one system call, which orders memory, lies
//!   between. Who has read such zeros, or a result of one who has, sees the note.
//! - It runs on the alternate stack that the standard library gives each thread, and SIGBUS is held
//!   back meanwhile, so that a fault of its own ends the process. A thread that has SIGBUS blocked
//!   while it reads a map is ended by the kernel, as without a handler. `exec` resets the handler;
//!   a child between fork and exec reads no map.
//! - Memory that has failed in the machine (BUS_MCEERR) is a fault of its own. A notice that comes
//!   ahead of any access can reach any thread at any time, also while the map is dropped: then the
//!   fault is noted and no memory is changed.

use std::io;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use libc::{c_int, c_void, siginfo_t};
use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction};

/// A page beyond the end of the file, or one that cannot be read.
const BUS_ADRERR: c_int = 2;
/// Memory that a thread reads has failed.
const BUS_MCEERR_AR: c_int = 4;
/// Memory has failed, and nobody has read it yet.
const BUS_MCEERR_AO: c_int = 5;

/// What became of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MapFault {
    /// A page was not there, or could not be read.
    Gone,
    /// The memory of a page has failed.
    Memory,
}

/// What the handler knows of a map. Slots are used again and never freed.
#[derive(Debug, Default)]
struct Slot {
    /// Odd while the range is changed.
    version: AtomicUsize,
    /// The range; empty if nobody has the slot.
    start: AtomicUsize,
    end: AtomicUsize,
    /// The size of its pages.
    page: AtomicUsize,
    writable: AtomicBool,
    /// [`GONE`] and [`MEMORY`].
    faults: AtomicU8,
    next: OnceLock<&'static Slot>,
}

const GONE: u8 = 1;
const MEMORY: u8 = 2;

/// A range as the handler needs it.
#[derive(Clone, Copy, Debug)]
struct Range {
    start: usize,
    end: usize,
    page: usize,
    writable: bool,
}

static FIRST: OnceLock<&'static Slot> = OnceLock::new();
/// Held by those who take or give up slots, never by the handler.
static CHANGES: Mutex<()> = Mutex::new(());
/// Who had the signal before.
static BEFORE: OnceLock<SigAction> = OnceLock::new();

impl Slot {
    /// The range, if it is not being changed. All accesses are in one order that all threads
    /// agree on, so between two equal, even versions nothing was changed.
    fn range(&self) -> Option<Range> {
        let version = self.version.load(Ordering::SeqCst);
        let range = Range {
            start: self.start.load(Ordering::SeqCst),
            end: self.end.load(Ordering::SeqCst),
            page: self.page.load(Ordering::SeqCst),
            writable: self.writable.load(Ordering::SeqCst),
        };
        let whole = version.is_multiple_of(2) && self.version.load(Ordering::SeqCst) == version;
        (whole && range.start < range.end).then_some(range)
    }

    /// Only under [`CHANGES`].
    fn set(&self, range: Range) {
        self.version.fetch_add(1, Ordering::SeqCst);
        self.start.store(range.start, Ordering::SeqCst);
        self.end.store(range.end, Ordering::SeqCst);
        self.page.store(range.page, Ordering::SeqCst);
        self.writable.store(range.writable, Ordering::SeqCst);
        self.faults.store(0, Ordering::SeqCst);
        self.version.fetch_add(1, Ordering::SeqCst);
    }

    fn is_free(&self) -> bool {
        self.start.load(Ordering::SeqCst) == self.end.load(Ordering::SeqCst)
    }

    /// Takes a free slot for `range`, a new one if there is none.
    fn take(range: Range) -> &'static Self {
        let _alone = CHANGES.lock().unwrap_or_else(PoisonError::into_inner);
        let mut place = &FIRST;
        loop {
            let slot: &'static Self = place.get_or_init(|| Box::leak(Box::default()));
            if slot.is_free() {
                slot.set(range);
                return slot;
            }
            place = &slot.next;
        }
    }

    fn give_up(&self) {
        let _alone = CHANGES.lock().unwrap_or_else(PoisonError::into_inner);
        self.set(Range { start: 0, end: 0, page: 1, writable: false });
    }
}

/// A memory map whose missing pages do not end the process. Derefs to the map.
#[derive(Debug)]
pub(crate) struct Watched<M> {
    slot: Option<&'static Slot>,
    map: M,
}

impl<M: AsRef<[u8]>> Watched<M> {
    /// A map in pages of `page` bytes.
    pub(crate) fn new(map: M, page: usize, writable: bool) -> io::Result<Self> {
        install()?;
        let bytes = map.as_ref();
        let start = bytes.as_ptr().addr();
        if bytes.is_empty() {
            return Ok(Self::unwatched(map));
        }
        let end = start + bytes.len().next_multiple_of(page);
        Ok(Self { slot: Some(Slot::take(Range { start, end, page, writable })), map })
    }
}

impl<M> Watched<M> {
    /// A map that no file can take pages from.
    pub(crate) fn unwatched(map: M) -> Self {
        Self { slot: None, map }
    }

    /// What became of it; looked at without a lock or a system call.
    #[inline]
    pub(crate) fn fault(&self) -> Option<MapFault> {
        match self.slot?.faults.load(Ordering::Acquire) {
            0 => None,
            GONE => Some(MapFault::Gone),
            _ => Some(MapFault::Memory),
        }
    }
}

impl<M> Drop for Watched<M> {
    fn drop(&mut self) {
        // Nobody reads it any more, and it is unmapped after this.
        if let Some(slot) = self.slot {
            slot.give_up();
        }
    }
}

impl<M> Deref for Watched<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.map
    }
}

impl<M> DerefMut for Watched<M> {
    fn deref_mut(&mut self) -> &mut M {
        &mut self.map
    }
}

/// The size of the pages in which this kernel maps files of a disk.
pub(crate) fn file_page() -> usize {
    // SAFETY: it only answers a question.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(page).unwrap_or(4096)
}

/// Installs the handler, once.
fn install() -> io::Result<()> {
    let _alone = CHANGES.lock().unwrap_or_else(PoisonError::into_inner);
    if BEFORE.get().is_none() {
        let flags = SaFlags::SA_SIGINFO | SaFlags::SA_ONSTACK | SaFlags::SA_RESTART;
        let ours = SigAction::new(SigHandler::SigAction(on_bus_error), flags, SigSet::empty());
        // SAFETY: `on_bus_error` does only what a handler may: see the head of this file.
        let before = unsafe { sigaction(Signal::SIGBUS, &ours) }?;
        BEFORE.get_or_init(|| before);
    }
    Ok(())
}

extern "C" fn on_bus_error(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let errno = Errno::last_raw();
    // SAFETY: the kernel calls this with the information of the signal, which lives as long as
    // the call (SA_SIGINFO is set).
    let about = unsafe { &*info };
    // SAFETY: for SIGBUS from the kernel it is set; from a sender it is any value, which `mend`
    // does not look at then.
    let address = unsafe { about.si_addr() };
    if !mend(about.si_code, address.addr()) {
        hand_on(signal, info, context);
    }
    Errno::set_raw(errno);
}

/// Whether the thread can go on: the fault lies in a watched map, has been noted there, and the
/// address can be read now.
fn mend(code: c_int, address: usize) -> bool {
    let fault = match code {
        BUS_ADRERR => GONE,
        BUS_MCEERR_AR | BUS_MCEERR_AO => MEMORY,
        _ => return false,
    };
    let mut next = FIRST.get();
    while let Some(slot) = next {
        next = slot.next.get();
        let Some(range) = slot.range() else { continue };
        if !(range.start..range.end).contains(&address) {
            continue;
        }
        slot.faults.fetch_or(fault, Ordering::SeqCst);
        let from = address - (address - range.start) % range.page;
        return match code {
            // All that follows is behind the end of the file too, and whatever is read now is of
            // no use: one fault for each of millions of pages would only take time.
            BUS_ADRERR => put_zeros(from, range.end, range.writable),
            BUS_MCEERR_AR => put_zeros(from, from + range.page, range.writable),
            _ => true,
        };
    }
    false
}

/// Maps zeros in the place of a part of a watched map.
fn put_zeros(from: usize, to: usize, writable: bool) -> bool {
    let access = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
    let place = std::ptr::without_provenance_mut(from);
    // SAFETY: the range lies within a map that a `Watched` owns, in whole pages of it, and the
    // faulting thread borrows that `Watched`, so that nothing else can have come to lie there.
    let mapped = unsafe { libc::mmap(place, to - from, access, kind, -1, 0) };
    mapped != libc::MAP_FAILED
}

/// Does what would have been done without this handler.
fn hand_on(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: as in `on_bus_error`.
    let sent = unsafe { &*info }.si_code <= 0;
    match BEFORE.get().map_or(SigHandler::SigDfl, SigAction::handler) {
        SigHandler::Handler(before) => before(signal),
        SigHandler::SigAction(before) => before(signal, info, context),
        // A fault cannot be ignored, what somebody sends can.
        SigHandler::SigIgn if sent => {}
        SigHandler::SigDfl | SigHandler::SigIgn => {
            let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
            // SAFETY: the default action is no function. An error would leave this handler, which
            // then is called again.
            let _ = unsafe { sigaction(Signal::SIGBUS, &default) };
        }
    }
    // A fault comes again as soon as the thread goes on; what somebody sent does not.
    if sent && is_default() {
        let _ = raise(Signal::SIGBUS);
    }
}

/// Whether SIGBUS ends the process now.
fn is_default() -> bool {
    let mut now = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: nothing is set, and what is in force is written to memory of its size.
    if unsafe { libc::sigaction(libc::SIGBUS, std::ptr::null(), now.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: the call has succeeded, so it is written.
    let now = unsafe { now.assume_init() };
    now.sa_sigaction == libc::SIG_DFL
}

#[cfg(test)]
mod tests;
