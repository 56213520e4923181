//! Small limits of memory, files, file sizes and processes, and full disks.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::Part;
use super::outcome::{Outcome, Verdict};
use super::program::await_nothing_in;
use super::subject::{Binaries, Start, Subject};

/// A user without rights, whose processes are counted apart.
const NOBODY: &str = "65534";

pub(super) struct Limits {
    subjects: Vec<Subject>,
    /// Why no file system can be mounted, if none can.
    mounts: Result<(), String>,
    other_user: Result<(), String>,
}

/// What is small.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Memory,
    Files,
    FileSize,
    Processes,
    Disk,
    DiskWithoutInodes,
}

const KINDS: [Kind; 6] = [
    Kind::Memory,
    Kind::Files,
    Kind::FileSize,
    Kind::Processes,
    Kind::Disk,
    Kind::DiskWithoutInodes,
];

impl Limits {
    pub(super) fn new(binaries: &Binaries, dir: &Path, case: &str) -> Result<Self> {
        let pc1 = Subject::pc1(binaries, case, &dir.join("pc1"))?;
        let pc2 = Subject::pc2(binaries, &pc1, &dir.join("pc2"))?;
        let supervised = Subject::supervised(binaries, &pc1, &dir.join("supervised-pc1"))?;
        let other_user = other_user(binaries, &pc1.work());
        Ok(Self { subjects: vec![pc1, pc2, supervised], mounts: can_mount(), other_user })
    }
}

/// Whether a file system can be mounted without anybody else seeing it.
fn can_mount() -> Result<(), String> {
    let words = through_mounts("mount -t tmpfs none /mnt");
    tried(Command::new(&words[0]).args(&words[1..]).arg("true"))
}

fn tried(command: &mut Command) -> Result<(), String> {
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn through_mounts(script: &str) -> Vec<String> {
    let script = format!("{script} && exec \"$@\"");
    ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", &script, "sh"]
        .map(str::to_owned)
        .to_vec()
}

/// Whether another user may be taken who can start the binaries and reach the directory.
fn other_user(binaries: &Binaries, work: &Path) -> Result<(), String> {
    if !nix::unistd::geteuid().is_root() {
        return Err(
            "limits of processes count those of a user, and only root can take another".to_owned()
        );
    }
    let mut command = Command::new("setpriv");
    command.args(as_nobody()).arg(binaries.path("pc1-exec")).arg("--version");
    tried(command.current_dir(work))
}

fn as_nobody() -> [&'static str; 6] {
    ["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--"]
}

impl Part for Limits {
    fn case(&mut self, number: u64, rng: &mut ChaCha8Rng) -> Result<Vec<Outcome>> {
        let number = usize::try_from(number)?;
        let subject = &self.subjects[number % self.subjects.len()];
        let kind = KINDS[number / self.subjects.len() % KINDS.len()];
        let name = format!("{}, {}", subject.name, kind.name());
        let possible = match kind {
            Kind::Disk | Kind::DiskWithoutInodes => &self.mounts,
            Kind::Processes => &self.other_user,
            _ => &Ok(()),
        };
        if let Err(reason) = possible {
            let verdict = Verdict::Impossible(reason.clone());
            return Ok(vec![Outcome { kind: name, hit: String::new(), tries: 0, verdict }]);
        }
        subject.restore()?;
        let (start, limit) = kind.start(subject, rng)?;
        let run = subject.attempt(&start, subject.patience(), &mut |_, _| {})?;
        let left = await_nothing_in(&subject.work(), subject.patience());
        // What was on a file system of its own is gone with it.
        let own_disk = matches!(kind, Kind::Disk | Kind::DiskWithoutInodes);
        let verdict = if own_disk && succeeded(&run) {
            Ok(Ok("succeeded".to_owned()))
        } else {
            subject.judge_hindered(&run)
        }?;
        let hit = verdict.clone().unwrap_or_else(|_| "wrong".to_owned());
        let verdict = verdict.and_then(|_| {
            if left.is_empty() { Ok(()) } else { Err("processes are left running".to_owned()) }
        });
        if matches!(kind, Kind::Processes) {
            // What the other user has made must not stand in the way.
            subject.restore()?;
        }
        let again = subject.does_it()?.map_err(|wrong| format!("done again: {wrong}"));
        let verdict = verdict.and(again).map_err(|wrong| format!("{limit}: {wrong}"));
        Ok(vec![Outcome { kind: name, hit, tries: 1, verdict: Verdict::of(verdict) }])
    }
}

fn succeeded(run: &super::subject::Run) -> bool {
    matches!(run.answers.as_slice(), [answer] if answer["err_msg"].is_null())
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Memory => "address space",
            Self::Files => "open files",
            Self::FileSize => "file size",
            Self::Processes => "processes",
            Self::Disk => "full disk",
            Self::DiskWithoutInodes => "no inodes",
        }
    }

    /// How the program is started, and in words.
    fn start(self, subject: &Subject, rng: &mut ChaCha8Rng) -> Result<(Start, String)> {
        let shell = |script: String| {
            let start = Start { shell: Some(script.clone()), ..Start::default() };
            (start, script)
        };
        Ok(match self {
            // From too little to be loaded to enough.
            Self::Memory => shell(format!("ulimit -v {}", rng.gen_range(20..400) * 1024)),
            Self::Files => shell(format!("ulimit -n {}", rng.gen_range(4..40))),
            // In blocks of 512 bytes.
            Self::FileSize => shell(format!("ulimit -f {}", rng.gen_range(0..20))),
            Self::Processes => {
                let made = Command::new("chown")
                    .args(["-R", &format!("{NOBODY}:{NOBODY}")])
                    .arg(subject.work())
                    .status();
                anyhow::ensure!(made.context("cannot start chown")?.success(), "chown failed");
                let (mut start, limit) = shell(format!("ulimit -u {}", rng.gen_range(1..12)));
                start.through.push("setpriv".to_owned());
                start.through.extend(as_nobody().map(str::to_owned));
                (start, limit)
            }
            Self::Disk | Self::DiskWithoutInodes => {
                let work = subject.work();
                let work = work.to_str().context("paths are UTF-8")?;
                let size = match self {
                    Self::Disk => format!("size={}k", rng.gen_range(5..30) * 4),
                    _ => format!("nr_inodes={}", rng.gen_range(8..24)),
                };
                let script = format!(
                    "mount -t tmpfs -o {size} none /mnt && cp -a {work}/. /mnt/ 2>/dev/null; \
                     mount --bind /mnt {work} && cd {work}"
                );
                let start = Start { through: through_mounts(&script), ..Start::default() };
                (start, size)
            }
        })
    }
}
