//! Rectangles, lines and texts, and the SVG that shows them.

use std::fmt::Write;

/// The fonts, the widest that there are first: what fits in it fits in the others too.
const FONTS: &str = "DejaVu Sans, Verdana, Helvetica, Arial, sans-serif";

/// How high a text reaches over its line, and how far below it, as parts of its size.
const RISE: f64 = 0.78;
const FALL: f64 = 0.24;

/// A rectangle on the canvas, from its upper left corner.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Area {
    /// From the left.
    pub x: f64,
    /// From the top.
    pub y: f64,
    /// Its width.
    pub width: f64,
    /// Its height.
    pub height: f64,
}

/// How a text is set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    pub(super) size: f64,
    pub(super) colour: &'static str,
    pub(super) bold: bool,
    pub(super) anchor: Anchor,
}

/// Which end of a text its place is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// Something that lies on the canvas, with its colour.
#[derive(Clone, Debug)]
#[cfg_attr(not(test), expect(dead_code, reason = "tests judge by it whether texts can be read"))]
enum Painted {
    Rect(Area, String),
    Text(usize, &'static str),
}

/// A drawing that knows where its texts are.
#[derive(Clone, Debug, Default)]
pub struct Canvas {
    body: String,
    texts: Vec<(String, Area)>,
    /// What lies on what, from the bottom.
    painted: Vec<Painted>,
    width: f64,
    height: f64,
}

impl Area {
    /// Whether the two have more than an edge in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        const EDGE: f64 = 1e-9;
        self.x + EDGE < other.x + other.width
            && other.x + EDGE < self.x + self.width
            && self.y + EDGE < other.y + other.height
            && other.y + EDGE < self.y + self.height
    }

    /// Whether `other` lies in it.
    pub fn contains(&self, other: &Self) -> bool {
        self.x <= other.x
            && self.y <= other.y
            && other.x + other.width <= self.x + self.width
            && other.y + other.height <= self.y + self.height
    }
}

impl Style {
    pub(super) const fn plain(size: f64) -> Self {
        Self { size, colour: "#222222", bold: false, anchor: Anchor::Start }
    }

    pub(super) const fn bold(self) -> Self {
        Self { bold: true, ..self }
    }

    pub(super) const fn grey(self) -> Self {
        Self { colour: "#666666", ..self }
    }

    pub(super) const fn at(self, anchor: Anchor) -> Self {
        Self { anchor, ..self }
    }
}

impl Canvas {
    /// The size that everything on it takes, with a margin.
    pub fn area(&self) -> Area {
        Area { x: 0.0, y: 0.0, width: self.width, height: self.height }
    }

    /// Every text with the room it takes in the widest of the fonts.
    pub fn texts(&self) -> &[(String, Area)] {
        &self.texts
    }

    /// Makes room for `area` and a margin.
    fn reach(&mut self, area: &Area) {
        const MARGIN: f64 = 12.0;
        self.width = self.width.max(area.x + area.width + MARGIN);
        self.height = self.height.max(area.y + area.height + MARGIN);
    }

    /// A rectangle. `title` is shown when the pointer rests on it.
    pub(super) fn rect(&mut self, area: Area, fill: &str, stroke: Option<&str>, title: &str) {
        self.reach(&area);
        self.painted.push(Painted::Rect(area, fill.to_owned()));
        let Area { x, y, width, height } = area;
        let stroke = stroke.map_or(String::new(), |colour| format!(" stroke=\"{colour}\""));
        // Writing to a String does not fail.
        let _ = write!(
            self.body,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"2\" \
             fill=\"{fill}\"{stroke}"
        );
        if title.is_empty() {
            self.body.push_str("/>\n");
        } else {
            let _ = writeln!(self.body, "><title>{}</title></rect>", escaped(title));
        }
    }

    /// A line.
    pub(super) fn line(&mut self, from: (f64, f64), to: (f64, f64), colour: &str) {
        let _ = writeln!(
            self.body,
            "<path d=\"M{:.1} {:.1}L{:.1} {:.1}\" stroke=\"{colour}\" fill=\"none\"/>",
            from.0, from.1, to.0, to.1
        );
    }

    /// A surface between points.
    pub(super) fn surface(&mut self, points: &[(f64, f64)], fill: &str) {
        let mut path = String::new();
        for (x, y) in points {
            let verb = if path.is_empty() { 'M' } else { 'L' };
            let _ = write!(path, "{verb}{x:.1} {y:.1}");
        }
        let _ = writeln!(self.body, "<path d=\"{path}Z\" fill=\"{fill}\"/>");
    }

