//! The commands: from arguments to text on standard output and an exit code.

pub(crate) mod hardware;
pub(crate) mod simulate;

use std::io::{self, Write};

/// Writes `text` to standard output.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}
