//! Where labels are computed: the units of this process, and memory on their nodes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rayon::{ThreadPool, ThreadPoolBuilder};
use seal_host::{
    Admission, AdmissionError, Binding, CpuBudget, CpuClaims, CpuQuota, CpuSet, GroupMemory,
    MemoryFiles, MemoryPolicy, MemoryTurn, MemoryTurns, NodeId, Region, Reserved, Roots,
    TaskBudget, Threads, Topology, UnitPlan, UnitRequest, allowed_cpus, bind_current_thread,
    confine_current_thread, online_nodes, plan_units, preferred_node, yield_to_others,
};
use seal_options::NodeMemory;
use seal_runtime::{CorruptionLog, TaskContext};
use seal_sdr::{Engine, MAX_LANES, NoSeat, SdrError, Seat, SharedParents, UnitCores};
use seal_types::SectorSize;

use crate::Pc1Error;
use crate::core_trust::CoreTrust;
use crate::hugepages::memory_files;

/// Threads of a task and its files, roughly.
const THREADS_BESIDE: u64 = 16;

/// How the cores are used.
#[derive(Clone, Debug)]
pub struct LabellerSettings {
    /// Producers of each unit.
    pub producers: usize,
    /// Sectors that may share a unit.
    pub lanes: usize,
    /// Whether memory must be, or should be, on the unit's node.
    pub binding: Binding,
    /// Whether both threads of a core are used.
    pub threads: Threads,
    /// Prepared files of huge pages.
    pub files: Option<MemoryFiles>,
    /// Where units are claimed among the processes of this machine; none claims nothing.
    pub claims: Option<CpuClaims>,
    /// How processes of this machine take memory in turn; without, nobody is waited for.
    pub turns: Option<Arc<MemoryTurns>>,
    /// Where wrong labels of each core are remembered; none remembers nothing.
    pub corruption: Option<Arc<CorruptionLog>>,
}

impl Default for LabellerSettings {
    fn default() -> Self {
        Self {
            producers: 1,
            lanes: MAX_LANES,
            binding: Binding::Strict,
            threads: Threads::OnePerCore,
            files: None,
            claims: None,
            turns: None,
            corruption: None,
        }
    }
}

impl LabellerSettings {
    /// What is set.
    pub(crate) fn of(settings: &seal_options::Pc1) -> Self {
        Self {
            producers: settings.producers,
            lanes: settings.lanes,
            binding: match settings.numa {
                NodeMemory::Strict => Binding::Strict,
                NodeMemory::Preferred => Binding::Preferred,
            },
            threads: if settings.smt { Threads::All } else { Threads::OnePerCore },
            files: settings.memory_files.as_ref().map(memory_files),
            ..Self::default()
        }
    }
}

/// The units of this process.
#[derive(Debug)]
pub struct Labeller {
    engine: Engine,
    admission: Admission,
    units: Vec<Placed>,
    beside: Beside,
    files: Option<MemoryFiles>,
    parents: SharedParents,
    turns: Option<Arc<MemoryTurns>>,
    cores: CoreTrust,
    /// All nodes, which memory that is not bound to one may come from.
    nodes: Vec<NodeId>,
}

/// Where a unit is.
#[derive(Debug)]
struct Placed {
    consumer: u32,
    cpus: CpuSet,
    node: Option<(NodeId, Binding)>,
}

impl Placed {
    /// The node on which the memory of its sectors has to be.
    fn strict_node(&self) -> Option<NodeId> {
        match self.node {
            Some((node, Binding::Strict)) => Some(node),
            _ => None,
        }
    }
}

impl Labeller {
    /// Whether its consumers only hash, with producers for the rest.
    pub(crate) fn has_producers(&self) -> bool {
        self.units.iter().all(|unit| unit.cpus.len() > 1)
    }