    /// A text whose line is at `y`. Returns the room that it takes.
    pub(super) fn text(&mut self, x: f64, y: f64, style: Style, text: &str) -> Area {
        let Style { size, colour, bold, anchor } = style;
        let width = text_width(text, size, bold);
        let (left, anchor) = match anchor {
            Anchor::Start => (x, ""),
            Anchor::Middle => (x - width / 2.0, " text-anchor=\"middle\""),
            Anchor::End => (x - width, " text-anchor=\"end\""),
        };
        let area = Area { x: left, y: y - size * RISE, width, height: size * (RISE + FALL) };
        self.reach(&area);
        let bold = if bold { " font-weight=\"bold\"" } else { "" };
        let _ = writeln!(
            self.body,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" fill=\"{colour}\"{bold}{anchor}>{}</text>",
            escaped(text)
        );
        self.painted.push(Painted::Text(self.texts.len(), colour));
        self.texts.push((text.to_owned(), area));
        area
    }

    /// Puts another drawing over this one, at the same place.
    pub(super) fn append(&mut self, other: Self) {
        self.body.push_str(&other.body);
        let before = self.texts.len();
        self.painted.extend(other.painted.into_iter().map(|painted| match painted {
            Painted::Text(at, colour) => Painted::Text(before + at, colour),
            rect @ Painted::Rect(..) => rect,
        }));
        self.texts.extend(other.texts);
        self.width = self.width.max(other.width);
        self.height = self.height.max(other.height);
    }

    /// The drawing as a file.
    pub fn svg(&self) -> String {
        let Self { body, width, height, .. } = self;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
             viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"{FONTS}\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n{body}</svg>\n"
        )
    }
}

/// A little more than a text takes in DejaVu Sans, the widest of the fonts.
pub(super) fn text_width(text: &str, size: f64, bold: bool) -> f64 {
    let part = |char: char| match char {
        'i' | 'j' | 'l' | '\'' => 0.29,
        ' ' | '.' | ',' | ':' | ';' | '|' | 'I' | '/' | '!' | '-' | 'f' | 't' | '(' | ')' | '['
        | ']' => 0.40,
        'r' | 's' | 'c' | 'z' | 'J' => 0.56,
        '0'..='9' | 'a'..='l' | 'n'..='v' | 'x'..='y' | 'L' | '?' | '_' | '"' => 0.64,
        'A'..='H' | 'K' | 'N'..='V' | 'X'..='Z' => 0.79,
        'm' | 'M' | 'W' | '%' | '@' | '…' => 1.0,
        'w' | '+' | '=' | '<' | '>' | '#' | '~' | '×' => 0.84,
        // Of other scripts some letters are as wide as high.
        _ => 1.05,
    };
    let width = text.chars().map(part).sum::<f64>() * size;
    if bold { width * 1.12 } else { width }
}

/// A text that is cut so that it takes no more than `width`.
pub(super) fn fitted(text: &str, size: f64, width: f64) -> String {
    if text_width(text, size, false) <= width {
        return text.to_owned();
    }
    let mut cut = String::new();
    for char in text.chars() {
        cut.push(char);
        if text_width(&cut, size, false) + size > width {
            cut.pop();
            break;
        }
    }
    cut.push('…');
    cut
}

/// A text in which nothing means anything to XML. Characters that it does not allow are left out.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            char if char.is_control() && char != '\n' && char != '\t' => {}
            '\u{fffe}' | '\u{ffff}' => {}
            char => escaped.push(char),
        }
    }
    escaped
}

