//! Groth16 proofs on a device, by the published `supraseal-c2`.
//!
//! That crate takes pointers and numbers from code that need not be marked as unsafe, and checks
//! them, if at all, with assertions that end the process. Here everything that it takes for
//! granted is checked beforehand. What it expects was read in its sources, version 0.1.2:
//!
//! - field elements in Montgomery form, the least significant word first;
//! - the products of the circuit's matrices with all variables, unpadded, rows of inputs included;
//! - the inputs with the constant, then the other variables;
//! - for A and B a bit for each variable that has a point, the first in the lowest bit of the first
//!   of 64-bit words; A has a point for every input, so its bits are those of other variables;
//! - parameters in the published format, which it reads itself, on a thread of its own, into memory
//!   that the device reaches.
//!
//! Without the feature `groth16` the same is offered, and opening a device is an error.

mod context;
mod memory;
#[cfg(feature = "groth16")]
mod supraseal;
#[cfg(not(feature = "groth16"))]
#[path = "groth16/none.rs"]
mod supraseal;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use context::Context;
pub use memory::{Card, Demand};

use crate::{CudaError, DeviceInfo, OpenOptions};

/// Whether this build can prove on a device.
pub const BUILT: bool = cfg!(feature = "groth16");

/// An element of the scalar field in Montgomery form, the least significant word first.
pub type Scalar = [u64; 4];

/// An element of the base field in Montgomery form, the least significant word first.
pub type Coordinate = [u64; 6];

/// Bits of a word of a [`Density`].
const BITS: usize = u64::BITS as usize;

/// Which of some variables have a point in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Density {
    words: Vec<u64>,
    len: usize,
    ones: usize,
}

impl Density {
    /// Of `len` variables, those at the places `having` have a point.
    ///
    /// # Panics
    /// At a place that is not below `len`.
    pub fn of(len: usize, having: impl IntoIterator<Item = usize>) -> Self {
        let mut density = Self { words: vec![0; len.div_ceil(BITS)], len, ones: 0 };
        for place in having {
            assert!(place < len, "variable {place} of {len}");
            let word = &mut density.words[place / BITS];
            let bit = 1 << (place % BITS);
            density.ones += usize::from(*word & bit == 0);
            *word |= bit;
        }
        density
    }

    /// The bits, the first in the lowest bit of the first word; those behind the last are zero.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// How many variables there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no variable.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many of them have a point.
    pub fn ones(&self) -> usize {
        self.ones
    }
}

/// What stays the same from proof to proof of a circuit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Circuit {
    /// Constraints, with a row for each input.
    pub rows: usize,
    /// The variables that are no inputs and have a point in A.
    pub a_aux: Density,
    /// The inputs that have a point in B.
    pub b_inputs: Density,
    /// The variables that are no inputs and have a point in B.
    pub b_aux: Density,
}

/// Lengths of the lists in a parameter file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lists {
    /// Points of the verifying key for inputs.
    pub inputs: usize,
    /// Points of H: one less than a power of two.
    pub h: usize,
    /// Points of L.
    pub l: usize,
    /// Points of A.
    pub a: usize,
    /// Points of B in G1, and as many in G2.
    pub b: usize,
}

/// The values of one circuit's variables.
#[derive(Debug, Clone, Copy)]
pub struct Assignment<'a> {
    /// The products of A, B and C with all variables; see [`Circuit::rows`].
    pub products: [&'a [Scalar]; 3],
    /// The inputs, of which the first is one.
    pub inputs: &'a [Scalar],
    /// The other variables.
    pub aux: &'a [Scalar],
}

/// A proof: coordinates as they come from the device. Whether they are points of the curve is for
/// the caller to see. The point at infinity has zeros.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RawProof {
    /// x and y of A in G1.
    pub a: [Coordinate; 2],
    /// x and y of B in G2, each with its part without and with the square root of -1.
    pub b: [[Coordinate; 2]; 2],
    /// x and y of C in G1.
    pub c: [Coordinate; 2],
}

/// The most points that H may have, and one: 2^28. The prover's tables end there, and it ends the
/// process behind them.
const MOST_DOMAIN: usize = 1 << 28;

