//! What a scheme delivers when it never waits for work: sectors a day, and what limits them.
//!
//! Each stage's sectors are shared out among its executors in the proportion of their speeds. Then
//! nothing may be busier than always: no executor, no limit of a stage, no lock, no distance
//! between starts. It is the limit that a long run approaches; queues and variation, which a
//! simulation shows, stay below.

use std::collections::BTreeMap;
use std::fmt;

use seal_config::StageName;

use crate::estimate::{StageTime, stage_time};
use crate::given::Given;
use crate::{Executor, Hardware, Scheme};

/// Seconds of a day.
const DAY: f64 = 86_400.0;

/// What a scheme delivers.
#[derive(Clone, Debug)]
pub struct Throughput {
    /// Sectors a day.
    pub sectors_per_day: f64,
    /// What allows no more.
    pub limit: Limit,
    /// All that could limit it, with the sectors a day that each allows.
    pub bounds: Vec<(Limit, f64)>,
    /// Each stage alone, in the order of sealing.
    pub stages: Vec<StageRate>,
    /// How long a sector is worked on if it never waits, in seconds.
    pub seconds_of_sector: f64,
}

/// What a stage delivers if all others were infinitely fast.
#[derive(Clone, Debug)]
pub struct StageRate {
    /// The stage.
    pub stage: StageName,
    /// Tasks at the same time.
    pub tasks: u32,
    /// How long a task takes, of the executor that takes longest.
    pub time: StageTime,
    /// Sectors a day.
    pub sectors_per_day: f64,
    /// How busy it is when the whole delivers what it can: from 0 to 1.
    pub busy: f64,
}

/// What allows no more sectors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The executors of a stage are always busy.
    Stage(StageName),
    /// A lock is always held.
    Lock(String),
    /// The distance between starts of a stage.
    Staggered(StageName),
    /// No stage is known well enough.
    Unknown,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stage(stage) => write!(f, "{stage}: its executors are always busy"),
            Self::Lock(name) => write!(f, "lock {name}: it is always held"),
            Self::Staggered(stage) => write!(f, "{stage}: the time between its starts"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// An executor with its time and its share of the stage's sectors.
struct Share<'a> {
    executor: &'a Executor,
    seconds: f64,
    /// Of all sectors, those it gets: from 0 to 1.
    part: f64,
}

/// What `scheme` delivers on `hardware`.
pub fn throughput(scheme: &Scheme, hardware: &Hardware, given: &Given) -> Throughput {
    let mut bounds: Vec<(f64, Limit)> = Vec::new();
    let mut stages = Vec::new();
    let mut held: BTreeMap<&str, f64> = BTreeMap::new();
    let mut seconds_of_sector = 0.0;
    let mut names: Vec<StageName> = scheme.executors.iter().map(|e| e.stage).collect();
    names.dedup();
    for stage in names {
        let Some((shares, time)) = shares(scheme, hardware, given, stage) else { continue };
        // The most sectors a second of which no executor and no limit has too many.
        let mean: f64 = shares.iter().map(|share| share.part * share.seconds).sum();
        let limit = scheme.limits.get(&stage).map(|limit| f64::from(limit.get()) / mean);
        let executors = shares.iter().filter(|share| share.part > 0.0).map(|share| {
            share.executor.tasks.map_or(f64::INFINITY, f64::from) / (share.part * share.seconds)
        });
        let most = executors.chain(limit).fold(f64::INFINITY, f64::min);
        bounds.push((most, Limit::Stage(stage)));
        if let Some(distance) = scheme.staggered.get(&stage).filter(|time| !time.is_zero()) {
            bounds.push((1.0 / distance.as_secs_f64(), Limit::Staggered(stage)));
        }
        for share in &shares {
            for lock in &share.executor.locks {
                *held.entry(lock).or_default() += share.part * share.seconds;
            }
        }
        seconds_of_sector += mean;
        stages.push(StageRate {
            stage,
            tasks: scheme.tasks(stage).unwrap_or(u32::MAX),
            time,
            sectors_per_day: most * DAY,
            busy: 0.0,
        });
    }
    for (lock, seconds) in held {
        let count = scheme.locks.get(lock).map_or(1, |lock| lock.count.get());
        bounds.push((f64::from(count) / seconds, Limit::Lock(lock.to_owned())));
    }
    bounds.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let least = bounds.first().filter(|(rate, _)| rate.is_finite());
    let (rate, limit) = least.cloned().unwrap_or((0.0, Limit::Unknown));
    let sectors_per_day = rate * DAY;
    let bounds = bounds.into_iter().map(|(rate, limit)| (limit, rate * DAY)).collect();
    for stage in &mut stages {
        stage.busy = sectors_per_day / stage.sectors_per_day;
    }
    Throughput { sectors_per_day, limit, bounds, stages, seconds_of_sector }
}

