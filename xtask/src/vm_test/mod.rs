//! `cargo xtask vm-test`: placement on a machine with two NUMA nodes, which is emulated.
//!
//! No machine of a developer has two nodes, and a fake sysfs does not tell what a kernel does. So
//! a Debian kernel is booted in QEMU (in software: no virtualisation is needed), with an archive
//! of busybox and our binaries as its whole file system. `init.sh` runs there; what it writes is
//! judged here.
//!
//! `cells` boots it once more, for what containers leave of cgroups of version 2.
//!
//! The same emulator has a power switch: `power` cuts it off while a sector is sealed.

mod archive;
mod cells;
mod checks;
mod power;

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::bench::write_result;
use crate::cargo::{cargo, target};
use crate::out::{say, step};
use archive::Archive;
use test_support::sector::Sector;
use test_support::vector::Vector;

/// The emulator.
const QEMU: &str = "qemu-system-x86_64";

/// The package that names the current kernel.
const KERNEL: &str = "linux-image-cloud-amd64";

/// The sector that is labelled there: the smallest whose layers fill huge pages.
const VECTOR: &str = "8MiB-v1_1-cc";

/// How long the machine may take.
const LIMIT: Duration = Duration::from_secs(600);

/// Options of `vm-test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A Linux kernel to boot; default: Debian's, fetched by apt-get.
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// A statically linked busybox; default: Debian's, fetched by apt-get.
    #[arg(long, value_name = "FILE")]
    busybox: Option<PathBuf>,
    /// Print all that the machine writes.
    #[arg(long)]
    verbose: bool,
    /// How often the power of a machine that seals is cut; 0: never.
    #[arg(long, value_name = "N", default_value_t = 4)]
    power_cuts: usize,
    /// The seed that the moments of the cuts, and what is lost, are drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only the power cuts, not the checks of placement.
    #[arg(long)]
    power_only: bool,
}

/// What a machine is made of.
struct Tools {
    /// Where files of these tests are kept.
    dir: PathBuf,
    kernel: PathBuf,
    busybox: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if !in_path(QEMU) {
        return skip(&format!("{QEMU} is missing (Debian: apt-get install qemu-system-x86)"));
    }
    let dir = target().join("vm-test");
    std::fs::create_dir_all(&dir)?;
    let own = |given: &Option<PathBuf>, fetch: &dyn Fn(&Path) -> Result<PathBuf>| match given {
        Some(path) => Ok(path.clone()),
        None => fetch(&dir),
    };
    let (kernel, busybox) = match (own(&args.kernel, &kernel), own(&args.busybox, &busybox)) {
        (Ok(kernel), Ok(busybox)) => (kernel, busybox),
        (Err(error), _) | (_, Err(error)) => return skip(&format!("{error:#}")),
    };
    let tools = Tools { dir, kernel, busybox };
    cargo(&["build", "--release", "--package", "seal-host", "--example", "placement"], &[])?;
    let packages = ["pc1-exec", "pc2-exec", "c2-exec", "seal-supervisor"];
    let packages = packages.iter().flat_map(|name| ["--package", name]);
    let build: Vec<_> = ["build", "--release"].into_iter().chain(packages).collect();
    cargo(&build, &[])?;
    if !args.power_only {
        let vector = Vector::named(VECTOR)?;
        let initrd = tools.dir.join("initrd");
        std::fs::write(&initrd, file_system(&tools.busybox, &vector)?)?;
        let output = boot(&tools.kernel, &initrd, args.verbose)?;
        write_result("vm-test", checks::judge(&output, &vector)?)?;
    }
    if !args.power_only {
        cells::run(&tools, args.verbose)?;
    }
    if args.power_cuts > 0 {
        power::run(&tools, args.power_cuts, args.seed, args.verbose)?;
    }
    Ok(())
}

fn skip(why: &str) -> Result<()> {
    say(&format!("skipped: {why}"));
    Ok(())
}

fn in_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// The root file system: busybox, the programs with the libraries they need, and a sector.
fn file_system(busybox: &Path, vector: &Vector) -> Result<Vec<u8>> {
    let mut archive = system(include_bytes!("init.sh"), busybox)?;
    add_programs(&mut archive, &["examples/placement", "pc1-exec", "seal-supervisor"])?;
    add_sector(&mut archive, vector)?;
    Ok(archive.finish())
}

/// A root file system with nothing but the first program and busybox.
fn system(init: &[u8], busybox: &Path) -> Result<Archive> {
    let mut archive = Archive::default();
    for dir in ["bin", "dev", "mnt", "proc", "sys", "tmp"] {
        archive.directory(Path::new(dir));
    }
    archive.file(Path::new("init"), init);
    archive.file(Path::new("bin/busybox"), &read(busybox)?);
    Ok(archive)
}

