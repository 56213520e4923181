//! What holds when the directory of limits and locks is removed while supervisors use it.
//!
//! Locks are on files, and those are gone with the directory, whatever stands at its path later.
//! The first that notices makes it again; the kernel tells the others of the removal, and each
//! takes what its running tasks hold in the new one too, before anything is started there.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use seal_host::{FileError, Mutex, Slots, parent_of, remake};

use super::table::{self, MEMBERS_FILE, Table};
use super::{LimitsError, NOBODY, SharedLimits, machine_time, make};

/// How long tasks wait while limits and locks cannot be used; then they are answered with the
/// reason. A disk that was full or a supervisor that was stopped may be well again by then.
const TROUBLE_MOST: Duration = Duration::from_secs(60);

/// The same where the directory is gone and cannot be made again.
const GONE_MOST: Duration = Duration::from_secs(5);

/// How long nothing starts after the directory was made again: the others take what their tasks
/// hold there too, and nobody must be before them.
pub(super) const MOVING: Duration = Duration::from_secs(2);

/// Why limits and locks cannot be used.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) text: String,
    pub(super) since: Duration,
    /// Whether the directory is gone.
    pub(super) is_gone: bool,
}

impl SharedLimits {
    /// Why there is no use in waiting any longer, if that is so.
    pub(crate) fn hopeless(&self) -> Option<String> {
        let trouble = self.trouble.as_ref()?;
        let most = if trouble.is_gone { GONE_MOST } else { TROUBLE_MOST };
        (machine_time().saturating_sub(trouble.since) >= most)
            .then(|| format!("limits and locks cannot be used: {}", trouble.text))
    }

    /// The directory was removed under the supervisors' feet.
    pub(super) fn begin_anew(&mut self) -> Result<(), LimitsError> {
        remake(parent_of(&self.dir))?;
        make(&self.dir)?;
        self.mutex = Rc::new(Mutex::open(&self.dir.join("table.mutex"))?);
        self.me = NOBODY;
        self.membership = Slots::open(&self.dir.join(MEMBERS_FILE))?;
        self.tickets.clear();
        self.moves = true;
        self.bell.set_removed(false);
        self.watch();
        // Only once it is there: nothing is gained by the same line each second.
        tracing::error!(
            path = %self.dir.display(),
            "the directory of limits and locks was removed; it is made again, and what running \
             tasks hold is taken in it too"
        );
        Ok(())
    }

    /// Takes what running tasks hold in the directory that was made again. Their executors do not
    /// have these descriptions, so what they leave behind when they die is not seen to hold it.
    pub(super) fn take_again(&mut self, table: &mut Table) -> Result<(), FileError> {
        self.running.retain(|(slots, _)| slots.strong_count() > 0);
        for (slots, holder) in &self.running {
            let Some(slots) = slots.upgrade() else { continue };
            let held: BTreeSet<_> = slots.borrow().iter().map(|(held, ..)| held.clone()).collect();
            for resource in held {
                let path = table::file(&self.dir, &resource);
                let file = Slots::open(&path)?;
                let count = self.terms.counts.get(&resource).map_or(0, |count| count.get());
                let mut taken = None;
                for slot in 0..count {
                    if file.try_take(slot)? {
                        taken = Some(slot);
                        break;
                    }
                }
                let Some(slot) = taken else {
                    let req = holder.req;
                    tracing::error!(%resource, req, "somebody else has what a running task holds");
                    continue;
                };
                table.holders.entry(resource.clone()).or_default().insert(slot, holder.clone());
                slots.borrow_mut().push((resource, Rc::new(file), slot));
            }
        }
        Ok(())
    }
}
