//! Whether memory for another task is there, before it is taken.
//!
//! Memory that is not there is taken all the same: the kernel promises more than it has, and kills
//! somebody when it comes to keeping it. So what a task needs is compared with what is free on its
//! node and in every cgroup above this process that has a limit, and what was promised to other
//! tasks counts until they have it.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::budget::free_of_hugetlb;
use crate::huge_pages::{HUGE_PAGES, fits, free_huge_pages};
use crate::{
    Binding, CpuSet, FileError, GroupMemory, Limiter, MemoryError, MemoryFiles, MemoryPolicy,
    NodeId, PageChoice, Region,
};

/// Memory of a node, or of the whole machine, as the kernel counts it. In bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeMemory {
    /// All there is.
    pub total: u64,
    /// Not used for anything.
    pub free: u64,
    /// Used for what can be dropped: copies of files, caches of the kernel.
    pub reclaimable: u64,
}

/// Memory that a task needs and that is not there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdmissionError {
    /// There is too little.
    #[error(
        "{place} has too little memory: {needed} MiB are needed and {available} MiB available, \
         {missing} MiB are missing ({free} MiB free, {reclaimable} MiB in caches that can be \
         dropped, {huge} MiB in free huge pages, less {promised} MiB promised to other tasks and a \
         reserve of {reserve} MiB); run fewer tasks there{hint}"
    )]
    TooLittle {
        /// The node, the machine, or a cgroup with its limit.
        place: String,
        /// What the task needs, in MiB as all that follow.
        needed: u64,
        /// What it could have.
        available: u64,
        /// The difference.
        missing: u64,
        /// Memory not used for anything.
        free: u64,
        /// Memory that can be had back.
        reclaimable: u64,
        /// Free huge pages of use to the task.
        huge: u64,
        /// What tasks that are just starting will take.
        promised: u64,
        /// What is left alone.
        reserve: u64,
        /// Another way out.
        hint: &'static str,
    },
    /// A memory region could not be had although there should have been enough.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The kernel's counts could not be read.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Where the kernel tells about the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// Usually `/sys`.
    pub sys: PathBuf,
    /// Usually `/proc`.
    pub proc: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self { sys: "/sys".into(), proc: "/proc".into() }
    }
}

impl NodeMemory {
    /// Memory of `node`, or of the machine where it is `None`.
    pub fn read(roots: &Roots, node: Option<NodeId>) -> Result<Self, FileError> {
        let path = match node {
            Some(node) => roots.sys.join(format!("devices/system/node/node{node}/meminfo")),
            None => roots.proc.join("meminfo"),
        };
        let text = std::fs::read_to_string(&path).map_err(FileError::of("read", &path))?;
        let count = |name: &str| {
            kib(&text, name).map(|kib| kib << 10).ok_or_else(|| {
                let error = io::Error::other(format!("it has no line on {name}"));
                FileError::of("understand", &path)(error)
            })
        };
        let mut reclaimable = 0;
        for name in ["Active(file)", "Inactive(file)", "SReclaimable"] {
            reclaimable += count(name)?;
        }
        Ok(Self { total: count("MemTotal")?, free: count("MemFree")?, reclaimable })
    }

    /// What is left alone by default: a hundredth, and 256 MiB at least.
    pub fn default_reserve(&self) -> u64 {
        (self.total / 100).max(256 << 20)
    }
}

/// The number that a line such as `Node 0 MemFree: 123 kB` or `MemFree: 123 kB` gives.
fn kib(meminfo: &str, name: &str) -> Option<u64> {
    meminfo.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        if key.split_ascii_whitespace().last()? != name {
            return None;
        }
        value.split_ascii_whitespace().next()?.parse().ok()
    })
}

/// The memory that tasks of this process take, counted while they take it. Other processes are
/// kept away meanwhile by a turn (see `MemoryTurns`).
#[derive(Debug, Default)]
pub struct Admission {
    roots: Roots,
    reserve: Option<u64>,
    promised: Mutex<BTreeMap<Option<NodeId>, u64>>,
}

/// Memory promised to a task. What it has not taken when this is dropped is promised to others.
#[derive(Debug)]
pub struct Admitted<'a> {
    admission: &'a Admission,
    node: Option<NodeId>,
    left: AtomicU64,
}

/// Regions promised to a task that it has not taken yet.
#[derive(Debug)]
pub struct Reserved<'a> {
    policy: MemoryPolicy,
    /// Sizes, and what a prepared file gives.
    waiting: VecDeque<(usize, Option<Region>)>,
    admitted: Admitted<'a>,
}

