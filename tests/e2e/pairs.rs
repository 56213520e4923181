//! Two instances of everything beside each other, with one runtime directory and one parents
//! cache: however their starts, tasks and ends follow each other, and however they end, each has
//! its answers, both sectors get their bytes, and what one leaves the next one clears. The planner
//! and the status are asked all the while.
//!
//! A dozen orders are drawn in each run; `cargo xtask test --slow` has all of them. A failure
//! names its order by a number, with which `SEAL_TEST_ORDERS` repeats it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use seal_types::Stage;
use seal_wire::{ErrorCode, RawResponse};
use serde_json::{Value, json};
use test_support::client::{Processor, binary};
use test_support::launch::{Launch, Log, until};
use test_support::sector::Sector;
use test_support::skip::slow_tests;
use test_support::vector::{FileDigest, Vector};

use Program::{Executor, Supervisor};

const PATIENCE: Duration = Duration::from_secs(120);

/// So many orders are tried at a time.
const AT_A_TIME: usize = 3;

/// Drawn where not all are tried: each pair once, and some twice.
const DRAWN: usize = 12;

/// Names the orders to be tried, by their numbers.
const ORDERS: &str = "SEAL_TEST_ORDERS";

/// Whatever is worked on takes the one place there is, so that the two wait for each other.
const CONFIG: &str = r#"
[processors.limitation.concurrent]
pc1 = 1
pc2 = 1
c2 = 1

[processors.ext_locks]
disk = 1

[[processors.pc1]]
locks = ["disk"]

[[processors.pc2]]
locks = ["disk"]

[[processors.c2]]
bin = "FAKE-EXEC"
args = ["c2"]
locks = ["disk"]
"#;

/// What is started, alone or with its executors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Program {
    Executor(Stage),
    Supervisor(Stage),
}

const PAIRS: [[Program; 2]; 10] = [
    [Executor(Stage::Pc1), Executor(Stage::Pc1)],
    [Executor(Stage::Pc2), Executor(Stage::Pc2)],
    [Executor(Stage::C2), Executor(Stage::C2)],
    [Executor(Stage::Pc1), Executor(Stage::Pc2)],
    [Supervisor(Stage::Pc1), Supervisor(Stage::Pc1)],
    [Supervisor(Stage::Pc2), Supervisor(Stage::Pc2)],
    [Supervisor(Stage::C2), Supervisor(Stage::C2)],
    [Supervisor(Stage::Pc1), Supervisor(Stage::Pc2)],
    [Supervisor(Stage::C2), Supervisor(Stage::Pc1)],
    [Supervisor(Stage::Pc1), Executor(Stage::Pc1)],
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Input,
    Term,
    Kill,
}

const ENDS: [End; 3] = [End::Input, End::Term, End::Kill];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Start,
    Task,
    Stop,
}

/// A pair, what is done to it one after the other, and how.
#[derive(Clone, Copy, Debug)]
struct Order {
    pair: [Program; 2],
    /// To which of the two the next step is done; each has three.
    turns: [usize; 6],
    ends: [End; 2],
    /// Which is ended without waiting for its answer.
    early: [bool; 2],
}

impl Order {
    /// All of them, by number.
    fn all() -> Vec<Self> {
        let turns = (0_u8..64).filter(|turns| turns.count_ones() == 3);
        let turns: Vec<_> =
            turns.map(|turns| [0, 1, 2, 3, 4, 5].map(|at| usize::from(turns >> at & 1))).collect();
        let mut orders = Vec::new();
        for pair in PAIRS {
            for &turns in &turns {
                for end in 0..9 {
                    let ends = [ENDS[end / 3], ENDS[end % 3]];
                    for early in [[false, false], [true, false], [false, true], [true, true]] {
                        orders.push(Self { pair, turns, ends, early });
                    }
                }
            }
        }
        orders
    }

    fn steps(&self) -> impl Iterator<Item = (usize, Step)> {
        let mut done = [0; 2];
        self.turns.into_iter().map(move |who| {
            done[who] += 1;
            (who, [Step::Start, Step::Task, Step::Stop][done[who] - 1])
        })
    }
}

