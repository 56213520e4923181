//! Bad input to PC1: staged files, commitments, trees D and directories that are not right.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;
use anyhow::Context;
use serde_json::json;

const CASE: &str = "2KiB-v1_1-a";
const EMPTY: &str = "2KiB-v1_1-cc";

#[test]
fn a_staged_file_that_is_missing_or_a_directory_is_named() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut pc1, _) = serve(Stage::Pc1, dir.path())?;
    let sector = stage(CASE, dir.path())?;
    let mut task = sector.pc1_task()?;
    for (path, code, words) in [
        ("missing", ErrorCode::Io, &["cannot open", "No such file"][..]),
        (CASE, ErrorCode::BadInput, &["in_path", "is not a file"]),
    ] {
        let path = dir.path().join(path);
        task["in_path"] = json!(path);
        let error = pc1.call_failing(&task, PATIENCE)?;
        tells(&error, code, words)?;
        ensure!(error.contains(&path.display().to_string()), "{error}");
    }
    ensure!(sector.names()?.is_empty(), "{:?}", sector.names()?);
    pc1_succeeds(&mut pc1, &sector)?;
    Ok(())
}

#[test]
fn a_short_staged_file_is_padded_and_comm_d_decides() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut pc1, log) = serve(Stage::Pc1, dir.path())?;
    let sector = stage(CASE, dir.path())?;
    let whole = fs::read(sector.staged())?;
    fs::write(sector.staged(), &whole[..1000])?;
    let error = pc1.call_failing(&sector.pc1_task()?, PATIENCE)?;
    let staged = sector.staged().display().to_string();
    tells(&error, ErrorCode::BadInput, &[&staged, "comm_d is", &sector.vector.comm_d])?;
    let mut padded = whole[..1000].to_vec();
    padded.resize(whole.len(), 0);
    let root = tree_d(&padded);
    ensure!(error.contains(&hex::encode(&root[root.len() - 32..])), "found root: {error}");
    let told = log.lines_with(&["WARN", &staged, "1000", "2048", "padded with zeros"])?;
    ensure!(told.len() == 1, "{}", log.text()?);
    ensure!(sector.wrongly_left()?.is_empty(), "{:?}", sector.names()?);
    ensure!(!sector.cache().join(TREE_D).exists(), "a tree D of other data");
    ensure!(fs::read(sector.sealed())?.is_empty(), "nothing was copied");

    // Where what is missing is zeros anyway, the sector is good.
    let empty = stage(EMPTY, dir.path())?;
    fs::write(empty.staged(), [0; 1000])?;
    pc1_succeeds(&mut pc1, &empty)?;
    ensure!(log.lines_with(&["WARN", "padded with zeros"])?.len() == 2, "{}", log.text()?);

    fs::write(sector.staged(), whole)?;
    pc1_succeeds(&mut pc1, &sector)?;
    Ok(())
}

#[test]
fn a_long_staged_file_is_cut() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut pc1, log) = serve(Stage::Pc1, dir.path())?;
    let sector = stage(CASE, dir.path())?;
    let mut long = fs::read(sector.staged())?;
    long.resize(3000, 7);
    fs::write(sector.staged(), long)?;
    pc1_succeeds(&mut pc1, &sector)?;
    let staged = sector.staged().display().to_string();
    let told = log.lines_with(&["WARN", &staged, "3000", "2048", "cut"])?;
    ensure!(told.len() == 1, "{}", log.text()?);
    Ok(())
}

#[test]
fn pieces_of_another_sector_are_refused() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut pc1, _) = serve(Stage::Pc1, dir.path())?;
    let sector = stage(CASE, dir.path())?;
    let comm_d = &sector.vector.comm_d;

    let (_, other) = foreign_tree_d();
    let mut task = sector.pc1_task()?;
    task["piece_infos"][0]["commitment"] = json!(hex::decode(&other)?);
    let error = pc1.call_failing(&task, PATIENCE)?;
    tells(&error, ErrorCode::BadInput, &[comm_d, &other, "another sector"])?;

    // A sector without data, but pieces that have some.
    let data = fs::read(sector.staged())?;
    fs::File::create(sector.staged())?.set_len(2048)?;
    let error = pc1.call_failing(&sector.pc1_task()?, PATIENCE)?;
    tells(&error, ErrorCode::BadInput, &["holds no data", comm_d])?;

    let mut task = sector.pc1_task()?;
    task["piece_infos"][0]["size"] = json!(2000);
    let error = pc1.call_failing(&task, PATIENCE)?;
    tells(&error, ErrorCode::BadInput, &["piece_infos", "piece 0 has 2000 bytes"])?;
    task["piece_infos"][0]["size"] = json!(4064);
    let error = pc1.call_failing(&task, PATIENCE)?;
    tells(&error, ErrorCode::BadInput, &["piece 0 ends 2048 padded bytes behind the end"])?;

    ensure!(sector.wrongly_left()?.is_empty(), "{:?}", sector.names()?);
    ensure!(!sector.cache().join(TREE_D).exists(), "a tree D of other data");
    ensure!(fs::read(sector.sealed())?.is_empty(), "nothing was copied");
    fs::write(sector.staged(), data)?;
    pc1_succeeds(&mut pc1, &sector)?;
    Ok(())
}

