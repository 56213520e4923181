//! `pc1-exec hugepages`: memory that is set aside before the first sector.

use std::path::{Path, PathBuf};

use clap::Args;
use seal_host::{MemoryFiles, NodeId, PrepareError};
use seal_options::MemoryFilesAt;
use seal_types::SectorSize;
use seal_wire::{ErrorCode, ExitCode, TaskError};

/// The files at a place.
pub(crate) fn memory_files(at: &MemoryFilesAt) -> MemoryFiles {
    MemoryFiles::by_pattern(&at.pattern)
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

/// Prepares the files, those of the executors if no directory is given, and logs what was done.
pub(crate) fn prepare(args: &HugePagesArgs, set: Option<&MemoryFilesAt>) -> ExitCode {
    let files = match files(args, set) {
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
                "memory files are there; executors find them by HUGEPAGE_FILES_PATH or \
                 HUGEPAGE_FILES_PATH_PATTERN"
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

fn files(args: &HugePagesArgs, set: Option<&MemoryFilesAt>) -> Result<MemoryFiles, String> {
    let given = match &args.dir {
        Some(dir) => {
            let text =
                dir.to_str().ok_or_else(|| format!("--dir {} is not UTF-8", dir.display()))?;
            Some(MemoryFilesAt::in_directory(text))
        }
        None => None,
    };
    given.as_ref().or(set).map(memory_files).ok_or_else(|| {
        "--dir is missing: name a mounted hugetlbfs directory, or set HUGEPAGE_FILES_PATH or \
         HUGEPAGE_FILES_PATH_PATTERN as for the executors"
            .to_owned()
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
        let set = MemoryFilesAt { pattern: "/mnt/h/n$NUMA_NODE_INDEX".to_owned() };
        let directory = |dir, set: Option<&MemoryFilesAt>| {
            let files = files(&args(dir), set)?;
            Ok::<_, String>(files.directory(NodeId(1)).display().to_string())
        };
        assert_eq!(directory(None, Some(&set)).as_deref(), Ok("/mnt/h/n1"));
        assert_eq!(directory(Some("/mnt/huge"), Some(&set)).as_deref(), Ok("/mnt/huge/numa_1"));
        let nowhere = directory(None, None).unwrap_err();
        assert!(nowhere.contains("--dir is missing"), "{nowhere}");
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
        assert_eq!(prepare(&args, None), ExitCode::Config);
    }
}
