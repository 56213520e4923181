//! Blocks made by many threads and taken in order by one.
//!
//! SHA-256 over a file can only be computed from front to back, while its content can be computed
//! or read in any order. So workers fill blocks and the calling thread takes them one after the
//! other, and both go on at the same time. Memory is bounded: a worker waits for a free block.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, PoisonError, mpsc};

/// What a worker hands over: the block, why it could not be filled, or a panic.
type Filled<E> = Result<Result<Vec<u8>, E>, Box<dyn Any + Send>>;

/// Fills `blocks` blocks by `fill` on `workers` threads, and passes each to `take` in order. Both
/// are told the block's number; `fill` makes the block as long as it should be. The first error
/// ends it all.
pub(crate) fn in_order<E: Send>(
    blocks: u64,
    workers: usize,
    fill: impl Fn(u64, &mut Vec<u8>) -> Result<(), E> + Sync,
    mut take: impl FnMut(u64, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let (give_free, free) = mpsc::channel();
    for _ in 0..2 * workers + 1 {
        // The receiver is at hand.
        let _ = give_free.send(Vec::new());
    }
    // A worker takes a free block and the next number under one lock, so that the block that is
    // waited for always has its memory.
    let next = Mutex::new((0, free));
    let (give_filled, filled) = mpsc::channel::<(u64, Filled<E>)>();
    std::thread::scope(|scope| {
        let mut started = 0;
        for _ in 0..workers {
            let (give_filled, next, fill) = (give_filled.clone(), &next, &fill);
            let worker = seal_host::start_scoped(scope, "blocks", move || {
                while let Some((number, mut block)) = begin(next, blocks) {
                    let filled = catch_unwind(AssertUnwindSafe(|| {
                        fill(number, &mut block).map(|()| std::mem::take(&mut block))
                    }));
                    // Nobody listens any more after an error.
                    if give_filled.send((number, filled)).is_err() {
                        return;
                    }
                }
            });
            if let Err(error) = worker {
                tracing::debug!(%error, started, "fewer threads than wanted fill blocks");
                break;
            }
            started += 1;
        }
        drop(give_filled);
        if started == 0 {
            // Slowly, by this one.
            let mut block = Vec::new();
            return (0..blocks).try_for_each(|number| {
                fill(number, &mut block)?;
                take(number, &block)
            });
        }

        // Dropped on the way out, which ends the workers that wait for a free block.
        let give_free = give_free;
        let mut early = BTreeMap::new();
        let mut wanted = 0;
        for (number, filled) in filled {
            early.insert(number, filled.unwrap_or_else(|panic| resume_unwind(panic))?);
            while let Some(block) = early.remove(&wanted) {
                take(wanted, &block)?;
                wanted += 1;
                // No worker needs it once all numbers are given out.
                let _ = give_free.send(block);
            }
        }
        assert_eq!(wanted, blocks, "every block was filled");
        Ok(())
    })
}

/// The next number with memory for its block; `None` when there is nothing more to do.
fn begin(next: &Mutex<(u64, mpsc::Receiver<Vec<u8>>)>, blocks: u64) -> Option<(u64, Vec<u8>)> {
    let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
    if next.0 == blocks {
        return None;
    }
    let block = next.1.recv().ok()?;
    let number = next.0;
    next.0 += 1;
    Some((number, block))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    /// Blocks take unequal times, so that they are done out of order.
    fn fill(number: u64, block: &mut Vec<u8>) {
        std::thread::sleep(Duration::from_micros(number * 7919 % 500));
        block.clear();
        block.extend_from_slice(&number.to_le_bytes());
    }

    #[test]
    fn blocks_come_in_order_and_complete() {
        for workers in [1, 2, 5] {
            for blocks in [0, 1, 2, 100] {
                let mut seen = Vec::new();
                let fill = |number, block: &mut Vec<u8>| {
                    fill(number, block);
                    Ok::<_, ()>(())
                };
                in_order(blocks, workers, fill, |number, block| {
                    assert_eq!(block, number.to_le_bytes());
                    seen.push(number);
                    Ok(())
                })
                .expect("no error");
                assert_eq!(seen, (0..blocks).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn memory_is_bounded_when_one_block_is_slow() {
        let (filled, workers) = (AtomicUsize::new(0), 3);
        let fill = |number, block: &mut Vec<u8>| {
            if number == 0 {
                std::thread::sleep(Duration::from_millis(100));
                assert!(filled.load(Ordering::Relaxed) <= 2 * workers + 1);
            }
            filled.fetch_add(1, Ordering::Relaxed);
            block.resize(1, 0);
            Ok::<_, ()>(())
        };
        in_order(100, workers, fill, |_, _| Ok(())).expect("no error");
        assert_eq!(filled.into_inner(), 100);
    }

    #[test]
    fn an_error_on_either_side_ends_it() {
        for bad in [0, 50, 99] {
            let fail = |number| if number == bad { Err(number) } else { Ok(()) };
            let filling = in_order(100, 3, |number, _| fail(number), |_, _| Ok(()));
            assert_eq!(filling, Err(bad));
            let taking = in_order(100, 3, |_, _| Ok(()), |number, _| fail(number));
            assert_eq!(taking, Err(bad));
        }
    }

    #[test]
    fn a_panic_of_a_worker_is_passed_on() {
        let outcome = catch_unwind(|| {
            in_order(
                100,
                3,
                |number, _| {
                    assert_ne!(number, 40, "a defect");
                    Ok::<_, ()>(())
                },
                |_, _| Ok(()),
            )
        });
        let panic = outcome.expect_err("the panic of block 40");
        let text = panic.downcast_ref::<String>().expect("formatted");
        assert!(text.contains("a defect"), "{text}");
    }
}