#[test]
fn a_tree_d_of_another_sector_is_replaced_with_a_warning() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut pc1, log) = serve(Stage::Pc1, dir.path())?;
    let sector = stage(CASE, dir.path())?;
    let (foreign, other_comm_d) = foreign_tree_d();
    let tree = sector.cache().join(TREE_D);

    fs::write(&tree, &foreign)?;
    pc1_succeeds(&mut pc1, &sector)?;
    let told = log.lines_with(&[
        "WARN",
        &tree.display().to_string(),
        &sector.vector.comm_d,
        &other_comm_d,
        "building this sector's own",
    ])?;
    ensure!(told.len() == 1, "{}", log.text()?);

    // Behind a link: what it points to belongs to somebody else.
    let shared = dir.path().join("shared-tree-d");
    for content in [&foreign[..], &foreign[..1000], &[]] {
        sector.clear()?;
        fs::write(&shared, content)?;
        symlink(&shared, &tree)?;
        pc1_succeeds(&mut pc1, &sector)?;
        ensure!(fs::read(&shared)? == content, "the target of the link was changed");
        ensure!(fs::symlink_metadata(&tree)?.is_file(), "the tree is still a link");
    }
    // A link to nothing.
    sector.clear()?;
    fs::remove_file(&shared)?;
    symlink(&shared, &tree)?;
    pc1_succeeds(&mut pc1, &sector)?;
    ensure!(!shared.exists(), "the tree was written through the link");
    Ok(())
}

#[test]
fn a_tree_d_with_the_right_root_and_one_wrong_node_is_found_by_pc1() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut pc1, log) = serve(Stage::Pc1, dir.path())?;
    let (mut pc2, _) = serve(Stage::Pc2, dir.path())?;
    let mut found = 0;
    for name in [CASE, EMPTY] {
        let sector = stage(name, dir.path())?;
        let tree = sector.cache().join(TREE_D);
        let good = tree_d(&fs::read(sector.staged())?);
        if name == EMPTY {
            // A hole is known to be zero, and not read.
            fs::File::create(sector.staged())?.set_len(2048)?;
        }
        let shared = dir.path().join(format!("shared-of-{name}"));
        // A leaf, which would become the replica of wrong data, and a node that only C1 reads; the
        // sector's own tree, and one that it shares.
        for (node, is_shared) in [(5, false), (100, false), (5, true), (125, true)] {
            sector.clear()?;
            let mut bad = good.clone();
            bad[node * 32] ^= 1;
            if is_shared {
                // It was good once, and was used.
                fs::write(&shared, &good)?;
                symlink(&shared, &tree)?;
                pc1_succeeds(&mut pc1, &sector)?;
                ensure!(fs::symlink_metadata(&tree)?.is_symlink(), "a good one is used");
                sector.clear()?;
                fs::write(&shared, &bad)?;
                symlink(&shared, &tree)?;
            } else {
                fs::write(&tree, &bad)?;
            }
            let pc1out = pc1_succeeds(&mut pc1, &sector)?;
            ensure!(fs::read(&tree)? == good, "{name}: node {node} is still wrong");
            ensure!(!is_shared || fs::read(&shared)? == bad, "the target of the link was changed");
            found += 1;
            let what = format!("{} has another node {node} than", tree.display());
            let told = log.lines_with(&["WARN", &what, "building this sector's own"])?;
            ensure!(!told.is_empty(), "{}", log.text()?);
            pc2_succeeds(&mut pc2, &sector, &pc1out)?;
        }
    }
    ensure!(log.lines_with(&["WARN", "has another node"])?.len() == found, "{}", log.text()?);
    Ok(())
}

