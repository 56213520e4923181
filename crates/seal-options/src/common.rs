//! Settings that all executors have.

use std::path::PathBuf;
use std::time::Duration;

use seal_types::CpuSet;

use crate::forms::{self, DIRECTORY, TIME, YES_OR_NO};
use crate::row::{About, Row};

/// What they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Common {
    /// Where the process puts itself.
    pub place: Place,
    /// The directory that the processes of the machine share, if another than the default.
    pub runtime_dir: Option<PathBuf>,
    /// How long a task waits for a sector that another process still has.
    pub lock_wait: Duration,
    /// What is logged.
    pub log: LogChoice,
    /// Whether the parent wants events between the answers.
    pub events: bool,
}

/// Where a process that venus-worker starts itself has to put itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The cpus to run on.
    pub cpus: Option<CpuSet>,
    /// The name of a cgroup to make for them.
    pub group: Option<String>,
    /// The NUMA node whose memory is preferred.
    pub numa_preferred: Option<u32>,
}

/// What is logged, and how. A choice that cannot be understood is warned of and stops nothing:
/// `RUST_LOG` is other software's too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogChoice {
    /// Levels, as `RUST_LOG` has them.
    pub levels: Option<String>,
    /// The form: `text`, `json` or `auto`.
    pub form: Option<String>,
}

impl LogChoice {
    /// The name of the environment for levels.
    pub const LEVELS: &'static str = "RUST_LOG";
    /// The name of the environment for the form.
    pub const FORM: &'static str = "SEAL_LOG_FORM";

    /// What an environment asks for: for the log that is begun before anything else is read.
    pub fn of(environment: &crate::Environment) -> Self {
        let text = |name| environment.get(name).map(str::to_owned);
        Self { levels: text(Self::LEVELS), form: text(Self::FORM) }
    }
}

/// The name of the environment for the directory that the processes of a machine share.
pub const RUNTIME_DIR: &str = "SEAL_RUNTIME_DIR";
/// The name of the environment for how long a sector is waited for.
pub const LOCK_WAIT: &str = "SEAL_LOCK_WAIT";

/// The name of the environment by which a parent asks for events (`seal_wire::EVENTS`).
pub(crate) const EVENTS: &str = "SEAL_EXEC_EVENTS";

/// Whether a text names a cgroup: names between slashes, none of them `..`.
fn is_group_name(text: &str) -> bool {
    text.split('/').all(|part| !matches!(part, "" | "." | "..") && !part.contains('\n'))
}

pub(crate) static ROWS: &[Row<Common>] = &[
    Row {
        about: About::variable(RUNTIME_DIR)
            .form(DIRECTORY)
            .without("/run/seal-exec for root, else /tmp/seal-exec-UID")
            .meaning(
                "The directory that the processes of a machine share: there they claim cpus, take \
                 turns at memory and reserve disk space, so that no two count on the same",
            ),
        set: |common, text| forms::path(text).map(|path| common.runtime_dir = Some(path)),
    },
    Row {
        about: About::variable(LOCK_WAIT).form(TIME).default("2m").meaning(
            "How long a task waits for a sector that another process still has; a supervisor sets \
             it by grace and drain of its stage",
        ),
        set: |common, text| forms::time(text).map(|time| common.lock_wait = time),
    },
    Row {
        about: About { empty_is_a_value: true, ..About::variable("VC_CG_CPUSET") }
            .form("cpus, such as 0-41,48")
            .without("all that the process may use")
            .meaning("Cpus to run on, as venus-worker sets them for its processors"),
        set: |common, text| text.trim().parse().ok().map(|cpus| common.place.cpus = Some(cpus)),
    },
    Row {
        about: About::variable("VC_CG_NAME")
            .form("the name of a cgroup, one or more names between slashes, none of them \"..\"")
            .meaning("The cgroup that is made for the cpus of VC_CG_CPUSET; venus-worker sets it"),
        set: |common, text| is_group_name(text).then(|| common.place.group = Some(text.to_owned())),
    },
    Row {
        about: About { empty_is_a_value: true, ..About::variable("VENUS_WORKER_NUMA_PREFERRED") }
            .form("the number of a NUMA node")
            .meaning("The NUMA node whose memory is preferred; venus-worker sets it"),
        set: |common, text| {
            forms::number(text).map(|node| common.place.numa_preferred = Some(node))
        },
    },
    Row {
        about: About::variable(LogChoice::LEVELS)
            .form("a level, or TARGET=LEVEL with commas between")
            .without("info")
            .meaning("What is logged: error, warn, info, debug or trace"),
        set: |common, text| {
            common.log.levels = Some(text.to_owned());
            Some(())
        },
    },
    Row {
        about: About::variable(LogChoice::FORM)
            .form("text, json or auto")
            .without("text on a terminal or beside a parent's own lines, else json")
            .meaning("The form of log lines"),
        set: |common, text| {
            common.log.form = Some(text.to_owned());
            Some(())
        },
    },
    Row {
        about: About::variable(EVENTS).form(YES_OR_NO).default("0").meaning(
            "1: events of the tasks between the answers, as docs/protocol.md has them; a \
             supervisor sets it",
        ),
        set: |common, text| forms::yes_or_no(text).map(|yes| common.events = yes),
    },
];
