//! A program under test: a process group of its own, whose lines come one by one, and of which
//! nothing is left when it is dropped.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// How much of a log is kept.
const LOG_KEPT: usize = 64 << 10;

/// How often [`Program::ended`] looks.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// What a program writes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Out(String),
    Log(String),
    /// Standard output is closed.
    End,
}

#[derive(Debug)]
pub(super) struct Program {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<Line>,
    readers: Vec<JoinHandle<()>>,
    log: String,
}

impl Program {
    pub(super) fn start(command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let (sender, lines) = channel();
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("a child has a standard output")?;
        let stderr = child.stderr.take().context("a child has a standard error")?;
        let log = sender.clone();
        let readers = vec![
            std::thread::spawn(move || {
                read_lines(stdout, &sender, Line::Out);
                let _ = sender.send(Line::End);
            }),
            std::thread::spawn(move || read_lines(stderr, &log, Line::Log)),
        ];
        Ok(Self { child, stdin, lines, readers, log: String::new() })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes to its standard input. One that is gone does not read: its end tells more.
    pub(super) fn send(&mut self, bytes: &[u8]) -> bool {
        let Some(stdin) = &mut self.stdin else { return false };
        stdin.write_all(bytes).and_then(|()| stdin.flush()).is_ok()
    }

    pub(super) fn close_input(&mut self) {
        self.stdin = None;
    }

    /// The next line, unless there is none in time.
    pub(super) fn line(&mut self, patience: Duration) -> Option<Line> {
        let line = match self.lines.recv_timeout(patience) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => return None,
            Err(RecvTimeoutError::Disconnected) => return Some(Line::End),
        };
        if let Line::Log(text) = &line {
            self.log.push_str(text);
            self.log.push('\n');
            if self.log.len() > 2 * LOG_KEPT {
                let mut cut = self.log.len() - LOG_KEPT;
                while !self.log.is_char_boundary(cut) {
                    cut += 1;
                }
                self.log.drain(..cut);
            }
        }
        Some(line)
    }

    /// Waits for its end. Returns nothing if it does not come.
    pub(super) fn ended(&mut self, patience: Duration) -> Result<Option<ExitStatus>> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// What it has written to standard error so far, its end if that is long.
    pub(super) fn log(&mut self) -> &str {
        while self.line(Duration::ZERO).is_some_and(|line| line != Line::End) {}
        &self.log
    }

    pub(super) fn signal(&self, signal: Signal) {
        // One that has ended gets none.
        let _ = kill(pid(self.child.id()), signal);
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = killpg(pid(self.child.id()), Signal::SIGKILL);
        let _ = self.child.kill();
        let _ = self.child.wait();
        // A grandchild may hold the pipes: whoever looks for those left behind ends it.
        self.readers.clear();
    }
}

fn read_lines(from: impl Read, to: &Sender<Line>, kind: fn(String) -> Line) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
        let text = String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(&line)).into_owned();
        line.clear();
        if to.send(kind(text)).is_err() {
            return;
        }
    }
}

pub(super) fn pid(pid: u32) -> Pid {
    Pid::from_raw(pid.cast_signed())
}

/// The children of a process.
pub(super) fn children(parent: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for thread in fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten() {
        let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        found.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    found
}

/// Processes that work in `dir` or below it: what a test has started and not ended. Those that are
/// only waiting for their status to be taken are not among them.
pub(super) fn working_in(dir: &Path) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let works = fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir));
        if works && pid != std::process::id() {
            found.push(pid);
        }
    }
    found
}

/// Waits until nothing works in `dir`. What still does then is killed and returned.
pub(super) fn await_nothing_in(dir: &Path, patience: Duration) -> Vec<u32> {
    let deadline = Instant::now() + patience;
    loop {
        let left = working_in(dir);
        if left.is_empty() || Instant::now() >= deadline {
            for process in &left {
                let _ = kill(pid(*process), Signal::SIGKILL);
            }
            return left;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn lines_of_both_outputs_and_the_end_are_seen() -> Result<()> {
        let mut program = Program::start(&mut shell("read x; echo out $x; echo log >&2; exit 3"))?;
        assert!(program.send(b"7\n"));
        let mut seen = Vec::new();
        while let Some(line) = program.line(Duration::from_secs(20)) {
            let end = line == Line::End;
            seen.push(line);
            if end {
                break;
            }
        }
        assert!(seen.contains(&Line::Out("out 7".to_owned())), "{seen:?}");
        let status = program.ended(Duration::from_secs(20))?.context("it ends")?;
        assert_eq!(status.code(), Some(3));
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(program.log(), "log\n");
        Ok(())
    }

    #[test]
    fn what_is_left_behind_is_found_and_ended() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().canonicalize()?;
        let mut program = Program::start(shell("sleep 1000 & echo; wait").current_dir(&path))?;
        assert_eq!(program.line(Duration::from_secs(20)), Some(Line::Out(String::new())));
        assert_eq!(working_in(&path).len(), 2);
        // Only the shell: what it has started stays.
        program.signal(Signal::SIGKILL);
        program.ended(Duration::from_secs(20))?.context("it ends")?;
        assert_eq!(await_nothing_in(&path, Duration::ZERO).len(), 1);
        assert_eq!(await_nothing_in(&path, Duration::from_secs(20)), [0; 0]);
        Ok(())
    }

    #[test]
    fn dropping_ends_the_whole_group() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().canonicalize()?;
        let mut program = Program::start(shell("sleep 1000 & echo; wait").current_dir(&path))?;
        program.line(Duration::from_secs(20));
        drop(program);
        assert_eq!(await_nothing_in(&path, Duration::from_secs(20)), [0; 0]);
        Ok(())
    }
}