#[test]
fn data_that_is_not_that_of_the_tree_d_that_is_there_is_not_copied() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut pc1, _) = serve(Stage::Pc1, dir.path())?;
    let sector = stage(CASE, dir.path())?;
    let tree = sector.cache().join(TREE_D);
    let data = fs::read(sector.staged())?;
    let good = tree_d(&data);
    fs::write(&tree, &good)?;
    let mut bad = data.clone();
    bad[1000] ^= 1;
    fs::write(sector.staged(), bad)?;
    let error = pc1.call_failing(&sector.pc1_task()?, PATIENCE)?;
    let staged = sector.staged().display().to_string();
    tells(&error, ErrorCode::BadInput, &[&staged, "comm_d is", &sector.vector.comm_d])?;
    ensure!(fs::read(sector.sealed())?.is_empty(), "wrong data was copied");
    ensure!(fs::read(&tree)? == good, "the good tree went");
    fs::write(sector.staged(), data)?;
    pc1_succeeds(&mut pc1, &sector)?;
    Ok(())
}

#[test]
fn a_path_that_would_go_with_the_remains_of_an_earlier_sealing_is_refused() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut pc1, _) = serve(Stage::Pc1, dir.path())?;
    let (mut pc2, _) = serve(Stage::Pc2, dir.path())?;
    let sector = stage(CASE, dir.path())?;
    let data = fs::read(sector.staged())?;
    let task = sector.pc1_task()?;
    for (key, name) in [
        ("in_path", "sc-02-data-layer-99.dat"),
        ("in_path", ".staged.part"),
        ("out_path", "sc-02-data-tree-c-99.dat"),
    ] {
        let path = sector.cache().join(name);
        fs::write(&path, &data)?;
        let mut task = task.clone();
        task[key] = json!(path);
        let error = pc1.call_failing(&task, PATIENCE)?;
        tells(&error, ErrorCode::BadInput, &[key, &path.display().to_string(), "another name"])?;
        ensure!(fs::read(&path)? == data, "{name} went");
        fs::remove_file(&path)?;
    }
    let pc1out = pc1_succeeds(&mut pc1, &sector)?;
    let path = sector.cache().join("sc-02-data-tree-c-99.dat");
    fs::rename(sector.sealed(), &path)?;
    let mut task = sector.pc2_task(&pc1out);
    task["sealed_file"] = json!(path);
    let error = pc2.call_failing(&task, PATIENCE)?;
    tells(&error, ErrorCode::BadInput, &["sealed_file", &path.display().to_string()])?;
    fs::rename(&path, sector.sealed())?;
    pc2_succeeds(&mut pc2, &sector, &pc1out)?;
    Ok(())
}

#[test]
fn a_fifo_under_the_name_of_the_parents_cache_speaks_against_no_sector() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let parents = dir.path().join("parents-of-this-test");
    let launch = Launch::executor(Stage::Pc1, dir.path())?;
    let (mut pc1, _) = launch.env("FIL_PROOFS_PARENT_CACHE", &parents).serve(Stage::Pc1)?;
    let sector = stage(CASE, dir.path())?;
    pc1_succeeds(&mut pc1, &sector)?;
    let names = fs::read_dir(&parents)?.map(|entry| Ok(entry?.path()));
    let names: Vec<_> = names.collect::<Result<_>>()?;
    let cache = names.iter().find(|path| path.extension().is_some_and(|found| found == "cache"));
    let cache = cache.context("it was made there")?;
    sector.clear()?;
    fs::remove_file(cache)?;
    nix::unistd::mkfifo(cache, nix::sys::stat::Mode::S_IRWXU)?;
    let error = pc1.call_failing(&sector.pc1_task()?, PATIENCE)?;
    let shown = cache.display().to_string();
    tells(&error, ErrorCode::Unavailable, &[&shown, "a FIFO", "remove it"])?;
    fs::remove_file(cache)?;
    pc1_succeeds(&mut pc1, &sector)?;
    Ok(())
}

