//! The one writer of answers.

use std::fs::File;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

/// The real standard output, one line at a time.
#[derive(Debug)]
pub(crate) struct Answers(Mutex<File>);

impl Answers {
    pub(crate) fn new(output: File) -> Self {
        Self(Mutex::new(output))
    }

    /// Writes `message` as one line.
    pub(crate) fn send<T: Serialize>(&self, message: &T) -> io::Result<()> {
        self.send_line(&seal_wire::to_line(message))
    }

    /// Writes a line that ends in a line end.
    pub(crate) fn send_line(&self, line: &[u8]) -> io::Result<()> {
        let mut output = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        output.write_all(line)?;
        output.flush()
    }

    /// Whether anybody reads the answers.
    pub(crate) fn have_reader(&self) -> bool {
        let output = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seal_host::has_reader(&output)
    }
}
