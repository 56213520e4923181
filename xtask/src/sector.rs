//! One sector on its way through the stages.

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use seal_types::{RegisteredProof, Stage};
use serde_json::{Value, json};
use test_support::client::Processor;
use test_support::data;

use crate::cargo::binary;
use crate::out::say;

/// From which all inputs are derived, as in `tests/vectors`.
const CASE: &str = "xtask-seal";
const MINER: u64 = 1000;
const SECTOR: u64 = 1;
/// A stage of a 32 GiB sector takes hours.
const PATIENCE: Duration = Duration::from_secs(48 * 3600);

/// Where things lie.
#[derive(Debug)]
pub(crate) struct Places {
    /// Directory of this sector.
    pub(crate) dir: PathBuf,
    /// Groth16 parameters, unless where every program looks.
    pub(crate) params: Option<PathBuf>,
    /// Parents caches, unless where every program looks.
    pub(crate) parents: Option<PathBuf>,
}

/// A sector that is being sealed.
#[derive(Debug)]
pub(crate) struct Sealing {
    proof: RegisteredProof,
    places: Places,
    input: PathBuf,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    step: &'static str,
    by: String,
    took: Duration,
    bytes: u64,
    what: &'static str,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Report {
    proof: RegisteredProof,
    rows: Vec<Row>,
    comm_d: Option<String>,
    comm_r: Option<String>,
    /// The verifier's verdict, where the sector got that far.
    pub(crate) valid: Option<bool>,
}

impl Sealing {
    pub(crate) fn new(
        proof: RegisteredProof,
        places: Places,
        input: Option<&Path>,
    ) -> Result<Self> {
        let input = match input {
            Some(file) => file.to_path_buf(),
            None => {
                let file = places.dir.join("input");
                write_input(&file, proof.sector_size().unpadded_bytes())?;
                file
            }
        };
        for dir in ["cache", "run"] {
            std::fs::create_dir(places.dir.join(dir))?;
        }
        Ok(Self { proof, places, input, rows: Vec::new() })
    }

    pub(crate) fn run(mut self, until: Stage) -> Result<Report> {
        let config = self.places.dir.join("worker.toml");
        std::fs::write(&config, self.config())?;
        let mut processors = Vec::new();
        for stage in Stage::ALL.into_iter().filter(|stage| *stage <= until) {
            processors.push(self.supervisor(stage, &config)?);
        }
        let mut processors = processors.into_iter();
        let mut next = || processors.next().context("a supervisor for every stage");

        let pieces = self.add_piece()?;
        let pc1 = self.pc1(next()?, &pieces)?;
        let (mut comm_r, mut valid) = (None, None);
        if until >= Stage::Pc2 {
            let pc2 = self.pc2(next()?, &pc1)?;
            comm_r = Some(hex(&pc2["comm_r"])?);
            if until >= Stage::C2 {
                let c1 = self.c1(&pc2, &pieces)?;
                let proof = self.c2(next()?, &c1)?;
                valid = Some(self.verify(&pc2, &proof)?);
            }
        }
        let comm_d = Some(hex(&pc1["comm_d"])?);
        Ok(Report { proof: self.proof, rows: self.rows, comm_d, comm_r, valid })
    }

    /// One executor a stage, as a venus-worker.toml would have it.
    fn config(&self) -> String {
        let quoted = |path: &Path| json!(path).to_string();
        let parents =
            self.places.parents.as_deref().map_or_else(String::new, |dir| {
                format!("FIL_PROOFS_PARENT_CACHE = {}", quoted(dir))
            });
        let params = self.places.params.as_deref().map_or_else(String::new, |dir| {
            let dir = quoted(dir);
            format!("FIL_PROOFS_PARAMETER_CACHE = {dir}, SEAL_ALLOW_TEST_PARAMS = \"1\"")
        });
        format!(
            "[processors.limitation.concurrent]\npc1 = 1\npc2 = 1\nc2 = 1\n\n\
             [[processors.pc1]]\nenvs = {{ {parents} }}\n\n\
             [[processors.pc2]]\n\n\
             [[processors.c2]]\nenvs = {{ {params} }}\n"
        )
    }

