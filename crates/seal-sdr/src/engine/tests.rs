//! The engine against plain labels.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::*;
use crate::Graph;
use crate::labels::Parents;
use proptest::prelude::*;
use seal_host::{LabelMemory, LayerReader, Region};
use seal_sha256::{Kernel, LabelPrefix};
use seal_types::{ApiVersion, Porep, PorepId, ReplicaId, SectorSize, TreeShape, layer_file};
use sha2::{Digest, Sha256};
use test_support::plain;
use test_support::skip::skipped;
use test_support::vector::{Vector, vectors_dir};

const SOON: Duration = Duration::from_secs(60);

fn porep(kib: u64, api_version: ApiVersion, seed: u8) -> Porep {
    let sector_size = SectorSize::new(kib << 10).expect("a size");
    let shape = TreeShape::of(sector_size);
    Porep { sector_size, api_version, porep_id: PorepId([seed; 32]), layers: 3, shape }
}

fn engine(units: usize, producers: usize, lanes: usize) -> Engine {
    let cores = UnitCores { consumer: 0, producers: vec![0; producers], node: None };
    Engine::start(&vec![cores; units], lanes, Arc::new(|_| Ok(()))).expect("threads")
}

fn memory(porep: &Porep) -> LabelMemory {
    let bytes = usize::try_from(porep.sector_size.bytes()).expect("small");
    LabelMemory::new(Region::anonymous(bytes).expect("memory"))
}

/// Labels a whole sector at `engine` and returns its layers.
fn label(
    engine: &Engine,
    porep: &Porep,
    replica_id: ReplicaId,
    kernel: Kernel,
) -> Vec<Vec<[u8; 32]>> {
    let seat = engine.take_seat(&|_| {}, &|| false).expect("a seat");
    let parents: Arc<dyn Parents + Send + Sync> = Arc::new(Graph::new(porep));
    let prefix = LabelPrefix::new(kernel, replica_id.0);
    let mut previous: Option<LayerReader> = None;
    let mut layers = Vec::new();
    for layer in 1..=porep.layers {
        let (parents, memory) = (Arc::clone(&parents), memory(porep));
        let job = LayerJob { layer, prefix, parents, previous: previous.take(), memory };
        let handle = engine.label_layer(&seat, job).expect("memory");
        assert!(handle.wait(SOON).expect("no thread failed"), "layer {layer} takes too long");
        let complete = handle.labels().clone();
        layers.push(complete.published().to_vec());
        previous = Some(complete);
    }
    layers
}

fn check(engine: &Engine, porep: &Porep, seed: u8, kernel: Kernel) {
    let replica_id = ReplicaId([seed; 32]);
    let expected = plain::label_layers(porep, replica_id);
    let layers = label(engine, porep, replica_id, kernel);
    for (layer, (ours, plain)) in (1..).zip(layers.iter().zip(&expected)) {
        let different = ours.iter().zip(plain).position(|(ours, plain)| ours != plain);
        assert_eq!(different, None, "{porep:?}: layer {layer}");
        assert_eq!(ours.len(), plain.len());
    }
}

#[test]
fn every_number_of_producers_and_kernel_labels_right() {
    for kernel in Kernel::available() {
        for producers in 0..=4 {
            let engine = engine(1, producers, 1);
            for api_version in [ApiVersion::V1_0, ApiVersion::V1_1] {
                check(&engine, &porep(16, api_version, 3), 1, kernel);
            }
        }
    }
}

#[test]
fn vectors_are_labelled_by_any_number_of_producers_and_lanes() {
    let all = Vector::all(&vectors_dir()).expect("readable");
    let vectors: Vec<_> = all.into_iter().filter(|(_, v)| v.sector_size <= 32 << 10).collect();
    if vectors.is_empty() {
        skipped("vectors with 1 to 4 producers", "no vector of up to 32 KiB in SEAL_VECTORS_DIR");
    }
    for (producers, lanes) in
        (1..=4).flat_map(|producers| [1, 2, 4].map(|lanes| (producers, lanes)))
    {
        let engine = engine(1, producers, lanes);
        std::thread::scope(|scope| {
            for (name, vector) in &vectors {
                let engine = &engine;
                scope.spawn(move || {
                    let (porep, id) = (vector.porep(), vector.replica_id());
                    let layers =
                        label(engine, &porep.expect(name), id.expect(name), Kernel::detect());
                    for (layer, labels) in (1..).zip(&layers) {
                        let digest = hex::encode(Sha256::digest(labels.as_flattened()));
                        let expected = &vector.cache_files[&layer_file(layer)].sha256;
                        assert_eq!(
                            digest, *expected,
                            "{name}: layer {layer}, {producers}, {lanes}"
                        );
                    }
                });
            }
        });
    }
}

/// Parents of one lane: nobody gets any before the gate is open, and all calls are noted down.
struct Noted {
    graph: Graph,
    lane: usize,
    open: Arc<AtomicBool>,
    calls: Arc<Mutex<Vec<usize>>>,
}

impl Parents for Noted {
    fn parents(&self, node: usize) -> [u32; crate::PARENTS] {
        while !self.open.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        self.calls.lock().expect("nobody panics").push(self.lane);
        Parents::parents(&self.graph, node)
    }
}

