//! Parameters in memory: decoded once, point by point, and kept.
//!
//! Points lie in the file as big-endian coordinates and are needed in Montgomery form, so a map of
//! the file cannot serve as it is; decoded they take as much memory as the file is long.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use bellperson::groth16::{PreparedVerifyingKey, VerifyingKey, prepare_verifying_key};
use blstrs::Bls12;
use rayon::prelude::*;
use seal_field::curve::{Curve, CurveKernel, Points};
use seal_field::ntt::bit_reversed;
use seal_host::ReadMap;

use crate::device::{Accelerator, DeviceKey, asking, lists};
use crate::digest::Digest;
use crate::groth::Key;
use crate::layout::{Lengths, List};
use crate::params::FoundParams;
use crate::stamps::Identity;
use crate::turns::Kept;
use crate::{Groth16Error, ProveStep};

/// Parameters ready for proving.
pub(crate) struct Loaded {
    pub(crate) lengths: Lengths,
    pub(crate) points: LoadedPoints,
    pub(crate) verifying_key: PreparedVerifyingKey<Bls12>,
    /// The room that is kept for them as long as anybody has them.
    pub(crate) _room: Option<Kept>,
}

/// Where the points are.
pub(crate) enum LoadedPoints {
    /// In memory of ours, checked one by one.
    Cpu(Box<Key>),
    /// In memory of a device's prover.
    Device(Box<DeviceKey>),
}

/// Reads and decodes all points, checks each of them, and judges the file's digest. Tells after
/// each block how far it is, and stops when told so.
pub(crate) fn load(
    found: &FoundParams,
    kernel: CurveKernel,
    at: &mut dyn FnMut(ProveStep) -> ControlFlow<()>,
) -> Result<Loaded, Groth16Error> {
    let mut reader = Reader::open(found, kernel, at)?;
    let vk = reader.verifying_key(found)?;
    let layout = &found.layout;
    let key = Key {
        vk,
        h: reader.list("H", layout.h)?,
        l: reader.list("L", layout.l)?,
        a: reader.list("A", layout.a)?,
        b_g1: reader.list("B in G1", layout.b_g1)?,
        b_g2: reader.list("B in G2", layout.b_g2)?,
    };
    if let (Some(expected), Some(digest)) = (&found.expected, &reader.digest) {
        // What was not read is no reason to call the file a wrong one.
        reader.map.check()?;
        found.judge(expected, &digest.finish())?;
    }
    reader.map.check()?;
    let verifying_key = prepare_verifying_key(&key.vk);
    let points = LoadedPoints::Cpu(Box::new(with_h_bit_reversed(key)));
    Ok(Loaded { lengths: layout.lengths(), points, verifying_key, _room: None })
}

/// Lets a device's prover read all points, and judges the file's digest meanwhile, unless it is
/// known. The points are not looked at one by one: with the digest there is nothing to find, and
/// in test parameters without one a bad point shows as a proof that does not verify. The reading has
/// the number of the device's faults that are known.
pub(crate) fn load_on(
    accelerator: &Arc<dyn Accelerator>,
    reading: u64,
    found: &FoundParams,
    kernel: CurveKernel,
    at: &mut dyn FnMut(ProveStep) -> ControlFlow<()>,
) -> Result<Loaded, Groth16Error> {
    let mut reader = Reader::open(found, kernel, at)?;
    let vk = reader.verifying_key(found)?;
    let lengths = found.layout.lengths();
    let load = || DeviceKey::load(accelerator.clone(), &found.path, lists(lengths), reading);
    let key = asking(load, &mut || reader.tell())?.map_err(|source| {
        let what = format!("read the parameters {}", found.path.display());
        Groth16Error::of_device(what, accelerator.name(), source)
    })?;
    if let Some(expected) = &found.expected {
        reader.rest()?;
        reader.map.check()?;
        if let Some(digest) = &reader.digest {
            found.judge(expected, &digest.finish())?;
        }
    }
    reader.map.check()?;
    // It opens the file by its name: it must have been the one that was looked at.
    if Identity::of(&found.path).ok() != Some(found.identity) {
        return Err(reader.damaged("it was replaced or changed while it was read".to_owned()));
    }
    let verifying_key = prepare_verifying_key(&vk);
    let points = LoadedPoints::Device(Box::new(key));
    Ok(Loaded { lengths, points, verifying_key, _room: None })
}

/// Puts the points of H where the transforms leave their scalars: at the bit reversal of their
/// index. The layout has checked that there are one less than a power of two; the one that is
/// missing would stay in its place.
fn with_h_bit_reversed(mut key: Key) -> Key {
    let bits = (key.h.len() + 1).trailing_zeros();
    for index in 0..key.h.len() {
        let other = bit_reversed(index, bits);
        if index < other {
            key.h.swap(index, other);
        }
    }
    key
}

/// Points that a thread decodes at a time.
const BLOCK: usize = 1 << 12;
/// Points between two looks at whether to stop: 25 MB of G1.
const STRIDE: usize = 1 << 18;
/// Bytes between two looks where there is only a digest to compute.
const DIGESTED: usize = 1 << 26;

