//! The supervisor as its parent sees it, with a scripted executor that misbehaves on demand.

mod cgroups;
mod deaths;
mod harness;
mod input;
mod locks;
mod retry;
mod routing;
mod start;
mod stop;
