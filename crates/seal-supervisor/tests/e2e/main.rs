//! The supervisor as its parent sees it, with a scripted executor that misbehaves on demand.

mod cgroups;
mod contention;
mod deaths;
mod examples;
mod harness;
mod input;
mod locks;
mod misbehaviour;
mod namespaces;
mod retry;
mod routing;
mod session;
mod start;
mod status;
mod stop;
mod support;
mod unread;
mod versions;
mod waiting;
