//! What the machine must have written.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use test_support::vector::Vector;

use crate::out::say;

/// A check: the name in `init.sh`, texts that must be in what it wrote and texts that must not.
type Check = (&'static str, &'static [&'static str], &'static [&'static str]);

/// All checks.
const CHECKS: &[Check] = &[
    (
        "v2-start",
        &[
            "group pc1-0.1: cpus 0-1, memory of 0, allowed 0-1, bind:0",
            "group pc1-1.1: cpus 2-3, memory of 1, allowed 2-3, bind:1",
        ],
        &["never"],
    ),
    (
        "v2-restart",
        &[
            "group pc1-0.1: cpus 0-1, memory of 0, allowed 0-1, bind:0",
            "group pc1-1.2: cpus 2-3, memory of 1, allowed 2-3, bind:1",
        ],
        &["pc1-1.1"],
    ),
    ("v2-shares", &["node 0: most local", "node 1: most local"], &["null"]),
    ("v2-oom", &["killed by the kernel because its cgroup was out of memory"], &[]),
    ("v2-end", &["exit 0", "no groups"], &["/sys/fs/cgroup/seal-exec\n"]),
    ("v2-killed", &["left"], &[]),
    ("v2-swept", &["removed"], &[]),
    (
        "v2-offline",
        &["cgroup.cpuset = \"2-3\": cpus 3 are missing; this machine has 0-2", "exit 4"],
        &["0-1\": cpus"],
    ),
    ("machine", &["0-1", "2-3"], &[]),
    (
        "group",
        &[
            "allowed 2-3",
            "unit consumer on cpu 2, producers on 3, node 1",
            "thread bound to 2 ran on 2",
            "thread bound to 3 ran on 3",
            "memory node 1: 100 %",
            "exit 0",
        ],
        &["memory node 0", "reduced"],
    ),
    (
        "cut-group",
        &[
            "unit consumer on cpu 3, producers on none, node 1",
            "reduced 1 producers",
            "memory node 1: 100 %",
            "exit 0",
        ],
        &[],
    ),
    (
        "all-cpus",
        &[
            "unit consumer on cpu 0, producers on 1, node 0",
            "memory node 0: 100 %",
            "unit consumer on cpu 2, producers on 3, node 1",
            "memory node 1: 100 %",
            "exit 0",
        ],
        &[],
    ),
    ("too-much", &["error NUMA node 1 has too little memory: 600 MiB", "exit 1"], &["memory node"]),
    ("preferred", &["memory node 0: ", "memory node 1: ", "exit 0"], &["100 %"]),
    ("outside-group", &["error VC_CG_CPUSET cannot be had", "exit 1"], &["unit"]),
    ("partly-outside-group", &["error VC_CG_CPUSET cannot be had", "exit 1"], &["unit"]),
    ("environment", &["preferred 1", "allowed 2-3", "memory node 1: 100 %", "exit 0"], &["node 0"]),
    ("no-node", &["this machine has no such NUMA node, only 0-1", "exit 1"], &["unit"]),
    (
        "interleaved",
        &[
            "in turn from node 0",
            "in turn from node 1",
            "memory node 0: 50 %",
            "memory node 1: 50 %",
            "exit 0",
        ],
        &[],
    ),
    ("interleaved-on-one", &["memory node 1: 100 %", "exit 0"], &["in turn", "node 0"]),
    ("executor", &["VC_CG_CPUSET cannot be had", "exit 4"], &["ready"]),
    (
        "own-group",
        &["confined to the cpus of VC_CG_CPUSET", "/sys/fs/cgroup/seal-exec/", "/vc/pc1", "exit 0"],
        &["by affinity"],
    ),
    ("own-group-end", &["no groups"], &[]),
    (
        "huge-pages",
        &["pages huge pages of 2 MiB", "memory node 1: 100 %", "exit 0"],
        &["memory node 0"],
    ),
    (
        "huge-pages-of-the-other-node",
        &["pages transparent", "memory node 0: 100 %", "exit 0"],
        &["memory node 1"],
    ),
    ("files", &["\"found\":0,\"made\":3,\"page_kib\":2048", "exit 0"], &[]),
    ("files-again", &["\"found\":3,\"made\":0", "exit 0"], &[]),
    (
        "sector",
        &[
            "unit: consumer on cpu 2, producers on 3, node 1",
            "/mnt/huge/numa_1/mem_8MiB_1 in pages of 2048 KiB",
            "/mnt/huge/numa_1/mem_8MiB_2 in pages of 2048 KiB",
            "\"percent_local\":100",
            "exit 0",
        ],
        &["WARN", "ERROR"],
    ),
    (
        "ring",
        &[
            "unit: consumer on cpu 0, producers on 1, node 0",
            "\"message\":\"ring of a layer\",\"node\":\"0\",\"percent_local\":100",
            "exit 0",
        ],
        &["WARN", "ERROR"],
    ),
    (
        "other-node",
        &[
            "the sector goes to another node: NUMA node 0 has too little memory",
            "\"message\":\"labelling\"",
            "\"consumer\":2",
            "\"message\":\"ring of a layer\",\"node\":\"1\",\"percent_local\":100",
            "exit 0",
        ],
        &["WARN", "ERROR"],
    ),
    // Cpu 1 alone cannot be a unit with a producer.
    (
        "threads",
        &["sdr-2 may run on 2", "sdr-p-3 may run on 3", "beside-0 may run on 1,3", "exit 0"],
        &["sdr-1", "sdr-2 may run on 2-", "sdr-p-3 may run on 3-"],
    ),
    ("files-too-many", &["NUMA node 1 gives only", "exit 1"], &[]),
];

/// Compares what the machine wrote with what it must have written. Returns what is to be kept of
/// it.
pub(crate) fn judge(output: &str, vector: &Vector) -> Result<Value> {
    ensure!(output.contains("vm-test end"), "the machine stopped early; it wrote:\n{output}");
    let mut failed = 0;
    for (name, wanted, unwanted) in CHECKS.iter().copied() {
        let lines = lines_of(output, name);
        let missing = wanted.iter().filter(|text| !lines.contains(**text)).map(|t| ("missing", t));
        let present = unwanted.iter().filter(|text| lines.contains(**text)).map(|t| ("there", t));
        let faults: Vec<_> = missing.chain(present).collect();
        say(&format!("    {} {name}", if faults.is_empty() { "ok    " } else { "FAILED" }));
        for (what, text) in &faults {
            say(&format!("           {what}: {text}"));
        }
        if !faults.is_empty() {
            say(&format!("           of:\n{lines}"));
            failed += 1;
        }
    }
    // Pages were set aside on node 1 only, as many as the files have.
    let pages = lines_of(output, "files-pages");
    ensure!(pages == "0\n12\n", "huge pages by node: {pages:?}");
    let layers = lines_of(output, "layers");
    for layer in ["sc-02-data-layer-1.dat", "sc-02-data-layer-2.dat"] {
        let digest = &vector.cache_files[layer].sha256;
        ensure!(layers.contains(&format!("{digest}  /sector/cache/{layer}")), "wrong: {layers}");
    }
    ensure!(failed == 0, "{failed} of {} checks failed", CHECKS.len());
    let names: Vec<_> = CHECKS.iter().map(|(name, ..)| *name).collect();
    let told = |name: &str| lines_of(output, name).trim_end().to_owned();
    Ok(json!({ "passed": names, "guest_kernel": told("kernel"), "shares": told("v2-shares") }))
}

/// What a check wrote.
fn lines_of(output: &str, name: &str) -> String {
    let prefix = format!("vm-test {name}: ");
    output.lines().filter_map(|line| line.strip_prefix(&prefix)).flat_map(|l| [l, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_a_failure() {
        let vector = Vector::named("2KiB-v1_1-cc").expect("a vector");
        assert!(judge("", &vector).is_err());
        assert!(judge("vm-test end\n", &vector).is_err());
    }

    #[test]
    fn every_check_is_run_in_the_machine() {
        let script = include_str!("init.sh");
        for (name, ..) in CHECKS {
            assert!(script.contains(&format!("say {name} ")), "{name}");
        }
    }
}
