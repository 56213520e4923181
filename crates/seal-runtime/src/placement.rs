//! An executor puts itself where its environment wants it, before it starts threads.

use seal_host::{NodeId, PlaceError, Placed, WantedPlace, interleave_memory, place_self};
use seal_options::Place;
use seal_wire::{ErrorCode, ExitCode, TaskError};

/// Puts the process on the cpus and the NUMA node that venus-worker names in the environment of a
/// processor that it starts directly. What cannot be had is logged, and the error is what the
/// process exits with. Keep what is returned until the process ends: its cgroup ends with it.
///
/// Call this before anything that starts threads: they inherit their place.
pub(crate) fn place(place: &Place) -> Result<Placed, ExitCode> {
    let Place { cpus, group, numa_preferred } = place.clone();
    let wanted = WantedPlace { cpus, group, node: numa_preferred.map(NodeId) };
    let placed = place_self(&wanted).map_err(|error| {
        let code = exit_code(&error);
        // With its causes, as errors of tasks have them.
        let error = TaskError::from_error(ErrorCode::Unavailable, &error).message;
        tracing::error!("this process is not where it was told to be: {error}");
        code
    })?;
    match (&placed.cpus, &placed.entered, &placed.group) {
        (Some(cpus), Some(entered), _) => {
            let cgroup = entered.path().display();
            tracing::info!(%cpus, %cgroup, "confined to the cpus of VC_CG_CPUSET");
        }
        (Some(cpus), None, _) => match &placed.no_group {
            Some(reason) => tracing::warn!(
                %cpus, reason,
                "confined to the cpus of VC_CG_CPUSET by affinity alone: no cgroup of VC_CG_NAME \
                 can be made"
            ),
            None => tracing::info!(%cpus, "confined to the cpus of VC_CG_CPUSET, by affinity"),
        },
        (None, _, Some(group)) => {
            tracing::warn!("VC_CG_NAME={group} has no effect without VC_CG_CPUSET");
        }
        (None, _, None) => {}
    }
    if let Some(no_preference) = &placed.no_preference {
        tracing::warn!("{no_preference}");
    }
    if let Some(node) = placed.node {
        tracing::info!(%node, "memory of the NUMA node is preferred");
    }
    Ok(placed)
}

/// Takes memory from all NUMA nodes that the process may run on, in turn: for what is loaded by one
/// thread and read by all. Where the kernel does not allow that, it lies where it is first used.
///
/// Call this after the process is placed and before anything that starts threads.
pub fn spread_memory() {
    match interleave_memory() {
        Ok(nodes) if nodes.is_empty() => {}
        Ok(nodes) => {
            let nodes: Vec<_> = nodes.iter().map(ToString::to_string).collect();
            tracing::info!(nodes = nodes.join(","), "memory is taken from these nodes in turn");
        }
        Err(error) => {
            tracing::info!("memory lies on the node of whoever uses it first: {error}");
        }
    }
}

/// A name that is none makes no sense anywhere; all else cannot be had here and now.
fn exit_code(error: &PlaceError) -> ExitCode {
    match error {
        PlaceError::Name { .. } => ExitCode::Config,
        _ => ExitCode::Start,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_cannot_be_had_ends_the_process() {
        let none = Place::default();
        for wanted in [
            Place { cpus: Some("8000-8001".parse().expect("a list")), ..none.clone() },
            Place { numa_preferred: Some(900), ..none.clone() },
        ] {
            let placed = place(&wanted);
            assert_eq!(placed.map(|placed| placed.cpus), Err(ExitCode::Start), "{wanted:?}");
        }
        let wanted = Place { group: Some("..".to_owned()), ..none };
        assert_eq!(place(&wanted).map(|placed| placed.cpus), Err(ExitCode::Config));
    }

    #[test]
    fn a_group_alone_changes_nothing() {
        let wanted = Place { group: Some("g".to_owned()), ..Place::default() };
        let placed = place(&wanted).expect("nothing to be had");
        assert_eq!((placed.cpus, placed.node), (None, None));
    }
}
