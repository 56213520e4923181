//! Prepared files of huge pages: memory that is set aside once and used by task after task.
//!
//! Each file is one region. Huge pages are hard to find on a machine that has run for a while, and
//! filling tens of GiB takes time, so users make such files after the start of the machine. Other
//! sealing software uses the same files under the same names; it takes no locks, so a directory
//! belongs to one kind of software at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use memmap2::MmapMut;
use nix::sys::statfs::{HUGETLBFS_MAGIC, TMPFS_MAGIC, fstatfs};

use crate::fault::{FaultError, fault_in};
use crate::huge_pages::{HUGE_PAGES, free_huge_pages, huge_page_dir, read_count};
use crate::memory::{SMALL_PAGE, percent_by_node};
use crate::numa::{bind_memory, is_only_node};
use crate::{
    BindError, Binding, CpuSet, FileError, MemoryError, MemoryPolicy, NodeId, PartFile, Region,
    online_nodes, read_dir_names, take_while_it_moves,
};

/// What stands for the number of a node in the name of a directory.
const NODE: &str = "$NUMA_NODE_INDEX";

/// How long another one that prepares files may be at it without a page more.
const STILL: Duration = Duration::from_secs(15 * 60);

/// Where prepared files are: a directory for each NUMA node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryFiles {
    pattern: String,
}

/// Files that could not be prepared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrepareError {
    /// The directory is on a disk, or nobody knows where.
    #[error(
        "{} is not on a file system in memory; mount one of huge pages there or above, for \
         example `mount -t hugetlbfs -o pagesize=1G none /mnt/huge`", path.display()
    )]
    NotMemory {
        /// The directory.
        path: PathBuf,
    },
    /// There is no such node.
    #[error("this machine has no NUMA node {node}, only {there}")]
    NoNode {
        /// The node.
        node: NodeId,
        /// The nodes there are.
        there: CpuSet,
    },
    /// Another one has locked the directory and makes nothing there.
    #[error(
        "{holder} has locked {} and makes no memory there; end it and run this again",
        directory.display()
    )]
    Busy {
        /// The directory.
        directory: PathBuf,
        /// Who has locked it.
        holder: String,
    },
    /// The size is not a number of whole pages.
    #[error("files of {bytes} bytes are not made of whole pages of {page} bytes")]
    NotWhole {
        /// The size.
        bytes: u64,
        /// The size of a page of the file system.
        page: u64,
    },
    /// The kernel does not find enough huge pages.
    #[error(
        "NUMA node {node} gives only {got} of {wanted} huge pages of {} MiB; memory is in use or \
         fragmented: do this right after the start of the machine, or have pages set aside at boot \
         (kernel parameters hugepagesz={} hugepages=NODE:COUNT)", page >> 20,
        if *page >= 1 << 30 { "1G" } else { "2M" }
    )]
    TooFew {
        /// The node.
        node: NodeId,
        /// Free pages after asking.
        got: usize,
        /// Free pages needed.
        wanted: usize,
        /// Their size.
        page: usize,
    },
    /// A file is there whose pages are not all on the node.
    #[error(
        "{}: only {percent} % of its pages are on NUMA node {node}; remove it and run this again",
        path.display()
    )]
    Elsewhere {
        /// The file.
        path: PathBuf,
        /// Where the pages should be.
        node: NodeId,
        /// How many are there.
        percent: u8,
    },
    /// The memory of a new file could not be had.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// What [`MemoryFiles::prepare`] found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// The directory.
    pub directory: PathBuf,
    /// Files that were there.
    pub found: usize,
    /// Files that were made.
    pub made: usize,
    /// The size of their pages.
    pub page_bytes: usize,
}

/// A prepared file that this process holds.
#[derive(Debug)]
pub(crate) struct MemoryFile {
    file: File,
    path: PathBuf,
    page_bytes: usize,
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        // Closing alone would leave the lock to a child that is just between fork and exec. An
        // error is harmless: the file is closed next.
        let _ = self.file.unlock();
    }
}

impl MemoryFile {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn page_bytes(&self) -> usize {
        self.page_bytes
    }

    /// How long it is now.
    pub(crate) fn length(&self) -> Result<u64, FileError> {
        Ok(self.file.metadata().map_err(FileError::of("examine", &self.path))?.len())
    }

