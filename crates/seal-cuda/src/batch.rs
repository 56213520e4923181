//! Batches: the columns, the replica and the trees over them of a run of nodes.
//!
//! A [`Worker`] keeps one stream and memory for one batch. Several workers, each on a thread of
//! its own, have several batches in flight: while one's kernels run, another's data is on its way.
//! The processor touches no data: byte order, the change to the kernels' numbers and the gathering
//! of columns happen in the first kernel.

use crate::driver::Handle;
use crate::stream::{Argument, NODE, Reports, Span, Stream, Work};
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
    plan: Plan,
}

/// How batches are computed.
#[derive(Debug)]
struct Plan {
    kernels: Kernels,
    parts: Parts,
    /// The batches that are given.
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
        Ok(Self { stream, plan: Plan { kernels, parts, shape, piece, places: Places::of(piece) } })
    }

    /// Nodes that are on the device at a time.
    pub fn piece_nodes(&self) -> usize {
        self.plan.piece.nodes
    }

    /// Fills all results of the batch that are the device's part.
    ///
    /// # Panics
    /// When a length is not that of the worker's shape.
    pub fn compute(&mut self, batch: &mut Batch<'_>) -> Result<(), BatchError> {
        let Self { stream, plan } = self;
        let Shape { layers, nodes, .. } = plan.shape;
        let tree = plan.shape.tree_nodes();
        assert!(
            batch.layers.len() == layers && batch.layers.iter().all(|layer| layer.len() == nodes),
            "labels for every column"
        );
        assert!(batch.data.len() == nodes && batch.replica.len() == nodes, "data for every node");
        assert!(
            batch.tree_c.len() == tree && batch.tree_r.len() == tree - nodes,
            "room for the whole trees"
        );
        stream.enter()?;
        for piece in 0..nodes / plan.piece.nodes {
            let reports = stream.in_flight(|work| plan.start_piece(work, batch, piece))?;
            plan.judge(reports, piece * plan.piece.nodes)?;
        }
        if plan.parts.trees && plan.piece.nodes < nodes {
            // The rows above the roots of pieces.
            let (leaves, above) = batch.tree_c.split_at_mut(nodes);
            plan.join_tree(stream, leaves, above)?;
            plan.join_tree(stream, batch.replica, batch.tree_r)?;
        }
        Ok(())
    }

    /// The parents of `children`, row by row as the worker's arity says.
    ///
    /// # Panics
    /// When there are not as many children as the parents have.
    pub fn hash_rows(&mut self, children: &[Node], parents: &mut [Node]) -> Result<(), BatchError> {
        let arity = self.plan.shape.arity;
        assert_eq!(children.len(), parents.len() * arity, "{arity} children for every parent");
        self.stream.enter()?;
        self.plan.hash_portions(&mut self.stream, children, parents)
    }
}

