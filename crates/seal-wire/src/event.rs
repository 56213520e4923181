//! What an executor tells beside its answers, if its parent asked for it by the environment
//! variable [`EVENTS`]: that a task has started, how far it is, and what is thought of the device
//! that tasks are computed on.
//!
//! Not part of what venus-worker knows: without the variable an executor writes none of these, and
//! the supervisor, which sets it for its own executors, never passes one on.

use serde::{Deserialize, Serialize};

use crate::BadLine;
use crate::objects::message_of;

/// The environment variable by which a parent asks for events, with the value `1`.
pub const EVENTS: &str = "SEAL_EXEC_EVENTS";

/// A line that is no answer. Unknown fields are ignored; an event of an unknown kind is
/// [`Event::Other`], so that kinds can be added.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The task of a request runs now; until then it waited within the executor.
    Started(Started),
    /// A part of a task is that far.
    Progress(Progress),
    /// What is thought of the device that tasks are computed on.
    Device(DeviceReport),
    /// Something this reader does not know.
    #[serde(other)]
    Other,
}

/// A task runs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Started {
    /// The number of the request.
    pub id: u64,
    /// The sector as logs name it.
    pub sector: String,
    /// What it is computed on and by which kernels, where the executor has a choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
}

/// How far a part of a task is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Progress {
    /// The number of the request.
    pub id: u64,
    /// The part, for people, for example `layer 3 of 11`.
    pub part: String,
    /// How much of it is done.
    pub done: u64,
    /// How much it is in all.
    pub total: u64,
    /// What `done` and `total` count.
    pub unit: ProgressUnit,
    /// Whether the task waits for something else: this part goes on beside it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub beside: bool,
    /// Why the task does not go on now, if so; for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<String>,
    /// How far the whole task is, where the executor knows all of its parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole: Option<Whole>,
}

/// How far a whole task is. What an earlier run has left and this one need not do counts as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Whole {
    /// How much of the work is done, in thousandths.
    pub permille: u32,
    /// How long the rest will take in milliseconds, once that can be told. Of a task that waits, how
    /// long it will take from the moment on when it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_ms: Option<u64>,
}

impl Progress {
    /// The part in which it is told that a task waits, or goes on, to readers who know of parts
    /// alone.
    pub const WAITING: &str = "waiting";

    /// Of a part that nothing more is known of.
    pub fn of(id: u64, part: String, (done, total): (u64, u64), unit: ProgressUnit) -> Self {
        Self { id, part, done, total, unit, beside: false, waits: None, whole: None }
    }
}

/// What progress is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProgressUnit {
    /// Bytes.
    Bytes,
    /// Nodes of a sector, 32 bytes each.
    Nodes,
    /// Anything else.
    #[serde(other)]
    Steps,
}

/// What an executor thinks of the device that its tasks are computed on, by what it has computed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct DeviceReport {
    /// The device, by model and UUID.
    pub device: String,
    /// Whether it is believed.
    pub standing: DeviceStanding,
    /// How often it has computed wrongly since the process began.
    pub wrong: u64,
    /// What it computed wrongly the last time, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What computes in place of a device that is left out; without it the executor can do no
    /// task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_by: Option<String>,
}

/// Whether a device is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceStanding {
    /// It has computed nothing wrongly.
    Good,
    /// It has computed wrongly once and was tried again; it is in use.
    Suspect,
    /// It has computed wrongly again and is not used any more by this process.
    LeftOut,
    /// Something this reader does not know.
    #[serde(other)]
    Unknown,
}

impl DeviceStanding {
    /// Those that executors report.
    pub const ALL: [Self; 3] = [Self::Good, Self::Suspect, Self::LeftOut];

    /// The word that stands for it in messages and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Suspect => "suspect",
            Self::LeftOut => "left_out",
            Self::Unknown => "unknown",
        }
    }
}

impl DeviceReport {
    /// Whether the executor can do tasks: on the device, or on what takes its place.
    pub fn computes(&self) -> bool {
        self.standing != DeviceStanding::LeftOut || self.replaced_by.is_some()
    }
}

