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

use seal_host::{
    DirectoryLock, FileError, PartFile, open_dir, read_dir_names, remove_if_there, sync_dir,
};
use seal_sdr::{LayerRecord, Manifest, Sealing};
use seal_types::{MANIFEST, layer_file};

use crate::Pc1Error;
use crate::directory::{bytes_of_remains, lock, remove_remains};

/// What names the work directory.
pub(crate) const KEY: &str = "SEAL_WORK_DIR";
/// A file that is moved at the start as layers are at the end.
const PROBE: &str = "seal-exec-probe";

/// Where the layers of one sealing are.
#[derive(Debug)]
pub(crate) struct LayerHome {
    cache_path: PathBuf,
    work: Option<Work>,
}

/// A sealing's own directory in the work directory.
#[derive(Debug)]
struct Work {
    root: PathBuf,
    path: PathBuf,
    lock: DirectoryLock,
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
    pub(crate) fn remove_remains(&self, layers: usize, sealing: &Sealing) -> Result<(), Pc1Error> {
        if let Some(work) = &self.work {
            for leftover in leftovers(&work.root, sealing)? {
                remove_leftover(&leftover, sealing)?;
            }
            remove_remains(&work.path, layers)?;
            return remove_remains(&self.cache_path, 0);
        }
        remove_remains(&self.cache_path, layers)
    }

    /// Bytes that [`LayerHome::remove_remains`] would free.
    pub(crate) fn bytes_of_remains(
        &self,
        layers: usize,
        sealing: &Sealing,
    ) -> Result<u64, Pc1Error> {
        let Some(work) = &self.work else { return bytes_of_remains(&self.cache_path, layers) };
        let mut bytes = bytes_of_remains(&work.path, layers)?;
        bytes += bytes_of_remains(&self.cache_path, 0)?;
        for leftover in leftovers(&work.root, sealing)? {
            bytes += bytes_of_remains(&leftover, 0)?;
        }
        Ok(bytes)
    }

    /// All layers are finished: moves them to the cache directory and ends the work directory.
    pub(crate) fn complete(
        self,
        sealing: &Sealing,
        layers: &[LayerRecord],
    ) -> Result<(), Pc1Error> {
        let Some(work) = self.work else { return Ok(()) };
        for record in layers {
            rename(&work.path, &self.cache_path, &layer_file(record.layer))?;
        }
        sync_dir(&self.cache_path)?;
        Manifest::new(sealing, layers.to_vec()).write(&self.cache_path)?;
        // From here on the cache directory is complete without this one.
        remove_if_there(&work.path.join(MANIFEST))?;
        remove_empty(&work.path, work.lock);
        Ok(())
    }
}

