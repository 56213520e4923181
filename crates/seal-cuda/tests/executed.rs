//! How many multiplications a hash takes, as executed: what `docs/gpu.md` and the predictions
//! reckon with.

use ptx_run::{Grid, Memory, Module};
use seal_cuda::measure::word_multiplications;
use test_support::cuda::executes_ptx;
use test_support::skip::skipped;

const NODES: u64 = 64;

/// What a thread of a kernel executes when each of 64 makes one hash.
fn of_one_hash(module: &Module, memory: &Memory, kernel: &str, inputs: &[u8]) -> ptx_run::Counts {
    let bad = memory.take(8);
    assert!(memory.write(bad, &u64::MAX.to_le_bytes()));
    let arguments = [
        inputs.to_vec(),
        (NODES as u32).to_le_bytes().to_vec(),
        memory.take(32 * NODES).to_le_bytes().to_vec(),
        bad.to_le_bytes().to_vec(),
    ];
    let grid = Grid { blocks: 1, threads: 64, seed: 1, most_steps: Grid::MOST_STEPS };
    module.launch(kernel, grid, &arguments, memory).expect("nothing is wrong with it");
    let (threads, counts) = module.counts(kernel).expect("there is such a kernel");
    assert_eq!(threads, NODES);
    counts
}

/// Products of 32 by 32 bits with 64, alone or as the second half of a pair.
fn wide_products(counts: &ptx_run::Counts) -> u64 {
    let wide = |name: &str| {
        (name.starts_with("mad") && name.contains(".hi.")) || name.ends_with(".wide.u32")
    };
    let of_all = counts.iter().filter(|(name, _)| wide(name)).map(|(_, times)| times).sum::<u64>();
    assert_eq!(of_all % NODES, 0, "all threads do the same");
    of_all / NODES
}

#[test]
fn a_hash_takes_as_many_multiplications_as_are_counted() {
    let test = "multiplications of a hash";
    if !executes_ptx() {
        return skipped(test, "no PTX is executed (`cargo xtask ptx-test` does)");
    }
    let file = std::env::var_os("SEAL_TEST_PTX").expect("SEAL_TEST_CUDA=ptx comes with it");
    let text = std::fs::read_to_string(file).expect("it is there");
    for (kernel, arity) in
        [("seal_columns_11", 11), ("seal_columns_2", 2), ("seal_rows_8", 8), ("seal_rows_2", 2)]
    {
        let memory = Memory::default();
        let module = Module::load(&text, &memory).expect("it is known");
        // No way through a hash depends on what is hashed, nor on the constants.
        for table in ["seal_constants_3", "seal_constants_9", "seal_constants_12"] {
            let (place, bytes) = module.variable(table).expect("it is declared");
            assert!(memory.write(place, &vec![0x11; bytes as usize]));
        }
        let place = memory.take(32 * NODES * arity);
        assert!(memory.write(place, &vec![0x22; 32 * (NODES * arity) as usize]));
        let inputs: Vec<u8> = if kernel.starts_with("seal_rows") {
            place.to_le_bytes().to_vec()
        } else {
            (0..arity).flat_map(|layer| (place + 32 * NODES * layer).to_le_bytes()).collect()
        };
        let found = wide_products(&of_one_hash(&module, &memory, kernel, &inputs));
        let counted = word_multiplications(arity as u32).expect("an arity of the network");
        assert_eq!(found, counted, "{kernel}: executed and counted");
    }
}
