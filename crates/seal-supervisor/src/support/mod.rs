//! `seal-supervisor support`: everything that who is asked for help would ask for, in one text.
//!
//! What cannot be had is said in its place: a machine that needs help is one on which something
//! does not work. Nothing of the environment is told but settings of sealing software, and no
//! argument that may be a secret.

mod machine;
mod redact;

use std::collections::BTreeSet;
use std::env;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use seal_config::{Config, Refused};
use seal_host::{FileError, KeptLines, RuntimeDir, parent_of, read_text, sync_dir};
use seal_options::shown_value;
use seal_types::Stage;
use seal_wire::{CORRUPTION_FILE, ErrorCode, ExitCode, TaskError};

use crate::cli::SupportArgs;
use crate::log_ring;
use crate::program::find_program;
use crate::run::{Failure, because, runtime_dir, write_out};
use crate::status::{Looker, collect, tell};

/// How long a program may take to tell its version, and the planner to judge the configuration.
const VERSION: Duration = Duration::from_secs(20);
const FINDINGS: Duration = Duration::from_secs(120);

/// No program says more that is of use.
const OUTPUT: u64 = 256 << 10;

/// How many logs are in a bundle, the latest ones.
const LOGS: usize = 12;

/// Directories that sealing uses, by the setting that names them and the default.
const DIRS: [(&str, &str); 5] = [
    ("FIL_PROOFS_PARAMETER_CACHE", "/var/tmp/filecoin-proof-parameters"),
    ("FIL_PROOFS_PARENT_CACHE", "/var/tmp/filecoin-parents"),
    ("SEAL_WORK_DIR", ""),
    ("HUGEPAGE_FILES_PATH", ""),
    ("SEAL_CIRCUIT_CACHE", ""),
];

/// Writes the bundle.
pub(crate) fn support(args: &SupportArgs) -> Result<ExitCode, Failure> {
    // Before minutes of collecting.
    if let Some(path) = args.output.as_ref().filter(|path| path.symlink_metadata().is_ok()) {
        return Err(exists(path));
    }
    let mut bundle = Bundle::collect(args);
    if args.redact {
        bundle.redact();
    }
    match &args.output {
        Some(path) => write_new(path, bundle.text.as_bytes())?,
        None => write_out(&bundle.text)?,
    }
    Ok(ExitCode::Success)
}

/// A bundle, and what is known to identify the machine.
struct Bundle {
    text: String,
    paths: Vec<String>,
}

impl Bundle {
    fn collect(args: &SupportArgs) -> Self {
        let mut bundle = Self { text: String::new(), paths: Vec::new() };
        let config = args.place.config.as_ref().map(|path| seal_config::load_all(path));
        let good = config.as_ref().and_then(|config| config.as_ref().ok());
        let dir = runtime_dir(args.place.runtime_dir.as_deref(), good);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let version = env!("CARGO_PKG_VERSION");
        let redacted = if args.redact { "redacted" } else { "not redacted" };
        bundle.section(
            "support bundle, form 1",
            &format!("seal-supervisor {version}, at {} s, {redacted}", now.as_secs()),
        );
        let programs = programs(good);
        let mut versions = String::new();
        for program in &programs {
            let said = output_of(Command::new(program).arg("--version"), VERSION);
            let _ = writeln!(versions, "{}:\n{said}", program.display());
        }
        bundle.section("versions", &versions);
        let dirs = directories(&dir, args.place.config.as_deref(), good);
        bundle.section("machine", &machine::machine(&dirs));
        bundle.section("environment", &environment());
        bundle.section(
            "configuration",
            &match &config {
                None => "none was named (--config)".to_owned(),
                Some(Ok(config)) => seal_config::show(&without_secrets(config)),
                Some(Err(faults)) => faults_of(faults),
            },
        );
        // Held while it is read.
        let opened = RuntimeDir::find(&dir);
        let told = match &opened {
            Ok(Some(_)) => collect(&dir, &mut Looker::default())
                .map(|status| {
                    let json = serde_json::to_string_pretty(&status);
                    tell(&status) + "\n" + &json.unwrap_or_else(|error| error.to_string())
                })
                .unwrap_or_else(|error| TaskError::from_error(ErrorCode::Io, &error).message),
            Ok(None) => format!("there is no runtime directory {}", dir.display()),
            Err(error) => TaskError::from_error(ErrorCode::Io, error).message,
        };
        bundle.section("status", &told);
        let records = KeptLines::at(&dir.join(CORRUPTION_FILE)).read();
        bundle.section("wrong results on record", &String::from_utf8_lossy(&records));
        for path in log_ring::files(&log_ring::directory(&dir)).into_iter().take(LOGS) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            bundle.section(&format!("last lines of {name}"), &read_log(&path));
        }
        bundle.section("findings", &findings(args.place.config.as_deref()));
        let known = programs.iter().chain(args.place.config.iter()).chain([&dir]);
        bundle.paths.extend(known.map(|path| path.display().to_string()));
        bundle.paths.extend(dirs);
        bundle.paths.extend(good.into_iter().flat_map(paths_of));
        bundle.paths.extend(env::current_dir().ok().map(|dir| dir.display().to_string()));
        bundle
    }

    fn section(&mut self, title: &str, text: &str) {
        let text = text.trim_end();
        let text = if text.is_empty() { "(nothing)" } else { text };
        let _ = write!(self.text, "==== {title} ====\n{text}\n\n");
    }

    fn redact(&mut self) {
        let host = read_text(Path::new("/proc/sys/kernel/hostname")).unwrap_or_default();
        let host = host.trim();
        // The name alone, too, of one with its domain.
        let short = host.split('.').next().unwrap_or_default();
        let user = env::var("USER").ok().filter(|user| user != "root").unwrap_or_default();
        let names = [host, short, &user].map(str::to_owned);
        self.text = redact::Redactor::new(&self.paths, &names).redact(&self.text);
    }
}

