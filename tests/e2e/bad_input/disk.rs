//! Disks that are full or may not be written, in mount namespaces of the executors' own.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use seal_types::MANIFEST;
use serde_json::json;
use test_support::launch::{can_mount, until};
use test_support::skip::skipped;

use super::*;

/// A sector whose cache directory and sealed file are on a file system of the executor's own.
struct OnOwnDisk {
    sector: Sector,
    /// Where the file system is mounted, and below it `cache` and `sealed`.
    disk: PathBuf,
    processor: Processor,
    log: Log,
}

impl OnOwnDisk {
    /// Stages `name` in `dir` and starts the executor of `stage` on a file system of `size` bytes
    /// with a copy of the files in `dir`/seed on it. `None` where this host does not let us.
    fn start(
        test: &str,
        stage_of: Stage,
        name: &str,
        size: u64,
        dir: &Path,
    ) -> Result<Option<Self>> {
        let (disk, seed) = (dir.join("disk"), dir.join("seed"));
        for path in [&disk, &seed] {
            fs::create_dir_all(path)?;
        }
        let mounts = format!(
            "mount -t tmpfs -o size={size} none {disk} && cp -r {seed}/. {disk} && \
             mkdir -p {disk}/cache && : >> {disk}/sealed",
            disk = disk.display(),
            seed = seed.display(),
        );
        if let Err(reason) = can_mount(&mounts) {
            skipped(test, &reason);
            return Ok(None);
        }
        let launch = Launch::executor(stage_of, dir)?.mounts(&mounts);
        // Slow labels: what happens in the middle of a layer does so for long.
        let (processor, log) = launch.env("SEAL_FORCE_ISA", "portable").serve(stage_of)?;
        Ok(Some(Self { sector: stage(name, dir)?, disk, processor, log }))
    }

    /// A path below the mount as this process reaches it.
    fn seen(&self, name: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.processor.pid()));
        root.join(self.disk.strip_prefix("/").expect("an absolute path")).join(name)
    }

    fn names(&self) -> Result<Vec<String>> {
        test_support::sector::names_in(&self.seen("cache"))
    }

    fn pc1_task(&self) -> Result<Value> {
        let mut task = self.sector.pc1_task()?;
        task["cache_path"] = json!(self.disk.join("cache"));
        task["out_path"] = json!(self.disk.join("sealed"));
        Ok(task)
    }

    fn matches_vector(&self) -> Result<()> {
        for (name, expected) in expected_after_pc1(&self.sector.vector) {
            let path = if name == "sealed" { name.clone() } else { format!("cache/{name}") };
            let found = test_support::vector::file_digest(&self.seen(&path))?;
            ensure!(found == expected, "{name} differs");
        }
        Ok(())
    }
}

#[test]
fn too_little_space_for_pc1_is_found_before_the_start() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let test = "too little space for PC1";
    // Two layers, tree D and the copy are 40 MiB.
    let Some(mut pc1) = OnOwnDisk::start(test, Stage::Pc1, "8MiB-v1_1-a", 39 << 20, dir.path())?
    else {
        return Ok(());
    };
    let error = pc1.processor.call_failing(&pc1.pc1_task()?, PATIENCE)?;
    let needed = (40_u64 << 20).to_string();
    let disk = pc1.disk.display().to_string();
    tells(&error, ErrorCode::NoSpace, &[&disk, "bytes free", &needed])?;
    ensure!(pc1.names()?.is_empty(), "{:?}", pc1.names()?);
    ensure!(fs::metadata(pc1.seen("sealed"))?.len() == 0, "something was copied");
    ensure!(pc1.log.lines_with(&["labelling"])?.is_empty(), "it started to label");

    // There is room for a small one, in the same process.
    pc1.sector = stage("2KiB-v1_1-a", dir.path())?;
    pc1.processor.call(&pc1.pc1_task()?, PATIENCE)?;
    pc1.matches_vector()
}

#[test]
fn what_a_killed_pc1_has_left_of_its_copy_does_not_stop_the_next_one() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let test = "what a killed PC1 has left of its copy";
    let seed = dir.path().join("seed");
    fs::create_dir_all(&seed)?;
    // With these 12 MiB there is not room for the 40 MiB that are needed.
    fs::write(seed.join(".sealed.part"), vec![1; 12 << 20])?;
    let Some(mut pc1) = OnOwnDisk::start(test, Stage::Pc1, "8MiB-v1_1-a", 49 << 20, dir.path())?
    else {
        return Ok(());
    };
    ensure!(pc1.seen(".sealed.part").exists(), "the remains are not where PC1 looks");
    pc1.processor.call(&pc1.pc1_task()?, PATIENCE)?;
    ensure!(!pc1.seen(".sealed.part").exists(), "the remains are still there");
    pc1.matches_vector()
}

