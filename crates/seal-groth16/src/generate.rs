//! Parameters for tests, where the published ones cannot be fetched.
//!
//! The one who makes parameters knows the secret behind them and could forge proofs, so these are
//! refused for production sizes, marked, and kept out of the directory that every program on the
//! host reads unless that is insisted on.

use std::fs::{self, File, TryLockError};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use filecoin_proofs::with_shape;
use rand::rngs::OsRng;
use seal_field::curve::CurveKernel;
use seal_host::{
    FileError, LockWait, PartFile, lock_holder, open_lock, require_free, take_while_it_moves,
};
use seal_types::{DEFAULT_PARAM_DIR, RegisteredProof, SectorSize, groth_file_digest};
use storage_proofs_core::merkle::MerkleTreeTrait;

use crate::circuit::representative;
use crate::digest::{Digest, DigestWriter};
use crate::setup::{Secrets, Setup, setup};
use crate::shape::record;
use crate::{CircuitFiles, Groth16Error, MarkedFile, Marker, digest_file};

/// The file by which processes that make parameters in one directory wait for each other.
const LOCK: &str = ".seal-exec-gen-params.lock";

/// How long another maker may take: the largest test parameters take some minutes on few cores.
const MAKING_TAKES: Duration = Duration::from_secs(3600);

/// Whether to write where one should not without thinking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overwrite {
    /// Not into the default directory; test parameters that are there are kept.
    No,
    /// Also into the default directory, and over everything but published parameters.
    Force,
}

/// How far the work is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GenerateStep {
    /// Another process makes parameters in the same directory.
    Waiting,
    /// The points are computed; this cannot tell how far it is.
    Computing,
    /// The files are written.
    Writing,
}

/// Test parameters that are there now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generated {
    /// The file with all points.
    pub params: PathBuf,
    /// Its length in bytes.
    pub bytes: u64,
    /// How long it took to make them; `None` if they were there already.
    pub took: Option<Duration>,
}

/// Makes test parameters for sectors of `sector_size` in `dir` under the official names.
pub fn generate_test_params(
    sector_size: SectorSize,
    dir: &Path,
    overwrite: Overwrite,
    progress: &dyn Fn(GenerateStep),
) -> Result<Generated, Groth16Error> {
    let files = CircuitFiles::of(sector_size)?;
    if sector_size > SectorSize::MIB_512 {
        return Err(Groth16Error::TooLargeForTests { sector_size });
    }
    if overwrite == Overwrite::No && is_default_dir(dir) {
        return Err(Groth16Error::DefaultDirectory { dir: dir.to_path_buf() });
    }
    fs::create_dir_all(dir).map_err(FileError::of("create", dir))?;
    let _lock = lock(dir, progress)?;
    if let Some(there) = check_existing(&files, dir, overwrite)? {
        return Ok(there);
    }
    // The 2 KiB circuit is the smallest; the exact size is known only when the work is done.
    const AT_LEAST: u64 = 1 << 30;
    require_free(dir, AT_LEAST)?;

    progress(GenerateStep::Computing);
    let start = Instant::now();
    let proof = representative(sector_size)?;
    let parameters = with_shape!(sector_size.bytes(), compute, proof)?;
    progress(GenerateStep::Writing);
    let bytes = write(&files, dir, &parameters)?;
    Ok(Generated { params: dir.join(files.params()), bytes, took: Some(start.elapsed()) })
}

fn is_default_dir(dir: &Path) -> bool {
    let default = Path::new(DEFAULT_PARAM_DIR);
    let same_file = || Some(fs::canonicalize(dir).ok()? == fs::canonicalize(default).ok()?);
    dir == default || same_file().unwrap_or(false)
}

/// Waits for other makers of parameters. The lock goes with the file handle.
fn lock(dir: &Path, progress: &dyn Fn(GenerateStep)) -> Result<File, Groth16Error> {
    let path = dir.join(LOCK);
    let file = open_lock(&path)?;
    let is_busy = |error: &TryLockError| matches!(error, TryLockError::WouldBlock);
    let mut told = false;
    let tell = |_: &LockWait| {
        if !std::mem::replace(&mut told, true) {
            progress(GenerateStep::Waiting);
        }
        true
    };
    let take = || file.try_lock();
    let taken = take_while_it_moves(&path, MAKING_TAKES, take, is_busy, || (), tell);
    match taken {
        Ok(()) => Ok(file),
        Err(TryLockError::Error(error)) => Err(FileError::of("lock", &path)(error).into()),
        Err(TryLockError::WouldBlock) => {
            let holder = lock_holder(&path);
            let who = holder.map_or("another process".to_owned(), |holder| holder.to_string());
            let text = format!("{who} has it; end that one if it makes no parameters");
            Err(FileError::of("lock", &path)(io::Error::other(text)).into())
        }
    }
}

/// What is there already: test parameters that are whole are as good as new ones, published
/// parameters are never replaced, and anything else only if that is insisted on.
fn check_existing(
    files: &CircuitFiles,
    dir: &Path,
    overwrite: Overwrite,
) -> Result<Option<Generated>, Groth16Error> {
    let marker = Marker::read(dir)?;
    let mut whole = 0;
    let names = [files.vk(), files.params()];
    for name in &names {
        let path = dir.join(name);
        if !path.exists() {
            continue;
        }
        let digest = digest_file(&path)?;
        if groth_file_digest(name).is_some_and(|published| published.blake2b_16 == digest) {
            let what = "is the published file";
            return Err(Groth16Error::WouldOverwrite { path, what, force_helps: false });
        }
        match marker.files.get(name) {
            Some(marked) if marked.blake2b_16 == digest => whole += 1,
            _ if overwrite == Overwrite::Force => {}
            Some(_) => {
                let what = "differs from the test parameters that were made here";
                return Err(Groth16Error::WouldOverwrite { path, what, force_helps: true });
            }
            None => {
                let what = "was not made by gen-params";
                return Err(Groth16Error::WouldOverwrite { path, what, force_helps: true });
            }
        }
    }
    if whole < names.len() || overwrite == Overwrite::Force {
        return Ok(None);
    }
    let bytes = marker.files.get(&files.params()).map_or(0, |marked| marked.size);
    Ok(Some(Generated { params: dir.join(files.params()), bytes, took: None }))
}