/// A consumer that prepares its labels itself asks for the parents of each node when it comes to
/// it: whether lanes go on node by node together shows in the order of its calls.
#[test]
fn two_and_four_lanes_are_labelled_node_by_node_together() {
    for lanes in [1, 2, 4] {
        let engine = engine(1, 0, lanes);
        let porep = porep(64, ApiVersion::V1_1, 3);
        let (open, calls) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let seats: Vec<_> =
            (0..lanes).map(|_| engine.take_seat(&|_| {}, &|| false).expect("a seat")).collect();
        let handles: Vec<_> = (0..lanes)
            .map(|lane| {
                let (open, calls) = (Arc::clone(&open), Arc::clone(&calls));
                let parents = Noted { graph: Graph::new(&porep), lane, open, calls };
                let prefix = LabelPrefix::new(Kernel::detect(), [1; 32]);
                let (parents, memory) = (Arc::new(parents), memory(&porep));
                let job = LayerJob { layer: 1, prefix, parents, previous: None, memory };
                engine.label_layer(&seats[lane], job).expect("memory")
            })
            .collect();
        open.store(true, Ordering::Release);
        assert!(handles.iter().all(|handle| handle.wait(SOON).expect("no thread failed")));
        let calls: &Mutex<Vec<usize>> = &calls;
        let calls = calls.lock().expect("nobody panics");
        // Two calls for each node: its own parents and those of a later one, to be fetched.
        let rounds = calls.windows(2 * lanes);
        let (mut all, mut together) = (0, 0);
        for round in rounds {
            let met: BTreeSet<_> = round.iter().collect();
            all += 1;
            together += usize::from(met.len() == lanes);
        }
        // Not those of the first batches, which are labelled one after the other.
        assert!(together * 10 > all * 9, "{lanes} lanes: {together} of {all} rounds");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn sectors_that_share_a_unit_and_join_at_any_time_are_labelled_right(
        producers in 0_usize..=4,
        lanes in 1_usize..=4,
        sectors in proptest::collection::vec((1_u32..=5, any::<bool>(), 0_u64..3000), 1..7),
        seed: u8,
    ) {
        let engine = engine(1, producers, lanes);
        std::thread::scope(|scope| {
            for (i, (log_size, first_version, delay_us)) in sectors.iter().enumerate() {
                let engine = &engine;
                let api_version =
                    if *first_version { ApiVersion::V1_0 } else { ApiVersion::V1_1 };
                let porep = porep(1 << log_size, api_version, seed);
                let sector = seed.wrapping_add(i.to_le_bytes()[0]);
                // Not to wait for anything: to let sectors join at different moments.
                let start = std::time::Instant::now();
                let delay = Duration::from_micros(*delay_us);
                scope.spawn(move || {
                    while start.elapsed() < delay {
                        std::hint::spin_loop();
                    }
                    check(engine, &porep, sector, Kernel::detect());
                });
            }
        });
    }
}

#[test]
fn a_layer_nobody_wants_is_left_and_the_unit_goes_on() {
    for producers in [0, 2] {
        let engine = engine(1, producers, 1);
        let porep = porep(32, ApiVersion::V1_1, 3);
        let seat = engine.take_seat(&|_| {}, &|| false).expect("a seat");
        let job = LayerJob {
            layer: 1,
            prefix: LabelPrefix::new(Kernel::detect(), [1; 32]),
            parents: Arc::new(Graph::new(&porep)),
            previous: None,
            memory: memory(&porep),
        };
        drop(engine.label_layer(&seat, job).expect("memory"));
        drop(seat);
        check(&engine, &porep, 2, Kernel::detect());
    }
}

#[test]
fn a_panic_in_a_thread_fails_the_layer_and_nobody_hangs() {
    struct Broken;
    impl Parents for Broken {
        fn parents(&self, node: usize) -> [u32; crate::PARENTS] {
            panic!("node {node} has no parents")
        }
    }
    for producers in [0, 1] {
        let engine = engine(1, producers, 1);
        let porep = porep(2, ApiVersion::V1_1, 3);
        let seat = engine.take_seat(&|_| {}, &|| false).expect("a seat");
        let job = |parents: Arc<dyn Parents + Send + Sync>| LayerJob {
            layer: 2,
            prefix: LabelPrefix::new(Kernel::detect(), [1; 32]),
            parents,
            previous: Some(memory(&porep).into_complete()),
            memory: memory(&porep),
        };
        // The second one comes to a unit without that thread.
        let (broken, sound) = (Arc::new(Broken), Arc::new(Graph::new(&porep)));
        for job in [job(broken), job(sound)] {
            let handle = engine.label_layer(&seat, job).expect("memory");
            let error = handle.wait(SOON).unwrap_err();
            assert!(matches!(error, SdrError::Unit { layer: 2 }), "{error}");
        }
    }
}

#[test]
fn a_core_that_cannot_be_had_stops_the_start() {
    let cores = UnitCores { consumer: 0, producers: vec![7], node: None };
    let bind = |cpu| if cpu == 7 { Err("not allowed".to_owned()) } else { Ok(()) };
    let error = Engine::start(&[cores], 1, Arc::new(bind)).unwrap_err();
    assert!(error.to_string().contains("cpu 7: not allowed"), "{error}");
}
