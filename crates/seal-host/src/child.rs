//! Child processes that start where they belong and do not outlive their parent.

use std::ffi::OsString;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::signal::{SigHandler, SigSet, Signal, killpg, signal};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, getppid};

use crate::numa::without_preference;
use crate::placement::{Prepared, Step};
use crate::{Cgroup, Placement, file_size};

/// A child that could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The program could not be run.
    #[error("cannot run {}", program.display())]
    Run {
        /// The program.
        program: OsString,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// The child could not be put where it belongs.
    #[error("cannot start {}: cannot {step}", program.display())]
    Place {
        /// The program.
        program: OsString,
        /// What was being done in the child, with the value.
        step: String,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It exited with this code.
    Exited(i32),
    /// This signal ended it.
    Signalled {
        /// The signal.
        signal: Signal,
        /// Whether it left a core dump.
        dumped: bool,
    },
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exited with code {code}"),
            Self::Signalled { signal, dumped } => {
                write!(f, "was ended by signal {} ({signal})", *signal as i32)?;
                if *dumped {
                    f.write_str(" and dumped core")?;
                }
                meaning(*signal).map_or(Ok(()), |meaning| write!(f, " ({meaning})"))
            }
        }
    }
}

/// What a signal that ends a process usually means, and where to look, for those that a process
/// brings upon itself.
fn meaning(signal: Signal) -> Option<&'static str> {
    Some(match signal {
        Signal::SIGBUS => {
            "a file that it had mapped was cut or could not be read, or memory has failed: see the \
             kernel's log, `dmesg`"
        }
        Signal::SIGSEGV => {
            "a wrong address: a defect, or memory or processor that err; `dmesg` has the address, \
             and a memory test tells them apart"
        }
        Signal::SIGILL => {
            "an instruction that this processor does not have: a program made for another one, a \
             virtual machine that hides features, a damaged program file, or a core that errs"
        }
        Signal::SIGFPE => "an impossible division: a defect, or a processor that errs",
        Signal::SIGABRT => "it gave up by itself: its last lines tell why",
        Signal::SIGSYS => "a system call that a filter forbids: look at the container's seccomp",
        Signal::SIGXFSZ => "a file beyond the limit of file sizes: raise `ulimit -f`",
        Signal::SIGXCPU => "the limit of processor time is used up: raise `ulimit -t`",
        _ => return None,
    })
}

/// Everything the child needs between fork and exec, made before the fork.
struct Before {
    parent: Pid,
    place: Prepared,
    inherit: Vec<OwnedFd>,
    report: PipeWriter,
    /// Whether SIGXFSZ, which this process ignores, is to end the child as is the default.
    file_size_signal_ends: bool,
}

/// Starts `command` as [`spawn_in`] does, in the cgroup of this process.
pub fn spawn(command: Command, placement: &Placement) -> Result<Child, SpawnError> {
    spawn_in(command, placement, None, Vec::new())
}

/// Starts `command` in a process group of its own, at its place, in the cgroup if one is given,
/// with no signal blocked and SIGTERM not ignored, to be killed when the calling thread ends. It has the descriptors
/// `inherit` under the numbers that they have here, where they are closed.
///
/// The kernel ties that to the thread, not the process: call this from a thread that lives as
/// long as the process.
pub fn spawn_in(
    mut command: Command,
    placement: &Placement,
    cgroup: Option<&Cgroup>,
    inherit: Vec<OwnedFd>,
) -> Result<Child, SpawnError> {
    let program = command.get_program().to_owned();
    let run = |source| SpawnError::Run { program: program.clone(), source };
    let place = |(step, source): (Step, io::Error)| SpawnError::Place {
        program: program.clone(),
        step: step.describe(placement, cgroup),
        source,
    };
    let (failed_step, report) = io::pipe().map_err(run)?;
    let prepared = Prepared::new(placement, cgroup).map_err(place)?;
    let file_size_signal_ends = file_size::was_default();
    let parent = Pid::this();
    let before = Before { parent, place: prepared, inherit, report, file_size_signal_ends };
    command.process_group(0);
    // SAFETY: between fork and exec only async-signal-safe things may be done, because other
    // threads may have held locks, that of the allocator included, at the fork. `Before::apply`
    // makes system calls (prctl, getppid, sigprocmask, sigaction, write, sched_setaffinity,
    // sched_getaffinity, set_mempolicy, get_mempolicy, getrlimit, setrlimit, fcntl) on memory that was
    // made before the fork; its errors are plain errno values, which allocate nothing.
    unsafe { command.pre_exec(move || before.apply()) };
    let spawned = command.spawn();
    // Closes this process's end for writing, so that the read below ends.
    drop(command);
    let step = read_step(failed_step);
    match (spawned, step) {
        (Ok(child), step) => {
            if let Some(step) = step
                && let Some(node) = placement.preferred_node
            {
                let pid = child.id();
                tracing::warn!(
                    pid,
                    "cannot {}; {}",
                    step.describe(placement, cgroup),
                    without_preference(Path::new("/sys"), node)
                );
            }
            Ok(child)
        }
        (Err(source), Some(step)) => Err(place((step, source))),
        (Err(source), None) => Err(run(source)),
    }
}

