//! Power cuts: the machine is switched off in the midst of PC1 and PC2, on a disk that loses what
//! was not flushed, and must seal the sector to the same bytes when it is on again.

mod disk;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use seal_types::{MANIFEST, TREE_D};
use serde_json::{Value, json};
use test_support::vector::{Vector, file_digest};

use super::{LIMIT, QEMU, Tools, add_programs, add_sector, output};
use crate::bench::write_result;
use crate::out::{say, step};
use disk::Disk;

/// The sector that is sealed there: the smallest whose stages take a time in which a cut can fall.
const VECTOR: &str = "8MiB-v1_1-a";

/// Length of the disk: a sector of 8 MiB with all its files twice.
const DISK: &str = "192M";

/// The stages, as `init.sh` names them.
const STAGES: [&str; 2] = ["pc1", "pc2"];

/// After a cut in PC1 the machine seals to the end of PC1, and each time after so many to that of PC2.
const TO_THE_END: usize = 5;

/// Files by name, with their digests, as the machine tells them.
type Digests = BTreeMap<String, String>;

/// Seals with `cuts` power cuts and keeps the result.
pub(super) fn run(tools: &Tools, cuts: usize, seed: u64, verbose: bool) -> Result<()> {
    step(&format!("{cuts} power cuts, seed {seed}"));
    let vector = Vector::named(VECTOR)?;
    let initrd = tools.dir.join("initrd-power");
    std::fs::write(&initrd, file_system(tools, &vector)?)?;
    let machine = Machine { tools, initrd: &initrd, verbose };
    let empty = Disk::new(formatted(&tools.dir)?);

    // Undisturbed: what is right, and how long it takes.
    let mut undisturbed = machine.boot(empty.clone(), Last::Pc2)?;
    let began = STAGES.map(|stage| undisturbed.until(&format!("power {stage}")));
    let [pc1, pc2] = began;
    let (pc1, pc2) = (pc1?, pc2?);
    let end = undisturbed.until("power pc2 done")?;
    undisturbed.until("power end")?;
    let (_, text) = undisturbed.finish()?;
    let right = Right::of(&vector, &text)?;
    right.judge(&text, Last::Pc2)?;
    let took = [pc2 - pc1, end - pc2];
    say(&format!("    undisturbed: PC1 {:.1} s, PC2 {:.1} s", seconds(took[0]), seconds(took[1])));
    let mut labelled = machine.boot(empty.clone(), Last::Pc1)?;
    labelled.until("power end")?;
    let (labelled, text) = labelled.finish()?;
    right.judge(&text, Last::Pc1)?;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    // PC2 begins on a disk that has all that PC1 left.
    let begin = [empty, {
        let mut disk = labelled;
        disk.cut(1.0, &mut random);
        disk
    }];

    let (mut told, mut failed) = (Vec::new(), 0);
    for number in 0..cuts {
        let stage = number % STAGES.len();
        let last = if stage == 0 && !(number / STAGES.len()).is_multiple_of(TO_THE_END) {
            Last::Pc1
        } else {
            Last::Pc2
        };
        let cut = Cut {
            stage,
            last,
            after: took[stage].mul_f64(random.gen_range(0.0..1.0)),
            // All, none or some of what was not flushed.
            kept: [0.0, 1.0, 0.5, 0.9][random.gen_range(0..4)],
        };
        let outcome = cut.make(&machine, begin[stage].clone(), &right, &mut random)?;
        let verdict = outcome.fault.as_deref().unwrap_or("same bytes");
        failed += usize::from(outcome.fault.is_some());
        say(&format!(
            "    {number:3} {} after {:5.1} s at `{}`, {} of {} sectors lost: {verdict}",
            STAGES[stage],
            seconds(cut.after),
            outcome.at,
            outcome.lost,
            outcome.cached
        ));
        told.push(json!({
            "stage": STAGES[stage],
            "sealed_to": STAGES[last as usize],
            "after_s": seconds(cut.after),
            "at": outcome.at,
            "kept": cut.kept,
            "not_flushed": outcome.cached,
            "lost": outcome.lost,
            "found": outcome.found,
            "fault": outcome.fault,
        }));
    }
    ensure!(
        told.iter().any(|cut| cut["lost"].as_u64() > Some(0)),
        "no cut has lost anything: the disk's cache was not used"
    );
    let counts = json!({
        "seed": seed, "sector": VECTOR, "file_system": "ext4", "disk": "volatile cache, by sectors",
        "undisturbed_s": took.map(seconds), "cuts": told, "failed": failed,
    });
    write_result("power-cuts", counts)?;
    ensure!(failed == 0, "{failed} of {cuts} power cuts were not survived");
    Ok(())
}

fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}

fn file_system(tools: &Tools, vector: &Vector) -> Result<Vec<u8>> {
    let mut archive = super::system(include_bytes!("init.sh"), &tools.busybox)?;
    add_programs(&mut archive, &["pc1-exec", "pc2-exec"])?;
    add_sector(&mut archive, vector)?;
    Ok(archive.finish())
}

/// An empty file system with a journal.
fn formatted(dir: &Path) -> Result<Vec<u8>> {
    let image = dir.join("empty.ext4");
    let _ = std::fs::remove_file(&image);
    output(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image).arg(DISK))
        .context("an empty file system cannot be made (Debian: apt-get install e2fsprogs)")?;
    Ok(std::fs::read(&image)?)
}

/// The last stage that a machine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    Pc1,
    Pc2,
}

/// What every file must hold.
struct Right {
    files: Digests,
    /// What the sealed file may hold before PC2 is done: nothing, or the data.
    sealed_before: [String; 2],
}

impl Right {
    /// The published crates' files; `t_aux`, which no vector has, as the undisturbed run made it.
    fn of(vector: &Vector, undisturbed: &[String]) -> Result<Self> {
        let files = vector.cache_files.iter();
        let mut files: Digests =
            files.map(|(name, file)| (name.clone(), file.sha256.clone())).collect();
        files.insert("sealed".into(), vector.sealed_sha256.clone());
        let result = digests(undisturbed, "result").context("the undisturbed run told nothing")?;
        let t_aux = result.get("t_aux").context("the undisturbed run has no t_aux")?;
        files.insert("t_aux".into(), t_aux.clone());
        let nothing = tempfile::NamedTempFile::new()?;
        let nothing = file_digest(nothing.path())?.sha256;
        Ok(Self { files, sealed_before: [nothing, vector.staged_sha256.clone()] })
    }

    /// Files that are there under final names and are wrong.
    fn wrong(&self, found: &Digests) -> Vec<String> {
        let right = |name: &str, digest: &String| {
            self.files.get(name) == Some(digest)
                || name == "sealed" && self.sealed_before.contains(digest)
        };
        found.iter().filter(|(name, digest)| !right(name, digest)).map(|(n, _)| n.clone()).collect()
    }

    /// What is there after the stage `last`.
    fn after(&self, last: Last) -> Digests {
        let mut files = self.files.clone();
        if last == Last::Pc1 {
            files.retain(|name, _| name == TREE_D || name.starts_with("sc-02-data-layer-"));
            files.insert("sealed".into(), self.sealed_before[1].clone());
        }
        files
    }

    /// The end of a run, however it began: all files, right, and nothing beside them.
    fn judge(&self, text: &[String], last: Last) -> Result<()> {
        if let Some(failed) = text.iter().find(|line| line.starts_with("power failed")) {
            bail!("{failed}");
        }
        let result = digests(text, "result").context("the run has no end")?;
        let files = self.after(last);
        for (name, digest) in &files {
            ensure!(result.get(name) == Some(digest), "{name} is wrong or missing");
        }
        let names = text.iter().filter_map(|line| line.strip_prefix("power name: "));
        let names: BTreeSet<_> = names.filter(|name| *name != MANIFEST).collect();
        let wanted: BTreeSet<_> =
            files.keys().map(String::as_str).filter(|name| *name != "sealed").collect();
        ensure!(names == wanted, "the directory holds {names:?}");
        ensure!(wanted.contains(TREE_D), "the vector has no tree D");
        Ok(())
    }
}

