//! Batches: the columns, the replica and the trees over them of a run of nodes.
//!
//! A [`Worker`] keeps one stream and memory for one batch. Several workers, each on a thread of
//! its own, have several batches in flight: while one's kernels run, another's data is on its way.
//! The processor touches no data: byte order, the change to the kernels' numbers and the gathering
//! of columns happen in the first kernel.

use crate::driver::Handle;
use crate::stream::{Argument, NODE, Span, Stream};
use crate::{BatchError, CudaError, Device};

/// A node: 32 bytes, little-endian.
pub type Node = [u8; NODE];

/// What is computed on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    /// The hashes of columns.
    pub columns: bool,
    /// The replica, and the rows above the hashes of columns and above the replica.
    pub trees: bool,
}

/// What batches look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Layers: 2 or 11.
    pub layers: usize,
    /// Children of a node of a tree: 8 or 2.
    pub arity: usize,
    /// Nodes of a batch: a power of the arity.
    pub nodes: usize,
}

impl Shape {
    /// Nodes of a tree over a batch, leaves included.
    pub fn tree_nodes(self) -> usize {
        rows(self.nodes, self.arity).sum()
    }

    /// Memory of the device that a worker for such batches takes.
    pub fn device_bytes(self) -> usize {
        Stream::bytes(Places::of(self).end)
    }

    /// The same in batches of one row less.
    fn smaller(self) -> Option<Self> {
        (self.nodes > 1).then(|| Self { nodes: self.nodes / self.arity, ..self })
    }
}

/// Lengths of rows over `leaves`, these first.
pub(crate) fn rows(leaves: usize, arity: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(leaves), move |row| (*row > 1).then(|| row / arity))
}

/// Where everything lies in the memory of the device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Places {
    pub(crate) layers: [Span; 11],
    pub(crate) data: Span,
    pub(crate) tree_c: Span,
    pub(crate) tree_r: Span,
    pub(crate) end: usize,
}

impl Places {
    pub(crate) fn of(shape: Shape) -> Self {
        let mut end = 0;
        let mut next = |nodes: usize| {
            let first = end;
            end += nodes;
            Span { first, nodes }
        };
        let mut layers = [Span { first: 0, nodes: 0 }; 11];
        for span in layers.iter_mut().take(shape.layers) {
            *span = next(shape.nodes);
        }
        let data = next(shape.nodes);
        let tree_c = next(shape.tree_nodes());
        let tree_r = next(shape.tree_nodes());
        // Pieces are joined in the same memory: a parent and its children fit in any case.
        let end = end.max(shape.arity + 1);
        Self { layers, data, tree_c, tree_r, end }
    }
}

/// What a batch is made of, and room for what is made of it: all of [`Shape::nodes`] nodes, but
/// for trees.
#[derive(Debug)]
pub struct Batch<'b> {
    /// The labels, layer by layer.
    pub layers: &'b [&'b [Node]],
    /// The data.
    pub data: &'b [Node],
    /// Tree C: hashes of columns, then row upon row. When columns are not the device's part, the
    /// hashes must be there.
    pub tree_c: &'b mut [Node],
    /// The replica.
    pub replica: &'b mut [Node],
    /// Tree R last without its leaves, which are the replica.
    pub tree_r: &'b mut [Node],
}

/// The kernels of a worker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kernels {
    pub(crate) columns: Handle,
    pub(crate) rows: Handle,
    pub(crate) encode: Handle,
}

impl Kernels {
    /// Those for batches of this shape, if there are such kernels.
    pub(crate) fn find(device: &Device, shape: Shape) -> Result<Self, CudaError> {
        let name = |what: &str, arity: usize| match arity {
            2 | 8 | 11 => device.0.kernel(&format!("seal_{what}_{arity}")),
            _ => Err(CudaError::Unsupported { what: format!("{what} of {arity}") }),
        };
        let power = rows(shape.nodes, shape.arity).all(|row| row == 1 || row % shape.arity == 0);
        if !power || shape.nodes == 0 || !matches!(shape.arity, 2 | 8) {
            return Err(CudaError::Unsupported {
                what: format!("batches of {} nodes, {} a parent", shape.nodes, shape.arity),
            });
        }
        device.0.enter()?;
        Ok(Self {
            columns: name("columns", shape.layers)?,
            rows: name("rows", shape.arity)?,
            encode: device.0.kernel("seal_encode")?,
        })
    }
}

/// Which report belongs to whom.
mod report {
    pub(super) const COLUMNS: usize = 0;
    pub(super) const ENCODE: usize = 1;
    pub(super) const ROWS: usize = 2;
}

