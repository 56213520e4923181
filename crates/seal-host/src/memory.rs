//! Memory for labels: large, in large pages, on the right NUMA node.
//!
//! Where a page lies is decided when it is first touched. So the policy is set before, the pages
//! are touched at once by threads on the cpus that will use them, and where they came to lie is
//! measured afterwards instead of believed.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Once;

use memmap2::{Advice, MmapMut, MmapOptions};

use crate::admission::Admitted;
use crate::fault::{FaultError, fault_in};
use crate::huge_pages::{HUGE_PAGES, fits, free_huge_pages};
use crate::memory_files::MemoryFile;
use crate::numa::{bind_memory, is_only_node, nodes_of_pages};
use crate::watched::{MapFault, Watched};
use crate::{BindError, Binding, CpuSet, FileError, MapError, NodeId};

/// Pages of this size are the ones every kernel has.
pub(crate) const SMALL_PAGE: usize = 4096;

/// How many pages of a region are looked up when its place is measured.
const SAMPLES: usize = 4096;

/// What memory is wanted.
#[derive(Clone, Debug, Default)]
pub struct MemoryPolicy {
    /// On which node and how strictly; `None` leaves it to the kernel.
    pub node: Option<(NodeId, Binding)>,
    /// The cpus whose threads touch the pages first; empty for those of the calling thread.
    pub cpus: CpuSet,
    /// The largest pages to use.
    pub pages: PageChoice,
}

/// The largest pages to use, where the machine has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PageChoice {
    /// Huge pages of 1 GiB, else of 2 MiB, else transparent ones.
    #[default]
    Huge,
    /// What the kernel puts together by itself: nobody has to set huge pages aside.
    Transparent,
}

/// The pages that a region is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pages {
    /// Huge pages of so many bytes.
    Huge(usize),
    /// A prepared file with pages of so many bytes.
    File(PathBuf, usize),
    /// Small ones, of which the kernel makes huge ones as far as it can.
    Transparent,
}

impl std::fmt::Display for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Huge(bytes) => write!(f, "huge pages of {} MiB", bytes >> 20),
            Self::File(path, bytes) => {
                write!(f, "{} in pages of {} KiB", path.display(), bytes >> 10)
            }
            Self::Transparent => f.write_str("transparent huge pages"),
        }
    }
}

/// Memory that could not be had as it was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// The kernel gives none.
    #[error("cannot get {bytes} bytes of memory")]
    Map {
        /// The size.
        bytes: usize,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// The policy is refused.
    #[error(
        "cannot bind memory to NUMA node {node}; containers may need CAP_SYS_NICE, \
         SEAL_NUMA=preferred does without where that is refused"
    )]
    Bind {
        /// The node.
        node: NodeId,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// Pages cannot be had.
    #[error("cannot fill {bytes} bytes of memory with {pages}")]
    Fault {
        /// The size.
        bytes: usize,
        /// Of which pages.
        pages: Pages,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// A thread that touches pages could not be put where it belongs.
    #[error(transparent)]
    Thread(#[from] BindError),
    /// No thread can be started.
    #[error(
        "cannot start a thread that takes pages; raise the limit of processes (ulimit -u, TasksMax=, \
         pids.max) or of memory (ulimit -v)"
    )]
    NoThread {
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// The pages are elsewhere.
    #[error(
        "{pages}: only {percent} % of them are on NUMA node {node}, where strict binding wants all \
         of them; make the file again with `pc1-exec hugepages`, or set SEAL_NUMA=preferred"
    )]
    NotLocal {
        /// The pages.
        pages: Pages,
        /// Where they should be.
        node: NodeId,
        /// How many are there.
        percent: u8,
    },
    /// A description of the machine, or a prepared file, could not be read.
    #[error(transparent)]
    File(#[from] FileError),
}

/// A region of memory of its own, given back when it is dropped.
#[derive(Debug)]
pub struct Region {
    /// Watched if it is that of a prepared file.
    map: Watched<MmapMut>,
    len: usize,
    pages: Pages,
    /// Keeps a prepared file from others.
    file: Option<MemoryFile>,
}

