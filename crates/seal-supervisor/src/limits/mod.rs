//! Limits and locks that hold across all supervisors sharing a runtime directory.
//!
//! A resource that so many tasks may hold has a file with so many slots. A running task holds the
//! kernel's lock on one slot of each resource that it needs, through an open file description that
//! its executor has inherited: the lock ends when the task does, or with the last of supervisor
//! and executor, and what the executor started. So nothing is ever left locked, and a GPU is not
//! handed out while somebody still uses it.
//!
//! Who may take a slot is decided by the rules of `seal-limits` over the table of those who wait,
//! which all supervisors keep together. There is no daemon.

mod anew;
mod table;
mod terms;
mod view;
mod wake;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder};
use std::io;
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::sync::LazyLock;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use seal_host::{FileError, Mutex, Slots};
use seal_limits::{Decision, Joining, Needs, Reason, Resource, Ticket, Verdict};

use crate::event::Event;
use anew::{MOVING, Trouble};
use table::{Kernel, MEMBERS, MEMBERS_FILE, Owner, Probes, Table};
use wake::Bell;

pub use table::Holder;
pub(crate) use terms::Terms;
pub use view::{LimitsView, ResourceView, WaiterView, view};

/// How often a supervisor that waits looks by itself whether anything has changed.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// How long the table may be in the hands of another supervisor. It takes far less than a
/// millisecond, unless that one is stopped in its middle.
const PATIENCE: Duration = Duration::from_millis(100);

/// The same at the start, where nothing else waits: a machine may be so busy that whoever has the
/// table does not run for a while, which must not fail the start. Less than the `stable_wait` of a
/// worker that sets none (5 s).
const PATIENCE_AT_START: Duration = Duration::from_secs(3);

/// How long nothing is tried after something went wrong, so that it does not take all the time
/// that a supervisor has for its executors.
const AFTER_TROUBLE: Duration = Duration::from_secs(1);

/// What no member is: a supervisor that has not entered yet, or was refused.
const NOBODY: u32 = MEMBERS;

/// The directory of the table and the slots in the runtime directory.
const DIRECTORY: &str = "limits";

/// Limits and locks that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LimitsError {
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// Two supervisors of one runtime directory do not agree.
    #[error(
        "{what} is {wanted} here and {other} for the supervisor of {stage} that runs (pid \
         {pid}); all supervisors of a runtime directory must agree: if it is of the same worker, \
         restart it with this configuration; a second worker on one machine needs a runtime_dir of \
         its own, or the same limits, locks and staggered starts"
    )]
    Disagreement {
        /// What they do not agree about.
        what: String,
        /// What it is here.
        wanted: String,
        /// What it is there.
        other: String,
        /// The other's stage.
        stage: String,
        /// The other's process id.
        pid: String,
    },
    /// There are too many of them.
    #[error("{MEMBERS} supervisors share {}; use another runtime_dir for some", path.display())]
    TooMany {
        /// The directory.
        path: PathBuf,
    },
}

/// The descriptions through which the tasks of one executor process hold their slots.
#[derive(Debug, Default)]
pub(crate) struct ExecutorSlots {
    files: RefCell<BTreeMap<Resource, Rc<Slots>>>,
}

/// What a running task holds.
#[derive(Debug, Default)]
pub(crate) struct Held {
    slots: Rc<HeldSlots>,
    released: Rc<Cell<bool>>,
}

/// The slots of a task. Where the directory was removed and made again, those in both.
type HeldSlots = RefCell<Vec<(Resource, Rc<Slots>, u32)>>;

/// One supervisor's part in limits and locks.
#[derive(Debug)]
pub(crate) struct SharedLimits {
    terms: Terms,
    dir: PathBuf,
    boot: String,
    mutex: Rc<Mutex>,
    /// Holds this supervisor's slot among the members as long as it lives.
    membership: Slots,
    me: u32,
    probes: Probes,
    /// Its places in the queue, in their order.
    tickets: Vec<Ticket>,
    /// Why each of them waits.
    reasons: Vec<String>,
    /// Something was released since the table was written.
    released: Rc<Cell<bool>>,
    bell: Bell,
    events: Option<SyncSender<Event>>,
    /// What its running tasks hold, to be taken again where the directory was removed.
    running: Vec<(Weak<HeldSlots>, Holder)>,
    /// Whether that is to be done.
    moves: bool,
    trouble: Option<Trouble>,
    /// Not before then is anything tried again.
    rest_until: Option<Duration>,
}

