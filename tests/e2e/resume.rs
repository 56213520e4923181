//! PC1 that was interrupted goes on after its finished layers and makes the same files, whatever
//! the moment, and whatever has become of what it left.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pc1_exec::{
    Labeller, LabellerSettings, Pc1Job, Pc1Settings, ReplaceFinished, Resume, pre_commit1,
};
use seal_runtime::{CancelToken, TaskContext};
use seal_sha256::{ChaCha8, Kernel};
use seal_trees::Piece;
use seal_types::{MANIFEST, Stage, layer_file};
use seal_wire::ErrorCode;
use serde_json::{Value, json};
use test_support::launch::{Launch, can_mount, until};
use test_support::sector::{Sector, on_record};
use test_support::skip::skipped;
use test_support::vector::{FileDigest, Vector, file_digest};

const PATIENCE: Duration = Duration::from_secs(120);

/// Two layers of a quarter of a second each, or so.
const CASE: &str = "8MiB-v1_1-a";

/// A sector and how PC1 of it is run.
struct Scene {
    dir: tempfile::TempDir,
    sector: Sector,
    environment: Vec<(&'static str, PathBuf)>,
    mounts: Option<String>,
}

impl Scene {
    fn new(case: &str) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let sector = Sector::stage(&Vector::named(case)?, &dir.path().join("sector"))?;
        let scene = Self { dir, sector, environment: Vec::new(), mounts: None };
        scene.write_task(&scene.sector.pc1_task()?)?;
        Ok(scene)
    }

    /// With an empty work directory.
    fn with_work_dir(case: &str) -> Result<Self> {
        let mut scene = Self::new(case)?;
        fs::create_dir(scene.work_dir())?;
        scene.environment.push(("SEAL_WORK_DIR", scene.work_dir()));
        Ok(scene)
    }

