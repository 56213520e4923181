//! The command line.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use seal_config::{StageName, StageSettings};

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
  SEAL_FAULT_WAIT     the same as --fault-wait
  RUST_LOG            what is logged to standard error: error, warn, info (default), debug, trace
  SEAL_LOG_FORM       text or json; by default text on a terminal or beside
                      a parent's own lines
  VC_CG_NAME, VC_CG_CPUSET, VENUS_WORKER_NUMA_PREFERRED
                      set by venus-worker: where the supervisor itself is put (the name has no
                      effect); not passed on, because it places its executors by its own
                      configuration

Exit codes: 0 done, 1 something else failed, such as writing what was asked for, 2 wrong command
line, 3 wrong configuration, 4 the start failed, 5 the parent went away while tasks were running.";

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
    /// Check, show or explain the configuration.
    Config(ConfigArgs),
    /// Tell what all supervisors of the machine are doing: executors, tasks, limits, locks, who
    /// waits and why, the last tasks.
    Status(StatusArgs),
    /// Show the status in the terminal, live.
    Top(TopArgs),
    /// Write a support bundle, one text: versions, machine, configuration and its faults, status,
    /// the last lines of the logs, wrong results on record, findings of seal-plan.
    Support(SupportArgs),
}

/// Arguments of `processor`.
#[derive(Debug, Args)]
pub struct ProcessorArgs {
    /// The stage: pc1, pc2, c2, or any other whose processors have a bin in the configuration.
    #[arg(value_parser = StageName::from_either_name)]
    pub stage: StageName,
    /// The configuration: a venus-worker.toml, or a file with its [processors] section alone.
    #[arg(long, env = "SEAL_CONFIG", value_name = "FILE", hide_env = true)]
    pub config: PathBuf,
    /// Print what would be started, and what this machine lacks for it, and start nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// End with the fault if the start fails, as it does at a terminal. Otherwise the supervisor
    /// says ready all the same, lets requests wait, and tries the start again, at once when the
    /// configuration changes: a worker starts a processor that has ended only once more.
    #[arg(long)]
    pub once: bool,
    /// How long requests wait while the start fails, before they are answered with the reason.
    #[arg(long, env = "SEAL_FAULT_WAIT", value_name = "TIME", hide_env = true)]
    #[arg(value_parser = humantime::parse_duration, default_value = "5m")]
    pub fault_wait: Duration,
    /// Where limits and locks are shared: all supervisors with the same directory obey them
    /// together. Default: runtime_dir of the configuration, else /run/seal-exec for root, else
    /// /tmp/seal-exec-UID.
    #[arg(long, env = "SEAL_RUNTIME_DIR", value_name = "DIR", hide_env = true)]
    pub runtime_dir: Option<PathBuf>,
    /// Serve metrics for Prometheus at http://ADDR/metrics: a port of the loopback address, or
    /// ADDRESS:PORT. Default: metrics of the configuration.
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub metrics: Option<SocketAddr>,
    /// Say ready when the first executor is, or so long after the start of this process if none has
    /// failed; tasks wait until one is ready. Must be less than the parent's stable_wait. Default: ready_within of the configuration (4s).
    #[arg(long, env = "SEAL_READY_WITHIN", value_name = "TIME", hide_env = true)]
    #[arg(value_parser = humantime::parse_duration)]
    pub ready_within: Option<Duration>,
    /// How long executors may take to end before they are killed. Default: grace (10s).
    #[arg(long, value_name = "TIME")]
    #[arg(value_parser = humantime::parse_duration)]
    pub grace: Option<Duration>,
    /// The wait before an executor that died is started again. It doubles with each further death
    /// until a task is answered. Default: restart_wait (500ms).
    #[arg(long, value_name = "TIME")]
    #[arg(value_parser = humantime::parse_duration)]
    pub restart_wait: Option<Duration>,
    /// The longest wait before a restart. Default: restart_wait_max (30s).
    #[arg(long, value_name = "TIME")]
    #[arg(value_parser = humantime::parse_duration)]
    pub restart_wait_max: Option<Duration>,
    /// After so many starts in a row that did not become ready an executor counts as
    /// crash-looping. Default: crash_loop_after (10).
    #[arg(long, value_name = "COUNT")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub crash_loop_after: Option<u32>,
}