    /// Opens a file of `bytes` bytes that nobody else holds.
    fn try_take(path: PathBuf, bytes: usize) -> Result<Option<Self>, FileError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
            .map_err(FileError::of("open", &path))?;
        let metadata = file.metadata().map_err(FileError::of("examine", &path))?;
        let Some(page_bytes) = memory_page(&file, &path)? else { return Ok(None) };
        if !metadata.is_file() || metadata.len() != bytes as u64 {
            return Ok(None);
        }
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { file, path, page_bytes })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(FileError::of("lock", &path)(error)),
        }
    }

    fn map(&self) -> Result<MmapMut, FileError> {
        map_shared(&self.file, &self.path)
    }
}

fn map_shared(file: &File, path: &Path) -> Result<MmapMut, FileError> {
    // SAFETY: memmap2 asks that the bytes do not change or vanish under the slice. The file lies
    // in memory (hugetlbfs or tmpfs) and is held by this process: its exclusive lock, or the
    // hidden name it has while it is made, keeps this software's other processes away. Who
    // overrides that and writes to it spoils labels, which the self-check finds; who cuts it
    // short makes a `Region` of it fail (`Region::check`). Before it is one, only the kernel touches
    // its pages, which answers with an error.
    unsafe { MmapMut::map_mut(file) }.map_err(FileError::of("map", path))
}

/// The page size of the file system in memory that a file lies on; `None` on any other.
fn memory_page(file: &File, path: &Path) -> Result<Option<usize>, FileError> {
    let stat = fstatfs(file).map_err(|errno| FileError::of("examine", path)(errno.into()))?;
    Ok(match stat.filesystem_type() {
        HUGETLBFS_MAGIC => usize::try_from(stat.block_size()).ok(),
        TMPFS_MAGIC => Some(SMALL_PAGE),
        _ => None,
    })
}

impl MemoryFiles {
    /// Those whose directory for a node is `pattern` with the node's number in the place of
    /// `$NUMA_NODE_INDEX`.
    pub fn by_pattern(pattern: &str) -> Self {
        Self { pattern: pattern.trim_end_matches('/').to_owned() }
    }

    /// The directory of a node.
    pub fn directory(&self, node: NodeId) -> PathBuf {
        self.pattern.replacen(NODE, &node.to_string(), 1).into()
    }

    /// A region in a free file of exactly `bytes` bytes, if there is one for the node of `policy`.
    /// It holds what was in it before, and is free for others when it is dropped.
    pub fn take(&self, bytes: usize, policy: &MemoryPolicy) -> Result<Option<Region>, MemoryError> {
        let Some((node, _)) = policy.node else { return Ok(None) };
        let directory = self.directory(node);
        for path in memory_files(&directory)? {
            let Some(file) = MemoryFile::try_take(path, bytes)? else { continue };
            let mut map = file.map()?;
            fault_in(&mut map, &policy.cpus, &|_| {}).map_err(|error| match error {
                FaultError::Pages(source) => MemoryError::Fault {
                    bytes,
                    pages: crate::Pages::File(file.path.clone(), file.page_bytes),
                    source,
                },
                FaultError::Thread(error) => error.into(),
                FaultError::NoThread(source) => MemoryError::NoThread { source },
            })?;
            return Region::of_file(file, map, policy).map(Some);
        }
        Ok(None)
    }

