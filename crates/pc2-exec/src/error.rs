//! What can go wrong in PC2, and as which code it is answered.

use std::path::Path;

use seal_trees::TreesError;
use seal_types::{RegisteredProof, layer_file};
use seal_wire::{Corruption, CorruptionKind, ErrorCode, TaskError};

/// No graph has more layers.
const LAYERS_MOST: u32 = 64;

/// Why PC2 of a sector was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Pc2Error {
    /// Trees or replica could not be made.
    #[error(transparent)]
    Trees(#[from] TreesError),
    /// `pc1out` names other layers than its proof has.
    #[error(
        "pc1out.labels holds {found} for {proof}, which has {wanted}; the output of PC1 is of \
         another sector or not complete"
    )]
    Labels {
        /// The proof in `pc1out`.
        proof: RegisteredProof,
        /// What it has.
        wanted: String,
        /// What `labels` names.
        found: String,
    },
}

impl Pc2Error {
    /// As which code the error is answered.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Trees(error) => error.code(),
            Self::Labels { .. } => ErrorCode::BadInput,
        }
    }
}

impl Pc2Error {
    /// What is to be remembered of it, if it says that something computed or stored is wrong. A GPU
    /// that computed wrongly is remembered by its report, also where the processor took over.
    pub(crate) fn corruption(&self) -> Option<Corruption> {
        let of = |kind, path: &Path| Corruption {
            path: Some(path.display().to_string()),
            ..Corruption::new(kind, self)
        };
        match self {
            Self::Trees(TreesError::SelfCheck { path, node, device }) => Some(Corruption {
                node: Some(*node),
                device: Some(device.clone()),
                ..of(CorruptionKind::Node, path)
            }),
            Self::Trees(TreesError::LayerDigest { path, .. }) => {
                Some(Corruption { layer: layer_of(path), ..of(CorruptionKind::Layer, path) })
            }
            Self::Trees(TreesError::NotCanonical { path, node }) => {
                Some(Corruption { node: Some(*node), ..of(CorruptionKind::Layer, path) })
            }
            _ => None,
        }
    }
}

/// The layer that is in a file of this name.
fn layer_of(path: &Path) -> Option<u32> {
    let name = path.file_name()?.to_str()?;
    (1..=LAYERS_MOST).find(|layer| layer_file(*layer) == name)
}

impl From<Pc2Error> for TaskError {
    fn from(error: Pc2Error) -> Self {
        Self::from_error(error.code(), &error)
    }
}

#[cfg(test)]
mod tests {
    use seal_host::{FileError, SpaceError};

    use super::*;

    /// "Bad input" tells the parent never to try again.
    #[test]
    fn whatever_part_meets_an_error_of_the_system_it_is_never_bad_input() {
        use seal_host::MemoryError;
        let os = std::io::Error::from_raw_os_error;
        // ENOSPC, EDQUOT, EFBIG, EMFILE, ENFILE, EIO, EAGAIN, ENOLCK, ESTALE, ETIMEDOUT, ENOMEM.
        for errno in [28, 122, 27, 24, 23, 5, 11, 37, 116, 110, 12] {
            let file = || FileError { verb: "write", path: "replica".into(), source: os(errno) };
            let of_file = ErrorCode::of_io(&os(errno));
            let memory = MemoryError::Map { bytes: 1 << 30, source: os(errno) };
            for (error, code) in [
                (TreesError::from(file()), of_file),
                (SpaceError::from(file()).into(), of_file),
                (memory.into(), ErrorCode::Unavailable),
            ] {
                let error = Pc2Error::from(error);
                assert_eq!(error.code(), code, "{errno}: {error}");
                assert!(error.code().retryable(), "{errno}: {error}");
            }
        }
    }

    #[test]
    fn a_device_that_computes_wrongly_is_another_fault_than_one_that_fails_or_a_bad_sector() {
        let device = || "gpu A100 (GPU-7)".to_owned();
        let path = || "layer".into();
        for (error, code) in [
            (TreesError::BadDevice { device: device(), what: "row 3".to_owned() }, "bad-device"),
            (TreesError::Device { device: device(), source: "lost".into() }, "unavailable"),
            (TreesError::NotCanonical { path: path(), node: 3 }, "bad-input"),
            (TreesError::SelfCheck { path: path(), node: 3, device: device() }, "self-check"),
        ] {
            let error = TaskError::from(Pc2Error::from(error));
            assert_eq!(error.code.name(), code, "{error}");
            assert_eq!(error.code.retryable(), code != "bad-input");
        }
    }

    #[test]
    fn what_is_wrong_is_remembered_with_its_file_node_and_device() {
        let device = "cpu (ifma)".to_owned();
        let path = "/cache/sc-02-data-layer-3.dat".into();
        let wrong = TreesError::SelfCheck { path, node: 7, device };
        let found = Pc2Error::from(wrong).corruption().expect("a wrong result");
        assert_eq!((found.kind, found.node), (CorruptionKind::Node, Some(7)));
        assert_eq!(found.device.as_deref(), Some("cpu (ifma)"));
        let [wanted, other] = ["aa", "bb"].map(str::to_owned);
        let path = "/cache/sc-02-data-layer-3.dat".into();
        let changed = TreesError::LayerDigest { path, found: other, wanted };
        let found = Pc2Error::from(changed).corruption().expect("a changed layer");
        assert_eq!((found.kind, found.layer), (CorruptionKind::Layer, Some(3)));
        assert_eq!(found.path.as_deref(), Some("/cache/sc-02-data-layer-3.dat"));
        assert!(Pc2Error::from(TreesError::Cancelled).corruption().is_none());
    }
}