/// Whether layers can be kept in the directory `path`: tried once, before the first request comes.
pub(crate) fn check_work_dir(path: &Path) -> Result<(), Pc1Error> {
    open_dir(path).map_err(|error| Pc1Error::of_path(KEY, "a directory", error))?;
    // Under a name that nobody knows before, so that nothing lies there that could be written to.
    drop(PartFile::create(&path.join(PROBE))?);
    Ok(())
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
            // A link would lead to a directory in which nobody has asked for anything to be removed.
            let there = path.symlink_metadata();
            if there.is_ok_and(|meta| !meta.is_dir()) {
                let error = io::Error::from(io::ErrorKind::NotADirectory);
                return Err(Pc1Error::of_path(
                    KEY,
                    "a directory",
                    FileError::of("use", &path)(error),
                ));
            }
            match lock(KEY, &path) {
                Ok(lock) if lock.is_of(&path) => {
                    sync_dir(root)?;
                    return Ok(Self { root: root.to_path_buf(), path, lock });
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
        let of = |directory| -> Result<_, Pc1Error> {
            Ok(Manifest::read(directory)?.filter(|found| found.is_of(sealing)))
        };
        let (own, moved) = (of(&self.path)?, of(cache_path)?);
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
    let query = |path: &Path, key| {
        let opened =
            open_dir(path).map_err(|error| Pc1Error::of_path(key, "a directory", error))?;
        Ok::<_, Pc1Error>(opened.metadata().map_err(FileError::of("query", path))?)
    };
    if query(root, KEY)?.dev() != query(cache_path, "cache_path")?.dev() {
        return Err(other_file_system(root, cache_path));
    }
    Ok(())
}

/// Moves a file as layers will be moved in some hours. One device number is not enough for that:
/// bind mounts of one file system share it, and files cannot be moved between them.
fn require_movable(root: &Path, work: &Path, cache_path: &Path) -> Result<(), Pc1Error> {
    // It has a name that nobody knows before, here as there, and goes with `probe` if it is not
    // moved.
    let probe = PartFile::create(&work.join(PROBE))?;
    let to = cache_path.join(probe.part_path().file_name().unwrap_or_default());
    match fs::rename(probe.part_path(), &to) {
        Ok(()) => Ok(remove_if_there(&to)?),
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            Err(other_file_system(root, cache_path))
        }
        Err(error) => Err(FileError::of("move a file to", cache_path)(error).into()),
    }
}

fn other_file_system(root: &Path, cache_path: &Path) -> Pc1Error {
    let (work_dir, cache_path) = (root.to_path_buf(), cache_path.to_path_buf());
    Pc1Error::OtherFileSystem { work_dir, cache_path }
}

/// The directories in `root` of the same sector under other replica ids. Nobody will go on with
/// them: the sector is sealed with another ticket now.
fn leftovers(root: &Path, sealing: &Sealing) -> Result<Vec<PathBuf>, Pc1Error> {
    let own = sealing.replica_id.to_string();
    let is_id =
        |name: &String| name.len() == own.len() && name.bytes().all(|b| b.is_ascii_hexdigit());
    let names = read_dir_names(root)?.into_iter().filter(|name| is_id(name) && *name != own);
    let mut found = Vec::new();
    for path in names.map(|name| root.join(name)) {
        // A link leads to what is somebody else's.
        if path.symlink_metadata().is_ok_and(|meta| meta.is_dir()) && is_of_sector(&path, sealing)?
        {
            found.push(path);
        }
    }
    Ok(found)
}

fn is_of_sector(path: &Path, sealing: &Sealing) -> Result<bool, Pc1Error> {
    Ok(Manifest::read(path)?.is_some_and(|found| found.is_of_sector(sealing)))
}

/// Removes one of [`leftovers`], unless somebody works there.
fn remove_leftover(path: &Path, sealing: &Sealing) -> Result<(), Pc1Error> {
    match lock(KEY, path) {
        Ok(lock) if lock.is_of(path) && is_of_sector(path, sealing)? => {
            tracing::info!(path = %path.display(), "removing layers of the same sector under another replica id");
            remove_remains(path, 0)?;
            remove_empty(path, lock);
        }
        Ok(_) => {}
        Err(Pc1Error::Busy { .. }) => {
            tracing::warn!(path = %path.display(), "another process seals the same sector under another replica id");
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Moves a layer; what is no file is none.
fn rename(from: &Path, to: &Path, name: &str) -> Result<(), Pc1Error> {
    let source = from.join(name);
    let meta = source.symlink_metadata().map_err(FileError::of("move", &source))?;
    if !meta.is_file() {
        let text = "it is no regular file any more: another process is at work in this directory";
        return Err(FileError::of("move", &source)(io::Error::other(text)).into());
    }
    Ok(fs::rename(&source, to.join(name)).map_err(FileError::of("move", &source))?)
}

/// Removes a directory in which nothing should be left. What somebody else put there stays.
fn remove_empty(path: &Path, lock: DirectoryLock) {
    if let Err(error) = lock.remove_empty(path) {
        tracing::warn!(path = %path.display(), error = %error.source, "a work directory is left behind");
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
        home.remove_remains(finished.len(), sealing).expect("writable");
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
        assert!(
            scene.work().join(old.replica_id.to_string()).exists(),
            "nothing goes before checks"
        );
        let freed = home.bytes_of_remains(0, &scene.sealing).expect("readable");
        home.remove_remains(0, &scene.sealing).expect("writable");
        assert_eq!(freed, 3 * 4096, "two layers and their record");
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
        let remove = || {
            let home = LayerHome::open(Some(&scene.work()), &scene.cache(), &newer).expect("free");
            home.remove_remains(0, &newer).expect("writable");
        };
        remove();
        assert_eq!(scene.names(home.path()).len(), 2);
        drop(home);
        remove();
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
        assert!(error.to_string().contains(" is not a directory: it is a regular"), "{error}");
    }

    #[test]
    fn probes_follow_no_links_and_overwrite_nothing() {
        let scene = Scene::new();
        let victim = scene.dir.path().join("victim");
        fs::write(&victim, "precious").expect("writable");
        let former = format!(".seal-exec-probe-{}.part", std::process::id());
        for name in [former.as_str(), ".seal-exec-probe.part"] {
            for dir in [scene.work(), scene.cache()] {
                std::os::unix::fs::symlink(&victim, dir.join(name)).expect("writable");
            }
        }
        check_work_dir(&scene.work()).expect("writable");
        drop(scene.open().expect("free"));
        assert_eq!(fs::read(&victim).expect("readable"), b"precious");
    }

    #[test]
    fn work_directories_that_cannot_be_used_are_named() {
        let scene = Scene::new();
        let cache = scene.cache();
        let open = |work: &Path| LayerHome::open(Some(work), &cache, &scene.sealing);
        let missing = scene.dir.path().join("missing");
        let error = open(&missing).unwrap_err().to_string();
        assert_eq!(error, format!("cannot open {}", missing.display()));
        let file = scene.dir.path().join("file");
        fs::write(&file, "").expect("writable");
        let error = open(&file).unwrap_err().to_string();
        let wanted = "is not a directory: it is a regular file";
        assert_eq!(error, format!("SEAL_WORK_DIR {} {wanted}", file.display()));
        // Every Linux has another file system there.
        let error = open(Path::new("/proc")).unwrap_err();
        assert!(matches!(error, Pc1Error::OtherFileSystem { .. }), "{error}");
        let error = error.to_string();
        assert!(error.contains("/proc") && error.contains(&*cache.to_string_lossy()), "{error}");
        assert!(scene.names(&cache).is_empty());
    }
}
