//! A vector's sector as PC1 leaves it, made from plain labels.

use std::fs;
use std::path::{Path, PathBuf};

use seal_types::{Commitment, Porep, ReplicaId, TREE_D, layer_file};
use sha2::{Digest, Sha256};
use test_support::plain;
use test_support::vector::Vector as Reference;

/// A reference vector.
pub(crate) struct Vector {
    pub(crate) name: String,
    pub(crate) porep: Porep,
    pub(crate) reference: Reference,
}

impl Vector {
    /// Reads `tests/vectors/<name>.json`.
    pub(crate) fn load(name: &str) -> Self {
        let reference = Reference::named(name).expect("a vector");
        let porep = reference.porep().expect("a proof or a shape");
        Self { name: name.to_owned(), porep, reference }
    }

    /// The sector's data, padded.
    pub(crate) fn staged(&self) -> Vec<u8> {
        self.reference.staged_bytes()
    }

    pub(crate) fn comm_d(&self) -> Commitment {
        self.reference.comm_d().expect("a commitment")
    }

    /// SHA-256 of a file of the cache directory.
    pub(crate) fn digest_of(&self, file: &str) -> &str {
        &self.reference.cache_files[file].sha256
    }

    /// A directory as PC1 leaves it: layers and tree D in `cache`, the data in `sealed`.
    pub(crate) fn after_pc1(&self) -> Sector {
        self.after_pc1_in(&std::env::temp_dir())
    }

    /// The same, within `parent`.
    pub(crate) fn after_pc1_in(&self, parent: &Path) -> Sector {
        let dir = tempfile::tempdir_in(parent).expect("a temporary directory");
        let (cache, sealed) = (dir.path().join("cache"), dir.path().join("sealed"));
        let sector = Sector { cache, sealed, _dir: dir };
        fs::create_dir(&sector.cache).expect("writable");
        let staged = self.staged();
        assert_eq!(sha256(&staged), self.reference.staged_sha256, "{}: staged file", self.name);
        fs::write(&sector.sealed, &staged).expect("writable");
        fs::write(sector.cache.join(TREE_D), plain::tree_d(&staged)).expect("writable");
        let replica_id: ReplicaId = self.reference.replica_id().expect("a replica id");
        for (layer, labels) in (1..).zip(plain::label_layers(&self.porep, replica_id)) {
            fs::write(sector.cache.join(layer_file(layer)), labels.as_flattened())
                .expect("writable");
        }
        sector
    }
}

/// A sector's files, removed when dropped.
pub(crate) struct Sector {
    pub(crate) cache: PathBuf,
    pub(crate) sealed: PathBuf,
    _dir: tempfile::TempDir,
}

/// SHA-256 in hex.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
