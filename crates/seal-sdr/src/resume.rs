//! Going on with a sealing that was interrupted: which layers are there and right.

use std::io;
use std::path::{Path, PathBuf};

use seal_host::{FileError, read_through};
use seal_types::{NODE_SIZE, layer_file};
use sha2::{Digest, Sha256};

use crate::{LayerOf, LayerRecord, Manifest, Part, SdrError, Sealing, Watch};

/// What an interrupted sealing has left.
#[derive(Clone, Debug, Default)]
pub struct FoundLayers {
    /// The layers that are there and right, from the first one on.
    pub finished: Vec<LayerRecord>,
    /// The one after them, if all of its file is there with another content than the manifest says.
    pub changed: Option<ChangedLayer>,
}

/// A layer file whose content is not what it was when its layer was finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedLayer {
    /// The layer.
    pub layer: u32,
    /// Its file.
    pub path: PathBuf,
    /// Digest of the manifest.
    pub wanted: String,
    /// Digest of what was read.
    pub found: String,
}

/// The layers of `sealing` that are finished in `directory`, from the first one up to the one
/// before the first that is missing or wrong. Every file is read whole and compared with the
/// digest that the manifest has of it.
pub fn finished_layers(
    directory: &Path,
    sealing: &Sealing,
    watch: Watch<'_>,
) -> Result<Vec<LayerRecord>, SdrError> {
    Ok(find_layers(directory, sealing, watch)?.finished)
}

/// The same, and which layer has changed since it was finished: that one tells of a fault of the
/// machine, or of somebody who writes to it.
pub fn find_layers(
    directory: &Path,
    sealing: &Sealing,
    watch: Watch<'_>,
) -> Result<FoundLayers, SdrError> {
    let manifest = Manifest::read(directory)?;
    let Some(manifest) = manifest.filter(|manifest| manifest.is_of(sealing)) else {
        return Ok(FoundLayers::default());
    };
    let (mut right, mut changed) = (Vec::new(), None);
    for (layer, record) in (1..=sealing.porep.layers).zip(manifest.finished()) {
        if let Err(wrong) = check(directory, sealing, layer, record, watch)? {
            let path = layer_path(directory, layer);
            let reason = wrong.to_string();
            if let Wrong::Content(found) = wrong {
                let (path, wanted) = (path.clone(), record.sha256.clone());
                changed = Some(ChangedLayer { layer, path, wanted, found });
            }
            tracing::warn!(path = %path.display(), reason, "this layer and those after it are labelled anew");
            break;
        }
        right.push(record.clone());
    }
    if !right.is_empty() {
        let (finished, layers) = (right.len(), sealing.porep.layers);
        tracing::info!(path = %directory.display(), finished, layers, "going on after finished layers");
    }
    Ok(FoundLayers { finished: right, changed })
}

/// What is wrong with a layer.
#[derive(Debug, thiserror::Error)]
enum Wrong {
    /// It is not there, not whole, or cannot be read.
    #[error("{0}")]
    Absent(String),
    /// It has this digest.
    #[error("its SHA-256 is {0} and not that of the manifest")]
    Content(String),
}

/// Checks one layer. What is wrong with it is no error of this call but a reason to label it anew.
fn check(
    directory: &Path,
    sealing: &Sealing,
    layer: u32,
    record: &LayerRecord,
    watch: Watch<'_>,
) -> Result<Result<(), Wrong>, SdrError> {
    let absent = |reason: String| Ok(Err(Wrong::Absent(reason)));
    let wanted = sealing.porep.sector_size.bytes();
    if record.layer != layer || record.bytes != wanted {
        return absent("the manifest has it out of order or with a wrong length".to_owned());
    }
    let path = layer_path(directory, layer);
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return absent(error.to_string()),
        Err(error) => return Err(FileError::of("examine", &path)(error).into()),
        Ok(meta) if !meta.is_file() => return absent("it is no file".to_owned()),
        Ok(meta) if meta.len() != wanted => {
            return absent(format!("it has {} bytes and not {wanted}", meta.len()));
        }
        Ok(_) => {}
    }
    let mut digest = Sha256::new();
    let part = Part::CheckLayer(LayerOf { layer, layers: sealing.porep.layers });
    match read_layer(&path, part, wanted, watch, |block| digest.update(block)) {
        Ok(()) => {
            let found = hex::encode(digest.finalize());
            Ok(if found == record.sha256 { Ok(()) } else { Err(Wrong::Content(found)) })
        }
        // A disk that cannot give it back may still take a new one. What fails for another reason may
        // be read in a moment, and it is the work of hours.
        Err(SdrError::File(error)) if error.is_of_disk() => absent(error.source.to_string()),
        Err(error) => Err(error),
    }
}

