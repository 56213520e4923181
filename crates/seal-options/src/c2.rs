//! Settings of `c2-exec`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use seal_types::{DEFAULT_PARAM_DIR, SectorSize, Stage};

use crate::common::Common;
use crate::forms::{self, COUNT, DIRECTORY, SIZE, TIME, YES_OR_NO};
use crate::pc2::OPTIONAL;
use crate::row::{About, Row};
use crate::{Environment, Fault, Settings, Source, Sources, isa, parse_size};

/// Where compiled circuits are kept, beside the parameters.
const CIRCUITS: &str = "seal-exec-circuits";
/// Instead of a directory: they are not kept.
const OFF: &str = "off";

const DEVICE: &str = "SEAL_C2_DEVICE";
const NO_GPU: &str = "BELLMAN_NO_GPU";

/// What `c2-exec` serves with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct C2 {
    /// What all executors have.
    pub common: Common,
    /// How many proofs are made at the same time.
    pub concurrent: Option<NonZeroUsize>,
    /// Sizes whose parameters are loaded ahead.
    pub preload: Vec<SectorSize>,
    /// Memory for the partitions that are being proved, in bytes.
    pub memory: Option<u64>,
    /// Memory for parameters, in bytes.
    pub params_memory: Option<u64>,
    /// Where the parameters are.
    pub params: PathBuf,
    /// Where compiled circuits are kept; `None` is nowhere.
    pub circuits: Option<PathBuf>,
    /// Who proves; `None` is the CPU, as nothing says anything.
    pub device: Option<C2Device>,
    /// What asks for the device.
    pub device_by: Option<Source>,
    /// Whether the environment asks for no GPU.
    pub no_gpu: bool,
    /// Which GPUs may be used, as the driver reads it.
    pub visible_gpus: Option<String>,
    /// Whether the CPU proves where no GPU is usable.
    pub gpu_optional: bool,
    /// Whether parameters are used that are not the published ones.
    pub allow_test_params: bool,
    /// Whether parameters are compared with their digests whenever they are loaded.
    pub verify_params: bool,
    /// How long what is looked at before the ready line may take.
    pub ready_within: Duration,
    /// The instructions of the arithmetic, if not the fastest.
    pub isa: Option<&'static str>,
    circuit_cache: Option<PathBuf>,
}

/// Who computes proofs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum C2Device {
    /// The processor.
    Cpu,
    /// The first NVIDIA GPU of those in `CUDA_VISIBLE_DEVICES`.
    Cuda,
}

fn sizes(text: &str) -> Option<Vec<SectorSize>> {
    text.split(',').map(|size| size.trim().parse().ok()).collect()
}

