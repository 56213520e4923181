//! What the terminal shows: executors with their tasks above, limits and those who wait in the
//! middle, the last tasks below.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph};

use crate::status::{
    Executor, MachineStatus, SupervisorStatus, Task, corruption_told, cpus, device_told, duration,
    progress, share, size, waiting, whole,
};

/// How wide a bar of progress is.
const BAR: usize = 20;

/// What the user has chosen to see.
#[derive(Debug, Default)]
pub(super) struct Screen {
    /// The first line of the executors that is shown.
    first: usize,
    /// The last line that can be the first.
    last_first: usize,
}

impl Screen {
    /// Moves the list of executors.
    pub(super) fn scroll(&mut self, lines: isize) {
        self.first = self.first.saturating_add_signed(lines).min(self.last_first);
    }

    pub(super) fn draw(&mut self, frame: &mut Frame<'_>, machine: &MachineStatus) {
        let executors = executor_lines(machine);
        let middle = resource_lines(machine);
        let last = last_lines(machine);
        // Each part gets what it needs, within its share of a small terminal.
        let height = frame.area().height;
        let part = |lines: usize, most: u16| {
            u16::try_from(lines + 2).unwrap_or(u16::MAX).min((height / 4).max(most))
        };
        let [head, top, center, bottom] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Min(4),
            Constraint::Length(part(middle.len(), 5)),
            Constraint::Length(part(last.len(), 4)),
        ])
        .areas(frame.area());
        frame.render_widget(headline(machine), head);
        self.last_first = executors.len().saturating_sub(usize::from(top.height.saturating_sub(2)));
        self.first = self.first.min(self.last_first);
        let first = u16::try_from(self.first).unwrap_or(u16::MAX);
        let list = Paragraph::new(executors).scroll((first, 0));
        frame.render_widget(list.block(Block::bordered().title("executors and tasks")), top);
        panel(frame, center, "limits, locks and who waits", middle);
        panel(frame, bottom, "last tasks", last);
    }
}

fn panel(frame: &mut Frame<'_>, area: Rect, title: &str, lines: Vec<Line<'_>>) {
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(title)), area);
}

fn headline(machine: &MachineStatus) -> Line<'static> {
    if machine.supervisors.is_empty() {
        let text = format!("no supervisor is running in {}   q ends", machine.runtime_dir);
        return Line::styled(clean(&text), Style::new().add_modifier(Modifier::BOLD));
    }
    let sum =
        |count: fn(&SupervisorStatus) -> u64| machine.supervisors.iter().map(count).sum::<u64>();
    let running: usize =
        machine.supervisors.iter().flat_map(|s| &s.executors).map(|e| e.tasks.len()).sum();
    let text = format!(
        "{} supervisors, {running} tasks running, {} waiting, {} done, {} failed   q ends, ↑↓ scroll",
        machine.supervisors.len(),
        sum(|s| s.waiting as u64),
        sum(|s| s.done),
        sum(|s| s.failed.values().sum()),
    );
    Line::styled(text, Style::new().add_modifier(Modifier::BOLD))
}

fn executor_lines(machine: &MachineStatus) -> Vec<Line<'static>> {
    let mut lines: Vec<_> = corruption_told(machine)
        .iter()
        .map(|told| Line::styled(clean(told), Style::new().fg(Color::Red)))
        .collect();
    for supervisor in &machine.supervisors {
        let quiet = machine.at - supervisor.written;
        let state = match quiet {
            quiet if quiet > 30.0 => format!("has said nothing for {}", duration(quiet)),
            _ => supervisor.life.clone(),
        };
        let text = format!("{}  supervisor {}  {state}", supervisor.stage, supervisor.name());
        lines.push(Line::styled(clean(&text), Style::new().fg(Color::Cyan)));
        if let Some(why) = supervisor.why.as_ref().filter(|_| supervisor.life == "cannot-start") {
            lines.push(Line::styled(clean(&format!("    {why}")), Style::new().fg(Color::Red)));
        }
        for executor in &supervisor.executors {
            lines.push(executor_line(executor, machine.at));
            if let Some(why) = &executor.why {
                lines.push(Line::styled(clean(&format!("    {why}")), Style::new().fg(Color::Red)));
            }
            if let Some(told) =
                executor.device.as_ref().and_then(|device| device_told(device, machine.at))
            {
                lines
                    .push(Line::styled(clean(&format!("    {told}")), Style::new().fg(Color::Red)));
            }
            lines.extend(executor.tasks.iter().map(|task| task_line(task, machine.at)));
        }
    }
    lines
}

