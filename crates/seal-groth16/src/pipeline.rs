//! A task's partitions, one after the other: while one is proved the next is filled.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;

use crate::Groth16Error;
use crate::step::{At, LOOK_EVERY, ProveStep, step};

/// Asked now and then by who works on a partition; an error ends the work.
pub(crate) type GoOn<'a> = dyn FnMut() -> Result<(), Groth16Error> + 'a;

/// Fills and proves all partitions in their order, and tells how far that is. At most two are
/// filled at a time: one that is proved, and one that waits. The flag that both `fill` and `prove`
/// are given is set once nobody wants the rest.
pub(crate) fn one_by_one<Task: Send, Filled: Send, Proof>(
    partitions: Vec<Task>,
    fill: impl Fn(u32, Task, &AtomicBool) -> Result<Filled, Groth16Error> + Send,
    prove: impl Fn(u32, Filled, &AtomicBool, &mut GoOn<'_>) -> Result<Proof, Groth16Error>,
    at: &mut At<'_>,
) -> Result<Vec<Proof>, Groth16Error> {
    // A proof of replication has ten.
    let count = partitions.len() as u32;
    let stop = AtomicBool::new(false);
    let (ready, next) = mpsc::sync_channel(0);
    thread::scope(|scope| {
        let stop = &stop;
        let filler = seal_host::start_scoped(scope, "fill", move || {
            for (partition, task) in (0..).zip(partitions) {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                // Nobody listens after an error; the next look at `stop` ends this.
                let _ = ready.send(fill(partition, task, stop));
            }
        });
        filler.map_err(Groth16Error::NoThread)?;
        let mut proofs = Vec::with_capacity(count as usize);
        let mut prove_next = |partition| {
            let proving =
                ProveStep::Proving { partition, partitions: count, filling: None, proving: None };
            let mut go_on = || step(at, proving);
            let filled = loop {
                go_on()?;
                match next.recv_timeout(LOOK_EVERY) {
                    Err(RecvTimeoutError::Timeout) => {}
                    // The sender ends early only after `stop`.
                    other => {
                        break other.map_err(Groth16Error::upstream("fill the circuit"))??;
                    }
                }
            };
            // That it is filled is told before it goes on.
            go_on()?;
            prove(partition, filled, stop, &mut go_on)
        };
        for partition in 0..count {
            match prove_next(partition) {
                Ok(proof) => proofs.push(proof),
                Err(error) => {
                    stop.store(true, Ordering::Relaxed);
                    // Frees a sender that waits.
                    drop(next);
                    return Err(error);
                }
            }
        }
        Ok(proofs)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turns::{Share, Turns};
    use std::convert::Infallible;
    use std::ops::ControlFlow;
    use std::sync::Mutex;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn go_on(_: ProveStep) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// Counts what is in flight.
    #[derive(Default)]
    struct Flights {
        now: AtomicUsize,
        most: AtomicUsize,
    }

    struct Flight<'a> {
        flights: &'a Flights,
        _memory: Share<'a>,
    }

    impl Flights {
        fn begin<'a>(&'a self, memory: &'a Turns) -> Flight<'a> {
            let wait = &mut || Ok::<_, Infallible>(());
            let Ok(share) = memory.take(1, wait);
            let share = share.expect("there is one");
            let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            Flight { flights: self, _memory: share }
        }
    }

    impl Drop for Flight<'_> {
        fn drop(&mut self) {
            self.flights.now.fetch_sub(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn proofs_come_in_the_order_of_their_partitions() {
        let mut told = Vec::new();
        let proofs = one_by_one(
            vec!['a', 'b', 'c'],
            |partition, task, _| Ok((partition, task)),
            |partition, filled, _, _| Ok((partition, filled)),
            &mut |step| {
                told.push(step);
                ControlFlow::Continue(())
            },
        );
        assert_eq!(proofs.expect("nothing fails"), [(0, (0, 'a')), (1, (1, 'b')), (2, (2, 'c'))]);
        told.dedup();
        let step = |partition| ProveStep::Proving {
            partition,
            partitions: 3,
            filling: None,
            proving: None,
        };
        assert_eq!(told, [step(0), step(1), step(2)]);
    }

    #[test]
    fn the_next_partition_is_filled_while_one_is_proved() {
        let (filled, is_filled) = mpsc::channel();
        let proofs = one_by_one(
            vec![(); 4],
            |partition, (), _| {
                filled.send(partition).expect("the test listens");
                Ok(())
            },
            |partition, (), _, _| {
                // After the last there is none.
                while partition < 3
                    && is_filled.recv_timeout(PATIENCE).expect("filled meanwhile") != partition + 1
                {
                }
                Ok(partition)
            },
            &mut go_on,
        );
        assert_eq!(proofs.expect("nothing fails"), [0, 1, 2, 3]);
    }

    #[test]
    fn memory_for_one_partition_is_enough_for_ten() {
        for (partitions_of_memory, at_once) in [(1, 1), (2, 2), (10, 2)] {
            let (memory, flights) = (Turns::new(partitions_of_memory), Flights::default());
            let proofs = one_by_one(
                vec![(); 10],
                |_, (), _| Ok(flights.begin(&memory)),
                |partition, flight, _, _| {
                    // The other, if there is memory for it, comes.
                    while flight.flights.now.load(Ordering::SeqCst) < at_once && partition < 9 {
                        thread::yield_now();
                    }
                    Ok(partition)
                },
                &mut go_on,
            );
            assert_eq!(proofs.expect("nothing fails"), (0..10).collect::<Vec<_>>());
            let most = flights.most.into_inner();
            // One more is begun in the moment between two proofs.
            assert!(most <= at_once + 1 && most as u64 <= partitions_of_memory, "{most} at once");
        }
    }

    #[test]
    fn two_tasks_take_turns_by_partition() {
        let (proving, order) = (Turns::new(1), Mutex::new(Vec::new()));
        let done = [AtomicBool::new(false), AtomicBool::new(false)];
        thread::scope(|scope| {
            for task in 0..2 {
                let (proving, order, done) = (&proving, &order, &done);
                scope.spawn(move || {
                    let prove = |_, (), _: &AtomicBool, go_on: &mut GoOn<'_>| {
                        let _turn = proving.take(1, go_on)?;
                        order.lock().expect("no panic").push(task);
                        // Until the other stands behind, as it does while real proofs take long.
                        while proving.waiting() == 0 && !done[1 - task].load(Ordering::SeqCst) {
                            thread::yield_now();
                        }
                        Ok(())
                    };
                    let fill = |_, (), _: &AtomicBool| Ok(());
                    one_by_one(vec![(); 10], fill, prove, &mut go_on).expect("nothing fails");
                    done[task].store(true, Ordering::SeqCst);
                });
            }
        });
        let order = order.into_inner().expect("no panic");
        assert_eq!(order.len(), 20);
        assert!(order.windows(2).all(|pair| pair[0] != pair[1]), "{order:?}");
    }

    #[test]
    fn nothing_is_filled_after_an_error() {
        let fail = || Groth16Error::SelfCheck { what: "it".to_owned(), device: String::new() };
        let filled = AtomicUsize::new(0);
        let count = |partition: u32| {
            filled.fetch_add(1, Ordering::SeqCst);
            partition
        };
        let ended = one_by_one(
            vec![(); 50],
            |partition, (), _| if count(partition) == 2 { Err(fail()) } else { Ok(()) },
            |partition, (), _, _| {
                assert!(partition < 2, "there is nothing to prove");
                Ok(())
            },
            &mut go_on,
        );
        assert!(matches!(ended, Err(Groth16Error::SelfCheck { .. })));
        assert!(filled.swap(0, Ordering::SeqCst) <= 4);
        let ended = one_by_one(
            vec![(); 50],
            |partition, (), _| Ok(count(partition)),
            |partition, _, _, _| if partition == 1 { Err(fail()) } else { Ok(()) },
            &mut go_on,
        );
        assert!(matches!(ended, Err(Groth16Error::SelfCheck { .. })));
        assert!(filled.into_inner() <= 4);
    }

    #[test]
    fn whoever_stops_a_task_ends_its_filling() {
        let mut looks = 0;
        let ended = one_by_one(
            vec![(); 3],
            |_, (), stop| {
                while !stop.load(Ordering::Relaxed) {
                    thread::yield_now();
                }
                Err::<(), _>(Groth16Error::Cancelled)
            },
            |_, (), _, _| Ok(()),
            &mut |_| {
                looks += 1;
                if looks < 3 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            },
        );
        assert!(matches!(ended, Err(Groth16Error::Cancelled)));
    }
}
