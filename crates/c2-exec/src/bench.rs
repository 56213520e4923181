//! The prover on made-up circuits, for `cargo xtask bench-c2 --synthetic`.

use std::io::{self, Write};
use std::ops::RangeInclusive;

use seal_field::curve::CurveKernel;
use seal_groth16::prove_synthetic;
use seal_wire::ExitCode;
use serde_json::json;

/// Writes what each size took to standard output.
pub(crate) fn run(kernel: CurveKernel, bits: RangeInclusive<u32>) -> io::Result<ExitCode> {
    let mut output = io::stdout().lock();
    for bits in bits {
        let measured = match prove_synthetic(kernel, bits) {
            Ok(measured) => measured,
            Err(error) => {
                tracing::error!("{error}");
                return Ok(ExitCode::Failed);
            }
        };
        let times = measured.times;
        let line = json!({
            "curve": kernel.name(), "constraints": measured.constraints,
            "transforms_s": times.transforms.as_secs_f64(), "h_s": times.h.as_secs_f64(),
            "l_s": times.l.as_secs_f64(), "a_s": times.a.as_secs_f64(),
            "b_s": times.b.as_secs_f64(), "total_s": measured.total.as_secs_f64(),
        });
        writeln!(output, "{line}")?;
    }
    Ok(ExitCode::Success)
}