fn compute<Tree: 'static + MerkleTreeTrait>(proof: RegisteredProof) -> Result<Setup, Groth16Error> {
    let compiled = record::<Tree>(proof)?;
    setup(&compiled, &Secrets::random(&mut OsRng), CurveKernel::detect())
        .map_err(Groth16Error::upstream("compute the points of test parameters"))
}

/// Writes all files. The marker comes before the files it marks, so that there is no moment at
/// which test parameters could be taken for others.
fn write(files: &CircuitFiles, dir: &Path, parameters: &Setup) -> Result<u64, Groth16Error> {
    require_free(dir, parameters.points_bytes())?;

    let mut marker = Marker::read(dir)?;
    let mut mark = |name: String, digest: &Digest| {
        let file = MarkedFile { size: digest.bytes(), blake2b_16: digest.finish() };
        marker.files.insert(name, file);
    };
    let (params, params_digest) = part(dir, &files.params(), |sink| parameters.write(sink))?;
    mark(files.params(), &params_digest);
    let (vk, vk_digest) = part(dir, &files.vk(), |sink| parameters.vk.write(sink))?;
    mark(files.vk(), &vk_digest);
    let sector_size = files.sector_size().bytes();
    let (meta, _) = part(dir, &files.meta(), |sink| {
        sink.write_all(format!("{{\"sector_size\":{sector_size}}}").as_bytes())
    })?;
    marker.write(dir)?;
    meta.finish()?;
    vk.finish()?;
    params.finish()?;
    Ok(params_digest.bytes())
}

/// Writes a file up to the moment where it gets its name.
fn part(
    dir: &Path,
    name: &str,
    content: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<(PartFile, Digest), FileError> {
    let part = PartFile::create(&dir.join(name))?;
    let mut sink = DigestWriter::new(BufWriter::with_capacity(1 << 20, part.file()));
    content(&mut sink)
        .and_then(|()| sink.flush())
        .map_err(FileError::of("write", part.part_path()))?;
    let digest = sink.into_digest();
    Ok((part, digest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::small::Small;
    use crate::tiny;

    fn generate(size: SectorSize, dir: &Path, overwrite: Overwrite) -> Result<Generated, String> {
        let started = |step| assert_ne!(step, GenerateStep::Computing, "must not begin");
        generate_test_params(size, dir, overwrite, &started).map_err(|error| error.to_string())
    }

    #[test]
    fn production_sizes_are_refused_whatever_is_insisted_on() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for size in [SectorSize::GIB_32, SectorSize::GIB_64] {
            let error = generate(size, dir.path(), Overwrite::Force).expect_err("too large");
            assert!(error.contains(&size.to_string()), "{error}");
        }
        assert!(!dir.path().join(LOCK).exists());
    }

    #[test]
    fn the_default_directory_needs_force() {
        let error = generate(SectorSize::KIB_2, Path::new(DEFAULT_PARAM_DIR), Overwrite::No);
        assert!(error.expect_err("not without force").contains("--force"));
    }

    #[test]
    fn test_parameters_that_are_there_are_kept() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let params = tiny::write(dir.path());
        tiny::mark(dir.path());
        let bytes = fs::metadata(&params).expect("there").len();
        let there = generate(SectorSize::KIB_2, dir.path(), Overwrite::No);
        assert_eq!(there, Ok(Generated { params, bytes, took: None }));
    }

    #[test]
    fn files_of_unknown_origin_are_not_overwritten() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let params = tiny::write(dir.path());
        let before = fs::read(&params).expect("readable");
        let error = generate(SectorSize::KIB_2, dir.path(), Overwrite::No).expect_err("unknown");
        assert!(error.contains("was not made by gen-params"), "{error}");
        tiny::mark(dir.path());
        let mut damaged = before.clone();
        damaged[0] ^= 1;
        fs::write(&params, &damaged).expect("writable");
        let error = generate(SectorSize::KIB_2, dir.path(), Overwrite::No).expect_err("changed");
        assert!(error.contains("differs") && error.contains("--force"), "{error}");
        assert_eq!(fs::read(&params).expect("readable"), damaged);
    }

    #[test]
    fn what_is_written_is_marked_and_found() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let compiled = Small::compiled(2);
        let secrets = Secrets::random(&mut OsRng);
        let parameters = setup(&compiled, &secrets, CurveKernel::detect()).expect("good secrets");
        let bytes = write(&tiny::files(), dir.path(), &parameters).expect("writable");
        let mut expected = Vec::new();
        parameters.write(&mut expected).expect("memory");
        assert_eq!(bytes, expected.len() as u64);
        assert!(fs::read(dir.path().join(tiny::files().params())).expect("readable") == expected);
        expected.clear();
        parameters.vk.write(&mut expected).expect("memory");
        assert!(fs::read(dir.path().join(tiny::files().vk())).expect("readable") == expected);
        let meta = fs::read_to_string(dir.path().join(tiny::files().meta())).expect("readable");
        assert_eq!(meta, r#"{"sector_size":2048}"#);
        let there = generate(SectorSize::KIB_2, dir.path(), Overwrite::No).expect("marked");
        assert_eq!(there.took, None);
    }
}
