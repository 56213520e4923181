//! Many hashes at a time: the rows of a tree and the columns of a sector.

#[cfg(target_arch = "x86_64")]
use seal_field::fr8::LANES;

use crate::kernel::Isa;
use crate::{Kernel, NotCanonical, Poseidon, element_from_bytes, portable};
#[cfg(target_arch = "x86_64")]
use crate::{fma, ifma};

/// The longest preimage.
pub(crate) const MAX_ARITY: usize = 11;

/// A label that is no field element: read as a little-endian number it is not below the modulus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the label of node {node} in layer {layer} is not below the field's modulus")]
pub struct BadLabel {
    /// Index into the given layers, from 0.
    pub layer: usize,
    /// Index into the given nodes, from 0.
    pub node: usize,
}

/// Poseidon of one arity on one kernel, for many hashes.
///
/// It uses the calling thread alone, takes any number of hashes and allocates nothing. Throughput
/// is best with some dozens of hashes a call or more.
#[derive(Clone, Copy, Debug)]
pub struct Hasher {
    poseidon: &'static Poseidon,
    kernel: Kernel,
}

impl Hasher {
    /// The hashes of `poseidon` computed by `kernel`.
    pub fn new(poseidon: &'static Poseidon, kernel: Kernel) -> Self {
        Self { poseidon, kernel }
    }

    /// How many elements a preimage has.
    pub fn arity(self) -> usize {
        self.poseidon.arity()
    }

    /// The kernel that computes.
    pub fn kernel(self) -> Kernel {
        self.kernel
    }

    /// How many multiply-add instructions on vectors a hash takes, where the kernel consists of
    /// them: what a core's rate of them, `seal_field::rate`, is to be divided by for the most
    /// hashes it can do.
    pub fn multiply_adds(self) -> Option<f64> {
        match self.kernel.0 {
            Isa::Portable => None,
            #[cfg(target_arch = "x86_64")]
            Isa::Fma(_) => None,
            #[cfg(target_arch = "x86_64")]
            Isa::Ifma(_) => Some(ifma::multiply_adds(self.poseidon) as f64 / LANES as f64),
        }
    }

    /// How many vector operations a hash takes on the kernel in double precision: what a core's
    /// rate of them, `seal_field::rate::vector_operations`, is to be divided by for the most hashes
    /// that its vector units allow.
    pub fn vector_operations(self) -> Option<f64> {
        match self.kernel.0 {
            Isa::Portable => None,
            #[cfg(target_arch = "x86_64")]
            Isa::Fma(_) => Some(fma::operations(self.poseidon) as f64 / fma::LANES as f64),
            #[cfg(target_arch = "x86_64")]
            Isa::Ifma(_) => None,
        }
    }

    /// The row of a tree above `children`: `parents[i]` is the hash of the `arity` children from
    /// `i * arity` on.
    ///
    /// On an error, which names the first child that is no element, `parents` is of no use.
    ///
    /// # Panics
    /// When there are not exactly `arity` children for each parent.
    pub fn hash_rows(
        self,
        children: &[[u8; 32]],
        parents: &mut [[u8; 32]],
    ) -> Result<(), NotCanonical> {
        let arity = self.arity();
        assert_eq!(children.len(), parents.len() * arity, "arity children for each parent");
        match self.kernel.0 {
            Isa::Portable => {
                let node = |i: usize, element: usize| &children[i * arity + element];
                portable::hash(self.poseidon, node, parents)
                    .map_err(|(i, element)| NotCanonical { index: i * arity + element })
            }
            #[cfg(target_arch = "x86_64")]
            vectors => {
                let node = |i: usize, element: usize| &children[i * arity + element];
                if in_vectors(vectors, self.poseidon, node, parents) {
                    return Ok(());
                }
                let index = children.iter().position(|child| element_from_bytes(child).is_none());
                Err(NotCanonical { index: index.expect("a child is not canonical") })
            }
        }
    }

