//! How long a task of each stage takes, where nobody has measured it on the machine: figures that
//! were measured with this project's executors, published by others, or predicted, each with its
//! source.
//!
//! They are starting points. Whoever has measured the machine gives the times instead.

use std::collections::BTreeSet;
use std::time::Duration;

use seal_types::{SectorSize, Stage};

use crate::figures::layers;
use crate::given::Given;
use crate::{Executor, Hardware, predicted};

/// How long a task takes, and who says so.
#[derive(Clone, Debug, PartialEq)]
pub struct StageTime {
    /// From its start to its answer, with nothing else on its cores.
    pub time: Duration,
    /// Where the figure comes from.
    pub source: String,
}

/// One 32 GiB sector on a core with SHA-NI: the best that was published (lotus-bench, EPYC 7502).
const PC1_SECONDS: f64 = 10_320.0;
/// The same without SHA-NI, by cycles of a block: some 5 times.
const PC1_WITHOUT_SHA_NI: f64 = 5.0;
/// What sectors that share a unit take, in times of one that is alone: four interleaved chains on
/// a SHA unit that starts a round every 2 cycles (130 cycles of a block alone, 73.8 and 65 of each
/// of two and four).
pub(crate) const LANES: [f64; 4] = [1.0, 1.13, 1.55, 2.0];
/// What a sector takes whose unit has no producer, so that the core that labels gathers parents
/// too: 1,071 ns a label on both of two cores, 736 ns with one of them as producer (`bench-pc1`,
/// 512 MiB).
const WITHOUT_PRODUCER: f64 = 1.45;
/// Multiplications of PC2 for each node of the sector, with 11 layers and with 2: what the times of
/// 32 GiB sectors stand for in those of smaller ones.
const PC2_PER_NODE: [f64; 2] = [3_343.0, 1_130.0];
/// PC2 of 32 GiB on a GPU for which nothing is predicted, or by other software: published for
/// SupraSeal on an RTX A4000.
const PC2_GPU_SECONDS: f64 = 234.0;
/// C2 of 32 GiB on a GPU: published for SupraSeal on an RTX 3090.
const C2_GPU_SECONDS: f64 = 143.0;

/// What PC2 and C2 take on cores, by the kernel that computes.
struct OnCores {
    /// What the processor has to have, by its names in `/proc/cpuinfo`.
    needs: &'static [&'static str],
    /// PC2 of 32 GiB in seconds of a core, and who says so.
    pc2: (f64, &'static str),
    /// C2 of 32 GiB in seconds of a core, and who says so.
    c2: (f64, &'static str),
    /// The same of smaller sectors, which have one partition.
    c2_small: f64,
}

/// The fastest kernel first; the last computes on every processor.
const ON_CORES: [OnCores; 3] = [IFMA, FMA, PORTABLE];

/// AVX-512 IFMA, on a Xeon at 2.6 GHz. C2 has 10 partitions of 130 million constraints, where 2.7
/// million take 19.4 s of a core.
const IFMA: OnCores = OnCores {
    needs: &["avx512ifma"],
    pc2: (4_850.0, "bench-pc2 with AVX-512 IFMA"),
    c2: (9_400.0, "bench-c2 with AVX-512 IFMA"),
    c2_small: 20.0,
};

/// AVX2 and FMA. PC2 follows from 33,400 and 25,300 cycles a hash of arity 11 and 8, measured by
/// `pc2-exec rates` on a Zen 3 core at 3.1 GHz; C2 has no such kernel and is that of [`PORTABLE`].
const FMA: OnCores = OnCores {
    needs: &["avx2", "fma"],
    pc2: (14_200.0, "cycles of a hash with AVX2 and FMA"),
    c2: PORTABLE.c2,
    c2_small: PORTABLE.c2_small,
};

/// What every processor has. PC2 follows from 113,000 and 85,000 cycles a hash of arity 11 and 8,
/// measured on a Zen 3 core at 3.1 GHz; C2 is as long as the published CPU prover.
const PORTABLE: OnCores = OnCores {
    needs: &[],
    pc2: (48_000.0, "cycles of a hash without AVX2 and FMA"),
    c2: (36_500.0, "bench-c2 without AVX2 and FMA"),
    c2_small: 76.0,
};

/// What the fastest kernel of a machine takes; a kernel whose instructions nobody tells of is not
/// counted on.
fn on_cores(hardware: &Hardware) -> &'static OnCores {
    let can = |kernel: &&OnCores| kernel.needs.iter().all(|name| hardware.has(name) == Some(true));
    ON_CORES.iter().find(can).unwrap_or(&PORTABLE)
}

