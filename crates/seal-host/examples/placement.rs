//! Tells where units, threads and memory of this process come to lie: `key value` lines on
//! standard output. `cargo xtask vm-test` runs it on a machine with two NUMA nodes.
//!
//! Arguments: the MiB of memory to take for each unit, then the binding (`strict` or `preferred`);
//! or `interleaved`, for memory of the process on all its nodes.
#![forbid(unsafe_code)]

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use seal_host::{
    Admission, Binding, CoreUnit, MemoryPolicy, NodeId, PageChoice, Region, Threads, Topology,
    UnitRequest, WantedPlace, allowed_cpus, bind_current_thread, interleave_memory, place_self,
    plan_units, preferred_node,
};

/// What this program reports to.
type Output<'a> = &'a mut dyn Write;

fn main() -> ExitCode {
    let mut output = std::io::stdout();
    match report(&mut output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(output, "error {error}");
            ExitCode::FAILURE
        }
    }
}

/// As the environment says, by the names that venus-worker sets.
fn wanted_place() -> Result<WantedPlace, Box<dyn Error>> {
    let get = |name| std::env::var(name).ok();
    let cpus = get("VC_CG_CPUSET").map(|text| text.parse()).transpose()?;
    let node = get("VENUS_WORKER_NUMA_PREFERRED").map(|text| text.parse()).transpose()?;
    Ok(WantedPlace { cpus, group: get("VC_CG_NAME"), node: node.map(NodeId) })
}

fn report(output: Output<'_>) -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mib: usize = arguments.next().ok_or("how many MiB?")?.parse()?;
    let binding = match arguments.next().as_deref() {
        Some("strict") => Binding::Strict,
        Some("preferred") => Binding::Preferred,
        Some("interleaved") => return interleaved(mib << 20, output),
        other => return Err(format!("{other:?} is no binding").into()),
    };
    let _placed = place_self(&wanted_place()?)?;
    if let Some(node) = preferred_node() {
        writeln!(output, "preferred {node}")?;
    }
    let allowed = allowed_cpus()?;
    writeln!(output, "allowed {allowed}")?;
    let topology = Topology::read(Path::new("/sys"))?;
    let request = UnitRequest { producers: 1, threads: Threads::OnePerCore };
    let plan = plan_units(&topology, &allowed, request)?;
    if let Some(reduced) = plan.reduced {
        writeln!(output, "reduced {reduced}")?;
    }
    let admission = Admission::default();
    for unit in &plan.units {
        writeln!(output, "unit {unit}")?;
        threads(unit, output)?;
        let policy = MemoryPolicy {
            node: Some((unit.node, binding)),
            cpus: unit.cpus(),
            pages: PageChoice::Huge,
        };
        for region in admission.allocate(&[mib << 20], &policy, None)? {
            writeln!(output, "pages {}", region.pages())?;
            for (node, percent) in region.percent_by_node().unwrap_or_default() {
                writeln!(output, "memory node {node}: {percent} %")?;
            }
        }
    }
    Ok(())
}

/// Memory that a thread takes after the process was told to take it from all nodes.
fn interleaved(bytes: usize, output: Output<'_>) -> Result<(), Box<dyn Error>> {
    for node in interleave_memory()? {
        writeln!(output, "in turn from node {node}")?;
    }
    let take = move || Region::allocate(bytes, &MemoryPolicy::default());
    let mut region = std::thread::spawn(take).join().map_err(|_| "a thread panicked")??;
    region.bytes_mut().fill(1);
    for (node, percent) in region.percent_by_node().unwrap_or_default() {
        writeln!(output, "memory node {node}: {percent} %")?;
    }
    Ok(())
}

/// Starts a thread for each cpu of the unit, which binds itself, works a little, and looks where
/// the kernel ran it.
fn threads(unit: &CoreUnit, output: Output<'_>) -> Result<(), Box<dyn Error>> {
    for cpu in unit.cpus().iter() {
        let thread = std::thread::spawn(move || -> Result<String, String> {
            bind_current_thread(cpu).map_err(|error| error.to_string())?;
            let started = Instant::now();
            while started.elapsed() < Duration::from_millis(50) {
                std::hint::spin_loop();
            }
            let stat = std::fs::read_to_string("/proc/thread-self/stat");
            let stat = stat.map_err(|error| error.to_string())?;
            // Field 39, counted after the name, which may contain anything but a bracket.
            let fields = stat.rsplit(')').next().unwrap_or_default();
            let ran_on = fields.split_ascii_whitespace().nth(36).unwrap_or("?");
            Ok(format!("thread bound to {cpu} ran on {ran_on}"))
        });
        let line = thread.join().map_err(|_| "a thread panicked")??;
        writeln!(output, "{line}")?;
    }
    Ok(())
}
