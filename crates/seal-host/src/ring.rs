//! A ring of slots between producers and one consumer, without locks.
//!
//! Slots are handed over in batches, by the rules of `crate::count`.
//!
//! Why no slot is ever touched from two sides: batch `b` is its producer's from the moment the
//! consumer has released batch `b - places` until the producer has counted it as ready, and the
//! consumer's from then until it has released it. Both counts only grow, each has one writer, who
//! raises it after the last touch of the slots, and the other side reads it before its first. So
//! each handing over is one release-acquire pair, and between two batches at the same place there
//! is a pair in each direction. Two producers never meet, because the batch number alone decides
//! whose it is, and the batches in the ring at one time lie at different places. Each side raises
//! its count only by giving up a batch that it took, so that no count runs ahead of the other. A
//! model checker has been asked the same (tests of `crate::count`).

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::count::Batches;
use crate::memory::SMALL_PAGE;
use crate::{MemoryError, MemoryPolicy, NodeId, PageChoice, Region};

#[derive(Debug)]
struct Ring<T> {
    /// The first of `batch * places` slots.
    slots: *mut T,
    /// Owns the slots' memory; not touched in any other way while there is a ring.
    memory: Region,
    batch: usize,
    batches: Batches,
}

// SAFETY: the pointer is to memory that the ring owns beside it, and the slots in it are `Send`.
unsafe impl<T: Send> Send for Ring<T> {}
// SAFETY: a slot is reached only through the producer or the consumer whose batch it is in, as
// the module's documentation argues, so sharing the ring moves slots between threads and never
// shares one: `T: Send` suffices.
unsafe impl<T: Send> Sync for Ring<T> {}

impl<T> Ring<T> {
    /// The slots of a batch.
    ///
    /// # Safety
    /// The batch is the caller's, and the caller does not hold its slots already.
    #[expect(clippy::mut_from_ref, reason = "the handing over of batches makes it exclusive")]
    unsafe fn slots(&self, batch: u64) -> &mut [T] {
        let place = self.batches.place(batch);
        // SAFETY: `place` is below `places`, so the slot lies in `memory`, which has `places` times
        // `batch` of them.
        let first = unsafe { self.slots.add(place * self.batch) };
        // SAFETY: `first` begins `batch` slots, all of them in `memory` and initialised by `ring`;
        // the caller vouches that nobody else reaches them.
        unsafe { std::slice::from_raw_parts_mut(first, self.batch) }
    }
}

/// One who fills every `producers`-th batch.
#[derive(Debug)]
pub struct RingProducer<T> {
    ring: Arc<Ring<T>>,
    index: usize,
    /// Batches filled so far.
    filled: u64,
}

/// The one who takes the batches in their order.
#[derive(Debug)]
pub struct RingConsumer<T> {
    ring: Arc<Ring<T>>,
    /// Batches released so far.
    released: u64,
}

/// A ring of `places` batches of `batch` slots each, in memory as `policy` wants it: all of its
/// threads should be near it. Huge pages that are set aside are left to larger memory.
///
/// # Errors
/// When there is no such memory.
///
/// # Panics
/// When there is no producer, no slot, or a producer without a place.
pub fn ring<T: Default + Send>(
    batch: usize,
    places: usize,
    producers: usize,
    policy: &MemoryPolicy,
) -> Result<(RingConsumer<T>, Vec<RingProducer<T>>), MemoryError> {
    const { assert!(align_of::<T>() <= SMALL_PAGE, "a region begins at a page") };
    const { assert!(!std::mem::needs_drop::<T>(), "nobody drops what is in slots") };
    assert!(batch > 0, "a slot in every batch");
    let batches = Batches::new(places, producers);
    let policy = MemoryPolicy { pages: PageChoice::Transparent, ..policy.clone() };
    let mut memory = Region::allocate(batch * places * size_of::<T>(), &policy)?;
    let slots = memory.start().cast::<MaybeUninit<T>>();
    // SAFETY: the region has room for so many slots and begins at a page, to which `T` is aligned
    // by the assertion above; it is borrowed by nobody else, and any bytes are a `MaybeUninit`.
    let uninitialised = unsafe { std::slice::from_raw_parts_mut(slots, batch * places) };
    uninitialised.fill_with(|| MaybeUninit::new(T::default()));
    let ring = Arc::new(Ring { slots: slots.cast::<T>(), memory, batch, batches });
    let producer = |index| RingProducer { ring: Arc::clone(&ring), index, filled: 0 };
    let producers = (0..producers).map(producer).collect();
    Ok((RingConsumer { ring, released: 0 }, producers))
}

impl<T> RingProducer<T> {
    /// The number of the batch this producer fills next.
    #[inline]
    pub fn next(&self) -> u64 {
        self.ring.batches.of_producer(self.index, self.filled)
    }

    /// The next batch, if its place is free.
    #[inline]
    pub fn try_batch(&mut self) -> Option<EmptyBatch<'_, T>> {
        let batch = self.next();
        let Self { ring, index, filled } = self;
        if !ring.batches.is_free(batch) {
            return None;
        }
        // SAFETY: the batch's number makes it this producer's, it has not been counted as ready,
        // and the batch before it at its place has been released. The producer is borrowed
        // exclusively for as long as the slots are, so they are not held twice.
        let slots = unsafe { ring.slots(batch) };
        Some(EmptyBatch { slots, ring, producer: *index, filled })
    }
}

/// A batch for its producer to fill. Dropping it changes nothing: the producer gets it again.
#[derive(Debug)]
pub struct EmptyBatch<'r, T> {
    slots: &'r mut [T],
    ring: &'r Ring<T>,
    producer: usize,
    filled: &'r mut u64,
}

