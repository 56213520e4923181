//! The directory for a machine with a GPU: programs, the vectors, a task of C2, predictions, and the
//! script that runs all of it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::needs::{self, Needs};
use crate::cargo::{binary, build_executable, root, target};
use crate::cuda_build;
use crate::cuda_report::PREDICTIONS;
use crate::out::say;

/// The most that the files may take together, so that they travel easily.
const MOST_BYTES: u64 = 64 << 20;

/// The script.
pub(super) const SCRIPT: &str = "gpu-check.sh";
/// What the programs need of the machine, for people.
const NEEDS: &str = "needs.txt";
/// What only C2 needs.
const C2: [&str; 2] = ["c2-exec", "c2-task.jsonl"];

/// A program: the package, what cargo is asked for, its target, and its name in the directory.
type Program = (&'static str, &'static [&'static str], &'static str, &'static str);

/// The programs but c2-exec.
const PROGRAMS: [Program; 4] = [
    ("seal-cuda", &["test", "--no-run", "--test", "device"], "device", "device-tests"),
    ("seal-cuda", &["build", "--example", "gpu_bench"], "gpu_bench", "gpu-bench"),
    ("seal-trees", &["test", "--no-run", "--test", "trees"], "trees", "sector-tests"),
    ("pc2-exec", &["build", "--bin", "pc2-exec"], "pc2-exec", "pc2-exec"),
];

/// Gathers all of it in `dir`.
pub(super) fn gather(dir: &Path, without_c2: bool) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    remove_former(dir)?;
    let mut programs = Vec::new();
    for (package, arguments, target, name) in PROGRAMS {
        strip(&build(package, arguments, target)?, &dir.join(name))?;
        programs.push(name);
    }
    if !without_c2 {
        cuda_build::build(cuda_build::Executor::C2Exec)?;
        let [program, task] = C2;
        strip(&binary("c2-exec"), &dir.join(program))?;
        programs.push(program);
        copy(&root().join("tests/protocol/c2.request.jsonl"), &dir.join(task))?;
    }
    copy(&root().join("scripts").join(SCRIPT), &dir.join(SCRIPT))?;
    for name in programs.iter().chain([&SCRIPT]) {
        executable(&dir.join(name))?;
    }
    gather_vectors(&dir.join("vectors"))?;
    let predicted = gather_predictions(&target().join(PREDICTIONS), &dir.join(PREDICTIONS))?;
    let needs = gather_needs(dir, &programs)?;

    let mut bytes = 0;
    for name in former(dir)? {
        bytes += fs::metadata(dir.join(name))?.len();
    }
    ensure!(
        bytes <= MOST_BYTES,
        "the files in {} take {} MiB, more than {} MiB",
        dir.display(),
        bytes >> 20,
        MOST_BYTES >> 20
    );
    say(&format!(
        "{} MiB in {}; on a machine with an NVIDIA driver, run ./{SCRIPT} there",
        bytes.div_ceil(1 << 20),
        dir.display()
    ));
    say("the programs need, each library with the newest version of each kind:");
    needs.lines().for_each(|line| say(&format!("    {line}")));
    if !predicted {
        say("nothing is predicted there, because `cargo xtask cuda-report` has not run here");
    }
    Ok(())
}

/// Copies all vectors, and tables of digests with them: they are small, and tests name some and ask
/// for all of a size.
fn gather_vectors(to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    let from = root().join("tests/vectors");
    for name in names_in(&from)? {
        copy(&from.join(&name), &to.join(&name))?;
    }
    Ok(())
}

/// Copies predictions, if there are any. They are compared far from here, so their form is looked at
/// before.
fn gather_predictions(from: &Path, to: &Path) -> Result<bool> {
    if !from.is_file() {
        return Ok(false);
    }
    let known = || -> Result<()> {
        let json: Value = serde_json::from_slice(&fs::read(from)?)?;
        let list = json["predictions"].as_array().context("there is no list \"predictions\"")?;
        for prediction in list {
            let text = |key: &str| prediction[key].is_string();
            ensure!(
                text("card")
                    && text("wide_rate")
                    && text("limit")
                    && prediction["predicted_seconds"].as_f64().is_some_and(|s| s > 0.0),
                "a prediction has card, wide_rate, limit and predicted_seconds, and not {prediction}"
            );
        }
        Ok(())
    };
    known().with_context(|| {
        format!("{} is not what `cargo xtask cuda-report` writes", from.display())
    })?;
    copy(from, to)?;
    Ok(true)
}

/// Writes down what the programs need of a machine, and refuses libraries of a driver: those are
/// loaded when a device is opened, so that a program can say that there is none.
fn gather_needs(dir: &Path, programs: &[&str]) -> Result<String> {
    let mut text = String::new();
    for name in programs {
        let path = dir.join(name);
        let needs = Needs::of(&fs::read(&path)?)
            .with_context(|| format!("cannot read {} as a program", path.display()))?;
        for library in &needs.libraries {
            ensure!(
                !needs::is_of_a_driver(library),
                "{name} needs {library} to start, which is of the driver or of the CUDA toolkit"
            );
        }
        for line in needs.lines() {
            text.push_str(&format!("{name}: {line}\n"));
        }
    }
    let to = dir.join(NEEDS);
    fs::write(&to, &text).with_context(|| format!("cannot write {}", to.display()))?;
    Ok(text)
}

/// Removes what an earlier run has gathered: a stale program would be checked as if it were today's.
fn remove_former(dir: &Path) -> Result<()> {
    for name in former(dir)? {
        let path = dir.join(name);
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

/// What lies in `dir` of all that can be gathered there. Results of a run may lie beside it.
fn former(dir: &Path) -> Result<Vec<String>> {
    let programs = PROGRAMS.map(|(.., name)| name);
    let names = programs.into_iter().chain(C2).chain([SCRIPT, NEEDS, PREDICTIONS]);
    let mut former: Vec<_> =
        names.filter(|name| dir.join(name).exists()).map(str::to_owned).collect();
    let vectors = dir.join("vectors");
    if vectors.is_dir() {
        former.extend(names_in(&vectors)?.into_iter().map(|name| format!("vectors/{name}")));
    }
    Ok(former)
}

/// The names of the JSON files in `dir`.
fn names_in(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".json") {
            names.push(name);
        }
    }
    Ok(names)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}

/// Makes a file one that can be run.
fn executable(path: &Path) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot change {}", path.display()))
}

