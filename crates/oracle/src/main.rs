//! The published sealing software as a judge: `oracle` runs each step of sealing by
//! `filecoin-proofs-api`, so that our own stages can be compared with it and their results judged
//! by it.
//!
//! It is a program of its own so that neither `xtask` nor the tests link the published crates.
//! Every subcommand writes one line of JSON to standard output, its result; what the crates print
//! goes before it or to standard error. Parameters are looked for in `FIL_PROOFS_PARAMETER_CACHE`,
//! parents caches in `FIL_PROOFS_PARENT_CACHE`, as the crates do.
#![forbid(unsafe_code)]

mod graph;
mod stages;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use seal_types::RegisteredProof;
use serde::Serialize;
use serde::de::DeserializeOwned;

// Only its features matter here: with "portable" it runs on every CPU of the architecture.
use blst as _;

/// Runs steps of sealing by filecoin-proofs-api.
#[derive(Parser)]
#[command(version)]
enum Command {
    /// Turns a file of client data into a staged file with one piece that fills the sector.
    AddPiece {
        /// The proof, for example StackedDrg2KiBV1_1.
        #[arg(long)]
        proof: RegisteredProof,
        /// The client's data: filled with zeros, or cut, to what a sector holds.
        #[arg(long)]
        input: PathBuf,
        /// The staged file to write.
        #[arg(long)]
        staged: PathBuf,
    },
    /// Runs PC1 on a task as venus-worker sends it.
    Pc1(Task),
    /// Runs PC2 on a task as venus-worker sends it.
    Pc2(Task),
    /// Runs C1, for synthetic proofs after making the synthetic challenges' proofs; the answer is
    /// the `c1out` of a C2 task.
    C1(Task),
    /// Runs C2 on a task as venus-worker sends it.
    C2(Task),
    /// Verifies a proof as the network does; the answer is {"valid": true} or {"valid": false}.
    /// Bytes that are no points of the curve, and so no proof at all, are an error.
    Verify(Task),
    /// Tells the 14 parents of nodes of a proof's graph.
    Parents {
        /// The proof, for example StackedDrg32GiBV1.
        #[arg(long)]
        proof: RegisteredProof,
        /// The nodes.
        #[arg(long = "node", required = true, num_args = 1..)]
        nodes: Vec<u64>,
    },
}

#[derive(clap::Args)]
struct Task {
    /// The task as JSON; "-" is standard input.
    #[arg(long, default_value = "-")]
    task: PathBuf,
}

impl Task {
    fn read<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        let text = if self.task == Path::new("-") {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
            text
        } else {
            std::fs::read_to_string(&self.task)
                .with_context(|| format!("cannot read {}", self.task.display()))?
        };
        serde_json::from_str(&text).context("not a task of this step")
    }
}

fn main() -> ExitCode {
    match run(Command::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to be done if standard error is gone too.
            let _ = writeln!(std::io::stderr(), "oracle: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::AddPiece { proof, input, staged } => {
            answer(&stages::add_piece(proof, &input, &staged)?)
        }
        Command::Pc1(task) => answer(&stages::pc1(task.read()?)?),
        Command::Pc2(task) => answer(&stages::pc2(task.read()?)?),
        Command::C1(task) => answer(&stages::c1(task.read()?)?),
        Command::C2(task) => answer(&stages::c2(task.read()?)?),
        Command::Verify(task) => answer(&stages::verify(task.read()?)?),
        Command::Parents { proof, nodes } => answer(&graph::parents(proof, &nodes)?),
    }
}

/// Writes the result as one line.
fn answer<T: Serialize>(result: &T) -> anyhow::Result<()> {
    let mut output = std::io::stdout().lock();
    serde_json::to_writer(&mut output, result).context("cannot write the result")?;
    output.write_all(b"\n").and_then(|()| output.flush()).context("cannot write the result")
}
