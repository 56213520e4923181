//! Lines that are no request, and requests that are no task of the stage.

use anyhow::{Result, ensure};
use seal_types::Stage;
use seal_wire::ErrorCode;
use serde_json::{Value, json};
use test_support::client::Processor;
use test_support::launch::Log;

use super::*;

/// An executor with a good task for it, ready to be asked.
struct Served {
    stage: Stage,
    processor: Processor,
    log: Log,
    task: Value,
    sector: Sector,
}

impl Served {
    fn start(stage: Stage, dir: &Path) -> Result<Self> {
        let dir = dir.join(stage.name());
        fs::create_dir(&dir)?;
        let (sector, task) = match stage {
            Stage::Pc1 => {
                let sector = stage_small(&dir)?;
                let task = sector.pc1_task()?;
                (sector, task)
            }
            Stage::Pc2 => {
                let (sector, pc1out) = after_pc1("2KiB-v1_1-a", &dir)?;
                let task = sector.pc2_task(&pc1out);
                (sector, task)
            }
            Stage::C2 => (stage_small(&dir)?, captured_c2_task()?),
        };
        let (processor, log) =
            if stage == Stage::C2 { c2_without_params(&dir)? } else { serve(stage, &dir)? };
        Ok(Self { stage, processor, log, task, sector })
    }

    /// The good task is done.
    fn still_serves(&mut self) -> Result<()> {
        match self.stage {
            Stage::Pc1 => pc1_succeeds(&mut self.processor, &self.sector).map(drop),
            Stage::Pc2 => {
                pc2_succeeds(&mut self.processor, &self.sector, &self.task["pc1out"].clone())
            }
            Stage::C2 => c2_still_serves(&mut self.processor),
        }
    }

    /// Sends a line and expects that request `id` is refused.
    fn refuses_line(&mut self, line: &[u8], id: u64, words: &[&str]) -> Result<()> {
        self.processor.send_bytes(line)?;
        let answer = self.processor.answer(PATIENCE)?;
        ensure!(answer.id == id, "{} answered as {}", id, answer.id);
        tells(&answer.err_msg.unwrap_or_default(), ErrorCode::BadRequest, words)
    }
}

fn stage_small(dir: &Path) -> Result<Sector> {
    stage("2KiB-v1_1-a", dir)
}

#[test]
fn tasks_with_unknown_missing_or_wrong_typed_fields_are_refused() -> Result<()> {
    let dir = tempfile::tempdir()?;
    for stage in Stage::ALL {
        let mut served = Served::start(stage, dir.path())?;
        let before = served.sector.files()?;
        // The field that holds the proof, a number and an identifier, by stage.
        let (proof, number, bytes) = match stage {
            Stage::Pc1 => ("/registered_proof", "/sector_id", "/ticket"),
            Stage::Pc2 => ("/pc1out/registered_proof", "/pc1out/config/size", "/pc1out/comm_d"),
            Stage::C2 => ("/c1out/registered_proof", "/sector_id", "/c1out/comm_r"),
        };
        let set = |pointer: &str, value: Value| {
            let mut task = served.task.clone();
            *task.pointer_mut(pointer).expect("a field of the task") = value;
            task
        };
        let last = |pointer: &'static str| pointer.rsplit('/').next().expect("a pointer");
        let mut unknown = served.task.clone();
        unknown["shortcut"] = json!(true);
        let mut missing = served.task.clone();
        let (outer, _) = bytes.rsplit_once('/').expect("a pointer");
        let fields = missing.pointer_mut(outer).and_then(Value::as_object_mut);
        fields.expect("an object").remove(last(bytes));
        let cases = [
            (unknown, vec!["unknown field", "shortcut"]),
            (missing, vec!["missing field", last(bytes)]),
            (set(proof, json!("StackedDrg3KiBV1_1")), vec!["StackedDrg3KiBV1_1", "64GiB"]),
            (set(proof, json!(5)), vec!["expected"]),
            (set(number, json!("one")), vec!["\"one\"", "u64"]),
            (set(number, json!(-1)), vec!["-1", "u64"]),
            (set(bytes, json!([1, 2, 3])), vec!["invalid length 3"]),
            (set(bytes, json!("0123")), vec!["\"0123\""]),
            (set(bytes, json!(vec![256; 32])), vec!["256", "u8"]),
            (json!([]), vec!["task"]),
            (json!(null), vec!["task"]),
        ];
        for (task, mut words) in cases {
            words.push(stage.name());
            let error = served.processor.call_failing(&task, PATIENCE)?;
            tells(&error, ErrorCode::BadRequest, &words)?;
        }
        ensure!(served.sector.files()? == before, "{stage} touched files");
        served.still_serves()?;
    }
    Ok(())
}

