//! Who computes proofs: the processor, or a device.
//!
//! Checks, circuit, variables, products and verification are the processor's in any case. A device
//! takes what is left, the transforms and multiplications, and holds the points of the parameters
//! itself, so that there is no second copy of them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use std::thread;
use std::time::{Duration, Instant};

use bellperson::groth16::Proof;
use blstrs::{Bls12, Fp, Fp2, G1Affine, G2Affine, Scalar};
use seal_cuda::groth16::{self, Circuit, Density, Lists, RawProof};
use seal_cuda::{Before, CudaError, OpenOptions};
use seal_field::ntt::words_of_scalar;
use seal_host::{CpuSet, confine_like_this_thread, online_cpus, start_scoped};

use crate::groth::Queries;
use crate::layout::Lengths;
use crate::standing::{Standing, Without};
use crate::step::LOOK_EVERY;
use crate::witness::Assignment;
use crate::{Groth16Error, trial};

/// Who computes proofs. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Device(Option<Arc<Held>>);

/// A device, and what is thought of it.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) accelerator: Arc<dyn Accelerator>,
    pub(crate) standing: Standing,
    /// Held while it is tried, so that nobody uses it meanwhile.
    pub(crate) trying: Mutex<()>,
    /// How long its trials are.
    pub(crate) trial_bits: u32,
}

impl Device {
    /// The processor.
    pub fn cpu() -> Self {
        Self(None)
    }

    /// The first NVIDIA device that the driver shows, of those in `visible`, the value of
    /// `CUDA_VISIBLE_DEVICES`. It is opened here and now, and stays open; it is tried before the
    /// first proof. `at_start` are the cpus that the process could use when it began, and
    /// `without` says what is done when it computes wrongly, or is known by `before` for having done
    /// so: what earlier processes have found wrong of devices, by model and UUID.
    pub fn cuda(
        visible: Option<&str>,
        at_start: &CpuSet,
        without: Without,
        before: &BTreeMap<String, Before>,
    ) -> Result<Self, Groth16Error> {
        let online =
            online_cpus(Path::new("/sys")).map_or_else(|_| at_start.len(), |cpus| cpus.len());
        let cpus = pool_threads(at_start, online);
        if cpus < LEAST_CPUS {
            return Err(Groth16Error::TooFewCpus { cpus, least: LEAST_CPUS });
        }
        let options = OpenOptions { visible, ..OpenOptions::default() };
        let gpu =
            groth16::Gpu::open(options).map_err(|error| Groth16Error::NoDevice(Box::new(error)))?;
        // Its threads were there before this process was told its place.
        confine_like_this_thread().map_err(Groth16Error::Threads)?;
        Self::with(Arc::new(Cuda(Arc::new(gpu))), without, trial::BITS).remembering(before)
    }

    /// Takes into account what earlier processes have found. A device that is left out by that, and
    /// that nothing may take the place of, is not usable.
    fn remembering(self, before: &BTreeMap<String, Before>) -> Result<Self, Groth16Error> {
        let Some(held) = &self.0 else { return Ok(self) };
        let device = held.accelerator.label();
        let Some(before) = before.get(&device) else { return Ok(self) };
        held.standing.remember(before);
        if held.standing.is_left_out() {
            let what = before.told.clone();
            if !held.standing.may_be_replaced() {
                let error = CudaError::Distrusted { device, what };
                return Err(Groth16Error::NoDevice(Box::new(error)));
            }
            tracing::error!(device, what, "the device is left out, and the processor proves");
        }
        Ok(self)
    }

    fn with(accelerator: Arc<dyn Accelerator>, without: Without, trial_bits: u32) -> Self {
        let standing = Standing::new(accelerator.label(), without);
        Self(Some(Arc::new(Held { accelerator, standing, trying: Mutex::new(()), trial_bits })))
    }

    /// A device made for tests, whose trials are short.
    #[cfg(test)]
    pub(crate) fn of(accelerator: impl Accelerator + 'static, without: Without) -> Self {
        Self::with(Arc::new(accelerator), without, 6)
    }

