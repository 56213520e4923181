//! Measurements: how fast the multiplier pipe of a device is, and how fast the kernels are on data
//! that is made on the device, so that neither disk nor bus counts.

use std::time::{Duration, Instant};

use seal_poseidon::{Poseidon, element_from_bytes, element_to_bytes};

use crate::batch::{Node, Shape};
use crate::resident::Resident;
use crate::stream::{Argument, Span, Stream};
use crate::{BatchError, CudaError, Device};

/// An instruction whose rate is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pipe {
    /// 32-bit multiply-add, lower half.
    Imad,
    /// 32-bit product of 64 bits.
    ImadWide,
    /// The same with addend and carry, as the field arithmetic uses it.
    ImadWideCarry,
    /// 64-bit floating-point multiply-add.
    Dfma,
}

impl Pipe {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Imad, Self::ImadWide, Self::ImadWideCarry, Self::Dfma];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Imad => "IMAD",
            Self::ImadWide => "IMAD.WIDE",
            Self::ImadWideCarry => "IMAD.WIDE with carry",
            Self::Dfma => "DFMA",
        }
    }

    fn kernel(self) -> &'static str {
        match self {
            Self::Imad => "seal_pipe_imad",
            Self::ImadWide => "seal_pipe_imad_wide",
            Self::ImadWideCarry => "seal_pipe_imad_wide_carry",
            Self::Dfma => "seal_pipe_dfma",
        }
    }

    /// Instructions of a thread in one round: `CHAINS` of `kernels/kernels.cu`, times those of a
    /// step.
    fn instructions(self) -> u64 {
        if self == Self::ImadWideCarry { 16 } else { 8 }
    }
}

/// Threads of the one block that each multiprocessor gets.
const PIPE_THREADS: u32 = 1024;

/// How fast an instruction is executed, counted by threads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PipeRate {
    /// By each multiprocessor in a clock.
    pub per_clock: f64,
    /// By the whole device in a second, at the clock that it had.
    pub per_second: f64,
}

/// The rounds of the two launches whose difference is measured. The long one takes some ten
/// milliseconds.
pub const PIPE_ROUNDS: std::ops::Range<u64> = 1 << 10..1 << 17;

/// Measures the rate of an instruction by launches of so few and so many rounds: [`PIPE_ROUNDS`],
/// unless the device is one that time does not matter on.
pub fn pipe_rate(
    device: &Device,
    pipe: Pipe,
    rounds: std::ops::Range<u64>,
) -> Result<PipeRate, CudaError> {
    let blocks = u32::try_from(device.info().multiprocessors.max(1)).unwrap_or(1);
    // Clocks, one number of 64 bits for each block, then room for what is never written.
    let nodes = (blocks as usize).div_ceil(4);
    let mut stream = Stream::new(device, nodes + 64)?;
    let kernel = device.0.kernel(pipe.kernel())?;
    let (clocks, sink) = (Span { first: 0, nodes }, Span { first: nodes, nodes: 64 });
    let mut time = |rounds: u64| -> Result<(f64, f64), CudaError> {
        let started = Instant::now();
        let mut counts = vec![[0; 32]; nodes];
        stream.in_flight(|work| {
            work.launch_grid(
                kernel,
                (blocks, PIPE_THREADS),
                &[
                    Argument::Number(rounds),
                    Argument::Number(0x1234_5677),
                    Argument::Nodes(clocks),
                    Argument::Nodes(sink),
                ],
            )?;
            work.download(&mut counts, clocks)
        })?;
        let seconds = started.elapsed().as_secs_f64();
        let (words, _) = counts.as_flattened().as_chunks::<8>();
        let counts = words[..blocks as usize].iter().map(|word| u64::from_le_bytes(*word) as f64);
        Ok((counts.sum::<f64>() / f64::from(blocks), seconds))
    };
    // The first launch warms the clock up.
    let (few, many) = (rounds.start, rounds.end);
    time(many)?;
    let (long, short) = (time(many)?, time(few)?);
    let executed = ((many - few) * pipe.instructions() * u64::from(PIPE_THREADS)) as f64;
    Ok(PipeRate {
        per_clock: executed / (long.0 - short.0),
        per_second: executed * f64::from(blocks) / (long.1 - short.1),
    })
}

/// Word multiplications of 32 by 32 bits for one hash, as the kernels do them: 64 a product, 36 a
/// square, 6 for each word that is reduced.
pub fn word_multiplications(arity: u32) -> Option<u64> {
    const PRODUCT: u64 = 64 + 48;
    const SQUARES: u64 = 2 * (36 + 48);
    const S_BOX: u64 = SQUARES + PRODUCT;
    let width = u64::from(arity) + 1;
    let small_words = match arity {
        2 | 8 => 1,
        11 => 2,
        _ => return None,
    };
    let small_row = width * 8 * small_words + 12;
    let full = |rounds: u64| rounds * width * (S_BOX + small_row);
    // The last round has one row of its matrix, and a product that makes the hash of it.
    let last = width * S_BOX + small_row + PRODUCT;
    let dots = |products: u64| products * 64 + 54;
    Some(match arity {
        11 => {
            // A matrix by its triangles, each row of them but one a dot product.
            let matrix = |size: u64| size * size * 64 + (2 * size - 1) * 54;
            // The product that ends the S-box is a term of the first sum.
            let partial = SQUARES + 2 * dots(width);
            full(3)
                + width * S_BOX
                + matrix(width)
                + 57 * partial
                + matrix(width - 1)
                + full(3)
                + last
        }
        _ => {
            let partial_rounds = if arity == 2 { 55 } else { 57 };
            full(7) + partial_rounds * (S_BOX + PRODUCT + width * small_row) + last
        }
    })
}

