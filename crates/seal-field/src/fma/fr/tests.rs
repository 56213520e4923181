//! The scalar field in double precision against the arithmetic of blst.

use blstrs::Scalar;
use ff::Field;
use proptest::prelude::*;
use test_support::skip::{skipped, slow_tests};

use super::super::check_rounding;
use super::*;

/// The element that limbs stand for.
fn scalar(limbs: &Balanced) -> Scalar {
    limbs.iter().rev().fold(Scalar::ZERO, |sum, limb| {
        let size = Scalar::from(limb.abs() as u64);
        sum * Scalar::from(1 << LIMB_BITS) + if *limb < 0.0 { -size } else { size }
    })
}

/// The inverse of a power of two.
fn inverse(bits: u32) -> Scalar {
    Scalar::from(2).pow_vartime([u64::from(bits)]).invert().expect("not zero")
}

/// A limb up to a limit, often one of the corners.
fn limb(limit: f64) -> impl Strategy<Value = f64> {
    let limit = limit as i64;
    prop_oneof![
        3 => (-limit..=limit).prop_map(|limb| limb as f64),
        1 => prop::sample::select(vec![-limit, 1 - limit, -1, 0, 1, limit - 1, limit])
            .prop_map(|limb| limb as f64),
        // Halves of low parts, where rounding has to decide.
        1 => prop::sample::select(vec![-(1_i64 << 47), 1 << 47, 1 << 25, -(1 << 25)])
            .prop_map(|limb| limb as f64),
    ]
}

fn number(top: f64) -> impl Strategy<Value = Balanced> {
    let limbs = [LIMB_LIMIT, LIMB_LIMIT, LIMB_LIMIT, LIMB_LIMIT, top];
    prop_oneof![
        8 => limbs.map(limb),
        // All limbs extreme, of every sign.
        1 => any::<[bool; LIMBS]>().prop_map(move |signs| {
            std::array::from_fn(|i| if signs[i] { limbs[i] } else { -limbs[i] })
        }),
        1 => prop::sample::select(vec![0_i64, 1, 2, -1, -2]).prop_map(|n| {
            let size = Scalar::from(n.unsigned_abs());
            balanced(&if n < 0 { -size } else { size })
        }),
    ]
}

fn element() -> impl Strategy<Value = Fr16> {
    prop::collection::vec(number(TOP_LIMIT), LANES).prop_map(|numbers| {
        let mut element = Fr16::ZERO;
        for (lane, number) in numbers.iter().enumerate() {
            element.set(lane, number);
        }
        element
    })
}

fn run<S: Strategy>(strategy: S, test: impl Fn(Fma, S::Value)) {
    let Some(proof) = Fma::detect() else {
        return skipped("the scalar field in double precision", "this processor has no FMA");
    };
    check_rounding();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(300));
    runner
        .run(&strategy, |values| {
            test(proof, values);
            Ok(())
        })
        .expect("the arithmetic of blst");
}

#[test]
fn squares_and_products_are_those_of_blst() {
    run((element(), element()), |proof, (a, b)| {
        let (mut square, mut sum) = (Fr16::ZERO, Sum::EMPTY);
        square.set_square(proof, &a, &mut sum);
        let mut in_place = a;
        in_place.square(proof, &mut sum);
        assert_eq!(in_place, square);
        let mut product = a;
        product.times_plus(proof, &b, &Start::new(0, 1), &mut sum);
        assert!(square.is_reduced(1.0) && product.is_reduced(1.0));
        for lane in 0..LANES {
            let [x, y] = [&a, &b].map(|element| scalar(&element.get(lane)));
            let divisor = inverse(REDUCTION_BITS);
            assert_eq!(scalar(&square.get(lane)), x.square() * divisor);
            assert_eq!(scalar(&product.get(lane)), x * y * divisor);
        }
    });
}

#[test]
fn sums_of_products_are_those_of_blst() {
    let elements = prop::collection::vec((element(), element(), number(CONSTANT_TOP_LIMIT)), 1..13);
    run((elements, element(), element(), number(CONSTANT_TOP_LIMIT)), |proof, values| {
        let (terms, a, b, key) = values;
        let count = terms.len() as u32;
        // Constants may be multiplied by sums of two elements.
        let elements: Vec<_> = terms.iter().map(|(one, other, _)| one.plus(other)).collect();
        let constants: Vec<_> = terms.iter().map(|(.., constant)| *constant).collect();
        let (mut sum, mut other, mut result) = (Sum::EMPTY, Sum::EMPTY, Fr16::ZERO);
        sum.set_products(proof, &Start::with(&key, count, 1), &elements, &constants);
        sum.add_product(proof, &a, &b);
        other.set_products(proof, &Start::of_addend(count), &elements, &constants);
        sum.add(&other);
        sum.reduce(proof, &mut result);
        for lane in 0..LANES {
            let of_constants: Scalar = elements
                .iter()
                .zip(&constants)
                .map(|(element, constant)| scalar(&element.get(lane)) * scalar(constant))
                .sum();
            let [x, y] = [&a, &b].map(|element| scalar(&element.get(lane)));
            let expected = of_constants.double() + x * y + scalar(&key);
            assert_eq!(scalar(&result.get(lane)), expected * inverse(REDUCTION_BITS));
        }
    });
}

