//! What PC1 recorded of the layers, if it was ours.

use std::path::Path;

use seal_host::FileError;
use seal_sdr::Manifest;
use seal_trees::RecordedLayers;
use seal_types::Porep;

/// The manifest in a sector's directory.
#[derive(Debug)]
pub(crate) struct Recorded<'a> {
    pub(crate) cache_dir: &'a Path,
    pub(crate) porep: &'a Porep,
}

impl RecordedLayers for Recorded<'_> {
    fn digests(&self) -> Result<Vec<String>, FileError> {
        recorded_digests(self.cache_dir, self.porep)
    }
}

/// SHA-256 of each layer in hex as the manifest in `cache_dir` has them, or nothing if there is no
/// manifest or it is not of a whole sector like this.
fn recorded_digests(cache_dir: &Path, porep: &Porep) -> Result<Vec<String>, FileError> {
    let Some(manifest) = Manifest::read(cache_dir)? else { return Ok(Vec::new()) };
    let finished = manifest.finished();
    let complete = finished.len() == porep.layers as usize
        && (1..).zip(finished).all(|(layer, record)| {
            record.layer == layer && record.bytes == porep.sector_size.bytes()
        });
    if !complete {
        tracing::warn!(
            dir = %cache_dir.display(),
            "the manifest of PC1 is not of all layers of this sector; they are not compared with it"
        );
        return Ok(Vec::new());
    }
    Ok(finished.iter().map(|record| record.sha256.clone()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use seal_sdr::{LayerRecord, Sealing};
    use seal_types::{ProverId, RegisteredProof, ReplicaId, SectorId};

    #[test]
    fn only_a_manifest_of_all_layers_counts() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let porep = "StackedDrg2KiBV1_1".parse::<RegisteredProof>().expect("a proof").porep();
        let recorded = || recorded_digests(dir.path(), &porep).expect("a file or none");
        assert!(recorded().is_empty());
        let sealing = Sealing {
            porep,
            replica_id: ReplicaId::default(),
            prover_id: ProverId::default(),
            sector_id: SectorId(1),
        };
        let record = |layer, bytes| LayerRecord { layer, bytes, sha256: format!("{layer:064}") };
        for (records, count) in [
            (vec![record(1, 2048), record(2, 2048)], 2),
            (vec![record(1, 2048)], 0),
            (vec![record(1, 2048), record(2, 1024)], 0),
            (vec![record(2, 2048), record(1, 2048)], 0),
        ] {
            let digests: Vec<_> = records.iter().map(|record| record.sha256.clone()).collect();
            Manifest::new(&sealing, records).write(dir.path()).expect("writable");
            assert_eq!(recorded(), digests[..count]);
        }
    }
}
