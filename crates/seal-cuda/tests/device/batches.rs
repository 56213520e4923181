//! Whole batches against the processor's portable kernels, which are checked against the vectors
//! and the published crate.

use proptest::prelude::*;
use seal_cuda::{Batch, BatchError, Device, Node, Parts, PinnedMemory, Shape, Worker};
use seal_poseidon::{Fr, Poseidon, element_from_bytes, element_to_bytes};

use crate::support::{Numbers, device};

/// A batch with its results.
pub(crate) struct Whole {
    shape: Shape,
    pub(crate) layers: Vec<Vec<Node>>,
    pub(crate) data: Vec<Node>,
    pub(crate) tree_c: Vec<Node>,
    pub(crate) replica: Vec<Node>,
    pub(crate) tree_r: Vec<Node>,
}

/// Everything on the device.
pub(crate) const BOTH: Parts = Parts { columns: true, trees: true };

impl Whole {
    pub(crate) fn new(shape: Shape, seed: u64) -> Self {
        let mut numbers = Numbers(seed);
        let tree = shape.tree_nodes();
        Self {
            shape,
            layers: (0..shape.layers).map(|_| numbers.nodes(shape.nodes)).collect(),
            data: numbers.nodes(shape.nodes),
            tree_c: vec![[0xee; 32]; tree],
            replica: vec![[0xee; 32]; shape.nodes],
            tree_r: vec![[0xee; 32]; tree - shape.nodes],
        }
    }

    pub(crate) fn compute(&mut self, worker: &mut Worker) -> Result<(), BatchError> {
        let layers: Vec<_> = self.layers.iter().map(Vec::as_slice).collect();
        worker.compute(&mut Batch {
            layers: &layers,
            data: &self.data,
            tree_c: &mut self.tree_c,
            replica: &mut self.replica,
            tree_r: &mut self.tree_r,
        })
    }

    /// What the results should be: tree C, replica, tree R last without its leaves.
    fn expected(&self) -> (Vec<Node>, Vec<Node>, Vec<Node>) {
        let poseidon = |arity: usize| Poseidon::of_arity(arity as u32).expect("of the network");
        let columns = poseidon(self.shape.layers);
        let rows = poseidon(self.shape.arity);
        let leaf = |node: usize| {
            let column: Vec<Node> = self.layers.iter().map(|layer| layer[node]).collect();
            columns.hash_nodes(&column).expect("canonical")
        };
        let element = |node: &Node| element_from_bytes(node).expect("canonical");
        let last = &self.layers[self.shape.layers - 1];
        let sum = |node: usize| -> Node {
            let sum: Fr = element(&self.data[node]) + element(&last[node]);
            element_to_bytes(&sum)
        };
        let tree = |leaves: Vec<Node>| {
            let mut all = leaves.clone();
            let mut row = leaves;
            while row.len() > 1 {
                let parents = row.chunks(self.shape.arity);
                row = parents.map(|nodes| rows.hash_nodes(nodes).expect("canonical")).collect();
                all.extend_from_slice(&row);
            }
            all
        };
        let replica: Vec<Node> = (0..self.shape.nodes).map(sum).collect();
        let tree_r = tree(replica.clone()).split_off(self.shape.nodes);
        (tree((0..self.shape.nodes).map(leaf).collect()), replica, tree_r)
    }

    pub(crate) fn assert_right(&self) {
        let (tree_c, replica, tree_r) = self.expected();
        assert!(self.tree_c == tree_c, "tree C of {:?}", self.shape);
        assert!(self.replica == replica, "replica of {:?}", self.shape);
        assert!(self.tree_r == tree_r, "tree R last of {:?}", self.shape);
    }
}

fn check(device: &Device, shape: Shape, seed: u64) {
    let mut worker = Worker::new(device, shape, BOTH).expect("the device works");
    for seed in [seed, seed + 1] {
        let mut whole = Whole::new(shape, seed);
        whole.compute(&mut worker).expect("canonical nodes");
        whole.assert_right();
    }
}

#[test]
fn batches_of_every_shape_are_those_of_the_processor() {
    let Some(tested) = device("batches of every shape on a device") else { return };
    for layers in [2, 11] {
        for (arity, nodes) in [(8, 1), (8, 8), (8, 512), (2, 1), (2, 2), (2, 256)] {
            check(&tested.device, Shape { layers, arity, nodes }, nodes as u64);
        }
    }
}

#[test]
fn each_part_can_be_computed_alone() {
    let Some(tested) = device("parts of a batch on a device") else { return };
    let shape = Shape { layers: 11, arity: 8, nodes: 64 };
    let mut whole = Whole::new(shape, 7);
    let (tree_c, replica, tree_r) = whole.expected();
    let columns = Parts { columns: true, trees: false };
    let mut worker = Worker::new(&tested.device, shape, columns).expect("the device works");
    whole.compute(&mut worker).expect("canonical nodes");
    assert!(whole.tree_c[..64] == tree_c[..64]);
    assert!(whole.tree_c[64..].iter().chain(&whole.replica).all(|node| *node == [0xee; 32]));

    let trees = Parts { columns: false, trees: true };
    let mut worker = Worker::new(&tested.device, shape, trees).expect("the device works");
    whole.compute(&mut worker).expect("canonical nodes");
    assert!((whole.tree_c, whole.replica, whole.tree_r) == (tree_c, replica, tree_r));
}

