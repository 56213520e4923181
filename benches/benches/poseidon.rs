//! Poseidon hashes per second and core, for each arity that sealing uses, by every kernel and by
//! the published crate.

#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use generic_array::typenum::{U2, U8, U11};
use neptune::Arity;
use neptune::poseidon::PoseidonConstants;
use seal_poseidon::{Fr, Hasher, Kernel, Poseidon, element_from_bytes, element_to_bytes};

/// Hashes in a batch: what a block of a tree's row has at least.
const HASHES: usize = 256;

fn hashes<A: Arity<Fr>>(criterion: &mut Criterion, poseidon: &'static Poseidon) {
    let arity = poseidon.arity();
    let mut group = criterion.benchmark_group(format!("poseidon/{arity}"));
    group.throughput(Throughput::Elements(HASHES as u64));
    let layers: Vec<Vec<[u8; 32]>> = (0..arity)
        .map(|layer| (0..HASHES).map(|node| [(layer * 5 + node % 50) as u8; 32]).collect())
        .collect();
    let layers: Vec<&[[u8; 32]]> = layers.iter().map(Vec::as_slice).collect();
    let mut hashes = vec![[0; 32]; HASHES];
    for kernel in Kernel::available() {
        let hasher = Hasher::new(poseidon, kernel);
        group.bench_function(BenchmarkId::new("columns", kernel.name()), |bencher| {
            bencher.iter(|| {
                hasher.hash_columns(black_box(&layers), &mut hashes).expect("canonical");
            });
        });
        let children = layers.concat();
        group.bench_function(BenchmarkId::new("rows", kernel.name()), |bencher| {
            bencher.iter(|| {
                hasher.hash_rows(black_box(&children), &mut hashes).expect("canonical");
            });
        });
    }

    let constants = PoseidonConstants::<Fr, A>::new();
    let mut published = vec![[0; 32]; HASHES];
    group.bench_function(BenchmarkId::new("columns", "neptune"), |bencher| {
        bencher.iter(|| {
            let mut hasher = neptune::Poseidon::new(&constants);
            for (node, hash) in published.iter_mut().enumerate() {
                hasher.reset();
                for layer in black_box(&layers) {
                    let element = element_from_bytes(&layer[node]).expect("canonical");
                    hasher.input(element).expect("as many as the arity");
                }
                *hash = element_to_bytes(&hasher.hash());
            }
        });
    });
    group.finish();

    // A name filter leaves what it excludes unhashed.
    if published[0] != [0; 32] {
        for kernel in Kernel::available() {
            Hasher::new(poseidon, kernel).hash_columns(&layers, &mut hashes).expect("canonical");
            assert_eq!(hashes, published, "{}", kernel.name());
        }
    }
}

fn all(criterion: &mut Criterion) {
    hashes::<U2>(criterion, Poseidon::arity2());
    hashes::<U8>(criterion, Poseidon::arity8());
    hashes::<U11>(criterion, Poseidon::arity11());
}

criterion_group!(poseidon, all);
criterion_main!(poseidon);
