//! A captured task, and provers that are given it, for tests.

use std::ops::ControlFlow;
use std::path::Path;

use seal_wire::{C2Task, RawRequest};
use serde_json::Value;

use crate::{Groth16Error, ParamDir, Prover, Resources, TestParams, Trust};

/// The task of a captured request: a C1 output for `StackedDrg2KiBV1_1`.
pub(crate) fn captured() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/protocol/c2.request.jsonl");
    let line = std::fs::read(path).expect("part of every clone");
    let request = RawRequest::parse(line.trim_ascii_end()).expect("captured");
    serde_json::from_str(request.task.get()).expect("captured")
}

pub(crate) fn prover(dir: &Path) -> Prover {
    let trust = Trust { test_params: TestParams::Allow, ..Trust::default() };
    Prover::new(ParamDir::new(dir), trust, Resources::default())
}

/// Proves a task; nobody stops it.
pub(crate) fn prove(prover: &Prover, task: &Value) -> Result<Vec<u8>, Groth16Error> {
    let task: C2Task = serde_json::from_value(task.clone()).expect("well formed");
    prover.prove(&task, &mut |_| ControlFlow::Continue(()))
}
