//! Occupancy over time: one strip for each quantity, below each other.

use super::canvas::{Anchor, Area, Canvas, Style, fitted};
use crate::simulate::{Course, Report};

const LEFT: f64 = 190.0;
const WIDE: f64 = 900.0;
const RIGHT: f64 = 120.0;
const STRIP: f64 = 40.0;
const GAP: f64 = 8.0;
const DAY: f64 = 86_400.0;

/// Reports, one below the other.
pub fn draw_courses(reports: &[Report]) -> Canvas {
    let mut canvas = Canvas::default();
    let mut y = 12.0;
    for report in reports {
        y = draw_report(&mut canvas, report, y) + 30.0;
    }
    canvas
}

fn draw_report(canvas: &mut Canvas, report: &Report, top: f64) -> f64 {
    let all = LEFT + WIDE + RIGHT;
    let mut y = top + 18.0;
    let title = fitted(&format!("{} on {}", report.scheme, report.machine), 15.0, all / 1.12);
    canvas.text(12.0, y, Style::plain(15.0).bold(), &title);
    y += 20.0;
    let told = format!(
        "locks {}; {}; {:.1} sectors a day ({:.2} TiB)",
        report.lock_order, report.supply, report.sectors_per_day, report.tib_per_day
    );
    canvas.text(12.0, y, Style::plain(12.0).grey(), &fitted(&told, 12.0, all));
    for finding in &report.findings {
        y += 17.0;
        let style = Style { colour: "#b02020", ..Style::plain(12.0) };
        canvas.text(12.0, y, style, &fitted(finding, 12.0, all));
    }
    y += 14.0;
    let length = report.warm_up_s + report.seconds;
    let begin = y;
    for course in &report.courses {
        draw_strip(canvas, course, y, length, report.warm_up_s);
        y += STRIP + GAP;
    }
    draw_time(canvas, begin, y, length)
}

fn draw_strip(canvas: &mut Canvas, course: &Course, y: f64, length: f64, warm_up: f64) {
    let strip = Area { x: LEFT, y, width: WIDE, height: STRIP };
    canvas.rect(strip, "#f7f7f7", None, &course.name);
    let across = |seconds: f64| LEFT + WIDE * (seconds / length).clamp(0.0, 1.0);
    if warm_up > 0.0 {
        let width = across(warm_up) - LEFT;
        canvas.rect(Area { width, ..strip }, "#e6e6e6", None, "warm-up");
    }
    let peak = course.values.iter().copied().fold(0.0, f64::max);
    let most = course.most.unwrap_or(peak).max(peak);
    if most > 0.0 && length > 0.0 {
        let bottom = y + STRIP;
        let mut points = vec![(LEFT, bottom)];
        for (at, value) in course.values.iter().enumerate() {
            #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
            let (from, to) = (at as f64 * course.step_s, (at + 1) as f64 * course.step_s);
            let height = bottom - STRIP * (value / most).clamp(0.0, 1.0);
            points.extend([(across(from), height), (across(to.min(length)), height)]);
        }
        points.push((points.last().map_or(LEFT, |last| last.0), bottom));
        canvas.surface(&points, colour(&course.name));
    }
    let middle = y + STRIP / 2.0 + 4.0;
    let name = fitted(&course.name, 12.0, LEFT - 24.0);
    canvas.text(LEFT - 10.0, middle, Style::plain(12.0).at(Anchor::End), &name);
    let scale = match course.most {
        Some(most) => format!("of {most:.0}"),
        None => format!("up to {peak:.0}"),
    };
    canvas.text(LEFT + WIDE + 10.0, middle, Style::plain(12.0).grey(), &scale);
}

/// The time below all strips. Returns where it ends.
fn draw_time(canvas: &mut Canvas, begin: f64, end: f64, length: f64) -> f64 {
    let (unit, seconds) = if length >= 2.0 * DAY { ("d", DAY) } else { ("h", 3600.0) };
    let units = length / seconds;
    // Some ten marks at round numbers.
    let steps = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0];
    let step = steps.into_iter().find(|step| units / step <= 12.0).unwrap_or(5000.0);
    let mut at = 0.0;
    while at <= units + 1e-9 {
        let x = LEFT + WIDE * if units > 0.0 { at / units } else { 0.0 };
        canvas.line((x, begin), (x, end), "#cccccc");
        let text = format!("{at:.0} {unit}");
        canvas.text(x, end + 14.0, Style::plain(11.0).grey().at(Anchor::Middle), &text);
        at += step;
    }
    end + 18.0
}

fn colour(name: &str) -> &'static str {
    match name {
        _ if name.starts_with("pc1") => "#5b8fd6",
        _ if name.starts_with("pc2") => "#59a14f",
        _ if name.starts_with("c2") => "#f28e2b",
        _ if name.starts_with("lock") => "#b07aa1",
        _ if name.starts_with("GPU") => "#76b7b2",
        _ => "#9c9c9c",
    }
}

#[cfg(test)]
mod tests {
    use super::super::canvas::assert_legible;
    use super::*;

    fn report(findings: usize, courses: usize, seconds: f64) -> Report {
        let course = |at: usize| Course {
            name: format!("pc{at} waiting for something with a long name"),
            most: at.is_multiple_of(2).then_some(28.0),
            step_s: seconds / 10.0,
            values: (0..10).map(f64::from).collect(),
        };
        Report {
            scheme: "a/path/that/is/rather/long/".repeat(9),
            warm_up_s: seconds / 10.0,
            seconds: seconds * 0.9,
            findings: (0..findings).map(|_| "pc2 starves: 34 times ".repeat(12)).collect(),
            courses: (0..courses).map(course).collect(),
            ..Report::default()
        }
    }

    #[test]
    fn charts_of_any_length_are_legible() {
        for seconds in [0.5, 60.0, 86_000.0, 3.0 * DAY, 30.0 * DAY, 20.0 * 366.0 * DAY] {
            let canvas = draw_courses(&[report(2, 12, seconds), report(0, 3, seconds)]);
            assert_legible(&canvas);
            // Each strip has a name and a scale.
            let scales =
                canvas.texts().iter().filter(|(text, _)| text == "of 28" || text == "up to 9");
            assert_eq!(scales.count(), 15);
        }
        assert_legible(&draw_courses(&[report(0, 0, 0.0)]));
        assert_legible(&draw_courses(&[]));
    }

    #[test]
    fn the_surface_ends_where_the_time_does_and_never_leaves_its_strip() {
        let mut canvas = Canvas::default();
        // The last value is for half a step only.
        let values = vec![1.0, 40.0, 2.0];
        let course =
            Course { name: "pc1 running".to_owned(), most: Some(4.0), step_s: 10.0, values };
        draw_strip(&mut canvas, &course, 100.0, 25.0, 0.0);
        let svg = canvas.svg();
        let path = svg.split("<path d=\"").nth(1).and_then(|rest| rest.split('"').next());
        // The peak of 40 is the whole height; 1 is a fortieth, 2 a twentieth.
        let expected = "M190.0 140.0L190.0 139.0L550.0 139.0L550.0 100.0L910.0 100.0L910.0 138.0\
                        L1090.0 138.0L1090.0 140.0Z";
        assert_eq!(path, Some(expected));
    }
}