/// Copies a binary without its symbols, where there is a `strip`.
fn strip(from: &Path, to: &Path) -> Result<()> {
    let stripped = Command::new("strip").arg("-o").arg(to).arg(from).status();
    if !stripped.is_ok_and(|status| status.success()) {
        copy(from, to)?;
    }
    Ok(())
}

/// Builds a target of a package with the kernels and returns the path of its binary.
pub(crate) fn build(package: &str, arguments: &[&str], name: &str) -> Result<PathBuf> {
    let of_package = ["--release", "--package", package, "--features", "cuda"];
    build_executable(&[arguments, &of_package].concat(), name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Every vector that the tests of sectors name is gathered.
    #[test]
    fn vectors_that_tests_load_are_gathered() {
        let dir = tempfile::tempdir().expect("a directory");
        gather_vectors(dir.path()).expect("gathered");
        let gathered: BTreeSet<_> =
            names_in(dir.path()).expect("a directory").into_iter().collect();
        let mut named = BTreeSet::new();
        for entry in fs::read_dir(root().join("crates/seal-trees/tests/trees")).expect("tests") {
            let text = fs::read_to_string(entry.expect("an entry").path()).expect("a source");
            named.extend(texts(&text).filter(|text| is_vector(text)).map(|t| format!("{t}.json")));
        }
        assert!(named.len() >= 10, "the tests name {named:?}");
        let missing: Vec<_> = named.difference(&gathered).collect();
        assert!(missing.is_empty(), "not gathered: {missing:?}");
        // What asks for all of a size finds what is found here.
        let all = |dir: &Path| -> Vec<String> {
            let all = test_support::vector::Vector::all(dir).expect("vectors");
            all.into_iter().map(|(name, _)| name).collect()
        };
        assert_eq!(all(dir.path()), all(&root().join("tests/vectors")));
    }

    /// Texts in quotes.
    fn texts(source: &str) -> impl Iterator<Item = &str> {
        source.split('"').skip(1).step_by(2).chain(source.split('"').step_by(2))
    }

    fn is_vector(text: &str) -> bool {
        let start = text.strip_prefix("shape-").unwrap_or(text);
        start.starts_with(|first: char| first.is_ascii_digit())
            && (text.contains("KiB-") || text.contains("MiB-"))
            && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    }

    /// What the script runs and reads beside itself is what is gathered.
    #[test]
    fn what_the_script_uses_is_gathered() {
        let script = fs::read_to_string(root().join("scripts").join(SCRIPT)).expect("the script");
        let used: BTreeSet<_> = script
            .split("$here/")
            .skip(1)
            .filter_map(|rest| rest.split(['"', ' ', ';']).next())
            .filter(|name| !name.starts_with('$'))
            .collect();
        let programs = PROGRAMS.map(|(.., name)| name);
        let gathered: BTreeSet<_> =
            programs.into_iter().chain(C2).chain([NEEDS, PREDICTIONS, "vectors"]).collect();
        assert_eq!(used, gathered);
    }

    #[test]
    fn predictions_are_gathered_if_they_are_understood() {
        let dir = tempfile::tempdir().expect("a directory");
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        assert!(!gather_predictions(&from, &to).expect("none"));
        let good = r#"{"predictions": [{"card": "H200", "wide_rate": "full", "limit": "issue slots", "predicted_seconds": 16.5}]}"#;
        fs::write(&from, good).expect("writable");
        assert!(gather_predictions(&from, &to).expect("understood"));
        assert_eq!(fs::read_to_string(&to).expect("readable"), good);
        for bad in ["[]", &*good.replace("16.5", "0"), &good.replace("limit", "most")] {
            fs::write(&from, bad).expect("writable");
            gather_predictions(&from, &to).expect_err(bad);
        }
    }

    #[test]
    fn what_was_gathered_before_does_not_stay() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("vectors")).expect("writable");
        for name in ["c2-exec", "predictions.json", "vectors/old.json", "results"] {
            fs::write(dir.path().join(name), "old").expect("writable");
        }
        remove_former(dir.path()).expect("removed");
        assert_eq!(former(dir.path()).expect("a directory"), Vec::<String>::new());
        assert!(dir.path().join("results").exists(), "what is not ours stays");
    }

    #[test]
    fn libraries_of_a_driver_are_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let this = std::env::current_exe().expect("this test");
        fs::copy(&this, dir.path().join("a")).expect("copied");
        let text = gather_needs(dir.path(), &["a"]).expect("no library of a driver");
        assert!(text.lines().any(|line| line.starts_with("a: libc.so.6 GLIBC_2.")), "{text}");
        assert_eq!(fs::read_to_string(dir.path().join(NEEDS)).expect("written"), text);
        fs::write(dir.path().join("b"), "a script").expect("writable");
        gather_needs(dir.path(), &["b"]).expect_err("no program");
    }
}
