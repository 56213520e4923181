//! Tells which published crates lay the circuit out, so that a recorded circuit is known to be
//! theirs: their names and versions as `Cargo.lock` has them.

use std::path::Path;
use std::{fs, io};

/// Where the circuit's rows and coefficients come from, by the beginning of the crate's name.
const CRATES: [&str; 7] = [
    "bellpepper",
    "bellperson",
    "filecoin-hashers",
    "filecoin-proofs",
    "fr32",
    "neptune",
    "storage-proofs-",
];

fn main() -> io::Result<()> {
    // The workspace's: cargo has it before it builds anything.
    let lock = Path::new("../../Cargo.lock");
    let text = fs::read_to_string(lock)
        .map_err(|error| io::Error::other(format!("cannot read {}: {error}", lock.display())))?;
    let mut crates = Vec::new();
    for package in text.split("[[package]]").skip(1) {
        let field = |name: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.strip_prefix(" = ")).map(|value| value.trim_matches('"'))
        };
        let name = field("name").unwrap_or_default();
        if CRATES.iter().any(|wanted| name.starts_with(wanted)) {
            let version = field("version").unwrap_or_default();
            // Of the same version, but not the published one, if this is missing.
            let checksum = field("checksum").unwrap_or("patched");
            crates.push(format!("{name} {version} {checksum}"));
            if name == "storage-proofs-porep" {
                println!("cargo::rustc-env=SEAL_POREP_VERSION={version}");
            }
        }
    }
    println!("cargo::rustc-env=SEAL_CIRCUIT_CRATES={}", crates.join(", "));
    println!("cargo::rerun-if-changed={}", lock.display());
    println!("cargo::rerun-if-changed=build.rs");
    Ok(())
}
