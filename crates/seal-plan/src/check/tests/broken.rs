//! Configurations that are broken on purpose, each with the one finding that names its fault.

use super::*;

/// What is replaced in [`GOOD`] (each of the texts by the next), and the finding that follows.
struct Broken {
    changes: &'static [(&'static str, &'static str)],
    kind: &'static str,
    severity: Severity,
    line: usize,
    says: &'static str,
}

const fn broken(
    changes: &'static [(&'static str, &'static str)],
    kind: &'static str,
    severity: Severity,
    line: usize,
    says: &'static str,
) -> Broken {
    Broken { changes, kind, severity, line, says }
}

const BROKEN: &[Broken] = &[
    // Not a configuration at all.
    broken(&[("pc2 = 1\n", "pc2 = \n")], "configuration", Error, 3, "is not valid TOML"),
    broken(
        &[("numa_preferred = 0", "numa_prefered = 0")],
        "configuration",
        Error,
        10,
        "unknown key",
    ),
    broken(&[("gpu = 1", "gpo = 1")], "configuration", Error, 20, "this lock is not declared"),
    broken(&[("'4-5'", "'5-4'")], "configuration", Error, 19, "runs backwards"),
    broken(&[("pc2 = 1\n", "pc2 = 0\n")], "configuration", Error, 3, "must be at least 1"),
    broken(&[(GOOD, "[processors]")], "no-executors", Error, 1, "nothing would ever run"),
    // Cores.
    broken(&[("4-7,12-15", "4-7,12-16")], "cpu-missing", Error, 23, "cpus 16 do not exist"),
    broken(
        &[("'8-11'", "'8-12'"), ("4-7,12-15", "4-7,13-15")],
        "l3-cut",
        Warning,
        16,
        "cores 13-15 of them are left out",
    ),
    broken(
        &[(
            "locks = ['gpu']\nenvs = { SEAL_C2_DEVICE = 'cuda', CUDA_VISIBLE_DEVICES = '0'",
            "envs = { SEAL_C2_DEVICE = 'cuda', CUDA_VISIBLE_DEVICES = '1'",
        )],
        "cores-shared",
        Warning,
        23,
        "cores 4-5 are also kept busy by processors.pc2[0]",
    ),
    broken(
        &[("cgroup.cpuset = '4-7,12-15'\n", "")],
        "cores-shared",
        Warning,
        22,
        "it has no cpuset, so it runs everywhere",
    ),
    broken(&[("'4-7,12-15'", "'3-7,12-15'")], "cores-shared", Warning, 23, "cores 3 are also"),
    broken(&[("numa_preferred = 1", "numa_preferred = 2")], "node-missing", Error, 15, "has 0-1"),
    broken(
        &[("numa_preferred = 1", "numa_preferred = 0")],
        "node-of-other-cpus",
        Warning,
        15,
        "cpus 8-11 of its cpuset are on NUMA node 1, not 0",
    ),
    broken(
        &[("pc1 = 4", "pc1 = 5"), ("'8-11'\nconcurrent = 2", "'8-11'\nconcurrent = 3")],
        "units-shared",
        Warning,
        17,
        "3 tasks wanted, but its cpus make 2 units of cores",
    ),
    broken(
        &[
            ("pc1 = 4", "pc1 = 7"),
            ("'8-11'\nconcurrent = 2", "'8-11'\nconcurrent = 5\nenvs = { SEAL_PC1_LANES = '2' }"),
        ],
        "units-short",
        Error,
        17,
        "5 tasks wanted, but its cpus make 2 units of cores, which take 4 sectors",
    ),
    broken(
        &[
            ("PRODUCERS = '1'", "PRODUCERS = '4'"),
            ("pc1 = 4", "pc1 = 3"),
            ("'0-3'\nconcurrent = 2", "'0-3'\nconcurrent = 1"),
        ],
        "producers-reduced",
        Warning,
        11,
        "running with 3 producers",
    ),
    // GPUs.
    broken(
        &[(
            "CUDA_VISIBLE_DEVICES = '0' }\n[[processors.c2]]",
            "CUDA_VISIBLE_DEVICES = '2' }\n[[processors.c2]]",
        )],
        "gpu-missing",
        Error,
        21,
        "there is no GPU 2: the machine has GPUs 0, 1",
    ),
    broken(
        &[("'1', CUDA_VISIBLE_DEVICES = '0'", "'1', CUDA_VISIBLE_DEVICES = ''")],
        "gpu-missing",
        Error,
        21,
        "lets the executor see none",
    ),
    broken(
        &[("gpu = 1", "gpu = 2"), ("4-7,12-15", "6-7,12-15")],
        "gpu-shared",
        Error,
        25,
        "lets more than one task",
    ),
    broken(
        &[
            ("gpu = 1", "gpu = 1\nother = 1"),
            ("12-15'\nlocks = ['gpu']", "12-15'\nlocks = ['other']"),
            ("4-7,12-15", "6-7,12-15"),
        ],
        "gpu-shared",
        Error,
        26,
        "GPU 0 is also used by processors.pc2[0], and no lock keeps them apart",
    ),
    broken(
        &[("FIL_PROOFS_USE_GPU_TREE_BUILDER = '1'", "FIL_PROOFS_USE_GPU_TREE_BUILDER = '0'")],
        "gpu-idle",
        Warning,
        21,
        "nothing asks it to use one",
    ),
    broken(
        &[("SEAL_C2_DEVICE = 'cuda', ", "")],
        "gpu-idle",
        Warning,
        25,
        "gives c2 a GPU, but nothing asks it to use one",
    ),
    // Other software takes every GPU that it sees.
    broken(
        &[
            ("12-15'\nlocks = ['gpu']", "12-15'\nbin = '/opt/damocles-worker'"),
            ("4-7,12-15", "6-7,12-15"),
            ("envs = { SEAL_C2_DEVICE = 'cuda', CUDA_VISIBLE_DEVICES = '0' }", "concurrent = 1"),
        ],
        "gpu-shared",
        Error,
        22,
        "GPU 0 is also used by processors.pc2[0]; it uses every GPU it sees, and no CUDA_VISIBLE",
    ),
    broken(
        &[
            ("12-15'\nlocks = ['gpu']", "12-15'"),
            ("4-7,12-15", "6-7,12-15"),
            ("cuda', CUDA_VISIBLE_DEVICES = '0' }", "cuda' }"),
        ],
        "gpu-shared",
        Error,
        24,
        "no lock keeps them apart",
    ),
    // Limits, locks, times.
    broken(
        &[("pc1 = 4", "pc1 = 5")],
        "limit-never-reached",
        Warning,
        2,
        "all executors of pc1 take only 4",
    ),
    broken(&[("c2 = 1\n[", "c2 = 2\n[")], "limit-never-reached", Warning, 4, "take only 1"),
    broken(
        &[("pc1 = 4", "pc1 = 3")],
        "limit-below-concurrent",
        Warning,
        2,
        "could take 4: 1 of their places",
    ),
    broken(
        &[("c2 = 1\n[", "c2 = 1\ntree_d = 1\n[")],
        "limit-unused",
        Warning,
        5,
        "has no executor here",
    ),
    broken(
        &[
            ("c2 = 1\n[", "c2 = 3\n["),
            ("gpu = 1", "gpu = 1"),
            ("12-15'\n", "12-15'\nconcurrent = 3\n"),
        ],
        "tasks-wait-inside",
        Warning,
        24,
        "hands it 3 tasks, and it works on 1 at a time",
    ),
    broken(
        &[("gpu = 1", "gpu = 1\ngpu2 = 1")],
        "lock-unused",
        Warning,
        9,
        "no executor holds this lock",
    ),
    broken(
        &[(
            "[processors.ext_locks]",
            "[supervisor.locks.gpu]\norder = 'priority'\npriority = ['c2', 'pc1']\n[processors.ext_locks]",
        )],
        "lock-priority-unused",
        Warning,
        9,
        "names pc1, which never hold this lock",
    ),
    broken(&[("'5m'", "'2h'")], "staggered-limits", Warning, 6, "allow 12.0 sectors a day"),
    broken(
        &[("[processors.ext_locks]", "[supervisor.pc1]\ndeadline = '1h'\n[processors.ext_locks]")],
        "deadline-short",
        Warning,
        8,
        "ends a pc1 after 1h, and one takes about 2h 52m",
    ),
    // Environment.
    broken(
        &[("PRODUCERS = '1'", "PRODUCERS = '1', FIL_PROOFS_MAXIMIZE_CACHING = '1'")],
        "env-no-effect",
        Warning,
        13,
        "has no effect in today's software",
    ),
    broken(
        &[("MULTICORE_SDR_PRODUCERS", "MULTICORE_SDR_PRODUCRES")],
        "env-unknown",
        Warning,
        13,
        "FIL_PROOFS_MULTICORE_SDR_PRODUCRES is not a setting",
    ),
    broken(
        &[("PRODUCERS = '1'", "PRODUCERS = '1', VC_CG_CPUSET = '0-3'")],
        "env-placement",
        Warning,
        13,
        "is not passed on",
    ),
    broken(
        &[("PRODUCERS = '1'", "PRODUCERS = '1', SEAL_PC1_LANE = '2'")],
        "env-unknown",
        Warning,
        13,
        "SEAL_PC1_LANE is not a setting",
    ),
    broken(
        &[("PRODUCERS = '1'", "PRODUCERS = '1', SEAL_WORKDIR = '/mnt'")],
        "env-unknown",
        Warning,
        13,
        "SEAL_WORKDIR is not a setting",
    ),
    broken(
        &[("PRODUCERS = '1'", "PRODUCERS = '1', HUGEPAGE_FILE_PATH = '/mnt'")],
        "env-unknown",
        Warning,
        13,
        "HUGEPAGE_FILE_PATH is not a setting",
    ),
    broken(
        &[("'1', CUDA_VISIBLE_DEVICES = '0'", "'1', CUDA_VISIBLE_DEVCES = '0'")],
        "env-unknown",
        Warning,
        21,
        "CUDA_VISIBLE_DEVCES is not a setting",
    ),
    broken(
        &[("PRODUCERS = '1'", "PRODUCERS = '1', SEAL_FORCE_ISA = 'foo'")],
        "env-value",
        Error,
        13,
        "SEAL_FORCE_ISA = \"foo\": it has to be portable, shani, avx2, avx512, fma or ifma",
    ),
    broken(
        &[("PRODUCERS = '1'", "PRODUCERS = '1', SEAL_FORCE_ISA = 'fma'")],
        "env-no-effect",
        Warning,
        13,
        "SEAL_FORCE_ISA=\"fma\" does nothing here: it names instructions of pc2-exec; pc1-exec",
    ),
    broken(
        &[(
            "'1', CUDA_VISIBLE_DEVICES = '0'",
            "'1', CUDA_VISIBLE_DEVICES = '0', SEAL_FORCE_ISA = 'fma'",
        )],
        "env-value",
        Error,
        21,
        "SEAL_FORCE_ISA = \"fma\": the processor lacks avx2 and fma: the executor refuses to start",
    ),
    broken(
        &[("'cuda', CUDA", "'cuda', SEAL_FORCE_ISA = 'ifma', CUDA")],
        "env-value",
        Error,
        25,
        "SEAL_FORCE_ISA = \"ifma\": the processor lacks avx512f and avx512ifma",
    ),
    broken(
        &[("'cuda', CUDA", "'cuda', SEAL_READY_WITHIN = 'abc', CUDA")],
        "env-value",
        Error,
        25,
        "SEAL_READY_WITHIN = \"abc\": it has to be a time",
    ),
    broken(
        &[("'cuda', CUDA", "'gpu', CUDA")],
        "env-value",
        Error,
        25,
        "SEAL_C2_DEVICE = \"gpu\": it has to be cpu or cuda",
    ),
    broken(
        &[("'4-7,12-15'\n", "'4-7,12-15'\nargs = ['--concurent', '2']\n")],
        "args-unknown",
        Error,
        24,
        "--concurent: it is not an option of this executor",
    ),
    broken(
        &[("'4-5'\n", "'4-5'\nargs = ['--memory-mib']\n")],
        "args-unknown",
        Error,
        20,
        "--memory-mib: it has no value",
    ),
    broken(&[("PRODUCERS = '1'", "PRODUCERS = 'two'")], "env-value", Error, 13, "refuses to start"),
    broken(
        &[("'4-5'\n", "'4-5'\nargs = ['--concurrent', '0']\n")],
        "args-value",
        Error,
        20,
        "--concurrent = \"0\": it has to be a number from 1 on",
    ),
    broken(
        &[("'4-5'\n", "'4-5'\nargs = ['processor', 'pc1']\n")],
        "args-unknown",
        Error,
        20,
        "pc2-exec serves pc2 only",
    ),
    broken(
        &[("BUILDER = '1', ", "BUILDER = '1', FIL_PROOFS_ROWS_TO_DISCARD = '3', ")],
        "env-value",
        Error,
        21,
        "FIL_PROOFS_ROWS_TO_DISCARD = \"3\": it has to be 2",
    ),
];

#[test]
fn every_fault_has_the_one_finding_that_names_it() {
    assert!(BROKEN.len() >= 25);
    let mut wrong = String::new();
    for Broken { changes, kind, severity, line, says } in BROKEN {
        let text = changed(changes);
        let findings = findings_on(&machine(), &text, None);
        findings.iter().for_each(is_as_documented);
        let right = findings.len() == 1
            && findings.iter().all(|finding| {
                (finding.kind, finding.severity, finding.line) == (kind, *severity, Some(*line))
                    && finding.reason.contains(says)
                    && !finding.remedy.is_empty()
                    && finding.file == "w.toml"
            });
        if !right {
            wrong += &format!("{changes:?}\n   wants {kind} in line {line}: {says}\n");
            wrong += &shown(&findings);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
