//! Parameters in memory: decoded once, point by point, and kept.
//!
//! Points lie in the file as big-endian coordinates and are needed in Montgomery form, so a map of
//! the file is of no use; decoded they take as much memory as the file is long.

use std::fs::File;
use std::io::{Read, Seek};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use bellperson::groth16::{Parameters, PreparedVerifyingKey, VerifyingKey, prepare_verifying_key};
use blstrs::{Bls12, G1Affine, G2Affine};
use rayon::prelude::*;
use seal_host::{FileError, open_read};

use crate::digest::Digest;
use crate::layout::{G1, G2, List};
use crate::params::{Expected, FoundParams};
use crate::{Groth16Error, ProveStep};

/// Parameters ready for proving.
pub(crate) struct Loaded {
    pub(crate) parameters: Parameters<Bls12>,
    pub(crate) verifying_key: PreparedVerifyingKey<Bls12>,
}

/// Reads and decodes all points, checks each of them, and judges the file's digest. Tells after
/// each block how far it is, and stops when told so.
pub(crate) fn load(
    found: &FoundParams,
    at: &mut dyn FnMut(ProveStep) -> ControlFlow<()>,
) -> Result<Loaded, Groth16Error> {
    let mut reader = Reader {
        file: open_read(&found.path)?,
        path: &found.path,
        done: 0,
        total: found.bytes,
        digest: (found.expected != Expected::Any).then(Digest::default),
        at,
    };
    let layout = &found.layout;
    let key_bytes = usize::try_from(layout.key_bytes())
        .map_err(Groth16Error::upstream("hold the verifying key in memory"))?;
    let key = reader.read(key_bytes)?;
    let vk = VerifyingKey::<Bls12>::read(&key[..])
        .map_err(|error| reader.damaged(format!("verifying key: {error}")))?;
    let parameters = Parameters {
        vk,
        h: Arc::new(reader.list("H", layout.h, G1, decode_g1)?),
        l: Arc::new(reader.list("L", layout.l, G1, decode_g1)?),
        a: Arc::new(reader.list("A", layout.a, G1, decode_g1)?),
        b_g1: Arc::new(reader.list("B in G1", layout.b_g1, G1, decode_g1)?),
        b_g2: Arc::new(reader.list("B in G2", layout.b_g2, G2, decode_g2)?),
    };
    if let Some(digest) = &reader.digest {
        found.expected.judge(&digest.finish(), &found.path)?;
    }
    let verifying_key = prepare_verifying_key(&parameters.vk);
    Ok(Loaded { parameters, verifying_key })
}

/// Points per block: 6 MiB of G1.
const BLOCK: usize = 1 << 16;

struct Reader<'a> {
    file: File,
    path: &'a Path,
    done: u64,
    total: u64,
    digest: Option<Digest>,
    at: &'a mut dyn FnMut(ProveStep) -> ControlFlow<()>,
}

impl Reader<'_> {
    fn damaged(&self, reason: String) -> Groth16Error {
        Groth16Error::DamagedParameters { path: self.path.to_path_buf(), reason }
    }

    /// The next bytes of the file.
    fn read(&mut self, bytes: usize) -> Result<Vec<u8>, Groth16Error> {
        let mut block = vec![0; bytes];
        self.file.read_exact(&mut block).map_err(FileError::of("read", self.path))?;
        self.done += bytes as u64;
        if let Some(digest) = &mut self.digest {
            digest.update(&block);
        }
        Ok(block)
    }

    /// The next list, behind its length.
    fn list<P: Send>(
        &mut self,
        name: &str,
        list: List,
        point: u64,
        decode: fn(&[u8]) -> Option<P>,
    ) -> Result<Vec<P>, Groth16Error> {
        // The layout was read earlier: if the file has been replaced since, start no wild read.
        let length = self.read(4)?;
        let position = self.file.stream_position().map_err(FileError::of("seek in", self.path))?;
        if length != list.count.to_be_bytes() || position != list.offset {
            return Err(self.damaged(format!("list {name} changed while it was read")));
        }
        let point = point as usize;
        let count = list.count as usize;
        let mut points = Vec::with_capacity(count);
        while points.len() < count {
            let want = BLOCK.min(count - points.len());
            let block = self.read(want * point)?;
            let decoded: Option<Vec<P>> = block.par_chunks_exact(point).map(decode).collect();
            let Some(mut decoded) = decoded else {
                let good = block.chunks_exact(point).take_while(|bytes| decode(bytes).is_some());
                return Err(self.damaged(format!(
                    "point {} of list {name} is not a point of the curve",
                    points.len() + good.count()
                )));
            };
            points.append(&mut decoded);
            let step = ProveStep::Loading { done: self.done, total: self.total };
            if (self.at)(step).is_break() {
                return Err(Groth16Error::Cancelled);
            }
        }
        Ok(points)
    }
}

