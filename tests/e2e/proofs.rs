//! The registered proofs, by our executors as processes and judged by the published crates.
//!
//! The oracle runs PC1 and PC2 for the same tasks in the same directories, C1 over the files ours
//! wrote, and the network's verifier over our proofs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use seal_types::{Feature, RegisteredProof, SectorSize, Stage};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use test_support::client::Processor;
use test_support::launch::{Launch, test_params};
use test_support::oracle::Oracle;
use test_support::sector::Sector;
use test_support::skip::skipped;
use test_support::vector::{FileDigest, Vector};

const PATIENCE: Duration = Duration::from_secs(120);
/// A proof takes about a minute on two cores.
const PROOF_PATIENCE: Duration = Duration::from_secs(900);

/// One executor a stage; PC2 and C2 take turns.
const SUPERVISED: &str = r#"
[processors.limitation.concurrent]
pc1 = 1
pc2 = 1
c2 = 1

[processors.ext_locks]
gpu = 1

[[processors.pc1]]

[[processors.pc2]]
locks = ["gpu"]

[[processors.c2]]
args = ["processor", "c2"]
locks = ["gpu"]
"#;

/// The proofs of 2 KiB sectors, each with the vector its data is from.
const SMALL: [(&str, &str); 4] = [
    ("StackedDrg2KiBV1", "2KiB-v1-a"),
    ("StackedDrg2KiBV1_1", "2KiB-v1_1-a"),
    ("StackedDrg2KiBV1_1_Feat_SyntheticPoRep", "2KiB-v1_1-a"),
    ("StackedDrg2KiBV1_2_Feat_NonInteractivePoRep", "2KiB-v1_1-a"),
];

/// A processor as venus-worker starts one.
fn serve(stage: Stage, dir: &Path) -> Result<Processor> {
    let launch = Launch::executor(stage, dir)?.args(["processor", stage.name()]);
    Ok(launch.serve(stage)?.0)
}

fn small_sectors(dir: &Path) -> Result<Vec<Sector>> {
    SMALL
        .into_iter()
        .map(|(proof, vector)| {
            Sector::stage_for(proof.parse()?, &Vector::named(vector)?, &dir.join(proof))
        })
        .collect()
}

/// The oracle for steps that need no parameters.
fn oracle(dir: &Path) -> Oracle {
    Oracle::new(dir, Path::new("/nonexistent"))
}

#[test]
fn all_registered_proofs_are_known_by_the_published_names() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let oracle = oracle(dir.path());
    let mut executors = Vec::new();
    for stage in Stage::ALL {
        executors.push(serve(stage, dir.path())?);
    }
    let [pc1, pc2, c2] = &mut executors[..] else { unreachable!("three stages") };
    let vector = Vector::named("2KiB-v1_1-a")?;
    let captured = captured_c1out()?;

    let mut names: Vec<String> = RegisteredProof::all().map(|proof| proof.to_string()).collect();
    ensure!(names.len() == 20, "{} proofs", names.len());
    for proof in RegisteredProof::all() {
        let sector = Sector::stage_for(proof, &vector, &dir.path().join(proof.to_string()))?;
        // Known to the published crates: they get as far as the parameters or the values.
        let nothing = json!({ "comm_r": vec![0; 32], "comm_d": vec![0; 32] });
        let told = oracle.ask_failing("verify", &sector.verify_task(&nothing, &json!([]))?)?;
        ensure!(!told.contains("not a task"), "{proof} is not known: {told}");

        // Known to ours: they get as far as the files, or the shape of the trees.
        fs::remove_file(sector.staged())?;
        let error = pc1.call_failing(&sector.pc1_task()?, PATIENCE)?;
        ensure!(error.starts_with("[io] cannot open") && error.contains("staged"), "{error}");
        let error = pc2.call_failing(&sector.pc2_task(&labels_of(proof)), PATIENCE)?;
        ensure!(error.starts_with("[bad-input]") && error.contains("layer-1"), "{error}");
        let mut c1out = captured.clone();
        c1out["registered_proof"] = json!(proof.to_string());
        let error = c2.call_failing(&sector.c2_task(&c1out)?, PATIENCE)?;
        let code = match proof.feature() {
            Feature::NonInteractive => "[unsupported]",
            _ if proof.to_string() == "StackedDrg2KiBV1_1" => "[parameters]",
            _ => "[bad-input]",
        };
        ensure!(error.starts_with(code), "{proof}: {error}");
    }

    names.push("StackedDrg1TiBV1_1".to_owned());
    let mut task = Sector::stage(&vector, &dir.path().join("unknown"))?
        .verify_task(&json!({ "comm_r": vec![0; 32], "comm_d": vec![0; 32] }), &json!([]))?;
    task["registered_proof"] = json!(names.last());
    let told = oracle.ask_failing("verify", &task)?;
    ensure!(told.contains("not a task"), "the published crates know {:?}: {told}", names.last());
    Ok(())
}

