//! Memory for small things where the system has none left.
//!
//! Large memory is asked for in ways that can fail, and a task that does not get it is answered
//! with that. The few bytes of a message or a file name are not: where they cannot be had, Rust
//! ends the process, and nobody is answered. So they come from a reserve then, which is a part of
//! the program and takes no memory before that. The task fails where it asks for more, and what it
//! gives back is there for the next one.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU64, Ordering};

/// How much is in reserve.
const RESERVE: usize = 1 << 20;
/// What is small. Whatever is larger is asked for in a way that can fail.
const SMALL: usize = 64 << 10;

/// An allocator with a reserve for small things: to be the global one of a program.
#[derive(Debug)]
pub struct LastMemory<A = System> {
    system: A,
    bytes: Bytes,
    /// How many bytes of the reserve are used (upper half), by how many allocations (lower half).
    /// Nothing is used again before all have been given back.
    taken: AtomicU64,
}

#[derive(Debug)]
#[repr(align(4096))]
struct Bytes(UnsafeCell<[MaybeUninit<u8>; RESERVE]>);

// SAFETY: the bytes are only reached through pointers that `LastMemory` gives out, each to a part
// of its own, which no other pointer reaches until it has been given back.
unsafe impl Sync for Bytes {}

impl LastMemory {
    /// One over the system's allocator.
    pub const fn new() -> Self {
        Self::over(System)
    }
}

impl Default for LastMemory {
    fn default() -> Self {
        Self::new()
    }
}

impl<A> LastMemory<A> {
    const fn over(system: A) -> Self {
        let bytes = Bytes(UnsafeCell::new([MaybeUninit::uninit(); RESERVE]));
        Self { system, bytes, taken: AtomicU64::new(0) }
    }

    fn start(&self) -> *mut u8 {
        self.bytes.0.get().cast()
    }

    /// Whether a pointer is to a part of the reserve.
    fn has(&self, pointer: *mut u8) -> bool {
        let offset = pointer.addr().wrapping_sub(self.start().addr());
        offset < RESERVE
    }

    /// A part of the reserve, or null.
    fn take(&self, layout: Layout) -> *mut u8 {
        if layout.size() > SMALL {
            return std::ptr::null_mut();
        }
        let mut taken = self.taken.load(Ordering::Acquire);
        loop {
            let (used, count) = (taken >> 32, taken & u64::from(u32::MAX));
            let address = self.start().addr() + used as usize;
            let offset = address.next_multiple_of(layout.align()) - self.start().addr();
            let end = offset + layout.size();
            if end > RESERVE {
                return std::ptr::null_mut();
            }
            let new = (end as u64) << 32 | (count + 1);
            match self.taken.compare_exchange_weak(taken, new, Ordering::AcqRel, Ordering::Acquire)
            {
                // SAFETY: `offset` is at most `RESERVE`, so that the result is within the bytes or
                // at their end.
                Ok(_) => return unsafe { self.start().add(offset) },
                Err(now) => taken = now,
            }
        }
    }

    /// Gives back a part of the reserve. The last one makes all of it free.
    fn give_back(&self) {
        let free = |taken: u64| {
            let count = (taken & u64::from(u32::MAX)) - 1;
            Some(if count == 0 { 0 } else { taken & !u64::from(u32::MAX) | count })
        };
        // The closure never refuses.
        let _ = self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, free);
    }
}

