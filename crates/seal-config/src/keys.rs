//! Every key with what is to be said of it. The reference and the annotated example are made from
//! this table; tests hold it against the reader.

/// A table of the configuration.
#[derive(Debug)]
pub(crate) struct Section {
    /// How its header is written in the example.
    pub(crate) header: &'static str,
    /// What it is called in the reference.
    pub(crate) title: &'static str,
    /// What it is for.
    pub(crate) about: &'static str,
    pub(crate) keys: &'static [Key],
}

/// A key of a table.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    /// The form of its value.
    pub(crate) form: &'static str,
    /// What holds without it.
    pub(crate) default: &'static str,
    pub(crate) meaning: &'static str,
    /// A value, as it is written; empty for what nobody should write any more.
    pub(crate) example: &'static str,
}

const fn key(
    name: &'static str,
    form: &'static str,
    default: &'static str,
    example: &'static str,
    meaning: &'static str,
) -> Key {
    Key { name, form, default, meaning, example }
}

/// What is to be said of `c1` as a key of limits.
const C1: &str = "a setting of the worker, which does C1 itself: accepted, no effect on executors";

pub(crate) const SECTIONS: &[Section] = &[
    Section {
        header: "[processors.limitation.concurrent]",
        title: "`[processors.limitation.concurrent]`",
        about: "Tasks of a stage that run at the same time, on the whole machine.",
        keys: &[
            key("<stage>", "number from 1", "no limit", "pc1 = 28", "tasks of the stage at once"),
            key("c1", "number from 1", "no limit", "4", C1),
        ],
    },
    Section {
        header: "[processors.limitation.staggered]",
        title: "`[processors.limitation.staggered]`",
        about: "The least time between the starts of two tasks of a stage. It always passes, whereas a worker lets the next task start as soon as the earlier one ends.",
        keys: &[
            key("<stage>", "duration", "none", "pc1 = \"5min\"", "time between two starts"),
            key("c1", "duration", "none", "\"1min\"", C1),
        ],
    },
    Section {
        header: "[processors.limit]",
        title: "`[processors.limit]`",
        about: "The older name of `limitation.concurrent`. Where that is there, this table is ignored as a whole, as workers do; what differs is warned of.",
        keys: &[
            key("<stage>", "number from 1", "no limit", "pc1 = 28", "tasks of the stage at once"),
            key("c1", "number from 1", "no limit", "4", C1),
        ],
    },
    Section {
        header: "[processors.ext_locks]",
        title: "`[processors.ext_locks]`",
        about: "Declares locks, which executors share by their `locks`, on the whole machine.",
        keys: &[key(
            "<name>",
            "number from 1",
            "",
            "gpu1 = 1",
            "tasks that may hold the lock at once",
        )],
    },
    Section {
        header: "[processors.static_tree_d]",
        title: "`[processors.static_tree_d]`",
        about: "A setting of the worker: accepted, no effect on executors.",
        keys: &[key(
            "<sector size>",
            "path",
            "",
            "32GiB = \"/mnt/tree-d/32GiB.dat\"",
            "the file with tree D of sectors without data",
        )],
    },
    Section {
        header: "[[processors.pc1]]",
        title: "`[[processors.<stage>]]`",
        about: "One executor process of the stage; as many tables as executors.",
        keys: &[
            key(
                "bin",
                "path or name",
                "for pc1, pc2 and c2 our executor beside the supervisor",
                "\"/opt/seal-exec/pc1-exec\"",
                "the binary: a path, or a name that is looked up in `PATH`; the supervisor itself is refused",
            ),
            key(
                "args",
                "list of strings",
                "`[\"processor\", \"<stage>\"]` where `bin` is given, as the worker starts it, else `[]`",
                "[\"processor\", \"pc1\"]",
                "its arguments; no shell reads them",
            ),
            key(
                "stable_wait",
                "duration",
                "`\"5s\"`",
                "\"5s\"",
                "how long it may take until its ready line",
            ),
            key(
                "numa_preferred",
                "number",
                "none",
                "0",
                "the NUMA node whose memory it should use (see `memory` below)",
            ),
            key(
                "cgroup.group_name",
                "name",
                "named after the executor",
                "\"seal-exec/pc1-0\"",
                "the cgroup that is made for it; slashes make groups within groups",
            ),
            key(
                "cgroup.cpuset",
                "cpus",
                "those of the supervisor",
                "\"0-41\"",
                "the cpus it may use, in any form that the kernel takes (`0-3 8`, `0-31:1/2`, `all`, `4-N`)",
            ),
            key(
                "envs",
                "table of strings",
                "`{}`",
                "{ FIL_PROOFS_USE_MULTICORE_SDR = \"1\" }",
                "environment names set for it",
            ),
            key("concurrent", "number from 1", "any number", "14", "tasks it takes at once"),
            key(
                "locks",
                "list of declared locks",
                "`[]`",
                "[\"gpu1\"]",
                "locks that each of its tasks holds",
            ),
            key(
                "auto_restart",
                "true or false",
                "`true`",
                "true",
                "whether it is started again when it died",
            ),
            key(
                "inherit_envs",
                "true or false",
                "`true`",
                "true",
                "whether it gets the supervisor's environment beside `envs`",
            ),
            key("weight", "number", "none", "", "a setting of older workers: warned of, no effect"),
        ],
    },
    Section {
        header: "[supervisor]",
        title: "`[supervisor]`",
        about: "The supervisor of this project; other software does not read this section.",
        keys: &[
            key(
                "runtime_dir",
                "absolute path",
                "`/run/seal-exec` for root, else `/tmp/seal-exec-UID`",
                "\"/run/seal-exec\"",
                "where limits, locks and status are shared: supervisors with the same directory obey them together",
            ),
            key(
                "metrics",
                "port or \"address:port\"",
                "not served",
                "9184",
                "where Prometheus metrics of all supervisors of the machine are served; a port alone is one of the loopback address",
            ),
            key(
                "history",
                "number up to 10000",
                "`50`",
                "50",
                "finished tasks that the status shows",
            ),
            key(
                "cgroup",
                "\"auto\", \"always\", \"never\"",
                "`\"auto\"`",
                "\"auto\"",
                "whether executors are put into cgroups: where the kernel lets us (else by cpu affinity), always (else the start fails), or never",
            ),
        ],
    },
    Section {
        header: "[supervisor.pc1]",
        title: "`[supervisor.<stage>]`",
        about: "What holds for a stage. Each of these keys may also stand under `[supervisor]`, for all stages.",
        keys: STAGE_KEYS,
    },
    Section {
        header: "[supervisor.locks.gpu1]",
        title: "`[supervisor.locks.<name>]`",
        about: "Who gets a declared lock next.",
        keys: &[
            key(
                "order",
                "\"turns\", \"arrival\", \"priority\"",
                "`\"turns\"`",
                "\"priority\"",
                "the stages that wait take turns; first come, first served; or the stages of `priority` first",
            ),
            key(
                "priority",
                "list of stages",
                "later stages first",
                "[\"c2\", \"pc2\"]",
                "only beside `order = \"priority\"`: the stages in their order; those not named come last",
            ),
        ],
    },
];

