//! Huge pages that the machine has set aside, as sysfs tells of them.

use std::io;
use std::path::{Path, PathBuf};

use crate::{FileError, NodeId};

/// The sizes of huge pages that are looked for, the best first.
pub(crate) const HUGE_PAGES: [usize; 2] = [1 << 30, 2 << 20];

/// As much of a region's last huge page may stay unused.
const MAX_WASTE: usize = 16 << 20;

/// Whether huge pages of `page` bytes suit a region: little of the last one is unused.
pub(crate) fn fits(bytes: usize, page: usize) -> bool {
    bytes > 0 && (page - bytes % page) % page <= MAX_WASTE
}

/// How many huge pages of `page` bytes are free, on one node or on all.
pub(crate) fn free_huge_pages(
    sys_root: &Path,
    node: Option<NodeId>,
    page: usize,
) -> Result<usize, FileError> {
    let dir = huge_page_dir(sys_root, node, page);
    Ok(read_count(&dir.join("free_hugepages"))?.unwrap_or(0))
}

/// Where sysfs tells of huge pages of `page` bytes, on one node or on all.
pub(crate) fn huge_page_dir(sys_root: &Path, node: Option<NodeId>, page: usize) -> PathBuf {
    let name = format!("hugepages/hugepages-{}kB", page >> 10);
    match node {
        Some(node) => sys_root.join(format!("devices/system/node/node{node}")).join(name),
        None => sys_root.join("kernel/mm").join(name),
    }
}

/// The number in a file; `None` if there is no such file.
pub(crate) fn read_count(path: &Path) -> Result<Option<usize>, FileError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(FileError::of("read", path)(error)),
    };
    let count = text.trim().parse();
    count.map(Some).map_err(|error| FileError::of("understand", path)(io::Error::other(error)))
}