/// A point of the curve that is not the point at infinity. Whether it lies in the subgroup of
/// prime order is left to the digest, as the published software leaves it.
fn decode_g1(bytes: &[u8]) -> Option<G1Affine> {
    let point: Option<G1Affine> =
        G1Affine::from_uncompressed_unchecked(bytes.try_into().ok()?).into();
    point.filter(|point| *point != G1Affine::default())
}

/// As [`decode_g1`].
fn decode_g2(bytes: &[u8]) -> Option<G2Affine> {
    let point: Option<G2Affine> =
        G2Affine::from_uncompressed_unchecked(bytes.try_into().ok()?).into();
    point.filter(|point| *point != G2Affine::default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ParamDir, TestParams, Trust, tiny};
    use seal_types::SectorSize;

    fn load_from(dir: &Path, test_params: TestParams) -> Result<Loaded, Groth16Error> {
        let trust = Trust { test_params, ..Trust::default() };
        let found = ParamDir::new(dir).find(SectorSize::KIB_2, trust)?;
        load(&found, &mut |_| ControlFlow::Continue(()))
    }

    fn flip(path: &Path, at: usize) {
        let mut bytes = std::fs::read(path).expect("readable");
        bytes[at] ^= 1;
        std::fs::write(path, bytes).expect("writable");
    }

    fn failure(result: Result<Loaded, Groth16Error>) -> String {
        result.err().expect("damaged").to_string()
    }

    #[test]
    fn marked_parameters_are_loaded() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        tiny::write(dir.path());
        tiny::mark(dir.path());
        let loaded = load_from(dir.path(), TestParams::Allow).unwrap_or_else(|e| panic!("{e}"));
        let counts = [
            loaded.parameters.h.len(),
            loaded.parameters.l.len(),
            loaded.parameters.a.len(),
            loaded.parameters.b_g1.len(),
            loaded.parameters.b_g2.len(),
        ];
        assert_eq!(counts, [7, 5, 6, 4, 4]);
    }

    #[test]
    fn parameters_that_are_not_the_published_ones_are_refused_by_their_digest() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        tiny::write(dir.path());
        let error = failure(load_from(dir.path(), TestParams::Refuse));
        assert!(error.contains("434fb1338ecfaf0f59256f30dde4968f"), "{error}");
        assert!(load_from(dir.path(), TestParams::Allow).is_ok());
    }

    #[test]
    fn a_damaged_point_is_named() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = tiny::write(dir.path());
        tiny::mark(dir.path());
        // The third point of H, which begins behind the key (864 + 4 + 2 points) and a length.
        flip(&path, 864 + 4 + 2 * 96 + 4 + 2 * 96 + 50);
        let error = failure(load_from(dir.path(), TestParams::Allow));
        assert!(error.contains("point 2 of list H") && error.contains("params"), "{error}");
    }

    #[test]
    fn a_point_swapped_for_another_good_one_is_found_by_the_digest() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = tiny::write(dir.path());
        tiny::mark(dir.path());
        let mut bytes = std::fs::read(&path).expect("readable");
        let other: [u8; 96] =
            G1Affine::from(blstrs::G1Projective::hash_to_curve(b"other", b"seal-exec test", b""))
                .to_uncompressed();
        let at = 864 + 4 + 2 * 96 + 4;
        bytes[at..at + 96].copy_from_slice(&other);
        std::fs::write(&path, bytes).expect("writable");
        let error = failure(load_from(dir.path(), TestParams::Allow));
        assert!(error.contains("its digest is"), "{error}");
    }

    #[test]
    fn the_point_at_infinity_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = tiny::write(dir.path());
        let mut bytes = std::fs::read(&path).expect("readable");
        let at = bytes.len() - 192;
        bytes[at..].fill(0);
        bytes[at] = 0x40;
        std::fs::write(&path, bytes).expect("writable");
        let error = failure(load_from(dir.path(), TestParams::Allow));
        assert!(error.contains("point 3 of list B in G2"), "{error}");
    }

    #[test]
    fn a_file_replaced_after_it_was_found_is_noticed() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = tiny::write(dir.path());
        let trust = Trust { test_params: TestParams::Allow, ..Trust::default() };
        let found = ParamDir::new(dir.path()).find(SectorSize::KIB_2, trust).expect("whole");
        flip(&path, 864 + 4 + 2 * 96 + 3);
        let error = failure(load(&found, &mut |_| ControlFlow::Continue(())));
        assert!(error.contains("list H changed"), "{error}");
    }

    #[test]
    fn loading_can_be_stopped() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        tiny::write(dir.path());
        let trust = Trust { test_params: TestParams::Allow, ..Trust::default() };
        let found = ParamDir::new(dir.path()).find(SectorSize::KIB_2, trust).expect("whole");
        let result = load(&found, &mut |_| ControlFlow::Break(()));
        assert!(matches!(result, Err(Groth16Error::Cancelled)));
    }
}
