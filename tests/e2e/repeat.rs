//! PC2 can be done again after whatever has happened to it, and to its files, and comes to the
//! same result. Nothing partial is under a final name in between.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use seal_types::{Stage, layer_file};
use seal_wire::ErrorCode;
use serde_json::Value;
use test_support::launch::{Launch, Log};
use test_support::preload::preloadable;
use test_support::sector::{Sector, names_in};
use test_support::skip::skipped;
use test_support::vector::{FileDigest, Vector};

const PATIENCE: Duration = Duration::from_secs(120);

/// PC2 takes seconds with the portable kernel, and some 60 blocks.
const CASE: &str = "8MiB-v1_1-a";

/// A sector after PC1, and how PC2 of it is run.
struct Scene {
    dir: tempfile::TempDir,
    sector: Sector,
    environment: Vec<(&'static str, String)>,
    arguments: Vec<String>,
}

impl Scene {
    fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let sector = Sector::stage(&Vector::named(CASE)?, &dir.path().join("sector"))?;
        let (mut pc1, _) = Launch::executor(Stage::Pc1, dir.path())?.serve(Stage::Pc1)?;
        let pc1out = pc1.call(&sector.pc1_task()?, PATIENCE)?;
        fs::write(dir.path().join("task.json"), sector.pc2_task(&pc1out).to_string())?;
        Ok(Self { dir, sector, environment: Vec::new(), arguments: Vec::new() })
    }

    fn launch(&self) -> Result<Launch> {
        let mut launch = Launch::executor(Stage::Pc2, self.dir.path())?;
        for (name, value) in &self.environment {
            launch = launch.env(name, value);
        }
        let launch = launch.args(&self.arguments).args(["run", "--task"]);
        Ok(launch.args([self.dir.path().join("task.json")]))
    }

    /// Starts PC2 with a log of its own.
    fn start(&self) -> Result<Child> {
        let launch = self.launch()?;
        let mut command = launch.command()?;
        fs::write(self.dir.path().join("pc2-exec.log"), "")?;
        Ok(command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn()?)
    }

    fn log(&self) -> Result<Log> {
        Ok(self.launch()?.log())
    }

    /// Runs PC2 to its end, after which every file is as the vector has it.
    fn succeeds(&self) -> Result<()> {
        let output = self.start()?.wait_with_output()?;
        let log = self.log()?.text()?;
        ensure!(output.status.success(), "{}: {log}", output.status);
        let answer: Value = serde_json::from_slice(&output.stdout)?;
        let comm_r: seal_types::Commitment = serde_json::from_value(answer["comm_r"].clone())?;
        ensure!(comm_r.to_string() == self.sector.vector.comm_r, "comm_r is {comm_r}");
        let mut files = self.sector.files()?;
        ensure!(files.remove("t_aux").is_some(), "there is no t_aux");
        let expected = self.after();
        ensure!(files == expected, "{files:#?} is not {expected:#?}");
        ensure!(!self.has_temporary_replica()?, "the temporary replica is left behind");
        Ok(())
    }

    /// Runs PC2, which must fail with `code` and name all of `words`. No file has changed then.
    fn fails(&self, code: ErrorCode, words: &[&str]) -> Result<()> {
        let before = self.sector.files()?;
        let output = self.start()?.wait_with_output()?;
        let log = self.log()?.text()?;
        ensure!(!output.status.success() && output.stdout.is_empty(), "it succeeds: {log}");
        for word in words.iter().chain([&code.name()]) {
            ensure!(log.contains(word), "{word:?} is not named: {log}");
        }
        ensure!(self.sector.files()? == before, "files were changed: {log}");
        ensure!(!self.has_temporary_replica()?, "the temporary replica is left behind");
        Ok(())
    }

    /// What there is after PC2, but for `t_aux`, which holds the directory's name.
    fn after(&self) -> BTreeMap<String, FileDigest> {
        let vector = &self.sector.vector;
        let sha256 = vector.sealed_sha256.clone();
        let mut files = vector.cache_files.clone();
        files.insert("sealed".to_owned(), FileDigest { bytes: vector.sector_size, sha256 });
        files
    }

