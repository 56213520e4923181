//! How much memory of a device a proof takes at most.
//!
//! Worked out from the sources of `supraseal-c2` 0.1.2 and `sppark` 0.1.16: every allocation that
//! is made on the device while one circuit is proved. It depends on the lengths of the parameters'
//! lists, on the number of multiprocessors and on the device's whole memory, and hardly on the
//! values. What is not allocated by that code is not in it: the context of the process, the code of
//! the kernels, their stacks (8 bytes in one kernel on 7.5, as ptxas says) and what the allocator
//! holds back.
//!
//! A proof goes through four phases, and frees what it took between them. `n` is the length of the
//! domain, one more than the points of H.
//!
//! 1. Transforms: the products A and B, of `n` scalars each, and C too where three fit into the
//!    device's memory less 1 GiB; otherwise C takes the place of B. Of the *whole* memory, whatever
//!    is free of it.
//! 2. The sum of H, with A's place still held, because its scalars lie there.
//! 3. Sums of the points of L, A, B in G1 and B in G2 whose value is one, list by list. The points
//!    come in eight batches, two of them at a time.
//! 4. Sums of the points of L, A and B in G1 with all other values.
//!
//! A sum of `m` points takes: buckets, 192 bytes for each of `2^(w - 1)` in each of `ceil(255 / w)`
//! windows of `w` bits, and 4 bytes for each of them to sort by; 32 bytes for a scalar, 4 for its
//! digit in each window and 96 for a point, of one batch (of two batches for points, where there
//! are more than one).

use super::Lists;

/// A scalar.
const SCALAR: u64 = 32;
/// A point in G1, and in G2.
const POINTS: [u64; 2] = [96, 192];
/// A bucket for points of G1, and of G2: extended coordinates.
const BUCKETS: [u64; 2] = [192, 384];
/// Threads of a warp.
const WARP: u64 = 32;
/// Bits of a scalar.
const SCALAR_BITS: u64 = 255;
/// Warps of a block that adds points, each with a bucket.
const ADDING_WARPS: u64 = 256 / WARP;
/// Points are added in multiples of so many, in so many batches.
const ADDED_AT_ONCE: u64 = 32 * WARP;
const BATCHES: u64 = 8;
/// Tables for transforms in one direction: 2^9, 2^18 and 2^18 twiddle factors, and four windows of
/// 2^14 powers. They are made once and stay.
const TABLES: u64 = SCALAR * ((1 << 9) + (1 << 18) + (1 << 18) + 4 * (1 << 14));
/// What is left of the whole memory where three products are held at the same time.
const LEFT_BESIDE_PRODUCTS: u64 = 1 << 30;
/// The length of a memory page of the device: what every allocation is rounded up to.
const PAGE: u64 = 2 << 20;

/// A device, as far as a proof's memory depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Card {
    /// Its multiprocessors.
    pub multiprocessors: u64,
    /// Its whole memory, in bytes.
    pub memory_bytes: u64,
}

/// The most memory that the phases of a proof take, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// Tables, which stay from the first proof on.
    pub tables: u64,
    /// The transforms.
    pub transforms: u64,
    /// The sum of H.
    pub h: u64,
    /// Sums of the points whose value is one.
    pub ones: u64,
    /// Sums of the other points.
    pub others: u64,
}

impl Demand {
    /// The most at any time.
    pub fn most(self) -> u64 {
        let Self { tables, transforms, h, ones, others } = self;
        tables + transforms.max(h).max(ones).max(others)
    }
}

impl Lists {
    /// What a proof with these lists takes on `card`.
    pub fn demand(self, card: Card) -> Demand {
        let Self { h, l, a, b, .. } = self;
        let [h, l, a, b] = [h, l, a, b].map(|points| points as u64);
        let domain = (h + 1).next_power_of_two() * SCALAR;
        let together = 3 * domain < card.memory_bytes.saturating_sub(LEFT_BESIDE_PRODUCTS);
        let sms = card.multiprocessors;
        let ones = [(l, 0), (a, 0), (b, 0), (b, 1)].map(|(points, group)| ones(points, group, sms));
        let windows = windows_of_others(l + a + b);
        let others = [l, a, b].map(|points| others(points, &windows, sms));
        Demand {
            tables: 2 * TABLES.next_multiple_of(PAGE),
            transforms: paged(domain) + paged(if together { 2 * domain } else { domain }),
            h: paged(domain) + sum(h, Windows::of(h), sms),
            ones: ones.into_iter().max().unwrap_or(0),
            others: others.into_iter().max().unwrap_or(0),
        }
    }
}