/// The table in the hands of this supervisor.
pub(crate) struct Round<'a> {
    limits: &'a mut SharedLimits,
    table: Table,
    kernel: Kernel,
    now: Duration,
    changed: bool,
}

/// A request of this supervisor may start.
#[derive(Debug)]
pub(crate) struct Grant {
    verdict: Verdict<String>,
    /// The needs that can be met, the preferred ones first.
    pub(crate) choices: Vec<usize>,
}

/// The time since the start of the machine, the same for all processes, whatever time namespace
/// they are in.
pub(crate) fn machine_time() -> Duration {
    static OFFSET: LazyLock<i64> = LazyLock::new(|| {
        // Missing before Linux 5.6, which has no such namespaces.
        let offsets = fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
        boot_time_offset(&offsets)
    });
    // The clock is there since Linux 2.6.39.
    let here = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
    let offset = Duration::from_secs(OFFSET.unsigned_abs());
    if *OFFSET < 0 { here + offset } else { here.saturating_sub(offset) }
}

/// By how many seconds this time namespace's time since the start differs from the machine's.
fn boot_time_offset(offsets: &str) -> i64 {
    let boot_time = offsets.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        // The clock's name, or its number.
        fields.next().filter(|clock| ["boottime", "7"].contains(clock)).and(fields.next())
    });
    boot_time.and_then(|seconds| seconds.parse().ok()).unwrap_or_default()
}

fn boot_id() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

impl SharedLimits {
    /// Joins the supervisors of `runtime_dir`. `events` is told when others change something.
    pub(crate) fn join(
        runtime_dir: &Path,
        terms: Terms,
        events: Option<SyncSender<Event>>,
    ) -> Result<Self, LimitsError> {
        let dir = runtime_dir.join(DIRECTORY);
        make(&dir)?;
        let mutex = Rc::new(Mutex::open(&dir.join("table.mutex"))?);
        let membership = Slots::open(&dir.join(MEMBERS_FILE))?;
        let mut limits = Self {
            terms,
            dir,
            boot: boot_id(),
            mutex,
            membership,
            me: NOBODY,
            probes: Probes::default(),
            tickets: Vec::new(),
            reasons: Vec::new(),
            released: Rc::default(),
            bell: Bell::default(),
            events,
            running: Vec::new(),
            moves: false,
            trouble: None,
            rest_until: None,
        };
        limits.enter(PATIENCE_AT_START)?;
        limits.watch();
        Ok(limits)
    }

    /// Has changes told.
    fn watch(&self) {
        if let Some(events) = &self.events
            && let Err(error) = wake::watch(&self.dir, self.bell.clone(), events.clone())
        {
            tracing::warn!(%error, "changes of limits and locks are not told; looking for them instead");
        }
    }

    /// Takes a place among the members, and agrees with them.
    fn enter(&mut self, patience: Duration) -> Result<(), LimitsError> {
        let mutex = Rc::clone(&self.mutex);
        let _guard = mutex.lock(patience)?;
        let mut table = Table::read(&self.dir, &self.boot)?;
        let alive = self.membership.held_by_others(MEMBERS)?;
        table.drop_members(|member| !alive.contains(&member));
        table.members.values().try_for_each(|member| self.terms.agree_with(member))?;
        let free = (0..MEMBERS).find(|slot| !alive.contains(slot));
        let Some(me) = free else { return Err(LimitsError::TooMany { path: self.dir.clone() }) };
        self.membership.try_take(me)?;
        self.me = me;
        table.members.insert(me, self.terms.member());
        for (resource, order) in &self.terms.orders {
            table.book.set_order(resource.clone(), order.clone());
        }
        Ok(table.write(&self.dir)?)
    }

    /// What is limited, and to how many.
    pub(crate) fn counts(&self) -> &BTreeMap<Resource, NonZeroU32> {
        &self.terms.counts
    }