fn faults_of(faults: &Refused) -> String {
    let told = |error| TaskError::from_error(ErrorCode::Internal, error).message;
    let all = std::iter::once(&faults.first).chain(&faults.others);
    all.map(|error| told(error)).collect::<Vec<_>>().join("\n")
}

/// The executors that the configuration names, or those beside this binary.
fn programs(config: Option<&Config>) -> Vec<PathBuf> {
    let own = env::current_exe().unwrap_or_default();
    let beside = parent_of(&own).to_path_buf();
    let search = env::var_os("PATH");
    let mut programs = BTreeSet::new();
    for (stage, executors) in config.iter().flat_map(|config| &config.executors) {
        for executor in executors {
            let served = stage.served().map(|served| beside.join(served.executor()));
            // What is not ours may take `--version` for a request to work.
            let ours = |bin: &Path| {
                let name = bin.file_name().unwrap_or_default();
                Stage::ALL.iter().any(|stage| name == stage.executor())
            };
            let named = executor.bin.as_ref().filter(|bin| ours(bin));
            programs.extend(named.map(|bin| find_program(bin, search.as_deref())).or(served));
        }
    }
    if programs.is_empty() {
        programs.extend(Stage::ALL.iter().map(|stage| beside.join(stage.executor())));
    }
    programs.insert(beside.join("seal-plan"));
    programs.into_iter().collect()
}

/// What a program says, however it ends; at most so long is waited for it.
fn output_of(command: &mut Command, patience: Duration) -> String {
    match run(command, patience) {
        Ok(said) => said,
        Err(error) => format!("cannot be run: {error}"),
    }
}

