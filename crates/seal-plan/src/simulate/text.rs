//! A report for people: tables, what is wrong, and occupancy over time as lines of blocks.

use std::fmt::Write;

use super::Report;
use super::report::Course;

/// How many columns an occupancy over time takes.
const COLUMNS: usize = 60;

const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A report, or several with a comparison, for a terminal.
pub fn show(reports: &[Report]) -> String {
    let mut text = String::new();
    for report in reports {
        show_one(&mut text, report);
        text.push('\n');
    }
    if reports.len() > 1 {
        compare(&mut text, reports);
    } else {
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

fn show_one(text: &mut String, report: &Report) {
    let Report { scheme, machine, lock_order, supply, .. } = report;
    // Writing to a String does not fail.
    let _ = writeln!(text, "{scheme} on {machine}");
    let _ = writeln!(
        text,
        "locks {lock_order}; {supply}; {} after {} of warm-up; seed {}",
        span(report.seconds),
        span(report.warm_up_s),
        report.seed
    );
    let _ = writeln!(
        text,
        "\n  {:.1} sectors a day ({:.2} TiB); a sector takes {} on average, {} at most",
        report.sectors_per_day,
        report.tib_per_day,
        span(report.passage_mean_s),
        span(report.passage_longest_s)
    );
    let _ = writeln!(text, "  busiest: {}", report.busiest);
    let mut rows = vec![
        [
            "stage", "done", "runs", "running", "waits", "at most", "queue", "at most", "errors",
            "again",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    for stage in &report.stages {
        let goes_on = if stage.wait_longest_goes_on { "+" } else { "" };
        rows.push(vec![
            stage.stage.clone(),
            stage.done.to_string(),
            span(stage.run_mean_s),
            format!("{:.1}", stage.running_mean),
            span(stage.wait_mean_s),
            format!("{}{goes_on}", span(stage.wait_longest_s)),
            format!("{:.1}", stage.queue_mean),
            format!("{:.0}", stage.queue_peak),
            stage.failed.to_string(),
            stage.sent_again.to_string(),
        ]);
    }
    text.push('\n');
    table(text, &rows);
    let mut rows = vec![["used", "by", "of the time"].map(str::to_owned).to_vec()];
    for group in report.cores.iter().filter(|group| !group.users.is_empty()) {
        let cores = format!("{} cores: {}", group.count, shortened(&group.cpus));
        rows.push(vec![cores, group.users.join(", "), percent(group.utilisation)]);
    }
    for gpu in &report.gpus {
        let name = format!("GPU {} {}", gpu.index, gpu.model);
        rows.push(vec![name.trim_end().to_owned(), String::new(), percent(gpu.utilisation)]);
    }
    for lock in &report.locks {
        let of = format!("{} of {} at most", lock.peak, lock.count);
        rows.push(vec![lock.name.clone(), of, percent(lock.utilisation)]);
    }
    #[expect(clippy::cast_precision_loss, reason = "shown to people")]
    let usable = report.memory.usable as f64;
    let gib = |bytes: f64| format!("{:.0} GiB", bytes / f64::from(1_u32 << 30));
    let of = format!("{} of {} at most", gib(report.memory.peak), gib(usable));
    rows.push(vec!["memory".to_owned(), of, percent(report.memory.mean / usable)]);
    text.push('\n');
    table(text, &rows);
    text.push('\n');
    chart(text, &report.courses, report.warm_up_s + report.seconds);
    for finding in &report.findings {
        let _ = writeln!(text, "\n  ! {finding}");
    }
    let _ = writeln!(text, "\n  times:");
    for stage in &report.stages {
        let _ = writeln!(text, "    {}: {}", stage.stage, stage.source);
    }
}

/// Occupancy over time.
fn chart(text: &mut String, courses: &[Course], length: f64) {
    let wide = courses.iter().map(|course| course.name.chars().count()).max().unwrap_or(0);
    for course in courses {
        let values = course.squeezed(COLUMNS, length);
        let peak = values.iter().copied().fold(0.0, f64::max);
        let most = course.most.unwrap_or(peak).max(peak);
        let line: String = values.iter().map(|value| block(*value, most)).collect();
        let scale = match course.most {
            Some(most) => format!("of {}", amount(most)),
            None => format!("up to {}", amount(peak)),
        };
        let _ = writeln!(text, "  {:wide$} │{line}│ {scale}", course.name);
    }
    let end = span(length);
    let _ = writeln!(text, "  {:wide$}  0{end:>COLUMNS$}", "", COLUMNS = COLUMNS - 1);
}

impl Course {
    /// Means over `columns` equal parts of `length` seconds.
    pub(super) fn squeezed(&self, columns: usize, length: f64) -> Vec<f64> {
        #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
        let part = (length / columns as f64).max(f64::MIN_POSITIVE);
        let mut sums = vec![0.0; columns];
        for (at, value) in self.values.iter().enumerate() {
            #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
            let (from, to) = (at as f64 * self.step_s, (at + 1) as f64 * self.step_s);
            for (column, sum) in sums.iter_mut().enumerate() {
                #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
                let (begin, end) = (column as f64 * part, (column + 1) as f64 * part);
                *sum += value * (to.min(end) - from.max(begin)).max(0.0);
            }
        }
        sums.iter().map(|sum| sum / part).collect()
    }
}

/// A number that does not become nothing by rounding.
fn amount(value: f64) -> String {
    if value > 0.0 && value < 10.0 && value.fract() != 0.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

fn block(value: f64, most: f64) -> char {
    if value <= 0.0 || most <= 0.0 {
        return BLOCKS[0];
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 8")]
    let height = (value / most * 8.0).ceil().clamp(1.0, 8.0) as usize;
    BLOCKS[height]
}

/// Reports side by side.
fn compare(text: &mut String, reports: &[Report]) {
    let mut rows = Vec::new();
    let mut row = |name: &str, value: &dyn Fn(&Report) -> String| {
        rows.push([name.to_owned()].into_iter().chain(reports.iter().map(value)).collect());
    };
    let file = |report: &Report| {
        let name = std::path::Path::new(&report.scheme).file_stem();
        name.map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    };
    row("side by side", &file);
    row("locks", &|report| report.lock_order.split(':').next().unwrap_or_default().to_owned());
    row("sectors a day", &|report| format!("{:.1}", report.sectors_per_day));
    row("TiB a day", &|report| format!("{:.2}", report.tib_per_day));
    row("a sector takes", &|report| span(report.passage_mean_s));
    row("the slowest", &|report| span(report.passage_longest_s));
    let mut names: Vec<&str> = Vec::new();
    for stage in reports.iter().flat_map(|report| &report.stages) {
        if stage.executors > 0 && !names.contains(&stage.stage.as_str()) {
            names.push(&stage.stage);
        }
    }
    for name in names {
        let of = |report: &Report, value: &dyn Fn(&super::StageReport) -> String| {
            let stage = report.stages.iter().find(|stage| stage.stage == name);
            stage.map_or_else(String::new, value)
        };
        row(&format!("{name} waits at most"), &|report| {
            of(report, &|stage| span(stage.wait_longest_s))
        });
        row(&format!("{name} queue at most"), &|report| {
            of(report, &|stage| format!("{:.0}", stage.queue_peak))
        });
        row(&format!("{name} passed by"), &|report| {
            let starves = |starves| if starves { " starves" } else { "" };
            of(report, &|stage| format!("{}{}", stage.passed_by, starves(stage.starves)))
        });
    }
    row("busiest", &|report| report.busiest.clone());
    table(text, &rows);
}

/// Columns as wide as they must be, the first at the left and the others at the right.
fn table(text: &mut String, rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let wide = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<_> = (0..columns).map(|column| wide(column).unwrap_or(0)).collect();
    for row in rows {
        let mut line = String::new();
        for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _ = if at == 0 {
                write!(line, "  {cell:width$}")
            } else {
                write!(line, "  {cell:>width$}")
            };
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
}

fn percent(part: f64) -> String {
    format!("{:.0} %", part * 100.0)
}

/// A list of cpus that fits a table.
fn shortened(cpus: &str) -> String {
    const LONGEST: usize = 28;
    if cpus.len() <= LONGEST {
        return cpus.to_owned();
    }
    let end = cpus[..LONGEST].rfind(',').unwrap_or(LONGEST);
    format!("{},…", &cpus[..end])
}

/// A time in its two largest units.
pub(super) fn span(seconds: f64) -> String {
    if seconds < 9.95 {
        return format!("{seconds:.1} s");
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rounded, from 10")]
    let whole = seconds.round() as u64;
    let (days, hours, minutes) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60);
    if days > 0 {
        format!("{days} d {hours} h")
    } else if hours > 0 {
        format!("{hours} h {minutes:02} min")
    } else if minutes > 0 {
        format!("{minutes} min {:02} s", whole % 60)
    } else {
        format!("{whole} s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_their_two_largest_units() {
        for (seconds, text) in [
            (0.0, "0.0 s"),
            (9.949, "9.9 s"),
            (9.96, "10 s"),
            (59.4, "59 s"),
            (59.6, "1 min 00 s"),
            (10_320.0, "2 h 52 min"),
            (86_399.9, "1 d 0 h"),
            (700_000.0, "8 d 2 h"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }

    #[test]
    fn a_squeezed_course_keeps_its_area() {
        let values = (0..37).map(f64::from).collect();
        let course = Course { name: String::new(), most: None, step_s: 3.0, values };
        let squeezed = course.squeezed(10, 111.0);
        let area: f64 = squeezed.iter().map(|value| value * 11.1).sum();
        assert!((area - 3.0 * 666.0).abs() < 1e-6, "{area}");
        assert!(squeezed.is_sorted());
    }

    #[test]
    fn every_amount_has_a_block_and_only_nothing_has_none() {
        assert_eq!(block(0.0, 5.0), ' ');
        assert_eq!(block(0.001, 5.0), '▁');
        assert_eq!(block(5.0, 5.0), '█');
        assert_eq!(block(1.0, 0.0), ' ');
        assert_eq!(block(2.5, 5.0), '▄');
    }

    #[test]
    fn small_amounts_are_told_with_a_digit() {
        for (value, text) in [(0.0, "0"), (0.24, "0.2"), (2.0, "2"), (9.96, "10.0"), (28.4, "28")] {
            assert_eq!(amount(value), text);
        }
    }

    #[test]
    fn long_lists_of_cpus_are_cut_between_two() {
        assert_eq!(shortened("0-41"), "0-41");
        assert_eq!(shortened("2,5,8,11,14,17,20,23,26,29,32,35"), "2,5,8,11,14,17,20,23,26,29,…");
    }
}
