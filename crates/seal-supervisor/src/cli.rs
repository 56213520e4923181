//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use seal_types::Stage;

use crate::{RestartPolicy, Timing};

const AFTER_HELP: &str = "\
venus-worker starts `seal-supervisor processor <STAGE>` as its external processor of that stage:

  [[processors.pc1]]
  bin = \"/opt/seal/seal-supervisor\"
  args = [\"processor\", \"pc1\", \"--config\", \"/etc/seal/processors.toml\"]

and the supervisor starts the executors named in its own file:

  [processors.limitation.concurrent]
  pc1 = 2

  [[processors.pc1]]
  numa_preferred = 0
  cgroup.cpuset = \"0-7\"
  concurrent = 2

`seal-supervisor processor pc1 --config FILE --dry-run` shows what that means on this machine.

Environment:
  SEAL_CONFIG         the same as --config
  SEAL_RUNTIME_DIR    the same as --runtime-dir
  SEAL_READY_WITHIN   the same as --ready-within
  RUST_LOG            what is logged to standard error: error, warn, info (default), debug, trace
  VC_CG_NAME, VC_CG_CPUSET, VENUS_WORKER_NUMA_PREFERRED
                      set by venus-worker; not passed on, because executors are placed by the
                      supervisor's own configuration

Exit codes: 0 done, 2 wrong command line, 3 wrong configuration, 4 the start failed,
5 the parent went away while tasks were running.";

/// Runs the executors of a sealing stage under venus-worker: starts them where they belong, gives
/// each task to the least loaded one under limits and locks that hold across all supervisors of
/// the machine, answers each request exactly once, and restarts executors that die.
#[derive(Debug, Parser)]
#[command(version, after_help = AFTER_HELP)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the supervisor can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve a stage: requests on standard input, answers on standard output.
    #[command(after_help = AFTER_HELP)]
    Processor(ProcessorArgs),
}

/// Arguments of `processor`.
#[derive(Debug, Args)]
pub struct ProcessorArgs {
    /// The stage: pc1, pc2 or c2.
    pub stage: Stage,
    /// The configuration: a venus-worker.toml, or a file with its [processors] section alone.
    #[arg(long, env = "SEAL_CONFIG", value_name = "FILE", hide_env = true)]
    pub config: PathBuf,
    /// Print what would be started, and what this machine lacks for it, and start nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Where limits and locks are shared: all supervisors with the same directory obey them
    /// together. Default: $XDG_RUNTIME_DIR/seal-supervisor, else /run/seal-supervisor for root,
    /// else /tmp/seal-supervisor-UID.
    #[arg(long, env = "SEAL_RUNTIME_DIR", value_name = "DIR", hide_env = true)]
    pub runtime_dir: Option<PathBuf>,
    /// Say ready when all executors are, or after this time when one is and none has failed. Must
    /// be less than the parent's stable_wait.
    #[arg(long, env = "SEAL_READY_WITHIN", value_name = "TIME", hide_env = true)]
    #[arg(default_value = "4s", value_parser = humantime::parse_duration)]
    pub ready_within: Duration,
    /// How long executors may take to end before they are killed.
    #[arg(long, value_name = "TIME", default_value = "10s")]
    #[arg(value_parser = humantime::parse_duration)]
    pub grace: Duration,
    /// The wait before an executor that died is started again. It doubles with each further death
    /// until a task is answered.
    #[arg(long, value_name = "TIME", default_value = "500ms")]
    #[arg(value_parser = humantime::parse_duration)]
    pub restart_wait: Duration,
    /// The longest wait before a restart.
    #[arg(long, value_name = "TIME", default_value = "30s")]
    #[arg(value_parser = humantime::parse_duration)]
    pub restart_wait_max: Duration,
    /// Give an executor up after so many starts in a row that did not become ready. When all are
    /// given up, tasks are answered with an error.
    #[arg(long, value_name = "COUNT", default_value_t = 10)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub give_up_after: u32,
}

impl ProcessorArgs {
    /// The times these arguments ask for.
    pub fn timing(&self) -> Timing {
        Timing {
            ready_within: self.ready_within,
            grace: self.grace,
            undead: self.grace,
            restart: RestartPolicy {
                first_wait: self.restart_wait,
                longest_wait: self.restart_wait_max,
                give_up_after: self.give_up_after,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_its_help_names_every_variable() {
        Cli::command().debug_assert();
        for name in seal_config::PLACEMENT_NAMES {
            assert!(AFTER_HELP.contains(name));
        }
        let processor = Cli::command();
        let processor = processor.find_subcommand("processor").expect("there");
        for name in processor.get_arguments().filter_map(clap::Arg::get_env) {
            let name = name.to_str().expect("ASCII");
            assert!(AFTER_HELP.contains(name), "{name} is not explained");
        }
    }
}
