//! The Grain LFSR, which yields the round constants.
//!
//! Source: Poseidon paper, appendix F "Initialization of the Grain LFSR used for parameter
//! generation".

use crate::{Fr, RoundNumbers, element_from_bytes};

/// Bits of an element.
const ELEMENT_BITS: usize = 255;

/// The round constants of a permutation of `width` elements, round by round.
pub(crate) fn round_constants(width: usize, rounds: RoundNumbers) -> Vec<Fr> {
    let mut grain = Grain::new(width, rounds);
    (0..width * rounds.total()).map(|_| grain.element()).collect()
}

/// The register: bit i of the sequence is bit i of the number, and `b0` leaves first.
struct Grain(u128);

impl Grain {
    /// Bits of the register.
    const STATE_BITS: u32 = 80;
    /// The bits whose sum is the next one.
    const TAPS: [u32; 6] = [62, 51, 38, 23, 13, 0];

    /// The register filled with the description of the permutation and run in.
    fn new(width: usize, rounds: RoundNumbers) -> Self {
        let mut grain = Self(0);
        let mut filled = 0;
        // Each number is written from its highest bit on.
        let mut append = |bits: u32, number: usize| {
            for bit in (0..bits).rev() {
                grain.0 |= ((number as u128 >> bit) & 1) << filled;
                filled += 1;
            }
        };
        append(2, 1); // a prime field
        append(4, 1); // the kind of S-box, as Filecoin's parameters have it
        append(12, ELEMENT_BITS);
        append(12, width);
        append(10, rounds.full);
        append(10, rounds.partial);
        append(30, (1 << 30) - 1);
        debug_assert_eq!(filled, Self::STATE_BITS);
        for _ in 0..160 {
            grain.step();
        }
        grain
    }

    /// The next bit of the sequence.
    fn step(&mut self) -> bool {
        let bit = Self::TAPS.iter().fold(0, |sum, tap| sum ^ (self.0 >> tap)) & 1;
        self.0 = (self.0 >> 1) | (bit << (Self::STATE_BITS - 1));
        bit == 1
    }

    /// The next bit of the output: of each pair of bits the second, if the first is 1.
    fn bit(&mut self) -> bool {
        loop {
            let wanted = self.step();
            let bit = self.step();
            if wanted {
                return bit;
            }
        }
    }

    /// The next element: 255 bits from the highest on, thrown away where they are not below the
    /// modulus.
    fn element(&mut self) -> Fr {
        loop {
            let mut bytes = [0; 32];
            for bit in (0..ELEMENT_BITS).rev() {
                bytes[bit / 8] |= u8::from(self.bit()) << (bit % 8);
            }
            if let Some(element) = element_from_bytes(&bytes) {
                return element;
            }
        }
    }
}
