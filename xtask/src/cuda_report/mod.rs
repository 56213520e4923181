//! `cargo xtask cuda-report`: what the machine code of the kernels is made of, what a hash executes
//! of it, what runs on a multiprocessor at a time, and what that lets expect of a card. No GPU is
//! needed: machine code is disassembled, and its loops are followed by their counters.

mod cards;
mod classes;
mod compile;
mod control;
mod counts;
mod occupancy;
mod operands;
/// What the planner reckons with: data of its own, so that it needs no compiler.
#[path = "../../../crates/seal-plan/src/predicted.rs"]
mod planner;
mod predict;
mod ptx;
mod ptx_control;
mod ptxas;
mod sass;
mod sass_control;
mod sass_decode;
mod targets;
mod text;

pub(crate) use compile::build;

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use self::cards::{CARDS, Card};
use self::classes::Class;
use self::compile::Compiled;
use self::counts::{MachineCode, Whole};
use self::occupancy::{Block, Occupancy};
use self::predict::{Prediction, WideRate, Work};
use self::targets::Check;
use crate::bench::write_result;
use crate::cargo::target;
use crate::out::say;

/// Options of `cuda-report`.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// The architectures to compile for, such as 90 or 80,86; all usual ones if not given.
    #[arg(long, value_name = "LIST")]
    architectures: Option<String>,
    /// Print the loops of each kernel, too.
    #[arg(long)]
    loops: bool,
    /// Keep the report as JSON in benches/runs.
    #[arg(long)]
    keep: bool,
}

/// The kernels that hash, and how many nodes each hash takes. What they do depends on nothing that
/// they are called with.
const HASHES: [(&str, u32); 4] =
    [("seal_columns_11", 11), ("seal_columns_2", 2), ("seal_rows_8", 8), ("seal_rows_2", 2)];
/// Of those, what hashes a 32 GiB sector.
const COLUMNS: &str = "seal_columns_11";
const ROWS: &str = "seal_rows_8";
/// The kernel that encodes, which depends on nothing either.
const ENCODE: &str = "seal_encode";

/// A kernel for an architecture.
struct Kernel {
    said: ptxas::Kernel,
    machine: MachineCode,
    /// Where the size of its blocks is known.
    occupancy: Option<Occupancy>,
    /// Wide products that a thread of its PTX executes, for kernels that hash.
    wide_products_of_ptx: Option<u64>,
}

impl Kernel {
    fn is(&self, name: &str, architecture: u32) -> bool {
        self.said.name == name && self.said.architecture == architecture
    }
}

/// A loop of one operation of the field.
struct Operation {
    name: &'static str,
    architecture: u32,
    /// Of a pass.
    instructions: f64,
    wide_products: f64,
    packed_predicates: f64,
}

/// What a card is predicted to take.
struct Expected {
    card: &'static Card,
    rate: WideRate,
    prediction: Prediction,
}

/// Everything that was found.
struct Report {
    kernels: Vec<Kernel>,
    operations: Vec<Operation>,
    expected: Vec<Expected>,
    checks: Vec<Check>,
}

/// Compiles the kernels, prints what was found, and fails where it does not keep what it has to.
pub(crate) fn run(args: &Args) -> Result<()> {
    let everything = compile::everything(args.architectures.as_deref())?;
    let said = ptxas::parse(&everything.ptxas)?;
    let numbers: Vec<u32> =
        everything.architectures.iter().map(|compiled| compiled.architecture).collect();
    let of = |number| everything.architectures.iter().find(|c| c.architecture == number);
    let looked_at = compile::in_parallel(&numbers, |number| {
        let compiled = of(number).context("of the same list")?;
        kernels(compiled, &said)
            .and_then(|kernels| Ok((kernels, operations(compiled)?)))
            .with_context(|| format!("for {number}"))
    })?;
    let (kernels, operations): (Vec<_>, Vec<_>) = looked_at.into_iter().unzip();
    let kernels: Vec<Kernel> = kernels.into_iter().flatten().collect();
    ensure!(!kernels.is_empty(), "nvcc reported no kernel");
    let operations: Vec<Operation> = operations.into_iter().flatten().collect();
    let expected = expected(&kernels)?;
    let mut checks = checks(&kernels, &operations)?;
    checks.extend(checks_of_planner(&expected)?);
    let report = Report { kernels, operations, expected, checks };
    text::print(&report, args.loops);
    report.write_predictions()?;
    if args.keep {
        write_result("cuda-report", report.to_json())?;
    }
    let broken: Vec<_> = report.checks.iter().filter(|check| !check.kept()).collect();
    for check in &broken {
        say(&format!("    not kept: {}", text::check(check)));
    }
    ensure!(
        broken.is_empty(),
        "{} of {} figures of the device code are not what they have to be",
        broken.len(),
        report.checks.len()
    );
    say(&format!("{} figures of the device code are what they have to be", report.checks.len()));
    Ok(())
}