    /// Starts units on the cpus that this process may use. Sectors take those of the nodes by
    /// turns, or those on the node whose memory it prefers first.
    ///
    /// # Errors
    /// When a thread cannot be bound to its core.
    pub fn start(settings: &LabellerSettings) -> Result<Self, Pc1Error> {
        let roots = Roots::default();
        let topology = Topology::read(&roots.sys)?;
        let allowed = allowed_cpus().map_err(Pc1Error::Cpus)?;
        let request = UnitRequest { producers: settings.producers, threads: settings.threads };
        let mut plan = plan_units(&topology, &allowed, request)?;
        let preferred = preferred_node();
        plan.order_for_sectors(preferred);
        if let Some(text) = preferred.and_then(|node| elsewhere(&plan, node)) {
            tracing::warn!("{text}");
        }
        if let Some(reduced) = &plan.reduced {
            tracing::warn!("{reduced}");
        }
        for unit in &plan.units {
            tracing::info!("unit: {unit}");
        }
        if !plan.left_over.is_empty() {
            tracing::info!(cpus = %plan.left_over, "cpus that are left free");
        }
        let cpus = CpuBudget { cpus: allowed.clone(), quota: CpuQuota::least(&roots) };
        let threads = plan.units.iter().map(|unit| unit.cpus().len()).sum::<usize>();
        let tasks = TaskBudget::of(&roots);
        let wanted = (threads + allowed.len()) as u64 + THREADS_BESIDE;
        for warning in
            cpus.warning(threads).into_iter().chain(tasks.and_then(|tasks| tasks.warning(wanted)))
        {
            tracing::warn!("{warning}");
        }
        // On a machine with one node there is nothing to bind.
        let several = topology.nodes_of(&topology.cpu_set()).len() > 1;
        let binding = several.then_some(settings.binding);
        let cores: Vec<_> = plan.units.iter().map(|unit| UnitCores::of(unit, binding)).collect();
        let bind = |cpu: usize| {
            let cpu = u32::try_from(cpu).expect("the plan's number");
            bind_current_thread(cpu).map_err(|error| error.to_string())
        };
        let engine = Engine::start(&cores, settings.lanes, Arc::new(bind))?;
        let engine = match &settings.claims {
            Some(claims) => engine.claiming(claims.clone()),
            None => engine,
        };
        let units = plan
            .units
            .iter()
            .map(|unit| Placed {
                consumer: unit.consumer,
                cpus: unit.cpus(),
                node: (several || settings.files.is_some())
                    .then_some((unit.node, settings.binding)),
            })
            .collect();
        let beside = Beside::start(cpus_beside(&plan, &topology, &allowed))?;
        let admission = Admission::new(roots, None);
        let consumers = plan.units.iter().map(|unit| unit.consumer).collect();
        Ok(Self {
            cores: CoreTrust::new(consumers, settings.corruption.clone()),
            engine,
            admission,
            units,
            beside,
            files: settings.files.clone(),
            parents: SharedParents::default(),
            turns: settings.turns.clone(),
            nodes: online_nodes(&Roots::default().sys)?,
        })
    }

    /// The parents caches that all tasks share.
    pub(crate) fn parents(&self) -> &SharedParents {
        &self.parents
    }

