//! The processor as the one who computes: a block for each of its threads.

use seal_poseidon::{Hasher, Kernel, NotCanonical, Poseidon};

use crate::Node;
use crate::backend::{Backend, BlockView, ComputeError, DeviceError, Session, Work, Worker};
use crate::block::row_lengths;
use crate::replica::{BadNode, encode_into};

/// A block of 1 MiB a file: larger ones are not read any faster.
const LARGEST_BLOCK: usize = 1 << 15;

/// The processor.
#[derive(Clone, Copy, Debug)]
pub struct Cpu {
    kernel: Kernel,
    threads: usize,
}

impl Cpu {
    /// All cpus that this process may use, with `kernel`.
    pub fn new(kernel: Kernel) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self::with_threads(kernel, threads)
    }

    /// So many threads, at least one.
    pub fn with_threads(kernel: Kernel, threads: usize) -> Self {
        Self { kernel, threads: threads.max(1) }
    }
}

impl Backend for Cpu {
    fn describe(&self) -> String {
        format!("cpu (Poseidon {}, {} threads)", self.kernel.name(), self.threads)
    }

    fn begin(&self) -> Result<Box<dyn Session + '_>, DeviceError> {
        Ok(Box::new(*self))
    }
}

impl Session for Cpu {
    fn device(&self) -> String {
        self.describe()
    }

    fn workers(&self) -> usize {
        self.threads
    }

    fn largest_block(&self) -> usize {
        LARGEST_BLOCK
    }

    /// A few do for many threads of Poseidon.
    fn readers(&self) -> usize {
        self.threads.div_ceil(8).max(2)
    }

    fn worker(&self, work: &Work) -> Result<Box<dyn Worker + '_>, DeviceError> {
        let hasher = |arity| {
            let poseidon = Poseidon::of_arity(arity);
            poseidon
                .map(|poseidon| Hasher::new(poseidon, self.kernel))
                .ok_or_else(|| format!("there is no Poseidon of arity {arity}"))
        };
        Ok(Box::new(Thread { columns: hasher(work.layers)?, rows: hasher(work.arity)? }))
    }
}

struct Thread {
    columns: Hasher,
    rows: Hasher,
}

impl Worker for Thread {
    fn compute(&mut self, block: BlockView<'_>) -> Result<(), ComputeError> {
        let BlockView { layers, data, tree_c, replica, tree_r } = block;
        let (leaves, above) = tree_c.split_at_mut(data.len());
        self.columns
            .hash_columns(&layers, leaves)
            .map_err(|bad| ComputeError::Label { layer: bad.layer, node: bad.node })?;
        let elements = "hashes and sums are elements of the field";
        rows_above(self.rows, leaves, above).expect(elements);

        encode_block(data, &layers, replica)?;
        rows_above(self.rows, replica, tree_r).expect(elements);
        Ok(())
    }
}

/// The replica: data and labels of the last layer, added in the field.
pub(crate) fn encode_block(
    data: &[Node],
    layers: &[&[Node]],
    replica: &mut [Node],
) -> Result<(), ComputeError> {
    let last = layers.len() - 1;
    encode_into(data, layers[last], replica).map_err(|bad| match bad {
        BadNode::Data(node) => ComputeError::Data { node },
        BadNode::Label(node) => ComputeError::Label { layer: last, node },
    })
}

