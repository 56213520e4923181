//! What was measured beside what was predicted for the card. A prediction that is far off is no
//! failure: it tells something of the card, or of what predictions are made of.

use std::fmt::Write;

use serde::Deserialize;
use serde_json::Value;

/// Nodes of the sector that is predicted.
const PREDICTED_NODES: f64 = (1u64 << 30) as f64;

/// The pipe whose rate is not published, so that there is a prediction for each that it may have.
const WIDE: &str = "IMAD.WIDE with carry";

/// The limit that is not there for data that is made on the device.
const BUS: &str = "PCI Express";

/// What `cargo xtask cuda-report` predicts. Other fields are for people.
#[derive(Debug, Deserialize)]
struct Predictions {
    predictions: Vec<Prediction>,
}

/// For a 32 GiB sector on a card.
#[derive(Debug, Deserialize)]
struct Prediction {
    /// Such as `RTX 3080`.
    card: String,
    /// The rate that wide products are taken to have: `full` or `half` that of other products.
    wide_rate: String,
    /// All of PC2.
    predicted_seconds: f64,
    /// What the time is spent on.
    limit: String,
    /// The kernels alone.
    kernel_seconds: Option<f64>,
    /// Of the card that was reckoned with.
    multiprocessors: Option<u64>,
}

impl Prediction {
    /// What the work of a sector takes on data of the device.
    fn without_bus(&self) -> Option<f64> {
        self.kernel_seconds.or((self.limit != BUS).then_some(self.predicted_seconds))
    }
}