    fn supervisor(&self, stage: Stage, config: &Path) -> Result<Processor> {
        let mut command = Command::new(binary("seal-supervisor"));
        command
            .args(["processor", stage.name(), "--config"])
            .arg(config)
            // A fault is to end this, not to wait for somebody who mends it.
            .arg("--once")
            .env("SEAL_RUNTIME_DIR", self.places.dir.join("run"));
        self.logs(&mut command)?;
        Processor::start(stage, &mut command, Duration::from_secs(30))
            .with_context(|| format!("the supervisor of {stage} did not start"))
    }

    /// On a terminal people see bars and warnings; otherwise everything goes to a file.
    fn logs(&self, command: &mut Command) -> Result<()> {
        if std::io::stderr().is_terminal() {
            if std::env::var_os("RUST_LOG").is_none() {
                command.env("RUST_LOG", "warn");
            }
            return Ok(());
        }
        let log = self.places.dir.join("log");
        let log = File::options().create(true).append(true).open(log)?;
        command.stderr(Stdio::from(log));
        Ok(())
    }

    /// Runs a step of the published crates and returns its result.
    fn oracle(&self, step: &str, task: Option<&Value>, arguments: &[&str]) -> Result<Value> {
        let mut command = Command::new(binary("oracle"));
        command.arg(step).args(arguments);
        if let Some(task) = task {
            let file = self.places.dir.join(format!("{step}.task.json"));
            std::fs::write(&file, task.to_string())?;
            command.arg("--task").arg(file);
        }
        if let Some(dir) = &self.places.params {
            command.env("FIL_PROOFS_PARAMETER_CACHE", dir);
        }
        self.logs(&mut command)?;
        let output = command.stdout(Stdio::piped()).output().context("cannot start oracle")?;
        ensure!(output.status.success(), "oracle {step} failed: {}", output.status);
        serde_json::from_slice(&output.stdout).with_context(|| format!("result of oracle {step}"))
    }

    fn add_piece(&mut self) -> Result<Value> {
        let started = Instant::now();
        let staged = self.places.dir.join("staged");
        let (proof, input) = (self.proof.to_string(), self.input.clone());
        let arguments = ["--proof", &proof, "--input", utf8(&input)?, "--staged", utf8(&staged)?];
        let added = self.oracle("add-piece", None, &arguments)?;
        self.done("add piece", "oracle", started, &[staged], "staged file");
        Ok(added["piece_infos"].clone())
    }

    fn identity(&self) -> Value {
        json!({
            "registered_proof": self.proof.to_string(),
            "prover_id": data::derive("prover", CASE),
            "sector_id": SECTOR,
            "ticket": data::derive("ticket", CASE),
        })
    }

    fn pc1(&mut self, mut processor: Processor, pieces: &Value) -> Result<Value> {
        let started = Instant::now();
        let dir = &self.places.dir;
        let (cache, sealed) = (dir.join("cache"), dir.join("sealed"));
        // As a worker does.
        File::create(&sealed)?;
        let task = merged(
            self.identity(),
            json!({
                "cache_path": cache, "in_path": dir.join("staged"), "out_path": sealed,
                "piece_infos": pieces,
            }),
        );
        let output = processor.call(&task, PATIENCE).context("PC1")?;
        processor.finish()?;
        let mut files = files_in(&cache)?;
        files.push(sealed);
        self.done("pc1", "pc1-exec", started, &files, "layers, tree D, copy of the data");
        Ok(output)
    }

    fn pc2(&mut self, mut processor: Processor, pc1: &Value) -> Result<Value> {
        let started = Instant::now();
        let dir = &self.places.dir;
        let (cache, sealed) = (dir.join("cache"), dir.join("sealed"));
        let before = files_in(&cache)?;
        let task = json!({ "pc1out": pc1, "cache_dir": cache, "sealed_file": sealed });
        let output = processor.call(&task, PATIENCE).context("PC2")?;
        processor.finish()?;
        let mut files = files_in(&cache)?;
        files.retain(|file| !before.contains(file));
        files.push(sealed);
        self.done("pc2", "pc2-exec", started, &files, "tree C, tree R last, replica");
        Ok(output)
    }

    fn c1(&mut self, pc2: &Value, pieces: &Value) -> Result<Value> {
        let started = Instant::now();
        let dir = &self.places.dir;
        let task = merged(
            self.identity(),
            json!({
                "cache_path": dir.join("cache"), "replica_path": dir.join("sealed"),
                "seed": data::derive("seed", CASE), "comm_r": pc2["comm_r"], "comm_d": pc2["comm_d"],
                "piece_infos": pieces,
            }),
        );
        let output = self.oracle("c1", Some(&task), &[]).context("C1")?;
        let file = self.places.dir.join("c1.output.json");
        std::fs::write(&file, output.to_string())?;
        self.done("c1", "oracle", started, &[file], "vanilla proofs");
        Ok(output)
    }

