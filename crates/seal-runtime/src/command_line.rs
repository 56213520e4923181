//! What the command lines of all executors have in common.

use clap::{CommandFactory, FromArgMatches};
use seal_types::Stage;
use seal_wire::ExitCode;

/// Reads the command line. Help and version are printed here, as are mistakes; the error is what
/// the process exits with.
pub fn parse_command_line<C: CommandFactory + FromArgMatches>(
    version: String,
) -> Result<C, ExitCode> {
    let command = C::command().long_version(version);
    command.try_get_matches().and_then(|matches| C::from_arg_matches(&matches)).map_err(|error| {
        // Help and version are errors to clap, and go to standard output.
        let code = if error.use_stderr() { ExitCode::Usage } else { ExitCode::Success };
        // Nobody is left to tell if printing fails.
        let _ = error.print();
        code
    })
}

/// Whether an executor of `own` can serve the `asked` stage; logs why not.
pub fn serves_stage(own: Stage, asked: Stage) -> bool {
    if own != asked {
        tracing::error!(
            "{} serves {own} and not {asked}; start {}",
            own.executor(),
            asked.executor()
        );
    }
    own == asked
}