/// Looks at the kernels of an architecture.
fn kernels(compiled: &Compiled, said: &[ptxas::Kernel]) -> Result<Vec<Kernel>> {
    let functions = sass::parse(&compiled.kernels)?;
    let ptx = ptx::parse(&compiled.ptx)?;
    let of_this = said.iter().filter(|kernel| kernel.architecture == compiled.architecture);
    of_this
        .map(|said| {
            let name = &said.name;
            let function = functions.iter().find(|function| function.name == *name);
            let function = function.with_context(|| format!("no machine code of {name}"))?;
            let source = ptx.iter().find(|function| function.name == *name);
            let source = source.with_context(|| format!("no PTX of {name}"))?;
            let hashes = HASHES.iter().any(|(known, _)| known == name);
            let occupancy = source.threads.map(|threads| {
                let block = Block { threads, registers: said.registers, shared: said.shared };
                Occupancy::of(compiled.architecture, block)
            });
            Ok(Kernel {
                said: said.clone(),
                machine: MachineCode::of(function, hashes || name == ENCODE)?,
                occupancy: occupancy.transpose()?,
                wide_products_of_ptx: hashes
                    .then(|| counts::wide_products_of_ptx(source))
                    .transpose()?,
            })
        })
        .collect()
}

/// Looks at the loops of single operations.
fn operations(compiled: &Compiled) -> Result<Vec<Operation>> {
    const NAMES: [(&str, &str); 4] = [
        ("product", "seal_operation_product"),
        ("square", "seal_operation_square"),
        ("fifth power", "seal_operation_fifth_power"),
        ("term of a dot product", "seal_operation_dot_term"),
    ];
    let functions = sass::parse(&compiled.operations)?;
    NAMES
        .into_iter()
        .map(|(name, symbol)| {
            let function = functions.iter().find(|function| function.name == symbol);
            let function = function.with_context(|| format!("no machine code of {symbol}"))?;
            let executed = MachineCode::of(function, true)?.executed;
            let pass = executed.as_ref().and_then(Whole::innermost);
            let pass = pass.with_context(|| format!("{symbol} has no loop"))?;
            Ok(Operation {
                name,
                architecture: compiled.architecture,
                instructions: pass.each_pass(),
                wide_products: pass.each(Class::WideProduct),
                packed_predicates: pass.each(Class::PackedPredicate),
            })
        })
        .collect()
}

/// All figures that have to keep something.
fn checks(kernels: &[Kernel], operations: &[Operation]) -> Result<Vec<Check>> {
    let mut checks = Vec::new();
    for Kernel { said, machine, occupancy, wide_products_of_ptx } in kernels {
        let (name, architecture) = (&said.name, said.architecture);
        let what = format!("bytes on a stack or spilled, {name} for {architecture}");
        checks.push(Check::at_most(what, f64::from(said.stack + said.spilled), 0.0));
        if let Some(occupancy) = occupancy {
            checks.extend(targets::threads(name, architecture, occupancy.threads));
        }
        let arity = HASHES.iter().find(|(known, _)| known == name).map(|(_, arity)| *arity);
        let (Some(arity), Some(whole)) = (arity, &machine.executed) else { continue };
        let judged = targets::JUDGED.contains(&architecture);
        if judged {
            checks.push(targets::no_packed_predicate(name, architecture, &machine.code));
        }
        if judged && [COLUMNS, ROWS].contains(&&**name) {
            let what = format!("instructions for each wide product, {name} for {architecture}");
            let each = whole.counts.for_each_wide_product();
            checks.push(Check::at_most(what, each, targets::FOR_EACH_WIDE_PRODUCT));
        }
        let products = whole.counts.get(Class::WideProduct);
        let of_ptx = wide_products_of_ptx.context("hashes are counted in PTX")?;
        let what = format!("wide products beside those of the PTX, {name} for {architecture}");
        checks.push(targets::near(what, products, of_ptx, targets::COMPILED_APART));
        let by_hand =
            seal_cuda::measure::word_multiplications(arity).context("of the network's arities")?;
        let what = format!("wide products of PTX beside those counted, {name} for {architecture}");
        checks.push(targets::near(what, of_ptx, by_hand, targets::COUNTED_APART));
    }
    for operation in operations.iter().filter(|o| targets::JUDGED.contains(&o.architecture)) {
        let Operation { name, architecture, instructions, packed_predicates, .. } = operation;
        let most = match *name {
            "product" => Some(targets::PRODUCT),
            "square" => Some(targets::SQUARE),
            _ => None,
        };
        if let Some(most) = most {
            let what = format!("instructions of a {name} for {architecture}");
            checks.push(Check::at_most(what, *instructions, most));
        }
        let what = format!("packed predicates of a {name} for {architecture}");
        checks.push(Check::at_most(what, *packed_predicates, 0.0));
    }
    Ok(checks)
}