#[test]
fn a_tree_d_behind_a_link_is_used_and_never_written() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut pc1, log) = serve(Stage::Pc1, dir.path())?;
    let (mut pc2, _) = serve(Stage::Pc2, dir.path())?;
    let shared = dir.path().join("shared-tree-d");
    for (done, name) in [CASE, EMPTY].into_iter().enumerate() {
        let sector = stage(name, dir.path())?;
        let _ = fs::remove_file(&shared);
        fs::write(&shared, tree_d(&fs::read(sector.staged())?))?;
        fs::set_permissions(&shared, fs::Permissions::from_mode(0o444))?;
        symlink(&shared, sector.cache().join(TREE_D))?;
        let before = fs::metadata(&shared)?;
        let content = fs::read(&shared)?;

        let pc1out = pc1_succeeds(&mut pc1, &sector)?;
        pc2_succeeds(&mut pc2, &sector, &pc1out)?;
        let told = log.lines_with(&["using the tree D that is there"])?;
        ensure!(told.len() == done + 1, "{}", log.text()?);
        ensure!(fs::read_link(sector.cache().join(TREE_D))? == shared, "the link is gone");
        let after = fs::metadata(&shared)?;
        let state = |meta: &fs::Metadata| {
            (meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec())
        };
        ensure!(state(&after) == state(&before), "the target of the link was touched");
        ensure!(fs::read(&shared)? == content, "the target of the link was changed");
    }
    Ok(())
}

#[test]
fn a_sector_without_data_stays_sparse() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut pc1, _) = serve(Stage::Pc1, dir.path())?;
    let (mut pc2, _) = serve(Stage::Pc2, dir.path())?;
    for name in [EMPTY, "8MiB-v1_1-cc"] {
        let sector = stage(name, dir.path())?;
        fs::File::create(sector.staged())?.set_len(sector.vector.sector_size)?;
        let mut task = sector.pc1_task()?;
        for in_path in [sector.staged(), "/dev/zero".into()] {
            sector.clear()?;
            // A worker's retry may find what an earlier attempt wrote.
            fs::write(sector.sealed(), [7; 5000])?;
            task["in_path"] = json!(in_path);
            let pc1out = pc1.call(&task, PATIENCE)?;
            ensure!(sector.files()? == expected_after_pc1(&sector.vector), "{name}: wrong files");
            ensure!(fs::metadata(sector.sealed())?.blocks() == 0, "{name} is not sparse");
            if name == EMPTY {
                pc2_succeeds(&mut pc2, &sector, &pc1out)?;
            }
        }
    }
    Ok(())
}

#[test]
fn a_finished_sector_of_another_replica_id_goes_only_where_that_is_asked_for() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut pc1, _) = serve(Stage::Pc1, dir.path())?;
    let (mut pc2, _) = serve(Stage::Pc2, dir.path())?;
    let sector = stage(CASE, dir.path())?;
    // A whole sealing with another ticket, and what only larger sectors or a crash leave.
    let mut task = sector.pc1_task()?;
    task["ticket"] = json!(vec![1; 32]);
    let pc1out = pc1.call(&task, PATIENCE)?;
    pc2.call(&sector.pc2_task(&pc1out), PATIENCE)?;
    let remains =
        ["sc-02-data-layer-11.dat", "sc-02-data-tree-c-3.dat", ".sc-02-data-layer-1.dat.part"];
    for name in remains {
        fs::write(sector.cache().join(name), "old")?;
    }
    // Not ours to remove.
    fs::write(sector.cache().join("note"), "keep")?;

    // Finished, it stays; and whatever else is wrong with a request, nothing goes before that is
    // found out.
    let before = (sector.files()?, fs::read(sector.sealed())?);
    let error = pc1.call_failing(&sector.pc1_task()?, PATIENCE)?;
    let cache = sector.cache().display().to_string();
    let named = [cache.as_str(), &sector.vector.replica_id, "SEAL_PC1_REPLACE_FINISHED"];
    tells(&error, ErrorCode::BadInput, &named)?;
    let manifest = fs::read_to_string(sector.cache().join(seal_types::MANIFEST))?;
    let manifest: Value = serde_json::from_str(&manifest)?;
    ensure!(error.contains(manifest["replica_id"].as_str().unwrap_or("none")), "{error}");
    ensure!((sector.files()?, fs::read(sector.sealed())?) == before, "{error}: files changed");
    drop(pc1);

    let launch = Launch::executor(Stage::Pc1, dir.path())?.env("SEAL_PC1_REPLACE_FINISHED", "1");
    let (mut pc1, log) = launch.serve(Stage::Pc1)?;
    for (field, value) in [
        ("out_path", json!("/proc/sealed")),
        ("out_path", json!(sector.cache().join("no/such/sealed"))),
        ("out_path", json!(sector.cache())),
        ("in_path", json!(sector.cache().join("missing"))),
        ("out_path", json!(sector.cache().join(LAYER_1))),
    ] {
        let mut task = sector.pc1_task()?;
        task[field] = value;
        let error = pc1.call_failing(&task, PATIENCE)?;
        ensure!((sector.files()?, fs::read(sector.sealed())?) == before, "{error}: files changed");
    }
    let pc1out = pc1.call(&sector.pc1_task()?, PATIENCE)?;
    ensure!(sector.names()? == [&["note"], &AFTER_PC1[..]].concat(), "{:?}", sector.names()?);
    for name in remains {
        ensure!(!log.lines_with(&["removing remains", name])?.is_empty(), "{name} is not told");
    }
    fs::remove_file(sector.cache().join("note"))?;
    ensure!(sector.files()? == expected_after_pc1(&sector.vector), "wrong files");
    pc2_succeeds(&mut pc2, &sector, &pc1out)?;
    Ok(())
}

