//! Parameter files that are missing, damaged or not to be used.
//!
//! A damaged file is a sparse one with the structure of a real one, so that no gigabytes are
//! copied; only what is read before the damage has to be there.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{FileExt, symlink};

use seal_wire::ExitCode;
use test_support::launch::test_params;
use test_support::skip::skipped;

use super::*;

/// The parameters of 2 KiB sectors, as the network names them.
const NAME: &str = "v28-stacked-proof-of-replication-merkletree-poseidon_hasher-8-0-0-sha256_hasher-032d3138d22506ec0082ed72b2dcba18df18477904e35bafee82b3793b06832f";
/// Bytes of the verifying key before its list of inputs: three points of each group.
const KEY_HEAD: u64 = 3 * 96 + 3 * 192;

fn serve_with(params: &Path, dir: &Path, allow: bool) -> Result<(Processor, Log)> {
    let launch = Launch::executor(Stage::C2, dir)?.env("FIL_PROOFS_PARAMETER_CACHE", params);
    let launch = if allow { launch.env("SEAL_ALLOW_TEST_PARAMS", "1") } else { launch };
    launch.serve(Stage::C2)
}

/// Writes a parameter file whose lists have `counts` points, all of them a hole.
fn write_params(path: &Path, counts: [u32; 6]) -> Result<()> {
    let file = File::create(path)?;
    let mut at = KEY_HEAD;
    for (count, bytes) in counts.into_iter().zip([96, 96, 96, 96, 96, 192]) {
        file.write_all_at(&count.to_be_bytes(), at)?;
        at += 4 + u64::from(count) * bytes;
    }
    Ok(file.set_len(at)?)
}

/// How many points the lists of a file have: inputs, H, L, A, B in G1, B in G2.
const COUNTS: [u32; 6] = [40, 4_194_303, 2_687_000, 2_600_000, 1_000_000, 1_000_000];

#[test]
fn missing_parameters_are_named_at_the_start_and_on_first_use() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let params = dir.path().join("no-params");
    let file = params.join(format!("{NAME}.params")).display().to_string();
    let remedies = ["is missing", "paramfetch", "c2-exec gen-params --sector-size 2KiB"];

    let launch = Launch::executor(Stage::C2, dir.path())?
        .args(["--preload", "2KiB"])
        .env("FIL_PROOFS_PARAMETER_CACHE", &params);
    let output = launch.command()?.output()?;
    ensure!(output.status.code() == Some(ExitCode::Start as i32), "{}", output.status);
    ensure!(output.stdout.is_empty(), "it said that it was ready");
    let told = launch.log().lines_with(&["ERROR", "--preload 2KiB", &file])?;
    ensure!(told.len() == 1, "{}", launch.log().text()?);
    for words in remedies {
        ensure!(told[0].contains(words), "{}", told[0]);
    }

    let (mut c2, _) = c2_without_params(dir.path())?;
    for _ in 0..2 {
        let error = c2.call_failing(&captured_c2_task()?, PATIENCE)?;
        tells(&error, ErrorCode::Parameters, &remedies)?;
        ensure!(error.contains(&file), "{error}");
    }
    Ok(())
}

#[test]
fn damaged_parameter_files_are_named_and_the_process_goes_on() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let params = dir.path().join("params");
    fs::create_dir(&params)?;
    let path = params.join(format!("{NAME}.params"));
    let (mut c2, _) = serve_with(&params, dir.path(), true)?;

    let whole = COUNTS;
    let mut flipped = whole;
    flipped[1] ^= 1 << 30;
    let mut uneven = whole;
    uneven[5] -= 1;
    let cut = |path: &Path| {
        let file = File::options().write(true).open(path)?;
        Ok(file.set_len(file.metadata()?.len() / 2)?)
    };
    let lengthen = |path: &Path| Ok(File::options().append(true).open(path)?.write_all(&[0])?);
    let nothing = |_: &Path| Ok(());
    let empty = |path: &Path| Ok(File::create(path)?.set_len(0)?);
    type Change<'a> = &'a dyn Fn(&Path) -> Result<()>;
    let cases: [([u32; 6], Change<'_>, &str); 6] = [
        (whole, &cut, "list"),
        (whole, &lengthen, "its lists end at byte"),
        (flipped, &nothing, "list H"),
        (uneven, &nothing, "list B"),
        (whole, &empty, "verifying key"),
        // The lengths are right and the points are none.
        (whole, &nothing, "verifying key"),
    ];
    for (counts, change, words) in cases {
        write_params(&path, counts)?;
        change(&path)?;
        let error = c2.call_failing(&captured_c2_task()?, PATIENCE)?;
        tells(&error, ErrorCode::Parameters, &["is damaged", words, "remove it"])?;
        ensure!(error.contains(&path.display().to_string()), "{error}");
    }
    fs::remove_file(&path)?;
    c2_still_serves(&mut c2)
}

#[test]
fn test_parameters_are_refused_unless_allowed_and_damage_is_found_in_their_points() -> Result<()> {
    let name = "test parameters that are not allowed, or damaged";
    let real = match test_params() {
        Ok(real) => real,
        Err(reason) => {
            skipped(name, &reason);
            return Ok(());
        }
    };
    let dir = tempfile::tempdir()?;
    let params = dir.path().join("params");
    fs::create_dir(&params)?;
    let path = params.join(format!("{NAME}.params"));
    let shown = path.display().to_string();
    for entry in fs::read_dir(&real)? {
        let entry = entry?;
        symlink(entry.path(), params.join(entry.file_name()))?;
    }
    let (mut strict, _) = serve_with(&params, dir.path(), false)?;
    let error = strict.call_failing(&captured_c2_task()?, PATIENCE)?;
    tells(&error, ErrorCode::Parameters, &[&shown, "not the published", "--allow-test-params"])?;

    // The real key and a list H whose points are a hole.
    let (mut c2, _) = serve_with(&params, dir.path(), true)?;
    let real_file = File::open(&path)?;
    let length = real_file.metadata()?.len();
    let key = fs::read(params.join(format!("{NAME}.vk")))?;
    fs::remove_file(&path)?;
    let file = File::create(&path)?;
    file.write_all_at(&key, 0)?;
    let mut at = key.len() as u64;
    for bytes in [96, 96, 96, 96, 192] {
        let mut count = [0; 4];
        real_file.read_exact_at(&mut count, at)?;
        file.write_all_at(&count, at)?;
        at += 4 + u64::from(u32::from_be_bytes(count)) * bytes;
    }
    file.set_len(length)?;
    let error = c2.call_failing(&captured_c2_task()?, PATIENCE)?;
    tells(&error, ErrorCode::Parameters, &[&shown, "is damaged", "H", "remove it"])?;

    // Another key beside it.
    fs::remove_file(params.join(format!("{NAME}.vk")))?;
    let mut other = key;
    let last = other.len() - 1;
    other[last] ^= 1;
    fs::write(params.join(format!("{NAME}.vk")), other)?;
    let error = c2.call_failing(&captured_c2_task()?, PATIENCE)?;
    tells(&error, ErrorCode::Parameters, &[".vk", "is damaged"])?;

    fs::remove_file(&path)?;
    c2_still_serves(&mut c2)
}
