//! Tests of the way to a device and back.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bellperson::groth16::create_proof_batch;
use ff::Field;
use group::{Curve as _, Group};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use seal_field::curve::CurveKernel;
use seal_wire::{C2Task, ErrorCode};
use test_support::skip::skipped;

use super::*;
use crate::captured::captured;
use crate::load::{LoadedPoints, load_on};
use crate::small::{Small, randomness};
use crate::stand_in::{Act, Contract, Held as Hold, LABEL, Scripted, raw};
use crate::tiny;
use crate::witness::{Form, assign};
use crate::{CircuitFiles, PROOF_BYTES, ParamDir, ProveStep, Prover, Resources, TestParams, Trust};

#[test]
fn proofs_from_what_a_device_is_given_are_those_of_bellperson() {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    for challenges in [1, 2, 7] {
        let parameters = Small::parameters(challenges, &mut rng);
        let compiled = Small::compiled(challenges);
        let queries = Queries::of(&compiled);
        let key = DeviceKey::of(Box::new(Contract(parameters.clone())));
        for seed in 0..3 {
            let circuit = Small::filled(seed, challenges);
            let [r, s] = randomness(seed, &mut rng);
            let assignment = assign(&compiled, Form::Montgomery, |i| Ok(circuit.alone(i)), &|| {})
                .expect("filled");
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
pub(super) fn scripted(test: &str, device: Scripted, without: Without) -> Option<(Prover, C2Task)> {
    let dir = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/test-params"));
    let files = CircuitFiles::of(seal_types::SectorSize::KIB_2).expect("registered");
    if !dir.join(files.params()).exists() {
        let test = format!("seal-groth16 {test}");
        skipped(&test, "there are no test parameters in target/test-params");
        return None;
    }
    let trust = Trust { test_params: TestParams::Allow, ..Trust::default() };
    let resources = Resources { device: Device::of(device, without), ..Resources::default() };
    let task = serde_json::from_value(captured()).expect("captured");
    Some((Prover::new(ParamDir::new(dir), trust, resources), task))
}

#[test]
fn a_proof_that_a_device_fails_in_once_is_made_again() {
    let test = "a_proof_that_a_device_fails_in_once_is_made_again";
    let device = Scripted::new([Act::Fail]);
    let Some((prover, task)) = scripted(test, device, Without::Refuse) else { return };
    let proof = prover.prove(&task, &mut |_| ControlFlow::Continue(())).expect("the second time");
    assert_eq!(proof.len(), PROOF_BYTES);
}

#[test]
fn a_device_that_was_left_out_stays_out_in_the_next_process() {
    let known = |wrong, device: &str| {
        let told = "row 3, by /run/x/corruption.jsonl".to_owned();
        BTreeMap::from([(device.to_owned(), Before { wrong, told })])
    };
    let device = |without| Device::of(Scripted::new([]), without);
    let is_left_out = |device: &Device| device.held().expect("a device").standing.is_left_out();
    let twice = known(2, LABEL);
    let replaced = device(Without::Processor).remembering(&twice).expect("the processor proves");
    assert!(is_left_out(&replaced));
    let error = device(Without::Refuse).remembering(&twice).expect_err("nothing may prove");
    let Groth16Error::NoDevice(source) = &error else { panic!("{error}") };
    let text = source.to_string();
    assert!(text.contains(LABEL) && text.contains("corruption.jsonl"), "{text}");
    for others in [known(1, LABEL), known(2, "another GPU")] {
        let device = device(Without::Refuse).remembering(&others).expect("it is tried");
        assert!(!is_left_out(&device));
    }
    // What is on record and what comes are counted together.
    let suspect = device(Without::Refuse).remembering(&known(1, LABEL)).expect("it is tried");
    let standing = &suspect.held().expect("a device").standing;
    assert_eq!(standing.wrong(0, "partition 3"), Some(seal_cuda::Standing::LeftOut));
}

#[test]
fn a_device_that_fails_twice_is_named_with_the_partition() {
    let test = "a_device_that_fails_twice_is_named_with_the_partition";
    // Between them it computes wrongly, which is another matter.
    let device = Scripted::new([Act::Fail, Act::Other, Act::Fail]);
    let Some((prover, task)) = scripted(test, device, Without::Refuse) else { return };
    let error = prover.prove(&task, &mut |_| ControlFlow::Continue(())).expect_err("failed twice");
    assert_eq!(error.code(), ErrorCode::Unavailable, "{error}");
    let text = error.to_string();
    assert!(text.contains(LABEL) && text.contains("prove partition 0, twice"), "{text}");
}

#[test]
fn a_task_is_stopped_while_a_device_works() {
    let test = "a_task_is_stopped_while_a_device_works";
    let held = Arc::new(Hold::default());
    let device = Scripted::new([Act::Hold(held.clone())]);
    let Some((prover, task)) = scripted(test, device, Without::Refuse) else { return };
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

/// Reads nothing, but does something to the file when it is told to read it.
#[derive(Debug)]
struct Reader(fn(&Path));

struct NoKey;

impl AcceleratorKey for NoKey {
    fn prove(
        &self,
        _: &Circuit,
        _: &groth16::Assignment<'_>,
        _: [groth16::Scalar; 2],
    ) -> Result<RawProof, CudaError> {
        panic!("nothing was read")
    }
}

impl Accelerator for Reader {
    fn label(&self) -> String {
        LABEL.to_owned()
    }

    fn check_memory(&self, _: Lists) -> Result<(), CudaError> {
        Ok(())
    }

    fn load(&self, path: &Path, lists: Lists) -> Result<Box<dyn AcceleratorKey>, CudaError> {
        assert_eq!(lists, Lists { inputs: 2, h: 7, l: 5, a: 6, b: 4 }, "those of the file");
        (self.0)(path);
        if path.exists() {
            Ok(Box::new(NoKey))
        } else {
            Err(CudaError::Groth16 { what: "read the parameters", said: "open failed".to_owned() })
        }
    }
}

/// Small parameters loaded on a device, with `before` done to them before they are looked for.
fn load_small(
    test_params: TestParams,
    mark: bool,
    before: fn(&Path),
    meanwhile: fn(&Path),
) -> Result<u64, Groth16Error> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = tiny::write(dir.path());
    if mark {
        tiny::mark(dir.path());
    }
    before(&path);
    let trust = Trust { test_params, ..Trust::default() };
    let found = ParamDir::new(dir.path()).find(seal_types::SectorSize::KIB_2, trust)?;
    let mut last = 0;
    let mut at = |step| {
        if let ProveStep::Loading { done, total } = step {
            assert!(done <= total);
            last = done;
        }
        ControlFlow::Continue(())
    };
    let reader: Arc<dyn Accelerator> = Arc::new(Reader(meanwhile));
    let loaded = load_on(&reader, 0, &found, CurveKernel::detect(), &mut at)?;
    assert!(matches!(loaded.points, LoadedPoints::Device(_)), "the points are the device's");
    Ok(last)
}

#[test]
fn parameters_on_a_device_are_judged_by_their_digest() {
    use TestParams::{Allow, Refuse};
    let nothing = |_: &Path| ();
    let flip = |path: &Path| {
        let mut bytes = std::fs::read(path).expect("readable");
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        std::fs::write(path, bytes).expect("writable");
    };
    let read = load_small(Allow, true, nothing, nothing).expect("as they were made");
    assert!(read > 1000, "all of it was read for the digest: {read}");
    let told = |loaded: Result<u64, Groth16Error>| loaded.expect_err("refused").to_string();
    let text = told(load_small(Allow, true, flip, nothing));
    assert!(text.contains("its digest is"), "{text}");
    let text = told(load_small(Refuse, false, nothing, nothing));
    assert!(text.contains("not the published one"), "{text}");
}

#[test]
fn parameters_that_change_while_a_device_reads_them_are_refused() {
    let nothing = |_: &Path| ();
    let replace = |path: &Path| {
        let other = path.with_extension("other");
        std::fs::copy(path, &other).expect("writable");
        std::fs::rename(&other, path).expect("in its place");
    };
    let error = load_small(TestParams::Allow, true, nothing, replace).expect_err("replaced");
    assert!(error.to_string().contains("replaced or changed"), "{error}");
    let remove = |path: &Path| std::fs::remove_file(path).expect("there");
    let error = load_small(TestParams::Allow, true, nothing, remove).expect_err("gone");
    assert_eq!(error.code(), ErrorCode::Unavailable);
    let text = error.to_string();
    assert!(text.contains(LABEL) && text.contains("read the parameters"), "{text}");
}

#[test]
fn threads_of_the_devices_prover_are_counted_as_it_counts_them() {
    for (allowed, online, threads) in [
        ("0-7", 8, 8),
        ("0-1", 96, 2),
        ("48-89", 96, 42),
        ("3", 8, 1),
        // Where some are switched off, numbers go beyond the count.
        ("2,6-9", 4, 1),
        ("8-15", 8, 8),
    ] {
        let allowed: CpuSet = allowed.parse().expect("a list");
        assert_eq!(pool_threads(&allowed, online), threads, "{allowed} of {online}");
    }
    let error =
        Device::cuda(None, &"0".parse().expect("a list"), Without::Refuse, &BTreeMap::new());
    let error = error.expect_err("one cpu").to_string();
    assert!(error.contains("1 thread") && error.contains("at least 2"), "{error}");
}

#[test]
fn memory_that_is_short_is_waited_for_and_then_told() {
    let device = Scripted::default();
    let short = device.short.clone();
    let accelerator: Arc<dyn Accelerator> = Arc::new(device);
    let lists = Lists { inputs: 1, h: 1, l: 1, a: 1, b: 1 };
    let key = DeviceKey::load(accelerator, Path::new("/none"), lists, 0).expect("it reads nothing");
    let mut asked = 0;
    let mut go_on = || {
        asked += 1;
        Ok::<(), ()>(())
    };
    short.store(2, Ordering::SeqCst);
    let waited = key.wait_for_memory(Duration::from_secs(60), &mut go_on).expect("not stopped");
    assert!(waited.is_ok(), "another process has given it back");
    assert_eq!(asked, 2);
    short.store(usize::MAX, Ordering::SeqCst);
    let waited =
        key.wait_for_memory(Duration::ZERO, &mut || Ok::<(), ()>(())).expect("not stopped");
    let text = waited.expect_err("still short").to_string();
    assert!(text.contains("9.00 GiB") && text.contains("3.00 GiB"), "{text}");
    let stopped = key.wait_for_memory(Duration::from_secs(60), &mut || Err("enough"));
    assert!(matches!(stopped, Err("enough")));
}