struct Reader<'a> {
    map: ReadMap,
    path: &'a Path,
    kernel: CurveKernel,
    done: usize,
    digest: Option<Digest>,
    at: &'a mut dyn FnMut(ProveStep) -> ControlFlow<()>,
}

impl<'a> Reader<'a> {
    fn open(
        found: &'a FoundParams,
        kernel: CurveKernel,
        at: &'a mut dyn FnMut(ProveStep) -> ControlFlow<()>,
    ) -> Result<Self, Groth16Error> {
        let reader = Self {
            map: ReadMap::open(&found.path)?,
            path: &found.path,
            kernel,
            done: 0,
            digest: found.expected.is_some().then(Digest::default),
            at,
        };
        if reader.map.len() as u64 != found.bytes {
            return Err(reader.damaged(format!(
                "it had {} bytes when it was looked at and has {} now",
                found.bytes,
                reader.map.len()
            )));
        }
        Ok(reader)
    }

    /// The head of the file.
    fn verifying_key(&mut self, found: &FoundParams) -> Result<VerifyingKey<Bls12>, Groth16Error> {
        let bytes = usize::try_from(found.layout.key_bytes())
            .map_err(Groth16Error::upstream("hold the verifying key in memory"))?;
        let vk = VerifyingKey::<Bls12>::read(&self.map[..bytes])
            .map_err(|error| self.damaged(format!("verifying key: {error}")))?;
        self.digest(bytes);
        Ok(vk)
    }

    /// All that is left, for the digest alone.
    fn rest(&mut self) -> Result<(), Groth16Error> {
        while self.done < self.map.len() {
            self.digest(DIGESTED.min(self.map.len() - self.done));
            self.tell()?;
        }
        Ok(())
    }

    /// Tells how far it is, and hears whether to go on.
    fn tell(&mut self) -> Result<(), Groth16Error> {
        self.map.check()?;
        let step = ProveStep::Loading { done: self.done as u64, total: self.map.len() as u64 };
        if (self.at)(step).is_break() { Err(Groth16Error::Cancelled) } else { Ok(()) }
    }

    /// The file is damaged, unless it was changed while it was read.
    fn damaged(&self, reason: String) -> Groth16Error {
        if let Err(error) = self.map.check() {
            return error.into();
        }
        Groth16Error::DamagedParameters { path: self.path.to_path_buf(), reason }
    }

    /// Counts the next bytes as read.
    fn digest(&mut self, bytes: usize) {
        let end = self.done + bytes;
        if let Some(digest) = &mut self.digest {
            digest.update(&self.map[self.done..end]);
        }
        self.done = end;
    }

    /// The next list, behind its length.
    fn list<C: Curve>(&mut self, name: &str, list: List) -> Result<Points<C>, Groth16Error> {
        // The layout was read earlier: if the file has been replaced since, start no wild read.
        let length = list.count.to_be_bytes();
        let there = self.map.get(self.done..self.done + length.len());
        if there != Some(&length[..]) || (self.done + length.len()) as u64 != list.offset {
            return Err(self.damaged(format!("list {name} changed while it was read")));
        }
        self.digest(length.len());
        let count = list.count as usize;
        let mut points = Points::with_capacity(self.kernel, count);
        while points.len() < count {
            let want = STRIDE.min(count - points.len());
            let (start, end) = (self.done, self.done + want * C::BYTES);
            let (map, digest, kernel) = (&self.map, &mut self.digest, self.kernel);
            let bytes = &map[start..end];
            let (decoded, ()) = rayon::join(
                || decode(kernel, bytes),
                || {
                    if let Some(digest) = digest {
                        digest.update(bytes);
                    }
                },
            );
            match decoded {
                Ok(blocks) => blocks.into_iter().for_each(|block| points.append(block)),
                Err(index) => {
                    let index = points.len() + index;
                    return Err(self.damaged(format!(
                        "point {index} of list {name} is not a point of the curve"
                    )));
                }
            }
            self.done = end;
            self.tell()?;
        }
        Ok(points)
    }
}

