//! Where the parameter files are and whether they can be trusted.
//!
//! No file is ever locked: the published software takes a blocking exclusive lock whenever it
//! opens one, so a lock held here would hang window PoSt on the same host.

use std::io::Read;
use std::path::{Path, PathBuf};

use seal_host::{FileError, open_input, parent_of};
use seal_types::{DEFAULT_PARAM_DIR, GrothFile, SectorSize, groth_file_digest};

use crate::layout::{Layout, check_key_file};
use crate::stamps::{self, Identity};
use crate::{CircuitFiles, Groth16Error, MARKER, MarkedFile, Marker, digest_file};

/// Whether proofs may be made with parameters that are not the published ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TestParams {
    /// Only published parameters.
    #[default]
    Refuse,
    /// Also parameters made for tests.
    Allow,
}

/// When the digest of a parameter file is compared with the published one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DigestCheck {
    /// Once: while a file is loaded for the first time. It is known afterwards by length, time of
    /// change and inode, which a list beside the parameters remembers.
    #[default]
    Once,
    /// Whenever it is loaded: what `FIL_PROOFS_VERIFY_PRODUCTION_PARAMS` asks for.
    Always,
}

/// Which parameters are good enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Trust {
    /// Parameters made for tests.
    pub test_params: TestParams,
    /// How closely published parameters are looked at.
    pub digests: DigestCheck,
}

/// Parameter files that are there and whole, as far as can be told without reading every point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundParams {
    /// The file with all points.
    pub path: PathBuf,
    /// Its length in bytes, and about the memory that loading it takes.
    pub bytes: u64,
    /// Whether the marker file says that it was made for tests.
    pub for_tests: bool,
    /// Whether its digest has been checked before and nothing about it has changed since;
    /// otherwise loading checks it.
    pub digest_checked: bool,
    pub(crate) layout: Layout,
    /// What its digest has to be, if loading checks it.
    pub(crate) expected: Option<Expected>,
    pub(crate) identity: Identity,
}

impl FoundParams {
    /// Reads the whole file now, judges its digest and remembers a good one, as loading does.
    /// Files that need not be checked again are not read: find them with [`DigestCheck::Always`].
    pub fn check_digest(&self) -> Result<(), Groth16Error> {
        match &self.expected {
            Some(expected) => self.judge(expected, &digest_file(&self.path)?),
            None => Ok(()),
        }
    }

    /// Judges the digest of the whole file, which has just been read, and remembers a good one.
    pub(crate) fn judge(&self, expected: &Expected, digest: &str) -> Result<(), Groth16Error> {
        expected.judge(digest, &self.path)?;
        // A file that was replaced meanwhile is not the one that was read.
        let unchanged = Identity::of(&self.path).is_ok_and(|identity| identity == self.identity);
        if let (true, true, Some(dir), Some(name)) = (
            unchanged,
            expected.wanted() == digest,
            Some(parent_of(&self.path)),
            self.path.file_name().and_then(|name| name.to_str()),
        ) {
            stamps::remember(dir, name, self.identity, digest);
        }
        Ok(())
    }
}

/// What a file's digest has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// The published one, or any where test parameters are allowed.
    Published { file: GrothFile, or_any: bool },
    /// The one the marker has.
    Marked(MarkedFile),
}

impl Expected {
    /// The digest that it has to have, or should have.
    fn wanted(&self) -> &str {
        match self {
            Self::Published { file, .. } => file.blake2b_16,
            Self::Marked(marked) => &marked.blake2b_16,
        }
    }

    /// Judges the digest of the whole file at `path`.
    pub(crate) fn judge(&self, digest: &str, path: &Path) -> Result<(), Groth16Error> {
        match self {
            Self::Published { file, .. } if file.blake2b_16 == digest => Ok(()),
            Self::Published { or_any: true, .. } => {
                tracing::warn!(
                    path = %path.display(),
                    digest,
                    "parameters that are neither published nor marked are used as test parameters"
                );
                Ok(())
            }
            Self::Published { file, or_any: false } => Err(Groth16Error::NotPublished {
                path: path.to_path_buf(),
                reason: format!("its digest is {digest}, the published one {}", file.blake2b_16),
            }),
            Self::Marked(marked) if marked.blake2b_16 == digest => Ok(()),
            Self::Marked(marked) => Err(Groth16Error::DamagedParameters {
                path: path.to_path_buf(),
                reason: format!(
                    "its digest is {digest}, but {} when it was made",
                    marked.blake2b_16
                ),
            }),
        }
    }
}

