//! What can go wrong in PC1, and as which code it is answered.

use std::path::{Path, PathBuf};

use seal_host::{
    AdmissionError, BindError, FileError, MapError, NoUnits, SameFile, SpaceError, TakenForRemains,
};
use seal_sdr::SdrError;
use seal_trees::{PieceError, TreesError, code_of_file};
use seal_types::{Commitment, CpuSet, ReplicaId};
use seal_wire::{Corruption, CorruptionKind, ErrorCode, TaskError};

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
    /// A thread could not be started.
    #[error(
        "cannot start a thread; raise the limit of processes (ulimit -u, TasksMax=, pids.max) or of \
         memory (ulimit -v)"
    )]
    NoThread(#[source] std::io::Error),
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
    #[error("{key} {} is not {wanted}: it is {found}", path.display())]
    Path {
        /// The request's field.
        key: &'static str,
        /// Its value.
        path: PathBuf,
        /// What it has to be.
        wanted: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// Paths of the request lead to one file.
    #[error(transparent)]
    SameFile(#[from] SameFile),
    /// A path of the request would be removed as a file of an earlier sealing.
    #[error(transparent)]
    TakenForRemains(#[from] TakenForRemains),
    /// The directory has a sector that is finished, and not the one of the request.
    #[error(
        "cache_path {} holds a finished sector (its p_aux is complete) under {finished}, and \
         this request is of the replica id {wanted}; nothing was removed: use another cache_path, \
         or empty this one if that sector is needed no more; with {} = 1 PC1 does that itself",
        path.display(), crate::REPLACE_FINISHED
    )]
    Finished {
        /// The cache directory.
        path: PathBuf,
        /// What is known of the finished sector's replica id.
        finished: String,
        /// The replica id of the request.
        wanted: ReplicaId,
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
    /// No core is left that may label.
    #[error(
        "nothing is labelled on cpus {cpus} any more, because labels of each were wrong at least \
         twice ({}); nothing is known against the sector. Test memory and processor as \
         docs/corruption.md says, and remove that file when they are good", path.display()
    )]
    NoSoundCore {
        /// The cpus.
        cpus: CpuSet,
        /// Where the wrong labels are written down.
        path: PathBuf,
    },
    /// The task was cancelled.
    #[error("stopped before its end")]
    Cancelled,
}

impl Pc1Error {
    /// What is wrong with a path that is known to people as `key`.
    pub(crate) fn of_path(key: &'static str, wanted: &'static str, error: FileError) -> Self {
        match error.wrong_kind() {
            Some(wrong) => Self::Path { key, wanted, found: wrong.found, path: error.path },
            None => error.into(),
        }
    }

    /// As which code the error is answered.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::File(error) | Self::Labels(SdrError::File(error)) => code_of_file(error),
            // The machine's, whatever lies there: no sector is to blame.
            Self::Labels(SdrError::ParentsFile { source, .. }) if source.wrong_kind().is_some() => {
                ErrorCode::Unavailable
            }
            Self::Labels(
                SdrError::ParentsDirectory { source: error, .. }
                | SdrError::ParentsFile { source: error, .. },
            ) => ErrorCode::of_io(&error.source),
            // As little: it is this machine's setting.
            Self::Path { key, .. } if *key == crate::work_dir::KEY => ErrorCode::Unavailable,
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
            Self::Labels(
                SdrError::Admission(_) | SdrError::Memory { .. } | SdrError::Core { .. },
            )
            | Self::Busy { .. }
            | Self::Cpus(_)
            | Self::NoThread(_)
            | Self::Bind(_)
            | Self::Units(_)
            | Self::Memory(_) => ErrorCode::Unavailable,
            Self::NoSoundCore { .. } => ErrorCode::BadDevice,
            Self::Trees(error) => error.code(),
            Self::Pieces(_)
            | Self::Path { .. }
            | Self::SameFile(_)
            | Self::TakenForRemains(_)
            | Self::Finished { .. }
            | Self::OtherFileSystem { .. }
            | Self::NoData { .. } => ErrorCode::BadInput,
        }
    }
}

fn code_of_map(error: &MapError) -> ErrorCode {
    match error {
        MapError::Memory { .. } => ErrorCode::SelfCheck,
        MapError::File(error) => code_of_file(error),
        _ => ErrorCode::Io,
    }
}

