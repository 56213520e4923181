//! A supervisor under test.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// Nothing here takes that long; what does is a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What the log has for each request that was accepted.
pub(crate) const ACCEPTED: &str = "\"message\":\"request\"";

/// A directory for one test: configurations, a runtime directory, files for handshakes.
pub(crate) struct Scene {
    dir: tempfile::TempDir,
}

pub(crate) struct Supervisor {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    log: Arc<Mutex<String>>,
}

/// One `[[processors.<stage>]]` table that runs the scripted executor.
pub(crate) fn executor(stage: &str, args: &[&str], more: &str) -> String {
    let bin = test_support::fake_exec();
    let args: Vec<_> = std::iter::once(&stage).chain(args).collect();
    format!("[[processors.{stage}]]\nbin = {bin:?}\nargs = {args:?}\n{more}\n")
}

/// Appends a line to a file that others append to.
pub(crate) fn append(path: &Path, line: &str) {
    let mut file = fs::OpenOptions::new().create(true).append(true).open(path).expect("writable");
    file.write_all(format!("{line}\n").as_bytes()).expect("writable");
}

/// A way of a test to wait for something that another process does.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "never happened: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Whether a process is there and not just waiting for its status to be taken.
pub(crate) fn is_alive(pid: i64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.starts_with(" Z"))
}

/// The resident memory of a process.
pub(crate) fn resident_kib(pid: i64) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("told");
    resident.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// How many files a process keeps open: the fewest of several looks, since some are open for a
/// moment only, such as the status while it is written.
pub(crate) fn open_files(pid: i64) -> usize {
    let look = || fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count();
    let looks = (0..20).map(|_| {
        std::thread::sleep(Duration::from_millis(20));
        look()
    });
    looks.min().expect("more than one")
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary directory") }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("UTF-8").to_owned()
    }

    pub(crate) fn touch(&self, name: &str) {
        fs::write(self.path(name), "").expect("writable");
    }

    pub(crate) fn lines(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.path(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    pub(crate) fn await_file(&self, name: &str) {
        eventually(name, || self.path(name).exists().then_some(()));
    }

    pub(crate) fn config(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("writable");
        path
    }

    /// The command that runs a supervisor of `stage` in this scene.
    pub(crate) fn command(&self, stage: &str, config: &Path) -> Command {
        self.command_of(Path::new(env!("CARGO_BIN_EXE_seal-supervisor")), stage, config)
    }

    pub(crate) fn command_of(&self, binary: &Path, stage: &str, config: &Path) -> Command {
        let mut command = Command::new(binary);
        command.args(["processor", stage, "--config"]).arg(config);
        command.env("SEAL_RUNTIME_DIR", self.path("run")).env("RUST_LOG", "debug");
        command.env_remove("SEAL_CONFIG").env_remove("SEAL_READY_WITHIN");
        command
    }

    /// [`Scene::command`] in this scene's directory, after a shell has done `setup`.
    pub(crate) fn command_after(&self, setup: &str, stage: &str, config: &Path) -> Command {
        let plain = self.command(stage, config);
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &format!("{setup} && exec \"$0\" \"$@\"")]);
        command.arg(plain.get_program()).args(plain.get_args());
        for (name, value) in plain.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.current_dir(self.dir.path());
        command
    }

    /// Starts a supervisor with quick restarts and waits until it is ready.
    pub(crate) fn start(&self, stage: &str, config: &str) -> Supervisor {
        self.start_with(stage, config, &[])
    }

    /// With options of the command line. Waits for all executors, except where one is told to
    /// take its time.
    pub(crate) fn start_with(&self, stage: &str, config: &str, args: &[&str]) -> Supervisor {
        let executors = config.matches(&format!("[[processors.{stage}]]")).count();
        let late = ["--ready-if", "--never-ready", "--die"].iter().any(|arg| config.contains(arg));
        let config = self.config(&format!("{stage}.toml"), config);
        let mut command = self.command(stage, &config);
        if !args.contains(&"--restart-wait") {
            command.args(["--restart-wait", "10ms", "--restart-wait-max", "50ms"]);
        }
        command.args(args);
        let mut supervisor = Supervisor::spawn(&mut command);
        supervisor.ready(stage);
        if !late {
            supervisor.await_log("executor is ready", executors);
        }
        supervisor
    }

    /// The slots of limits and locks that are held, as file name and number. Supervisors hold
    /// slots of the members' file too; those are left out.
    pub(crate) fn locked(&self) -> Vec<(String, u32)> {
        let mut locked = Vec::new();
        for entry in fs::read_dir(self.path("run/limits")).expect("limits in the runtime directory")
        {
            let path = entry.expect("readable").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            if name.ends_with(".slots") && !name.starts_with("members") {
                let slots = seal_host::Slots::open(&path).expect("ours");
                let held = slots.held_by_others(1000).expect("readable");
                locked.extend(held.into_iter().map(|slot| (name.clone(), slot)));
            }
        }
        locked
    }

    /// Checks that no slot of any limit or lock is held. What died a moment ago may still be there
    /// to the kernel.
    pub(crate) fn assert_nothing_is_locked(&self) {
        eventually("no slot is held", || self.locked().is_empty().then_some(()));
    }
}

