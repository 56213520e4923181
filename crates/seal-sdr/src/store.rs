//! Storing layers while they are computed.
//!
//! Labels go to the disk as they are published, past the page cache, and are hashed on the way,
//! so that little is left to do when a layer is complete. A finished layer is on disk under its
//! name before the manifest says so.
//!
//! The digest is SHA-256 because people can check it with `sha256sum`. It costs half a
//! compression for each label, where the label itself takes twenty.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use seal_host::{DirectFile, LayerReader, require_free};
use seal_types::{NODE_SIZE, layer_file};
use sha2::{Digest, Sha256};

use crate::{LayerOf, LayerRecord, Manifest, Part, SdrError, Sealing, Watch};

/// Labels written at a time: 4 MiB.
const BLOCK_NODES: usize = 1 << 17;
/// The shortest and the longest time between two looks at a layer that is being computed.
const LOOK_AFTER: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(32)];

/// The labels of a layer, as far as they are there.
pub trait LabelSource {
    /// The labels from node 0 on that are complete. They do not change any more.
    fn published(&self) -> &[[u8; NODE_SIZE]];
    /// How many labels the layer will have.
    fn nodes(&self) -> usize;
}

impl LabelSource for LayerReader {
    fn published(&self) -> &[[u8; NODE_SIZE]] {
        Self::published(self)
    }

    fn nodes(&self) -> usize {
        Self::nodes(self)
    }
}

/// A layer that is complete.
impl LabelSource for [[u8; NODE_SIZE]] {
    fn published(&self) -> &[[u8; NODE_SIZE]] {
        self
    }

    fn nodes(&self) -> usize {
        self.len()
    }
}

/// The directory where the layers of one sealing are kept, and its manifest.
#[derive(Debug)]
pub struct LayerStore {
    directory: PathBuf,
    manifest: Manifest,
    layers: u32,
}

impl LayerStore {
    /// Begins or goes on with `sealing` in `directory`, where the layers `finished` are there and
    /// right ([`crate::finished_layers`] finds them). Others must be gone.
    pub fn begin(
        directory: &Path,
        sealing: &Sealing,
        finished: Vec<LayerRecord>,
    ) -> Result<Self, SdrError> {
        let missing = u64::from(sealing.porep.layers).saturating_sub(finished.len() as u64);
        require_free(directory, missing * sealing.porep.sector_size.bytes())?;
        let manifest = Manifest::new(sealing, finished);
        manifest.write(directory)?;
        Ok(Self { directory: directory.to_path_buf(), manifest, layers: sealing.porep.layers })
    }

    /// Where the layers are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The layers that are finished, the first ones in their order.
    pub fn finished(&self) -> &[LayerRecord] {
        self.manifest.finished()
    }

    /// The next layer to label, if one is left.
    pub fn next_layer(&self) -> Option<u32> {
        let finished = u32::try_from(self.finished().len()).ok()?;
        (finished < self.layers).then_some(finished + 1)
    }

    /// Stores [`LayerStore::next_layer`] while it is computed: returns when all of it is on disk
    /// and in the manifest.
    ///
    /// `alive` is asked often, and ends the storing with its error when the labelling has failed;
    /// for the last time when all labels are written, before the layer gets its name.
    /// `complete` is called once, as soon as the last label is published and before the layer gets
    /// its name: the place to check the labels and to start what has to wait for them.
    ///
    /// The calling thread sleeps while there is nothing to do; unparking it makes it look.
    ///
    /// # Panics
    /// When all layers are finished.
    pub fn store(
        &mut self,
        labels: &(impl LabelSource + ?Sized),
        watch: Watch<'_>,
        alive: &dyn Fn() -> Result<(), SdrError>,
        complete: impl FnOnce() -> Result<(), SdrError>,
    ) -> Result<(), SdrError> {
        let layer = self.next_layer().expect("there is a layer left to store");
        let of = LayerOf { layer, layers: self.layers };
        let path = self.directory.join(layer_file(layer));
        let mut file = DirectFile::create(&path)?;
        let mut digest = Sha256::new();
        let (nodes, began) = (labels.nodes(), Instant::now());
        let (mut stored, mut complete) = (0, Some(complete));
        while stored < nodes || complete.is_some() {
            // Asked before the look: what ended well has published everything.
            alive()?;
            if (watch.cancelled)() {
                return Err(SdrError::Cancelled);
            }
            let published = labels.published();
            let all = published.len() == nodes;
            if all && let Some(complete) = complete.take() {
                (watch.progress)(Part::Layer(of), nodes as u64, nodes as u64);
                complete()?;
                continue;
            }
            let fresh = &published[stored..];
            if all || fresh.len() >= BLOCK_NODES {
                let bytes = fresh[..fresh.len().min(BLOCK_NODES)].as_flattened();
                digest.update(bytes);
                file.write_all(bytes)?;
                stored += bytes.len() / NODE_SIZE;
            } else {
                std::thread::park_timeout(look_after(published.len(), nodes, began.elapsed()));
            }
            let (part, done) = if all {
                (Part::StoreLayer(of), stored)
            } else {
                (Part::Layer(of), published.len())
            };
            (watch.progress)(part, done as u64, nodes as u64);
        }
        // What was written is believed only if nothing has failed on the way to the last label.
        alive()?;
        file.finish()?;
        let bytes = (nodes * NODE_SIZE) as u64;
        self.manifest.push(LayerRecord { layer, bytes, sha256: hex::encode(digest.finalize()) });
        Ok(self.manifest.write(&self.directory)?)
    }
}