static ROWS: &[Row<C2>] = &[
    Row {
        about: About::option("--concurrent", "N").form(COUNT).default("1").meaning(
            "How many proofs are made at the same time; further tasks wait in their order",
        ),
        set: |c2, text| forms::count(text).map(|count| c2.concurrent = Some(count)),
    },
    Row {
        about: About { repeats: true, ..About::option("--preload", "SIZE,...") }
            .form("sector sizes with commas between, such as 32GiB,64GiB")
            .meaning(
                "Sector sizes whose parameters are looked for before the ready line, and then \
                 loaded ahead of the first task. Missing ones stop the start",
            ),
        set: |c2, text| sizes(text).map(|sizes| c2.preload = sizes),
    },
    Row {
        about: About::option("--memory", "SIZE").form(SIZE).without("no limit").meaning(
            "Memory for the partitions that are being proved. A partition of a 32 GiB sector takes \
             about 21 GiB; with room for two the next one is prepared while one is proved",
        ),
        set: |c2, text| parse_size(text).map(|bytes| c2.memory = Some(bytes)),
    },
    Row {
        about: About::option("--params-memory", "SIZE").form(SIZE).without("no limit").meaning(
            "Memory for parameters. Those for 32GiB take 45 GiB. When they do not fit together, \
             those of one sector size make room for those of another",
        ),
        set: |c2, text| parse_size(text).map(|bytes| c2.params_memory = Some(bytes)),
    },
    Row {
        about: About::variable("FIL_PROOFS_PARAMETER_CACHE")
            .form(DIRECTORY)
            .default(DEFAULT_PARAM_DIR)
            .meaning("The directory of the Groth16 parameters"),
        set: |c2, text| forms::path(text).map(|path| c2.params = path),
    },
    Row {
        about: About::variable("FIL_PROOFS_VERIFY_PRODUCTION_PARAMS")
            .form(YES_OR_NO)
            .default("0")
            .meaning(
                "1: compare parameter files with their published digests whenever they are \
                 loaded; 0: the first time, and again when a file has changed",
            ),
        set: |c2, text| forms::yes_or_no(text).map(|yes| c2.verify_params = yes),
    },
    Row {
        about: About::option("--circuit-cache", "DIR")
            .or_variable("SEAL_CIRCUIT_CACHE")
            .form("a directory, or off")
            .everywhere()
            .without("seal-exec-circuits beside the parameters")
            .meaning(
                "Where compiled circuits are kept (a third of a GiB for 32GiB), so that not every \
                 start has to compile them again; off: nowhere",
            ),
        set: |c2, text| forms::path(text).map(|path| c2.circuit_cache = Some(path)),
    },
    Row {
        about: About::option("--device", "DEVICE")
            .or_variable(DEVICE)
            .form("cpu or cuda")
            .everywhere()
            .without("cpu")
            .meaning(
                "Who proves: cpu, or cuda for an NVIDIA GPU, in a build with the feature cuda. A \
                 GPU that is not usable is an error at start",
            ),
        set: |c2, text| {
            let words = [("cpu", C2Device::Cpu), ("cuda", C2Device::Cuda)];
            forms::one_of(text, &words).map(|device| c2.device = Some(device))
        },
    },
    Row {
        about: About::variable("SEAL_GPU").form(OPTIONAL).meaning(
            "optional: the CPU proves where no GPU is usable, also in place of a GPU that computes \
             wrongly",
        ),
        set: |c2, text| (text.trim() == OPTIONAL).then(|| c2.gpu_optional = true),
    },
    Row {
        about: About { empty_is_a_value: true, ..About::variable("CUDA_VISIBLE_DEVICES") }
            .form("a list of GPUs")
            .without("all")
            .meaning("Which GPU, by index or UUID; the first of them is used"),
        set: |c2, text| {
            c2.visible_gpus = Some(text.to_owned());
            Some(())
        },
    },
    Row {
        // As published software reads it: whatever it is set to, but 0.
        about: About { empty_is_a_value: true, ..About::variable(NO_GPU) }
            .form("any text")
            .meaning("Anything but 0: no GPU; an error where one is asked for"),
        set: |c2, text| {
            c2.no_gpu = text != "0";
            Some(())
        },
    },
    Row {
        about: About::flag("--allow-test-params")
            .or_variable("SEAL_ALLOW_TEST_PARAMS")
            .everywhere()
            .default("0")
            .meaning(
                "Prove with parameters that are not the published ones. Such proofs are worthless \
                 on the network",
            ),
        set: |c2, text| forms::yes_or_no(text).map(|yes| c2.allow_test_params = yes),
    },
    Row {
        // Below the 5 s that venus-worker waits.
        about: About::variable("SEAL_READY_WITHIN").form(TIME).default("4s").meaning(
            "How long a GPU may be tried, and --preload look for parameters, before the ready line \
             goes out all the same",
        ),
        set: |c2, text| forms::time(text).map(|time| c2.ready_within = time),
    },
    Row {
        about: About::variable(isa::FORCE_ISA)
            .form(isa::FORM)
            .without("the fastest there is")
            .meaning(
                "Instructions of the arithmetic: ifma (AVX-512) or portable; the others are of \
                 pc1-exec and pc2-exec and do nothing here",
            ),
        set: |c2, text| isa::own(Stage::C2, text).map(|own| c2.isa = own),
    },
];

impl Settings for C2 {
    const STAGE: Stage = Stage::C2;

    fn rows() -> &'static [Row<Self>] {
        ROWS
    }

    fn common(&mut self) -> &mut Common {
        &mut self.common
    }

    fn finish(&mut self, sources: &Sources, environment: &Environment, faults: &mut Vec<Fault>) {
        let cache = self.circuit_cache.take().unwrap_or_else(|| self.params.join(CIRCUITS));
        self.circuits = (cache.as_os_str() != OFF).then_some(cache);
        self.device_by = sources.of(DEVICE).cloned();
        if self.device == Some(C2Device::Cuda) && self.no_gpu {
            let value = environment.get(NO_GPU).unwrap_or_default();
            let by = self.device_by.as_ref().map_or(DEVICE.to_owned(), ToString::to_string);
            faults.push(Fault {
                source: Source::Variable(NO_GPU),
                value: Some(value.to_owned()),
                reason: format!("it asks for no GPU, and {by} for one"),
                remedy: "unset one of them".to_owned(),
            });
        }
    }
}
