//! What is true of this machine only: binaries, parameters, parents caches, directories, limits of
//! the process, huge pages.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit};
use seal_config::{MemoryLimit, StageName};
use seal_host::NodeId;
use seal_options::Options;
use seal_types::{
    ApiVersion, Feature, RegisteredProof, Stage, published_groth_files, published_parents_caches,
};

use super::environment::environment_of;
use super::{Checking, Severity};
use crate::figures::parents_cache;
use crate::{Bytes, Executor};

/// Files that a task of any stage has open: layers, trees in eight parts, data, caches, and the
/// same again by those who write.
const FILES_OF_TASK: u64 = 64;

/// Facts of this machine and of whoever asks.
#[derive(Clone, Debug)]
pub struct Local {
    /// The environment that executors inherit.
    pub environment: BTreeMap<String, String>,
    /// The most files that a process may have open.
    pub open_files: u64,
    /// The most memory that a process may lock.
    pub locked_memory: u64,
}

impl Local {
    /// What holds for this process and those it starts.
    pub fn read() -> Result<Self, nix::Error> {
        let hard = |resource| getrlimit(resource).map(|(_, hard)| hard);
        Ok(Self {
            environment: std::env::vars_os()
                .filter_map(|(name, value)| {
                    Some((name.into_string().ok()?, value.into_string().ok()?))
                })
                .collect(),
            open_files: hard(Resource::RLIMIT_NOFILE)?,
            locked_memory: hard(Resource::RLIMIT_MEMLOCK)?,
        })
    }
}