/// How long a task of `executor` takes; `None` for stages of other software and executors without
/// cores.
pub fn stage_time(
    executor: &Executor,
    hardware: &Hardware,
    size: SectorSize,
    given: &Given,
) -> Option<StageTime> {
    if let Some(time) = given.get(&executor.stage).and_then(|time| time.on(executor, hardware)) {
        return Some(time);
    }
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let scale = size.bytes() as f64 / SectorSize::GIB_32.bytes() as f64;
    let large = size >= SectorSize::GIB_32;
    let of_cores = |core_seconds: f64| {
        let cores = u32::try_from(cores_of(executor, hardware)).ok().filter(|cores| *cores > 0)?;
        Some(core_seconds / f64::from(cores))
    };
    let kernel = on_cores(hardware);
    let (seconds, source) = match executor.stage.served()? {
        Stage::Pc1 => {
            let (factor, lanes) = unit_factor_of(executor)?;
            #[expect(clippy::cast_precision_loss, reason = "2 or 11")]
            let layers = layers(size) as f64 / 11.0;
            let sha = if hardware.has("sha_ni") == Some(false) { PC1_WITHOUT_SHA_NI } else { 1.0 };
            let seconds = PC1_SECONDS * layers * scale * sha * factor;
            let sharing =
                if lanes > 1 { format!(", {lanes} sectors to a unit") } else { String::new() };
            (seconds, format!("lotus-bench on an EPYC 7502{sharing}"))
        }
        Stage::Pc2 if !executor.gpus.is_empty() => {
            let (seconds, source) = pc2_on_gpu(executor, hardware);
            (seconds * scale, format!("{source}{}", needs_cuda(executor)))
        }
        Stage::Pc2 => {
            let (seconds, source) = kernel.pc2;
            let small = if large { 1.0 } else { PC2_PER_NODE[1] / PC2_PER_NODE[0] };
            (of_cores(seconds * scale * small)?, source.to_owned())
        }
        Stage::C2 if !executor.gpus.is_empty() && large => {
            (C2_GPU_SECONDS * scale, format!("SupraSeal on an RTX 3090{}", needs_cuda(executor)))
        }
        Stage::C2 => {
            let (seconds, source) = kernel.c2;
            let seconds = if large { seconds } else { kernel.c2_small };
            (of_cores(seconds)?, source.to_owned())
        }
    };
    Some(StageTime { time: Duration::from_secs_f64(seconds), source })
}

/// PC2 of 32 GiB on the first GPU of an executor, and who says so. Our executor is predicted where
/// the card is known: the device's work, which disks can hold up.
fn pc2_on_gpu(executor: &Executor, hardware: &Hardware) -> (f64, String) {
    let first = executor.gpus.first();
    let gpu = hardware.gpus.iter().find(|gpu| Some(&gpu.index) == first);
    let known = gpu.filter(|_| executor.ours).and_then(|gpu| {
        predicted::PC2.iter().find(|predicted| is_card(&gpu.model, predicted.card))
    });
    match known {
        Some(predicted) => (
            predicted.seconds,
            format!("predicted for the work of an {}, not measured", predicted.card),
        ),
        None => (PC2_GPU_SECONDS, "SupraSeal on an RTX A4000".to_owned()),
    }
}

