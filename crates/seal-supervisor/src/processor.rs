//! The command `processor`: from the configuration to a supervisor that serves its parent, again
//! and again where a start that fails is waited with.

use std::collections::BTreeSet;
use std::env;
use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use seal_config::{CgroupUse, Config};
use seal_host::{CgroupTree, NodeId, Placed, WantedPlace, place_self};
use seal_options::{Common, Environment, Place};
use seal_wire::ExitCode;

use crate::earlier_place;
use crate::facts::Board;
use crate::log_ring;
use crate::metrics;
use crate::parent::Parent;
use crate::run::{CGROUP_PATIENCE, Failure, because, refused, runtime_dir, unusable, write_out};
use crate::said::Said;
use crate::status::{About, Reporter};
use crate::supervisor::terms;
use crate::waiting::{self, Fault, Next, Patience};
use crate::watched_file::WatchedFile;
use crate::{Machine, Plan, ProcessorArgs, RuntimeDir, Served, Timing, describe, groups, serve};

/// When a parent is told to be ready whose supervisor cannot start. Early, because the `stable_wait`
/// of the parent is not known then; not at once, because a parent that has ended its input, as at a
/// try by hand, wants nothing but the fault.
const ANNOUNCE_FAULTY: Duration = Duration::from_secs(1);

/// How long the last answers may take to be written.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

/// Runs the command.
pub(crate) fn processor(args: &ProcessorArgs, began: Instant) -> Result<ExitCode, Failure> {
    let own_binary = env::current_exe().map_err(because(ExitCode::Start))?;
    let mut starter = Starter {
        args,
        began,
        own_binary,
        placed: None,
        cgroups: None,
        said: Said::default(),
        metrics: BTreeSet::new(),
        shown: None,
        lines: None,
    };
    let done = if args.dry_run { starter.dry_run() } else { starter.run() };
    starter.close();
    done
}

/// What is kept from one try of the start to the next.
struct Starter<'a> {
    args: &'a ProcessorArgs,
    began: Instant,
    own_binary: PathBuf,
    /// Where this process is, once it is there.
    placed: Option<Placed>,
    /// The cgroups, for the use of them that the configuration wanted.
    cgroups: Option<(CgroupUse, Option<Arc<CgroupTree>>)>,
    /// What was said in former tries of the start.
    said: Said,
    /// Where metrics are served.
    metrics: BTreeSet<SocketAddr>,
    /// The status of a supervisor that waits.
    shown: Option<Shown>,
    /// Keeps the last lines of the log, in the runtime directory that was had first.
    lines: Option<log_ring::Keeper>,
}

/// The status of a supervisor that cannot start, in the runtime directory as far as it is known.
struct Shown {
    board: Board,
    _reporter: Reporter,
    _guard: RuntimeDir,
}

/// What a start is made of.
struct Prepared {
    config: Config,
    plan: Plan,
    machine: Machine,
}

