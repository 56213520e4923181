//! Proposals for recorded and for random machines.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use seal_config::{Config, ExecutorConfig};
use seal_host::{Cpu, CpuSet, L3Id, Topology};

use super::*;
use crate::check::{Against, check};
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
    let against = Against {
        hardware,
        local: None,
        sector_size: wish.sector_size,
        sectors: None,
        given: &wish.given,
    };
    check(config, against).iter().map(ToString::to_string).collect()
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
    assert_eq!(error, "32 sectors in pc1 were asked for, and memory carries 28 at most");
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
    let more = upgraded(&epyc, Upgrade::Memory(Bytes::gib(2048)));
    let alone =
        Wish { goal: Goal::Latency, stages: [Stage::Pc1].into_iter().collect(), ..Wish::default() };
    assert_eq!(scarce(&more, &alone), "cores");
    let mut full = epyc.clone();
    full.disks = vec![Disk { path: "/d".into(), size: Bytes::gib(9000), free: Bytes::gib(9000) }];
    assert_eq!(scarce(&full, &wish), "disk");
    let slow = [(StageName::C2, Duration::from_secs(2000))].into_iter().collect();
    assert_eq!(scarce(&epyc, &Wish { given: slow, ..Wish::default() }), "GPUs");
    let mut none = epyc.clone();
    none.gpus.clear();
    assert_eq!(scarce(&none, &wish), "cores");
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_proposal_needs_more_than_there_is(hardware in any_machine(), wish in any_wish()) {
        let Ok(proposal) = propose(&hardware, &wish) else { return Ok(()) };
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
        // Disks.
        if !hardware.disks.is_empty() && wish.stages.contains(&Stage::Pc1) {
            let each = disk_of_sector(wish.sector_size);
            let room: u64 = hardware.disks.iter().map(|disk| disk.free.holds(each)).sum();
            let sectors: u64 = Stage::ALL
                .into_iter()
                .filter_map(|stage| scheme.tasks(stage.into()))
                .map(u64::from)
                .sum();
            prop_assert!(sectors <= room, "{} sectors, room for {}", sectors, room);
        }
        if let Some(pc1) = wish.pc1.filter(|_| wish.stages.contains(&Stage::Pc1)) {
            prop_assert_eq!(scheme.tasks(StageName::Pc1), Some(pc1));
        }
        // And the check agrees.
        let found = findings(&hardware, &wish, &proposal.config);
        prop_assert!(found.is_empty(), "{:#?}\n{}", found, proposal.text);
    }
}
