//! A launch: blocks on the threads of the machine, in an order drawn from a seed, and the threads
//! of each block in an order drawn from it too.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use crate::fault::{Deed, RunFault};
use crate::flow::Program;
use crate::lanes::LANES;
use crate::memory::{Memory, View};
use crate::shared::Shared;
use crate::warp::{Block, Caught, Fragment, Stop, Warp};

/// What is launched.
pub(crate) struct Launch<'l> {
    pub(crate) program: &'l Program,
    pub(crate) shared_bytes: u64,
    pub(crate) local_bytes: u64,
    pub(crate) parameters: &'l [u8],
    pub(crate) blocks: u32,
    pub(crate) threads: u32,
    pub(crate) seed: u64,
    pub(crate) most_steps: u64,
}

/// Numbers of a reproducible kind.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

/// How often each basic block was entered, or what went wrong first.
pub(crate) fn run(launch: &Launch<'_>, memory: &Memory) -> Result<Vec<u64>, Box<RunFault>> {
    let mut order: Vec<u32> = (0..launch.blocks).collect();
    Draw(launch.seed).shuffle(&mut order);
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let fault = Mutex::new(None);
    let counts = Mutex::new(vec![0; launch.program.blocks.len()]);
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(order.len());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                let mut worker = Worker::new(launch, memory);
                while !stop.load(Relaxed) {
                    let Some(&block) = order.get(next.fetch_add(1, Relaxed)) else { break };
                    if let Err(found) = worker.block(block) {
                        stop.store(true, Relaxed);
                        let mut fault =
                            fault.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                        fault.get_or_insert((block, found));
                    }
                }
                let mut counts = counts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                counts.iter_mut().zip(&worker.entered).for_each(|(sum, more)| *sum += more);
            });
        }
    });
    match fault.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        None => Ok(counts.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)),
        Some((block, Caught { deed, step, thread })) => Err(Box::new(RunFault {
            kernel: String::new(),
            line: launch.program.steps[step as usize].line,
            instruction: String::new(),
            block,
            thread,
            deed,
        })),
    }
}

/// One thread of the machine, with what it needs for a block.
struct Worker<'w> {
    launch: &'w Launch<'w>,
    memory: &'w Memory,
    arch: pulp::Arch,
    view: View,
    warps: Vec<Warp>,
    entered: Vec<u64>,
}

/// Whose turn it is, in a block.
#[derive(Clone, Copy)]
struct Turns {
    /// Where threads have parted, those that are behind go first, so that they join again; now and
    /// then a block goes by chance.
    by_chance: bool,
    /// Basic blocks of a turn.
    patience: u32,
    /// Steps that a block may take.
    most_steps: u64,
}

impl<'w> Worker<'w> {
    fn new(launch: &'w Launch<'w>, memory: &'w Memory) -> Self {
        let count = (launch.threads as usize).div_ceil(LANES);
        Self {
            launch,
            memory,
            arch: pulp::Arch::new(),
            view: View::new(memory),
            warps: (0..count).map(|_| Warp::new(launch.program, launch.local_bytes)).collect(),
            entered: vec![0; launch.program.blocks.len()],
        }
    }

    fn block(&mut self, number: u32) -> Result<(), Caught> {
        let launch = self.launch;
        let mut draw = Draw(launch.seed ^ u64::from(number) << 32 ^ 0x5851_f42d_4c95_7f2d);
        let mut threads: Vec<u32> = (0..launch.threads).collect();
        draw.shuffle(&mut threads);
        for (warp, threads) in self.warps.iter_mut().zip(threads.chunks(LANES)) {
            warp.start(launch.program, threads);
        }
        let turns = Turns {
            by_chance: draw.below(8) == 0,
            patience: 1 << draw.below(14),
            most_steps: launch.most_steps,
        };
        let mut shared = Shared::new(launch.shared_bytes);
        let mut block = Block {
            program: launch.program,
            memory: self.memory,
            view: &mut self.view,
            shared: &mut shared,
            parameters: launch.parameters,
            number,
            threads: launch.threads,
            blocks: launch.blocks,
            clock: 0,
            entered: &mut self.entered,
        };
        loop {
            let mut able: Vec<_> =
                (0..self.warps.len()).filter(|&i| !self.warps[i].fragments.is_empty()).collect();
            if able.is_empty() {
                if !pass_barrier(&mut self.warps, &mut block)? {
                    return Ok(());
                }
                continue;
            }
            draw.shuffle(&mut able);
            for i in able {
                turn(self.arch, &mut self.warps[i], &mut block, turns, &mut draw)?;
            }
        }
    }
}

/// One fragment of a warp goes on for a while.
fn turn(
    arch: pulp::Arch,
    warp: &mut Warp,
    block: &mut Block<'_>,
    turns: Turns,
    draw: &mut Draw,
) -> Result<(), Caught> {
    let fragments = &mut warp.fragments;
    // Those who have met again go on together.
    fragments.sort_unstable_by_key(|fragment| fragment.at);
    fragments.dedup_by(|from, into| {
        let met = from.at == into.at;
        if met {
            into.lanes |= from.lanes;
        }
        met
    });
    let chosen = if turns.by_chance { draw.below(fragments.len()) } else { 0 };
    let fragment = fragments.remove(chosen);
    if block.clock > turns.most_steps {
        let thread = warp.first_thread(fragment);
        return Err(Caught { deed: Deed::Endless, step: fragment.at, thread });
    }
    match warp.run(arch, block, fragment, turns.patience)? {
        Stop::Pause(fragment) => warp.fragments.push(fragment),
        Stop::Barrier(fragment) => warp.waiting.push(fragment),
        Stop::Ended => {}
    }
    Ok(())
}

/// Lets all threads go on that wait at a barrier, if all of the block wait there. Whether there
/// are any.
fn pass_barrier(warps: &mut [Warp], block: &mut Block<'_>) -> Result<bool, Caught> {
    let waiting: Vec<(Fragment, u32)> = warps
        .iter()
        .flat_map(|warp| warp.waiting.iter().map(|f| (*f, warp.first_thread(*f))))
        .collect();
    let Some(&(first, thread)) = waiting.first() else { return Ok(false) };
    let count: u32 = waiting.iter().map(|(fragment, _)| fragment.lanes.count_ones()).sum();
    if count != block.threads || waiting.iter().any(|(fragment, _)| fragment.at != first.at) {
        return Err(Caught { deed: Deed::Barrier, step: first.at - 1, thread });
    }
    block.shared.barriers += 1;
    for warp in warps {
        warp.fragments.append(&mut warp.waiting);
    }
    Ok(true)
}