impl Checking<'_> {
    pub(super) fn local(&mut self, local: &Local) {
        for executor in self.scheme.executors.clone() {
            self.program(local, &executor);
            self.built_for_gpus(local, &executor);
            self.directories(local, &executor);
            self.rlimits(local, &executor);
        }
        self.parameters(local);
        self.parents(local);
        self.huge_pages();
        self.corruption(local);
    }

    /// What is set for an executor where it is started here, as far as it is good.
    pub(super) fn options_here(&self, local: &Local, executor: &Executor) -> Option<Options> {
        let table = self.table(executor)?;
        let arguments: &[String] = if executor.ours { &table.args } else { &[] };
        let environment = environment_of(table, Some(local));
        Some(Options::look(executor.stage.served()?, arguments, &environment).0)
    }

    fn program(&mut self, local: &Local, executor: &Executor) {
        let table = self.config.executors.get(&executor.stage);
        let bin = table.and_then(|tables| tables.get(executor.index)?.bin.clone());
        // Without a bin it is beside the supervisor, wherever that will be.
        let Some(bin) = bin else { return };
        let dirs = local.environment.get("PATH").cloned().unwrap_or_default();
        let there = if bin.components().count() > 1 {
            is_executable(&bin)
        } else {
            std::env::split_paths(&dirs).any(|dir| is_executable(&dir.join(&bin)))
        };
        if !there {
            self.find(
                ("program-missing", Severity::Error),
                &format!("{}.bin", executor.key),
                format!("there is no executable {}", bin.display()),
                "install it there, name the one that is meant, or leave bin out for the executor \
                 beside the supervisor",
            );
        }
    }

    fn directories(&mut self, local: &Local, executor: &Executor) {
        let Some(Options::Pc1(pc1)) = self.options_here(local, executor) else { return };
        let memory = pc1
            .memory_files
            .and_then(|at| at.directory())
            .map(|dir| ("HUGEPAGE_FILES_PATH", dir, "make the files with `pc1-exec hugepages`"));
        let work = pc1.work_dir.map(|dir| {
            (
                "SEAL_WORK_DIR",
                dir,
                "make the directory, on the file system of the cache directories",
            )
        });
        for (name, dir, remedy) in memory.into_iter().chain(work) {
            if dir.is_dir() {
                continue;
            }
            self.find(
                ("directory-missing", Severity::Error),
                &format!("{}.envs.{name}", executor.key),
                format!("{name}: there is no directory {}", dir.display()),
                remedy,
            );
        }
    }

    fn rlimits(&mut self, local: &Local, executor: &Executor) {
        let settings = self.config.supervisor.stage(executor.stage);
        let tasks = u64::from(executor.tasks.unwrap_or(1));
        let key = |name: &str| {
            let own = format!("supervisor.{}.{name}", executor.stage);
            let all = format!("supervisor.{name}");
            [own, all].into_iter().find(|key| self.config.places.get(key).is_some())
        };
        let (files_key, memory_key) = (key("nofile"), key("memlock"));
        let files = settings.nofile.map_or(local.open_files, u64::from);
        let needed = FILES_OF_TASK * (tasks + 1);
        if files < needed {
            self.find(
                ("open-files", Severity::Error),
                &files_key.unwrap_or_else(|| executor.key.clone()),
                format!(
                    "{tasks} tasks of {} have up to {needed} files open, and {files} are allowed",
                    executor.stage
                ),
                format!("allow {needed}: nofile under [supervisor], LimitNOFILE of the service"),
            );
        }
        // Ours lock no memory; the published software locks the layers.
        if executor.stage != StageName::Pc1 || executor.ours {
            return;
        }
        let allowed = match settings.memlock {
            Some(MemoryLimit::Bytes(bytes)) => bytes,
            Some(MemoryLimit::Unlimited) => u64::MAX,
            None => local.locked_memory,
        };
        let needed = executor.memory.map_or(Bytes(0), |memory| memory.of_tasks(tasks));
        if Bytes(allowed) < needed {
            self.find(
                ("locked-memory", Severity::Warning),
                &memory_key.unwrap_or_else(|| executor.key.clone()),
                format!(
                    "an executor that locks its labels in memory needs {needed} for {tasks} \
                     tasks, and {} may be locked",
                    Bytes(allowed)
                ),
                "set memlock = \"unlimited\" under [supervisor], LimitMEMLOCK of the service",
            );
        }
    }

    /// Groth16 parameters that C2 will look for.
    fn parameters(&mut self, local: &Local) {
        let mut seen = BTreeSet::new();
        for executor in self.scheme.stage(StageName::C2).cloned().collect::<Vec<_>>() {
            let Some(Options::C2(c2)) = self.options_here(local, &executor) else { continue };
            if seen.insert(c2.params.clone()) {
                self.parameters_in(&c2.params, &executor);
            }
        }
    }

    fn parameters_in(&mut self, dir: &Path, executor: &Executor) {
        let size = self.against.sector_size;
        let missing: Vec<_> = published_groth_files()
            .iter()
            .filter(|file| file.sector_size == size)
            .map(|file| file.name)
            .filter(|name| !dir.join(name).metadata().is_ok_and(|meta| meta.len() > 0))
            .collect();
        if !missing.is_empty() {
            let short: Vec<_> =
                missing.iter().filter_map(|n| n.rsplit_once('.')).map(|n| n.1).collect();
            self.find(
                ("parameters-missing", Severity::Error),
                &executor.key,
                format!(
                    "{} lacks the Groth16 parameters for {size} sectors ({}): every C2 would fail \
                     after hours of work on its sector",
                    dir.display(),
                    short.iter().map(|kind| format!(".{kind}")).collect::<Vec<_>>().join(" and ")
                ),
                "fetch them there, or name their directory with FIL_PROOFS_PARAMETER_CACHE; \
                 `c2-exec params` lists what is there",
            );
        }
    }

    /// The parents cache, which PC1 makes if it is missing, and refuses if it is damaged.
    fn parents(&mut self, local: &Local) {
        let mut seen = BTreeSet::new();
        for executor in self.scheme.stage(StageName::Pc1).cloned().collect::<Vec<_>>() {
            let Some(Options::Pc1(pc1)) = self.options_here(local, &executor) else { continue };
            if seen.insert(pc1.parents.clone()) {
                self.parents_in(&pc1.parents, &executor);
            }
        }
    }

    fn parents_in(&mut self, dir: &Path, executor: &Executor) {
        let size = self.against.sector_size;
        let expected = parents_cache(size);
        let mut there = false;
        let Some(wanted) = RegisteredProof::find(size, ApiVersion::V1_1, Feature::Interactive)
        else {
            return;
        };
        for digest in published_parents_caches().iter().filter(|d| d.sector_size == size) {
            let file = dir.join(format!("{}.cache", digest.name));
            let Ok(meta) = file.metadata() else { continue };
            // The network takes no other proofs of replication any more.
            there |= digest.api_version == ApiVersion::V1_1;
            if meta.len() != expected.0 {
                self.find(
                    ("parents-damaged", Severity::Warning),
                    &executor.key,
                    format!(
                        "the parents cache {} has {} bytes instead of {}: it will be made again \
                         before the first sector, and spoils every sector of other software",
                        file.display(),
                        meta.len(),
                        expected.0
                    ),
                    "remove it, and make it with `pc1-exec parents`",
                );
            }
        }
        if !there {
            self.find(
                ("parents-missing", Severity::Warning),
                &executor.key,
                format!(
                    "{} has no parents cache for {size} sectors of {wanted}: the first sector waits \
                     until {expected} are made",
                    dir.display()
                ),
                format!(
                    "make it ahead with `pc1-exec parents --proof {wanted}`, or name its directory \
                     with FIL_PROOFS_PARENT_CACHE"
                ),
            );
        }
    }

    /// Huge pages that are set aside and are not enough for the labels. Whether they leave room for
    /// the rest is asked where memory is.
    fn huge_pages(&mut self) {
        let size = self.against.sector_size;
        let page = Bytes::gib(1);
        let sector = crate::figures::stage_memory(Stage::Pc1, size).task;
        if sector < page {
            return;
        }
        let mut tasks: BTreeMap<NodeId, u64> = BTreeMap::new();
        for executor in self.scheme.stage(StageName::Pc1) {
            let Some(plan) = &executor.units else { continue };
            let nodes: BTreeSet<NodeId> = plan.units.iter().map(|unit| unit.node).collect();
            let most = u64::from(executor.tasks.unwrap_or(0));
            for node in &nodes {
                *tasks.entry(*node).or_default() += most.div_ceil(nodes.len() as u64);
            }
        }
        for (node, tasks) in tasks {
            let pages = self.against.hardware.node(node).and_then(|n| n.huge_pages.get(&page));
            let Some(pages) = pages.copied() else { continue };
            let needed = sector.times(tasks).0 / page.0;
            if pages.total > 0 && pages.total < needed {
                self.find(
                    ("huge-pages-short", Severity::Warning),
                    "processors.pc1",
                    format!(
                        "NUMA node {node} has {} huge pages of 1 GiB set aside, and {tasks} \
                         sectors need {needed}: the others get small pages, and all else has \
                         {} less",
                        pages.total,
                        page.times(pages.total)
                    ),
                    format!(
                        "set {needed} aside with `pc1-exec hugepages --node {node} --count {} \
                         --size {size}`, or none",
                        2 * tasks
                    ),
                );
            }
        }
    }
}

pub(super) fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
