//! An executor that does what its arguments and tasks tell it, above all what no executor should
//! do.
//!
//! Its start is scripted by arguments, each request by its task, an array of steps (or an object
//! with `steps` and a `sector_id`):
//!
//! ```json
//! {"id": 1, "task": [{"touch": "/tmp/x/started"}, {"await": "/tmp/x/go"}, {"answer": 7}]}
//! ```
#![forbid(unsafe_code)]

use std::fs::{self, OpenOptions};
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Parser;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::{Pid, getpgrp, getppid};
use seal_types::Stage;
use seal_wire::{
    Event, ExitCode, Line, LineReader, Progress, ProgressUnit, RawRequest, Response, ready_line,
    to_line,
};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Parser)]
struct Args {
    /// The stage it says it serves.
    stage: Stage,
    /// Append a line with its pid to this file at start.
    #[arg(long)]
    starts: Option<PathBuf>,
    /// Write this line before anything else.
    #[arg(long)]
    junk_first: Option<String>,
    /// Exit with code 9 before the ready line.
    #[arg(long)]
    die: bool,
    /// Exit with code 9 before the ready line if this file exists.
    #[arg(long)]
    die_if: Option<PathBuf>,
    /// Write the ready line only when this file exists.
    #[arg(long)]
    ready_if: Option<PathBuf>,
    /// Never write the ready line.
    #[arg(long)]
    never_ready: bool,
    /// Survive SIGTERM.
    #[arg(long)]
    ignore_sigterm: bool,
    /// Stay when standard input ends.
    #[arg(long)]
    stay: bool,
}

/// A task: its steps, or its steps beside what names its sector.
#[derive(Deserialize)]
#[serde(untagged)]
enum Task {
    Steps(Vec<Step>),
    Named {
        steps: Vec<Step>,
        #[serde(rename = "sector_id")]
        _sector_id: u64,
    },
}

/// One step of a task.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Step {
    /// Answer with this output.
    Answer(Value),
    /// Answer with this error.
    Fail(String),
    /// Answer with what this process can tell of itself.
    Describe,
    /// Answer with the length of the request's line, which fields beside this may pad.
    Length {},
    /// Write these bytes to standard output as they are.
    Raw(String),
    /// Write a line of this many bytes that begins as this request's answer.
    Huge(usize),
    /// Write a line of this many bytes that means nothing.
    Babble(usize),
    /// Take so long.
    WorkMs(u64),
    /// Use so many bytes of memory, from now on.
    Allocate(usize),
    /// Append a line to a file.
    Log(PathBuf, String),
    /// Make this file.
    Touch(PathBuf),
    /// Wait until this file exists.
    Await(PathBuf),
    /// Exit with this code.
    Exit(i32),
    /// Send this process a signal.
    Signal(String),
    /// Close standard output and go on.
    CloseStdout,
    /// Write a line to standard error.
    Complain(String),
    /// Tell the parent, as an event, that of this part so much of so much is done.
    Progress(String, u64, u64),
    /// Work for some time while no more than the allowed numbers of processes may: see
    /// [`Exclusive`].
    Exclusive(Exclusive),
    /// Start a grandchild in a session of its own, which writes its pid to this file and keeps
    /// what it has inherited, but not standard output and error.
    Daemon(PathBuf),
    /// Start a grandchild that holds standard output open and write its pid to this file.
    Grandchild(PathBuf),
}

/// Work during which a process holds one of some files for each lock, to find out whether more
/// processes work than there are files. The kernel's lock on a file ends with its process, whatever
/// the one who sent the task believes.
#[derive(Deserialize)]
struct Exclusive {
    /// For each lock one file for each process that may work.
    locks: Vec<Vec<PathBuf>>,
    ms: u64,
    /// Where the begin of the work, or that it must not begin, is noted.
    log: PathBuf,
    text: String,
}

