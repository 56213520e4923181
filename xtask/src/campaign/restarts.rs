//! Two supervisors beside each other: one stays, one is started and ended again and again by a
//! worker-like client, while executors of either die at random. Each task is answered exactly once,
//! and what is done to one supervisor is not felt by the other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use seal_types::Stage;
use seal_wire::{ErrorCode, ready_line};
use serde_json::{Value, json};
use test_support::process::Memory;

use super::Part;
use super::outcome::{Outcome, Verdict};
use super::program::{Line, Program, await_nothing_in, children, pid};
use super::subject::{Binaries, end_of};

const STAGE: Stage = Stage::Pc1;

/// No case takes that long.
const PATIENCE: Duration = Duration::from_secs(120);

/// Tasks of a case for the one that stays and the one that goes.
const TASKS: [u64; 2] = [60, 40];

/// Of each supervisor.
const EXECUTORS: usize = 2;

/// Memory is looked at from so many tasks on.
const WARM: u64 = 600;

/// What a task may leave in memory: 1 MiB in 1,000.
const LEFT_BY_TASK: u64 = (1 << 20) / 1000;

/// What memory may vary by, however few tasks there were.
const VARIES: u64 = 1 << 20;

pub(super) struct Restarts {
    supervisor: PathBuf,
    dir: PathBuf,
    stays: Client,
    /// Tasks so far of the one that stays, and what it had after the first.
    done: u64,
    warm: Option<(u64, Footprint)>,
}

/// A worker's side of a supervisor.
struct Client {
    program: Program,
    next: u64,
    open: BTreeSet<u64>,
    /// Answers of each request that came.
    answers: BTreeMap<u64, Vec<Value>>,
    ready: bool,
    ended: bool,
}

#[derive(Clone, Copy, Debug)]
struct Footprint {
    memory: u64,
    descriptors: usize,
}

/// How the one that goes is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// As a worker that ends in order.
    Input,
    Term,
    Kill,
}

impl Restarts {
    pub(super) fn new(binaries: &Binaries, dir: &Path) -> Result<Self> {
        let dir = dir.join("work");
        fs::create_dir(&dir)?;
        let fake = binaries.path("fake-exec");
        ensure!(fake.exists(), "{} is not built", fake.display());
        let table = format!(
            "[[processors.{STAGE}]]\nbin = '{}'\nargs = ['{STAGE}']\nconcurrent = 8\n",
            fake.display()
        );
        let config = format!(
            "[supervisor]\ncgroup = 'never'\n[processors.limitation.concurrent]\n{STAGE} = 12\n\
             {table}{table}"
        );
        fs::write(dir.join("config.toml"), config)?;
        let supervisor = binaries.path("seal-supervisor");
        let mut stays = Client::start(&supervisor, &dir)?;
        let deadline = Instant::now() + PATIENCE;
        while !stays.ready || children(stays.program.pid()).len() < EXECUTORS {
            stays.take(Duration::from_millis(5));
            let late = stays.ended || Instant::now() > deadline;
            ensure!(!late, "no supervisor with its executors: {}", stays.program.log());
        }
        Ok(Self { supervisor, dir, stays, done: 0, warm: None })
    }
}

impl Client {
    fn start(supervisor: &Path, dir: &Path) -> Result<Self> {
        let mut command = Command::new(supervisor);
        command.args(["processor", STAGE.name(), "--config", "config.toml"]);
        command.env_clear().current_dir(dir).env("SEAL_RUNTIME_DIR", dir.join("run"));
        command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        Ok(Self {
            program: Program::start(&mut command)?,
            next: 1,
            open: BTreeSet::new(),
            answers: BTreeMap::new(),
            ready: false,
            ended: false,
        })
    }

    /// Sends a task that takes so long and has its own number as output.
    fn send(&mut self, ms: u64) {
        let id = self.next;
        self.next += 1;
        self.open.insert(id);
        let task = json!([{ "work_ms": ms }, { "answer": id }]);
        // One that is gone will answer nothing, and that is looked at.
        self.program.send(&seal_wire::to_line(&json!({ "id": id, "task": task })));
    }

    /// Takes what it has written. Returns whether there was something.
    fn take(&mut self, patience: Duration) -> bool {
        match self.program.line(patience) {
            None => return false,
            Some(Line::End) => self.ended = true,
            Some(Line::Log(_)) => {}
            Some(Line::Out(line)) if line == ready_line(STAGE) => self.ready = true,
            Some(Line::Out(line)) => {
                let answer = serde_json::from_str(&line).unwrap_or(Value::from(line));
                let id = answer["id"].as_u64().unwrap_or(0);
                self.open.remove(&id);
                self.answers.entry(id).or_default().push(answer);
            }
        }
        !self.ended
    }

    fn answered(&self) -> u64 {
        self.answers.len() as u64
    }

