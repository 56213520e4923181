//! Labels per second: one label with its parents at hand, and a layer of a real graph.
//!
//! Cases: every SHA-256 kernel of this processor, forced.

#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use seal_sdr::{Graph, ParentsCache, Watch, label_layer};
use seal_sha256::{Kernel, LabelPrefix, Prepared, Run};
use seal_types::{RegisteredProof, ReplicaId};
use test_support::plain;

const QUIET: Watch<'static> = Watch { progress: &|_, _, _| {}, cancelled: &|| false };

fn one_label(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("label");
    group.throughput(Throughput::Elements(1));
    let mut expected = None;
    for kernel in Kernel::available() {
        let prefix = LabelPrefix::new(kernel, [7; 32]);
        let parents: [[u8; 32]; 14] = std::array::from_fn(|i| [i.to_le_bytes()[0]; 32]);
        // The result is compared between kernels, so that no kernel wins by doing nothing.
        let label = prefix.label(2, 1, &parents);
        assert_eq!(*expected.get_or_insert(label), label, "{}", kernel.name());
        group.bench_function(BenchmarkId::from_parameter(kernel.name()), |bencher| {
            bencher.iter(|| prefix.label(black_box(2), black_box(1), black_box(&parents)));
        });
    }
    group.finish();
}

/// The same nodes over and over, each over the label before.
struct Serial<'a, const LANES: usize> {
    slots: &'a mut [Prepared; LANES],
    left: u64,
}

impl<const LANES: usize> Run<LANES> for Serial<'_, LANES> {
    fn advance(&mut self) -> bool {
        let more = self.left > 0;
        self.left = self.left.saturating_sub(1);
        more
    }

    fn prepared(&self) -> [&Prepared; LANES] {
        self.slots.each_ref()
    }

    fn done(&mut self, labels: [[u8; 32]; LANES]) {
        for (slot, label) in self.slots.iter_mut().zip(labels) {
            slot.parents[0] = label;
        }
    }
}

/// The bound of a sector's latency: label after label, each over the one before, everything else
/// prepared. Time is for one label of each lane.
fn chain<const LANES: usize>(criterion: &mut Criterion) {
    const NODES: u64 = 512;
    let mut group = criterion.benchmark_group(format!("chain-x{LANES}"));
    group.throughput(Throughput::Elements(NODES));
    let mut expected = None;
    for kernel in Kernel::available() {
        let mut slots: Vec<Prepared> = (0..LANES)
            .map(|lane| {
                let parents = std::array::from_fn(|i| [(i + lane).to_le_bytes()[0]; 32]);
                let mut slot = Prepared { parents, late: 1, ..Prepared::default() };
                slot.hash_ahead(&LabelPrefix::new(kernel, [7; 32]), 2, 40);
                slot
            })
            .collect();
        let mut run = |start: u8| {
            slots.iter_mut().for_each(|slot| slot.parents[0] = [start; 32]);
            let [slots] = slots.as_chunks_mut::<LANES>().0 else { unreachable!("LANES slots") };
            kernel.chain::<14, LANES>(&mut Serial { slots, left: NODES });
            slots[LANES - 1].parents[0]
        };
        let label = run(7);
        assert_eq!(*expected.get_or_insert(label), label, "{}", kernel.name());
        group.bench_function(BenchmarkId::from_parameter(kernel.name()), |bencher| {
            bencher.iter(|| run(black_box(7)));
        });
    }
    group.finish();
}

fn one_layer(criterion: &mut Criterion) {
    let porep = "StackedDrg8MiBV1_1".parse::<RegisteredProof>().expect("registered").porep();
    let graph = Graph::new(&porep);
    let dir = std::env::temp_dir().join("seal-exec-bench-parents");
    let parents = ParentsCache::open(&graph, &dir, QUIET).expect("writable");
    let nodes = usize::try_from(porep.nodes()).expect("small");
    let replica_id = ReplicaId([7; 32]);
    let expected = plain::label_first_nodes(&porep, replica_id, 1, 1000).remove(0);

    let mut group = criterion.benchmark_group("layer-1-8MiB");
    group.throughput(Throughput::Elements(porep.nodes())).sample_size(10);
    for kernel in Kernel::available() {
        let prefix = LabelPrefix::new(kernel, replica_id.0);
        let mut labels = vec![[0; 32]; nodes];
        label_layer(&parents, &prefix, 1, &mut labels, &[], QUIET).expect("not cancelled");
        assert_eq!(labels[..1000], expected, "{}", kernel.name());
        group.bench_function(BenchmarkId::from_parameter(kernel.name()), |bencher| {
            bencher.iter(|| {
                label_layer(&parents, &prefix, 1, &mut labels, &[], QUIET).expect("not cancelled");
            });
        });
    }
    group.finish();
}

criterion_group!(labels, one_label, chain::<1>, chain::<2>, chain::<4>, one_layer);
criterion_main!(labels);
