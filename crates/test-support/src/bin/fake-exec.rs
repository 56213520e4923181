//! An executor that does what its arguments and tasks tell it, above all what no executor should
//! do.
//!
//! Its start is scripted by arguments, each request by its task, an array of steps:
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
use seal_wire::{ExitCode, Line, LineReader, RawRequest, Response, ready_line, to_line};
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
    /// Start a grandchild that holds standard output open and write its pid to this file.
    Grandchild(PathBuf),
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
    let steps: Vec<Step> = serde_json::from_str(request.task.get())?;
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
