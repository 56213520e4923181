//! `cargo xtask tidy`: the rules of ARCHITECTURE.md that a program can check.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cargo::root;
use crate::out::{say, step};

/// The layer of every crate, and the crates of its own layer that it may use all the same.
/// Dependencies go down only. Development dependencies are free.
const LAYERS: [(&str, u8, &[&str]); 24] = [
    ("seal-types", 0, &[]),
    ("seal-wire", 0, &["seal-types"]),
    ("seal-options", 0, &["seal-types"]),
    ("seal-config", 0, &["seal-options", "seal-types"]),
    ("seal-sha256", 1, &[]),
    ("seal-field", 1, &[]),
    ("seal-poseidon", 1, &["seal-field"]),
    ("seal-host", 1, &[]),
    ("seal-cuda", 1, &["seal-poseidon"]),
    ("seal-limits", 1, &[]),
    ("seal-sdr", 2, &[]),
    ("seal-trees", 2, &[]),
    ("seal-groth16", 2, &[]),
    ("seal-runtime", 3, &[]),
    ("pc1-exec", 4, &[]),
    ("pc2-exec", 4, &[]),
    ("c2-exec", 4, &[]),
    ("seal-supervisor", 4, &[]),
    ("seal-plan", 4, &[]),
    ("test-support", 5, &[]),
    ("oracle", 5, &[]),
    ("ptx-run", 5, &[]),
    ("fma-gen", 5, &[]),
    ("xtask", 6, &[]),
];

/// Which files may contain unsafe code, and how many blocks, functions and impls of it.
const UNSAFE: &[(&str, usize)] = &[
    ("crates/seal-cuda/src/device.rs", 15),
    ("crates/seal-cuda/src/driver.rs", 14),
    ("crates/seal-cuda/src/flight.rs", 3),
    ("crates/seal-cuda/src/groth16/context.rs", 5),
    ("crates/seal-cuda/src/memory.rs", 7),
    ("crates/seal-cuda/src/stream.rs", 3),
    ("crates/seal-field/src/curve/ifma_g1.rs", 2),
    ("crates/seal-field/src/curve/ifma_g2.rs", 2),
    ("crates/seal-field/src/curve/kernel.rs", 2),
    ("crates/seal-field/src/fma/fr.rs", 9),
    ("crates/seal-field/src/fma/fr_code.rs", 20),
    ("crates/seal-field/src/fma/mod.rs", 1),
    ("crates/seal-field/src/fp.rs", 10),
    ("crates/seal-field/src/fp_ifma.rs", 5),
    ("crates/seal-field/src/fr8/nodes.rs", 2),
    ("crates/seal-field/src/fr8/tests.rs", 2),
    ("crates/seal-field/src/fr_ifma.rs", 4),
    ("crates/seal-field/src/ntt/ifma.rs", 8),
    ("crates/seal-field/src/pages.rs", 1),
    ("crates/seal-field/src/rate.rs", 2),
    ("crates/seal-host/src/affinity.rs", 2),
    ("crates/seal-host/src/child.rs", 2),
    ("crates/seal-host/src/file_size.rs", 1),
    ("crates/seal-host/src/labels.rs", 8),
    ("crates/seal-host/src/last_memory.rs", 29),
    ("crates/seal-host/src/map.rs", 1),
    ("crates/seal-host/src/memory_files.rs", 1),
    ("crates/seal-host/src/numa.rs", 4),
    ("crates/seal-host/src/priority.rs", 1),
    ("crates/seal-host/src/process.rs", 3),
    ("crates/seal-host/src/ring.rs", 8),
    ("crates/seal-host/src/signals.rs", 2),
    ("crates/seal-host/src/watched.rs", 9),
    ("crates/seal-host/src/watched/tests.rs", 3),
    ("crates/seal-poseidon/src/ifma.rs", 1),
    ("crates/seal-sha256/src/chacha8/avx2.rs", 2),
    ("crates/seal-sha256/src/chacha8/avx512.rs", 2),
    ("crates/seal-sha256/src/prefetch.rs", 1),
    ("crates/seal-sha256/src/shani.rs", 9),
];

/// Which files may contain inline assembly, each with what holds its constraints to be exact.
const ASSEMBLY: &[(&str, &str)] = &[
    ("crates/seal-cuda/kernels/kernels.cu", "the build script of seal-cuda"),
    ("crates/seal-cuda/kernels/words.cuh", "the build script of seal-cuda"),
    ("crates/seal-cuda/tests/controls/controls.cu", "its own tests: one is wrong on purpose"),
    ("crates/seal-field/src/fma/fr_code.rs", "fma-gen, which writes it and all its registers"),
    ("crates/seal-field/src/fma/mod.rs", "one instruction, which stores to a place that is given"),
];