/// A directory with parameter files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamDir {
    dir: PathBuf,
}

impl Default for ParamDir {
    fn default() -> Self {
        Self::new(DEFAULT_PARAM_DIR)
    }
}

impl ParamDir {
    /// The directory `dir`, which need not exist.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// What there is for each sector size with registered proofs, smallest first.
    pub fn list(&self, trust: Trust) -> Vec<(SectorSize, Result<FoundParams, Groth16Error>)> {
        SectorSize::REGISTERED.into_iter().map(|size| (size, self.find(size, trust))).collect()
    }

    /// Finds the parameters for sectors of `sector_size` and checks all that can be checked
    /// without reading the points. Takes milliseconds; the digest is left to loading.
    pub fn find(&self, sector_size: SectorSize, trust: Trust) -> Result<FoundParams, Groth16Error> {
        let files = CircuitFiles::of(sector_size)?;
        let path = self.dir.join(files.params());
        if !path.try_exists().map_err(FileError::of("look for", &path))? {
            return Err(self.missing(path, sector_size));
        }
        let identity = Identity::of(&path)?;
        let layout = Layout::read(&path)?;
        self.check_key(&files, &path, layout)?;
        let marked = Marker::read(&self.dir)?.files.get(&files.params()).cloned();
        let for_tests = marked.is_some();
        let expected = self.expect(&files, layout.bytes, marked, &path, trust)?;
        let digest_checked = expected.as_ref().is_some_and(|expected| {
            stamps::is_checked(&self.dir, &files.params(), identity, expected.wanted())
        });
        let skip = digest_checked && trust.digests == DigestCheck::Once;
        let expected = expected.filter(|_| !skip);
        let bytes = layout.bytes;
        Ok(FoundParams { path, bytes, for_tests, digest_checked, layout, expected, identity })
    }

    fn missing(&self, path: PathBuf, sector_size: SectorSize) -> Groth16Error {
        let fetch = "fetch the published file, for example with `paramfetch` or \
                     `lotus fetch-params`, or name its directory in FIL_PROOFS_PARAMETER_CACHE";
        let remedy = if sector_size > SectorSize::MIB_512 {
            fetch.to_owned()
        } else {
            format!(
                "{fetch}; for tests, make local ones with `c2-exec gen-params --sector-size \
                 {sector_size}`"
            )
        };
        Groth16Error::MissingParameters { path, sector_size, remedy }
    }

    /// The `.vk` file beside, which whoever verifies uses, must hold the same verifying key.
    /// Proving does not need it, so it may be missing.
    fn check_key(
        &self,
        files: &CircuitFiles,
        params: &Path,
        layout: Layout,
    ) -> Result<(), Groth16Error> {
        let path = self.dir.join(files.vk());
        if !path.try_exists().map_err(FileError::of("look for", &path))? {
            tracing::warn!(path = %path.display(), "the verifying key is missing");
            return Ok(());
        }
        check_key_file(&path)?;
        let alone = head(&path, layout.key_bytes() + 1)?;
        if alone != head(params, layout.key_bytes())? {
            let reason = format!("it is not the verifying key of {}", params.display());
            return Err(Groth16Error::DamagedParameters { path, reason });
        }
        Ok(())
    }

