//! `cargo xtask ptx-mutants`: faults put into the device code one by one, to see whether the tests
//! on executed PTX find each.
//!
//! A mutant is the sources with one thing changed: an operator, a number, an index, an instruction
//! of inline assembly, one of its operands, or a constraint. It is found if it does not compile, if
//! the build's check of inline assembly refuses it, if its PTX cannot be executed, or if a test
//! fails. One with the PTX of the sources is none.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::bench::write_result;
use crate::cargo::{build_executable, cargo, root, target};
use crate::out::{say, step};
use crate::ptx_test::compile;

#[allow(dead_code, unused_imports, reason = "the build script uses all of it")]
#[path = "../../crates/seal-cuda/build/asm/mod.rs"]
mod asm;

/// Options of `ptx-mutants`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many mutants are tried.
    #[arg(long, default_value_t = 120)]
    count: usize,
    /// What they are drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The architecture whose PTX is executed.
    #[arg(long, default_value_t = 80)]
    architecture: u32,
    /// Keep the result as JSON in benches/runs.
    #[arg(long)]
    keep: bool,
}

/// The sources that are changed. What measures pipes is left out: nobody looks at its results.
const SOURCES: [&str; 5] = ["words.cuh", "field.cuh", "poseidon.cuh", "work.cuh", "kernels.cu"];
const PIPES: &str = "// The multiplier pipe";

/// The longest that a mutant may run: some do not come to an end.
const PATIENCE: Duration = Duration::from_secs(180);

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Change {
    file: &'static str,
    /// From 1 on.
    line: usize,
    kind: &'static str,
    at: usize,
    from: String,
    to: String,
}

/// What became of a mutant.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    /// Its PTX is that of the sources.
    Same,
    /// Found, and by what.
    Found(String),
    Survived,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    cargo(&["build", "--release", "--package", "ptx-run"], &[])?;
    let tests = ["test", "--release", "--package", "seal-cuda", "--test", "device", "--no-run"];
    let tests = build_executable(&tests, "device")?;
    let kernels = root().join("crates/seal-cuda/kernels");
    let dir = target().join("ptx-mutants");
    let mut changes = Vec::new();
    for file in SOURCES {
        let text = fs::read_to_string(kernels.join(file))?;
        changes.extend(changes_of(file, &text));
    }
    let original = code(&fs::read_to_string(compile(
        args.architecture,
        &kernels.join("kernels.cu"),
        &dir.join("original.ptx"),
    )?)?);
    let chosen = choose(changes, args.count, args.seed);
    step(&format!("{} mutants", chosen.len()));
    let mut fates = Vec::new();
    for (number, change) in chosen.iter().enumerate() {
        let started = Instant::now();
        let fate = try_one(args, change, &kernels, &dir.join("mutant"), &original, &tests)?;
        let Change { file, line, kind, from, to, .. } = change;
        let what = match &fate {
            Fate::Same => "the same PTX".to_owned(),
            Fate::Found(by) => format!("found by {by}"),
            Fate::Survived => "SURVIVED".to_owned(),
        };
        say(&format!(
            "{:4} {file}:{line} {kind} {from:?} -> {to:?}: {what} ({:.0} s)",
            number + 1,
            started.elapsed().as_secs_f64()
        ));
        fates.push(fate);
    }
    let count = |wanted: fn(&Fate) -> bool| fates.iter().filter(|fate| wanted(fate)).count();
    let found = count(|fate| matches!(fate, Fate::Found(_)));
    let same = count(|fate| *fate == Fate::Same);
    let survivors = count(|fate| *fate == Fate::Survived);
    say(&format!("{found} found, {same} with the same PTX, {survivors} survived"));
    if args.keep {
        let mutants: Vec<Value> = chosen.iter().zip(&fates).map(|(c, f)| to_json(c, f)).collect();
        let result = json!({
            "seed": args.seed, "architecture": args.architecture, "found": found,
            "same_ptx": same, "survived": survivors, "mutants": mutants,
        });
        write_result("ptx-mutants", result)?;
    }
    ensure!(survivors == 0, "{survivors} mutants survived");
    Ok(())
}

fn to_json(change: &Change, fate: &Fate) -> Value {
    let Change { file, line, kind, from, to, .. } = change;
    let fate = match fate {
        Fate::Same => "same PTX",
        Fate::Found(by) => by,
        Fate::Survived => "survived",
    };
    json!({ "file": file, "line": line, "kind": kind, "from": from, "to": to, "fate": fate })
}

/// The instructions of a PTX text, without comments.
fn code(ptx: &str) -> Vec<String> {
    let line = |line: &str| line.split("//").next().unwrap_or_default().trim().to_owned();
    ptx.lines().map(line).filter(|line| !line.is_empty()).collect()
}

