//! Which sector is labelled by which unit.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::SdrError;

/// How often one who waits looks whether it is still wanted.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The seats of all units.
#[derive(Debug)]
pub(crate) struct Seats {
    taken: Mutex<Vec<usize>>,
    freed: Condvar,
    lanes: usize,
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
    pub(crate) fn new(units: usize, lanes: usize) -> Self {
        Self { taken: Mutex::new(vec![0; units]), freed: Condvar::new(), lanes }
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().len() * self.lanes
    }

    pub(crate) fn take(
        self: &Arc<Self>,
        waits: &dyn Fn(usize),
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Seat, SdrError> {
        let mut told = false;
        let mut taken = self.lock();
        loop {
            let emptiest = taken.iter().enumerate().min_by_key(|(_, sectors)| **sectors);
            if let Some((unit, sectors)) = emptiest
                && *sectors < self.lanes
            {
                taken[unit] += 1;
                return Ok(Seat { seats: Arc::clone(self), unit });
            }
            if cancelled() {
                return Err(SdrError::Cancelled);
            }
            if !told {
                waits(taken.len() * self.lanes);
                told = true;
            }
            let woken = self.freed.wait_timeout(taken, LOOK_EVERY);
            taken = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<usize>> {
        // Counts are changed in one step, so a panicking holder leaves them whole.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.lock()[self.unit] -= 1;
        self.seats.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sectors_spread_over_units_before_they_share_one() {
        let seats = Arc::new(Seats::new(2, 2));
        let take = || seats.take(&|_| {}, &|| true);
        let taken: Vec<_> = (0..4).map(|_| take().expect("a free seat")).collect();
        assert_eq!(taken.iter().map(Seat::unit).collect::<Vec<_>>(), [0, 1, 0, 1]);
        assert!(matches!(take(), Err(SdrError::Cancelled)));
        drop(taken);
        assert_eq!(take().expect("free again").unit(), 0);
    }

    #[test]
    fn one_who_waits_says_so_and_gets_the_next_free_seat() {
        let seats = Arc::new(Seats::new(1, 1));
        let first = seats.take(&|_| {}, &|| false).expect("free");
        let (sender, told) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                let waits = |count| sender.send(count).expect("the test listens");
                seats.take(&waits, &|| false).map(|seat| seat.unit())
            });
            assert_eq!(told.recv(), Ok(1));
            drop(first);
            assert_eq!(waiter.join().expect("no panic").expect("a seat"), 0);
        });
    }
}
