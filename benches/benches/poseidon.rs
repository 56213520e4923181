//! Poseidon hashes per second, for each arity that sealing uses.

#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use seal_poseidon::Poseidon;

fn hashes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("poseidon");
    group.throughput(Throughput::Elements(1));
    for poseidon in [Poseidon::arity2(), Poseidon::arity8(), Poseidon::arity11()] {
        let nodes = vec![[1; 32]; poseidon.arity()];
        group.bench_function(BenchmarkId::from_parameter(poseidon.arity()), |bencher| {
            bencher.iter(|| poseidon.hash_nodes(black_box(&nodes)).expect("canonical"));
        });
    }
    group.finish();
}

criterion_group!(poseidon, hashes);
criterion_main!(poseidon);
