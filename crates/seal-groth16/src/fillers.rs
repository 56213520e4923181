//! Threads of their own for filling circuits.
//!
//! The next partition is filled while one is proved. A thread of rayon's that waits for the other
//! half of its work takes up whatever else its pool has, and a challenge lasts for seconds: in one
//! pool the whole proof would wait for it.

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::Groth16Error;

/// Starts the threads on which proofs are computed, on the cpus of the calling thread: rayon would
/// start them with the first task, and panic if there are none to be had.
pub fn start_workers() -> Result<(), Groth16Error> {
    match ThreadPoolBuilder::new().build_global() {
        // There are some already.
        Err(error) if std::error::Error::source(&error).is_none() => Ok(()),
        built => built.map_err(|error| Groth16Error::NoThread(std::io::Error::other(error))),
    }
}

/// Threads that fill circuits and nothing else.
pub(crate) struct Fillers(ThreadPool);

impl Fillers {
    /// Threads on the cpus of the calling one, no more than there are cpus or `challenges`.
    pub(crate) fn start(challenges: usize) -> Result<Self, Groth16Error> {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let pool = ThreadPoolBuilder::new()
            // None would mean rayon's choice.
            .num_threads(cpus.min(challenges).max(1))
            .thread_name(|number| format!("fill-{number}"))
            .build()
            .map_err(|error| Groth16Error::NoThread(std::io::Error::other(error)))?;
        Ok(Self(pool))
    }

    /// Does `work` and whatever it divides among threads there; returns when it is done.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.0.install(work)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Mutex;
    use std::thread;

    use super::*;
    use crate::small::Small;
    use crate::witness::{Assignment, Form, assign};
    use bellperson::SynthesisError;
    use seal_host::{CpuSet, allowed_cpus, confine_current_thread};

    #[test]
    fn there_are_no_more_threads_than_challenges_or_cpus() {
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        let started = |challenges| {
            Fillers::start(challenges).expect("few threads").run(rayon::current_num_threads)
        };
        assert_eq!(started(1), 1);
        assert_eq!(started(1 << 20), cpus);
    }

    #[test]
    fn challenges_are_filled_on_these_threads_and_on_the_cpus_of_who_started_them() {
        let first = allowed_cpus().expect("some").iter().next().expect("one");
        let one: CpuSet = [first].into_iter().collect();
        let (compiled, circuit) = (Small::compiled(7), Small::filled(3, 7));
        let seen = Mutex::new(BTreeSet::new());
        let filled = thread::scope(|scope| {
            let on_one = scope.spawn(|| {
                confine_current_thread(&one).expect("it is allowed");
                Fillers::start(7).expect("few threads")
            });
            let fillers = on_one.join().expect("no panic");
            fillers.run(|| {
                assign(
                    &compiled,
                    Form::Canonical,
                    |challenge| {
                        let name = thread::current().name().unwrap_or_default().to_owned();
                        let cpus = allowed_cpus().map_err(SynthesisError::IoError)?;
                        seen.lock().expect("no panic").insert((name, cpus.to_string()));
                        Ok(circuit.alone(challenge))
                    },
                    &|| {},
                )
            })
        });
        let expected = [("fill-0".to_owned(), one.to_string())].into();
        assert_eq!(seen.into_inner().expect("no panic"), expected);

        let Assignment { values, products } = filled.expect("filled");
        let told = std::sync::atomic::AtomicU32::new(0);
        let tell = || {
            told.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        };
        let same = assign(&compiled, Form::Canonical, |i| Ok(circuit.alone(i)), &tell);
        let same = same.expect("filled");
        assert_eq!(told.into_inner(), 7, "each challenge is told");
        assert!(values == same.values && products == same.products);
    }

    #[test]
    fn the_first_challenge_that_fails_ends_the_others() {
        let (compiled, circuit) = (Small::compiled(50), Small::filled(3, 50));
        let begun = Mutex::new(0);
        // One thread, so that what is begun after the failure would be counted.
        let ended = Fillers::start(1).expect("a thread").run(|| {
            assign(
                &compiled,
                Form::Canonical,
                |challenge| {
                    let mut begun = begun.lock().expect("no panic");
                    *begun += 1;
                    match *begun {
                        3 => Err(SynthesisError::AssignmentMissing),
                        _ => Ok(circuit.alone(challenge)),
                    }
                },
                &|| {},
            )
        });
        assert!(matches!(ended, Err(SynthesisError::AssignmentMissing)));
        assert_eq!(begun.into_inner().expect("no panic"), 3);
    }
}