impl Region {
    /// `bytes` zero bytes anywhere. Pages are taken when they are first touched.
    pub fn anonymous(bytes: usize) -> io::Result<Self> {
        let map = Watched::unwatched(MmapMut::map_anon(bytes)?);
        Ok(Self { map, len: bytes, pages: Pages::Transparent, file: None })
    }

    /// `bytes` zero bytes as `policy` wants them, all of their pages taken.
    pub fn allocate(bytes: usize, policy: &MemoryPolicy) -> Result<Self, MemoryError> {
        Self::allocate_on(Path::new("/sys"), bytes, policy, None)
    }

    /// As [`Region::allocate`] on the machine that `sys_root` describes, counted in `admitted`.
    pub(crate) fn allocate_on(
        sys_root: &Path,
        bytes: usize,
        policy: &MemoryPolicy,
        admitted: Option<&Admitted<'_>>,
    ) -> Result<Self, MemoryError> {
        for page in huge_pages_for(sys_root, bytes, policy)? {
            match Self::with_pages(sys_root, bytes, Pages::Huge(page), policy, admitted) {
                Ok(region) => return Ok(region),
                // Somebody else was faster; the next kind of pages may still be there.
                Err(error @ (MemoryError::Map { .. } | MemoryError::Fault { .. })) => {
                    tracing::debug!(%error, page, "huge pages were free and are not any more");
                }
                Err(error) => return Err(error),
            }
        }
        Self::with_pages(sys_root, bytes, Pages::Transparent, policy, admitted)
    }

    fn with_pages(
        sys_root: &Path,
        bytes: usize,
        pages: Pages,
        policy: &MemoryPolicy,
        admitted: Option<&Admitted<'_>>,
    ) -> Result<Self, MemoryError> {
        let cannot_map = |source| MemoryError::Map { bytes, source };
        let mut map = match pages {
            Pages::Huge(page) => {
                let bits = u8::try_from(page.trailing_zeros()).ok();
                let whole = bytes
                    .checked_next_multiple_of(page)
                    .ok_or_else(|| cannot_map(io::Error::from_raw_os_error(libc::ENOMEM)))?;
                MmapOptions::new().len(whole).huge(bits).map_anon()
            }
            Pages::Transparent | Pages::File(..) => MmapMut::map_anon(bytes),
        }
        .map_err(cannot_map)?;
        if pages == Pages::Transparent {
            // Kernels without transparent huge pages refuse; small ones serve then.
            if let Err(error) = map.advise(Advice::HugePage) {
                tracing::debug!(%error, "no transparent huge pages");
            }
        }
        if let Some((node, binding)) = policy.node {
            bind(sys_root, &mut map, node, binding)?;
        }
        let faulted = |step| admitted.into_iter().for_each(|admitted| admitted.taken(step));
        fault_in(&mut map, &policy.cpus, &faulted).map_err(|error| match error {
            FaultError::Pages(source) => MemoryError::Fault { bytes, pages: pages.clone(), source },
            FaultError::Thread(error) => error.into(),
            FaultError::NoThread(source) => MemoryError::NoThread { source },
        })?;
        let map = Watched::unwatched(map);
        let region = Self { map, len: bytes, pages, file: None };
        region.check_place(policy)?;
        Ok(region)
    }

    /// The memory of a prepared file, which is not zero.
    pub(crate) fn of_file(
        file: MemoryFile,
        map: MmapMut,
        policy: &MemoryPolicy,
    ) -> Result<Self, MemoryError> {
        let pages = Pages::File(file.path().to_path_buf(), file.page_bytes());
        let len = map.len();
        let map = Watched::new(map, file.page_bytes(), true)
            .map_err(FileError::of("map", file.path()))?;
        let region = Self { map, len, pages, file: Some(file) };
        region.check_place(policy)?;
        Ok(region)
    }

