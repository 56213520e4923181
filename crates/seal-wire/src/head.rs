//! What a supervisor must know of a request that it passes on as it is: its number, and the sector
//! for people. The task is not copied, since it may be tens of megabytes.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::{BadLine, salvage_id};

/// The head of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// The sender's number for the request.
    pub id: u64,
    /// The sector, as far as the task tells: its number, or the name of the sealed file where the
    /// task has no number, as executors name it.
    pub sector: Option<String>,
}

#[derive(Deserialize)]
struct Request<'a> {
    id: u64,
    #[serde(borrow)]
    task: &'a RawValue,
}

#[derive(Deserialize)]
struct Named {
    sector_id: Option<Value>,
    sealed_file: Option<Value>,
}

impl RequestHead {
    /// Reads one line. What is in the task can be anything.
    pub fn parse(line: &[u8]) -> Result<Self, BadLine> {
        let request: Request<'_> = serde_json::from_slice(line)
            .map_err(|error| BadLine { id: salvage_id(line), reason: error.to_string() })?;
        // Arrays would be taken for the fields in their order.
        let task = Some(request.task.get()).filter(|task| task.starts_with('{'));
        let named = task.and_then(|task| serde_json::from_str::<Named>(task).ok());
        let sector = named.and_then(|named| match (named.sector_id, named.sealed_file) {
            (Some(Value::Number(number)), _) => Some(number.to_string()),
            (_, Some(Value::String(path))) => {
                Path::new(&path).file_name().map(|name| name.to_string_lossy().into_owned())
            }
            _ => None,
        });
        Ok(Self { id: request.id, sector })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RawRequest;
    use proptest::prelude::*;

    #[test]
    fn sectors_are_named_as_executors_name_them() {
        for (line, sector) in [
            (r#"{"id":1,"task":{"cache_path":"/c","sector_id":77}}"#, Some("77")),
            (r#"{"task":{"sealed_file":"/s/s-t01-7","cache_dir":"/c"},"id":1}"#, Some("s-t01-7")),
            (r#"{"id":1,"task":{"c1out":{"sector_id":5},"sector_id":6}}"#, Some("6")),
            (r#"{"id":1,"task":{"sector_id":"x"}}"#, None),
            (r#"{"id":1,"task":[1,2]}"#, None),
            (r#"{"id":1,"task":null,"more":0}"#, None),
        ] {
            let head = RequestHead::parse(line.as_bytes()).expect(line);
            assert_eq!((head.id, head.sector.as_deref()), (1, sector), "{line}");
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
