//! Labelling alone: whole layers in memory, beside the chain that bounds them on the same core.
//!
//! `cargo run --release -p benches --bin labelling -- --layer-size 4GiB --parents DIR`. Every
//! layer is a line of JSON on standard output. The chain is measured just before each layer: label
//! after label with everything else prepared and in the first cache, once beside idle cores and
//! once while the unit's producer is busy, since cores share clocks and caches; and once for two
//! sectors side by side. The clock that cycles are told by is that of the same core and moment.
#![forbid(unsafe_code)]

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Parser;
use seal_host::{
    CpuSet, LabelMemory, LayerReader, MemoryPolicy, Region, Roots, Threads, Topology, UnitRequest,
    allowed_cpus, bind_current_thread, plan_units,
};
use seal_sdr::{Engine, Graph, LayerJob, ParentsCache, Seat, UnitCores, Watch};
use seal_sha256::{Kernel, LabelPrefix, Prepared, Run};
use seal_types::{ApiVersion, Porep, PorepId, SectorSize, TreeShape};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use test_support::process::thread_cpu_ns;

/// A layer takes hours at most.
const PATIENCE: Duration = Duration::from_secs(48 * 3600);
/// The graph's seed, and what all replica ids but their first byte are filled with.
const POREP_ID: PorepId = PorepId([9; 32]);
const REPLICA_ID: [u8; 32] = [7; 32];

/// Measures labelling layer by layer.
#[derive(Debug, Parser)]
struct Args {
    /// Size of a layer: any power of two from 2 KiB, also one that no registered proof has.
    #[arg(long, value_name = "SIZE", default_value = "512MiB")]
    layer_size: SectorSize,
    /// Layers to label; from layer 2 on the layer before is read too.
    #[arg(long, value_name = "N", default_value_t = 2)]
    layers: u32,
    /// Sectors at once.
    #[arg(long, value_name = "N", default_value_t = 1)]
    sectors: u8,
    /// Producers of each unit.
    #[arg(long, value_name = "P", default_value_t = 1)]
    producers: usize,
    /// Sectors that may share a unit.
    #[arg(long, value_name = "L", default_value_t = 4)]
    lanes: usize,
    /// Directory of the parents caches.
    #[arg(long, value_name = "DIR", required_unless_present = "chain")]
    parents: Option<PathBuf>,
    /// Measure the chain alone.
    #[arg(long, exclusive = true)]
    chain: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let porep = Porep {
        sector_size: args.layer_size,
        api_version: ApiVersion::V1_1,
        porep_id: POREP_ID,
        layers: args.layers,
        shape: TreeShape::of(args.layer_size),
    };
    let kernel = Kernel::detect();

    let topology = Topology::read(&Roots::default().sys)?;
    let request = UnitRequest { producers: args.producers, threads: Threads::OnePerCore };
    let plan = plan_units(&topology, &allowed_cpus()?, request)?;
    let units: Vec<_> = plan.units.iter().map(|unit| UnitCores::of(unit, None)).collect();
    let cpus: CpuSet =
        plan.units.iter().flat_map(|unit| unit.cpus().iter().collect::<Vec<_>>()).collect();
    let (core, neighbour) = (plan.units[0].consumer, cpus.iter().nth(1));
    let Some(parents) = args.parents.filter(|_| !args.chain) else {
        let chain = chains(kernel, core, neighbour)?;
        return Ok(writeln!(std::io::stdout().lock(), "{}", Value::Object(chain))?);
    };
    let quiet = Watch { progress: &|_, _, _| {}, cancelled: &|| false };
    let cache = Arc::new(ParentsCache::open(&Graph::new(&porep), &parents, quiet)?);
    let bind = |cpu: usize| {
        bind_current_thread(u32::try_from(cpu).expect("small")).map_err(|error| error.to_string())
    };
    let engine = Engine::start(&units, args.lanes, Arc::new(bind))?;
    let policy = MemoryPolicy { cpus, ..MemoryPolicy::default() };
    let bytes = usize::try_from(args.layer_size.bytes())?;
    let mut sectors = Vec::new();
    for number in 0..args.sectors {
        sectors.push(Sector::new(&engine, number, bytes, &policy)?);
    }
    for layer in 1..=args.layers {
        let mut line = chains(kernel, core, neighbour)?;
        let producers = || thread_cpu_ns(std::process::id(), "sdr-p-");
        let (began, busy) = (Instant::now(), producers());
        for sector in &mut sectors {
            sector.start(&engine, layer, kernel, &cache)?;
        }
        for sector in &mut sectors {
            sector.finish()?;
        }
        let seconds = began.elapsed().as_secs_f64();
        let labels = porep.nodes() as f64 * f64::from(args.sectors);
        let busy = busy.zip(producers()).filter(|_| args.producers > 0);
        let producer_ns = busy.map(|(before, after)| (after - before) as f64 / labels);
        let Value::Object(measured) = json!({
            "layer": layer, "nodes": porep.nodes(), "sectors": args.sectors,
            "producers": args.producers, "units": units.len(), "kernel": kernel.name(),
            "seconds": seconds, "ns_per_label": seconds * 1e9 / porep.nodes() as f64,
            "producer_ns_per_label": producer_ns,
            "sha256": sectors[0].digest(),
        }) else {
            unreachable!("an object")
        };
        line.extend(measured);
        writeln!(std::io::stdout().lock(), "{}", Value::Object(line))?;
    }
    Ok(())
}

