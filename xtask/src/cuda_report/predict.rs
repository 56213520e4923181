//! How long a card is predicted to take for the work of a sector: what the kernels execute, by the
//! published rates of the card's parts, each at full use. Nothing of it was measured.

use std::collections::BTreeMap;

use super::cards::Card;
use super::classes::Pipe;
use super::counts::Whole;

/// Instructions of threads that a multiprocessor issues in a clock: four warps of 32.
const ISSUED: f64 = 128.0;
/// Results a clock and multiprocessor, for compute 8.0 to 9.0, of 32-bit products with addend and of
/// 32-bit sums, comparisons, shifts and logic. Source: "Throughput of Native Arithmetic
/// Instructions" in the CUDA C++ Programming Guide.
const PRODUCTS: f64 = 64.0;
const RESULTS_OF_LOGIC: f64 = 64.0;
/// Bytes a clock and multiprocessor to and from shared memory: 32 banks of a word.
const SHARED_BYTES: f64 = 128.0;
/// Of what a bus carries at most, the part that is left for data.
const BUS_USED: f64 = 0.8;

/// What is not published: the rate of wide products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WideRate {
    /// As other products.
    Full,
    /// Half of that, since a wide product has two words.
    Half,
}

impl WideRate {
    pub(crate) const ALL: [Self; 2] = [Self::Full, Self::Half];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Half => "half",
        }
    }

    /// Places of other products that one takes.
    fn places(self) -> f64 {
        match self {
            Self::Full => 1.0,
            Self::Half => 2.0,
        }
    }
}

/// What can be the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Issue,
    Multiplier,
    Logic,
    SharedMemory,
    Memory,
    Bus,
}

impl Part {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Issue => "issue slots",
            Self::Multiplier => "multiplier",
            Self::Logic => "logic",
            Self::SharedMemory => "shared memory",
            Self::Memory => "memory",
            Self::Bus => "PCI Express",
        }
    }
}

/// A kernel's part in a sector.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Work<'a> {
    /// What a thread executes.
    pub(crate) whole: &'a Whole,
    /// Threads.
    pub(crate) threads: u64,
    /// Bytes of the card's memory that a thread reads and writes.
    pub(crate) bytes: u64,
}

/// Nodes of a 32 GiB sector, of which each has a column and a node of the replica.
pub(crate) const NODES: u64 = 1 << 30;
/// Hashes of rows in its two trees over that: 8 + 8^2 + … + 8^9 of each, and the root.
pub(crate) const ROWS: u64 = 2 * ((1 << 30) - 1) / 7;
/// Bytes of each node over the bus to the card, labels of eleven layers and data.
const BUS_BYTES: u64 = 12 * 32;

/// Bytes that a thread of columns, rows and the replica reads and writes.
pub(crate) const COLUMN_BYTES: u64 = 12 * 32;
pub(crate) const ROW_BYTES: u64 = 9 * 32;
pub(crate) const ENCODE_BYTES: u64 = 3 * 32;

/// How long a sector is predicted to take.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Prediction {
    /// Of the kernels, one after the other, or of the bus, if that takes longer.
    pub(crate) seconds: f64,
    /// Of the kernels alone, with what they work on in the card's memory.
    pub(crate) kernels: f64,
    /// What most of that is spent on.
    pub(crate) limit: Part,
    /// What each part takes for all of the work.
    pub(crate) parts: BTreeMap<Part, f64>,
}