/// Whether a model's name is that of a card, up to its maker and the size and form of its memory. A
/// card of another name has other parts, also if it only has a word more: RTX 3080 Ti.
fn is_card(model: &str, card: &str) -> bool {
    let told = |word: &&str| {
        let size = word.strip_suffix("GB").is_some_and(|size| size.parse::<u32>().is_ok());
        let form = word.starts_with("HBM") || word.starts_with("SXM");
        // The A100 for PCI Express has as many multiprocessors as the other; the H100 has fewer.
        let same = card == "A100" && word.eq_ignore_ascii_case("pcie");
        let maker = ["NVIDIA", "GeForce"].contains(word);
        !(size || form || same || maker || word.is_empty())
    };
    model.split([' ', '-']).filter(told).eq(card.split(' '))
}

/// What a time on a GPU takes for granted of our executors.
fn needs_cuda(executor: &Executor) -> String {
    let ours = executor.stage.served().filter(|_| executor.ours);
    ours.map_or(String::new(), |stage| format!("; needs {} built with cuda", stage.executor()))
}

/// How many cores an executor keeps busy.
pub fn cores_of(executor: &Executor, hardware: &Hardware) -> usize {
    let core = |cpu| hardware.topology.cpu(cpu).map(|cpu| cpu.core);
    executor.busy.iter().filter_map(core).collect::<BTreeSet<_>>().len()
}

/// How many times as long a sector takes on a unit that so many share, with so many producers, as
/// one that is alone on a unit with a producer.
pub(crate) fn unit_factor(lanes: u32, producers: u32) -> f64 {
    let place = (lanes.max(1) as usize).min(LANES.len()) - 1;
    LANES[place] * if producers == 0 { WITHOUT_PRODUCER } else { 1.0 }
}

/// The same of an executor of PC1 that runs as many sectors as it can, and how many share a unit
/// then; `None` without units.
pub(crate) fn unit_factor_of(executor: &Executor) -> Option<(f64, u32)> {
    let lanes = lanes_used(executor)?;
    let unit = executor.units.as_ref()?.units.first()?;
    let producers = u32::try_from(unit.producers.len()).ok()?;
    Some((unit_factor(lanes, producers), lanes))
}

