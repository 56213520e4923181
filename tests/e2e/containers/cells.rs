//! The cells: what a container takes away, how that is made here, and what must come of it.

use Place::{Group, Hangup, Mounts, Through, WithoutLocks, WithoutPolicies};
use Verdict::{Refuses, Seals, Warns};

/// A place to seal in.
pub(crate) struct Cell {
    /// What is missing or other than elsewhere.
    pub(crate) name: &'static str,
    /// How it is made, in words.
    pub(crate) made: &'static str,
    pub(crate) verdict: Verdict,
    pub(crate) place: Place,
    /// The tables of the supervisor.
    pub(crate) supervisor: &'static str,
    /// Keys of every executor.
    pub(crate) executor: &'static str,
    /// Variables for all processes.
    pub(crate) environment: &'static [(&'static str, &'static str)],
}

/// What must come of it.
#[derive(Clone, Copy)]
pub(crate) enum Verdict {
    Seals,
    /// It seals, and the log has a warning with this text.
    Warns(&'static str),
    /// Tasks are answered with an error that has this text.
    Refuses(&'static str),
}

/// How a cell is made.
pub(crate) enum Place {
    /// The supervisors are started by this command.
    Through(&'static [&'static str]),
    /// They are in a mount namespace, after this shell command.
    Mounts(&'static str),
    /// They are in a cgroup of version 1 with a limit, or in one within it.
    Group { controller: &'static str, limit: (&'static str, &'static str), nested: bool },
    /// What Docker's default profile refuses without the capability.
    WithoutPolicies,
    /// Files with this in their path cannot be locked.
    WithoutLocks(&'static str),
    /// Under `nohup`, and a hangup is sent to supervisors and executors.
    Hangup,
}

const READ_ONLY: &str = "while read -r _ _ _ _ at _; do case $at in /sys/fs/cgroup*) \
                         mount -o remount,bind,ro \"$at\" || exit 1;; esac; done \
                         < /proc/self/mountinfo && ! mkdir /sys/fs/cgroup/*/seal-test 2> /dev/null";
const ABSENT: &str = "mount -t tmpfs -o ro none /sys/fs/cgroup";
const NO_SYS: &str = "mount -t tmpfs -o ro none /sys";
const ALL: &[&str] = &[
    "unshare",
    "--user",
    "--map-root-user",
    "--mount",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
    "--time",
    "--boottime=3600",
    "--monotonic=3600",
    "--cgroup",
    "--ipc",
    "--uts",
    "--net",
];

const PLAIN: Cell = Cell {
    name: "",
    made: "",
    verdict: Seals,
    place: Through(&[]),
    supervisor: "",
    executor: "",
    environment: &[],
};

/// All of them, in the order of the document.
pub(crate) const CELLS: &[Cell] = &[
    Cell {
        name: "no `CAP_SYS_NICE`",
        made: "the capability dropped, memory policies refused by seccomp as Docker does; \
               `numa_preferred = 0`, `SEAL_NUMA=preferred`",
        verdict: Warns("cannot make it prefer the memory of NUMA node 0"),
        place: WithoutPolicies,
        executor: "numa_preferred = 0",
        environment: &[("SEAL_NUMA", "preferred")],
        ..PLAIN
    },
    Cell {
        name: "no `CAP_SYS_NICE`, defaults",
        made: "the same, no node named, `SEAL_NUMA` not set",
        place: WithoutPolicies,
        ..PLAIN
    },
    Cell {
        name: "no `CAP_SYS_NICE`, a demand",
        made: "the same, `numa_preferred = 0` and `memory = \"strict\"`",
        verdict: Refuses("as memory = \"strict\" demands"),
        place: WithoutPolicies,
        supervisor: "[supervisor.pc1]\nmemory = 'strict'",
        executor: "numa_preferred = 0",
        ..PLAIN
    },
    Cell {
        name: "a limit of memory",
        made: "cgroup v1 with 512 MiB",
        place: Group {
            controller: "memory",
            limit: ("memory.limit_in_bytes", "536870912"),
            nested: false,
        },
        ..PLAIN
    },
    Cell {
        name: "a limit of memory above",
        made: "an unlimited cgroup v1 in one with 512 MiB",
        place: Group {
            controller: "memory",
            limit: ("memory.limit_in_bytes", "536870912"),
            nested: true,
        },
        ..PLAIN
    },
    Cell {
        name: "a limit of processes and threads",
        made: "cgroup v1 with `pids.max` 96 for three supervisors and their executors",
        place: Group { controller: "pids", limit: ("pids.max", "96"), nested: false },
        ..PLAIN
    },
    Cell {
        name: "cgroups read-only",
        made: "all of `/sys/fs/cgroup` mounted read-only",
        verdict: Warns("no cgroup can be made: cpus hold by affinity"),
        place: Mounts(READ_ONLY),
        executor: "cgroup.cpuset = 'A-CPU'",
        ..PLAIN
    },
    Cell {
        name: "cgroups read-only, a demand",
        made: "the same, `cgroup = \"always\"`",
        verdict: Refuses("supervisor.cgroup = \"always\", but no cgroup can be made"),
        place: Mounts(READ_ONLY),
        supervisor: "[supervisor]\ncgroup = 'always'",
        ..PLAIN
    },
    Cell {
        name: "no cgroups",
        made: "an empty `/sys/fs/cgroup`",
        verdict: Warns("no cgroup can be made: cpus hold by affinity"),
        place: Mounts(ABSENT),
        executor: "cgroup.cpuset = 'A-CPU'",
        ..PLAIN
    },
    Cell {
        name: "no cgroups, a demand",
        made: "the same, `cgroup = \"always\"`",
        verdict: Refuses("supervisor.cgroup = \"always\", but no cgroup can be made"),
        place: Mounts(ABSENT),
        supervisor: "[supervisor]\ncgroup = 'always'",
        ..PLAIN
    },
    Cell {
        name: "no `/sys`",
        made: "an empty `/sys`; `cgroup.cpuset` and `numa_preferred = 0`",
        verdict: Warns("this kernel tells of no NUMA nodes"),
        place: Mounts(NO_SYS),
        executor: "cgroup.cpuset = 'A-CPU'\nnuma_preferred = 0",
        ..PLAIN
    },
    Cell {
        name: "a user namespace, as root",
        made: "`unshare --user --map-root-user`",
        place: Through(&["unshare", "--user", "--map-root-user"]),
        ..PLAIN
    },
    Cell {
        name: "a user namespace, as oneself",
        made: "`unshare --user --map-current-user`",
        place: Through(&["unshare", "--user", "--map-current-user"]),
        ..PLAIN
    },
    Cell {
        name: "a user namespace, as nobody",
        made: "`unshare --user`: no user is mapped",
        place: Through(&["unshare", "--user"]),
        ..PLAIN
    },
    Cell {
        name: "a pid namespace",
        made: "`unshare --pid --mount-proc`, one for each supervisor",
        place: Through(&[
            "unshare",
            "--user",
            "--map-root-user",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ]),
        ..PLAIN
    },
    Cell {
        name: "a time namespace",
        made: "`unshare --time`, an hour ahead",
        place: Through(&[
            "unshare",
            "--user",
            "--map-root-user",
            "--time",
            "--boottime=3600",
            "--monotonic=3600",
            "--fork",
            "--kill-child",
        ]),
        ..PLAIN
    },
    Cell {
        name: "all namespaces",
        made: "user, mount, pid, time, cgroup, ipc, uts and net, one of each for each supervisor",
        place: Through(ALL),
        ..PLAIN
    },
    Cell {
        name: "`nohup`",
        made: "SIGHUP ignored at the start, and a hangup sent to supervisors and executors",
        place: Hangup,
        ..PLAIN
    },
    Cell {
        name: "no locks for sectors",
        made: "`flock` and `fcntl` fail with ENOLCK in the sector's directory",
        verdict: Refuses("has no locks"),
        place: WithoutLocks("/sector"),
        ..PLAIN
    },
    Cell {
        name: "no locks for the runtime directory",
        made: "`flock` and `fcntl` fail with ENOLCK in it",
        verdict: Refuses("has no locks"),
        place: WithoutLocks("/run"),
        ..PLAIN
    },
    Cell {
        name: "no locks for parents caches",
        made: "`flock` and `fcntl` fail with ENOLCK in `FIL_PROOFS_PARENT_CACHE`",
        place: WithoutLocks("/parents"),
        ..PLAIN
    },
];
