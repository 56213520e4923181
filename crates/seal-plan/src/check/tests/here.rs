//! What is said of the machine that the check runs on.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::hardware::{Disk, HugePages};

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
            ("SEAL_RUNTIME_DIR".to_owned(), path("run").display().to_string()),
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
    assert_eq!((findings.len(), findings[0].severity), (1, Error), "{}", shown(&findings));
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
fn wrong_results_on_record_are_told_with_the_core_that_is_left_out() {
    use seal_wire::{Corruption, CorruptionKind, to_line};

    let here = Here::complete();
    let run = here.dir.path().join("run");
    fs::create_dir(&run).expect("writable");
    let label = Corruption {
        stage: "pc1".to_owned(),
        cpu: Some(4),
        ..Corruption::new(CorruptionKind::Label, "node 7 of layer 3")
    };
    let lines = [to_line(&label), to_line(&label)].concat();
    fs::write(run.join("corruption.jsonl"), lines).expect("writable");
    assert_eq!(here.kinds(GOOD), ["corruption"]);
    let words =
        "(2 label on cpu 4); nothing is labelled on cpu 4 any more; the last one: pc1 label";
    here.says(GOOD, Warning, "corruption", words);
    fs::remove_file(run.join("corruption.jsonl")).expect("there");
    assert_eq!(here.kinds(GOOD), [""; 0]);
}
