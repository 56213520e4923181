//! NUMA nodes and the memory policy of a thread.

use std::io;
use std::path::Path;

use crate::affinity::read_cpu_set;
use crate::{CpuSet, FileError};

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

/// The cpus of a node, from sysfs.
pub fn node_cpus(sys_root: &Path, node: NodeId) -> Result<CpuSet, FileError> {
    read_cpu_set(&sys_root.join(format!("devices/system/node/node{node}/cpulist")))
}

/// A policy that prefers the memory of one node, in the kernel's form.
#[derive(Clone, Debug)]
pub(crate) struct Preferred([u64; MASK_BITS / 64]);

impl Preferred {
    /// The policy, or `None` if the node is beyond what a mask holds.
    pub(crate) fn node(node: NodeId) -> Option<Self> {
        let mut mask = [0; MASK_BITS / 64];
        *mask.get_mut(node.0 as usize / 64)? |= 1 << (node.0 % 64);
        Some(Self(mask))
    }

    /// Sets the policy of the calling thread, which it hands on by fork and exec.
    /// Async-signal-safe.
    pub(crate) fn apply(&self) -> io::Result<()> {
        // SAFETY: set_mempolicy(2) takes a mode, a pointer to a mask and the number of its bits.
        // The pointer is to `self.0`, valid for reading that many bits during the call. (The
        // kernel looks at one bit less than it is told.)
        let result = unsafe {
            libc::syscall(libc::SYS_set_mempolicy, libc::MPOL_PREFERRED, self.0.as_ptr(), MASK_BITS)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Whether this is the policy of the calling thread. Async-signal-safe.
    pub(crate) fn is_current(&self) -> io::Result<bool> {
        let (mut mode, mut mask) = (0_i32, [0_u64; MASK_BITS / 64]);
        // SAFETY: get_mempolicy(2) writes the mode through the first pointer and as many bits as
        // the third argument says through the second; both point to locals of that size. Address
        // and flags 0 ask for the thread's own policy.
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
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(mode == libc::MPOL_PREFERRED && mask == self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

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
    fn a_node_beyond_the_mask_is_no_policy() {
        assert!(Preferred::node(NodeId(1023)).is_some());
        assert!(Preferred::node(NodeId(1024)).is_none());
    }
}