    /// Whether the memory holds what was written to it: a prepared file can be cut by others, and
    /// what was in the part that is gone reads as zeros then. To be asked before a result of it is
    /// believed.
    ///
    /// # Errors
    /// Tells what became of the file.
    pub fn check(&self) -> Result<(), MapError> {
        let Some(file) = &self.file else { return Ok(()) };
        let path = || file.path().to_path_buf();
        let fault = self.map.fault();
        if fault == Some(MapFault::Memory) {
            return Err(MapError::Memory { path: path() });
        }
        let (mapped, now) = (self.len as u64, file.length()?);
        if now < mapped {
            return Err(MapError::Cut { path: path(), mapped, now });
        }
        match fault {
            Some(_) => Err(MapError::Unreadable { path: path() }),
            None => Ok(()),
        }
    }

    /// Strict means what it says, also where the kernel was not asked (prepared files).
    fn check_place(&self, policy: &MemoryPolicy) -> Result<(), MemoryError> {
        let Some((node, Binding::Strict)) = policy.node else { return Ok(()) };
        match self.percent_on(node) {
            Some(percent) if percent < 100 => {
                Err(MemoryError::NotLocal { pages: self.pages.clone(), node, percent })
            }
            _ => Ok(()),
        }
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.map[..self.len]
    }

    /// The bytes, to write.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.map[..self.len]
    }

    /// Where it begins: aligned to a page, the same as long as the region lives.
    pub(crate) fn start(&mut self) -> *mut u8 {
        self.map.as_mut_ptr()
    }

    /// The pages it is made of.
    pub fn pages(&self) -> &Pages {
        &self.pages
    }

    /// The prepared file it lies in.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_ref().map(MemoryFile::path)
    }

    /// On which nodes its pages lie, in percent, measured now on a sample of them. `None` where
    /// the kernel does not tell, or no page has been touched.
    pub fn percent_by_node(&self) -> Option<BTreeMap<NodeId, u8>> {
        percent_by_node(&self.map)
    }

    /// How many percent of its pages lie on `node`, as [`Region::percent_by_node`] measures it.
    pub fn percent_on(&self, node: NodeId) -> Option<u8> {
        Some(self.percent_by_node()?.get(&node).copied().unwrap_or(0))
    }

    /// How many percent of a region of [`Pages::Transparent`] the kernel made huge pages of, and
    /// 100 for others. `None` where it does not tell.
    pub fn percent_huge(&self) -> Option<u8> {
        match self.pages {
            Pages::Huge(_) => Some(100),
            Pages::File(_, page) => Some(if page > SMALL_PAGE { 100 } else { 0 }),
            Pages::Transparent => {
                let start = self.map.as_ptr().addr();
                let maps = std::fs::read_to_string("/proc/self/smaps").ok()?;
                percent_huge(&maps, start..start + self.map.len())
            }
        }
    }
}

fn bind(
    sys_root: &Path,
    map: &mut MmapMut,
    node: NodeId,
    binding: Binding,
) -> Result<(), MemoryError> {
    let Err(source) = bind_memory(map, node, binding) else { return Ok(()) };
    // A machine's only node needs no policy: there is no other memory.
    if is_only_node(sys_root, node) {
        tracing::debug!(%node, error = %source, "memory policies are refused; there is one node");
        return Ok(());
    }
    match binding {
        Binding::Strict => Err(MemoryError::Bind { node, source }),
        Binding::Preferred => {
            static TOLD: Once = Once::new();
            TOLD.call_once(|| {
                tracing::warn!(
                    %node, error = %source,
                    "memory policies are refused; pages come from the node whose cpus touch them \
                     first"
                );
            });
            Ok(())
        }
    }
}

/// Which huge pages a region can be made of, the best first.
fn huge_pages_for(
    sys_root: &Path,
    bytes: usize,
    policy: &MemoryPolicy,
) -> Result<Vec<usize>, FileError> {
    let mut pages = Vec::new();
    if policy.pages == PageChoice::Huge {
        for page in HUGE_PAGES {
            let count = bytes.div_ceil(page);
            let node = policy.node.map(|(node, _)| node);
            if fits(bytes, page) && free_huge_pages(sys_root, node, page)? >= count {
                pages.push(page);
            }
        }
    }
    Ok(pages)
}

