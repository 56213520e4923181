//! Bad input to PC2: layers, trees D and sealed files that are not right.

use std::fs::File;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use serde_json::json;
use test_support::launch::until;

use super::*;

const CASE: &str = "2KiB-v1_1-a";

/// A file of the sector and what to do to it.
type Damage<'a> = (&'a str, &'a dyn Fn(&Path) -> Result<()>);

#[test]
fn damaged_files_are_named_and_nothing_is_replaced() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (sector, pc1out) = after_pc1(CASE, dir.path())?;
    let (foreign_tree, other_comm_d) = foreign_tree_d();
    let (mut pc2, _) = serve(Stage::Pc2, dir.path())?;
    let comm_d = &sector.vector.comm_d;

    let remove = |path: &Path| Ok(fs::remove_file(path)?);
    let cut = |path: &Path| Ok(File::options().write(true).open(path)?.set_len(1000)?);
    let lengthen = |path: &Path| Ok(File::options().write(true).open(path)?.set_len(4096)?);
    let too_large = |path: &Path| {
        let mut bytes = fs::read(path)?;
        bytes[32 * 9..32 * 10].fill(0xff);
        Ok(fs::write(path, bytes)?)
    };
    let foreign = |path: &Path| Ok(fs::write(path, &foreign_tree)?);
    let changed_leaf = |path: &Path| {
        let mut bytes = fs::read(path)?;
        bytes[32 * 9] ^= 1;
        Ok(fs::write(path, bytes)?)
    };
    let fifo = |path: &Path| {
        fs::remove_file(path)?;
        Ok(nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU)?)
    };
    let cases: [(Damage<'_>, ErrorCode, &[&str]); 11] = [
        ((LAYER_1, &fifo), ErrorCode::BadInput, &["it is a FIFO and not a regular file"]),
        ((TREE_D, &fifo), ErrorCode::BadInput, &["it is a FIFO and not a regular file"]),
        ((LAYER_1, &remove), ErrorCode::BadInput, &["is not there", "PC1 again"]),
        ((LAYER_1, &cut), ErrorCode::BadInput, &["layer file", "1000 bytes", "2048", "PC1 again"]),
        ((LAYER_2, &lengthen), ErrorCode::BadInput, &["4096 bytes and 2048"]),
        ((LAYER_1, &too_large), ErrorCode::BadInput, &["node 9 of", "modulus", "PC1 again"]),
        ((LAYER_2, &too_large), ErrorCode::BadInput, &["node 9 of", "modulus", "PC1 again"]),
        ((TREE_D, &remove), ErrorCode::BadInput, &["is not there", "PC1 again"]),
        ((TREE_D, &cut), ErrorCode::BadInput, &["1000 bytes and 4064 are wanted"]),
        ((TREE_D, &foreign), ErrorCode::BadInput, &[comm_d, &other_comm_d, "another sector"]),
        ((TREE_D, &changed_leaf), ErrorCode::BadInput, &["hashes to", comm_d]),
    ];
    for ((name, damage), code, words) in cases {
        let path = sector.cache().join(name);
        let good = fs::read(&path)?;
        damage(&path)?;
        let is_fifo = fs::metadata(&path).is_ok_and(|meta| meta.file_type().is_fifo());
        // A FIFO has no content that could be compared.
        let before = if is_fifo { None } else { Some(sector.files()?) };
        let error = pc2.call_failing(&sector.pc2_task(&pc1out), PATIENCE)?;
        tells(&error, code, words)?;
        ensure!(error.contains(&path.display().to_string()), "{name} is not named: {error}");
        if let Some(before) = before {
            ensure!(sector.files()? == before, "{error}: files were changed");
        } else {
            fs::remove_file(&path)?;
        }
        fs::write(&path, good)?;
    }
    pc2_succeeds(&mut pc2, &sector, &pc1out)
}

