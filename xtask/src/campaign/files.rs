//! An error at every call that touches a file: a first run counts the calls, then in each case one
//! of them fails. What succeeds all the same must have the right bytes; what fails must not blame
//! the sector; and done again without the error it succeeds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::Part;
use super::outcome::{Outcome, Verdict};
use super::program::await_nothing_in;
use super::subject::{Binaries, Start, Subject};

/// The calls that can fail, in the order of `faults.c`, and with what.
const CALLS: [(&str, &[Errno]); 21] = [
    ("open", &[Errno::EMFILE, Errno::EACCES, Errno::EIO, Errno::ENFILE, Errno::ESTALE]),
    ("read", &[Errno::EIO, Errno::ESTALE]),
    ("write", &[Errno::ENOSPC, Errno::EIO, Errno::EDQUOT]),
    ("pread", &[Errno::EIO, Errno::ESTALE]),
    ("pwrite", &[Errno::ENOSPC, Errno::EIO, Errno::EDQUOT]),
    ("sync", &[Errno::EIO, Errno::ENOSPC]),
    ("rename", &[Errno::EIO, Errno::EACCES, Errno::ENOSPC, Errno::EROFS]),
    ("link", &[Errno::EPERM, Errno::EMLINK, Errno::EIO]),
    ("unlink", &[Errno::EACCES, Errno::EIO]),
    ("mkdir", &[Errno::ENOSPC, Errno::EACCES, Errno::EROFS]),
    ("rmdir", &[Errno::EIO]),
    ("fallocate", &[Errno::ENOSPC, Errno::EOPNOTSUPP, Errno::EIO]),
    ("truncate", &[Errno::EIO, Errno::ENOSPC, Errno::EFBIG]),
    ("flock", &[Errno::ENOLCK, Errno::EOPNOTSUPP, Errno::EIO]),
    ("fcntl", &[Errno::ENOLCK, Errno::EINVAL]),
    ("mmap", &[Errno::ENOMEM, Errno::ENODEV]),
    ("stat", &[Errno::EIO, Errno::EACCES, Errno::ESTALE]),
    ("statfs", &[Errno::EIO, Errno::ENOSYS]),
    ("opendir", &[Errno::EMFILE, Errno::EIO]),
    ("chmod", &[Errno::EPERM]),
    ("copy", &[Errno::EXDEV, Errno::ENOSPC, Errno::EIO]),
];

/// Bytes of `struct shared`: counts, how many calls have failed, and the file's name.
const SHARED: usize = CALLS.len() * 8 + 8 + 256;

/// A subject with the calls of its undisturbed run.
struct Counted {
    subject: Subject,
    new_parents: bool,
    counts: Vec<u64>,
}

pub(super) struct Files {
    library: PathBuf,
    counted: Vec<Counted>,
}

impl Files {
    /// Nothing, with the reason, where there is no C compiler.
    pub(super) fn new(binaries: &Binaries, dir: &Path, case: &str) -> Result<Result<Self, String>> {
        let library = match build(dir)? {
            Ok(library) => library,
            Err(reason) => return Ok(Err(reason)),
        };
        let pc1 = Subject::pc1(binaries, case, &dir.join("pc1"))?;
        let pc2 = Subject::pc2(binaries, &pc1, &dir.join("pc2"))?;
        let supervised = Subject::supervised(binaries, &pc1, &dir.join("supervised-pc1"))?;
        let again = Subject::pc1(binaries, case, &dir.join("pc1-new"))?;
        let mut files = Self { library, counted: Vec::new() };
        for (subject, new_parents) in
            [(pc1, false), (pc2, false), (supervised, false), (again, true)]
        {
            files.count(subject, new_parents)?;
        }
        Ok(Ok(files))
    }

    fn count(&mut self, subject: Subject, new_parents: bool) -> Result<()> {
        let mut counted = Counted { subject, new_parents, counts: Vec::new() };
        let (wrong, shared) = counted.run(&self.library, None)?;
        if let Err(wrong) = wrong {
            bail!("{} fails while its calls are counted: {wrong}", counted.subject.name);
        }
        counted.counts = shared.counts;
        ensure!(
            counted.counts.iter().sum::<u64>() > 0,
            "no call of {} was counted: is it linked statically?",
            counted.subject.name
        );
        self.counted.push(counted);
        Ok(())
    }
}

/// What the library has counted.
struct Shared {
    counts: Vec<u64>,
    fired: u64,
    file: String,
}

impl Counted {
    /// One run from the beginning under `fault`.
    fn run(&self, library: &Path, fault: Option<&str>) -> Result<(Result<String, String>, Shared)> {
        let subject = &self.subject;
        subject.restore()?;
        if self.new_parents {
            subject.remove_parents()?;
        }
        let shared = subject.dir.join("shared");
        fs::write(&shared, [0; SHARED])?;
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let mut environment = vec![
            ("LD_PRELOAD".to_owned(), text(library)),
            ("SEAL_CAMPAIGN_ROOT".to_owned(), text(&subject.work())),
            ("SEAL_CAMPAIGN_SHARED".to_owned(), text(&shared)),
        ];
        if let Some(fault) = fault {
            environment.push(("SEAL_CAMPAIGN_FAULT".to_owned(), fault.to_owned()));
        }
        let start = Start { environment, ..Start::default() };
        let run = subject.attempt(&start, subject.patience(), &mut |_, _| {})?;
        let left = await_nothing_in(&subject.work(), subject.patience());
        if fault.is_some_and(|fault| fault.starts_with("unlink:")) {
            // What could not be removed may stay, as long as only the next run finds it.
            remove_parts(&subject.work().join("sector"))?;
        }
        let verdict = subject.judge_hindered(&run)?;
        let verdict = if left.is_empty() {
            verdict
        } else {
            Err(format!("{} processes are left running", left.len()))
        };
        Ok((verdict, Shared::read(&fs::read(shared)?)?))
    }
}

