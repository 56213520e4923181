//! A layout as the configuration that the supervisor reads, with the reason for each choice.

use std::fmt::Write;
use std::time::Duration;

use seal_types::Stage;

use super::layout::{Layout, Part, Sharing};
use super::{Goal, Wish};
use crate::disk::OnDisk;
use crate::figures::{disk_of_sector, parents_cache, stage_memory};
use crate::{Bytes, Hardware};

/// What is known of the best layout only, once it is found.
#[derive(Clone, Debug)]
pub(super) struct Final {
    /// The time between starts of PC1, if that is of use.
    pub(super) stagger: Option<Duration>,
    /// Sectors on disk at the same time.
    pub(super) on_disk: OnDisk,
}

/// The configuration as TOML.
pub(super) fn write(
    hardware: &Hardware,
    wish: &Wish,
    sharing: Sharing,
    layout: &Layout,
    end: Option<&Final>,
) -> String {
    let mut text = String::new();
    let mut say = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    let size = wish.sector_size;
    let goal = match wish.goal {
        Goal::Throughput => "the most sectors a day",
        Goal::Latency => "the least waiting of each sector",
    };
    say(&format!("# For {size} sectors and {goal}, on {}.", one_line(&hardware.name)));
    say("# Written by `seal-plan propose`; `seal-plan check` judges what becomes of it.");
    if !layout.kept_free.is_empty() {
        say("#");
        say(&format!(
            "# Cpus {} are free for the worker, the supervisor and the system.",
            layout.kept_free
        ));
    }
    if let Some(Final { on_disk, .. }) = end.filter(|_| !layout.pc1.is_empty()) {
        say("#");
        say(&format!(
            "# Let the worker have {} sectors on their way (sealing threads): {} in the stages, and",
            on_disk.total(),
            on_disk.working
        ));
        say(&format!(
            "# {} that wait for the chain's randomness. Each takes up to {} of disk until C1 is done.",
            on_disk.waiting,
            disk_of_sector(size)
        ));
    }
    let limits: Vec<(Stage, u32)> = [
        (Stage::Pc1, layout.pc1.iter().map(|part| part.tasks).sum()),
        (Stage::Pc2, count(&layout.pc2)),
        (Stage::C2, count(&layout.c2)),
    ]
    .into_iter()
    .filter(|(_, tasks)| *tasks > 0)
    .collect();
    say("\n# Tasks at the same time on the whole machine: what all executors together take.");
    say("[processors.limitation.concurrent]");
    for (stage, tasks) in &limits {
        say(&format!("{stage} = {tasks}"));
    }
    if let Some(stagger) = end.and_then(|end| end.stagger) {
        say("\n# Sectors that start together come to pc2 together, and queue there.");
        say("# Half the mean time between starts spreads them and costs nothing.");
        say("[processors.limitation.staggered]");
        say(&format!("pc1 = \"{}\"", humantime::format_duration(stagger)));
    }
    let mut locks: Vec<_> =
        layout.pc2.iter().chain(&layout.c2).filter_map(|part| part.lock.clone()).collect();
    locks.sort();
    locks.dedup();
    if !locks.is_empty() {
        say(match sharing {
            Sharing::Turns => "\n# Without a GPU pc2 and c2 want the same cores: they take turns.",
            _ => "\n# pc2 and c2 share a GPU and cores: whoever has the lock has both, in turns.",
        });
        say("[processors.ext_locks]");
        locks.iter().for_each(|lock| say(&format!("{lock} = 1")));
    }
    write_pc1(&mut text, hardware, wish, layout);
    write_later(&mut text, wish, sharing, Stage::Pc2, &layout.pc2);
    write_later(&mut text, wish, sharing, Stage::C2, &layout.c2);
    text
}

