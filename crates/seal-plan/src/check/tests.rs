//! Configurations that are broken on purpose, each with the one finding that names its fault.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;
use crate::Bytes;
use crate::hardware::{self, Disk, HugePages};

/// Two nodes of two L3 groups of 4 cores, 512 GiB, two GPUs, no AVX-512.
const MACHINE: &str = "name = 'm'\ninstructions = ['sha_ni']\nmemory = '1TiB'\ncores_per_l3 = 4\n\
    numa_nodes = [{ id = 0, cpus = '0-7' }, { id = 1, cpus = '8-15' }]\n\
    gpus = [{ index = 0, model = 'G', uuid = 'GPU-aa', numa_node = 0 }, \
            { index = 1, model = 'G', uuid = 'GPU-bb', numa_node = 1 }]\n";

/// Nothing is to be said against this one.
const GOOD: &str = "\
[processors.limitation.concurrent]
pc1 = 4
pc2 = 1
c2 = 1
[processors.limitation.staggered]
pc1 = '5m'
[processors.ext_locks]
gpu = 1
[[processors.pc1]]
numa_preferred = 0
cgroup.cpuset = '0-3'
concurrent = 2
envs = { FIL_PROOFS_MULTICORE_SDR_PRODUCERS = '1' }
[[processors.pc1]]
numa_preferred = 1
cgroup.cpuset = '8-11'
concurrent = 2
[[processors.pc2]]
cgroup.cpuset = '4-5'
locks = ['gpu']
envs = { FIL_PROOFS_USE_GPU_TREE_BUILDER = '1', CUDA_VISIBLE_DEVICES = '0' }
[[processors.c2]]
cgroup.cpuset = '4-7,12-15'
locks = ['gpu']
envs = { SEAL_C2_DEVICE = 'cuda', CUDA_VISIBLE_DEVICES = '0' }
";

fn machine() -> Hardware {
    hardware::parse(Path::new("m.toml"), MACHINE).expect("good")
}

fn findings_on(hardware: &Hardware, text: &str, local: Option<&Local>) -> Vec<Finding> {
    let config = match seal_config::parse(Path::new("w.toml"), text) {
        Ok(config) => config,
        Err(error) => return vec![unreadable("w.toml", &error)],
    };
    let against = Against {
        hardware,
        local,
        sector_size: SectorSize::GIB_32,
        sectors: None,
        given: &Given::new(),
        seed_wait: Duration::from_secs(75 * 60),
    };
    check(&config, against)
}

fn shown(findings: &[Finding]) -> String {
    findings.iter().map(|finding| format!("{finding}\n")).collect()
}

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

use Severity::{Error, Warning};

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
        &[("pc1 = 4", "pc1 = 11"), ("'8-11'\nconcurrent = 2", "'8-11'\nconcurrent = 9")],
        "units-short",
        Error,
        17,
        "9 tasks wanted, but its cpus make 2 units of cores, which take 8 sectors",
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
        "SEAL_FORCE_ISA = \"foo\" is not portable, shani, avx2 or avx512",
    ),
    broken(
        &[("'cuda', CUDA", "'cuda', SEAL_READY_WITHIN = 'abc', CUDA")],
        "env-value",
        Error,
        25,
        "SEAL_READY_WITHIN = \"abc\" is not a time",
    ),
    broken(
        &[("'cuda', CUDA", "'gpu', CUDA")],
        "env-value",
        Error,
        25,
        "SEAL_C2_DEVICE = \"gpu\" is not cpu or cuda",
    ),
    broken(
        &[("'4-7,12-15'\n", "'4-7,12-15'\nargs = ['--concurent', '2']\n")],
        "args-unknown",
        Error,
        24,
        "--concurent is not an option of it",
    ),
    broken(
        &[("'4-5'\n", "'4-5'\nargs = ['--memory-mib']\n")],
        "args-unknown",
        Error,
        20,
        "--memory-mib has no value",
    ),
    broken(&[("PRODUCERS = '1'", "PRODUCERS = 'two'")], "env-value", Error, 13, "refuses to start"),
    broken(
        &[("BUILDER = '1', ", "BUILDER = '1', FIL_PROOFS_ROWS_TO_DISCARD = '3', ")],
        "env-value",
        Error,
        21,
        "no software can prove the sector",
    ),
];