fn run(command: &mut Command, patience: Duration) -> io::Result<String> {
    // To a file in memory, so that nobody waits for the reader of a pipe.
    let output = seal_host::FileInMemory::new("output")?;
    command.stdin(Stdio::null()).stdout(output.file().try_clone()?);
    command.stderr(output.file().try_clone()?);
    let mut child = command.spawn()?;
    let by = Instant::now() + patience;
    let ended = loop {
        if let Some(status) = child.try_wait()? {
            break (!status.success()).then(|| format!("it ended with {status}"));
        }
        if Instant::now() > by {
            child.kill()?;
            child.wait()?;
            break Some(format!("it was ended after {} s", patience.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let mut said = Vec::new();
    let mut output = output.file();
    output.rewind()?;
    output.take(OUTPUT).read_to_end(&mut said)?;
    let said = String::from_utf8_lossy(&said).into_owned();
    Ok(ended.map_or(said.clone(), |ended| format!("{said}\n({ended})")))
}

/// Settings of sealing software that are set.
fn environment() -> String {
    let mut text = String::new();
    for (name, value) in env::vars_os() {
        let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else { continue };
        // Of all others not even the name is anybody's business.
        if shown_value(name, "x") == "x" {
            let _ = writeln!(text, "{name}={value}");
        }
    }
    text
}

/// The configuration without arguments of executors that may be secrets.
fn without_secrets(config: &Config) -> Config {
    let mut config = config.clone();
    let secret = |arg: &str| {
        let arg = arg.to_ascii_lowercase();
        ["token", "secret", "passw", "key", "auth", "cred"].iter().any(|word| arg.contains(word))
    };
    for executor in config.executors.values_mut().flatten() {
        let mut after = false;
        for arg in &mut executor.args {
            let names = secret(arg);
            if after || names && arg.contains('=') {
                *arg = "(set)".to_owned();
            }
            after = names && arg.starts_with('-');
        }
    }
    config
}

/// All directories that sealing uses, as far as they are known here.
fn directories(runtime_dir: &Path, config: Option<&Path>, known: Option<&Config>) -> Vec<String> {
    let mut dirs: BTreeSet<String> = [runtime_dir.display().to_string()].into();
    dirs.extend(config.and_then(Path::parent).map(|dir| dir.display().to_string()));
    dirs.retain(|dir| !dir.is_empty());
    let executors = known.iter().flat_map(|config| config.executors.values().flatten());
    let set: Vec<_> = executors.map(|executor| &executor.envs).collect();
    for (name, default) in DIRS {
        let own = env::var(name).ok();
        let named = set.iter().filter_map(|envs| envs.get(name).cloned()).chain(own);
        let mut named: Vec<_> = named.collect();
        if named.is_empty() {
            named.push(default.to_owned());
        }
        dirs.extend(named.into_iter().filter(|dir| dir.contains('/')));
    }
    dirs.into_iter().collect()
}

/// Everything in a configuration that is a path or holds one.
fn paths_of(config: &Config) -> Vec<String> {
    let mut paths = Vec::new();
    for executor in config.executors.values().flatten() {
        paths.extend(executor.bin.as_ref().map(|bin| bin.display().to_string()));
        paths.extend(executor.group_name.clone());
        let values = executor.args.iter().chain(executor.envs.values());
        paths.extend(values.filter(|value| value.contains('/')).cloned());
    }
    paths
}

fn read_log(path: &Path) -> String {
    let flags = nix::fcntl::OFlag::O_NOFOLLOW.bits();
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let mut text = Vec::new();
    match opened.and_then(|file| file.take(OUTPUT).read_to_end(&mut text)) {
        Ok(_) => String::from_utf8_lossy(&text).into_owned(),
        Err(error) => format!("it cannot be read: {error}"),
    }
}

/// What the planner says of the configuration.
fn findings(config: Option<&Path>) -> String {
    let Some(config) = config else { return "no configuration was named (--config)".to_owned() };
    let own = env::current_exe().unwrap_or_default();
    let planner = own.with_file_name("seal-plan");
    output_of(Command::new(planner).arg("check").arg("--config").arg(config), FINDINGS)
}

fn exists(path: &Path) -> Failure {
    let text = format!("{} is there already; name another file by --output", path.display());
    Failure { code: ExitCode::Failed, text }
}

/// Writes a file that nobody else may read. It is there whole or not at all, and takes the place of
/// none.
fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let failed = |verb| move |error| because(ExitCode::Failed)(FileError::of(verb, path)(error));
    let mut part = path.to_path_buf().into_os_string();
    part.push(format!(".{}.part", std::process::id()));
    let part = PathBuf::from(part);
    let write = || -> Result<(), Failure> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&part)
            .map_err(failed("create"))?;
        file.write_all(bytes).and_then(|()| File::sync_all(&file)).map_err(failed("write"))?;
        // A link fails where a name is taken, which a renamed file would replace.
        match fs::hard_link(&part, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(exists(path)),
            linked => linked.map_err(failed("create")),
        }
    };
    let written = write();
    let _ = fs::remove_file(&part);
    written?;
    sync_dir(parent_of(path)).map_err(because(ExitCode::Failed))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_bundle_is_private_and_takes_no_files_place() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("bundle.txt");
        write_new(&path, b"first").map_err(|failure| failure.text).expect("writable");
        let mode = fs::metadata(&path).expect("there").mode();
        assert_eq!(mode & 0o777, 0o600);
        let failure = write_new(&path, b"second").expect_err("it is there");
        assert!(failure.text.contains("bundle.txt is there already"), "{}", failure.text);
        assert_eq!(fs::read(&path).expect("there"), b"first");
        assert_eq!(fs::read_dir(dir.path()).expect("there").count(), 1);
    }

    #[test]
    fn arguments_that_may_be_secrets_are_not_told() {
        let text = "[[processors.pc1]]\nargs = ['--token', 'abc123', '--api-key=xyz789', '--plain', 'x']\n";
        let config = seal_config::parse(Path::new("a.toml"), text).expect("good");
        let shown = seal_config::show(&without_secrets(&config));
        assert!(!shown.contains("abc123") && !shown.contains("xyz789"), "{shown}");
        assert!(shown.contains("--token") && shown.contains("--plain") && shown.contains("\"x\""));
    }

    #[test]
    fn a_program_that_hangs_or_fails_holds_nothing_up() {
        let mut sleeper = Command::new("sleep");
        let said = output_of(sleeper.arg("100"), Duration::from_millis(50));
        assert!(said.contains("it was ended"), "{said}");
        let said = output_of(Command::new("sh").args(["-c", "echo a; exit 3"]), FINDINGS);
        assert!(said.starts_with("a\n") && said.contains('3'), "{said}");
        assert!(output_of(&mut Command::new("/no/such"), VERSION).contains("cannot be run"));
    }
}