/// Reads a finished layer into `labels`, which are exactly as many: the previous layer of the one
/// to be labelled next, of `layers` in all. What has come into memory is compared with the digest of the record.
pub fn load_layer(
    directory: &Path,
    record: &LayerRecord,
    layers: u32,
    labels: &mut [[u8; NODE_SIZE]],
    watch: Watch<'_>,
) -> Result<(), SdrError> {
    let path = layer_path(directory, record.layer);
    let mut left = labels.as_flattened_mut();
    let mut digest = Sha256::new();
    let mut surplus = 0;
    let part = Part::LoadLayer(LayerOf { layer: record.layer, layers });
    read_layer(&path, part, record.bytes, watch, |block| {
        let count = block.len().min(left.len());
        let (into, rest) = std::mem::take(&mut left).split_at_mut(count);
        into.copy_from_slice(&block[..count]);
        digest.update(&*into);
        left = rest;
        surplus += block.len() - count;
    })?;
    let found = hex::encode(digest.finalize());
    if left.is_empty() && surplus == 0 && found == record.sha256 {
        return Ok(());
    }
    Err(SdrError::ChangedLayer { path, wanted: record.sha256.clone(), found })
}

/// Reads a layer file of `length` bytes; `each` gets block after block.
fn read_layer(
    path: &Path,
    part: Part,
    length: u64,
    watch: Watch<'_>,
    mut each: impl FnMut(&[u8]),
) -> Result<(), SdrError> {
    let (mut done, total) = (0, length / NODE_SIZE as u64);
    read_through(path, |block| {
        if (watch.cancelled)() {
            return Err(SdrError::Cancelled);
        }
        each(block);
        done += (block.len() / NODE_SIZE) as u64;
        (watch.progress)(part, done.min(total), total);
        Ok(())
    })
}