    pub(crate) fn held(&self) -> Option<&Held> {
        self.0.as_deref()
    }

    /// Its name, for messages, unless it is the processor.
    pub fn name(&self) -> Option<String> {
        self.held().map(|held| held.accelerator.name())
    }
}

/// supraseal-c2 divides by half the number of its threads.
const LEAST_CPUS: usize = 2;

/// How many threads supraseal-c2 starts before `main`, by the cpus that the process may use then
/// and the number of those that are online. Of so many cpus, from number 0 on, it counts those that
/// the process may use; if there is none, it starts a thread for each that is online.
fn pool_threads(allowed: &CpuSet, online: usize) -> usize {
    match allowed.iter().filter(|cpu| (*cpu as usize) < online).count() {
        0 => online,
        counted => counted,
    }
}

/// A device that proves.
pub(crate) trait Accelerator: fmt::Debug + Send + Sync {
    /// Its model and UUID.
    fn label(&self) -> String;

    /// For messages.
    fn name(&self) -> String {
        format!("cuda device {}", self.label())
    }

    /// Whether its memory suffices for a proof with these lists, as it is now.
    fn check_memory(&self, lists: Lists) -> Result<(), CudaError>;

    /// Begins to read parameters. Dropping them waits until they are read.
    fn load(&self, path: &Path, lists: Lists) -> Result<Box<dyn AcceleratorKey>, CudaError>;
}

/// Parameters that a device has, or is reading.
pub(crate) trait AcceleratorKey: Send + Sync {
    /// Proves with the randomness r and s; waits for the parameters.
    fn prove(
        &self,
        circuit: &Circuit,
        assignment: &groth16::Assignment<'_>,
        random: [groth16::Scalar; 2],
    ) -> Result<RawProof, CudaError>;
}

#[derive(Debug)]
struct Cuda(Arc<groth16::Gpu>);

impl Accelerator for Cuda {
    fn label(&self) -> String {
        self.0.info().model()
    }

    fn check_memory(&self, lists: Lists) -> Result<(), CudaError> {
        self.0.check_memory(lists)
    }

    fn load(&self, path: &Path, lists: Lists) -> Result<Box<dyn AcceleratorKey>, CudaError> {
        Ok(Box::new(self.0.load(path, lists)?))
    }
}

impl AcceleratorKey for groth16::Key {
    fn prove(
        &self,
        circuit: &Circuit,
        assignment: &groth16::Assignment<'_>,
        random: [groth16::Scalar; 2],
    ) -> Result<RawProof, CudaError> {
        groth16::Key::prove(self, circuit, assignment, random)
    }
}

/// The parameters of a circuit on a device.
pub(crate) struct DeviceKey {
    accelerator: Arc<dyn Accelerator>,
    path: PathBuf,
    lists: Lists,
    reading: RwLock<Reading>,
    /// Made for the first proof.
    circuit: OnceLock<Circuit>,
}

/// Parameters as they were read.
struct Reading {
    /// None while they are read anew.
    key: Option<Box<dyn AcceleratorKey>>,
    /// How many faults of the device were known when they were.
    number: u64,
}

/// How long memory of the device that somebody else holds is waited for. A process that has ended,
/// or has just given the device's lock back, gives it back within seconds.
const PATIENCE: Duration = Duration::from_secs(30);

impl DeviceKey {
    /// Lets the device begin to read the parameters at `path`. The reading's `number` is that of the
    /// faults of the device that are known.
    pub(crate) fn load(
        accelerator: Arc<dyn Accelerator>,
        path: &Path,
        lists: Lists,
        number: u64,
    ) -> Result<Self, CudaError> {
        let key = Some(accelerator.load(path, lists)?);
        let reading = RwLock::new(Reading { key, number });
        Ok(Self { accelerator, path: path.to_owned(), lists, reading, circuit: OnceLock::new() })
    }

