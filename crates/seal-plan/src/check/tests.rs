//! What is found in configurations for a machine that is written here.

mod broken;
mod here;

use std::fs;
use std::path::Path;

use super::Severity::{Error, Warning};
use super::*;
use crate::Bytes;
use crate::hardware;

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

/// [`GOOD`] with changes, each of which must change something.
fn changed(changes: &[(&str, &str)]) -> String {
    changes.iter().fold(GOOD.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from:?} is not in\n{text}");
        text.replacen(from, to, 1)
    })
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
fn nothing_is_said_against_a_good_configuration() {
    let findings = findings_on(&machine(), GOOD, None);
    assert!(findings.is_empty(), "{}", shown(&findings));
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
fn sectors_of_one_executor_are_counted_where_they_go() {
    let of = |own: &str, after: &str, memory: [u64; 2]| {
        let mut hardware = machine();
        for (node, gib) in hardware.nodes.iter_mut().zip(memory) {
            (node.memory, node.usable) = (Bytes::gib(gib), Bytes::gib(gib));
        }
        let pc1 = "[[processors.pc1]]\ncgroup.cpuset = '0-3,8-11'\nconcurrent = 4\n";
        let findings = findings_on(&hardware, &format!("{pc1}{own}{after}"), None);
        findings.iter().map(|finding| finding.kind).collect::<Vec<_>>()
    };
    // 64 GiB a sector: by turns on both nodes, or on the one that has room.
    assert_eq!(of("", "", [128, 128]), [""; 0]);
    assert_eq!(of("", "", [64, 192]), [""; 0]);
    assert_eq!(of("numa_preferred = 0\n", "", [64, 192]), ["node-of-other-cpus"]);
    assert_eq!(of("", "", [100, 191]), ["node-memory-short"]);
    // Beside 87 GiB of c2, half of them on each node.
    let c2 = "[[processors.c2]]\ncgroup.cpuset = '4-7,12-15'\n";
    assert_eq!(of("", c2, [108, 236]), [""; 0]);
    assert_eq!(of("", c2, [107, 240]), ["node-memory-short"]);
}

#[test]
fn a_gpu_that_is_too_small_for_proofs_is_named() {
    let with_memory = |gib: u64| {
        let mut hardware = machine();
        hardware.gpus[0].memory = Some(Bytes::gib(gib));
        hardware
    };
    assert!(findings_on(&with_memory(10), GOOD, None).is_empty());
    for (text, severity, says) in [
        (GOOD.to_owned(), Error, "its tasks would fail"),
        (
            changed(&[(
                "SEAL_C2_DEVICE = 'cuda'",
                "SEAL_C2_DEVICE = 'cuda', SEAL_GPU = 'optional'",
            )]),
            Warning,
            "it would work on the CPU",
        ),
    ] {
        let findings = findings_on(&with_memory(8), &text, None);
        let [finding] = &findings[..] else { panic!("{}", shown(&findings)) };
        assert_eq!((finding.kind, finding.severity), ("gpu-too-small", severity));
        let said = finding.to_string();
        assert!(said.contains(says) && said.contains("has 8 GiB"), "{said}");
        is_as_documented(finding);
    }
    // What works on the CPU, or with other software, is not spoken of.
    let cpu = changed(&[("SEAL_C2_DEVICE = 'cuda'", "SEAL_C2_DEVICE = 'cpu'")]);
    assert!(findings_on(&with_memory(8), &cpu, None).iter().all(|f| f.kind != "gpu-too-small"));
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
    assert_eq!((findings.len(), findings[0].severity), (1, Warning), "{}", shown(&findings));
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
        assert_eq!(kinds, expected, "{name}: {}", shown(&findings));
        let warns = |finding: &Finding| finding.severity == Warning;
        assert!(findings.iter().all(warns), "{name}: {}", shown(&findings));
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
