//! The stage as the request loop sees it.

use std::sync::Arc;
use std::time::Instant;

use seal_host::{MemoryBudget, Roots};
use seal_runtime::{CorruptionLog, Executor, TaskContext};
use seal_trees::{
    Backend, NoRecord, Pc2Job, Pc2Paths, Pc2Report, RecordedLayers, Settings, Standing, Watch,
    pre_commit2,
};
use seal_types::{SectorName, Stage, layer_id};
use seal_wire::{DeviceReport, DeviceStanding, Pc1Output, Pc2Output, Pc2Task, TaskError};

use crate::Pc2Error;
use crate::progress::{plan, tell_part};
use crate::recorded::Recorded;

/// What blocks get in any case.
const LEAST_MEMORY: u64 = 64 << 20;

/// The executor of PC2.
#[derive(Clone, Debug)]
pub struct Pc2 {
    /// Who computes.
    pub backend: Arc<dyn Backend>,
    /// What it was told at its start.
    pub settings: Settings,
    /// Whether layers are compared with their digests.
    pub layer_check: LayerCheck,
    /// Where wrong results are written down.
    pub corruption: Option<Arc<CorruptionLog>>,
}

/// Whether layers are compared with the digests that PC1 recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LayerCheck {
    /// Where there is a record.
    #[default]
    Recorded,
    /// Never.
    Off,
}

impl Executor for Pc2 {
    const STAGE: Stage = Stage::Pc2;
    type Task = Pc2Task;
    type Output = Pc2Output;

    fn sector(task: &Pc2Task) -> SectorName {
        task.sector()
    }

    fn run(&self, task: Pc2Task, context: &TaskContext) -> Result<Pc2Output, TaskError> {
        check_labels(&task.pc1out)?;
        let started = Instant::now();
        let Pc1Output { registered_proof, comm_d, .. } = task.pc1out;
        let porep = registered_proof.porep();
        context.plan(plan(&porep, self.settings.self_check_samples));
        let watch = Watch {
            progress: &|part, done, total| tell_part(context, part, done, total),
            cancelled: &|| context.is_cancelled(),
        };
        let recorded = Recorded { cache_dir: &task.cache_dir, porep: &porep };
        let layer_digests: &dyn RecordedLayers = match self.layer_check {
            LayerCheck::Recorded => &recorded,
            LayerCheck::Off => &NoRecord,
        };
        let paths = Pc2Paths { cache_dir: &task.cache_dir, sealed_file: &task.sealed_file };
        let job = Pc2Job { porep: &porep, paths, comm_d, layer_digests };
        let settings =
            Settings { memory_bytes: within_budget(self.settings.memory_bytes), ..self.settings };
        let done = pre_commit2(&job, &*self.backend, &settings, &watch);
        let (result, report) = done.map_err(|error| {
            let error = Pc2Error::from(error);
            if let Some(found) = error.corruption() {
                context.corrupted(found);
            }
            error
        })?;
        tell(&report, started);
        Ok(Pc2Output { registered_proof, comm_r: result.comm_r, comm_d })
    }

    fn corruption_log(&self) -> Option<Arc<CorruptionLog>> {
        self.corruption.clone()
    }

    fn device(&self) -> Option<String> {
        Some(self.backend.describe())
    }

    fn device_report(&self) -> Option<DeviceReport> {
        let (device, opinion) = self.backend.opinion()?;
        let standing = match opinion.standing {
            Standing::Good => DeviceStanding::Good,
            Standing::Suspect => DeviceStanding::Suspect,
            Standing::LeftOut => DeviceStanding::LeftOut,
        };
        let (wrong, reason) = (opinion.wrong, opinion.reason);
        Some(DeviceReport { device, standing, wrong, reason, replaced_by: opinion.replaced_by })
    }

    fn is_lost(&self) -> Option<String> {
        self.backend.is_lost()
    }
}