/// The files that the machine told under `list`, if it told them all.
fn digests(text: &[String], list: &str) -> Option<Digests> {
    let prefix = format!("power {list}: ");
    let mut found = Digests::new();
    for line in text {
        if let Some((digest, path)) =
            line.strip_prefix(&prefix).and_then(|file| file.split_once("  "))
        {
            let name = Path::new(path).file_name()?.to_str()?;
            found.insert(name.to_owned(), digest.to_owned());
        }
        if *line == format!("power {list} told") {
            return Some(found);
        }
    }
    None
}

/// A power cut that is to be made.
struct Cut {
    stage: usize,
    last: Last,
    after: Duration,
    kept: f64,
}

/// What came of it.
struct Outcome {
    /// The last that the executor said.
    at: String,
    cached: usize,
    lost: usize,
    /// What stood under final names when the machine was on again.
    found: Vec<String>,
    fault: Option<String>,
}

impl Cut {
    fn make(
        &self,
        machine: &Machine<'_>,
        disk: Disk,
        right: &Right,
        random: &mut impl Rng,
    ) -> Result<Outcome> {
        let mut running = machine.boot(disk, self.last)?;
        running.until(&format!("power {}", STAGES[self.stage]))?;
        running.read_for(self.after);
        let (mut disk, text) = running.cut()?;
        let (cached, lost) = disk.cut(self.kept, random);
        let at = text.last().map(|line| last_words(line)).unwrap_or_default();

        let mut again = machine.boot(disk, self.last)?;
        let ended = again.until("power end");
        let (_, text) = match ended {
            Ok(_) => again.finish()?,
            Err(_) => again.cut()?,
        };
        let found = digests(&text, "found").unwrap_or_default();
        let wrong = right.wrong(&found);
        let fault = if !wrong.is_empty() {
            Some(format!("wrong under final names: {}", wrong.join(", ")))
        } else {
            right.judge(&text, self.last).err().map(|error| format!("{error:#}"))
        };
        if fault.is_some() {
            text.iter().for_each(|line| say(&format!("        {line}")));
        }
        let found = found.into_keys().collect();
        Ok(Outcome { at, cached, lost, found, fault })
    }
}

/// A line of a log, short.
fn last_words(line: &str) -> String {
    let json: Option<Value> = serde_json::from_str(line).ok();
    let message = json.as_ref().and_then(|json| {
        json.pointer("/fields/message").or_else(|| json.get("message")).and_then(Value::as_str)
    });
    message.unwrap_or(line).chars().take(60).collect()
}

/// What is booted again and again.
struct Machine<'a> {
    tools: &'a Tools,
    initrd: &'a Path,
    verbose: bool,
}

impl Machine<'_> {
    fn boot(&self, disk: Disk, last: Last) -> Result<Running> {
        let socket = tempfile::tempdir()?;
        let path = socket.path().join("disk");
        let listener = disk::listen(&path)?;
        let server = std::thread::Builder::new().spawn(move || disk.serve(&listener))?;
        let address = path.to_str().context("a path in UTF-8")?;
        let mut qemu = Command::new(QEMU)
            .args(["-machine", "q35,accel=tcg", "-cpu", "max", "-m", "768", "-smp", "2"])
            .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
            .args([
                "-blockdev",
                &format!("nbd,node-name=disk,server.type=unix,server.path={address}"),
            ])
            .args(["-device", "nvme,drive=disk,serial=seal"])
            .args(["-serial", "stdio", "-append"])
            .arg(format!("console=ttyS0 quiet panic=-1 seal.last={}", STAGES[last as usize]))
            .arg("-kernel")
            .arg(&self.tools.kernel)
            .arg("-initrd")
            .arg(self.initrd)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {QEMU}"))?;
        let output = qemu.stdout.take().context("QEMU's output is piped")?;
        let (lines, inbox) = mpsc::channel();
        let verbose = self.verbose;
        std::thread::Builder::new().spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                if verbose {
                    say(&format!("        {line}"));
                }
                if lines.send((Instant::now(), line)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Running {
            qemu,
            server,
            inbox,
            text: Vec::new(),
            began: Instant::now(),
            _socket: socket,
        })
    }
}