#[test]
fn outputs_of_pc1_that_do_not_fit_are_refused() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (sector, pc1out) = after_pc1(CASE, dir.path())?;
    let (mut pc2, _) = serve(Stage::Pc2, dir.path())?;
    let before = sector.files()?;
    let refused = |pc2: &mut Processor, field: &str, value: Value, words: &[&str]| {
        let mut changed = pc1out.clone();
        *changed.pointer_mut(field).expect("a field of a PC1 output") = value;
        let error = pc2.call_failing(&sector.pc2_task(&changed), PATIENCE)?;
        tells(&error, ErrorCode::BadInput, words)
    };
    let proof = json!("StackedDrg8MiBV1_1");
    refused(&mut pc2, "/registered_proof", proof, &["StackedDrg8MiBV1_1", "StackedDrg2KiBV1"])?;
    let comm_d = &sector.vector.comm_d;
    refused(&mut pc2, "/comm_d", json!(vec![7; 32]), &[comm_d, &"07".repeat(32), TREE_D])?;
    let one = json!([pc1out["labels"]["StackedDrg2KiBV1"]["labels"][0]]);
    refused(&mut pc2, "/labels/StackedDrg2KiBV1/labels", one, &["layer-2"])?;
    ensure!(sector.files()? == before, "files were changed");

    pc2_succeeds(&mut pc2, &sector, &pc1out)
}

#[test]
fn paths_of_the_request_that_lead_nowhere_are_named() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (sector, pc1out) = after_pc1(CASE, dir.path())?;
    let (mut pc2, _) = serve(Stage::Pc2, dir.path())?;
    let before = sector.files()?;
    for (field, name) in [("cache_dir", "missing"), ("sealed_file", "missing")] {
        let mut task = sector.pc2_task(&pc1out);
        let path = dir.path().join(name);
        task[field] = json!(path);
        let error = pc2.call_failing(&task, PATIENCE)?;
        tells(&error, ErrorCode::Io, &[&path.display().to_string(), "No such file"])?;
    }
    ensure!(sector.files()? == before, "files were changed");
    pc2_succeeds(&mut pc2, &sector, &pc1out)
}

#[test]
fn the_sealed_file_is_restored_whatever_it_holds_and_again() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (sector, pc1out) = after_pc1(CASE, dir.path())?;
    let (mut pc2, log) = serve(Stage::Pc2, dir.path())?;
    let data = fs::read(sector.sealed())?;
    pc2_succeeds(&mut pc2, &sector, &pc1out)?;
    let replica = fs::read(sector.sealed())?;
    let half = [&replica[..1024], &data[1024..]].concat();
    for (sealed, told) in [
        (&replica[..], "PC2 runs again"),
        (&half, "partly encoded"),
        (&data[..1000], "neither the data nor the replica"),
        (&[], "neither the data nor the replica"),
        (&[9; 2048], "neither the data nor the replica"),
        (&data, "holds the data"),
    ] {
        fs::write(sector.sealed(), sealed)?;
        let before = log.lines_with(&[told])?.len();
        pc2_succeeds(&mut pc2, &sector, &pc1out)?;
        ensure!(log.lines_with(&[told])?.len() == before + 1, "{told}: {}", log.text()?);
    }
    Ok(())
}

#[test]
fn killed_in_the_middle_it_leaves_the_data_and_runs_again() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (sector, pc1out) = after_pc1("8MiB-v1_1-a", dir.path())?;
    let part = || test_support::sector::has_part_of(&sector.sealed());
    let inode = || -> Result<u64> { Ok(fs::metadata(sector.sealed())?.ino()) };
    // The replica is written within milliseconds: where it was whole before the kill, the data
    // comes back, and another PC2 is killed.
    let mut tries = 0;
    loop {
        let data = inode()?;
        let (mut pc2, _) = serve(Stage::Pc2, dir.path())?;
        pc2.send(&sector.pc2_task(&pc1out))?;
        until(PATIENCE, || Ok(part()? || inode()? != data))?;
        pc2.kill()?;
        if part()? {
            break;
        }
        tries += 1;
        ensure!(tries < 50, "never killed in the middle");
        sector.clear()?;
        pc1_succeeds(&mut serve(Stage::Pc1, dir.path())?.0, &sector)?;
    }

    let mut files = sector.files()?;
    files.retain(|name, _| !(name.starts_with('.') && name.ends_with(".part")));
    ensure!(files == expected_after_pc1(&sector.vector), "{files:#?}");

    let (mut pc2, _) = serve(Stage::Pc2, dir.path())?;
    pc2_succeeds(&mut pc2, &sector, &pc1out)?;
    ensure!(!part()?, "a temporary is left behind");
    Ok(())
}