    /// Each request was answered once, by its output, or by an error that `may` stand.
    fn judge(&self, may: &[ErrorCode], may_lack: bool) -> Result<(), String> {
        for (id, answers) in &self.answers {
            if *id == 0 || *id >= self.next {
                return Err(format!("an answer to nothing: {answers:?}"));
            }
            let [answer] = answers.as_slice() else {
                return Err(format!("{} answers to request {id}", answers.len()));
            };
            let error = answer["err_msg"].as_str();
            let right = match error {
                None => answer["output"] == *id,
                Some(error) => ErrorCode::of_message(error).is_some_and(|code| may.contains(&code)),
            };
            if !right {
                return Err(format!("request {id} is answered {answer}"));
            }
        }
        match self.open.first() {
            Some(id) if !may_lack => Err(format!("request {id} is not answered")),
            _ => Ok(()),
        }
    }

    fn footprint(&self) -> Result<Footprint> {
        let pid = self.program.pid();
        // One that is about to be started again has no pipes.
        let deadline = Instant::now() + PATIENCE;
        while children(pid).len() < EXECUTORS && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        let files = || fs::read_dir(format!("/proc/{pid}/fd")).map(Iterator::count);
        let memory = Memory::of(pid).context("it runs")?.own;
        // Some are open for a moment only.
        let mut descriptors = files()?;
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(10));
            descriptors = descriptors.min(files()?);
        }
        Ok(Footprint { memory, descriptors })
    }
}

impl Part for Restarts {
    fn case(&mut self, _: u64, rng: &mut ChaCha8Rng) -> Result<Vec<Outcome>> {
        let end = [End::Input, End::Term, End::Kill][rng.gen_range(0..3)];
        // Deaths among the executors of the one that stays, or of the one that goes, or none.
        let victim = rng.gen_range(0..3);
        let mut goes = Client::start(&self.supervisor, &self.dir)?;
        let mut moments: Vec<u64> =
            (0..rng.gen_range(1..5)).map(|_| rng.gen_range(0..80)).collect();
        moments.sort_unstable();
        let ends_at = rng.gen_range(0..TASKS[1] + 10);
        for _ in 0..TASKS[0] {
            self.stays.send(rng.gen_range(0..8));
        }
        for _ in 0..TASKS[1] {
            goes.send(rng.gen_range(0..8));
        }
        // One that was killed in the case before may not be gone yet.
        std::thread::sleep(Duration::from_millis(20));
        let executors = children(self.stays.program.pid());
        let already = self.stays.answered();
        let (mut told, mut restarted) = (false, None::<Client>);
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let news = self.stays.take(Duration::from_millis(1)) | goes.take(Duration::ZERO);
            let news = news | restarted.as_mut().is_some_and(|next| next.take(Duration::ZERO));
            let done = self.stays.answered() - already + goes.answered();
            if moments.first().is_some_and(|moment| done >= *moment) {
                moments.remove(0);
                let of = [Some(&self.stays), Some(&goes), None][victim];
                let targets = of.map(|of| children(of.program.pid())).unwrap_or_default();
                if let Some(target) = targets.get(rng.gen_range(0..targets.len().max(1))) {
                    let _ = kill(pid(*target), Signal::SIGKILL);
                }
            }
            if !told && (goes.answered() >= ends_at || goes.open.is_empty()) {
                told = true;
                match end {
                    End::Input => goes.program.close_input(),
                    End::Term => goes.program.signal(Signal::SIGTERM),
                    End::Kill => goes.program.signal(Signal::SIGKILL),
                }
                // The worker is there again at once.
                let mut next = Client::start(&self.supervisor, &self.dir)?;
                (0..10).for_each(|_| next.send(1));
                restarted = Some(next);
            }
            let next_done = restarted.as_ref().is_some_and(|next| next.open.is_empty());
            let over = self.stays.open.is_empty() && goes.ended && next_done;
            if over && !news {
                break;
            }
        }
        self.done += TASKS[0];
        let judged = self.judge(end, victim, &executors, &mut goes, restarted)?;
        self.stays.answers.retain(|id, _| *id >= self.stays.next);
        if self.warm.is_none() && self.done >= WARM {
            self.warm = Some((self.done, self.stays.footprint()?));
        }
        let whose = ["deaths beside it", "deaths in it", "no deaths"][victim];
        Ok(vec![Outcome {
            kind: format!("supervisor ended by {}", end.name()),
            hit: whose.to_owned(),
            tries: TASKS[0] + TASKS[1] + 10,
            verdict: Verdict::of(judged),
        }])
    }

    fn finish(&mut self) -> Result<Vec<Outcome>> {
        let mut outcomes = Vec::new();
        if let Some((after, warm)) = self.warm
            && self.done > after
        {
            std::thread::sleep(Duration::from_millis(200));
            let now = self.stays.footprint()?;
            let tasks = self.done - after;
            outcomes.push(Outcome {
                kind: format!("memory and descriptors after {tasks} tasks"),
                hit: format!("{} KiB more", now.memory.saturating_sub(warm.memory) >> 10),
                tries: 0,
                verdict: Verdict::of(grown(warm, now, tasks)),
            });
        }
        self.stays.program.close_input();
        let status = self.stays.program.ended(PATIENCE)?;
        let left = await_nothing_in(&self.dir, PATIENCE);
        let ended = match status {
            Some(status) if status.success() && left.is_empty() => Ok(()),
            Some(status) => Err(format!("{status}, {} processes are left", left.len())),
            None => Err("does not end".to_owned()),
        };
        outcomes.push(Outcome {
            kind: "the end of the one that stayed".to_owned(),
            hit: String::new(),
            tries: 1,
            verdict: Verdict::of(ended),
        });
        Ok(outcomes)
    }
}