    /// The units' threads.
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// A seat for a sector, and memory for two layers of `bytes` bytes near it; says so if it has
    /// to wait. Where the node of a seat has too little, a free seat on another node is taken.
    ///
    /// # Errors
    /// When no node with a free seat has so much memory, all units are left out because their cores
    /// label wrongly, or it was cancelled.
    pub(crate) fn seat(
        &self,
        bytes: usize,
        context: &TaskContext,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(Seat, LayerMemory<'_>), Pc1Error> {
        let waits = |why: NoSeat| context.waits(&format!("for a seat: {}", waits(why)));
        let sound = |unit: usize| self.cores.is_sound(self.units[unit].consumer);
        self.cores.look();
        let stop = || cancelled() || self.cores.are_all_left_out();
        let taken = self.engine.take_seat_at(&sound, &waits, &stop);
        let mut seat = match taken {
            Err(SdrError::Cancelled) if !cancelled() => return Err(self.cores.no_core()),
            taken => taken?,
        };
        let mut full = Vec::new();
        loop {
            let short = match self.memory(&seat, bytes, context, cancelled) {
                Err(short @ Pc1Error::Memory(AdmissionError::TooLittle { .. })) => short,
                other => return Ok((seat, other?)),
            };
            let strict_node = |unit: usize| self.units[unit].strict_node();
            let Some(node) = strict_node(seat.unit()) else { return Err(short) };
            full.push(node);
            let elsewhere =
                |unit| sound(unit) && strict_node(unit).is_some_and(|node| !full.contains(&node));
            let Some(other) = self.engine.try_seat(&elsewhere)? else { return Err(short) };
            let consumer = self.consumer(&other);
            tracing::info!(consumer, "the sector goes to another node: {short}");
            seat = other;
        }
    }

    /// What is thought of the cores.
    pub(crate) fn cores(&self) -> &CoreTrust {
        &self.cores
    }

    /// All cpus of the unit at `seat`.
    pub(crate) fn cpus(&self, seat: &Seat) -> &CpuSet {
        &self.units[seat.unit()].cpus
    }

    /// The cpu of the consumer at `seat`.
    pub(crate) fn consumer(&self, seat: &Seat) -> u32 {
        self.units[seat.unit()].consumer
    }

    /// Memory for two layers of `bytes` bytes, near the unit of `seat`: promised now, and taken
    /// when it is asked for. Waits while another process takes memory there, unless `cancelled`.
    fn memory(
        &self,
        seat: &Seat,
        bytes: usize,
        context: &TaskContext,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<LayerMemory<'_>, Pc1Error> {
        let unit = &self.units[seat.unit()];
        let turn = self.turn(unit, context, cancelled)?;
        let policy = MemoryPolicy { node: unit.node, ..MemoryPolicy::default() };
        let reserved = self.admission.reserve(&[bytes, bytes], &policy, self.files.as_ref())?;
        let files = self.files.as_ref();
        Ok(LayerMemory { reserved, turn, unit, files, consumer_is_free: true })
    }

    /// The turn to take memory for a sector at `unit`.
    fn turn(
        &self,
        unit: &Placed,
        context: &TaskContext,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Option<MemoryTurn>, Pc1Error> {
        const LOOK_EVERY: Duration = Duration::from_millis(100);
        // Pages of two layers take seconds, or minutes where they are small, and as many processes
        // as there are units may come first. Only one that is stopped makes it hours.
        const PATIENCE: Duration = Duration::from_secs(2 * 3600);
        let Some(turns) = &self.turns else { return Ok(None) };
        // A limit of a cgroup is one for all nodes: whoever looks at it keeps all others from it.
        let is_limited = !GroupMemory::above(&Roots::default()).is_empty();
        let nodes = match unit.strict_node() {
            Some(node) if !is_limited => vec![node],
            _ => self.nodes.clone(),
        };
        let since = Instant::now();
        loop {
            if let Some(turn) = turns.try_take(&nodes)? {
                return Ok(Some(turn));
            }
            if cancelled() {
                return Err(Pc1Error::Cancelled);
            }
            if since.elapsed() > PATIENCE {
                tracing::warn!(
                    "others have been taking memory here for {PATIENCE:?}; is one of them stopped? \
                     The sector goes on without its turn"
                );
                return Ok(None);
            }
            context.waits(
                "for memory: another process is taking some here, and what is left is known when it \
                 has",
            );
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Where work runs that goes on beside labelling: it keeps off the cores that label.
    pub(crate) fn beside(&self) -> &Beside {
        &self.beside
    }
}

/// The cpus for what goes on beside labelling, and threads there.
#[derive(Debug)]
pub(crate) struct Beside {
    cpus: CpuSet,
    pool: ThreadPool,
}

impl Beside {
    fn start(cpus: CpuSet) -> Result<Self, Pc1Error> {
        let builder = |name: &'static str| {
            let confined = cpus.clone();
            ThreadPoolBuilder::new()
                .num_threads(cpus.len())
                .thread_name(move |number| format!("{name}-{number}"))
                .start_handler(move |_| {
                    if let Err(error) = confine_current_thread(&confined) {
                        tracing::warn!("work beside labelling runs anywhere: {error}");
                    }
                    yield_to_producers();
                })
        };
        let failed = |error| Pc1Error::NoThread(std::io::Error::other(error));
        // That of parents caches and digests too: rayon would start it with the first task, and
        // panic if there are no threads to be had.
        match builder("all").build_global() {
            // There is one already, as in tests.
            Err(error) if std::error::Error::source(&error).is_none() => {}
            built => built.map_err(failed)?,
        }
        let pool = builder("beside").build().map_err(failed)?;
        Ok(Self { cpus, pool })
    }

    /// Does `work` and whatever it divides among threads there; returns when it is done.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.pool.install(work)
    }

    /// Confines the calling thread.
    pub(crate) fn confine(&self) -> Result<(), Pc1Error> {
        yield_to_producers();
        Ok(confine_current_thread(&self.cpus)?)
    }
}

/// The `allowed` cpus on whose cores no unit of `plan` labels: the other hardware thread of such a
/// core would take what the chain of labels waits for. All of them where there is no other.
fn cpus_beside(plan: &UnitPlan, topology: &Topology, allowed: &CpuSet) -> CpuSet {
    let core = |cpu: u32| topology.cpu(cpu).map(|cpu| cpu.core);
    let labelling: Vec<_> = plan.units.iter().map(|unit| core(unit.consumer)).collect();
    let beside: CpuSet = allowed.iter().filter(|cpu| !labelling.contains(&core(*cpu))).collect();
    if beside.is_empty() { allowed.clone() } else { beside }
}

/// Lets the calling thread have what producers on the same core leave: labels wait for them, and
/// for nothing that goes on beside.
fn yield_to_producers() {
    const NICE: u8 = 5;
    if let Err(error) = yield_to_others(NICE) {
        tracing::warn!("work beside labelling has its usual priority: {error}");
    }
}

/// Memory for the layers of a sector that has a seat.
#[derive(Debug)]
pub(crate) struct LayerMemory<'a> {
    reserved: Reserved<'a>,
    /// Ended when all memory is taken, and counted by the kernel.
    turn: Option<MemoryTurn>,
    unit: &'a Placed,
    files: Option<&'a MemoryFiles>,
    /// Until the first layer is labelled, the unit's consumer has nothing to do.
    consumer_is_free: bool,
}

impl LayerMemory<'_> {
    /// A region for a layer.
    pub(crate) fn take(&mut self) -> Result<Region, SdrError> {
        let mut cpus = self.unit.cpus.clone();
        let others = cpus.minus(&[self.unit.consumer].into_iter().collect());
        if !std::mem::take(&mut self.consumer_is_free) && !others.is_empty() {
            cpus = others;
        }
        let region = self.reserved.next(cpus).expect("two regions, asked for twice")?;
        if self.reserved.is_empty() {
            self.turn = None;
        }
        if let (Some(files), Some((node, _)), None) = (self.files, self.unit.node, region.file()) {
            tracing::warn!("{}", no_file(files, node, &region));
        }
        let local = self.unit.node.and_then(|(node, _)| region.percent_on(node));
        tracing::info!(
            bytes = region.len(),
            pages = %region.pages(),
            percent_local = local,
            percent_huge = region.percent_huge(),
            "memory for a layer"
        );
        Ok(region)
    }
}

