//! The rules of limits and locks: which waiting request may start now, and on what.
//!
//! Pure: no clock, no files, no processes; time and what is free are passed in. All supervisors of
//! a machine keep one [`Book`] together, a simulator keeps one of its own; both decide alike.
//!
//! The rules:
//! - Requests of one kind that want the same start in the order of their tickets.
//! - Kinds that want the same lock take turns, or go by arrival or priority, as [`Order`] says for
//!   that lock. Who wants nothing in common does not wait for each other.
//! - Everything a task needs is taken at once or not at all, so no two can wait for each other.
//!   Nothing is held by a request that does not run.
//! - What one cannot use, because something else it needs is missing, goes to the next who can;
//!   but not more than [`OVERTAKEN_MOST`] times past the same one.
//! - Two starts of a kind keep their distance.
//! - One who does not start although it could, for [`DUE_LONGEST`], is passed over.
//!
//! Beside them stands what supervisor and simulator must do alike: which executor is tried first
//! ([`Openings`]), and when one that died is started again ([`RestartPolicy`]).
#![forbid(unsafe_code)]

mod book;
mod decide;
mod needs;
mod order;
mod place;
mod restart;

pub use book::{Book, Joining, Ticket, Waiter};
pub use decide::{DUE_LONGEST, Decision, Free, OVERTAKEN_MOST, Reason, Verdict};
pub use needs::{Needs, NoResource, Resource};
pub use order::Order;
pub use place::{Openings, Place, TICKETS_MOST, in_order_of_load};
pub use restart::{AfterDeath, History, RestartPolicy};

#[cfg(test)]
mod tests;
