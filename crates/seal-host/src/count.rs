//! Counts that hand memory from one thread to others without a lock.
//!
//! A count only grows and has one writer. What its writer has done with memory before it raises the
//! count has happened for whoever reads the raised count: the store is a release, the load an
//! acquire. Ring and layers rest on this alone, so their rules can be put to a model checker with
//! numbers of its own.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};

/// An atomic number: of the standard library, or of a model checker.
pub(crate) trait Number: Debug + Default {
    fn load(&self, ordering: Ordering) -> u64;
    fn store(&self, value: u64, ordering: Ordering);
}

impl Number for AtomicU64 {
    #[inline(always)]
    fn load(&self, ordering: Ordering) -> u64 {
        self.load(ordering)
    }

    #[inline(always)]
    fn store(&self, value: u64, ordering: Ordering) {
        self.store(value, ordering);
    }
}

/// A count on a cache line of its own, so that its reader does not slow its neighbours' writers.
/// Two lines, because processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Count<N = AtomicU64>(N);

impl<N: Number> Count<N> {
    /// The count, and all that was done before it was raised to it.
    #[inline(always)]
    pub(crate) fn read(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Raises the count. Only its one writer does.
    #[inline(always)]
    pub(crate) fn raise(&self, to: u64) {
        self.0.store(to, Ordering::Release);
    }
}

/// Batches that go from producers to one consumer, at a few places in turn.
///
/// The batches are numbered from 0 on; batch `b` lies at place `b mod places` and is filled by
/// producer `b mod producers`.
#[derive(Debug)]
pub(crate) struct Batches<N = AtomicU64> {
    places: u64,
    /// Batches that each producer has filled.
    ready: Box<[Count<N>]>,
    /// Batches that the consumer has released.
    released: Count<N>,
}

impl<N: Number> Batches<N> {
    /// All places are free.
    ///
    /// # Panics
    /// When there is no producer, or a producer without a place.
    pub(crate) fn new(places: usize, producers: usize) -> Self {
        assert!(producers > 0 && places >= producers, "a place for every producer");
        Self {
            places: places as u64,
            ready: (0..producers).map(|_| Count::default()).collect(),
            released: Count::default(),
        }
    }

    /// Where the batch lies.
    #[inline(always)]
    pub(crate) fn place(&self, batch: u64) -> usize {
        usize::try_from(batch % self.places).expect("below the number of places")
    }

    /// The batch that a producer fills after so many others.
    #[inline(always)]
    pub(crate) fn of_producer(&self, producer: usize, filled: u64) -> u64 {
        filled * self.ready.len() as u64 + producer as u64
    }

    /// Whether the consumer has released the batch that was at the place of this one.
    #[inline(always)]
    pub(crate) fn is_free(&self, batch: u64) -> bool {
        batch < self.released.read() + self.places
    }

    /// Hands a producer's batches over, so many in all.
    #[inline(always)]
    pub(crate) fn fill(&self, producer: usize, filled: u64) {
        self.ready[producer].raise(filled);
    }

    /// Whether its producer has handed the batch over.
    #[inline(always)]
    pub(crate) fn is_ready(&self, batch: u64) -> bool {
        let producers = self.ready.len() as u64;
        let producer = usize::try_from(batch % producers).expect("below their number");
        self.ready[producer].read() > batch / producers
    }

    /// Gives the consumer's batches back, so many in all.
    #[inline(always)]
    pub(crate) fn release(&self, released: u64) {
        self.released.raise(released);
    }
}

#[cfg(test)]
mod tests {
    //! Every order of events that the memory model allows, by a model checker. What it is asked is
    //! whether two threads can touch the same memory without one handing it over to the other.

    use std::panic::{UnwindSafe, catch_unwind};

    use loom::cell::UnsafeCell;
    use loom::model;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicU64 as Modelled;
    use loom::thread;

    use super::*;

    impl Number for Modelled {
        fn load(&self, ordering: Ordering) -> u64 {
            self.load(ordering)
        }

        fn store(&self, value: u64, ordering: Ordering) {
            self.store(value, ordering);
        }
    }

    /// A number whose stores hand nothing over.
    #[derive(Debug, Default)]
    struct NoRelease(Modelled);

    impl Number for NoRelease {
        fn load(&self, ordering: Ordering) -> u64 {
            self.0.load(ordering)
        }

        fn store(&self, value: u64, _: Ordering) {
            self.0.store(value, Ordering::Relaxed);
        }
    }

