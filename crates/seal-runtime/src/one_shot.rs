//! One task from a file, for benchmarks and for use without venus-worker.

use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use seal_host::FileError;
use seal_types::{SectorName, shown_reason};
use seal_wire::{ErrorCode, ExitCode, RawRequest, TaskError};

use crate::serve::panic_text;
use crate::{CancelToken, Executor, TaskContext};

/// Does the task in `file` (`-` is standard input), a task or a whole request line, and writes
/// its output to standard output as one line.
pub fn run_one<E: Executor>(executor: &E, file: &Path) -> ExitCode {
    match run::<E>(executor, file) {
        Ok(()) => ExitCode::Success,
        Err(error) => {
            tracing::error!(code = %error.code, "task failed: {}", error.message);
            if error.code == ErrorCode::Internal { ExitCode::Panicked } else { ExitCode::Failed }
        }
    }
}

fn run<E: Executor>(executor: &E, file: &Path) -> Result<(), TaskError> {
    let io = |error: &FileError| TaskError::from_error(ErrorCode::Io, error);
    let mut output = seal_host::claim_stdout()
        .map_err(FileError::of("take over", Path::new("standard output")))
        .map_err(|error| io(&error))?;
    let text = read_text(file).map_err(|error| io(&error))?;
    let task = parse::<E>(&text, file)?;

    let cancel = CancelToken::default();
    stop_on_signal(&cancel)?;
    let SectorName { name: sector, doubt } = E::sector(&task);
    let span = tracing::info_span!("task", stage = %E::STAGE, sector);
    let _in_span = span.enter();
    if let Some(doubt) = doubt {
        tracing::warn!("the task contradicts itself: {doubt}");
    }
    let context = TaskContext::new(format!("{} {sector}", E::STAGE), cancel)
        .recording(executor.corruption_log(), &sector);
    let answer = catch_unwind(AssertUnwindSafe(|| executor.run(task, &context))).unwrap_or_else(
        |panic| {
            let message = format!("panic: {}", panic_text(&*panic));
            Err(TaskError::new(ErrorCode::Internal, message))
        },
    )?;
    drop(context);
    output
        .write_all(&seal_wire::to_line(&answer))
        .map_err(FileError::of("write to", Path::new("standard output")))
        .map_err(|error| io(&error))
}

fn read_text(file: &Path) -> Result<String, FileError> {
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(FileError::of("read", file))?;
        return Ok(text);
    }
    seal_host::read_text(file)
}

fn parse<E: Executor>(text: &str, file: &Path) -> Result<E::Task, TaskError> {
    let task = match RawRequest::parse(text.as_bytes()) {
        Ok(request) => serde_json::from_str(request.task.get()),
        Err(_) => serde_json::from_str(text),
    };
    task.map_err(|error| {
        let message =
            format!("{} is not a task of {}: {}", file.display(), E::STAGE, shown_reason(&error));
        TaskError::new(ErrorCode::BadRequest, message)
    })
}

/// A first SIGINT, SIGTERM or SIGHUP stops the task at its next checkpoint, a second ends the
/// process. Those that were ignored when the process began, as under `nohup`, stay ignored.
pub fn stop_on_signal(cancel: &CancelToken) -> Result<(), TaskError> {
    let failed = |error: std::io::Error| {
        TaskError::new(ErrorCode::of_io(&error), format!("cannot watch for signals: {error}"))
    };
    let heeded = seal_host::ending_signals().map_err(failed)?;
    seal_host::unblock(&heeded).map_err(failed)?;
    let numbers = heeded.into_iter().map(|signal| signal as i32);
    let mut signals = signal_hook::iterator::Signals::new(numbers).map_err(failed)?;
    let cancel = cancel.clone();
    let watch = move || {
        for (count, signal) in signals.forever().enumerate() {
            cancel.cancel();
            if count > 0 {
                // Nothing more can be done if even that fails.
                let _ = signal_hook::low_level::emulate_default_handler(signal);
            }
        }
    };
    let started = seal_host::start_thread("signals", watch);
    started.map(drop).map_err(failed)
}
