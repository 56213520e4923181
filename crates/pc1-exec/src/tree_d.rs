//! The sector's tree D: the one that is there, if every node of it is that of the data, or a new one.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use seal_host::{SpaceReserved, SpaceWanted, reserve_space};
use seal_runtime::{TaskContext, Unit};
use seal_trees::{
    TreeDCompared, TreesError, Watch, ZeroLeaves, build_tree_d, build_zero_tree_d, check_tree_d,
    compare_tree_d, compare_zero_tree_d,
};
use seal_types::{Commitment, TREE_D};

use crate::data::Staged;
use crate::{Pc1Error, Pc1Job};

/// Trees over zeros of which this process has looked at every node. All sectors without data may
/// share one, which need not be read for each of them.
static ZERO_TREES: Mutex<Vec<Identity>> = Mutex::new(Vec::new());

/// Device, inode, length and the times of the last changes of a file.
type Identity = (u64, u64, u64, [(i64, i64); 2]);

/// Tree D of a sector. What is there is only ever read: it may be a link to a file that all sectors
/// without data share. One that is of something else is replaced by a file of the sector's own, which
/// leaves what a link points to alone.
#[derive(Debug)]
pub(crate) struct TreeD<'a> {
    job: &'a Pc1Job,
    staged: &'a Staged,
    comm_d: Commitment,
    path: PathBuf,
    is_there: bool,
}

impl<'a> TreeD<'a> {
    /// Looks for one with the right length and root, which is quick and says nothing of the rest.
    pub(crate) fn find(job: &'a Pc1Job, staged: &'a Staged, comm_d: Commitment) -> Self {
        let path = job.cache_path.join(TREE_D);
        let is_there = path.symlink_metadata().is_ok()
            && match check_tree_d(&path, job.porep.nodes(), comm_d) {
                Ok(()) => true,
                Err(error) => {
                    replaces(&path, &told(&error));
                    false
                }
            };
        Self { job, staged, comm_d, path, is_there }
    }

    /// Whether one was found that perhaps need not be made.
    pub(crate) fn is_there(&self) -> bool {
        self.is_there
    }

    /// Sees to it that there is one in which every node is that of the data, and that this is the data
    /// of the pieces.
    pub(crate) fn complete(
        &self,
        context: &TaskContext,
        cancelled: &(dyn Fn() -> bool + Sync),
    ) -> Result<(), Pc1Error> {
        let progress = |part: seal_trees::Part, done, total| {
            context.progress(&part.to_string(), done, total, Unit::Nodes);
        };
        let watch = Watch { progress: &progress, cancelled };
        // What is made after all was not counted before.
        let mut _reserved = None;
        if self.is_there {
            if self.is_right(context, &watch)? {
                tracing::info!(path = %self.path.display(), "using the tree D that is there");
                return Ok(());
            }
            _reserved = Some(self.reserve()?);
        }
        let nodes = self.job.porep.nodes();
        if self.staged.is_zero() {
            build_zero_tree_d(&self.path, nodes, ZeroLeaves::Hole, &watch)?;
        } else {
            let mut data = self.staged.reader();
            build_tree_d(&self.path, nodes, &mut data, self.staged.path(), self.comm_d, &watch)?;
        }
        Ok(())
    }

    /// Compares every node of the one that is there with what the data makes.
    fn is_right(&self, context: &TaskContext, watch: &Watch<'_>) -> Result<bool, Pc1Error> {
        let (path, nodes) = (&self.path, self.job.porep.nodes());
        let before = identity(path);
        let is_known = |trees: &[Identity]| before.is_some_and(|tree| trees.contains(&tree));
        let compared = if !self.staged.is_zero() {
            let mut data = self.staged.reader();
            compare_tree_d(path, nodes, &mut data, self.staged.path(), self.comm_d, watch)
        } else if is_known(&zero_trees()) {
            context.already(&seal_trees::Part::TreeD.to_string());
            Ok(TreeDCompared::Same)
        } else {
            compare_zero_tree_d(path, nodes, watch)
        };
        match compared {
            Ok(TreeDCompared::Same) => {
                let mut trees = zero_trees();
                if self.staged.is_zero() && !is_known(&trees) {
                    trees.extend(before);
                }
                Ok(true)
            }
            Ok(TreeDCompared::Differs { node }) => {
                replaces(path, &format!("has another node {node} than the data makes"));
                Ok(false)
            }
            Err(
                error @ (TreesError::Cancelled | TreesError::NoThread(_) | TreesError::Memory(_)),
            ) => Err(error.into()),
            // If it is of the data, the building meets it too.
            Err(error) => {
                replaces(path, &told(&error));
                Ok(false)
            }
        }
    }

    fn reserve(&self) -> Result<SpaceReserved, Pc1Error> {
        let cache = &self.job.cache_path;
        let who = format!("tree D in {}, pid {}", cache.display(), std::process::id());
        let bytes = 2 * self.job.porep.sector_size.bytes();
        let wanted = SpaceWanted { who: &who, on: cache, bytes, freed: 0, grows: &[&self.path] };
        Ok(reserve_space(wanted)?)
    }
}

fn zero_trees() -> std::sync::MutexGuard<'static, Vec<Identity>> {
    ZERO_TREES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The file behind `path`, as it is now.
fn identity(path: &Path) -> Option<Identity> {
    let meta = fs::metadata(path).ok()?;
    let times = [(meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec())];
    Some((meta.dev(), meta.ino(), meta.len(), times))
}

/// What is wrong with the one that is there. The error's own remedy is for PC2, which cannot make one.
fn told(error: &TreesError) -> String {
    match error {
        TreesError::TreeDSize { found, wanted, .. } => {
            format!("has {found} bytes and {wanted} are wanted")
        }
        TreesError::TreeDRoot { found, wanted, .. } => {
            format!("has the root {found} but comm_d is {wanted}")
        }
        other => format!("is not used ({other})"),
    }
}

fn replaces(path: &Path, what: &str) {
    let path = path.display();
    tracing::warn!("tree D {path} {what}; building this sector's own in its place");
}