/// The numbers of those that are tried.
fn chosen(orders: usize) -> Result<Vec<usize>> {
    if let Ok(numbers) = std::env::var(ORDERS) {
        return numbers.split(',').map(|number| Ok(number.trim().parse()?)).collect();
    }
    if slow_tests() {
        // For each way of starting and ending them, one of the four of stopping them early.
        return Ok((0..orders / 4).map(|number| 4 * number + (number + number / 9) % 4).collect());
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos();
    let word = format!("{now} {}", std::process::id());
    let of_pair = orders / PAIRS.len();
    let drawn = (0..DRAWN).map(|number| {
        let chance = test_support::data::derive(&number.to_string(), &word);
        let chance = u64::from_le_bytes(*chance.first_chunk().expect("32 bytes"));
        (number % PAIRS.len()) * of_pair + usize::try_from(chance % of_pair as u64).expect("small")
    });
    Ok(drawn.collect())
}

#[test]
fn two_of_everything_in_every_order_never_disturb_each_other() -> Result<()> {
    let orders = Order::all();
    ensure!(orders.len() == PAIRS.len() * 20 * 9 * 4, "{} orders", orders.len());
    let left = Mutex::new(chosen(orders.len())?);
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                loop {
                    let Some(number) = left.lock().expect("no panic").pop() else { return };
                    let tried = orders.get(number).context("no such order").and_then(tried);
                    if let Err(error) = tried {
                        let mut wrong = wrong.lock().expect("no panic");
                        wrong.push(format!("{ORDERS}={number}: {error:#}"));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner()?;
    ensure!(wrong.is_empty(), "{} orders:\n{}", wrong.len(), wrong.join("\n\n"));
    Ok(())
}

fn tried(order: &Order) -> Result<()> {
    let scene = Scene::new()?;
    let mut instances =
        [Instance::new(&scene, "a", order.pair[0])?, Instance::new(&scene, "b", order.pair[1])?];
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let onlooker = scope.spawn(|| scene.look_on(&over));
        let done = order.steps().try_for_each(|(who, step)| {
            let bystander = instances[1 - who].watched()?;
            match step {
                Step::Start => instances[who].start(),
                Step::Task => instances[who].begin(),
                Step::Stop => instances[who].stop(order.ends[who], order.early[who]),
            }
            .with_context(|| format!("{step:?} of {}", ["a", "b"][who]))?;
            instances[1 - who].is_undisturbed(&bystander).with_context(|| {
                format!("{} after {step:?} of {}", ["b", "a"][who], ["a", "b"][who])
            })
        });
        over.store(true, Ordering::Release);
        let looked = onlooker.join().map_err(|_| anyhow::anyhow!("a panic"))?;
        done.and(looked)
    })
    .with_context(|| format!("{order:?}"))?;
    // What was not finished is done by the next ones, which clear what is left.
    let pids: Vec<_> = instances.iter().flat_map(|it| it.pids.clone()).collect();
    for instance in &mut instances {
        instance.does_it_again().with_context(|| format!("again, after {order:?}"))?;
    }
    scene.is_cleared(order.pair, &pids).with_context(|| format!("after {order:?}"))
}

/// What the two share.
struct Scene {
    dir: tempfile::TempDir,
    config: PathBuf,
}

impl Scene {
    fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let config = dir.path().join("processors.toml");
        let fake = binary("fake-exec")?.display().to_string();
        fs::write(&config, CONFIG.replace("FAKE-EXEC", &fake))?;
        Ok(Self { dir, config })
    }

    fn run(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    fn launch(&self, name: &str, dir: &Path) -> Result<Launch> {
        Ok(Launch::binary(name, dir)?
            .env("SEAL_RUNTIME_DIR", self.run())
            .env("FIL_PROOFS_PARENT_CACHE", self.dir.path().join("parents"))
            .env("FIL_PROOFS_PARAMETER_CACHE", self.dir.path().join("no-params"))
            .env("RUST_LOG", "debug")
            .env("SEAL_LOG_FORM", "json"))
    }

    /// Asks planner and status again and again.
    fn look_on(&self, over: &AtomicBool) -> Result<()> {
        let ask = |name: &str, arguments: &[&str]| -> Result<Value> {
            let launch = self.launch(name, self.dir.path())?.args(arguments);
            let output = launch.command()?.stdout(Stdio::piped()).stdin(Stdio::null()).output()?;
            let log = || launch.log().text().unwrap_or_default();
            serde_json::from_slice(&output.stdout)
                .with_context(|| format!("{name} {arguments:?}: {}: {}", output.status, log()))
        };
        let config = self.config.to_str().context("a path in UTF-8")?;
        loop {
            let over = over.load(Ordering::Acquire);
            let status = ask("seal-supervisor", &["status", "--json"])?;
            let count = status["supervisors"].as_array().context("supervisors")?.len();
            ensure!(count <= 2, "{status:#}");
            ask("seal-plan", &["check", "--config", config, "--sector-size", "2KiB", "--json"])?;
            if over {
                return Ok(());
            }
        }
    }

    /// Nothing is left but what an undisturbed pair leaves, and no cgroups of `pids`.
    fn is_cleared(&self, pair: [Program; 2], pids: &[u32]) -> Result<()> {
        let (left, wanted) = (paths_in(&self.run())?, left_by(pair)?);
        let more: Vec<_> = left.difference(&wanted).collect();
        ensure!(more.is_empty(), "the runtime directory still has {more:?}");
        for top in ["/sys/fs/cgroup", "/sys/fs/cgroup/cpuset", "/sys/fs/cgroup/unified"] {
            let groups = fs::read_dir(Path::new(top).join("seal-exec"));
            for group in groups.into_iter().flatten().flatten() {
                let name = group.file_name().to_string_lossy().into_owned();
                let is_of = |pid: &u32| name.starts_with(&format!("s{pid}-"));
                ensure!(!pids.iter().any(is_of), "{} is left", group.path().display());
            }
        }
        Ok(())
    }
}

/// What a pair leaves in a runtime directory of which nobody was killed.
fn left_by(pair: [Program; 2]) -> Result<BTreeSet<PathBuf>> {
    static KNOWN: Mutex<BTreeMap<[Program; 2], BTreeSet<PathBuf>>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().expect("no panic");
    if let Some(paths) = known.get(&pair) {
        return Ok(paths.clone());
    }
    let scene = Scene::new()?;
    for (name, program) in ["a", "b"].into_iter().zip(pair) {
        Instance::new(&scene, name, program)?.does_it_again()?;
    }
    let paths = paths_in(&scene.run())?;
    known.insert(pair, paths.clone());
    Ok(paths)
}

/// All paths below a directory, relative to it.
fn paths_in(top: &Path) -> Result<BTreeSet<PathBuf>> {
    let (mut paths, mut dirs) = (BTreeSet::new(), vec![top.to_path_buf()]);
    while let Some(dir) = dirs.pop() {
        // C2 alone shares nothing while it has no parameters.
        if !dir.exists() {
            continue;
        }
        for entry in fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                dirs.push(entry.path());
            } else if dir.ends_with("logs") {
                // The last lines of the last few supervisors are kept for support bundles.
                continue;
            }
            paths.insert(entry.path().strip_prefix(top)?.to_path_buf());
        }
    }
    Ok(paths)
}