    /// Lets the device read its parameters anew: what it has of them may have been spoiled. The
    /// memory for the old ones is given back first.
    pub(crate) fn read_anew(&self, number: u64) -> Result<(), CudaError> {
        let mut reading = self.reading.write().unwrap_or_else(PoisonError::into_inner);
        *reading = Reading { key: None, number };
        reading.key = Some(self.accelerator.load(&self.path, self.lists)?);
        Ok(())
    }

    /// The number of the reading that proofs are made from now.
    pub(crate) fn reading_number(&self) -> u64 {
        self.reading().number
    }

    fn reading(&self) -> RwLockReadGuard<'_, Reading> {
        self.reading.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the device's memory suffices for a proof, as it is now.
    pub(crate) fn check_memory(&self) -> Result<(), CudaError> {
        self.accelerator.check_memory(self.lists)
    }

    /// Waits, for a time, until the device's memory suffices for a proof.
    pub(crate) fn wait_for_memory<E>(
        &self,
        patience: Duration,
        go_on: &mut dyn FnMut() -> Result<(), E>,
    ) -> Result<Result<(), CudaError>, E> {
        let start = Instant::now();
        let mut told = false;
        loop {
            let error = match self.check_memory() {
                Err(error @ CudaError::TooLittle { .. }) if start.elapsed() < patience => error,
                checked => return Ok(checked),
            };
            if !std::mem::replace(&mut told, true) {
                tracing::warn!("waiting for memory of {}: {error}", self.accelerator.name());
            }
            go_on()?;
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Proves with the randomness `r` and `s`, of variables in Montgomery form, in a circuit of so
    /// many `rows`. `None`: what comes back are no points of the curve's groups. The device cannot
    /// be interrupted; `go_on` is asked meanwhile, and its error comes when the device is done.
    pub(crate) fn prove<E: Send>(
        &self,
        queries: &Queries,
        rows: usize,
        assignment: &Assignment,
        [r, s]: [Scalar; 2],
        go_on: &mut dyn FnMut() -> Result<(), E>,
    ) -> Result<Result<Option<Proof<Bls12>>, CudaError>, E> {
        if let Err(error) = self.wait_for_memory(PATIENCE, go_on)? {
            return Ok(Err(error));
        }
        let circuit = self.circuit.get_or_init(|| circuit(queries, rows));
        let (inputs, aux) = assignment.values.split_at(queries.inputs());
        let products = assignment.products.each_ref().map(|product| &product[..rows]);
        let given = groth16::Assignment { products, inputs, aux };
        let random = [words_of_scalar(r), words_of_scalar(s)];
        let work = || {
            // Reading them anew has failed.
            let failed = Some(self.reading()).filter(|reading| reading.key.is_none());
            if let Some(number) = failed.map(|reading| reading.number) {
                self.read_anew(number)?;
            }
            let reading = self.reading();
            let key = reading.key.as_ref().ok_or_else(|| CudaError::Groth16 {
                what: "prove",
                said: "its parameters are being read anew".to_owned(),
            })?;
            key.prove(circuit, &given, random)
        };
        let proved = asking(work, go_on)?;
        Ok(proved.map(|raw| points(&raw)))
    }
}

#[cfg(test)]
impl DeviceKey {
    /// Parameters that are there, of a device that has nothing else.
    pub(crate) fn of(key: Box<dyn AcceleratorKey>) -> Self {
        #[derive(Debug)]
        struct Nothing;
        impl Accelerator for Nothing {
            fn label(&self) -> String {
                "nothing".to_owned()
            }
            fn check_memory(&self, _: Lists) -> Result<(), CudaError> {
                Ok(())
            }
            fn load(&self, _: &Path, _: Lists) -> Result<Box<dyn AcceleratorKey>, CudaError> {
                Err(CudaError::NoGroth16)
            }
        }
        Self {
            accelerator: Arc::new(Nothing),
            path: PathBuf::new(),
            lists: Lists { inputs: 0, h: 0, l: 0, a: 0, b: 0 },
            reading: RwLock::new(Reading { key: Some(key), number: 0 }),
            circuit: OnceLock::new(),
        }
    }
}

/// The lists of a parameter file as the device's prover counts them.
pub(crate) fn lists(lengths: Lengths) -> Lists {
    let Lengths { inputs, h, l, a, b_g1, b_g2: _ } = lengths;
    Lists { inputs, h, l, a, b: b_g1 }
}

/// Which variables have points, apart by inputs and others.
fn circuit(queries: &Queries, rows: usize) -> Circuit {
    let (inputs, aux) = (queries.inputs(), queries.aux());
    let of_inputs = |list: &'_ [u32]| {
        let last = list.partition_point(|variable| (*variable as usize) < inputs);
        list[..last].iter().map(|variable| *variable as usize).collect::<Vec<_>>()
    };
    let of_aux = |list: &[u32]| {
        let first = list.partition_point(|variable| (*variable as usize) < inputs);
        Density::of(aux, list[first..].iter().map(|variable| *variable as usize - inputs))
    };
    Circuit {
        rows,
        a_aux: of_aux(queries.a()),
        b_inputs: Density::of(inputs, of_inputs(queries.b())),
        b_aux: of_aux(queries.b()),
    }
}

/// The proof, if its coordinates are those of points in the curve's groups: a device that fails
/// may leave anything behind, and pairings of other points mean nothing.
fn points(raw: &RawProof) -> Option<Proof<Bls12>> {
    let g1 = |[x, y]: [groth16::Coordinate; 2]| {
        let point = G1Affine::from_raw_unchecked(
            Fp::from_raw_unchecked(x),
            Fp::from_raw_unchecked(y),
            false,
        );
        Option::<G1Affine>::from(G1Affine::from_uncompressed(&point.to_uncompressed()))
    };
    let g2 = |[x, y]: [[groth16::Coordinate; 2]; 2]| {
        let fp2 = |[c0, c1]: [groth16::Coordinate; 2]| {
            Fp2::new(Fp::from_raw_unchecked(c0), Fp::from_raw_unchecked(c1))
        };
        let point = G2Affine::from_raw_unchecked(fp2(x), fp2(y), false);
        Option::<G2Affine>::from(G2Affine::from_uncompressed(&point.to_uncompressed()))
    };
    Some(Proof { a: g1(raw.a)?, b: g2(raw.b)?, c: g1(raw.c)? })
}

/// Does `work` on another thread and asks `go_on` meanwhile. The work is waited for in any case:
/// it borrows. Where no thread can be had, it is done by this one, and cannot be stopped.
pub(crate) fn asking<T: Send, E>(
    work: impl FnOnce() -> T + Send,
    go_on: &mut dyn FnMut() -> Result<(), E>,
) -> Result<T, E> {
    // Where it is still to be found if the thread cannot be had.
    let work = Mutex::new(Some(work));
    let run = || work.lock().unwrap_or_else(PoisonError::into_inner).take().map(|work| work());
    let (done, is_done) = mpsc::channel();
    let (result, ended) = thread::scope(|scope| {
        let worker = start_scoped(scope, "device", move || {
            let result = run();
            // Heard unless the other gave up.
            let _ = done.send(());
            result
        });
        let mut ended = Ok(());
        let worker = match worker {
            Ok(worker) => worker,
            Err(error) => {
                tracing::debug!(%error, "no thread can be started; this one does the work");
                ended = go_on();
                return (if ended.is_ok() { run() } else { None }, ended);
            }
        };
        while ended.is_ok() {
            match is_done.recv_timeout(LOOK_EVERY) {
                Err(RecvTimeoutError::Timeout) => ended = go_on(),
                Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        (worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), ended)
    });
    ended.map(|()| result.expect("the work was done once"))
}

#[cfg(test)]
#[path = "device/tests.rs"]
mod tests;

#[cfg(test)]
#[path = "device/wrong.rs"]
mod wrong;
