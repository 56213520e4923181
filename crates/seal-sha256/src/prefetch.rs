//! A hint to bring memory into the cache.
//!
//! Expander parents are spread over the whole previous layer, so each of their labels is a cache
//! miss; asked for some nodes ahead, they are there in time.

/// Bytes that a processor fetches together.
const LINE: usize = 64;

/// Asks the processor to bring all lines of `value` into its caches. Does nothing where there is
/// no such hint.
#[inline(always)]
pub fn prefetch<T>(value: &T) {
    let start = std::ptr::from_ref(value).cast::<i8>();
    for line in 0..size_of::<T>().div_ceil(LINE) {
        prefetch_line(start.wrapping_add(line * LINE));
    }
}

#[inline(always)]
fn prefetch_line(line: *const i8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch of any address is a hint without effect on memory or control flow; it
    // needs sse, which every x86-64 processor has.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(line);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}