/// One of the two, while it runs and before and after.
struct Instance<'a> {
    scene: &'a Scene,
    name: &'static str,
    program: Program,
    sector: Sector,
    task: Value,
    running: Option<(Processor, Log)>,
    /// The request, if it was sent and not answered.
    open: Option<u64>,
    /// Whether its output has come.
    done: bool,
    /// Of everything that was started.
    pids: Vec<u32>,
}

impl<'a> Instance<'a> {
    fn new(scene: &'a Scene, name: &'static str, program: Program) -> Result<Self> {
        let vector = Vector::named(if name == "a" { "2KiB-v1_1-a" } else { "2KiB-v1_1-cc" })?;
        let sector = Sector::stage(&vector, &scene.dir.path().join(name))?;
        let task = match program {
            Executor(Stage::Pc1) | Supervisor(Stage::Pc1) => sector.pc1_task()?,
            Executor(Stage::Pc2) | Supervisor(Stage::Pc2) => {
                let pc1out = labelled(&vector)?.into(&sector)?;
                sector.pc2_task(&pc1out)
            }
            Executor(Stage::C2) => {
                let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("protocol/c2.request.jsonl");
                serde_json::from_str::<Value>(&fs::read_to_string(path)?)?["task"].take()
            }
            Supervisor(Stage::C2) => json!([{ "work_ms": 20 }, { "answer": name }]),
        };
        let (running, open, done, pids) = (None, None, false, Vec::new());
        Ok(Self { scene, name, program, sector, task, running, open, done, pids })
    }

