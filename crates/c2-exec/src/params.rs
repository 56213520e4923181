//! The parameter files from the command line: what is there, and local ones for tests.

use std::io::{self, Write};
use std::path::Path;
use std::time::Instant;

use seal_groth16::{
    DigestCheck, FoundParams, GenerateStep, Groth16Error, Overwrite, ParamDir, Trust,
    generate_test_params,
};
use seal_types::SectorSize;
use seal_wire::ExitCode;

/// Makes test parameters.
pub(crate) fn generate(sector_size: SectorSize, dir: &Path, overwrite: Overwrite) -> ExitCode {
    let started = Instant::now();
    let told = generate_test_params(sector_size, dir, overwrite, &|step| match step {
        GenerateStep::Waiting => tracing::info!("waiting: another process makes parameters there"),
        GenerateStep::Computing => tracing::info!(
            "making test parameters for {sector_size} in {}; this takes about a core minute",
            dir.display()
        ),
        GenerateStep::Writing => tracing::info!(
            elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "writing"
        ),
    });
    match told {
        Ok(made) => {
            let how = if made.took.is_some() { "made" } else { "already there" };
            tracing::info!(bytes = made.bytes, "{}: {how}", made.params.display());
            ExitCode::Success
        }
        Err(error) => {
            tracing::error!("{}", causes(&error));
            ExitCode::Failed
        }
    }
}

/// How closely files are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Their structure, in milliseconds.
    Quick,
    /// They are read, and their digests compared.
    Whole,
}

/// Lists, on standard output, what there is for `sizes`. Fails when something is not usable.
pub(crate) fn list(
    dir: &ParamDir,
    sizes: &[SectorSize],
    trust: Trust,
    look: Look,
) -> io::Result<ExitCode> {
    let mut output = io::stdout().lock();
    writeln!(output, "parameters in {}", dir.path().display())?;
    let mut code = ExitCode::Success;
    for size in sizes {
        match found(dir, *size, trust, look) {
            Ok(found) => {
                let kind = if found.for_tests { "for tests only" } else { "ok" };
                let digest = if found.digest_checked || look == Look::Whole {
                    "digest checked"
                } else {
                    "digest not checked yet; --check does, or the first start that loads it"
                };
                let path = found.path.display();
                writeln!(output, "{size:>7}  {kind}  {} bytes  {path}  {digest}", found.bytes)?;
            }
            Err(error) => {
                code = ExitCode::Failed;
                writeln!(output, "{size:>7}  not usable  {}", causes(&error))?;
            }
        }
    }
    Ok(code)
}

fn found(
    dir: &ParamDir,
    size: SectorSize,
    trust: Trust,
    look: Look,
) -> Result<FoundParams, Groth16Error> {
    if look == Look::Quick {
        return dir.find(size, trust);
    }
    let found = dir.find(size, Trust { digests: DigestCheck::Always, ..trust })?;
    tracing::info!("reading {} ({} bytes)", found.path.display(), found.bytes);
    found.check_digest()?;
    Ok(found)
}

/// An error and what caused it, as one line.
pub(crate) fn causes(error: &Groth16Error) -> String {
    seal_wire::TaskError::from_error(error.code(), error).message
}