/// [`GOOD`] with changes, each of which must change something.
fn changed(changes: &[(&str, &str)]) -> String {
    changes.iter().fold(GOOD.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from:?} is not in\n{text}");
        text.replacen(from, to, 1)
    })
}

#[test]
fn nothing_is_said_against_a_good_configuration() {
    let findings = findings_on(&machine(), GOOD, None);
    assert!(findings.is_empty(), "{}", shown(&findings));
    assert_eq!(exit_code(&findings), 0);
}

#[test]
fn every_fault_has_the_one_finding_that_names_it() {
    assert!(BROKEN.len() >= 25);
    let mut wrong = String::new();
    for Broken { changes, kind, severity, line, says } in BROKEN {
        let text = changed(changes);
        let findings = findings_on(&machine(), &text, None);
        findings.iter().for_each(is_as_documented);
        let code = if *severity == Error { 2 } else { 1 };
        let right = findings.len() == 1
            && findings.iter().all(|finding| {
                (finding.kind, finding.severity, finding.line) == (kind, *severity, Some(*line))
                    && finding.reason.contains(says)
                    && !finding.remedy.is_empty()
                    && finding.file == "w.toml"
            })
            && exit_code(&findings) == code;
        if !right {
            wrong += &format!("{changes:?}\n   wants {kind} in line {line}: {says}\n");
            wrong += &shown(&findings);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn too_little_memory_is_said_by_node_and_for_the_machine() {
    let with_memory = |gib: u64| {
        let mut hardware = machine();
        for node in &mut hardware.nodes {
            (node.memory, node.usable) = (Bytes::gib(gib), Bytes::gib(gib));
        }
        hardware
    };
    // Labels take 128 GiB a node; with the other stages 345 GiB in all.
    for (gib, kind, says) in [
        (173, None, ""),
        (172, Some("memory-short"), "takes 345 GiB (pc1 256 GiB, pc2 2 GiB, c2 87 GiB)"),
        (
            127,
            Some("node-memory-short"),
            "labelled on NUMA node 0 take 128 GiB, and it has 127 GiB",
        ),
    ] {
        let findings = findings_on(&with_memory(gib), GOOD, None);
        assert_eq!(findings.first().map(|finding| finding.kind), kind, "{}", shown(&findings));
        assert!(findings.iter().all(|f| f.severity == Error && f.line.is_some()));
        assert!(shown(&findings).contains(says), "{}", shown(&findings));
    }
}

#[test]
fn a_machine_without_what_stages_need_is_named() {
    let mut hardware = machine();
    hardware.gpus.clear();
    let findings = findings_on(&hardware, GOOD, None);
    let kinds: Vec<_> = findings.iter().map(|finding| finding.kind).collect();
    assert_eq!(kinds, ["gpu-missing", "gpu-missing"], "{}", shown(&findings));
    let optional = GOOD.replace(
        "BUILDER = '1', CUDA_VISIBLE_DEVICES = '0'",
        "BUILDER = '1', SEAL_GPU = 'optional'",
    );
    let optional =
        optional.replace("envs = { SEAL_C2_DEVICE = 'cuda', CUDA_VISIBLE_DEVICES = '0' }\n", "");
    let findings = findings_on(&hardware, &optional, None);
    assert_eq!((findings.len(), exit_code(&findings)), (1, 1), "{}", shown(&findings));
    let mut hardware = machine();
    hardware.instructions = Some(std::collections::BTreeSet::new());
    let findings = findings_on(&hardware, GOOD, None);
    assert_eq!(findings.iter().map(|f| f.kind).collect::<Vec<_>>(), ["no-sha-ni"]);
}

#[test]
fn both_schemes_have_no_error_and_warnings_only_for_what_has_no_effect() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let hardware = hardware::load(&root.join("machines/epyc7642x2.toml")).expect("ours");
    for name in ["scheme-a.toml", "scheme-b.toml"] {
        let path = root.join("../../tests/schemes").join(name);
        let text = fs::read_to_string(path).expect("there");
        let findings = findings_on(&hardware, &text, None);
        // Nothing reads the one; our C2 is asked for a GPU by name.
        let kinds: Vec<_> = findings.iter().map(|finding| finding.kind).collect();
        let idle = if name == "scheme-a.toml" { 1 } else { 2 };
        let expected = [vec!["env-no-effect"; 2], vec!["gpu-idle"; idle]].concat();
        assert_eq!((kinds, exit_code(&findings)), (expected, 1), "{name}: {}", shown(&findings));
        let ours = text.replace("FIL_PROOFS_MAXIMIZE_CACHING=\"1\", ", "");
        let ours = ours
            .replace("envs = { CUDA_VISIBLE", "envs = { SEAL_C2_DEVICE = \"cuda\", CUDA_VISIBLE");
        let findings = findings_on(&hardware, &ours, None);
        assert!(findings.is_empty(), "{name}: {}", shown(&findings));
    }
}

#[test]
fn nothing_is_said_against_the_examples_of_the_documentation() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let hardware = hardware::load(&root.join("machines/epyc7642x2.toml")).expect("ours");
    for name in ["scheme-a.processors.toml", "scheme-b.processors.toml"] {
        let text = fs::read_to_string(root.join("../../docs/examples").join(name)).expect("there");
        let findings = findings_on(&hardware, &text, None);
        assert!(findings.is_empty(), "{name}: {}", shown(&findings));
    }
}

/// What a check of this machine finds with the given directory for parameters, caches and binaries.
struct Here {
    dir: tempfile::TempDir,
    local: Local,
    hardware: Hardware,
}

impl Here {
    /// Everything is there.
    fn complete() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = |name: &str| dir.path().join(name);
        for sub in ["bin", "parameters", "parents", "work"] {
            fs::create_dir(path(sub)).expect("writable");
        }
        let bin = path("bin/pc1-exec");
        fs::write(&bin, "").expect("writable");
        fs::set_permissions(&bin, fs::Permissions::from_mode(0o755)).expect("ours");
        for file in seal_types::published_groth_files() {
            if file.sector_size == SectorSize::GIB_32 {
                fs::write(path("parameters").join(file.name), "x").expect("writable");
            }
        }
        let cache = seal_types::published_parents_caches()
            .iter()
            .find(|digest| {
                digest.sector_size == SectorSize::GIB_32
                    && digest.api_version == seal_types::ApiVersion::V1_1
            })
            .expect("published");
        let cache = path("parents").join(format!("{}.cache", cache.name));
        let cache = fs::File::create(cache).expect("writable");
        // A file of that length without content.
        cache.set_len(56 << 30).expect("sparse");
        let environment = BTreeMap::from([
            ("PATH".to_owned(), path("bin").display().to_string()),
            ("FIL_PROOFS_PARAMETER_CACHE".to_owned(), path("parameters").display().to_string()),
            ("FIL_PROOFS_PARENT_CACHE".to_owned(), path("parents").display().to_string()),
        ]);
        let local = Local { environment, open_files: 4096, locked_memory: 64 << 10 };
        let mut hardware = machine();
        let free = Bytes::gib(8192);
        hardware.disks = vec![Disk { path: "/mnt/d".into(), size: free, free }];
        Self { dir, local, hardware }
    }

    fn findings(&self, text: &str) -> Vec<Finding> {
        findings_on(&self.hardware, text, Some(&self.local))
    }

    fn kinds(&self, text: &str) -> Vec<&'static str> {
        let findings = self.findings(text);
        assert!(findings.iter().all(|finding| finding.line.is_some()), "{}", shown(&findings));
        findings.iter().for_each(is_as_documented);
        findings.iter().map(|finding| finding.kind).collect()
    }

    /// That there is one finding, with these words and this severity.
    fn says(&self, text: &str, severity: Severity, kind: &str, words: &str) {
        let findings = self.findings(text);
        let said = shown(&findings);
        assert_eq!(findings.len(), 1, "{said}");
        assert_eq!((findings[0].kind, findings[0].severity), (kind, severity), "{said}");
        assert!(findings[0].reason.contains(words) && !findings[0].remedy.is_empty(), "{said}");
    }
}