/// What only the prover's crate and the judge may use.
const PROOF_CRATES: [&str; 5] = [
    "bellperson",
    "filecoin-proofs",
    "filecoin-proofs-api",
    "storage-proofs-core",
    "storage-proofs-porep",
];

/// What opens a file by its path or takes a path apart, and what does it safely instead.
const OPENING: [(&str, &str); 5] = [
    ("File::open(", "seal_host::open_input or open_dir"),
    ("File::create(", "seal_host::PartFile"),
    ("fs::read(", "seal_host::read_input, or read_own for files of our own"),
    ("fs::read_to_string(", "seal_host::read_text"),
    (".parent()", "seal_host::parent_of"),
];

/// Where it is done all the same: nobody else names these files, or it is the safe way itself.
const MAY_OPEN: &[(&str, &str)] = &[
    ("crates/seal-host/", "the kernel's files in /proc and /sys, and the safe ways themselves"),
    ("crates/seal-supervisor/src/limits/mod.rs", "/proc"),
    ("crates/seal-supervisor/src/parent.rs", "/proc"),
    ("crates/seal-supervisor/src/status/live.rs", "/proc"),
    ("crates/seal-supervisor/src/strays.rs", "/proc"),
    ("crates/seal-plan/src/check/build.rs", "its own program"),
    ("crates/seal-plan/src/hardware/gpus.rs", "/proc and /sys"),
    ("crates/seal-plan/src/hardware/read.rs", "/proc and /sys"),
    ("crates/seal-config/src/reference.rs", "documents of this project"),
    ("crates/seal-cuda/", "nothing of it is named by others"),
    ("crates/seal-groth16/src/captured.rs", "a file of the tests"),
    ("crates/seal-groth16/src/stand_in.rs", "a file of the tests"),
    ("crates/seal-groth16/src/tiny.rs", "a file of the tests"),
    ("crates/seal-groth16/src/whole.rs", "a file of the tests"),
];

/// Files above this length are named.
const LONG: usize = 600;

pub(crate) fn run() -> Result<()> {
    step("tidy");
    let mut faults = Vec::new();
    check_layers(&mut faults)?;
    let files = tracked_files()?;
    check_sources(&files, &mut faults)?;
    check_assembly(&files, &mut faults)?;
    check_documents(&files, &mut faults)?;
    for fault in &faults {
        say(&format!("    {fault}"));
    }
    ensure!(faults.is_empty(), "tidy found {} faults", faults.len());
    Ok(())
}

fn tracked_files() -> Result<Vec<PathBuf>> {
    let output = Command::new("git")
        .current_dir(root())
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .output()
        .context("cannot run git")?;
    ensure!(output.status.success(), "git ls-files failed");
    let names = String::from_utf8(output.stdout).context("file names are UTF-8")?;
    Ok(names.lines().map(PathBuf::from).filter(|file| root().join(file).exists()).collect())
}

fn check_layers(faults: &mut Vec<String>) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(root())
        .args(["metadata", "--format-version=1", "--no-deps"])
        .output()
        .context("cannot run cargo metadata")?;
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    let packages = metadata["packages"].as_array().context("packages")?;
    let layer = |name: &str| LAYERS.iter().find(|(known, ..)| *known == name);
    for package in packages {
        let name = package["name"].as_str().context("a name")?;
        if ["tests", "benches"].contains(&name) {
            continue;
        }
        let Some((_, own, beside)) = layer(name) else {
            faults.push(format!("{name} has no layer; add it to LAYERS in xtask/src/tidy.rs"));
            continue;
        };
        for dependency in package["dependencies"].as_array().context("dependencies")? {
            let used = dependency["name"].as_str().context("a name")?;
            if dependency["kind"] == "dev" {
                continue;
            }
            if PROOF_CRATES.contains(&used) && !["seal-groth16", "oracle"].contains(&name) {
                faults.push(format!("{name} uses {used}, which only seal-groth16 and oracle may"));
            }
            if let Some((_, below, _)) = layer(used)
                && below >= own
                && !beside.contains(&used)
            {
                faults.push(format!("{name} (layer {own}) uses {used} (layer {below})"));
            }
        }
    }
    Ok(())
}

/// Programs of tests and measurements, which no task waits for.
const MAY_PANIC_FOR_THREADS: [&str; 4] =
    ["crates/test-support", "crates/ptx-run", "crates/oracle", "crates/seal-cuda/src/measure.rs"];

