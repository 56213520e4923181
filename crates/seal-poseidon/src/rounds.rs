//! How many full and partial rounds a permutation of a given width needs.

/// Bits of security aimed at.
const SECURITY: f64 = 128.0;

/// Bits by which the inequalities measure the field. The modulus has 255 bits; Filecoin's
/// parameters were computed with 256, which gives the same round numbers or more.
const FIELD_BITS: f64 = 256.0;

/// The numbers of full and partial rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoundNumbers {
    /// Full rounds, half of them before and half after the partial ones.
    pub full: usize,
    /// Partial rounds, which have one S-box each.
    pub partial: usize,
}

impl RoundNumbers {
    /// The cheapest secure numbers for a permutation of `width` elements, with the margin that
    /// the paper recommends: two full rounds and 7.5 % partial rounds more than the known attacks
    /// call for. Cheapest is the smallest number of S-boxes, then of full rounds.
    ///
    /// Source: Poseidon paper, section 5.4 "Concrete instantiations".
    pub fn for_width(width: usize) -> Self {
        let with_margin = |full: usize, partial: usize| Self {
            full: full + 2,
            partial: (1.075 * partial as f64).ceil() as usize,
        };
        // More rounds than these are never the cheapest choice at this security level.
        let candidates = (2..=100)
            .step_by(2)
            .flat_map(|full| (4..200).map(move |partial| (full, partial)))
            .filter(|&(full, partial)| resists_known_attacks(width, full, partial))
            .map(|(full, partial)| with_margin(full, partial));
        candidates
            .min_by_key(|rounds| (width * rounds.full + rounds.partial, rounds.full))
            .expect("198 partial rounds are secure at every width")
    }

    /// Full and partial rounds together.
    pub fn total(self) -> usize {
        self.full + self.partial
    }
}

/// Whether statistical, interpolation and Gröbner-basis attacks cost more than the security level.
///
/// Source: Poseidon paper, section 5.5, for S-boxes x⁵.
fn resists_known_attacks(width: usize, full: usize, partial: usize) -> bool {
    let (width, full, partial) = (width as f64, full as f64, partial as f64);
    let statistical = if SECURITY <= (FIELD_BITS - 3.0) * (width + 1.0) { 6.0 } else { 10.0 };
    let interpolation = 0.43 * SECURITY + width.log2() - partial;
    let groebner_1 = 0.21 * FIELD_BITS - partial;
    let groebner_2 = (0.14 * FIELD_BITS - 1.0 - partial) / (width - 1.0);
    [statistical, interpolation, groebner_1, groebner_2].into_iter().all(|bound| full >= bound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn are_the_published_numbers() {
        // Width and partial rounds, from the table in the Filecoin specification.
        for (width, partial) in
            [(2, 55), (3, 55), (4, 56), (5, 56), (8, 57), (9, 57), (12, 57), (16, 59), (17, 59)]
        {
            assert_eq!(
                RoundNumbers::for_width(width),
                RoundNumbers { full: 8, partial },
                "{width}"
            );
        }
    }
}
