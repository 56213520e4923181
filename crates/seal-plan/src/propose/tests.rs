//! Proposals for recorded and for random machines.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;
use seal_config::{Config, ExecutorConfig};
use seal_host::{Cpu, CpuSet, L3Id, Topology};

use super::*;
use crate::check::check;
use crate::given::{GivenTime, Reference, for_search};
use crate::hardware::{self, Disk, Gpu, Node};

fn machine(name: &str) -> Hardware {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("machines");
    hardware::load(&dir.join(name)).unwrap_or_else(|error| panic!("{error}"))
}

fn scheme(name: &str) -> Config {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/schemes");
    seal_config::load(&dir.join(name)).expect("a scheme that must work")
}

fn proposal(hardware: &Hardware, wish: &Wish) -> Proposal {
    propose(hardware, wish).unwrap_or_else(|error| panic!("{}: {error}", hardware.name))
}

fn findings(hardware: &Hardware, wish: &Wish, config: &Config) -> Vec<String> {
    check(config, wish.against(hardware)).iter().map(ToString::to_string).collect()
}

/// That two configurations have the same executors, limits and locks. Left out is the setting
/// without effect in any software of today.
fn same(proposed: &Config, wanted: &Config) {
    assert_eq!(proposed.concurrent, wanted.concurrent);
    assert_eq!(proposed.locks, wanted.locks);
    let plain = |config: &Config| -> BTreeMap<StageName, Vec<ExecutorConfig>> {
        let mut executors = config.executors.clone();
        for executor in executors.values_mut().flatten() {
            executor.line = 0;
            executor.envs.remove("FIL_PROOFS_MAXIMIZE_CACHING");
            // How our C2 is asked to use the GPU that other software uses without being asked.
            executor.envs.remove("SEAL_C2_DEVICE");
        }
        executors
    };
    assert_eq!(plain(proposed), plain(wanted));
}

fn shared_28(sharing: GpuSharing) -> Wish {
    Wish { sharing: Some(sharing), pc1: Some(28), ..Wish::default() }
}

#[test]
fn scheme_a_comes_out_set_for_set() {
    let hardware = machine("epyc7642x2.toml");
    let proposal = proposal(&hardware, &shared_28(GpuSharing::Exclusive));
    same(&proposal.config, &scheme("scheme-a.toml"));
    assert_eq!(proposal.layout.kept_free.to_string(), "38,41,86,89");
}

#[test]
fn scheme_b_comes_out_set_for_set() {
    let hardware = machine("epyc7642x2.toml");
    let proposal = proposal(&hardware, &shared_28(GpuSharing::Shared));
    same(&proposal.config, &scheme("scheme-b.toml"));
    assert_eq!(proposal.layout.kept_free.to_string(), "38,41,86,89");
}

#[test]
fn proposals_for_all_recorded_machines_pass_the_check_without_a_finding() {
    let mut seen = 0;
    for entry in
        fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("machines")).expect("there")
    {
        let name = entry.expect("readable").file_name();
        let name = name.to_str().expect("UTF-8");
        let hardware = machine(name);
        let small = name == "laptop.toml";
        let size = if small { SectorSize::MIB_512 } else { SectorSize::GIB_32 };
        for goal in [Goal::Throughput, Goal::Latency] {
            for sharing in [None, Some(GpuSharing::Exclusive), Some(GpuSharing::Shared)] {
                if hardware.gpus.is_empty() && sharing.is_some() {
                    continue;
                }
                let wish = Wish { sector_size: size, goal, sharing, ..Wish::default() };
                let proposal = proposal(&hardware, &wish);
                let found = findings(&hardware, &wish, &proposal.config);
                assert!(found.is_empty(), "{name} {goal:?}: {found:#?}\n{}", proposal.text);
                assert!(proposal.throughput.sectors_per_day > 0.0);
            }
        }
        seen += 1;
    }
    assert!(seen >= 7, "machines are missing");
}

