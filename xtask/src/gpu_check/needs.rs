//! What a program needs of the machine that it starts on: libraries, and the versions of their
//! symbols.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use object::Endianness;
use object::elf::{DT_NEEDED, FileHeader64};
use object::read::elf::{Dyn, FileHeader};

/// What a program needs to start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// Libraries by the names that the dynamic linker looks for.
    pub(super) libraries: BTreeSet<String>,
    /// By library the versions of symbols that are asked for, such as `GLIBC_2.34`.
    versions: BTreeMap<String, BTreeSet<String>>,
}

impl Needs {
    /// Reads them from a program of 64 bits.
    pub(super) fn of(program: &[u8]) -> Result<Self> {
        let header = FileHeader64::<Endianness>::parse(program)?;
        let endian = header.endian()?;
        let sections = header.sections(endian, program)?;
        let mut needs = Self::default();
        let (dynamic, link) =
            sections.dynamic(endian, program)?.context("it is not linked dynamically")?;
        let strings = sections.strings(endian, program, link)?;
        for entry in dynamic.iter().filter(|entry| entry.tag32(endian) == Some(DT_NEEDED)) {
            needs.libraries.insert(text(entry.string(endian, strings)?)?);
        }
        if let Some((mut files, link)) = sections.gnu_verneed(endian, program)? {
            let strings = sections.strings(endian, program, link)?;
            while let Some((file, mut versions)) = files.next()? {
                let library = needs.versions.entry(text(file.file(endian, strings)?)?).or_default();
                while let Some(version) = versions.next()? {
                    library.insert(text(version.name(endian, strings)?)?);
                }
            }
        }
        Ok(needs)
    }

    /// A line for each library, with the newest version of each kind.
    pub(super) fn lines(&self) -> Vec<String> {
        let line = |library: &String| {
            let versions = self.versions.get(library).map(newest).unwrap_or_default();
            [&**library].into_iter().chain(versions).collect::<Vec<_>>().join(" ")
        };
        self.libraries.iter().map(line).collect()
    }
}

/// Whether a library is of an NVIDIA driver or of the CUDA toolkit, which programs must start
/// without.
pub(super) fn is_of_a_driver(library: &str) -> bool {
    ["libcuda.", "libcudart.", "libnvidia", "libnvrtc", "libnvJitLink"]
        .iter()
        .any(|start| library.starts_with(start))
}

/// The newest of each kind, such as `GLIBCXX` and `CXXABI`, which libstdc++ both has.
fn newest(versions: &BTreeSet<String>) -> Vec<&str> {
    let mut newest: BTreeMap<&str, &str> = BTreeMap::new();
    for version in versions {
        let (kind, _) = version.rsplit_once('_').unwrap_or((version, ""));
        let best = newest.entry(kind).or_insert(version);
        if numbers(version) > numbers(best) {
            *best = version;
        }
    }
    newest.into_values().collect()
}

/// The numbers behind the kind.
fn numbers(version: &str) -> Vec<u32> {
    let (_, numbers) = version.rsplit_once('_').unwrap_or(("", version));
    numbers.split('.').filter_map(|number| number.parse().ok()).collect()
}

fn text(bytes: &[u8]) -> Result<String> {
    Ok(std::str::from_utf8(bytes).context("a name that is no text")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_tells_what_it_needs() {
        let this = std::env::current_exe().expect("this test");
        let needs = Needs::of(&std::fs::read(this).expect("readable")).expect("a program");
        assert!(needs.libraries.contains("libc.so.6"), "{needs:?}");
        let lines = needs.lines();
        assert!(lines.iter().any(|line| line.starts_with("libc.so.6 GLIBC_2.")), "{lines:?}");
        assert!(lines.iter().any(|line| line.starts_with("libgcc_s.so.1 GCC_")), "{lines:?}");
    }

    #[test]
    fn no_program_is_an_error() {
        Needs::of(b"#!/bin/sh").expect_err("a script");
        Needs::of(b"\x7fELF").expect_err("cut off");
    }

    #[test]
    fn the_newest_version_of_each_kind_is_told() {
        let names =
            ["GLIBCXX_3.4.9", "GLIBCXX_3.4.29", "GLIBCXX_3.4", "CXXABI_1.3", "CXXABI_1.3.13"];
        let versions = names.map(str::to_owned).into();
        let needs = Needs {
            libraries: ["libstdc++.so.6", "libm.so.6"].map(str::to_owned).into(),
            versions: BTreeMap::from([("libstdc++.so.6".to_owned(), versions)]),
        };
        assert_eq!(needs.lines(), ["libm.so.6", "libstdc++.so.6 CXXABI_1.3.13 GLIBCXX_3.4.29"]);
    }

    #[test]
    fn libraries_of_a_driver_are_told_from_others() {
        for (library, expected) in [
            ("libcuda.so.1", true),
            ("libcudart.so.13", true),
            ("libnvidia-ml.so.1", true),
            ("libstdc++.so.6", false),
            ("libc.so.6", false),
        ] {
            assert_eq!(is_of_a_driver(library), expected, "{library}");
        }
    }
}