/// Adds programs of ours and the libraries they need.
fn add_programs(archive: &mut Archive, programs: &[&str]) -> Result<()> {
    let mut libraries = BTreeSet::new();
    for program in programs {
        let program = target().join("release").join(program);
        let name = program.file_name().context("programs have names")?;
        archive.file(&Path::new("bin").join(name), &read(&program)?);
        libraries.extend(needed(&program)?);
    }
    for library in libraries {
        archive.file(library.strip_prefix("/").unwrap_or(&library), &read(&library)?);
    }
    Ok(())
}

/// Adds what a worker hands to PC1, to be copied from `/staged` to `/sector`.
fn add_sector(archive: &mut Archive, vector: &Vector) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let sector = Sector::stage(vector, dir.path())?;
    let task = sector.pc1_task()?.to_string();
    let here = dir.path().to_str().context("a path in UTF-8")?;
    let staged = Path::new("staged");
    archive.directory(&staged.join("cache"));
    archive.file(&staged.join("supervisor.toml"), include_bytes!("supervisor.toml"));
    archive.file(&staged.join("staged"), &read(&sector.staged())?);
    archive.file(&staged.join("sealed"), &read(&sector.sealed())?);
    archive.file(&staged.join("task.json"), task.replace(here, "/sector").as_bytes());
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The shared libraries of a program, the loader among them.
fn needed(program: &Path) -> Result<Vec<PathBuf>> {
    let output = output(Command::new("ldd").arg(program))?;
    let paths = output.split_ascii_whitespace().filter(|word| word.starts_with('/'));
    Ok(paths.map(PathBuf::from).collect())
}

fn kernel(dir: &Path) -> Result<PathBuf> {
    if let Some(kernel) = kernel_in(dir) {
        return Ok(kernel);
    }
    let depends = output(Command::new("apt-cache").args(["depends", KERNEL]))?;
    let package = depends
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: "))
        .with_context(|| format!("apt-cache knows no {KERNEL}; give --kernel"))?;
    unpack(package, dir)?;
    kernel_in(dir).with_context(|| format!("{package} holds no kernel; give --kernel"))
}

fn kernel_in(dir: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(dir.join("boot")).ok()?;
    let mut kernels: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("vmlinuz")))
        .collect();
    kernels.sort();
    kernels.pop()
}

fn busybox(dir: &Path) -> Result<PathBuf> {
    let busybox = dir.join("bin/busybox");
    if !busybox.exists() {
        unpack("busybox-static", dir)?;
    }
    ensure!(busybox.exists(), "busybox-static holds no bin/busybox; give --busybox");
    Ok(busybox)
}

/// Fetches a Debian package and unpacks it in `dir`; nothing is installed.
fn unpack(package: &str, dir: &Path) -> Result<()> {
    step(&format!("fetching {package}"));
    let fetched = tempfile::tempdir_in(dir)?;
    output(Command::new("apt-get").args(["download", package]).current_dir(fetched.path()))
        .with_context(|| format!("cannot fetch {package}"))?;
    for file in std::fs::read_dir(fetched.path())? {
        output(Command::new("dpkg-deb").arg("--extract").arg(file?.path()).arg(dir))?;
    }
    Ok(())
}

/// What a program writes, if it succeeds.
fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_owned();
    let output = command.output().with_context(|| format!("cannot start {}", name.display()))?;
    ensure!(
        output.status.success(),
        "{} failed: {}",
        name.display(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Starts the machine and returns what it wrote until it was switched off.
fn boot(kernel: &Path, initrd: &Path, verbose: bool) -> Result<String> {
    step(&format!("booting {} in QEMU", kernel.display()));
    let started = Instant::now();
    let mut qemu = Command::new(QEMU)
        .args(["-machine", "q35,accel=tcg", "-cpu", "max", "-m", "1152"])
        .args(["-smp", "4,sockets=2,cores=2,threads=1"])
        .args(["-object", "memory-backend-ram,id=m0,size=576M", "-numa"])
        .args(["node,nodeid=0,cpus=0-1,memdev=m0"])
        .args(["-object", "memory-backend-ram,id=m1,size=576M", "-numa"])
        .args(["node,nodeid=1,cpus=2-3,memdev=m1"])
        .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
        .args(["-serial", "stdio", "-append", "console=ttyS0 quiet panic=-1"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initrd)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {QEMU}"))?;
    let mut pipe = qemu.stdout.take().context("QEMU's output is piped")?;
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).map(|_| bytes)
    });
    let status = loop {
        if let Some(status) = qemu.try_wait()? {
            break Some(status);
        }
        if started.elapsed() > LIMIT {
            qemu.kill()?;
            qemu.wait()?;
            break None;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    let bytes = match reader.join() {
        Ok(bytes) => bytes?,
        Err(panic) => std::panic::resume_unwind(panic),
    };
    let output = String::from_utf8_lossy(&bytes).replace('\r', "");
    if verbose {
        say(&output);
    }
    match status {
        None => bail!("the machine was still running after {LIMIT:?}; it wrote:\n{output}"),
        Some(status) if !status.success() => bail!("QEMU failed: {status}; it wrote:\n{output}"),
        Some(_) => say(&format!("    switched off after {:.0} s", started.elapsed().as_secs_f64())),
    }
    Ok(output)
}