/// Why nothing can be compared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CompareError {
    #[error("the predictions are not understood")]
    Predictions(#[source] serde_json::Error),
    #[error("a prediction for {card} has {seconds} seconds")]
    Seconds { card: String, seconds: f64 },
    #[error("what was measured is not understood")]
    Measured(#[source] serde_json::Error),
    #[error("what was measured has no {0}")]
    Missing(&'static str),
}

/// Compares the figures of a run with the predictions for its card, both as JSON.
pub(crate) fn compare(predictions: &str, measured: &str) -> Result<String, CompareError> {
    let all: Predictions = serde_json::from_str(predictions).map_err(CompareError::Predictions)?;
    let measured: Value = serde_json::from_str(measured).map_err(CompareError::Measured)?;
    let device = measured["device"].as_str().ok_or(CompareError::Missing("device"))?;
    let sector = &measured["sector"];
    let number = |value: &Value, name| {
        value.as_f64().filter(|number| *number > 0.0).ok_or(CompareError::Missing(name))
    };
    let nodes = number(&sector["nodes"], "nodes of a sector")?;
    let seconds = number(&sector["seconds"], "seconds of a sector")? * PREDICTED_NODES / nodes;
    let of_card: Vec<_> = all.predictions.iter().filter(|p| is_card(device, &p.card)).collect();
    for Prediction { card, predicted_seconds, kernel_seconds, .. } in &of_card {
        let all = [Some(*predicted_seconds), *kernel_seconds];
        if let Some(seconds) = all.into_iter().flatten().find(|s| !s.is_finite() || *s <= 0.0) {
            return Err(CompareError::Seconds { card: card.clone(), seconds });
        }
    }
    let mut text = String::new();
    if of_card.is_empty() {
        let mut known: Vec<_> = all.predictions.iter().map(|p| &*p.card).collect();
        known.dedup();
        let known = known.join(", ");
        let _ = writeln!(text, "there is no prediction for {device}, only for: {known}");
        return Ok(text);
    }
    let _ = writeln!(text, "{device}, the work of a 32 GiB sector on data of the device");
    let scaled = if nodes == PREDICTED_NODES { "" } else { ", scaled from fewer nodes" };
    let _ = writeln!(text, "  measured                       {seconds:>10.3} s{scaled}");
    for prediction in of_card {
        let Prediction { card, wide_rate, predicted_seconds, limit, .. } = prediction;
        let name = format!("  {card}, wide products at {wide_rate} rate");
        match prediction.without_bus() {
            Some(predicted) => {
                let ratio = seconds / predicted;
                let _ = writeln!(
                    text,
                    "{name:<32} {predicted:>10.3} s predicted, limited by {limit}; measured is \
                     {ratio:.2} times that"
                );
            }
            None => {
                let _ = writeln!(
                    text,
                    "{name:<32} {predicted_seconds:>10.3} s predicted, limited by {BUS}, which is \
                     not measured here"
                );
            }
        }
        let own = measured["multiprocessors"].as_u64();
        if let (Some(reckoned), Some(own)) = (prediction.multiprocessors, own)
            && reckoned != own
        {
            let _ = writeln!(
                text,
                "  this device has {own} multiprocessors, the prediction reckons with {reckoned}"
            );
        }
    }
    let pipes = [("IMAD", &measured["pipe"]["IMAD"]), (WIDE, &measured["pipe"][WIDE])];
    if let [(_, Some(product)), (_, Some(wide))] = pipes.map(|(name, rate)| (name, rate.as_f64())) {
        let _ = writeln!(
            text,
            "  {WIDE} was measured at {:.2} times the rate of IMAD: {wide:.1} and {product:.1} a \
             clock and multiprocessor",
            wide / product
        );
    }
    Ok(text)
}

/// Whether a device, by the name that its driver gives it, is a card. Names are compared word by
/// word; what follows can make it another card.
fn is_card(device: &str, card: &str) -> bool {
    const ANOTHER: [&str; 5] = ["Ti", "SUPER", "D", "Laptop", "Max"];
    let words = |name: &str| -> Vec<String> {
        name.split([' ', '-']).filter(|word| !word.is_empty()).map(str::to_owned).collect()
    };
    let (device, card) = (words(device), words(card));
    if card.is_empty() {
        return false;
    }
    device.windows(card.len()).enumerate().any(|(at, part)| {
        let next = device.get(at + card.len());
        part == card && !next.is_some_and(|next| ANOTHER.contains(&&**next))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREDICTIONS: &str = r#"{"kept": true, "predictions": [
        {"card": "RTX 3080", "wide_rate": "full", "predicted_seconds": 30.0, "limit": "issue slots",
         "architecture": 86},
        {"card": "H200", "wide_rate": "full", "predicted_seconds": 16.5, "limit": "PCI Express",
         "kernel_seconds": 10.0, "multiprocessors": 132},
        {"card": "H200", "wide_rate": "half", "predicted_seconds": 28.0, "limit": "multiplier",
         "multiprocessors": 132},
        {"card": "H100", "wide_rate": "full", "predicted_seconds": 16.4, "limit": "PCI Express"}
    ]}"#;

    fn measured(device: &str) -> String {
        serde_json::json!({
            "device": device, "multiprocessors": 114,
            "pipe": { "IMAD": 64.0, "IMAD.WIDE with carry": 32.0 },
            "sector": { "nodes": 1 << 29, "seconds": 10.0 },
        })
        .to_string()
    }

    #[test]
    fn every_prediction_for_the_card_is_set_beside_what_was_measured() {
        let text = compare(PREDICTIONS, &measured("NVIDIA H200")).expect("understood");
        let expected = "\
NVIDIA H200, the work of a 32 GiB sector on data of the device
  measured                           20.000 s, scaled from fewer nodes
  H200, wide products at full rate     10.000 s predicted, limited by PCI Express; measured is 2.00 times that
  this device has 114 multiprocessors, the prediction reckons with 132
  H200, wide products at half rate     28.000 s predicted, limited by multiplier; measured is 0.71 times that
  this device has 114 multiprocessors, the prediction reckons with 132
  IMAD.WIDE with carry was measured at 0.50 times the rate of IMAD: 32.0 and 64.0 a clock and multiprocessor
";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_card_without_prediction_and_a_limit_that_is_not_measured_are_told() {
        let text = compare(PREDICTIONS, &measured("NVIDIA L4")).expect("understood");
        assert_eq!(text, "there is no prediction for NVIDIA L4, only for: RTX 3080, H200, H100\n");
        let text = compare(PREDICTIONS, &measured("NVIDIA H100 80GB HBM3")).expect("understood");
        assert!(text.contains("PCI Express, which is not measured here"), "{text}");
        assert!(!text.contains("times that"), "{text}");
    }

    #[test]
    fn cards_are_found_by_whole_words() {
        for (device, card, expected) in [
            ("NVIDIA GeForce RTX 3080", "RTX 3080", true),
            ("NVIDIA GeForce RTX 3080 Ti", "RTX 3080", false),
            ("NVIDIA GeForce RTX 3080 Laptop GPU", "RTX 3080", false),
            ("NVIDIA GeForce RTX 4090 D", "RTX 4090", false),
            ("NVIDIA A100-SXM4-80GB", "A100", true),
            ("NVIDIA A10", "A100", false),
            ("NVIDIA RTX A5000", "RTX A5000", true),
            ("NVIDIA L40", "L40S", false),
            ("NVIDIA L40S", "L40S", true),
            ("NVIDIA H200", "", false),
        ] {
            assert_eq!(is_card(device, card), expected, "{device} is {card}");
        }
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        let good = measured("NVIDIA H200");
        for (predictions, measured, what) in [
            ("[]", &*good, "the predictions are not understood"),
            (r#"{"predictions": [{"card": "H200"}]}"#, &good, "the predictions are not understood"),
            (&PREDICTIONS.replace("28.0", "0.0"), &good, "a prediction for H200 has 0 seconds"),
            (PREDICTIONS, "no", "what was measured is not understood"),
            (PREDICTIONS, "{}", "what was measured has no device"),
            (PREDICTIONS, r#"{"device": "a"}"#, "what was measured has no nodes of a sector"),
            (
                PREDICTIONS,
                &good.replace("10.0", "0"),
                "what was measured has no seconds of a sector",
            ),
        ] {
            let error = compare(predictions, measured).expect_err(what);
            assert_eq!(error.to_string(), what);
        }
    }
}
