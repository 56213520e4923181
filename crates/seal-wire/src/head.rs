//! What a supervisor must know of a request that it passes on as it is: its number, and the sector
//! for people. The task is not copied, since it may be tens of megabytes.

use std::path::Path;

use seal_types::{ProverId, SectorClues, SectorName};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::BadLine;
use crate::objects::{is_object, message_of};

/// The head of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// The sender's number for the request.
    pub id: u64,
    /// The sector, as far as the task tells, as executors name it.
    pub sector: Option<SectorName>,
}

#[derive(Deserialize)]
struct Request<'a> {
    id: u64,
    #[serde(borrow)]
    task: &'a RawValue,
}

/// What names a sector in the tasks of all stages. Anything may stand there.
#[derive(Deserialize)]
struct Clues {
    cache_path: Option<Value>,
    cache_dir: Option<Value>,
    out_path: Option<Value>,
    sealed_file: Option<Value>,
    in_path: Option<Value>,
    sector_id: Option<Value>,
    miner_id: Option<Value>,
    prover_id: Option<Value>,
}

impl RequestHead {
    /// Reads one line. What is in the task can be anything.
    pub fn parse(line: &[u8]) -> Result<Self, BadLine> {
        let request: Request<'_> = message_of(line)?;
        let task = Some(request.task.get()).filter(|task| is_object(task.as_bytes()));
        let clues = task.and_then(|task| serde_json::from_str::<Clues>(task).ok());
        Ok(Self { id: request.id, sector: clues.and_then(|clues| clues.name()) })
    }
}

impl Clues {
    fn name(&self) -> Option<SectorName> {
        // In the order of `Pc1Task::sector` and `Pc2Task::sector`.
        let paths =
            [&self.cache_path, &self.cache_dir, &self.out_path, &self.sealed_file, &self.in_path];
        let paths: Vec<_> = paths
            .into_iter()
            .filter_map(|path| Some(Path::new(path.as_ref()?.as_str()?)))
            .collect();
        let prover = self.prover_id.as_ref().and_then(|id| ProverId::deserialize(id).ok());
        let number = |value: &Option<Value>| value.as_ref().and_then(Value::as_u64);
        let (number, miner) = (number(&self.sector_id), number(&self.miner_id));
        SectorClues { paths: &paths, number, miner, prover }.name()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{C2Task, Pc1Task, Pc2Task, RawRequest};
    use proptest::prelude::*;

    fn name(line: &str) -> Option<String> {
        let head = RequestHead::parse(line.as_bytes()).expect(line);
        assert_eq!(head.id, 1, "{line}");
        head.sector.map(|sector| sector.name)
    }

    #[test]
    fn sectors_are_named_by_whatever_the_task_tells() {
        for (line, sector) in [
            (r#"{"id":1,"task":{"cache_path":"/c","sector_id":77}}"#, Some("77")),
            (r#"{"id":1,"task":{"sector_id":77,"miner_id":1000}}"#, Some("s-t01000-77")),
            (r#"{"task":{"sealed_file":"/s/s-t01-7","cache_dir":"/c"},"id":1}"#, Some("s-t01-7")),
            (r#"{"id":1,"task":{"c1out":{"sector_id":5},"sector_id":6}}"#, Some("6")),
            (r#"{"id":1,"task":{"sector_id":"x","cache_dir":[1],"prover_id":[7]}}"#, None),
            (r#"{"id":1,"task":[1,2]}"#, None),
            (r#"{"id":1,"task":null,"more":0}"#, None),
        ] {
            assert_eq!(name(line).as_deref(), sector, "{line}");
        }
    }

    #[test]
    fn supervisor_and_executors_call_a_sector_the_same() {
        for (stage, file) in [("pc1", "pc1"), ("pc2", "pc2"), ("c2", "c2")] {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/protocol/");
            let text = std::fs::read_to_string(format!("{path}{file}.request.jsonl"));
            let line = text.expect("part of every clone").trim_end().to_owned();
            for line in [line.clone(), line.replace("/s-t01000-1/", "/x/")] {
                let task = RawRequest::parse(line.as_bytes()).expect("captured").task;
                let task = task.get();
                let own = match stage {
                    "pc1" => serde_json::from_str::<Pc1Task>(task).expect("captured").sector(),
                    "pc2" => serde_json::from_str::<Pc2Task>(task).expect("captured").sector(),
                    _ => serde_json::from_str::<C2Task>(task).expect("captured").sector(),
                };
                let head = RequestHead::parse(line.as_bytes()).expect("captured");
                assert_eq!(head.sector, Some(own), "{stage}");
            }
        }
    }

    proptest! {
        #[test]
        fn it_takes_what_a_request_is_and_nothing_else(
            line in "(\\{\"id\":[0-9]{1,3},)?\"?task\"?:?[\\[\\{]?[a-z0-9\":,]{0,12}[\\]\\}]{0,2}",
        ) {
            let head = RequestHead::parse(line.as_bytes());
            let whole = RawRequest::parse(line.as_bytes());
            prop_assert_eq!(head.as_ref().ok().map(|head| head.id), whole.ok().map(|it| it.id));
        }
    }
}