    fn has_temporary_replica(&self) -> Result<bool> {
        let dir = self.sector.sealed();
        let names = names_in(dir.parent().context("a directory")?)?;
        Ok(names.iter().any(|name| name.starts_with(".sealed.") && name.ends_with(".part")))
    }

    /// A killed PC2 has harmed nothing: inputs are what they were, and whatever has a final name
    /// is complete.
    fn is_whole(&self) -> Result<()> {
        let vector = &self.sector.vector;
        let expected = self.after();
        for (name, found) in self.sector.files()? {
            if name.starts_with('.') && name.ends_with(".part") || name == "t_aux" {
                continue;
            }
            let data = name == "sealed" && found.sha256 == vector.staged_sha256;
            ensure!(data || expected.get(&name) == Some(&found), "{name} is partial");
        }
        for name in vector.cache_files.keys().filter(|name| name.contains("layer")) {
            ensure!(self.sector.cache().join(name).exists(), "{name} is gone");
        }
        Ok(())
    }

    /// What a worker does before it repeats PC2: results go, the data comes back.
    fn restore(&self) -> Result<()> {
        for name in self.sector.names()? {
            let result = ["tree-c", "tree-r-last", "p_aux", "t_aux"];
            if !name.starts_with('.') && result.iter().any(|result| name.contains(result)) {
                fs::remove_file(self.sector.cache().join(name))?;
            }
        }
        fs::copy(self.sector.staged(), self.sector.sealed())?;
        Ok(())
    }
}

/// Numbers that look random and are the same in every run.
struct Moments(u64);

impl Moments {
    fn next_below(&mut self, bound: Duration) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        bound.mul_f64((self.0 >> 11) as f64 / (1_u64 << 53) as f64)
    }
}

#[test]
fn killed_at_any_moment_it_is_done_again_with_the_same_result() -> Result<()> {
    let scene = Scene::new()?;
    let began = Instant::now();
    scene.succeeds()?;
    let whole_run = began.elapsed();
    let mut moments = Moments(0x9e37_79b9_7f4a_7c15);
    let (mut temporary, mut data) = (0, 0);
    for kill in 0..20 {
        let told = || format!("kill {kill}");
        // In turn over the finished sector, and over one that the worker has restored.
        if kill % 2 == 0 {
            scene.restore()?;
        }
        let moment = moments.next_below(whole_run);
        let mut child = scene.start()?;
        std::thread::sleep(moment);
        child.kill()?;
        child.wait()?;
        scene.is_whole().with_context(told)?;
        temporary += usize::from(scene.has_temporary_replica()?);
        let sealed = test_support::vector::file_digest(&scene.sector.sealed())?;
        data += usize::from(sealed.sha256 == scene.sector.vector.staged_sha256);
        if kill % 4 < 2 {
            scene.restore()?;
        }
        scene.succeeds().with_context(told)?;
    }
    ensure!(temporary > 5, "only {temporary} kills were in the middle");
    ensure!((1..20).contains(&data), "the data was there after {data} of 20 kills");
    Ok(())
}

#[test]
fn a_layer_that_was_damaged_after_pc1_is_named() -> Result<()> {
    let scene = Scene::new()?;
    for (finished, layer, byte) in
        [(false, 1, 5_000_001), (false, 2, 31), (true, 2, 31), (true, 2, (8 << 20) - 2)]
    {
        // The results of a finished sector are all that is left of a layer that is damaged.
        if finished {
            scene.succeeds()?;
        }
        let path = scene.sector.cache().join(layer_file(layer));
        let file = File::options().read(true).write(true).open(&path)?;
        let mut good = [0];
        file.read_exact_at(&mut good, byte)?;
        file.write_all_at(&[good[0] ^ 1], byte)?;
        let recorded = &scene.sector.vector.cache_files[&layer_file(layer)].sha256;
        let path = path.display().to_string();
        scene.fails(ErrorCode::BadInput, &[&path, recorded, "run PC1 again"])?;
        file.write_all_at(&good, byte)?;
    }
    scene.succeeds()?;

    // Without the record the layers are what they are.
    fs::remove_file(scene.sector.cache().join(seal_types::MANIFEST))?;
    scene.succeeds()?;
    ensure!(!scene.log()?.lines_with(&["PC2 done", "\"layers_checked\":false"])?.is_empty());
    Ok(())
}

