//! Starts in other namespaces beside a supervisor that must not feel them: with the same runtime
//! directory, whatever they see of /proc.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use seal_types::Stage;
use seal_wire::ready_line;
use serde_json::{Value, json};

use super::Part;
use super::outcome::{Outcome, Verdict};
use super::program::{Line, Program, await_nothing_in, children};
use super::subject::{Binaries, Start, Subject};

/// Kinds of namespaces, with what makes them.
const KINDS: [(&str, &[&str]); 8] = [
    ("pid", &["--pid", "--fork", "--kill-child", "--mount-proc"]),
    ("time", &["--time", "--boottime=3600", "--fork", "--kill-child"]),
    ("user", &["--user", "--map-root-user"]),
    ("mount", &["--mount"]),
    ("net", &["--net"]),
    ("ipc", &["--ipc"]),
    ("uts", &["--uts"]),
    ("cgroup", &["--cgroup"]),
];

const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Namespaces {
    subjects: Vec<Subject>,
    /// What the supervisor and all starts share.
    shared: PathBuf,
    supervisor: Program,
    next: u64,
}

impl Namespaces {
    pub(super) fn new(binaries: &Binaries, dir: &Path, case: &str) -> Result<Self> {
        let pc1 = Subject::pc1(binaries, case, &dir.join("pc1"))?;
        let pc2 = Subject::pc2(binaries, &pc1, &dir.join("pc2"))?;
        let supervised = Subject::supervised(binaries, &pc1, &dir.join("supervised-pc1"))?;
        let shared = dir.join("shared");
        std::fs::create_dir(&shared)?;
        let config = format!(
            "[supervisor]\ncgroup = 'never'\n[[processors.c2]]\nbin = '{}'\nargs = ['c2']\n",
            binaries.path("fake-exec").display()
        );
        std::fs::write(shared.join("config.toml"), config)?;
        let mut command = Command::new(binaries.path("seal-supervisor"));
        command.args(["processor", "c2", "--config", "config.toml"]).current_dir(&shared);
        command.env_clear().env("SEAL_RUNTIME_DIR", shared.join("run"));
        command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        let mut supervisor = Program::start(&mut command)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match supervisor.line(Duration::from_millis(10)) {
                Some(Line::Out(line)) if line == ready_line(Stage::C2) => break,
                Some(Line::End) => anyhow::bail!("no supervisor: {}", supervisor.log()),
                _ => ensure!(Instant::now() < deadline, "no supervisor: {}", supervisor.log()),
            }
        }
        Ok(Self { subjects: vec![pc1, pc2, supervised], shared, supervisor, next: 1 })
    }

    /// The one beside does a task as if nothing were.
    fn ask(&mut self) -> Result<(), String> {
        let id = self.next;
        self.next += 1;
        let request = json!({ "id": id, "task": [{ "answer": id }] });
        self.supervisor.send(&seal_wire::to_line(&request));
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match self.supervisor.line(Duration::from_millis(10)) {
                Some(Line::Out(line)) => {
                    let answer: Value = serde_json::from_str(&line).unwrap_or_default();
                    return if answer["id"] == id && answer["output"] == id {
                        Ok(())
                    } else {
                        Err(format!("the supervisor beside it says {line}"))
                    };
                }
                Some(Line::End) => break,
                _ => {}
            }
        }
        Err("the supervisor beside it is gone or silent".to_owned())
    }
}

impl Part for Namespaces {
    fn case(&mut self, number: u64, rng: &mut ChaCha8Rng) -> Result<Vec<Outcome>> {
        let number = usize::try_from(number)?;
        let subject = number % self.subjects.len();
        // Each alone first, then two together.
        let round = number / self.subjects.len();
        let mut kinds = vec![KINDS[round % KINDS.len()]];
        if round >= KINDS.len() {
            kinds.push(KINDS[rng.gen_range(0..KINDS.len())]);
        }
        let names: Vec<_> = kinds.iter().map(|(name, _)| *name).collect();
        let name = names.join(" and ");
        let mut through = vec!["unshare".to_owned()];
        for (_, flags) in &kinds {
            for flag in *flags {
                if !through.iter().any(|word| word == flag) {
                    through.push((*flag).to_owned());
                }
            }
        }
        let outcome = |subject: &Subject, verdict| {
            let kind = format!("{name} namespace");
            let tries = u64::from(!matches!(verdict, Verdict::Impossible(_)));
            Ok(vec![Outcome { kind, hit: subject.name.clone(), tries, verdict }])
        };
        if let Err(reason) = possible(&through) {
            return outcome(&self.subjects[subject], Verdict::Impossible(reason));
        }
        let executors = children(self.supervisor.pid());
        self.ask().map_err(anyhow::Error::msg)?;
        let subject = &self.subjects[subject];
        subject.restore()?;
        let shared = self.shared.join("run").to_string_lossy().into_owned();
        let environment = vec![("SEAL_RUNTIME_DIR".to_owned(), shared)];
        let start = Start { through, environment, ..Start::default() };
        let run = subject.attempt(&start, subject.patience(), &mut |_, _| {})?;
        let left = await_nothing_in(&subject.work(), subject.patience());
        let verdict = subject.judge_hindered(&run)?.and_then(|what| {
            if what == "succeeded" {
                Ok(())
            } else {
                let answer = run.answers.first().map(Value::to_string).unwrap_or_default();
                Err(format!("{what}: {answer}{}", super::subject::end_of(&run.log)))
            }
        });
        let left = if left.is_empty() { Ok(()) } else { Err("processes are left".to_owned()) };
        let now = children(self.supervisor.pid());
        let same = if now == executors {
            Ok(())
        } else {
            Err(format!("executors of the supervisor beside it were {executors:?}, are {now:?}"))
        };
        let subject = number % self.subjects.len();
        let verdict = verdict.and(left).and(same).and(self.ask());
        outcome(&self.subjects[subject], Verdict::of(verdict))
    }

    fn finish(&mut self) -> Result<Vec<Outcome>> {
        self.supervisor.close_input();
        let ended = match self.supervisor.ended(PATIENCE)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(format!("it ended with {status}")),
            None => Err("it does not end".to_owned()),
        };
        let left = await_nothing_in(&self.shared, PATIENCE);
        let left = if left.is_empty() { Ok(()) } else { Err("processes are left".to_owned()) };
        Ok(vec![Outcome {
            kind: "the supervisor beside them".to_owned(),
            hit: "its end".to_owned(),
            tries: 1,
            verdict: Verdict::of(ended.and(left)),
        }])
    }
}

/// Whether such a namespace can be made here.
fn possible(through: &[String]) -> Result<(), String> {
    match Command::new(&through[0]).args(&through[1..]).arg("true").output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
