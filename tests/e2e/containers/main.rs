//! The container matrix: in every cell a sector of 2 KiB passes through PC1 and PC2 behind their
//! supervisors to the bytes of the published crates, C2 is there, and status and planner can be
//! asked. Only a demand that cannot be met, and a file system without locks where they are needed,
//! are refused, by an error that names them.
//!
//! `docs/containers.md` has the table of the cells for readers. Those with cgroups of version 2
//! are part of `cargo xtask vm-test`.

mod cells;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use seal_types::Stage;
use serde_json::Value;
use test_support::client::Processor;
use test_support::group::Group;
use test_support::launch::{Launch, Log, can_mount, can_run, test_params};
use test_support::preload::preloadable;
use test_support::sector::Sector;
use test_support::skip::{skipped, slow_tests};
use test_support::vector::{FileDigest, Vector};

use cells::{CELLS, Cell, Place, Verdict};

const PATIENCE: Duration = Duration::from_secs(60);
/// A proof takes about a minute on two cores.
const PROOF_PATIENCE: Duration = Duration::from_secs(900);

/// So many cells are tried at a time: most of what they do is to wait.
const AT_A_TIME: usize = 3;

/// In which C2 computes a proof, when the slow tests were asked for; elsewhere it is started and
/// answers that there are no parameters.
const PROVED_IN: [&str; 2] = ["no `CAP_SYS_NICE`", "all namespaces"];

/// What came of a cell.
enum Outcome {
    /// As it must.
    Right(String),
    /// It cannot be made here.
    Skipped(String),
    Wrong(String),
}

#[test]
fn every_cell_of_the_container_matrix_seals_or_names_the_demand_that_it_cannot_meet() -> Result<()>
{
    let next = Mutex::new(0..CELLS.len());
    let outcomes = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                loop {
                    let Some(number) = next.lock().expect("no panic").next() else { return };
                    let outcome = match tried(&CELLS[number]) {
                        Ok(outcome) => outcome,
                        Err(error) => Outcome::Wrong(format!("{error:#}")),
                    };
                    outcomes.lock().expect("no panic").insert(number, outcome);
                }
            });
        }
    });
    let outcomes = outcomes.into_inner()?;
    let mut table = "\nThe container matrix:\n".to_owned();
    let mut wrong = Vec::new();
    for (cell, outcome) in CELLS.iter().zip(outcomes.values()) {
        let verdict = match outcome {
            Outcome::Right(verdict) => verdict.clone(),
            Outcome::Skipped(reason) => {
                skipped(&format!("the container matrix, {}", cell.name), reason);
                format!("skipped: {reason}")
            }
            Outcome::Wrong(what) => {
                wrong.push(format!("{}: {what}", cell.name));
                "WRONG".to_owned()
            }
        };
        table.push_str(&format!("    {:36} {verdict}\n", cell.name));
    }
    // Not captured by the test harness: it is for who runs it.
    std::io::stderr().write_all(table.as_bytes())?;
    ensure!(outcomes.len() == CELLS.len(), "{} of {} cells", outcomes.len(), CELLS.len());
    ensure!(wrong.is_empty(), "{} cells:\n{}", wrong.len(), wrong.join("\n\n"));
    Ok(())
}

#[test]
fn the_table_of_the_page_for_containers_has_these_cells() -> Result<()> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/containers.md");
    if !page.exists() {
        skipped("the_table_of_the_page_for_containers_has_these_cells", "no documents are here");
        return Ok(());
    }
    let page = fs::read_to_string(page)?;
    let table = page.split("| cell | how the test makes it | verdict |").nth(1);
    let lines = table.context("the table")?.lines().skip(2);
    let rows: Vec<_> = lines.take_while(|line| line.starts_with('|')).collect();
    let row = |cell: &Cell| format!("| {} | {} | {} |", cell.name, cell.made, told(cell.verdict));
    let cells: Vec<_> = CELLS.iter().map(row).collect();
    ensure!(rows == cells, "docs/containers.md must have these rows:\n{}", cells.join("\n"));
    Ok(())
}

/// A verdict in words.
fn told(verdict: Verdict) -> String {
    match verdict {
        Verdict::Seals => "seals".to_owned(),
        Verdict::Warns(text) => format!("seals, with a warning: `{text}`"),
        Verdict::Refuses(text) => format!("refused: `{text}`"),
    }
}

/// A cell that has been made.
struct Made<'a> {
    cell: &'a Cell,
    dir: tempfile::TempDir,
    through: Vec<String>,
    environment: Vec<(&'static str, String)>,
    /// The groups that the processes are in, the inner one first.
    _groups: Vec<Group>,
}

fn tried(cell: &Cell) -> Result<Outcome> {
    let made = match Made::new(cell)? {
        Ok(made) => made,
        Err(reason) => return Ok(Outcome::Skipped(reason)),
    };
    match cell.verdict {
        Verdict::Refuses(text) => made.refuses(text)?,
        Verdict::Seals => made.seals("")?,
        Verdict::Warns(text) => made.seals(text)?,
    }
    Ok(Outcome::Right(told(cell.verdict)))
}