    fn work_dir(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    fn task(&self) -> PathBuf {
        self.dir.path().join("task.json")
    }

    fn write_task(&self, task: &Value) -> Result<()> {
        Ok(fs::write(self.task(), task.to_string())?)
    }

    fn launch(&self) -> Result<Launch> {
        let mut launch = Launch::executor(Stage::Pc1, self.dir.path())?;
        for (name, value) in &self.environment {
            launch = launch.env(name, value);
        }
        if let Some(mounts) = &self.mounts {
            launch = launch.mounts(mounts);
        }
        Ok(launch.args(["run", "--task"]).args([self.task()]))
    }

    /// Starts PC1 with a log of its own.
    fn start(&self) -> Result<Child> {
        let launch = self.launch()?;
        let mut command = launch.command()?;
        fs::write(self.log(), "")?;
        Ok(command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn()?)
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("pc1-exec.log")
    }

    /// Runs PC1 to its end. Returns the layers that were labelled.
    fn run(&self) -> Result<Vec<u32>> {
        let output = self.start()?.wait_with_output()?;
        let log = fs::read_to_string(self.log())?;
        ensure!(output.status.success(), "{}: {log}", output.status);
        let answer: Value = serde_json::from_slice(&output.stdout)?;
        let comm_d: seal_types::Commitment = serde_json::from_value(answer["comm_d"].clone())?;
        ensure!(comm_d.to_string() == self.sector.vector.comm_d, "comm_d is {comm_d}");
        labelled(&log)
    }

    /// Runs PC1, which must fail, and returns what it says.
    fn fails(&self) -> Result<String> {
        let output = self.start()?.wait_with_output()?;
        let log = fs::read_to_string(self.log())?;
        ensure!(!output.status.success() && output.stdout.is_empty(), "it succeeds: {log}");
        Ok(log)
    }

    /// Runs PC1 until `finished` layers are on record in `directory`, and kills it.
    fn kill_after(&self, finished: usize, directory: impl Fn() -> Result<PathBuf>) -> Result<()> {
        let mut child = self.start()?;
        let reached = until(PATIENCE, || {
            Ok(directory().and_then(|path| on_record(&path)).unwrap_or(0) >= finished)
        });
        child.kill()?;
        child.wait()?;
        reached
    }

    /// The directory that PC1 has made in the work directory.
    fn own_work_dir(&self) -> Result<PathBuf> {
        Ok(self.work_dir().join(&self.sector.vector.replica_id))
    }

    /// Everything is as the vector has it, and there is nothing else.
    fn is_labelled(&self) -> Result<()> {
        let expected = expected(&self.sector.vector);
        let files = self.sector.files()?;
        ensure!(files == expected, "{files:#?} is not {expected:#?}");
        Ok(())
    }
}

/// A layer that has changed since it was finished, put aside.
const KEPT: &str = ".seal-exec-changed-layer.dat";

/// What PC1 leaves, as the vector has it.
fn expected(vector: &Vector) -> BTreeMap<String, FileDigest> {
    let mut files = vector.cache_files.clone();
    files.retain(|name, _| name.contains("layer") || name.contains("tree-d"));
    let sealed = FileDigest { bytes: vector.sector_size, sha256: vector.staged_sha256.clone() };
    files.insert("sealed".to_owned(), sealed);
    files
}

/// The layers that a run has labelled, as its log tells.
fn labelled(log: &str) -> Result<Vec<u32>> {
    let lines = log.lines().filter(|line| line.contains("\"layer labelled\""));
    lines
        .map(|line| {
            let line: Value = serde_json::from_str(line)?;
            Ok(u32::try_from(line["layer"].as_u64().context("a layer")?)?)
        })
        .collect()
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
fn killed_at_any_moment_it_goes_on_and_makes_the_same_files() -> Result<()> {
    kill_and_go_on(&Scene::new(CASE)?)
}

#[test]
fn killed_at_any_moment_with_a_work_directory_it_goes_on_too() -> Result<()> {
    kill_and_go_on(&Scene::with_work_dir(CASE)?)
}

fn kill_and_go_on(scene: &Scene) -> Result<()> {
    // The parents cache is there from now on.
    scene.run()?;
    scene.sector.clear()?;
    let began = Instant::now();
    ensure!(scene.run()? == [1, 2], "a new sector is labelled whole");
    let whole_run = began.elapsed();
    scene.is_labelled()?;

    let mut moments = Moments(0x9e37_79b9_7f4a_7c15);
    let mut kept = [0; 3];
    for kill in 0..20 {
        scene.sector.clear()?;
        let moment = moments.next_below(whole_run);
        let mut child = scene.start()?;
        std::thread::sleep(moment);
        child.kill()?;
        child.wait()?;
        // In the work directory until all are finished, then on the way to the cache directory.
        let places = [scene.sector.cache(), scene.own_work_dir()?];
        let finished = places.iter().filter_map(|place| on_record(place).ok()).max().unwrap_or(0);
        kept[finished] += 1;
        let labelled = scene.run().with_context(|| format!("kill {kill} after {moment:?}"))?;
        let missing: Vec<u32> = (1..=2).skip(finished).collect();
        ensure!(labelled == missing, "kill {kill}: {labelled:?} labelled, {missing:?} missing");
        scene.is_labelled().with_context(|| format!("kill {kill} after {moment:?}"))?;
        let left = fs::read_dir(scene.work_dir()).map_or(0, Iterator::count);
        ensure!(left == 0, "kill {kill}: {left} entries are left in the work directory");
    }
    ensure!(kept[1] + kept[2] > 0, "no layer was ever finished: {kept:?}");
    Ok(())
}

/// Names the directory in which the inner run of the next test works.
const INNER: &str = "SEAL_TESTS_RESUME_INNER";

/// The layers of production sectors in miniature, which only the library can label. Killed again
/// and again, it comes to its end, and never loses a finished layer.
#[test]
fn eleven_layers_are_finished_by_many_runs_that_are_all_killed() -> Result<()> {
    let vector = Vector::named("shape-16KiB-11layers-a")?;
    if let Some(dir) = std::env::var_os(INNER) {
        return label_in(&vector, Path::new(&dir));
    }
    let dir = tempfile::tempdir()?;
    let inner = |name: &str| -> Result<(Child, PathBuf)> {
        let dir = dir.path().join(name);
        fs::create_dir_all(dir.join("cache"))?;
        fs::write(dir.join("staged"), vector.staged_bytes())?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--exact", "eleven_layers_are_finished_by_many_runs_that_are_all_killed"]);
        let command = command.env(INNER, &dir).stdout(Stdio::null()).stderr(Stdio::null());
        Ok((command.spawn()?, dir.join("cache")))
    };
    let matches_vector = |cache: &Path| -> Result<()> {
        for layer in 1..=11 {
            let name = layer_file(layer);
            let found = file_digest(&cache.join(&name))?;
            ensure!(found == vector.cache_files[&name], "{name} differs");
        }
        Ok(())
    };
    // The second run finds a parents cache, as all that follow do.
    let mut whole_run = Duration::ZERO;
    for name in ["first", "second"] {
        let began = Instant::now();
        let (mut child, cache) = inner(name)?;
        ensure!(child.wait()?.success(), "the inner run fails");
        whole_run = began.elapsed();
        matches_vector(&cache)?;
        fs::create_dir_all(dir.path().join("killed"))?;
        for next in ["second", "killed"] {
            fs::create_dir_all(dir.path().join(next))?;
            copy_dir(
                &dir.path().join(name).join("parents"),
                &dir.path().join(next).join("parents"),
            )?;
        }
    }

    let mut moments = Moments(0x2545_f491_4f6c_dd1d);
    let (mut finished, mut kills, mut between) = (0, 0, 0);
    loop {
        let (mut child, cache) = inner("killed")?;
        if kills < 40 {
            std::thread::sleep(moments.next_below(whole_run));
            child.kill()?;
            kills += 1;
        }
        let status = child.wait()?;
        let now = on_record(&cache).unwrap_or(0);
        ensure!(now >= finished, "{finished} layers were finished and now {now} are");
        finished = now;
        between += usize::from((1..11).contains(&finished));
        if status.success() {
            matches_vector(&cache)?;
            ensure!(fs::read_dir(&cache)?.count() == 13, "layers, tree D and the manifest");
            if kills == 40 {
                break;
            }
            fs::remove_dir_all(&cache)?;
            finished = 0;
        } else if finished == 11 {
            // Killed when all was done; start over.
            matches_vector(&cache)?;
            fs::remove_dir_all(&cache)?;
            finished = 0;
        }
    }
    ensure!(between > 0, "it was never killed between two layers");
    Ok(())
}

fn copy_dir(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

fn label_in(vector: &Vector, dir: &Path) -> Result<()> {
    let labeller = LabellerSettings { producers: 0, ..LabellerSettings::default() };
    let settings = Pc1Settings {
        parents: dir.join("parents"),
        kernel: Kernel::detect(),
        draws: ChaCha8::detect(),
        labeller: Arc::new(Labeller::start(&labeller)?),
        resume: Resume::Yes,
        replace_finished: ReplaceFinished::No,
        work_dir: None,
        lock_wait: Duration::ZERO,
    };
    let job = Pc1Job {
        porep: vector.porep()?,
        cache_path: dir.join("cache"),
        in_path: dir.join("staged"),
        out_path: dir.join("sealed"),
        prover_id: vector.prover_id()?,
        sector_id: vector.sector_id,
        ticket: vector.ticket()?,
        pieces: vec![Piece { commitment: vector.comm_d()?, unpadded_bytes: vector.piece.bytes }],
    };
    let context = TaskContext::new("resume".to_owned(), CancelToken::default());
    pre_commit1(&job, &settings, &context)?;
    Ok(())
}

#[test]
fn damaged_layers_and_those_after_them_are_labelled_anew() -> Result<()> {
    let scene = Scene::new(CASE)?;
    ensure!(scene.run()? == [1, 2], "a new sector is labelled whole");
    ensure!(scene.run()?.is_empty(), "everything is there and right");
    scene.is_labelled()?;

    let flip = |path: &Path| -> Result<()> {
        let file = File::options().read(true).write(true).open(path)?;
        let mut byte = [0];
        file.read_exact_at(&mut byte, 5_000_001)?;
        Ok(file.write_all_at(&[byte[0] ^ 4], 5_000_001)?)
    };
    let cut = |path: &Path| Ok(File::options().write(true).open(path)?.set_len(4 << 20)?);
    let remove = |path: &Path| Ok(fs::remove_file(path)?);
    type Damage<'a> = (&'a dyn Fn(&Path) -> Result<()>, &'a str);
    let damages: [Damage<'_>; 3] =
        [(&flip, "its SHA-256 is"), (&cut, "4194304 bytes"), (&remove, "No such file")];
    let mut on_record = 0;
    for (damage, told) in damages {
        for layer in [2, 1] {
            let path = scene.sector.cache().join(layer_file(layer));
            damage(&path)?;
            let changed = fs::read(&path).ok().filter(|_| told == "its SHA-256 is");
            let labelled = scene.run()?;
            // What is whole and different tells of a fault of the machine: it is kept and on record.
            let kept = scene.sector.cache().join(KEPT);
            ensure!(fs::read(&kept).ok() == changed, "{told}: a layer that changed is kept");
            let record = fs::read_to_string(scene.dir.path().join("run/corruption.jsonl"));
            let lines = record.unwrap_or_default().lines().count();
            on_record += usize::from(changed.is_some());
            ensure!(lines == on_record, "{told}: {lines} lines and not {on_record}");
            if changed.is_some() {
                fs::remove_file(&kept)?;
            }
            ensure!(labelled == (layer..=2).collect::<Vec<_>>(), "{told}: {labelled:?}");
            scene.is_labelled()?;
            let log = fs::read_to_string(scene.log())?;
            ensure!(log.contains(told) && log.contains(&layer_file(layer)), "{told}: {log}");
        }
    }
    Ok(())
}

#[test]
fn cores_with_two_wrong_labels_on_record_label_nothing_until_the_record_is_removed() -> Result<()> {
    let scene = Scene::new("2KiB-v1_1-a")?;
    ensure!(scene.run()? == [1, 2], "a new sector is labelled whole");
    scene.sector.clear()?;
    // Whichever cores this machine has.
    let record = scene.dir.path().join("run/corruption.jsonl");
    let line = |cpu: u32| format!("{{\"stage\":\"pc1\",\"kind\":\"label\",\"cpu\":{cpu}}}\n");
    let once: String = (0..1024).map(line).collect();
    fs::write(&record, &once)?;
    ensure!(scene.run()? == [1, 2], "one wrong label may be an accident");
    scene.sector.clear()?;
    fs::write(&record, once.repeat(2))?;
    let log = scene.fails()?;
    ensure!(log.contains("\"bad-device\""), "{log}");
    ensure!(log.contains("remove that file") && log.contains("corruption.jsonl"), "{log}");
    fs::remove_file(&record)?;
    ensure!(scene.run()? == [1, 2], "the cores are taken in again");
    scene.is_labelled()
}

#[test]
fn layers_that_cannot_be_relied_upon_are_not_used() -> Result<()> {
    let mut scene = Scene::new("2KiB-v1_1-a")?;
    scene.run()?;
    // A manifest that is damaged, or none.
    let manifest = scene.sector.cache().join(MANIFEST);
    let good = fs::read(&manifest)?;
    fs::write(&manifest, &good[..good.len() / 2])?;
    ensure!(scene.run()? == [1, 2], "the manifest is damaged");
    fs::remove_file(&manifest)?;
    ensure!(scene.run()? == [1, 2], "there is no manifest");
    ensure!(scene.run()?.is_empty(), "everything is there and right");
    scene.environment.push(("SEAL_PC1_RESUME", "0".into()));
    ensure!(scene.run()? == [1, 2], "it was told not to use them");
    scene.is_labelled()?;
    scene.environment.pop();

    // Another ticket is another replica: nothing of the first one stays.
    let mut task = scene.sector.pc1_task()?;
    task["ticket"][0] = json!(task["ticket"][0].as_u64().context("a byte")? ^ 1);
    scene.write_task(&task)?;
    ensure!(scene.run()? == [1, 2], "layers of another replica");
    ensure!(scene.is_labelled().is_err(), "another ticket makes other labels");
    scene.write_task(&scene.sector.pc1_task()?)?;
    ensure!(scene.run()? == [1, 2], "layers of another replica");
    scene.is_labelled()
}

#[test]
fn a_work_directory_keeps_layers_when_the_worker_empties_the_cache_directory() -> Result<()> {
    let scene = Scene::with_work_dir(CASE)?;
    ensure!(scene.run()? == [1, 2], "a new sector is labelled whole");
    scene.is_labelled()?;
    ensure!(fs::read_dir(scene.work_dir())?.count() == 0, "the work directory is empty again");

    for _ in 0..3 {
        scene.sector.clear()?;
        scene.kill_after(1, || scene.own_work_dir())?;
        ensure!(!scene.sector.cache().join(layer_file(1)).exists(), "it is moved at the end only");
        scene.sector.clear()?;
        ensure!(scene.run()? == [2], "the first layer is in the work directory");
        scene.is_labelled()?;
    }

    // A layer that changes meanwhile is kept with the sector and not in the work directory.
    scene.sector.clear()?;
    scene.kill_after(1, || scene.own_work_dir())?;
    let layer = scene.own_work_dir()?.join(layer_file(1));
    File::options().write(true).open(layer)?.write_all_at(b"other", 77)?;
    ensure!(scene.run()? == [1, 2], "a layer that has changed is not used");
    ensure!(scene.sector.cache().join(KEPT).exists(), "it is kept");
    ensure!(fs::read_dir(scene.work_dir())?.count() == 0, "the work directory is empty again");

    // A new ticket: what the sector has left under the old one goes.
    scene.sector.clear()?;
    scene.kill_after(1, || scene.own_work_dir())?;
    ensure!(scene.own_work_dir()?.exists(), "the killed run left its directory");
    let mut task = scene.sector.pc1_task()?;
    task["ticket"][0] = json!(task["ticket"][0].as_u64().context("a byte")? ^ 1);
    scene.write_task(&task)?;
    ensure!(scene.run()? == [1, 2], "layers of another replica");
    ensure!(fs::read_dir(scene.work_dir())?.count() == 0, "nothing of the old ticket is left");
    Ok(())
}

#[test]
fn work_directories_that_cannot_be_used_are_told_at_once() -> Result<()> {
    let mut scene = Scene::with_work_dir("2KiB-v1_1-a")?;
    let (work, cache) = (scene.work_dir(), scene.sector.cache());
    let (work, cache) = (work.display().to_string(), cache.display().to_string());
    let check = |scene: &Scene, words: &[&str]| -> Result<()> {
        let log = scene.fails()?;
        for word in words {
            ensure!(log.contains(word), "{word:?} is not named: {log}");
        }
        ensure!(labelled(&log)?.is_empty() && scene.sector.names()?.is_empty(), "{log}");
        Ok(())
    };
    let other = ["not on one file system", &work, &cache, ErrorCode::BadInput.name()];
    // These are found at the start, before there is a task.
    let setting = format!("SEAL_WORK_DIR={work}");
    let at_start = |what| [setting.as_str(), what, "name a directory that is there"];
    let read_only = format!("mount --bind {work} {work} && mount -o remount,bind,ro {work}");
    let elsewhere = scene.dir.path().join("elsewhere");
    fs::create_dir(&elsewhere)?;
    // One file system by its device number, and yet files cannot be moved between two mounts.
    let bound = format!("mount --bind {} {work}", elsewhere.display());
    let tmpfs = format!("mount -t tmpfs none {work}");
    for (mounts, words) in
        [(tmpfs, &other[..]), (bound, &other), (read_only, &at_start("Read-only file system"))]
    {
        if let Err(reason) = can_mount(&mounts) {
            skipped("work directories that cannot be used", &reason);
            return Ok(());
        }
        scene.mounts = Some(mounts);
        check(&scene, words)?;
    }
    scene.mounts = None;
    fs::remove_dir(scene.work_dir())?;
    check(&scene, &at_start("No such file"))?;
    fs::create_dir(scene.work_dir())?;
    scene.run()?;
    scene.is_labelled()
}

#[test]
fn the_supervisor_sends_a_killed_pc1_again_and_it_goes_on() -> Result<()> {
    let scene = Scene::new(CASE)?;
    // Slow labels: the second layer takes long after the first one is there.
    let launch = Launch::supervisor(Stage::Pc1, "[[processors.pc1]]", scene.dir.path())?
        .env("SEAL_FORCE_ISA", "portable");
    let (mut pc1, log) = launch.serve(Stage::Pc1)?;
    let id = pc1.send(&scene.sector.pc1_task()?)?;
    until(PATIENCE, || Ok(on_record(&scene.sector.cache()).unwrap_or(0) == 1))?;
    let executor = fs::read_to_string(format!("/proc/{0}/task/{0}/children", pc1.pid()))?;
    let executor = executor.split_whitespace().next().context("an executor")?.parse()?;
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(executor),
        nix::sys::signal::Signal::SIGKILL,
    )?;
    let answer = pc1.answer(PATIENCE)?;
    ensure!(answer.id == id && answer.err_msg.is_none(), "{answer:?}");
    scene.is_labelled()?;
    let text = log.text()?;
    ensure!(labelled(&text)? == [1, 2], "each layer was labelled once: {text}");
    ensure!(text.contains("the task is sent again"), "{text}");
    ensure!(text.contains("going on after finished layers"), "{text}");
    pc1.close_input();
    let (lines, status) = pc1.ended(PATIENCE)?;
    ensure!(lines.is_empty() && status.success(), "{status}, {lines:?}");
    Ok(())
}