fn paged(bytes: u64) -> u64 {
    bytes.next_multiple_of(PAGE)
}

/// The logarithm, rounded down; that of 0 is 0.
fn log2(number: u64) -> u64 {
    number.checked_ilog2().unwrap_or(0).into()
}

/// What a sum of points with the value one takes.
fn ones(points: u64, group: usize, sms: u64) -> u64 {
    let batch = points.div_ceil(ADDED_AT_ONCE).div_ceil(BATCHES) * ADDED_AT_ONCE;
    let bits = points.div_ceil(64).next_multiple_of(WARP) * 8;
    paged(2 * batch * POINTS[group] + sms * ADDING_WARPS * BUCKETS[group] + bits)
}

/// The windows that scalars are cut into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Windows {
    bits: u64,
    count: u64,
}

impl Windows {
    /// Those for a sum of so many points; 0 where that is not known.
    fn of(points: u64) -> Self {
        let points = points.next_multiple_of(WARP);
        let bits = match points {
            0 => 17,
            1..=192 => 10,
            _ => log2(points + points / 2).saturating_sub(8).clamp(10, 18),
        };
        Self::with(bits)
    }

    fn with(bits: u64) -> Self {
        Self { bits, count: (SCALAR_BITS - 1) / bits + 1 }
    }
}

/// What a sum of points with scalars from the host takes. Those of H lie on the device, and are
/// copied all the same.
fn sum(points: u64, windows: Windows, sms: u64) -> u64 {
    let Windows { bits, count } = windows;
    let rows = count << (bits - 1);
    let buckets = (rows + sms * ADDING_WARPS) * BUCKETS[0] + rows * 4;
    let batches = ((1 << log2(points + points / 2).saturating_sub(bits)) >> 6).max(1);
    let batch = points.div_ceil(batches).next_multiple_of(WARP);
    let points_held = if batches > 1 { 2 * batch } else { batch };
    paged(buckets) + paged(batch * SCALAR + batch * count * 4 + points_held * POINTS[0])
}

/// The most that a sum of the points of a list can take whose values are neither zero nor one. If
/// they are more than half, the whole list is summed; otherwise any number up to that. `windows`
/// are those that there can be.
fn others(points: u64, windows: &[Windows], sms: u64) -> u64 {
    let most_of =
        |points: u64| windows.iter().map(|windows| sum(points, *windows, sms)).max().unwrap_or(0);
    // A sum takes more the more points there are, but for where they fall apart into more batches.
    let last_before = (1..u64::BITS - 1).map(|exponent| (1_u64 << exponent).div_ceil(3) - 1);
    let half = points / 2;
    let before = last_before.filter(|last| *last < half).map(most_of).max().unwrap_or(0);
    most_of(points).max(most_of(half)).max(before)
}