#[test]
fn small_rows_are_sums_of_products() {
    let largest = (1_u64 << 44) - 1;
    let small = prop_oneof![0..=largest, Just(largest), 0..256_u64];
    let width = prop::sample::select(vec![3_usize, 9, 12]);
    let rows = width.prop_flat_map(move |width| {
        let numbers = prop::collection::vec(small.clone(), 2 * width - 1);
        (prop::collection::vec(element(), width), numbers)
    });
    run(rows, |proof, (elements, numbers)| {
        let as_doubles: Vec<_> = numbers.iter().map(|number| *number as f64).collect();
        let mut rows = elements.clone();
        Fr16::small_rows(proof, &elements, &as_doubles, &mut rows);
        for (i, row) in rows.iter().enumerate() {
            assert!(row.is_reduced(1.0));
            for lane in 0..LANES {
                let expected: Scalar = elements
                    .iter()
                    .zip(&numbers[i..])
                    .map(|(element, number)| scalar(&element.get(lane)) * Scalar::from(*number))
                    .sum();
                assert_eq!(scalar(&row.get(lane)), expected * inverse(LIMB_BITS));
            }
        }
    });
}

#[test]
fn numbers_are_loaded_and_stored_as_they_are() {
    let modulus = MODULUS_WORDS;
    let near = |less: u64| minus(&modulus, &[less, 0, 0, 0]).0;
    let words = prop_oneof![
        4 => any::<[u64; 4]>().prop_map(|[a, b, c, d]| [a, b, c, d >> 2]),
        1 => (1..4_u64).prop_map(near),
        1 => (0..4_u64).prop_map(|n| [n, 0, 0, 0]),
        1 => (0..255_u32).prop_map(|bit| {
            let mut words = [0; 4];
            words[bit as usize / 64] = 1 << (bit % 64);
            if minus(&words, &MODULUS_WORDS).1 { words } else { [0; 4] }
        }),
    ];
    run((prop::collection::vec(words.clone(), LANES), words), |_, (numbers, key)| {
        let bytes = |words: &Words| {
            let mut bytes = [0; 32];
            for (place, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
                *place = word.to_le_bytes();
            }
            bytes
        };
        let element = |words: &Words| Scalar::from_repr(bytes(words)).expect("below the modulus");
        let nodes: Vec<_> = numbers.iter().map(bytes).collect();
        let nodes: [_; LANES] = std::array::from_fn(|lane| &nodes[lane]);
        let loaded = Fr16::load_plus(&nodes, &key).expect("below the modulus");
        assert!(loaded.is_reduced(1.0));
        let mut stored = [[0; 32]; LANES];
        loaded.store(&mut stored);
        for (stored, number) in stored.iter().zip(&numbers) {
            assert_eq!(*stored, (element(number) + element(&key)).to_repr());
            let constant = balanced(&element(number));
            assert!(is_within(&constant, CONSTANT_TOP_LIMIT, 1.0));
            assert_eq!(canonical_words(&constant), *number);
        }
        let mut bad = nodes;
        let modulus = bytes(&MODULUS_WORDS);
        bad[LANES - 1] = &modulus;
        assert_eq!(Fr16::load_plus(&bad, &key), None);
    });
}

/// Whatever a reduced element is, also one beyond the modulus, it is stored below it.
#[test]
fn numbers_beyond_the_modulus_are_stored_below_it() {
    run(element(), |proof, a| {
        // A product with one, so that limbs are those of a result.
        let mut result = a;
        let one = Fr16::same(&[1.0, 0.0, 0.0, 0.0, 0.0]);
        result.times_plus(proof, &one, &Start::new(0, 1), &mut { Sum::EMPTY });
        let mut stored = [[0; 32]; LANES];
        result.store(&mut stored);
        for (lane, stored) in stored.iter().enumerate() {
            assert_eq!(*stored, scalar(&result.get(lane)).to_repr());
        }
    });
    let number = |words: &Words, minus_one: bool| {
        let mut limbs = balanced_of_words(words);
        if minus_one {
            limbs = limbs.map(|limb| -limb);
        }
        canonical_words(&limbs)
    };
    assert_eq!(number(&MODULUS_WORDS, false), [0; 4]);
    assert_eq!(number(&MODULUS_WORDS, true), [0; 4]);
    assert_eq!(number(&[1, 0, 0, 0], true), minus(&MODULUS_WORDS, &[1, 0, 0, 0]).0);
}

/// Each product is a factor of the next one.
#[test]
fn chains_of_products_are_those_of_blst() {
    let products: usize = if slow_tests() { 100_000_000 } else { 100_000 };
    if products < 100_000_000 {
        skipped("10^8 products in double precision", "minutes (--slow): 10^5 were done");
    }
    let Some(proof) = Fma::detect() else {
        return skipped("10^8 products in double precision", "this processor has no FMA");
    };
    let mut seed = 1_u64;
    let mut limb = |limit: f64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((seed >> 11) as f64 / 2_f64.powi(52) - 1.0) * limit
    };
    let mut element = Fr16::ZERO;
    for limbs in &mut element.0[..LIMBS - 1] {
        limbs.fill_with(|| limb(LIMB_LIMIT).trunc());
    }
    element.0[LIMBS - 1].fill_with(|| limb(TOP_LIMIT).trunc());
    let mut expected: [_; LANES] = std::array::from_fn(|lane| scalar(&element.get(lane)));
    let (factor, divisor) = (element, inverse(REDUCTION_BITS));
    let factors = expected.map(|factor| factor * divisor);
    let mut sum = Sum::EMPTY;
    for round in 0..products / LANES {
        element.times_plus(proof, &factor, &Start::new(0, 1), &mut sum);
        for (lane, (expected, factor)) in expected.iter_mut().zip(&factors).enumerate() {
            *expected *= factor;
            assert_eq!(scalar(&element.get(lane)), *expected, "round {round}, lane {lane}");
        }
    }
}