/// What is to be remembered of a failure to label, if it says that something computed or stored is
/// wrong. One that only follows from what another sector has found says nothing new.
pub(crate) fn corruption(error: &SdrError) -> Option<Corruption> {
    let of = |kind| Corruption::new(kind, error);
    let of_file =
        |kind, path: &Path| Corruption { path: Some(path.display().to_string()), ..of(kind) };
    match error {
        SdrError::WrongLabel { layer, node, core } => Some(Corruption {
            layer: Some(*layer),
            node: Some(*node),
            cpu: *core,
            ..of(CorruptionKind::Label)
        }),
        SdrError::ChangedLayer { path, .. } => Some(of_file(CorruptionKind::Layer, path)),
        SdrError::WrongParents { path, .. } => Some(of_file(CorruptionKind::Parents, path)),
        SdrError::BadParent { path, node, .. } => {
            Some(Corruption { node: Some(*node), ..of_file(CorruptionKind::Parents, path) })
        }
        SdrError::ParentsMap(MapError::Memory { path })
        | SdrError::LabelMemory(MapError::Memory { path }) => {
            Some(of_file(CorruptionKind::Memory, path))
        }
        _ => None,
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

    /// "Bad input" tells the parent never to try again.
    #[test]
    fn what_is_wrong_is_remembered_with_all_that_is_known() {
        let label = SdrError::WrongLabel { layer: 3, node: 77, core: Some(4) };
        let found = corruption(&label).expect("a wrong label");
        assert_eq!((found.kind, found.layer), (CorruptionKind::Label, Some(3)));
        assert_eq!((found.node, found.cpu), (Some(77), Some(4)));
        let path = || PathBuf::from("/cache/sc-02-data-layer-3.dat");
        let [wanted, other] = ["aa", "bb"].map(str::to_owned);
        let changed = SdrError::ChangedLayer { path: path(), wanted, found: other };
        let found = corruption(&changed).expect("a changed layer");
        assert_eq!(found.kind, CorruptionKind::Layer);
        assert_eq!(found.path, Some(path().display().to_string()));
        let broken = SdrError::LabelMemory(MapError::Memory { path: path() });
        assert_eq!(corruption(&broken).expect("memory").kind, CorruptionKind::Memory);
        // What others did, or found, is no fault of the machine.
        let cut = MapError::Cut { path: path(), mapped: 2, now: 1 };
        for error in [
            SdrError::Cancelled,
            SdrError::LabelMemory(cut),
            SdrError::DistrustedParents { path: path() },
        ] {
            assert!(corruption(&error).is_none(), "{error}");
        }
    }

    #[test]
    fn whatever_part_meets_an_error_of_the_system_it_is_never_bad_input() {
        use seal_host::MemoryError;
        let os = std::io::Error::from_raw_os_error;
        // ENOSPC, EDQUOT, EFBIG, EMFILE, ENFILE, EIO, EAGAIN, ENOLCK, ESTALE, ETIMEDOUT, ENOMEM.
        for errno in [28, 122, 27, 24, 23, 5, 11, 37, 116, 110, 12] {
            let file = || FileError { verb: "write", path: "tree-d".into(), source: os(errno) };
            let memory = || MemoryError::Map { bytes: 1 << 30, source: os(errno) };
            let of_file = ErrorCode::of_io(&os(errno));
            for (error, code) in [
                (Pc1Error::from(file()), of_file),
                (SpaceError::from(file()).into(), of_file),
                (SdrError::from(file()).into(), of_file),
                (SdrError::from(SpaceError::from(file())).into(), of_file),
                (TreesError::from(file()).into(), of_file),
                (TreesError::from(SpaceError::from(file())).into(), of_file),
                (TreesError::from(memory()).into(), ErrorCode::Unavailable),
                (AdmissionError::from(memory()).into(), ErrorCode::Unavailable),
                (SdrError::from(AdmissionError::from(memory())).into(), ErrorCode::Unavailable),
                (Pc1Error::Cpus(os(errno)), ErrorCode::Unavailable),
            ] {
                assert_eq!(error.code(), code, "{errno}: {error}");
                assert!(error.code().retryable(), "{errno}: {error}");
            }
        }
    }

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