/// What the allocator of the device may hold beside what was asked for: it grows in steps of
/// 32 MiB, and a proof's allocations lie in two of its pieces.
const HELD_BACK: u64 = 64 << 20;

/// A device that supraseal-c2 has taken.
#[derive(Debug)]
pub struct Gpu {
    info: DeviceInfo,
    context: Context,
    /// Whether a proof was made, and with it the prover's tables on the device.
    proved: Arc<AtomicBool>,
}

impl Gpu {
    /// Opens the first device that the driver shows. supraseal-c2 opens all that are shown, with a
    /// context and four streams on each, but proves on the first.
    pub fn open(options: OpenOptions<'_>) -> Result<Self, CudaError> {
        if !BUILT {
            return Err(CudaError::NoGroth16);
        }
        let (context, info) = Context::open(options)?;
        match supraseal::open() {
            Ok(()) => Ok(Self { info, context, proved: Arc::default() }),
            Err(said) => Err(CudaError::Unusable { device: Box::new(info), said }),
        }
    }

    /// Whether a proof with these lists fits into the device's memory as it is now: what is not
    /// there for a sum of points shows as a proof that does not verify, since supraseal-c2 drops
    /// that error.
    pub fn check_memory(&self, lists: Lists) -> Result<(), CudaError> {
        let card = self.card();
        lists.fits(card)?;
        let tables = self.proved.load(Ordering::Relaxed);
        lists.fits_into(self.context.free_bytes()?, card, tables)
    }

    fn card(&self) -> Card {
        Card {
            multiprocessors: u64::try_from(self.info.multiprocessors).unwrap_or_default(),
            memory_bytes: self.info.memory_bytes as u64,
        }
    }

    /// What the driver says of it.
    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// Begins to read the parameters at `path`, whose lists must have these lengths. What the file
    /// is worth is not checked: points that are none of the curve show as proofs that do not
    /// verify. The points take as much of the machine's memory as the file is long, locked.
    pub fn load(&self, path: &Path, lists: Lists) -> Result<Key, CudaError> {
        lists.check()?;
        lists.fits(self.card())?;
        let fault = |said| CudaError::Groth16 { what: "read the parameters", said };
        // Its answer to a path of other bytes is a panic.
        let text = path.to_str().filter(|text| !text.contains('\0'));
        let text = text.ok_or_else(|| {
            fault(format!("the path {} is not one that it can be given", path.display()))
        })?;
        let parameters = supraseal::load(text).map_err(fault)?;
        Ok(Key { lists, parameters, proved: self.proved.clone() })
    }
}

/// Parameters that the device reaches.
#[derive(Debug)]
pub struct Key {
    lists: Lists,
    parameters: supraseal::Parameters,
    proved: Arc<AtomicBool>,
}

impl Key {
    /// Proves with the randomness `r` and `s`. Proofs are made one at a time; another call waits.
    /// It can not be interrupted.
    ///
    /// Errors of the transforms are returned, too little memory for them among others. Errors
    /// within a sum of points are dropped by supraseal-c2: the proof does not verify then. A fault
    /// after which the device's context is lost ends the process.
    pub fn prove(
        &self,
        circuit: &Circuit,
        assignment: &Assignment<'_>,
        random: [Scalar; 2],
    ) -> Result<RawProof, CudaError> {
        self.lists.check_circuit(circuit)?;
        assignment.check(circuit)?;
        let proof = supraseal::prove(&self.parameters, circuit, assignment, random)
            .map_err(|said| CudaError::Groth16 { what: "prove", said })?;
        self.proved.store(true, Ordering::Relaxed);
        Ok(proof)
    }
}

fn equal(what: &'static str, found: usize, wanted: usize) -> Result<(), CudaError> {
    if found == wanted { Ok(()) } else { Err(CudaError::Lengths { what, found, wanted }) }
}

impl Lists {
    /// It divides by some of these.
    fn check(self) -> Result<(), CudaError> {
        let Self { inputs, h, l, a, b } = self;
        for (what, length) in [
            ("points of inputs", inputs),
            ("points of H", h),
            ("points of L", l),
            ("points of A", a),
            ("points of B", b),
        ] {
            if length == 0 {
                return Err(CudaError::Lengths { what, found: 0, wanted: 1 });
            }
        }
        if h >= MOST_DOMAIN {
            let (found, wanted) = (h, MOST_DOMAIN - 1);
            return Err(CudaError::Lengths { what: "points of H", found, wanted });
        }
        equal("points of H", h, (h + 1).next_power_of_two() - 1)
    }