impl Exclusive {
    fn work(&self) -> anyhow::Result<()> {
        let mut held = Vec::new();
        for files in &self.locks {
            let taken = files.iter().find_map(|path| self.take(path).transpose()).transpose()?;
            match taken {
                Some(file) => held.push(file),
                None => return Ok(append(&self.log, &format!("VIOLATION {}", self.text))?),
            }
        }
        append(&self.log, &self.text)?;
        thread::sleep(Duration::from_millis(self.ms));
        Ok(())
    }

    /// The file with the lock on it. One that is held by a process that is being taken down is
    /// waited for: its files are closed one after the other.
    fn take(&self, path: &Path) -> anyhow::Result<Option<fs::File>> {
        let mut file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)?;
        loop {
            if file.try_lock().is_ok() {
                file.set_len(0)?;
                file.write_all(std::process::id().to_string().as_bytes())?;
                return Ok(Some(file));
            }
            let holder = fs::read_to_string(path)?;
            if !holder.is_empty() && !is_exiting(&holder) {
                return Ok(None);
            }
            thread::sleep(Duration::from_micros(200));
        }
    }
}

/// Whether a process is gone or being taken down by the kernel.
fn is_exiting(pid: &str) -> bool {
    const PF_EXITING: u64 = 4;
    const PF_SIGNALED: u64 = 0x400;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let Some((_, rest)) = stat.rsplit_once(')') else { return true };
    let flags = rest.split_whitespace().nth(6).and_then(|flags| flags.parse::<u64>().ok());
    // A signal that kills is taken by one thread of several, which may not be the first.
    let pending = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let killed = |line: &&str| {
        let mask = line.strip_prefix("SigPnd:").or_else(|| line.strip_prefix("ShdPnd:"));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        mask.is_some_and(|mask| mask & (1 << 8) != 0)
    };
    flags.is_none_or(|flags| flags & (PF_EXITING | PF_SIGNALED) != 0)
        || pending.lines().any(|line| killed(&line))
}

fn main() -> anyhow::Result<std::process::ExitCode> {
    let args = Args::parse();
    if args.ignore_sigterm {
        SigSet::from(Signal::SIGTERM).thread_block()?;
    }
    if let Some(path) = &args.starts {
        append(path, &std::process::id().to_string())?;
    }
    if let Some(junk) = &args.junk_first {
        write_out(format!("{junk}\n").as_bytes())?;
    }
    if args.die || args.die_if.as_deref().is_some_and(Path::exists) {
        return Ok(std::process::ExitCode::from(9));
    }
    if args.never_ready {
        sleep_for_ever();
    }
    if let Some(path) = &args.ready_if {
        await_file(path)?;
    }
    write_out(format!("{}\n", ready_line(args.stage)).as_bytes())?;
    let mut lines = LineReader::new(BufReader::new(io::stdin()), args.stage.line_cap());
    thread::scope(|scope| -> anyhow::Result<()> {
        while let Some(line) = lines.next_line()? {
            let Line::Whole(line) = line else { bail!("a bad line: {line:?}") };
            scope.spawn(move || {
                if let Err(error) = serve(&line) {
                    let _ = writeln!(io::stderr(), "fake-exec: {error:#}");
                    std::process::abort();
                }
            });
        }
        Ok(())
    })?;
    if args.stay {
        sleep_for_ever();
    }
    Ok(ExitCode::Success.into())
}