/// Computes one batch after the other.
#[derive(Debug)]
pub struct Worker {
    stream: Stream,
    kernels: Kernels,
    parts: Parts,
    /// The batches that it is given.
    shape: Shape,
    /// What fits on the device at a time: `shape`, or the same in smaller pieces.
    piece: Shape,
    places: Places,
}

impl Worker {
    /// A worker for batches of this shape. Where the device has no room for one, it is worked on
    /// in pieces, each a row lower than the last that did not fit.
    pub fn new(device: &Device, shape: Shape, parts: Parts) -> Result<Self, CudaError> {
        let kernels = Kernels::find(device, shape)?;
        let mut piece = shape;
        let stream = loop {
            match Stream::new(device, Places::of(piece).end) {
                Ok(stream) => break stream,
                Err(error) if error.is_out_of_memory() => {
                    let Some(smaller) = piece.smaller() else {
                        return Err(CudaError::Memory {
                            nodes: piece.nodes,
                            bytes: piece.device_bytes(),
                            free: device.free_bytes()?,
                        });
                    };
                    tracing::warn!(
                        nodes = piece.nodes,
                        bytes = piece.device_bytes(),
                        "the device has no room for the batch; it is worked on in pieces of {} \
                         nodes",
                        smaller.nodes
                    );
                    piece = smaller;
                }
                Err(error) => return Err(error),
            }
        };
        Ok(Self { stream, kernels, parts, shape, piece, places: Places::of(piece) })
    }

    /// Nodes that are on the device at a time.
    pub fn piece_nodes(&self) -> usize {
        self.piece.nodes
    }

    /// Fills all results of the batch that are the device's part.
    ///
    /// # Panics
    /// When a length is not that of the worker's shape.
    pub fn compute(&mut self, batch: &mut Batch<'_>) -> Result<(), BatchError> {
        let Shape { layers, nodes, .. } = self.shape;
        let tree = self.shape.tree_nodes();
        assert!(
            batch.layers.len() == layers && batch.layers.iter().all(|layer| layer.len() == nodes),
            "labels for every column"
        );
        assert!(batch.data.len() == nodes && batch.replica.len() == nodes, "data for every node");
        assert!(
            batch.tree_c.len() == tree && batch.tree_r.len() == tree - nodes,
            "room for the whole trees"
        );
        self.stream.enter().map_err(BatchError::Device)?;
        for piece in 0..nodes / self.piece.nodes {
            let started = self.start_piece(batch, piece);
            // Also after an error: what was started uses the caller's memory.
            let ended = self.stream.wait_for_reports();
            started?;
            self.judge(ended?, piece * self.piece.nodes)?;
        }
        if self.parts.trees && self.piece.nodes < nodes {
            self.join_pieces(batch)?;
        }
        Ok(())
    }

    /// Gives the stream all that a piece takes. Nothing is waited for.
    fn start_piece(&self, batch: &mut Batch<'_>, piece: usize) -> Result<(), CudaError> {
        let Self { stream, places, kernels, .. } = self;
        let Shape { layers, nodes, .. } = self.piece;
        let here = piece * nodes..(piece + 1) * nodes;
        let leaves_c = places.tree_c.part(0, nodes);
        let leaves_r = places.tree_r.part(0, nodes);
        stream.clear_reports()?;
        if self.parts.columns {
            for (span, labels) in places.layers.iter().zip(batch.layers) {
                stream.upload(*span, &labels[here.clone()])?;
            }
            stream.launch(
                kernels.columns,
                nodes,
                &[
                    Argument::Layers(places.layers),
                    Argument::Count(nodes),
                    Argument::Nodes(leaves_c),
                    Argument::Report(report::COLUMNS),
                ],
            )?;
            stream.download(&mut batch.tree_c[here.clone()], leaves_c)?;
        }
        if !self.parts.trees {
            return Ok(());
        }
        let labels = places.layers[layers - 1];
        if !self.parts.columns {
            stream.upload(leaves_c, &batch.tree_c[here.clone()])?;
            stream.upload(labels, &batch.layers[layers - 1][here.clone()])?;
        }
        stream.upload(places.data, &batch.data[here.clone()])?;
        stream.launch(
            kernels.encode,
            nodes,
            &[
                Argument::Nodes(places.data),
                Argument::Nodes(labels),
                Argument::Count(nodes),
                Argument::Nodes(leaves_r),
                Argument::Report(report::ENCODE),
            ],
        )?;
        stream.download(&mut batch.replica[here], leaves_r)?;
        self.rows_above(places.tree_c, self.shape.nodes, &mut *batch.tree_c, piece)?;
        self.rows_above(places.tree_r, 0, &mut *batch.tree_r, piece)
    }