fn write_pc1(text: &mut String, hardware: &Hardware, wish: &Wish, layout: &Layout) {
    let size = wish.sector_size;
    let each = stage_memory(Stage::Pc1, size).task;
    for (at, part) in layout.pc1.iter().enumerate() {
        let _ = writeln!(text);
        if at == 0 {
            let producers = match wish.producers {
                0 => "gathers its parents itself".to_owned(),
                1 => "one that gathers parents".to_owned(),
                more => format!("{more} that gather parents"),
            };
            let _ = writeln!(
                text,
                "# A unit is a core that labels and {producers}, on one L3 cache; a sector holds \
                 {each}."
            );
            if layout.lanes > 1 {
                let _ = writeln!(
                    text,
                    "# There is memory for more sectors than units: up to {} share one.",
                    layout.lanes
                );
            }
            let _ = writeln!(
                text,
                "# The parents cache ({}) lies in memory that is left over, else it is read from \
                 disk.",
                parents_cache(size)
            );
        }
        let memory = hardware.node(part.node).map(|node| node.usable).unwrap_or_default();
        let _ = writeln!(
            text,
            "# Node {}: {} units, {} sectors hold {} of {memory}.",
            part.node,
            part.units,
            part.tasks,
            each.times(u64::from(part.tasks))
        );
        if let (Some(dir), true) = (&wish.huge_pages, each >= Bytes::gib(1)) {
            let _ = writeln!(
                text,
                "# Prepare after the start of the machine: pc1-exec hugepages --node {} --count {} \
                 --size {size} --dir {}",
                part.node,
                2 * part.tasks,
                dir.display()
            );
        }
        let _ = writeln!(text, "[[processors.pc1]]");
        write_bin(text, wish, Stage::Pc1);
        if hardware.nodes.len() > 1 {
            let _ = writeln!(text, "numa_preferred = {}", part.node);
        }
        let _ = writeln!(text, "cgroup.cpuset = \"{}\"", part.cpus);
        let _ = writeln!(text, "concurrent = {}", part.tasks);
        let mut envs = vec![
            "FIL_PROOFS_USE_MULTICORE_SDR = \"1\"".to_owned(),
            format!("FIL_PROOFS_MULTICORE_SDR_PRODUCERS = \"{}\"", wish.producers),
        ];
        if layout.lanes > 1 {
            envs.push(format!("SEAL_PC1_LANES = \"{}\"", layout.lanes));
        }
        if let Some(dir) = &wish.huge_pages {
            envs.push(format!("HUGEPAGE_FILES_PATH = {}", quoted(&dir.display().to_string())));
        }
        let _ = writeln!(text, "envs = {{ {} }}", envs.join(", "));
    }
}

fn write_later(text: &mut String, wish: &Wish, sharing: Sharing, stage: Stage, parts: &[Part]) {
    let memory = stage_memory(stage, wish.sector_size);
    for (at, part) in parts.iter().enumerate() {
        let _ = writeln!(text);
        if at == 0 {
            let reason = match (stage, part.gpu) {
                (Stage::Pc2, Some(_)) => "With a GPU it needs cores to move data only",
                (_, Some(_)) => "It computes what goes to the GPU on all cores that are left",
                (Stage::Pc2, None) => "It hashes on all of its cores",
                (_, None) => "It proves on all of its cores",
            };
            let holds = if memory.once > Bytes(0) {
                format!("{} once and {} a task", memory.once, memory.task)
            } else {
                memory.task.to_string()
            };
            let _ = writeln!(text, "# {reason}; it holds {holds}.");
            if part.gpu.is_some() {
                let _ = writeln!(
                    text,
                    "# Needs {} built with cuda (docs/gpu.md); without it the start fails.",
                    stage.executor()
                );
            }
            if let (Sharing::Exclusive { .. }, Some(_)) = (sharing, part.gpu) {
                let _ = writeln!(text, "# Nobody else has its GPU.");
            }
        }
        let _ = writeln!(text, "[[processors.{stage}]]");
        write_bin(text, wish, stage);
        let _ = writeln!(text, "cgroup.cpuset = \"{}\"", part.cpus);
        if let Some(lock) = &part.lock {
            let _ = writeln!(text, "locks = [\"{lock}\"]");
        }
        if let Some(gpu) = part.gpu {
            let flags = match stage {
                Stage::Pc2 => {
                    "FIL_PROOFS_USE_GPU_COLUMN_BUILDER = \"1\", FIL_PROOFS_USE_GPU_TREE_BUILDER = \
                     \"1\", "
                }
                _ => "SEAL_C2_DEVICE = \"cuda\", ",
            };
            let _ = writeln!(text, "envs = {{ {flags}CUDA_VISIBLE_DEVICES = \"{gpu}\" }}");
        }
    }
}

fn write_bin(text: &mut String, wish: &Wish, stage: Stage) {
    if let Some(dir) = &wish.bin_dir {
        let bin = dir.join(stage.executor()).display().to_string();
        let _ = writeln!(text, "bin = {}", quoted(&bin));
    }
}

fn count(parts: &[Part]) -> u32 {
    u32::try_from(parts.len()).unwrap_or(u32::MAX)
}

/// As TOML writes a text.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A comment must not end in the middle of a name.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
