//! A cgroup with limits, for processes under test.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A cgroup of version 1 of the test's own, removed in the end.
#[derive(Debug)]
pub struct Group(PathBuf);

impl Group {
    /// In the hierarchy of `controller`. `None` where none can be made.
    pub fn of(controller: &str, name: &str) -> Option<Self> {
        let path = Path::new("/sys/fs/cgroup").join(controller);
        Self::at(path.join(format!("seal-test-{name}-{}", std::process::id())))
    }

    /// A group in this one, which has to go before it.
    pub fn within(&self, name: &str) -> Option<Self> {
        Self::at(self.0.join(name))
    }

    fn at(path: PathBuf) -> Option<Self> {
        fs::create_dir(&path).ok()?;
        let group = Self(path);
        group.0.join("cgroup.procs").exists().then_some(group)
    }

    /// Its name, by which `/proc` tells it too.
    pub fn name(&self) -> String {
        self.0.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Writes one of its files.
    pub fn write(&self, file: &str, value: &str) -> Result<()> {
        let path = self.0.join(file);
        fs::write(&path, value).with_context(|| format!("{value} to {}", path.display()))
    }

    /// The number in one of its files.
    pub fn number(&self, file: &str) -> Result<u64> {
        Ok(fs::read_to_string(self.0.join(file))?.trim().parse()?)
    }

    /// A command for [`Launch::through`](crate::launch::Launch::through) that goes into it first.
    pub fn entering(&self) -> Vec<String> {
        let script =
            format!("echo $$ > '{}' && exec \"$@\"", self.0.join("cgroup.procs").display());
        ["sh", "-c", &script, "sh"].map(str::to_owned).to_vec()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The kernel takes a moment to let go of processes that have ended.
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}
