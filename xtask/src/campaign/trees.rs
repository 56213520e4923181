//! Directories with all that is in them: copied, and compared byte for byte.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use seal_types::MANIFEST;

/// Files of which only that they are there is compared: they tell when something was made.
const UNLIKE: [&str; 1] = [MANIFEST];

/// What is locked, and stays, where a directory cannot be locked.
const LOCK_FILE: &str = ".seal-exec.lock";

/// Makes `to` a copy of the directory `from`; of what is no file nothing is copied.
pub(super) fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else if entry.file_type()?.is_file() {
            fs::copy(entry.path(), &target)?;
            let times = fs::FileTimes::new().set_modified(entry.metadata()?.modified()?);
            File::options().write(true).open(&target)?.set_times(times)?;
        }
    }
    Ok(())
}

/// The same with the files themselves in both: for what is only copied from, because sectors are
/// large.
pub(super) fn share(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            share(&entry.path(), &target)?;
        } else if entry.file_type()?.is_file() {
            fs::hard_link(entry.path(), &target)?;
        }
    }
    Ok(())
}

/// Removes the directory if it is there.
pub(super) fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// In what `found` is not as `expected`; nothing if they are alike.
pub(super) fn difference(expected: &Path, found: &Path) -> Result<Option<String>> {
    let (names, others) = (names(expected)?, names(found)?);
    if let Some(name) = names.difference(&others).next() {
        return Ok(Some(format!("{} is missing", name.display())));
    }
    if let Some(name) = others.difference(&names).next() {
        return Ok(Some(format!("{} should not be there", name.display())));
    }
    for name in &names {
        if !alike(&expected.join(name), &found.join(name))? {
            return Ok(Some(format!("{} has other bytes", name.display())));
        }
    }
    Ok(None)
}

/// A file in `found` with a name of its own that is neither as in `before` nor as in `after`; of
/// hidden files nothing is demanded.
pub(super) fn unfinished(before: &Path, after: &Path, found: &Path) -> Result<Option<String>> {
    for name in names(found)? {
        let hidden = name.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let like = |state: &Path| -> Result<bool> {
            let other = state.join(&name);
            Ok(other.exists() && alike(&other, &found.join(&name))?)
        };
        if !hidden && !like(after)? && !like(before)? {
            return Ok(Some(format!("{} is not finished", name.display())));
        }
    }
    Ok(None)
}

fn names(dir: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    collect(dir, Path::new(""), &mut found)?;
    Ok(found)
}

/// All names below but that of the lock.
fn collect(dir: &Path, below: &Path, found: &mut BTreeSet<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(dir.join(below)).with_context(|| dir.display().to_string())?;
    for entry in entries {
        let entry = entry?;
        let name = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            collect(dir, &name, found)?;
        } else if entry.file_name() != LOCK_FILE {
            found.insert(name);
        }
    }
    Ok(())
}

fn alike(one: &Path, other: &Path) -> Result<bool> {
    let name = one.file_name().unwrap_or_default();
    if UNLIKE.iter().any(|unlike| name == *unlike) {
        return Ok(true);
    }
    // Whatever else it is may never be read to its end.
    let is_file = |path: &Path| fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
    if !is_file(one) || !is_file(other) {
        return Ok(false);
    }
    let open = |path: &Path| File::open(path).with_context(|| path.display().to_string());
    let (mut left, mut right) = (open(one)?, open(other)?);
    if left.metadata()?.len() != right.metadata()?.len() {
        return Ok(false);
    }
    let (mut first, mut second) = (Vec::new(), Vec::new());
    loop {
        first.clear();
        second.clear();
        left.by_ref().take(1 << 20).read_to_end(&mut first)?;
        right.by_ref().take(1 << 20).read_to_end(&mut second)?;
        if first != second {
            return Ok(false);
        }
        if first.is_empty() {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_wrong_byte_a_missing_and_a_stray_file_are_found() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        fs::create_dir_all(one.join("cache"))?;
        let mut bytes = vec![7; (1 << 20) + 100];
        fs::write(one.join("cache/layer"), &bytes)?;
        fs::write(one.join("cache").join(MANIFEST), "then")?;
        copy(&one, &two)?;
        fs::write(two.join("cache").join(MANIFEST), "now")?;
        assert_eq!(difference(&one, &two)?, None);
        *bytes.last_mut().context("some")? ^= 1;
        fs::write(two.join("cache/layer"), &bytes)?;
        assert_eq!(difference(&one, &two)?, Some("cache/layer has other bytes".to_owned()));
        fs::remove_file(two.join("cache/layer"))?;
        assert_eq!(difference(&one, &two)?, Some("cache/layer is missing".to_owned()));
        fs::write(one.join("cache/.layer.part"), "")?;
        assert_eq!(
            difference(&two, &one)?,
            Some("cache/.layer.part should not be there".to_owned())
        );
        Ok(())
    }

    #[test]
    fn a_partial_file_under_a_final_name_is_found() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let [before, after, found] = ["before", "after", "found"].map(|name| dir.path().join(name));
        for (state, text) in [(&before, "data"), (&after, "replica"), (&found, "data")] {
            fs::create_dir(state)?;
            fs::write(state.join("sealed"), text)?;
        }
        fs::write(found.join(".sealed.part"), "repl")?;
        assert_eq!(unfinished(&before, &after, &found)?, None);
        fs::write(found.join("sealed"), "replica")?;
        assert_eq!(unfinished(&before, &after, &found)?, None);
        fs::write(found.join("sealed"), "repl")?;
        assert_eq!(unfinished(&before, &after, &found)?, Some("sealed is not finished".to_owned()));
        Ok(())
    }
}