fn address(text: &str) -> Result<SocketAddr, String> {
    match text.parse::<u16>() {
        Ok(port @ 1..) => Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        _ => text.parse().map_err(|_| "write a port from 1, or ADDRESS:PORT".to_owned()),
    }
}

impl ProcessorArgs {
    /// The settings of the configuration where these arguments say nothing else.
    pub fn overrule(&self, settings: &mut StageSettings) {
        fn set<T: Copy>(setting: &mut T, given: Option<T>) {
            if let Some(value) = given {
                *setting = value;
            }
        }
        set(&mut settings.ready_within, self.ready_within);
        set(&mut settings.grace, self.grace);
        set(&mut settings.restart_wait, self.restart_wait);
        set(&mut settings.restart_wait_max, self.restart_wait_max);
        set(&mut settings.crash_loop_after, self.crash_loop_after);
    }
}

/// Arguments of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// One JSON object instead of text.
    #[arg(long)]
    pub json: bool,
    /// Where the status is.
    #[command(flatten)]
    pub place: PlaceArgs,
}

/// Arguments of `top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Where the status is.
    #[command(flatten)]
    pub place: PlaceArgs,
}

/// Arguments of `support`.
#[derive(Debug, Args)]
pub struct SupportArgs {
    /// Where the bundle is written, readable by nobody else; the file must not be there yet.
    /// Default: standard output.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace paths, names of hosts, numbers of sectors and providers, addresses, digests and UUIDs
    /// by others, each by the same one everywhere.
    #[arg(long)]
    pub redact: bool,
    /// Where the status is, and the configuration that the bundle tells of.
    #[command(flatten)]
    pub place: PlaceArgs,
}

/// Which supervisors are looked at.
#[derive(Debug, Args)]
pub struct PlaceArgs {
    /// The runtime directory of the supervisors. Default: as for `processor`.
    #[arg(long, env = "SEAL_RUNTIME_DIR", value_name = "DIR", hide_env = true)]
    pub runtime_dir: Option<PathBuf>,
    /// The configuration that names the runtime directory, if it does.
    #[arg(long, env = "SEAL_CONFIG", value_name = "FILE", hide_env = true)]
    pub config: Option<PathBuf>,
}

/// Arguments of `config`.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["check", "show", "example"])))]
pub struct ConfigArgs {
    /// The configuration.
    #[arg(long, env = "SEAL_CONFIG", value_name = "FILE", hide_env = true)]
    #[arg(required_unless_present = "example")]
    pub config: Option<PathBuf>,
    /// Judge the file, and say what this machine lacks for each of its stages. Exit code 3 if the
    /// file is wrong, 4 if executors could not be started here.
    #[arg(long)]
    pub check: bool,
    /// End with exit code 1 where there are warnings only.
    #[arg(long, requires = "check")]
    pub deny_warnings: bool,
    /// Print what holds, with the line that each value comes from or that it is the default.
    #[arg(long)]
    pub show: bool,
    /// Print a file with every key and its meaning.
    #[arg(long)]
    pub example: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn metrics_are_local_unless_told_otherwise() {
        assert_eq!(address("9184"), Ok("127.0.0.1:9184".parse().expect("an address")));
        assert_eq!(address("0.0.0.0:80"), Ok("0.0.0.0:80".parse().expect("an address")));
        assert!(address("0").is_err() && address("localhost:1").is_err());
    }

    #[test]
    fn a_stage_is_taken_by_the_name_that_workers_give_it() {
        for name in ["sealing_daemons", "EMPTY"] {
            let line = ["seal-supervisor", "processor", name, "--config", "x"];
            let cli = Cli::try_parse_from(line).expect("a command line");
            let Command::Processor(args) = cli.command else { panic!("{cli:?}") };
            assert_eq!(args.stage, StageName::SealingDaemons);
        }
    }

    #[test]
    fn every_exit_code_is_listed() {
        use seal_wire::ExitCode::*;
        let (_, listed) = AFTER_HELP.split_once("Exit codes: ").expect("they are listed");
        let listed = listed.replace('\n', " ");
        for code in [Success, Failed, Usage, Config, Start, ParentGone] {
            let text = format!("{} ", code as u8);
            assert!(listed.split(", ").any(|told| told.starts_with(&text)), "{code:?}: {listed}");
        }
    }

    #[test]
    fn the_command_line_is_consistent_and_its_help_names_every_variable() {
        Cli::command().debug_assert();
        for name in seal_options::PLACEMENT_NAMES {
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