/// Shares of the nodes in a sample of the pages of `memory`.
pub(crate) fn percent_by_node(memory: &[u8]) -> Option<BTreeMap<NodeId, u8>> {
    let pages = memory.len().div_ceil(SMALL_PAGE);
    let samples = pages.min(SAMPLES);
    let offsets: Vec<_> =
        (0..samples).map(|sample| sample * pages / samples * SMALL_PAGE).collect();
    let nodes = nodes_of_pages(memory, &offsets).ok()?;
    let mut counts = BTreeMap::new();
    for node in nodes.iter().flatten() {
        *counts.entry(*node).or_insert(0_usize) += 1;
    }
    let there: usize = counts.values().sum();
    // Rounded down, so that 100 means all.
    let percent = |count: usize| u8::try_from(count * 100 / there).unwrap_or(100);
    (there > 0).then(|| counts.into_iter().map(|(node, count)| (node, percent(count))).collect())
}

/// The share of huge pages in what /proc/self/smaps says of the areas that overlap `range`. Areas
/// that touch are one to the kernel, so neighbours of the region may be counted with it.
fn percent_huge(smaps: &str, range: std::ops::Range<usize>) -> Option<u8> {
    let (mut resident, mut huge) = (0_usize, 0_usize);
    let mut within = false;
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        let first = words.next()?;
        if let Some((start, end)) = first.split_once('-')
            && let (Ok(start), Ok(end)) =
                (usize::from_str_radix(start, 16), usize::from_str_radix(end, 16))
        {
            within = start < range.end && range.start < end;
        } else if within && (first == "Rss:" || first == "AnonHugePages:") {
            let kib: usize = words.next()?.parse().ok()?;
            *(if first == "Rss:" { &mut resident } else { &mut huge }) += kib;
        }
    }
    u8::try_from((huge * 100).checked_div(resident)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::huge_pages::huge_page_dir;
    use std::fs;

    /// A machine with the given free huge pages: (node, page size, free).
    fn machine(free: &[(u32, usize, usize)]) -> tempfile::TempDir {
        let sys = tempfile::tempdir().expect("a temporary directory");
        for (node, page, free) in free {
            let dir = huge_page_dir(sys.path(), Some(NodeId(*node)), *page);
            fs::create_dir_all(&dir).expect("writable");
            fs::write(dir.join("free_hugepages"), format!("{free}\n")).expect("writable");
        }
        sys
    }

    fn strict(node: u32) -> MemoryPolicy {
        MemoryPolicy { node: Some((NodeId(node), Binding::Strict)), ..MemoryPolicy::default() }
    }

    #[test]
    fn the_largest_huge_pages_that_are_free_on_the_node_come_first() {
        const GIB: usize = 1 << 30;
        const MIB_2: usize = 2 << 20;
        let sys = machine(&[(0, GIB, 32), (0, MIB_2, 16384), (1, GIB, 31), (1, MIB_2, 16384)]);
        let check = |bytes, policy: &MemoryPolicy, expected: &[usize]| {
            assert_eq!(huge_pages_for(sys.path(), bytes, policy).expect("readable"), expected);
        };
        check(32 * GIB, &strict(0), &[GIB, MIB_2]);
        check(32 * GIB, &strict(1), &[MIB_2]);
        check(64 * GIB, &strict(0), &[]);
        check(32 * GIB, &strict(2), &[]);
        check(GIB / 2, &strict(0), &[MIB_2]);
        check(GIB - (1 << 20), &strict(0), &[GIB, MIB_2]);
        check(4096, &strict(0), &[MIB_2]);
        check(0, &strict(0), &[]);
        let transparent = MemoryPolicy { pages: PageChoice::Transparent, ..strict(0) };
        check(32 * GIB, &transparent, &[]);
    }

    #[test]
    fn a_count_that_is_none_is_named() {
        let sys = machine(&[(0, 2 << 20, 1)]);
        let path = huge_page_dir(sys.path(), Some(NodeId(0)), 2 << 20).join("free_hugepages");
        fs::write(&path, "many\n").expect("writable");
        let error = huge_pages_for(sys.path(), 1 << 20, &strict(0)).unwrap_err();
        assert_eq!((error.verb, error.path), ("understand", path));
    }

    #[test]
    fn pages_that_were_free_a_moment_ago_are_replaced_by_others() {
        // This machine promises pages that the real one does not have.
        let sys = machine(&[(0, 2 << 20, 1 << 18)]);
        if free_huge_pages(Path::new("/sys"), None, 2 << 20).expect("readable") > 0 {
            return;
        }
        let policy = MemoryPolicy { node: Some((NodeId(0), Binding::Preferred)), ..strict(0) };
        let region = Region::allocate_on(sys.path(), 3 << 20, &policy, None).expect("memory");
        assert_eq!((region.pages(), region.len()), (&Pages::Transparent, 3 << 20));
    }

    #[test]
    fn memory_is_bound_taken_and_measured() {
        let node = crate::online_nodes(Path::new("/sys")).expect("readable").first().copied();
        let policy = MemoryPolicy {
            node: node.map(|node| (node, Binding::Strict)),
            cpus: crate::allowed_cpus().expect("always readable"),
            pages: PageChoice::Huge,
        };
        let mut region = match Region::allocate(100 << 20, &policy) {
            Ok(region) => region,
            Err(MemoryError::Bind { source, .. }) if source.raw_os_error() == Some(libc::EPERM) => {
                crate::child::tests::note_skipped("memory policies are not permitted here");
                return;
            }
            Err(error) => panic!("{error}"),
        };
        assert_eq!(region.len(), 100 << 20);
        assert!(region.bytes().iter().all(|byte| *byte == 0));
        *region.bytes_mut().last_mut().expect("it has bytes") = 7;
        if let Some(node) = node {
            assert_eq!(region.percent_on(node), Some(100));
            assert_eq!(region.percent_on(NodeId(999)), Some(0));
            let maps = fs::read_to_string("/proc/self/numa_maps").expect("readable");
            let start = format!("{:x} bind:{node} ", region.start().addr());
            assert!(maps.contains(&start), "{start} in {maps}");
        }
        assert!(region.percent_huge().is_some());
    }

    #[test]
    fn a_node_that_is_not_there_is_an_error_if_strict() {
        let error = Region::allocate(1 << 20, &strict(1000)).unwrap_err();
        assert!(matches!(error, MemoryError::Bind { node: NodeId(1000), .. }), "{error}");
        assert!(error.to_string().contains("SEAL_NUMA=preferred"), "{error}");
        let preferred =
            MemoryPolicy { node: Some((NodeId(1000), Binding::Preferred)), ..strict(0) };
        assert!(Region::allocate(1 << 20, &preferred).is_ok());
    }

    #[test]
    fn a_thread_that_cannot_be_bound_fails_the_allocation() {
        let policy = MemoryPolicy { cpus: [8000].into_iter().collect(), ..MemoryPolicy::default() };
        let error = Region::allocate(1 << 20, &policy).unwrap_err();
        assert!(matches!(error, MemoryError::Thread(_)), "{error}");
    }

    #[test]
    fn memory_that_nobody_has_is_an_error() {
        let error = Region::allocate(usize::MAX / 4, &MemoryPolicy::default()).unwrap_err();
        assert!(matches!(error, MemoryError::Map { .. }), "{error}");
    }

    #[test]
    fn untouched_memory_lies_nowhere() {
        let region = Region::anonymous(1 << 20).expect("memory");
        assert_eq!(region.percent_by_node(), None);
        assert_eq!(percent_by_node(&[]), None);
    }

    #[test]
    fn the_share_of_huge_pages_is_read_from_the_area_of_the_region() {
        let smaps = "1000-3000 rw-p 00000000 00:00 0 \nRss:                 100 kB\n\
                     AnonHugePages:        0 kB\nVmFlags: rd wr\n\
                     4000-8000 rw-p 00000000 00:00 0 [heap]\nRss:                 400 kB\n\
                     AnonHugePages:      300 kB\nVmFlags: rd wr\n";
        assert_eq!(percent_huge(smaps, 0x5000..0x6000), Some(75));
        assert_eq!(percent_huge(smaps, 0x2000..0x5000), Some(60));
        assert_eq!(percent_huge(smaps, 0x9000..0xa000), None);
    }
}
