//! Noticing that others changed something, without asking again and again.
//!
//! The kernel tells (inotify) when the table is replaced, and when the last process that had a
//! file of slots open is gone. Where it cannot, because a user may only have so many watches,
//! looking a few times a second, which is done anyway, has to do.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::table::{MEMBERS_FILE, TABLE};
use crate::event::Event;

/// The kernel tells that a file is closed a moment before it releases the locks on it.
const SETTLE: Duration = Duration::from_millis(5);

/// Whether the supervisor wants to be woken.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bell {
    armed: Arc<AtomicBool>,
    removed: Arc<AtomicBool>,
}

impl Bell {
    /// From now on one change wakes, until the next call.
    pub(super) fn arm(&self, armed: bool) {
        self.armed.store(armed, Ordering::SeqCst);
    }

    /// Whether the supervisor has let go of it.
    fn is_forgotten(&self) -> bool {
        Arc::strong_count(&self.armed) == 1
    }

    fn take(&self) -> bool {
        self.armed.swap(false, Ordering::SeqCst)
    }

    /// Whether somebody has removed the directory.
    pub(super) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::SeqCst)
    }

    pub(super) fn set_removed(&self, removed: bool) {
        self.removed.store(removed, Ordering::SeqCst);
    }
}

/// Starts waiting for changes in `dir`; each wakes the loop if `bell` is armed.
pub(super) fn watch(dir: &Path, bell: Bell, events: SyncSender<Event>) -> io::Result<()> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC)?;
    let mask =
        AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_DELETE;
    inotify.add_watch(dir, mask | AddWatchFlags::IN_ONLYDIR)?;
    let wait = move || {
        loop {
            let told = match inotify.read_events() {
                Ok(told) => told,
                Err(Errno::EINTR) => continue,
                Err(error) => {
                    tracing::warn!(%error, "changes of limits and locks are not told any more");
                    return;
                }
            };
            if bell.is_forgotten() {
                return;
            }
            let closed = told.iter().any(|event| {
                let slots = event.name.as_ref().is_some_and(|name| {
                    Path::new(name).extension().is_some_and(|extension| extension == "slots")
                });
                slots && event.mask.contains(AddWatchFlags::IN_CLOSE_WRITE)
            });
            let replaced = told.iter().any(|event| {
                let table = event.name.as_ref().is_some_and(|name| name == TABLE);
                // What the kernel lost in a flood may have been anything.
                table || event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW)
            });
            let removed = told.iter().any(|event| {
                let members = event.name.as_ref().is_some_and(|name| name == MEMBERS_FILE);
                members && event.mask.contains(AddWatchFlags::IN_DELETE)
                    || event.mask.contains(AddWatchFlags::IN_IGNORED)
            });
            if removed {
                // Whoever has something in it must take it in the next one before others do; that
                // one is watched anew.
                bell.set_removed(true);
                let _ = events.send(Event::LimitsChanged);
                return;
            }
            if closed {
                thread::sleep(SETTLE);
            }
            if (closed || replaced) && bell.take() && events.send(Event::LimitsChanged).is_err() {
                return;
            }
        }
    };
    seal_host::start_thread("limits", wait)?;
    Ok(())
}