    /// Makes files of `bytes` bytes for a node until there are `count`, with all pages taken on
    /// that node. Asks the kernel for the huge pages it needs (usually only root may).
    pub fn prepare(
        &self,
        sys_root: &Path,
        node: NodeId,
        count: usize,
        bytes: u64,
    ) -> Result<Prepared, PrepareError> {
        let directory = self.directory(node);
        let nodes = online_nodes(sys_root)?;
        if !nodes.contains(&node) {
            let there = nodes.into_iter().map(|node| node.0).collect();
            return Err(PrepareError::NoNode { node, there });
        }
        let above = directory.ancestors().find(|path| path.exists()).unwrap_or(&directory);
        let above = File::open(above).map_err(FileError::of("open", above))?;
        if memory_page(&above, &directory)?.is_none() {
            return Err(PrepareError::NotMemory { path: directory });
        }
        std::fs::create_dir_all(&directory).map_err(FileError::of("create", &directory))?;
        let opened = File::open(&directory).map_err(FileError::of("open", &directory))?;
        let page = memory_page(&opened, &directory)?
            .ok_or_else(|| PrepareError::NotMemory { path: directory.clone() })?;
        if bytes == 0 || !bytes.is_multiple_of(page as u64) {
            return Err(PrepareError::NotWhole { bytes, page: page as u64 });
        }
        lock_to_prepare(&opened, &directory, STILL)?;

        let mut found = Vec::new();
        for path in memory_files(&directory)? {
            let metadata = path.metadata().map_err(FileError::of("examine", &path))?;
            if metadata.len() == bytes {
                check_file(&path, &metadata, node)?;
                found.push(path);
            }
        }
        let missing = count.saturating_sub(found.len());
        if HUGE_PAGES.contains(&page) {
            let each = usize::try_from(bytes / page as u64).unwrap_or(usize::MAX);
            reserve_pages(sys_root, node, page, each.saturating_mul(missing))?;
        }
        let cpus = crate::node_cpus(sys_root, node).unwrap_or_default();
        let cpus = crate::allowed_cpus().map(|allowed| allowed.and(&cpus)).unwrap_or_default();
        let mut made = 0;
        for number in 1.. {
            if made == missing {
                break;
            }
            let path = directory.join(format!("mem_{}_{number}", size_name(bytes)));
            if !path.exists() {
                make_file(&path, bytes, node, page, &cpus)?;
                made += 1;
            }
        }
        Ok(Prepared { directory, found: found.len(), made, page_bytes: page })
    }
}

/// Takes the lock on `directory`, which is opened as `opened`; a file for it would be taken for
/// memory. Another one that makes files is waited for, unless it makes none for as long as `still`.
fn lock_to_prepare(opened: &File, directory: &Path, still: Duration) -> Result<(), PrepareError> {
    let blocks = || -> Vec<_> {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.metadata().ok().map(|meta| meta.blocks())).collect()
    };
    let mut holder = None;
    let taken = take_while_it_moves(
        directory,
        still,
        || opened.try_lock(),
        |error| matches!(error, TryLockError::WouldBlock),
        blocks,
        |wait| {
            holder.clone_from(&wait.holder);
            true
        },
    );
    taken.map_err(|error| match error {
        TryLockError::WouldBlock => PrepareError::Busy {
            directory: directory.to_path_buf(),
            holder: holder.map_or("another process".to_owned(), |holder| holder.to_string()),
        },
        TryLockError::Error(error) => FileError::of("lock", directory)(error).into(),
    })
}

/// The files of a directory that are not hidden. None if there is no such directory.
fn memory_files(directory: &Path) -> Result<Vec<PathBuf>, FileError> {
    if !directory.exists() {
        return Ok(Vec::new());
    }
    let names = read_dir_names(directory)?;
    let visible = names.into_iter().filter(|name| !name.starts_with('.'));
    let paths = visible.map(|name| directory.join(name));
    Ok(paths.filter(|path| path.is_file() && !path.is_symlink()).collect())
}

/// Whether a file that is there is whole and on its node. One in use is not looked into.
fn check_file(path: &Path, metadata: &std::fs::Metadata, node: NodeId) -> Result<(), PrepareError> {
    let bytes = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
    let Some(file) = MemoryFile::try_take(path.to_path_buf(), bytes)? else { return Ok(()) };
    let mut map = file.map()?;
    if metadata.blocks() * 512 < metadata.len() {
        // Made by other means, with pages to come when they are touched.
        fill(&mut map, node, &CpuSet::default(), path, file.page_bytes)?;
    } else {
        fault_in(&mut map, &CpuSet::default(), &|_| {})
            .map_err(|error| fault_error(error, bytes, path, file.page_bytes))?;
    }
    check_place(&map, path, node)
}

fn make_file(
    path: &Path,
    bytes: u64,
    node: NodeId,
    page: usize,
    cpus: &CpuSet,
) -> Result<(), PrepareError> {
    let part = PartFile::create(path)?;
    part.file().set_len(bytes).map_err(FileError::of("lengthen", part.part_path()))?;
    let mut map = map_shared(part.file(), part.part_path())?;
    fill(&mut map, node, cpus, path, page)?;
    check_place(&map, path, node)?;
    drop(map);
    Ok(part.finish()?)
}

