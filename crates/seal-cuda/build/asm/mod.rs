//! Checks inline assembly of the device code: no operand may be written before the last read of
//! another one that the compiler may keep in the same register.
//!
//! Of two operands that it knows to be equal the compiler makes one register, unless the one that
//! is written is marked as an early clobber (`&`). Left out, the mark is missed only where values
//! happen to be equal, in code that is right everywhere else; so this is checked twice whenever
//! device code is compiled: the constraints in the sources ([`faults_of_sources`]), and the
//! registers in the PTX that came of them ([`faults_of_ptx`]).

mod cpp;
mod instance;
mod statement;
mod template;

use std::fmt;

pub(crate) use instance::faults_of_ptx;
pub(crate) use statement::Statement;

/// Something wrong with a piece of inline assembly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The file.
    pub(crate) file: String,
    /// The line, from 1 on.
    pub(crate) line: usize,
    /// What is wrong, and what to do.
    pub(crate) what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

/// The pieces of inline assembly in a source file, and what is wrong with their constraints.
pub(crate) fn faults_of_sources(file: &str, text: &str) -> (Vec<Statement>, Vec<Fault>) {
    let (statements, mut faults) = statement::find(file, text);
    faults.extend(statements.iter().flat_map(Statement::faults));
    (statements, faults)
}

#[cfg(test)]
mod tests;
