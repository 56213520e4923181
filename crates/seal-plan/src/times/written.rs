//! Times written by hand, as TOML.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use seal_types::{StageName, shown};
use serde::Deserialize;

use super::{StageTimes, Times};
use crate::given::Reference;
use crate::scheme::MAX_LANES;

/// No stage takes longer.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// The file. What it leaves out stays as it was.
#[derive(Debug, Deserialize)]
struct Written {
    seed_wait: Option<String>,
    retry_wait: Option<String>,
    #[serde(flatten)]
    stages: BTreeMap<String, WrittenStage>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenStage {
    time: Option<String>,
    lanes: Option<u32>,
    producers: Option<u32>,
    cores: Option<u32>,
    gpu: Option<bool>,
    spread: Option<f64>,
    fails: Option<f64>,
    dies: Option<String>,
    ready: Option<String>,
    parts: Option<u32>,
    source: Option<String>,
}

pub(super) fn take_over(times: &mut Times, path: &Path, text: &str) -> Result<(), String> {
    let written: Written = toml::from_str(text).map_err(|error: toml::de::Error| {
        // It shows the line of the file, which may be of any length.
        let told = error.to_string();
        told.trim_end().lines().map(shown).collect::<Vec<_>>().join("\n")
    })?;
    if let Some(wait) = &written.seed_wait {
        times.seed_wait = duration("seed_wait", wait)?;
    }
    if let Some(wait) = &written.retry_wait {
        times.retry_wait = duration("retry_wait", wait)?;
    }
    for (name, stage) in written.stages {
        let known: StageName =
            name.parse().map_err(|error| format!("[{}]: {error}", shown(&name)))?;
        let read = read_stage(known, stage, times.of(known), path)?;
        times.stages.insert(known, read);
    }
    Ok(())
}

fn read_stage(
    name: StageName,
    written: WrittenStage,
    mut stage: StageTimes,
    path: &Path,
) -> Result<StageTimes, String> {
    let named = |text: &Option<String>, key: &str| {
        let text = text.as_deref();
        text.map(|text| duration(&format!("{name}.{key}"), text)).transpose()
    };
    if let Some(time) = named(&written.time, "time")? {
        if time.is_zero() {
            return Err(format!("{name}.time is zero; leave the stage out if it takes no time"));
        }
        stage.time = Some(time);
        stage.source = path.display().to_string();
        // What an earlier time was measured on does not hold for this one.
        stage.reference = match name {
            StageName::Pc1 => Reference::unit(1, 1),
            _ => Reference::Unknown,
        };
    }
    if let Some(reference) = read_reference(name, &written)? {
        stage.reference = reference;
    }
    if let Some(spread) = written.spread {
        if !(0.0..=3.0).contains(&spread) {
            return Err(format!(
                "{name}.spread = {spread}: the standard deviation as a part of the mean is from 0 \
                 to 3, such as 0.05 for 5 %"
            ));
        }
        stage.spread = spread;
    }
    if let Some(fails) = written.fails {
        if !(0.0..1.0).contains(&fails) {
            return Err(format!(
                "{name}.fails = {fails}: the share of tasks that fail is from 0 to less than 1"
            ));
        }
        stage.fails = fails;
    }
    if let Some(dies) = named(&written.dies, "dies")? {
        if dies.is_zero() {
            return Err(format!("{name}.dies is zero; leave it out if executors never die"));
        }
        stage.dies = Some(dies);
    }
    if let Some(ready) = named(&written.ready, "ready")? {
        stage.ready = ready;
    }
    if let Some(parts) = written.parts {
        if parts == 0 {
            return Err(format!("{name}.parts = 0: 1 means that a task is done as a whole"));
        }
        stage.parts = parts;
    }
    if let Some(source) = written.source {
        stage.source = source;
    }
    Ok(stage)
}

/// What the time was measured on, as far as the file tells.
fn read_reference(name: StageName, written: &WrittenStage) -> Result<Option<Reference>, String> {
    let WrittenStage { lanes, producers, cores, gpu, .. } = written;
    let of_pc1 = lanes.is_some() || producers.is_some();
    let of_later = cores.is_some() || gpu.is_some();
    if of_pc1 && name != StageName::Pc1 {
        return Err(format!("[{name}]: lanes and producers are of pc1 only"));
    }
    if of_later && !matches!(name, StageName::Pc2 | StageName::C2) {
        return Err(format!("[{name}]: cores and gpu are of pc2 and c2 only"));
    }
    if let Some(lanes) = lanes.filter(|lanes| !(1..=MAX_LANES).contains(lanes)) {
        return Err(format!("{name}.lanes = {lanes}: from 1 to {MAX_LANES} sectors share a unit"));
    }
    Ok(match (cores, gpu) {
        (Some(0), _) => return Err(format!("{name}.cores = 0: nothing runs on no cores")),
        (Some(_), Some(true)) => {
            return Err(format!(
                "{name} has cores and gpu = true: a time with a GPU is taken for all numbers of \
                 cores, so leave cores out"
            ));
        }
        (Some(cores), _) => Some(Reference::Cores(f64::from(*cores))),
        (None, Some(true)) => Some(Reference::Gpu),
        (None, Some(false)) => {
            return Err(format!(
                "{name}.gpu = false: write cores = N, on how many it was measured"
            ));
        }
        (None, None) if of_pc1 => Some(Reference::unit(lanes.unwrap_or(1), producers.unwrap_or(1))),
        (None, None) => None,
    })
}

fn duration(key: &str, text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| {
        format!("{key} = {text:?}: {error}; write a time such as \"2h 30m\" or \"45s\"")
    })?;
    if time > LONGEST {
        return Err(format!("{key} = {text:?} is more than a year"));
    }
    Ok(time)
}

