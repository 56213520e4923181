//! The report as people read it.

use super::classes::Class;
use super::targets::{self, Bound, Check};
use super::{COLUMNS, Expected, HASHES, Kernel, Operation, ROWS, Report, ptxas};
use crate::out::say;

/// Prints everything.
pub(super) fn print(report: &Report, loops: bool) {
    say(&format!(
        "{:<26} {:>4} {:>9} {:>7} {:>6} {:>8} {:>6} {:>8} {:>7}  limited by",
        "kernel", "for", "registers", "shared", "stack", "spilled", "KiB", "threads", "warps"
    ));
    report.kernels.iter().for_each(|kernel| say(&resources(kernel)));
    say("");
    say("Instructions that a thread executes for a hash, by class:");
    say(&classes_heading());
    for (name, _) in HASHES {
        for kernel in report.kernels.iter().filter(|kernel| kernel.said.name == name) {
            classes(kernel).iter().for_each(|line| say(line));
        }
    }
    say(&format!(
        "  to keep for {:?}: at most {} instructions for each wide product in {COLUMNS} and \
         {ROWS}, no packed predicate",
        targets::JUDGED,
        targets::FOR_EACH_WIDE_PRODUCT
    ));
    say("");
    say("Instructions of an operation, with the loop around it:");
    report.operations.iter().for_each(|operation| say(&operation_line(operation)));
    say(&format!(
        "  to keep for {:?}: product at most {}, square at most {}",
        targets::JUDGED,
        targets::PRODUCT,
        targets::SQUARE
    ));
    say("");
    say("PC2 of a 32 GiB sector on a card, predicted and not measured, each part at full use:");
    report.expected.iter().for_each(|expected| say(&expected_line(expected)));
    if loops {
        report.kernels.iter().for_each(print_loops);
    }
}

fn resources(kernel: &Kernel) -> String {
    let ptxas::Kernel { name, architecture, registers, shared, stack, spilled } = &kernel.said;
    let kib = kernel.machine.bytes.div_ceil(1024);
    let (threads, warps, limit) = match kernel.occupancy {
        Some(o) => (o.threads.to_string(), o.warps.to_string(), o.limit.name()),
        None => ("-".to_owned(), "-".to_owned(), "-"),
    };
    let least = kernel.occupancy.and_then(|o| targets::threads(name, *architecture, o.threads));
    let least = least.map(|check| format!(", {}", bound(check.bound))).unwrap_or_default();
    format!(
        "{name:<26} {architecture:>4} {registers:>9} {shared:>7} {stack:>6} {spilled:>8} {kib:>6} \
         {threads:>8} {warps:>7}  {limit}{least}"
    )
}

/// The classes that have a column; what is left over is one more.
const COLUMNS_OF_CLASSES: [(Class, &str); 14] = [
    (Class::WideProduct, "wide"),
    (Class::Product, "product"),
    (Class::Sum, "sum"),
    (Class::Logic, "logic"),
    (Class::Comparison, "compare"),
    (Class::PackedPredicate, "packed"),
    (Class::Selection, "select"),
    (Class::Shift, "shift"),
    (Class::Move, "move"),
    (Class::LoadShared, "lds"),
    (Class::StoreShared, "sts"),
    (Class::LoadConstant, "ldc"),
    (Class::Branch, "branch"),
    (Class::Uniform, "uniform"),
];

fn classes_heading() -> String {
    let names = COLUMNS_OF_CLASSES.iter().map(|(_, name)| format!("{name:>8}"));
    let names: String = names.collect();
    format!("{:<16} {:>4} {:>5} {:>8}{names}{:>8}", "kernel", "for", "each", "all", "rest")
}

/// What is executed, and below it what stands in the code.
fn classes(kernel: &Kernel) -> Vec<String> {
    let Some(whole) = &kernel.machine.executed else { return Vec::new() };
    let line = |name: &str, counts: &super::counts::Counts| {
        let columns = COLUMNS_OF_CLASSES.map(|(class, _)| counts.get(class));
        let rest = counts.all() - columns.iter().sum::<u64>();
        let columns: String = columns.iter().map(|count| format!("{count:>8}")).collect();
        format!(
            "{name:<16} {:>4} {:>5.2} {:>8}{columns}{rest:>8}",
            kernel.said.architecture,
            counts.for_each_wide_product(),
            counts.all()
        )
    };
    vec![line(&kernel.said.name, &whole.counts), line("  its code", &kernel.machine.code)]
}

fn operation_line(operation: &Operation) -> String {
    let Operation { name, architecture, instructions, wide_products, packed_predicates } =
        operation;
    format!(
        "  {name:<22} {architecture:>4} {instructions:>7.1}, wide products {wide_products:>5.1}, \
         each {:>5.2}, packed predicates {packed_predicates:>4.1}",
        instructions / wide_products.max(1.0)
    )
}

fn expected_line(expected: &Expected) -> String {
    let Expected { card, rate, prediction } = expected;
    let parts = prediction.parts.iter().map(|(part, s)| format!("{} {s:.1}", part.name()));
    format!(
        "  {:<10} {:>4}  wide products at {:<4} rate: {:>6.1} s, limited by {:<13} ({})",
        card.name,
        card.architecture,
        rate.name(),
        prediction.seconds,
        prediction.limit.name(),
        parts.collect::<Vec<_>>().join(", ")
    )
}

fn print_loops(kernel: &Kernel) {
    let Some(whole) = &kernel.machine.executed else { return };
    say("");
    say(&format!(
        "Loops of {} for {} ({} branches depend on data; the shorter way is counted):",
        kernel.said.name, kernel.said.architecture, whole.by_data
    ));
    for l in &whole.loops {
        say(&format!(
            "  at {:#07x}: {:>5} instructions, entered {:>5} times, {:>6} passes, executed {:>8}, \
             wide {:>8}",
            l.address,
            l.instructions,
            l.entered,
            l.passes,
            l.executed.all(),
            l.executed.get(Class::WideProduct)
        ));
    }
}

fn bound(bound: Bound) -> String {
    match bound {
        Bound::AtMost(most) => format!("at most {most}"),
        Bound::AtLeast(least) => format!("at least {least}"),
    }
}

/// A figure with what it has to keep.
pub(super) fn check(check: &Check) -> String {
    // Parts of one have more digits.
    let digits = if check.figure < 0.1 && check.figure > 0.0 { 4 } else { 2 };
    format!("{}: {:.digits$}, {}", check.what, check.figure, bound(check.bound))
}