fn try_one(
    args: &Args,
    change: &Change,
    kernels: &Path,
    dir: &Path,
    original: &[String],
    tests: &Path,
) -> Result<Fate> {
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    for entry in fs::read_dir(kernels)? {
        let path = entry?.path();
        let name = path.file_name().context("a file has a name")?;
        let mut text = fs::read_to_string(&path)?;
        if name == change.file {
            text.replace_range(change.at..change.at + change.from.len(), &change.to);
            let (_, faults) = asm::faults_of_sources(change.file, &text);
            if !faults.is_empty() {
                return Ok(Fate::Found("the check of constraints".to_owned()));
            }
        }
        fs::write(dir.join(name), text)?;
    }
    let ptx = dir.join("mutant.ptx");
    if let Err(error) = compile(args.architecture, &dir.join("kernels.cu"), &ptx) {
        let by = if ptx.is_file() { "loading" } else { "nvcc" };
        // Where the project lies is nobody's business.
        let said = format!("{error:#}").replace(&format!("{}/", root().display()), "");
        let last = said.lines().last().unwrap_or_default();
        return Ok(Fate::Found(format!("{by}: {}", last.chars().take(120).collect::<String>())));
    }
    if code(&fs::read_to_string(&ptx)?) == original {
        return Ok(Fate::Same);
    }
    // What is quick first.
    for only in ["arithmetic", "batches", "measure"] {
        if let Some(by) = run_tests(tests, &ptx, only)? {
            return Ok(Fate::Found(by));
        }
    }
    Ok(Fate::Survived)
}