fn executor_line(executor: &Executor, at: f64) -> Line<'static> {
    let color = match executor.state.as_str() {
        "ready" => Color::Green,
        "starting" | "waiting" | "ending" => Color::Yellow,
        _ => Color::Red,
    };
    let mut text = format!("  {}", cpus(executor));
    if let Some(node) = executor.numa_node {
        text.push_str(&format!("  node {node}"));
    }
    if let Some(live) = &executor.live {
        let local = live.percent_local.map(|percent| format!(" {percent:.0} % local"));
        text.push_str(&format!("{}  {}", local.unwrap_or_default(), size(live.resident)));
    }
    if let Some(gpu) = &executor.gpu {
        text.push_str(&format!("  gpu {gpu}"));
    }
    if executor.restarts > 0 {
        text.push_str(&format!("  {} restarts", executor.restarts));
    }
    if let Some(until) = executor.until {
        text.push_str(&format!("  next start in {}", duration(until - at)));
    }
    let pid = executor.pid.map_or("-".to_owned(), |pid| pid.to_string());
    Line::from(vec![
        Span::raw(clean(&format!("  {:<22} {pid:>8}  ", executor.key))),
        Span::styled(clean(&format!("{:<10}", executor.state)), Style::new().fg(color)),
        Span::raw(clean(&text)),
    ])
}

fn task_line(task: &Task, at: f64) -> Line<'static> {
    let sector = task.sector.as_deref().unwrap_or("sector unknown");
    let done = task.whole.or(task.progress.as_ref().map(share));
    let bar = done.map_or(" ".repeat(BAR), bar);
    let waits = task.waits.as_ref().map(|why| format!("waits {why}"));
    let part = task.progress.as_ref().map(progress);
    let told: Vec<_> = whole(task).into_iter().chain(waits).chain(part).collect();
    let told = if told.is_empty() { "no progress told".to_owned() } else { told.join("  ") };
    Line::from(vec![
        Span::raw(clean(&format!("    {sector:<16} {:>8}  ", duration(at - task.started)))),
        Span::styled(bar, Style::new().fg(Color::Blue)),
        Span::raw(clean(&format!("  {told}"))),
    ])
}

fn bar(share: f64) -> String {
    let full = (share * BAR as f64).round() as usize;
    format!("{}{}", "█".repeat(full.min(BAR)), "░".repeat(BAR - full.min(BAR)))
}

fn resource_lines(machine: &MachineStatus) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    for resource in &machine.resources {
        let holders: Vec<_> = resource
            .holders
            .iter()
            .map(|holder| {
                let sector = holder.sector.clone();
                let what = sector.unwrap_or_else(|| format!("req {}", holder.req));
                format!("{} {what} for {}", holder.stage, duration(holder.held))
            })
            .collect();
        let text = format!(
            "{} {}  {} of {}  {}",
            resource.kind,
            resource.name,
            resource.held,
            resource.count,
            holders.join(", ")
        );
        lines.push(Line::raw(clean(&text)));
    }
    for waiter in waiting(machine) {
        let sector = waiter.sector.as_ref().map(|sector| format!(" {sector}"));
        let text = format!(
            "{}{} waits for {}: {}",
            waiter.stage,
            sector.unwrap_or_default(),
            duration(waiter.waited),
            waiter.reason
        );
        lines.push(Line::styled(clean(&text), Style::new().fg(Color::Yellow)));
    }
    lines
}