impl<'a> Made<'a> {
    /// The inner error says why it cannot be made here.
    fn new(cell: &'a Cell) -> Result<Result<Self, String>> {
        let dir = tempfile::tempdir()?;
        let (mut through, mut environment, mut groups) = (Vec::new(), Vec::new(), Vec::new());
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        match &cell.place {
            Place::Through(command) => {
                through = words(command);
                let tried = through.iter().map(String::as_str).chain(["true"]);
                if let Err(reason) = can_run(tried) {
                    return Ok(Err(reason));
                }
            }
            Place::Mounts(script) => {
                if let Err(reason) = can_mount(script) {
                    return Ok(Err(reason));
                }
            }
            Place::Group { controller, limit: (file, value), nested } => {
                let name = format!("cell-{}", if *nested { "outer" } else { "own" });
                let Some(group) = Group::of(controller, &name) else {
                    return Ok(Err(format!("no cgroup v1 of {controller} can be made")));
                };
                group.write(file, value)?;
                if *nested {
                    groups.push(group.within("inner").context("no group within")?);
                }
                groups.push(group);
                through = groups[0].entering();
            }
            Place::WithoutPolicies | Place::WithoutLocks(_) => {
                let nodes = Path::new("/sys/devices/system/node/node0");
                if cell.executor.contains("numa_preferred") && !nodes.exists() {
                    return Ok(Err("this kernel tells of no NUMA nodes".to_owned()));
                }
                let source = match cell.place {
                    Place::WithoutPolicies => "e2e/no_policies.c",
                    _ => "e2e/no_locks.c",
                };
                let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
                let library = match preloadable(&source, dir.path())? {
                    Ok(library) => library.display().to_string(),
                    Err(reason) => return Ok(Err(reason)),
                };
                if let Err(reason) = can_run(["env", &format!("LD_PRELOAD={library}"), "true"]) {
                    return Ok(Err(reason));
                }
                environment.push(("LD_PRELOAD", library));
                if let Place::WithoutLocks(part) = cell.place {
                    environment.push(("SEAL_TEST_NO_LOCKS", format!("{}{part}", at(&dir))));
                } else if nix::unistd::geteuid().is_root() {
                    through = words(&["setpriv", "--bounding-set=-sys_nice"]);
                }
            }
            Place::Hangup => {
                through = words(&["sh", "-c", "trap '' HUP; exec \"$@\"", "sh"]);
            }
        }
        for (name, value) in cell.environment {
            environment.push((*name, (*value).to_owned()));
        }
        Ok(Ok(Self { cell, dir, through, environment, _groups: groups }))
    }

    fn launch(&self, launch: Launch) -> Launch {
        let mut launch = match self.cell.place {
            Place::Mounts(script) => launch.mounts(script),
            _ => launch.through(&self.through),
        };
        for (name, value) in &self.environment {
            launch = launch.env(name, value);
        }
        launch
    }

    fn params(&self) -> Result<Option<PathBuf>> {
        if !slow_tests() || !PROVED_IN.contains(&self.cell.name) {
            return Ok(None);
        }
        let name = format!("a proof in a container, {}", self.cell.name);
        Ok(test_params().map_err(|reason| skipped(&name, &reason)).ok())
    }

    fn supervisor(&self, stage: Stage, arguments: &[&str]) -> Result<(Processor, Log)> {
        let cpu = seal_host::allowed_cpus()?.first().context("this test runs on one")?;
        let keys = self.cell.executor.replace("A-CPU", &cpu.to_string());
        let mut config = format!("{}\n", self.cell.supervisor);
        for stage in Stage::ALL {
            config.push_str(&format!("[[processors.{stage}]]\n{keys}\n"));
        }
        let params = self.params()?.unwrap_or_else(|| self.dir.path().join("no-params"));
        let launch = Launch::supervisor(stage, &config, self.dir.path())?
            .args(arguments)
            .env("FIL_PROOFS_PARAMETER_CACHE", params)
            .env("SEAL_ALLOW_TEST_PARAMS", "1")
            .env("SEAL_LOG_FORM", "json");
        self.launch(launch).serve(stage)
    }

    fn sector(&self) -> Result<Sector> {
        Sector::stage(&Vector::named("2KiB-v1_1-a")?, &self.dir.path().join("sector"))
    }

