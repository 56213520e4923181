//! Who computes proofs: the processor, or a device.
//!
//! Checks, circuit, variables, products and verification are the processor's in any case. A device
//! takes what is left, the transforms and multiplications, and holds the points of the parameters
//! itself, so that there is no second copy of them.

use std::fmt;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::thread;

use bellperson::groth16::Proof;
use blstrs::{Bls12, Fp, Fp2, G1Affine, G2Affine, Scalar};
use seal_cuda::groth16::{self, Circuit, Density, Lists, RawProof};
use seal_cuda::{CudaError, OpenOptions};
use seal_field::ntt::words_of_scalar;
use seal_host::{allowed_cpus, confine_like_this_thread};

use crate::Groth16Error;
use crate::groth::Queries;
use crate::layout::Lengths;
use crate::step::LOOK_EVERY;
use crate::witness::Assignment;

/// Who computes proofs. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Device(Option<Arc<dyn Accelerator>>);

impl Device {
    /// The processor.
    pub fn cpu() -> Self {
        Self(None)
    }

    /// The first NVIDIA device that the driver shows, of those in `visible`, the value of
    /// `CUDA_VISIBLE_DEVICES`. It is opened here and now, and stays open.
    pub fn cuda(visible: Option<&str>) -> Result<Self, Groth16Error> {
        let options = OpenOptions { visible, ..OpenOptions::default() };
        let gpu =
            groth16::Gpu::open(options).map_err(|error| Groth16Error::NoDevice(Box::new(error)))?;
        let cpus = allowed_cpus().map_or(0, |cpus| cpus.iter().count());
        if cpus < LEAST_CPUS {
            return Err(Groth16Error::TooFewCpus { cpus, least: LEAST_CPUS });
        }
        // Its threads were there before this process was told its place.
        confine_like_this_thread().map_err(Groth16Error::Threads)?;
        Ok(Self(Some(Arc::new(Cuda(Arc::new(gpu))))))
    }

    /// A device made for tests.
    #[cfg(test)]
    pub(crate) fn of(accelerator: impl Accelerator + 'static) -> Self {
        Self(Some(Arc::new(accelerator)))
    }

    pub(crate) fn accelerator(&self) -> Option<&dyn Accelerator> {
        self.0.as_deref()
    }

    /// Its name, for messages, unless it is the processor.
    pub fn name(&self) -> Option<String> {
        self.accelerator().map(Accelerator::name)
    }
}

/// supraseal-c2 divides by half the number of cpus.
const LEAST_CPUS: usize = 2;

/// A device that proves.
pub(crate) trait Accelerator: fmt::Debug + Send + Sync {
    /// For messages.
    fn name(&self) -> String;

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
    fn name(&self) -> String {
        let info = self.0.info();
        format!("cuda device {} ({})", info.name, info.uuid)
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
    key: Box<dyn AcceleratorKey>,
    /// Made for the first proof.
    circuit: OnceLock<Circuit>,
}

impl DeviceKey {
    pub(crate) fn new(key: Box<dyn AcceleratorKey>) -> Self {
        Self { key, circuit: OnceLock::new() }
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
        let circuit = self.circuit.get_or_init(|| circuit(queries, rows));
        let (inputs, aux) = assignment.values.split_at(queries.inputs());
        let products = assignment.products.each_ref().map(|product| &product[..rows]);
        let given = groth16::Assignment { products, inputs, aux };
        let random = [words_of_scalar(r), words_of_scalar(s)];
        let proved = asking(|| self.key.prove(circuit, &given, random), go_on)?;
        Ok(proved.map(|raw| points(&raw)))
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
/// it borrows.
pub(crate) fn asking<T: Send, E>(
    work: impl FnOnce() -> T + Send,
    go_on: &mut dyn FnMut() -> Result<(), E>,
) -> Result<T, E> {
    thread::scope(|scope| {
        let (done, is_done) = mpsc::channel();
        let worker = scope.spawn(move || {
            let result = work();
            // Heard unless the other gave up.
            let _ = done.send(());
            result
        });
        let mut ended = Ok(());
        while ended.is_ok() {
            match is_done.recv_timeout(LOOK_EVERY) {
                Err(RecvTimeoutError::Timeout) => ended = go_on(),
                Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let result = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        ended.map(|()| result)
    })
}

#[cfg(test)]
#[path = "device/tests.rs"]
mod tests;