    /// Opens what the tasks of one executor process will hold their slots through.
    pub(crate) fn open_for(&self, needs: &Needs) -> Result<ExecutorSlots, FileError> {
        let limited = needs.iter().filter(|need| self.terms.counts.contains_key(need));
        let open = |need: &Resource| {
            Ok((need.clone(), Rc::new(Slots::open(&table::file(&self.dir, need))?)))
        };
        let files = limited.map(open).collect::<Result<_, FileError>>()?;
        Ok(ExecutorSlots { files: RefCell::new(files) })
    }

    /// Whether starting tasks with these needs takes part in anything.
    pub(crate) fn concerns<'a>(&self, needs: impl IntoIterator<Item = &'a Needs>) -> bool {
        let is_limited = |need| self.terms.counts.contains_key(need);
        !self.terms.spacing.is_zero() || needs.into_iter().any(|needs| needs.iter().any(is_limited))
    }

    /// Whether others must be told something, or are waited for.
    pub(crate) fn has_business(&self) -> bool {
        self.released.get() || !self.tickets.is_empty() || self.bell.is_removed()
    }

    /// Why its requests wait, in their order.
    pub(crate) fn reasons(&self) -> &[String] {
        &self.reasons
    }

    /// Works on the table with nobody else doing so. Where that is not possible nothing starts.
    /// Returns when to look again at the latest, if anybody waits.
    pub(crate) fn round(&mut self, work: impl FnOnce(&mut Round<'_>)) -> Option<Duration> {
        let rest = self.rest_until.and_then(|until| until.checked_sub(machine_time()));
        if let Some(rest) = rest.filter(|rest| !rest.is_zero()) {
            return Some(rest);
        }
        self.rest_until = None;
        match self.try_round(work) {
            Ok(until) => {
                if self.trouble.take().is_some() {
                    tracing::info!("limits and locks can be used again");
                }
                until
            }
            Err(error) => {
                let mut text = error.to_string();
                if let LimitsError::File(error) = &error {
                    text = format!("{text}: {}", error.source);
                }
                let known = self.trouble.as_ref();
                if known.is_none_or(|trouble| trouble.text != text) {
                    tracing::error!(error = text, "limits and locks cannot be used; tasks wait");
                }
                let since = known.map_or_else(machine_time, |trouble| trouble.since);
                self.reasons = vec![text.clone(); self.tickets.len()];
                let is_gone = !self.membership.is_in_place();
                self.trouble = Some(Trouble { text, since, is_gone });
                self.rest_until = Some(machine_time() + AFTER_TROUBLE);
                Some(AFTER_TROUBLE)
            }
        }
    }

    fn try_round(
        &mut self,
        work: impl FnOnce(&mut Round<'_>),
    ) -> Result<Option<Duration>, LimitsError> {
        if !self.membership.is_in_place() {
            self.begin_anew()?;
        }
        if self.me == NOBODY {
            self.enter(PATIENCE)?;
        }
        let mutex = Rc::clone(&self.mutex);
        let _guard = mutex.lock(PATIENCE)?;
        // Armed before the look: what changes after it wakes.
        self.bell.arm(true);
        let mut table = Table::read(&self.dir, &self.boot)?;
        let alive = self.membership.held_by_others(MEMBERS)?;
        let me = self.me;
        let mut changed = table.drop_members(|member| member != me && !alive.contains(&member));
        changed |= self.reconcile(&mut table);
        let moves = self.moves;
        if moves {
            self.take_again(&mut table)?;
            self.moves = false;
            self.rest_until = Some(machine_time() + MOVING);
            changed = true;
        }
        let (kernel, gone) = self.probes.look(&self.dir, &mut table)?;
        changed |= gone;
        let now = machine_time();
        changed |= table.book.forget_future(now);
        let mut round = Round { limits: self, table, kernel, now, changed };
        if !moves {
            work(&mut round);
        }
        let until = round.finish()?;
        self.released.set(false);
        if moves {
            return Ok(Some(MOVING));
        }
        if self.tickets.is_empty() {
            self.bell.arm(false);
            return Ok(None);
        }
        Ok(Some(until.map_or(LOOK_AGAIN, |until| until.min(LOOK_AGAIN))))
    }

    /// Makes the table agree with what this supervisor knows of itself: a table that could not be
    /// written, or was lost, says something else.
    fn reconcile(&mut self, table: &mut Table) -> bool {
        let mine = |owner: &Owner| owner.member == self.me;
        let own = table.tickets.iter().filter(|(_, owner)| mine(owner)).map(|(ticket, _)| *ticket);
        let own: BTreeSet<_> = own.collect();
        self.tickets.retain(|ticket| own.contains(ticket));
        let stray: Vec<_> =
            own.iter().copied().filter(|ticket| !self.tickets.contains(ticket)).collect();
        for ticket in &stray {
            table.leave(*ticket);
        }
        let known = table.members.contains_key(&self.me);
        if !known {
            table.members.insert(self.me, self.terms.member());
        }
        !stray.is_empty() || !known
    }
}

impl Drop for SharedLimits {
    fn drop(&mut self) {
        // Others notice anyway that this one is gone; like this they notice at once.
        if self.me != NOBODY
            && let Ok(_guard) = self.mutex.lock(PATIENCE)
            && let Ok(mut table) = Table::read(&self.dir, &self.boot)
        {
            let me = self.me;
            table.drop_members(|member| member == me);
            let _ = table.write(&self.dir);
        }
    }
}

fn make(dir: &Path) -> Result<(), FileError> {
    match DirBuilder::new().mode(0o700).recursive(true).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(FileError::of("create", dir)(error))
        }
        _ => Ok(()),
    }
}

