//! Line charts as SVG. Colours and type come from the page's style sheet.

use std::fmt::Write;

/// The drawing, in its own units.
const WIDTH: f64 = 520.0;
const WIDE: f64 = 1072.0;
const HEIGHT: f64 = 210.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 26.0;
/// Stretches that a long curve is cut into, each shown by its lowest and highest point.
const STRETCHES: usize = 260;

/// A point: step and value.
pub(super) type Point = (f64, f64);

/// A chart over steps.
#[derive(Debug, Default)]
pub(super) struct Chart {
    pub(super) title: &'static str,
    /// What it means, for a reader who does not know.
    pub(super) note: String,
    pub(super) series: Vec<Series>,
    /// Takes a whole row.
    pub(super) wide: bool,
    /// Values that the vertical axis shows at least.
    pub(super) covers: Vec<f64>,
    pub(super) unit: Unit,
    /// A value to compare with, and its name.
    pub(super) reference: Option<(f64, String)>,
    /// Steps at which another world took over.
    pub(super) breaks: Vec<f64>,
}

/// One curve.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) name: &'static str,
    pub(super) points: Vec<Point>,
    pub(super) look: Look,
}

/// How a curve is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    Line,
    /// A line with a dot at every point, for values measured now and then.
    Dotted,
}

/// What values are shown as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Unit {
    #[default]
    Number,
    Percent,
}

impl Unit {
    /// A value with `digits` behind the point.
    fn show(self, value: f64, digits: usize) -> String {
        match self {
            Self::Number => format!("{value:.digits$}"),
            Self::Percent => format!("{:.*} %", digits.saturating_sub(2), 100.0 * value),
        }
    }

    /// A single value, with three significant digits.
    pub(super) fn value(self, value: f64) -> String {
        match self {
            Self::Number => significant(value),
            Self::Percent => format!("{:.1} %", 100.0 * value),
        }
    }
}

/// A number with three significant digits, or all that stand before the point; small ones as 1.23e-6.
pub(super) fn significant(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return format!("{value}");
    }
    #[expect(clippy::cast_possible_truncation, reason = "exponents of f64 are small")]
    let exponent = value.abs().log10().floor() as i32;
    if exponent < -3 {
        return format!("{value:.2e}");
    }
    let digits = usize::try_from(2 - exponent).unwrap_or(0);
    format!("{value:.digits$}")
}

/// From values to the drawing.
#[derive(Debug, Clone, Copy)]
struct Scale {
    width: f64,
    last_step: f64,
    low: f64,
    high: f64,
}

impl Scale {
    fn x(self, step: f64) -> f64 {
        LEFT + (self.width - LEFT - RIGHT) * step / self.last_step
    }

    fn y(self, value: f64) -> f64 {
        let share = (value - self.low) / (self.high - self.low);
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share
    }
}

impl Chart {
    /// Is there nothing to draw?
    pub(super) fn is_empty(&self) -> bool {
        self.series.iter().all(|series| series.points.is_empty())
    }

    /// The figure; nothing where there is no point.
    pub(super) fn figure(&self, last_step: f64) -> String {
        if self.is_empty() {
            return String::new();
        }
        let (width, class) = if self.wide { (WIDE, "chart wide") } else { (WIDTH, "chart") };
        let (ticks, digits) = self.ticks();
        let (low, high) = (ticks[0], ticks[ticks.len() - 1]);
        let scale = Scale { width, last_step: last_step.max(1.0), low, high };
        let mut svg = self.grid(scale, &ticks, digits);
        for (index, series) in self.series.iter().enumerate() {
            svg += &curve(series, index + 1, scale);
        }
        format!(
            "<figure class=\"{class}\"><figcaption><h3>{title}</h3>{legend}<p>{note}</p></figcaption>\n\
             <svg viewBox=\"0 0 {width} {HEIGHT}\" role=\"img\" aria-label=\"{title} over steps\">\n{svg}</svg></figure>\n",
            title = self.title,
            legend = self.legend(),
            note = self.note,
        )
    }

