//! Parameter files of a circuit that is no circuit, for tests of everything but proving: whole,
//! with real points, and small.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bellperson::groth16::{Parameters, VerifyingKey};
use blstrs::{Bls12, G1Affine, G2Affine};
use seal_types::SectorSize;

use crate::{CircuitFiles, MarkedFile, Marker, digest_file};

/// Names the files for 2 KiB sectors.
pub(crate) fn files() -> CircuitFiles {
    CircuitFiles::of(SectorSize::KIB_2).expect("a registered size")
}

/// Writes `.params` and `.vk` for 2 KiB sectors into `dir`, without a marker.
pub(crate) fn write(dir: &Path) -> PathBuf {
    let (g1, g2) = (point_g1(), point_g2());
    let parameters = Parameters::<Bls12> {
        vk: VerifyingKey {
            alpha_g1: g1,
            beta_g1: g1,
            beta_g2: g2,
            gamma_g2: g2,
            delta_g1: g1,
            delta_g2: g2,
            ic: vec![g1; 2],
        },
        h: Arc::new(vec![g1; 7]),
        l: Arc::new(vec![g1; 5]),
        a: Arc::new(vec![g1; 6]),
        b_g1: Arc::new(vec![g1; 4]),
        b_g2: Arc::new(vec![g2; 4]),
    };
    let mut bytes = Vec::new();
    parameters.vk.write(&mut bytes).expect("memory cannot fail");
    std::fs::write(dir.join(files().vk()), &bytes).expect("writable");
    bytes.clear();
    parameters.write(&mut bytes).expect("memory cannot fail");
    let path = dir.join(files().params());
    std::fs::write(&path, &bytes).expect("writable");
    path
}

/// Marks both files as they are now.
pub(crate) fn mark(dir: &Path) {
    let mut marker = Marker::default();
    for name in [files().params(), files().vk()] {
        let path = dir.join(&name);
        let size = std::fs::metadata(&path).expect("there").len();
        let blake2b_16 = digest_file(&path).expect("readable");
        marker.files.insert(name, MarkedFile { size, blake2b_16 });
    }
    marker.write(dir).expect("writable");
}

fn point_g1() -> G1Affine {
    blstrs::G1Projective::hash_to_curve(b"tiny", b"seal-exec test", b"").into()
}

fn point_g2() -> G2Affine {
    blstrs::G2Projective::hash_to_curve(b"tiny", b"seal-exec test", b"").into()
}
