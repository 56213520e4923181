//! A parent that reads neither answers nor the log.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use test_support::client::binary;

use super::*;

/// An executor whose answers and log go to pipes that the test may leave unread.
struct Unread {
    child: Child,
    answers: BufReader<io::PipeReader>,
    log: io::PipeReader,
}

impl Unread {
    fn start(stage: Stage, dir: &Path) -> Result<Self> {
        let (answers, output) = io::pipe()?;
        let (log, errors) = io::pipe()?;
        let mut command = Command::new(binary(stage.executor())?);
        command.current_dir(dir).env("FIL_PROOFS_PARENT_CACHE", dir);
        command.env("FIL_PROOFS_PARAMETER_CACHE", dir).env("SEAL_RUNTIME_DIR", dir.join("run"));
        let child = command.stdin(Stdio::piped()).stdout(output).stderr(errors).spawn()?;
        let mut answers = BufReader::new(answers);
        let mut ready = String::new();
        answers.read_line(&mut ready)?;
        ensure!(ready == format!("{}\n", seal_wire::ready_line(stage)), "{ready}");
        Ok(Self { child, answers, log })
    }

    fn resident_kib(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("it runs")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        // What has ended cannot be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn requests_stay_in_the_pipe_and_each_is_answered_once_when_the_parent_reads_again() -> Result<()> {
    const REQUESTS: u64 = 20_000;
    let dir = tempfile::tempdir()?;
    for stage in Stage::ALL {
        let mut executor = Unread::start(stage, dir.path())?;
        let before = executor.resident_kib()?;
        let mut input = executor.child.stdin.take().context("piped")?;
        let sent = Arc::new(AtomicU64::new(0));
        let sender = thread::spawn({
            let sent = Arc::clone(&sent);
            // Lines of 5 kB that are refused at once: 100 MB in all.
            let padding = "x".repeat(5000);
            move || -> io::Result<()> {
                for id in 0..REQUESTS {
                    writeln!(input, "{{\"padding\":\"{padding}\",\"id\":{id}}}")?;
                    sent.store(id + 1, Ordering::Relaxed);
                }
                Ok(())
            }
        });
        // Until nothing goes on for a while.
        let until = Instant::now() + PATIENCE;
        let mut last = u64::MAX;
        while last != sent.load(Ordering::Relaxed) && Instant::now() < until {
            last = sent.load(Ordering::Relaxed);
            thread::sleep(Duration::from_millis(500));
        }
        ensure!(0 < last && last < REQUESTS, "{stage} took in {last} of {REQUESTS} requests");
        let grown = executor.resident_kib()?.saturating_sub(before);
        ensure!(grown < 16 << 10, "{stage} has grown by {grown} KiB");
        // The log stays unread: it holds up nobody.
        let mut answered = BTreeSet::new();
        for _ in 0..REQUESTS {
            let mut line = String::new();
            executor.answers.read_line(&mut line)?;
            let answer = seal_wire::RawResponse::parse(line.as_bytes())?;
            ensure!(answer.err_msg.is_some_and(|e| e.starts_with("[bad-request] ")), "{line}");
            ensure!(answered.insert(answer.id), "{} was answered twice", answer.id);
        }
        sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))??;
        let status = executor.child.wait()?;
        ensure!(status.success(), "{stage}: {status}");
        let mut log = String::new();
        executor.log.read_to_string(&mut log)?;
        ensure!(log.len() < 2 << 20, "{} bytes of log were kept", log.len());
    }
    Ok(())
}

#[test]
fn a_parent_that_goes_without_having_read_is_noticed() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let executor = Unread::start(Stage::Pc2, dir.path())?;
    let Unread { child, answers, .. } = &mut { executor };
    let mut input = child.stdin.take().context("piped")?;
    let sender = thread::spawn(move || {
        // Ends with an error when the executor does.
        let padding = "x".repeat(5000);
        (0..).try_for_each(|id| writeln!(input, "{{\"padding\":\"{padding}\",\"id\":{id}}}"))
    });
    thread::sleep(Duration::from_millis(200));
    let (nobody, _) = io::pipe()?;
    drop(std::mem::replace(answers, BufReader::new(nobody)));
    ensure!(sender.join().is_ok_and(|sent| sent.is_err()), "the executor goes");
    let status = child.wait()?;
    ensure!(status.code() == Some(seal_wire::ExitCode::ParentGone as i32), "{status}");
    Ok(())
}
