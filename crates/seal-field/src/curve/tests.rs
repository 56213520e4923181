//! Sums by every kernel against blst, one addition at a time.

use blst::{blst_p1_affine, blst_p2_affine};
use blstrs::{G1Affine, G1Projective, G2Affine, G2Projective};
use proptest::prelude::*;
use rayon::prelude::*;

use super::{Curve, CurveKernel, G1, G2, PointRef, PointSums, Points};

/// The judge: blstrs.
trait Plain: Curve {
    type Group: Copy + std::ops::Neg<Output = Self::Group> + std::iter::Sum;
    fn hash(seed: u32) -> Self::Group;
    fn infinity() -> Self::Group;
    fn affine(point: Self::Group) -> Self::Affine;
    fn same(affine: &Self::Affine, point: Self::Group) -> bool;
    fn file(point: Self::Group) -> Vec<u8>;
}

impl Plain for G1 {
    type Group = G1Projective;
    fn hash(seed: u32) -> G1Projective {
        G1Projective::hash_to_curve(&seed.to_le_bytes(), b"seal-field", b"")
    }
    fn infinity() -> G1Projective {
        std::iter::empty::<G1Projective>().sum()
    }
    fn affine(point: G1Projective) -> blst_p1_affine {
        *G1Affine::from(point).as_ref()
    }
    fn same(affine: &blst_p1_affine, point: G1Projective) -> bool {
        affine == G1Affine::from(point).as_ref()
    }
    fn file(point: G1Projective) -> Vec<u8> {
        G1Affine::from(point).to_uncompressed().to_vec()
    }
}

impl Plain for G2 {
    type Group = G2Projective;
    fn hash(seed: u32) -> G2Projective {
        G2Projective::hash_to_curve(&seed.to_le_bytes(), b"seal-field", b"")
    }
    fn infinity() -> G2Projective {
        std::iter::empty::<G2Projective>().sum()
    }
    fn affine(point: G2Projective) -> blst_p2_affine {
        *G2Affine::from(point).as_ref()
    }
    fn same(affine: &blst_p2_affine, point: G2Projective) -> bool {
        affine == G2Affine::from(point).as_ref()
    }
    fn file(point: G2Projective) -> Vec<u8> {
        G2Affine::from(point).to_uncompressed().to_vec()
    }
}

/// Each group is a list of (index, negate) into `points`.
fn check<C: Plain>(points: &[C::Group], groups: &[Vec<(u32, bool)>]) {
    let affine: Vec<_> = points.iter().map(|point| C::affine(*point)).collect();
    let mut refs = Vec::new();
    let mut ends = Vec::new();
    for group in groups {
        refs.extend(group.iter().map(|(index, minus)| {
            if *minus { PointRef::minus(*index) } else { PointRef::plus(*index) }
        }));
        ends.push(refs.len());
    }
    for kernel in CurveKernel::available() {
        let ours = Points::<C>::of_affine(kernel, &affine);
        // Whatever stood there is replaced.
        let mut out = Points::of_affine(kernel, &vec![C::affine(C::hash(77)); groups.len()]);
        PointSums::new(kernel).sum_groups(&ours, &refs, &ends, &mut out);
        for (index, group) in groups.iter().enumerate() {
            let expected = group
                .iter()
                .map(|(index, minus)| {
                    let point = points[*index as usize];
                    if *minus { -point } else { point }
                })
                .sum();
            let sum = out.get(index);
            assert!(C::same(&sum, expected), "{} group {index} by {}", C::NAME, kernel.name());
        }
    }
}

fn few<C: Plain>(count: u32) -> Vec<C::Group> {
    (0..count).map(C::hash).collect()
}

fn special_cases<C: Plain>() {
    let [p, q] = [C::hash(0), C::hash(1)];
    let points = [p, q, C::infinity(), -p, [p, q].into_iter().sum()];
    let plus = |list: &[u32]| list.iter().map(|index| (*index, false)).collect::<Vec<_>>();
    check::<C>(
        &points,
        &[
            plus(&[]),
            plus(&[0]),
            vec![(0, true)],
            plus(&[2]),
            vec![(2, true)],
            plus(&[0, 0]),
            plus(&[0, 3]),
            vec![(0, false), (0, true)],
            plus(&[0, 2]),
            plus(&[2, 1]),
            plus(&[2, 2]),
            plus(&[0, 1, 4]),
            vec![(0, false), (1, false), (4, true)],
            plus(&[0, 0, 0, 0, 0, 0, 0]),
            vec![(0, true), (0, true), (0, true), (3, false)],
            plus(&[0, 3, 1, 2, 0, 3, 1]),
        ],
    );
}

#[test]
fn equal_opposite_and_infinite_points_add_up_in_g1() {
    special_cases::<G1>();
}

#[test]
fn equal_opposite_and_infinite_points_add_up_in_g2() {
    special_cases::<G2>();
}

fn long_groups<C: Plain>() {
    let points = few::<C>(40);
    let many =
        |count: u32, step: u32| (0..count).map(|i| (i * step % 40, i % 3 == 0)).collect::<Vec<_>>();
    check::<C>(
        &points,
        &[many(9, 1), many(8191, 3), many(8192, 7), many(8193, 11), many(20_000, 1), many(3, 1)],
    );
    // All the same: every halving is doublings only.
    check::<C>(&points, &[vec![(5, false); 9000]]);
}