/// The luminance of a colour such as `#1d3557`, from 0 to 1, and the contrast of two.
///
/// Source: Web Content Accessibility Guidelines 2.2, "relative luminance" and "contrast ratio".
#[cfg(test)]
fn contrast(one: &str, other: &str) -> f64 {
    let luminance = |colour: &str| -> f64 {
        let part = |at: usize| {
            let value = u8::from_str_radix(&colour[at..at + 2], 16).expect("hexadecimal");
            let value = f64::from(value) / 255.0;
            if value <= 0.040_45 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * part(1) + 0.7152 * part(3) + 0.0722 * part(5)
    };
    let (one, other) = (luminance(one), luminance(other));
    (one.max(other) + 0.05) / (one.min(other) + 0.05)
}

/// The colours that a text lies on: those of the rectangles below it that hold more than a sixth of
/// it, down to the first that holds all.
#[cfg(test)]
fn grounds(canvas: &Canvas, at: usize) -> Vec<&str> {
    let place =
        canvas.painted.iter().position(|it| matches!(it, Painted::Text(of, _) if *of == at));
    let area = canvas.texts[at].1;
    let mut grounds = Vec::new();
    for painted in canvas.painted[..place.expect("every text is painted")].iter().rev() {
        let Painted::Rect(rect, fill) = painted else { continue };
        let common = |from: f64, size: f64, other: f64, other_size: f64| {
            ((from + size).min(other + other_size) - from.max(other)).max(0.0)
        };
        let shared = common(area.x, area.width, rect.x, rect.width)
            * common(area.y, area.height, rect.y, rect.height);
        if shared > area.width * area.height / 6.0 {
            grounds.push(fill.as_str());
        }
        if rect.contains(&area) {
            return grounds;
        }
    }
    grounds.push("#ffffff");
    grounds
}

/// What every picture must keep to: all texts on the canvas, none over another, each in a colour
/// that stands out from what it lies on.
#[cfg(test)]
pub(super) fn assert_legible(canvas: &Canvas) {
    let whole = canvas.area();
    for (at, (text, area)) in canvas.texts().iter().enumerate() {
        assert!(whole.contains(area), "{text:?} at {area:?} leaves the canvas {whole:?}");
        let colour = canvas.painted.iter().find_map(|painted| match painted {
            Painted::Text(of, colour) if *of == at => Some(*colour),
            _ => None,
        });
        for ground in grounds(canvas, at) {
            let contrast = contrast(colour.expect("every text is painted"), ground);
            assert!(contrast >= 4.5, "{text:?} on {ground} has a contrast of {contrast:.1}");
        }
        for (other, beside) in &canvas.texts()[at + 1..] {
            assert!(!area.overlaps(beside), "{text:?} at {area:?} over {other:?} at {beside:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn contrasts_are_those_of_the_guidelines() {
        assert!((contrast("#000000", "#ffffff") - 21.0).abs() < 1e-9);
        assert!((contrast("#777777", "#ffffff") - 4.48).abs() < 0.01);
        assert!(contrast("#222222", "#3f7f37") < 3.4);
    }

    #[test]
    fn the_colour_below_a_text_is_found() {
        let area = |x, width| Area { x, y: 0.0, width, height: 20.0 };
        let mut canvas = Canvas::default();
        canvas.rect(area(0.0, 100.0), "#eeeeee", None, "");
        canvas.rect(area(0.0, 50.0), "#dddddd", None, "");
        canvas.rect(Area { height: 1.0, ..area(0.0, 100.0) }, "#000000", None, "");
        canvas.text(50.0, 14.0, Style::plain(10.0).at(Anchor::Middle), "over both");
        canvas.rect(area(0.0, 100.0), "#cccccc", None, "");
        let mut all = Canvas::default();
        all.text(0.0, 60.0, Style::plain(10.0), "elsewhere");
        all.append(canvas);
        assert_eq!(grounds(&all, 0), ["#ffffff"]);
        assert_eq!(grounds(&all, 1), ["#dddddd", "#eeeeee"]);
    }

    #[test]
    fn areas_that_touch_do_not_overlap() {
        let area = |x, y| Area { x, y, width: 10.0, height: 5.0 };
        for (other, overlaps) in [
            (area(0.0, 0.0), true),
            (area(9.0, 4.0), true),
            (area(10.0, 0.0), false),
            (area(0.0, 5.0), false),
            (area(-9.5, -4.5), true),
            (area(-10.0, 0.0), false),
        ] {
            assert_eq!(area(0.0, 0.0).overlaps(&other), overlaps, "{other:?}");
            assert_eq!(other.overlaps(&area(0.0, 0.0)), overlaps, "{other:?}");
        }
    }

    #[test]
    fn the_canvas_grows_with_what_is_on_it() {
        let mut canvas = Canvas::default();
        canvas.rect(Area { x: 5.0, y: 5.0, width: 20.0, height: 10.0 }, "#fff", None, "a<b");
        let text = canvas.text(30.0, 50.0, Style::plain(10.0), "x & y");
        assert!(canvas.area().contains(&text));
        let svg = canvas.svg();
        assert!(
            svg.contains("<title>a&lt;b</title>") && svg.contains(">x &amp; y</text>"),
            "{svg}"
        );
        assert_legible(&canvas);
    }

    proptest! {
        #[test]
        fn a_fitted_text_fits(text in "\\PC{0,40}", size in 6.0..20.0, width in 40.0..300.0) {
            let fitted = fitted(&text, size, width);
            prop_assert!(text_width(&fitted, size, false) <= width + size * 0.1);
        }

        #[test]
        fn whatever_a_text_says_the_file_has_no_more_elements(text in any::<String>()) {
            let mut canvas = Canvas::default();
            canvas.text(0.0, 0.0, Style::plain(10.0), &text);
            canvas.rect(Area { x: 0.0, y: 0.0, width: 1.0, height: 1.0 }, "#fff", None, &text);
            let svg = canvas.svg();
            prop_assert_eq!(svg.matches("<text").count(), 1);
            let allowed = |c: char| !c.is_control() || c == '\n' || c == '\t';
            prop_assert!(svg.chars().all(allowed));
        }
    }
}
