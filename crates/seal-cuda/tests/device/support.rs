//! Devices to test on, and data.

use std::path::Path;

use seal_cuda::{Device, Node, OpenOptions};
use seal_poseidon::{Fr, element_to_bytes};
use tempfile::TempDir;
use test_support::cuda::cuda_stand_in;
use test_support::skip::skipped;

/// A device and the directory that its stand-in lies in.
pub(crate) struct Tested {
    pub(crate) device: Device,
    _dir: TempDir,
}

/// Whether a real device was asked for.
pub(crate) fn real() -> bool {
    std::env::var("SEAL_TEST_CUDA").is_ok_and(|value| value == "device")
}

/// A device to test results on.
pub(crate) fn device(test: &str) -> Option<Tested> {
    let dir = TempDir::new().expect("a directory");
    if real() {
        let device = Device::open(OpenOptions::default()).expect("SEAL_TEST_CUDA=device: a device");
        return Some(Tested { device, _dir: dir });
    }
    let library = cuda_stand_in(test, dir.path(), "")?;
    Some(Tested { device: open(&library).expect("the stand-in works"), _dir: dir })
}

/// The library of a stand-in with this script, for tests that do not work on a real device.
pub(crate) fn scripted(test: &str, script: &str) -> Option<(std::path::PathBuf, TempDir)> {
    if real() {
        skipped(test, "a real device does not fail by a script");
        return None;
    }
    let dir = TempDir::new().expect("a directory");
    Some((cuda_stand_in(test, dir.path(), script)?, dir))
}

/// Opens a stand-in.
pub(crate) fn open(library: &Path) -> Result<Device, seal_cuda::CudaError> {
    let image = Some(&b"the stand-in has its kernels within"[..]);
    Device::open(OpenOptions { driver: Some(library), image, visible: Some("0") })
}

/// Numbers of a reproducible kind, without an end.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn word(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn bytes(&mut self) -> Node {
        let mut bytes = [0; 32];
        for chunk in bytes.as_chunks_mut::<8>().0 {
            *chunk = self.word().to_le_bytes();
        }
        bytes
    }

    /// A node below the modulus; now and then one of the ends.
    pub(crate) fn node(&mut self) -> Node {
        match self.word() % 16 {
            0 => [0; 32],
            1 => element_to_bytes(&-Fr::from(1)),
            2 => element_to_bytes(&Fr::from(1)),
            _ => loop {
                let mut bytes = self.bytes();
                bytes[31] &= 0x7f;
                if seal_poseidon::element_from_bytes(&bytes).is_some() {
                    return bytes;
                }
            },
        }
    }

    pub(crate) fn nodes(&mut self, count: usize) -> Vec<Node> {
        (0..count).map(|_| self.node()).collect()
    }
}
