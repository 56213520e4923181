//! Vectors against the published arithmetic, one element at a time.

use blstrs::Scalar;
use ff::{Field, PrimeField};
use proptest::prelude::*;
use test_support::skip::skipped;

use super::{Fr8, LANES, Products, SmallProducts, load};
use crate::limbs::{Limbs, limbs_of_bytes};
use crate::{Ifma, LIMBS};

type Nodes = [[u8; 32]; LANES];

/// What is computed from two vectors `a` and `b`, a constant `c` and a small number `n`.
struct Results {
    /// `a`.
    same: Nodes,
    /// `a b / R`.
    product: Nodes,
    /// `a² / R`.
    square: Nodes,
    /// `(c + 2 a b + 32 c a) / R`.
    sum: Nodes,
    /// `12 n a / 2^52`.
    small: Nodes,
    /// A chain of products without making anything canonical.
    chain: Nodes,
}

#[target_feature(enable = "avx512f,avx512ifma")]
fn compute(a: &Nodes, b: &Nodes, c: &Limbs, n: u64) -> Results {
    let (a, b) = (load(a.each_ref()), load(b.each_ref()));
    assert!(a.are_canonical() && b.are_canonical());
    let zero = [0; LIMBS];
    let (a, b) = (a.plus(&zero), b.plus(&zero));
    let stored = |element: &Fr8| {
        let mut nodes = [[0; 32]; LANES];
        element.store(&mut nodes);
        nodes
    };
    let mut sums = [Products::from(c), Products::zero()];
    for _ in 0..16 {
        Products::add_to_each(&mut sums, &a, [c, c]);
    }
    let [mut sum, other] = sums;
    sum.add(&a, &b);
    sum.add(&b, &a);
    let doubled = a.plus(&b).plus(&a.plus(&b)).times(&Fr8::same(c));
    let mut small = SmallProducts::zero();
    for _ in 0..12 {
        small.add(&a, n);
    }
    let mut each = [SmallProducts::zero(); 2];
    for _ in 0..12 {
        SmallProducts::add_to_each(&mut each, &a, [n, n + 1]);
    }
    assert_eq!(stored(&each[0].reduce()), stored(&small.reduce()));
    let mut chain = doubled;
    for _ in 0..5 {
        chain = chain.square().times(&a).plus(&chain);
        chain = chain.times(&b);
    }
    Results {
        same: stored(&a),
        product: stored(&a.times(&b)),
        square: stored(&a.square()),
        sum: stored(&other.plus(&sum).reduce()),
        small: stored(&small.reduce()),
        chain: stored(&chain),
    }
}

fn scalar(node: &[u8; 32]) -> Scalar {
    Option::from(Scalar::from_repr(*node)).expect("canonical")
}

fn check(a: &Nodes, b: &Nodes, c: &[u8; 32], n: u64) {
    if Ifma::detect().is_none() {
        return skipped("seal-field: vectors", "this processor has no AVX-512 IFMA");
    }
    // SAFETY: `compute` needs avx512f and avx512ifma, which were just detected.
    let results = unsafe { compute(a, b, &limbs_of_bytes(c), n) };
    let power = |bits: u64| Scalar::from(2).pow_vartime([bits]);
    let unit: Scalar = Option::from(power(260).invert()).expect("not zero");
    let unshift: Scalar = Option::from(power(52).invert()).expect("not zero");
    let c = scalar(c);
    for lane in 0..LANES {
        let (x, y) = (scalar(&a[lane]), scalar(&b[lane]));
        assert_eq!(results.same[lane], a[lane]);
        assert_eq!(scalar(&results.product[lane]), x * y * unit);
        assert_eq!(scalar(&results.square[lane]), x * x * unit);
        let sum = c + (x * y).double() + c * x * Scalar::from(32);
        assert_eq!(scalar(&results.sum[lane]), sum * unit);
        let small = x * Scalar::from(n) * Scalar::from(12);
        assert_eq!(scalar(&results.small[lane]), small * unshift);
        let mut chain = (x + y).double() * c * unit;
        for _ in 0..5 {
            chain += chain * chain * unit * x * unit;
            chain = chain * y * unit;
        }
        assert_eq!(scalar(&results.chain[lane]), chain);
    }
}

/// Random elements, and those at the edges of the field and of limbs.
fn node() -> impl Strategy<Value = [u8; 32]> {
    prop_oneof![
        4 => any::<[u8; 32]>().prop_map(|mut bytes| {
            bytes[31] &= 0x3f;
            bytes
        }),
        1 => (0..3_u64).prop_map(|n| Scalar::from(n).to_repr()),
        1 => (1..3_u64).prop_map(|n| (-Scalar::from(n)).to_repr()),
        1 => (0..254_u64).prop_map(|bits| {
            (Scalar::from(2).pow_vartime([bits]) - Scalar::ONE).to_repr()
        }),
    ]
}

fn nodes() -> impl Strategy<Value = Nodes> {
    prop::collection::vec(node(), LANES)
        .prop_map(|nodes| nodes.try_into().expect("as many as lanes"))
}

proptest! {
    #[test]
    fn vectors_compute_what_the_published_arithmetic_does(
        a in nodes(), b in nodes(), c in node(), n in 0..1_u64 << 44
    ) {
        check(&a, &b, &c, n);
    }
}

#[test]
fn the_largest_elements_do_not_overflow() {
    let largest = (-Scalar::ONE).to_repr();
    check(&[largest; LANES], &[largest; LANES], &largest, (1 << 44) - 1);
}

#[target_feature(enable = "avx512f,avx512ifma")]
fn are_canonical(nodes: &Nodes) -> bool {
    load(nodes.each_ref()).are_canonical()
}

#[test]
fn numbers_from_the_modulus_on_are_told_in_every_lane() {
    if Ifma::detect().is_none() {
        return skipped("seal-field: canonical numbers", "this processor has no AVX-512 IFMA");
    }
    let minus_one = (-Scalar::ONE).to_repr();
    // SAFETY: `are_canonical` needs avx512f and avx512ifma, which were just detected.
    let told = |nodes: &Nodes| unsafe { are_canonical(nodes) };
    assert!(told(&[minus_one; LANES]));
    let mut modulus = minus_one;
    modulus[0] += 1;
    let mut far_above = minus_one;
    far_above[12] = 0xff;
    for bad in [modulus, far_above, [0xff; 32]] {
        for lane in 0..LANES {
            let mut nodes = [minus_one; LANES];
            nodes[lane] = bad;
            assert!(!told(&nodes), "lane {lane}");
        }
    }
    // A lower word above the modulus' does not matter when a higher one is below.
    let mut below = minus_one;
    below[31] -= 1;
    below[..16].fill(0xff);
    assert!(told(&[below; LANES]));
}