    /// Last values, each in the colour of its curve.
    fn legend(&self) -> String {
        let mut html = String::from("<ul class=\"legend\">");
        for (index, series) in self.series.iter().enumerate() {
            if let Some((_, last)) = series.points.last() {
                let (class, value) = (index + 1, self.unit.value(*last));
                write!(html, "<li class=\"s{class}\">{} <b>{value}</b></li>", series.name)
                    .expect("strings take all");
            }
        }
        html + "</ul>"
    }

    fn ticks(&self) -> (Vec<f64>, usize) {
        let points = self.series.iter().flat_map(|series| &series.points);
        let reference = self.reference.as_ref().map(|(value, _)| *value);
        let values =
            points.map(|(_, value)| *value).chain(self.covers.iter().copied()).chain(reference);
        let (low, high) = values
            .filter(|value| value.is_finite())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
                (low.min(value), high.max(value))
            });
        ticks(low, high)
    }

    fn grid(&self, scale: Scale, ticks: &[f64], digits: usize) -> String {
        let (right, base) = (scale.width - RIGHT, HEIGHT - BOTTOM);
        let mut parts = Vec::new();
        for tick in ticks {
            let (y, label) = (scale.y(*tick), self.unit.show(*tick, digits));
            parts.push(format!(
                "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/>\
                 <text class=\"tick y\" x=\"{:.1}\" y=\"{:.1}\">{label}</text>\n",
                LEFT - 8.0,
                y + 3.5
            ));
        }
        for step in step_ticks(scale.last_step) {
            let (x, y) = (scale.x(step), base + 18.0);
            parts.push(format!("<text class=\"tick x\" x=\"{x:.1}\" y=\"{y:.1}\">{step}</text>\n"));
        }
        for step in &self.breaks {
            let x = scale.x(*step);
            parts.push(format!(
                "<path class=\"break\" d=\"M{x:.1} {TOP}V{base}\"><title>a new world at step {step}</title></path>\n"
            ));
        }
        if let Some((value, name)) = &self.reference {
            let y = scale.y(*value);
            parts.push(format!(
                "<path class=\"reference\" d=\"M{LEFT} {y:.1}H{right}\"/>\
                 <text class=\"name\" x=\"{right}\" y=\"{:.1}\">{name}</text>\n",
                y - 5.0
            ));
        }
        parts.concat()
    }
}

fn curve(series: &Series, class: usize, scale: Scale) -> String {
    let points = thinned(&series.points);
    let mut path = String::new();
    for (index, (step, value)) in points.iter().enumerate() {
        let command = if index == 0 { 'M' } else { 'L' };
        write!(path, "{command}{:.1} {:.1}", scale.x(*step), scale.y(*value))
            .expect("strings take all");
    }
    let mut parts = vec![format!("<path class=\"curve s{class}\" d=\"{path}\"/>\n")];
    if series.look == Look::Dotted {
        for (step, value) in &points {
            let (x, y) = (scale.x(*step), scale.y(*value));
            parts.push(format!(
                "<circle class=\"dot s{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.2\"/>\n"
            ));
        }
    }
    parts.concat()
}

/// The lowest and the highest point of every stretch: no peak is lost, and the file stays small.
fn thinned(points: &[Point]) -> Vec<Point> {
    let finite: Vec<Point> =
        points.iter().copied().filter(|(_, value)| value.is_finite()).collect();
    if finite.len() <= 2 * STRETCHES {
        return finite;
    }
    let mut kept = Vec::with_capacity(2 * STRETCHES);
    for stretch in finite.chunks(finite.len().div_ceil(STRETCHES)) {
        let by_value = |a: &&Point, b: &&Point| a.1.total_cmp(&b.1);
        let ends = stretch.iter().min_by(by_value).zip(stretch.iter().max_by(by_value));
        let (low, high) = ends.expect("chunks are not empty");
        kept.extend(if low.0 <= high.0 { [*low, *high] } else { [*high, *low] });
    }
    kept
}