impl Supervisor {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        Self::attach(command.stderr(Stdio::piped()).stdout(Stdio::piped()))
    }

    /// Starts it with its standard output and error where `command` says. What is piped is read.
    pub(crate) fn attach(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).spawn().expect("the supervisor can be run");
        let (sender, lines) = channel();
        let stdout = child.stdout.take();
        thread::spawn(move || {
            for line in stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).lines()) {
                if sender.send(line.expect("UTF-8")).is_err() {
                    // Nobody reads any more, and dropping the pipe tells the supervisor.
                    return;
                }
            }
        });
        let log = Arc::new(Mutex::new(String::new()));
        let stderr = child.stderr.take();
        thread::spawn({
            let log = log.clone();
            move || {
                let Some(mut stderr) = stderr else { return };
                let mut block = [0; 4096];
                while let Ok(count @ 1..) = stderr.read(&mut block) {
                    let text = String::from_utf8_lossy(&block[..count]);
                    log.lock().expect("no panic").push_str(&text);
                }
            }
        });
        let stdin = child.stdin.take();
        Self { child, stdin, lines, log }
    }

    pub(crate) fn pid(&self) -> i64 {
        self.child.id().into()
    }

    pub(crate) fn ready(&mut self, stage: &str) {
        assert_eq!(self.line(), format!("{stage} processor ready"), "{}", self.log());
    }

    /// Sends a request; `steps` script the executor.
    pub(crate) fn send(&mut self, id: u64, steps: Value) {
        self.send_raw(format!("{}\n", json!({ "id": id, "task": steps })).as_bytes());
    }

    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().expect("input is open");
        stdin.write_all(bytes).expect("the supervisor reads");
        stdin.flush().expect("the supervisor reads");
    }

    /// Sends a line to a supervisor that may be ending.
    pub(crate) fn try_send(&mut self, line: &Value) {
        if let Some(stdin) = &mut self.stdin {
            let _ = stdin.write_all(format!("{line}\n").as_bytes());
        }
    }

    /// Its standard input, to be written to by another thread.
    pub(crate) fn take_input(&mut self) -> ChildStdin {
        self.stdin.take().expect("input is open")
    }

    pub(crate) fn end_input(&mut self) {
        self.stdin = None;
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).expect("pids are small");
        kill(Pid::from_raw(pid), signal).expect("it runs");
    }

    /// The next line on standard output.
    pub(crate) fn line(&mut self) -> String {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => panic!("no answer came; log:\n{}", self.log()),
            Err(RecvTimeoutError::Disconnected) => panic!("output ended; log:\n{}", self.log()),
        }
    }

    /// The next line on standard output, or `None` if it ended.
    pub(crate) fn line_or_end(&mut self) -> Option<String> {
        let line = self.lines.recv_timeout(PATIENCE);
        if line.is_err() {
            // Standard error is read to its end once the supervisor is gone.
            self.wait_status();
        }
        line.ok()
    }

    /// The next answer: its id and output, or its error.
    pub(crate) fn answer(&mut self) -> (u64, Result<Value, String>) {
        let line = self.line();
        let answer: Value = serde_json::from_str(&line).expect("answers are JSON");
        let id = answer["id"].as_u64().expect("answers have ids");
        match answer["err_msg"].as_str() {
            Some(error) => {
                assert!(answer["output"].is_null(), "{line}");
                (id, Err(error.to_owned()))
            }
            None => (id, Ok(answer["output"].clone())),
        }
    }

    pub(crate) fn output(&mut self, id: u64) -> Value {
        let (got, result) = self.answer();
        assert_eq!(got, id, "{result:?}");
        result.unwrap_or_else(|error| panic!("request {id} failed: {error}"))
    }

    pub(crate) fn error(&mut self, id: u64) -> String {
        let (got, result) = self.answer();
        assert_eq!(got, id, "{result:?}");
        result.expect_err("the request fails")
    }

    /// Runs a task and returns its output.
    pub(crate) fn ask(&mut self, id: u64, steps: Value) -> Value {
        self.send(id, steps);
        self.output(id)
    }

    pub(crate) fn assert_no_line(&mut self) {
        match self.lines.try_recv() {
            Ok(line) => panic!("an unexpected line: {line}"),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => {}
        }
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().expect("no panic").clone()
    }

    pub(crate) fn await_log(&self, text: &str, count: usize) {
        eventually(&format!("{count} x {text:?} in the log:\n{}", self.log()), || {
            (self.log().matches(text).count() >= count).then_some(())
        });
    }

    /// Stops reading answers.
    pub(crate) fn stop_reading(&mut self) {
        // The reading thread ends at the next line; closing its pipe needs one to come.
        let (_, nobody) = channel();
        self.lines = nobody;
    }

    /// Waits for the end and returns the exit code. No more answers may have come.
    pub(crate) fn wait(mut self) -> i32 {
        let status = self.wait_status();
        if let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            panic!("an unexpected last line: {line}");
        }
        status.code().unwrap_or_else(|| panic!("{status}; log:\n{}", self.log()))
    }

    pub(crate) fn wait_status(&mut self) -> ExitStatus {
        let child = &mut self.child;
        eventually("the supervisor ends", || child.try_wait().expect("our child"))
    }

    /// Ends the input and checks that the supervisor ends well.
    pub(crate) fn finish(mut self) {
        self.end_input();
        assert_eq!(self.wait(), 0);
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