/// That a finding has the severity that the documentation tells of its kind.
fn is_as_documented(finding: &Finding) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/planning.md");
    let text = fs::read_to_string(path).expect("the documentation");
    let name = format!("`{}`", finding.kind);
    let row = text.lines().find(|line| line.starts_with('|') && line.contains(&name));
    let row = row.unwrap_or_else(|| panic!("docs/planning.md does not tell of {name}"));
    assert!(row.contains(&finding.severity.to_string()), "{row}: {finding}");
}

#[test]
fn a_machine_that_has_everything_is_good() {
    let here = Here::complete();
    assert_eq!(here.kinds(GOOD), [""; 0]);
    let named = GOOD.replacen("numa_preferred = 0", "numa_preferred = 0\nbin = 'pc1-exec'", 1);
    assert_eq!(here.kinds(&named), [""; 0]);
}

#[test]
fn what_this_machine_lacks_is_named() {
    let set = |from: &str, to: &str| GOOD.replacen(from, to, 1);
    let bin = |bin: &str| set("numa_preferred = 0", &format!("numa_preferred = 0\nbin = '{bin}'"));
    let supervisor = |line: &str| {
        set("[processors.ext_locks]", &format!("[supervisor]\n{line}\n[processors.ext_locks]"))
    };
    let here = Here::complete();
    let mut without_path = Here::complete();
    without_path.local.environment.remove("PATH");
    assert_eq!(without_path.kinds(&bin("pc1-exec")), ["program-missing"]);
    let gone = bin("/no/such/pc1-exec");
    here.says(&gone, Error, "program-missing", "there is no executable /no/such/pc1-exec");
    let work =
        |dir: &str| set("PRODUCERS = '1'", &format!("PRODUCERS = '1', SEAL_WORK_DIR = '{dir}'"));
    here.says(&work("/no/such"), Error, "directory-missing", "there is no directory /no/such");
    assert_eq!(here.kinds(&work(&here.dir.path().join("work").display().to_string())), [""; 0]);
    // Every executor of every stage needs some.
    assert_eq!(here.kinds(&supervisor("nofile = 100")), ["open-files"; 4]);
    let mut low = Here::complete();
    low.local.open_files = 150;
    assert_eq!(low.kinds(GOOD), ["open-files", "open-files"]);
    let text = shown(&low.findings(GOOD));
    assert!(
        text.contains("error[open-files]") && text.contains("192 files open, and 150"),
        "{text}"
    );
    // The published software locks its labels in memory; ours does not.
    let other = bin(&here.dir.path().join("bin/pc1-exec").display().to_string());
    assert_eq!(here.kinds(&other), [""; 0]);
    fs::copy(here.dir.path().join("bin/pc1-exec"), here.dir.path().join("bin/worker"))
        .expect("ours");
    here.says(&bin("worker"), Warning, "locked-memory", "needs 128 GiB for 2 tasks, and 64 KiB");
    let unlimited = supervisor("memlock = 'unlimited'");
    let unlimited =
        unlimited.replacen("numa_preferred = 0", "numa_preferred = 0\nbin = 'worker'", 1);
    assert_eq!(here.kinds(&unlimited), [""; 0]);
}

