//! Parents per second: the whole parents cache of a graph as it is made, and single nodes.
//!
//! Cases: every ChaCha8 kernel of this processor, forced.

#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use seal_sdr::{Graph, Watch, parents_digest};
use seal_sha256::ChaCha8;
use seal_types::RegisteredProof;

const QUIET: Watch<'static> = Watch { progress: &|_, _, _| {}, cancelled: &|| false };

fn graph(name: &str) -> Graph {
    Graph::new(&name.parse::<RegisteredProof>().expect("registered").porep())
}

/// Computed and hashed on all cores, and not stored.
fn whole_graph(criterion: &mut Criterion) {
    let graph = graph("StackedDrg8MiBV1_1");
    let mut group = criterion.benchmark_group("parents-8MiB");
    group.throughput(Throughput::Elements(graph.nodes())).sample_size(20);
    for kernel in ChaCha8::available() {
        let graph = graph.clone().drawing_with(kernel);
        group.bench_function(BenchmarkId::from_parameter(kernel.name()), |bencher| {
            // Fails unless the digest is the published one.
            bencher.iter(|| parents_digest(&graph, QUIET).expect("the published digest"));
        });
    }
    group.finish();
}

/// One node by itself, as the spot check of a cache computes it: hashes in place of tables.
fn single_nodes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parents-of-a-node");
    group.throughput(Throughput::Elements(1));
    for name in ["StackedDrg512MiBV1_1", "StackedDrg32GiBV1_1"] {
        let graph = graph(name);
        let nodes = u32::try_from(graph.nodes()).expect("below 2^32");
        let mut node = 2;
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter(|| {
                node = (node + 1_000_003) % nodes;
                graph.parents(black_box(node))
            });
        });
    }
    group.finish();
}

criterion_group!(parents, whole_graph, single_nodes);
criterion_main!(parents);
