//! Tests of the way to a device and back.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bellperson::groth16::{Parameters, create_proof_batch, generate_random_parameters};
use ff::Field;
use group::{Curve as _, Group};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use seal_wire::{C2Task, ErrorCode};
use test_support::skip::skipped;

use super::*;
use crate::captured::captured;
use crate::r1cs::Compiled;
use crate::small::Small;
use crate::stand_in::{Act, Contract, Held, NAME, Scripted, raw};
use crate::witness::{Form, assign};
use crate::{CircuitFiles, PROOF_BYTES, ParamDir, Prover, Resources, TestParams, Trust};

#[test]
fn proofs_from_what_a_device_is_given_are_those_of_bellperson() {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    for challenges in [1, 2, 7] {
        let parameters: Parameters<Bls12> =
            generate_random_parameters(Small::blank(challenges), &mut rng).expect("small");
        let compiled = Compiled::record(challenges, Small::blank(1), Small::blank(2))
            .expect("a circuit of equal challenges");
        let queries = Queries::of(&compiled);
        let key = DeviceKey::new(Box::new(Contract(parameters.clone())));
        for seed in 0..3 {
            let circuit = Small::filled(seed, challenges);
            let [r, s] = match seed {
                0 => [Scalar::ZERO; 2],
                _ => [0; 2].map(|_| Scalar::random(&mut rng)),
            };
            let assignment =
                assign(&compiled, Form::Montgomery, |i| Ok(circuit.alone(i))).expect("filled");
            let rows = compiled.constraints();
            let ours = key
                .prove(&queries, rows, &assignment, [r, s], &mut || Ok::<(), ()>(()))
                .expect("nobody stops it")
                .expect("the stand-in proves");
            let theirs = create_proof_batch(vec![circuit], &parameters, vec![r], vec![s])
                .expect("small")
                .remove(0);
            assert_eq!(ours, Some(theirs), "{challenges} challenges, seed {seed}");
        }
    }
}

#[test]
fn inputs_and_other_variables_are_told_apart() {
    // Three inputs and 70 others; B lacks the second input.
    let queries = Queries::with(vec![0, 1, 2, 3, 66, 67, 72], vec![0, 2, 67, 72], 3, 70, 7);
    let circuit = circuit(&queries, 100);
    assert_eq!(circuit.rows, 100);
    assert_eq!(circuit.a_aux.words(), [1 | 1 << 63, 1 | 1 << 5]);
    assert_eq!((circuit.a_aux.len(), circuit.a_aux.ones()), (70, 4));
    assert_eq!(circuit.b_inputs.words(), [0b101]);
    assert_eq!((circuit.b_inputs.len(), circuit.b_inputs.ones()), (3, 2));
    assert_eq!(circuit.b_aux.words(), [0, 1 | 1 << 5]);
}

#[test]
fn only_points_of_the_groups_are_a_proof() {
    let good = Proof {
        a: blstrs::G1Projective::generator().to_affine(),
        b: blstrs::G2Projective::generator().to_affine(),
        c: (-blstrs::G1Projective::generator()).to_affine(),
    };
    assert_eq!(points(&raw(&good)), Some(good.clone()), "the way there and back");
    let spoil = |change: fn(&mut RawProof)| {
        let mut raw = raw(&good);
        change(&mut raw);
        points(&raw)
    };
    assert_eq!(spoil(|raw| raw.a[0][0] ^= 1), None, "not on the curve");
    assert_eq!(spoil(|raw| raw.b[1][1][5] ^= 1), None, "not on the curve");
    assert_eq!(spoil(|raw| raw.c = [[u64::MAX; 6]; 2]), None, "no elements of the field");
    // On the curve but of another order: x = 4 has y^2 = 68, a square.
    let outside = Fp::from(4);
    let square = outside.square() * outside + Fp::from(4);
    let root = Option::<Fp>::from(square.sqrt()).expect("a point of the curve");
    let point = G1Affine::from_raw_unchecked(outside, root, false);
    assert!(bool::from(point.is_on_curve()) && !bool::from(point.is_torsion_free()));
    let mut other = raw(&good);
    other.a = [point.as_ref().x.l, point.as_ref().y.l];
    assert_eq!(points(&other), None, "not in the group");
}

