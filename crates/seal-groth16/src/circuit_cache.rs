//! Compiled circuits on disk.
//!
//! To record the circuit of a 32 GiB sector takes 15 to 30 seconds on two cores, to read it back
//! one to two. A file is read only if it is of this format, of this circuit, from these
//! versions of the published crates and as it was written; anything else is recorded anew, with a
//! warning. Who can write into the directory can make proofs fail, but none is ever answered that
//! does not verify.

use std::fs::{self, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use seal_host::{FileError, open_lock};

use crate::circuit_file::{self, BadCircuit, FORMAT, Owner};
use crate::r1cs::Compiled;
use crate::{CircuitFiles, Groth16Error};

/// Names and versions of the published crates that lay circuits out.
const CRATES: &str = env!("SEAL_CIRCUIT_CRATES");
/// The version of the one among them that has the circuit, for people who see the file.
const POREP_VERSION: &str = env!("SEAL_POREP_VERSION");
/// Held while a circuit is written.
const LOCK: &str = ".lock";

/// Where a circuit came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// It was read.
    Cache,
    /// It was recorded.
    Recorded,
}

/// A directory of compiled circuits, which need not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CircuitCache {
    dir: PathBuf,
}

impl CircuitCache {
    pub(crate) fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The circuit that belongs to the parameters `files`: read, or else recorded and kept.
    pub(crate) fn get(
        &self,
        files: &CircuitFiles,
        record: impl FnOnce() -> Result<Compiled, Groth16Error>,
    ) -> Result<(Compiled, Origin), Groth16Error> {
        let (path, owner) = (self.path(files), owner(files));
        match circuit_file::read(&path, &owner) {
            Ok(compiled) => return Ok((compiled, Origin::Cache)),
            Err(BadCircuit::File(error)) if error.source.kind() == ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(
                path = %path.display(),
                error = causes(&error),
                "the compiled circuit that is kept there cannot be used; it is recorded anew"
            ),
        }
        let compiled = record()?;
        match self.keep(&path, &owner, &compiled) {
            Ok(()) => {}
            Err(error) => tracing::warn!(
                error = causes(&error),
                "the compiled circuit cannot be kept; the next start records it anew \
                 (--circuit-cache or SEAL_CIRCUIT_CACHE names another directory, or off)"
            ),
        }
        Ok((compiled, Origin::Recorded))
    }

    fn path(&self, files: &CircuitFiles) -> PathBuf {
        let tag: String = owner(files)[..4].iter().map(|byte| format!("{byte:02x}")).collect();
        self.dir.join(format!("{}.v{FORMAT}-{POREP_VERSION}-{tag}.circuit", files.stem()))
    }

    /// Writes a circuit, unless another process is at it.
    fn keep(&self, path: &Path, owner: &Owner, compiled: &Compiled) -> Result<(), FileError> {
        fs::create_dir_all(&self.dir).map_err(FileError::of("create", &self.dir))?;
        let lock = self.dir.join(LOCK);
        // One writes it, and the others need not; the lock goes with this handle.
        let held = open_lock(&lock)?;
        match held.try_lock() {
            Ok(()) => circuit_file::write(path, owner, compiled),
            Err(TryLockError::WouldBlock) => {
                tracing::debug!(path = %path.display(), "another process keeps a circuit there");
                Ok(())
            }
            Err(TryLockError::Error(error)) => Err(FileError::of("lock", &lock)(error)),
        }
    }
}

/// What has to be the same for a recorded circuit to be the one that would be recorded now.
fn owner(files: &CircuitFiles) -> Owner {
    let text = format!("{}\n{CRATES}", files.stem());
    let digest = blake2b_simd::blake2b(text.as_bytes());
    std::array::from_fn(|at| digest.as_bytes()[at])
}

