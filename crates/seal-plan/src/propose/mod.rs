//! From a machine to a configuration: how many sectors memory, cores and disks carry, and which
//! division of cores and GPUs delivers most.
//!
//! Every candidate is written as a configuration, read back as the supervisor reads it, and judged
//! by what it would deliver; the best one is proposed.

mod layout;
mod pools;
mod scarce;
mod sharings;
mod upgrade;
mod write;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use seal_config::{Config, StageName};
use seal_host::NodeId;
use seal_types::{SectorSize, Stage};

use crate::check::Against;
use crate::disk::{self, OnDisk};
use crate::figures::{disk_of_sector, parents_cache, stage_memory};
use crate::given::Given;
use crate::hardware::Node;
use crate::throughput::{Limit, Throughput, throughput};
use crate::times::SEED_WAIT;
use crate::{Bytes, Hardware, Scheme};

pub use layout::{Layout, Part, Pc1Part, Sharing};
pub use scarce::Scarce;
use sharings::sharings;
pub use upgrade::{Upgrade, upgraded};
use write::Final;

/// What a proposal is to be good at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Goal {
    /// The most sectors a day.
    #[default]
    Throughput,
    /// The least waiting: a unit of PC1 for each sector, and later stages that are idle half of the
    /// time, so that a sector seldom finds them busy.
    Latency,
}

/// Whether PC2 and C2 share GPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum GpuSharing {
    /// Every GPU belongs to one stage.
    Exclusive,
    /// Every GPU has a PC2 and a C2, which take turns under its lock.
    Shared,
}

/// What is wished for.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Size of the sectors.
    pub sector_size: SectorSize,
    /// What it is to be good at.
    pub goal: Goal,
    /// Whether PC2 and C2 share GPUs; `None` for what delivers more.
    pub sharing: Option<GpuSharing>,
    /// Cores kept free on each socket; `None` for two, or one of eight on small processors.
    pub reserve: Option<u32>,
    /// Sectors in PC1 at the same time; `None` for as many as are of use.
    pub pc1: Option<u32>,
    /// Threads that gather parents for each thread that labels.
    pub producers: u32,
    /// Stages that are sealed on this machine.
    pub stages: BTreeSet<Stage>,
    /// Where memory files of huge pages will be, if they are to be used.
    pub huge_pages: Option<PathBuf>,
    /// Where the executors are, if not beside the supervisor.
    pub bin_dir: Option<PathBuf>,
    /// Times that were measured.
    pub given: Given,
    /// Between PC2 and C2: the wait for the chain's randomness.
    pub seed_wait: Duration,
}

impl Default for Wish {
    fn default() -> Self {
        Self {
            sector_size: SectorSize::GIB_32,
            goal: Goal::Throughput,
            sharing: None,
            reserve: None,
            pc1: None,
            producers: 1,
            stages: Stage::ALL.into_iter().collect(),
            huge_pages: None,
            bin_dir: None,
            given: Given::new(),
            seed_wait: SEED_WAIT,
        }
    }
}

impl Wish {
    /// What a set-up for it on `hardware` is held against, be that machine here or elsewhere.
    pub fn against<'a>(&'a self, hardware: &'a Hardware) -> Against<'a> {
        Against {
            hardware,
            local: None,
            sector_size: self.sector_size,
            sectors: None,
            given: &self.given,
            seed_wait: self.seed_wait,
        }
    }
}

/// A configuration for a machine.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// The configuration as TOML, with reasons.
    pub text: String,
    /// The same as the supervisor reads it.
    pub config: Config,
    /// Which executor has what.
    pub layout: Layout,
    /// How PC2 and C2 share.
    pub sharing: Sharing,
    /// What it delivers.
    pub throughput: Throughput,
    /// Sectors on disk at the same time.
    pub on_disk: OnDisk,
    /// What each resource would carry.
    pub bounds: Bounds,
}

/// How many sectors in PC1 each resource would carry if there were enough of the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Memory that is left for labels: beside the other stages, and room for file caches.
    pub memory: u64,
    /// Units of cores, beside cores for the other stages.
    pub cores: u64,
    /// Disks, beside the sectors of the other stages and those that wait for randomness; `None`
    /// where no disk is known.
    pub disk: Option<u64>,
}