#[test]
fn rows_of_any_number_are_hashed() {
    let Some(tested) = device("rows on a device") else { return };
    for arity in [2, 8] {
        let shape = Shape { layers: 2, arity, nodes: arity };
        let mut worker = Worker::new(&tested.device, shape, BOTH).expect("the device works");
        let poseidon = Poseidon::of_arity(arity as u32).expect("of the network");
        // The worker has room for a few only, so most of these go in portions.
        for count in [1, 2, 3, 7, 130] {
            let children = Numbers(count as u64).nodes(count * arity);
            let mut parents = vec![[0xee; 32]; count];
            worker.hash_rows(&children, &mut parents).expect("canonical nodes");
            for (children, parent) in children.chunks(arity).zip(&parents) {
                assert_eq!(poseidon.hash_nodes(children).expect("canonical"), *parent);
            }
        }
    }
}

#[test]
fn what_is_no_element_is_named() {
    let Some(tested) = device("nodes that are no elements on a device") else { return };
    for layers in [2, 11] {
        let shape = Shape { layers, arity: 8, nodes: 64 };
        let mut worker = Worker::new(&tested.device, shape, BOTH).expect("the device works");
        let modulus = {
            let mut bytes = element_to_bytes(&-Fr::from(1));
            bytes[0] += 1;
            bytes
        };
        for (bad, at) in [([0xff; 32], 0), (modulus, 9), (modulus, 63)] {
            for bad_layer in [0, layers - 1] {
                let mut whole = Whole::new(shape, 3);
                whole.layers[bad_layer][at] = bad;
                let error = whole.compute(&mut worker).expect_err("no element");
                let BatchError::Label { layer, node } = error else { panic!("{error}") };
                assert_eq!((layer, node), (bad_layer, at));
            }
            let mut whole = Whole::new(shape, 4);
            whole.data[at] = bad;
            let error = whole.compute(&mut worker).expect_err("no element");
            assert!(matches!(error, BatchError::Data { node } if node == at), "{error}");
        }
        let mut parents = [[0; 32]; 2];
        let mut children = Numbers(1).nodes(16);
        children[11] = [0xff; 32];
        let error = worker.hash_rows(&children, &mut parents).expect_err("no element");
        assert!(matches!(error, BatchError::Child { node: 11 }), "{error}");
        // The worker goes on with what is right.
        let mut whole = Whole::new(shape, 5);
        whole.compute(&mut worker).expect("canonical nodes");
        whole.assert_right();
    }
}

#[test]
fn several_workers_compute_from_pinned_memory_at_the_same_time() {
    let Some(tested) = device("several workers on a device") else { return };
    let shape = Shape { layers: 2, arity: 8, nodes: 64 };
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let device = &tested.device;
            scope.spawn(move || {
                let mut worker = Worker::new(device, shape, BOTH).expect("the device works");
                let bytes = shape.nodes * 32;
                let mut memory = PinnedMemory::take(device, bytes).expect("the device works");
                assert!(memory.bytes_mut().iter().all(|byte| *byte == 0));
                for seed in 0..3 {
                    let mut whole = Whole::new(shape, thread * 10 + seed);
                    memory.bytes_mut().copy_from_slice(whole.data.as_flattened());
                    whole.data.fill([0; 32]);
                    let (pinned, _) = memory.bytes_mut().as_chunks::<32>();
                    let layers: Vec<_> = whole.layers.iter().map(Vec::as_slice).collect();
                    worker
                        .compute(&mut Batch {
                            layers: &layers,
                            data: pinned,
                            tree_c: &mut whole.tree_c,
                            replica: &mut whole.replica,
                            tree_r: &mut whole.tree_r,
                        })
                        .expect("canonical nodes");
                    whole.data.copy_from_slice(pinned);
                    whole.assert_right();
                }
            });
        }
    });
}

#[test]
fn any_nodes_hash_as_on_the_processor() {
    let Some(tested) = device("random rows on a device") else { return };
    for arity in [2, 8] {
        let shape = Shape { layers: 11, arity, nodes: arity };
        let worker = Worker::new(&tested.device, shape, BOTH).expect("the device works");
        let worker = std::cell::RefCell::new(worker);
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
            failure_persistence: None,
            cases: 64,
            ..ProptestConfig::default()
        });
        runner
            .run(&any::<u64>(), |seed| {
                let mut whole = Whole::new(shape, seed);
                whole
                    .compute(&mut worker.borrow_mut())
                    .map_err(|e| TestCaseError::fail(e.to_string()))?;
                let (tree_c, replica, tree_r) = whole.expected();
                prop_assert_eq!(&whole.tree_c, &tree_c);
                prop_assert_eq!(&whole.replica, &replica);
                prop_assert_eq!(&whole.tree_r, &tree_r);
                Ok(())
            })
            .expect("device and processor agree");
    }
}
