//! What people read: lines on standard output.

use std::io::Write;

/// Writes a line. Nobody is left to tell if standard output is gone.
pub(crate) fn say(line: &str) {
    // Tests look at results; lines about made-up faults would be taken for real ones.
    if cfg!(test) {
        return;
    }
    let mut output = std::io::stdout().lock();
    let _ = writeln!(output, "{line}");
    let _ = output.flush();
}

/// A heading between steps.
pub(crate) fn step(text: &str) {
    say(&format!("==> {text}"));
}
