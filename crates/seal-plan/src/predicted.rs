//! How long cards are predicted to take for PC2: what `cargo xtask cuda-report` computes from the
//! machine code of the kernels and published figures of the cards. Nothing of it was measured.
//!
//! Data alone: the report takes this file, too, and fails where its predictions are others.

/// What a card is predicted to take for the device's work of a 32 GiB sector.
pub(crate) struct Predicted {
    /// The card, without its maker.
    pub(crate) card: &'static str,
    /// Seconds, with wide products at half the rate of others: whether they have it is not
    /// published, and it is the slower of the two assumptions.
    pub(crate) seconds: f64,
}

const fn predicted(card: &'static str, seconds: f64) -> Predicted {
    Predicted { card, seconds }
}

/// The cards that are predicted.
pub(crate) const PC2: [Predicted; 9] = [
    predicted("RTX A4000", 86.0),
    predicted("RTX 3080", 55.0),
    predicted("RTX 3090", 46.0),
    predicted("RTX A5000", 59.0),
    predicted("RTX 4090", 20.0),
    predicted("A100", 42.0),
    predicted("L40S", 18.0),
    predicted("H100", 24.5),
    predicted("H200", 24.5),
];