fn last_lines(machine: &MachineStatus) -> Vec<Line<'static>> {
    let tasks = |s: &SupervisorStatus| -> Vec<_> {
        s.history.iter().map(|task| (s.stage.clone(), task.clone())).collect()
    };
    let mut ended: Vec<_> = machine.supervisors.iter().flat_map(tasks).collect();
    ended.sort_by(|(_, one), (_, other)| other.ended.total_cmp(&one.ended));
    let line = |(stage, task): (String, crate::status::Ended)| {
        let sector = task.sector.as_deref().unwrap_or("sector unknown");
        let text = format!(
            "{stage:<6} {sector:<16} {:>8}  waited {:<8} {:>8} ago",
            duration(task.ran),
            duration(task.waited),
            duration(machine.at - task.ended)
        );
        let (result, color) = match task.error {
            None => ("  done".to_owned(), Color::Green),
            Some(error) => (format!("  {error}"), Color::Red),
        };
        Line::from(vec![
            Span::raw(clean(&text)),
            Span::styled(clean(&result), Style::new().fg(color)),
        ])
    };
    ended.into_iter().map(line).collect()
}

/// Without what could do something to a terminal.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::status::busy;

    /// The lines of a terminal of that size.
    fn drawn(screen: &mut Screen, machine: &MachineStatus, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("in memory");
        terminal.draw(|frame| screen.draw(frame, machine)).expect("in memory");
        let buffer = terminal.backend().buffer().clone();
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..height).map(|y| line(y).trim_end().to_owned()).collect()
    }

    #[test]
    fn a_busy_machine_is_shown() {
        let lines = drawn(&mut Screen::default(), &busy(), 120, 20);
        for (line, text) in [
            (0, "1 supervisors, 1 tasks running, 2 waiting, 4 done, 0 failed"),
            (1, "executors and tasks"),
            (2, "pc2  supervisor 300  serving"),
            (
                3,
                "processors.pc2[0]           301  ready       cpus 0-2 (asked for 0-3)  node 0 98 % local",
            ),
            (4, "A100 (GPU-7) computed wrongly 1 times, suspect for 1m 00s: row 3"),
            (
                5,
                "s-t01000-12        1m 00s  ████████░░░░░░░░░░░░  41 % done, 3h 03m of work left  \
                 waits for a seat: all are taken",
            ),
            (6, "processors.pc2[1]             -  crash-loop  any cpus  next start in 1m 00s"),
        ] {
            assert!(lines[line].contains(text), "{text}\n{}", lines.join("\n"));
        }
        for text in [
            "lock gpu1  1 of 1  pc2 s-t01000-12 for 1m 00s",
            "pc2 waits for 1m 01s: no executor has room",
            "pc2 waits for 1m 01s: lock gpu1 is held by pc2 of sector s-t01000-12 (pid 301)",
            "s-t01000-11            3s  waited 1s         2m 00s ago  [no-space] disk",
        ] {
            assert!(lines.iter().any(|line| line.contains(text)), "{text}\n{}", lines.join("\n"));
        }
        assert!(!lines.concat().contains('\u{1b}'), "an escape sequence reached the terminal");
    }

    #[test]
    fn more_than_fits_can_be_scrolled_and_not_beyond() {
        let mut machine = busy();
        let executor = machine.supervisors[0].executors[1].clone();
        machine.supervisors[0].executors.extend((2..60).map(|number| Executor {
            key: format!("processors.pc2[{number}]"),
            ..executor.clone()
        }));
        let mut screen = Screen::default();
        let top = drawn(&mut screen, &machine, 100, 24);
        assert!(top[2].contains("supervisor 300"), "{}", top.join("\n"));
        screen.scroll(10);
        let further = drawn(&mut screen, &machine, 100, 24);
        assert!(!further.concat().contains("supervisor 300"), "{}", further.join("\n"));
        screen.scroll(1000);
        let end = drawn(&mut screen, &machine, 100, 24);
        assert!(end.concat().contains("processors.pc2[59]"), "{}", end.join("\n"));
        screen.scroll(isize::MIN);
        assert_eq!(drawn(&mut screen, &machine, 100, 24), top);
    }

    #[test]
    fn a_terminal_of_any_size_is_enough() {
        for (width, height) in [(1, 1), (10, 3), (40, 8), (300, 100)] {
            drawn(&mut Screen::default(), &busy(), width, height);
            drawn(&mut Screen::default(), &MachineStatus::default(), width, height);
        }
    }
}
