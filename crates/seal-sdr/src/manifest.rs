//! The manifest: which layers of a directory are finished, and whose they are.
//!
//! It is one hidden JSON file beside the layers and says nothing that is believed without the
//! files: a layer counts as finished when it has the length and the digest that stand here.

use std::path::Path;

use seal_host::{FileError, PartFile, read_own};
use seal_types::{ApiVersion, MANIFEST, Porep, ProverId, ReplicaId, SectorId};
use serde::{Deserialize, Serialize};

/// The form of the file. Files of another version are not read.
const VERSION: u32 = 1;

/// What is sealed: whoever seals the same gets the same layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealing {
    /// Graph, layers and size.
    pub porep: Porep,
    /// The sector's replica id, from which all labels come.
    pub replica_id: ReplicaId,
    /// Who seals.
    pub prover_id: ProverId,
    /// The sector.
    pub sector_id: SectorId,
}

/// A finished layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// Its number, counted from 1.
    pub layer: u32,
    /// Its length in bytes.
    pub bytes: u64,
    /// SHA-256 over its file, in hex, as `sha256sum` prints it.
    pub sha256: String,
}

/// What the manifest of a directory says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    owner: Owner,
    finished: Vec<LayerRecord>,
}

/// The file as it is written.
#[derive(Serialize, Deserialize)]
struct Written {
    version: u32,
    #[serde(flatten)]
    owner: Owner,
    finished: Vec<LayerRecord>,
}

/// [`Sealing`] as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Owner {
    replica_id: String,
    prover_id: String,
    sector_id: u64,
    porep_id: String,
    api_version: String,
    sector_size: u64,
    layers: u32,
}

impl Owner {
    fn of(sealing: &Sealing) -> Self {
        let porep = &sealing.porep;
        let api_version = match porep.api_version {
            ApiVersion::V1_0 => "1.0",
            ApiVersion::V1_1 => "1.1",
            ApiVersion::V1_2 => "1.2",
        };
        Self {
            replica_id: sealing.replica_id.to_string(),
            prover_id: sealing.prover_id.to_string(),
            sector_id: sealing.sector_id.0,
            porep_id: porep.porep_id.to_string(),
            api_version: api_version.to_owned(),
            sector_size: porep.sector_size.bytes(),
            layers: porep.layers,
        }
    }
}

impl Manifest {
    /// A manifest of `sealing` with these layers finished, the first ones in their order.
    pub fn new(sealing: &Sealing, finished: Vec<LayerRecord>) -> Self {
        Self { owner: Owner::of(sealing), finished }
    }

    /// The manifest in `directory`. One that cannot be understood is none: then nothing there
    /// counts as finished. An error if it cannot be read, or if something else than a file is in its
    /// place, such as a link.
    pub fn read(directory: &Path) -> Result<Option<Self>, FileError> {
        let path = directory.join(MANIFEST);
        let text = match read_own(&path) {
            Ok(Some(text)) => text,
            Ok(None) => return Ok(None),
            // What its layers are worth is not known then, and they are the work of hours.
            Err(error) => return Err(error),
        };
        Ok(match serde_json::from_slice(&text) {
            Ok(Written { version: VERSION, owner, finished }) => Some(Self { owner, finished }),
            Ok(Written { version, .. }) => {
                tracing::warn!(path = %path.display(), version, "a manifest of an unknown version");
                None
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a manifest is damaged");
                None
            }
        })
    }

    /// The replica id that its layers are labelled with, in hex.
    pub fn replica_id(&self) -> &str {
        &self.owner.replica_id
    }

    /// Writes it into `directory`; it replaces the one there as a whole or not at all.
    pub fn write(&self, directory: &Path) -> Result<(), FileError> {
        let written = Written {
            version: VERSION,
            owner: self.owner.clone(),
            finished: self.finished.clone(),
        };
        let text = serde_json::to_vec_pretty(&written).expect("numbers and text");
        let mut part = PartFile::create(&directory.join(MANIFEST))?;
        part.write_all(&text)?;
        part.finish()
    }

    /// Whether it is of the same replica: layers, if they are right, can be gone on with.
    pub fn is_of(&self, sealing: &Sealing) -> bool {
        self.owner == Owner::of(sealing)
    }

    /// Whether it is of the same sector, though perhaps under another replica id.
    pub fn is_of_sector(&self, sealing: &Sealing) -> bool {
        let other = Owner::of(sealing);
        self.owner.prover_id == other.prover_id && self.owner.sector_id == other.sector_id
    }