    /// Whether a proof can ever fit on `card`.
    fn fits(self, card: Card) -> Result<(), CudaError> {
        let (needed, memory) = (self.demand(card).most() + HELD_BACK, card.memory_bytes);
        if needed <= memory { Ok(()) } else { Err(CudaError::TooSmall { needed, memory }) }
    }

    /// Whether a proof fits into what is free of a card; whether its `tables` are there already.
    fn fits_into(self, free: u64, card: Card, tables: bool) -> Result<(), CudaError> {
        let demand = self.demand(card);
        let there = if tables { demand.tables } else { 0 };
        let needed = demand.most() - there + HELD_BACK;
        if needed <= free { Ok(()) } else { Err(CudaError::TooLittle { needed, free }) }
    }

    /// The lengths that its assertions compare.
    fn check_circuit(self, circuit: &Circuit) -> Result<(), CudaError> {
        let Circuit { rows, a_aux, b_inputs, b_aux } = circuit;
        equal("inputs of B", b_inputs.len(), self.inputs)?;
        equal("points of L", self.l, a_aux.len())?;
        equal("variables of B", b_aux.len(), a_aux.len())?;
        // Without any its sum on the processor runs off the list. The constant one is in every B.
        if b_inputs.ones() == 0 {
            return Err(CudaError::Lengths {
                what: "inputs with a point in B",
                found: 0,
                wanted: 1,
            });
        }
        equal("points of A", self.a, self.inputs + a_aux.ones())?;
        equal("points of B", self.b, b_inputs.ones() + b_aux.ones())?;
        equal("points of H", self.h, rows.next_power_of_two() - 1)
    }
}