#[test]
fn missing_and_damaged_files_are_named() {
    let here = Here::complete();
    let first = fs::read_dir(here.dir.path().join("parameters")).expect("there").next();
    fs::remove_file(first.expect("two").expect("readable").path()).expect("ours");
    here.says(GOOD, Error, "parameters-missing", "lacks the Groth16 parameters for 32GiB sectors");
    // Every executor is asked, not the first one only.
    let here = Here::complete();
    let second = format!(
        "{GOOD}[[processors.c2]]\ncgroup.cpuset = '4-7,12-15'\nlocks = ['gpu']\n\
        envs = {{ FIL_PROOFS_PARAMETER_CACHE = '/no/such' }}\n"
    )
    .replacen("c2 = 1\n[", "c2 = 2\n[", 1);
    here.says(&second, Error, "parameters-missing", "/no/such lacks the Groth16 parameters");
    let second =
        GOOD.replacen("'8-11'\n", "'8-11'\nenvs = { FIL_PROOFS_PARENT_CACHE = '/no/such' }\n", 1);
    here.says(&second, Warning, "parents-missing", "/no/such has no parents cache for 32GiB");
    let cache = fs::read_dir(here.dir.path().join("parents")).expect("there").next();
    let cache = cache.expect("one").expect("readable").path();
    fs::File::options().write(true).open(&cache).and_then(|file| file.set_len(1)).expect("ours");
    here.says(GOOD, Warning, "parents-damaged", "has 1 bytes instead of 60129542144");
    // The cache of the graph before does not help: the network takes no such sectors any more.
    let before = seal_types::published_parents_caches()
        .iter()
        .find(|digest| {
            digest.sector_size == SectorSize::GIB_32
                && digest.api_version == seal_types::ApiVersion::V1_0
        })
        .expect("published");
    let old = cache.with_file_name(format!("{}.cache", before.name));
    fs::rename(&cache, &old).expect("ours");
    fs::File::options().write(true).open(&old).and_then(|f| f.set_len(56 << 30)).expect("ours");
    here.says(GOOD, Warning, "parents-missing", "sectors of StackedDrg32GiBV1_1");
}

