//! What can go wrong between a C2 task and a verified proof.

use std::path::PathBuf;

use seal_cuda::CudaError;
use seal_host::{FileError, MapError, SpaceError};
use seal_types::{RegisteredProof, SectorSize};
use seal_wire::ErrorCode;

/// Why there is no proof, or why there are no parameters.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Groth16Error {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Too little space for the parameter files.
    #[error(transparent)]
    Space(#[from] SpaceError),
    /// A parameter file is not there.
    #[error("parameter file {} for sectors of {sector_size} is missing; {remedy}", path.display())]
    MissingParameters {
        /// The file.
        path: PathBuf,
        /// The sectors it is for.
        sector_size: SectorSize,
        /// What to do.
        remedy: String,
    },
    /// A parameter file's structure or contents are wrong.
    #[error(
        "parameter file {} is damaged: {reason}; remove it and fetch or make it again",
        path.display()
    )]
    DamagedParameters {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A parameter file is not what it was when its reading began.
    #[error("parameters: {0}; send the request again when the file is whole")]
    ParametersMap(#[from] MapError),
    /// A parameter file that is whole but neither published nor allowed.
    #[error(
        "parameter file {} is not the published one ({reason}); proofs made with it are worthless \
         on the network; fetch the published file, or allow test parameters \
         (--allow-test-params or SEAL_ALLOW_TEST_PARAMS=1) where proofs are only for tests",
        path.display()
    )]
    NotPublished {
        /// The file.
        path: PathBuf,
        /// How that is known.
        reason: String,
    },
    /// Test parameters are not made for production sizes.
    #[error(
        "test parameters are made for sectors of up to 512MiB, not for {sector_size}; fetch the \
         published parameters"
    )]
    TooLargeForTests {
        /// What was asked for.
        sector_size: SectorSize,
    },
    /// There are no registered proofs, and so no circuit, for a size.
    #[error(
        "sectors of {sector_size} have no registered proof; 2KiB, 8MiB, 512MiB, 32GiB and 64GiB have"
    )]
    NoCircuit {
        /// What was asked for.
        sector_size: SectorSize,
    },
    /// Test parameters would land where everything on this host takes its parameters from.
    #[error(
        "{} is where every proving program on this host looks for parameters; give another \
         directory, or --force",
        dir.display()
    )]
    DefaultDirectory {
        /// The directory.
        dir: PathBuf,
    },
    /// Test parameters would overwrite other parameters.
    #[error("{} is there and {what}; use another directory{}", path.display(), if *.force_helps { ", or --force to replace it" } else { "" })]
    WouldOverwrite {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
        /// Whether force replaces it.
        force_helps: bool,
    },
    /// The task's proof is one that is not proved here.
    #[error("{proof} is not supported: {reason}")]
    Unsupported {
        /// The proof.
        proof: RegisteredProof,
        /// Why.
        reason: &'static str,
    },
    /// The C1 output is not what its proof asks for.
    #[error("C1 output for {proof}: {at}: {reason}")]
    BadC1Output {
        /// The proof.
        proof: RegisteredProof,
        /// Where in the C1 output.
        at: String,
        /// What is wrong, with the value.
        reason: String,
    },
    /// The C1 output is one of another sector.
    #[error(
        "the C1 output belongs to another sector: its replica id is {found}, that of prover \
         {prover_id}, sector {sector_id} with this ticket, comm_d and {proof} is {expected}"
    )]
    OtherSector {
        /// The proof.
        proof: RegisteredProof,
        /// The replica id in the C1 output.
        found: seal_types::ReplicaId,
        /// The replica id that follows from the task.
        expected: seal_types::ReplicaId,
        /// The task's prover id.
        prover_id: seal_types::ProverId,
        /// The task's sector.
        sector_id: seal_types::SectorId,
    },
    /// The vanilla proofs do not hold.
    #[error(
        "the vanilla proofs for {proof} do not verify against comm_r {comm_r}, comm_d {comm_d} \
         and the seed; run C1 again"
    )]
    BadVanillaProofs {
        /// The proof.
        proof: RegisteredProof,
        /// The C1 output's commitment to the replica.
        comm_r: seal_types::Commitment,
        /// The C1 output's commitment to the data.
        comm_d: seal_types::Commitment,
    },
    /// A proof does not verify.
    #[error(
        "{what} does not verify although the vanilla proofs do; it was computed by the {device}: \
         memory, processor or parameters of this machine are faulty"
    )]
    SelfCheck {
        /// Which proof.
        what: String,
        /// Where it was computed.
        device: String,
    },
    /// A device that was asked for is not usable.
    #[error("no GPU is usable for proofs")]
    NoDevice(#[source] Box<CudaError>),
    /// There are too few cpus for the device's prover.
    #[error(
        "supraseal-c2 has started {cpus} thread for the cpus that this process could use at its \
         start, and proving on a GPU takes at least {least}; let it start with more cpus"
    )]
    TooFewCpus {
        /// How many threads it has.
        cpus: usize,
        /// How many it takes.
        least: usize,
    },
    /// The device's prover has threads that stay elsewhere.
    #[error("the threads of supraseal-c2 cannot be confined to the cpus of this process")]
    Threads(#[source] std::io::Error),
    /// A thread could not be started.
    #[error(
        "cannot start a thread; raise the limit of processes (ulimit -u, TasksMax=, pids.max) or of \
         memory (ulimit -v)"
    )]
    NoThread(#[source] std::io::Error),
    /// A device failed.
    #[error("the {device} failed to {what}")]
    Device {
        /// What it was to do.
        what: String,
        /// Which.
        device: String,
        /// What it says.
        #[source]
        source: Box<CudaError>,
    },
    /// A device never has the memory that it takes, and nothing may take its place.
    #[error(
        "the {device} is too small to {what}; prove on a GPU with more memory, on the CPU \
         (SEAL_C2_DEVICE=cpu), or let the CPU take over (SEAL_GPU=optional)"
    )]
    SmallDevice {
        /// What it was to do.
        what: String,
        /// Which.
        device: String,
        /// How much it takes, and how much there is.
        #[source]
        source: Box<CudaError>,
    },
    /// A device computes wrongly, and nothing may take its place.
    #[error(
        "the {device} has computed wrongly more than once and is left out until this process ends \
         ({reason}): the GPU, its memory, or the memory of this machine that it reads parameters \
         from is faulty; nothing is known against the sector. Prove on another GPU, on the CPU \
         (SEAL_C2_DEVICE=cpu), or let the CPU take over (SEAL_GPU=optional)"
    )]
    BadDevice {
        /// Which.
        device: String,
        /// What it computed wrongly the last time.
        reason: String,
    },
    /// The file that a device is tried with could not be made.
    #[error("a file in memory, to try the GPU with, could not be made")]
    TrialFile(#[source] std::io::Error),
    /// Less memory is allowed than parameters take.
    #[error(
        "the parameters for {sector_size} take {} MiB of memory, but {} MiB are allowed \
         (--params-memory, or the limit of a cgroup); allow more",
        bytes.div_ceil(1 << 20),
        allowed >> 20
    )]
    TooLargeParameters {
        /// Whose parameters.
        sector_size: SectorSize,
        /// What they take, in bytes.
        bytes: u64,
        /// What is allowed, in bytes.
        allowed: u64,
    },
    /// Less memory is allowed than one partition takes.
    #[error(
        "a partition of {proof} takes {} MiB of memory while it is proved{}, but {} MiB are \
         allowed (--memory, or the limit of a cgroup); allow more",
        wanted.div_ceil(1 << 20),
        beside(*params),
        allowed >> 20
    )]
    TooLittleMemory {
        /// The proof.
        proof: RegisteredProof,
        /// What a partition takes, in bytes.
        wanted: u64,
        /// What its parameters take of the same memory, in bytes; 0 where they have their own.
        params: u64,
        /// What is allowed, in bytes.
        allowed: u64,
    },
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// The published crates refused something that our checks let pass.
    #[error("{what}")]
    Upstream {
        /// What they were asked to do.
        what: &'static str,
        /// What they say.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What is to be had beside a partition, as part of an error.
fn beside(params: u64) -> String {
    match params {
        0 => String::new(),
        params => format!(", beside {} MiB for its parameters", params.div_ceil(1 << 20)),
    }
}

impl Groth16Error {
    /// The code under which the failure is answered.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::File(error) | Self::Space(SpaceError::Unknown(error)) => {
                if error.wrong_kind().is_some() {
                    ErrorCode::Parameters
                } else {
                    ErrorCode::of_io(&error.source)
                }
            }
            Self::Space(SpaceError::TooLittle { .. }) => ErrorCode::NoSpace,
            Self::ParametersMap(MapError::Memory { .. }) => ErrorCode::SelfCheck,
            Self::ParametersMap(_) => ErrorCode::Io,
            Self::MissingParameters { .. }
            | Self::DamagedParameters { .. }
            | Self::NotPublished { .. }
            | Self::TooLargeForTests { .. }
            | Self::DefaultDirectory { .. }
            | Self::WouldOverwrite { .. } => ErrorCode::Parameters,
            // A device's memory does not grow.
            Self::NoCircuit { .. } | Self::Unsupported { .. } | Self::SmallDevice { .. } => {
                ErrorCode::Unsupported
            }
            Self::BadC1Output { .. } | Self::OtherSector { .. } | Self::BadVanillaProofs { .. } => {
                ErrorCode::BadInput
            }
            Self::SelfCheck { .. } => ErrorCode::SelfCheck,
            Self::TooLittleMemory { .. }
            | Self::TooLargeParameters { .. }
            | Self::NoDevice(_)
            | Self::TooFewCpus { .. }
            | Self::Threads(_)
            | Self::NoThread(_)
            | Self::TrialFile(_)
            | Self::Device { .. } => ErrorCode::Unavailable,
            Self::BadDevice { .. } => ErrorCode::BadDevice,
            Self::Cancelled => ErrorCode::Cancelled,
            Self::Upstream { .. } => ErrorCode::Internal,
        }
    }

    /// What a device says when it is to do `what`.
    pub(crate) fn of_device(what: String, device: String, source: CudaError) -> Self {
        let (too_small, source) = (matches!(source, CudaError::TooSmall { .. }), Box::new(source));
        if too_small {
            Self::SmallDevice { what, device, source }
        } else {
            Self::Device { what, device, source }
        }
    }

    /// An adapter for `map_err` on what the file of a trial says.
    pub(crate) fn trial_file(error: std::io::Error) -> Self {
        Self::TrialFile(error)
    }

    /// An adapter for `map_err` on what the published crates answer.
    pub(crate) fn upstream<E>(what: &'static str) -> impl FnOnce(E) -> Self
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        move |source| Self::Upstream { what, source: source.into() }
    }
}
