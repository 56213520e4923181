//! A running executor: its process and the threads around it.

use std::io::{self, BufReader, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel};
use std::time::Duration;

use nix::sys::signal::Signal;
use seal_host::{CgroupError, OomCounter, SpawnError, start_small_thread};
use seal_options::{LOCK_WAIT, LogChoice, PLACEMENT_NAMES, RUNTIME_DIR};
use seal_types::StageName;
use seal_wire::{EVENTS, Line, LineReader};

use crate::ExecutorPlan;
use crate::event::{Event, FromExecutor, Tag};
use crate::groups::OwnGroup;
use crate::last_lines::LastLines;
use crate::strays::MARK;

/// The longest line of an executor's log that is passed on whole.
const LOG_LINE: usize = 64 << 10;

/// The process of an executor. It must be reaped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    stdin: Option<Sender<Arc<Vec<u8>>>>,
    /// What is in it ends with this.
    group: Option<OwnGroup>,
    last: LastLines,
    oom: Option<OomCounter>,
}

/// An executor that could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// Its cgroup cannot be had.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// Its process cannot be had.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
}

/// What a new executor gets from its supervisor beside its plan.
pub(crate) struct Equipment {
    /// Descriptors to inherit: those of its locks.
    pub(crate) inherit: Vec<OwnedFd>,
    /// The mark by which what it starts is known.
    pub(crate) mark: Option<String>,
    /// The runtime directory, in which executors agree with each other too.
    pub(crate) runtime_dir: PathBuf,
    /// How long it waits for what another executor, which is about to end, still has.
    pub(crate) lock_wait: Duration,
}

