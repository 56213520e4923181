//! The stage as the request loop sees it.

use std::sync::Arc;

use seal_runtime::{CorruptionLog, Executor, TaskContext};
use seal_sdr::SdrError;
use seal_trees::Piece;
use seal_types::{SectorName, Stage, layer_id};
use seal_wire::{DeviceReport, LabelStores, Labels, Pc1Output, Pc1Task, StoreConfig, TaskError};

use crate::{Pc1Error, Pc1Job, Pc1Settings, pre_commit1};

/// The executor of PC1.
#[derive(Clone, Debug)]
pub struct Pc1 {
    /// What it was told at its start.
    pub settings: Pc1Settings,
}

impl Executor for Pc1 {
    const STAGE: Stage = Stage::Pc1;
    type Task = Pc1Task;
    type Output = Pc1Output;

    fn sector(task: &Pc1Task) -> SectorName {
        task.sector()
    }

    fn corruption_log(&self) -> Option<Arc<CorruptionLog>> {
        self.settings.labeller.cores().log()
    }

    fn device_report(&self) -> Option<DeviceReport> {
        self.settings.labeller.cores().report()
    }

    fn run(&self, task: Pc1Task, context: &TaskContext) -> Result<Pc1Output, TaskError> {
        let job = job_of(&task);
        let result = pre_commit1(&job, &self.settings, context);
        if let Err(error @ Pc1Error::Labels(SdrError::Unit { .. })) = &result {
            // The panic of a thread that every task at its unit needs: it goes on here, so that
            // the process ends after its other tasks and a sound one takes its place.
            std::panic::resume_unwind(Box::new(error.to_string()));
        }
        let result = result?;
        let store = |id: String, size: u64| StoreConfig {
            path: task.cache_path.clone(),
            id,
            size: Some(size),
            rows_to_discard: 0,
        };
        let nodes = job.porep.nodes();
        let labels = (1..=job.porep.layers).map(|layer| store(layer_id(layer), nodes)).collect();
        let stores = LabelStores { labels, _h: () };
        Ok(Pc1Output {
            registered_proof: task.registered_proof,
            labels: Labels([(task.registered_proof.shape_name(), stores)].into()),
            config: store("tree-d".to_owned(), 2 * nodes - 1),
            comm_d: result.comm_d,
        })
    }
}

fn job_of(task: &Pc1Task) -> Pc1Job {
    let piece = |info: &seal_wire::PieceInfo| Piece {
        commitment: info.commitment,
        unpadded_bytes: info.size,
    };
    Pc1Job {
        porep: task.registered_proof.porep(),
        cache_path: task.cache_path.clone(),
        in_path: task.in_path.clone(),
        out_path: task.out_path.clone(),
        prover_id: task.prover_id,
        sector_id: task.sector_id,
        ticket: task.ticket,
        pieces: task.piece_infos.iter().map(piece).collect(),
    }
}