impl Reserved<'_> {
    /// Whether all regions have been taken.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The next region, its pages taken by threads on `cpus`; `None` when all have been taken.
    pub fn next(&mut self, cpus: CpuSet) -> Option<Result<Region, AdmissionError>> {
        let (size, region) = self.waiting.pop_front()?;
        if let Some(region) = region {
            return Some(Ok(region));
        }
        let policy = MemoryPolicy { cpus, ..self.policy.clone() };
        let sys = &self.admitted.admission.roots.sys;
        let region = Region::allocate_on(sys, size, &policy, Some(&self.admitted));
        Some(region.map_err(AdmissionError::from))
    }
}

impl Admission {
    /// For the machine that `roots` tell of. `reserve` bytes of each node are left alone;
    /// `None` for [`NodeMemory::default_reserve`].
    pub fn new(roots: Roots, reserve: Option<u64>) -> Self {
        Self { roots, reserve, promised: Mutex::default() }
    }

    /// Regions of the given sizes, as `policy` wants them: in prepared files of the size where
    /// there are free ones, the others taken from what is free after a look at whether that is
    /// enough.
    pub fn allocate(
        &self,
        sizes: &[usize],
        policy: &MemoryPolicy,
        files: Option<&MemoryFiles>,
    ) -> Result<Vec<Region>, AdmissionError> {
        let mut reserved = self.reserve(sizes, policy, files)?;
        std::iter::from_fn(|| reserved.next(policy.cpus.clone())).collect()
    }

    /// Promises regions as [`Admission::allocate`] makes them, which are taken one by one: pages
    /// of one can be taken while another is in use.
    pub fn reserve(
        &self,
        sizes: &[usize],
        policy: &MemoryPolicy,
        files: Option<&MemoryFiles>,
    ) -> Result<Reserved<'_>, AdmissionError> {
        let mut waiting = VecDeque::with_capacity(sizes.len());
        for size in sizes {
            let region = match files {
                Some(files) => files.take(*size, policy)?,
                None => None,
            };
            waiting.push_back((*size, region));
        }
        let missing: Vec<_> =
            waiting.iter().filter(|(_, got)| got.is_none()).map(|(size, _)| *size).collect();
        let admitted = self.admit(&missing, policy)?;
        Ok(Reserved { policy: policy.clone(), waiting, admitted })
    }

    /// Promises memory for regions of the given sizes, if it is there.
    pub fn admit(
        &self,
        sizes: &[usize],
        policy: &MemoryPolicy,
    ) -> Result<Admitted<'_>, AdmissionError> {
        // Memory that is only preferred on a node may come from all of them.
        let node = policy
            .node
            .and_then(|(node, binding)| (binding == Binding::Strict).then_some(node))
            .filter(|node| self.knows(*node));
        let needed: u64 = sizes.iter().map(|size| *size as u64).sum();
        let mut promised = self.promised();
        let memory = NodeMemory::read(&self.roots, node)?;
        let huge = self.huge(sizes, policy.pages, node)?;
        // Promises to other places may be kept from here too, if one of the two is the machine.
        let to_others: u64 = promised
            .iter()
            .filter(|(place, _)| node.is_none() || place.is_none() || **place == node)
            .map(|(_, bytes)| *bytes)
            .sum();
        let there = Source {
            place: node.map_or(Limiter::Machine, Limiter::Node).to_string(),
            free: memory.free,
            reclaimable: memory.reclaimable,
            promised: to_others,
            reserve: self.reserve.unwrap_or_else(|| memory.default_reserve()),
            hint: match node {
                Some(_) => ", or let them use other nodes with SEAL_NUMA=preferred",
                None => "",
            },
        };
        there.check(needed, huge)?;
        // Wherever the pages lie, they count in every group.
        let to_all: u64 = promised.values().sum();
        for group in GroupMemory::above(&self.roots) {
            let limited = Source {
                place: format!("cgroup {} (limit {} MiB)", group.name, group.limit >> 20),
                free: group.limit.saturating_sub(group.used),
                reclaimable: group.available() - group.limit.saturating_sub(group.used),
                promised: to_all,
                reserve: group.default_reserve(),
                hint: ", or raise the limit (memory.max, memory.limit_in_bytes, MemoryMax=)",
            };
            limited.check(needed, huge)?;
        }
        *promised.entry(node).or_default() += needed;
        Ok(Admitted { admission: self, node, left: AtomicU64::new(needed) })
    }

    /// What free huge pages give to regions of the given sizes: whole regions of the largest size.
    fn huge(
        &self,
        sizes: &[usize],
        pages: PageChoice,
        node: Option<NodeId>,
    ) -> Result<u64, FileError> {
        let largest = sizes.iter().copied().max().unwrap_or(0);
        if pages != PageChoice::Huge || largest == 0 {
            return Ok(0);
        }
        let mut regions = 0;
        for page in HUGE_PAGES.into_iter().filter(|page| fits(largest, *page)) {
            let free = free_huge_pages(&self.roots.sys, node, page)?;
            let granted = free_of_hugetlb(&self.roots, page).unwrap_or(u64::MAX) / page as u64;
            let free = free.min(usize::try_from(granted).unwrap_or(usize::MAX));
            regions += free / largest.div_ceil(page);
        }
        Ok((regions.min(sizes.len()) * largest) as u64)
    }

    /// Whether the kernel tells about single nodes: one without NUMA support does not.
    fn knows(&self, node: NodeId) -> bool {
        self.roots.sys.join(format!("devices/system/node/node{node}/meminfo")).exists()
    }

    fn promised(&self) -> MutexGuard<'_, BTreeMap<Option<NodeId>, u64>> {
        self.promised.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, node: Option<NodeId>, bytes: u64) {
        if let Some(promised) = self.promised().get_mut(&node) {
            *promised = promised.saturating_sub(bytes);
        }
    }
}