#[test]
fn what_cannot_be_is_said_with_its_numbers() {
    let laptop = machine("laptop.toml");
    let error = propose(&laptop, &Wish::default()).unwrap_err().to_string();
    assert!(error.starts_with("memory: one 32GiB sector in pc1 takes 64 GiB"), "{error}");
    let epyc = machine("epyc7642x2.toml");
    let wish = |pc1, reserve| Wish { pc1: Some(pc1), reserve, ..Wish::default() };
    let error = propose(&epyc, &wish(32, None)).unwrap_err().to_string();
    let said =
        "32 sectors in pc1 were asked for, and memory carries 28 at most; ask for 28 (--pc1)";
    assert!(error.starts_with(said), "{error}");
    let error = propose(&epyc, &wish(1, Some(48))).unwrap_err().to_string();
    assert!(error.starts_with("cores: 96 cores are too few for pc1, pc2, c2"), "{error}");
    let wish = Wish { sharing: Some(GpuSharing::Shared), ..Wish::default() };
    let wish = Wish { sector_size: SectorSize::MIB_512, ..wish };
    assert_eq!(propose(&laptop, &wish).unwrap_err(), Impossible::NoGpu);
    let mut full = epyc.clone();
    full.disks = vec![Disk { path: "/mnt".into(), size: Bytes::gib(600), free: Bytes::gib(400) }];
    let error = propose(&full, &Wish::default()).unwrap_err().to_string();
    assert!(error.starts_with("disk: a 32GiB sector takes 517 GiB"), "{error}");
}

/// Huge pages are for labels; the other stages have what is left.
#[test]
fn huge_pages_leave_room_for_the_other_stages() {
    let mut hardware = sixteen_cores();
    let node = &mut hardware.nodes[0];
    (node.memory, node.usable) = (Bytes::gib(500), Bytes::gib(495));
    let with_pages = |total| {
        let mut hardware = hardware.clone();
        let pages = hardware::HugePages { total, free: total };
        hardware.nodes[0].huge_pages = [(Bytes::gib(1), pages)].into_iter().collect();
        hardware
    };
    let error = propose(&with_pages(450), &Wish::default()).unwrap_err().to_string();
    let said = "memory: 450 GiB are set aside as huge pages, which leaves 45 GiB for all else, and \
                the stages after pc1 take ";
    assert!(error.starts_with(said), "{error}");
    // 12 layers in huge pages, none beside 89 GiB and file caches.
    let wish = Wish { sharing: Some(GpuSharing::Exclusive), ..Wish::default() };
    let proposal = proposal(&with_pages(384), &wish);
    assert_eq!(proposal.bounds.memory, 6);
    assert_eq!(findings(&with_pages(384), &wish, &proposal.config), [""; 0]);
}

#[test]
fn stages_that_are_done_elsewhere_are_left_out() {
    let hardware = machine("threadripper3990x.toml");
    let wish = Wish { stages: [Stage::Pc1].into_iter().collect(), ..Wish::default() };
    let alone = proposal(&hardware, &wish);
    assert_eq!(alone.config.executors.keys().copied().collect::<Vec<_>>(), [StageName::Pc1]);
    let tasks = |proposal: &Proposal| proposal.config.concurrent[&StageName::Pc1].get();
    assert!(tasks(&alone) > tasks(&proposal(&hardware, &Wish::default())));
    let wish = Wish { stages: [Stage::Pc2, Stage::C2].into_iter().collect(), ..Wish::default() };
    let later = proposal(&hardware, &wish);
    assert!(!later.config.executors.contains_key(&StageName::Pc1));
    assert_eq!(findings(&hardware, &wish, &later.config), [""; 0]);
}

#[test]
fn wishes_appear_in_the_configuration() {
    let hardware = machine("epyc7763x2.toml");
    let wish = Wish {
        huge_pages: Some(PathBuf::from("/mnt/huge")),
        bin_dir: Some(PathBuf::from("/opt/seal-exec")),
        producers: 3,
        ..Wish::default()
    };
    let proposal = proposal(&hardware, &wish);
    let pc1 = &proposal.config.executors[&StageName::Pc1][0];
    assert_eq!(pc1.bin.as_deref(), Some(Path::new("/opt/seal-exec/pc1-exec")));
    assert_eq!(pc1.envs["HUGEPAGE_FILES_PATH"], "/mnt/huge");
    assert_eq!(pc1.envs["FIL_PROOFS_MULTICORE_SDR_PRODUCERS"], "3");
    let tasks = pc1.concurrent.expect("counted").get();
    let command = format!("pc1-exec hugepages --node 0 --count {} --size 32GiB", 2 * tasks);
    assert!(proposal.text.contains(&command), "{}", proposal.text);
}

