//! A running executor: its process and the three threads around it.

use std::io::{self, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel};
use std::thread;

use nix::sys::signal::Signal;
use seal_config::PLACEMENT_NAMES;
use seal_host::{CgroupError, SpawnError};
use seal_types::StageName;
use seal_wire::LineReader;

use crate::ExecutorPlan;
use crate::event::{Event, FromExecutor, Tag};
use crate::groups::OwnGroup;

/// The process of an executor. It must be reaped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    stdin: Option<Sender<Arc<Vec<u8>>>>,
    /// What is in it ends with this.
    group: Option<OwnGroup>,
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
    ) -> Result<Self, StartError> {
        let mut command = Command::new(&plan.program);
        command.args(&plan.args);
        if !plan.inherit_envs {
            command.env_clear();
        }
        command.envs(&plan.envs);
        for name in PLACEMENT_NAMES {
            command.env_remove(name);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let group = plan.group.as_ref().map(|group| group.make(tag.start)).transpose()?;
        let within = group.as_ref().and_then(OwnGroup::group);
        let mut child = seal_host::spawn_in(command, &plan.placement, within)?;
        match attach(&mut child, stage, tag, events) {
            Ok(stdin) => Ok(Self { child, stdin: Some(stdin), group }),
            Err(source) => {
                // Without its threads it is of no use.
                let _ = seal_host::signal_group(child.id(), Signal::SIGKILL);
                let _ = child.wait();
                Err(SpawnError::Run { program: plan.program.clone().into(), source }.into())
            }
        }
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
) -> io::Result<Sender<Arc<Vec<u8>>>> {
    let missing = || io::Error::from(io::ErrorKind::BrokenPipe);
    let stdin = child.stdin.take().ok_or_else(missing)?;
    let stdout = child.stdout.take().ok_or_else(missing)?;
    let pid = child.id();
    let (lines, to_write) = channel();
    let named = |what: &str| thread::Builder::new().name(format!("{stage}-{} {what}", tag.place));
    let sender = Events { tag, events: events.clone() };
    named("in").spawn({
        let sender = sender.clone();
        move || write_lines(stdin, &to_write, &sender)
    })?;
    named("out").spawn({
        let sender = sender.clone();
        move || read_lines(stdout, stage, &sender)
    })?;
    named("end").spawn(move || sender.send(FromExecutor::Ended(seal_host::wait_ended(pid))))?;
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
