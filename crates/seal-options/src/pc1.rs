//! Settings of `pc1-exec`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use seal_types::Stage;

use crate::common::Common;
use crate::forms::{self, COUNT, DIRECTORY, YES_OR_NO};
use crate::row::{About, Row};
use crate::{Environment, Fault, Settings, Sources, isa};

/// The most sectors that may share a labelling thread.
pub const MAX_LANES: usize = 4;

/// Stands for the number of a NUMA node in a pattern.
const NODE: &str = "$NUMA_NODE_INDEX";
/// The name of a node's directory where they are all in one.
const IN_DIRECTORY: &str = "numa_$NUMA_NODE_INDEX";

/// What `pc1-exec` serves with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pc1 {
    /// What all executors have.
    pub common: Common,
    /// How many tasks run at the same time; `None` is any number.
    pub concurrent: Option<NonZeroUsize>,
    /// The directory of the parents caches.
    pub parents: PathBuf,
    /// Whether a finished sector of another replica id may be removed.
    pub replace_finished: bool,
    /// Whether it goes on after layers that are finished.
    pub resume: bool,
    /// Where layers are kept until all are finished.
    pub work_dir: Option<PathBuf>,
    /// Threads that gather parents for each that labels.
    pub producers: usize,
    /// Sectors that may share a labelling thread.
    pub lanes: usize,
    /// Whether both threads of a core are used.
    pub smt: bool,
    /// Memory of which nodes is taken.
    pub numa: NodeMemory,
    /// Where prepared memory files are.
    pub memory_files: Option<MemoryFilesAt>,
    /// The instructions that kernels are made of, if not the fastest.
    pub isa: Option<&'static str>,
    directories: Directories,
}

/// Directories from which others follow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Directories {
    parents: Option<PathBuf>,
    cache: String,
    memory: Option<String>,
    memory_pattern: Option<String>,
}

/// Memory of which NUMA nodes is taken for a sector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NodeMemory {
    /// Of the node on which it is labelled, or none.
    #[default]
    Strict,
    /// Of other nodes where that one has too little.
    Preferred,
}

/// Where memory files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryFilesAt {
    /// The directory, with `$NUMA_NODE_INDEX` for the number of the node.
    pub pattern: String,
}

impl MemoryFilesAt {
    /// By a directory with a directory `numa_N` for each node, or by a pattern, which goes first.
    fn of(directory: Option<&str>, pattern: Option<&str>) -> Option<Self> {
        let pattern = match (directory, pattern) {
            (_, Some(pattern)) => pattern.trim_end_matches('/').to_owned(),
            (Some(directory), None) => return Some(Self::in_directory(directory)),
            (None, None) => return None,
        };
        Some(Self { pattern })
    }

    /// Those in numa_N of this directory.
    pub fn in_directory(directory: &str) -> Self {
        Self { pattern: format!("{}/{IN_DIRECTORY}", directory.trim_end_matches('/')) }
    }

    /// The directory that has numa_N for each node, if it is such a one.
    pub fn directory(&self) -> Option<PathBuf> {
        self.pattern.strip_suffix(IN_DIRECTORY).map(PathBuf::from)
    }
}

/// Settings that say together where memory files are.
const MEMORY_FILES: Option<&str> = Some("memory files");

const PATTERN: &str = "a directory with $NUMA_NODE_INDEX in it";

fn pattern(pc1: &mut Pc1, text: &str) -> Option<()> {
    text.contains(NODE).then(|| pc1.directories.memory_pattern = Some(text.to_owned()))
}

fn memory(pc1: &mut Pc1, text: &str) -> Option<()> {
    (!text.is_empty()).then(|| pc1.directories.memory = Some(text.to_owned()))
}