/// Removes unfinished files from a directory and those below it.
fn remove_parts(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if entry.file_type()?.is_dir() {
            remove_parts(&entry.path())?;
        } else if name.starts_with('.') && name.ends_with(".part") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

impl Part for Files {
    fn case(&mut self, number: u64, rng: &mut ChaCha8Rng) -> Result<Vec<Outcome>> {
        let counted = &self.counted[usize::try_from(number)? % self.counted.len()];
        // Rare calls are as likely as frequent ones.
        let made: Vec<_> = (0..CALLS.len()).filter(|call| counted.counts[*call] > 0).collect();
        let call = made[rng.gen_range(0..made.len())];
        let (name, errors) = CALLS[call];
        let nth = rng.gen_range(0..counted.counts[call]);
        let error = errors[rng.gen_range(0..errors.len())];
        let lasting = rng.gen_bool(0.25);
        let fault = format!("{name}:{nth}:{}:{}", error as i32, u8::from(lasting));
        let (verdict, shared) = counted.run(&self.library, Some(&fault))?;
        let again = counted.subject.does_it()?;
        let kept = if lasting { "from then on" } else { "once" };
        let told = |wrong: String| {
            format!("{name} {nth} of {} fails with {error}, {kept}: {wrong}", shared.file)
        };
        let verdict = verdict
            .map_err(told)
            .and_then(|_| again.map_err(|wrong| told(format!("done again: {wrong}"))));
        let new = if counted.new_parents { ", no parents cache" } else { "" };
        let happened = if shared.fired > 0 { "" } else { ", never came" };
        Ok(vec![Outcome {
            kind: format!("{}{new}", counted.subject.name),
            hit: format!("{name}{happened}"),
            tries: u64::from(shared.fired > 0),
            verdict: Verdict::of(verdict),
        }])
    }
}

impl Shared {
    fn read(bytes: &[u8]) -> Result<Self> {
        let number = |at: usize| -> Result<u64> {
            let bytes = bytes.get(at * 8..).and_then(|rest| rest.first_chunk());
            Ok(u64::from_ne_bytes(*bytes.context("the counts are whole")?))
        };
        let file = &bytes[(CALLS.len() + 1) * 8..];
        let file = file.split(|byte| *byte == 0).next().unwrap_or_default();
        Ok(Self {
            counts: (0..CALLS.len()).map(number).collect::<Result<_>>()?,
            fired: number(CALLS.len())?,
            file: String::from_utf8_lossy(file).into_owned(),
        })
    }
}

/// The library; why there is none, if there is none.
fn build(dir: &Path) -> Result<Result<PathBuf, String>> {
    let (source, library) = (dir.join("faults.c"), dir.join("faults.so"));
    fs::write(&source, include_str!("faults.c"))?;
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let mut command = Command::new(&compiler);
    command.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]);
    command.arg(&library).arg(source).arg("-ldl");
    match command.output() {
        Ok(output) if output.status.success() => Ok(Ok(library)),
        Ok(output) => bail!("faults.c: {}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => Ok(Err(format!("no C compiler {}: {error}", compiler.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::script::{self, Script};
    use super::*;
    use rand::SeedableRng;

    fn files(script: Script) -> Result<Option<(tempfile::TempDir, Files)>> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().canonicalize()?;
        let library = match build(&path)? {
            Ok(library) => library,
            Err(reason) => {
                test_support::skip::skipped("errors at file calls", &reason);
                return Ok(None);
            }
        };
        let subject = script::subject(&path.join("pc1"), script)?;
        let mut files = Files { library, counted: Vec::new() };
        files.count(subject, false)?;
        Ok(Some((dir, files)))
    }

    fn failures(script: Script) -> Result<Option<Vec<String>>> {
        let Some((_dir, mut files)) = files(script)? else { return Ok(None) };
        let mut failures = Vec::new();
        for number in 0..12 {
            let mut rng = ChaCha8Rng::seed_from_u64(number);
            for outcome in files.case(number, &mut rng)? {
                if let Verdict::Failed(reason) = outcome.verdict {
                    failures.push(reason);
                }
            }
        }
        Ok(Some(failures))
    }

    #[test]
    fn an_executor_that_tells_of_errors_has_no_failures() -> Result<()> {
        if let Some(failures) = failures(Script::Careful)? {
            assert_eq!(failures, [""; 0]);
        }
        Ok(())
    }

    #[test]
    fn an_executor_that_does_not_look_is_found() -> Result<()> {
        if let Some(failures) = failures(Script::Careless)? {
            assert!(failures.iter().any(|reason| reason.contains("success, and")), "{failures:?}");
        }
        Ok(())
    }

    #[test]
    fn an_executor_that_blames_the_sector_is_found() -> Result<()> {
        if let Some(failures) = failures(Script::Blaming)? {
            assert!(failures.iter().any(|reason| reason.contains("[bad-input]")), "{failures:?}");
        }
        Ok(())
    }
}
