//! What executing PTX is for: faults as they come into device code are found, and what is right
//! beside them is not blamed. That constraints are told from exact ones is `asm_check`'s.

use std::path::Path;
use std::process::Command;

use ptx_run::{Deed, Grid, LaunchError, Memory, Module};
use test_support::skip::skipped;

const SEEDS: std::ops::Range<u64> = 0..24;
/// What nvcc makes of the controls. The variable names it; `cargo xtask ptx-test` sets it.
fn ptx(test: &str) -> Option<String> {
    let Some(nvcc) = std::env::var_os("SEAL_TEST_NVCC") else {
        skipped(test, "SEAL_TEST_NVCC names no nvcc (`cargo xtask ptx-test` does)");
        return None;
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let ptx = dir.path().join("controls.ptx");
    let output = Command::new(nvcc)
        .args(["-std=c++17", "-O3", "--ptx", "-arch=compute_80", "-o"])
        .arg(&ptx)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/controls/controls.cu"))
        .output()
        .expect("nvcc starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(std::fs::read_to_string(&ptx).expect("nvcc has written it"))
}

/// Runs a kernel of the controls over `count` words that count up from 0.
fn run(ptx: &str, kernel: &str, count: u32, seed: u64) -> Result<Vec<u32>, LaunchError> {
    let memory = Memory::default();
    let module = Module::load(ptx, &memory).expect("it is known");
    let words: Vec<u8> = (0..count).flat_map(u32::to_le_bytes).collect();
    let start = memory.take(words.len() as u64);
    assert!(memory.write(start, &words));
    let grid = Grid { blocks: count.div_ceil(64), threads: 64, seed, most_steps: 1 << 20 };
    let arguments = [start.to_le_bytes().to_vec(), count.to_le_bytes().to_vec()];
    module.launch(kernel, grid, &arguments, &memory)?;
    let mut bytes = vec![0; words.len()];
    assert!(memory.read(start, &mut bytes));
    Ok(bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect())
}

/// The kernel gives this, whatever the order.
fn is_right(ptx: &str, kernel: &str, count: u32, wanted: impl Fn(u32) -> u32) {
    let wanted: Vec<_> = (0..count).map(wanted).collect();
    for seed in SEEDS {
        let found = run(ptx, kernel, count, seed).expect("nothing is wrong with it");
        assert_eq!(found, wanted, "{kernel}, seed {seed}");
    }
}

/// The kernel is caught, whatever the order.
fn is_caught(ptx: &str, kernel: &str, count: u32, is_it: impl Fn(Deed) -> bool) {
    for seed in SEEDS {
        match run(ptx, kernel, count, seed) {
            Err(LaunchError::Fault(fault)) => assert!(is_it(fault.deed), "seed {seed}: {fault}"),
            other => panic!("{kernel}, seed {seed}: {other:?}"),
        }
    }
}

#[test]
fn an_operand_that_is_written_too_early_is_found_by_its_results() {
    let Some(ptx) = ptx("an operand that is written too early") else { return };
    is_right(&ptx, "add_zeros", 100, |i| i);
    for seed in SEEDS {
        let found = run(&ptx, "add_zeros_as_it_was", 100, seed).expect("nothing stops it");
        let wrong = (0..).zip(&found).filter(|(i, word)| *i != **word).count();
        assert_eq!(wrong, 100, "seed {seed}");
    }
}

#[test]
fn a_barrier_that_is_left_out_is_found() {
    let Some(ptx) = ptx("a barrier that is left out") else { return };
    is_right(&ptx, "turn_round", 128, |i| i / 64 * 64 + 63 - i % 64);
    is_caught(&ptx, "turn_round_without_a_barrier", 128, |deed| {
        matches!(deed, Deed::Unwritten { .. } | Deed::Race { .. })
    });
    is_caught(&ptx, "turn_round_with_half_a_barrier", 128, |deed| {
        matches!(deed, Deed::Barrier | Deed::Unwritten { .. } | Deed::Race { .. })
    });
}

#[test]
fn a_race_in_shared_memory_is_found() {
    let Some(ptx) = ptx("a race in shared memory") else { return };
    is_right(&ptx, "sum_pairs", 128, |i| 2 * (i & !1) + 1);
    is_caught(&ptx, "sum_pairs_in_a_race", 128, |deed| matches!(deed, Deed::Race { .. }));
}

#[test]
fn an_index_off_by_one_is_found() {
    let Some(ptx) = ptx("an index off by one") else { return };
    is_right(&ptx, "increment", 100, |i| i + 1);
    is_caught(&ptx, "increment_one_further", 100, |deed| {
        matches!(deed, Deed::Outside { bytes: 4, .. })
    });
}

#[test]
fn bounds_that_are_not_checked_are_found() {
    let Some(ptx) = ptx("bounds that are not checked") else { return };
    is_caught(&ptx, "increment_without_bounds", 100, |deed| matches!(deed, Deed::Outside { .. }));
}