#[test]
fn more_of_what_limits_brings_more() {
    let hardware = machine("epyc7642x2.toml");
    let wish = Wish::default();
    let rate = |hardware: &Hardware| proposal(hardware, &wish).throughput.sectors_per_day;
    let now = rate(&hardware);
    let more = upgraded(&hardware, Upgrade::Memory(Bytes::gib(512)));
    assert_eq!(more.usable(), hardware.usable() + Bytes::gib(512));
    let more_cores = upgraded(&hardware, Upgrade::Cores(8));
    assert_eq!(more_cores.cores(), 104);
    let more_gpus = upgraded(&hardware, Upgrade::Gpu);
    assert_eq!(more_gpus.gpus.len(), 3);
    let best = [more, more_cores, more_gpus].iter().map(&rate).fold(0.0, f64::max);
    assert!(best > now * 1.02, "{best} of {now}");
}

#[test]
fn what_is_scarce_is_named() {
    let scarce = |hardware: &Hardware, wish: &Wish| {
        let proposal = proposal(hardware, wish);
        let scheme = Scheme::of(&proposal.config, hardware, wish.sector_size);
        proposal.scarce(&scheme, wish).word()
    };
    let epyc = machine("epyc7642x2.toml");
    let wish = Wish::default();
    assert_eq!(scarce(&epyc, &wish), "memory");
    assert_eq!(scarce(&epyc, &Wish { pc1: Some(3), ..Wish::default() }), "pc1 = 3, as asked");
    // Memory carries no more than were asked for.
    assert_eq!(scarce(&epyc, &shared_28(GpuSharing::Shared)), "memory");
    let more = upgraded(&epyc, Upgrade::Memory(Bytes::gib(2048)));
    let alone =
        Wish { goal: Goal::Latency, stages: [Stage::Pc1].into_iter().collect(), ..Wish::default() };
    assert_eq!(scarce(&more, &alone), "cores");
    let mut full = epyc.clone();
    full.disks = vec![Disk { path: "/d".into(), size: Bytes::gib(9000), free: Bytes::gib(9000) }];
    assert_eq!(scarce(&full, &wish), "disk");
    let slow =
        [(StageName::C2, GivenTime::as_it_is(Duration::from_secs(2000)))].into_iter().collect();
    assert_eq!(scarce(&epyc, &Wish { given: slow, ..Wish::default() }), "GPUs");
    let mut none = epyc.clone();
    none.gpus.clear();
    assert_eq!(scarce(&none, &wish), "cores");
}

/// A machine of one socket.
fn sixteen_cores() -> Hardware {
    let text = "name = 'm'\nmemory = '2TiB'\ncores_per_l3 = 8\n\
                instructions = ['sha_ni', 'avx2']\nnuma_nodes = [{ id = 0, cpus = '0-15' }]\n\
                gpus = [{ index = 0, model = 'G' }, { index = 1, model = 'G' }]\n";
    hardware::parse(Path::new("m.toml"), text).expect("a machine")
}

fn given(stage: StageName, seconds: u64, reference: Reference) -> Given {
    let time = Duration::from_secs(seconds);
    let time = GivenTime { time, reference, source: "measured.json".to_owned() };
    [(stage, time)].into_iter().collect()
}

#[test]
fn a_measured_time_proposes_what_the_same_estimate_does() {
    let hardware = sixteen_cores();
    let rate = |given: Given| {
        let proposal = proposal(&hardware, &Wish { given, ..Wish::default() });
        let tasks = proposal.config.concurrent[&StageName::Pc1].get();
        (tasks, (proposal.throughput.sectors_per_day * 10.0).round() / 10.0)
    };
    // Sectors that share a unit take longer, whoever says how long one takes that is alone.
    let estimated = rate(Given::new());
    assert_eq!(estimated, (16, 67.0));
    assert_eq!(rate(given(StageName::Pc1, 10_320, Reference::unit(1, 1))), estimated);
    assert_eq!(rate(given(StageName::Pc1, 20_640, Reference::unit(4, 1))), estimated);
}

#[test]
fn a_time_on_cores_is_of_use_for_other_numbers_of_cores_and_not_for_gpus() {
    let mut hardware = sixteen_cores();
    hardware.gpus.clear();
    let given = given(StageName::C2, 3600, Reference::Cores(8.0));
    let wish = Wish { given: given.clone(), ..Wish::default() };
    let now = proposal(&hardware, &wish).throughput.sectors_per_day;
    let more = upgraded(&hardware, Upgrade::Cores(8));
    let more = proposal(&more, &wish).throughput.sectors_per_day;
    assert!(more > now * 1.2, "{more} with 8 cores more, {now} without");
    // On a GPU it is estimated, as if nothing had been measured.
    let with_gpus = sixteen_cores();
    let wish = Wish { sharing: Some(GpuSharing::Shared), ..wish };
    let measured = proposal(&with_gpus, &wish);
    let estimated = proposal(&with_gpus, &Wish { given: Given::new(), ..wish });
    assert_eq!(measured.text, estimated.text);
    let source = |proposal: &Proposal| {
        proposal.throughput.stages.iter().map(|s| s.time.source.clone()).collect::<Vec<_>>()
    };
    assert_eq!(source(&measured), source(&estimated));
}