    fn expect(
        &self,
        files: &CircuitFiles,
        bytes: u64,
        marked: Option<MarkedFile>,
        path: &Path,
        trust: Trust,
    ) -> Result<Option<Expected>, Groth16Error> {
        let allowed = trust.test_params == TestParams::Allow;
        let Some(marked) = marked else {
            let published = groth_file_digest(&files.params());
            return Ok(published.map(|file| Expected::Published { file, or_any: allowed }));
        };
        let damaged = |reason| Groth16Error::DamagedParameters { path: path.to_path_buf(), reason };
        if !allowed {
            let reason = format!(
                "{MARKER} says that it was made for tests; if it has been replaced by the \
                 published file, remove {MARKER}"
            );
            return Err(Groth16Error::NotPublished { path: path.to_path_buf(), reason });
        }
        if marked.size != bytes {
            return Err(damaged(format!(
                "it has {bytes} bytes, but had {} when it was made",
                marked.size
            )));
        }
        Ok(Some(Expected::Marked(marked)))
    }
}

/// The first `bytes` of a file, or all of it if it is shorter.
fn head(path: &Path, bytes: u64) -> Result<Vec<u8>, FileError> {
    let mut head = Vec::new();
    open_input(path)?.take(bytes).read_to_end(&mut head).map_err(FileError::of("read", path))?;
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tiny;

    const ALLOW: Trust = Trust { test_params: TestParams::Allow, digests: DigestCheck::Once };
    const REFUSE: Trust = Trust { test_params: TestParams::Refuse, digests: DigestCheck::Once };

    fn find(dir: &Path, trust: Trust) -> Result<FoundParams, Groth16Error> {
        ParamDir::new(dir).find(SectorSize::KIB_2, trust)
    }

    #[test]
    fn missing_parameters_are_named_with_what_to_do() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for (size, error) in ParamDir::new(dir.path()).list(Trust::default()) {
            let error = error.expect_err("an empty directory").to_string();
            assert!(error.contains(&CircuitFiles::of(size).expect("registered").params()));
            assert!(error.contains("FIL_PROOFS_PARAMETER_CACHE"), "{error}");
            // Nobody can make parameters for production sizes.
            assert_eq!(error.contains("gen-params"), size <= SectorSize::MIB_512, "{error}");
        }
    }

    #[test]
    fn marked_parameters_are_found_only_where_they_are_allowed() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        tiny::write(dir.path());
        tiny::mark(dir.path());
        assert!(find(dir.path(), ALLOW).expect("allowed").for_tests);
        let error = find(dir.path(), REFUSE).expect_err("refused");
        assert!(matches!(error, Groth16Error::NotPublished { .. }));
        assert!(error.to_string().contains("--allow-test-params"), "{error}");
    }

    #[test]
    fn a_truncated_file_is_found() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = tiny::write(dir.path());
        let bytes = std::fs::read(&path).expect("readable");
        std::fs::write(&path, &bytes[..bytes.len() - 1]).expect("writable");
        let error = find(dir.path(), ALLOW).expect_err("truncated").to_string();
        assert!(error.contains("damaged") && error.contains(".params"), "{error}");
    }

    #[test]
    fn a_length_other_than_the_marked_one_is_found() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        tiny::write(dir.path());
        tiny::mark(dir.path());
        let mut marker = Marker::read(dir.path()).expect("readable");
        marker.files.values_mut().for_each(|file| file.size += 1);
        marker.write(dir.path()).expect("writable");
        let error = find(dir.path(), ALLOW).expect_err("another length").to_string();
        assert!(error.contains("when it was made"), "{error}");
    }

    #[test]
    fn a_verifying_key_of_other_parameters_is_found() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        tiny::write(dir.path());
        let vk = dir.path().join(tiny::files().vk());
        let mut bytes = std::fs::read(&vk).expect("readable");
        bytes[100] ^= 1;
        std::fs::write(&vk, &bytes).expect("writable");
        let error = find(dir.path(), ALLOW).expect_err("another key").to_string();
        assert!(error.contains(".vk is damaged"), "{error}");
        std::fs::write(&vk, &bytes[..bytes.len() - 1]).expect("writable");
        let error = find(dir.path(), ALLOW).expect_err("a short key").to_string();
        assert!(error.contains(".vk is damaged"), "{error}");
        std::fs::remove_file(&vk).expect("removable");
        assert!(find(dir.path(), ALLOW).is_ok(), "only verifiers need the file");
    }
}
