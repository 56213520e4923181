//! Which sector is labelled by which unit.
//!
//! Processes without cpusets of their own have the same units. Where claims are given, a process
//! claims the cpus of a unit with its first sector there and gives them up with the last one, so
//! that no unit works for two of them.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use seal_host::{CpuClaim, CpuClaims, CpuSet, FileError};

use crate::SdrError;

/// How often one who waits looks whether it is still wanted, and whether another process has
/// given up a unit.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Why a sector has to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSeat {
    /// Seats of all units, taken or not to be had.
    pub seats: usize,
    /// All units.
    pub units: usize,
    /// Units whose cpus other processes have claimed.
    pub claimed_by_others: usize,
}

/// The seats of all units.
#[derive(Debug)]
pub(crate) struct Seats {
    units: Mutex<Vec<Places>>,
    freed: Condvar,
    lanes: usize,
    claims: Option<CpuClaims>,
}

/// The sectors of one unit.
#[derive(Debug)]
struct Places {
    cpus: CpuSet,
    /// How many each of its consumers has, the unit's own first.
    sectors: Vec<usize>,
    /// There while it has sectors, if claims are made.
    claim: Option<CpuClaim>,
}

/// A sector's place at a unit, given up when dropped.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    unit: usize,
    worker: usize,
}

impl Places {
    fn is_empty(&self) -> bool {
        self.sectors.iter().all(|sectors| *sectors == 0)
    }

    /// What speaks against a seat at consumer `worker`, the worst first: sectors that would share
    /// it, then producers that would lose their work, and a unit that is not empty before that.
    fn burden(&self, worker: usize) -> (usize, usize) {
        let state = match (worker, self.is_empty()) {
            (0, true) => 0,
            (0, false) => 1,
            _ => 2,
        };
        (self.sectors[worker], state)
    }
}

impl Seat {
    /// The unit's number, counted from 0.
    pub fn unit(&self) -> usize {
        self.unit
    }

    /// Which of the unit's consumers labels it: 0 is the unit's own, others are on the cores of
    /// its producers, in their order.
    pub fn worker(&self) -> usize {
        self.worker
    }

    /// Whether no other consumer of the unit has a sector.
    pub(crate) fn is_the_only_consumer(&self) -> bool {
        let units = self.seats.lock();
        let sectors = units[self.unit].sectors.iter().enumerate();
        sectors.filter(|(worker, _)| *worker != self.worker).all(|(_, sectors)| *sectors == 0)
    }
}

impl Seats {
    /// `lanes` seats at each consumer of the `units`, given by their cpus and how many consumers
    /// they have.
    pub(crate) fn new(units: Vec<(CpuSet, usize)>, lanes: usize) -> Self {
        let places = |(cpus, consumers)| Places { cpus, sectors: vec![0; consumers], claim: None };
        let units = Mutex::new(units.into_iter().map(places).collect());
        Self { units, freed: Condvar::new(), lanes, claims: None }
    }

    /// The same seats, none of them taken, at units that are claimed before they are used.
    pub(crate) fn claiming(&self, claims: CpuClaims) -> Self {
        let units = self.lock();
        let units = units.iter().map(|places| (places.cpus.clone(), places.sectors.len()));
        Self { claims: Some(claims), ..Self::new(units.collect(), self.lanes) }
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().iter().map(|places| places.sectors.len()).sum::<usize>() * self.lanes
    }