/// 25 TiB have room for 49 sectors, in the stages and waiting for the chain.
#[test]
fn what_is_proposed_with_little_disk_is_delivered_with_the_sectors_there_is_room_for() {
    let text = "name = 'm'\nmemory = '3TiB'\ncores_per_l3 = 8\ninstructions = ['sha_ni']\n\
                numa_nodes = [{ id = 0, cpus = '0-95' }, { id = 1, cpus = '96-191' }]\n\
                gpus = [{ index = 0, model = 'G', numa_node = 0 }, \
                        { index = 1, model = 'G', numa_node = 1 }]\n\
                disks = [{ path = '/d', size = '30TiB', free = '25TiB' }]\n";
    let hardware = hardware::parse(Path::new("m.toml"), text).expect("a machine");
    let wish = Wish::default();
    let proposal = proposal(&hardware, &wish);
    let scheme = Scheme::of(&proposal.config, &hardware, wish.sector_size);
    assert_eq!(proposal.scarce(&scheme, &wish).word(), "disk");
    let room = u32::try_from(crate::disk::room(&hardware, wish.sector_size).expect("a disk"));
    let room = room.expect("a few");
    assert_eq!(room, 49);
    assert!(proposal.on_disk.total() <= u64::from(room), "{:?}", proposal.on_disk);
    assert!(proposal.on_disk.waiting >= 10, "{:?}", proposal.on_disk);
    let told = format!("have {} sectors on their way", proposal.on_disk.total());
    assert!(proposal.text.contains(&told), "{}", proposal.text);
    let simulated = |supply| {
        let day = Duration::from_secs(86_400);
        let options = crate::simulate::Options {
            supply,
            until: crate::simulate::Until::Time(30 * day),
            warm_up: crate::simulate::WarmUp::Time(3 * day),
            seed: 1,
            locks: crate::simulate::Locks::AsConfigured,
        };
        let times = crate::times::Times::new(wish.sector_size);
        crate::simulate::simulate(&proposal.config, &scheme, &hardware, &times, &options)
            .expect("all stages are ours")
    };
    let expected = proposal.throughput.sectors_per_day;
    // The worker has as many as the configuration says, or as many as there is room for.
    for supply in [
        Some(crate::simulate::Supply::InFlight(
            u32::try_from(proposal.on_disk.total()).expect("a few"),
        )),
        None,
    ] {
        let report = simulated(supply);
        let rate = report.sectors_per_day;
        assert!((rate / expected - 1.0).abs() < 0.02, "{rate} simulated, {expected} proposed");
        assert!(report.in_flight_peak <= f64::from(room), "{}", report.in_flight_peak);
    }
    let said = |supply| simulated(supply).findings.join("; ");
    assert!(said(None).contains("room for 49 sectors of 517 GiB, so no more"), "{}", said(None));
    let many = said(Some(crate::simulate::Supply::InFlight(116)));
    assert!(many.contains("116 sectors were on their way at the same time"), "{many}");
}