/// Whether product code, which ends where tests begin, starts threads in a way that panics.
fn starts_threads_plainly(file: &Path, text: &str) -> bool {
    let exempt = MAY_PANIC_FOR_THREADS.iter().any(|path| file.starts_with(path));
    let parts: Vec<_> = file.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    let is_product = parts.first().is_some_and(|first| first == "crates")
        && parts.get(2).is_some_and(|third| third == "src")
        && !parts.iter().any(|part| matches!(part.as_ref(), "tests" | "tests.rs" | "wrong.rs"));
    let product = text.split("#[cfg(test)]\nmod").next().unwrap_or(text);
    let product = product.split("mod tests {").next().unwrap_or(product);
    let plain = ["thread::spawn(", "scope.spawn("];
    is_product && !exempt && plain.iter().any(|call| product.contains(call))
}

fn check_sources(files: &[PathBuf], faults: &mut Vec<String>) -> Result<()> {
    let mut found = BTreeMap::new();
    for file in files.iter().filter(|file| file.extension().is_some_and(|ext| ext == "rs")) {
        let text = std::fs::read_to_string(root().join(file))?;
        let name = file.display().to_string();
        if !text.starts_with("//!") {
            faults.push(format!("{name} does not begin with module documentation"));
        }
        if text.lines().count() > LONG {
            say(&format!("    note: {name} has more than {LONG} lines"));
        }
        if text.lines().any(|line| line.ends_with([' ', '\t'])) {
            faults.push(format!("{name} has trailing spaces"));
        }
        let count = text.lines().filter(|line| is_unsafe(line)).count();
        if count > 0 {
            found.insert(name.clone(), count);
        }
        if starts_threads_plainly(file, &text) {
            faults.push(format!(
                "{name} starts a thread by a way that panics when there is none to be had; use \
                 thread::Builder, or seal_host::start_scoped in a scope, and fail one task"
            ));
        }
        check_opening(&name, &text, faults);
        let root_file =
            ["lib.rs", "main.rs"].iter().any(|end| file.ends_with(Path::new("src").join(end)));
        let may = UNSAFE_CRATES.iter().any(|dir| file.starts_with(dir));
        if root_file && !may && !text.contains("#![forbid(unsafe_code)]") {
            faults.push(format!("{name} does not forbid unsafe code"));
        }
    }
    let allowed: BTreeMap<_, _> = UNSAFE.iter().copied().collect();
    for (name, count) in &found {
        let allowed = allowed.get(name.as_str()).copied().unwrap_or(0);
        if *count != allowed {
            faults.push(format!(
                "{name} has {count} pieces of unsafe code, and {allowed} are listed"
            ));
        }
    }
    for (name, count) in UNSAFE {
        if *count > 0 && !found.contains_key(*name) {
            faults.push(format!("{name} is listed with unsafe code and has none"));
        }
    }
    Ok(())
}

/// Programs open what others name by the ways that wait for nothing and follow no link of ours.
fn check_opening(name: &str, text: &str, faults: &mut Vec<String>) {
    let of_a_program = name.starts_with("crates/seal-")
        || ["pc1", "pc2", "c2"]
            .iter()
            .any(|stage| name.starts_with(&format!("crates/{stage}-exec/")));
    if !of_a_program || !name.contains("/src/") || name.contains("tests") {
        return;
    }
    if MAY_OPEN.iter().any(|(known, _)| name.starts_with(known)) {
        return;
    }
    let program = text.split("#[cfg(test)]").next().unwrap_or_default();
    for (number, line) in (1..).zip(program.lines()) {
        let code = line.split("//").next().unwrap_or_default();
        // `PartFile::create` is another name than `File::create`.
        let is_it = |what: &str| {
            let whole = |at: usize| !code[..at].ends_with(char::is_alphanumeric);
            code.match_indices(what).any(|(at, _)| what.starts_with('.') || whole(at))
        };
        for (what, instead) in OPENING.iter().filter(|(what, _)| is_it(what)) {
            faults.push(format!(
                "{name}:{number}: {what} may wait for ever or follow a link; use {instead}, or list \
                 the file in xtask/src/tidy.rs"
            ));
        }
    }
}

