//! Large arrays in large pages.

use std::mem::MaybeUninit;

/// Bytes of a huge page of the processors that matter.
const HUGE_PAGE: usize = 2 << 20;

/// Tells the kernel to back `memory`, which has not been touched yet, with huge pages where it
/// can. Only speed depends on it, so a kernel that cannot is no error.
pub(crate) fn advise_huge_pages<T>(memory: &mut [MaybeUninit<T>]) {
    #[cfg(target_os = "linux")]
    {
        let start = memory.as_mut_ptr().cast::<u8>();
        let skipped = start.align_offset(HUGE_PAGE);
        let length = size_of_val(memory).saturating_sub(skipped) / HUGE_PAGE * HUGE_PAGE;
        if length == 0 {
            return;
        }
        let first = start.wrapping_add(skipped).cast();
        // SAFETY: the range lies within memory that is borrowed here, and the advice changes
        // neither contents nor access.
        let _ = unsafe { libc::madvise(first, length, libc::MADV_HUGEPAGE) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (memory, HUGE_PAGE);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_any_size_can_be_advised_and_used() {
        for count in [0, 1, 1000, 3 << 20] {
            let mut list: Vec<u64> = Vec::with_capacity(count);
            advise_huge_pages(list.spare_capacity_mut());
            list.resize(count, 7);
            assert!(list.iter().all(|value| *value == 7));
        }
    }
}
