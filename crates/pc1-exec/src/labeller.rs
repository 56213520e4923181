//! Where labels are computed: the units of this process, and memory on their nodes.

use std::sync::Arc;

use seal_host::{
    Admission, Binding, CpuSet, MemoryFiles, MemoryPolicy, NodeId, Region, Roots, Threads,
    Topology, UnitRequest, allowed_cpus, bind_current_thread, plan_units,
};
use seal_runtime::Environment;
use seal_sdr::{Engine, MAX_LANES, Seat, UnitCores};

use crate::Pc1Error;
use crate::hugepages::{PATH as FILES, PATTERN};

/// Producers of a unit, as `filecoin-proofs` names them.
pub(crate) const PRODUCERS: &str = "FIL_PROOFS_MULTICORE_SDR_PRODUCERS";
const LANES: &str = "SEAL_PC1_LANES";
const NUMA: &str = "SEAL_NUMA";
const SMT: &str = "SEAL_PC1_SMT";

/// Producers without the setting: one feeds a lane with time to spare.
const DEFAULT_PRODUCERS: usize = 1;

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
}

impl Default for LabellerSettings {
    fn default() -> Self {
        Self {
            producers: DEFAULT_PRODUCERS,
            lanes: MAX_LANES,
            binding: Binding::Strict,
            threads: Threads::OnePerCore,
            files: None,
        }
    }
}

impl LabellerSettings {
    /// What the environment asks for; the error names variable and value.
    pub fn of(environment: &Environment) -> Result<Self, String> {
        let defaults = Self::default();
        let lanes = environment.parse(LANES)?.unwrap_or(defaults.lanes);
        if !(1..=MAX_LANES).contains(&lanes) {
            return Err(format!("{LANES}={lanes}: a unit has 1 to {MAX_LANES} lanes"));
        }
        let binding = match environment.get(NUMA).as_deref() {
            None | Some("strict") => Binding::Strict,
            Some("preferred") => Binding::Preferred,
            Some(other) => return Err(format!("{NUMA}={other:?}: it is strict or preferred")),
        };
        let (path, pattern) = (environment.get(FILES), environment.get(PATTERN));
        let files = MemoryFiles::from_settings(path.as_deref(), pattern.as_deref())
            .map_err(|error| error.to_string())?;
        let threads =
            if environment.is_set_to_yes(SMT) { Threads::All } else { Threads::OnePerCore };
        let producers = environment.parse(PRODUCERS)?.unwrap_or(defaults.producers);
        Ok(Self { producers, lanes, binding, threads, files })
    }
}

/// The units of this process.
#[derive(Debug)]
pub struct Labeller {
    engine: Engine,
    admission: Admission,
    units: Vec<Placed>,
    files: Option<MemoryFiles>,
}

/// Where a unit is.
#[derive(Debug)]
struct Placed {
    consumer: u32,
    cpus: CpuSet,
    node: Option<(NodeId, Binding)>,
}

impl Labeller {
    /// Starts units on the cpus that this process may use.
    ///
    /// # Errors
    /// When a thread cannot be bound to its core.
    pub fn start(settings: &LabellerSettings) -> Result<Self, Pc1Error> {
        let roots = Roots::default();
        let topology = Topology::read(&roots.sys)?;
        let allowed = allowed_cpus().map_err(Pc1Error::Cpus)?;
        let request = UnitRequest { producers: settings.producers, threads: settings.threads };
        let plan = plan_units(&topology, &allowed, request)?;
        if let Some(reduced) = &plan.reduced {
            tracing::warn!("{reduced}");
        }
        for unit in &plan.units {
            tracing::info!("unit: {unit}");
        }
        if !plan.left_over.is_empty() {
            tracing::info!(cpus = %plan.left_over, "cpus that are left free");
        }
        let cores: Vec<_> = plan
            .units
            .iter()
            .map(|unit| UnitCores {
                consumer: unit.consumer as usize,
                producers: unit.producers.iter().map(|cpu| *cpu as usize).collect(),
            })
            .collect();
        let bind = |cpu: usize| {
            let cpu = u32::try_from(cpu).expect("the plan's number");
            bind_current_thread(cpu).map_err(|error| error.to_string())
        };
        let engine = Engine::start(&cores, settings.lanes, Arc::new(bind))?;
        // On a machine with one node there is nothing to bind.
        let several = topology.nodes_of(&topology.cpu_set()).len() > 1;
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
        let admission = Admission::new(roots, None);
        Ok(Self { engine, admission, units, files: settings.files.clone() })
    }

    /// The units' threads.
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// A seat for a sector; says so if it has to wait.
    pub(crate) fn take_seat(&self, cancelled: &dyn Fn() -> bool) -> Result<Seat, Pc1Error> {
        let units = self.units.len();
        let waits = |seats: usize| {
            tracing::info!("the sector waits: {units} units have {seats} seats, and all are taken");
        };
        Ok(self.engine.take_seat(&waits, cancelled)?)
    }

    /// The cpu of the consumer at `seat`.
    pub(crate) fn consumer(&self, seat: &Seat) -> u32 {
        self.units[seat.unit()].consumer
    }

    /// Memory for two layers of `bytes` bytes, near the unit of `seat`.
    pub(crate) fn memory(&self, seat: &Seat, bytes: usize) -> Result<[Region; 2], Pc1Error> {
        let unit = &self.units[seat.unit()];
        let policy =
            MemoryPolicy { node: unit.node, cpus: unit.cpus.clone(), ..MemoryPolicy::default() };
        let regions = self.admission.allocate(&[bytes, bytes], &policy, self.files.as_ref())?;
        for region in &regions {
            let local = unit.node.and_then(|(node, _)| region.percent_on(node));
            tracing::info!(
                bytes,
                pages = %region.pages(),
                percent_local = local,
                percent_huge = region.percent_huge(),
                "memory for a layer"
            );
        }
        let regions: [Region; 2] = regions.try_into().expect("as many as were asked for");
        Ok(regions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_be_are_named() {
        for (name, value) in [
            (LANES, "0"),
            (LANES, "5"),
            (LANES, "two"),
            (NUMA, "maybe"),
            (PRODUCERS, "-1"),
            (PATTERN, "/mnt/huge"),
        ] {
            let error = LabellerSettings::of(&Environment::of(&[(name, value)])).unwrap_err();
            assert!(error.contains(value), "{name}={value}: {error}");
        }
    }

    #[test]
    fn settings_are_read_as_users_have_them() {
        let environment = Environment::of(&[(PRODUCERS, "0"), (LANES, "2"), (NUMA, "preferred")]);
        let settings = LabellerSettings::of(&environment).expect("good settings");
        assert_eq!((settings.producers, settings.lanes), (0, 2));
        assert_eq!(settings.binding, Binding::Preferred);
    }
}
