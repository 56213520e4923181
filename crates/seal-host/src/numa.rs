//! NUMA nodes and the memory policies of threads and ranges of memory.

use std::io;
use std::path::Path;

use crate::affinity::{allowed_cpus, read_cpu_set};
use crate::{CpuSet, FileError, Topology};

/// Bits of the node masks given to the kernel: as many nodes as Linux can be built for.
const MASK_BITS: usize = 1024;

/// The number of a NUMA node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeId(pub u32);

impl std::fmt::Display for NodeId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The nodes that are there, from sysfs (`/sys` as `sys_root`). A kernel without NUMA support has
/// none.
pub fn online_nodes(sys_root: &Path) -> Result<Vec<NodeId>, FileError> {
    match read_cpu_set(&sys_root.join("devices/system/node/online")) {
        Ok(nodes) => Ok(nodes.iter().map(NodeId).collect()),
        Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Whether there is no memory but that of `node`: the machine has one node, or none that its kernel
/// tells of.
pub(crate) fn is_only_node(sys_root: &Path, node: NodeId) -> bool {
    match online_nodes(sys_root) {
        Ok(nodes) => {
            matches!(nodes[..], [] | [_]) && nodes.first().is_none_or(|only| *only == node)
        }
        Err(_) => false,
    }
}

/// What comes of it when the preference for the memory of `node` is refused.
pub(crate) fn without_preference(sys_root: &Path, node: NodeId) -> &'static str {
    if is_only_node(sys_root, node) {
        "nothing is lost: this machine has no other node"
    } else {
        "pages come from the node whose cpus touch them first, and where those are of several \
         nodes, work is slower (containers may need CAP_SYS_NICE)"
    }
}

/// The cpus of a node, from sysfs.
pub fn node_cpus(sys_root: &Path, node: NodeId) -> Result<CpuSet, FileError> {
    read_cpu_set(&sys_root.join(format!("devices/system/node/node{node}/cpulist")))
}

/// A set of nodes in the kernel's form.
type Mask = [u64; MASK_BITS / 64];

/// The set of one node, or `None` if it is beyond what a mask holds.
fn mask_of(node: NodeId) -> Option<Mask> {
    let mut mask = [0; MASK_BITS / 64];
    *mask.get_mut(node.0 as usize / 64)? |= 1 << (node.0 % 64);
    Some(mask)
}

/// The only node of a set.
fn only_node(mask: &Mask) -> Option<NodeId> {
    let mut nodes = (0..MASK_BITS).filter(|bit| mask[bit / 64] >> (bit % 64) & 1 == 1);
    let node = nodes.next()?;
    if nodes.next().is_some() { None } else { u32::try_from(node).ok().map(NodeId) }
}

/// A policy about the memory of nodes, in the kernel's form.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    mode: i32,
    nodes: Mask,
}

impl Policy {
    /// The policy, or `None` if the node is beyond what a mask holds.
    pub(crate) fn new(node: NodeId, binding: Binding) -> Option<Self> {
        let mode = match binding {
            Binding::Strict => libc::MPOL_BIND,
            Binding::Preferred => libc::MPOL_PREFERRED,
        };
        Some(Self { mode, nodes: mask_of(node)? })
    }

    /// Page by page from these nodes in turn.
    fn interleaved(nodes: &[NodeId]) -> Option<Self> {
        let mut mask = [0; MASK_BITS / 64];
        for node in nodes {
            for (word, bits) in mask.iter_mut().zip(mask_of(*node)?) {
                *word |= bits;
            }
        }
        Some(Self { mode: libc::MPOL_INTERLEAVE, nodes: mask })
    }

    /// Sets the policy of the calling thread, which it hands on by fork and exec.
    /// Async-signal-safe.
    pub(crate) fn apply(&self) -> io::Result<()> {
        // SAFETY: set_mempolicy(2) takes a mode, a pointer to a mask and the number of its bits.
        // The pointer is to `self.nodes`, valid for reading that many bits during the call. (The
        // kernel looks at one bit less than it is told.)
        let result = unsafe {
            libc::syscall(libc::SYS_set_mempolicy, self.mode, self.nodes.as_ptr(), MASK_BITS)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Whether this is the policy of the calling thread. Async-signal-safe.
    pub(crate) fn is_current(&self) -> io::Result<bool> {
        let (mode, nodes) = thread_policy()?;
        Ok(mode == self.mode && nodes == self.nodes)
    }
}

/// Mode and nodes of the calling thread's memory policy. Async-signal-safe.
fn thread_policy() -> io::Result<(i32, Mask)> {
    let (mut mode, mut mask) = (0_i32, [0_u64; MASK_BITS / 64]);
    // SAFETY: get_mempolicy(2) writes the mode through the first pointer and as many bits as the
    // third argument says through the second; both point to locals of that size. Address and
    // flags 0 ask for the thread's own policy.
    let result = unsafe {
        libc::syscall(
            libc::SYS_get_mempolicy,
            &raw mut mode,
            mask.as_mut_ptr(),
            MASK_BITS,
            0_usize,
            0_usize,
        )
    };
    if result == 0 { Ok((mode, mask)) } else { Err(io::Error::last_os_error()) }
}

/// The node whose memory the calling thread was told to use, by its parent or by
/// [`place_self`](crate::place_self). `None` if nobody told it, or if the kernel does not say.
pub fn preferred_node() -> Option<NodeId> {
    match thread_policy() {
        Ok((libc::MPOL_PREFERRED | libc::MPOL_BIND, mask)) => only_node(&mask),
        _ => None,
    }
}

/// Lets this thread, and those that it starts from now on, take memory page by page from all nodes
/// on which it may run, so that what all of them read lies on no node alone. Returns these nodes;
/// none, and nothing is changed, where it may run on one only, or was told which memory to use.
///
/// # Errors
/// When the kernel does not allow it (containers may need `CAP_SYS_NICE`), or does not tell where
/// the cpus are.
pub fn interleave_memory() -> io::Result<Vec<NodeId>> {
    let (mode, _) = thread_policy()?;
    let topology = Topology::read(Path::new("/sys")).map_err(io::Error::other)?;
    let nodes = topology.nodes_of(&allowed_cpus()?);
    if mode != libc::MPOL_DEFAULT || nodes.len() < 2 {
        return Ok(Vec::new());
    }
    let policy = Policy::interleaved(&nodes);
    policy.ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?.apply()?;
    Ok(nodes)
}

/// How strictly memory stays on the node it is meant for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Binding {
    /// Memory of that node or none.
    Strict,
    /// Memory of that node as long as there is any, then of others.
    #[default]
    Preferred,
}

impl std::fmt::Display for Binding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Strict => "strict",
            Self::Preferred => "preferred",
        })
    }
}