#[test]
fn a_time_from_nowhere_is_that_of_the_configuration_or_refused() {
    let hardware = machine("epyc7642x2.toml");
    let config = scheme("scheme-a.toml");
    let scheme = Scheme::of(&config, &hardware, SectorSize::GIB_32);
    let unknown = given(StageName::C2, 300, Reference::Unknown);
    let error = for_search(&unknown, None, &hardware).unwrap_err().to_string();
    assert!(error.contains("measured.json: the time of c2 does not say"), "{error}");
    assert!(error.contains("gpu = true, or cores = N under [c2]"), "{error}");
    // Our C2 is on 28 cores as long as nobody asks it to use the GPU that it is given.
    let clear = for_search(&unknown, Some(&scheme), &hardware).expect("it has executors of c2");
    assert_eq!(clear[&StageName::C2].reference, Reference::Cores(28.0));
    let asked = "[[processors.c2]]\nenvs = { SEAL_C2_DEVICE = 'cuda' }\n";
    let asked = seal_config::parse(Path::new("w.toml"), asked).expect("valid");
    let asked = Scheme::of(&asked, &hardware, SectorSize::GIB_32);
    let clear = for_search(&unknown, Some(&asked), &hardware).expect("it has executors of c2");
    assert_eq!(clear[&StageName::C2].reference, Reference::Gpu);
    let pc1 = given(StageName::Pc1, 300, Reference::Unknown);
    let clear = for_search(&pc1, Some(&scheme), &hardware).expect("it has executors of pc1");
    assert_eq!(clear[&StageName::Pc1].reference, Reference::Unit(1.0));
    let cores = "[[processors.c2]]\ncgroup.cpuset = '0-5'\n[[processors.c2]]\n\
                 cgroup.cpuset = '6-7'\n";
    let config = seal_config::parse(Path::new("w.toml"), cores).expect("valid");
    let scheme = Scheme::of(&config, &hardware, SectorSize::GIB_32);
    let clear = for_search(&unknown, Some(&scheme), &hardware).expect("on cores");
    assert_eq!(clear[&StageName::C2].reference, Reference::Cores(4.0));
    let mixed = cores.replacen("\n", "\nenvs = { SEAL_C2_DEVICE = 'cuda' }\n", 1);
    let config = seal_config::parse(Path::new("w.toml"), &mixed).expect("valid");
    let scheme = Scheme::of(&config, &hardware, SectorSize::GIB_32);
    assert!(for_search(&unknown, Some(&scheme), &hardware).is_err());
}

/// A random machine: nodes of L3 groups, memory, GPUs, disks.
fn any_machine() -> impl Strategy<Value = Hardware> {
    let groups = prop::collection::vec(1_u32..10, 1..7);
    let nodes = prop::collection::vec((groups, 32_u64..1200, 1_u64..32), 1..5);
    let gpus = prop::collection::vec(prop::option::of(0_u32..5), 0..5);
    let disks = prop::collection::vec(100_u64..20_000, 0..3);
    (nodes, gpus, disks, 1_u32..3, any::<bool>()).prop_map(|(nodes, gpus, disks, threads, ifma)| {
        let total: u32 = nodes.iter().flat_map(|(groups, ..)| groups).sum();
        let mut cpus = Vec::new();
        let mut core = 0;
        for (node, (groups, ..)) in (0..).zip(&nodes) {
            for size in groups {
                let l3 = L3Id(core);
                for _ in 0..*size {
                    let cpu = |thread| Cpu {
                        number: core + thread * total,
                        core,
                        l3,
                        node: NodeId(node),
                    };
                    cpus.extend((0..threads).map(cpu));
                    core += 1;
                }
            }
        }
        let count = u32::try_from(nodes.len()).expect("few");
        Hardware {
            name: "random".to_owned(),
            instructions: Some(
                ["sha_ni", "avx512ifma"]
                    .iter()
                    .take(1 + usize::from(ifma))
                    .map(|s| (*s).to_owned())
                    .collect(),
            ),
            topology: Topology::of(cpus),
            limits: Vec::new(),
            nodes: (0..)
                .zip(&nodes)
                .map(|(id, (_, memory, less))| Node {
                    id: NodeId(id),
                    socket: id / 2,
                    memory: Bytes::gib(*memory),
                    usable: Bytes::gib(memory - less),
                    huge_pages: BTreeMap::new(),
                })
                .collect(),
            gpus: (0..)
                .zip(gpus)
                .map(|(index, node)| Gpu {
                    index,
                    model: "G".to_owned(),
                    uuid: None,
                    memory: None,
                    node: node.filter(|node| *node < count).map(NodeId),
                })
                .collect(),
            disks: disks
                .into_iter()
                .map(|gib| Disk { path: "/".into(), size: Bytes::gib(gib), free: Bytes::gib(gib) })
                .collect(),
        }
    })
}

fn any_wish() -> impl Strategy<Value = Wish> {
    let sharing =
        prop::option::of(prop::sample::select(vec![GpuSharing::Exclusive, GpuSharing::Shared]));
    let sizes =
        vec![SectorSize::MIB_512, SectorSize::GIB_32, SectorSize::GIB_32, SectorSize::GIB_64];
    let stages = prop::sample::subsequence(Stage::ALL.to_vec(), 1..=3);
    (
        prop::sample::select(sizes),
        any::<bool>(),
        sharing,
        prop::option::of(0_u32..4),
        prop::option::of(1_u32..20),
        0_u32..4,
        stages,
    )
        .prop_map(|(sector_size, latency, sharing, reserve, pc1, producers, stages)| Wish {
            sector_size,
            goal: if latency { Goal::Latency } else { Goal::Throughput },
            sharing,
            reserve,
            pc1,
            producers,
            stages: stages.into_iter().collect(),
            ..Wish::default()
        })
}