impl Process {
    /// Starts an executor. Events about it carry `tag`.
    ///
    /// Must be called on the thread that lives as long as the supervisor, because the kernel kills
    /// the executor when the thread that started it ends.
    pub(crate) fn start(
        plan: &ExecutorPlan,
        stage: StageName,
        tag: Tag,
        events: &SyncSender<Event>,
        equipment: Equipment,
    ) -> Result<Self, StartError> {
        let mut command = Command::new(&plan.program);
        command.args(&plan.args);
        if !plan.inherit_envs {
            command.env_clear();
        }
        command.env(RUNTIME_DIR, equipment.runtime_dir);
        command.env(LogChoice::FORM, crate::log::form().name());
        if !plan.inherit_envs || std::env::var_os(LOCK_WAIT).is_none() {
            let lock_wait = humantime::format_duration(equipment.lock_wait).to_string();
            command.env(LOCK_WAIT, lock_wait);
        }
        command.envs(&plan.envs);
        for name in PLACEMENT_NAMES {
            command.env_remove(name);
        }
        command.env(EVENTS, "1");
        if let Some(mark) = equipment.mark {
            command.env(MARK, mark);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let group = plan.group.as_ref().map(|group| group.make(tag.start)).transpose()?.flatten();
        let within = group.as_ref().and_then(OwnGroup::group);
        let mut child = seal_host::spawn_in(command, &plan.placement, within, equipment.inherit)?;
        let last = LastLines::default();
        match attach(&mut child, stage, tag, events, last.clone()) {
            Ok(stdin) => {
                let oom = OomCounter::of(child.id());
                Ok(Self { child, stdin: Some(stdin), group, last, oom })
            }
            Err(source) => {
                // Without its threads it is of no use.
                let _ = seal_host::signal_group(child.id(), Signal::SIGKILL);
                let _ = child.wait();
                Err(SpawnError::Run { program: plan.program.clone().into(), source }.into())
            }
        }
    }

    /// The end of its log, as one line; empty if it wrote nothing.
    pub(crate) fn last_words(&self) -> String {
        self.last.told()
    }

    /// What is to be said if memory ran out while it lived.
    pub(crate) fn out_of_memory(&self) -> Option<&'static str> {
        let oom = self.oom.as_ref().filter(|oom| oom.kills() > 0)?;
        Some(if oom.is_of_group() {
            "killed by the kernel because its cgroup was out of memory"
        } else {
            "probably killed by the kernel because memory ran out"
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Hands it a line. If it is dying, the line is lost, which its end will tell.
    pub(crate) fn send(&self, line: Arc<Vec<u8>>) {
        if let Some(stdin) = &self.stdin {
            let _ = stdin.send(line);
        }
    }

    /// Ends its input, which asks it to finish and end.
    pub(crate) fn close_input(&mut self) {
        self.stdin = None;
    }

    /// Signals it and all its descendants that stayed in its process group; SIGKILL reaches all
    /// of its cgroup.
    pub(crate) fn signal(&self, signal: Signal) {
        if signal == Signal::SIGKILL
            && let Some(group) = &self.group
        {
            group.kill();
        }
        if let Err(error) = seal_host::signal_group(self.pid(), signal) {
            tracing::warn!(pid = self.pid(), %signal, %error, "an executor cannot be signalled");
        }
    }

    /// Takes its status, after it has ended.
    pub(crate) fn reap(mut self) {
        if let Err(error) = self.child.wait() {
            tracing::warn!(pid = self.pid(), %error, "an executor's status cannot be taken");
        }
    }
}

fn attach(
    child: &mut Child,
    stage: StageName,
    tag: Tag,
    events: &SyncSender<Event>,
    last: LastLines,
) -> io::Result<Sender<Arc<Vec<u8>>>> {
    let missing = || io::Error::from(io::ErrorKind::BrokenPipe);
    let stdin = child.stdin.take().ok_or_else(missing)?;
    let stdout = child.stdout.take().ok_or_else(missing)?;
    let stderr = child.stderr.take().ok_or_else(missing)?;
    let pid = child.id();
    let (lines, to_write) = channel();
    let named = |what: &str| format!("{stage}-{} {what}", tag.place);
    let sender = Events { tag, events: events.clone() };
    start_small_thread(&named("in"), {
        let sender = sender.clone();
        move || write_lines(stdin, &to_write, &sender)
    })?;
    start_small_thread(&named("out"), {
        let sender = sender.clone();
        move || read_lines(stdout, stage, &sender)
    })?;
    start_small_thread(&named("log"), {
        let sender = sender.clone();
        move || {
            pass_log_on(stderr, &last);
            sender.send(FromExecutor::LogEnded);
        }
    })?;
    start_small_thread(&named("end"), move || {
        sender.send(FromExecutor::Ended(seal_host::wait_ended(pid)));
    })?;
    Ok(lines)
}

#[derive(Clone, Debug)]
struct Events {
    tag: Tag,
    events: SyncSender<Event>,
}

impl Events {
    /// Tells the loop. When it is gone there is nobody to tell.
    fn send(&self, what: FromExecutor) {
        let _ = self.events.send(Event::Executor { tag: self.tag, what });
    }
}

fn write_lines(mut stdin: ChildStdin, lines: &Receiver<Arc<Vec<u8>>>, sender: &Events) {
    for line in lines {
        if let Err(error) = stdin.write_all(&line) {
            sender.send(FromExecutor::InputClosed(error));
            return;
        }
    }
}

fn read_lines(stdout: ChildStdout, stage: StageName, sender: &Events) {
    // One buffer for the ready line and all that follows: a second one would lose what the first
    // has read ahead.
    let mut lines = LineReader::new(BufReader::new(stdout), stage.line_cap());
    loop {
        match lines.next_line() {
            Ok(Some(line)) => sender.send(FromExecutor::Line(line)),
            Ok(None) => break,
            Err(error) => {
                tracing::warn!(%error, "an executor's output cannot be read");
                break;
            }
        }
    }
    sender.send(FromExecutor::OutputEnded);
}

/// Passes an executor's log on to the supervisor's own, line by line, and remembers its end.
fn pass_log_on(stderr: ChildStderr, last: &LastLines) {
    let mut lines = LineReader::new(BufReader::new(stderr), LOG_LINE);
    loop {
        let mut line = match lines.next_line() {
            Ok(Some(Line::Whole(line) | Line::Unterminated(line))) => line,
            Ok(Some(Line::TooLong { mut head, length, .. })) => {
                head.extend_from_slice(format!(" ... ({length} bytes)").as_bytes());
                head
            }
            Ok(None) | Err(_) => return,
        };
        last.add(&line);
        line.push(b'\n');
        // When nobody takes the log the executor goes on all the same.
        crate::log::pass_on(&line);
    }
}
