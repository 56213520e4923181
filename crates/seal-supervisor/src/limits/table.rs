//! What supervisors that share a runtime directory tell each other: who waits, in which order, and
//! who holds what. Read and replaced as a whole, under a mutex, by whoever changes something.
//!
//! The table is not what makes limits and locks hold: that is the kernel's locks on the slots
//! ([`seal_host::Slots`]). What the table says of processes that are gone is dropped by the next
//! one that reads it, so it never has to be repaired; if it is lost, the order of those who wait is
//! lost and nothing else.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::num::NonZeroU32;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::OFlag;
use seal_host::{FileError, Slots};
use seal_limits::{Book, Free, Order, Resource, Ticket};
use serde::{Deserialize, Serialize};

/// The table's name in its directory. Another form of the table gets another name.
pub(super) const TABLE: &str = "table-1.json";

/// The file of whose slots each supervisor holds one.
pub(super) const MEMBERS_FILE: &str = "members.slots";

/// How many supervisors may share a directory.
pub(super) const MEMBERS: u32 = 1024;

/// The table.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(super) struct Table {
    /// Which start of the machine the times belong to.
    pub(super) boot: String,
    pub(super) book: Book<String>,
    /// The supervisors, by the slot of the members' file that each of them holds.
    pub(super) members: BTreeMap<u32, Member>,
    /// Which of them each ticket belongs to.
    pub(super) tickets: BTreeMap<Ticket, Owner>,
    pub(super) holders: BTreeMap<Resource, BTreeMap<u32, Holder>>,
}

/// A supervisor.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Member {
    pub(super) pid: u32,
    /// The pid namespace of that; 0 if it cannot tell.
    #[serde(default)]
    pub(super) pid_namespace: u64,
    pub(super) stage: String,
    /// What it knows to be limited.
    pub(super) counts: BTreeMap<Resource, NonZeroU32>,
    /// In which order it has locks given; what is not named here is not known of it.
    #[serde(default)]
    pub(super) orders: BTreeMap<Resource, Order<String>>,
    /// The least time between two starts of its stage, if that is known of it.
    #[serde(default)]
    pub(super) spacing: Option<Duration>,
}

/// Whose ticket.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Owner {
    pub(super) member: u32,
    /// When it joined the queue.
    pub(super) since: Duration,
}

/// Who holds a slot.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Holder {
    /// The stage of the task.
    pub stage: String,
    /// The number of its request.
    pub req: u64,
    /// The sector as logs name it, if that is known.
    pub sector: Option<String>,
    /// The process id of the supervisor.
    pub supervisor: u32,
    /// The process id of the executor.
    pub executor: u32,
    /// Since when, as time since the start of the machine.
    pub since: Duration,
}