/// Inline assembly and files of it are only where something checks the constraints.
fn check_assembly(files: &[PathBuf], faults: &mut Vec<String>) -> Result<()> {
    for file in files {
        let extension = file.extension().and_then(|extension| extension.to_str());
        let Some(language) = extension.and_then(Language::of) else { continue };
        let text = std::fs::read_to_string(root().join(file))?;
        let name = file.display().to_string();
        let listed = ASSEMBLY.iter().any(|(known, _)| *known == name);
        match (text.lines().any(|line| language.is_assembly(line)), listed) {
            (true, false) => faults.push(format!(
                "{name} has inline assembly, and nothing checks its constraints; write it without, \
                 or check it and list it in xtask/src/tidy.rs"
            )),
            (false, true) => {
                faults.push(format!("{name} is listed with inline assembly and has none"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Where assembly can be.
#[derive(Clone, Copy)]
enum Language {
    Rust,
    C,
    Assembly,
}

impl Language {
    fn of(extension: &str) -> Option<Self> {
        match extension {
            "rs" => Some(Self::Rust),
            "c" | "cc" | "cpp" | "h" | "hpp" | "cu" | "cuh" => Some(Self::C),
            "s" | "S" | "asm" => Some(Self::Assembly),
            _ => None,
        }
    }

    /// Whether a line has an assembly statement. Comments and texts do not.
    fn is_assembly(self, line: &str) -> bool {
        let code = line.replace("\\\"", "");
        let code = code.split("//").next().unwrap_or_default();
        let outside_texts: String = code.split('"').step_by(2).collect();
        let mut words = outside_texts.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '!');
        match self {
            Self::Rust => words.any(|word| word.ends_with("asm!")),
            Self::C => words.any(|word| ["asm", "__asm", "__asm__"].contains(&word)),
            Self::Assembly => true,
        }
    }
}

const UNSAFE_CRATES: [&str; 5] = [
    "crates/seal-sha256",
    "crates/seal-field",
    "crates/seal-poseidon",
    "crates/seal-cuda",
    "crates/seal-host",
];

/// Whether a line of code opens something unsafe. Comments, attributes and texts do not.
fn is_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    let in_text = |at: usize| !code[..at].matches('"').count().is_multiple_of(2);
    ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"]
        .into_iter()
        .filter_map(|opening| code.find(opening))
        .any(|at| !in_text(at))
}

/// Every crate is in the code map and the other way round; every path a document names exists.
fn check_documents(files: &[PathBuf], faults: &mut Vec<String>) -> Result<()> {
    let map = std::fs::read_to_string(root().join("ARCHITECTURE.md")).context("ARCHITECTURE.md")?;
    let crates: BTreeSet<_> = files
        .iter()
        .filter(|file| file.starts_with("crates") && file.ends_with("Cargo.toml"))
        .filter_map(|file| Some(file.parent()?.file_name()?.to_string_lossy().into_owned()))
        .collect();
    for name in &crates {
        if !map.contains(&format!("### `{name}`")) {
            faults.push(format!("ARCHITECTURE.md has no section on {name}"));
        }
    }
    for line in map.lines().filter_map(|line| line.strip_prefix("### `")) {
        let name = line.trim_end_matches('`');
        if !crates.contains(name) {
            faults.push(format!("ARCHITECTURE.md has a section on {name}, which is no crate"));
        }
    }
    for file in files.iter().filter(|file| file.extension().is_some_and(|ext| ext == "md")) {
        let text = std::fs::read_to_string(root().join(file))?;
        for quoted in quoted_paths(&text) {
            if !root().join(quoted).exists() {
                faults.push(format!("{} names {quoted}, which is not there", file.display()));
            }
        }
    }
    Ok(())
}

/// Words in backquotes that are paths of this repository.
fn quoted_paths(text: &str) -> impl Iterator<Item = &str> {
    const ROOTS: [&str; 7] =
        ["crates/", "docs/", "tests/", "benches/", "xtask/", "scripts/", ".ci/"];
    text.split('`').skip(1).step_by(2).filter(|quoted| {
        ROOTS.iter().any(|start| quoted.starts_with(start))
            && !quoted.contains([' ', '*', '<', '{'])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_is_tidy() {
        if let Err(error) = run() {
            panic!("{error:#}");
        }
    }

    #[test]
    fn unsafe_code_is_told_from_talk_about_it() {
        for (line, expected) in [
            ("    unsafe { compress(state) }", true),
            ("pub unsafe fn read() {}", true),
            ("unsafe impl Send for Map {}", true),
            ("// unsafe { no }", false),
            ("#![forbid(unsafe_code)]", false),
        ] {
            assert_eq!(is_unsafe(line), expected, "{line}");
        }
    }

    #[test]
    fn assembly_is_told_from_talk_about_it() {
        for (language, line, expected) in [
            (Language::Rust, "    core::arch::asm!(\"nop\");", true),
            (Language::Rust, "global_asm!(include_str!(\"a.s\"));", true),
            (Language::Rust, "// asm!(no)", false),
            (Language::Rust, "let text = \"asm!(no)\";", false),
            (Language::C, "    asm volatile(\"nop\");", true),
            (Language::C, "  __asm__(\"nop\");", true),
            (Language::C, "int asm_count = 1; // asm(no)", false),
        ] {
            assert_eq!(language.is_assembly(line), expected, "{line}");
        }
    }

    #[test]
    fn paths_are_found_in_backquotes() {
        let text = "see `docs/config.md` and `cargo test`, `crates/*` and docs/none.md";
        assert_eq!(quoted_paths(text).collect::<Vec<_>>(), ["docs/config.md"]);
    }
}