    /// Hashes the rows above the leaves of a piece's tree on the device, and copies them to where
    /// they belong in a tree over the whole batch, whose rows above the leaves begin at `at`.
    fn rows_above(
        &self,
        tree: Span,
        mut at: usize,
        to: &mut [Node],
        piece: usize,
    ) -> Result<(), CudaError> {
        let Shape { arity, nodes, .. } = self.piece;
        let pieces = self.shape.nodes / nodes;
        let (mut first, mut children) = (0, nodes);
        for length in rows(nodes, arity).skip(1) {
            let parents = tree.part(first + children, length);
            self.stream.launch(
                self.kernels.rows,
                length,
                &[
                    Argument::Nodes(tree.part(first, children)),
                    Argument::Count(length),
                    Argument::Nodes(parents),
                    Argument::Report(report::ROWS),
                ],
            )?;
            let place = at + piece * length;
            self.stream.download(&mut to[place..place + length], parents)?;
            at += pieces * length;
            first += children;
            children = length;
        }
        Ok(())
    }

    /// The rows above the roots of pieces.
    fn join_pieces(&self, batch: &mut Batch<'_>) -> Result<(), BatchError> {
        let (leaves, above) = batch.tree_c.split_at_mut(self.shape.nodes);
        self.join_tree(leaves, above)?;
        self.join_tree(batch.replica, batch.tree_r)
    }

    fn join_tree(&self, leaves: &[Node], above: &mut [Node]) -> Result<(), BatchError> {
        let pieces = self.shape.nodes / self.piece.nodes;
        let (mut children, mut rest) = (leaves, above);
        for length in rows(self.shape.nodes, self.shape.arity).skip(1) {
            let (parents, others) = rest.split_at_mut(length);
            if length < pieces {
                self.hash_portions(children, parents)?;
            }
            (children, rest) = (parents, others);
        }
        Ok(())
    }

    /// The parents of `children`, row by row as the worker's arity says.
    ///
    /// # Panics
    /// When there are not as many children as the parents have.
    pub fn hash_rows(&mut self, children: &[Node], parents: &mut [Node]) -> Result<(), BatchError> {
        let arity = self.shape.arity;
        assert_eq!(children.len(), parents.len() * arity, "{arity} children for every parent");
        self.stream.enter().map_err(BatchError::Device)?;
        self.hash_portions(children, parents)
    }

    /// Hashes rows in portions that the stream's memory has room for.
    fn hash_portions(&self, children: &[Node], parents: &mut [Node]) -> Result<(), BatchError> {
        let arity = self.shape.arity;
        let room = Span { first: 0, nodes: self.places.end };
        let portion = (room.nodes / (arity + 1)).max(1);
        for (number, (children, parents)) in
            children.chunks(portion * arity).zip(parents.chunks_mut(portion)).enumerate()
        {
            let from = room.part(0, children.len());
            let to = room.part(children.len(), parents.len());
            let started = self.stream.clear_reports().and_then(|()| {
                self.stream.upload(from, children)?;
                self.stream.launch(
                    self.kernels.rows,
                    parents.len(),
                    &[
                        Argument::Nodes(from),
                        Argument::Count(parents.len()),
                        Argument::Nodes(to),
                        Argument::Report(report::ROWS),
                    ],
                )?;
                self.stream.download(parents, to)
            });
            let ended = self.stream.wait_for_reports();
            started.map_err(BatchError::Device)?;
            self.judge(ended?, number * portion * arity)?;
        }
        Ok(())
    }

    /// An error for what the kernels have reported of nodes from `first` on.
    fn judge(
        &self,
        reports: [Option<u64>; Stream::REPORTS],
        first: usize,
    ) -> Result<(), BatchError> {
        let layers = self.shape.layers;
        let node = |place: u64, each: usize| first + place as usize / each;
        if let Some(place) = reports[report::COLUMNS] {
            let layer = place as usize % layers;
            return Err(BatchError::Label { layer, node: node(place, layers) });
        }
        if let Some(place) = reports[report::ENCODE] {
            let node = node(place, 2);
            return Err(match place % 2 {
                0 => BatchError::Data { node },
                _ => BatchError::Label { layer: layers - 1, node },
            });
        }
        match reports[report::ROWS] {
            Some(place) => Err(BatchError::Child { node: node(place, 1) }),
            None => Ok(()),
        }
    }
}
