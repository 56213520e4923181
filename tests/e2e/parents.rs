//! `pc1-exec parents` as users run it: what it prints, what it leaves, what it exits with.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use seal_sha256::ChaCha8;
use seal_types::parents_cache_digest;
use sha2::{Digest, Sha256};
use test_support::client::binary;
use test_support::launch::{Launch, can_mount};
use test_support::skip::skipped;

fn parents(args: &[&str], dir: &Path, force_isa: Option<&str>) -> Result<Output> {
    let mut command = Command::new(binary("pc1-exec")?);
    command.arg("parents").args(args).env("FIL_PROOFS_PARENT_CACHE", dir);
    match force_isa {
        Some(name) => command.env("SEAL_FORCE_ISA", name),
        None => command.env_remove("SEAL_FORCE_ISA"),
    };
    command.output().context("cannot run pc1-exec")
}

/// Digest, file and verdict of an answer, which is one line.
fn answer(output: &Output) -> Result<[String; 3]> {
    let text = String::from_utf8(output.stdout.clone())?;
    ensure!(text.lines().count() == 1, "{text:?} is not one line");
    let words: Vec<_> = text.split_whitespace().map(str::to_owned).collect();
    words.try_into().map_err(|words| anyhow::anyhow!("{words:?} are not three words"))
}

#[test]
fn a_cache_is_made_checked_and_mended() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let made = parents(&["--proof", "StackedDrg2KiBV1_1"], dir.path(), None)?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let [sha256, path, verdict] = answer(&made)?;
    let good = fs::read(&path)?;
    ensure!(hex::encode(Sha256::digest(&good)) == sha256, "{sha256} is of something else");
    let name = Path::new(&path).file_stem().and_then(|name| name.to_str()).context("a name")?;
    let published = parents_cache_digest(name).context("published")?;
    ensure!(verdict == "published" && published.sha256 == sha256, "{sha256} is {verdict}");

    // Damage behind the stamp's back.
    let file = fs::File::options().write(true).open(&path)?;
    let modified = file.metadata()?.modified()?;
    file.write_all_at(&[good[100] ^ 1], 100)?;
    file.set_modified(modified)?;
    let checked = parents(&["--proof", "StackedDrg2KiBV1_1", "--check"], dir.path(), None)?;
    ensure!(answer(&checked)? == [sha256, path.clone(), verdict], "another answer");
    ensure!(fs::read(&path)? == good, "not mended");
    let log = String::from_utf8_lossy(&checked.stderr);
    ensure!(log.contains("is made again"), "nothing is said of the damage: {log}");
    Ok(())
}

#[test]
fn every_kernel_gives_the_published_digest_and_stores_nothing() -> Result<()> {
    let dir = tempfile::tempdir()?;
    for kernel in ChaCha8::available() {
        for (proof, expected) in
            [("StackedDrg8MiBV1", "published"), ("StackedDrg8MiBV1_1_Feat_SyntheticPoRep", "own")]
        {
            let args = ["--digest-only", "--proof", proof];
            let output = parents(&args, dir.path(), Some(kernel.name()))?;
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let [_, _, verdict] = answer(&output)?;
            ensure!(verdict == expected, "{proof} by {}: {verdict}", kernel.name());
            let log = String::from_utf8_lossy(&output.stderr);
            ensure!(log.contains(kernel.name()), "another kernel was used: {log}");
        }
    }
    ensure!(fs::read_dir(dir.path())?.count() == 0, "something was stored");
    Ok(())
}

#[test]
fn what_cannot_be_done_is_told_by_the_exit_code() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("no-directory");
    fs::write(&file, "")?;
    let in_file = file.to_str().context("UTF-8")?;
    let proof = ["--proof", "StackedDrg2KiBV1"];
    for (args, force_isa, code, said) in [
        (vec!["--proof", "StackedDrg3KiBV1"], None, 2, "StackedDrg3KiBV1"),
        ([&proof[..], &["--digest-only", "--check"]].concat(), None, 2, "--check"),
        (proof.to_vec(), Some("mmx"), 3, "mmx"),
        ([&proof[..], &["--dir", in_file]].concat(), None, 1, in_file),
    ] {
        let output = parents(&args, dir.path(), force_isa)?;
        let log = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(code), "{args:?} ends with {}: {log}", output.status);
        ensure!(log.contains(said), "{args:?} does not name {said}: {log}");
        ensure!(output.stdout.is_empty(), "{args:?} has an answer");
    }
    Ok(())
}

/// `pc1-exec parents` of an 8 MiB sector, whose cache has 14 MiB, on a file system of its own.
fn parents_on(test: &str, mounts: &str, disk: &Path) -> Result<Option<(Output, String)>> {
    if let Err(reason) = can_mount(mounts) {
        skipped(test, &reason);
        return Ok(None);
    }
    let log_dir = tempfile::tempdir()?;
    let launch = Launch::binary("pc1-exec", log_dir.path())?.mounts(mounts);
    let launch = launch.args(["parents", "--proof", "StackedDrg8MiBV1_1", "--dir"]).args([disk]);
    let output = launch.command()?.output()?;
    Ok(Some((output, launch.log().text()?)))
}

#[test]
fn what_a_killed_maker_has_left_does_not_stop_the_next_one() -> Result<()> {
    let disk = tempfile::tempdir()?;
    let porep = "StackedDrg8MiBV1_1".parse::<seal_types::RegisteredProof>()?.porep();
    let cache = seal_sdr::Graph::new(&porep).cache_name() + ".cache";
    let mounts = format!(
        "mount -t tmpfs -o size=16m none {disk} && head -c 10000000 /dev/zero > {disk}/.{cache}.part",
        disk = disk.path().display(),
    );
    let test = "what a killed maker of a parents cache has left";
    let Some((output, log)) = parents_on(test, &mounts, disk.path())? else { return Ok(()) };
    ensure!(output.status.success(), "{log}");
    let [_, path, verdict] = answer(&output)?;
    ensure!(path.ends_with(&cache) && verdict == "published", "{path} is {verdict}");
    Ok(())
}

#[test]
fn a_directory_that_cannot_be_written_is_named_with_the_setting() -> Result<()> {
    let disk = tempfile::tempdir()?;
    let mounts = format!("mount -t tmpfs -o ro none {}", disk.path().display());
    let test = "a directory of parents caches that cannot be written";
    let Some((output, log)) = parents_on(test, &mounts, disk.path())? else { return Ok(()) };
    ensure!(!output.status.success() && output.stdout.is_empty(), "it succeeds: {log}");
    let shown = disk.path().display().to_string();
    for word in ["Read-only file system", "FIL_PROOFS_PARENT_CACHE", &shown] {
        ensure!(log.contains(word), "{word:?} is not named: {log}");
    }
    Ok(())
}