#[test]
fn an_executor_that_was_built_without_gpus_is_named() {
    let here = Here::complete();
    let bin = here.dir.path().join("bin/c2-exec");
    let named = GOOD.replace("'4-7,12-15'\n", &format!("'4-7,12-15'\nbin = '{}'\n", bin.display()));
    for (features, optional, found) in [
        ("features: none", false, Some(Error)),
        ("features: none", true, Some(Warning)),
        ("features: cuda", false, None),
        // Of what tells nothing, nothing is known.
        ("c2-exec 0.0.1", false, None),
    ] {
        let script = format!("#!/bin/sh\necho 'c2-exec 0.1.0'\necho '{features}'\n");
        // Not in place: the file may still be open for writing in a child of another test.
        let part = here.dir.path().join("part");
        fs::write(&part, script).expect("writable");
        fs::set_permissions(&part, fs::Permissions::from_mode(0o755)).expect("ours");
        fs::rename(&part, &bin).expect("ours");
        let text = match optional {
            true => named.replace("'cuda', CUDA", "'cuda', SEAL_GPU = 'optional', CUDA"),
            false => named.clone(),
        };
        let findings = here.findings(&text);
        let severities: Vec<_> = findings.iter().map(|finding| finding.severity).collect();
        assert_eq!(severities, Vec::from_iter(found), "{features}: {}", shown(&findings));
        if found.is_some() {
            let said = shown(&findings);
            assert!(
                said.contains("gpu-not-built") && said.contains("built without cuda"),
                "{said}"
            );
        }
    }
}