static REFUSED: AtomicU32 = AtomicU32::new(0);
static PROPOSED: AtomicU32 = AtomicU32::new(0);

#[test]
fn no_proposal_needs_more_than_there_is() {
    no_proposal_needs_more();
    let count = |counter: &AtomicU32| counter.load(Ordering::Relaxed);
    let (proposed, refused) = (count(&PROPOSED), count(&REFUSED));
    assert!(proposed >= 12, "only {proposed} proposals were judged, {refused} were refused");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    fn no_proposal_needs_more(hardware in any_machine(), wish in any_wish()) {
        let Ok(proposal) = propose(&hardware, &wish) else {
            // Too many of these would leave nothing to judge.
            REFUSED.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        };
        PROPOSED.fetch_add(1, Ordering::Relaxed);
        let scheme = Scheme::of(&proposal.config, &hardware, wish.sector_size);
        // Memory, on the whole machine and by node.
        prop_assert!(scheme.memory() <= hardware.usable());
        let task = stage_memory(Stage::Pc1, wish.sector_size).task;
        for part in &proposal.layout.pc1 {
            let node = hardware.node(part.node).expect("a node of the machine");
            prop_assert!(task.times(u64::from(part.tasks)) <= node.usable);
        }
        // Cores: all there, none twice but under one lock, and those kept free are.
        let all = hardware.topology.cpu_set();
        for (stage, executors) in &proposal.config.executors {
            for executor in executors {
                let cpus = executor.cpus.as_ref().expect("always set");
                prop_assert!(cpus.minus(&all).is_empty(), "{} has {}", stage, cpus);
            }
        }
        for executor in &scheme.executors {
            prop_assert!(executor.busy.and(&proposal.layout.kept_free).is_empty());
            prop_assert!(!executor.busy.is_empty());
        }
        if let Some(reserve) = wish.reserve {
            let cores: CpuSet = proposal
                .layout
                .kept_free
                .iter()
                .filter_map(|cpu| hardware.topology.cpu(cpu).map(|cpu| cpu.core))
                .collect();
            prop_assert_eq!(cores.len(), reserve as usize * hardware.sockets().len());
        }
        // GPUs: all there, none with two users but under one lock.
        for executor in &scheme.executors {
            prop_assert!(executor.missing_gpus.is_empty());
            for other in &scheme.executors {
                let same = executor.key == other.key;
                let both = executor.gpus.iter().any(|gpu| other.gpus.contains(gpu));
                prop_assert!(same || !both || scheme.exclude_each_other(executor, other));
            }
        }
        // Disks: as many sectors as pass in the time that one is in the system, and when all
        // places are taken too.
        if !hardware.disks.is_empty() && wish.stages.contains(&Stage::Pc1) {
            let room: f64 = hardware
                .disks
                .iter()
                .map(|disk| (disk.free.in_gib() / disk_of_sector(wish.sector_size).in_gib()).floor())
                .sum();
            let waits = if wish.stages.contains(&Stage::Pc2) { 75.0 * 60.0 } else { 0.0 };
            let in_system = proposal.throughput.seconds_of_sector + waits;
            let passing = proposal.throughput.sectors_per_day / 86_400.0 * in_system;
            // But for what a chain of multiplications rounds.
            prop_assert!(passing <= room + 1e-9, "{passing} sectors, room for {room}");
            let limits = &proposal.config.concurrent;
            let places: u32 = limits.values().map(|limit| limit.get()).sum();
            let waiting = proposal.throughput.sectors_per_day / 86_400.0 * waits;
            let all = f64::from(places) + waiting;
            prop_assert!(all <= room + 1e-9, "{places} and {waiting}, room for {room}");
        }
        if let Some(pc1) = wish.pc1.filter(|_| wish.stages.contains(&Stage::Pc1)) {
            prop_assert_eq!(scheme.tasks(StageName::Pc1), Some(pc1));
        }
        // And the check agrees.
        let found = findings(&hardware, &wish, &proposal.config);
        prop_assert!(found.is_empty(), "{:#?}\n{}", found, proposal.text);
    }
}