/// A sector whose layers are only in memory.
struct Sector {
    seat: Seat,
    replica_id: [u8; 32],
    spare: Vec<LabelMemory>,
    running: Option<seal_sdr::LayerHandle>,
    previous: Option<LayerReader>,
}

impl Sector {
    fn new(engine: &Engine, number: u8, bytes: usize, policy: &MemoryPolicy) -> Result<Self> {
        let seat = engine.take_seat(&|_| {}, &|| true).context("more sectors than seats")?;
        let memory = || Region::allocate(bytes, policy).map(LabelMemory::new);
        let spare = vec![memory()?, memory()?];
        let mut replica_id = REPLICA_ID;
        replica_id[0] = number;
        Ok(Self { seat, replica_id, spare, running: None, previous: None })
    }

    fn start(
        &mut self,
        engine: &Engine,
        layer: u32,
        kernel: Kernel,
        parents: &Arc<ParentsCache>,
    ) -> Result<()> {
        let job = LayerJob {
            layer,
            prefix: LabelPrefix::new(kernel, self.replica_id),
            parents: Arc::clone(parents) as _,
            previous: self.previous.clone(),
            memory: self.spare.pop().context("two layers of memory")?,
        };
        self.running = Some(engine.label_layer(&self.seat, job)?);
        Ok(())
    }

    /// Waits for the layer; it becomes the previous one, whose memory comes back.
    fn finish(&mut self) -> Result<()> {
        let handle = self.running.take().context("a layer was started")?;
        ensure!(handle.wait(PATIENCE)?, "the layer takes too long");
        let labels = handle.labels().clone();
        // It holds the layer before.
        drop(handle);
        let mut before = self.previous.replace(labels);
        while let Some(reader) = before.take() {
            match reader.into_memory() {
                Ok(memory) => self.spare.push(memory),
                // Producers let go of it when they next look.
                Err(shared) => before = Some(shared),
            }
        }
        Ok(())
    }

    /// Tells whether two runs, or two programs, did the same work.
    fn digest(&self) -> String {
        let labels = self.previous.as_ref().map_or(&[][..], LayerReader::published);
        let last = labels.len().saturating_sub(1 << 20);
        hex::encode(Sha256::digest(labels[last..].as_flattened()))
    }
}

/// The chain on `core`, alone and while `neighbour` is busy, of one lane and of two.
fn chains(kernel: Kernel, core: u32, neighbour: Option<u32>) -> Result<Map<String, Value>> {
    let alone = chain::<1>(kernel, core)?;
    let beside = chain_beside(kernel, core, neighbour)?;
    let two = chain::<2>(kernel, core)?;
    let figures = json!({
        "chain_ns": alone.ns, "chain_beside_busy_ns": beside.map(|chain| chain.ns),
        "clock_ghz": alone.ghz, "clock_beside_busy_ghz": beside.map(|chain| chain.ghz),
        "chain_cycles_per_block": alone.ns * alone.ghz / CHAIN_BLOCKS,
        "chain_x2_ns": two.ns,
        "chain_x2_cycles_per_block": two.ns * two.ghz / (2.0 * CHAIN_BLOCKS),
    });
    Ok(figures.as_object().cloned().unwrap_or_default())
}

