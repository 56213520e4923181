//! `pc1-exec hugepages`: memory that is set aside before the first sector.

use std::path::{Path, PathBuf};

use clap::Args;
use seal_host::{MemoryFiles, NodeId, PrepareError};
use seal_runtime::Environment;
use seal_types::SectorSize;
use seal_wire::{ErrorCode, ExitCode, TaskError};

/// Names of the environment for the place of prepared files.
pub(crate) const PATH: &str = "HUGEPAGE_FILES_PATH";
pub(crate) const PATTERN: &str = "HUGEPAGE_FILES_PATH_PATTERN";

/// Options of `processor` for the place of prepared files, as the worker's own processor of PC1 has
/// them.
#[derive(Debug, Default, Args)]
pub(crate) struct FilesArgs {
    /// Directory of memory files made by `hugepages`, in numa_N for NUMA node N. Default: see
    /// HUGEPAGE_FILES_PATH below.
    #[arg(long, alias = "hugepage_files_path", value_name = "DIR")]
    hugepage_files_path: Option<String>,
    /// Directory of memory files with $NUMA_NODE_INDEX for the node's number; goes before the
    /// other option. With either, the environment's are not looked at.
    #[arg(long, alias = "hugepage_files_path_pattern", value_name = "PATTERN")]
    hugepage_files_path_pattern: Option<String>,
}

impl FilesArgs {
    /// The files of the options, or else of the environment.
    pub(crate) fn or_of(&self, environment: &Environment) -> Result<Option<MemoryFiles>, String> {
        let (path, pattern) = match (&self.hugepage_files_path, &self.hugepage_files_path_pattern) {
            (None, None) => (environment.get(PATH), environment.get(PATTERN)),
            (path, pattern) => (path.clone(), pattern.clone()),
        };
        MemoryFiles::from_settings(path.as_deref(), pattern.as_deref())
            .map_err(|error| error.to_string())
    }
}

/// Options of `hugepages`.
#[derive(Debug, Args)]
pub(crate) struct HugePagesArgs {
    /// The NUMA node on which the memory is taken.
    #[arg(long, value_name = "N")]
    node: u32,
    /// How many files there are to be in all: two for each sector that is labelled at a time.
    #[arg(long, value_name = "K")]
    count: usize,
    /// The size of each: that of the sectors.
    #[arg(long, value_name = "SIZE")]
    size: SectorSize,
    /// Directory of the files, on a mounted hugetlbfs; they go to numa_N in it. Default: see
    /// HUGEPAGE_FILES_PATH below.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Prepares the files, logs what was done.
pub(crate) fn prepare(args: &HugePagesArgs, environment: &Environment) -> ExitCode {
    let files = match files(args, environment) {
        Ok(files) => files,
        Err(text) => {
            tracing::error!("{text}");
            return ExitCode::Usage;
        }
    };
    let node = NodeId(args.node);
    match files.prepare(Path::new("/sys"), node, args.count, args.size.bytes()) {
        Ok(prepared) => {
            tracing::info!(
                directory = %prepared.directory.display(),
                %node,
                size = %args.size,
                found = prepared.found,
                made = prepared.made,
                page_kib = prepared.page_bytes >> 10,
                "memory files are there; tell executors with {PATH} or {PATTERN}"
            );
            ExitCode::Success
        }
        Err(error) => {
            let code = match error {
                PrepareError::NotMemory { .. }
                | PrepareError::NotWhole { .. }
                | PrepareError::NoNode { .. } => ExitCode::Config,
                _ => ExitCode::Failed,
            };
            tracing::error!("{}", TaskError::from_error(ErrorCode::Unavailable, &error).message);
            code
        }
    }
}

fn files(args: &HugePagesArgs, environment: &Environment) -> Result<MemoryFiles, String> {
    let dir = match &args.dir {
        Some(dir) => {
            Some(dir.to_str().ok_or_else(|| format!("--dir {} is not UTF-8", dir.display()))?)
        }
        None => None,
    };
    let (path, pattern) = (environment.get(PATH), environment.get(PATTERN));
    let files = match dir {
        Some(dir) => MemoryFiles::from_settings(Some(dir), None),
        None => MemoryFiles::from_settings(path.as_deref(), pattern.as_deref()),
    };
    files.map_err(|error| error.to_string())?.ok_or_else(|| {
        format!("where to? Give --dir, or set {PATH} or {PATTERN} as for the executors")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(dir: Option<&str>) -> HugePagesArgs {
        let dir = dir.map(PathBuf::from);
        HugePagesArgs { node: 1, count: 28, size: SectorSize::GIB_32, dir }
    }

    #[test]
    fn the_directory_is_that_of_the_executors_or_the_one_given() {
        let environment = Environment::of(&[(PATTERN, "/mnt/h/n$NUMA_NODE_INDEX"), (PATH, "/x")]);
        let directory = |dir, environment: &Environment| {
            let files = files(&args(dir), environment)?;
            Ok::<_, String>(files.directory(NodeId(1)).display().to_string())
        };
        assert_eq!(directory(None, &environment).as_deref(), Ok("/mnt/h/n1"));
        assert_eq!(directory(Some("/mnt/huge"), &environment).as_deref(), Ok("/mnt/huge/numa_1"));
        let nowhere = directory(None, &Environment::of(&[])).unwrap_err();
        assert!(nowhere.contains("Give --dir"), "{nowhere}");
        let bad = directory(None, &Environment::of(&[(PATTERN, "/mnt/h")])).unwrap_err();
        assert!(bad.contains("does not contain $NUMA_NODE_INDEX"), "{bad}");
    }

    /// A directory beside this test, which is built on a disk.
    fn on_disk() -> tempfile::TempDir {
        let test = std::env::current_exe().expect("this test has a name");
        let beside = test.parent().expect("it lies in a directory");
        tempfile::tempdir_in(beside).expect("writable")
    }

    #[test]
    fn memory_on_a_disk_is_refused() {
        let dir = on_disk();
        let small = HugePagesArgs { size: SectorSize::KIB_2, node: 0, count: 1, dir: None };
        let args = HugePagesArgs { dir: Some(dir.path().to_path_buf()), ..small };
        assert_eq!(prepare(&args, &Environment::of(&[])), ExitCode::Config);
    }
}
