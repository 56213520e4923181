//! How many points the Groth16 parameters of a sector size have.
//!
//! They follow from the circuit of a partition, and are those of the files that the network uses.

use crate::SectorSize;

/// Where the published software keeps parameter files unless `FIL_PROOFS_PARAMETER_CACHE` names
/// another directory.
pub const DEFAULT_PARAM_DIR: &str = "/var/tmp/filecoin-proof-parameters";

/// Lengths of the lists in a parameter file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParameterLengths {
    /// Public inputs, with the constant one.
    pub inputs: usize,
    /// Points of H: one less than the length of the domain.
    pub h: usize,
    /// Points of L: variables that are no inputs.
    pub l: usize,
    /// Points of A.
    pub a: usize,
    /// Points of B in G1, and as many in G2.
    pub b: usize,
}

impl ParameterLengths {
    /// Those of the interactive proofs of replication of a sector size; `None` for a size without
    /// registered proofs.
    pub fn of(size: SectorSize) -> Option<Self> {
        let of =
            |inputs, bits: u32, l, a, b| Some(Self { inputs, h: (1_usize << bits) - 1, l, a, b });
        match size {
            SectorSize::KIB_2 => of(40, 22, 2_685_673, 2_674_948, 685_522),
            SectorSize::MIB_8 => of(40, 22, 3_842_449, 3_815_036, 1_011_290),
            SectorSize::MIB_512 => of(40, 23, 4_420_837, 4_385_080, 1_174_174),
            SectorSize::GIB_32 => of(328, 27, 130_169_893, 129_753_620, 33_112_282),
            SectorSize::GIB_64 => of(328, 27, 131_076_643, 130_637_870, 33_386_944),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The circuits themselves are looked at by the prover's tests.
    #[test]
    fn lengths_are_those_of_a_circuit_of_each_registered_size() {
        for size in SectorSize::REGISTERED {
            let lengths = ParameterLengths::of(size).expect("registered");
            let ParameterLengths { inputs, h, l, a, b } = lengths;
            assert!((h + 1).is_power_of_two() && h > l && h / 2 < l + inputs, "{size}");
            assert!(a <= inputs + l && b < a, "{size}");
        }
        let test_shape = SectorSize::new(4 << 10).expect("possible");
        assert_eq!(ParameterLengths::of(test_shape), None);
    }
}