/// Why there is no proposal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Impossible {
    /// Not one sector has room in memory.
    #[error(
        "memory: one {size} sector in pc1 takes {task} on one NUMA node, and the other stages \
         {others}; the machine has {usable} ({node} on its largest node); seal smaller sectors, \
         leave stages to another machine (--stages), or add memory"
    )]
    Memory {
        /// Size of the sectors.
        size: SectorSize,
        /// What a sector in PC1 takes.
        task: Bytes,
        /// What the other stages take.
        others: Bytes,
        /// What there is.
        usable: Bytes,
        /// What the node with the most of it has.
        node: Bytes,
    },
    /// Huge pages leave too little for what does not use them.
    #[error(
        "memory: {set_aside} are set aside as huge pages, which leaves {left} for all else, and the \
         stages after pc1 take {others}; set fewer aside (/proc/sys/vm/nr_hugepages, or hugepages= \
         at boot), or leave stages to another machine (--stages)"
    )]
    HugePages {
        /// Set aside.
        set_aside: Bytes,
        /// What is left.
        left: Bytes,
        /// What the other stages take.
        others: Bytes,
    },
    /// Too few cores.
    #[error(
        "cores: {cores} cores are too few for {stages} with {reserve}; keep fewer free \
         (--reserve-cores), use fewer producers, or leave stages to another machine (--stages)"
    )]
    Cores {
        /// What there is.
        cores: usize,
        /// What is to run.
        stages: String,
        /// What is kept free.
        reserve: String,
    },
    /// Not one sector has room on disk.
    #[error(
        "disk: a {size} sector takes {each} while it is sealed, at least {least} are on disk at a \
         time (in the stages, and waiting for the chain), and there is room for {room}; add disks, \
         free space, or leave stages to another machine (--stages)"
    )]
    Disk {
        /// Size of the sectors.
        size: SectorSize,
        /// What a sector takes.
        each: Bytes,
        /// The fewest that are on disk when one is in each executor.
        least: u64,
        /// For how many there is room.
        room: u64,
    },
    /// As many sectors as were asked for do not fit.
    #[error(
        "{wanted} sectors in pc1 were asked for, and {limit} carries {most} at most; ask for {most} \
         (--pc1), or leave --pc1 out for as many as are of use"
    )]
    TooMany {
        /// Asked for.
        wanted: u32,
        /// What carries fewer.
        limit: &'static str,
        /// How many it carries.
        most: u64,
    },
    /// GPUs cannot be shared as asked.
    #[error("there is no GPU that pc2 and c2 could have or share: leave --gpu-sharing out")]
    NoGpu,
}

impl Impossible {
    /// What there is too little of, in a word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Memory { .. } | Self::HugePages { .. } => "memory",
            Self::Cores { .. } => "cores",
            Self::Disk { .. } => "disk",
            Self::TooMany { limit, .. } => limit,
            Self::NoGpu => "GPUs",
        }
    }
}

/// Candidates within this part of the best one are as good.
const AS_GOOD: f64 = 0.995;

/// The best configuration for `hardware`.
///
/// # Errors
/// When memory, cores or disks carry not even one sector, or not as many as were asked for.
pub fn propose(hardware: &Hardware, wish: &Wish) -> Result<Proposal, Impossible> {
    let mut best: Option<(f64, Proposal)> = None;
    let mut hindrance = None;
    for sharing in sharings(hardware, wish)? {
        let counts = match counts(hardware, wish, sharing) {
            Ok(counts) => counts,
            Err(impossible) => {
                hindrance.get_or_insert(impossible);
                continue;
            }
        };
        let bounds = bounds(hardware, wish, sharing);
        for tasks in counts {
            let candidate = match candidate(hardware, wish, sharing, &bounds, tasks) {
                Ok(candidate) => candidate,
                Err(impossible) => {
                    hindrance.get_or_insert(impossible);
                    continue;
                }
            };
            let score = score(&candidate.throughput, wish.goal);
            if best.as_ref().is_none_or(|(best, _)| *best < score * AS_GOOD) {
                best = Some((score, candidate));
            }
        }
    }
    let none = || Impossible::Cores {
        cores: hardware.cores(),
        stages: wish.stages.iter().map(|stage| stage.name()).collect::<Vec<_>>().join(", "),
        reserve: match wish.reserve {
            Some(cores) => format!("{cores} kept free on each socket"),
            None => "some kept free".to_owned(),
        },
    };
    match best {
        Some((_, proposal)) => Ok(completed(hardware, wish, proposal)),
        None => Err(hindrance.unwrap_or_else(none)),
    }
}

