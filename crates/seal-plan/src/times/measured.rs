//! Times that were measured: results of this project's benchmarks and the history of supervisors.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use seal_types::{RegisteredProof, StageName, shown_reason};
use serde::Deserialize;

use super::{StageTimes, Times};
use crate::given::Reference;
use crate::scheme::MAX_LANES;

/// A file of either kind, told apart by what is in it.
#[derive(Debug, Deserialize)]
struct Measured {
    command: Option<String>,
    /// Hardware threads of the machine that was measured, all of which are used.
    cores: Option<u32>,
    /// Cores, where the benchmark told them apart.
    physical_cores: Option<u32>,
    /// Sectors at once.
    sectors: Option<u32>,
    result: Option<BenchResult>,
    /// What `seal-supervisor status --json` writes.
    supervisors: Option<Vec<Supervisor>>,
    /// A supervisor's own status file.
    stage: Option<String>,
    history: Option<Vec<Ended>>,
}

/// The result of a benchmark.
#[derive(Debug, Deserialize)]
struct BenchResult {
    proof: Option<RegisteredProof>,
    ours: Option<Ours>,
}

#[derive(Debug, Deserialize)]
struct Ours {
    runs: Option<Vec<f64>>,
    ns_per_label: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct Supervisor {
    stage: String,
    #[serde(default)]
    history: Vec<Ended>,
}

/// A task that was answered.
#[derive(Debug, Deserialize)]
struct Ended {
    executor: Option<String>,
    ran: f64,
    error: Option<String>,
}

pub(super) fn take_over(times: &mut Times, path: &Path, text: &str) -> Result<(), String> {
    let measured: Measured = serde_json::from_str(text)
        .map_err(|error| format!("it is no JSON known here: {}", shown_reason(&error)))?;
    let mut found = BTreeMap::new();
    if let (Some(command), Some(result)) = (&measured.command, &measured.result) {
        let (stage, stage_times) = of_benchmark(times, command, result, path)?;
        let reference = reference_of(stage, command, &measured)?;
        found.insert(stage, StageTimes { reference, ..stage_times });
    } else {
        let own = measured.stage.zip(measured.history);
        let own = own.map(|(stage, history)| Supervisor { stage, history });
        let Some(supervisors) = measured.supervisors.or(own.map(|own| vec![own])) else {
            return Err(
                "it is neither the result of a benchmark (\"command\" and \"result\") nor \
                        a status of supervisors (\"supervisors\")"
                    .to_owned(),
            );
        };
        found.extend(of_history(times, supervisors, path)?);
        if found.is_empty() {
            return Err(
                "the supervisors have no task in their history that ended well; come back \
                        when some have, or write times by hand"
                    .to_owned(),
            );
        }
    }
    times.stages.extend(found);
    Ok(())
}

fn of_benchmark(
    times: &Times,
    command: &str,
    result: &BenchResult,
    path: &Path,
) -> Result<(StageName, StageTimes), String> {
    let name = command.split_whitespace().next().unwrap_or_default();
    let stage = name.strip_prefix("bench-").and_then(StageName::from_name).ok_or_else(|| {
        format!(
            "{command:?} measures no stage; the results of bench-pc1, bench-pc2 and bench-c2 do"
        )
    })?;
    let missing = |what| format!("the result of {name} has no {what}");
    let proof = result.proof.ok_or_else(|| missing("proof"))?;
    let ours = result.ours.as_ref().ok_or_else(|| missing("times of ours"))?;
    let runs = ours.runs.as_ref().filter(|runs| !runs.is_empty());
    let runs = runs.ok_or_else(|| missing("runs"))?;
    let before = times.of(stage);
    let (size, wanted) = (proof.sector_size(), times.sector_size);
    let said = path.display();
    if size == wanted {
        return Ok((stage, of_samples(before.clone(), runs, format!("{name}, {said}"))?));
    }
    // Labels are alike in all sizes. For other stages it is not one work that takes the time.
    let Some(ns) = ours.ns_per_label.filter(|_| stage == StageName::Pc1) else {
        let remedy = match stage {
            // There is a captured task of this size only.
            StageName::C2 => "bench-c2 measures 2KiB only".to_owned(),
            _ => format!("measure with --sector-size {wanted}"),
        };
        return Err(format!(
            "it measured {stage} of {size} sectors, from which the time for {wanted} sectors cannot \
             be told; {remedy}, take the history of supervisors (status --json), or write it by \
             hand"
        ));
    };
    #[expect(clippy::cast_precision_loss, reason = "a time")]
    let labels = (wanted.nodes() * crate::figures::layers(wanted)) as f64;
    let seconds = labels * ns / 1e9;
    let spread = of_samples(before.clone(), runs, String::new())?.spread;
    let source = format!("{ns:.0} ns a label measured with {size} sectors by {name}, {said}");
    let stage_times = of_samples(before, &[seconds], source)?;
    Ok((stage, StageTimes { spread, ..stage_times }))
}

/// What a benchmark measured on: all cores of its machine.
fn reference_of(stage: StageName, command: &str, measured: &Measured) -> Result<Reference, String> {
    if stage != StageName::Pc1 {
        if command.split_whitespace().any(|word| word == "--gpu") {
            return Ok(Reference::Gpu);
        }
        let cores = measured.physical_cores.or(measured.cores).filter(|cores| *cores > 0);
        return Ok(cores.map_or(Reference::Unknown, |cores| Reference::Cores(f64::from(cores))));
    }
    let option = |name: &str| -> Result<Option<u32>, String> {
        let mut words = command.split_whitespace();
        let found = words.by_ref().find(|word| {
            word.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
        });
        let value = found.and_then(|word| word.split_once('=').map(|it| it.1).or(words.next()));
        let number = |value: &str| {
            value.parse().map_err(|_| format!("{command:?}: {name} {value:?} is not a number"))
        };
        value.map(number).transpose()
    };
    let producers = option("--producers")?.unwrap_or(1);
    let sectors = measured.sectors.unwrap_or(1).max(1);
    if sectors == 1 {
        return Ok(Reference::unit(1, producers));
    }
    let cores = measured.physical_cores.or(measured.cores).unwrap_or(0);
    let units = cores / producers.saturating_add(1);
    let lanes = if units == 0 { u32::MAX } else { sectors.div_ceil(units) };
    Ok(match lanes {
        lanes @ 1..=MAX_LANES => Reference::unit(lanes, producers),
        // Some sectors waited for others: the time is no time of a sector.
        _ => {
            return Err(format!(
                "{command:?} ran {sectors} sectors on {cores} cores, more than fit on them at once; \
             measure fewer"
            ));
        }
    })
}

fn of_history(
    times: &Times,
    supervisors: Vec<Supervisor>,
    path: &Path,
) -> Result<BTreeMap<StageName, StageTimes>, String> {
    let mut by_stage: BTreeMap<StageName, Vec<Ended>> = BTreeMap::new();
    for supervisor in supervisors {
        let stage: StageName = supervisor.stage.parse().map_err(|error| format!("{error}"))?;
        // What never came to an executor tells nothing of its time.
        let ran = supervisor.history.into_iter().filter(|ended| ended.executor.is_some());
        by_stage.entry(stage).or_default().extend(ran);
    }
    let mut found = BTreeMap::new();
    for (stage, history) in by_stage {
        let well = history.iter().filter(|ended| ended.error.is_none());
        let samples: Vec<_> = well.map(|ended| ended.ran).collect();
        if samples.is_empty() {
            continue;
        }
        let count = samples.len();
        let tasks = if count == 1 { "task" } else { "tasks" };
        let source = format!("{count} {tasks} in {}", path.display());
        let fails = (history.len() - count) as f64 / history.len() as f64;
        let stage_times = of_samples(times.of(stage), &samples, source)?;
        found.insert(stage, StageTimes { fails, ..stage_times });
    }
    Ok(found)
}

/// Times with the mean and spread of `seconds`; what these do not tell is as `before`.
fn of_samples(before: StageTimes, seconds: &[f64], source: String) -> Result<StageTimes, String> {
    let count = seconds.len() as f64;
    let mean = seconds.iter().sum::<f64>() / count;
    let time = Duration::try_from_secs_f64(mean).ok().filter(|time| !time.is_zero());
    let Some(time) = time.filter(|_| seconds.iter().all(|run| *run >= 0.0)) else {
        return Err(format!("a mean of {mean} seconds is no time that a task can take"));
    };
    // One measurement alone says nothing of the spread.
    let mut spread = before.spread;
    if seconds.len() > 1 {
        let squares = seconds.iter().map(|run| (run - mean).powi(2)).sum::<f64>();
        spread = ((squares / (count - 1.0)).sqrt() / mean).min(3.0);
    }
    Ok(StageTimes { time: Some(time), spread, source, ..before })
}

#[cfg(test)]
mod tests {
    use seal_types::SectorSize;

