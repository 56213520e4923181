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
    sectors: usize,
    /// There while it has sectors, if claims are made.
    claim: Option<CpuClaim>,
}

/// A sector's place at a unit, given up when dropped.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    unit: usize,
}

impl Seat {
    /// The unit's number, counted from 0.
    pub fn unit(&self) -> usize {
        self.unit
    }
}

impl Seats {
    /// `lanes` seats for each of the `units`, given by their cpus.
    pub(crate) fn new(units: Vec<CpuSet>, lanes: usize) -> Self {
        let places = |cpus| Places { cpus, sectors: 0, claim: None };
        let units = Mutex::new(units.into_iter().map(places).collect());
        Self { units, freed: Condvar::new(), lanes, claims: None }
    }

    /// The same seats, none of them taken, at units that are claimed before they are used.
    pub(crate) fn claiming(&self, claims: CpuClaims) -> Self {
        let cpus = self.lock().iter().map(|places| places.cpus.clone()).collect();
        Self { claims: Some(claims), ..Self::new(cpus, self.lanes) }
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().len() * self.lanes
    }

    pub(crate) fn take(
        self: &Arc<Self>,
        suits: &dyn Fn(usize) -> bool,
        waits: &dyn Fn(NoSeat),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Seat, SdrError> {
        let mut told = None;
        let mut units = self.lock();
        loop {
            let mut claimed_by_others = 0;
            let free = self.emptiest(&mut units, suits, &mut claimed_by_others)?;
            if let Some(unit) = free {
                return Ok(Seat { seats: Arc::clone(self), unit });
            }
            if cancelled() {
                return Err(SdrError::Cancelled);
            }
            // Once, and once more if the reason is another one.
            if told.is_none_or(|told| (told == 0) != (claimed_by_others == 0)) {
                let seats = units.len() * self.lanes;
                waits(NoSeat { seats, units: units.len(), claimed_by_others });
                told = Some(claimed_by_others);
            }
            let woken = self.freed.wait_timeout(units, LOOK_EVERY);
            units = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// A seat that is free now, at a unit that `suits`.
    pub(crate) fn try_take(
        self: &Arc<Self>,
        suits: &dyn Fn(usize) -> bool,
    ) -> Result<Option<Seat>, SdrError> {
        let unit = self.emptiest(&mut self.lock(), suits, &mut 0)?;
        Ok(unit.map(|unit| Seat { seats: Arc::clone(self), unit }))
    }

    /// Seats a sector at the emptiest of the units that `suits`, the first of equally empty ones.
    /// Counts those that are free and that another process has claimed.
    fn emptiest(
        &self,
        units: &mut [Places],
        suits: &dyn Fn(usize) -> bool,
        claimed_by_others: &mut usize,
    ) -> Result<Option<usize>, SdrError> {
        let mut emptiest: Vec<_> = (0..units.len()).filter(|unit| suits(*unit)).collect();
        emptiest.sort_by_key(|unit| units[*unit].sectors);
        for unit in emptiest {
            let places = &mut units[unit];
            if places.sectors >= self.lanes {
                break;
            }
            if places.sectors == 0 && !self.claim(places)? {
                *claimed_by_others += 1;
                continue;
            }
            places.sectors += 1;
            return Ok(Some(unit));
        }
        Ok(None)
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
        places.sectors -= 1;
        if places.sectors == 0 {
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
        let seats = Arc::new(Seats::new(vec![cpus("0"), cpus("1")], 2));
        let take = || seats.take(&|_| true, &|_| {}, &|| true);
        let taken: Vec<_> = (0..4).map(|_| take().expect("a free seat")).collect();
        assert_eq!(taken.iter().map(Seat::unit).collect::<Vec<_>>(), [0, 1, 0, 1]);
        assert!(matches!(take(), Err(SdrError::Cancelled)));
        drop(taken);
        assert_eq!(take().expect("free again").unit(), 0);
    }

    #[test]
    fn one_who_waits_gets_no_seat_at_a_unit_that_suits_no_more() {
        let seats = Arc::new(Seats::new(vec![cpus("0"), cpus("1")], 1));
        let first = seats.take(&|unit| unit == 1, &|_| {}, &|| false).expect("free");
        assert_eq!(first.unit(), 1);
        // Unit 0 is free all the time, and not wanted.
        let (sender, told) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                let waits = |_| sender.send(()).expect("the test listens");
                seats.take(&|unit| unit == 1, &waits, &|| false).map(|seat| seat.unit())
            });
            assert_eq!(told.recv(), Ok(()));
            drop(first);
            assert_eq!(waiter.join().expect("no panic").expect("a seat"), 1);
        });
    }

    #[test]
    fn a_seat_is_tried_at_units_that_suit_only() {
        let seats = Arc::new(Seats::new(vec![cpus("0"), cpus("1")], 1));
        let first = seats.take(&|_| true, &|_| {}, &|| true).expect("free");
        assert_eq!(first.unit(), 0);
        assert!(seats.try_take(&|unit| unit == 0).expect("no claims").is_none());
        let other = seats.try_take(&|unit| unit == 1).expect("no claims").expect("free");
        assert_eq!(other.unit(), 1);
        drop((first, other));
        assert_eq!(seats.count(), 2);
        assert_eq!(seats.try_take(&|_| true).expect("no claims").expect("given up").unit(), 0);
    }

    #[test]
    fn one_who_waits_says_so_and_gets_the_next_free_seat() {
        let seats = Arc::new(Seats::new(vec![cpus("0")], 1));
        let first = seats.take(&|_| true, &|_| {}, &|| false).expect("free");
        let (sender, told) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                let waits = |count| sender.send(count).expect("the test listens");
                seats.take(&|_| true, &waits, &|| false).map(|seat| seat.unit())
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
            let seats = Seats::new(units.iter().map(|list| cpus(list)).collect(), 2);
            Arc::new(seats.claiming(CpuClaims::in_dir(&run)))
        };
        let (one, other, third) =
            (process(&["0-1", "2-3"]), process(&["0-1", "2-3"]), process(&["3-4"]));
        let full = std::cell::Cell::new(None);
        let take = |seats: &Arc<Seats>| {
            full.set(None);
            seats.take(&|_| true, &|why| full.set(Some(why)), &|| true)
        };
        let first = take(&one).expect("free");
        let second = take(&other).expect("the other unit is free");
        assert_eq!((first.unit(), second.unit()), (0, 1));
        // Each shares its own unit rather than the other's.
        let third_sector = take(&one).expect("a lane is free");
        assert_eq!(third_sector.unit(), 0);
        assert!(matches!(take(&one), Err(SdrError::Cancelled)));
        assert_eq!(full.take(), None, "one that is not wanted is told nothing");
        let waited = third.take(&|_| true, &|why| full.set(Some(why)), &|| full.get().is_some());
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
