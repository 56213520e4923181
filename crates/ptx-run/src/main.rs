//! Runs PTX for a stand-in for the driver, or says whether it can be run.
#![forbid(unsafe_code)]

use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use ptx_run::serve::{Server, keep_counts};
use ptx_run::{Memory, Module};

/// Runs the PTX of device code on the processor, and checks what it does.
#[derive(Debug, Parser)]
#[command(version)]
enum Command {
    /// Reads a text and lists its kernels.
    ///
    /// Anything that is not known, and any register that could be read before it is written, is an
    /// error with its line.
    Check {
        /// The text, as `nvcc --ptx` writes it.
        file: PathBuf,
    },
    /// Takes the requests of a stand-in for the driver from standard input.
    Serve {
        /// The text.
        file: PathBuf,
        /// What the orders of threads and blocks are drawn from.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Where to tell at the end what has been executed.
        #[arg(long, value_name = "DIR")]
        counts: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    match run(Command::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody may be there to read it.
            let _ = writeln!(std::io::stderr(), "ptx-run: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    let memory = Memory::default();
    let mut output = BufWriter::new(std::io::stdout().lock());
    match command {
        Command::Check { file } => {
            let module = load(&file, &memory)?;
            for kernel in module.kernels() {
                writeln!(output, "{kernel} for {}", module.target())?;
            }
            output.flush()?;
        }
        Command::Serve { file, seed, counts } => {
            let module = load(&file, &memory)?;
            let mut input = BufReader::new(std::io::stdin().lock());
            Server::new(&module, &memory, seed).serve(&mut input, &mut output)?;
            if let Some(dir) = counts {
                keep_counts(&module, &dir)
                    .with_context(|| format!("cannot write {}", dir.display()))?;
            }
        }
    }
    Ok(())
}

fn load(file: &Path, memory: &Memory) -> Result<Module> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    Module::load(&text, memory).with_context(|| format!("cannot run {}", file.display()))
}
