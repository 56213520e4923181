//! A client that speaks to a processor exactly as venus-worker does: starts it as a child, waits
//! for the ready line, sends requests as lines and reads answers as lines.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use seal_types::Stage;
use seal_wire::{RawResponse, ready_line};
use serde::Serialize;
use serde_json::Value;

/// A running processor.
#[derive(Debug)]
pub struct Processor {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    next_id: u64,
}

impl Processor {
    /// Starts `command` and waits for the ready line of `stage`.
    ///
    /// Standard error goes where the caller's goes, or where `command` says.
    pub fn start(stage: Stage, command: &mut Command, patience: Duration) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("the child has a standard output")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut processor = Self { child, stdin, lines, next_id: 1 };
        match processor.line(patience) {
            Ok(line) if line == ready_line(stage) => Ok(processor),
            Ok(line) => bail!("the first line is {line:?} and not {:?}", ready_line(stage)),
            Err(error) => {
                // Its own status says more than the silence.
                let status = processor.child.try_wait()?;
                Err(error.context(format!("no ready line of {stage}; status: {status:?}")))
            }
        }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends `task` under the next id and returns the id.
    pub fn send<T: Serialize>(&mut self, task: &T) -> Result<u64> {
        let id = self.next_id;
        self.next_id += 1;
        let task = serde_json::value::to_raw_value(task)?;
        self.send_bytes(&seal_wire::to_line(&seal_wire::RawRequest { id, task }))?;
        Ok(id)
    }

    /// Sends bytes as they are.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        let stdin = self.stdin.as_mut().context("the input was closed")?;
        stdin.write_all(bytes)?;
        Ok(stdin.flush()?)
    }

    /// The next line of its standard output.
    pub fn line(&mut self, patience: Duration) -> Result<String> {
        match self.lines.recv_timeout(patience) {
            Ok(line) => Ok(line),
            Err(RecvTimeoutError::Timeout) => bail!("no line within {patience:?}"),
            Err(RecvTimeoutError::Disconnected) => bail!("standard output was closed"),
        }
    }

    /// The next answer.
    pub fn answer(&mut self, patience: Duration) -> Result<RawResponse> {
        let line = self.line(patience)?;
        RawResponse::parse(line.as_bytes()).with_context(|| format!("not an answer: {line}"))
    }

    /// Sends `task` and waits for its output; an error answer is an error here.
    pub fn call<T: Serialize>(&mut self, task: &T, patience: Duration) -> Result<Value> {
        let id = self.send(task)?;
        let answer = self.answer(patience)?;
        ensure!(answer.id == id, "request {id} was answered as {}", answer.id);
        if let Some(error) = answer.err_msg {
            bail!("{error}");
        }
        let output = answer.output.context("an answer has an error or an output")?;
        Ok(serde_json::from_str(output.get())?)
    }

    /// Sends `task` and waits for its error; an output is an error here.
    pub fn call_failing<T: Serialize>(&mut self, task: &T, patience: Duration) -> Result<String> {
        let id = self.send(task)?;
        let answer = self.answer(patience)?;
        ensure!(answer.id == id, "request {id} was answered as {}", answer.id);
        answer.err_msg.with_context(|| format!("expected an error and got {:?}", answer.output))
    }

    /// Ends the input, as a parent does that is done.
    pub fn close_input(&mut self) {
        self.stdin = None;
    }

    /// Ends the input and waits until the process has ended.
    pub fn finish(mut self) -> Result<ExitStatus> {
        self.close_input();
        Ok(self.child.wait()?)
    }

    /// Asks the process to end (SIGTERM).
    pub fn terminate(&self) -> Result<()> {
        Ok(nix::sys::signal::kill(self.nix_pid()?, nix::sys::signal::Signal::SIGTERM)?)
    }

    /// Ends the input and waits for the end as [`Processor::ended`] does.
    pub fn ended_by_input(mut self, patience: Duration) -> Result<(Vec<String>, ExitStatus)> {
        self.close_input();
        self.ended(patience)
    }

    /// Waits until the process closes its standard output and ends. Returns the lines that were
    /// not read yet and its status.
    pub fn ended(mut self, patience: Duration) -> Result<(Vec<String>, ExitStatus)> {
        let mut lines = Vec::new();
        loop {
            match self.lines.recv_timeout(patience) {
                Ok(line) => lines.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    bail!("still running after {patience:?}; it has written {lines:?}")
                }
            }
        }
        Ok((lines, self.child.wait()?))
    }

    fn nix_pid(&self) -> Result<nix::unistd::Pid> {
        Ok(nix::unistd::Pid::from_raw(i32::try_from(self.pid())?))
    }

    /// Kills the process and waits for its end.
    pub fn kill(mut self) -> Result<ExitStatus> {
        self.child.kill()?;
        Ok(self.child.wait()?)
    }

    /// Whether the process still runs.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }
}

impl Drop for Processor {
    fn drop(&mut self) {
        // A test that fails must not leave its child behind; one that has ended cannot be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The directory of this build's binaries: that of the running program, or above it for a test.
pub fn binary_dir() -> Result<std::path::PathBuf> {
    let own = std::env::current_exe().context("the running program has a path")?;
    let dir = own.parent().context("a program lies in a directory")?;
    let dir = if dir.ends_with("deps") { dir.parent().unwrap_or(dir) } else { dir };
    Ok(dir.to_path_buf())
}

/// The path of the binary `name` of this build.
pub fn binary(name: &str) -> Result<std::path::PathBuf> {
    let path = binary_dir()?.join(name);
    ensure!(
        Path::new(&path).exists(),
        "{} is not built; run `cargo build --release --workspace --bins` first, or `cargo xtask test`",
        path.display()
    );
    Ok(path)
}