/// Pages that are set aside are of no use to what does not ask for them.
#[test]
fn too_many_huge_pages_are_named() {
    let mut hardware = machine();
    let page = |total| BTreeMap::from([(Bytes::gib(1), HugePages { total, free: total })]);
    // Labels take 128 GiB on each node, the other stages 89 GiB; 506.88 GiB a node are usable.
    for (pages, found) in [([128, 128], false), ([460, 460], false), ([463, 463], true)] {
        for (node, pages) in hardware.nodes.iter_mut().zip(pages) {
            node.usable = Bytes::gib(506);
            node.huge_pages = page(pages);
        }
        let findings = findings_on(&hardware, GOOD, None);
        let kinds: Vec<_> = findings.iter().map(|finding| finding.kind).collect();
        assert_eq!(kinds, vec!["huge-pages-many"; usize::from(found)], "{}", shown(&findings));
        if found {
            let text = shown(&findings);
            let says = "926 GiB are set aside as huge pages, which leaves 86 GiB of 1012 GiB for all \
                        else; what does not lie in huge pages takes 89 GiB";
            assert!(text.contains(says) && text.starts_with("error["), "{text}");
        }
    }
    // What does not lie in huge pages, because it is a part of a layer too many, counts too.
    for node in &mut hardware.nodes {
        node.usable = Bytes::gib(200);
        node.huge_pages = page(120);
    }
    // Three of four layers fit in 120 pages a node, so 32 GiB a node and 89 GiB do not.
    let text = shown(&findings_on(&hardware, GOOD, None));
    assert_eq!(text, "");
    hardware.nodes[0].usable = Bytes::gib(192);
    let text = shown(&findings_on(&hardware, GOOD, None));
    assert!(text.contains("leaves 152 GiB of 392 GiB") && text.contains("takes 153 GiB"), "{text}");
}

#[test]
fn too_few_huge_pages_and_too_little_disk_are_named() {
    let mut here = Here::complete();
    let page = |total| BTreeMap::from([(Bytes::gib(1), HugePages { total, free: total })]);
    here.hardware.nodes[1].huge_pages = page(127);
    assert_eq!(here.kinds(GOOD), ["huge-pages-short"]);
    let text = shown(&here.findings(GOOD));
    assert!(text.starts_with("warning[huge-pages-short]") && text.contains("need 128"), "{text}");
    here.hardware.nodes[1].huge_pages = page(128);
    assert_eq!(here.kinds(GOOD), [""; 0]);
    // Six sectors in the stages, and two of some 33 a day that wait, of 517 GiB each.
    here.hardware.disks[0].free = Bytes::gib(8 * 517);
    assert_eq!(here.kinds(GOOD), [""; 0]);
    here.hardware.disks[0].free = Bytes::gib(8 * 517 - 1);
    let findings = here.findings(GOOD);
    assert_eq!((findings.len(), exit_code(&findings)), (1, 2), "{}", shown(&findings));
    let text = shown(&findings);
    let says = "8 sectors at a time (6 in the stages, 2 waiting for the chain's randomness at 33 a \
                day) take 517 GiB each while they are sealed, and /mnt/d has room for 7";
    assert!(text.contains(says) && text.starts_with("error[disk-short]"), "{text}");
    // Who says how many there will be is believed.
    let config = seal_config::parse(Path::new("w.toml"), GOOD).expect("good");
    let given = Given::new();
    let against = Against {
        hardware: &here.hardware,
        local: None,
        sector_size: SectorSize::GIB_32,
        sectors: Some(7),
        given: &given,
        seed_wait: Duration::from_secs(75 * 60),
    };
    assert!(check(&config, against).is_empty());
    assert_eq!(check(&config, Against { sectors: Some(8), ..against })[0].kind, "disk-short");
}

#[test]
fn the_place_of_a_finding_is_in_its_text_and_its_json() {
    let findings = findings_on(
        &machine(),
        &changed(&[("'8-11'", "'8-12'"), ("4-7,12-15", "4-7,13-15")]),
        None,
    );
    let text = shown(&findings);
    assert!(
        text.starts_with("warning[l3-cut]: w.toml:16: processors.pc1[1].cgroup.cpuset: cuts"),
        "{text}"
    );
    let json = serde_json::to_value(&findings).expect("texts and numbers");
    assert_eq!((&json[0]["line"], &json[0]["severity"]), (&16.into(), &"warning".into()));
}