impl Assignment<'_> {
    fn check(&self, circuit: &Circuit) -> Result<(), CudaError> {
        for (what, product) in
            ["rows of A", "rows of B", "rows of C"].into_iter().zip(self.products)
        {
            equal(what, product.len(), circuit.rows)?;
        }
        equal("values of inputs", self.inputs.len(), circuit.b_inputs.len())?;
        equal("values of variables", self.aux.len(), circuit.a_aux.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn circuit() -> Circuit {
        Circuit {
            rows: 100,
            a_aux: Density::of(70, 0..65),
            b_inputs: Density::of(3, [0]),
            b_aux: Density::of(70, (0..70).step_by(2)),
        }
    }

    const LISTS: Lists = Lists { inputs: 3, h: 127, l: 70, a: 68, b: 36 };

    fn told(checked: Result<(), CudaError>) -> String {
        checked.expect_err("it does not fit").to_string()
    }

    #[test]
    fn the_first_variable_is_the_lowest_bit_of_the_first_word() {
        let density = Density::of(130, [0, 63, 64, 129, 64]);
        assert_eq!(density.words(), [1 | 1 << 63, 1, 2]);
        assert_eq!((density.len(), density.ones()), (130, 4), "one is there twice");
        assert!(!density.is_empty() && Density::of(0, []).is_empty());
        assert_eq!(Density::of(64, []).words(), [0]);
    }

    #[test]
    #[should_panic(expected = "variable 5 of 5")]
    fn a_variable_that_there_is_not_has_no_bit() {
        Density::of(5, [5]);
    }

    #[test]
    fn lists_of_another_circuit_are_told_before_it_asserts_them() {
        LISTS.check().expect("lengths");
        LISTS.check_circuit(&circuit()).expect("its own");
        for (other, named) in [
            (Lists { inputs: 4, ..LISTS }, "3 inputs of B where 4"),
            (Lists { h: 255, ..LISTS }, "255 points of H where 127"),
            (Lists { l: 69, ..LISTS }, "69 points of L where 70"),
            (Lists { a: 67, ..LISTS }, "67 points of A where 68"),
            (Lists { b: 37, ..LISTS }, "37 points of B where 36"),
        ] {
            let text = told(other.check_circuit(&circuit()));
            assert!(text.contains(named), "{text}");
        }
        let mut uneven = circuit();
        uneven.b_aux = Density::of(69, 0..35);
        assert!(told(LISTS.check_circuit(&uneven)).contains("69 variables of B where 70"));
        let mut without = circuit();
        without.b_inputs = Density::of(3, []);
        let lists = Lists { b: 35, ..LISTS };
        assert!(told(lists.check_circuit(&without)).contains("0 inputs with a point in B"));
        let long = Lists { h: (1 << 28) - 1, ..LISTS };
        long.check().expect("its tables end there");
        let long = Lists { h: (1 << 29) - 1, ..LISTS };
        assert!(told(long.check()).contains("536870911 points of H where 268435455"));
        assert!(told(Lists { h: 126, ..LISTS }.check()).contains("126 points of H where 127"));
        assert!(told(Lists { l: 0, ..LISTS }.check()).contains("0 points of L"));
    }

    #[test]
    fn values_of_another_circuit_are_told() {
        let values = [[0; 4]; 100];
        let good = Assignment { products: [&values; 3], inputs: &values[..3], aux: &values[..70] };
        good.check(&circuit()).expect("its own");
        let products = [&values[..], &values, &values[..99]];
        let text = told(Assignment { products, ..good }.check(&circuit()));
        assert!(text.contains("99 rows of C where 100"), "{text}");
        let text = told(Assignment { inputs: &values[..2], ..good }.check(&circuit()));
        assert!(text.contains("2 values of inputs where 3"), "{text}");
        let text = told(Assignment { aux: &values, ..good }.check(&circuit()));
        assert!(text.contains("100 values of variables where 70"), "{text}");
    }

    #[test]
    fn memory_that_is_short_is_told_with_what_there_is() {
        let card = Card { multiprocessors: 68, memory_bytes: 1 << 30 };
        let needed = LISTS.demand(card).most() + HELD_BACK;
        LISTS.fits_into(needed, card, false).expect("just so");
        let error = LISTS.fits_into(needed - 1, card, false).expect_err("a byte less");
        let free = needed - 1;
        assert!(
            matches!(error, CudaError::TooLittle { needed: n, free: f } if (n, f) == (needed, free)),
            "{error}"
        );
        assert!(error.is_out_of_memory() && error.to_string().contains("another process"));
        LISTS.fits_into(needed - 1, card, true).expect("the tables are there");
        LISTS.fits(card).expect("a small circuit");
        let error = LISTS.fits(Card { memory_bytes: needed - 1, ..card }).expect_err("too small");
        assert!(error.to_string().contains("larger GPU"), "{error}");
    }

    #[test]
    fn a_proof_lies_as_blst_lays_points_out() {
        assert_eq!(size_of::<RawProof>(), 2 * 96 + 192);
        assert_eq!(std::mem::offset_of!(RawProof, b), 96);
        assert_eq!(std::mem::offset_of!(RawProof, c), 96 + 192);
    }

    /// A test that needs a machine without a driver, or a build without the feature.
    #[test]
    fn without_prover_or_driver_opening_says_so() {
        let missing = Path::new("/nonexistent/libcuda.so.1");
        let options = OpenOptions { driver: Some(missing), ..OpenOptions::default() };
        let error = Gpu::open(options).expect_err("no such driver");
        if BUILT {
            assert!(matches!(error, CudaError::NoDriver { .. }), "{error}");
        } else {
            assert!(error.to_string().contains("--features cuda"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn every_bit_is_at_its_place(bits in proptest::collection::vec(any::<bool>(), 0..300)) {
            let having = bits.iter().enumerate().filter(|(_, bit)| **bit).map(|(place, _)| place);
            let density = Density::of(bits.len(), having);
            for (place, bit) in bits.iter().enumerate() {
                prop_assert_eq!(density.words()[place / 64] >> (place % 64) & 1 == 1, *bit);
            }
            let ones: u32 = density.words().iter().map(|word| word.count_ones()).sum();
            prop_assert_eq!(ones as usize, density.ones());
            prop_assert_eq!(density.ones(), bits.iter().filter(|bit| **bit).count());
        }
    }
}