/// The windows that there can be in the last phase: they are those for a third of the values in
/// three lists that are neither zero nor one.
fn windows_of_others(points: u64) -> Vec<Windows> {
    let most = Windows::of(points / 3).bits;
    let none = Windows::of(0);
    (10..=most.max(10)).map(Windows::with).chain([none]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;
    /// Lists of the circuit of a 32 GiB sector.
    const GIB_32: Lists =
        Lists { inputs: 328, h: (1 << 27) - 1, l: 130_169_893, a: 129_753_620, b: 33_112_282 };
    /// An RTX 3080: 68 multiprocessors, and as much memory as drivers for Linux show.
    const RTX_3080: Card = Card { multiprocessors: 68, memory_bytes: 10_014 * MIB };

    /// The statements of `msm_t` and its `invoke`, one by one, in the widths that they have there.
    fn as_written(average: u64, points: u64, sms: u32) -> u64 {
        let lg2 = |mut n: u64| {
            let mut ret = 0_u32;
            while n > 1 {
                n >>= 1;
                ret += 1;
            }
            ret
        };
        let npoints = (average + 31) & !31;
        let mut wbits = 17_u32;
        if npoints > 192 {
            wbits = lg2(npoints + npoints / 2).saturating_sub(8).min(18);
            if wbits < 10 {
                wbits = 10;
            }
        } else if npoints > 0 {
            wbits = 10;
        }
        let nwins = (255 - 1) / wbits + 1;
        let row = 1_u32 << (wbits - 1);
        let buckets = u64::from(nwins * row + sms * 256 / 32);
        let blob = buckets * 192 + u64::from(nwins * row * 4);
        let lg = lg2(points + points / 2);
        let mut batch = 1_u64 << (lg.max(wbits) - wbits);
        batch >>= 6;
        let batch = if batch == 0 { 1 } else { batch };
        let stride = u32::try_from(points.div_ceil(batch)).expect("32 bits");
        let stride = stride.next_multiple_of(32);
        // The larger of a scalar and two pairs of 32-bit words.
        let temp = u64::from(stride) * [2 * 8, 32].into_iter().max().unwrap_or(0);
        let digits = u64::from(nwins.checked_mul(stride).expect("32 bits")) * 4;
        let held = if batch > 1 { stride.checked_mul(2).expect("32 bits") } else { stride };
        paged(blob) + paged(temp + digits + u64::from(held) * 96)
    }

    #[test]
    fn a_32_gib_sector_takes_less_than_9_gib_on_a_card_with_10() {
        let demand = GIB_32.demand(RTX_3080);
        assert_eq!(demand.transforms, 8192 * MIB, "two products of three");
        // The place of A, 368 MiB of buckets, and of 2^24 points at a time 512 MiB of scalars, 960
        // of digits and twice 1,536 of points.
        assert_eq!(demand.h, (4096 + 368 + 512 + 960 + 3072) * MIB);
        assert!(demand.ones < 4096 * MIB && demand.others < 6500 * MIB, "{demand:?}");
        assert_eq!(demand.tables, 40 * MIB);
        assert_eq!(demand.most(), 9048 * MIB);
    }

    #[test]
    fn three_products_are_held_together_where_the_whole_memory_has_room() {
        let card = |mib: u64| Card { memory_bytes: mib * MIB, ..RTX_3080 };
        let transforms = |mib: u64| GIB_32.demand(card(mib)).transforms;
        assert_eq!(transforms(13 * 1024), 8192 * MIB);
        assert_eq!(transforms(13 * 1024 + 1), 12_288 * MIB);
        assert_eq!(transforms(0), 8192 * MIB, "no card");
    }

    #[test]
    fn points_whose_value_is_one_come_in_eighths_of_whole_blocks() {
        // 8 batches of 1,024 points, two at a time, buckets of 10 multiprocessors, and bits.
        let bytes = 2 * 1024 * 96 + 10 * 8 * 192 + 8192 / 8;
        assert_eq!(ones(8192, 0, 10), paged(bytes));
        assert_eq!(ones(8193, 0, 10), paged(2 * 2048 * 96 + 10 * 8 * 192 + 1280));
        let of_g2 = 2 * (1 << 20) * 192 + 10 * 8 * 384 + (1 << 20);
        assert_eq!(ones(1 << 23, 1, 10), paged(of_g2));
    }

    proptest! {
        #[test]
        fn a_sum_takes_what_its_statements_allocate(
            points in 0_u64..(1 << 28), average in 0_u64..(1 << 28), sms in 1_u32..200,
        ) {
            let windows = Windows::of(average);
            prop_assert_eq!(sum(points, windows, sms.into()), as_written(average, points, sms));
        }

        #[test]
        fn no_values_take_more_than_was_reckoned_with(
            a in 1_u64..(1 << 27), part in 0.0..1.0_f64, others_part in 0.0..1.0_f64,
        ) {
            let [l, b] = [a, a / 4 + 1];
            let of = |points: u64, part: f64| (points as f64 * part) as u64;
            let demand = Lists { inputs: 1, h: 1, l: l as usize, a: a as usize, b: b as usize }
                .demand(Card { multiprocessors: 80, memory_bytes: 1 << 34 });
            let counts = [of(l, part), of(a, others_part), of(b, part)];
            let average = counts.iter().sum::<u64>() / 3;
            for (count, points) in counts.into_iter().zip([l, a, b]) {
                let summed = if count <= points / 2 { count } else { points };
                let taken = as_written(average, summed, 80);
                prop_assert!(taken <= demand.others, "{} of {}: {}", count, points, taken);
            }
        }
    }
}