/// How long the kernels took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KernelTimes {
    /// Hashes of columns in a second.
    pub columns: f64,
    /// Hashes of rows, of a whole tree over a batch, in a second.
    pub rows: f64,
    /// Nodes of the replica in a second.
    pub encode: f64,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Layers, arity and nodes of a batch.
    pub shape: Shape,
    /// Batches in flight.
    pub streams: usize,
}

/// The rates of the kernels alone, each from about so many batches.
pub fn kernel_times(
    device: &Device,
    load: Load,
    batches: usize,
) -> Result<KernelTimes, BatchError> {
    let mut residents = residents(device, load)?;
    let mut time = |work: &(dyn Fn(&mut Resident) -> Result<(), CudaError> + Sync)| {
        let each = batches.div_ceil(load.streams).max(1);
        in_flight(&mut residents, &|resident| (0..each).try_for_each(|_| work(resident)))
            .map(|(took, _)| took.as_secs_f64() / (each * load.streams) as f64)
    };
    // Clocks rise, and the first launch of a kernel loads it.
    time(&|resident| resident.columns())?;
    let columns = time(&|resident| resident.columns())?;
    // Leaves are there before the rows above them.
    time(&|resident| resident.encode())?;
    let encode = time(&|resident| resident.encode())?;
    time(&|resident| resident.rows())?;
    let rows = time(&|resident| resident.rows())?;
    let parents = 2 * (load.shape.tree_nodes() - load.shape.nodes);
    let nodes = load.shape.nodes as f64;
    Ok(KernelTimes {
        columns: nodes / columns,
        rows: parents as f64 / rows,
        encode: nodes / encode,
    })
}

/// How long a sector of `nodes` nodes takes on data that is on the device: columns, both trees and
/// the replica, batch by batch. A column, a node of the replica and a row of the last batch of each
/// stream are compared with the processor, if it got one: a slow one may find none left.
pub fn whole_sector(device: &Device, load: Load, nodes: u64) -> Result<Duration, BatchError> {
    let mut residents = residents(device, load)?;
    let batches = nodes.div_ceil(load.shape.nodes as u64);
    let next = std::sync::atomic::AtomicU64::new(0);
    let (took, worked) = in_flight(&mut residents, &|resident| {
        let mut worked = false;
        while next.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < batches {
            worked = true;
            resident.columns()?;
            resident.encode()?;
            resident.rows()?;
            // One batch of each stream at a time, as with real data.
            resident.wait()?;
        }
        Ok(worked)
    })?;
    for (resident, _) in residents.iter_mut().zip(worked).filter(|(_, worked)| *worked) {
        check(resident, load.shape)?;
    }
    Ok(took)
}

fn residents(device: &Device, load: Load) -> Result<Vec<Resident>, BatchError> {
    if load.streams == 0 {
        let what = "no batch in flight; at least 1 is needed".to_owned();
        return Err(CudaError::Unsupported { what }.into());
    }
    (0..load.streams)
        .map(|stream| Resident::new(device, load.shape, stream as u64).map_err(BatchError::Device))
        .collect()
}

/// Runs `work` on every stream at the same time, until all is done. Returns how long it took, and
/// what came of it on each.
fn in_flight<T: Send>(
    residents: &mut [Resident],
    work: &(dyn Fn(&mut Resident) -> Result<T, CudaError> + Sync),
) -> Result<(Duration, Vec<T>), BatchError> {
    let started = Instant::now();
    let joined: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = residents
            .iter_mut()
            .map(|resident| {
                scope.spawn(move || {
                    resident.enter()?;
                    let done = work(resident)?;
                    resident.wait()?;
                    Ok(done)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join()).collect()
    });
    let took = started.elapsed();
    let results = joined.into_iter().map(|joined| match joined {
        Ok(result) => result.map_err(BatchError::Device),
        Err(panic) => std::panic::resume_unwind(panic),
    });
    Ok((took, results.collect::<Result<_, _>>()?))
}

/// Compares a column, the replica of its node and a parent with what the processor makes of the
/// same data: work that was not done is not fast.
fn check(resident: &mut Resident, shape: Shape) -> Result<(), BatchError> {
    resident.enter().map_err(BatchError::Device)?;
    let node = shape.nodes / 3;
    let column = resident.column(node)?;
    let hash = Poseidon::of_arity(shape.layers as u32)
        .and_then(|poseidon| poseidon.hash_nodes(&column).ok());
    let leaf = resident.leaf(node)?;
    if hash != Some(leaf) {
        return Err(wrong("a column"));
    }
    let (data, label) = (resident.data(node)?, column[shape.layers - 1]);
    if !resident.made_up(node).eq(column.iter().copied().chain([data])) {
        return Err(wrong("made-up data"));
    }
    let sum = element_from_bytes(&data).zip(element_from_bytes(&label)).map(|(d, l)| d + l);
    if sum.map(|sum| element_to_bytes(&sum)) != Some(resident.replica(node)?) {
        return Err(wrong("the replica"));
    }
    if shape.nodes > 1 {
        let (children, parent): (Vec<Node>, Node) = resident.first_row()?;
        let hash = Poseidon::of_arity(shape.arity as u32)
            .and_then(|poseidon| poseidon.hash_nodes(&children).ok());
        if hash != Some(parent) {
            return Err(wrong("a row"));
        }
    }
    Ok(())
}

fn wrong(what: &str) -> BatchError {
    BatchError::Device(CudaError::Wrong { what: what.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn word_multiplications_are_counted_once() {
        let counts = [2, 8, 11].map(|arity| word_multiplications(arity).expect("of the network"));
        assert_eq!(counts, [35_124, 91_084, 164_504]);
        assert_eq!(word_multiplications(4), None);
    }
}