impl Restarts {
    fn judge(
        &mut self,
        end: End,
        victim: usize,
        executors: &[u32],
        goes: &mut Client,
        restarted: Option<Client>,
    ) -> Result<Result<(), String>> {
        let deaths = [ErrorCode::ExecutorDied, ErrorCode::Unavailable];
        let of_deaths = |here: bool| if here { &deaths[..] } else { &[] };
        let stays = self.stays.judge(of_deaths(victim == 0), false);
        let stays = stays.map_err(|wrong| format!("of the one that stays: {wrong}"));
        let mut may = of_deaths(victim == 1).to_vec();
        if end == End::Input {
            // What waits is not begun any more (`drain`).
            may.push(ErrorCode::Cancelled);
        }
        if end == End::Term {
            may.extend([ErrorCode::Cancelled, ErrorCode::Unavailable, ErrorCode::ExecutorDied]);
        }
        let gone = goes.judge(&may, end == End::Kill || (end == End::Term && !goes.ready));
        let status = goes.program.ended(PATIENCE)?;
        let gone = gone.and(if status.is_some() { Ok(()) } else { Err("does not end".to_owned()) });
        let log = end_of(goes.program.log());
        let gone = gone.map_err(|wrong| format!("of the one that goes: {wrong}; {log}"));
        let mut next = Ok(());
        if let Some(mut restarted) = restarted {
            next = restarted.judge(&[], false);
            restarted.program.close_input();
            if restarted.program.ended(PATIENCE)?.is_none() {
                next = next.and(Err("does not end".to_owned()));
            }
            let log = end_of(restarted.program.log());
            next = next.map_err(|wrong| format!("of the one started at once: {wrong}; {log}"));
        }
        let now = children(self.stays.program.pid());
        let same = if victim == 0 || executors.iter().all(|executor| now.contains(executor)) {
            Ok(())
        } else {
            Err(format!("executors of the one that stays were {executors:?} and are {now:?}"))
        };
        Ok(stays.and(gone).and(next).and(same))
    }
}

/// Whether a process has not grown more than it may.
fn grown(before: Footprint, after: Footprint, tasks: u64) -> Result<(), String> {
    let more = after.memory.saturating_sub(before.memory);
    if after.descriptors != before.descriptors {
        return Err(format!("{} descriptors and then {}", before.descriptors, after.descriptors));
    }
    if more > VARIES + LEFT_BY_TASK * tasks {
        return Err(format!("{} KiB more after {tasks} tasks", more >> 10));
    }
    Ok(())
}

impl End {
    fn name(self) -> &'static str {
        match self {
            Self::Input => "the end of its input",
            Self::Term => "SIGTERM",
            Self::Kill => "SIGKILL",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client() -> Result<Client> {
        Ok(Client {
            program: Program::start(&mut Command::new("true"))?,
            next: 3,
            open: BTreeSet::new(),
            answers: BTreeMap::new(),
            ready: true,
            ended: true,
        })
    }

    #[test]
    fn lost_doubled_wrong_and_strange_answers_are_found() -> Result<()> {
        let good = |id: u64| json!({ "id": id, "err_msg": null, "output": id });
        let died = json!({ "id": 2, "err_msg": "[executor-died] x", "output": null });
        let mut client = client()?;
        client.answers.insert(1, vec![good(1)]);
        client.answers.insert(2, vec![good(2)]);
        assert_eq!(client.judge(&[], false), Ok(()));
        client.answers.insert(2, vec![died.clone()]);
        client.judge(&[], false).unwrap_err();
        assert_eq!(client.judge(&[ErrorCode::ExecutorDied], false), Ok(()));
        client.answers.insert(2, vec![died.clone(), died]);
        client.judge(&[ErrorCode::ExecutorDied], false).unwrap_err();
        client.answers.insert(2, vec![good(1)]);
        client.judge(&[], false).unwrap_err();
        client.answers.remove(&2);
        client.open.insert(2);
        client.judge(&[], false).unwrap_err();
        assert_eq!(client.judge(&[], true), Ok(()));
        client.answers.insert(9, vec![good(9)]);
        client.judge(&[], true).unwrap_err();
        Ok(())
    }

    #[test]
    fn growth_is_found() {
        let of = |memory, descriptors| Footprint { memory, descriptors };
        assert_eq!(grown(of(1 << 20, 9), of(3 << 19, 9), 1000), Ok(()));
        grown(of(1 << 20, 9), of(4 << 20, 9), 1000).unwrap_err();
        grown(of(1 << 20, 9), of(1 << 20, 10), 1000).unwrap_err();
    }
}