// SAFETY: what comes from the system's allocator goes back to it, with the layout that it came
// with. Parts of the reserve are as large and aligned as their layouts ask for (`take`), and their
// bytes belong to one allocation: `taken` only grows until as many parts were given back as were
// taken, and each part is given back once, as the caller promises. Nothing here unwinds: there is
// no overflow, since sizes are at most `SMALL` and alignments those of layouts.
unsafe impl<A: GlobalAlloc> GlobalAlloc for LastMemory<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is that of this call.
        let pointer = unsafe { self.system.alloc(layout) };
        if pointer.is_null() { self.take(layout) } else { pointer }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is that of this call.
        let pointer = unsafe { self.system.alloc_zeroed(layout) };
        if !pointer.is_null() {
            return pointer;
        }
        let pointer = self.take(layout);
        if !pointer.is_null() {
            // SAFETY: it has the size of the layout, and is nobody else's.
            unsafe { pointer.write_bytes(0, layout.size()) };
        }
        pointer
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if self.has(pointer) {
            self.give_back();
        } else {
            // SAFETY: what is not of the reserve came from there, with this layout.
            unsafe { self.system.dealloc(pointer, layout) };
        }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !self.has(pointer) {
            // SAFETY: what is not of the reserve came from there, with this layout.
            let grown = unsafe { self.system.realloc(pointer, layout, size) };
            if !grown.is_null() {
                return grown;
            }
        }
        // SAFETY: the caller promises that the size, rounded up to the alignment, is one.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // SAFETY: the caller promises a size that is not zero.
        let new = unsafe { self.alloc(wanted) };
        if !new.is_null() {
            let both = size.min(layout.size());
            // SAFETY: both are at least that long, and they are parts of their own.
            unsafe { std::ptr::copy_nonoverlapping(pointer, new, both) };
            // SAFETY: the caller gives the pointer up if this succeeds.
            unsafe { self.dealloc(pointer, layout) };
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    /// A system that may have nothing left.
    struct Poor(AtomicBool);

    impl Poor {
        fn is_out(&self) -> bool {
            self.0.load(Ordering::Relaxed)
        }
    }

    // SAFETY: as the system's, or null.
    unsafe impl GlobalAlloc for Poor {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            // SAFETY: the caller's promise is that of this call.
            if self.is_out() { std::ptr::null_mut() } else { unsafe { System.alloc(layout) } }
        }

        unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
            // SAFETY: the caller's promise is that of this call.
            unsafe { System.dealloc(pointer, layout) };
        }
    }

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).expect("a layout")
    }

    fn poor() -> Box<LastMemory<Poor>> {
        Box::new(LastMemory::over(Poor(AtomicBool::new(false))))
    }

    /// A part of some memory, which it goes back to when it is dropped.
    struct Part<'m> {
        memory: &'m LastMemory<Poor>,
        pointer: *mut u8,
        layout: Layout,
    }

    impl<'m> Part<'m> {
        /// One that is full of `mark`, if there is so much.
        fn of(memory: &'m LastMemory<Poor>, mark: u8, layout: Layout) -> Option<Self> {
            // SAFETY: the layouts of these tests have sizes.
            let pointer = unsafe { memory.alloc(layout) };
            if pointer.is_null() {
                return None;
            }
            // SAFETY: it has the size of the layout.
            unsafe { pointer.write_bytes(mark, layout.size()) };
            Some(Self { memory, pointer, layout })
        }

        fn zeroed(memory: &'m LastMemory<Poor>, layout: Layout) -> Self {
            // SAFETY: the layouts of these tests have sizes.
            let pointer = unsafe { memory.alloc_zeroed(layout) };
            assert!(!pointer.is_null());
            Self { memory, pointer, layout }
        }

        /// The same with another size; what is new is full of `mark`.
        fn resize(&mut self, mark: u8, size: usize) {
            // SAFETY: the pointer came from there with this layout, and the size is not zero.
            let pointer = unsafe { self.memory.realloc(self.pointer, self.layout, size) };
            assert!(!pointer.is_null());
            let before = self.layout.size();
            (self.pointer, self.layout) = (pointer, layout(size, self.layout.align()));
            if before < size {
                // SAFETY: it is as long as its new size.
                let added = unsafe { pointer.add(before) };
                // SAFETY: from there to its end.
                unsafe { added.write_bytes(mark, size - before) };
            }
        }

        fn is_of_reserve(&self) -> bool {
            self.memory.has(self.pointer)
        }

        fn bytes(&self) -> &[u8] {
            // SAFETY: all of it was written, and nobody else has it.
            unsafe { std::slice::from_raw_parts(self.pointer, self.layout.size()) }
        }

        fn is_full_of(&self, mark: u8) -> bool {
            self.bytes().iter().all(|byte| *byte == mark)
        }
    }

    impl Drop for Part<'_> {
        fn drop(&mut self) {
            // SAFETY: the pointer came from there with this layout, and ends here.
            unsafe { self.memory.dealloc(self.pointer, self.layout) };
        }
    }

    #[test]
    fn small_things_come_from_the_reserve_where_the_system_has_nothing_left() {
        let memory = poor();
        let mut before = Part::of(&memory, 7, layout(100, 8)).expect("the system has some");
        assert!(!before.is_of_reserve());
        memory.system.0.store(true, Ordering::Relaxed);

        let one = Part::of(&memory, 1, layout(100, 8)).expect("the reserve has some");
        let mut other = Part::zeroed(&memory, layout(1000, 64));
        assert!(one.is_of_reserve() && other.is_of_reserve());
        assert_eq!((one.pointer.addr() % 8, other.pointer.addr() % 64), (0, 0));
        assert!(other.is_full_of(0) && one.is_full_of(1));

        // What the system gave grows into the reserve, and what is there within it.
        before.resize(7, 200);
        other.resize(0, 2000);
        assert!(before.is_of_reserve() && other.is_of_reserve());
        assert!(before.is_full_of(7) && other.is_full_of(0) && one.is_full_of(1));

        assert!(Part::of(&memory, 1, layout(SMALL + 1, 8)).is_none(), "that is not small");
        memory.system.0.store(false, Ordering::Relaxed);
        before.resize(7, 300);
        assert!(!before.is_of_reserve() && before.is_full_of(7));
        drop((before, one, other));
        assert_eq!(memory.taken.load(Ordering::Relaxed), 0, "all of it is free again");
    }

    #[test]
    fn the_reserve_ends_and_comes_back() {
        let memory = poor();
        memory.system.0.store(true, Ordering::Relaxed);
        for _ in 0..2 {
            let take = || Part::of(&memory, 1, layout(SMALL, 1));
            let taken: Vec<_> = (0..RESERVE / SMALL).map_while(|_| take()).collect();
            assert_eq!(taken.len(), RESERVE / SMALL);
            assert!(taken.iter().all(Part::is_of_reserve));
            assert!(Part::of(&memory, 1, layout(1, 1)).is_none(), "nothing is left");
        }
    }

    #[test]
    fn threads_get_parts_of_their_own() {
        let memory = poor();
        memory.system.0.store(true, Ordering::Relaxed);
        std::thread::scope(|threads| {
            for mark in 1..=4_u8 {
                let memory = &memory;
                threads.spawn(move || {
                    for round in 0..2000 {
                        let layout = layout(1 + round % 97, 1 << (round % 5));
                        let part = Part::of(memory, mark, layout).expect("there is enough");
                        assert!(part.is_of_reserve());
                        std::thread::yield_now();
                        assert!(part.is_full_of(mark));
                    }
                });
            }
        });
        assert_eq!(memory.taken.load(Ordering::Relaxed), 0);
    }
}