/// That the planner reckons with what is predicted.
fn checks_of_planner(expected: &[Expected]) -> Result<Vec<Check>> {
    let slower = expected.iter().filter(|expected| expected.rate == WideRate::Half);
    slower
        .map(|Expected { card, prediction, .. }| {
            let known = planner::PC2.iter().find(|known| known.card == card.name);
            let known = known.with_context(|| {
                format!("the planner knows no {}: crates/seal-plan/src/predicted.rs", card.name)
            })?;
            let what = format!(
                "the planner's {} s beside the predicted {:.1} s, {}",
                known.seconds, prediction.seconds, card.name
            );
            let apart = (known.seconds - prediction.seconds).abs() / prediction.seconds;
            Ok(Check::at_most(what, apart, targets::PLANNED_APART))
        })
        .collect()
}

/// What the cards are predicted to take whose architecture was compiled for.
fn expected(kernels: &[Kernel]) -> Result<Vec<Expected>> {
    let mut expected = Vec::new();
    for card in &CARDS {
        let whole = |name| {
            let kernel = kernels.iter().find(|kernel| kernel.is(name, card.architecture));
            kernel.and_then(|kernel| kernel.machine.executed.as_ref())
        };
        if !kernels.iter().any(|kernel| kernel.said.architecture == card.architecture) {
            continue;
        }
        let work = [
            (COLUMNS, predict::NODES, predict::COLUMN_BYTES),
            (ROWS, predict::ROWS, predict::ROW_BYTES),
            (ENCODE, predict::NODES, predict::ENCODE_BYTES),
        ]
        .map(|(name, threads, bytes)| {
            let whole = whole(name).with_context(|| format!("{name} was not counted"))?;
            Ok(Work { whole, threads, bytes })
        });
        let work = work.into_iter().collect::<Result<Vec<_>>>()?;
        for rate in WideRate::ALL {
            expected.push(Expected { card, rate, prediction: Prediction::of(card, &work, rate) });
        }
    }
    Ok(expected)
}

/// What is predicted, in the target directory: gathered for a machine with a GPU, which compares.
pub(crate) const PREDICTIONS: &str = "predictions.json";

impl Report {
    fn write_predictions(&self) -> Result<()> {
        let list: Vec<_> = self.expected.iter().map(Expected::to_json).collect();
        let file = target().join(PREDICTIONS);
        let text = serde_json::to_string_pretty(&json!({ "predictions": list }))?;
        std::fs::write(&file, text + "\n")
            .with_context(|| format!("cannot write {}", file.display()))
    }

    fn to_json(&self) -> Value {
        let kernels: Vec<_> = self.kernels.iter().map(Kernel::to_json).collect();
        let operations: Vec<_> = self.operations.iter().map(Operation::to_json).collect();
        let predictions: Vec<_> = self.expected.iter().map(Expected::to_json).collect();
        let checks: Vec<_> = self.checks.iter().map(text::check).collect();
        let kept = self.checks.iter().all(Check::kept);
        json!({
            "kernels": kernels, "operations": operations, "predictions": predictions,
            "checks": checks, "kept": kept,
        })
    }
}

impl Kernel {
    fn to_json(&self) -> Value {
        let ptxas::Kernel { name, architecture, registers, shared, stack, spilled } = &self.said;
        let executed = self.machine.executed.as_ref().map(|whole| {
            let loops: Vec<_> = whole.loops.iter().map(counts::Loop::to_json).collect();
            json!({
                "instructions": whole.counts.to_json(),
                "for_each_wide_product": whole.counts.for_each_wide_product(),
                "shared_bytes": whole.shared_bytes, "branches_by_data": whole.by_data,
                "loops": loops,
            })
        });
        json!({
            "kernel": name, "architecture": architecture, "registers": registers,
            "shared_bytes": shared, "stack_bytes": stack, "spilled_bytes": spilled,
            "code_bytes": self.machine.bytes, "code": self.machine.code.to_json(),
            "threads_a_multiprocessor": self.occupancy.map(|occupancy| occupancy.threads),
            "warps_a_multiprocessor": self.occupancy.map(|occupancy| occupancy.warps),
            "limited_by": self.occupancy.map(|occupancy| occupancy.limit.name()),
            "wide_products_of_ptx": self.wide_products_of_ptx, "executed": executed,
        })
    }
}

impl Operation {
    fn to_json(&self) -> Value {
        let Self { name, architecture, instructions, wide_products, packed_predicates } = self;
        json!({
            "operation": name, "architecture": architecture, "instructions": instructions,
            "wide_products": wide_products, "packed_predicates": packed_predicates,
        })
    }
}

impl Expected {
    fn to_json(&self) -> Value {
        let Self { card, rate, prediction } = self;
        let parts: BTreeMap<_, _> =
            prediction.parts.iter().map(|(part, seconds)| (part.name(), *seconds)).collect();
        json!({
            "card": card.name, "architecture": card.architecture, "wide_rate": rate.name(),
            "predicted_seconds": prediction.seconds, "kernel_seconds": prediction.kernels,
            "limit": prediction.limit.name(), "multiprocessors": card.multiprocessors,
            "seconds_of_parts": parts, "card_source": card.source,
        })
    }
}

#[cfg(test)]
mod tests;
