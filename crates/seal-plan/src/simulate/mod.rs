//! What a scheme will deliver: sectors pass the stages in a simulation, event by event, under the
//! rules that supervisors follow.
//!
//! Who may start, on which executor, and when one that died is started again is decided by
//! `seal-limits`, as on a real machine. Knows nothing of real clocks and processes.

mod dispatch;
mod engine;
mod level;
mod model;
mod report;
mod tally;
mod text;

use std::path::PathBuf;
use std::time::Duration;

use seal_config::{Config, LockOrder, StageName};
use seal_types::SectorSize;

use crate::times::Times;
use crate::{Hardware, Scheme};

use engine::Engine;
use model::Model;

pub use report::{
    CoreGroupReport, Course, GpuReport, LockReport, MemoryReport, Report, StageReport,
};
pub use text::show;

/// How a simulation is run.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Where sectors come from.
    pub supply: Option<Supply>,
    /// When it ends.
    pub until: Until,
    /// What is left out of the statistics.
    pub warm_up: WarmUp,
    /// Where random numbers begin. The same seed gives the same result.
    pub seed: u64,
    /// Who gets locks.
    pub locks: Locks,
}

/// Where sectors come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Supply {
    /// So many are on their way at all times: when one is finished, the next one begins. A worker
    /// with so many sealing threads does this.
    InFlight(u32),
    /// They come by themselves.
    Every {
        /// The mean time between two of them.
        mean: Duration,
        /// Whether they come independently of each other (a Poisson process) instead of evenly.
        random: bool,
    },
}

/// When a simulation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// When so many sectors are finished since the statistics began.
    Sectors(u64),
    /// At this time.
    Time(Duration),
}

/// What is left out of the statistics at the beginning, because the machine is still empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WarmUp {
    /// The time until then.
    Time(Duration),
    /// The time until so many sectors are finished.
    Sectors(u64),
}

/// Who gets a lock that is free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Locks {
    /// As the configuration says.
    AsConfigured,
    /// All locks in this order, whatever the configuration says.
    Ordered(LockOrder),
    /// Whoever looks first, as without a supervisor for all stages: a stage whose task ends looks
    /// at once, and others find out when they look the next time, a second later at most. So the
    /// stage that had the lock has it again as long as it has more to do.
    Greedy,
}

/// A simulation that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// There is nothing to simulate.
    #[error("{} has no executor of any stage of sealing; add [[processors.pc1]] and its like", path.display())]
    Nothing {
        /// The configuration.
        path: PathBuf,
    },
    /// Nothing is known about how long the tasks of an executor take.
    #[error(
        "nothing is known about the time that {key} takes for {size} sectors: it is other \
         software, or has no core of this machine; give times with --times FILE, such as \
         [{stage}] time = \"30min\""
    )]
    NoTime {
        /// The executor.
        key: String,
        /// Its stage.
        stage: StageName,
        /// The size of the sectors.
        size: SectorSize,
    },
}

impl Until {
    fn is_reached(self, finished: u64) -> bool {
        matches!(self, Self::Sectors(count) if finished >= count)
    }
}

/// Simulates `scheme`, which is what `config` means on `hardware`.
pub fn simulate(
    config: &Config,
    scheme: &Scheme,
    hardware: &Hardware,
    times: &Times,
    options: &Options,
) -> Result<Report, SimulateError> {
    let model = Model::new(config, scheme, hardware, times)?;
    let enough = model.enough_in_flight();
    let room = crate::disk::room(hardware, scheme.sector_size);
    // A worker that has no more disk has no more sectors on their way.
    let room = room.map(|room| u32::try_from(room).unwrap_or(u32::MAX).max(1));
    let supply = options
        .supply
        .unwrap_or_else(|| Supply::InFlight(room.map_or(enough, |room| enough.min(room))));
    let mut engine = Engine::new(&model, options, supply);
    let end = engine.run();
    let mut report = Report::new(&model, scheme, hardware, options, supply, &mut engine.tally, end);
    let cut = options.supply.is_none().then_some(enough);
    report.judge_disks(scheme.sector_size, room, cut);
    Ok(report)
}

#[cfg(test)]
mod tests;