/// The executors of a stage with their shares, and the longest time among them; `None` where no
/// time is known.
fn shares<'a>(
    scheme: &'a Scheme,
    hardware: &Hardware,
    given: &Given,
    stage: StageName,
) -> Option<(Vec<Share<'a>>, StageTime)> {
    let mut shares = Vec::new();
    let mut longest: Option<StageTime> = None;
    for executor in scheme.stage(stage) {
        let Some(time) = stage_time(executor, hardware, scheme.sector_size, given) else {
            continue;
        };
        let seconds = time.time.as_secs_f64().max(1e-9);
        // Executors that take any number get as many as the stage's limit would give them.
        let most = scheme.tasks(stage).unwrap_or(u32::MAX);
        let tasks = executor.tasks.unwrap_or(most).min(most);
        shares.push(Share { executor, seconds, part: f64::from(tasks) / seconds });
        if longest.as_ref().is_none_or(|longest| longest.time < time.time) {
            longest = Some(time);
        }
    }
    let speed: f64 = shares.iter().map(|share| share.part).sum();
    shares.iter_mut().for_each(|share| share.part /= speed);
    (speed > 0.0).then_some(())?;
    Some((shares, longest?))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use seal_types::SectorSize;

    use super::*;
    use crate::given::GivenTime;

    const EPYC: &str = "name = 'm'\nmemory = '2TiB'\ncores_per_l3 = 3\n\
        numa_nodes = [{ id = 0, cpus = '0-47' }, { id = 1, cpus = '48-95' }]\n\
        gpus = [{ index = 0, model = 'G' }, { index = 1, model = 'G' }]";

    fn of(config: &str, given: &[(StageName, u64)]) -> Throughput {
        let hardware = crate::hardware::parse(Path::new("m.toml"), EPYC).expect("good");
        let config = seal_config::parse(Path::new("w.toml"), config).expect("good");
        let scheme = Scheme::of(&config, &hardware, SectorSize::GIB_32);
        let given = given
            .iter()
            .map(|(stage, seconds)| (*stage, GivenTime::as_it_is(Duration::from_secs(*seconds))));
        throughput(&scheme, &hardware, &given.collect())
    }

    fn near(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-6 * b.abs().max(1.0), "{a} is not {b}");
    }

    const GIVEN: &[(StageName, u64)] =
        &[(StageName::Pc1, 8640), (StageName::Pc2, 600), (StageName::C2, 1200)];

    #[test]
    fn the_slowest_stage_decides() {
        let text = "[[processors.pc1]]\nconcurrent = 14\ncgroup.cpuset = '0-41'\n\
                    [[processors.pc2]]\n[[processors.c2]]\n";
        let all = of(text, GIVEN);
        // 14 tasks of a tenth of a day: 140; pc2: 144; c2: 72.
        near(all.sectors_per_day, 72.0);
        assert_eq!(all.limit, Limit::Stage(StageName::C2));
        let per_stage: Vec<_> = all.stages.iter().map(|stage| stage.sectors_per_day).collect();
        for (got, expected) in per_stage.into_iter().zip([140.0, 144.0, 72.0]) {
            near(got, expected);
        }
        near(all.stages[1].busy, 0.5);
        near(all.seconds_of_sector, 10_440.0);
    }

    #[test]
    fn stages_that_share_a_lock_share_its_day() {
        let text = "processors.ext_locks.g = 1\n[[processors.pc2]]\nlocks = ['g']\n\
                    [[processors.c2]]\nlocks = ['g']\n";
        let all = of(text, GIVEN);
        near(all.sectors_per_day, 48.0);
        assert_eq!(all.limit, Limit::Lock("g".to_owned()));
        // Two pairs under two locks do twice as much.
        let text = "processors.ext_locks = { g = 1, h = 1 }\n\
                    [[processors.pc2]]\nlocks = ['g']\n[[processors.pc2]]\nlocks = ['h']\n\
                    [[processors.c2]]\nlocks = ['g']\n[[processors.c2]]\nlocks = ['h']\n";
        near(of(text, GIVEN).sectors_per_day, 96.0);
    }

    #[test]
    fn limits_and_distances_between_starts_count() {
        let text = "[processors.limitation]\nconcurrent.pc1 = 2\n[[processors.pc1]]\n";
        near(of(text, GIVEN).sectors_per_day, 20.0);
        let text = "[processors.limitation]\nstaggered.pc1 = '2h'\n[[processors.pc1]]\n";
        let all = of(text, GIVEN);
        near(all.sectors_per_day, 12.0);
        assert_eq!(all.limit, Limit::Staggered(StageName::Pc1));
    }

    #[test]
    fn sectors_that_share_a_unit_take_longer() {
        let alone = of("[[processors.pc1]]\ncgroup.cpuset = '0-2'\nconcurrent = 1", &[]);
        let two = of("[[processors.pc1]]\ncgroup.cpuset = '0-2'\nconcurrent = 2", &[]);
        near(two.sectors_per_day / alone.sectors_per_day, 2.0 / 1.13);
    }
}