/// How many sectors share a unit of PC1 when it runs as many as it can; `None` without units.
pub fn lanes_used(executor: &Executor) -> Option<u32> {
    let units = executor.unit_count();
    if units == 0 {
        return None;
    }
    let tasks = executor.tasks.unwrap_or(units).max(1);
    Some(tasks.div_ceil(units).clamp(1, crate::scheme::MAX_LANES))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::Scheme;

    #[test]
    fn a_card_is_known_by_its_whole_name() {
        for (model, card, same) in [
            ("NVIDIA GeForce RTX 3080", "RTX 3080", true),
            ("GeForce RTX 3080", "RTX 3080", true),
            ("NVIDIA GeForce RTX 3080 Ti", "RTX 3080", false),
            ("NVIDIA GeForce RTX 4090 Laptop GPU", "RTX 4090", false),
            ("NVIDIA RTX A5000", "RTX A5000", true),
            ("NVIDIA A100-SXM4-40GB", "A100", true),
            ("NVIDIA A100 80GB PCIe", "A100", true),
            ("NVIDIA A100-PCIE-40GB", "A100", true),
            ("NVIDIA H100 80GB HBM3", "H100", true),
            ("NVIDIA H100 PCIe", "H100", false),
            ("NVIDIA H100 NVL", "H100", false),
            ("NVIDIA H200", "H200", true),
            ("NVIDIA L40", "L40S", false),
        ] {
            assert_eq!(is_card(model, card), same, "{model} {card}");
        }
    }

    fn pc2(model: &str, bin: &str) -> StageTime {
        let machine = format!(
            "name = 'm'\nmemory = '1TiB'\ncores_per_l3 = 8\n\
             numa_nodes = [{{ id = 0, cpus = '0-15' }}]\n\
             gpus = [{{ index = 0, model = '{model}' }}]\n"
        );
        let hardware = crate::hardware::parse(Path::new("m.toml"), &machine).expect("a machine");
        let config = format!(
            "[[processors.pc2]]\n{bin}envs = {{ FIL_PROOFS_USE_GPU_COLUMN_BUILDER = '1', \
             FIL_PROOFS_USE_GPU_TREE_BUILDER = '1', CUDA_VISIBLE_DEVICES = '0' }}\n"
        );
        let config = seal_config::parse(Path::new("w.toml"), &config).expect("a configuration");
        let scheme = Scheme::of(&config, &hardware, SectorSize::GIB_32);
        let executor = &scheme.executors[0];
        stage_time(executor, &hardware, SectorSize::GIB_32, &Given::new()).expect("an estimate")
    }

    #[test]
    fn cores_take_what_their_fastest_kernel_takes() {
        let config = "[[processors.pc2]]\nbin = '/opt/pc2-exec'\n[[processors.c2]]\n";
        let config = seal_config::parse(Path::new("w.toml"), config).expect("a configuration");
        let seconds = |instructions: &str, size| {
            let machine = format!(
                "name = 'm'\nmemory = '1TiB'\ncores_per_l3 = 8\n{instructions}\n\
                 numa_nodes = [{{ id = 0, cpus = '0-15' }}]\n"
            );
            let hardware = crate::hardware::parse(Path::new("m.toml"), &machine);
            let hardware = hardware.expect("a machine");
            let scheme = Scheme::of(&config, &hardware, size);
            let of = |executor| stage_time(executor, &hardware, size, &Given::new());
            let times: Vec<_> = scheme.executors.iter().filter_map(of).collect();
            times.iter().map(|time| time.time.as_secs_f64() * 16.0).collect::<Vec<_>>()
        };
        for (instructions, kernel) in [
            ("instructions = ['avx2', 'avx512f', 'avx512ifma', 'sha_ni']", &IFMA),
            // An EPYC 7002 or 7003, in a file that does not name FMA.
            ("instructions = ['avx2', 'sha_ni']", &FMA),
            ("instructions = ['sha_ni']", &PORTABLE),
            ("", &PORTABLE),
        ] {
            let close = |found: f64, wanted: f64| (found / wanted - 1.0).abs() < 1e-6;
            let found = seconds(instructions, SectorSize::GIB_32);
            let wanted = [kernel.pc2.0, kernel.c2.0];
            let is_so = found.len() == 2 && found.iter().zip(wanted).all(|(a, b)| close(*a, b));
            assert!(is_so, "{instructions}: {found:?}, not {wanted:?}");
            let small = seconds(instructions, SectorSize::MIB_512);
            assert!(close(small[0], kernel.pc2.0 / 64.0 * 1_130.0 / 3_343.0), "{small:?}");
            assert!(close(small[1], kernel.c2_small), "{small:?}");
        }
        assert!(ON_CORES.is_sorted_by(|a, b| a.pc2.0 < b.pc2.0 && a.c2.0 <= b.c2.0));
    }

    #[test]
    fn what_is_predicted_is_called_so_and_only_of_our_executors_on_known_cards() {
        let ours = "bin = '/opt/pc2-exec'\n";
        for predicted in &predicted::PC2 {
            let time = pc2(&format!("NVIDIA {}", predicted.card), ours);
            assert_eq!(time.time, Duration::from_secs_f64(predicted.seconds));
            let told = format!(
                "predicted for the work of an {}, not measured; needs pc2-exec built with cuda",
                predicted.card
            );
            assert_eq!(time.source, told);
        }
        for (model, bin) in [("NVIDIA RTX B1", ours), ("NVIDIA H200", "bin = '/opt/other'\n")] {
            let time = pc2(model, bin);
            assert_eq!(time.time, Duration::from_secs_f64(PC2_GPU_SECONDS));
            assert!(time.source.starts_with("SupraSeal on an RTX A4000"), "{}", time.source);
        }
    }
}
