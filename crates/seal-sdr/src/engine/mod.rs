//! Multicore labelling: units of one consumer thread and its producers.
//!
//! Label after label waits for the one before, so one thread computes them, the *consumer*. All
//! that does not wait is done ahead by *producers* on neighbouring cores: they gather the parents'
//! labels and hash the header. A unit without producers prepares a few nodes ahead by itself,
//! which uses a single core best where cores are short.
//!
//! A consumer labels up to four sectors at once in interleaved lanes. A sector takes a *seat* at a
//! unit for all its layers; one that finds none waits. Nothing runs outside of a unit.

mod consumer;
mod feed;
mod job;
mod own;
mod producer;
mod seats;
mod unit;

pub use job::{LayerHandle, LayerJob};
pub use seats::{NoSeat, Seat};

use std::sync::Arc;

use seal_host::{Binding, CoreUnit, CpuClaims, CpuSet, NodeId};

use crate::SdrError;
use seats::Seats;
use unit::Unit;

/// Sectors that one consumer can label at once.
pub const MAX_LANES: usize = 4;

/// Threads of one unit: each is bound to its core before it does anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitCores {
    /// Core of the consumer.
    pub consumer: usize,
    /// Cores of the producers; may be none.
    pub producers: Vec<usize>,
    /// The node of its cores, and how strictly its rings have to lie there; `None` on a machine
    /// with one node.
    pub node: Option<(NodeId, Binding)>,
}

impl UnitCores {
    /// The cores of a planned unit. `binding` is how strictly its rings have to lie on its node;
    /// `None` on a machine with one node.
    pub fn of(unit: &CoreUnit, binding: Option<Binding>) -> Self {
        Self {
            consumer: unit.consumer as usize,
            producers: unit.producers.iter().map(|cpu| *cpu as usize).collect(),
            node: binding.map(|binding| (unit.node, binding)),
        }
    }

    /// All its cores.
    fn cpus(&self) -> CpuSet {
        let cores = self.producers.iter().chain([&self.consumer]);
        cores.filter_map(|core| u32::try_from(*core).ok()).collect()
    }
}

/// Binds the calling thread to a core, or tells why it cannot.
pub type Bind = dyn Fn(usize) -> Result<(), String> + Send + Sync;

/// The units of a process.
#[derive(Debug)]
pub struct Engine {
    units: Vec<Unit>,
    seats: Arc<Seats>,
}

impl Engine {
    /// Starts the threads of `units`, each bound by `bind`. At most `lanes` sectors share a unit.
    /// Of units that are equally empty the first is taken.
    ///
    /// # Errors
    /// When a thread cannot be started or bound; nothing keeps running then.
    pub fn start(units: &[UnitCores], lanes: usize, bind: Arc<Bind>) -> Result<Self, SdrError> {
        let lanes = lanes.clamp(1, MAX_LANES);
        let cpus = units.iter().map(UnitCores::cpus).collect();
        let seats = Arc::new(Seats::new(cpus, lanes));
        let units: Result<_, _> =
            units.iter().map(|cores| Unit::start(cores, Arc::clone(&bind))).collect();
        Ok(Self { units: units?, seats })
    }

    /// The same units, each of which works only while no other process has claimed any of its
    /// cores. Nobody may have a seat yet.
    pub fn claiming(mut self, claims: CpuClaims) -> Self {
        self.seats = Arc::new(self.seats.claiming(claims));
        self
    }

    /// A seat for a sector at the emptiest unit. Waits while none is to be had: `waits` is told
    /// why, and `cancelled` ends the wait.
    ///
    /// # Errors
    /// When it was cancelled, or cpus cannot be claimed.
    pub fn take_seat(
        &self,
        waits: &dyn Fn(NoSeat),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Seat, SdrError> {
        self.seats.take(&|_| true, waits, cancelled)
    }

    /// The same at a unit that `suits`, given by its number: asked each time one is looked for.
    ///
    /// # Errors
    /// When it was cancelled, or cpus cannot be claimed.
    pub fn take_seat_at(
        &self,
        suits: &dyn Fn(usize) -> bool,
        waits: &dyn Fn(NoSeat),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Seat, SdrError> {
        self.seats.take(suits, waits, cancelled)
    }

    /// A seat that is free now, at a unit that `suits`, given by its number.
    ///
    /// # Errors
    /// When cpus cannot be claimed.
    pub fn try_seat(&self, suits: &dyn Fn(usize) -> bool) -> Result<Option<Seat>, SdrError> {
        self.seats.try_take(suits)
    }

    /// Starts a layer of the sector that has `seat`.
    ///
    /// # Errors
    /// When there is no memory for its ring.
    pub fn label_layer(&self, seat: &Seat, job: LayerJob) -> Result<LayerHandle, SdrError> {
        self.units[seat.unit()].label_layer(job)
    }

    /// How many sectors can be labelled at the same time.
    pub fn seats(&self) -> usize {
        self.seats.count()
    }
}

#[cfg(test)]
mod tests;
