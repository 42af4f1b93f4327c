//! Line charts as SVG: axes, lines, shaded bands. Colours are the page's, by class.

use std::fmt::Write as _;

/// Room for the labels around the plot.
const LEFT: f64 = 64.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 42.0;
/// Room that a label of the horizontal axis takes.
const LABEL: f64 = 64.0;
/// Width of a character, about.
const CHARACTER: f64 = 7.0;

/// A chart.
#[derive(Debug)]
pub(super) struct Chart {
    /// What it shows, for those who do not see it.
    pub(super) label: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) lines: Vec<Line>,
    /// Ranges of x that are shaded.
    pub(super) bands: Vec<(f64, f64)>,
    /// Places on x with a thin line: where a round ends.
    pub(super) marks: Vec<f64>,
}

/// A line, with gaps.
#[derive(Debug)]
pub(super) struct Line {
    /// Classes, of the page's style.
    pub(super) class: String,
    /// Parts of neighbouring points.
    pub(super) parts: Vec<Vec<(f64, f64)>>,
}

/// An axis from `min` to `max`.
#[derive(Debug)]
pub(super) struct Axis {
    pub(super) unit: Unit,
    pub(super) min: f64,
    pub(super) max: f64,
    pub(super) title: &'static str,
}

/// What an axis measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// Seconds, linear.
    Seconds,
    /// Operations a second, linear.
    Rate,
    /// Microseconds, logarithmic.
    Latency,
    /// The part beyond a quantile, logarithmic, from 1 on the left to 0.1, 0.01, ...
    Beyond,
}

impl Axis {
    /// Latencies from the shortest to the longest, rounded to 1, 2 or 5 of a decade.
    pub(super) fn latency(values_us: impl Iterator<Item = f64> + Clone) -> Self {
        let above_0 = values_us.filter(|us| *us > 0.0);
        let min = above_0.clone().fold(f64::INFINITY, f64::min);
        let max = above_0.fold(0.0, f64::max);
        let (min, max) = if min <= max { (min, max) } else { (1.0, 10.0) };
        let min = steps(min).rfind(|step| *step <= min).unwrap_or(min);
        let max = steps(max).find(|step| *step >= max && *step > min).unwrap_or(max);
        Self { unit: Unit::Latency, min, max, title: "" }
    }

    /// Rates from 0.
    pub(super) fn rate(values: impl Iterator<Item = f64>) -> Self {
        let max = values.fold(1.0, f64::max);
        let max = (max / step(max, 5)).ceil() * step(max, 5);
        Self { unit: Unit::Rate, min: 0.0, max, title: "" }
    }

    /// The part of the axis, 0 to 1, where `value` is.
    fn place(&self, value: f64) -> f64 {
        let of = |scale: fn(f64) -> f64| {
            let (min, max) = (scale(self.min), scale(self.max));
            if max == min { 0.0 } else { ((scale(value) - min) / (max - min)).clamp(0.0, 1.0) }
        };
        match self.unit {
            Unit::Seconds | Unit::Rate => of(|value| value),
            Unit::Latency | Unit::Beyond => of(f64::log10),
        }
    }

    /// At most about `count` values with labels.
    fn ticks(&self, count: usize) -> Vec<(f64, String)> {
        let ticks = match self.unit {
            Unit::Seconds | Unit::Rate => {
                let step = step(self.max - self.min, count);
                let first = (self.min / step).ceil() as i64;
                (first..)
                    .map(|n| n as f64 * step)
                    .take_while(|value| *value <= self.max * 1.000_001)
                    .collect()
            }
            Unit::Latency => {
                let within = |value: &f64| (self.min..=self.max).contains(value);
                let all: Vec<f64> = steps(self.min).filter(within).collect();
                if all.len() <= count { all } else { all.into_iter().filter(is_decade).collect() }
            }
            Unit::Beyond => [1.0, 0.5]
                .into_iter()
                .chain((1..).map(|n| 10_f64.powi(-n)))
                .take_while(|beyond| *beyond >= self.max * 0.999)
                .collect::<Vec<_>>(),
        };
        ticks.into_iter().map(|value| (value, self.unit.label(value))).collect()
    }
}

