//! The binaries of another revision of this repository, for benchmarks that compare with it and
//! tests that mix versions.
//!
//! Everything lies in `revisions` below the target directory: sources as the revision has them, one
//! build directory for all revisions, which so share what they have of other people's crates, and
//! the binaries of each revision apart.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::client::binary_dir;
use crate::skip::{skipped, slow_tests};

/// The version that tests of mixed versions put beside this one: the last whose supervisors show
/// no lock by which others see that they live.
pub const EARLIER: &str = "e86127d";

/// A commit of this repository.
#[derive(Clone, Debug)]
pub struct Revision {
    sha: String,
    /// What all revisions share.
    shared: PathBuf,
}

/// What to do where the history does not go back so far.
const REMEDY: &str = "a shallow clone has only its last commits; \
                      `git fetch --unshallow` brings the others";

/// The binaries of `packages` of the [`EARLIER`] version for `test`. They are built where slow tests
/// were asked for; else there are some only if that was done before. `None` after the test was noted
/// as skipped.
pub fn earlier(test: &str, packages: &[&str]) -> Result<Option<Revision>> {
    let earlier = match Revision::find(EARLIER) {
        Ok(earlier) => earlier,
        Err(error) => {
            skipped(test, &format!("{error:#}"));
            return Ok(None);
        }
    };
    if slow_tests() {
        earlier.build(packages)?;
    } else if !packages.iter().all(|package| earlier.is_built(package)) {
        skipped(
            test,
            &format!("{} of {EARLIER} is not built (--slow builds it)", packages.join(", ")),
        );
        return Ok(None);
    }
    Ok(Some(earlier))
}

impl Revision {
    /// The commit that git knows as `name`.
    pub fn find(name: &str) -> Result<Self> {
        let output = Command::new("git")
            .current_dir(repository())
            .args(["rev-parse", "--verify", "--quiet", "--end-of-options"])
            .arg(format!("{name}^{{commit}}"))
            .output()
            .context("cannot run git")?;
        let sha = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if !output.status.success() || sha.is_empty() {
            bail!("{name} is no commit of this repository ({REMEDY})");
        }
        let profile = binary_dir()?;
        let target = profile.parent().context("a profile lies in the target directory")?;
        Ok(Self { sha, shared: target.join("revisions") })
    }

    /// Its hash, shortened.
    pub fn short(&self) -> &str {
        self.sha.get(..12).unwrap_or(&self.sha)
    }

    /// Where its binary `name` is, once it is built.
    pub fn binary(&self, name: &str) -> PathBuf {
        self.dir().join("bin").join(name)
    }

    /// Builds the binaries of `packages` in release unless that was done before. Nothing is fetched
    /// that the registry's cache has.
    pub fn build(&self, packages: &[&str]) -> Result<()> {
        fs::create_dir_all(self.dir().join("bin"))?;
        let lock = self.shared.join("lock");
        let lock =
            File::create(&lock).with_context(|| format!("cannot make {}", lock.display()))?;
        lock.lock().context("the directory of revisions")?;
        let missing: Vec<_> = packages.iter().filter(|package| !self.is_built(package)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let sources = self.sources()?;
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(&sources).args(["build", "--release", "--locked", "--bins"]);
        command.args(["--message-format", "json-render-diagnostics"]);
        for package in &missing {
            command.args(["--package", package]);
        }
        // A build script that asks git must not be told of the repository around these sources.
        command.env("GIT_CEILING_DIRECTORIES", self.dir());
        command.env("CARGO_TARGET_DIR", self.shared.join("build"));
        let output = command.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
        ensure!(output.status.success(), "the build of {} failed: {}", self.sha, output.status);
        let messages = String::from_utf8(output.stdout).context("cargo's messages are UTF-8")?;
        let messages = messages.lines().filter_map(|line| serde_json::from_str(line).ok());
        for binary in messages.filter_map(|message: Value| executable(&message)) {
            let name = binary.file_name().context("a binary has a name")?;
            let part = self.dir().join("bin.part");
            fs::copy(&binary, &part).with_context(|| format!("no {}", binary.display()))?;
            fs::rename(&part, self.dir().join("bin").join(name))?;
        }
        for package in missing {
            File::create(self.mark_of(package))?;
        }
        Ok(())
    }

    /// Whether the binaries of `package` are there.
    pub fn is_built(&self, package: &str) -> bool {
        self.mark_of(package).exists()
    }

    fn mark_of(&self, package: &str) -> PathBuf {
        self.dir().join(format!("{package}.built"))
    }

    fn dir(&self) -> PathBuf {
        self.shared.join(&self.sha)
    }

    /// Its sources, unpacked once.
    fn sources(&self) -> Result<PathBuf> {
        let (whole, part) = (self.dir().join("sources"), self.dir().join("sources.part"));
        if whole.exists() {
            return Ok(whole);
        }
        if part.exists() {
            fs::remove_dir_all(&part)?;
        }
        fs::create_dir_all(&part)?;
        let mut archive = Command::new("git")
            .current_dir(repository())
            .args(["archive", "--format=tar", &self.sha])
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run git")?;
        let archived = archive.stdout.take().context("a child has a standard output")?;
        let unpacked = Command::new("tar").arg("-x").arg("-C").arg(&part).stdin(archived).status();
        let archived = archive.wait()?;
        let unpacked = unpacked.context("cannot run tar")?;
        ensure!(
            archived.success() && unpacked.success(),
            "the sources of {} cannot be unpacked: git {archived}, tar {unpacked}",
            self.sha
        );
        fs::rename(&part, &whole)?;
        Ok(whole)
    }
}

/// The binary that a message of cargo tells of.
fn executable(message: &Value) -> Option<PathBuf> {
    let kinds = message["target"]["kind"].as_array()?;
    kinds.contains(&Value::from("bin")).then_some(())?;
    message["executable"].as_str().map(PathBuf::from)
}

fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::skip::skipped;
    use serde_json::json;

    #[test]
    fn a_revision_that_is_not_there_is_told_with_what_to_do() {
        let error = Revision::find("no-such-revision").unwrap_err().to_string();
        assert!(error.contains("no-such-revision") && error.contains("--unshallow"), "{error}");
        // No option of git's either.
        Revision::find("--all").unwrap_err();
    }

    #[test]
    fn sources_are_those_of_the_revision() -> Result<()> {
        let Ok(mut head) = Revision::find("HEAD") else {
            skipped("sources of a revision", "this is no git checkout");
            return Ok(());
        };
        let dir = std::env::temp_dir().join(format!("seal-revision-{}", std::process::id()));
        head.shared = dir.clone();
        fs::create_dir_all(head.dir())?;
        let sources = head.sources()?;
        let manifest = fs::read_to_string(sources.join("crates/test-support/Cargo.toml"))?;
        assert!(manifest.contains("test-support"));
        assert_eq!(head.sources()?, sources, "unpacked once");
        fs::remove_dir_all(dir)?;
        Ok(())
    }

    #[test]
    fn binaries_are_taken_from_what_cargo_says() {
        let message = |kind: &str| json!({ "target": { "kind": [kind] }, "executable": "/x/pc1" });
        assert_eq!(executable(&message("bin")), Some(PathBuf::from("/x/pc1")));
        assert_eq!(executable(&message("lib")), None);
        assert_eq!(executable(&json!({ "reason": "build-finished" })), None);
    }
}