/// Waits until the process has ended, without taking its status from it: its number and that of
/// its group stay reserved until [`Child::wait`].
pub fn wait_ended(pid: u32) -> io::Result<Ending> {
    loop {
        match waitid(Id::Pid(to_pid(pid)?), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) {
            Ok(WaitStatus::Exited(_, code)) => return Ok(Ending::Exited(code)),
            Ok(WaitStatus::Signaled(_, signal, dumped)) => {
                return Ok(Ending::Signalled { signal, dumped });
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Sends a signal to the process group of a child that has not been waited for. That nobody is
/// left in it is no error.
pub fn signal_group(pid: u32, signal: Signal) -> io::Result<()> {
    match killpg(to_pid(pid)?, signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn to_pid(pid: u32) -> io::Result<Pid> {
    // 0 and 1 mean something else to the calls that take a process.
    match i32::try_from(pid) {
        Ok(pid) if pid > 1 => Ok(Pid::from_raw(pid)),
        _ => Err(io::Error::from(io::ErrorKind::InvalidInput)),
    }
}

/// What the child has told. It has run its program, or failed to, by then: nobody is waited for,
/// because children that other threads start meanwhile may have the pipe's other end too.
fn read_step(mut failed_step: PipeReader) -> Option<Step> {
    fcntl(&failed_step, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).ok()?;
    let mut byte = [0];
    failed_step.read_exact(&mut byte).ok()?;
    Step::from_byte(byte[0])
}

impl Before {
    /// Runs in the child between fork and exec.
    fn apply(&self) -> io::Result<()> {
        // If the report fails, the parent still gets the error, without the step.
        let tell = |step: Step| (&self.report).write(&[step as u8]).is_ok();
        match self.steps() {
            Ok(refused) => {
                if let Some(step) = refused {
                    tell(step);
                }
                Ok(())
            }
            Err((step, error)) => {
                tell(step);
                Err(error)
            }
        }
    }

    /// Returns the step of a preference that was refused.
    fn steps(&self) -> Result<Option<Step>, (Step, io::Error)> {
        let at = |step: Step| move |error: io::Error| (step, error);
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)
            .map_err(|errno| at(Step::DieWithParent)(errno.into()))?;
        // The parent may have died before the request was made.
        if getppid() != self.parent {
            return Err(at(Step::DieWithParent)(io::Error::from_raw_os_error(libc::ESRCH)));
        }
        // The mask is inherited; a child that never sees SIGTERM could only be killed.
        SigSet::empty().thread_set_mask().map_err(|errno| at(Step::Signals)(errno.into()))?;
        // What this process ignores the child ignores too, as after `nohup`; but by SIGTERM its
        // parent tells it to end, and must be heard. (SIGPIPE, which the Rust runtime ignores, has
        // been reset by `Command`.)
        // SAFETY: the default action runs no code of this process, so none that could be unsafe in
        // a signal handler; the call is async-signal-safe and the previous action is not used.
        unsafe { signal(Signal::SIGTERM, SigHandler::SigDfl) }
            .map_err(|errno| at(Step::Signals)(errno.into()))?;
        if self.file_size_signal_ends {
            // What this process ignores for itself is no business of a program of others.
            file_size::set_default().map_err(at(Step::FileSizeSignal))?;
        }
        let refused = self.place.apply()?;
        for descriptor in &self.inherit {
            fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty()))
                .map_err(|errno| at(Step::Inherit)(errno.into()))?;
        }
        Ok(refused)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::process::Stdio;

    use super::*;
    use crate::{Binding, CpuSet, NodeId, ResourceLimit};

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::piped());
        command
    }

    fn output(script: &str, placement: &Placement) -> String {
        let child = spawn(shell(script), placement).expect("can be started");
        let output = child.wait_with_output().expect("can be waited for");
        String::from_utf8(output.stdout).expect("text")
    }

    #[test]
    fn a_child_is_confined_before_it_runs() {
        let all: CpuSet = (0..64).collect();
        for cpu in crate::grantable_cpus(&all).expect("asked").iter() {
            let placement =
                Placement { cpus: Some([cpu].into_iter().collect()), ..Placement::default() };
            let status = output("grep Cpus_allowed_list /proc/self/status", &placement);
            assert_eq!(status, format!("Cpus_allowed_list:\t{cpu}\n"));
        }
    }

    #[test]
    fn a_cpu_that_is_not_there_fails_the_start_and_is_named() {
        for (cpus, text) in [
            ([0, 8000], "cannot confine it to cpus 0,8000: the kernel grants only some of them"),
            ([8000, 8001], "cannot confine it to cpus 8000-8001"),
            ([1, 1 << 20], "cannot confine it to cpus 1,1048576"),
        ] {
            let placement =
                Placement { cpus: Some(cpus.into_iter().collect()), ..Placement::default() };
            let error = spawn(shell("true"), &placement).expect_err("no machine has that many");
            assert_eq!(error.to_string(), format!("cannot start sh: {text}"));
        }
    }

    #[test]
    fn memory_of_the_preferred_node_is_preferred() {
        let node = crate::online_nodes(std::path::Path::new("/sys")).expect("readable");
        let Some(node) = node.first().copied() else {
            note_skipped("this kernel has no NUMA nodes");
            return;
        };
        let placement = Placement { preferred_node: Some(node), ..Placement::default() };
        let maps = match spawn(shell("cat /proc/self/numa_maps"), &placement) {
            Ok(child) => child.wait_with_output().expect("can be waited for").stdout,
            Err(error) => panic!("a preference stops nothing: {error}"),
        };
        let maps = String::from_utf8(maps).expect("text");
        if !maps.contains(&format!("prefer:{node}")) {
            note_skipped("memory policies are not permitted here");
        }
    }

    #[test]
    fn a_node_that_is_not_there_fails_the_start_and_is_named() {
        for node in [1000, 5000] {
            let placement = Placement {
                preferred_node: Some(NodeId(node)),
                binding: Binding::Strict,
                ..Placement::default()
            };
            let error = spawn(shell("true"), &placement).expect_err("no machine has that many");
            let text = format!("bind it to the memory of NUMA node {node}");
            assert!(error.to_string().contains(&text), "{error}");
        }
    }

    #[test]
    fn a_preferred_node_that_is_refused_stops_no_start() {
        let placement = Placement { preferred_node: Some(NodeId(1000)), ..Placement::default() };
        assert_eq!(output("echo started", &placement), "started\n");
    }

    #[test]
    fn a_child_has_the_action_of_the_file_size_signal_that_this_process_began_with() {
        // Where it was ignored before this process began, it stays so.
        let ignored = || {
            let status = output("grep SigIgn /proc/self/status", &Placement::default());
            let mask = u64::from_str_radix(status.trim_start_matches("SigIgn:").trim(), 16);
            mask.expect("a mask") >> (libc::SIGXFSZ - 1) & 1 == 1
        };
        let before = ignored();
        crate::ignore_file_size_signal().expect("always possible");
        assert_eq!(ignored(), before);
    }

    #[test]
    fn memory_that_must_be_of_one_node_is_bound_to_it() {
        let node = crate::online_nodes(std::path::Path::new("/sys")).expect("readable");
        let Some(node) = node.first().copied() else {
            return note_skipped("this kernel has no NUMA nodes");
        };
        let placement = Placement {
            preferred_node: Some(node),
            binding: Binding::Strict,
            ..Placement::default()
        };
        match spawn(shell("cat /proc/self/numa_maps"), &placement) {
            Ok(child) => {
                let maps = child.wait_with_output().expect("can be waited for").stdout;
                let maps = String::from_utf8(maps).expect("text");
                assert!(maps.contains(&format!("bind:{node}")), "{maps}");
            }
            Err(SpawnError::Place { source, .. }) if source.raw_os_error() == Some(libc::EPERM) => {
                note_skipped("memory policies are not permitted here");
            }
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn a_child_has_the_limits_that_are_asked_for() {
        let hard = output("ulimit -Hn", &Placement::default());
        for (open_files, told) in [
            (ResourceLimit::Hard, format!("{hard}{hard}")),
            (ResourceLimit::Exactly(40), format!("40\n{hard}")),
        ] {
            let placement = Placement { open_files, ..Placement::default() };
            assert_eq!(output("ulimit -Sn; ulimit -Hn", &placement), told);
        }
        let locked_memory = ResourceLimit::Exactly(8192);
        let placement = Placement { locked_memory, ..Placement::default() };
        assert_eq!(output("ulimit -l", &placement), "8\n");
    }

    #[test]
    fn a_limit_beyond_the_hard_limit_is_had_or_named() {
        // No kernel lets a process have that many files.
        let open_files = ResourceLimit::Exactly(1 << 40);
        let placement = Placement { open_files, ..Placement::default() };
        let error = spawn(shell("true"), &placement).expect_err("nobody may have that many");
        assert_eq!(error.to_string(), "cannot start sh: cannot let it open 1099511627776 files");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = spawn(Command::new("/no/such/program"), &Placement::default())
            .expect_err("there is no such program");
        assert_eq!(error.to_string(), "cannot run /no/such/program");
    }

    #[test]
    fn a_child_dies_with_the_thread_that_started_it_and_is_in_its_own_group() {
        let starter = std::thread::spawn(|| {
            let mut child =
                spawn(shell("echo $$; exec sleep 1000"), &Placement::default()).expect("starts");
            let mut line = [0; 1];
            child.stdout.as_mut().expect("piped").read_exact(&mut line).expect("written");
            let pid = child.id();
            let group = nix::unistd::getpgid(Some(to_pid(pid).expect("a pid"))).expect("alive");
            assert_eq!(group, to_pid(pid).expect("a pid"));
            child
        });
        let mut child = starter.join().expect("no panic");
        let ending = wait_ended(child.id()).expect("our child");
        assert_eq!(ending, Ending::Signalled { signal: Signal::SIGKILL, dumped: false });
        assert_eq!(ending.to_string(), "was ended by signal 9 (SIGKILL)");
        child.wait().expect("our child");
    }

    #[test]
    fn a_signal_that_a_process_brings_upon_itself_is_explained() {
        for (name, meaning) in [
            (
                "BUS",
                "(a file that it had mapped was cut or could not be read, or memory has failed",
            ),
            ("SEGV", "(a wrong address"),
            ("ILL", "(an instruction that this processor does not have"),
            ("ABRT", "(it gave up by itself"),
            ("XFSZ", "(a file beyond the limit of file sizes"),
            ("TERM", ""),
        ] {
            let command = shell(&format!("ulimit -c 0; kill -{name} $$"));
            let mut child = spawn(command, &Placement::default()).expect("starts");
            let ending = wait_ended(child.id()).expect("our child").to_string();
            child.wait().expect("our child");
            assert!(ending.contains(&format!("(SIG{name})")), "{ending}");
            assert!(ending.contains(meaning), "{ending}");
            assert_eq!(ending.matches('(').count(), 1 + meaning.matches('(').count(), "{ending}");
        }
    }

    #[test]
    fn a_child_receives_signals_that_its_parent_holds_back() {
        let starter = std::thread::spawn(|| {
            SigSet::from(Signal::SIGTERM).thread_block().expect("allowed");
            output("grep SigBlk /proc/self/status", &Placement::default())
        });
        let blocked = starter.join().expect("no panic");
        assert_eq!(blocked, "SigBlk:\t0000000000000000\n");
    }

    #[test]
    fn a_group_is_signalled_until_it_has_been_waited_for() {
        let mut child = spawn(shell("exit 3"), &Placement::default()).expect("starts");
        assert_eq!(wait_ended(child.id()).expect("our child"), Ending::Exited(3));
        signal_group(child.id(), Signal::SIGKILL).expect("still reserved");
        assert_eq!(child.wait().expect("our child").code(), Some(3));
        signal_group(child.id(), Signal::SIGKILL).expect("nobody left is no error");
        assert!(signal_group(1, Signal::SIGKILL).is_err());
    }

    /// Tests write to standard error only here, to say what they could not check.
    pub(crate) fn note_skipped(why: &str) {
        let _ = writeln!(io::stderr(), "skipped: {why}");
    }
}
