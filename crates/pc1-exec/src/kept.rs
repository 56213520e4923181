//! A finished layer whose content has changed is put aside instead of being removed: which bytes
//! differ from the layer that is labelled in its place tells disk from memory, and somebody else's
//! software from both.
//!
//! It stays in the sector's cache directory, under a hidden name that no other software looks for,
//! and goes with that directory. One is kept of each sector, the last one.

use std::fs;
use std::path::{Path, PathBuf};

use seal_host::{FileError, remove_if_there};
use seal_runtime::TaskContext;
use seal_sdr::ChangedLayer;
use seal_wire::{Corruption, CorruptionKind};

use crate::Pc1Error;

/// The hidden name.
const KEPT: &str = ".seal-exec-changed-layer.dat";

/// A layer that was put aside.
#[derive(Debug)]
pub(crate) struct Kept {
    path: PathBuf,
}

impl Kept {
    /// Puts the file of the layer aside in `cache_path`, and tells of it. `None` if it cannot be:
    /// then it is removed with what else is left of the layers after the good ones.
    pub(crate) fn aside(
        changed: &ChangedLayer,
        cache_path: &Path,
        context: &TaskContext,
    ) -> Option<Self> {
        let path = cache_path.join(KEPT);
        let moved = fs::rename(&changed.path, &path).map_err(FileError::of("move", &changed.path));
        if let Err(error) = &moved {
            tracing::warn!(%error, "the layer that has changed cannot be kept");
        }
        let ChangedLayer { layer, path: from, wanted, found } = changed;
        let what = format!(
            "layer file {} has the SHA-256 digest {found} and had {wanted} when it was finished; \
             it is labelled anew",
            from.display()
        );
        context.corrupted(Corruption {
            layer: Some(*layer),
            path: Some(from.display().to_string()),
            kept: moved.is_ok().then(|| path.display().to_string()),
            ..Corruption::new(CorruptionKind::Layer, what)
        });
        moved.ok().map(|()| Self { path })
    }

    /// Removes it: its space is needed.
    pub(crate) fn let_go(self) -> Result<(), Pc1Error> {
        tracing::warn!(
            path = %self.path.display(),
            "the layer that has changed is not kept: there is no space for it beside the sector"
        );
        Ok(remove_if_there(&self.path)?)
    }
}
