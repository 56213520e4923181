//! The consumer thread of a unit: label after label, for up to four sectors.

use std::sync::Arc;

use seal_host::{FullBatch, LayerWriter, RingConsumer};
use seal_sha256::{ALL_PARENTS, BASE_PARENTS, Prepared, Run, prefetch};

use super::feed::Feed;
use super::job::Lane;
use super::own::Own;
use super::unit::{BATCH, Inbox, Spin};

/// Slots ahead for which the consumer asks, before the chain needs them: they come from the
/// producer's caches.
const FETCH_SLOTS: usize = 3;
/// How often a lane that is ready waits for the others before it goes on alone.
const PATIENCE: u32 = 500;

/// Where a lane's prepared labels come from.
pub(crate) enum Source {
    /// From producers.
    Ring(RingConsumer<Prepared>),
    /// From the consumer itself.
    Own(Box<Own>),
}

impl Source {
    pub(crate) fn own(feed: Feed) -> Self {
        Self::Own(Box::new(Own::new(feed)))
    }

    fn is_ready(&self) -> bool {
        match self {
            Self::Ring(ring) => ring.is_ready(),
            Self::Own(_) => true,
        }
    }
}

/// A layer at the consumer.
pub(crate) struct Seated {
    lane: Lane,
    source: Source,
    /// As of the last look.
    next: Next,
}

impl Seated {
    pub(crate) fn new(lane: Lane, source: Source) -> Self {
        Self { lane, source, next: Next::Missing }
    }
}

/// Labels the layers that arrive until the unit ends.
pub(crate) fn run(inbox: &Arc<Inbox<Seated>>) {
    let mut seated: Vec<Seated> = Vec::new();
    let mut spin = Spin::default();
    let mut patience = 0;
    while inbox.receive(&mut seated) {
        // Dropping a lane that was stopped tells the one who waits.
        seated.retain(|one| !one.lane.shared.is_stopped());
        let ready = seated.iter().filter(|one| one.source.is_ready()).count();
        if ready == 0 || ready < seated.len() && patience < PATIENCE {
            patience += u32::from(ready > 0);
            spin.wait();
            continue;
        }
        patience = 0;
        spin.reset();
        step(&mut seated);
        for index in (0..seated.len()).rev() {
            if seated[index].lane.is_complete() {
                let Seated { lane, source, .. } = seated.swap_remove(index);
                drop(source);
                lane.complete();
            }
        }
    }
}

/// What a lane's next batch is like: only batches of one kind can be labelled side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Next {
    /// It begins with the node without parents.
    First,
    /// In layer 1 messages have six parents.
    Layer1,
    Later,
    /// Not prepared yet.
    Missing,
}

impl Next {
    fn of(one: &Seated) -> Self {
        match (one.source.is_ready(), one.lane.next(), one.lane.shared.layer) {
            (false, ..) => Self::Missing,
            (true, 0, _) => Self::First,
            (true, _, 1) => Self::Layer1,
            (true, ..) => Self::Later,
        }
    }
}

/// Labels one batch of every lane that is ready.
fn step(seated: &mut [Seated]) {
    // Readiness may change between two looks, so each lane is looked at once.
    seated.iter_mut().for_each(|one| one.next = Next::of(one));
    seated.sort_by_key(|one| one.next);
    for lanes in seated.chunk_by_mut(|a, b| a.next == b.next) {
        match lanes[0].next {
            Next::First => lanes.iter_mut().for_each(first_batch),
            Next::Layer1 => together::<BASE_PARENTS>(lanes),
            Next::Later => together::<ALL_PARENTS>(lanes),
            Next::Missing => {}
        }
    }
}

/// Labels one batch of each of these lanes, four or two of them side by side.
fn together<const PARENTS: usize>(mut lanes: &mut [Seated]) {
    loop {
        lanes = match lanes {
            [a, b, c, d, rest @ ..] => {
                batch::<PARENTS, 4>([a, b, c, d]);
                rest
            }
            [a, b, rest @ ..] => {
                batch::<PARENTS, 2>([a, b]);
                rest
            }
            [a, rest @ ..] => {
                batch::<PARENTS, 1>([a]);
                rest
            }
            [] => return,
        }
    }
}

/// The first batch of a layer: node 0 has no parents.
fn first_batch(one: &mut Seated) {
    let shared = &one.lane.shared;
    let label = shared.prefix.label_without_parents(shared.layer);
    if shared.layer == 1 {
        batch_from::<BASE_PARENTS, 1>([one], Some(label));
    } else {
        batch_from::<ALL_PARENTS, 1>([one], Some(label));
    }
}

