//! Times that were measured, and what they tell of executors unlike the one that was measured.
//!
//! A time alone says little: a sector that shares its unit with three others takes twice as long as
//! one that is alone on it, and a prover with twice the cores takes half the time. So a time comes
//! with what it was measured on, and is carried over from there by the same rules as estimates.

use std::collections::BTreeMap;
use std::time::Duration;

use seal_config::StageName;

use crate::estimate::{StageTime, cores_of, unit_factor, unit_factor_of};
use crate::{Executor, Hardware, Scheme};

/// Times of stages that somebody measured, which go before the estimates.
pub type Given = BTreeMap<StageName, GivenTime>;

/// What a time was measured on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Reference {
    /// Nobody said: it holds for the executors of its stage as they are.
    #[default]
    Unknown,
    /// A unit of PC1 on which a sector takes so many times as long as one that is alone on a unit
    /// with a producer.
    Unit(f64),
    /// So many cores, on average where several executors were measured, and no GPU.
    Cores(f64),
    /// A GPU.
    Gpu,
}

/// A time that was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct GivenTime {
    /// From the start of a task to its answer.
    pub time: Duration,
    /// What it was measured on.
    pub reference: Reference,
    /// Who says so.
    pub source: String,
}

/// A time that cannot be carried over, because nobody said what it was measured on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{source_text}: the time of {stage} does not say what it was measured on, so it tells nothing \
     of other executors; add a file with {keys} under [{stage}] (--times may be given several times)"
)]
pub struct Unclear {
    /// The stage.
    pub stage: StageName,
    /// Where the time comes from.
    pub source_text: String,
    /// The keys that would say it.
    keys: &'static str,
}

impl Reference {
    /// A unit of PC1 that so many sectors shared, with so many producers.
    pub fn unit(lanes: u32, producers: u32) -> Self {
        Self::Unit(unit_factor(lanes, producers))
    }
}

impl GivenTime {
    /// A time of which nobody said what it was measured on.
    pub fn as_it_is(time: Duration) -> Self {
        Self { time, reference: Reference::Unknown, source: "given".to_owned() }
    }

    /// How long a task takes on `executor`; `None` where the time tells nothing of it: that of a
    /// GPU for an executor without one and the other way round.
    pub fn on(&self, executor: &Executor, hardware: &Hardware) -> Option<StageTime> {
        let (factor, how) = match self.reference {
            Reference::Unknown => (1.0, String::new()),
            Reference::Unit(measured) => {
                let (own, lanes) = unit_factor_of(executor)?;
                let sharing =
                    if lanes > 1 { format!(", {lanes} sectors to a unit") } else { String::new() };
                (own / measured, sharing)
            }
            Reference::Cores(measured) if executor.gpus.is_empty() => {
                let cores = cores_of(executor, hardware);
                let own = f64::from(u32::try_from(cores).ok().filter(|cores| *cores > 0)?);
                let same = (own - measured).abs() < 0.01;
                let from =
                    if same { String::new() } else { format!(", there on {measured} cores") };
                (measured / own, from)
            }
            Reference::Gpu if !executor.gpus.is_empty() => (1.0, String::new()),
            Reference::Cores(_) | Reference::Gpu => return None,
        };
        Some(StageTime { time: self.time.mul_f64(factor), source: format!("{}{how}", self.source) })
    }
}

/// `given` for a search among executors of all kinds. Where nobody said what a time was measured
/// on, it was on the executors of `scheme`, if there is one.
///
/// # Errors
/// When a time would have to be carried over from nobody knows where.
pub fn for_search(
    given: &Given,
    scheme: Option<&Scheme>,
    hardware: &Hardware,
) -> Result<Given, Unclear> {
    let mut clear = given.clone();
    for (stage, time) in &mut clear {
        // Stages of other software are the same in every proposal.
        if time.reference != Reference::Unknown || stage.served().is_none() {
            continue;
        }
        let own = scheme.and_then(|scheme| reference_of(scheme, hardware, *stage));
        time.reference = own.ok_or_else(|| Unclear {
            stage: *stage,
            source_text: time.source.clone(),
            keys: match stage {
                StageName::Pc1 => "lanes = N (sectors to a unit)",
                _ => "gpu = true, or cores = N",
            },
        })?;
    }
    Ok(clear)
}

/// What a mean time of all executors of a stage was measured on, by their tasks; `None` where some
/// have a GPU and others do not, or there are none.
fn reference_of(scheme: &Scheme, hardware: &Hardware, stage: StageName) -> Option<Reference> {
    let executors: Vec<_> = scheme.stage(stage).collect();
    let mean = |of: &dyn Fn(&Executor) -> Option<f64>| {
        let (mut sum, mut tasks) = (0.0, 0.0);
        for executor in &executors {
            let weight = f64::from(executor.tasks.unwrap_or(1));
            sum += of(executor)? * weight;
            tasks += weight;
        }
        (tasks > 0.0 && sum > 0.0).then(|| sum / tasks)
    };
    if stage == StageName::Pc1 {
        return mean(&|executor| Some(unit_factor_of(executor)?.0)).map(Reference::Unit);
    }
    match executors.iter().filter(|executor| !executor.gpus.is_empty()).count() {
        0 => {
            let cores = |executor: &Executor| {
                Some(f64::from(u32::try_from(cores_of(executor, hardware)).ok()?))
            };
            mean(&cores).map(Reference::Cores)
        }
        all if all == executors.len() => Some(Reference::Gpu),
        _ => None,
    }
}