/// What is to be said when units are not on the `node` whose memory is preferred: layers go where
/// their unit is.
fn elsewhere(plan: &UnitPlan, node: NodeId) -> Option<String> {
    let units = plan.units.len();
    let others: Vec<_> = plan.units.iter().filter(|unit| unit.node != node).collect();
    let cpus: CpuSet = others.iter().flat_map(|u| u.cpus().iter().collect::<Vec<_>>()).collect();
    (!others.is_empty()).then(|| {
        format!(
            "memory of NUMA node {node} is preferred, but {} of {units} units are on other nodes \
             (cpus {cpus}), and layers lie on the node of their unit; give this process cpus of \
             node {node}, or prefer the node of its cpus",
            others.len()
        )
    })
}

/// What is to be said of a region that should lie in one of the prepared `files` and does not.
fn no_file(files: &MemoryFiles, node: NodeId, region: &Region) -> String {
    let (directory, bytes) = (files.directory(node), region.len() as u64);
    let size = SectorSize::new(bytes).map_or_else(|_| bytes.to_string(), |size| size.to_string());
    format!(
        "no memory file of {size} is free in {}, and a layer takes {} instead; `pc1-exec hugepages \
         --node {node} --count K --size {size}` makes K files there, two for each sector that is \
         labelled at a time",
        directory.display(),
        region.pages()
    )
}