    use super::*;

    /// Of a result of `cargo xtask bench-pc1`, what is read and some of what is not.
    const PC1: &str = r#"{"command": "bench-pc1 --peer --runs 3", "cores": 2, "sectors": 1,
        "cpu": "Intel(R) Xeon(R) Processor", "result": {
            "clock_ghz": 2.5999980000000003, "limit_ns_per_label": 935.385334911796,
            "ours": {"layer_seconds": 15.765, "ns_per_label": 939.6672248840332,
                "peak_memory_bytes": 2025172992, "runs": [38.587501628, 37.976265312, 38.087732346],
                "seconds": 38.087732346, "seconds_per_sector": 38.087732346},
            "peer": {"runs": [41.826497314, 42.666175654, 42.386633678]},
            "proof": "StackedDrg512MiBV1_1", "ratio": 1.1128683979646656}}"#;

    const PC2: &str = r#"{"command": "bench-pc2", "cores": 2, "commit": "889075b", "result": {
        "limit_seconds": 17.003413083988427, "proof": "StackedDrg512MiBV1_1", "peer": null,
        "ours": {"hashes_per_second": 1138324.6452249351, "reports": [{"elapsed_ms": 18948}],
            "runs": [18.949520324], "seconds": 18.949520324}}}"#;

    fn seconds_of(times: &StageTimes) -> f64 {
        times.time.map_or(f64::NAN, |time| time.as_secs_f64())
    }

    #[test]
    fn results_of_this_projects_benchmarks_are_understood() {
        let mut times = Times::new(SectorSize::MIB_512);
        times.take_over(Path::new("pc1.json"), PC1).expect("a result");
        times.take_over(Path::new("pc2.json"), PC2).expect("a result");
        let pc1 = &times.stages[&StageName::Pc1];
        // The three runs took 38.5875, 37.9763 and 38.0877 seconds.
        assert!((seconds_of(pc1) - 38.217_2).abs() < 1e-3, "{pc1:?}");
        assert!((pc1.spread - 0.008_53).abs() < 1e-4, "{pc1:?}");
        assert_eq!(pc1.source, "bench-pc1, pc1.json");
        assert_eq!(pc1.reference, Reference::Unit(1.0));
        let pc2 = &times.stages[&StageName::Pc2];
        assert_eq!((pc2.time.map(|t| t.as_millis()), pc2.spread), (Some(18_949), 0.03));
        assert_eq!(pc2.reference, Reference::Cores(2.0));
    }

    #[test]
    fn labels_tell_the_time_of_other_sizes_and_nothing_else_does() {
        let mut times = Times::new(SectorSize::GIB_32);
        times.take_over(Path::new("pc1.json"), PC1).expect("a result");
        let pc1 = &times.stages[&StageName::Pc1];
        let labels = 11.0 * f64::from(1 << 30);
        let seconds = labels * 939.667_224_884e-9;
        assert!((seconds_of(pc1) / seconds - 1.0).abs() < 1e-6, "{pc1:?}");
        assert_eq!(pc1.parts, 11);
        assert!(pc1.source.contains("940 ns a label measured with 512MiB"), "{}", pc1.source);
        let error = times.take_over(Path::new("pc2.json"), PC2).expect_err("no way");
        assert!(error.to_string().contains("measured pc2 of 512MiB sectors"), "{error}");
        assert!(error.to_string().contains("measure with --sector-size 32GiB"), "{error}");
    }

    /// Every result that is kept, with sectors of the size that was measured, and of PC1 also with
    /// those of production.
    #[test]
    fn every_result_that_is_kept_can_be_used() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../benches/runs");
        let mut seen = BTreeMap::<StageName, u32>::new();
        for entry in std::fs::read_dir(dir).expect("there") {
            let path = entry.expect("readable").path();
            let name = path.file_name().and_then(|name| name.to_str()).expect("UTF-8");
            let (stage, rest) = name.split_once('-').expect("stage, size and date");
            let Some(stage) = StageName::from_name(stage).filter(|_| name.ends_with(".json"))
            else {
                continue;
            };
            // Such as figures of single kernels, which are of no sector.
            let Some(size) = rest.split_once('-').and_then(|(size, _)| size.parse().ok()) else {
                continue;
            };
            let mut times = Times::new(size);
            times.read(&path).unwrap_or_else(|error| panic!("{error}"));
            let read = &times.stages[&stage];
            let seconds = seconds_of(read);
            assert!((0.1..86_400.0).contains(&seconds), "{name}: {seconds} s");
            assert_ne!(read.reference, Reference::Unknown, "{name}");
            *seen.entry(stage).or_default() += 1;
            let mut large = Times::new(SectorSize::GIB_32);
            let carried = large.read(&path);
            assert_eq!(carried.is_ok(), stage == StageName::Pc1, "{name}: {carried:?}");
        }
        for stage in [StageName::Pc1, StageName::Pc2, StageName::C2] {
            assert!(seen.contains_key(&stage), "no result of {stage} is kept: {seen:?}");
        }
    }

    #[test]
    fn benchmarks_tell_what_they_measured_on() {
        let of = |command: &str, machine: &str| {
            let text = format!(
                r#"{{"command": "{command}", {machine}, "result": {{
                    "proof": "StackedDrg32GiBV1_1", "ours": {{"runs": [100.0]}}}}}}"#
            );
            let mut times = Times::new(SectorSize::GIB_32);
            times.take_over(Path::new("b.json"), &text).map_err(|error| error.to_string())?;
            let of_any = times.stages.into_values().next().expect("one stage");
            Ok::<_, String>(of_any.reference)
        };
        for (command, machine, reference) in [
            ("bench-pc1", r#""cores": 2, "sectors": 1"#, Reference::Unit(1.0)),
            ("bench-pc1 --sectors 8", r#""cores": 4, "sectors": 8"#, Reference::Unit(2.0)),
            (
                "bench-pc1 --sectors 2 --producers 0",
                r#""cores": 2, "sectors": 2"#,
                Reference::Unit(1.45),
            ),
            (
                "bench-pc1 --producers=0 --sectors=8",
                r#""cores": 8, "physical_cores": 4, "sectors": 8"#,
                Reference::Unit(1.13 * 1.45),
            ),
            ("bench-pc2 --gpu", r#""cores": 8"#, Reference::Gpu),
            ("bench-c2 --peer", r#""cores": 8, "physical_cores": 4"#, Reference::Cores(4.0)),
            ("bench-c2", r#""cpu": "x""#, Reference::Unknown),
        ] {
            assert_eq!(of(command, machine), Ok(reference), "{command}");
        }
        let error = of("bench-pc1 --sectors 9", r#""cores": 4, "sectors": 9"#).unwrap_err();
        assert!(error.contains("9 sectors on 4 cores"), "{error}");
    }

    #[test]
    fn a_history_gives_mean_spread_and_failures() {
        let mut times = Times::new(SectorSize::GIB_32);
        let before = times.clone();
        let text = r#"{"at": 1.0, "resources": [], "queue": [], "supervisors": [
            {"stage": "pc2", "pid": 7, "history": [
                {"req": 1, "executor": "processors.pc2[0]", "ran": 100.0, "error": null, "x": 1},
                {"req": 2, "executor": "processors.pc2[0]", "ran": 120.0, "error": null},
                {"req": 3, "executor": "processors.pc2[0]", "ran": 3.0, "error": "internal: no"},
                {"req": 4, "executor": null, "ran": 0.0, "error": "cancelled: end"},
                {"req": 5, "executor": "processors.pc2[1]", "ran": 110.0, "error": null}]},
            {"stage": "c2", "history": []}]}"#;
        times.take_over(Path::new("s.json"), text).expect("a status");
        let pc2 = &times.stages[&StageName::Pc2];
        assert_eq!((pc2.time.map(|t| t.as_secs()), pc2.fails), (Some(110), 0.25));
        assert!((pc2.spread - 10.0 / 110.0).abs() < 1e-9);
        assert_eq!(pc2.source, "3 tasks in s.json");
        assert_eq!(times.of(StageName::C2), before.of(StageName::C2));
        let own = r#"{"form": 1, "stage": "c2", "history": [
            {"executor": "processors.c2[0]", "ran": 60.5, "error": null}]}"#;
        times.take_over(Path::new("c2-7.json"), own).expect("a status file");
        let c2 = &times.stages[&StageName::C2];
        assert_eq!(
            (c2.time.map(|t| t.as_millis()), c2.source.as_str()),
            (Some(60_500), "1 task in c2-7.json")
        );
        assert_eq!(c2.spread, before.of(StageName::C2).spread);
    }

    #[test]
    fn other_json_is_refused_and_says_why() {
        for (text, said) in [
            ("{", "no JSON known here"),
            ("{}", "neither the result of a benchmark"),
            (r#"{"command": "bench-poseidon", "result": {}}"#, "measures no stage"),
            (r#"{"command": "bench-c2", "result": {}}"#, "has no proof"),
            (r#"{"command": "bench-c2", "result": {"proof": "StackedDrg32GiBV1"}}"#, "no times"),
            (r#"{"supervisors": []}"#, "no task in their history"),
            (
                r#"{"stage": "c2", "history": [{"executor": "e", "ran": -4.0, "error": null}]}"#,
                "-4 seconds",
            ),
        ] {
            let mut times = Times::new(SectorSize::GIB_32);
            let error = times.take_over(Path::new("x.json"), text).expect_err(text).to_string();
            assert!(error.contains(said), "{text}: {error}");
            assert_eq!(times, Times::new(SectorSize::GIB_32));
        }
    }
}
