//! Cards whose times are predicted, and what is published of them.

/// A card.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Card {
    pub(crate) name: &'static str,
    /// Such as 90.
    pub(crate) architecture: u32,
    pub(crate) multiprocessors: u32,
    /// The highest that is promised under load.
    pub(crate) boost_ghz: f64,
    /// Of its memory, 10^9 bytes a second.
    pub(crate) memory_gb_s: f64,
    /// Of PCI Express, 10^9 bytes a second each way.
    pub(crate) bus_gb_s: f64,
    /// Where the figures are published.
    pub(crate) source: &'static str,
}

/// Sixteen lanes of PCI Express 4.0 and 5.0.
const GENERATION_4: f64 = 31.5;
const GENERATION_5: f64 = 63.0;

const fn card(
    (name, architecture): (&'static str, u32),
    (multiprocessors, boost_ghz): (u32, f64),
    (memory_gb_s, bus_gb_s): (f64, f64),
    source: &'static str,
) -> Card {
    Card { name, architecture, multiprocessors, boost_ghz, memory_gb_s, bus_gb_s, source }
}

/// Multiprocessors and clocks also follow from the published peak of single precision, which is two
/// operations for each of 128 lanes (64 on the A100) of a multiprocessor and clock: the tests hold
/// them against it.
pub(crate) const CARDS: [Card; 9] = [
    card(("RTX A4000", 86), (48, 1.56), (448.0, GENERATION_4), "NVIDIA RTX A4000 datasheet"),
    card(("RTX 3080", 86), (68, 1.71), (760.0, GENERATION_4), "NVIDIA Ampere GA102 whitepaper"),
    card(("RTX 3090", 86), (82, 1.695), (936.0, GENERATION_4), "NVIDIA Ampere GA102 whitepaper"),
    card(("RTX A5000", 86), (64, 1.695), (768.0, GENERATION_4), "NVIDIA RTX A5000 datasheet"),
    card(("RTX 4090", 89), (128, 2.52), (1_008.0, GENERATION_4), "NVIDIA Ada whitepaper"),
    card(("A100", 80), (108, 1.41), (1_555.0, GENERATION_4), "NVIDIA A100 whitepaper"),
    card(("L40S", 89), (142, 2.52), (864.0, GENERATION_4), "NVIDIA L40S datasheet"),
    card(("H100", 90), (132, 1.98), (3_350.0, GENERATION_5), "NVIDIA H100 (SXM5) datasheet"),
    card(("H200", 90), (132, 1.98), (4_800.0, GENERATION_5), "NVIDIA H200 (SXM5) datasheet"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multiprocessors_and_clocks_make_the_published_peak() {
        for (name, teraflops) in [
            ("RTX A4000", 19.2),
            ("RTX 3080", 29.8),
            ("RTX 3090", 35.6),
            ("RTX A5000", 27.8),
            ("RTX 4090", 82.6),
            ("A100", 19.5),
            ("L40S", 91.6),
            ("H100", 67.0),
            ("H200", 67.0),
        ] {
            let card = CARDS.iter().find(|card| card.name == name).expect("in the table");
            let lanes = if card.architecture == 80 { 64.0 } else { 128.0 };
            let peak = f64::from(card.multiprocessors) * lanes * 2.0 * card.boost_ghz / 1e3;
            assert!((peak - teraflops).abs() / teraflops < 0.005, "{name}: {peak}");
        }
    }
}