impl Unit {
    /// A value as people write it.
    pub(super) fn label(self, value: f64) -> String {
        match self {
            Self::Seconds => format!("{} s", short(value)),
            Self::Rate if value >= 1e6 => format!("{} M", short(value / 1e6)),
            Self::Rate if value >= 1e3 => format!("{} k", short(value / 1e3)),
            Self::Rate => short(value),
            Self::Latency if value >= 1e6 => format!("{} s", short(value / 1e6)),
            Self::Latency if value >= 1e3 => format!("{} ms", short(value / 1e3)),
            Self::Latency => format!("{} µs", short(value)),
            Self::Beyond => format!("{} %", short(100.0 * (1.0 - value))),
        }
    }
}

/// Six digits at most behind the point, and no zeros at the end.
fn short(value: f64) -> String {
    let text = format!("{value:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// 1, 2 and 5 of the decade below `near`, of its own and of those above.
fn steps(near: f64) -> impl DoubleEndedIterator<Item = f64> {
    let decade = near.log10().floor() as i32;
    (decade - 1..decade + 12).flat_map(|decade| [1.0, 2.0, 5.0].map(|n| n * 10_f64.powi(decade)))
}

fn is_decade(value: &f64) -> bool {
    (value.log10() - value.log10().round()).abs() < 1e-9
}

/// A round distance that divides `range` into at most `count` parts.
fn step(range: f64, count: usize) -> f64 {
    let least = (range / count.max(1) as f64).max(1e-6);
    steps(least).find(|step| *step >= least * 0.999_999).unwrap_or(least)
}

impl Chart {
    /// Draws it in `width` by `height` units, which the page shows as pixels where there is room.
    pub(super) fn svg(&self, class: &str, width: f64, height: f64) -> String {
        let plot_width = width - LEFT - RIGHT;
        let plot_height = height - TOP - BOTTOM;
        let x = |value: f64| LEFT + plot_width * self.x.place(value);
        let y = |value: f64| TOP + plot_height * (1.0 - self.y.place(value));
        let (right, bottom) = (width - RIGHT, height - BOTTOM);
        let mut svg = format!(
            r#"<svg class="{class}" viewBox="0 0 {width} {height}" role="img" aria-label="{}">"#,
            super::escape(&self.label)
        );
        // Writing to a string cannot fail.
        for (begin, end) in &self.bands {
            let (begin, end) = (x(*begin), x(*end));
            let width = (end - begin).max(1.0);
            let _ = write!(
                svg,
                r#"<rect class="band" x="{begin:.1}" y="{TOP}" width="{width:.1}" height="{plot_height}"/>"#
            );
        }
        for (value, label) in self.y.ticks(8) {
            let y = y(value);
            let _ = write!(
                svg,
                r#"<path class="grid" d="M{LEFT} {y:.1}H{right}"/><text class="y" x="{}" y="{:.1}">{label}</text>"#,
                LEFT - 8.0,
                y + 4.0
            );
        }
        // Percentiles come as they are, however narrow: what would run into the label before, or over the edge, has none.
        let mut free = f64::NEG_INFINITY;
        for (value, label) in self.x.ticks((plot_width / LABEL) as usize) {
            let (x, half) = (x(value), CHARACTER * label.chars().count() as f64 / 2.0);
            let _ = write!(svg, r#"<path class="grid" d="M{x:.1} {TOP}V{bottom}"/>"#);
            if x - half >= free && x + half <= width {
                let y = bottom + 17.0;
                let _ = write!(svg, r#"<text class="x" x="{x:.1}" y="{y}">{label}</text>"#);
                free = x + half + CHARACTER;
            }
        }
        for value in &self.marks {
            let _ = write!(svg, r#"<path class="mark" d="M{:.1} {TOP}V{bottom}"/>"#, x(*value));
        }
        let _ = write!(
            svg,
            r#"<text class="x title" x="{:.1}" y="{}">{}</text>"#,
            LEFT + plot_width / 2.0,
            height - 6.0,
            self.x.title
        );
        for line in &self.lines {
            let _ = write!(svg, r#"<path class="line {}" d=""#, line.class);
            for part in &line.parts {
                for (n, (px, py)) in part.iter().enumerate() {
                    let _ = write!(svg, "{}{:.1} {:.1}", if n == 0 { 'M' } else { 'L' }, x(*px), y(*py));
                }
                if part.len() == 1 {
                    // A dot: a path of no length shows by its round ends.
                    svg.push_str("h0");
                }
            }
            svg.push_str(r#""/>"#);
        }
        svg.push_str("</svg>");
        svg
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis, count: usize) -> Vec<String> {
        axis.ticks(count).into_iter().map(|(_, label)| label).collect()
    }

    fn axis(unit: Unit, min: f64, max: f64) -> Axis {
        Axis { unit, min, max, title: "" }
    }

    #[test]
    fn ticks_are_round_and_within_the_axis() {
        assert_eq!(labels(&axis(Unit::Seconds, 0.0, 10.0), 6), ["0 s", "2 s", "4 s", "6 s", "8 s", "10 s"]);
        assert_eq!(labels(&axis(Unit::Seconds, 0.0, 0.3), 3), ["0 s", "0.1 s", "0.2 s", "0.3 s"]);
        let rate = Axis::rate([120_000.0, 380_000.0].into_iter());
        assert_eq!(labels(&rate, 5), ["0", "100 k", "200 k", "300 k", "400 k"]);
        assert_eq!(labels(&Axis::rate(std::iter::empty()), 5).last().map(String::as_str), Some("1"));
        assert_eq!(labels(&axis(Unit::Beyond, 1.0, 0.001), 5), ["0 %", "50 %", "90 %", "99 %", "99.9 %"]);
    }

    #[test]
    fn latencies_have_decades_or_parts_of_them() {
        let narrow = Axis::latency([130.0, 0.0, 1_900.0].into_iter());
        assert_eq!(labels(&narrow, 8), ["100 µs", "200 µs", "500 µs", "1 ms", "2 ms"]);
        let wide = Axis::latency([30.0, 4_000_000.0].into_iter());
        assert_eq!(labels(&wide, 8), ["100 µs", "1 ms", "10 ms", "100 ms", "1 s"]);
        let none = Axis::latency(std::iter::empty());
        assert!(none.min < none.max, "{none:?}");
        let one = Axis::latency([100.0].into_iter());
        assert!(one.min < one.max, "{one:?}");
    }

    #[test]
    fn labels_do_not_run_into_each_other() {
        let chart = |width, beyond| {
            let chart = Chart {
                label: String::new(),
                x: axis(Unit::Beyond, 1.0, beyond),
                y: axis(Unit::Rate, 0.0, 1.0),
                lines: Vec::new(),
                bands: Vec::new(),
                marks: Vec::new(),
            };
            chart.svg("", width, 200.0)
        };
        let (wide, narrow) = (chart(960.0, 5e-7), chart(360.0, 5e-7));
        for label in ["0 %", "50 %", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %", "99.9999 %"] {
            assert!(wide.contains(&format!(">{label}<")), "{label}");
        }
        assert!(narrow.contains(">0 %<") && !narrow.contains(">50 %<"), "{narrow}");
        assert!(!chart(960.0, 1e-6).contains(">99.9999 %<"), "it would run over the edge");
        assert_eq!(wide.matches("grid").count(), narrow.matches("grid").count());
    }

    #[test]
    fn lines_have_their_places_and_gaps() {
        let chart = Chart {
            label: "a < b".to_owned(),
            x: axis(Unit::Seconds, 0.0, 10.0),
            y: axis(Unit::Latency, 1.0, 100.0),
            lines: vec![Line {
                class: "s0".to_owned(),
                parts: vec![vec![(0.0, 1.0), (5.0, 10.0)], vec![(10.0, 1000.0)]],
            }],
            bands: vec![(6.0, 9.0)],
            marks: vec![5.0],
        };
        let svg = chart.svg("wide", LEFT + RIGHT + 100.0, TOP + BOTTOM + 100.0);
        // Half of the logarithm is half of the height; what is beyond the axis stays on its edge.
        assert!(svg.contains(r#"<path class="line s0" d="M64.0 110.0L114.0 60.0M164.0 10.0h0"/>"#), "{svg}");
        assert!(svg.contains(r#"class="band" x="124.0" y="10" width="30.0" height="100""#), "{svg}");
        assert!(svg.contains(r#"aria-label="a &lt; b""#) && svg.ends_with("</svg>"), "{svg}");
    }
}