/// What each resource carries beside the later stages.
fn bounds(hardware: &Hardware, wish: &Wish, sharing: Sharing) -> Bounds {
    let (_, memory) = memory_bound(hardware, wish, sharing);
    let cores = most_by_cores(hardware, wish, sharing);
    Bounds { memory, cores, disk: disk::room(hardware, wish.sector_size) }
}

/// The best candidate with what can be told of it only now. A time between starts that is of use
/// never limits, so candidates are judged without it.
fn completed(hardware: &Hardware, wish: &Wish, best: Proposal) -> Proposal {
    let pc1 = best.throughput.stages.iter().find(|stage| stage.stage == StageName::Pc1);
    let stagger = pc1.and_then(|stage| stagger(&best.throughput, stage.tasks));
    let end = Final { stagger, on_disk: best.on_disk };
    let Proposal { sharing, layout, bounds, .. } = best;
    finished(hardware, wish, sharing, layout, Some(&end), bounds)
}

/// Executors of PC2 and C2.
fn later_executors(wish: &Wish, sharing: Sharing) -> [u64; 2] {
    let [pc2, c2] = match sharing {
        Sharing::Turns => [1, 1],
        Sharing::Shared { gpus } => [gpus, gpus],
        Sharing::Exclusive { pc2, c2 } => [pc2, c2.max(1)],
    };
    let with = |stage, count| if wish.stages.contains(&stage) { count as u64 } else { 0 };
    [with(Stage::Pc2, pc2), with(Stage::C2, c2)]
}

/// What the executors of PC2 and C2 hold.
fn later_memory(wish: &Wish, sharing: Sharing) -> Bytes {
    let [pc2, c2] = later_executors(wish, sharing);
    let one = |stage| stage_memory(stage, wish.sector_size).of_tasks(1);
    one(Stage::Pc2).times(pc2) + one(Stage::C2).times(c2)
}

/// Memory left for file caches, if nobody asked for a number of sectors: the parents cache, which
/// every sector reads once for each layer, or a sixteenth of the machine if that is less.
fn cache_room(hardware: &Hardware, wish: &Wish) -> Bytes {
    if wish.pc1.is_some() {
        return Bytes(0);
    }
    parents_cache(wish.sector_size).min(hardware.ordinary().part(1, 16))
}

/// The most sectors in PC1 on each node by its memory, and on the whole machine.
fn memory_bound(
    hardware: &Hardware,
    wish: &Wish,
    sharing: Sharing,
) -> (BTreeMap<NodeId, u64>, u64) {
    let others = later_memory(wish, sharing);
    let nodes = hardware.nodes.len() as u64;
    // A sector holds two layers, each as a whole in huge pages or in ordinary memory. The other
    // stages and file caches have ordinary memory only.
    let layer = Bytes(wish.sector_size.bytes());
    let huge = |node: &Node| node.pieces_in_huge_pages(layer);
    let ordinary = |node: &Node| node.ordinary().less(others.part(1, nodes)).holds(layer);
    let by_node: BTreeMap<_, _> =
        hardware.nodes.iter().map(|node| (node.id, (huge(node) + ordinary(node)) / 2)).collect();
    let beside = hardware.ordinary().less(others).less(cache_room(hardware, wish)).holds(layer);
    let room = (hardware.nodes.iter().map(huge).sum::<u64>() + beside) / 2;
    let total =
        if others > hardware.ordinary() { 0 } else { by_node.values().sum::<u64>().min(room) };
    (by_node, total)
}

/// The most sectors in PC1 that disks carry beside those of the other stages, if none waits for
/// randomness. How many wait depends on what a candidate delivers.
fn disk_bound(hardware: &Hardware, wish: &Wish, sharing: Sharing) -> Option<u64> {
    let room = disk::room(hardware, wish.sector_size)?;
    Some(room.saturating_sub(later_executors(wish, sharing).iter().sum()))
}