fn fill(
    map: &mut MmapMut,
    node: NodeId,
    cpus: &CpuSet,
    path: &Path,
    page: usize,
) -> Result<(), PrepareError> {
    let bytes = map.len();
    // A machine's only node needs no policy.
    if let Err(source) = bind_memory(map, node, Binding::Strict)
        && !is_only_node(Path::new("/sys"), node)
    {
        return Err(MemoryError::Bind { node, source }.into());
    }
    fault_in(map, cpus, &|_| {}).map_err(|error| fault_error(error, bytes, path, page))?;
    Ok(())
}

fn fault_error(error: FaultError, bytes: usize, path: &Path, page: usize) -> MemoryError {
    match error {
        FaultError::Pages(source) => {
            let pages = crate::Pages::File(path.to_path_buf(), page);
            MemoryError::Fault { bytes, pages, source }
        }
        FaultError::Thread(error) => BindError::into(error),
        FaultError::NoThread(source) => MemoryError::NoThread { source },
    }
}

fn check_place(map: &MmapMut, path: &Path, node: NodeId) -> Result<(), PrepareError> {
    let percent =
        |nodes: std::collections::BTreeMap<NodeId, u8>| nodes.get(&node).copied().unwrap_or(0);
    match percent_by_node(map).map(percent) {
        Some(percent) if percent < 100 => {
            Err(PrepareError::Elsewhere { path: path.to_path_buf(), node, percent })
        }
        _ => Ok(()),
    }
}

/// Has the kernel set aside huge pages on a node until so many are free, or leaves all as it was.
fn reserve_pages(
    sys_root: &Path,
    node: NodeId,
    page: usize,
    wanted: usize,
) -> Result<(), PrepareError> {
    let free = free_huge_pages(sys_root, Some(node), page)?;
    let Some(more) = wanted.checked_sub(free).filter(|more| *more > 0) else { return Ok(()) };
    let path = huge_page_dir(sys_root, Some(node), page).join("nr_hugepages");
    let before = read_count(&path)?.unwrap_or(0);
    let set = |count: usize| {
        std::fs::write(&path, format!("{count}\n")).map_err(FileError::of("write", &path))
    };
    set(before + more)?;
    let got = free_huge_pages(sys_root, Some(node), page)?;
    if got >= wanted {
        return Ok(());
    }
    set(before)?;
    Err(PrepareError::TooFew { node, got, wanted, page })
}