/// Which test failed first, if any did.
fn run_tests(tests: &Path, ptx: &Path, only: &str) -> Result<Option<String>> {
    let mut child = Command::new(tests)
        .arg(only)
        .env("SEAL_TEST_CUDA", "ptx")
        .env("SEAL_TEST_PTX", ptx)
        .env("RUST_BACKTRACE", "0")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {}", tests.display()))?;
    let mut output = child.stdout.take().context("it is piped")?;
    let reader = std::thread::spawn(move || std::io::read_to_string(&mut output));
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if started.elapsed() > PATIENCE {
            child.kill()?;
            child.wait()?;
            return Ok(Some(format!("{only}: no end")));
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    if status.success() {
        return Ok(None);
    }
    let said = reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
    let failed = said.lines().find_map(|line| line.strip_suffix(" ... FAILED"));
    Ok(Some(failed.unwrap_or(only).trim_start_matches("test ").to_owned()))
}

/// As many of each kind as there can be, drawn from the seed.
fn choose(changes: Vec<Change>, count: usize, seed: u64) -> Vec<Change> {
    let mut state = seed;
    let mut draw = move || {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    let mut kinds: Vec<Vec<Change>> = Vec::new();
    for change in changes {
        match kinds.iter_mut().find(|kind| kind[0].kind == change.kind) {
            Some(kind) => kind.push(change),
            None => kinds.push(vec![change]),
        }
    }
    let mut chosen = Vec::new();
    while chosen.len() < count && kinds.iter().any(|kind| !kind.is_empty()) {
        for kind in kinds.iter_mut().filter(|kind| !kind.is_empty()) {
            let at = (draw() % kind.len() as u64) as usize;
            chosen.push(kind.swap_remove(at));
        }
    }
    chosen.truncate(count);
    chosen
}

/// Everything that can be changed in a source.
fn changes_of(file: &'static str, text: &str) -> Vec<Change> {
    let end = text.find(PIPES).unwrap_or(text.len());
    let mut changes = Vec::new();
    let mut start = 0;
    let mut on_device = Vec::new();
    for (number, whole) in text[..end].split_inclusive('\n').enumerate() {
        let line = whole.split("//").next().unwrap_or_default();
        let trimmed = line.trim_start();
        // What is compiled for a host only is none of a device's.
        if let Some(directive) = trimmed.strip_prefix('#') {
            let directive = directive.trim_start();
            if directive.starts_with("if") {
                on_device.push(!directive.starts_with("ifndef __CUDA_ARCH__"));
            } else if directive.starts_with("else") {
                let inner = on_device.pop().unwrap_or(true);
                on_device.push(!inner);
            } else if directive.starts_with("endif") {
                on_device.pop();
            }
        } else if !on_device.contains(&false) && !trimmed.starts_with("static_assert") {
            let mut note = |kind, at: usize, from: &str, to: &str| {
                changes.push(Change {
                    file,
                    line: number + 1,
                    kind,
                    at: start + at,
                    from: from.to_owned(),
                    to: to.to_owned(),
                });
            };
            if trimmed.starts_with('"') || trimmed.starts_with("asm") || trimmed.starts_with(":") {
                in_assembly(line, &mut note);
            } else {
                in_code(line, &mut note);
            }
        }
        start += whole.len();
    }
    changes
}

/// Changes of a line of inline assembly.
fn in_assembly(line: &str, note: &mut dyn FnMut(&'static str, usize, &str, &str)) {
    for (from, to) in [
        ("addc.cc.", "add.cc."),
        ("add.cc.", "addc.cc."),
        ("addc.u32", "add.u32"),
        ("subc.cc.", "sub.cc."),
        ("subc.u32", "sub.u32"),
        ("madc.lo.cc.", "mad.lo.cc."),
        ("madc.hi.cc.", "mad.hi.cc."),
        ("madc.hi.", "madc.lo."),
        ("mad.lo.", "mad.hi."),
        (".lt.", ".ge."),
    ] {
        for (at, _) in line.match_indices(from) {
            // Not the end of a longer name.
            if !line[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '.')
                || from.starts_with('.')
            {
                note("instruction", at, from, to);
            }
        }
    }
    for (at, from) in line.match_indices("&r\"").chain(line.match_indices("&l\"")) {
        note("constraint", at, from, &from[1..]);
    }
    for (at, _) in line.match_indices('%') {
        let digits: String = line[at + 1..].chars().take_while(char::is_ascii_digit).collect();
        if let Ok(operand) = digits.parse::<u32>() {
            note("operand", at, &format!("%{digits}"), &format!("%{}", operand ^ 1));
        }
    }
    if line.contains("(t[") || line.contains("(a[") || line.contains("](") {
        numbers(line, note, "operand");
    }
}

/// Changes of a line of code.
fn in_code(line: &str, note: &mut dyn FnMut(&'static str, usize, &str, &str)) {
    for (from, to) in [
        (" + ", " - "),
        (" - ", " + "),
        (" * ", " + "),
        (" < ", " <= "),
        (" >= ", " > "),
        (" <= ", " < "),
        (" == ", " != "),
        (" != ", " == "),
        (" & ", " | "),
        (" | ", " & "),
        (" ^ ", " & "),
        (" << ", " >> "),
        (" >> ", " << "),
        (" += ", " -= "),
        (" && ", " || "),
        ("++)", "+= 2)"),
    ] {
        line.match_indices(from).for_each(|(at, _)| note("operator", at, from, to));
    }
    numbers(line, note, "number");
    // An index one further.
    for (at, _) in line.match_indices('[') {
        if let Some(length) = line[at..].find(']') {
            let index = &line[at + 1..at + length];
            let named = index.starts_with(|c: char| c.is_ascii_lowercase());
            if named && !index.contains('[') {
                note("index", at + 1, index, &format!("{index} + 1"));
            }
        }
    }
}

/// Numbers become the next one.
fn numbers(line: &str, note: &mut dyn FnMut(&'static str, usize, &str, &str), kind: &'static str) {
    let bytes = line.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let within = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
        if !bytes[at].is_ascii_digit() || within {
            at += 1;
            continue;
        }
        let length =
            line[at..].find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(line.len() - at);
        let text = &line[at..at + length];
        let other = match text.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex.trim_end_matches("ull"), 16)
                .ok()
                .map(|value| format!("{:#x}", value ^ 0x10)),
            None => text.parse::<u64>().ok().map(|value| (value + 1).to_string()),
        };
        if let Some(other) = other {
            note(kind, at, text, &other);
        }
        at += length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_found_where_the_device_computes() {
        let text = "\
// a + b
#ifdef __CUDA_ARCH__
    asm(\"addc.cc.u32 %0, %0, %9;\"
        : \"+&r\"(t[0]));
#else
  x = y + 1;
#endif
  t[i] = 0x10 - 2;
// The multiplier pipe: a + b
  z = 1 + 1;
";
        let found = changes_of("words.cuh", text);
        let seen: Vec<_> =
            found.iter().map(|c| (c.line, c.kind, c.from.as_str(), c.to.as_str())).collect();
        assert_eq!(
            seen,
            [
                (3, "instruction", "addc.cc.", "add.cc."),
                (3, "operand", "%0", "%1"),
                (3, "operand", "%0", "%1"),
                (3, "operand", "%9", "%8"),
                (4, "constraint", "&r\"", "r\""),
                (4, "operand", "0", "1"),
                (8, "operator", " - ", " + "),
                (8, "number", "0x10", "0x0"),
                (8, "number", "2", "3"),
                (8, "index", "i", "i + 1"),
            ]
        );
        assert!(found.iter().all(|c| text[c.at..].starts_with(&c.from)));
        let some = choose(found.clone(), 7, 1);
        assert_eq!(some.len(), 7);
        assert!(some.iter().any(|change| change.kind == "constraint"), "of every kind");
    }
}