/// Points of the curve that are not the point at infinity, or the place of the first that is
/// neither. Whether they lie in the subgroup of prime order is left to the digest, as the
/// published software leaves it.
fn decode<C: Curve>(kernel: CurveKernel, bytes: &[u8]) -> Result<Vec<Points<C>>, usize> {
    let blocks: Vec<Result<Points<C>, usize>> = bytes
        .par_chunks(BLOCK * C::BYTES)
        .enumerate()
        .map(|(block, bytes)| {
            let mut points = Points::with_capacity(kernel, BLOCK);
            let fault = match points.decode(bytes) {
                Ok(()) => (0..points.len()).find(|index| points.is_infinity(*index)),
                Err(fault) => Some(fault.index),
            };
            fault.map_or(Ok(points), |index| Err(block * BLOCK + index))
        })
        .collect();
    // In their order, so that the first fault is the one told.
    blocks.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DigestCheck, ParamDir, TestParams, Trust, tiny};
    use blstrs::G1Affine;
    use seal_types::SectorSize;

    fn load_from(dir: &Path, test_params: TestParams) -> Result<Loaded, Groth16Error> {
        let trust = Trust { test_params, ..Trust::default() };
        let found = ParamDir::new(dir).find(SectorSize::KIB_2, trust)?;
        load(&found, CurveKernel::detect(), &mut |_| ControlFlow::Continue(()))
    }

    fn found_in(dir: &Path, digests: DigestCheck) -> FoundParams {
        let trust = Trust { test_params: TestParams::Allow, digests };
        ParamDir::new(dir).find(SectorSize::KIB_2, trust).expect("whole")
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
        let LoadedPoints::Cpu(key) = &loaded.points else { panic!("no device was asked for") };
        let counts = [key.h.len(), key.l.len(), key.a.len(), key.b_g1.len(), key.b_g2.len()];
        let Lengths { inputs: 2, h, l, a, b_g1, b_g2 } = loaded.lengths else {
            panic!("{:?}", loaded.lengths)
        };
        assert_eq!(counts, [h, l, a, b_g1, b_g2]);
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
    fn a_digest_is_checked_once_and_again_when_the_file_changes() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = tiny::write(dir.path());
        tiny::mark(dir.path());
        let find = |digests| found_in(dir.path(), digests);
        let first = find(DigestCheck::Once);
        assert!(!first.digest_checked && first.expected.is_some());
        assert!(load_from(dir.path(), TestParams::Allow).is_ok());
        let second = find(DigestCheck::Once);
        assert!(second.digest_checked && second.expected.is_none());
        assert!(find(DigestCheck::Always).expected.is_some(), "always is always");

        // Of the same length and with points of the curve, but another file.
        let mut bytes = std::fs::read(&path).expect("readable");
        let (a, b) = (864 + 4 + 2 * 96 + 4, 864 + 4 + 2 * 96 + 4 + 96);
        let other: [u8; 96] =
            G1Affine::from(blstrs::G1Projective::hash_to_curve(b"other", b"seal-exec test", b""))
                .to_uncompressed();
        bytes[a..b].copy_from_slice(&other);
        std::fs::write(&path, bytes).expect("writable");
        assert!(!find(DigestCheck::Once).digest_checked);
        let error = failure(load_from(dir.path(), TestParams::Allow));
        assert!(error.contains("its digest is"), "{error}");
        assert!(!find(DigestCheck::Once).digest_checked, "a bad one is not remembered");
    }

    #[test]
    fn a_digest_can_be_checked_without_loading() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = tiny::write(dir.path());
        tiny::mark(dir.path());
        let find = |digests| found_in(dir.path(), digests);
        find(DigestCheck::Always).check_digest().expect("as it was marked");
        assert!(find(DigestCheck::Once).digest_checked, "it is remembered");
        flip(&path, 864 + 4 + 2 * 96 + 4 + 50);
        assert!(!find(DigestCheck::Once).digest_checked, "it has changed");
        let error = find(DigestCheck::Always).check_digest().expect_err("damaged").to_string();
        assert!(error.contains("its digest is"), "{error}");
        assert!(!find(DigestCheck::Once).digest_checked, "a bad one is not remembered");
    }

    #[test]
    fn parameters_that_are_not_the_published_ones_are_never_remembered() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        tiny::write(dir.path());
        for _ in 0..2 {
            // Neither marked nor published, but allowed.
            assert!(load_from(dir.path(), TestParams::Allow).is_ok());
            assert!(load_from(dir.path(), TestParams::Refuse).is_err());
        }
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
        let error =
            failure(load(&found, CurveKernel::detect(), &mut |_| ControlFlow::Continue(())));
        assert!(error.contains("list H changed"), "{error}");
    }

    #[test]
    fn a_file_that_is_cut_while_it_is_read_is_named_and_can_be_read_again() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = tiny::write(dir.path());
        tiny::mark(dir.path());
        let good = std::fs::read(&path).expect("readable");
        let found = found_in(dir.path(), DigestCheck::Always);
        // Its only page is gone, or the end of it, which can still be read.
        for left in [0, good.len() as u64 - 1] {
            let cut = |_| {
                let file = std::fs::File::options().write(true).open(&path).expect("writable");
                file.set_len(left).expect("writable");
                ControlFlow::Continue(())
            };
            let mut cut = cut;
            let error = load(&found, CurveKernel::detect(), &mut cut).err().expect("cut");
            assert_eq!(error.code(), seal_wire::ErrorCode::Io, "{error}");
            let told = format!(
                "parameters: {} was cut from {} to {left} bytes while it was used",
                path.display(),
                good.len()
            );
            assert!(error.to_string().starts_with(&told), "{error}");
            std::fs::write(&path, &good).expect("writable");
            assert!(load_from(dir.path(), TestParams::Allow).is_ok());
        }
    }

    #[test]
    fn loading_can_be_stopped() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        tiny::write(dir.path());
        let trust = Trust { test_params: TestParams::Allow, ..Trust::default() };
        let found = ParamDir::new(dir.path()).find(SectorSize::KIB_2, trust).expect("whole");
        let result = load(&found, CurveKernel::detect(), &mut |_| ControlFlow::Break(()));
        assert!(matches!(result, Err(Groth16Error::Cancelled)));
    }
}
