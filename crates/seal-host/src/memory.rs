//! Memory for labels: large, page-aligned and zero at first.

use std::io;

/// A region of memory of its own, given back when it is dropped.
#[derive(Debug)]
pub struct Region {
    map: memmap2::MmapMut,
}

impl Region {
    /// `bytes` zero bytes. Pages are taken when they are first touched.
    pub fn anonymous(bytes: usize) -> io::Result<Self> {
        Ok(Self { map: memmap2::MmapMut::map_anon(bytes)? })
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether it has no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// The bytes, to write.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.map
    }

    /// Where it begins: aligned to a page, the same as long as the region lives.
    pub(crate) fn start(&mut self) -> *mut u8 {
        self.map.as_mut_ptr()
    }
}