    fn seals(&self, warning: &str) -> Result<()> {
        let sector = self.sector()?;
        let [(mut pc1, pc1_log), (mut pc2, _), (mut c2, c2_log)] = [
            self.supervisor(Stage::Pc1, &["--fault-wait", "5s"])?,
            self.supervisor(Stage::Pc2, &["--fault-wait", "5s"])?,
            self.supervisor(Stage::C2, &["--fault-wait", "5s"])?,
        ];
        let log = || pc1_log.text().unwrap_or_default();
        for log in [&pc1_log, &c2_log] {
            log.wait_for(&["executor is ready"], PATIENCE)?;
        }
        if matches!(self.cell.place, Place::Hangup) {
            for supervisor in [&pc1, &pc2, &c2] {
                hang_up(supervisor.pid())?;
            }
        }
        let pc1out = pc1.call(&sector.pc1_task()?, PATIENCE).with_context(log)?;
        pc2.call(&sector.pc2_task(&pc1out), PATIENCE)?;
        is_sealed(&sector)?;
        self.proves(&mut c2)?;
        if !warning.is_empty() {
            let told = pc1_log.lines_with(&["WARN", warning])?;
            ensure!(!told.is_empty(), "no warning with {warning:?}: {}", log());
        }
        self.is_told_by_status()?;
        self.output("seal-plan", &["hardware"])?;
        for supervisor in [pc1, pc2, c2] {
            let (lines, status) = supervisor.ended_by_input(PATIENCE)?;
            ensure!(lines.is_empty() && status.success(), "{status}, {lines:?}: {}", log());
        }
        for dir in ["alive", "status"] {
            let names = names(&self.dir.path().join("run").join(dir))?;
            ensure!(names.is_empty(), "{dir} still has {names:?}");
        }
        Ok(())
    }

    fn proves(&self, c2: &mut Processor) -> Result<()> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("protocol/c2.request.jsonl");
        let request: Value = serde_json::from_str(&fs::read_to_string(path)?)?;
        if self.params()?.is_some() {
            let c2out = c2.call(&request["task"], PROOF_PATIENCE)?;
            let proof = c2out["proof"].as_array().context("a proof")?;
            ensure!(proof.len() == 192, "{} bytes", proof.len());
            return Ok(());
        }
        let error = c2.call_failing(&request["task"], PATIENCE)?;
        let at = self.dir.path().join("no-params").display().to_string();
        ensure!(error.contains(&at), "{error}");
        Ok(())
    }

    /// Supervisors and executors of all stages are seen by one who asks from the same place, and
    /// from outside.
    fn is_told_by_status(&self) -> Result<()> {
        let launch = |name| Launch::binary(name, self.dir.path());
        for launch in [launch("seal-supervisor")?, self.launch(launch("seal-supervisor")?)] {
            let status = self.text(launch.args(["status", "--json"]))?;
            let status: Value = serde_json::from_str(&status)?;
            let supervisors = status["supervisors"].as_array().context("supervisors")?;
            ensure!(supervisors.len() == 3, "{status:#}");
        }
        Ok(())
    }

    /// What a program writes in this place.
    fn output(&self, name: &str, arguments: &[&str]) -> Result<String> {
        self.text(self.launch(Launch::binary(name, self.dir.path())?).args(arguments))
    }

    fn text(&self, launch: Launch) -> Result<String> {
        let launch = launch.env("SEAL_RUNTIME_DIR", self.dir.path().join("run"));
        let output = launch.command()?.output()?;
        let log = launch.log().text()?;
        ensure!(output.status.success(), "{launch:?}: {}: {log}", output.status);
        Ok(String::from_utf8(output.stdout)?)
    }

    fn refuses(&self, text: &str) -> Result<()> {
        let sector = self.sector()?;
        let before = sector.files()?;
        // Whichever way a start fails, its reason is told soon.
        let soon = ["--fault-wait", "100ms", "--ready-within", "300ms", "--crash-loop-after", "2"];
        let restarts = ["--restart-wait", "10ms", "--restart-wait-max", "10ms"];
        let (mut pc1, log) = self.supervisor(Stage::Pc1, &[&soon[..], &restarts].concat())?;
        let error = pc1.call_failing(&sector.pc1_task()?, PATIENCE)?;
        ensure!(error.contains(text), "{text:?} is not in {error}; {}", log.text()?);
        ensure!(sector.files()? == before, "something was begun: {:?}", sector.names()?);
        let (lines, _) = pc1.ended_by_input(PATIENCE)?;
        ensure!(lines.is_empty(), "{lines:?}");
        Ok(())
    }
}

fn at(dir: &tempfile::TempDir) -> String {
    dir.path().display().to_string()
}

/// A hangup for a process and its children, as its terminal sends one.
fn hang_up(pid: u32) -> Result<()> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    ensure!(!children.trim().is_empty(), "no executor");
    for pid in children.split_ascii_whitespace().chain([pid.to_string().as_str()]) {
        kill(Pid::from_raw(pid.parse()?), Signal::SIGHUP)?;
    }
    Ok(())
}

fn names(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

fn is_sealed(sector: &Sector) -> Result<()> {
    let mut files = sector.files()?;
    files.remove("t_aux");
    let vector = &sector.vector;
    let mut whole = vector.cache_files.clone();
    let sha256 = vector.sealed_sha256.clone();
    whole.insert("sealed".to_owned(), FileDigest { bytes: vector.sector_size, sha256 });
    ensure!(files == whole, "{files:#?} is not {whole:#?}");
    Ok(())
}