/// The rows above `leaves`. On an error, which names a leaf that is no element of the field, they
/// are of no use.
pub(crate) fn rows_above(
    hasher: Hasher,
    leaves: &[Node],
    above: &mut [Node],
) -> Result<(), NotCanonical> {
    let (mut children, mut rest) = (leaves, above);
    for length in row_lengths(leaves.len(), hasher.arity()).skip(1) {
        let (parents, others) = rest.split_at_mut(length);
        hasher.hash_rows(children, parents)?;
        (children, rest) = (parents, others);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::encode_node;

    /// Nodes below the modulus of which no two are alike.
    fn nodes(count: usize, seed: u64) -> Vec<Node> {
        let node = |i: usize| {
            std::array::from_fn(|byte| {
                let word =
                    (i as u64 + 1).wrapping_mul(seed | 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let byte_of_word =
                    (word >> (byte % 8 * 8)).to_le_bytes()[0] ^ byte.to_le_bytes()[0];
                if byte == 31 { byte_of_word & 0x3f } else { byte_of_word }
            })
        };
        (0..count).map(node).collect()
    }

    #[test]
    fn every_kernel_computes_blocks_of_every_size_as_by_the_letter() {
        for kernel in Kernel::available() {
            for (layers, arity, rows) in
                [(2, 8, 0), (11, 8, 0), (2, 8, 1), (11, 8, 2), (2, 8, 3), (11, 2, 3), (2, 2, 5)]
            {
                let count = (arity as usize).pow(rows);
                let work = Work { layers, arity, block_nodes: count };
                let labels: Vec<_> = (1..=u64::from(layers)).map(|l| nodes(count, l * 2)).collect();
                let data = nodes(count, 77);
                let tree = row_lengths(count, arity as usize).sum::<usize>();
                let mut tree_c = vec![[0xee; 32]; tree];
                let mut replica = vec![[0xee; 32]; count];
                let mut tree_r = vec![[0xee; 32]; tree - count];
                let cpu = Cpu::with_threads(kernel, 1);
                let mut worker = cpu.worker(&work).expect("arities of the network");
                worker
                    .compute(BlockView {
                        layers: labels.iter().map(Vec::as_slice).collect(),
                        data: &data,
                        tree_c: &mut tree_c,
                        replica: &mut replica,
                        tree_r: &mut tree_r,
                    })
                    .expect("canonical");

                let columns = Poseidon::of_arity(layers).expect("of the network");
                let hash = Poseidon::of_arity(arity).expect("of the network");
                let plain_tree = |leaves: Vec<Node>| {
                    let mut all = leaves.clone();
                    let mut row = leaves;
                    while row.len() > 1 {
                        row = row
                            .chunks(arity as usize)
                            .map(|children| hash.hash_nodes(children).expect("canonical"))
                            .collect();
                        all.extend_from_slice(&row);
                    }
                    all
                };
                let column = |node| {
                    let column: Vec<Node> = labels.iter().map(|labels| labels[node]).collect();
                    columns.hash_nodes(&column).expect("canonical")
                };
                let sum = |node: usize| {
                    encode_node(&data[node], &labels.last().expect("layers")[node])
                        .expect("canonical")
                };
                assert!(tree_c == plain_tree((0..count).map(column).collect()), "{work:?}");
                let sums: Vec<_> = (0..count).map(sum).collect();
                assert!(replica == sums, "{work:?}");
                assert!(tree_r == plain_tree(sums)[count..], "{work:?}");
            }
        }
    }

    #[test]
    fn what_is_no_element_is_named() {
        let cpu = Cpu::with_threads(Kernel::detect(), 1);
        let work = Work { layers: 2, arity: 8, block_nodes: 64 };
        let mut worker = cpu.worker(&work).expect("arities of the network");
        let mut compute = |layers: &[Vec<Node>], data: &[Node]| {
            worker.compute(BlockView {
                layers: layers.iter().map(Vec::as_slice).collect(),
                data,
                tree_c: &mut [[0; 32]; 73],
                replica: &mut [[0; 32]; 64],
                tree_r: &mut [[0; 32]; 9],
            })
        };
        let good = nodes(64, 5);
        for node in [0, 7, 63] {
            let mut bad = good.clone();
            bad[node] = [0xff; 32];
            for layer in [0, 1] {
                let mut layers = vec![good.clone(), good.clone()];
                layers[layer].clone_from(&bad);
                let error = compute(&layers, &good);
                assert!(
                    matches!(error, Err(ComputeError::Label { layer: l, node: n }) if (l, n) == (layer, node)),
                    "{error:?}"
                );
            }
            let error = compute(&[good.clone(), good.clone()], &bad);
            assert!(matches!(error, Err(ComputeError::Data { node: n }) if n == node), "{error:?}");
        }
        compute(&[good.clone(), good.clone()], &good).expect("canonical");
    }
}
