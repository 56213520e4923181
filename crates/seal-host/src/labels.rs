//! Memory of one layer of labels, written by one thread while others read what is complete.
//!
//! Labels come into being in order, and a label never changes once it is there. So one number is
//! enough to share a layer without a lock: how many labels are published. The writer raises it
//! after the labels below it, and readers read it before they look (`crate::count`).

use std::sync::Arc;

use crate::count::Count;
use crate::{MapError, Region};

/// A label: 32 bytes.
pub type Label = [u8; 32];

/// Memory for a layer that nobody shares.
#[derive(Debug)]
pub struct LabelMemory {
    region: Region,
}

impl LabelMemory {
    /// Labels in `region`, as many as fit.
    pub fn new(region: Region) -> Self {
        Self { region }
    }

    /// How many labels fit.
    pub fn nodes(&self) -> usize {
        self.region.len() / size_of::<Label>()
    }

    /// As [`Region::check`].
    ///
    /// # Errors
    /// When labels may be lost.
    pub fn check(&self) -> Result<(), MapError> {
        self.region.check()
    }

    /// All labels, written or not.
    pub fn labels_mut(&mut self) -> &mut [Label] {
        self.region.bytes_mut().as_chunks_mut().0
    }

    /// Starts a layer: none of its labels is written yet.
    pub fn start_layer(self) -> (LayerWriter, LayerReader) {
        self.share(0)
    }

    /// A layer that is complete, all labels published.
    pub fn into_complete(self) -> LayerReader {
        let nodes = self.nodes();
        self.share(nodes).1
    }

    fn share(mut self, published: usize) -> (LayerWriter, LayerReader) {
        let nodes = self.nodes();
        let labels = Labels(self.region.start().cast());
        let count = Count::default();
        count.raise(published as u64);
        let shared = Arc::new(Shared { labels, nodes, published: count, memory: self });
        (LayerWriter { shared: Arc::clone(&shared), next: 0 }, LayerReader { shared })
    }
}

/// Where the labels begin.
#[derive(Debug, Clone, Copy)]
struct Labels(*mut Label);

// SAFETY: the pointer is to a region that `Shared` owns beside it. Which thread may touch which
// label is decided by `Shared::published`: see `LayerWriter` and `LayerReader`.
unsafe impl Send for Labels {}
// SAFETY: as for `Send`; the pointer itself is only copied.
unsafe impl Sync for Labels {}

#[derive(Debug)]
struct Shared {
    labels: Labels,
    nodes: usize,
    published: Count,
    /// Owns the region; its bytes are not touched through it as long as the layer is shared.
    memory: LabelMemory,
}

impl Shared {
    /// The first `count` labels.
    ///
    /// # Safety
    /// They have been written, what wrote them happened before this call, and none of them is
    /// written again while the layer is shared.
    unsafe fn first(&self, count: usize) -> &[Label] {
        debug_assert!(count <= self.nodes);
        // SAFETY: `count` is at most `nodes`, so the labels lie in the region, which lives as
        // long as `self`; the caller vouches that they are not written to.
        unsafe { std::slice::from_raw_parts(self.labels.0, count) }
    }
}

/// The one who writes a layer.
#[derive(Debug)]
pub struct LayerWriter {
    shared: Arc<Shared>,
    next: usize,
}

impl LayerWriter {
    /// Appends the next label. Readers see it after [`LayerWriter::publish`].
    ///
    /// # Panics
    /// When the layer is complete.
    #[inline]
    pub fn push(&mut self, label: Label) {
        assert!(self.next < self.shared.nodes, "the layer is complete");
        // SAFETY: `next` is below `nodes`, so the label lies in the region.
        let place = unsafe { self.shared.labels.0.add(self.next) };
        // SAFETY: the label at `place` is not published, and this is the only writer (there is one
        // for each layer, and it cannot be cloned), so nobody else looks at it.
        unsafe { place.write(label) };
        self.next += 1;
    }

    /// All labels written so far, published or not.
    #[inline]
    pub fn written(&self) -> &[Label] {
        // SAFETY: this writer, which is borrowed, wrote the labels below `next`, and `push`
        // writes only above them.
        unsafe { self.shared.first(self.next) }
    }

    /// Lets readers see all labels written so far.
    #[inline]
    pub fn publish(&mut self) {
        self.shared.published.raise(self.next as u64);
    }

    /// How many labels the layer has in all.
    pub fn nodes(&self) -> usize {
        self.shared.nodes
    }
}

/// One who reads a layer while it is written, or afterwards.
#[derive(Debug, Clone)]
pub struct LayerReader {
    shared: Arc<Shared>,
}

impl LayerReader {
    /// The labels that are published.
    #[inline]
    pub fn published(&self) -> &[Label] {
        let count = usize::try_from(self.shared.published.read()).expect("at most `nodes`");
        // SAFETY: the writer raised the count to `count` after it wrote the labels below it, and
        // writes only above `next`, which is at least `count`.
        unsafe { self.shared.first(count) }
    }

    /// How many labels the layer has in all.
    pub fn nodes(&self) -> usize {
        self.shared.nodes
    }

    /// Whether its memory still holds all labels, as [`Region::check`] tells.
    ///
    /// # Errors
    /// When labels may be lost.
    pub fn check_memory(&self) -> Result<(), MapError> {
        self.shared.memory.check()
    }

    /// Takes the memory back, if the writer and all other readers are gone; otherwise gives the
    /// reader back.
    pub fn into_memory(self) -> Result<LabelMemory, Self> {
        match Arc::try_unwrap(self.shared) {
            Ok(shared) => Ok(shared.memory),
            Err(shared) => Err(Self { shared }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(nodes: usize) -> LabelMemory {
        LabelMemory::new(Region::anonymous(nodes * 32).expect("memory"))
    }

    #[test]
    fn labels_are_seen_when_they_are_published() {
        let (mut writer, reader) = memory(4).start_layer();
        writer.push([1; 32]);
        assert_eq!(writer.written(), [[1; 32]]);
        assert!(reader.published().is_empty());
        writer.publish();
        assert_eq!(reader.published(), [[1; 32]]);
    }

    #[test]
    fn memory_comes_back_when_nobody_shares_it() {
        let (writer, reader) = memory(4).start_layer();
        let other = reader.clone();
        let other = other.into_memory().expect_err("still shared");
        drop(other);
        drop(writer);
        let mut memory = reader.into_memory().expect("the last one");
        memory.labels_mut().fill([7; 32]);
        assert_eq!(memory.into_complete().published(), [[7; 32]; 4]);
    }

    #[test]
    #[should_panic(expected = "the layer is complete")]
    fn a_layer_takes_no_more_labels_than_it_has() {
        let (mut writer, _reader) = memory(1).start_layer();
        writer.push([1; 32]);
        writer.push([2; 32]);
    }

    #[test]
    fn readers_never_see_a_label_before_it_is_written() {
        const NODES: usize = 1 << 16;
        let (mut writer, reader) = memory(NODES).start_layer();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for node in 0..NODES {
                    writer.push([node.to_le_bytes()[0] | 1; 32]);
                    if node % 32 == 31 {
                        writer.publish();
                    }
                }
            });
            let mut seen = 0;
            while seen < NODES {
                let labels = reader.published();
                for (node, label) in labels.iter().enumerate().skip(seen) {
                    assert_eq!(*label, [node.to_le_bytes()[0] | 1; 32]);
                }
                seen = labels.len();
            }
        });
    }
}
