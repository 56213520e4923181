//! A batch whose data is made on the device and stays there: for measurements without disk or bus.

use crate::batch::{Kernels, Node, Places, Shape, rows};
use crate::stream::{Argument, Span, Stream};
use crate::{BatchError, CudaError, Device};

/// A stream with a batch of made-up data.
#[derive(Debug)]
pub(crate) struct Resident {
    stream: Stream,
    kernels: Kernels,
    places: Places,
    shape: Shape,
    seed: u64,
}

/// A node of made-up data, as `seal_generate` makes it: Murmur's finaliser over words that are all
/// different, with four bits left out so that it is an element.
fn made_up(seed: u64, node: usize) -> Node {
    let mut bytes = [0; 32];
    for (word, number) in bytes.chunks_exact_mut(4).zip(0..) {
        let at = 8 * node as u64 + number;
        let mixed = seed.wrapping_add(at.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        let highest = number == 7;
        let value = (mixed >> 32) as u32 >> if highest { 4 } else { 0 };
        word.copy_from_slice(&value.to_le_bytes());
    }
    bytes
}

/// The report that all kernels share here: made-up data is made of elements.
const REPORT: usize = 0;

impl Resident {
    /// Makes data, other for every `seed`.
    pub(crate) fn new(device: &Device, shape: Shape, seed: u64) -> Result<Self, CudaError> {
        let kernels = Kernels::find(device, shape)?;
        let places = Places::of(shape);
        let mut stream = Stream::new(device, places.end)?;
        let generate = device.0.kernel("seal_generate")?;
        let inputs = places.layers.iter().take(shape.layers).chain([&places.data]);
        for (input, span) in (0..).zip(inputs) {
            stream.launch(
                generate,
                shape.nodes,
                &[
                    Argument::Number(Self::seed_of(seed, input)),
                    Argument::Count(shape.nodes),
                    Argument::Nodes(*span),
                ],
            )?;
        }
        stream.clear_reports()?;
        stream.wait()?;
        Ok(Self { stream, kernels, places, shape, seed })
    }

    /// What the layers, from 0 on, and the data behind them are made from.
    fn seed_of(seed: u64, input: usize) -> u64 {
        seed << 32 | (input as u64 + 1)
    }

    /// What the labels and the data of `node` must be.
    pub(crate) fn made_up(&self, node: usize) -> impl Iterator<Item = Node> {
        let seed = self.seed;
        (0..=self.shape.layers).map(move |input| made_up(Self::seed_of(seed, input), node))
    }

    pub(crate) fn enter(&self) -> Result<(), CudaError> {
        self.stream.enter()
    }

    /// Starts hashing all columns.
    pub(crate) fn columns(&self) -> Result<(), CudaError> {
        self.stream.launch(
            self.kernels.columns,
            self.shape.nodes,
            &[
                Argument::Layers(self.places.layers),
                Argument::Count(self.shape.nodes),
                Argument::Nodes(self.places.tree_c.part(0, self.shape.nodes)),
                Argument::Report(REPORT),
            ],
        )
    }

    /// Starts adding data and labels of the last layer.
    pub(crate) fn encode(&self) -> Result<(), CudaError> {
        self.stream.launch(
            self.kernels.encode,
            self.shape.nodes,
            &[
                Argument::Nodes(self.places.data),
                Argument::Nodes(self.places.layers[self.shape.layers - 1]),
                Argument::Count(self.shape.nodes),
                Argument::Nodes(self.places.tree_r.part(0, self.shape.nodes)),
                Argument::Report(REPORT),
            ],
        )
    }

    /// Starts hashing the rows of both trees.
    pub(crate) fn rows(&self) -> Result<(), CudaError> {
        for tree in [self.places.tree_c, self.places.tree_r] {
            let (mut first, mut children) = (0, self.shape.nodes);
            for length in rows(self.shape.nodes, self.shape.arity).skip(1) {
                self.stream.launch(
                    self.kernels.rows,
                    length,
                    &[
                        Argument::Nodes(tree.part(first, children)),
                        Argument::Count(length),
                        Argument::Nodes(tree.part(first + children, length)),
                        Argument::Report(REPORT),
                    ],
                )?;
                first += children;
                children = length;
            }
        }
        Ok(())
    }

    pub(crate) fn wait(&self) -> Result<(), CudaError> {
        self.stream.wait()
    }

    /// The labels of `node`, by layer.
    pub(crate) fn column(&mut self, node: usize) -> Result<Vec<Node>, BatchError> {
        let layers = self.places.layers;
        layers[..self.shape.layers].iter().map(|span| self.node(span.part(node, 1))).collect()
    }

    /// The hash of that column.
    pub(crate) fn leaf(&mut self, node: usize) -> Result<Node, BatchError> {
        self.node(self.places.tree_c.part(node, 1))
    }

    /// The data of `node`.
    pub(crate) fn data(&mut self, node: usize) -> Result<Node, BatchError> {
        self.node(self.places.data.part(node, 1))
    }

    /// What was made of the data and the label of the last layer: a leaf of tree R last.
    pub(crate) fn replica(&mut self, node: usize) -> Result<Node, BatchError> {
        self.node(self.places.tree_r.part(node, 1))
    }

    /// The first leaves of tree R last and their parent.
    pub(crate) fn first_row(&mut self) -> Result<(Vec<Node>, Node), BatchError> {
        let tree = self.places.tree_r;
        let children: Result<_, _> =
            (0..self.shape.arity).map(|child| self.node(tree.part(child, 1))).collect();
        Ok((children?, self.node(tree.part(self.shape.nodes, 1))?))
    }

    fn node(&mut self, place: Span) -> Result<Node, BatchError> {
        let mut node = [[0; 32]];
        let reports = self.stream.in_flight(|work| work.download(&mut node, place))?;
        match reports[REPORT] {
            None => Ok(node[0]),
            Some(_) => Err(CudaError::Wrong { what: "made-up data".to_owned() }.into()),
        }
    }
}
