//! The directory in which the executors of a machine agree with each other.

use std::path::PathBuf;

use seal_host::{RuntimeDir, RuntimeDirError, default_runtime_dir, share_disk_space};
use seal_options::Common;
use seal_wire::{ErrorCode, ExitCode, TaskError};

/// Opens the directory that all processes of the machine share: the one that is set, else the
/// default.
pub fn runtime_dir(common: &Common) -> Result<RuntimeDir, RuntimeDirError> {
    RuntimeDir::open(&runtime_dir_path(common))
}

/// Where it is, or would be.
pub(crate) fn runtime_dir_path(common: &Common) -> PathBuf {
    common.runtime_dir.clone().unwrap_or_else(default_runtime_dir)
}

/// Whether the directory that is set can be one, wherever it is: to be asked by those who use it
/// only later.
pub fn check_runtime_dir(common: &Common) -> Result<(), ExitCode> {
    RuntimeDir::check(&runtime_dir_path(common)).map_err(|error| {
        tracing::error!("SEAL_RUNTIME_DIR: {error}");
        ExitCode::Config
    })
}

/// Lets tasks of this process and of others know of the disk space that each will still take.
/// Where the directory cannot be used, that is a warning: what is free is still looked at. A name
/// that cannot be that of one stops the start, as in all programs. Keep what is returned until the
/// process ends.
pub fn share_space(common: &Common) -> Result<Option<RuntimeDir>, ExitCode> {
    check_runtime_dir(common)?;
    Ok(shared(common))
}

fn shared(common: &Common) -> Option<RuntimeDir> {
    match runtime_dir(common) {
        Ok(dir) => {
            share_disk_space(&dir);
            Some(dir)
        }
        Err(error) => {
            let error = TaskError::from_error(ErrorCode::Unavailable, &error).message;
            tracing::warn!(
                "disk space is not reserved among processes: {error}; tasks that begin together may \
                 fill a disk; SEAL_RUNTIME_DIR names another directory"
            );
            None
        }
    }
}