#[test]
fn memory_is_what_was_allowed() -> Result<()> {
    let mut scene = Scene::new()?;
    for memory_mib in [1, 8] {
        scene.arguments = vec!["--memory-mib".to_owned(), memory_mib.to_string()];
        scene.succeeds()?;
        let done = scene.log()?.lines_with(&["PC2 done"])?;
        let done: Value = serde_json::from_str(done.first().context("it tells what it took")?)?;
        let taken = done["memory_bytes"].as_u64().context("a number")?;
        ensure!(taken <= memory_mib << 20, "{taken} bytes of {memory_mib} MiB");
    }
    Ok(())
}

#[test]
fn errors_of_the_disk_end_it_and_it_is_done_again() -> Result<()> {
    let mut scene = Scene::new()?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/faults.c");
    let library = match preloadable(&source, scene.dir.path())? {
        Ok(library) => library.display().to_string(),
        Err(reason) => {
            skipped("errors of the disk in PC2", &reason);
            return Ok(());
        }
    };
    const EIO: u32 = 5;
    const ENOSPC: u32 = 28;
    let (io, no_space) = (ErrorCode::Io, ErrorCode::NoSpace);
    let faults = [
        ("pread", "layer-1", 9, EIO, io, ["cannot read", "layer-1.dat"]),
        ("pread", "layer-2", 0, EIO, io, ["cannot read", "layer-2.dat"]),
        ("pread", "layer-2", 70, EIO, io, ["cannot read", "layer-2.dat"]),
        ("pread", "tree-d", 90, EIO, io, ["cannot read", "tree-d.dat"]),
        ("pwrite", "/.sealed.", 3, EIO, io, ["cannot write", "/.sealed."]),
        ("pwrite", "tree-c", 0, ENOSPC, no_space, ["cannot write", "/.sc-02-data-tree-c.dat."]),
        ("pwrite", "tree-c", 100, ENOSPC, no_space, ["cannot write", "/.sc-02-data-tree-c.dat."]),
        (
            "pwrite",
            "tree-r-last",
            5,
            ENOSPC,
            no_space,
            ["cannot write", "/.sc-02-data-tree-r-last.dat."],
        ),
        // What was written is read back by the self-check.
        ("pread", "/.sealed.", 0, EIO, io, ["cannot read", "sealed"]),
        ("pread", "tree-c", 20, EIO, io, ["cannot read", "tree-c.dat"]),
        ("fsync", "tree-c", 0, EIO, io, ["cannot sync", "/.sc-02-data-tree-c.dat."]),
        ("fsync", "/.sealed.", 0, EIO, io, ["cannot sync", "/.sealed."]),
    ];
    for finished in [false, true] {
        for (call, file, after, errno, code, words) in faults {
            let fault = format!("{call}:{file}:{after}:{errno}");
            scene.environment =
                vec![("LD_PRELOAD", library.clone()), ("SEAL_TEST_FAULT", fault.clone())];
            let told = || format!("{fault}, finished before: {finished}");
            scene.fails(code, &words).with_context(told)?;
            scene.environment.clear();
        }
        scene.succeeds()?;
    }

    // Without locks nothing is begun, whatever else could be done there.
    let refused = ["has no locks", "No locks available", "two processes", "file system "];
    let fault = format!("flock:/sector/cache:0:{}", 37);
    scene.environment = vec![("LD_PRELOAD", library.clone()), ("SEAL_TEST_FAULT", fault)];
    scene.fails(ErrorCode::Io, &refused)?;

    // Once the first result has its name, the others are missing; yet it can be done again. By then
    // everything has been brought to disk once.
    let fault = format!("fsync:/.sealed.:1:{EIO}");
    scene.environment = vec![("LD_PRELOAD", library), ("SEAL_TEST_FAULT", fault)];
    scene.restore()?;
    let output = scene.start()?.wait_with_output()?;
    ensure!(!output.status.success(), "the disk failed");
    scene.is_whole()?;
    ensure!(!scene.sector.cache().join("p_aux").exists(), "p_aux comes last");
    scene.environment.clear();
    scene.succeeds()
}