    fn c2(&mut self, mut processor: Processor, c1: &Value) -> Result<Value> {
        let started = Instant::now();
        let task = json!({
            "c1out": c1, "prover_id": data::derive("prover", CASE), "sector_id": SECTOR,
            "miner_id": MINER,
        });
        let output = processor.call(&task, PATIENCE).context("C2")?;
        processor.finish()?;
        let file = self.places.dir.join("proof");
        let proof: Vec<u8> = serde_json::from_value(output["proof"].clone())?;
        std::fs::write(&file, proof)?;
        self.done("c2", "c2-exec", started, &[file], "Groth16 proof");
        Ok(output["proof"].clone())
    }

    fn verify(&mut self, pc2: &Value, proof: &Value) -> Result<bool> {
        let started = Instant::now();
        let task = merged(
            self.identity(),
            json!({
                "comm_r": pc2["comm_r"], "comm_d": pc2["comm_d"],
                "seed": data::derive("seed", CASE), "proof": proof,
            }),
        );
        let verdict = self.oracle("verify", Some(&task), &[]).context("verification")?;
        self.done("verify", "oracle", started, &[], "");
        verdict["valid"].as_bool().context("a verdict")
    }

    fn done(
        &mut self,
        step: &'static str,
        by: &str,
        started: Instant,
        files: &[PathBuf],
        what: &'static str,
    ) {
        let took = started.elapsed();
        let length = |file: &PathBuf| file.metadata().map_or(0, |meta| meta.len());
        let bytes = files.iter().map(length).sum();
        say(&format!("    {step:<9} {:>9.2} s", took.as_secs_f64()));
        self.rows.push(Row { step, by: by.to_owned(), took, bytes, what });
    }
}

impl Report {
    /// The table people read.
    pub(crate) fn table(&self) -> String {
        let mut lines = vec![
            String::new(),
            format!("{}, sector {SECTOR} of miner {MINER}", self.proof),
            format!("  {:<10} {:<9} {:>10}  {:>12}  output", "step", "by", "time", "bytes"),
        ];
        for row in &self.rows {
            let Row { step, by, took, bytes, what } = row;
            let seconds = took.as_secs_f64();
            let bytes = if what.is_empty() { String::new() } else { bytes.to_string() };
            lines.push(
                format!("  {step:<10} {by:<9} {seconds:>8.2} s  {bytes:>12}  {what}")
                    .trim_end()
                    .to_owned(),
            );
        }
        let line = |name: &str, value: &Option<String>| {
            value.as_ref().map(|value| format!("  {name:<10} {value}"))
        };
        lines.extend(line("comm_d", &self.comm_d));
        lines.extend(line("comm_r", &self.comm_r));
        lines.extend(self.valid.map(|valid| {
            let verdict = if valid { "VALID" } else { "NOT VALID" };
            format!("  {:<10} the proof is {verdict} (filecoin-proofs-api verify_seal)", "verdict")
        }));
        lines.push(String::new());
        lines.join("\n")
    }
}

/// Streams pseudo-random data, so that a 32 GiB sector needs no memory.
pub(crate) fn write_input(file: &Path, length: u64) -> Result<()> {
    const BLOCK: usize = 1 << 20;
    let file = File::create(file).with_context(|| format!("cannot create {}", file.display()))?;
    let mut output = BufWriter::new(file);
    let mut left = length;
    for block in 0_u64.. {
        let count = usize::try_from(left.min(BLOCK as u64)).expect("at most a block");
        output.write_all(&data::piece(&format!("{CASE}-{block}"), count))?;
        left -= count as u64;
        if left == 0 {
            break;
        }
    }
    Ok(output.flush()?)
}

fn files_in(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        files.push(entry?.path());
    }
    Ok(files)
}

fn utf8(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}

fn merged(mut a: Value, b: Value) -> Value {
    if let (Value::Object(a), Value::Object(b)) = (&mut a, b) {
        a.extend(b);
    }
    a
}

fn hex(bytes: &Value) -> Result<String> {
    let bytes: seal_types::Commitment = serde_json::from_value(bytes.clone())?;
    Ok(bytes.to_string())
}
