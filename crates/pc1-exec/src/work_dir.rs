//! Where the layers of a sealing are kept until PC1 is done: in the cache directory, or in a work
//! directory from which they are moved there at the end.
//!
//! A worker empties the cache directory before each PC1, but it leaves a work directory alone: what
//! was finished there can be gone on with. Each sealing has a directory of its own in it, named by
//! its replica id and locked by whoever works there.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use seal_host::{FileError, read_dir_names, remove_if_there, sync_dir};
use seal_sdr::{LayerRecord, Manifest, Sealing};
use seal_types::{MANIFEST, layer_file};

use crate::Pc1Error;
use crate::directory::{DirectoryLock, remove_remains};

/// What names the work directory.
const KEY: &str = "SEAL_WORK_DIR";
/// A file that is moved at the start as layers are at the end.
const PROBE: &str = ".seal-exec-probe.part";

/// Where the layers of one sealing are.
#[derive(Debug)]
pub(crate) struct LayerHome {
    cache_path: PathBuf,
    work: Option<Work>,
}

/// A sealing's own directory in the work directory.
#[derive(Debug)]
struct Work {
    path: PathBuf,
    _lock: DirectoryLock,
}

impl LayerHome {
    /// The cache directory itself, which the caller has locked, or the place for `sealing` in
    /// `work_dir`. Layers that an earlier run has already moved to the cache directory come back.
    pub(crate) fn open(
        work_dir: Option<&Path>,
        cache_path: &Path,
        sealing: &Sealing,
    ) -> Result<Self, Pc1Error> {
        let mut home = Self { cache_path: cache_path.to_path_buf(), work: None };
        if let Some(root) = work_dir {
            require_one_file_system(root, cache_path)?;
            remove_leftovers(root, sealing)?;
            let work = Work::open(root, sealing)?;
            require_movable(root, &work.path, cache_path)?;
            work.take_back(cache_path, sealing)?;
            home.work = Some(work);
        }
        Ok(home)
    }

    /// Where layers are stored and looked for.
    pub(crate) fn path(&self) -> &Path {
        self.work.as_ref().map_or(&self.cache_path, |work| &work.path)
    }

    /// Removes everything of earlier sealings but the first `layers` layers.
    pub(crate) fn remove_remains(&self, layers: usize) -> Result<(), Pc1Error> {
        if let Some(work) = &self.work {
            remove_remains(&work.path, layers)?;
            return remove_remains(&self.cache_path, 0);
        }
        remove_remains(&self.cache_path, layers)
    }

    /// All layers are finished: moves them to the cache directory and ends the work directory.
    pub(crate) fn complete(
        self,
        sealing: &Sealing,
        layers: &[LayerRecord],
    ) -> Result<(), Pc1Error> {
        let Some(work) = &self.work else { return Ok(()) };
        for record in layers {
            rename(&work.path, &self.cache_path, &layer_file(record.layer))?;
        }
        sync_dir(&self.cache_path)?;
        Manifest::new(sealing, layers.to_vec()).write(&self.cache_path)?;
        // From here on the cache directory is complete without this one.
        remove_if_there(&work.path.join(MANIFEST))?;
        remove_empty(&work.path);
        Ok(())
    }
}

/// Whether layers can be kept in the directory `path`: tried once, before the first request comes.
pub(crate) fn check_work_dir(path: &Path) -> Result<(), Pc1Error> {
    let meta = path.metadata().map_err(FileError::of("query", path))?;
    if !meta.is_dir() {
        return Err(Pc1Error::Path { key: KEY, path: path.to_path_buf(), wanted: "a directory" });
    }
    // Processes that share it may start at the same moment.
    let probe = path.join(format!(".seal-exec-probe-{}.part", std::process::id()));
    fs::write(&probe, "").map_err(FileError::of("create", &probe))?;
    Ok(remove_if_there(&probe)?)
}