#[test]
fn paths_that_are_one_file_are_refused_by_both_names() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut pc1, _) = serve(Stage::Pc1, dir.path())?;
    let sector = stage(CASE, dir.path())?;
    let path = |name: &str| dir.path().join(name);
    fs::hard_link(sector.staged(), path("hard"))?;
    symlink(sector.staged(), path("soft"))?;
    symlink(sector.cache().join(LAYER_2), path("to-layer"))?;
    let staged = fs::read(sector.staged())?;
    for (out_path, other) in [
        (sector.staged(), sector.staged()),
        (path("hard"), sector.staged()),
        (path("soft"), sector.staged()),
        (sector.cache().join(TREE_D), sector.cache().join(TREE_D)),
        (sector.cache().join("../cache").join(LAYER_1), sector.cache().join(LAYER_1)),
        (path("to-layer"), sector.cache().join(LAYER_2)),
        (sector.cache().join("p_aux"), sector.cache().join("p_aux")),
    ] {
        let mut task = sector.pc1_task()?;
        task["out_path"] = json!(out_path);
        let error = pc1.call_failing(&task, PATIENCE)?;
        let (out_path, other) = (out_path.display().to_string(), other.display().to_string());
        tells(&error, ErrorCode::BadInput, &["the same file", "out_path", &out_path, &other])?;
        ensure!(sector.names()?.is_empty(), "{:?}", sector.names()?);
        ensure!(fs::read(sector.staged())? == staged, "the staged file was changed");
    }
    pc1_succeeds(&mut pc1, &sector)?;
    Ok(())
}

#[test]
fn what_is_no_file_is_told_at_once_by_what_it_is() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut pc1, _) = serve(Stage::Pc1, dir.path())?;
    let sector = stage(CASE, dir.path())?;
    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU)?;
    for field in ["in_path", "out_path", "cache_path"] {
        for (path, what) in [(fifo.as_path(), "a FIFO"), (Path::new("/dev/null"), "a character")] {
            let mut task = sector.pc1_task()?;
            task[field] = json!(path);
            let error = pc1.call_failing(&task, PATIENCE)?;
            tells(&error, ErrorCode::BadInput, &[field, &path.display().to_string(), what])?;
        }
    }
    // The record of layers is of our own name.
    let manifest = sector.cache().join(seal_types::MANIFEST);
    fs::write(dir.path().join("elsewhere"), "{}")?;
    symlink(dir.path().join("elsewhere"), &manifest)?;
    let error = pc1.call_failing(&sector.pc1_task()?, PATIENCE)?;
    let shown = manifest.display().to_string();
    tells(&error, ErrorCode::BadInput, &[&shown, "a symbolic link", "remove it"])?;
    fs::remove_file(&manifest)?;
    nix::unistd::mkfifo(&manifest, nix::sys::stat::Mode::S_IRWXU)?;
    let error = pc1.call_failing(&sector.pc1_task()?, PATIENCE)?;
    tells(&error, ErrorCode::BadInput, &[&shown, "a FIFO"])?;
    fs::remove_file(&manifest)?;
    // A tree D that is none is not waited for either, and has to go by hand.
    let tree = sector.cache().join(TREE_D);
    nix::unistd::mkfifo(&tree, nix::sys::stat::Mode::S_IRWXU)?;
    let error = pc1.call_failing(&sector.pc1_task()?, PATIENCE)?;
    tells(&error, ErrorCode::BadInput, &[&tree.display().to_string(), "a FIFO"])?;
    fs::remove_file(&tree)?;
    pc1_succeeds(&mut pc1, &sector)?;
    Ok(())
}

