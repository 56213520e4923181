//! The part of the container matrix that takes cgroups of version 2, whatever the machine of the
//! developer has: sectors of 2 KiB behind supervisors in the emulated one. Its other part is a
//! test (`tests/e2e/containers`); `docs/containers.md` has the tables of both.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use test_support::vector::Vector;

use super::{Tools, add_programs, add_sector, boot, needed, read, system};
use crate::bench::write_result;
use crate::out::{say, step};

/// The sector.
const VECTOR: &str = "2KiB-v1_1-a";

/// What a machine of busybox lacks: namespaces of all kinds.
const UNSHARE: &str = "unshare";

/// The head of the table in the document.
#[cfg(test)]
const HEAD: &str = "| cell with cgroups v2 | how `cargo xtask vm-test` makes it | verdict |";

/// What must come of a cell.
#[derive(Clone, Copy)]
enum Verdict {
    Seals,
    /// With this in a warning.
    Warns(&'static str),
    /// With this in the answer to PC1.
    Refuses(&'static str),
}

/// A demand that is not met.
const NO_CGROUP: &str = "supervisor.cgroup = \\\"always\\\", but no cgroup can be made";

struct Cell {
    /// In `init.sh`.
    name: &'static str,
    /// For readers.
    told: &'static str,
    made: &'static str,
    verdict: Verdict,
}

const CELLS: &[Cell] = &[
    Cell {
        name: "memory",
        told: "a limit of memory",
        made: "`memory.max` of 512 MiB",
        verdict: Verdict::Seals,
    },
    Cell {
        name: "memory-above",
        told: "a limit of memory above",
        made: "an unlimited group in one with `memory.max` of 512 MiB",
        verdict: Verdict::Seals,
    },
    Cell {
        name: "memory-own-namespace",
        told: "a limit of memory, seen from within",
        made: "the same in a cgroup namespace, in which the group is the top",
        verdict: Verdict::Seals,
    },
    Cell {
        name: "pids",
        told: "a limit of processes and threads",
        made: "`pids.max` of 96 for three supervisors and their executors",
        verdict: Verdict::Seals,
    },
    Cell {
        name: "read-only",
        told: "cgroups read-only",
        made: "`/sys/fs/cgroup` mounted read-only",
        verdict: Verdict::Warns("no cgroup can be made: cpus hold by affinity"),
    },
    Cell {
        name: "read-only-always",
        told: "cgroups read-only, a demand",
        made: "the same, `cgroup = \"always\"`",
        verdict: Verdict::Refuses(NO_CGROUP),
    },
    Cell {
        name: "absent",
        told: "no cgroups",
        made: "nothing mounted at `/sys/fs/cgroup`",
        verdict: Verdict::Warns("no cgroup can be made: cpus hold by affinity"),
    },
    Cell {
        name: "absent-always",
        told: "no cgroups, a demand",
        made: "the same, `cgroup = \"always\"`",
        verdict: Verdict::Refuses(NO_CGROUP),
    },
    Cell {
        name: "no-sys",
        told: "no `/sys`",
        made: "an empty `/sys`; `cgroup.cpuset` and `numa_preferred = 0`",
        verdict: Verdict::Warns("this kernel tells of no NUMA nodes"),
    },
    Cell {
        name: "always",
        told: "cgroups to be had, a demand",
        made: "`cgroup = \"always\"`",
        verdict: Verdict::Seals,
    },
    Cell {
        name: "namespaces",
        told: "all namespaces and a limit of memory",
        made: "user, mount, pid, time, cgroup, ipc, uts and net; `memory.max` of 512 MiB",
        verdict: Verdict::Seals,
    },
];

/// Seals in all cells and keeps the result.
pub(super) fn run(tools: &Tools, verbose: bool) -> Result<()> {
    step("the container matrix with cgroups of version 2");
    let vector = Vector::named(VECTOR)?;
    let initrd = tools.dir.join("initrd-cells");
    std::fs::write(&initrd, file_system(tools, &vector)?)?;
    let output = boot(&tools.kernel, &initrd, verbose)?;
    write_result("vm-test-cells", judge(&output, &vector)?)
}

fn file_system(tools: &Tools, vector: &Vector) -> Result<Vec<u8>> {
    let mut archive = system(include_bytes!("init.sh"), &tools.busybox)?;
    add_programs(&mut archive, &["pc1-exec", "pc2-exec", "c2-exec", "seal-supervisor"])?;
    let unshare = in_path(UNSHARE).context("unshare(1) of util-linux is missing")?;
    archive.file(&Path::new("usr/bin").join(UNSHARE), &read(&unshare)?);
    for library in needed(&unshare)? {
        archive.file(library.strip_prefix("/").unwrap_or(&library), &read(&library)?);
    }
    add_sector(&mut archive, vector)?;
    archive.file(Path::new("seal.sh"), include_bytes!("seal.sh"));
    let request = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/protocol/c2.request.jsonl");
    let request: Value = serde_json::from_slice(&read(&request)?)?;
    archive.file(Path::new("staged/c2.json"), request["task"].to_string().as_bytes());
    Ok(archive.finish())
}

fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|path| path.is_file())
}