impl Prediction {
    /// For a sector of 32 GiB.
    pub(crate) fn of(card: &Card, work: &[Work<'_>], rate: WideRate) -> Self {
        let clocks = f64::from(card.multiprocessors) * card.boost_ghz * 1e9;
        let mut parts: BTreeMap<Part, f64> = BTreeMap::new();
        let mut limits: BTreeMap<Part, f64> = BTreeMap::new();
        let mut kernels = 0.0;
        for Work { whole, threads, bytes } in work {
            let counts = &whole.counts;
            let of = |pipe| counts.of_pipe(pipe) as f64;
            let products = of(Pipe::WideMultiplier) * rate.places() + of(Pipe::Multiplier);
            let threads = *threads as f64;
            let seconds = [
                (Part::Issue, counts.all() as f64 / ISSUED / clocks),
                (Part::Multiplier, products / PRODUCTS / clocks),
                (Part::Logic, of(Pipe::Logic) / RESULTS_OF_LOGIC / clocks),
                (Part::SharedMemory, whole.shared_bytes as f64 / SHARED_BYTES / clocks),
                (Part::Memory, *bytes as f64 / (card.memory_gb_s * 1e9)),
            ]
            .map(|(part, of_thread)| (part, of_thread * threads));
            for (part, seconds) in seconds {
                *parts.entry(part).or_default() += seconds;
            }
            let (limit, most) = longest(seconds.iter().copied());
            kernels += most;
            *limits.entry(limit).or_default() += most;
        }
        let bus = (NODES * BUS_BYTES) as f64 / (card.bus_gb_s * 1e9 * BUS_USED);
        parts.insert(Part::Bus, bus);
        let (limit, _) = longest(limits);
        if bus > kernels {
            return Self { seconds: bus, kernels, limit: Part::Bus, parts };
        }
        Self { seconds: kernels, kernels, limit, parts }
    }
}

fn longest(parts: impl IntoIterator<Item = (Part, f64)>) -> (Part, f64) {
    parts
        .into_iter()
        .fold((Part::Issue, 0.0), |most, part| if part.1 > most.1 { part } else { most })
}

#[cfg(test)]
mod tests {
    use super::super::cards::CARDS;
    use super::super::counts::MachineCode;
    use super::super::sass;
    use super::*;

    fn whole(lines: &[&str]) -> Whole {
        let lines = lines.iter().map(|line| format!("/*0000*/ {line} ;"));
        let text = format!(".text.f:\n{}\n", lines.collect::<Vec<_>>().join("\n"));
        let functions = sass::parse(&text).expect("machine code");
        MachineCode::of(&functions[0], true).expect("counted").executed.expect("executed")
    }

    fn predict(name: &str, whole: &Whole, bytes: u64, rate: WideRate) -> Prediction {
        let card = CARDS.iter().find(|card| card.name == name).expect("in the table");
        Prediction::of(card, &[Work { whole, threads: 1 << 50, bytes }], rate)
    }

    #[test]
    fn the_slowest_part_is_the_limit() {
        let threads = (1u64 << 50) as f64;
        let clocks = 132.0 * 1.98e9;
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-9 * b, "{a} {b}");
        let product = "IMAD.WIDE.U32 R2, R4, R5, R2";
        let products = whole(&[product, product, "IADD3 R1, R2, R3, RZ", "EXIT"]);
        let full = predict("H200", &products, 0, WideRate::Full);
        assert_eq!(full.limit, Part::Issue);
        near(full.seconds, threads * 4.0 / 128.0 / clocks);
        near(full.kernels, full.seconds);
        let half = predict("H200", &products, 0, WideRate::Half);
        assert_eq!(half.limit, Part::Multiplier);
        near(half.seconds, threads * 4.0 / 64.0 / clocks);
        near(half.parts[&Part::Logic], threads / 64.0 / clocks);
        let shared = predict("H200", &whole(&["LDS.128 R4, [R2]", "EXIT"]), 0, WideRate::Half);
        assert_eq!(shared.limit, Part::SharedMemory);
        near(shared.seconds, threads * 16.0 / 128.0 / clocks);
        let memory = predict("H200", &whole(&["EXIT"]), 96, WideRate::Full);
        assert_eq!(memory.limit, Part::Memory);
        near(memory.seconds, threads * 96.0 / 4.8e12);
    }

    #[test]
    fn what_is_quicker_than_the_bus_waits_for_it() {
        let card = &CARDS[0];
        let prediction = Prediction::of(card, &[], WideRate::Full);
        assert_eq!((prediction.limit, prediction.kernels), (Part::Bus, 0.0));
        assert!((prediction.seconds - 16.36).abs() < 0.01, "{}", prediction.seconds);
    }

    #[test]
    fn a_sector_has_so_many_rows() {
        assert_eq!(ROWS, 306_783_378);
    }
}