/// An error and what caused it.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::small::Small;
    use crate::tiny;
    use seal_types::SectorSize;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn small(challenges: usize) -> Compiled {
        Small::compiled(challenges)
    }

    /// The circuit that the cache has, and whether it was recorded for that.
    fn got(dir: &Path) -> (Compiled, Origin) {
        CircuitCache::new(dir).get(&tiny::files(), || Ok(small(5))).expect("never fails")
    }

    /// A cache with one circuit, and its file.
    fn filled() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        assert_eq!(got(dir.path()).1, Origin::Recorded);
        let path = CircuitCache::new(dir.path()).path(&tiny::files());
        (dir, path)
    }

    #[test]
    fn what_is_read_back_is_what_was_recorded() {
        let (dir, path) = filled();
        assert!(path.exists());
        let (compiled, origin) = got(dir.path());
        assert_eq!(origin, Origin::Cache);
        assert_eq!(compiled, small(5));
    }

    #[test]
    fn a_directory_that_is_not_there_is_made() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let below = dir.path().join("a/b");
        assert_eq!(got(&below).1, Origin::Recorded);
        assert_eq!(got(&below).1, Origin::Cache);
    }

    #[test]
    fn every_flipped_byte_and_every_missing_end_is_found_and_replaced() {
        let (dir, path) = filled();
        let good = fs::read(&path).expect("readable");
        let bad = |bytes: &[u8], what: &str| {
            fs::write(&path, bytes).expect("writable");
            let read = circuit_file::read(&path, &owner(&tiny::files()));
            assert!(read.is_err(), "{what}");
        };
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 0x10;
            bad(&bytes, &format!("byte {at} flipped"));
        }
        for length in [0, 7, 100, good.len() / 2, good.len() - 1] {
            bad(&good[..length], &format!("{length} bytes left"));
        }
        bad(&[&good[..], &[0]].concat(), "a byte more");
        assert_eq!(got(dir.path()), (small(5), Origin::Recorded));
        assert_eq!(fs::read(&path).expect("readable"), good, "it was replaced");
    }

    #[test]
    fn circuits_of_others_are_recorded_anew() {
        let (dir, path) = filled();
        let files = tiny::files();
        let write = |owner: &Owner| circuit_file::write(&path, owner, &small(3));
        let other = CircuitFiles::of(SectorSize::MIB_8).expect("registered");
        write(&owner(&other)).expect("writable");
        let error = circuit_file::read(&path, &owner(&files)).expect_err("another");
        assert!(matches!(error, BadCircuit::Owner), "{error}");
        assert_eq!(got(dir.path()), (small(5), Origin::Recorded));

        let mut bytes = fs::read(&path).expect("readable");
        bytes[8] += 1;
        fs::write(&path, &bytes).expect("writable");
        let error = circuit_file::read(&path, &owner(&files)).expect_err("another format");
        assert!(error.to_string().contains(&format!("format is {}", FORMAT + 1)), "{error}");
        assert_eq!(got(dir.path()).1, Origin::Recorded);
        fs::write(&path, [b'x'; 500]).expect("writable");
        let error = circuit_file::read(&path, &owner(&files)).expect_err("something else");
        assert!(matches!(error, BadCircuit::Magic), "{error}");
        assert_eq!(got(dir.path()).1, Origin::Recorded);
    }

    #[test]
    fn lengths_that_a_head_makes_up_take_no_memory() {
        let (_dir, path) = filled();
        let good = fs::read(&path).expect("readable");
        // Behind magic, format and owner: eleven numbers.
        for number in 0..11 {
            for value in [u64::MAX, 1 << 62, u64::from(u32::MAX), 0] {
                let mut bytes = good.clone();
                let at = 8 + 4 + 32 + 8 * number;
                bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
                fs::write(&path, &bytes).expect("writable");
                let error = circuit_file::read(&path, &owner(&tiny::files())).expect_err("bad");
                let early = matches!(error, BadCircuit::Head | BadCircuit::Length { .. });
                let late = matches!(error, BadCircuit::Digest);
                assert!(early || late, "number {number}, {value}: {error}");
            }
        }
    }

    #[test]
    fn content_that_evaluation_could_not_stand_is_refused_under_a_good_digest() {
        let (dir, _) = filled();
        let path = dir.path().join("forged");
        let owner = owner(&tiny::files());
        let forged = |change: fn(&mut Compiled)| {
            let mut compiled = small(5);
            change(&mut compiled);
            circuit_file::write(&path, &owner, &compiled).expect("writable");
            circuit_file::read(&path, &owner).expect_err("forged").to_string()
        };
        type Change = fn(&mut Compiled);
        let changes: [(Change, &str); 6] = [
            (|c| c.matrices[1].columns[3] = 1 << 20, "variable"),
            (|c| c.matrices[2].coefficients[0] = 999, "coefficient"),
            (|c| c.matrices[0].ends.swap(1, 7), "rows"),
            (|c| c.matrices[0].ends.fill(0), "rows"),
            (|c| c.dictionary.swap(0, 1), "minus one"),
            (|c| c.challenges = 0, "challenge"),
        ];
        for (change, what) in changes {
            let error = forged(change);
            assert!(error.contains(what), "{what}: {error}");
        }
    }

    #[test]
    fn a_place_that_cannot_be_written_to_is_no_error() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("file");
        fs::write(&file, "in the way").expect("writable");
        for _ in 0..2 {
            assert_eq!(got(&file), (small(5), Origin::Recorded));
        }
        assert_eq!(fs::read(&file).expect("readable"), b"in the way");
    }

    #[test]
    fn whoever_comes_while_another_writes_goes_on_without_writing() {
        let (dir, path) = filled();
        fs::remove_file(&path).expect("there");
        let held = fs::File::open(dir.path().join(LOCK)).expect("there");
        held.lock().expect("free");
        assert_eq!(got(dir.path()), (small(5), Origin::Recorded));
        assert!(!path.exists(), "the other writes it");
        drop(held);
        assert_eq!(got(dir.path()).1, Origin::Recorded);
        assert_eq!(got(dir.path()).1, Origin::Cache);
    }

    #[test]
    fn a_link_in_the_place_of_the_lock_is_not_followed_and_nothing_is_kept() {
        let (dir, path) = filled();
        fs::remove_file(&path).expect("there");
        let (lock, victim) = (dir.path().join(LOCK), dir.path().join("victim"));
        fs::remove_file(&lock).expect("there");
        std::os::unix::fs::symlink(&victim, &lock).expect("writable");
        assert_eq!(got(dir.path()), (small(5), Origin::Recorded));
        assert!(!victim.exists(), "it was made through the link");
        assert!(!path.exists(), "written without the lock");
    }

    #[test]
    fn many_at_once_all_get_the_circuit_and_leave_one_whole_file() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let recorded = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let (compiled, origin) = got(dir.path());
                        assert_eq!(compiled, small(5));
                        recorded.fetch_add((origin == Origin::Recorded).into(), Ordering::Relaxed);
                    }
                });
            }
        });
        let recorded = recorded.into_inner();
        assert!((1..160).contains(&recorded), "{recorded} recorded");
        assert_eq!(got(dir.path()).1, Origin::Cache);
        let names = seal_host::read_dir_names(dir.path()).expect("there");
        assert_eq!(names.len(), 2, "the circuit and the lock: {names:?}");
    }

    #[test]
    fn the_crates_that_lay_circuits_out_are_all_named() {
        for name in [
            "bellpepper-core 0.",
            "bellperson 0.",
            "filecoin-hashers ",
            "neptune ",
            "storage-proofs-core ",
            "storage-proofs-porep ",
        ] {
            assert!(CRATES.contains(name), "{name}: {CRATES}");
        }
        assert!(!CRATES.contains("patched"), "{CRATES}");
    }
}