/// Why a sector waits.
fn waits(why: NoSeat) -> String {
    let NoSeat { seats, units, claimed_by_others } = why;
    if claimed_by_others == 0 {
        return format!("{units} units have {seats} seats, and all are taken");
    }
    let own = match units - claimed_by_others {
        0 => String::new(),
        own => format!(", and the seats of the other {own} are taken"),
    };
    format!(
        "{claimed_by_others} of {units} units are claimed by other processes that label on the \
         same cpus{own}; it goes on when one is given up (cpusets of their own keep processes apart)"
    )
}

#[cfg(test)]
mod tests {
    use seal_host::{CoreUnit, L3Id};

    use super::*;

    #[test]
    fn one_who_waits_is_told_whether_others_are_in_its_way() {
        let why = |claimed_by_others| waits(NoSeat { seats: 8, units: 2, claimed_by_others });
        assert_eq!(why(0), "2 units have 8 seats, and all are taken");
        assert!(why(1).starts_with("1 of 2 units are claimed by other processes"));
        assert!(why(1).contains("the seats of the other 1 are taken"), "{}", why(1));
        assert!(!why(2).contains("the other"), "{}", why(2));
    }

    #[test]
    fn units_away_from_the_preferred_node_are_named() {
        let unit = |cpu, node| CoreUnit {
            consumer: cpu,
            producers: vec![cpu + 1],
            l3: L3Id(cpu),
            node: NodeId(node),
        };
        let plan = UnitPlan {
            units: vec![unit(0, 0), unit(4, 1), unit(8, 1)],
            left_over: CpuSet::default(),
            reduced: None,
        };
        let text = elsewhere(&plan, NodeId(0)).expect("two are elsewhere");
        assert!(text.contains("2 of 3 units") && text.contains("(cpus 4-5,8-9)"), "{text}");
        let plan = UnitPlan { units: vec![unit(0, 0)], ..plan };
        assert_eq!(elsewhere(&plan, NodeId(0)), None);
    }

    #[test]
    fn work_beside_labelling_keeps_off_both_threads_of_cores_that_label() {
        let cpu =
            |number: u32| seal_host::Cpu { number, core: number % 4, l3: L3Id(0), node: NodeId(0) };
        // Four cores of two hardware threads: 0 and 4 are the first core.
        let topology = Topology::of((0..8).map(cpu));
        let plan = |allowed: &str, threads| {
            let allowed: CpuSet = allowed.parse().expect("a list");
            let request = UnitRequest { producers: 1, threads };
            let plan = plan_units(&topology, &allowed, request).expect("units");
            cpus_beside(&plan, &topology, &allowed).to_string()
        };
        assert_eq!(plan("0-7", Threads::OnePerCore), "1,3,5,7");
        assert_eq!(plan("0-1", Threads::OnePerCore), "1");
        // Nothing but cores that label.
        assert_eq!(plan("0,4", Threads::All), "0,4");
    }
}