/// A PC1 output as far as PC2 looks at it before it opens files.
fn labels_of(proof: RegisteredProof) -> Value {
    let store = |id: String| json!({ "path": "/", "id": id, "size": null, "rows_to_discard": 0 });
    let layers: Vec<_> =
        (1..=proof.porep().layers).map(|layer| store(format!("layer-{layer}"))).collect();
    let mut labels = serde_json::Map::new();
    labels.insert(proof.shape_name(), json!({ "labels": layers, "_h": null }));
    json!({
        "registered_proof": proof.to_string(), "labels": labels,
        "config": store("tree-d".to_owned()), "comm_d": vec![0; 32],
    })
}

fn captured_c1out() -> Result<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("protocol/c2.request.jsonl");
    let request: Value = serde_json::from_str(&fs::read_to_string(path)?)?;
    Ok(request["task"]["c1out"].clone())
}

/// What sealing gave: the outputs of PC1 and PC2 and all files.
#[derive(Debug, PartialEq)]
struct Sealed {
    pc1out: Value,
    pc2out: Value,
    files: BTreeMap<String, FileDigest>,
}

#[test]
fn each_stage_takes_the_other_softwares_output_and_gives_the_same() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let oracle = oracle(dir.path());
    let mut pc1 = serve(Stage::Pc1, dir.path())?;
    let mut pc2 = serve(Stage::Pc2, dir.path())?;
    for sector in small_sectors(dir.path())? {
        let mut sealed = Vec::new();
        for (pc1_is_ours, pc2_is_ours) in
            [(false, false), (true, true), (false, true), (true, false)]
        {
            // In the same directory each time: its path is part of the outputs and of t_aux.
            sector.clear()?;
            let task = sector.pc1_task()?;
            let pc1out =
                if pc1_is_ours { pc1.call(&task, PATIENCE)? } else { oracle.ask("pc1", &task)? };
            let task = sector.pc2_task(&pc1out);
            let pc2out =
                if pc2_is_ours { pc2.call(&task, PATIENCE)? } else { oracle.ask("pc2", &task)? };
            sealed.push(Sealed { pc1out, pc2out, files: sector.files()? });
        }
        let theirs = &sealed[0];
        for ours in &sealed[1..] {
            ensure!(ours == theirs, "{}: {ours:#?} is not {theirs:#?}", sector.proof);
        }
    }
    Ok(())
}

#[test]
fn an_8_mib_sector_passes_through_the_processes_as_the_vector_says() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let vector = Vector::named("8MiB-v1_1-a")?;
    let sector = Sector::stage(&vector, &dir.path().join("sector"))?;
    let pc1out = serve(Stage::Pc1, dir.path())?.call(&sector.pc1_task()?, PATIENCE)?;
    ensure!(pc1out["comm_d"] == json!(vector.comm_d()?.0), "{pc1out}");
    let pc2out = serve(Stage::Pc2, dir.path())?.call(&sector.pc2_task(&pc1out), PATIENCE)?;
    let comm_r: seal_types::Commitment = serde_json::from_value(pc2out["comm_r"].clone())?;
    ensure!(comm_r.to_string() == vector.comm_r, "comm_r is {comm_r}");
    let mut files = sector.files()?;
    ensure!(files.remove("t_aux").is_some(), "PC2 writes t_aux");
    let sealed = files.remove("sealed").context("PC2 writes the replica")?;
    ensure!(sealed.sha256 == vector.sealed_sha256, "the replica differs");
    ensure!(files == vector.cache_files, "{files:#?} is not {:#?}", vector.cache_files);
    Ok(())
}

#[test]
fn one_shot_runs_answer_as_the_processor_does() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let sector = Sector::stage(&Vector::named("2KiB-v1-a")?, &dir.path().join("sector"))?;
    let run = |stage: Stage, task: &Value| -> Result<Value> {
        let file = dir.path().join(format!("{stage}.task.json"));
        fs::write(&file, task.to_string())?;
        let launch = Launch::executor(stage, dir.path())?.args(["run", "--task"]).args([&file]);
        let output = launch.command()?.output()?;
        ensure!(output.status.success(), "{}", launch.log().text()?);
        Ok(serde_json::from_slice(&output.stdout)?)
    };
    let pc1out = run(Stage::Pc1, &sector.pc1_task()?)?;
    let pc2out = run(Stage::Pc2, &sector.pc2_task(&pc1out))?;
    let files = sector.files()?;

    sector.clear()?;
    let served = serve(Stage::Pc1, dir.path())?.call(&sector.pc1_task()?, PATIENCE)?;
    ensure!(served == pc1out, "{served} is not {pc1out}");
    let served = serve(Stage::Pc2, dir.path())?.call(&sector.pc2_task(&pc1out), PATIENCE)?;
    ensure!(served == pc2out, "{served} is not {pc2out}");
    ensure!(sector.files()? == files, "the files differ");
    Ok(())
}

