//! Metrics of all supervisors of the machine, in the text format of Prometheus.
//!
//! One address serves all: the first supervisor that gets it. When that one ends, another that was
//! given the same address takes over.

mod corruption;
mod render;
mod request;
mod server;
mod tasks;

pub(crate) use server::serve;