/// A size as it stands in the names of files.
fn size_name(bytes: u64) -> String {
    [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")]
        .into_iter()
        .find(|(bits, _)| bytes.is_multiple_of(1 << bits))
        .map_or_else(|| bytes.to_string(), |(bits, unit)| format!("{}{unit}", bytes >> bits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::child::tests::note_skipped;
    use std::fs;

    const NODE_0: NodeId = NodeId(0);
    const SIZE: usize = 1 << 20;

    fn policy(binding: Binding) -> MemoryPolicy {
        MemoryPolicy { node: Some((NODE_0, binding)), ..MemoryPolicy::default() }
    }

    /// A directory on a file system in memory, if this machine has one.
    fn in_memory() -> Option<tempfile::TempDir> {
        let dir = tempfile::tempdir_in("/dev/shm").ok()?;
        let opened = File::open(dir.path()).ok()?;
        if memory_page(&opened, dir.path()).ok()?.is_none() {
            note_skipped("/dev/shm is not in memory");
            return None;
        }
        Some(dir)
    }

    #[test]
    fn who_keeps_a_directory_locked_and_prepares_nothing_is_not_waited_for_without_end() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut holder = std::process::Command::new("flock")
            .arg(dir.path())
            .args(["-c", "echo; exec cat"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("it runs");
        let mut byte = [0];
        let mut output = holder.stdout.take().expect("piped");
        std::io::Read::read_exact(&mut output, &mut byte).expect("it has the lock");
        let opened = File::open(dir.path()).expect("there");
        let lock = |still| lock_to_prepare(&opened, dir.path(), still);
        let error = lock(Duration::from_millis(200)).expect_err("it is locked");
        assert!(matches!(error, PrepareError::Busy { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(&dir.path().display().to_string()), "{text}");
        assert!(text.contains("end it and run this again"), "{text}");
        drop(holder.stdin.take());
        holder.wait().expect("ours");
        lock(STILL).expect("it is free");
    }

    fn files_in(dir: &Path) -> MemoryFiles {
        MemoryFiles::by_pattern(&format!("{}/numa_{NODE}", dir.display()))
    }

    fn prepare(files: &MemoryFiles, count: usize) -> Option<Prepared> {
        match files.prepare(Path::new("/sys"), NODE_0, count, SIZE as u64) {
            Ok(prepared) => Some(prepared),
            Err(PrepareError::Memory(MemoryError::Bind { .. })) => {
                note_skipped("memory policies are not permitted here");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn a_pattern_names_a_directory_for_each_node() {
        let files = MemoryFiles::by_pattern("/mnt/h_1g/abc/nu_$NUMA_NODE_INDEX_ma/");
        assert_eq!(files.directory(NodeId(1)), Path::new("/mnt/h_1g/abc/nu_1_ma"));
    }

    #[test]
    fn files_are_prepared_once() {
        let Some(dir) = in_memory() else { return };
        let files = files_in(dir.path());
        let Some(first) = prepare(&files, 2) else { return };
        assert_eq!((first.found, first.made, first.page_bytes), (0, 2, SMALL_PAGE));
        let again = prepare(&files, 2).expect("permitted before");
        assert_eq!((again.found, again.made), (2, 0));
        let more = prepare(&files, 3).expect("permitted before");
        assert_eq!((more.found, more.made), (2, 1));
        let names = read_dir_names(&files.directory(NODE_0)).expect("readable");
        assert_eq!(names, ["mem_1MiB_1", "mem_1MiB_2", "mem_1MiB_3"]);
        for name in names {
            let metadata = files.directory(NODE_0).join(name).metadata().expect("there");
            assert!(metadata.blocks() * 512 >= metadata.len(), "all pages are taken");
        }
    }

    #[test]
    fn a_file_is_taken_by_one_at_a_time() {
        let Some(dir) = in_memory() else { return };
        let files = files_in(dir.path());
        if prepare(&files, 2).is_none() {
            return;
        }
        let policy = policy(Binding::Strict);
        let mut first = files.take(SIZE, &policy).expect("readable").expect("free");
        let second = files.take(SIZE, &policy).expect("readable").expect("free");
        assert!(first.file().is_some() && first.file() != second.file());
        assert!(files.take(SIZE, &policy).expect("readable").is_none());
        assert_eq!(first.percent_on(NODE_0), Some(100));
        first.bytes_mut().fill(7);
        assert!(second.bytes().iter().all(|byte| *byte == 0));
        drop(first);
        assert!(files.take(SIZE, &policy).expect("readable").is_some());
    }

    #[test]
    fn only_whole_files_of_the_size_that_are_meant_are_taken() {
        let Some(dir) = in_memory() else { return };
        let files = files_in(dir.path());
        let directory = files.directory(NODE_0);
        fs::create_dir_all(&directory).expect("writable");
        fs::write(directory.join("small"), vec![0; SIZE / 2]).expect("writable");
        fs::write(directory.join(".mem_1MiB_1.part"), vec![0; SIZE]).expect("writable");
        fs::write(dir.path().join("elsewhere"), vec![0; SIZE]).expect("writable");
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), directory.join("link"))
            .expect("writable");
        let policy = policy(Binding::Preferred);
        assert!(files.take(SIZE, &policy).expect("readable").is_none());
        fs::write(directory.join("any name"), vec![9; SIZE]).expect("writable");
        let region = files.take(SIZE, &policy).expect("readable").expect("free");
        assert_eq!((region.len(), region.bytes()[SIZE - 1]), (SIZE, 9));
        assert!(files.take(SIZE, &MemoryPolicy::default()).expect("readable").is_none());
    }

    #[test]
    fn a_region_whose_file_is_cut_goes_on_with_zeros_and_says_so() {
        let Some(dir) = in_memory() else { return };
        let files = files_in(dir.path());
        let directory = files.directory(NODE_0);
        fs::create_dir_all(&directory).expect("writable");
        fs::write(directory.join("file"), vec![1; SIZE]).expect("writable");
        let policy = policy(Binding::Preferred);
        let mut region = files.take(SIZE, &policy).expect("readable").expect("free");
        region.check().expect("nothing has happened");
        region.bytes_mut().fill(2);
        let file = File::options().write(true).open(directory.join("file")).expect("writable");
        file.set_len(SMALL_PAGE as u64).expect("writable");
        assert!(region.bytes()[..SMALL_PAGE].iter().all(|byte| *byte == 2));
        assert!(region.bytes()[SMALL_PAGE..].iter().all(|byte| *byte == 0));
        region.bytes_mut().fill(3);
        assert!(region.bytes().iter().all(|byte| *byte == 3));
        let error = region.check().unwrap_err().to_string();
        assert!(error.contains(&format!("was cut from {SIZE} to {SMALL_PAGE} bytes")), "{error}");
        // Made as long as it was: what was in it is lost all the same.
        file.set_len(SIZE as u64).expect("writable");
        assert!(matches!(region.check(), Err(crate::MapError::Unreadable { .. })));
        drop(region);
        let region = files.take(SIZE, &policy).expect("readable").expect("free again");
        region.check().expect("a new map");
    }

    /// A directory beside this test, which is built on a disk.
    fn on_disk() -> tempfile::TempDir {
        let test = std::env::current_exe().expect("this test has a name");
        let beside = test.parent().expect("it lies in a directory");
        tempfile::tempdir_in(beside).expect("writable")
    }

    #[test]
    fn files_on_a_disk_are_no_memory() {
        let dir = on_disk();
        let files = files_in(dir.path());
        let error = files.prepare(Path::new("/sys"), NODE_0, 1, SIZE as u64).unwrap_err();
        if !matches!(error, PrepareError::NotMemory { .. }) {
            note_skipped("this test lies on a file system in memory");
            return;
        }
        assert!(error.to_string().contains("mount -t hugetlbfs"), "{error}");
        assert!(!files.directory(NODE_0).exists(), "nothing is left behind");
        fs::create_dir_all(files.directory(NODE_0)).expect("writable");
        fs::write(files.directory(NODE_0).join("file"), vec![0; SIZE]).expect("writable");
        assert!(files.take(SIZE, &policy(Binding::Strict)).expect("readable").is_none());
    }

    #[test]
    fn a_node_that_is_not_there_is_named() {
        let files = files_in(Path::new("/dev/shm"));
        let error = files.prepare(Path::new("/sys"), NodeId(900), 1, 4096).unwrap_err();
        assert!(
            error.to_string().starts_with("this machine has no NUMA node 900, only"),
            "{error}"
        );
    }

    #[test]
    fn sizes_that_are_not_whole_pages_are_refused() {
        let Some(dir) = in_memory() else { return };
        for bytes in [0, 4095] {
            let error =
                files_in(dir.path()).prepare(Path::new("/sys"), NODE_0, 1, bytes).unwrap_err();
            assert!(matches!(error, PrepareError::NotWhole { page: 4096, .. }), "{error}");
        }
    }

    #[test]
    fn huge_pages_that_the_kernel_does_not_find_are_given_back_and_named() {
        let sys = tempfile::tempdir().expect("a temporary directory");
        let page = 1 << 30;
        let dir = huge_page_dir(sys.path(), Some(NODE_0), page);
        fs::create_dir_all(&dir).expect("writable");
        fs::write(dir.join("nr_hugepages"), "10\n").expect("writable");
        fs::write(dir.join("free_hugepages"), "4\n").expect("writable");
        reserve_pages(sys.path(), NODE_0, page, 4).expect("enough are free");
        // A machine that does not answer: the number of free pages stays.
        let error = reserve_pages(sys.path(), NODE_0, page, 32).unwrap_err();
        assert!(
            error.to_string().starts_with("NUMA node 0 gives only 4 of 32 huge pages of 1024 MiB")
        );
        assert!(error.to_string().contains("hugepagesz=1G"), "{error}");
        assert_eq!(read_count(&dir.join("nr_hugepages")).expect("readable"), Some(10));
    }

    #[test]
    fn sizes_have_names() {
        for (bytes, name) in
            [(32 << 30, "32GiB"), (512 << 20, "512MiB"), (2048, "2KiB"), (1000, "1000")]
        {
            assert_eq!(size_name(bytes), name);
        }
    }
}