/// A machine that is on.
struct Running {
    qemu: Child,
    server: std::thread::JoinHandle<std::io::Result<Disk>>,
    inbox: Receiver<(Instant, String)>,
    text: Vec<String>,
    began: Instant,
    _socket: tempfile::TempDir,
}

impl Running {
    /// Waits for a line. Returns when it came.
    fn until(&mut self, wanted: &str) -> Result<Instant> {
        loop {
            let left = LIMIT.saturating_sub(self.began.elapsed());
            match self.inbox.recv_timeout(left) {
                Ok((at, line)) => {
                    let is_wanted = line == wanted;
                    self.text.push(line);
                    if is_wanted {
                        return Ok(at);
                    }
                }
                Err(_) => {
                    bail!("the machine never wrote {wanted:?}; it wrote:\n{}", self.text.join("\n"))
                }
            }
        }
    }

    /// Reads on for so long.
    fn read_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        loop {
            match self.inbox.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok((_, line)) => self.text.push(line),
                Err(RecvTimeoutError::Timeout) => return,
                Err(RecvTimeoutError::Disconnected) => {
                    std::thread::sleep(end.saturating_duration_since(Instant::now()));
                    return;
                }
            }
        }
    }

    /// Switches the machine off, whatever it does.
    fn cut(mut self) -> Result<(Disk, Vec<String>)> {
        self.qemu.kill()?;
        self.finish()
    }

    /// Waits until the machine is off.
    fn finish(mut self) -> Result<(Disk, Vec<String>)> {
        self.qemu.wait()?;
        self.text.extend(self.inbox.iter().map(|(_, line)| line));
        let disk = match self.server.join() {
            Ok(disk) => disk.context("the disk could not be served")?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        Ok((disk, self.text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_wrong_file_a_missing_one_and_a_part_left_are_found() {
        let vector = Vector::named(VECTOR).expect("a vector");
        let mut good = String::new();
        for (name, file) in &vector.cache_files {
            good += &format!("power result: {}  /sector/cache/{name}\n", file.sha256);
            good += &format!("power name: {name}\n");
        }
        good += &format!("power result: {}  /sector/sealed\n", vector.sealed_sha256);
        good += "power result: 00  /sector/cache/t_aux\npower name: t_aux\n";
        good += &format!("power name: {MANIFEST}\npower result told\npower end\n");
        let right = Right::of(&vector, &lines(&good)).expect("all told");
        right.judge(&lines(&good), Last::Pc2).expect("all right");
        // That is more than PC1 makes.
        right.judge(&lines(&good), Last::Pc1).unwrap_err();
        let digest = &vector.cache_files[TREE_D].sha256;
        for bad in [
            good.replace(digest, "11"),
            good.replace(&format!("power result: {digest}  /sector/cache/{TREE_D}\n"), ""),
            good.replace("power name: t_aux", "power name: .t_aux.part"),
            good.replace("power result told\n", ""),
            format!("power failed: pc1\n{good}"),
        ] {
            assert!(right.judge(&lines(&bad), Last::Pc2).is_err(), "{bad}");
        }
    }

    #[test]
    fn before_pc2_the_sealed_file_may_be_empty_or_the_data_and_nothing_else() {
        let vector = Vector::named(VECTOR).expect("a vector");
        let text = lines("power result: 00  /sector/cache/t_aux\npower result told");
        let right = Right::of(&vector, &text).expect("told");
        let found = |digest: &str| Digests::from([("sealed".to_owned(), digest.to_owned())]);
        for digest in right.sealed_before.iter().chain([&vector.sealed_sha256]) {
            assert!(right.wrong(&found(digest)).is_empty());
        }
        assert_eq!(right.wrong(&found("11")), ["sealed"]);
        assert_eq!(right.wrong(&Digests::from([("unknown".into(), "11".into())])), ["unknown"]);
    }
}
