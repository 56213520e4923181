//! How far a task is, by what its executor tells: events where it is asked itself, and what it logs
//! where a supervisor keeps the events for itself.

use std::time::{Duration, Instant};

use serde_json::Value;

/// Before the task has started.
pub(super) const START: &str = "start";
/// After its answer.
pub(super) const ANSWERED: &str = "answered";

/// The phases of a run, in the order in which they came first.
#[derive(Clone, Debug)]
pub(super) struct Phases {
    began: Instant,
    list: Vec<Phase>,
    now: usize,
}

#[derive(Clone, Debug)]
pub(super) struct Phase {
    pub(super) name: String,
    /// When it last began.
    since: Instant,
    /// How long it was in all.
    pub(super) length: Duration,
}

impl Default for Phases {
    fn default() -> Self {
        let began = Instant::now();
        let start = Phase { name: START.to_owned(), since: began, length: Duration::ZERO };
        Self { began, list: vec![start], now: 0 }
    }
}

impl Phases {
    /// The phase that a run is in.
    pub(super) fn now(&self) -> &str {
        &self.list[self.now].name
    }

    /// All but that after the answer.
    pub(super) fn all(&self) -> impl Iterator<Item = &Phase> {
        self.list.iter().filter(|phase| phase.name != ANSWERED)
    }

    /// How long it has been in the phase `name`, if it ever was.
    pub(super) fn within(&self, name: &str) -> Option<Duration> {
        let at = self.list.iter().position(|phase| phase.name == name)?;
        let phase = &self.list[at];
        let since = if at == self.now { phase.since.elapsed() } else { Duration::ZERO };
        Some(phase.length + since)
    }

    /// Takes a line of standard output. Returns it if it is an answer.
    pub(super) fn note_out(&mut self, line: &str) -> Option<Value> {
        let line = match serde_json::from_str::<Value>(line) {
            Ok(line) => line,
            // Whatever it is, it belongs to the protocol: an answer that is none.
            Err(_) => return Some(Value::from(line)),
        };
        match line["event"].as_str() {
            Some("started") => self.enter("started"),
            Some("progress") => self.progress(&line),
            Some(_) => {}
            None => {
                self.enter(ANSWERED);
                return Some(line);
            }
        }
        None
    }

    /// Takes a line of a log.
    pub(super) fn note_log(&mut self, line: &str) {
        let Ok(line) = serde_json::from_str::<Value>(line) else { return };
        if line["span"]["req"].is_null() || self.list.iter().any(|phase| phase.name == "started") {
            return;
        }
        match line["message"].as_str() {
            Some("progress") => self.progress(&line),
            Some(message @ ("task starts" | "labelling" | "columns, replica and trees")) => {
                self.enter(message);
            }
            _ => {}
        }
    }

    fn progress(&mut self, line: &Value) {
        let part = line["part"].as_str().unwrap_or("?");
        if line["done"] == line["total"] {
            self.enter(&format!("after {part}"));
        } else {
            self.enter(part);
        }
    }

    fn enter(&mut self, name: &str) {
        if self.now() == name {
            return;
        }
        let now = Instant::now();
        let left = &mut self.list[self.now];
        left.length += now - left.since;
        match self.list.iter_mut().position(|phase| phase.name == name) {
            Some(at) => {
                self.list[at].since = now;
                self.now = at;
            }
            None => {
                let length = Duration::ZERO;
                self.list.push(Phase { name: name.to_owned(), since: now, length });
                self.now = self.list.len() - 1;
            }
        }
    }

    /// How long it has been running.
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_those_that_events_tell() {
        let mut phases = Phases::default();
        assert_eq!(phases.now(), START);
        for line in [
            r#"{"event":"started","id":1,"sector":"x"}"#,
            r#"{"event":"progress","id":1,"part":"copy","done":1,"total":2,"unit":"bytes"}"#,
            r#"{"event":"progress","id":1,"part":"copy","done":2,"total":2,"unit":"bytes"}"#,
        ] {
            assert_eq!(phases.note_out(line), None);
        }
        assert_eq!(phases.now(), "after copy");
        // The log of an executor that tells of events adds nothing.
        phases.note_log(r#"{"message":"labelling","span":{"req":1}}"#);
        assert_eq!(phases.now(), "after copy");
        let answer = phases.note_out(r#"{"id":1,"err_msg":null,"output":7}"#);
        assert_eq!(answer.map(|answer| answer["output"].clone()), Some(Value::from(7)));
        let names: Vec<_> = phases.all().map(|phase| phase.name.as_str()).collect();
        assert_eq!(names, [START, "started", "copy", "after copy"]);
        assert_eq!(phases.within("layer 1 of 2"), None);
        assert!(phases.within("copy") <= Some(phases.elapsed()));
        assert_eq!(phases.note_out("junk"), Some(Value::from("junk")));
    }

    #[test]
    fn behind_a_supervisor_they_are_those_of_the_log() {
        let mut phases = Phases::default();
        phases.note_log(r#"{"message":"pc1 processor ready"}"#);
        assert_eq!(phases.now(), START);
        phases.note_log(r#"{"message":"task starts","span":{"req":1}}"#);
        phases.note_log(
            r#"{"message":"progress","part":"layer 1 of 2","done":5,"total":5,"span":{"req":1}}"#,
        );
        assert_eq!(phases.now(), "after layer 1 of 2");
    }
}
