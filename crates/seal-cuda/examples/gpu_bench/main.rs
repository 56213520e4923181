//! Measures a device: its multiplier pipe, the kernels by themselves, and the work of a whole
//! sector on data that is made on the device. Prints a table, and JSON if wanted. What it has
//! measured it sets beside predictions.
//!
//! `cargo xtask bench-pc2 --gpu --equivalent 32GiB` and `scripts/gpu-check.sh` run it.

mod compare;

use std::error::Error;
use std::io::Write;
use std::num::NonZero;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use seal_cuda::measure::{
    Load, PIPE_ROUNDS, Pipe, kernel_times, pipe_rate, whole_sector, word_multiplications,
};
use seal_cuda::{Device, OpenOptions, Shape};

/// Measures a device.
#[derive(Debug, Parser)]
#[command(args_override_self = true, args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    command: Option<Task>,
    /// Nodes of the sector whose work is done: 2^30 are 32 GiB.
    #[arg(long, default_value_t = 1 << 30)]
    nodes: u64,
    /// Nodes of a batch: a power of 8.
    #[arg(long, default_value_t = 1 << 18)]
    batch: usize,
    /// Batches in flight.
    #[arg(long, default_value = "4")]
    streams: NonZero<usize>,
    /// Only tell which device it is.
    #[arg(long)]
    device_only: bool,
    /// Measure the multiplier pipe only.
    #[arg(long)]
    pipes_only: bool,
    /// Leave the multiplier pipe out: the host build of the kernels has none.
    #[arg(long)]
    no_pipes: bool,
    /// Rounds of the two launches whose difference is the time of a pipe. Few are for devices that
    /// are slow and not measured.
    #[arg(long, value_name = "FEW..MANY", value_parser = rounds, default_value_t = Rounds(PIPE_ROUNDS))]
    pipe_rounds: Rounds,
    /// The driver's library, if it is not the system's.
    #[arg(long)]
    driver: Option<PathBuf>,
    /// A file for the figures as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// What can be done instead.
#[derive(Debug, Subcommand)]
enum Task {
    /// Set what was measured beside what was predicted for the card.
    Compare {
        /// What `cargo xtask cuda-report` predicts.
        #[arg(long)]
        predictions: PathBuf,
        /// What a run of this program wrote with --json.
        #[arg(long)]
        measured: PathBuf,
    },
}

#[derive(Debug, Clone)]
struct Rounds(Range<u64>);

impl std::fmt::Display for Rounds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}..{}", self.0.start, self.0.end)
    }
}

fn rounds(text: &str) -> Result<Rounds, String> {
    let numbers = text.split_once("..").and_then(|(few, many)| {
        let (few, many) = (few.parse().ok()?, many.parse().ok()?);
        (0 < few && few < many).then_some(few..many)
    });
    numbers.map(Rounds).ok_or_else(|| "two numbers such as 1024..131072 are needed".to_owned())
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match &args.command {
        Some(Task::Compare { predictions, measured }) => set_beside(predictions, measured),
        None => run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = error.to_string();
            let mut cause = error.source();
            while let Some(error) = cause {
                text.push_str(&format!(": {error}"));
                cause = error.source();
            }
            let _ = writeln!(std::io::stderr(), "error: {text}");
            ExitCode::FAILURE
        }
    }
}

fn set_beside(predictions: &Path, measured: &Path) -> Result<(), Box<dyn Error>> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let text = compare::compare(&read(predictions)?, &read(measured)?)?;
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let mut out = std::io::stdout();
    let image = args.driver.is_some().then_some(&b"the stand-in has its kernels within"[..]);
    let options = OpenOptions {
        driver: args.driver.as_deref(),
        image: image.filter(|_| seal_cuda::embedded().is_none()),
        visible: None,
    };
    let device = Device::open(options)?;
    let info = device.info();
    writeln!(out, "{info}, {} multiprocessors", info.multiprocessors)?;
    let mut json = serde_json::json!({
        "device": info.name, "uuid": info.uuid, "multiprocessors": info.multiprocessors,
        "kernels": info.image.to_string(), "driver": info.driver,
        "memory_bytes": info.memory_bytes, "compute": [info.compute.0, info.compute.1],
    });
    // Word products a second that the multipliers allow.
    let mut limit = None;
    if !args.no_pipes && !args.device_only {
        writeln!(out, "\ninstructions a clock and multiprocessor, by threads; and T/s in all")?;
        for pipe in Pipe::ALL {
            let rate = pipe_rate(&device, pipe, args.pipe_rounds.0.clone())?;
            let (clock, second) = (rate.per_clock, rate.per_second);
            writeln!(out, "  {:<22} {clock:>8.2} {:>8.3}", pipe.name(), second / 1e12)?;
            json["pipe"][pipe.name()] = clock.into();
            json["pipe_per_second"][pipe.name()] = second.into();
            let clock_hz = second / clock / f64::from(info.multiprocessors.max(1));
            json["clock_ghz"][pipe.name()] = (clock_hz / 1e9).into();
            if pipe == Pipe::ImadWideCarry {
                limit = Some(second);
            }
        }
    }
    if !args.pipes_only && !args.device_only {
        let shape = Shape { layers: 11, arity: 8, nodes: args.batch };
        let load = Load { shape, streams: args.streams.get() };
        let times = kernel_times(&device, load, 16)?;
        writeln!(out, "\nkernels by themselves, {} batches of {}", args.streams, args.batch)?;
        for (name, arity, rate) in
            [("columns of 11", 11, times.columns), ("rows of 8", 8, times.rows)]
        {
            let words = word_multiplications(arity).unwrap_or_default();
            let percent = limit.map(|limit| 100.0 * words as f64 * rate / limit);
            let words = words as f64 * rate / 1e12;
            write!(out, "  {name:<14} {:>10.2} M/s  {words:>8.3} T word products/s", rate / 1e6)?;
            match percent {
                Some(percent) => writeln!(out, ", {percent:.1} % of the pipe")?,
                None => writeln!(out)?,
            }
            json["percent_of_pipe"][name] = percent.into();
            json["rates"][name] = rate.into();
            json["word_products"][name] = words.into();
        }
        writeln!(out, "  {:<14} {:>10.2} M/s", "replica", times.encode / 1e6)?;
        json["rates"]["replica"] = times.encode.into();

        let took = whole_sector(&device, load, args.nodes)?.as_secs_f64();
        writeln!(
            out,
            "\nwork of a sector of {} nodes, 11 layers, on data of the device: {took:.3} s",
            args.nodes
        )?;
        json["sector"] = serde_json::json!({
            "nodes": args.nodes, "seconds": took, "batch": args.batch, "streams": args.streams,
        });
    }
    if let Some(file) = &args.json {
        std::fs::write(file, format!("{json:#}\n"))?;
    }
    Ok(())
}