/// Blocks of a label that wait for the label before.
const CHAIN_BLOCKS: f64 = 19.0;

/// What was measured of a chain.
#[derive(Debug, Clone, Copy)]
struct Measured {
    /// For a label of every lane.
    ns: f64,
    /// The core's clock meanwhile.
    ghz: f64,
}

/// [`chain`] of one lane while a thread on `neighbour` does what a producer does most.
fn chain_beside(kernel: Kernel, cpu: u32, neighbour: Option<u32>) -> Result<Option<Measured>> {
    let Some(neighbour) = neighbour else { return Ok(None) };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| {
            let bound = bind_current_thread(neighbour);
            let (mut slot, prefix) = prepared(kernel);
            for node in 0.. {
                if bound.is_err() || stop.load(Ordering::Relaxed) {
                    break;
                }
                slot.hash_ahead(&prefix, 2, node);
                std::hint::black_box(&slot);
                std::hint::spin_loop();
            }
            bound
        });
        let measured = chain::<1>(kernel, cpu);
        stop.store(true, Ordering::Relaxed);
        busy.join().map_err(|_| anyhow!("the busy thread panicked"))??;
        measured.map(Some)
    })
}

/// The serial chain of `LANES` sectors side by side on `cpu`: the median of many short rounds.
fn chain<const LANES: usize>(kernel: Kernel, cpu: u32) -> Result<Measured> {
    const NODES: u32 = 2000;
    std::thread::scope(|scope| {
        let chain = scope.spawn(move || -> Result<Measured> {
            bind_current_thread(cpu)?;
            let slots = std::array::from_fn(|_| prepared(kernel).0);
            let mut chain = Chain::<LANES> { slots, left: 0 };
            let (mut times, mut clocks) = (Vec::new(), Vec::new());
            for _ in 0..500 {
                let began = Instant::now();
                chain.left = NODES;
                kernel.chain::<14, LANES>(&mut chain);
                times.push(began.elapsed().as_secs_f64() * 1e9 / f64::from(NODES));
                clocks.push(clock_ghz());
            }
            std::hint::black_box(&chain.slots);
            Ok(Measured { ns: median(times), ghz: median(clocks) })
        });
        chain.join().map_err(|_| anyhow!("the chain panicked"))?
    })
}

/// The clock of the core this runs on, by multiplications of which each waits for the one before:
/// three cycles each on the processors of the last decade, where kernels and virtual machines tell
/// a nominal clock only.
fn clock_ghz() -> f64 {
    const COUNT: u32 = 10_000;
    const CYCLES_EACH: f64 = 3.0;
    let mut product = std::hint::black_box(3_u64);
    let began = Instant::now();
    for _ in 0..COUNT {
        product = product.wrapping_mul(product);
    }
    std::hint::black_box(product);
    f64::from(COUNT) * CYCLES_EACH / (began.elapsed().as_secs_f64() * 1e9)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Label after label, each with the one before in its first place.
struct Chain<const LANES: usize> {
    slots: [Prepared; LANES],
    left: u32,
}

impl<const LANES: usize> Run<LANES> for Chain<LANES> {
    #[inline(always)]
    fn advance(&mut self) -> bool {
        let more = self.left > 0;
        self.left = self.left.saturating_sub(1);
        more
    }

    #[inline(always)]
    fn prepared(&self) -> [&Prepared; LANES] {
        self.slots.each_ref()
    }

    #[inline(always)]
    fn done(&mut self, labels: [[u8; 32]; LANES]) {
        for (slot, label) in self.slots.iter_mut().zip(labels) {
            slot.parents[0] = label;
        }
    }
}

/// A label of layer 2 of which all but the predecessor is there.
fn prepared(kernel: Kernel) -> (Prepared, LabelPrefix) {
    let prefix = LabelPrefix::new(kernel, REPLICA_ID);
    let parents = std::array::from_fn(|i| [i.to_le_bytes()[0]; 32]);
    let mut slot = Prepared { parents, late: 1, ..Prepared::default() };
    slot.hash_ahead(&prefix, 2, 40);
    (slot, prefix)
}
