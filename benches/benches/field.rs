//! Products of scalar field elements on one core: eight in a vector beside the published
//! arithmetic, and the multiply-adds that bound the former.

#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use seal_poseidon::Fr;

/// Products in an iteration, in chains as many as fill the pipeline.
const PRODUCTS: u32 = 1024;

fn blst(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("product");
    group.throughput(Throughput::Elements(PRODUCTS.into()));
    let factor = black_box(-Fr::from(3));
    group.bench_function("blst", |bencher| {
        let mut elements = [factor; 8];
        bencher.iter(|| {
            for _ in 0..PRODUCTS / 8 {
                for element in &mut elements {
                    *element *= factor;
                }
            }
            black_box(&elements);
        });
    });
    #[cfg(target_arch = "x86_64")]
    ifma(&mut group);
    group.finish();
}

#[cfg(target_arch = "x86_64")]
fn ifma(group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>) {
    use seal_field::{Ifma, rate};
    let Some(proof) = Ifma::detect() else { return };
    group.bench_function("ifma", |bencher| {
        bencher.iter(|| rate::products(proof, PRODUCTS / 8));
    });
    group.bench_function("ifma multiply-adds, of which a product has 12.5", |bencher| {
        bencher.iter(|| rate::multiply_adds(proof, PRODUCTS));
    });
}

criterion_group!(field, blst);
criterion_main!(field);