impl Table {
    /// Reads the table, or begins a new one where there is none that can be read.
    pub(super) fn read(dir: &Path, boot: &str) -> Result<Self, FileError> {
        let path = dir.join(TABLE);
        let mut table = match read(&path) {
            Ok(text) => serde_json::from_slice(&text).unwrap_or_else(|error| {
                tracing::error!(path = %path.display(), %error, "the table of those who wait is broken; their order is lost");
                Self::default()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::default(),
            Err(error) => return Err(FileError::of("read", &path)(error)),
        };
        if table.boot != boot {
            table.book.forget_times();
            table.holders.clear();
            table.boot = boot.to_owned();
        }
        Ok(table)
    }

    /// Replaces the table, which tells all who wait that something has changed.
    pub(super) fn write(&self, dir: &Path) -> Result<(), FileError> {
        let (path, part) = (dir.join(TABLE), dir.join(format!(".{TABLE}.part")));
        let text = serde_json::to_vec(self).map_err(|error| {
            FileError::of("write", &path)(io::Error::new(io::ErrorKind::InvalidData, error))
        })?;
        // Not synced to disk: it means nothing after the machine has stopped.
        fs::write(&part, text).map_err(FileError::of("write", &part))?;
        fs::rename(&part, &path).map_err(FileError::of("rename", &part))
    }

    /// Drops what belongs to supervisors that are gone. Returns whether there was anything.
    pub(super) fn drop_members(&mut self, is_gone: impl Fn(u32) -> bool) -> bool {
        let gone: Vec<_> = self.members.keys().copied().filter(|member| is_gone(*member)).collect();
        for member in &gone {
            self.members.remove(member);
        }
        let stray: Vec<_> = self
            .tickets
            .iter()
            .filter(|(_, owner)| !self.members.contains_key(&owner.member))
            .map(|(ticket, _)| *ticket)
            .collect();
        for ticket in &stray {
            self.leave(*ticket);
        }
        // A waiter that belongs to nobody would hold up the others for ever.
        let lost: Vec<_> = self.book.waiting().map(|waiter| waiter.ticket).collect();
        let lost: Vec<_> =
            lost.into_iter().filter(|ticket| !self.tickets.contains_key(ticket)).collect();
        for ticket in &lost {
            self.book.leave(*ticket);
        }
        !(gone.is_empty() && stray.is_empty() && lost.is_empty())
    }

    pub(super) fn leave(&mut self, ticket: Ticket) {
        self.tickets.remove(&ticket);
        self.book.leave(ticket);
    }

    /// What is limited, and to how many.
    pub(super) fn counts(&self) -> BTreeMap<Resource, NonZeroU32> {
        let counts = self.members.values().flat_map(|member| &member.counts);
        counts.map(|(resource, count)| (resource.clone(), *count)).collect()
    }
}

/// What the kernel says of the slots.
#[derive(Debug, Default)]
pub(super) struct Probes {
    files: BTreeMap<Resource, Slots>,
    /// Whether files that are missing stay so.
    only_looks: bool,
}

/// How many of each resource are free, and which slots are held.
pub(super) type Kernel = (Free, BTreeMap<Resource, std::collections::BTreeSet<u32>>);

impl Probes {
    /// For whoever takes no part and may be another user: nothing is made.
    pub(super) fn to_look() -> Self {
        Self { only_looks: true, ..Self::default() }
    }

    /// Looks at the slots of everything in `table`, and drops from it the holders that are gone.
    /// Returns whether there were any.
    pub(super) fn look(
        &mut self,
        dir: &Path,
        table: &mut Table,
    ) -> Result<(Kernel, bool), FileError> {
        let counts = table.counts();
        let resources: std::collections::BTreeSet<_> =
            counts.keys().chain(table.holders.keys()).cloned().collect();
        let (mut free, mut held, mut changed) = (Free::new(), BTreeMap::new(), false);
        for resource in resources {
            if !self.files.get(&resource).is_some_and(Slots::is_in_place) {
                let path = file(dir, &resource);
                let opened = match self.only_looks {
                    false => Some(Slots::open(&path)?),
                    true => Slots::open_to_look(&path)?,
                };
                self.files.remove(&resource);
                self.files.extend(opened.map(|slots| (resource.clone(), slots)));
            }
            // A count that was higher before still has its holders.
            let known = table.holders.get(&resource).and_then(|slots| slots.keys().last());
            let count = counts.get(&resource).map_or(0, |count| count.get());
            let most = count.max(known.map_or(0, |last| last + 1));
            let slots = self.files.get(&resource).map(|slots| slots.held_by_others(most));
            let taken = slots.transpose()?.unwrap_or_default();
            if let Some(holders) = table.holders.get_mut(&resource) {
                let before = holders.len();
                holders.retain(|slot, _| taken.contains(slot));
                changed |= holders.len() != before;
                if holders.is_empty() {
                    table.holders.remove(&resource);
                }
            }
            if counts.contains_key(&resource) {
                let taken = u32::try_from(taken.len()).unwrap_or(u32::MAX);
                free.insert(resource.clone(), count.saturating_sub(taken));
            }
            held.insert(resource, taken);
        }
        Ok(((free, held), changed))
    }
}

/// The text of a file, no link and nothing that lets its reader wait.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let mut text = Vec::new();
    OpenOptions::new().read(true).custom_flags(flags).open(path)?.read_to_end(&mut text)?;
    Ok(text)
}

/// The file whose slots are those of `resource`.
pub(super) fn file(dir: &Path, resource: &Resource) -> PathBuf {
    dir.join(format!("{}-{}.slots", resource.kind(), file_name(resource.name())))
}

/// `name` as part of a file name: different names give different file names, and none leaves the
/// directory.
fn file_name(name: &str) -> String {
    use std::fmt::Write;
    let mut safe = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-') {
            safe.push(char::from(byte));
        } else {
            let _ = write!(safe, "%{byte:02x}");
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_file_names_that_stay_apart() {
        for (name, expected) in
            [("gpu1", "gpu1"), ("gpu 1", "gpu%201"), ("../x", "%2e%2e%2fx"), ("a%20", "a%2520")]
        {
            assert_eq!(file_name(name), expected);
        }
        let path = |resource: Resource| file(Path::new("/d"), &resource);
        let [lock, limit] = [Resource::Lock("c2".into()), Resource::Limit("c2".into())].map(path);
        assert_eq!(lock, Path::new("/d/lock-c2.slots"));
        assert_ne!(lock, limit);
    }

    #[test]
    fn a_broken_table_is_begun_anew_and_times_of_an_earlier_boot_are_forgotten() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::write(dir.path().join(TABLE), "{\"boot\":").expect("writable");
        let mut table = Table::read(dir.path(), "now").expect("readable");
        assert!(table.members.is_empty());
        let holder = Holder {
            stage: "pc1".into(),
            req: 1,
            sector: None,
            supervisor: 2,
            executor: 3,
            since: Duration::ZERO,
        };
        table.holders.insert(Resource::Lock("x".into()), BTreeMap::from([(0, holder)]));
        table.write(dir.path()).expect("writable");
        assert_eq!(Table::read(dir.path(), "now").expect("readable").holders.len(), 1);
        assert!(Table::read(dir.path(), "later").expect("readable").holders.is_empty());
    }
}