#[test]
fn work_is_waited_for_even_if_nobody_wants_it_any_more() {
    let start = Instant::now();
    let long = Duration::from_millis(350);
    let work = || {
        thread::sleep(long);
        7
    };
    let mut asked = 0;
    let stopped = asking(work, &mut || {
        asked += 1;
        Err("enough")
    });
    assert_eq!((stopped, asked), (Err("enough"), 1), "asked once, as it said no");
    assert!(start.elapsed() >= long, "what it borrows is still there");
    let mut asked = 0;
    let done = asking(work, &mut || {
        asked += 1;
        Ok::<(), ()>(())
    });
    assert_eq!(done, Ok(7));
    assert!(asked >= 1, "asked while it worked");
    assert_eq!(asking(|| 5, &mut || Err("never asked")), Ok(5));
}

/// A prover on a scripted device, and a task for it; nothing where there are no parameters.
fn scripted(test: &str, script: impl IntoIterator<Item = Act>) -> Option<(Prover, C2Task)> {
    let dir = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/test-params"));
    let files = CircuitFiles::of(seal_types::SectorSize::KIB_2).expect("registered");
    if !dir.join(files.params()).exists() {
        let test = format!("seal-groth16 {test}");
        skipped(&test, "there are no test parameters in target/test-params");
        return None;
    }
    let trust = Trust { test_params: TestParams::Allow, ..Trust::default() };
    let resources = Resources { device: Device::of(Scripted::new(script)), ..Resources::default() };
    let task = serde_json::from_value(captured()).expect("captured");
    Some((Prover::new(ParamDir::new(dir), trust, resources), task))
}

#[test]
fn a_proof_that_a_device_fails_in_once_is_made_again() {
    let test = "a_proof_that_a_device_fails_in_once_is_made_again";
    let Some((prover, task)) = scripted(test, [Act::Fail]) else { return };
    let proof = prover.prove(&task, &mut |_| ControlFlow::Continue(())).expect("the second time");
    assert_eq!(proof.len(), PROOF_BYTES);
}

#[test]
fn a_device_that_fails_twice_is_named_with_the_partition() {
    let test = "a_device_that_fails_twice_is_named_with_the_partition";
    for (script, code, named) in [
        ([Act::Fail, Act::Fail], ErrorCode::Unavailable, "prove partition 0, twice"),
        ([Act::Nothing, Act::Nothing], ErrorCode::SelfCheck, "the proof of partition 0"),
        ([Act::Fail, Act::Other], ErrorCode::SelfCheck, "does not verify"),
    ] {
        let Some((prover, task)) = scripted(test, script) else { return };
        let error =
            prover.prove(&task, &mut |_| ControlFlow::Continue(())).expect_err("failed twice");
        assert_eq!(error.code(), code, "{error}");
        let text = error.to_string();
        assert!(text.contains(NAME) && text.contains(named), "{text}");
    }
}

#[test]
fn a_task_is_stopped_while_a_device_works() {
    let test = "a_task_is_stopped_while_a_device_works";
    let held = Arc::new(Held::default());
    let Some((prover, task)) = scripted(test, [Act::Hold(held.clone())]) else { return };
    let mut told = 0;
    let ended = prover.prove(&task, &mut |_| {
        if !held.works.load(Ordering::SeqCst) {
            return ControlFlow::Continue(());
        }
        told += 1;
        if told < 3 {
            return ControlFlow::Continue(());
        }
        held.let_go.store(true, Ordering::SeqCst);
        ControlFlow::Break(())
    });
    assert!(matches!(ended, Err(Groth16Error::Cancelled)), "{ended:?}");
    assert_eq!(told, 3, "told again and again while the device works");
}