    /// The layers that were finished, the first ones in their order.
    pub fn finished(&self) -> &[LayerRecord] {
        &self.finished
    }

    pub(crate) fn push(&mut self, record: LayerRecord) {
        self.finished.push(record);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use seal_types::RegisteredProof;
    use std::fs;

    pub(crate) fn sealing() -> Sealing {
        Sealing {
            porep: "StackedDrg2KiBV1_1".parse::<RegisteredProof>().expect("registered").porep(),
            replica_id: ReplicaId([7; 32]),
            prover_id: ProverId([8; 32]),
            sector_id: SectorId(9),
        }
    }

    fn record(layer: u32) -> LayerRecord {
        LayerRecord { layer, bytes: 2048, sha256: "00".repeat(32) }
    }

    fn read(dir: &Path) -> Option<Manifest> {
        Manifest::read(dir).expect("a file or none")
    }

    #[test]
    fn what_is_no_file_in_its_place_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (path, elsewhere) = (dir.path().join(MANIFEST), dir.path().join("elsewhere"));
        Manifest::new(&sealing(), Vec::new()).write(dir.path()).expect("writable");
        fs::rename(&path, &elsewhere).expect("ours");
        std::os::unix::fs::symlink(&elsewhere, &path).expect("writable");
        let error = Manifest::read(dir.path()).expect_err("a link");
        assert!(error.to_string().ends_with(MANIFEST), "{error}");
        assert!(error.source.to_string().starts_with("it is a symbolic link"), "{}", error.source);
        fs::remove_file(&path).expect("ours");
        let fifo = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(fifo.is_ok_and(|status| status.success()), "every Linux has mkfifo");
        let error = Manifest::read(dir.path()).expect_err("a FIFO");
        assert!(error.source.to_string().starts_with("it is a FIFO"), "{}", error.source);
    }

    #[test]
    fn is_read_as_it_was_written() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        assert_eq!(read(dir.path()), None);
        let mut manifest = Manifest::new(&sealing(), vec![record(1)]);
        manifest.write(dir.path()).expect("writable");
        assert_eq!(read(dir.path()), Some(manifest.clone()));
        manifest.push(record(2));
        manifest.write(dir.path()).expect("writable");
        assert_eq!(read(dir.path()), Some(manifest));
        assert_eq!(seal_host::read_dir_names(dir.path()).expect("readable"), [MANIFEST]);
    }

    #[test]
    fn what_cannot_be_understood_is_no_manifest() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        Manifest::new(&sealing(), vec![record(1)]).write(dir.path()).expect("writable");
        let path = dir.path().join(MANIFEST);
        let good = fs::read_to_string(&path).expect("readable");
        for bad in [
            "",
            "{}",
            "null",
            "[1",
            &good[..good.len() / 2],
            &good.replace("\"version\": 1", "\"version\": 2"),
            &good.replace("\"layer\": 1", "\"layer\": -1"),
        ] {
            assert_ne!(bad, good);
            fs::write(&path, bad).expect("writable");
            assert_eq!(read(dir.path()), None, "{bad}");
        }
        fs::write(&path, good.replace("\"version\"", "\"added\": 1, \"version\""))
            .expect("writable");
        assert!(read(dir.path()).is_some(), "more fields do not matter");
        fs::write(&path, [0xff, 0xfe]).expect("writable");
        assert_eq!(read(dir.path()), None);
        fs::remove_file(&path).expect("writable");
        fs::create_dir(&path).expect("writable");
        let error = Manifest::read(dir.path()).expect_err("a directory");
        assert!(error.source.to_string().starts_with("it is a directory"), "{}", error.source);
    }

    #[test]
    fn tells_whose_layers_they_are() {
        let manifest = Manifest::new(&sealing(), Vec::new());
        assert!(manifest.is_of(&sealing()) && manifest.is_of_sector(&sealing()));
        let mut other = sealing();
        other.replica_id = ReplicaId([6; 32]);
        assert!(!manifest.is_of(&other) && manifest.is_of_sector(&other));
        let mut other = sealing();
        other.porep.layers = 11;
        assert!(!manifest.is_of(&other) && manifest.is_of_sector(&other));
        let mut other = sealing();
        other.porep.api_version = ApiVersion::V1_2;
        assert!(!manifest.is_of(&other));
        let mut other = sealing();
        other.sector_id = SectorId(10);
        assert!(!manifest.is_of(&other) && !manifest.is_of_sector(&other));
        let mut other = sealing();
        other.prover_id = ProverId([1; 32]);
        assert!(!manifest.is_of_sector(&other));
    }
}