    fn stage(&self) -> Stage {
        let (Executor(stage) | Supervisor(stage)) = self.program;
        stage
    }

    fn start(&mut self) -> Result<()> {
        let dir = self.scene.dir.path().join(self.name);
        let stage = self.stage();
        let launch = match self.program {
            Executor(stage) => {
                self.scene.launch(stage.executor(), &dir)?.args(["processor", stage.name()])
            }
            Supervisor(stage) => {
                let launch = self.scene.launch("seal-supervisor", &dir)?;
                launch.args(["processor", stage.name(), "--config"]).args([&self.scene.config])
            }
        };
        let (processor, log) = launch.serve(stage)?;
        self.pids.push(processor.pid());
        self.running = Some((processor, log));
        Ok(())
    }

    fn begin(&mut self) -> Result<()> {
        let (processor, _) = self.running.as_mut().context("it runs")?;
        self.open = Some(processor.send(&self.task)?);
        Ok(())
    }

    /// Takes an answer: the output, which is looked at, or the error.
    fn takes(&mut self, answer: RawResponse) -> Result<Result<(), String>> {
        ensure!(self.open.take() == Some(answer.id), "an answer to {}", answer.id);
        if let Some(error) = answer.err_msg {
            // C2 without parameters, which are too large for a test of this kind.
            if self.program == Executor(Stage::C2) && error.contains("no-params") {
                self.done = true;
                return Ok(Ok(()));
            }
            return Ok(Err(error));
        }
        if self.program == Supervisor(Stage::C2) {
            let output = answer.output.context("an output")?;
            ensure!(
                serde_json::from_str::<serde_json::Value>(output.get())? == json!(self.name),
                "{output}"
            );
        }
        self.done = true;
        self.is_right().map(Ok)
    }

    fn answers(&mut self) -> Result<()> {
        let (processor, log) = self.running.as_mut().context("it runs")?;
        let log = log.clone();
        let answer = processor.answer(PATIENCE).with_context(|| log.text().unwrap_or_default())?;
        match self.takes(answer)? {
            Ok(()) => Ok(()),
            Err(error) => bail!("{error}; {}", log.text()?),
        }
    }

    /// The sector's bytes.
    fn is_right(&self) -> Result<()> {
        let stage = self.stage();
        if stage == Stage::C2 {
            return Ok(());
        }
        let vector = &self.sector.vector;
        let mut whole = vector.cache_files.clone();
        let mut sha256 = vector.sealed_sha256.clone();
        if stage == Stage::Pc1 {
            whole.retain(|name, _| name.contains("layer") || name.contains("tree-d"));
            sha256.clone_from(&vector.staged_sha256);
        }
        whole.insert("sealed".to_owned(), FileDigest { bytes: vector.sector_size, sha256 });
        let mut files = self.sector.files()?;
        files.remove("t_aux");
        ensure!(files == whole, "{files:#?} is not {whole:#?}");
        Ok(())
    }

