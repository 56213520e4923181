//! `pc1-exec parents`: a parents cache made or checked ahead of the first sector that needs it.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use rayon::ThreadPoolBuilder;
use seal_runtime::{CancelToken, TaskContext, stop_on_signal};
use seal_sdr::{Graph, ParentsCache, SdrError, Watch, parents_digest};
use seal_sha256::ChaCha8;
use seal_types::{RegisteredProof, parents_cache_digest};
use seal_wire::{ExitCode, TaskError};

use crate::Pc1Error;
use crate::progress::tell;

#[derive(Debug, Args)]
pub(crate) struct ParentsArgs {
    /// The proof whose graph it is, for example StackedDrg32GiBV1_1.
    #[arg(long, value_name = "PROOF")]
    proof: RegisteredProof,
    /// Directory of the parents caches (default: see FIL_PROOFS_PARENT_CACHE below).
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Hash a cache that is there even if it was checked before.
    #[arg(long)]
    check: bool,
    /// Compute all parents and their digest, and store nothing.
    #[arg(long, conflicts_with_all = ["dir", "check"])]
    digest_only: bool,
}

/// Makes or checks the cache in the directory asked for, or in `default_dir`. One line on standard
/// output tells the digest, the file and whether the digest is the published one.
pub(crate) fn parents(args: &ParentsArgs, default_dir: &Path, kernel: ChaCha8) -> ExitCode {
    let graph = Graph::new(&args.proof.porep()).drawing_with(kernel);
    let cancel = CancelToken::default();
    if let Err(error) = stop_on_signal(&cancel) {
        tracing::error!("{}", error.message);
        return ExitCode::Start;
    }
    // Here, where an error can be told: rayon would start them later, and panic.
    if let Err(error) = ThreadPoolBuilder::new().build_global() {
        tracing::error!("cannot start threads: {error}");
        return ExitCode::Start;
    }
    let context = TaskContext::new(format!("parents {}", args.proof), cancel);
    let watch = Watch {
        progress: &|part, done, total| tell(&context, part, done, total),
        cancelled: &|| context.is_cancelled(),
    };
    let done = if args.digest_only {
        parents_digest(&graph, watch).map(|sha256| (sha256, (graph.cache_name() + ".cache").into()))
    } else {
        let dir = args.dir.as_deref().unwrap_or(default_dir);
        let open = if args.check { ParentsCache::check } else { ParentsCache::open };
        open(&graph, dir, watch).map(|cache| (cache.sha256().to_owned(), cache.path().to_owned()))
    };
    // Its bar leaves the terminal before the answer comes there.
    drop(context);
    match done {
        Ok((sha256, path)) => {
            // Without a published digest it is ours alone, and compared with the graph by samples.
            let published = parents_cache_digest(&graph.cache_name()).is_some();
            answer(&sha256, &path, if published { "published" } else { "own" }, ExitCode::Success)
        }
        Err(error) => {
            let code = match &error {
                SdrError::WrongParents { path, found, .. } => {
                    answer(found, path, "wrong", ExitCode::Failed)
                }
                _ => ExitCode::Failed,
            };
            tracing::error!("{}", TaskError::from(Pc1Error::from(error)));
            code
        }
    }
}

fn answer(sha256: &str, path: &Path, verdict: &str, code: ExitCode) -> ExitCode {
    let line = writeln!(std::io::stdout(), "{sha256}  {}  {verdict}", path.display());
    match line {
        Ok(()) => code,
        Err(error) => {
            tracing::error!("cannot write to standard output: {error}");
            ExitCode::Failed
        }
    }
}
