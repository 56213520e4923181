//! The commands: from arguments to text on standard output and an exit code.

pub(crate) mod calc;
pub(crate) mod check;
pub(crate) mod hardware;
pub(crate) mod propose;
pub(crate) mod simulate;
pub(crate) mod table;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use seal_host::{FileError, PartFile, find_same_file};
use seal_types::SectorSize;

use crate::picture::Canvas;
use crate::propose::{Upgrade, Wish, propose, upgraded};
use crate::throughput::Throughput;
use crate::times::Times;
use crate::{Bytes, Hardware, Scheme, row};

/// Writes `text` to standard output.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Says something beside the result, on standard error.
fn note(text: &str) -> io::Result<()> {
    writeln!(io::stderr(), "seal-plan: {text}")
}

/// Refuses a picture that would take the place of a file that is read.
fn check_svg<'p>(
    svg: Option<&Path>,
    inputs: impl IntoIterator<Item = &'p PathBuf>,
) -> anyhow::Result<()> {
    let named: Vec<_> = svg.map(|svg| ("--svg", svg)).into_iter().collect();
    let inputs = inputs.into_iter().map(|path| ("what is read:".to_owned(), path.clone()));
    match find_same_file(&named, inputs) {
        Some(same) => Err(same.into()),
        None => Ok(()),
    }
}

/// Writes a picture. The file is there whole or not at all.
fn write_svg(path: &Path, canvas: &Canvas) -> Result<(), FileError> {
    let mut file = PartFile::create(path)?;
    file.write_all(canvas.svg().as_bytes())?;
    file.finish()
}

/// Times that were measured, which go before the estimates.
fn read_times(paths: &[PathBuf], sector_size: SectorSize) -> anyhow::Result<Times> {
    let mut times = Times::new(sector_size);
    for path in paths {
        times.read(path)?;
    }
    Ok(times)
}

/// A duration for people: hours and minutes, or minutes and seconds.
fn time(seconds: f64) -> String {
    let minutes = seconds / 60.0;
    match seconds {
        _ if !seconds.is_finite() => "for ever".to_owned(),
        _ if seconds < 60.0 => format!("{seconds:.1} s"),
        _ if seconds < 3600.0 => format!("{:.0} min {:02.0} s", minutes.floor(), seconds % 60.0),
        _ => format!("{:.0} h {:02.0} min", (minutes / 60.0).floor(), (minutes % 60.0).floor()),
    }
}

/// The stages with their times, and how busy each is.
fn rates(throughput: &Throughput) -> String {
    let mut rows =
        vec![row!["stage", "at once", "a task takes", "sectors a day", "busy", "time by"]];
    for stage in &throughput.stages {
        let tasks = match stage.tasks {
            u32::MAX => "any number".to_owned(),
            tasks => tasks.to_string(),
        };
        rows.push(row![
            stage.stage,
            tasks,
            time(stage.time.time.as_secs_f64()),
            format!("{:.1}", stage.sectors_per_day),
            format!("{:.0} %", 100.0 * stage.busy),
            stage.time.source
        ]);
    }
    table::table(&rows)
}

/// What more of something would bring: the best proposal for the machine with it, beside `now`.
fn lifts(hardware: &Hardware, wish: &Wish, now: f64) -> String {
    // A number that was asked for would hide what more memory is good for.
    let wish = Wish { pc1: None, sharing: None, ..wish.clone() };
    let tib = |sectors: f64| sectors * Bytes(wish.sector_size.bytes()).in_gib() / 1024.0;
    let mut rows = vec![row!["with", "sectors a day", "TiB a day", "more", "limited by"]];
    let mut add = |what: String, hardware: &Hardware| match propose(hardware, &wish) {
        Ok(proposal) => {
            let rate = proposal.throughput.sectors_per_day;
            let scheme = Scheme::of(&proposal.config, hardware, wish.sector_size);
            let more = 100.0 * (rate / now - 1.0);
            rows.push(row![
                what,
                format!("{rate:.1}"),
                format!("{:.2}", tib(rate)),
                format!("{more:+.0} %"),
                proposal.scarce(&scheme, &wish).word()
            ]);
        }
        Err(impossible) => rows.push(row![what, "none", "", "", impossible.word()]),
    };
    add("this machine, best proposal".to_owned(), hardware);
    let mut upgrades = vec![Upgrade::Gpu, Upgrade::Memory(Bytes::gib(512)), Upgrade::Cores(8)];
    if !hardware.disks.is_empty() {
        upgrades.push(Upgrade::Disk(Bytes::gib(2048)));
    }
    for upgrade in upgrades {
        add(format!("{upgrade} more"), &upgraded(hardware, upgrade));
    }
    table::table(&rows)
}