/// Decides for pages of `memory`, which begins at a page and has not been touched yet, from which
/// node they are taken.
pub(crate) fn bind_memory(memory: &mut [u8], node: NodeId, binding: Binding) -> io::Result<()> {
    let mask = mask_of(node).ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
    let mode = match binding {
        Binding::Strict => libc::MPOL_BIND,
        Binding::Preferred => libc::MPOL_PREFERRED,
    };
    // SAFETY: mbind(2) takes a range, a mode, a pointer to a mask and the number of its bits, and
    // flags. The mask is a local, valid for reading that many bits. The range is memory that this
    // call borrows exclusively; the policy changes neither its content nor its protection, and
    // without flags no page is moved.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mbind,
            memory.as_mut_ptr(),
            memory.len(),
            mode,
            mask.as_ptr(),
            MASK_BITS,
            0_usize,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The node of the page at each of `offsets` into `memory`; `None` where no page is.
///
/// # Panics
/// If an offset is beyond the end.
pub(crate) fn nodes_of_pages(memory: &[u8], offsets: &[usize]) -> io::Result<Vec<Option<NodeId>>> {
    let pages: Vec<*const u8> = offsets.iter().map(|offset| &raw const memory[*offset]).collect();
    let mut nodes = vec![-1_i32; pages.len()];
    // SAFETY: move_pages(2) for process 0, the calling one, reads `count` addresses through the
    // second pointer and, where the third is null, moves nothing and writes as many numbers
    // through the fourth. Both vectors have that length. The addresses are only looked up.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_pages,
            0_usize,
            pages.len(),
            pages.as_ptr(),
            std::ptr::null::<i32>(),
            nodes.as_mut_ptr(),
            0_usize,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(nodes.into_iter().map(|node| u32::try_from(node).ok().map(NodeId)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn memory_is_interleaved_over_nodes_only_where_there_are_several() {
        let policy = Policy::interleaved(&[NodeId(0), NodeId(65)]).expect("nodes of a mask");
        assert_eq!((policy.nodes[0], policy.nodes[1]), (1, 2));
        assert!(Policy::interleaved(&[NodeId(4000)]).is_none());
        let thread = std::thread::spawn(|| {
            let told = interleave_memory();
            let nodes = online_nodes(Path::new("/sys")).expect("readable").len();
            // A kernel without NUMA support has no policies.
            if let Ok(told) = told {
                assert!(told.is_empty() || told.len() <= nodes, "{told:?}");
                assert!(told.len() != 1, "{told:?}");
            }
        });
        thread.join().expect("no panic");
    }

    #[test]
    fn reads_a_fake_machine_and_one_without_numa() {
        let sys = tempfile::tempdir().expect("a temporary directory");
        assert!(online_nodes(sys.path()).expect("readable").is_empty());
        let node = sys.path().join("devices/system/node");
        fs::create_dir_all(node.join("node1")).expect("writable");
        fs::write(node.join("online"), "0-1\n").expect("writable");
        fs::write(node.join("node1/cpulist"), "48-95\n").expect("writable");
        assert_eq!(online_nodes(sys.path()).expect("readable"), [NodeId(0), NodeId(1)]);
        assert_eq!(node_cpus(sys.path(), NodeId(1)).expect("readable").to_string(), "48-95");
    }

    #[test]
    fn the_only_node_of_a_set_is_told() {
        let mask = mask_of(NodeId(65)).expect("within the mask");
        assert_eq!(only_node(&mask), Some(NodeId(65)));
        let mut two = mask;
        two[0] = 1;
        assert_eq!(only_node(&two), None);
        assert_eq!(only_node(&[0; MASK_BITS / 64]), None);
    }

    #[test]
    fn a_thread_knows_the_node_it_was_told() {
        let thread = std::thread::spawn(|| {
            let before = preferred_node();
            let told = Policy::new(NodeId(0), Binding::Preferred).expect("within the mask").apply();
            (before, told.map(|()| preferred_node()))
        });
        let (before, told) = thread.join().expect("no panic");
        assert_eq!(before, None);
        // Containers may forbid memory policies; nothing to check there.
        if let Ok(told) = told {
            assert_eq!(told, Some(NodeId(0)));
        }
    }

    #[test]
    fn a_node_beyond_the_mask_is_no_policy() {
        assert!(Policy::new(NodeId(1023), Binding::Preferred).is_some());
        assert!(Policy::new(NodeId(1024), Binding::Preferred).is_none());
    }
}