/// Keys that may stand under `[supervisor]` and under `[supervisor.<stage>]`.
pub(crate) const STAGE_KEYS: &[Key] = &[
    key(
        "retry",
        "number",
        "1 for pc1, which goes on after its finished layers, else 0",
        "1",
        "how often a request whose executor died is sent again before it is answered with an error, at which a worker pauses the sector until somebody resumes it; 1 is safe for pc2 and c2 too, which can be repeated at any time",
    ),
    key(
        "drain",
        "\"checkpoint\", \"task\", \"now\"",
        "`\"checkpoint\"`",
        "\"checkpoint\"",
        "when the supervisor is told to end, running tasks go on to where they can be resumed, go on to their end, or are ended at once",
    ),
    key(
        "deadline",
        "duration",
        "none",
        "\"24h\"",
        "the longest that a task may run; then its executor is ended",
    ),
    key(
        "no_progress",
        "duration",
        "none",
        "\"30min\"",
        "the longest that a task may run without progress; then its executor is ended. Only for executors that tell their progress, as ours do",
    ),
    key(
        "ready_within",
        "duration",
        "`\"4s\"`",
        "\"4s\"",
        "the supervisor says ready when its first executor is, or so long after it was started if none has failed: tasks wait until one is ready. Must be less than the worker's `stable_wait`",
    ),
    key(
        "grace",
        "duration",
        "`\"10s\"`",
        "\"10s\"",
        "how long executors may take to end before they are killed",
    ),
    key(
        "restart_wait",
        "duration",
        "`\"500ms\"`",
        "\"500ms\"",
        "the wait before an executor that died is started again; doubles with each further death",
    ),
    key("restart_wait_max", "duration", "`\"30s\"`", "\"30s\"", "the longest such wait"),
    key(
        "crash_loop_after",
        "number from 1",
        "`10`",
        "10",
        "after so many starts in a row that failed an executor counts as crash-looping",
    ),
    key(
        "crash_loop_wait",
        "duration",
        "`\"5m\"`",
        "\"5m\"",
        "the wait between the starts of a crash-looping executor",
    ),
    key(
        "memory",
        "\"preferred\", \"strict\"",
        "`\"preferred\"`",
        "\"preferred\"",
        "whether memory of other nodes than `numa_preferred` may be used when that node has none left",
    ),
    key(
        "nofile",
        "number from 1",
        "the hard limit",
        "65536",
        "how many files an executor may have open",
    ),
    key(
        "memlock",
        "size or \"unlimited\"",
        "the hard limit",
        "\"unlimited\"",
        "how much memory an executor may lock",
    ),
];