/// `wanted` bytes for blocks, or half of what can be had now: blocks get smaller then. The other
/// half is for files on their way, and for tasks that begin at the same time.
fn within_budget(wanted: u64) -> u64 {
    let (available, by) = match MemoryBudget::available_now(&Roots::default()) {
        Ok(available) => available,
        Err(error) => {
            tracing::debug!(%error, "what memory is free is not known");
            return wanted;
        }
    };
    let most = (available / 2).max(LEAST_MEMORY);
    if most < wanted {
        tracing::info!(available, "memory for blocks is what {by} leaves, and not {wanted} bytes");
    }
    most.min(wanted)
}

/// Logs what was in effect and what it took.
fn tell(report: &Pc2Report, started: Instant) {
    let ms =
        |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let (direct_reads, direct_writes) = report.direct;
    let stages = &report.stages;
    tracing::info!(
        device = report.device,
        block_nodes = report.block_nodes,
        memory_bytes = report.memory_bytes,
        read_bytes = report.read_bytes,
        written_bytes = report.written_bytes,
        direct_reads,
        direct_writes,
        layers_checked = report.layers_checked,
        trees_ms = ms(report.trees),
        readers = stages.reading.threads,
        reading_ms = ms(stages.reading.time),
        workers = stages.computing.threads,
        computing_ms = ms(stages.computing.time),
        writers = stages.writing.threads,
        writing_ms = ms(stages.writing.time),
        self_check_ms = ms(report.self_check),
        publish_ms = ms(report.publish),
        elapsed_ms = ms(started.elapsed()),
        "PC2 done"
    );
}

/// The paths in `pc1out` are not used, since the sector may have moved; but what it names must be
/// the layers of its own proof.
fn check_labels(pc1out: &Pc1Output) -> Result<(), Pc2Error> {
    let proof = pc1out.registered_proof;
    let wanted: Vec<_> = (1..=proof.porep().layers).map(layer_id).collect();
    let name = proof.shape_name();
    let labels = &pc1out.labels.0;
    let found = labels
        .get(&name)
        .map(|stores| stores.labels.iter().map(|store| store.id.clone()).collect::<Vec<_>>());
    if labels.len() == 1 && found.as_ref() == Some(&wanted) {
        return Ok(());
    }
    let found = found.map_or_else(
        || labels.keys().cloned().collect::<Vec<_>>().join(", "),
        |ids| format!("{name} with {}", ids.join(", ")),
    );
    let wanted = format!("{name} with {}", wanted.join(", "));
    Err(Pc2Error::Labels { proof, wanted, found })
}

#[cfg(test)]
mod tests {
    use super::*;
    use seal_types::RegisteredProof;
    use seal_wire::{LabelStores, Labels, StoreConfig};

    fn pc1out(proof: &str, shape: &str, ids: &[&str]) -> Pc1Output {
        let store = |id: &str| StoreConfig {
            path: "/elsewhere".into(),
            id: id.to_owned(),
            size: None,
            rows_to_discard: 0,
        };
        let stores = LabelStores { labels: ids.iter().map(|id| store(id)).collect(), _h: () };
        Pc1Output {
            registered_proof: proof.parse::<RegisteredProof>().expect("a registered proof"),
            labels: Labels([(shape.to_owned(), stores)].into()),
            config: store("tree-d"),
            comm_d: Default::default(),
        }
    }

    #[test]
    fn labels_must_be_those_of_the_proof() {
        let (proof, layers) = ("StackedDrg2KiBV1_1", ["layer-1", "layer-2"]);
        check_labels(&pc1out(proof, "StackedDrg2KiBV1", &layers)).expect("its own layers");
        for (shape, ids) in [
            ("StackedDrg8MiBV1", &layers[..]),
            ("StackedDrg2KiBV1", &layers[..1]),
            ("StackedDrg2KiBV1", &["layer-2", "layer-1"]),
        ] {
            let error = check_labels(&pc1out(proof, shape, ids)).unwrap_err();
            assert!(error.to_string().contains(shape), "{error}");
        }
    }
}
