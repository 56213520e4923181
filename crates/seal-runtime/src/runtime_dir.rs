//! The directory in which the executors of a machine agree with each other.

use std::path::PathBuf;

use seal_host::{RuntimeDir, RuntimeDirError, default_runtime_dir, share_disk_space};
use seal_wire::{ErrorCode, ExitCode, TaskError};

use crate::Environment;

/// The name of the environment that names another directory than the default.
pub const RUNTIME_DIR: &str = "SEAL_RUNTIME_DIR";

/// Opens the directory that all processes of the machine share: the one of the environment, else
/// the default.
pub fn runtime_dir(environment: &Environment) -> Result<RuntimeDir, RuntimeDirError> {
    RuntimeDir::open(&runtime_dir_path(environment))
}

/// Where it is, or would be.
pub(crate) fn runtime_dir_path(environment: &Environment) -> PathBuf {
    match environment.get(RUNTIME_DIR).filter(|path| !path.is_empty()) {
        Some(path) => PathBuf::from(path),
        None => default_runtime_dir(),
    }
}

/// Whether the environment names a directory that can be one, wherever it is: to be asked by those
/// who use it only later.
pub fn check_runtime_dir(environment: &Environment) -> Result<(), ExitCode> {
    RuntimeDir::check(&runtime_dir_path(environment)).map_err(|error| {
        tracing::error!("{RUNTIME_DIR}: {error}");
        ExitCode::Config
    })
}

/// Lets tasks of this process and of others know of the disk space that each will still take.
/// Where the directory cannot be used, that is a warning: what is free is still looked at. A name
/// that cannot be that of one stops the start, as in all programs. Keep what is returned until the
/// process ends.
pub fn share_space(environment: &Environment) -> Result<Option<RuntimeDir>, ExitCode> {
    check_runtime_dir(environment)?;
    Ok(shared(environment))
}

fn shared(environment: &Environment) -> Option<RuntimeDir> {
    match runtime_dir(environment) {
        Ok(dir) => {
            share_disk_space(&dir);
            Some(dir)
        }
        Err(error) => {
            let error = TaskError::from_error(ErrorCode::Unavailable, &error).message;
            tracing::warn!(
                "disk space is not reserved among processes: {error}; tasks that begin together may \
                 fill a disk; {RUNTIME_DIR} names another directory"
            );
            None
        }
    }
}