#[test]
fn half_a_line_and_junk_leave_the_next_request_alone() -> Result<()> {
    let dir = tempfile::tempdir()?;
    for stage in Stage::ALL {
        let mut served = Served::start(stage, dir.path())?;
        let half = br#"{"id":70,"task":{"registered_proof":"Stacked"#;
        served.refuses_line(&[half, &b"\n"[..]].concat(), 70, &["EOF"])?;
        served.refuses_line(b"{\"id\":71,\"job\":{}}\n", 71, &["task"])?;
        served.refuses_line(b"{\"id\":72,\"task\":{}} {}\n", 72, &["trailing"])?;
        // None of these has an id, so that nobody waits for an answer.
        for junk in [&b"\n \r\n"[..], b"junk\n", b"{\"id\":-1,\"task\":{}}\n", b"\xff\xfe\x00\n"] {
            served.processor.send_bytes(junk)?;
        }
        served.still_serves()?;
        let told = served.log.lines_with(&["WARN", "refused", "not a request"])?;
        ensure!(told.len() == 6, "{stage} logs each of them but empty lines: {told:#?}");
    }
    Ok(())
}

#[test]
fn half_a_request_at_the_end_of_the_input_is_answered() -> Result<()> {
    let dir = tempfile::tempdir()?;
    for stage in Stage::ALL {
        let mut served = Served::start(stage, dir.path())?;
        let mut line = serde_json::to_vec(&json!({ "id": 5, "task": served.task }))?;
        line.truncate(line.len() / 2);
        served.processor.send_bytes(&line)?;
        served.processor.close_input();
        let (lines, status) = served.processor.ended(PATIENCE)?;
        ensure!(lines.len() == 1 && status.success(), "{stage}: {status}, {lines:?}");
        ensure!(lines[0].contains(r#""id":5,"err_msg":"[bad-request] "#), "{}", lines[0]);
    }
    Ok(())
}

#[test]
fn a_whole_request_without_a_line_end_is_done() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut served = Served::start(Stage::Pc1, dir.path())?;
    served.processor.send_bytes(&serde_json::to_vec(&json!({ "id": 5, "task": served.task }))?)?;
    served.processor.close_input();
    let (lines, status) = served.processor.ended(PATIENCE)?;
    ensure!(lines.len() == 1 && status.success(), "{status}, {lines:?}");
    ensure!(lines[0].starts_with(r#"{"id":5,"err_msg":null,"#), "{}", lines[0]);
    ensure!(served.sector.files()? == expected_after_pc1(&served.sector.vector), "wrong files");
    Ok(())
}

#[test]
fn a_line_over_the_stages_cap_is_refused_with_both_lengths() -> Result<()> {
    let dir = tempfile::tempdir()?;
    for (stage, cap) in [(Stage::Pc1, 1 << 20), (Stage::Pc2, 1 << 20), (Stage::C2, 256_usize << 20)]
    {
        let mut served = Served::start(stage, dir.path())?;
        let line = padded_line(7, &served.task, cap + 1);
        let words = [(cap + 1).to_string(), cap.to_string()];
        served.refuses_line(&line, 7, &[&words[0], &words[1]])?;
        // Without an id nobody can be answered.
        served.processor.send_bytes(&vec![b'x'; cap + 1])?;
        served.processor.send_bytes(b"\n")?;
        served.still_serves()?;
    }
    Ok(())
}

#[test]
fn a_line_as_long_as_the_cap_is_a_good_request() -> Result<()> {
    let dir = tempfile::tempdir()?;
    for (stage, length) in [(Stage::Pc1, 1 << 20), (Stage::Pc2, 1 << 20), (Stage::C2, 60 << 20)] {
        let mut served = Served::start(stage, dir.path())?;
        served.processor.send_bytes(&padded_line(7, &served.task, length))?;
        let answer = served.processor.answer(PATIENCE)?;
        match stage {
            Stage::C2 => {
                let error = answer.err_msg.unwrap_or_default();
                tells(&error, ErrorCode::Parameters, &["is missing"])?;
            }
            _ => ensure!(answer.id == 7 && answer.err_msg.is_none(), "{:?}", answer.err_msg),
        }
    }
    Ok(())
}

/// A request line of `length` bytes, filled with spaces.
fn padded_line(id: u64, task: &Value, length: usize) -> Vec<u8> {
    let mut line = format!("{{\"id\":{id},\"task\":{task}").into_bytes();
    line.resize(length - 1, b' ');
    line.extend_from_slice(b"}\n");
    line
}

#[test]
fn requests_sent_together_are_each_answered_once() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut pc1, _) = serve(Stage::Pc1, dir.path())?;
    let names = ["2KiB-v1-a", "2KiB-v1_1-a", "2KiB-v1_1-cc"];
    let mut sectors = Vec::new();
    for name in names {
        let sector = stage(name, dir.path())?;
        sectors.push((pc1.send(&sector.pc1_task()?)?, sector));
    }
    let bad = pc1.send(&json!({}))?;
    let mut answered = std::collections::BTreeMap::new();
    for _ in 0..=sectors.len() {
        let answer = pc1.answer(PATIENCE)?;
        ensure!(answered.insert(answer.id, answer.err_msg).is_none(), "{} twice", answer.id);
    }
    for (id, sector) in &sectors {
        ensure!(answered.get(id) == Some(&None), "{:?}", answered.get(id));
        ensure!(sector.files()? == expected_after_pc1(&sector.vector), "{}", sector.proof);
    }
    ensure!(answered.get(&bad).is_some_and(Option::is_some), "{bad} has no error");
    pc1.close_input();
    let (lines, status) = pc1.ended(PATIENCE)?;
    ensure!(lines.is_empty() && status.success(), "{status}, {lines:?}");
    Ok(())
}
