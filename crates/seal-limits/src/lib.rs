//! The rules of limits and locks: which waiting request may start now, and on which executor.
//!
//! Pure: no clock, no files, no processes. The supervisor applies the rules with semaphores that
//! all supervisors of a machine share, a simulator with [`Counters`]; both decide alike.
//!
//! The rules:
//! - Requests of one kind start in the order in which they came. Kinds do not wait for each other
//!   except through what they both need.
//! - A request goes to the executor of its kind with the fewest running tasks that has room and
//!   whose resources are free.
//! - Everything a task needs is taken at once or not at all, locks in the order of their names
//!   before the place in the stage's limit. Nothing is held by a request that does not run, so no
//!   two can wait for each other.
#![forbid(unsafe_code)]

mod counters;
mod needs;
mod rules;

pub use counters::{Counters, Grant};
pub use needs::{Needs, Resource};
pub use rules::{Place, Semaphores, Start, next_start};