fn layer_path(directory: &Path, layer: u32) -> PathBuf {
    directory.join(layer_file(layer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LayerStore;
    use crate::manifest::tests::sealing;
    use std::fs;
    use std::sync::atomic::{AtomicU64, Ordering};

    const QUIET: Watch<'static> = Watch { progress: &|_, _, _| {}, cancelled: &|| false };

    /// 2 KiB layers in a directory, as many as asked for.
    fn stored(layers: u32) -> (tempfile::TempDir, Sealing) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut sealing = sealing();
        sealing.porep.layers = 11;
        let mut store = LayerStore::begin(dir.path(), &sealing, Vec::new()).expect("writable");
        for layer in 1..=layers {
            let labels = [[u8::try_from(layer).expect("small"); NODE_SIZE]; 64];
            store.store(&labels[..], QUIET, &|| Ok(()), || Ok(())).expect("writable");
        }
        (dir, sealing)
    }

    fn finished(dir: &Path, sealing: &Sealing) -> usize {
        finished_layers(dir, sealing, QUIET).expect("readable").len()
    }

    #[test]
    fn goes_on_after_the_last_good_layer() {
        for layers in [0, 1, 5, 11] {
            let (dir, sealing) = stored(layers);
            let records = finished_layers(dir.path(), &sealing, QUIET).expect("readable");
            assert_eq!(records.len(), layers as usize);
            let store = LayerStore::begin(dir.path(), &sealing, records).expect("writable");
            assert_eq!(store.next_layer(), (layers < 11).then_some(layers + 1));
        }
    }

    #[test]
    fn stops_at_the_first_layer_that_is_missing_or_wrong() {
        type Damage = (&'static str, fn(&Path));
        let damages: [Damage; 6] = [
            ("removed", |path| fs::remove_file(path).expect("writable")),
            ("empty", |path| fs::write(path, "").expect("writable")),
            ("cut", |path| {
                let file = fs::File::options().write(true).open(path).expect("writable");
                file.set_len(2016).expect("writable");
            }),
            ("lengthened", |path| {
                let mut bytes = fs::read(path).expect("readable");
                bytes.extend([0; 32]);
                fs::write(path, bytes).expect("writable");
            }),
            ("one bit flipped", |path| {
                let mut bytes = fs::read(path).expect("readable");
                bytes[1234] ^= 0x10;
                fs::write(path, bytes).expect("writable");
            }),
            ("a link", |path| {
                let other = path.with_file_name("moved");
                fs::rename(path, &other).expect("writable");
                std::os::unix::fs::symlink(&other, path).expect("writable");
            }),
        ];
        for (what, damage) in damages {
            for layer in [1, 3, 5] {
                let (dir, sealing) = stored(5);
                assert_eq!(finished(dir.path(), &sealing), 5);
                damage(&layer_path(dir.path(), layer));
                let found = find_layers(dir.path(), &sealing, QUIET).expect("readable");
                assert_eq!(found.finished.len(), layer as usize - 1, "{what}");
                // Only what is whole and different tells of a fault of the machine.
                let changed = found.changed.map(|changed| changed.layer);
                assert_eq!(changed, (what == "one bit flipped").then_some(layer), "{what}");
            }
        }
    }

    #[test]
    fn layers_of_another_sealing_do_not_count() {
        let (dir, sealing) = stored(3);
        let mut other = sealing;
        other.replica_id.0[0] ^= 1;
        assert_eq!(finished(dir.path(), &other), 0);
        let mut other = sealing;
        other.porep.porep_id.0[0] ^= 1;
        assert_eq!(finished(dir.path(), &other), 0);
        fs::remove_file(dir.path().join(seal_types::MANIFEST)).expect("there");
        assert_eq!(finished(dir.path(), &sealing), 0, "without a manifest nothing is trusted");
    }

    #[test]
    fn a_manifest_that_cannot_be_read_for_now_is_an_error_and_not_nothing() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let (_dir, sealing) = stored(1);
        // The kernel refuses to look there, which says nothing of what is there.
        let error = find_layers(file.path(), &sealing, QUIET).map(|found| found.finished);
        assert!(matches!(error, Err(SdrError::File(_))), "{error:?}");
        // EIO; EMFILE, ENOMEM and ESTALE.
        for (code, is_of_disk) in [(5, true), (24, false), (12, false), (116, false)] {
            let error = FileError::of("read", file.path())(io::Error::from_raw_os_error(code));
            assert_eq!(error.is_of_disk(), is_of_disk, "{code}");
        }
    }

    #[test]
    fn a_manifest_that_counts_wrongly_is_not_believed() {
        let (dir, sealing) = stored(3);
        let mut records = finished_layers(dir.path(), &sealing, QUIET).expect("readable");
        records.swap(1, 2);
        Manifest::new(&sealing, records.clone()).write(dir.path()).expect("writable");
        assert_eq!(finished(dir.path(), &sealing), 1);
        records[0].bytes = 0;
        Manifest::new(&sealing, records).write(dir.path()).expect("writable");
        assert_eq!(finished(dir.path(), &sealing), 0);
    }

    #[test]
    fn a_finished_layer_is_loaded_as_it_was_stored() {
        let (dir, sealing) = stored(2);
        let records = finished_layers(dir.path(), &sealing, QUIET).expect("readable");
        let mut labels = [[0; NODE_SIZE]; 64];
        load_layer(dir.path(), &records[1], 2, &mut labels, QUIET).expect("readable");
        assert_eq!(labels, [[2; NODE_SIZE]; 64]);

        // Damaged after it was checked.
        let path = layer_path(dir.path(), 2);
        let good = fs::read(&path).expect("readable");
        let mut flipped = good.clone();
        flipped[7] ^= 1;
        for bad in [&flipped[..], &good[..2016], &[&good[..], &[0; 32]].concat()] {
            fs::write(&path, bad).expect("writable");
            let error = load_layer(dir.path(), &records[1], 2, &mut labels, QUIET).unwrap_err();
            assert!(matches!(error, SdrError::ChangedLayer { .. }), "{error}");
            assert!(error.to_string().contains("sc-02-data-layer-2.dat"), "{error}");
        }
    }

    #[test]
    fn the_check_can_be_cancelled_and_shows_its_progress() {
        let (dir, sealing) = stored(2);
        let cancelled = Watch { cancelled: &|| true, ..QUIET };
        let error = finished_layers(dir.path(), &sealing, cancelled).unwrap_err();
        assert!(matches!(error, SdrError::Cancelled), "{error}");
        let done = AtomicU64::new(0);
        let progress = |part, now, total| {
            let of = matches!(part, Part::CheckLayer(LayerOf { layer: 1..=2, layers: 11 }));
            assert!(of && total == 64, "{part} {total}");
            done.fetch_add(now, Ordering::Relaxed);
        };
        let watch = Watch { progress: &progress, ..QUIET };
        finished_layers(dir.path(), &sealing, watch).expect("readable");
        assert_eq!(done.into_inner(), 2 * 64);
    }
}