impl Work {
    fn open(root: &Path, sealing: &Sealing) -> Result<Self, Pc1Error> {
        let path = root.join(sealing.replica_id.to_string());
        loop {
            match fs::create_dir(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(FileError::of("create", &path)(error).into());
                }
                _ => {}
            }
            match DirectoryLock::take(KEY, &path) {
                Ok(lock) if lock.is_of(&path) => {
                    sync_dir(root)?;
                    return Ok(Self { path, _lock: lock });
                }
                // Whoever had it before has finished it and removed it.
                Ok(_) => {}
                Err(Pc1Error::File(error)) if error.source.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes over what the cache directory has of the same sealing: all of it when a run was
    /// without a work directory, or the layers that were moved before a run was killed.
    fn take_back(&self, cache_path: &Path, sealing: &Sealing) -> Result<(), Pc1Error> {
        let of = |directory| Manifest::read(directory).filter(|found| found.is_of(sealing));
        let (own, moved) = (of(&self.path), of(cache_path));
        let count = |manifest: &Option<Manifest>| {
            manifest.as_ref().map_or(0, |manifest| manifest.finished().len())
        };
        let best = if count(&moved) > count(&own) { moved } else { own };
        let Some(best) = best else { return Ok(()) };
        best.write(&self.path)?;
        for record in best.finished() {
            let name = layer_file(record.layer);
            if self.path.join(&name).symlink_metadata().is_err()
                && cache_path.join(&name).symlink_metadata().is_ok_and(|meta| meta.is_file())
            {
                rename(cache_path, &self.path, &name)?;
            }
        }
        Ok(sync_dir(&self.path)?)
    }
}

fn require_one_file_system(root: &Path, cache_path: &Path) -> Result<(), Pc1Error> {
    let query = |path: &Path| path.metadata().map_err(FileError::of("query", path));
    let (work, cache) = (query(root)?, query(cache_path)?);
    if !work.is_dir() {
        let path = root.to_path_buf();
        return Err(Pc1Error::Path { key: KEY, path, wanted: "a directory" });
    }
    if work.dev() != cache.dev() {
        return Err(other_file_system(root, cache_path));
    }
    Ok(())
}

/// Moves a file as layers will be moved in some hours. One device number is not enough for that:
/// bind mounts of one file system share it, and files cannot be moved between them.
fn require_movable(root: &Path, work: &Path, cache_path: &Path) -> Result<(), Pc1Error> {
    let (from, to) = (work.join(PROBE), cache_path.join(PROBE));
    fs::write(&from, "").map_err(FileError::of("write", &from))?;
    let moved = fs::rename(&from, &to);
    remove_if_there(if moved.is_ok() { &to } else { &from })?;
    match moved {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            Err(other_file_system(root, cache_path))
        }
        moved => Ok(moved.map_err(FileError::of("move a file to", cache_path))?),
    }
}

fn other_file_system(root: &Path, cache_path: &Path) -> Pc1Error {
    let (work_dir, cache_path) = (root.to_path_buf(), cache_path.to_path_buf());
    Pc1Error::OtherFileSystem { work_dir, cache_path }
}

/// Removes what is left in `root` of the same sector under other replica ids. Nobody will go on
/// with it: the sector is sealed with another ticket now.
fn remove_leftovers(root: &Path, sealing: &Sealing) -> Result<(), Pc1Error> {
    let own = sealing.replica_id.to_string();
    let is_id =
        |name: &String| name.len() == own.len() && name.bytes().all(|b| b.is_ascii_hexdigit());
    for name in read_dir_names(root)?.into_iter().filter(|name| is_id(name) && *name != own) {
        let path = root.join(name);
        let of_sector = || Manifest::read(&path).is_some_and(|found| found.is_of_sector(sealing));
        if !path.is_dir() || !of_sector() {
            continue;
        }
        match DirectoryLock::take(KEY, &path) {
            Ok(lock) if lock.is_of(&path) && of_sector() => {
                tracing::info!(path = %path.display(), "removing layers of the same sector under another replica id");
                remove_remains(&path, 0)?;
                remove_empty(&path);
            }
            Ok(_) => {}
            Err(Pc1Error::Busy { .. }) => {
                tracing::warn!(path = %path.display(), "another process seals the same sector under another replica id");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn rename(from: &Path, to: &Path, name: &str) -> Result<(), FileError> {
    let source = from.join(name);
    fs::rename(&source, to.join(name)).map_err(FileError::of("move", &source))
}

/// Removes a directory in which nothing should be left. What somebody else put there stays.
fn remove_empty(path: &Path) {
    if let Err(error) = fs::remove_dir(path) {
        tracing::warn!(path = %path.display(), %error, "a work directory is left behind");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use seal_sdr::{LayerStore, Watch, finished_layers};
    use seal_types::{ProverId, RegisteredProof, ReplicaId, SectorId};

    const QUIET: Watch<'static> = Watch { progress: &|_, _, _| {}, cancelled: &|| false };
    const LAYERS: usize = 5;

    struct Scene {
        dir: tempfile::TempDir,
        sealing: Sealing,
    }

    impl Scene {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("a temporary directory");
            for name in ["work", "cache"] {
                fs::create_dir(dir.path().join(name)).expect("writable");
            }
            let mut porep = "StackedDrg2KiBV1_1".parse::<RegisteredProof>().expect("known").porep();
            porep.layers = u32::try_from(LAYERS).expect("small");
            let sealing = Sealing {
                porep,
                replica_id: ReplicaId([7; 32]),
                prover_id: ProverId([8; 32]),
                sector_id: SectorId(9),
            };
            Self { dir, sealing }
        }

        fn work(&self) -> PathBuf {
            self.dir.path().join("work")
        }

        fn cache(&self) -> PathBuf {
            self.dir.path().join("cache")
        }

        fn open(&self) -> Result<LayerHome, Pc1Error> {
            LayerHome::open(Some(&self.work()), &self.cache(), &self.sealing)
        }

        fn names(&self, path: &Path) -> Vec<String> {
            read_dir_names(path).expect("readable")
        }
    }

    /// Goes on up to `until` layers.
    fn label(home: &LayerHome, sealing: &Sealing, until: usize) -> LayerStore {
        let finished = finished_layers(home.path(), sealing, QUIET).expect("readable");
        home.remove_remains(finished.len()).expect("writable");
        let mut store = LayerStore::begin(home.path(), sealing, finished).expect("writable");
        while store.finished().len() < until {
            let layer = u8::try_from(store.next_layer().expect("one is left")).expect("small");
            let labels = [[layer; 32]; 64];
            store.store(&labels[..], QUIET, &|| Ok(()), || Ok(())).expect("writable");
        }
        store
    }

    fn assert_complete(scene: &Scene) {
        assert!(scene.names(&scene.work()).is_empty(), "{:?}", scene.names(&scene.work()));
        let mut expected = vec![MANIFEST.to_owned()];
        expected.extend((1..=LAYERS as u32).map(layer_file));
        assert_eq!(scene.names(&scene.cache()), expected);
        for layer in 1..=LAYERS as u8 {
            let path = scene.cache().join(layer_file(layer.into()));
            assert_eq!(fs::read(path).expect("readable"), [layer; 2048]);
        }
    }

    #[test]
    fn layers_are_in_the_work_directory_until_the_last_one_is_finished() {
        let scene = Scene::new();
        let home = scene.open().expect("free");
        let store = label(&home, &scene.sealing, LAYERS);
        assert!(scene.names(&scene.cache()).is_empty());
        home.complete(&scene.sealing, store.finished()).expect("writable");
        assert_complete(&scene);
    }

    #[test]
    fn what_was_finished_before_is_gone_on_with_whenever_the_run_ended() {
        for finished in 0..=LAYERS {
            for moved in 0..=finished {
                let scene = Scene::new();
                let home = scene.open().expect("free");
                label(&home, &scene.sealing, finished);
                for layer in (1..).take(moved) {
                    rename(home.path(), &scene.cache(), &layer_file(layer)).expect("writable");
                }
                drop(home);
                let home = scene.open().expect("free again");
                let found = finished_layers(home.path(), &scene.sealing, QUIET).expect("readable");
                assert_eq!(found.len(), finished, "{moved} of {finished} moved");
                let store = label(&home, &scene.sealing, LAYERS);
                home.complete(&scene.sealing, store.finished()).expect("writable");
                assert_complete(&scene);
            }
        }
    }

    #[test]
    fn what_was_finished_without_a_work_directory_is_gone_on_with() {
        let scene = Scene::new();
        let cache = LayerHome::open(None, &scene.cache(), &scene.sealing).expect("there");
        label(&cache, &scene.sealing, 3);
        let home = scene.open().expect("free");
        let found = finished_layers(home.path(), &scene.sealing, QUIET).expect("readable");
        assert_eq!(found.len(), 3);
        let store = label(&home, &scene.sealing, LAYERS);
        home.complete(&scene.sealing, store.finished()).expect("writable");
        assert_complete(&scene);
        // A complete one is verified and moved again.
        let home = scene.open().expect("free");
        let store = label(&home, &scene.sealing, LAYERS);
        home.complete(&scene.sealing, store.finished()).expect("writable");
        assert_complete(&scene);
    }

    #[test]
    fn leftovers_of_the_same_sector_go_and_others_stay() {
        let scene = Scene::new();
        let mut old = scene.sealing;
        old.replica_id = ReplicaId([6; 32]);
        let mut other = scene.sealing;
        other.replica_id = ReplicaId([5; 32]);
        other.sector_id = SectorId(10);
        for sealing in [&old, &other] {
            let home = LayerHome::open(Some(&scene.work()), &scene.cache(), sealing).expect("free");
            label(&home, sealing, 2);
        }
        fs::create_dir(scene.work().join("ab".repeat(32))).expect("writable");
        fs::write(scene.work().join("note"), "").expect("writable");
        let home = scene.open().expect("free");
        let mut expected = vec![other.replica_id.to_string(), scene.sealing.replica_id.to_string()];
        expected.extend(["ab".repeat(32), "note".to_owned()]);
        assert_eq!(scene.names(&scene.work()), expected);
        assert_eq!(scene.names(&scene.work().join(&expected[0])).len(), 3);
        drop(home);
    }

    #[test]
    fn a_sealing_is_worked_on_by_one_at_a_time() {
        let scene = Scene::new();
        let home = scene.open().expect("free");
        let error = scene.open().unwrap_err();
        assert!(error.to_string().starts_with("SEAL_WORK_DIR "), "{error}");
        assert!(matches!(error, Pc1Error::Busy { .. }), "{error}");
        // The same sector under another replica id: not removed while somebody is at it.
        label(&home, &scene.sealing, 1);
        let mut newer = scene.sealing;
        newer.replica_id = ReplicaId([1; 32]);
        LayerHome::open(Some(&scene.work()), &scene.cache(), &newer).expect("free");
        assert_eq!(scene.names(home.path()).len(), 2);
        drop(home);
        LayerHome::open(Some(&scene.work()), &scene.cache(), &newer).expect("free");
        assert_eq!(scene.names(&scene.work()), [newer.replica_id.to_string()]);
    }

    #[test]
    fn a_work_directory_is_tried_before_it_is_needed_and_left_as_it_was() {
        let scene = Scene::new();
        check_work_dir(&scene.work()).expect("writable");
        assert!(scene.names(&scene.work()).is_empty());
        let error = check_work_dir(&scene.dir.path().join("missing")).unwrap_err();
        assert!(matches!(error, Pc1Error::File(_)), "{error}");
        // Nobody can make files there, root neither.
        let error = check_work_dir(Path::new("/proc")).unwrap_err();
        assert!(error.to_string().starts_with("cannot create /proc/."), "{error}");
        let file = scene.dir.path().join("file");
        fs::write(&file, "").expect("writable");
        let error = check_work_dir(&file).unwrap_err();
        assert!(error.to_string().ends_with("is not a directory"), "{error}");
    }

    #[test]
    fn work_directories_that_cannot_be_used_are_named() {
        let scene = Scene::new();
        let cache = scene.cache();
        let open = |work: &Path| LayerHome::open(Some(work), &cache, &scene.sealing);
        let missing = scene.dir.path().join("missing");
        let error = open(&missing).unwrap_err().to_string();
        assert_eq!(error, format!("cannot query {}", missing.display()));
        let file = scene.dir.path().join("file");
        fs::write(&file, "").expect("writable");
        let error = open(&file).unwrap_err().to_string();
        assert_eq!(error, format!("SEAL_WORK_DIR {} is not a directory", file.display()));
        // Every Linux has another file system there.
        let error = open(Path::new("/proc")).unwrap_err();
        assert!(matches!(error, Pc1Error::OtherFileSystem { .. }), "{error}");
        let error = error.to_string();
        assert!(error.contains("/proc") && error.contains(&*cache.to_string_lossy()), "{error}");
        assert!(scene.names(&cache).is_empty());
    }
}