/// How many sectors in PC1 are tried, in ascending order.
fn counts(hardware: &Hardware, wish: &Wish, sharing: Sharing) -> Result<Vec<u32>, Impossible> {
    if !wish.stages.contains(&Stage::Pc1) {
        let others = later_memory(wish, sharing);
        if others > hardware.ordinary() {
            return Err(no_memory(hardware, wish, sharing));
        }
        return Ok(vec![0]);
    }
    let (_, memory) = memory_bound(hardware, wish, sharing);
    if memory == 0 {
        return Err(no_memory(hardware, wish, sharing));
    }
    let disk = disk_bound(hardware, wish, sharing);
    if disk == Some(0) {
        let waiting = u64::from(wish.stages.contains(&Stage::Pc2));
        let least = 1 + waiting + later_executors(wish, sharing).iter().sum::<u64>();
        return Err(no_disk(hardware, wish, least));
    }
    if let Some(wanted) = wish.pc1 {
        for (limit, most) in [("memory", Some(memory)), ("disk space", disk)] {
            if let Some(most) = most.filter(|most| *most < u64::from(wanted)) {
                return Err(Impossible::TooMany { wanted, limit, most });
            }
        }
        return Ok(vec![wanted]);
    }
    let lanes = if wish.goal == Goal::Latency { 1 } else { crate::scheme::MAX_LANES };
    let units: u64 = hardware
        .nodes
        .iter()
        .map(|node| u64::from(pools::most_units(hardware, node.id, wish.producers)))
        .sum();
    let most = memory.min(disk.unwrap_or(u64::MAX)).min(units * u64::from(lanes)).max(1);
    Ok((1..=u32::try_from(most).unwrap_or(u32::MAX)).collect())
}

fn no_memory(hardware: &Hardware, wish: &Wish, sharing: Sharing) -> Impossible {
    let (others, left) = (later_memory(wish, sharing), hardware.ordinary());
    let set_aside = hardware.nodes.iter().map(Node::set_aside).sum();
    if others > left && set_aside > Bytes(0) {
        return Impossible::HugePages { set_aside, left, others };
    }
    Impossible::Memory {
        size: wish.sector_size,
        task: stage_memory(Stage::Pc1, wish.sector_size).task,
        others: later_memory(wish, sharing),
        usable: hardware.usable(),
        node: hardware.nodes.iter().map(|node| node.usable).max().unwrap_or_default(),
    }
}

fn no_disk(hardware: &Hardware, wish: &Wish, least: u64) -> Impossible {
    let (size, each) = (wish.sector_size, disk_of_sector(wish.sector_size));
    Impossible::Disk { size, each, least, room: disk::room(hardware, size).unwrap_or(0) }
}

/// A candidate whose sectors all have room on disk, also those that wait for randomness, with the
/// sectors in PC1 that disks would carry at its pace.
fn with_room(
    hardware: &Hardware,
    wish: &Wish,
    mut candidate: Proposal,
) -> Result<Proposal, Impossible> {
    let tasks: u64 = candidate.layout.pc1.iter().map(|part| u64::from(part.tasks)).sum();
    let Some(room) = disk::room(hardware, wish.sector_size) else { return Ok(candidate) };
    if tasks == 0 {
        let total = candidate.on_disk.total();
        return if total > room { Err(no_disk(hardware, wish, total)) } else { Ok(candidate) };
    }
    let OnDisk { working, waiting } = candidate.on_disk;
    #[expect(clippy::cast_precision_loss, reason = "a few sectors")]
    let per_task = 1.0 + waiting as f64 / tasks as f64;
    // Each sector in PC1 comes with as many that wait, whatever their number.
    let others = working.saturating_sub(tasks);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few sectors")]
    let most = (room.saturating_sub(others) as f64 / per_task).floor() as u64;
    if candidate.on_disk.total() <= room {
        candidate.bounds.disk = Some(most.max(tasks));
        return Ok(candidate);
    }
    Err(match wish.pc1 {
        Some(wanted) if most > 0 => {
            let most = most.min(tasks - 1);
            Impossible::TooMany { wanted, limit: "disk space", most }
        }
        _ => no_disk(hardware, wish, candidate.on_disk.total()),
    })
}