/// Where memory comes from: a node, the machine, or what a cgroup allows. In bytes.
struct Source {
    place: String,
    free: u64,
    reclaimable: u64,
    promised: u64,
    reserve: u64,
    hint: &'static str,
}

impl Source {
    /// Whether `needed` is there, with the `huge` bytes of huge pages that are no one else's.
    fn check(self, needed: u64, huge: u64) -> Result<(), AdmissionError> {
        let Self { place, free, reclaimable, promised, reserve, hint } = self;
        let available = (free + reclaimable + huge).saturating_sub(promised + reserve);
        if needed <= available {
            return Ok(());
        }
        let mib = |bytes: u64| bytes >> 20;
        Err(AdmissionError::TooLittle {
            place,
            needed: needed.div_ceil(1 << 20),
            available: mib(available),
            missing: (needed - available).div_ceil(1 << 20),
            free: mib(free),
            reclaimable: mib(reclaimable),
            huge: mib(huge),
            promised: mib(promised),
            reserve: mib(reserve),
            hint,
        })
    }
}

impl Admitted<'_> {
    /// Notes that `bytes` of it are taken: from now on the kernel counts them.
    pub fn taken(&self, bytes: usize) {
        let bytes = bytes as u64;
        // Rounding up to whole pages can take a little more than was promised.
        let take = |left: u64| Some(left.saturating_sub(bytes));
        let Ok(before) = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) else {
            return;
        };
        self.admission.forget(self.node, bytes.min(before));
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.admission.forget(self.node, *self.left.get_mut());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::huge_pages::huge_page_dir;
    use std::fs;

    const GIB: usize = 1 << 30;
    const SECTOR: usize = 32 * GIB;
    const TASK: [usize; 3] = [SECTOR, SECTOR, 64 << 20];

    struct Machine(tempfile::TempDir);

    impl Machine {
        fn roots(&self) -> Roots {
            Roots { sys: self.0.path().join("sys"), proc: self.0.path().join("proc") }
        }

        /// Two nodes of 1 TiB, with so many GiB free and in caches.
        fn new(nodes: [(u64, u64); 2]) -> Self {
            let machine = Self(tempfile::tempdir().expect("a temporary directory"));
            let mut all = (0, 0);
            for (node, (free, caches)) in nodes.into_iter().enumerate() {
                let text = lines(&format!("Node {node} "), 1 << 10, free, caches);
                let dir = machine.roots().sys.join(format!("devices/system/node/node{node}"));
                fs::create_dir_all(&dir).expect("writable");
                fs::write(dir.join("meminfo"), text).expect("writable");
                all = (all.0 + free, all.1 + caches);
            }
            fs::create_dir_all(machine.roots().proc).expect("writable");
            let text = lines("", 2 << 10, all.0, all.1);
            fs::write(machine.roots().proc.join("meminfo"), text).expect("writable");
            machine
        }

        fn huge_pages(&self, node: u32, page: usize, free: usize) {
            let dir = huge_page_dir(&self.roots().sys, Some(NodeId(node)), page);
            fs::create_dir_all(&dir).expect("writable");
            fs::write(dir.join("free_hugepages"), format!("{free}\n")).expect("writable");
        }

        fn admission(&self) -> Admission {
            Admission::new(self.roots(), Some(8 << 30))
        }
    }

    /// As the kernel writes it; sizes in GiB.
    fn lines(prefix: &str, total: u64, free: u64, caches: u64) -> String {
        let kib = |gib: u64| gib << 20;
        format!(
            "{prefix}MemTotal:       {} kB\n{prefix}MemFree:        {} kB\n\
             {prefix}Active:          123 kB\n{prefix}Active(anon):    123 kB\n\
             {prefix}Active(file):    {} kB\n{prefix}Inactive(file):  {} kB\n\
             {prefix}SReclaimable:    0 kB\n{prefix}HugePages_Total:     0\n",
            kib(total),
            kib(free),
            kib(caches) / 2,
            kib(caches) / 2,
        )
    }

    fn on(node: u32, binding: Binding) -> MemoryPolicy {
        MemoryPolicy { node: Some((NodeId(node), binding)), ..MemoryPolicy::default() }
    }

    #[test]
    fn caches_count_as_free_and_the_reserve_does_not() {
        for (free, caches, fits) in [(73, 0, true), (10, 63, true), (72, 0, false), (0, 72, false)]
        {
            let machine = Machine::new([(free, caches), (0, 0)]);
            let admission = machine.admission();
            let admitted = admission.admit(&TASK, &on(0, Binding::Strict));
            assert_eq!(admitted.is_ok(), fits, "{free} {caches}: {admitted:?}");
        }
    }

    #[test]
    fn a_limit_of_a_cgroup_refuses_what_the_machine_has() {
        let machine = Machine::new([(500, 0), (500, 0)]);
        let proc = machine.roots().proc;
        fs::create_dir_all(proc.join("self")).expect("writable");
        let top = machine.0.path().join("cg");
        fs::create_dir_all(top.join("a/b")).expect("writable");
        let mount = format!("30 24 0:26 / {} rw - cgroup2 cgroup2 rw\n", top.display());
        fs::write(proc.join("self/mountinfo"), mount).expect("writable");
        fs::write(proc.join("self/cgroup"), "0::/a/b\n").expect("writable");
        let write = |file: &str, bytes: usize| {
            fs::write(top.join(file), format!("{bytes}\n")).expect("writable");
        };
        write("a/memory.max", 100 * GIB);
        write("a/memory.current", 40 * GIB);
        let admission = machine.admission();
        let error = admission.admit(&TASK, &on(0, Binding::Strict)).unwrap_err().to_string();
        assert!(
            error.starts_with("cgroup /a (limit 102400 MiB) has too little memory: 65600 MiB are")
                && error.contains("or raise the limit"),
            "{error}"
        );
        // Copies of files in the group can be dropped.
        fs::write(top.join("a/memory.stat"), format!("inactive_file {}\n", 20 * GIB))
            .expect("writable");
        let first = admission.admit(&TASK, &on(0, Binding::Strict)).expect("there is room now");
        // Promised on another node, it counts in the group all the same.
        assert!(admission.admit(&TASK, &on(1, Binding::Strict)).is_err());
        drop(first);
        assert!(admission.admit(&TASK, &on(1, Binding::Strict)).is_ok());
        // The nearest group that is too small is named.
        write("a/b/memory.max", GIB);
        let error = admission.admit(&TASK, &on(0, Binding::Strict)).unwrap_err().to_string();
        assert!(error.starts_with("cgroup /a/b (limit 1024 MiB)"), "{error}");
    }

    #[test]
    fn what_is_missing_is_said() {
        let machine = Machine::new([(40, 10), (500, 0)]);
        let error = machine.admission().admit(&TASK, &on(0, Binding::Strict)).unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("NUMA node 0 has too little memory: 65600 MiB are needed"),
            "{text}"
        );
        assert!(text.contains("43008 MiB available, 22592 MiB are missing"), "{text}");
        assert!(text.contains("40960 MiB free, 10240 MiB in caches"), "{text}");
        assert!(text.contains("SEAL_NUMA=preferred"), "{text}");
    }

    #[test]
    fn memory_that_is_only_preferred_may_be_elsewhere() {
        let machine = Machine::new([(40, 10), (500, 0)]);
        let admission = machine.admission();
        assert!(admission.admit(&TASK, &on(0, Binding::Preferred)).is_ok());
        assert!(admission.admit(&TASK, &MemoryPolicy::default()).is_ok());
    }

    #[test]
    fn what_was_promised_counts_until_it_is_taken() {
        let machine = Machine::new([(100, 0), (100, 0)]);
        let admission = machine.admission();
        let strict = on(0, Binding::Strict);
        let first = admission.admit(&TASK, &strict).expect("enough for one");
        let error = admission.admit(&TASK, &strict).unwrap_err();
        assert!(error.to_string().contains("less 65600 MiB promised"), "{error}");
        assert!(admission.admit(&TASK, &on(1, Binding::Strict)).is_ok(), "another node");
        // The kernel of this machine does not see what was taken, so it fits now.
        first.taken(SECTOR);
        first.taken(SECTOR + (64 << 20));
        assert!(admission.admit(&TASK, &strict).is_ok());
        first.taken(SECTOR);
        assert_eq!(admission.promised().get(&Some(NodeId(0))), Some(&0));
    }

    #[test]
    fn what_was_not_taken_is_given_back() {
        let machine = Machine::new([(100, 0), (0, 0)]);
        let admission = machine.admission();
        let strict = on(0, Binding::Strict);
        let admitted = admission.admit(&TASK, &strict).expect("enough for one");
        admitted.taken(GIB);
        drop(admitted);
        assert!(admission.admit(&TASK, &strict).is_ok());
    }

    #[test]
    fn free_huge_pages_count_for_the_regions_that_fit_in_them() {
        let strict = on(0, Binding::Strict);
        for (page, free, fits) in
            [(GIB, 64, true), (GIB, 63, false), (2 << 20, 32 << 10, true), (2 << 20, 100, false)]
        {
            let machine = Machine::new([(9, 0), (0, 0)]);
            machine.huge_pages(0, page, free);
            assert_eq!(machine.admission().admit(&TASK, &strict).is_ok(), fits, "{page} {free}");
        }
        let machine = Machine::new([(9, 0), (0, 0)]);
        machine.huge_pages(0, GIB, 64);
        let small = MemoryPolicy { pages: PageChoice::Transparent, ..strict };
        assert!(machine.admission().admit(&TASK, &small).is_err(), "they are of no use to it");
    }

    #[test]
    fn a_kernel_that_knows_no_nodes_has_one_memory() {
        let machine = Machine::new([(100, 0), (0, 0)]);
        fs::remove_dir_all(machine.roots().sys).expect("removable");
        let admission = machine.admission();
        assert!(admission.admit(&TASK, &on(0, Binding::Strict)).is_ok());
        let error = admission.admit(&[2048 * GIB], &on(0, Binding::Strict)).unwrap_err();
        assert!(error.to_string().starts_with("this machine has too little"), "{error}");
    }

    #[test]
    fn counts_that_are_missing_are_named() {
        let machine = Machine::new([(1, 1), (1, 1)]);
        let path = machine.roots().proc.join("meminfo");
        fs::write(&path, "MemTotal: 1 kB\n").expect("writable");
        let error = NodeMemory::read(&machine.roots(), None).unwrap_err();
        assert_eq!((error.verb, error.path), ("understand", path));
    }

    #[test]
    fn the_reserve_grows_with_the_memory() {
        let memory = |total| NodeMemory { total, free: 0, reclaimable: 0 };
        assert_eq!(memory(1 << 40).default_reserve(), (1 << 40) / 100);
        assert_eq!(memory(1 << 30).default_reserve(), 256 << 20);
    }

    #[test]
    fn memory_of_this_machine_is_admitted_and_taken() {
        let admission = Admission::default();
        let sizes = [8 << 20, 8 << 20, 1 << 16];
        let regions =
            admission.allocate(&sizes, &MemoryPolicy::default(), None).expect("little memory");
        assert_eq!(regions.iter().map(Region::len).collect::<Vec<_>>(), sizes);
        assert!(regions.iter().all(|region| region.percent_by_node().is_some()));
        assert_eq!(admission.promised().values().sum::<u64>(), 0);
        let error = admission.allocate(&[1 << 50], &MemoryPolicy::default(), None).unwrap_err();
        assert!(matches!(error, AdmissionError::TooLittle { .. }), "{error}");
    }
}