#[cfg(test)]
mod tests {
    use seal_types::SectorSize;

    use super::*;

    fn read(text: &str) -> Result<Times, String> {
        let mut times = Times::new(SectorSize::GIB_32);
        times.take_over(Path::new("t.toml"), text).map_err(|error| error.to_string())?;
        Ok(times)
    }

    #[test]
    fn what_the_file_leaves_out_stays() {
        let before = Times::new(SectorSize::GIB_32);
        let times = read(
            "seed_wait = '80min'\n[pc1]\ntime = '3h 30m'\ndies = '20days'\n[c2]\nfails = 0.01\n\
             [tree_d]\ntime = '5m'\nspread = 0.5\nsource = 'a stopwatch'\n",
        )
        .expect("good times");
        assert_eq!(times.seed_wait.as_secs(), 80 * 60);
        assert_eq!(times.retry_wait, before.retry_wait);
        let pc1 = times.of(StageName::Pc1);
        assert_eq!(pc1.time, Some(Duration::from_secs(12_600)));
        assert_eq!((pc1.spread, pc1.parts), (0.03, 11));
        assert_eq!(pc1.dies, Some(Duration::from_secs(20 * 24 * 3600)));
        assert_eq!(pc1.source, "t.toml");
        let c2 = StageTimes { fails: 0.01, ..StageTimes::unknown(StageName::C2) };
        assert_eq!(times.of(StageName::C2), c2);
        assert_eq!(times.of(StageName::Pc2), before.of(StageName::Pc2));
        assert_eq!(times.of(StageName::TreeD).source, "a stopwatch");
        let given: Vec<_> = times.given().into_keys().collect();
        assert_eq!(given, [StageName::TreeD, StageName::Pc1]);
    }

    #[test]
    fn a_time_comes_with_what_it_was_measured_on() {
        for (text, stage, reference) in [
            ("[pc1]\ntime = '3h'", StageName::Pc1, Reference::Unit(1.0)),
            ("[pc1]\ntime = '3h'\nlanes = 4", StageName::Pc1, Reference::Unit(2.0)),
            ("[pc1]\ntime = '3h'\nproducers = 0", StageName::Pc1, Reference::Unit(1.45)),
            ("[pc2]\ntime = '3h'", StageName::Pc2, Reference::Unknown),
            ("[pc2]\ntime = '3h'\ncores = 8", StageName::Pc2, Reference::Cores(8.0)),
            ("[c2]\ntime = '3m'\ngpu = true", StageName::C2, Reference::Gpu),
            ("[c2]\ngpu = true", StageName::C2, Reference::Gpu),
        ] {
            assert_eq!(read(text).expect(text).of(stage).reference, reference, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        for (text, said) in [
            ("[pc1]\ntime = 'long'", "pc1.time = \"long\""),
            ("[pc1]\ntime = '0s'", "pc1.time is zero"),
            ("[pc1]\ntime = '2years'", "more than a year"),
            ("[pc1]\nspread = -0.1", "pc1.spread = -0.1"),
            ("[pc1]\nspread = nan", "pc1.spread = NaN"),
            ("[pc1]\nfails = 1.0", "pc1.fails = 1"),
            ("[pc1]\ndies = '0s'", "pc1.dies is zero"),
            ("[pc1]\nparts = 0", "pc1.parts = 0"),
            ("[pc1]\nlanes = 5", "pc1.lanes = 5"),
            ("[pc1]\ncores = 5", "cores and gpu are of pc2 and c2 only"),
            ("[pc2]\nlanes = 2", "lanes and producers are of pc1 only"),
            ("[pc2]\ncores = 0", "pc2.cores = 0"),
            ("[c2]\ncores = 4\ngpu = true", "leave cores out"),
            ("[c2]\ngpu = false", "write cores = N"),
            ("[pc1]\ntimes = '1s'", "times"),
            ("[pc3]\ntime = '1s'", "unknown stage \"pc3\""),
            ("seed_wait = 3", "seed_wait"),
            ("[pc1", "TOML"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(said) && error.starts_with("t.toml: "), "{text}: {error}");
        }
    }
}