    pub(crate) fn take(
        self: &Arc<Self>,
        waits: &dyn Fn(NoSeat),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Seat, SdrError> {
        let mut told = None;
        let mut units = self.lock();
        loop {
            let mut best: Vec<_> = (0..units.len())
                .flat_map(|unit| (0..units[unit].sectors.len()).map(move |worker| (unit, worker)))
                .collect();
            best.sort_by_key(|(unit, worker)| units[*unit].burden(*worker));
            let mut claimed_by_others = 0;
            for (unit, worker) in best {
                let places = &mut units[unit];
                if places.sectors[worker] >= self.lanes {
                    break;
                }
                if places.is_empty() {
                    // Its other consumers have the same claim.
                    if worker > 0 {
                        continue;
                    }
                    if !self.claim(places)? {
                        claimed_by_others += 1;
                        continue;
                    }
                }
                places.sectors[worker] += 1;
                return Ok(Seat { seats: Arc::clone(self), unit, worker });
            }
            if cancelled() {
                return Err(SdrError::Cancelled);
            }
            // Once, and once more if the reason is another one.
            if told.is_none_or(|told| (told == 0) != (claimed_by_others == 0)) {
                let workers: usize = units.iter().map(|places| places.sectors.len()).sum();
                let seats = workers * self.lanes;
                waits(NoSeat { seats, units: units.len(), claimed_by_others });
                told = Some(claimed_by_others);
            }
            let woken = self.freed.wait_timeout(units, LOOK_EVERY);
            units = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Whether the cpus of a unit without sectors may be used.
    fn claim(&self, places: &mut Places) -> Result<bool, FileError> {
        let Some(claims) = &self.claims else { return Ok(true) };
        places.claim = claims.try_claim(&places.cpus)?;
        Ok(places.claim.is_some())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Places>> {
        // Counts are changed in one step, so a panicking holder leaves them whole.
        self.units.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut units = self.seats.lock();
        let places = &mut units[self.unit];
        places.sectors[self.worker] -= 1;
        if places.is_empty() {
            places.claim = None;
        }
        drop(units);
        self.seats.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use seal_host::RuntimeDir;

    fn cpus(list: &str) -> CpuSet {
        list.parse().expect("a list")
    }

    #[test]
    fn sectors_spread_over_units_before_they_share_one() {
        let seats = Arc::new(Seats::new(vec![(cpus("0"), 1), (cpus("1"), 1)], 2));
        let take = || seats.take(&|_| {}, &|| true);
        let taken: Vec<_> = (0..4).map(|_| take().expect("a free seat")).collect();
        assert_eq!(taken.iter().map(Seat::unit).collect::<Vec<_>>(), [0, 1, 0, 1]);
        assert!(matches!(take(), Err(SdrError::Cancelled)));
        drop(taken);
        assert_eq!(take().expect("free again").unit(), 0);
    }

    #[test]
    fn sectors_take_the_producers_cores_before_they_share_a_consumer() {
        let seats = Arc::new(Seats::new(vec![(cpus("0-1"), 2), (cpus("2-3"), 2)], 2));
        let take = || seats.take(&|_| {}, &|| true);
        let mut taken: Vec<_> = (0..8).map(|_| take().expect("a free seat")).collect();
        let places: Vec<_> = taken.iter().map(|seat| (seat.unit(), seat.worker())).collect();
        let spread = [(0, 0), (1, 0), (0, 1), (1, 1)];
        assert_eq!(places[..4], spread);
        // Then the consumers are shared, each by two.
        assert_eq!(places[4..].iter().collect::<std::collections::BTreeSet<_>>().len(), 4);
        assert!(matches!(take(), Err(SdrError::Cancelled)));
        assert_eq!(seats.count(), 8);
        taken.truncate(3);
        assert!(!taken[0].is_the_only_consumer() && taken[1].is_the_only_consumer());
        // The unit's own consumer comes before one that takes producers from a sector.
        drop(taken.remove(0));
        let next = take().expect("free");
        assert_eq!((next.unit(), next.worker()), (0, 0));
    }

    #[test]
    fn one_who_waits_says_so_and_gets_the_next_free_seat() {
        let seats = Arc::new(Seats::new(vec![(cpus("0"), 1)], 1));
        let first = seats.take(&|_| {}, &|| false).expect("free");
        let (sender, told) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                let waits = |count| sender.send(count).expect("the test listens");
                seats.take(&waits, &|| false).map(|seat| seat.unit())
            });
            let full = NoSeat { seats: 1, units: 1, claimed_by_others: 0 };
            assert_eq!(told.recv(), Ok(full));
            drop(first);
            assert_eq!(waiter.join().expect("no panic").expect("a seat"), 0);
        });
    }

    #[test]
    fn units_that_others_have_claimed_are_not_used_until_they_are_given_up() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let run = RuntimeDir::open(&dir.path().join("run")).expect("ours");
        // Two processes with the same units, and one whose unit overlaps the second of them.
        let process = |units: &[&str]| {
            let seats = Seats::new(units.iter().map(|list| (cpus(list), 1)).collect(), 2);
            Arc::new(seats.claiming(CpuClaims::in_dir(&run)))
        };
        let (one, other, third) =
            (process(&["0-1", "2-3"]), process(&["0-1", "2-3"]), process(&["3-4"]));
        let full = std::cell::Cell::new(None);
        let take = |seats: &Arc<Seats>| {
            full.set(None);
            seats.take(&|why| full.set(Some(why)), &|| true)
        };
        let first = take(&one).expect("free");
        let second = take(&other).expect("the other unit is free");
        assert_eq!((first.unit(), second.unit()), (0, 1));
        // Each shares its own unit rather than the other's.
        let third_sector = take(&one).expect("a lane is free");
        assert_eq!(third_sector.unit(), 0);
        assert!(matches!(take(&one), Err(SdrError::Cancelled)));
        assert_eq!(full.take(), None, "one that is not wanted is told nothing");
        let waited = third.take(&|why| full.set(Some(why)), &|| full.get().is_some());
        assert!(matches!(waited, Err(SdrError::Cancelled)));
        assert_eq!(full.take(), Some(NoSeat { seats: 2, units: 1, claimed_by_others: 1 }));
        drop(second);
        let mine = take(&third).expect("given up");
        assert!(matches!(take(&other), Err(SdrError::Cancelled)), "0-1 and 3 are claimed");
        // The claim of a unit ends with its last sector, not with its first.
        drop(first);
        assert!(matches!(take(&other), Err(SdrError::Cancelled)));
        drop((third_sector, mine));
        assert_eq!(take(&other).expect("free").unit(), 0);
    }
}