/// How long to sleep when `published` of `nodes` labels took `elapsed`: not beyond the end.
fn look_after(published: usize, nodes: usize, elapsed: Duration) -> Duration {
    let [shortest, longest] = LOOK_AFTER;
    if published == 0 {
        return shortest;
    }
    let left = elapsed.as_secs_f64() / published as f64 * (nodes - published) as f64;
    Duration::try_from_secs_f64(left).unwrap_or(longest).clamp(shortest, longest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finished_layers;
    use crate::manifest::tests::sealing;
    use seal_host::{LabelMemory, Region, part_target, read_dir_names};
    use seal_types::{MANIFEST, SectorSize};
    use std::cell::Cell;
    use std::sync::atomic::{AtomicU64, Ordering};

    const QUIET: Watch<'static> = Watch { progress: &|_, _, _| {}, cancelled: &|| false };

    fn sealing_of(nodes: usize) -> Sealing {
        let mut sealing = sealing();
        sealing.porep.sector_size = SectorSize::new((nodes * NODE_SIZE) as u64).expect("a size");
        sealing
    }

    fn label(node: usize) -> [u8; NODE_SIZE] {
        Sha256::digest(node.to_le_bytes()).into()
    }

    fn labels(nodes: usize) -> Vec<[u8; NODE_SIZE]> {
        (0..nodes).map(label).collect()
    }

    fn sha256(bytes: &[u8]) -> String {
        hex::encode(Sha256::digest(bytes))
    }

    #[test]
    fn a_complete_layer_is_stored_and_recorded() {
        for nodes in [64, 128, 1 << 18] {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let sealing = sealing_of(nodes);
            let mut store = LayerStore::begin(dir.path(), &sealing, Vec::new()).expect("writable");
            let labels = labels(nodes);
            for layer in 1..=2 {
                assert_eq!(store.next_layer(), Some(layer));
                let path = dir.path().join(layer_file(layer));
                let unnamed = || {
                    assert!(!path.exists(), "it has its name before it was checked");
                    Ok(())
                };
                store.store(&labels[..], QUIET, &|| Ok(()), unnamed).expect("writable");
                let stored = std::fs::read(&path).expect("readable");
                assert!(stored == labels.as_flattened(), "layer {layer} of {nodes} nodes");
                let record = store.finished().last().expect("just stored");
                assert_eq!((record.layer, record.bytes), (layer, (nodes * NODE_SIZE) as u64));
                assert_eq!(record.sha256, sha256(&stored));
            }
            assert_eq!(store.next_layer(), None);
            let names = [MANIFEST, "sc-02-data-layer-1.dat", "sc-02-data-layer-2.dat"];
            assert_eq!(read_dir_names(dir.path()).expect("readable"), names);
            assert_eq!(finished_layers(dir.path(), &sealing, QUIET).expect("right").len(), 2);
        }
    }

    #[test]
    fn a_layer_is_streamed_while_it_is_computed() {
        const NODES: usize = 1 << 19;
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut store =
            LayerStore::begin(dir.path(), &sealing_of(NODES), Vec::new()).expect("writable");
        let region = Region::anonymous(NODES * NODE_SIZE).expect("memory");
        let (mut writer, reader) = LabelMemory::new(region).start_layer();
        let part = || {
            let names = read_dir_names(dir.path()).expect("readable");
            let layer = layer_file(1);
            names.into_iter().find(|name| part_target(name.as_ref()) == Some(layer.as_ref()))
        };
        let length = |name| std::fs::metadata(dir.path().join(name)).map_or(0, |meta| meta.len());
        let on_disk = || part().map_or(0, length);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for node in 0..NODES {
                    writer.push(label(node));
                    if node % 1000 == 999 {
                        writer.publish();
                    }
                    if node == NODES / 2 {
                        writer.publish();
                        // All whole blocks get to the disk before another label is there.
                        while on_disk() < (NODES / 2 / BLOCK_NODES * BLOCK_NODES * NODE_SIZE) as u64
                        {
                            std::thread::yield_now();
                        }
                    }
                }
                writer.publish();
            });
            let calls = Cell::new(0);
            let complete = || {
                calls.set(calls.get() + 1);
                assert_eq!(reader.published().len(), NODES);
                Ok(())
            };
            store.store(&reader, QUIET, &|| Ok(()), complete).expect("writable");
            assert_eq!(calls.get(), 1);
        });
        let stored = std::fs::read(dir.path().join(layer_file(1))).expect("readable");
        assert!(stored == labels(NODES).as_flattened());
        assert_eq!(store.finished()[0].sha256, sha256(&stored));
    }

    #[test]
    fn a_labelling_that_ends_early_leaves_no_layer() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut store = LayerStore::begin(dir.path(), &sealing(), Vec::new()).expect("writable");
        let region = Region::anonymous(2048).expect("memory");
        let (mut writer, reader) = LabelMemory::new(region).start_layer();
        writer.push([1; NODE_SIZE]);
        writer.publish();
        let asked = AtomicU64::new(0);
        let dies = || match asked.fetch_add(1, Ordering::Relaxed) {
            0..3 => Ok(()),
            _ => Err(SdrError::Memory { bytes: 1 }),
        };
        let never = || panic!("the layer is not complete");
        let error = store.store(&reader, QUIET, &dies, never).unwrap_err();
        assert!(matches!(error, SdrError::Memory { .. }), "{error}");
        let cancelled = Watch { cancelled: &|| true, ..QUIET };
        let error = store.store(&reader, cancelled, &|| Ok(()), never).unwrap_err();
        assert!(matches!(error, SdrError::Cancelled), "{error}");
        assert_eq!(read_dir_names(dir.path()).expect("readable"), [MANIFEST]);
        assert_eq!(store.next_layer(), Some(1));
    }

    #[test]
    fn a_layer_that_fails_its_check_gets_no_name() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut store = LayerStore::begin(dir.path(), &sealing(), Vec::new()).expect("writable");
        let wrong = || Err(SdrError::WrongLabel { layer: 1, node: 5, core: None });
        let error = store.store(&labels(64)[..], QUIET, &|| Ok(()), wrong).unwrap_err();
        assert!(matches!(error, SdrError::WrongLabel { .. }), "{error}");
        assert_eq!(read_dir_names(dir.path()).expect("readable"), [MANIFEST]);
    }

    #[test]
    fn too_little_space_is_found_before_the_first_label() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut sealing = sealing();
        sealing.porep.layers = 1 << 20;
        sealing.porep.sector_size = "64GiB".parse().expect("a size");
        let error = LayerStore::begin(dir.path(), &sealing, Vec::new()).unwrap_err();
        assert!(matches!(error, SdrError::Space(_)), "{error}");
    }

    #[test]
    fn sleeps_are_short_at_the_start_and_towards_the_end() {
        let second = Duration::from_secs(1);
        assert_eq!(look_after(0, 100, second), LOOK_AFTER[0]);
        assert_eq!(look_after(50, 100, second), LOOK_AFTER[1]);
        assert_eq!(look_after(100, 101, second), Duration::from_millis(10));
        assert_eq!(look_after(1 << 30, (1 << 30) + 1, second), LOOK_AFTER[0]);
    }
}
