//! Libraries in C that are loaded before the C library into a process under test.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Compiles `source` into `dir`. The inner error says why there is no compiler for it.
pub fn preloadable(source: &Path, dir: &Path) -> Result<Result<PathBuf, String>> {
    let name = source.file_stem().context("a source has a name")?;
    let library = dir.join(name).with_extension("so");
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let mut command = Command::new(&compiler);
    command.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(&library).arg(source);
    Ok(match command.arg("-ldl").output() {
        Ok(output) if output.status.success() => Ok(library),
        Ok(output) => {
            bail!("{}: {}", source.display(), String::from_utf8_lossy(&output.stderr));
        }
        Err(error) => Err(format!("no C compiler {}: {error}", compiler.display())),
    })
}