    /// A number whose loads take nothing over.
    #[derive(Debug, Default)]
    struct NoAcquire(Modelled);

    impl Number for NoAcquire {
        fn load(&self, _: Ordering) -> u64 {
            self.0.load(Ordering::Relaxed)
        }

        fn store(&self, value: u64, ordering: Ordering) {
            self.0.store(value, ordering);
        }
    }

    /// A ring of cells that the model watches.
    struct Watched<N: Number> {
        batches: Batches<N>,
        cells: Vec<UnsafeCell<u64>>,
    }

    impl<N: Number> Watched<N> {
        fn touch(&self, batch: u64) {
            // Two at the same time, or one that does not happen after the other, fail the model.
            self.cells[self.batches.place(batch)].with_mut(|_| ());
        }
    }

    /// Batches that go through a ring from producers in threads of their own, each of them filled
    /// before it is counted, and released after it was looked at. Whoever finds no batch gives up:
    /// among all orders are those in which each was there in time. Returns how often all of them
    /// went through.
    fn hand_over<N: Number + Send + Sync + 'static>(
        places: usize,
        producers: usize,
        batches: u64,
    ) -> u64 {
        let through = std::sync::Arc::new(AtomicU64::new(0));
        let counted = std::sync::Arc::clone(&through);
        model(move || {
            let cells = (0..places).map(|_| UnsafeCell::new(0)).collect();
            let ring = Arc::new(Watched { batches: Batches::<N>::new(places, producers), cells });
            let threads: Vec<_> = (0..producers)
                .map(|producer| {
                    let ring = Arc::clone(&ring);
                    thread::spawn(move || {
                        for filled in 0.. {
                            let batch = ring.batches.of_producer(producer, filled);
                            if batch >= batches || !ring.batches.is_free(batch) {
                                return;
                            }
                            ring.touch(batch);
                            ring.batches.fill(producer, filled + 1);
                        }
                    })
                })
                .collect();
            let taken = (0..batches).take_while(|batch| {
                let ready = ring.batches.is_ready(*batch);
                if ready {
                    ring.touch(*batch);
                    ring.batches.release(batch + 1);
                }
                ready
            });
            let all = taken.count() as u64 == batches;
            for thread in threads {
                thread.join().expect("it fills its batches");
            }
            counted.fetch_add(u64::from(all), Ordering::Relaxed);
        });
        through.load(Ordering::Relaxed)
    }

    /// Cells that one thread writes and another reads as far as they are counted.
    fn publish<N: Number + Send + Sync + 'static>(each: u64) {
        const CELLS: u64 = 4;
        model(move || {
            let cells: Vec<_> = (0..CELLS).map(|_| UnsafeCell::new(0)).collect();
            let shared = Arc::new((Count::<N>::default(), cells));
            let writer = Arc::clone(&shared);
            let writer = thread::spawn(move || {
                for (done, cell) in (1..).zip(&writer.1) {
                    cell.with_mut(|_| ());
                    if done % each == 0 {
                        writer.0.raise(done);
                    }
                }
            });
            for _ in 0..2 {
                let published = usize::try_from(shared.0.read()).expect("few");
                shared.1[..published].iter().for_each(|cell| cell.with(|_| ()));
            }
            writer.join().expect("it writes");
        });
    }

    #[test]
    fn batches_are_touched_by_one_thread_at_a_time_in_every_order_of_events() {
        for (places, producers, batches) in [(1, 1, 2), (2, 1, 4), (2, 2, 4), (3, 2, 4)] {
            let through = hand_over::<Modelled>(places, producers, batches);
            assert!(through > 0, "{batches} batches never went through {places} places");
        }
    }

    #[test]
    fn what_is_counted_can_be_read_in_every_order_of_events() {
        publish::<Modelled>(1);
        publish::<Modelled>(2);
    }

    #[test]
    fn the_model_finds_counts_that_hand_nothing_over() {
        fn found<T>(name: &str, model: impl FnOnce() -> T + UnwindSafe) {
            assert!(catch_unwind(model).is_err(), "{name} is not found");
        }
        found("a ring without release", || hand_over::<NoRelease>(2, 1, 3));
        found("a ring without acquire", || hand_over::<NoAcquire>(2, 1, 3));
        found("a layer without release", || publish::<NoRelease>(1));
        found("a layer without acquire", || publish::<NoAcquire>(1));
    }
}