/// The one test that proves: one process, one proof after the other, the parameters loaded once.
/// Each stage runs under its supervisor.
#[test]
fn proofs_over_our_files_are_accepted_by_the_networks_verifier() -> Result<()> {
    let params = match test_params() {
        Ok(params) => params,
        Err(reason) => {
            skipped("proofs over our files are accepted by the network's verifier", &reason);
            return Ok(());
        }
    };
    let dir = tempfile::tempdir()?;
    let oracle = Oracle::new(dir.path(), &params);
    let supervised = |stage: Stage| {
        Launch::supervisor(stage, SUPERVISED, dir.path())?
            .env("FIL_PROOFS_PARAMETER_CACHE", &params)
            .env("SEAL_ALLOW_TEST_PARAMS", "1")
            .serve(stage)
    };
    let (mut pc1, _) = supervised(Stage::Pc1)?;
    let (mut pc2, _) = supervised(Stage::Pc2)?;
    let (mut c2, log) = supervised(Stage::C2)?;

    for sector in small_sectors(dir.path())? {
        let proof = sector.proof;
        let pc1out = pc1.call(&sector.pc1_task()?, PATIENCE)?;
        let pc2out = pc2.call(&sector.pc2_task(&pc1out), PATIENCE)?;
        let c1text = oracle.ask_text("c1", &sector.c1_task(&pc2out)?)?;
        if sector.vector.registered_proof == Some(proof) {
            let digest = hex::encode(Sha256::digest(&c1text));
            ensure!(Some(digest) == sector.vector.c1_output_sha256, "C1 of {proof} differs");
        }
        let c1out: Value = serde_json::from_str(&c1text)?;
        check_c1(&sector, &c1out)?;

        let task = sector.c2_task(&c1out)?;
        if proof.feature() == Feature::NonInteractive {
            let error = c2.call_failing(&task, PATIENCE)?;
            let clear = error.starts_with("[unsupported]") && error.contains(&proof.to_string());
            ensure!(clear, "{error}");
            continue;
        }
        let c2out = prove(&mut c2, &task, proof)?;
        let bytes = c2out["proof"].as_array().map_or(0, Vec::len);
        ensure!(bytes == 192 * proof.partitions() as usize, "{proof}: a proof of {bytes} bytes");

        let verdict = oracle.ask("verify", &sector.verify_task(&pc2out, &c2out["proof"])?)?;
        ensure!(verdict == json!({ "valid": true }), "{proof}: {verdict}");
        // The verifier can also say no.
        let mut other = pc2out.clone();
        other["comm_r"] = pc2out["comm_d"].clone();
        let verdict = oracle.ask("verify", &sector.verify_task(&other, &c2out["proof"])?)?;
        ensure!(verdict == json!({ "valid": false }), "{proof}: {verdict}");
    }
    let loads = log.lines_with(&["load parameters", "\"percent\":100"])?;
    ensure!(loads.len() == 1, "the parameters are loaded once: {loads:?}");
    for processor in [pc1, pc2, c2] {
        let (lines, status) = processor.ended_by_input(PATIENCE)?;
        ensure!(lines.is_empty() && status.success(), "{status}, {lines:?}");
    }
    Ok(())
}

/// The vanilla proofs are those of our replica id and as many as the proof has partitions.
fn check_c1(sector: &Sector, c1out: &Value) -> Result<()> {
    let (vector, proof) = (&sector.vector, sector.proof);
    let expected = seal_sdr::replica_id(
        vector.prover_id()?,
        vector.sector_id,
        vector.ticket()?,
        vector.comm_d()?,
        proof.porep_id(),
    );
    ensure!(c1out["replica_id"] == json!(expected.0), "{proof}: another replica id");
    let partitions = c1out["vanilla_proofs"][proof.shape_name()].as_array().map_or(0, Vec::len);
    ensure!(partitions == proof.partitions() as usize, "{proof}: {partitions} partitions");
    ensure!(proof.sector_size() == SectorSize::KIB_2, "{proof} is small");
    Ok(())
}

/// Proves `task`. The request of one of them is as long as that of a 32 GiB sector: 60 MB.
fn prove(c2: &mut Processor, task: &Value, proof: RegisteredProof) -> Result<Value> {
    const LONG: usize = 60_000_000;
    if proof.to_string() != "StackedDrg2KiBV1_1" {
        return c2.call(task, PROOF_PATIENCE).with_context(|| format!("C2 of {proof}"));
    }
    let id = 1_000_000;
    let mut line = format!("{{\"id\":{id},\"task\":").into_bytes();
    line.resize(LONG, b' ');
    line.extend_from_slice(format!("{task}}}\n").as_bytes());
    c2.send_bytes(&line)?;
    let answer = c2.answer(PROOF_PATIENCE)?;
    ensure!(answer.id == id && answer.err_msg.is_none(), "{:?}", answer.err_msg);
    Ok(serde_json::from_str(answer.output.context("an output")?.get())?)
}