    /// Ends it, and looks at all that it still answers.
    fn stop(&mut self, end: End, early: bool) -> Result<()> {
        if !early {
            self.answers()?;
        }
        let (mut processor, log) = self.running.take().context("it runs")?;
        let below = children(processor.pid());
        match end {
            End::Input => processor.close_input(),
            End::Term => processor.terminate()?,
            End::Kill => kill(pid(processor.pid())?, Signal::SIGKILL)?,
        }
        let told = || log.text().unwrap_or_default();
        let (lines, status) = processor.ended(PATIENCE).with_context(told)?;
        ensure!(status.success() || end == End::Kill, "{status}: {}", told());
        for line in lines {
            let answer = RawResponse::parse(line.as_bytes()).with_context(|| line.clone())?;
            if let Err(error) = self.takes(answer)? {
                let code = ErrorCode::of_message(&error);
                let may = [ErrorCode::Cancelled, ErrorCode::Unavailable, ErrorCode::ExecutorDied];
                ensure!(code.is_some_and(|code| may.contains(&code)), "{error}: {}", told());
            }
        }
        if let Some(id) = self.open.take() {
            // One that was told to end before it had read the request has not heard of it.
            let heard = log.lines_with(&[&format!("\"req\":{id},")])?;
            let owes = end == End::Input || end == End::Term && !heard.is_empty();
            ensure!(!owes, "no answer: {}", told());
        }
        self.pids.extend(&below);
        until(PATIENCE, || Ok(below.iter().all(|pid| !is_alive(*pid))))
            .with_context(|| format!("what it had started lives: {below:?}"))
    }

    /// Those that must be the same after something was done to the other one.
    fn watched(&mut self) -> Result<Vec<u32>> {
        let Some((processor, log)) = &self.running else { return Ok(Vec::new()) };
        if matches!(self.program, Supervisor(_)) {
            log.wait_for(&["executor is ready"], PATIENCE)?;
        }
        Ok(children(processor.pid()))
    }

    fn is_undisturbed(&mut self, before: &[u32]) -> Result<()> {
        let Some((processor, log)) = &mut self.running else { return Ok(()) };
        ensure!(processor.is_running()?, "it has ended: {}", log.text()?);
        let now = children(processor.pid());
        ensure!(now == before, "its executors were {before:?} and are {now:?}: {}", log.text()?);
        Ok(())
    }

    /// Another one does the task again.
    fn does_it_again(&mut self) -> Result<()> {
        if self.done {
            self.is_right().context("what was answered")?;
        }
        self.start()?;
        self.begin()?;
        self.stop(End::Input, false)?;
        ensure!(self.done, "it has no answer");
        Ok(())
    }
}

/// A sector after PC1, from which others are copied.
struct Labelled {
    dir: tempfile::TempDir,
    sector: Sector,
    pc1out: String,
}

/// That of a vector, made once.
fn labelled(vector: &Vector) -> Result<&'static Labelled> {
    static KNOWN: [OnceLock<Labelled>; 2] = [OnceLock::new(), OnceLock::new()];
    static MAKING: Mutex<()> = Mutex::new(());
    let known = &KNOWN[usize::from(vector.data == "zero")];
    let _making = MAKING.lock().expect("no panic");
    if known.get().is_none() {
        let dir = tempfile::tempdir()?;
        let sector = Sector::stage(vector, &dir.path().join("sector"))?;
        let (mut pc1, _) = Launch::executor(Stage::Pc1, dir.path())?.serve(Stage::Pc1)?;
        let pc1out = pc1.call(&sector.pc1_task()?, PATIENCE)?.to_string();
        let _ = known.set(Labelled { dir, sector, pc1out });
    }
    known.get().context("it was made")
}

impl Labelled {
    /// Copies its files to those of `sector`; what PC1 answered there.
    fn into(&self, sector: &Sector) -> Result<Value> {
        let copied = Command::new("cp")
            .args(["-a"])
            .args([self.sector.cache().join("."), sector.cache()])
            .status()?;
        ensure!(copied.success(), "cp: {copied}");
        fs::copy(self.sector.sealed(), sector.sealed())?;
        let here = self.dir.path().join("sector").display().to_string();
        let there = sector.cache().parent().context("a directory")?.display().to_string();
        Ok(serde_json::from_str(&self.pc1out.replace(&here, &there))?)
    }
}

fn pid(pid: u32) -> Result<Pid> {
    Ok(Pid::from_raw(i32::try_from(pid)?))
}

/// The children of a process, of all its threads.
fn children(pid: u32) -> Vec<u32> {
    let mut children = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let text = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        children.extend(text.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    children.sort_unstable();
    children
}

/// Whether a process is there and not just waiting for its status to be taken.
fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.starts_with(" Z"))
}