/// Compares what the machine wrote with what must come of the cells.
fn judge(output: &str, vector: &Vector) -> Result<Value> {
    ensure!(output.contains("cells end"), "the machine stopped early; it wrote:\n{output}");
    let mut wrong = Vec::new();
    for cell in CELLS {
        let lines = lines_of(output, cell.name);
        let verdict = match cell.judge(&lines, vector) {
            Ok(()) => told(cell.verdict),
            Err(error) => {
                wrong.push(format!("{}: {error:#}; it wrote:\n{lines}", cell.name));
                "WRONG".to_owned()
            }
        };
        say(&format!("    {:36} {verdict}", cell.told));
    }
    let left = lines_of(output, "left");
    ensure!(left.is_empty(), "cgroups are left: {left}");
    ensure!(wrong.is_empty(), "{} cells:\n{}", wrong.len(), wrong.join("\n\n"));
    let cell = |cell: &Cell| json!([cell.told, cell.made, told(cell.verdict)]);
    Ok(json!({ "cells": CELLS.iter().map(cell).collect::<Vec<_>>() }))
}

impl Cell {
    fn judge(&self, lines: &str, vector: &Vector) -> Result<()> {
        if let Verdict::Refuses(text) = self.verdict {
            let answer = lines.lines().find(|line| line.starts_with("pc1 answer: "));
            let answer = answer.context("PC1 was not refused")?;
            ensure!(answer.contains(text), "{text:?} is not in the answer");
            let sealed = format!("{}  /sector/sealed", vector.sealed_sha256);
            ensure!(!lines.contains(&sealed), "it was sealed");
            return Ok(());
        }
        for stage in ["pc1", "pc2"] {
            ensure!(lines.lines().any(|line| line == format!("{stage} answered")), "no {stage}");
        }
        // C2 is there and has no parameters.
        let c2 = lines.lines().find(|line| line.starts_with("c2 answer: "));
        ensure!(c2.is_some_and(|line| line.contains("/sector/no-params")), "no C2");
        ensure!(lines.contains("supervisors: 3\n"), "the status has not all of them");
        let sealed = ("sealed", &vector.sealed_sha256);
        let cache = vector.cache_files.iter().map(|(name, file)| (name.as_str(), &file.sha256));
        for (name, digest) in cache.chain([sealed]) {
            let dir = if name == "sealed" { "/sector" } else { "/sector/cache" };
            ensure!(lines.contains(&format!("{digest}  {dir}/{name}\n")), "{name} is wrong");
        }
        if let Verdict::Warns(text) = self.verdict {
            let warned = |line: &str| line.contains("\"WARN\"") && line.contains(text);
            ensure!(lines.lines().any(warned), "no warning with {text:?}");
        }
        Ok(())
    }
}

/// A verdict in words.
fn told(verdict: Verdict) -> String {
    match verdict {
        Verdict::Seals => "seals".to_owned(),
        Verdict::Warns(text) => format!("seals, with a warning: `{text}`"),
        // As it is without the escapes of JSON.
        Verdict::Refuses(text) => format!("refused: `{}`", text.replace('\\', "")),
    }
}

/// What a cell wrote.
fn lines_of(output: &str, name: &str) -> String {
    let prefix = format!("cell {name}: ");
    output.lines().filter_map(|line| line.strip_prefix(&prefix)).flat_map(|l| [l, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_a_failure() {
        let vector = Vector::named(VECTOR).expect("a vector");
        judge("", &vector).unwrap_err();
        judge("cells end\n", &vector).unwrap_err();
    }

    #[test]
    fn every_cell_is_made_in_the_machine() {
        let script = include_str!("init.sh");
        for cell in CELLS {
            assert!(script.contains(&format!("\ncell {} ", cell.name)), "{}", cell.name);
        }
        let made = script.lines().filter(|line| line.starts_with("cell ")).count();
        assert_eq!(made, CELLS.len());
    }

    #[test]
    fn a_sector_that_differs_and_one_that_is_sealed_against_a_demand_are_found() {
        let vector = Vector::named(VECTOR).expect("a vector");
        let mut good = "pc1 answered\npc2 answered\nc2 answer: /sector/no-params\n".to_owned();
        good += "supervisors: 3\n";
        good += &format!("{}  /sector/sealed\n", vector.sealed_sha256);
        for (name, file) in &vector.cache_files {
            good += &format!("{}  /sector/cache/{name}\n", file.sha256);
        }
        let cell = |verdict| Cell { name: "", told: "", made: "", verdict };
        cell(Verdict::Seals).judge(&good, &vector).expect("it is whole");
        cell(Verdict::Warns("x")).judge(&good, &vector).unwrap_err();
        let refused = format!("pc1 answer: cgroup\n{good}");
        cell(Verdict::Refuses("cgroup")).judge(&refused, &vector).unwrap_err();
        cell(Verdict::Refuses("cgroup")).judge("pc1 answer: cgroup\n", &vector).expect("refused");
        cell(Verdict::Refuses("other")).judge("pc1 answer: cgroup\n", &vector).unwrap_err();
        for part in ["pc2 answered", "no-params", "supervisors: 3", &vector.sealed_sha256] {
            let bad = good.replace(part, "x");
            cell(Verdict::Seals).judge(&bad, &vector).unwrap_err();
        }
    }

    #[test]
    fn the_table_of_the_page_for_containers_has_these_cells() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/containers.md");
        let page = std::fs::read_to_string(page).expect("the document");
        let lines = page.split(HEAD).nth(1).expect("the table").lines().skip(2);
        let rows: Vec<_> = lines.take_while(|line| line.starts_with('|')).collect();
        let row =
            |cell: &Cell| format!("| {} | {} | {} |", cell.told, cell.made, told(cell.verdict));
        let cells: Vec<_> = CELLS.iter().map(row).collect();
        assert_eq!(rows, cells, "docs/containers.md must have these rows:\n{}", cells.join("\n"));
    }
}