fn batch<const PARENTS: usize, const LANES: usize>(lanes: [&mut Seated; LANES]) {
    batch_from::<PARENTS, LANES>(lanes, None);
}

/// One batch of each lane, node by node together. The lanes of a unit are all fed in the same way.
fn batch_from<const PARENTS: usize, const LANES: usize>(
    mut lanes: [&mut Seated; LANES],
    first_label: Option<[u8; 32]>,
) {
    let skip = usize::from(first_label.is_some());
    if let Some(label) = first_label {
        lanes[0].lane.writer.push(label);
    }
    match lanes[0].source {
        Source::Ring(_) => ring_batch::<PARENTS, LANES>(&mut lanes, skip),
        Source::Own(_) => own_batch::<PARENTS, LANES>(&mut lanes, skip),
    }
}

/// A batch that producers have prepared.
fn ring_batch<const PARENTS: usize, const LANES: usize>(
    lanes: &mut [&mut Seated; LANES],
    skip: usize,
) {
    let kernel = lanes[0].lane.shared.prefix.kernel();
    let lanes = lanes.each_mut().map(|one| {
        let Seated { lane, source, .. } = &mut **one;
        let Source::Ring(ring) = source else { unreachable!("the unit has producers") };
        (&mut lane.writer, ring.try_batch().expect("it was ready"))
    });
    let mut batch = RingBatch { lanes, next: skip };
    kernel.chain::<PARENTS, LANES>(&mut batch);
    for (writer, slots) in batch.lanes {
        writer.publish();
        slots.release();
    }
}

/// What is left of a batch of each lane.
struct RingBatch<'a, const LANES: usize> {
    lanes: [(&'a mut LayerWriter, FullBatch<'a, Prepared>); LANES],
    next: usize,
}

impl<const LANES: usize> Run<LANES> for RingBatch<'_, LANES> {
    #[inline(always)]
    fn advance(&mut self) -> bool {
        if self.next == BATCH {
            return false;
        }
        for (writer, slots) in &mut self.lanes {
            if let Some(later) = slots.get(self.next + FETCH_SLOTS) {
                prefetch(later);
            }
            slots[self.next].patch(writer.written());
        }
        true
    }

    #[inline(always)]
    fn prepared(&self) -> [&Prepared; LANES] {
        self.lanes.each_ref().map(|(_, slots)| &slots[self.next])
    }

    #[inline(always)]
    fn done(&mut self, labels: [[u8; 32]; LANES]) {
        for ((writer, _), label) in self.lanes.iter_mut().zip(labels) {
            writer.push(label);
        }
        self.next += 1;
    }
}

/// A batch that the consumer prepares itself, while the chain of the node before is at work.
fn own_batch<const PARENTS: usize, const LANES: usize>(
    lanes: &mut [&mut Seated; LANES],
    skip: usize,
) {
    let kernel = lanes[0].lane.shared.prefix.kernel();
    let lanes = lanes.each_mut().map(|one| {
        let Seated { lane, source, .. } = &mut **one;
        let Source::Own(own) = source else { unreachable!("the unit has no producers") };
        (&mut lane.writer, &mut **own)
    });
    let mut batch = OwnBatch { lanes, left: BATCH - skip };
    kernel.chain::<PARENTS, LANES>(&mut batch);
    for (writer, _) in batch.lanes {
        writer.publish();
    }
}

/// What is left of a batch of each lane.
struct OwnBatch<'a, const LANES: usize> {
    lanes: [(&'a mut LayerWriter, &'a mut Own); LANES],
    left: usize,
}

impl<const LANES: usize> Run<LANES> for OwnBatch<'_, LANES> {
    #[inline(always)]
    fn advance(&mut self) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        for (writer, own) in &mut self.lanes {
            own.advance(writer.written(), writer.nodes());
        }
        true
    }

    #[inline(always)]
    fn prepared(&self) -> [&Prepared; LANES] {
        self.lanes.each_ref().map(|(_, own)| own.current())
    }

    #[inline(always)]
    fn beside(&mut self) {
        for (writer, own) in &mut self.lanes {
            own.step(writer.written());
        }
    }

    #[inline(always)]
    fn done(&mut self, labels: [[u8; 32]; LANES]) {
        for ((writer, _), label) in self.lanes.iter_mut().zip(labels) {
            writer.push(label);
        }
    }
}