impl Plan {
    /// Gives the stream all that a piece takes. Nothing is waited for.
    fn start_piece<'m>(
        &self,
        work: &Work<'_, '_, 'm>,
        batch: &'m mut Batch<'_>,
        piece: usize,
    ) -> Result<(), CudaError> {
        let Self { kernels, places, .. } = self;
        let Shape { layers, nodes, .. } = self.piece;
        let here = piece * nodes..(piece + 1) * nodes;
        let leaves_c = places.tree_c.part(0, nodes);
        let leaves_r = places.tree_r.part(0, nodes);
        let (hashes, above_c) = batch.tree_c.split_at_mut(self.shape.nodes);
        let hashes = &mut hashes[here.clone()];
        work.clear_reports()?;
        if self.parts.columns {
            for (span, labels) in places.layers.iter().zip(batch.layers) {
                work.upload(*span, &labels[here.clone()])?;
            }
            work.launch(
                kernels.columns,
                nodes,
                &[
                    Argument::Layers(places.layers),
                    Argument::Count(nodes),
                    Argument::Nodes(leaves_c),
                    Argument::Report(report::COLUMNS),
                ],
            )?;
            work.download(hashes, leaves_c)?;
        } else {
            work.upload(leaves_c, hashes)?;
            work.upload(places.layers[layers - 1], &batch.layers[layers - 1][here.clone()])?;
        }
        if !self.parts.trees {
            return Ok(());
        }
        work.upload(places.data, &batch.data[here.clone()])?;
        work.launch(
            kernels.encode,
            nodes,
            &[
                Argument::Nodes(places.data),
                Argument::Nodes(places.layers[layers - 1]),
                Argument::Count(nodes),
                Argument::Nodes(leaves_r),
                Argument::Report(report::ENCODE),
            ],
        )?;
        work.download(&mut batch.replica[here], leaves_r)?;
        self.rows_above(work, places.tree_c, above_c, piece)?;
        self.rows_above(work, places.tree_r, batch.tree_r, piece)
    }

    /// Hashes the rows above the leaves of a piece's tree on the device, and copies them to where
    /// they belong among the rows above the leaves of the whole batch, `above`.
    fn rows_above<'m>(
        &self,
        work: &Work<'_, '_, 'm>,
        tree: Span,
        mut above: &'m mut [Node],
        piece: usize,
    ) -> Result<(), CudaError> {
        let Shape { arity, nodes, .. } = self.piece;
        let pieces = self.shape.nodes / nodes;
        let (mut first, mut children) = (0, nodes);
        for length in rows(nodes, arity).skip(1) {
            let parents = tree.part(first + children, length);
            work.launch(
                self.kernels.rows,
                length,
                &[
                    Argument::Nodes(tree.part(first, children)),
                    Argument::Count(length),
                    Argument::Nodes(parents),
                    Argument::Report(report::ROWS),
                ],
            )?;
            let (row, higher) = above.split_at_mut(pieces * length);
            work.download(&mut row[piece * length..][..length], parents)?;
            above = higher;
            first += children;
            children = length;
        }
        Ok(())
    }

    fn join_tree(
        &self,
        stream: &mut Stream,
        leaves: &[Node],
        above: &mut [Node],
    ) -> Result<(), BatchError> {
        let pieces = self.shape.nodes / self.piece.nodes;
        let (mut children, mut rest) = (leaves, above);
        for length in rows(self.shape.nodes, self.shape.arity).skip(1) {
            let (parents, others) = rest.split_at_mut(length);
            if length < pieces {
                self.hash_portions(stream, children, parents)?;
            }
            (children, rest) = (parents, others);
        }
        Ok(())
    }

    /// Hashes rows in portions that the stream's memory has room for.
    fn hash_portions(
        &self,
        stream: &mut Stream,
        children: &[Node],
        parents: &mut [Node],
    ) -> Result<(), BatchError> {
        let arity = self.shape.arity;
        let room = Span { first: 0, nodes: self.places.end };
        let portion = (room.nodes / (arity + 1)).max(1);
        for (number, (children, parents)) in
            children.chunks(portion * arity).zip(parents.chunks_mut(portion)).enumerate()
        {
            let from = room.part(0, children.len());
            let to = room.part(children.len(), parents.len());
            let reports = stream.in_flight(|work| {
                work.clear_reports()?;
                work.upload(from, children)?;
                work.launch(
                    self.kernels.rows,
                    parents.len(),
                    &[
                        Argument::Nodes(from),
                        Argument::Count(parents.len()),
                        Argument::Nodes(to),
                        Argument::Report(report::ROWS),
                    ],
                )?;
                work.download(parents, to)
            })?;
            self.judge(reports, number * portion * arity)?;
        }
        Ok(())
    }

    /// An error for what the kernels have reported of nodes from `first` on. Nothing is said of
    /// whether it can be: a device may report anything.
    fn judge(&self, reports: Reports, first: usize) -> Result<(), BatchError> {
        let layers = self.shape.layers as u64;
        let node = |place: u64, each: u64| {
            usize::try_from(place / each).map_or(usize::MAX, |node| first.saturating_add(node))
        };
        if let Some(place) = reports[report::COLUMNS] {
            let layer = (place % layers) as usize;
            return Err(BatchError::Label { layer, node: node(place, layers) });
        }
        if let Some(place) = reports[report::ENCODE] {
            let node = node(place, 2);
            return Err(match place % 2 {
                0 => BatchError::Data { node },
                _ => BatchError::Label { layer: self.shape.layers - 1, node },
            });
        }
        match reports[report::ROWS] {
            Some(place) => Err(BatchError::Child { node: node(place, 1) }),
            None => Ok(()),
        }
    }
}
