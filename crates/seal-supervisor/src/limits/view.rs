//! Limits and locks as people see them: who holds what, who waits, and why.

use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use seal_host::{FileError, Slots};
use seal_limits::{Decision, Reason, Resource};

use super::table::{Holder, MEMBERS, MEMBERS_FILE, Probes, Table};
use super::{DIRECTORY, boot_id, machine_time};

/// All limits and locks of a runtime directory at one moment.
#[derive(Clone, Debug, Default)]
pub struct LimitsView {
    /// The limits and locks that running supervisors know.
    pub resources: Vec<ResourceView>,
    /// Those who wait, in the order in which they are to be served.
    pub queue: Vec<WaiterView>,
}

/// A limit or lock.
#[derive(Clone, Debug)]
pub struct ResourceView {
    /// Which.
    pub resource: Resource,
    /// How many tasks may hold it.
    pub count: NonZeroU32,
    /// How many are held. More than there are holders if something holds one whose supervisor is
    /// gone.
    pub held: u32,
    /// Who holds it.
    pub holders: Vec<Holder>,
}

/// A request that waits for a limit or lock.
#[derive(Clone, Debug)]
pub struct WaiterView {
    /// Its stage.
    pub stage: String,
    /// The process id of its supervisor.
    pub supervisor: u32,
    /// The pid namespace in which it has that.
    pub pid_namespace: u64,
    /// How long it has waited.
    pub waited: Duration,
    /// Why.
    pub reason: String,
}

/// Looks at limits and locks without taking part in them.
pub fn view(runtime_dir: &Path) -> Result<LimitsView, FileError> {
    let dir = runtime_dir.join(DIRECTORY);
    if !dir.exists() {
        return Ok(LimitsView::default());
    }
    let mut table = Table::read(&dir, &boot_id())?;
    let members = Slots::open_to_look(&dir.join(MEMBERS_FILE))?;
    let alive = members.map(|slots| slots.held_by_others(MEMBERS)).transpose()?.unwrap_or_default();
    table.drop_members(|member| !alive.contains(&member));
    let ((free, held), _) = Probes::to_look().look(&dir, &mut table)?;
    let now = machine_time();
    let resources = table.counts().into_iter().map(|(resource, count)| ResourceView {
        count,
        held: u32::try_from(held.get(&resource).map_or(0, |held| held.len())).unwrap_or(u32::MAX),
        holders: table
            .holders
            .get(&resource)
            .into_iter()
            .flat_map(|map| map.values().cloned())
            .collect(),
        resource,
    });
    let queue = table.book.decide(&free, now).into_iter().filter_map(|verdict| {
        let owner = table.tickets.get(&verdict.ticket)?;
        let reason = match verdict.decision {
            Decision::Start { .. } => "it is about to start".to_owned(),
            Decision::Wait(reason) => explain(&table, reason),
        };
        let member = table.members.get(&owner.member)?;
        Some(WaiterView {
            stage: table.book.waiter(verdict.ticket)?.kind.clone(),
            supervisor: member.pid,
            pid_namespace: member.pid_namespace,
            waited: now.saturating_sub(owner.since),
            reason,
        })
    });
    Ok(LimitsView { resources: resources.collect(), queue: queue.collect() })
}

/// A reason with those who are responsible.
pub(super) fn explain(table: &Table, reason: Reason<String>) -> String {
    let Reason::Taken(resource) = &reason else { return reason.to_string() };
    let holders = table.holders.get(resource).into_iter().flat_map(|map| map.values());
    let told = |holder: &Holder| {
        let sector = holder.sector.as_ref().map(|sector| format!(" of sector {sector}"));
        format!("{}{} (pid {})", holder.stage, sector.unwrap_or_default(), holder.executor)
    };
    let mut names: Vec<_> = holders.map(told).collect();
    const SHOWN: usize = 3;
    if names.len() > SHOWN {
        let more = names.len() - SHOWN;
        names.truncate(SHOWN);
        names.push(format!("{more} more"));
    }
    if names.is_empty() {
        return format!("{resource} is held by what a supervisor that is gone has left behind");
    }
    format!("{resource} is held by {}", names.join(", "))
}
