//! The hash of a fixed number of elements.

use std::sync::LazyLock;

use ff::Field;

use crate::batch::MAX_ARITY;
use crate::permutation::Permutation;
use crate::{Fr, NotCanonical, element_to_bytes, elements_from_bytes};

/// Poseidon for preimages of one length, its arity.
///
/// The constants are derived once per process, on first use, in about 10 ms.
pub struct Poseidon(Width);

enum Width {
    Three(Box<Permutation<3>>),
    Nine(Box<Permutation<9>>),
    Twelve(Box<Permutation<12>>),
}

impl std::fmt::Debug for Poseidon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Poseidon(arity {})", self.arity())
    }
}

impl Poseidon {
    /// For `comm_r`, columns of 2 layers, and rows that join 2 subtrees.
    pub fn arity2() -> &'static Self {
        static INSTANCE: LazyLock<Poseidon> =
            LazyLock::new(|| Poseidon(Width::Three(Box::new(Permutation::derive()))));
        &INSTANCE
    }

    /// For rows of base trees.
    pub fn arity8() -> &'static Self {
        static INSTANCE: LazyLock<Poseidon> =
            LazyLock::new(|| Poseidon(Width::Nine(Box::new(Permutation::derive()))));
        &INSTANCE
    }

    /// For columns of 11 layers.
    pub fn arity11() -> &'static Self {
        static INSTANCE: LazyLock<Poseidon> =
            LazyLock::new(|| Poseidon(Width::Twelve(Box::new(Permutation::derive()))));
        &INSTANCE
    }

    /// The instance for preimages of `arity` elements, if there is one.
    pub fn of_arity(arity: u32) -> Option<&'static Self> {
        match arity {
            2 => Some(Self::arity2()),
            8 => Some(Self::arity8()),
            11 => Some(Self::arity11()),
            _ => None,
        }
    }

    /// How many elements a preimage has.
    pub fn arity(&self) -> usize {
        match self.0 {
            Width::Three(_) => 2,
            Width::Nine(_) => 8,
            Width::Twelve(_) => 11,
        }
    }

    /// The hash of `preimage`.
    ///
    /// # Panics
    /// When it has not exactly [`Poseidon::arity`] elements.
    pub fn hash(&self, preimage: &[Fr]) -> Fr {
        match &self.0 {
            Width::Three(permutation) => permutation.output(tagged(preimage)),
            Width::Nine(permutation) => permutation.output(tagged(preimage)),
            Width::Twelve(permutation) => permutation.output(tagged(preimage)),
        }
    }

    /// The hash of elements as they are in files.
    ///
    /// # Panics
    /// When there are not exactly [`Poseidon::arity`] nodes.
    pub fn hash_nodes(&self, nodes: &[[u8; 32]]) -> Result<[u8; 32], NotCanonical> {
        let mut elements = [Fr::ZERO; MAX_ARITY];
        let elements = &mut elements[..self.arity()];
        elements_from_bytes(nodes, elements)?;
        Ok(element_to_bytes(&self.hash(elements)))
    }
}

/// The state that a preimage starts as: the domain tag, then the preimage.
///
/// The tag is that of full Merkle-tree rows, `2^arity - 1` (a bit for each child that is there),
/// which Filecoin uses for columns and `comm_r` as well.
fn tagged<const WIDTH: usize>(preimage: &[Fr]) -> [Fr; WIDTH] {
    assert_eq!(preimage.len(), WIDTH - 1, "a preimage has arity elements");
    let mut state = [Fr::from((1 << (WIDTH - 1)) - 1); WIDTH];
    state[1..].copy_from_slice(preimage);
    state
}

#[cfg(test)]
mod tests {
    use super::*;
    use generic_array::typenum::{U2, U8, U11};
    use neptune::Arity;
    use neptune::hash_type::HashType;
    use neptune::poseidon::PoseidonConstants;
    use proptest::prelude::*;

    fn equals_the_published_crate<A: Arity<Fr>>(ours: &Poseidon) {
        let constants = PoseidonConstants::<Fr, A>::new();
        assert!(matches!(constants.hash_type, HashType::MerkleTree));
        let rounds = crate::RoundNumbers::for_width(ours.arity() + 1);
        assert_eq!(
            (constants.full_rounds, constants.partial_rounds),
            (rounds.full, rounds.partial)
        );

        let published =
            |preimage: &[Fr]| neptune::Poseidon::new_with_preimage(preimage, &constants).hash();
        let preimages = prop::collection::vec(any::<[u64; 4]>(), ours.arity());
        proptest::test_runner::TestRunner::default()
            .run(&preimages, |words| {
                let preimage: Vec<Fr> = words
                    .into_iter()
                    .map(|[a, b, c, d]| Option::from(Fr::from_u64s_le(&[a, b, c, d >> 2])).unwrap())
                    .collect();
                prop_assert_eq!(ours.hash(&preimage), published(&preimage));
                Ok(())
            })
            .expect("both crates agree");
        for corner in [Fr::ZERO, Fr::ONE, -Fr::ONE] {
            let preimage = vec![corner; ours.arity()];
            assert_eq!(ours.hash(&preimage), published(&preimage));
        }
    }

    #[test]
    fn arity_2_equals_the_published_crate() {
        equals_the_published_crate::<U2>(Poseidon::arity2());
    }

    #[test]
    fn arity_8_equals_the_published_crate() {
        equals_the_published_crate::<U8>(Poseidon::arity8());
    }

    #[test]
    fn arity_11_equals_the_published_crate() {
        equals_the_published_crate::<U11>(Poseidon::arity11());
    }

    #[test]
    fn instances_are_found_by_arity() {
        for arity in [2, 8, 11] {
            let found = Poseidon::of_arity(arity).expect("an arity of Filecoin");
            assert_eq!(found.arity(), arity as usize);
        }
        assert!(Poseidon::of_arity(4).is_none());
    }

    #[test]
    fn nodes_hash_like_their_elements() {
        let nodes: [[u8; 32]; 8] = std::array::from_fn(|i| [i as u8; 32]);
        let elements = nodes.map(|node| crate::element_from_bytes(&node).expect("below 2^254"));
        let hash = Poseidon::arity8().hash_nodes(&nodes).expect("canonical");
        assert_eq!(hash, element_to_bytes(&Poseidon::arity8().hash(&elements)));
    }

    #[test]
    fn a_node_that_is_no_element_is_named() {
        let mut nodes = [[0; 32]; 11];
        nodes[7] = [0xff; 32];
        assert_eq!(Poseidon::arity11().hash_nodes(&nodes), Err(NotCanonical { index: 7 }));
    }
}