#[test]
fn relative_paths_and_modes_of_files_that_are_there_are_kept() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let sector = stage(CASE, dir.path())?;
    fs::set_permissions(sector.sealed(), fs::Permissions::from_mode(0o600))?;
    let root = sector.sealed().parent().map(Path::to_path_buf).unwrap_or_default();
    let within = |task: &mut Value, fields: &[&str]| {
        for field in fields {
            let name = Path::new(task[*field].as_str().unwrap_or_default()).file_name();
            task[*field] = json!(name.map(|name| name.to_string_lossy()));
        }
    };
    let answer = |stage: Stage, task: &Value| -> Result<Value> {
        let file = dir.path().join("task.json");
        fs::write(&file, task.to_string())?;
        let launch = Launch::executor(stage, dir.path())?.args(["run", "--task"]).args([&file]);
        let output = launch.command()?.current_dir(&root).output()?;
        ensure!(output.status.success(), "{}", launch.log().text()?);
        Ok(serde_json::from_slice(&output.stdout)?)
    };
    let mut task = sector.pc1_task()?;
    within(&mut task, &["cache_path", "in_path", "out_path"]);
    let pc1out = answer(Stage::Pc1, &task)?;
    ensure!(sector.files()? == expected_after_pc1(&sector.vector), "wrong files");
    let mut task = sector.pc2_task(&pc1out);
    within(&mut task, &["cache_dir", "sealed_file"]);
    let pc2out = answer(Stage::Pc2, &task)?;
    let comm_r: seal_types::Commitment = serde_json::from_value(pc2out["comm_r"].clone())?;
    ensure!(comm_r.to_string() == sector.vector.comm_r, "comm_r is {comm_r}");
    let mode = fs::metadata(sector.sealed())?.mode() & 0o7777;
    ensure!(mode == 0o600, "the sealed file has the mode {mode:o}");
    Ok(())
}

#[test]
fn directories_that_are_none_are_named() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut pc1, _) = serve(Stage::Pc1, dir.path())?;
    let sector = stage(CASE, dir.path())?;
    let staged = sector.staged().display().to_string();
    let missing = dir.path().join("missing/dir").display().to_string();
    for (field, path, code, words) in [
        ("cache_path", missing.clone(), ErrorCode::Io, "No such file"),
        ("cache_path", staged.clone(), ErrorCode::BadInput, "is not a directory"),
        ("cache_path", format!("{staged}/below"), ErrorCode::Io, "Not a directory"),
        ("out_path", format!("{missing}/sealed"), ErrorCode::Io, "No such file"),
        ("out_path", format!("{staged}/below"), ErrorCode::Io, "Not a directory"),
    ] {
        let mut task = sector.pc1_task()?;
        task[field] = json!(path);
        let error = pc1.call_failing(&task, PATIENCE)?;
        let named =
            if field == "out_path" { path.rsplit_once('/').map_or("", |p| p.0) } else { &path };
        tells(&error, code, &[named, words])?;
        ensure!(sector.wrongly_left()?.is_empty(), "{:?}", sector.names()?);
    }
    pc1_succeeds(&mut pc1, &sector)?;
    Ok(())
}

#[test]
fn a_directory_in_which_another_process_seals_is_left_alone() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (mut pc1, log) = serve(Stage::Pc1, dir.path())?;
    let sector = stage(CASE, dir.path())?;
    fs::write(sector.cache().join(LAYER_1), "another's")?;
    let other = fs::File::open(sector.cache())?;
    other.lock()?;
    // It may be about to end, so it is waited for; that this ends is tested beside the wait.
    std::thread::scope(|scope| {
        let sealing = scope.spawn(|| pc1_succeeds(&mut pc1, &sector));
        let waited = log.wait_for(&["waiting: for", "still works there, 120 s"], PATIENCE);
        let found = fs::read(sector.cache().join(LAYER_1));
        other.unlock()?;
        sealing.join().map_err(|_| anyhow::anyhow!("the test panicked"))??;
        waited?;
        ensure!(found? == b"another's", "its file was touched");
        Ok(())
    })
}
