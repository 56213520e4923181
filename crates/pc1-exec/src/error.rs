//! What can go wrong in PC1, and as which code it is answered.

use std::path::PathBuf;

use seal_host::{AdmissionError, BindError, FileError, MapError, NoUnits, SpaceError};
use seal_sdr::SdrError;
use seal_trees::{PieceError, TreesError};
use seal_types::Commitment;
use seal_wire::{ErrorCode, TaskError};

/// Why PC1 of a sector was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Pc1Error {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file system is too full.
    #[error(transparent)]
    Space(#[from] SpaceError),
    /// Labels or the parents cache could not be made.
    #[error(transparent)]
    Labels(#[from] SdrError),
    /// Tree D could not be made.
    #[error(transparent)]
    Trees(#[from] TreesError),
    /// The cpus that this process may use are not known.
    #[error("cannot find out which cpus may be used")]
    Cpus(#[source] std::io::Error),
    /// A thread cannot be put where it belongs.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// No core unit can be made of the cpus.
    #[error(transparent)]
    Units(#[from] NoUnits),
    /// Memory for the layers is not there.
    #[error(transparent)]
    Memory(#[from] AdmissionError),
    /// The pieces make no sector.
    #[error("piece_infos: {0}")]
    Pieces(#[from] PieceError),
    /// A path of the request is not what it has to be.
    #[error("{key} {} is not {wanted}", path.display())]
    Path {
        /// The request's field.
        key: &'static str,
        /// Its value.
        path: PathBuf,
        /// What it has to be.
        wanted: &'static str,
    },
    /// Another process seals in the same directory.
    #[error(
        "{key} {} is in use by another sealing process; wait for it or use another directory",
        path.display()
    )]
    Busy {
        /// What names the directory.
        key: &'static str,
        /// The directory.
        path: PathBuf,
    },
    /// Layers could not be moved from one to the other.
    #[error(
        "SEAL_WORK_DIR {} and cache_path {} are not on one file system, so that finished layers \
         could not be moved; use a work directory on that of the cache directory, or none",
        work_dir.display(), cache_path.display()
    )]
    OtherFileSystem {
        /// The work directory.
        work_dir: PathBuf,
        /// The cache directory.
        cache_path: PathBuf,
    },
    /// A sector without data, but pieces that have some.
    #[error(
        "{} holds no data at all, so comm_d is {found}, but the piece_infos make {wanted}; the \
         staged file or the piece_infos belong to another sector",
        path.display()
    )]
    NoData {
        /// The staged file.
        path: PathBuf,
        /// What the pieces make.
        wanted: Commitment,
        /// The commitment of a sector of zeros.
        found: Commitment,
    },
    /// The task was cancelled.
    #[error("stopped before its end")]
    Cancelled,
}

impl Pc1Error {
    /// As which code the error is answered.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::File(error)
            | Self::Labels(
                SdrError::File(error) | SdrError::ParentsDirectory { source: error, .. },
            ) => code_of_file(error),
            Self::Space(error) | Self::Labels(SdrError::Space(error)) => match error {
                SpaceError::TooLittle { .. } => ErrorCode::NoSpace,
                SpaceError::Unknown(error) => code_of_file(error),
            },
            Self::Labels(
                SdrError::WrongParents { .. }
                | SdrError::WrongLabel { .. }
                | SdrError::ChangedLayer { .. }
                | SdrError::BadParent { .. }
                | SdrError::DistrustedParents { .. },
            ) => ErrorCode::SelfCheck,
            Self::Labels(SdrError::ParentsMap(error) | SdrError::LabelMemory(error)) => {
                code_of_map(error)
            }
            Self::Labels(SdrError::Unit { .. }) => ErrorCode::Internal,
            Self::Labels(SdrError::Cancelled) | Self::Cancelled => ErrorCode::Cancelled,
            Self::Labels(_)
            | Self::Busy { .. }
            | Self::Cpus(_)
            | Self::Bind(_)
            | Self::Units(_)
            | Self::Memory(_) => ErrorCode::Unavailable,
            Self::Trees(error) => code_of_trees(error),
            Self::Pieces(_)
            | Self::Path { .. }
            | Self::OtherFileSystem { .. }
            | Self::NoData { .. } => ErrorCode::BadInput,
        }
    }
}

fn code_of_file(error: &FileError) -> ErrorCode {
    if error.is_no_space() { ErrorCode::NoSpace } else { ErrorCode::Io }
}

fn code_of_map(error: &MapError) -> ErrorCode {
    match error {
        MapError::Memory { .. } => ErrorCode::SelfCheck,
        MapError::File(error) => code_of_file(error),
        _ => ErrorCode::Io,
    }
}

fn code_of_trees(error: &TreesError) -> ErrorCode {
    match error {
        TreesError::File(error) | TreesError::Space(SpaceError::Unknown(error)) => {
            code_of_file(error)
        }
        TreesError::Space(SpaceError::TooLittle { .. }) => ErrorCode::NoSpace,
        TreesError::Cancelled => ErrorCode::Cancelled,
        _ => ErrorCode::BadInput,
    }
}

impl From<Pc1Error> for TaskError {
    fn from(error: Pc1Error) -> Self {
        match error.code() {
            // Whichever part noticed it, there is one thing to be said.
            code @ ErrorCode::Cancelled => Self::new(
                code,
                "PC1 was told to stop before its end; send the request again to go on after the \
                 finished layers",
            ),
            code => Self::from_error(code, &error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_part_was_stopped_one_text_says_so_and_what_to_do() {
        for error in [
            Pc1Error::Cancelled,
            Pc1Error::Labels(SdrError::Cancelled),
            Pc1Error::Trees(TreesError::Cancelled),
        ] {
            let text = TaskError::from(error).to_string();
            assert_eq!(text.matches("cancelled").count(), 1, "{text}");
            assert!(text.starts_with("[cancelled] PC1 was told to stop"), "{text}");
            assert!(text.contains("send the request again"), "{text}");
        }
    }
}