#[test]
fn groups_longer_than_a_block_add_up_in_g1() {
    long_groups::<G1>();
}

#[test]
fn groups_longer_than_a_block_add_up_in_g2() {
    long_groups::<G2>();
}

#[test]
fn values_near_the_modulus_survive_many_additions() {
    // Chains of sums: every result is used again, so that bounds that do not hold would show.
    for kernel in CurveKernel::available() {
        let base: Vec<_> = few::<G1>(64);
        let affine: Vec<_> = base.iter().map(|point| G1::affine(*point)).collect();
        let mut ours = Points::<G1>::of_affine(kernel, &affine);
        let mut plain = base;
        let mut sums = PointSums::new(kernel);
        for round in 0..40_usize {
            let pair = |i: usize| [i, (i * 5 + round + 1) % 64];
            let refs: Vec<_> = (0..64)
                .flat_map(|i| {
                    let [a, b] = pair(i);
                    [PointRef::plus(a as u32), PointRef::minus(b as u32)]
                })
                .collect();
            let ends: Vec<_> = (1..=64).map(|i| 2 * i).collect();
            let mut next = Points::infinity(kernel, 64);
            sums.sum_groups(&ours, &refs, &ends, &mut next);
            ours = next;
            plain = (0..64)
                .map(|i| {
                    let [a, b] = pair(i);
                    plain[a] - plain[b]
                })
                .collect();
        }
        for (index, point) in plain.into_iter().enumerate() {
            assert!(G1::same(&ours.get(index), point), "{} {index}", kernel.name());
        }
    }
}

#[test]
fn parts_of_a_list_can_be_summed_into_on_different_threads() {
    let base: Vec<_> = few::<G1>(10);
    let affine: Vec<_> = base.iter().map(|point| G1::affine(*point)).collect();
    for kernel in CurveKernel::available() {
        let ours = Points::<G1>::of_affine(kernel, &affine);
        let mut out = ours.clone();
        // The last part is shorter; each place becomes its point plus the first.
        out.par_chunks_mut(3).enumerate().for_each(|(part, out)| {
            let own = 3 * part as u32..10.min(3 * part as u32 + 3);
            let refs: Vec<_> =
                own.clone().flat_map(|i| [PointRef::plus(0), PointRef::plus(i)]).collect();
            let ends: Vec<_> = (1..=own.len()).map(|i| 2 * i).collect();
            PointSums::new(kernel).sum_groups(&ours, &refs, &ends, out);
        });
        for (index, point) in base.iter().enumerate() {
            let expected = [base[0], *point].into_iter().sum();
            assert!(G1::same(&out.get(index), expected), "{index} by {}", kernel.name());
        }
    }
}

fn decodes<C: Plain>() {
    let points = few::<C>(20);
    let bytes: Vec<u8> = points.iter().flat_map(|point| C::file(*point)).collect();
    for kernel in CurveKernel::available() {
        let mut ours = Points::<C>::infinity(kernel, 0);
        ours.decode(&bytes).expect("good points");
        for (index, point) in points.iter().enumerate() {
            assert!(C::same(&ours.get(index), *point), "{index} by {}", kernel.name());
        }
        for (at, bit) in [(0, 0x80), (0, 0x20), (47, 1), (95, 1), (C::BYTES - 1, 2)] {
            let mut bad = bytes.clone();
            bad[13 * C::BYTES + at] ^= bit;
            let fault = Points::<C>::infinity(kernel, 0).decode(&bad).expect_err("bad");
            assert_eq!(fault.index, 13, "byte {at} by {}", kernel.name());
        }
        // A coordinate that is not below the modulus.
        let mut bad = bytes.clone();
        bad[7 * C::BYTES..7 * C::BYTES + 48].fill(0x1f);
        assert_eq!(Points::<C>::infinity(kernel, 0).decode(&bad).expect_err("bad").index, 7);
        // Infinity is a point.
        let mut infinite = bytes.clone();
        infinite[2 * C::BYTES..3 * C::BYTES].copy_from_slice(&C::file(C::infinity()));
        let mut ours = Points::<C>::infinity(kernel, 0);
        ours.decode(&infinite).expect("infinity is a point");
        assert!(ours.is_infinity(2) && !ours.is_infinity(1));
    }
}

#[test]
fn points_of_g1_are_decoded_and_bad_ones_named() {
    decodes::<G1>();
}

#[test]
fn points_of_g2_are_decoded_and_bad_ones_named() {
    decodes::<G2>();
}

#[test]
fn kernels_are_found_by_name() {
    assert_eq!(CurveKernel::by_name("portable"), Ok(CurveKernel::portable()));
    let error = CurveKernel::by_name("quantum").expect_err("there is none");
    assert!(error.to_string().contains("quantum") && error.to_string().contains("portable"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn random_groups_add_up(groups in prop::collection::vec(
        prop::collection::vec((0_u32..24, any::<bool>()), 0..60), 0..40)) {
        check::<G1>(&few::<G1>(24), &groups);
        check::<G2>(&few::<G2>(24), &groups);
    }
}