static ROWS: &[Row<Pc1>] = &[
    Row {
        about: About::option("--concurrent", "N")
            .or_variable("SEAL_PC1_CONCURRENT")
            .form(COUNT)
            .without("no limit")
            .meaning(
                "How many tasks run at the same time; further ones wait in their order. Each that \
                 labels holds twice the sector's size in memory",
            ),
        set: |pc1, text| forms::count(text).map(|count| pc1.concurrent = Some(count)),
    },
    Row {
        about: About::option("--parents", "DIR")
            .or_variable("FIL_PROOFS_PARENT_CACHE")
            .form(DIRECTORY)
            .without("by FIL_PROOFS_CACHE_DIR")
            .meaning("The directory of the parents caches"),
        set: |pc1, text| forms::path(text).map(|path| pc1.directories.parents = Some(path)),
    },
    Row {
        about: About::variable("FIL_PROOFS_CACHE_DIR")
            .form(DIRECTORY)
            .default("/var/tmp/")
            .meaning(
                "Where parents caches are otherwise: in this text with `filecoin-parents` \
                 appended, as filecoin-proofs does, so that it should end in a slash",
            ),
        set: |pc1, text| {
            pc1.directories.cache = text.to_owned();
            Some(())
        },
    },
    Row {
        about: About::flag("--replace-finished")
            .or_variable("SEAL_PC1_REPLACE_FINISHED")
            .form(YES_OR_NO)
            .default("0")
            .meaning(
                "Seal also where cache_path holds a finished sector under another replica id, \
                 which is then removed. Without it such a request is refused",
            ),
        set: |pc1, text| forms::yes_or_no(text).map(|yes| pc1.replace_finished = yes),
    },
    Row {
        about: About::variable("SEAL_PC1_RESUME")
            .form(YES_OR_NO)
            .default("1")
            .meaning("0: label all layers anew instead of going on after the finished ones"),
        set: |pc1, text| forms::yes_or_no(text).map(|yes| pc1.resume = yes),
    },
    Row {
        about: About::variable("SEAL_WORK_DIR")
            .form(DIRECTORY)
            .without("cache_path itself")
            .meaning(
                "The directory for layers until all are finished, on the file system of cache_path",
            ),
        set: |pc1, text| forms::path(text).map(|path| pc1.work_dir = Some(path)),
    },
    Row {
        about: About::variable("FIL_PROOFS_MULTICORE_SDR_PRODUCERS")
            .form("a number of threads, such as 1")
            .default("1")
            .meaning(
                "Threads that gather parents for each thread that labels; 0 gives every core a \
                 sector of its own, which is best where sectors are more than pairs of cores",
            ),
        set: |pc1, text| forms::number(text).map(|producers| pc1.producers = producers),
    },
    Row {
        about: About::variable("SEAL_PC1_LANES").form("a number from 1 to 4").default("4").meaning(
            "Sectors that may share a labelling thread; they do so only when all threads have one",
        ),
        set: |pc1, text| {
            let lanes = forms::number(text).filter(|lanes| (1..=MAX_LANES).contains(lanes))?;
            pc1.lanes = lanes;
            Some(())
        },
    },
    Row {
        about: About::variable("SEAL_PC1_SMT")
            .form(YES_OR_NO)
            .default("0")
            .meaning("1: use both threads of a core; 0: one of each"),
        set: |pc1, text| forms::yes_or_no(text).map(|yes| pc1.smt = yes),
    },
    Row {
        about: About::variable("SEAL_NUMA")
            .form("strict or preferred")
            .default("strict")
            .meaning("preferred: take memory of other nodes where the own one has too little"),
        set: |pc1, text| {
            let words = [("strict", NodeMemory::Strict), ("preferred", NodeMemory::Preferred)];
            forms::one_of(text, &words).map(|numa| pc1.numa = numa)
        },
    },
    Row {
        about: About {
            aliases: &["hugepage_files_path"],
            together: MEMORY_FILES,
            ..About::option("--hugepage-files-path", "DIR")
        }
        .or_variable("HUGEPAGE_FILES_PATH")
        .form(DIRECTORY)
        .meaning(
            "The directory of memory files made by `pc1-exec hugepages`, in numa_N for NUMA node N",
        ),
        set: memory,
    },
    Row {
        about: About {
            aliases: &["hugepage_files_path_pattern"],
            together: MEMORY_FILES,
            ..About::option("--hugepage-files-path-pattern", "PATTERN")
        }
        .or_variable("HUGEPAGE_FILES_PATH_PATTERN")
        .form(PATTERN)
        .meaning(
            "The directory of memory files with $NUMA_NODE_INDEX for the node's number; overrides \
             the setting above. Where an option names one of the two, the environment names none",
        ),
        set: pattern,
    },
    Row {
        about: About::variable(isa::FORCE_ISA)
            .form(isa::FORM)
            .without("the fastest there are")
            .meaning(
                "Instructions of the kernels that can use them: shani (SHA-256), avx2 or avx512 \
                 (parents cache), portable; fma and ifma are of other executors and do nothing here",
            ),
        set: |pc1, text| isa::own(Stage::Pc1, text).map(|own| pc1.isa = own),
    },
    Row {
        about: About::variable("FIL_PROOFS_VERIFY_CACHE")
            .form("any text")
            .meaning("Without effect: every parents cache is checked"),
        set: |_, _| Some(()),
    },
    Row {
        about: About::variable("FIL_PROOFS_USE_MULTICORE_SDR")
            .form("any text")
            .meaning("Without effect: labelling is always multicore"),
        set: |_, _| Some(()),
    },
];

impl Settings for Pc1 {
    const STAGE: Stage = Stage::Pc1;

    fn rows() -> &'static [Row<Self>] {
        ROWS
    }

    fn common(&mut self) -> &mut Common {
        &mut self.common
    }

    fn finish(&mut self, _: &Sources, _: &Environment, _: &mut Vec<Fault>) {
        let Directories { parents, cache, memory, memory_pattern } =
            std::mem::take(&mut self.directories);
        self.parents = parents.unwrap_or_else(|| PathBuf::from(cache + "filecoin-parents"));
        self.memory_files = MemoryFilesAt::of(memory.as_deref(), memory_pattern.as_deref());
    }
}