#[test]
fn a_disk_that_fills_up_in_the_middle_of_pc1_leaves_no_partial_file() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let test = "a disk that fills up in the middle of PC1";
    // Layers, tree D and two copies are 48 MiB; then there is the record of finished layers.
    let Some(mut pc1) = OnOwnDisk::start(test, Stage::Pc1, "8MiB-v1_1-a", 49 << 20, dir.path())?
    else {
        return Ok(());
    };
    pc1.processor.send(&pc1.pc1_task()?)?;
    // The first layer is on record and the second one is being labelled.
    let record = pc1.seen("cache").join(MANIFEST);
    let finished = "\"layer\": 1";
    until(PATIENCE, || Ok(fs::read_to_string(&record).is_ok_and(|text| text.contains(finished))))?;
    let filler = pc1.seen("filler");
    fill(&filler)?;
    let answer = pc1.processor.answer(PATIENCE)?;
    let layer_2 = pc1.disk.join("cache/.sc-02-data-layer-2.dat.").display().to_string();
    let error = answer.err_msg.unwrap_or_default();
    tells(&error, ErrorCode::NoSpace, &["cannot", &layer_2, "No space left on device"])?;
    ensure!(pc1.names()? == [LAYER_1, TREE_D], "{:?}", pc1.names()?);

    fs::remove_file(filler)?;
    pc1.processor.call(&pc1.pc1_task()?, PATIENCE)?;
    ensure!(!pc1.log.lines_with(&["going on after finished layers"])?.is_empty(), "it began anew");
    pc1.matches_vector()
}

/// Takes all space that is left.
fn fill(path: &Path) -> Result<()> {
    let mut file = File::create(path)?;
    let mut block = vec![1; 1 << 20];
    while !block.is_empty() {
        if file.write_all(&block).is_err() {
            block.truncate(block.len() / 2);
        }
    }
    Ok(())
}

#[test]
fn too_little_space_for_pc2_is_found_before_the_start() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (sector, pc1out) = after_pc1("2KiB-v1_1-a", dir.path())?;
    let seed = dir.path().join("seed");
    fs::create_dir_all(seed.join("cache"))?;
    for name in AFTER_PC1 {
        fs::copy(sector.cache().join(name), seed.join("cache").join(name))?;
    }
    fs::copy(sector.sealed(), seed.join("sealed"))?;
    let test = "too little space for PC2";
    // The results of a small sector take a few pages, but 64 KiB are kept for the smallest ones.
    let Some(mut pc2) = OnOwnDisk::start(test, Stage::Pc2, "2KiB-v1_1-a", 64 << 10, dir.path())?
    else {
        return Ok(());
    };
    let mut task = sector.pc2_task(&pc1out);
    task["cache_dir"] = json!(pc2.disk.join("cache"));
    task["sealed_file"] = json!(pc2.disk.join("sealed"));
    let error = pc2.processor.call_failing(&task, PATIENCE)?;
    let disk = pc2.disk.display().to_string();
    tells(&error, ErrorCode::NoSpace, &[&disk, "bytes free", "are needed"])?;
    ensure!(pc2.names()? == AFTER_PC1, "{:?}", pc2.names()?);
    let mut data = vec![0; 2048];
    File::open(pc2.seen("sealed"))?.read_exact_at(&mut data, 0)?;
    ensure!(data == fs::read(sector.staged())?, "the sealed file was changed");
    let error = pc2.processor.call_failing(&task, PATIENCE)?;
    tells(&error, ErrorCode::NoSpace, &[&disk])
}

#[test]
fn directories_that_may_not_be_written_are_named() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path();
    let (sealed, pc1out) = after_pc1("2KiB-v1_1-a", path)?;
    // A read-only mount stops everybody; modes do not stop root.
    let read_only = path.join("read-only");
    fs::create_dir_all(read_only.join("cache"))?;
    fs::copy(sealed.sealed(), read_only.join("sealed"))?;
    for name in AFTER_PC1 {
        fs::copy(sealed.cache().join(name), read_only.join("cache").join(name))?;
    }
    let mounts =
        format!("mount --bind {0} {0} && mount -o remount,bind,ro {0}", read_only.display());
    if let Err(reason) = can_mount(&mounts) {
        skipped("directories that may not be written", &reason);
        return Ok(());
    }
    let sector = stage("2KiB-v1-a", path)?;
    let shown = read_only.display().to_string();

    let (mut pc1, _) = Launch::executor(Stage::Pc1, path)?.mounts(&mounts).serve(Stage::Pc1)?;
    for (field, below) in [("cache_path", "cache"), ("out_path", "sealed")] {
        let mut task = sector.pc1_task()?;
        task[field] = json!(read_only.join(below));
        let error = pc1.call_failing(&task, PATIENCE)?;
        tells(&error, ErrorCode::Io, &[&shown, "Read-only file system"])?;
        ensure!(sector.wrongly_left()?.is_empty(), "{:?}", sector.names()?);
    }
    pc1_succeeds(&mut pc1, &sector)?;

    let (mut pc2, _) = Launch::executor(Stage::Pc2, path)?.mounts(&mounts).serve(Stage::Pc2)?;
    for (field, below) in [("cache_dir", "cache"), ("sealed_file", "sealed")] {
        let mut task = sealed.pc2_task(&pc1out);
        task[field] = json!(read_only.join(below));
        let error = pc2.call_failing(&task, PATIENCE)?;
        tells(&error, ErrorCode::Io, &[&shown, "Read-only file system"])?;
        ensure!(sealed.names()? == AFTER_PC1, "{:?}", sealed.names()?);
    }
    pc2_succeeds(&mut pc2, &sealed, &pc1out)
}