    /// The hashes of columns: `hashes[node]` is the hash of `layers[0][node]`, `layers[1][node]`
    /// and so on.
    ///
    /// On an error, which names the first node with a label that is no element and its first
    /// such layer, `hashes` is of no use.
    ///
    /// # Panics
    /// When there are not exactly `arity` layers, or not all have as many nodes as `hashes`.
    pub fn hash_columns(
        self,
        layers: &[&[[u8; 32]]],
        hashes: &mut [[u8; 32]],
    ) -> Result<(), BadLabel> {
        assert_eq!(layers.len(), self.arity(), "arity layers");
        for layer in layers {
            assert_eq!(layer.len(), hashes.len(), "a label of each node in each layer");
        }
        match self.kernel.0 {
            Isa::Portable => {
                let label = |node: usize, layer: usize| &layers[layer][node];
                portable::hash(self.poseidon, label, hashes)
                    .map_err(|(node, layer)| BadLabel { layer, node })
            }
            #[cfg(target_arch = "x86_64")]
            vectors => {
                let label = |node: usize, layer: usize| &layers[layer][node];
                if in_vectors(vectors, self.poseidon, label, hashes) {
                    return Ok(());
                }
                let labels = (0..hashes.len())
                    .flat_map(|node| (0..layers.len()).map(move |layer| BadLabel { layer, node }));
                let bad = |label: &BadLabel| {
                    element_from_bytes(&layers[label.layer][label.node]).is_none()
                };
                Err({ labels }.find(bad).expect("a label is not canonical"))
            }
        }
    }
}