/// The configuration with so many sectors in PC1.
fn candidate(
    hardware: &Hardware,
    wish: &Wish,
    sharing: Sharing,
    bounds: &Bounds,
    tasks: u32,
) -> Result<Proposal, Impossible> {
    let (by_node, _) = memory_bound(hardware, wish, sharing);
    let tasks_by_node = spread(tasks, &by_node);
    let lanes = match wish.goal {
        Goal::Latency if wish.pc1.is_none() => 1,
        _ => crate::scheme::MAX_LANES,
    };
    let layout = (1..=lanes)
        .find_map(|lanes| layout::lay_out(hardware, wish, sharing, &tasks_by_node, lanes));
    let Some(layout) = layout else {
        return Err(match wish.pc1 {
            Some(wanted) if bounds.cores > 0 => {
                let most = bounds.cores * u64::from(lanes);
                Impossible::TooMany { wanted, limit: "the number of cores", most }
            }
            _ => Impossible::Cores {
                cores: hardware.cores(),
                stages: wish.stages.iter().map(|s| s.name()).collect::<Vec<_>>().join(", "),
                reserve: "those kept free".to_owned(),
            },
        });
    };
    with_room(hardware, wish, finished(hardware, wish, sharing, layout, None, bounds.clone()))
}

/// Half of the mean time between starts, in whole steps that people use; nothing where it would be
/// too short to matter.
fn stagger(throughput: &Throughput, tasks: u32) -> Option<Duration> {
    let seconds = 86_400.0 / throughput.sectors_per_day / 2.0;
    let steps: [u64; 9] = [600, 480, 300, 240, 180, 120, 60, 30, 10];
    let step =
        steps.into_iter().find(|step| Duration::from_secs(*step).as_secs_f64() <= seconds)?;
    (tasks > 1).then(|| Duration::from_secs(step))
}

/// Writes a layout, reads it back and judges it.
fn finished(
    hardware: &Hardware,
    wish: &Wish,
    sharing: Sharing,
    layout: Layout,
    end: Option<&Final>,
    bounds: Bounds,
) -> Proposal {
    let text = write::write(hardware, wish, sharing, &layout, end);
    let config = seal_config::parse(Path::new("proposal"), &text)
        .unwrap_or_else(|error| panic!("a proposal that cannot be read: {error}\n{text}"));
    let scheme = Scheme::of(&config, hardware, wish.sector_size);
    let throughput = throughput(&scheme, hardware, &wish.given);
    let on_disk = OnDisk::of(&scheme, throughput.sectors_per_day, wish.seed_wait);
    Proposal { text, config, layout, sharing, throughput, on_disk, bounds }
}

/// How good a candidate is.
fn score(throughput: &Throughput, goal: Goal) -> f64 {
    let rate = throughput.sectors_per_day;
    match goal {
        Goal::Throughput => rate,
        Goal::Latency => {
            // A stage that is busy half of the time lets a sector wait half of its time on average
            // (M/D/1); each further sector of PC1 only lengthens the queue.
            let later = throughput.bounds.iter().filter(|(limit, _)| {
                !matches!(limit, Limit::Stage(StageName::Pc1) | Limit::Staggered(_))
            });
            let least = later.map(|(_, rate)| *rate).fold(f64::INFINITY, f64::min);
            if least >= 2.0 * rate { rate } else { 1.0 / throughput.seconds_of_sector / rate }
        }
    }
}

/// The most sectors in PC1, one to a unit, beside which the other stages have cores at all.
fn most_by_cores(hardware: &Hardware, wish: &Wish, sharing: Sharing) -> u64 {
    let units: BTreeMap<NodeId, u64> = hardware
        .nodes
        .iter()
        .map(|node| (node.id, u64::from(pools::most_units(hardware, node.id, wish.producers))))
        .collect();
    let most = u32::try_from(units.values().sum::<u64>()).unwrap_or(u32::MAX);
    // Few fit where many do not, so the most is found by halving.
    let fits =
        |tasks: u32| layout::lay_out(hardware, wish, sharing, &spread(tasks, &units), 1).is_some();
    let (mut low, mut high) = (0, most + 1);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if fits(middle) { low = middle } else { high = middle }
    }
    u64::from(low)
}

/// Shares sectors out among nodes, evenly as far as each can have them.
fn spread(tasks: u32, most: &BTreeMap<NodeId, u64>) -> BTreeMap<NodeId, u32> {
    let mut counts: BTreeMap<NodeId, u32> = most.keys().map(|node| (*node, 0)).collect();
    for _ in 0..tasks {
        let open = counts.iter().filter(|(node, count)| u64::from(**count) < most[node]);
        let Some(node) = open.min_by_key(|(node, count)| (**count, **node)).map(|(n, _)| *n) else {
            break;
        };
        *counts.entry(node).or_default() += 1;
    }
    counts
}