impl Starter<'_> {
    fn dry_run(&mut self) -> Result<ExitCode, Failure> {
        let Prepared { plan, machine, .. } = self.prepare()?;
        write_out(&describe(&plan, &machine))?;
        Ok(ExitCode::Success)
    }

    fn run(&mut self) -> Result<ExitCode, Failure> {
        // Whatever else writes to standard output from here on writes to standard error.
        let output = seal_host::claim_stdout().map_err(because(ExitCode::Start))?;
        let opened = Parent::open(self.args.stage, output);
        let mut parent = opened.map_err(because(ExitCode::Start))?;
        let done = self.serve(&mut parent);
        parent.finish(self.args.grace.unwrap_or(LAST_ANSWERS));
        done
    }

    fn serve(&mut self, parent: &mut Parent) -> Result<ExitCode, Failure> {
        let waits = !self.args.once && !io::stdin().is_terminal();
        let patience = Patience {
            announce_by: self.began + self.args.ready_within.unwrap_or(ANNOUNCE_FAULTY),
            longest: self.args.fault_wait,
        };
        loop {
            let file = WatchedFile::now(&self.args.config);
            let failure = match self.start(parent, waits.then(|| file.clone())) {
                Ok(Served::Ended(code)) => {
                    tracing::info!(code = code as u8, "supervisor ends");
                    return Ok(code);
                }
                Ok(Served::ConfigurationChanged) => continue,
                Err(failure) if !waits => return Err(failure),
                Err(failure) => failure,
            };
            let reason = format!("the supervisor of {} cannot start: ", self.args.stage);
            let reason = reason + &failure.text.replace('\n', "; ");
            let fault = Fault { code: failure.code, reason };
            if self.said.is_due(&failure.text, Instant::now()) {
                tracing::error!("{}", failure.text);
                tracing::warn!(
                    config = %self.args.config.display(),
                    requests_wait = %humantime::format_duration(patience.longest),
                    "the start is tried again, at once when the configuration changes"
                );
            }
            self.show(parent, &fault);
            let board = self.shown.as_ref().map(|shown| &shown.board);
            match waiting::wait(parent, &fault, patience, &file, board) {
                Next::Start => {}
                Next::End(code) => {
                    tracing::info!(code = code as u8, "supervisor ends");
                    return Ok(code);
                }
            }
        }
    }

    /// Puts a fault into the status, if the runtime directory can be had.
    fn show(&mut self, parent: &Parent, fault: &Fault) {
        if self.shown.is_some() {
            return;
        }
        let config = seal_config::load(&self.args.config).ok();
        let dir = runtime_dir(self.args.runtime_dir.as_deref(), config.as_ref());
        let Ok(guard) = RuntimeDir::open(&dir) else { return };
        self.keep_lines(guard.path());
        let board = Board::new(waiting::facts(parent, fault, Instant::now()));
        let about = About::without_plan(&self.args.config);
        if let Ok(reporter) = Reporter::start(board.clone(), about, guard.path()) {
            self.shown = Some(Shown { board, _reporter: reporter, _guard: guard });
        }
    }

    /// What the configuration means on this machine.
    fn prepare(&mut self) -> Result<Prepared, Failure> {
        let config = seal_config::load_all(&self.args.config).map_err(refused)?;
        let ignored: Vec<_> = config.ignored.iter().map(ToString::to_string).collect();
        self.warn(&ignored);
        if self.placed.is_none() {
            // Not VC_CG_NAME: groups are made for the executors, in which the supervisor is none.
            let set = Common::of(&Environment::of_process()).map_err(|faults| {
                let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
                Failure { code: ExitCode::Config, text: faults.join("\n") }
            })?;
            let Place { cpus, numa_preferred, .. } = set.place;
            let wanted = WantedPlace { cpus, group: None, node: numa_preferred.map(NodeId) };
            let placed = place_self(&wanted).map_err(because(ExitCode::Start))?;
            self.placed = Some(placed);
        }
        let cgroups = self.cgroups(config.supervisor.cgroup)?;
        let mut plan = Plan::new(&config, self.args.stage, &self.own_binary, cgroups.as_ref())
            .map_err(because(ExitCode::Config))?;
        self.args.overrule(&mut plan.settings);
        let (wait, wait_max) = (plan.settings.restart_wait, plan.settings.restart_wait_max);
        if wait > wait_max {
            let [wait, wait_max] = [wait, wait_max].map(humantime::format_duration);
            let text =
                format!("--restart-wait is {wait}, longer than --restart-wait-max, {wait_max}");
            return Err(Failure { code: ExitCode::Usage, text });
        }
        let machine = Machine::this(cgroups.as_deref()).map_err(because(ExitCode::Start))?;
        plan.settle_on(&machine);
        if self.args.dry_run {
            return Ok(Prepared { config, plan, machine });
        }
        let of_env = plan.env_warnings().into_iter();
        let of_env = of_env.map(|(name, it)| format!("environment: {} {it}", name.display()));
        let mut warnings: Vec<_> = of_env.collect();
        let placed = self.placed.as_ref();
        warnings.extend(placed.and_then(|placed| placed.no_preference.clone()));
        let refused = plan.refused_settings(&machine).into_iter();
        warnings.extend(refused.map(|problem| format!("its start will fail: {problem}")));
        let doubts = plan.doubts(&machine).into_iter();
        warnings.extend(doubts.map(|doubt| format!("probably not meant: {doubt}")));
        self.warn(&warnings);
        Ok(Prepared { config, plan, machine })
    }

    /// Warns of what was not warned of in a try before.
    fn warn(&mut self, warnings: &[String]) {
        let now = Instant::now();
        for warning in warnings {
            if self.said.is_due(warning, now) {
                tracing::warn!("{warning}");
            }
        }
    }

    /// The cgroups of executors, opened once: a start that is tried again and again makes none
    /// anew.
    fn cgroups(&mut self, wanted: CgroupUse) -> Result<Option<Arc<CgroupTree>>, Failure> {
        match &self.cgroups {
            Some((before, cgroups)) if *before == wanted => return Ok(cgroups.clone()),
            _ => self.close_cgroups(),
        }
        let cgroups = groups::open(wanted).map_err(because(ExitCode::Start))?;
        self.cgroups = Some((wanted, cgroups.clone()));
        Ok(cgroups)
    }

    fn start(&mut self, parent: &mut Parent, file: Option<WatchedFile>) -> Result<Served, Failure> {
        let Prepared { config, plan, machine } = self.prepare()?;
        let mut problems = plan.problems(&machine).into_iter();
        if let Some(first) = problems.next() {
            let mut text = because(ExitCode::Start)(first).text;
            for problem in problems {
                text = text + "\n" + &because(ExitCode::Start)(problem).text;
            }
            text +=
                "\nthe executors cannot be started on this machine; --dry-run shows the whole plan";
            return Err(Failure { code: ExitCode::Start, text });
        }
        let cgroups = self.cgroups.as_ref().and_then(|(_, cgroups)| cgroups.clone());
        if let Some(tree) = &cgroups {
            groups::sweep(tree, &mut self.said);
        }
        let dir = runtime_dir(self.args.runtime_dir.as_deref(), Some(&config));
        let runtime_dir = RuntimeDir::open(&dir).map_err(unusable)?;
        if let Some(warning) = earlier_place::check(&dir, &terms(&plan))? {
            self.warn(&[warning]);
        }
        self.keep_lines(runtime_dir.path());
        let cgroup_dir = cgroups.map(|tree| tree.path().display().to_string());
        let timing = Timing::of(&plan.settings, self.began, self.args.fault_wait);
        let about = About::new(&self.args.config, &plan, config.supervisor.history);
        let metrics = self.args.metrics.or(config.supervisor.metrics);
        let shared = runtime_dir.path().to_path_buf();
        let mut reporter = None;
        let (shown, served_at) = (&mut self.shown, &mut self.metrics);
        let config_path: &Path = &self.args.config;
        let watch = |board| {
            // Both write the same file.
            *shown = None;
            let started = Reporter::start(board, about, &shared);
            reporter = Some(started.map_err(io::Error::other)?);
            if let Some(address) = metrics.filter(|address| !served_at.contains(address)) {
                metrics::serve(address, shared.clone())?;
                served_at.insert(address);
            }
            // Last: a start that fails is tried again each second.
            tracing::info!(
                config = %config_path.display(),
                runtime_dir = %shared.display(),
                cgroups = cgroup_dir,
                version = env!("CARGO_PKG_VERSION"),
                "supervisor starts"
            );
            Ok(())
        };
        let served = serve(plan, timing, runtime_dir, parent, file, watch);
        drop(reporter);
        served.map_err(because(ExitCode::Start))
    }

    fn keep_lines(&mut self, runtime_dir: &Path) {
        if self.lines.is_none() {
            self.lines = log_ring::Keeper::start(runtime_dir, self.args.stage);
        }
    }

    fn close_cgroups(&mut self) {
        if let Some((_, Some(tree))) = self.cgroups.take()
            && let Err(error) = tree.close(CGROUP_PATIENCE)
        {
            tracing::warn!("{}", because(ExitCode::Failed)(error).text);
        }
    }

    fn close(mut self) {
        self.close_cgroups();
    }
}
