//! Draws curves on two logarithmic scales, as an SVG that needs no script and reads on light and on dark pages.
//!
//! A curve has its name at its end, so that there is no legend to look up. Pure, but for [`Plot::save`].

use std::{
    fmt::Write as _,
    fs, io,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use charliehub_tests::repository;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 170.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 52.0;
/// Between two names at the ends of curves.
const LINE: f64 = 16.0;
/// Colours that are told apart; more curves begin with the first again.
const COLOURS: usize = 4;

const STYLE: &str = "\
text{font:13px system-ui,sans-serif;fill:#24292f}.title{font-weight:600}.page{fill:#fff}.grid{stroke:#d8dee4}\
.c0{stroke:#0b6bcb}.c1{stroke:#b4530a}.c2{stroke:#0a7d4f}.c3{stroke:#8250df}\
polyline{fill:none;stroke-width:2.2}circle{stroke-width:2.2;fill:#fff}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.page,circle{fill:#0d1117}.grid{stroke:#30363d}\
.c0{stroke:#6cb6ff}.c1{stroke:#f0a35e}.c2{stroke:#5fd3a0}.c3{stroke:#c4a7ff}}";

pub(crate) struct Plot {
    pub(crate) title: String,
    /// What is on the axis below, with its unit.
    pub(crate) x: String,
    /// What is on the axis on the left, with its unit.
    pub(crate) y: String,
    pub(crate) curves: Vec<Curve>,
}

pub(crate) struct Curve {
    pub(crate) name: String,
    /// In the order of `x`. A point that is not above 0 on both scales is left out: it has no logarithm.
    pub(crate) points: Vec<(f64, f64)>,
}

impl Plot {
    /// Writes it beside the others, where the README finds it.
    pub(crate) fn save(&self, name: &str) -> io::Result<PathBuf> {
        let path = repository().join("tests/plots").join(name).with_extension("svg");
        fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        fs::write(&path, self.svg())?;
        Ok(path)
    }

    fn svg(&self) -> String {
        let x = Scale::of(self.points().map(|(x, _)| x), LEFT..=WIDTH - RIGHT);
        let y = Scale::of(self.points().map(|(_, y)| y), HEIGHT - BOTTOM..=TOP);
        let (title, below, left) = (escaped(&self.title), escaped(&self.x), escaped(&self.y));
        let mut out = format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}"><style>{STYLE}</style>"#
        );
        out.push_str(r#"<rect class="page" width="100%" height="100%" rx="6"/>"#);
        text(&mut out, (LEFT, TOP - 22.0), r#" class="title""#, &title);
        for tick in x.ticks() {
            let at = x.place(tick);
            line(&mut out, (at, TOP), (at, HEIGHT - BOTTOM));
            text(&mut out, (at, HEIGHT - BOTTOM + 18.0), r#" text-anchor="middle""#, &number(tick));
        }
        for tick in y.ticks() {
            let at = y.place(tick);
            line(&mut out, (LEFT, at), (WIDTH - RIGHT, at));
            text(&mut out, (LEFT - 8.0, at + 4.0), r#" text-anchor="end""#, &number(tick));
        }
        let middle = f64::midpoint(LEFT, WIDTH - RIGHT);
        text(&mut out, (middle, HEIGHT - 12.0), r#" text-anchor="middle""#, &below);
        let middle = f64::midpoint(TOP, HEIGHT - BOTTOM);
        let turned = format!(r#" text-anchor="middle" transform="rotate(-90 16 {middle:.1})""#);
        text(&mut out, (16.0, middle), &turned, &left);
        let mut ends = Vec::new();
        for (at, curve) in self.curves.iter().enumerate() {
            let places: Vec<(f64, f64)> = curve.drawn().map(|(px, py)| (x.place(px), y.place(py))).collect();
            ends.extend(places.last().map(|end| (end.1, curve.name.as_str())));
            draw(&mut out, at % COLOURS, &places);
        }
        for (at, name) in apart(ends) {
            text(&mut out, (WIDTH - RIGHT + 10.0, at + 4.0), "", &escaped(name));
        }
        out.push_str("</svg>\n");
        out
    }

    fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        self.curves.iter().flat_map(Curve::drawn)
    }
}

impl Curve {
    fn drawn(&self) -> impl Iterator<Item = (f64, f64)> {
        self.points.iter().copied().filter(|(x, y)| *x > 0.0 && *y > 0.0)
    }
}

/// Whole powers of ten, drawn from one place to another.
struct Scale {
    powers: RangeInclusive<i32>,
    places: RangeInclusive<f64>,
}

impl Scale {
    /// Holds all values, and one power at least.
    fn of(values: impl Iterator<Item = f64>, places: RangeInclusive<f64>) -> Self {
        let logs = values.map(f64::log10);
        let (low, high) = logs.fold((f64::MAX, f64::MIN), |(low, high), log| (low.min(log), high.max(log)));
        let (low, high) = if low > high { (0.0, 1.0) } else { (low.floor(), high.ceil()) };
        #[expect(clippy::cast_possible_truncation, reason = "the logarithm of a double is small")]
        let (low, high) = (low as i32, high as i32);
        Self { powers: low..=high.max(low + 1), places }
    }

    fn place(&self, value: f64) -> f64 {
        let (low, high) = (f64::from(*self.powers.start()), f64::from(*self.powers.end()));
        let share = (value.log10() - low) / (high - low);
        self.places.start() + share * (self.places.end() - self.places.start())
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        self.powers.clone().map(|power| 10_f64.powi(power))
    }
}

fn draw(out: &mut String, colour: usize, places: &[(f64, f64)]) {
    let _ = write!(out, r#"<polyline class="c{colour}" points=""#);
    for (x, y) in places {
        let _ = write!(out, "{x:.1},{y:.1} ");
    }
    out.push_str(r#""/>"#);
    for (x, y) in places {
        let _ = write!(out, r#"<circle class="c{colour}" cx="{x:.1}" cy="{y:.1}" r="3.5"/>"#);
    }
}

/// From the top, each at least a line below the one before.
fn apart(mut ends: Vec<(f64, &str)>) -> Vec<(f64, &str)> {
    ends.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut free = f64::MIN;
    for (at, _) in &mut ends {
        *at = at.max(free);
        free = *at + LINE;
    }
    ends
}

fn line(out: &mut String, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
    let _ = write!(out, r#"<line class="grid" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#);
}

/// `content` is escaped already.
fn text(out: &mut String, (x, y): (f64, f64), attributes: &str, content: &str) {
    let _ = write!(out, r#"<text x="{x:.1}" y="{y:.1}"{attributes}>{content}</text>"#);
}

/// A power of ten, with commas between thousands.
fn number(power: f64) -> String {
    let digits = power.to_string();
    if power < 1.0 {
        return digits;
    }
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(curves: &[(&str, &[(f64, f64)])]) -> String {
        let curves = curves.iter().map(|(name, points)| Curve { name: (*name).to_owned(), points: points.to_vec() });
        Plot { title: "a < b".into(), x: "polls".into(), y: "ms".into(), curves: curves.collect() }.svg()
    }

    #[test]
    fn the_scales_hold_every_point_and_begin_and_end_with_a_power_of_ten() {
        let scale = Scale::of([23.0, 1_000.0].into_iter(), 0.0..=100.0);
        assert_eq!(scale.ticks().map(number).collect::<Vec<_>>(), ["10", "100", "1,000"]);
        assert_eq!([10.0, 100.0, 1_000.0].map(|value| format!("{:.0}", scale.place(value))), ["0", "50", "100"]);
        let one = Scale::of([1.0].into_iter(), 0.0..=100.0);
        assert_eq!(one.ticks().map(number).collect::<Vec<_>>(), ["1", "10"]);
        let small = Scale::of([0.02].into_iter(), 0.0..=100.0);
        assert_eq!(small.ticks().map(number).collect::<Vec<_>>(), ["0.01", "0.1"]);
        assert_eq!(number(1e6), "1,000,000");
    }

    #[test]
    fn a_curve_is_drawn_and_named_and_what_has_no_logarithm_is_left_out() {
        let svg = plot(&[("ours", &[(10.0, 1.0), (0.0, 5.0), (100.0, f64::NAN), (1_000.0, 10.0)]), ("none", &[])]);
        assert!(svg.contains("a &lt; b") && svg.contains(">ours</text>"), "{svg}");
        assert_eq!(svg.matches("<circle").count(), 2, "{svg}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn names_of_curves_that_end_together_stand_apart() {
        let ends = apart(vec![(100.0, "b"), (99.0, "a"), (200.0, "c")]);
        assert_eq!(ends, [(99.0, "a"), (115.0, "b"), (200.0, "c")]);
    }
}