impl<T> EmptyBatch<'_, T> {
    /// Hands it to the consumer.
    #[inline]
    pub fn commit(self) {
        let Self { ring, producer, filled, .. } = self;
        *filled += 1;
        ring.batches.fill(producer, *filled);
    }
}

impl<T> RingConsumer<T> {
    /// On which nodes its pages lie, as [`Region::percent_by_node`] measures it.
    pub fn percent_by_node(&self) -> Option<BTreeMap<NodeId, u8>> {
        self.ring.memory.percent_by_node()
    }

    /// Whether the next batch is ready.
    #[inline]
    pub fn is_ready(&self) -> bool {
        self.ring.batches.is_ready(self.released)
    }

    /// The next batch, if it is ready.
    #[inline]
    pub fn try_batch(&mut self) -> Option<FullBatch<'_, T>> {
        let Self { ring, released } = self;
        if !ring.batches.is_ready(*released) {
            return None;
        }
        // SAFETY: its producer has counted the batch as ready, and it has not been released. The
        // consumer is borrowed exclusively for as long as the slots are, so they are not held
        // twice.
        let slots = unsafe { ring.slots(*released) };
        Some(FullBatch { slots, ring, released })
    }
}

/// A batch that its producer has filled. Dropping it changes nothing: the consumer gets it again.
#[derive(Debug)]
pub struct FullBatch<'r, T> {
    slots: &'r mut [T],
    ring: &'r Ring<T>,
    released: &'r mut u64,
}

impl<T> FullBatch<'_, T> {
    /// Gives its place back to the producers.
    #[inline]
    pub fn release(self) {
        let Self { ring, released, .. } = self;
        *released += 1;
        ring.batches.release(*released);
    }
}

impl<T> Deref for EmptyBatch<'_, T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        self.slots
    }
}

impl<T> DerefMut for EmptyBatch<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        self.slots
    }
}

impl<T> Deref for FullBatch<'_, T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        self.slots
    }
}

impl<T> DerefMut for FullBatch<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        self.slots
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anywhere(
        batch: usize,
        places: usize,
        producers: usize,
    ) -> (RingConsumer<u64>, Vec<RingProducer<u64>>) {
        ring(batch, places, producers, &MemoryPolicy::default()).expect("memory")
    }

    #[test]
    fn its_memory_is_where_the_policy_wants_it() {
        use crate::Binding;
        let policy =
            MemoryPolicy { node: Some((NodeId(0), Binding::Preferred)), ..MemoryPolicy::default() };
        let (consumer, _producers) = ring::<u64>(1 << 10, 4, 1, &policy).expect("memory");
        // None on a kernel that does not tell.
        let percent = consumer.percent_by_node();
        assert!(percent.is_none_or(|nodes| nodes.contains_key(&NodeId(0))));
        let nowhere =
            MemoryPolicy { node: Some((NodeId(900), Binding::Strict)), ..MemoryPolicy::default() };
        let error = ring::<u64>(1, 1, 1, &nowhere).expect_err("no machine has node 900");
        assert!(matches!(error, MemoryError::Bind { .. }), "{error}");
    }

    #[test]
    fn a_full_ring_gives_no_batch_and_an_empty_one_none_either() {
        let (mut consumer, mut producers) = anywhere(2, 2, 1);
        let producer = &mut producers[0];
        assert!(consumer.try_batch().is_none());
        for batch in 0..2 {
            let mut slots = producer.try_batch().expect("free");
            slots.fill(batch);
            slots.commit();
        }
        assert!(producer.try_batch().is_none());
        let slots = consumer.try_batch().expect("ready");
        assert_eq!(*slots, [0, 0]);
        slots.release();
        assert!(producer.try_batch().is_some());
        assert_eq!(*consumer.try_batch().expect("ready"), [1, 1]);
    }

    #[test]
    fn a_batch_that_is_only_looked_at_is_not_handed_on() {
        let (mut consumer, mut producers) = anywhere(1, 2, 2);
        let (mut one, mut other) = (producers.remove(0), producers.remove(0));
        // An empty ring gives nothing back, however often it is asked: no place is free twice.
        for _ in 0..3 {
            assert!(consumer.try_batch().is_none());
        }
        for producer in [&mut one, &mut other] {
            assert!(producer.try_batch().is_some(), "free");
            producer.try_batch().expect("still its own").commit();
            assert!(producer.try_batch().is_none(), "its place is not free");
        }
        assert!(consumer.try_batch().is_some(), "ready");
        assert!(one.try_batch().is_none(), "it was not released");
        consumer.try_batch().expect("still its own").release();
        assert!(one.try_batch().is_some() && other.try_batch().is_none());
    }

    #[test]
    #[should_panic(expected = "a place for every producer")]
    fn every_producer_needs_a_place() {
        let _ = anywhere(1, 2, 3);
    }

    #[test]
    fn batches_arrive_in_order_from_any_number_of_producers() {
        const BATCHES: u64 = 3000;
        for producers in 1..=4 {
            for places in [producers, producers + 1, 8] {
                let (mut consumer, filling) = anywhere(3, places, producers);
                std::thread::scope(|scope| {
                    for mut producer in filling {
                        scope.spawn(move || {
                            while producer.next() < BATCHES {
                                let batch = producer.next();
                                if let Some(mut slots) = producer.try_batch() {
                                    slots.fill(batch);
                                    slots.commit();
                                } else {
                                    std::thread::yield_now();
                                }
                            }
                        });
                    }
                    for batch in 0..BATCHES {
                        while !consumer.is_ready() {
                            std::thread::yield_now();
                        }
                        let slots = consumer.try_batch().expect("ready");
                        assert_eq!(*slots, [batch; 3]);
                        slots.release();
                    }
                });
            }
        }
    }
}