/// Hashes by a kernel of vectors. Tells whether all nodes are canonical.
#[cfg(target_arch = "x86_64")]
fn in_vectors<'a>(
    isa: Isa,
    poseidon: &Poseidon,
    node: impl Fn(usize, usize) -> &'a [u8; 32],
    hashes: &mut [[u8; 32]],
) -> bool {
    match isa {
        Isa::Portable => unreachable!("it has no vectors"),
        Isa::Fma(proof) => fma::hash(proof, poseidon, node, hashes),
        Isa::Ifma(proof) => ifma::hash(proof, poseidon, node, hashes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Fr, element_to_bytes};
    use ff::Field;
    use generic_array::typenum::{U2, U8, U11};
    use neptune::Arity;
    use neptune::poseidon::PoseidonConstants;
    use proptest::prelude::*;
    use test_support::skip::{skipped, slow_tests};

    /// The number of hashes that the fastest kernel computes at once, and more.
    const LENGTHS: [usize; 13] = [0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 65];

    /// Random elements among those at the edges.
    fn element() -> impl Strategy<Value = [u8; 32]> {
        let minus = |n: u64| element_to_bytes(&-Fr::from(n));
        prop_oneof![
            6 => any::<[u8; 32]>().prop_map(|mut bytes| {
                bytes[31] &= 0x3f;
                bytes
            }),
            1 => (0..4_u64).prop_map(|n| element_to_bytes(&Fr::from(n))),
            1 => (1..4_u64).prop_map(minus),
            // Every part of the number full, and every one empty, wherever the parts begin.
            1 => (0..255_u32).prop_map(|bits| element_to_bytes(&Fr::from(2).pow([u64::from(bits)]))),
            1 => (0..255_u32).prop_map(|bits| {
                element_to_bytes(&(Fr::from(2).pow([u64::from(bits)]) - Fr::ONE))
            }),
        ]
    }

    fn published<A: Arity<Fr>>(
        nodes: &[[u8; 32]],
        constants: &PoseidonConstants<Fr, A>,
    ) -> [u8; 32] {
        let elements: Vec<Fr> =
            nodes.iter().map(|node| element_from_bytes(node).expect("canonical")).collect();
        element_to_bytes(&neptune::Poseidon::new_with_preimage(&elements, constants).hash())
    }

    fn equals_the_published_crate<A: Arity<Fr>>(poseidon: &'static Poseidon) {
        let arity = poseidon.arity();
        let constants = PoseidonConstants::<Fr, A>::new();
        let batches = prop::sample::select(LENGTHS.as_slice())
            .prop_flat_map(|length| prop::collection::vec(element(), length * arity));
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(60));
        runner
            .run(&batches, |children| {
                let expected: Vec<_> =
                    children.chunks(arity).map(|nodes| published(nodes, &constants)).collect();
                let layers: Vec<Vec<_>> = (0..arity)
                    .map(|layer| children.iter().skip(layer).step_by(arity).copied().collect())
                    .collect();
                let layers: Vec<&[_]> = layers.iter().map(Vec::as_slice).collect();
                for kernel in Kernel::available() {
                    let hasher = Hasher::new(poseidon, kernel);
                    let mut hashes = vec![[0; 32]; expected.len()];
                    hasher.hash_rows(&children, &mut hashes).expect("canonical");
                    prop_assert_eq!(&hashes, &expected, "rows, {}", kernel.name());
                    hashes.fill([0; 32]);
                    hasher.hash_columns(&layers, &mut hashes).expect("canonical");
                    prop_assert_eq!(&hashes, &expected, "columns, {}", kernel.name());
                }
                Ok(())
            })
            .expect("both crates agree");
    }

    #[test]
    fn batches_of_arity_2_equal_the_published_crate_on_every_kernel() {
        equals_the_published_crate::<U2>(Poseidon::arity2());
    }

    #[test]
    fn batches_of_arity_8_equal_the_published_crate_on_every_kernel() {
        equals_the_published_crate::<U8>(Poseidon::arity8());
    }

    #[test]
    fn batches_of_arity_11_equal_the_published_crate_on_every_kernel() {
        equals_the_published_crate::<U11>(Poseidon::arity11());
    }

    /// Each hash is an element of the next preimages.
    #[test]
    fn chains_of_hashes_are_the_same_on_all_kernels() {
        let hashes = if slow_tests() { 1_000_000 } else { 3_000 };
        if hashes < 1_000_000 {
            skipped("10^6 hashes on all kernels", "minutes (--slow): 3000 were done");
        }
        const TOGETHER: usize = 100;
        for poseidon in [Poseidon::arity2(), Poseidon::arity8(), Poseidon::arity11()] {
            let arity = poseidon.arity();
            let mut children: Vec<_> =
                (0..TOGETHER * arity).map(|i| element_to_bytes(&Fr::from(i as u64))).collect();
            for round in 0..hashes / TOGETHER {
                let mut expected = vec![[0; 32]; TOGETHER];
                let portable = Hasher::new(poseidon, Kernel::portable());
                portable.hash_rows(&children, &mut expected).expect("canonical");
                for kernel in Kernel::available().skip(1) {
                    let mut parents = vec![[0; 32]; TOGETHER];
                    let hasher = Hasher::new(poseidon, kernel);
                    hasher.hash_rows(&children, &mut parents).expect("canonical");
                    assert_eq!(parents, expected, "{}, round {round}", kernel.name());
                }
                children.rotate_left(TOGETHER);
                children[..TOGETHER].copy_from_slice(&expected);
            }
        }
    }

    /// The modulus, the number above it and the largest of all.
    fn not_canonical() -> [[u8; 32]; 3] {
        let mut modulus = element_to_bytes(&-Fr::ONE);
        modulus[0] += 1;
        let mut above = modulus;
        above[0] += 1;
        [modulus, above, [0xff; 32]]
    }

    #[test]
    fn children_that_are_no_elements_are_named_by_every_kernel() {
        for kernel in Kernel::available() {
            for poseidon in [Poseidon::arity2(), Poseidon::arity8(), Poseidon::arity11()] {
                let arity = poseidon.arity();
                for length in LENGTHS.into_iter().filter(|&length| length > 0) {
                    for bad in not_canonical() {
                        for index in [0, arity - 1, length * arity / 2, length * arity - 1] {
                            let mut children = vec![[1; 32]; length * arity];
                            children[index..].fill(bad);
                            let error = Hasher::new(poseidon, kernel)
                                .hash_rows(&children, &mut vec![[0; 32]; length]);
                            assert_eq!(error, Err(NotCanonical { index }), "{}", kernel.name());
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn labels_that_are_no_elements_are_named_by_every_kernel() {
        for kernel in Kernel::available() {
            for poseidon in [Poseidon::arity2(), Poseidon::arity11()] {
                for nodes in LENGTHS.into_iter().filter(|&length| length > 0) {
                    for (layer, node) in
                        [(0, 0), (1, 0), (poseidon.arity() - 1, nodes - 1), (0, nodes / 2)]
                    {
                        let mut layers = vec![vec![[1; 32]; nodes]; poseidon.arity()];
                        layers[layer][node..].fill(not_canonical()[0]);
                        // A later node is bad in an earlier layer: the node decides.
                        layers[0][node + 1..].fill(not_canonical()[2]);
                        let layers: Vec<&[_]> = layers.iter().map(Vec::as_slice).collect();
                        let error = Hasher::new(poseidon, kernel)
                            .hash_columns(&layers, &mut vec![[0; 32]; nodes])
                            .unwrap_err();
                        assert_eq!(error, BadLabel { layer, node }, "{}", kernel.name());
                    }
                }
            }
        }
        let error = BadLabel { layer: 3, node: 70 }.to_string();
        assert_eq!(error, "the label of node 70 in layer 3 is not below the field's modulus");
    }

    #[test]
    #[should_panic(expected = "arity children for each parent")]
    fn a_row_that_does_not_fit_is_refused() {
        let hasher = Hasher::new(Poseidon::arity8(), Kernel::detect());
        let _ = hasher.hash_rows(&[[0; 32]; 15], &mut [[0; 32]; 2]);
    }

    #[test]
    #[should_panic(expected = "a label of each node in each layer")]
    fn layers_of_different_lengths_are_refused() {
        let hasher = Hasher::new(Poseidon::arity2(), Kernel::detect());
        let _ = hasher.hash_columns(&[&[[0; 32]; 2], &[[0; 32]; 3]], &mut [[0; 32]; 2]);
    }
}