impl Event {
    /// Reads one line.
    pub fn parse(line: &[u8]) -> Result<Self, BadLine> {
        message_of(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{RawResponse, to_line};
    use proptest::prelude::*;

    #[test]
    fn kinds_units_and_fields_may_be_added() {
        let read = |line: &str| Event::parse(line.as_bytes()).expect(line);
        assert_eq!(read(r#"{"event":"checkpoint","id":1,"layer":4}"#), Event::Other);
        let line =
            r#"{"id":7,"more":[],"unit":"sheep","total":9,"done":2,"part":"p","event":"progress"}"#;
        let part = "p".to_owned();
        let progress = Progress::of(7, part, (2, 9), ProgressUnit::Steps);
        assert_eq!(read(line), Event::Progress(progress));
    }

    #[test]
    fn the_whole_task_is_told_in_fields_that_older_readers_ignore_and_older_executors_leave_out() {
        // What e86127d writes and reads.
        #[derive(Deserialize, Serialize)]
        struct Old {
            event: String,
            id: u64,
            part: String,
            done: u64,
            total: u64,
            unit: ProgressUnit,
        }
        let part = "layer 3 of 11".to_owned();
        let progress = Progress::of(1, part, (4, 8), ProgressUnit::Nodes);
        let whole = Some(Whole { permille: 417, left_ms: Some(6_120_000) });
        let waits = Some("all seats are taken".to_owned());
        let told = Progress { beside: true, waits, whole, ..progress.clone() };
        let line = to_line(&Event::Progress(told.clone()));
        assert_eq!(Event::parse(&line).expect("our own line"), Event::Progress(told));
        let old: Old = serde_json::from_slice(&line).expect("an older reader takes it");
        assert_eq!((old.part.as_str(), old.done, old.total), ("layer 3 of 11", 4, 8));
        let line = to_line(&old);
        assert_eq!(Event::parse(&line).expect("an older line"), Event::Progress(progress));
    }

    #[test]
    fn a_device_is_told_where_there_is_one() {
        for (line, device) in [
            (r#"{"event":"started","id":1,"sector":"7"}"#, None),
            (r#"{"event":"started","id":1,"sector":"7","device":"gpu 0"}"#, Some("gpu 0")),
        ] {
            let (sector, device) = ("7".to_owned(), device.map(str::to_owned));
            let event = Event::Started(Started { id: 1, sector, device });
            assert_eq!(Event::parse(line.as_bytes()).expect(line), event);
            assert_eq!(to_line(&event), format!("{line}\n").as_bytes());
        }
    }

    #[test]
    fn a_device_report_is_read_and_standings_may_be_added() {
        for standing in DeviceStanding::ALL {
            let name = standing.name();
            let line = format!(
                r#"{{"event":"device","device":"A (GPU-1)","standing":"{name}","wrong":2}}"#
            );
            let (device, wrong) = ("A (GPU-1)".to_owned(), 2);
            let report = DeviceReport { device, standing, wrong, reason: None, replaced_by: None };
            assert_eq!(report.computes(), standing != DeviceStanding::LeftOut);
            let replaced = DeviceReport { replaced_by: Some("cpu".to_owned()), ..report.clone() };
            assert!(replaced.computes());
            let event = Event::Device(report);
            assert_eq!(Event::parse(line.as_bytes()).expect("an event"), event);
            assert_eq!(to_line(&event), format!("{line}\n").as_bytes());
        }
        let line = r#"{"event":"device","device":"A","standing":"resting","wrong":0,"more":1}"#;
        let Event::Device(report) = Event::parse(line.as_bytes()).expect("an event") else {
            panic!("{line}")
        };
        assert_eq!(report.standing, DeviceStanding::Unknown);
        assert!(report.computes());
    }

    #[test]
    fn an_answer_is_no_event_and_an_event_no_answer() {
        for answer in [
            r#"{"id":1,"err_msg":null,"output":1}"#,
            r#"{"id":1}"#,
            "junk",
            "",
            r#"["started",1,"7"]"#,
        ] {
            assert!(Event::parse(answer.as_bytes()).is_err(), "{answer}");
        }
        let line = to_line(&Event::Started(Started {
            id: 1,
            sector: "7".to_owned(),
            device: Some("gpu 0".to_owned()),
        }));
        assert!(RawResponse::parse(&line).is_err());
    }

    proptest! {
        #[test]
        fn reading_never_panics(line in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Event::parse(&line);
        }

        #[test]
        fn what_is_written_is_read_back(id: u64, part in ".*", done: u64, total: u64) {
            let event = Event::Progress(Progress::of(id, part, (done, total), ProgressUnit::Nodes));
            let line = to_line(&event);
            prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            prop_assert_eq!(Event::parse(&line).expect("our own line"), event);
        }
    }
}
