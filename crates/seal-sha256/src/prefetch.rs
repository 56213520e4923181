//! A hint to bring a label into the cache.
//!
//! Expander parents are spread over the whole previous layer, so each of their labels is a cache
//! miss; asked for some nodes ahead, they are there in time.

/// Asks the processor to bring `label` into its caches. Does nothing where there is no such hint.
#[inline(always)]
pub fn prefetch(label: &[u8; 32]) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch of any address is a hint without effect on memory or control flow, and
    // this one is of a live reference; it needs sse, which every x86-64 processor has.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(
            label.as_ptr().cast(),
        );
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = label;
}