fn serve(line: &[u8]) -> anyhow::Result<()> {
    let request = RawRequest::parse(line)?;
    let id = request.id;
    let steps = match serde_json::from_str(request.task.get())? {
        Task::Steps(steps) | Task::Named { steps, .. } => steps,
    };
    for step in steps {
        match step {
            Step::Answer(output) => write_out(&to_line(&Response::done(id, output)))?,
            Step::Fail(text) => {
                write_out(&to_line(&json!({ "id": id, "err_msg": text, "output": null })))?;
            }
            Step::Describe => write_out(&to_line(&Response::done(id, describe()?)))?,
            Step::Length {} => write_out(&to_line(&Response::done(id, line.len())))?,
            Step::Raw(text) => write_out(text.as_bytes())?,
            Step::Huge(length) => {
                let mut line = format!("{{\"id\":{id},\"err_msg\":null,\"output\":\"").into_bytes();
                line.resize(length, b'x');
                line.push(b'\n');
                write_out(&line)?;
            }
            Step::Babble(length) => {
                let mut line = vec![b'x'; length];
                line.push(b'\n');
                write_out(&line)?;
            }
            Step::WorkMs(ms) => thread::sleep(Duration::from_millis(ms)),
            Step::Allocate(bytes) => {
                // Written to, or there would be no memory behind it.
                let memory: &'static mut [u8] = vec![1; bytes].leak();
                std::hint::black_box(memory);
            }
            Step::Log(path, text) => append(&path, &text)?,
            Step::Touch(path) => fs::write(path, "")?,
            Step::Await(path) => await_file(&path)?,
            Step::Exit(code) => end(code),
            Step::Signal(name) => {
                kill(Pid::this(), name.parse::<Signal>()?)?;
                // A signal to the process may be taken by another thread a moment later.
                thread::sleep(Duration::from_secs(60));
            }
            Step::CloseStdout => nix::unistd::dup2_stdout(io::stderr())?,
            Step::Complain(text) => {
                let _ = writeln!(io::stderr(), "{text}");
            }
            Step::Progress(part, done, total) => {
                let unit = ProgressUnit::Steps;
                let progress = Progress::of(id, part, (done, total), unit);
                write_out(&to_line(&Event::Progress(progress)))?;
            }
            Step::Exclusive(exclusive) => exclusive.work()?,
            Step::Daemon(path) => {
                let script = "echo $$ > \"$1.part\"; mv \"$1.part\" \"$1\"; exec sleep 1000";
                std::process::Command::new("setsid")
                    .args(["sh", "-c", script, "sh"])
                    .arg(&path)
                    .stdin(std::process::Stdio::null())
                    .stdout(std::process::Stdio::null())
                    .stderr(std::process::Stdio::null())
                    .spawn()?;
                await_file(&path)?;
            }
            Step::Grandchild(path) => {
                let child = std::process::Command::new("sleep").arg("1000").spawn()?;
                fs::write(path, child.id().to_string())?;
            }
        }
    }
    Ok(())
}

/// Ends the process at once, whatever its other threads do.
#[expect(clippy::exit, clippy::disallowed_methods, reason = "dying in the middle is its purpose")]
fn end(code: i32) {
    std::process::exit(code)
}

fn describe() -> anyhow::Result<Value> {
    let status = fs::read_to_string("/proc/self/status")?;
    let cpus = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let mut files = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        files.extend(fs::read_link(entry?.path()).ok());
    }
    let env: serde_json::Map<_, _> = std::env::vars_os()
        .map(|(name, value)| {
            (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned().into())
        })
        .collect();
    Ok(json!({
        "pid": std::process::id(),
        "group": getpgrp().as_raw(),
        "parent": getppid().as_raw(),
        "cpus": cpus.context("status names the cpus")?.trim(),
        "memory": fs::read_to_string("/proc/self/numa_maps").unwrap_or_default(),
        "files": files,
        "env": env,
        "args": std::env::args().collect::<Vec<_>>(),
    }))
}

fn write_out(bytes: &[u8]) -> io::Result<()> {
    static WHOLE: Mutex<()> = Mutex::new(());
    let _one = WHOLE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

fn append(path: &Path, text: &str) -> io::Result<()> {
    // One write in append mode is atomic between processes.
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)?
        .write_all(format!("{text}\n").as_bytes())
}

fn await_file(path: &Path) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !path.exists() {
        if Instant::now() > deadline {
            bail!("{} did not appear", path.display());
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

fn sleep_for_ever() -> ! {
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}