impl Round<'_> {
    /// Says for how many requests there is room, and what each of them needs: any of `choices`,
    /// the preferred one first.
    pub(crate) fn want(&mut self, count: usize, choices: &[Needs]) {
        let count = if choices.is_empty() { 0 } else { count };
        while self.limits.tickets.len() > count {
            if let Some(ticket) = self.limits.tickets.pop() {
                self.table.leave(ticket);
                self.changed = true;
            }
        }
        for ticket in &self.limits.tickets {
            self.changed |= self.table.book.renew(*ticket, choices);
        }
        while self.limits.tickets.len() < count {
            let joining = Joining {
                kind: self.limits.terms.stage.clone(),
                choices: choices.to_vec(),
                spacing: self.limits.terms.spacing,
            };
            let ticket = self.table.book.join(joining);
            let owner = Owner { member: self.limits.me, since: self.now };
            self.table.tickets.insert(ticket, owner);
            self.limits.tickets.push(ticket);
            self.changed = true;
        }
    }

    /// A request of this supervisor that may start now, if there is one.
    pub(crate) fn next(&mut self) -> Option<Grant> {
        if self.limits.tickets.is_empty() {
            return None;
        }
        let verdicts = self.table.book.decide(&self.kernel.0, self.now);
        verdicts.into_iter().find_map(|verdict| {
            let mine = self.limits.tickets.contains(&verdict.ticket);
            match &verdict.decision {
                Decision::Start { choices } if mine => {
                    Some(Grant { choices: choices.clone(), verdict })
                }
                _ => None,
            }
        })
    }

    /// Takes what the request needs, through the descriptions of its executor. `None` if the
    /// kernel says otherwise.
    pub(crate) fn take(
        &mut self,
        grant: &Grant,
        choice: usize,
        slots: &ExecutorSlots,
        holder: &Holder,
    ) -> Option<Held> {
        let ticket = grant.verdict.ticket;
        let needs = self.table.book.waiter(ticket)?.choices.get(choice)?.clone();
        let counts = self.table.counts();
        let held = Held { slots: Rc::default(), released: Rc::clone(&self.limits.released) };
        let mut taken = Vec::new();
        for resource in needs.iter() {
            let Some(count) = counts.get(resource) else { continue };
            match self.take_one(resource, *count, slots) {
                Ok(Some((file, slot))) => {
                    held.slots.borrow_mut().push((resource.clone(), file, slot));
                    taken.push((resource.clone(), slot));
                }
                Ok(None) => {
                    // Somebody who does not keep the table has it.
                    self.kernel.0.insert(resource.clone(), 0);
                    return None;
                }
                Err(error) => {
                    tracing::error!(%resource, %error, source = %error.source, "a lock cannot be taken");
                    self.kernel.0.insert(resource.clone(), 0);
                    return None;
                }
            }
        }
        for (resource, slot) in taken {
            if let Some(free) = self.kernel.0.get_mut(&resource) {
                *free = free.saturating_sub(1);
            }
            self.kernel.1.entry(resource.clone()).or_default().insert(slot);
            self.table.holders.entry(resource).or_default().insert(slot, holder.clone());
        }
        self.table.book.start(&grant.verdict, choice, self.now);
        self.table.tickets.remove(&ticket);
        self.limits.tickets.retain(|other| *other != ticket);
        let running = &mut self.limits.running;
        running.retain(|(slots, _)| slots.strong_count() > 0);
        running.push((Rc::downgrade(&held.slots), holder.clone()));
        self.changed = true;
        Some(held)
    }

    fn take_one(
        &self,
        resource: &Resource,
        count: NonZeroU32,
        slots: &ExecutorSlots,
    ) -> Result<Option<(Rc<Slots>, u32)>, FileError> {
        let held = self.kernel.1.get(resource);
        let is_free = |slot: &u32| held.is_none_or(|held| !held.contains(slot));
        let Some(slot) = (0..count.get()).find(is_free) else { return Ok(None) };
        let mut files = slots.files.borrow_mut();
        let file = match files.get(resource).filter(|file| file.is_in_place()) {
            Some(file) => Rc::clone(file),
            None => {
                // The directory was made again: the executor does not have this description.
                let file = Rc::new(Slots::open(&table::file(&self.limits.dir, resource))?);
                files.insert(resource.clone(), Rc::clone(&file));
                file
            }
        };
        Ok(file.try_take(slot)?.then_some((file, slot)))
    }

    /// Writes what has changed. Returns how long until a time that somebody here waits for.
    fn finish(mut self) -> Result<Option<Duration>, LimitsError> {
        let verdicts = self.table.book.decide(&self.kernel.0, self.now);
        // Others that could start are told so by the change of the table.
        self.changed |= self.table.book.note_due(&verdicts, self.now);
        let mut until = None::<Duration>;
        let mut reasons = BTreeMap::new();
        for verdict in verdicts {
            if !self.limits.tickets.contains(&verdict.ticket) {
                continue;
            }
            let why = match verdict.decision {
                Decision::Wait(Reason::Spacing { until: at }) => {
                    let left = at.saturating_sub(self.now);
                    until = Some(until.map_or(left, |other| other.min(left)));
                    let seconds = Duration::from_secs(left.as_secs() + 1);
                    let left = humantime::format_duration(seconds);
                    format!("the last start was too short a time ago; {left} left")
                }
                Decision::Wait(reason) => self.explain(reason),
                Decision::Start { .. } => "it is about to start".to_owned(),
            };
            reasons.insert(verdict.ticket, why);
        }
        self.limits.reasons = reasons.into_values().collect();
        if self.changed || self.limits.released.get() {
            self.table.write(&self.limits.dir)?;
        }
        Ok(until)
    }

    fn explain(&self, reason: Reason<String>) -> String {
        view::explain(&self.table, reason)
    }
}

impl ExecutorSlots {
    /// Descriptors for the executor to inherit.
    pub(crate) fn share(&self) -> Result<Vec<OwnedFd>, FileError> {
        self.files.borrow().values().map(|slots| slots.share()).collect()
    }
}

impl Held {
    /// What is held.
    pub(crate) fn resources(&self) -> Vec<Resource> {
        self.slots.borrow().iter().map(|(resource, ..)| resource.clone()).collect()
    }

    /// Leaves the slots to the kernel, which releases them when nobody has their descriptions any
    /// more: for a task whose executor died, since something that it started may still be there.
    pub(crate) fn leave_to_kernel(self) {
        self.released.set(true);
        self.slots.borrow_mut().clear();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        for (_, file, slot) in self.slots.borrow().iter() {
            self.released.set(true);
            if let Err(error) = file.release(*slot) {
                tracing::error!(%error, source = %error.source, "a lock cannot be released before its executor ends");
            }
        }
    }
}

#[cfg(test)]
mod tests;