/// Round values that include `low` and `high`, and the digits they need.
fn ticks(low: f64, high: f64) -> (Vec<f64>, usize) {
    let span = if high > low { high - low } else { high.abs().max(1.0) };
    let step = round_step(span / 4.0);
    let first = (low / step + 1e-9).floor();
    let last = (high / step - 1e-9).ceil().max(first + 1.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few ticks")]
    let count = (last - first) as u32;
    #[expect(clippy::cast_possible_truncation, reason = "exponents of f64 are small")]
    let exponent = step.log10().floor() as i32;
    // 2.5 needs one digit more than 2.
    let quarter = usize::from((step / 10_f64.powi(exponent) - 2.5).abs() < 0.1);
    let digits = usize::try_from(-exponent).unwrap_or(0) + quarter * usize::from(exponent <= 0);
    ((0..=count).map(|index| (first + f64::from(index)) * step).collect(), digits)
}

/// The least of 1, 2, 2.5 and 5 times a power of ten that is not below `step`.
fn round_step(step: f64) -> f64 {
    let power = 10_f64.powf(step.log10().floor());
    let factors = [1.0, 2.0, 2.5, 5.0];
    let fitting = factors.into_iter().find(|factor| factor * power >= step * 0.999);
    fitting.unwrap_or(10.0) * power
}

/// Whole steps to name below the chart, the last one too unless it would touch its neighbour.
fn step_ticks(last_step: f64) -> Vec<f64> {
    let spacing = round_step(last_step / 5.0).max(1.0).ceil();
    let mut ticks: Vec<f64> = std::iter::successors(Some(0.0), |step| Some(step + spacing))
        .take_while(|step| *step <= last_step - spacing * 0.6)
        .collect();
    ticks.push(last_step);
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_include_both_ends() {
        let shown = |low, high| {
            let (ticks, digits) = ticks(low, high);
            ticks.into_iter().map(|tick| Unit::Number.show(tick, digits)).collect::<Vec<_>>()
        };
        assert_eq!(shown(0.0, 7.9), ["0", "2", "4", "6", "8"]);
        assert_eq!(shown(0.0, 0.0883), ["0.000", "0.025", "0.050", "0.075", "0.100"]);
        assert_eq!(shown(0.99, 1.0), ["0.9900", "0.9925", "0.9950", "0.9975", "1.0000"]);
        assert_eq!(shown(3.0, 3.0), ["3", "4"]);
        assert_eq!(shown(0.0, 0.0), ["0.00", "0.25"]);
        assert_eq!(shown(120.0, 980.0), ["0", "250", "500", "750", "1000"]);
    }

    #[test]
    fn the_last_step_is_named() {
        assert_eq!(step_ticks(312.0), [0.0, 100.0, 200.0, 312.0]);
        assert_eq!(step_ticks(1.0), [0.0, 1.0]);
        assert_eq!(step_ticks(20.0), [0.0, 5.0, 10.0, 15.0, 20.0]);
        assert_eq!(step_ticks(3_125.0).last(), Some(&3_125.0));
    }

    #[test]
    fn thinning_keeps_the_order_and_every_peak() {
        let value = |step: u32| if step == 31_234 { 9.0 } else { f64::from(step % 7) };
        let points: Vec<Point> = (0..100_000).map(|step| (f64::from(step), value(step))).collect();
        let thin = thinned(&points);
        assert!(thin.len() <= 2 * STRETCHES);
        assert!(thin.contains(&(31_234.0, 9.0)));
        assert!(thin.is_sorted_by(|a, b| a.0 <= b.0));
    }

    #[test]
    fn numbers_show_three_digits() {
        let shown = [0.0, 0.1, 12.345, 1_234.5, 0.012_345, 0.000_000_1].map(significant);
        assert_eq!(shown, ["0", "0.100", "12.3", "1234", "0.0123", "1.00e-7"]);
    }

    #[test]
    fn a_chart_without_points_is_left_out_and_values_that_are_no_numbers_too() {
        let mut chart = Chart { title: "Loss", ..Chart::default() };
        assert_eq!(chart.figure(10.0), "");
        let points = vec![(0.0, 1.0), (1.0, f64::NAN), (2.0, 3.0)];
        chart.series.push(Series { name: "loss", points, look: Look::Line });
        let figure = chart.figure(2.0);
        assert!(!figure.contains("NaN"), "{figure}");
    }
}
