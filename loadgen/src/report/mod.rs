//! A report as one HTML file that needs nothing else: a table, latencies by percentile, throughput and latencies over time.

mod chart;

use std::fmt::Write as _;

use crate::compare::{Comparison, Figures, Spread};
use crate::load::Summary;
use crate::load::stats::{Latency, Point};
use crate::load::timeline::Row;
use chart::{Axis, Chart, Line, Unit};

/// Points of a line over time at most; more rows are drawn together.
const POINTS_MAX: usize = 600;
/// Colours of the page.
const COLOURS: usize = 6;
/// Sizes of charts: the whole width, half of it, and that of a phone.
const WIDE: (f64, f64) = (960.0, 300.0);
const HALF: (f64, f64) = (470.0, 280.0);
const NARROW: (f64, f64) = (360.0, 260.0);
/// Where the percentiles' axis begins to make sense.
const BEYOND_MAX: f64 = 0.1;

/// The report of one run, `title` being what was sent.
pub fn of_run(title: &str, target: &str, summary: &Summary) -> String {
    let series = Series {
        name: target,
        address: target,
        latency: &summary.latency,
        curve: &summary.latency_curve,
        figures: None,
        errors: summary.counts.failed(),
        runs: vec![summary],
    };
    page("Load", title, &[series], None)
}

/// The report of a comparison, `title` being what was sent.
pub fn of_comparison(title: &str, comparison: &Comparison) -> String {
    let series: Vec<_> = comparison
        .targets
        .iter()
        .map(|target| Series {
            name: &target.name,
            address: &target.address,
            latency: &target.latency,
            curve: &target.latency_curve,
            figures: Some(&target.figures),
            errors: target.errors,
            runs: target.rounds.iter().collect(),
        })
        .collect();
    page("Comparison", title, &series, Some(comparison))
}

/// One target.
#[derive(Debug)]
struct Series<'a> {
    name: &'a str,
    address: &'a str,
    latency: &'a Latency,
    curve: &'a [Point],
    /// Of a comparison.
    figures: Option<&'a Figures<Spread>>,
    errors: u64,
    runs: Vec<&'a Summary>,
}

impl Series<'_> {
    /// The rows of all rounds, one after the other on one clock that stands still between them.
    fn rows(&self) -> Vec<Row> {
        let mut before = 0.0;
        let mut rows = Vec::new();
        for run in &self.runs {
            rows.extend(run.timeline.iter().map(|row| Row { at_s: before + row.at_s, ..*row }));
            before = rows.last().map_or(before, |row| row.at_s);
        }
        rows.chunks(rows.len().div_ceil(POINTS_MAX).max(1)).map(joined).collect()
    }

    /// Where rounds end, but for the last.
    fn ends(&self) -> Vec<f64> {
        let mut at = 0.0;
        let lengths = self.runs.iter().map(|run| run.timeline.last().map_or(0.0, |row| row.at_s));
        let mut ends: Vec<f64> = lengths
            .map(|length| {
                at += length;
                at
            })
            .collect();
        ends.pop();
        ends
    }
}

/// Several rows as one: of the latencies the longest.
fn joined(rows: &[Row]) -> Row {
    let mut joined = rows.last().copied().unwrap_or_default();
    for row in rows.iter().rev().skip(1) {
        joined.seconds += row.seconds;
        joined.operations += row.operations;
        joined.succeeded += row.succeeded;
        joined.errors += row.errors;
        joined.p50_us = joined.p50_us.max(row.p50_us);
        joined.p99_us = joined.p99_us.max(row.p99_us);
        joined.max_us = joined.max_us.max(row.max_us);
    }
    joined
}

fn page(kind: &str, title: &str, series: &[Series<'_>], comparison: Option<&Comparison>) -> String {
    let rows: Vec<_> = series.iter().map(Series::rows).collect();
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\">\n<title>{kind}: {title}</title>\n<style>\n{}</style>\n<h1>{kind}: \
         {title}</h1>\n",
        include_str!("page.css"),
        title = escape(title),
    );
    html.push_str(&targets_table(series));
    if let Some(comparison) = comparison {
        html.push_str(&ratios_table(comparison));
    }
    html.push_str("<h2>Latency by percentile</h2>\n");
    html.push_str(&legend(series));
    html.push_str(&drawn(&percentiles(series), "wide", WIDE));
    html.push_str("<h2>Throughput over time</h2>\n");
    html.push_str(&legend(series));
    html.push_str(&drawn(&throughput(series, &rows), "wide", WIDE));
    html.push_str("<h2>Latency over time</h2>\n");
    html.push_str(&latencies(series, &rows));
    html.push_str(&notes(series, comparison.is_some()));
    html
}

fn targets_table(series: &[Series<'_>]) -> String {
    let has_cpu = series.iter().any(|series| series.figures.is_some_and(|figures| figures.cpu_us.is_some()));
    let mut html = "<div class=\"scroll\"><table><thead><tr><th>Latency in ms</th><th>op/s</th><th>errors</th><th>mean</th>\
                    <th>p50</th><th>p90</th><th>p99</th><th>p99.9</th><th>p99.99</th><th>max</th>"
        .to_owned();
    if has_cpu {
        html.push_str("<th>CPU µs/op</th>");
    }
    html.push_str("</tr></thead><tbody>\n");
    for series in series {
        let _ = write!(html, "<tr><th>{}</th>", escape(series.name));
        match (series.figures, &series.runs[..]) {
            (Some(figures), _) => html.push_str(&spread_cell(Some(figures.ops_per_second), 0)),
            (None, runs) => {
                let rate: f64 = runs.iter().map(|run| run.ops_per_second).sum();
                let _ = write!(html, "<td>{rate:.0}</td>");
            }
        }
        let bad = if series.errors > 0 { " class=\"bad\"" } else { "" };
        let _ = write!(html, "<td{bad}>{}</td>", series.errors);
        let Latency { mean_us, p50_us, p90_us, p99_us, p999_us, p9999_us, max_us } = series.latency;
        for us in [mean_us, p50_us, p90_us, p99_us, p999_us, p9999_us, max_us] {
            let _ = write!(html, "<td>{:.3}</td>", us / 1000.0);
        }
        if has_cpu {
            html.push_str(&spread_cell(series.figures.and_then(|figures| figures.cpu_us), 2));
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody></table></div>\n");
    html
}

fn ratios_table(comparison: &Comparison) -> String {
    let has_cpu = comparison.ratios.iter().any(|ratio| ratio.figures.cpu_us.is_some());
    let mut html = "<div class=\"scroll\"><table><thead><tr><th>Ratio</th><th>op/s</th><th>p50</th><th>p99</th><th>p99.9</th>"
        .to_owned();
    html.push_str(if has_cpu { "<th>CPU</th>" } else { "" });
    html.push_str("</tr></thead><tbody>\n");
    for ratio in &comparison.ratios {
        let _ = write!(html, "<tr><th>{} / {}</th>", escape(&ratio.of), escape(&ratio.to));
        let Figures { ops_per_second, p50_us, p99_us, p999_us, cpu_us } = ratio.figures;
        for spread in [ops_per_second, p50_us, p99_us, p999_us] {
            html.push_str(&spread_cell(Some(spread), 3));
        }
        if has_cpu {
            html.push_str(&spread_cell(cpu_us, 3));
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody></table></div>\n");
    html
}

/// A median with its bounds below, if it is known.
fn spread_cell(spread: Option<Spread>, digits: usize) -> String {
    let Some(Spread { median, min, max }) = spread else { return "<td>-</td>".to_owned() };
    format!("<td>{median:.digits$}<small>{min:.digits$} – {max:.digits$}</small></td>")
}

/// Names and colours of the targets; of one alone nothing.
fn legend(series: &[Series<'_>]) -> String {
    if series.len() < 2 {
        return String::new();
    }
    let mut html = "<ul class=\"legend\">".to_owned();
    for (n, series) in series.iter().enumerate() {
        let _ = write!(html, "<li>{}{}</li>", swatch(&colour(n)), escape(series.name));
    }
    html.push_str("</ul>\n");
    html
}

fn swatch(class: &str) -> String {
    format!(
        "<svg viewBox=\"0 0 30 10\" aria-hidden=\"true\"><path class=\"line {class}\" d=\"M1 5H29\"/></svg>"
    )
}

fn colour(n: usize) -> String {
    format!("s{}", n % COLOURS)
}

/// A chart in two widths, of which the page shows the one that fits.
fn drawn(chart: &Chart, class: &str, (width, height): (f64, f64)) -> String {
    format!("{}\n{}\n", chart.svg(class, width, height), chart.svg("narrow", NARROW.0, NARROW.1))
}

fn percentiles(series: &[Series<'_>]) -> Chart {
    let points = || series.iter().flat_map(|series| series.curve);
    let rarest = points().map(|point| point.beyond).fold(BEYOND_MAX, f64::min);
    Chart {
        label: "Latency by percentile, both axes logarithmic".to_owned(),
        x: Axis { unit: Unit::Beyond, min: 1.0, max: rarest, title: "percentile" },
        y: Axis::latency(points().map(|point| point.us)),
        lines: series
            .iter()
            .enumerate()
            .map(|(n, series)| Line {
                class: colour(n),
                parts: vec![series.curve.iter().map(|point| (point.beyond, point.us)).collect()],
            })
            .collect(),
        bands: Vec::new(),
        marks: Vec::new(),
    }
}

/// Operations a second that succeeded.
fn rate(row: &Row) -> f64 {
    row.succeeded as f64 / row.seconds.max(1e-9)
}

fn throughput(series: &[Series<'_>], rows: &[Vec<Row>]) -> Chart {
    let lines = rows.iter().enumerate().map(|(n, rows)| {
        // In the middle of its row.
        let points = rows.iter().map(|row| (row.at_s - row.seconds / 2.0, rate(row))).collect();
        Line { class: colour(n), parts: vec![points] }
    });
    Chart {
        label: "Operations that succeeded, each second, over time".to_owned(),
        x: time(rows.iter().flatten()),
        y: Axis::rate(rows.iter().flatten().map(rate)),
        lines: lines.collect(),
        bands: if rows.len() == 1 {
            rows.first().map_or_else(Vec::new, |rows| outages(rows))
        } else {
            Vec::new()
        },
        marks: series.first().map_or_else(Vec::new, Series::ends),
    }
}

fn time<'a>(rows: impl Iterator<Item = &'a Row>) -> Axis {
    let max = rows.map(|row| row.at_s).fold(0.1, f64::max);
    Axis { unit: Unit::Seconds, min: 0.0, max, title: "time" }
}

/// Where nothing succeeded, neighbours as one.
fn outages(rows: &[Row]) -> Vec<(f64, f64)> {
    let mut outages: Vec<(f64, f64)> = Vec::new();
    for row in rows.iter().filter(|row| row.is_outage()) {
        let begin = row.at_s - row.seconds;
        match outages.last_mut() {
            Some((_, end)) if begin - *end < 1e-6 => *end = row.at_s,
            _ => outages.push((begin, row.at_s)),
        }
    }
    outages
}

/// Of each target a chart of its own, all with the same axes.
fn latencies(series: &[Series<'_>], rows: &[Vec<Row>]) -> String {
    let has_outages = rows.iter().flatten().any(Row::is_outage);
    let mut html = "<ul class=\"legend\">".to_owned();
    for Kind { class, name, .. } in LATENCIES {
        let _ = write!(html, "<li>{}{name}</li>", swatch(&format!("ink {class}")));
    }
    if has_outages {
        html.push_str("<li><span class=\"box\"></span>nothing succeeded</li>");
    }
    html.push_str("</ul>\n");
    let is_alone = series.len() == 1;
    if !is_alone {
        html.push_str("<div class=\"side\">\n");
    }
    for (n, (series, own)) in series.iter().zip(rows).enumerate() {
        let chart = Chart {
            label: format!(
                "Latency of {} over time: median, 99th percentile, longest; logarithmic",
                series.name
            ),
            x: time(rows.iter().flatten()),
            y: Axis::latency(
                rows.iter()
                    .flatten()
                    .flat_map(|row| [row.p50_us, row.max_us])
                    .collect::<Vec<_>>()
                    .into_iter(),
            ),
            lines: LATENCIES
                .map(|Kind { class, of, .. }| Line {
                    class: format!("{} {class}", colour(n)),
                    parts: parts(own, of),
                })
                .into(),
            bands: outages(own),
            marks: series.ends(),
        };
        if is_alone {
            html.push_str(&drawn(&chart, "wide", WIDE));
        } else {
            let _ = write!(
                html,
                "<div><h3>{}</h3>\n{}</div>\n",
                escape(series.name),
                drawn(&chart, "half", HALF)
            );
        }
    }
    if !is_alone {
        html.push_str("</div>\n");
    }
    html
}

/// A line of the latencies over time.
struct Kind {
    class: &'static str,
    name: &'static str,
    of: fn(&Row) -> f64,
}

const LATENCIES: [Kind; 3] = [
    Kind { class: "p50", name: "median", of: |row| row.p50_us },
    Kind { class: "p99", name: "99th percentile", of: |row| row.p99_us },
    Kind { class: "max", name: "longest", of: |row| row.max_us },
];

/// The points of a line, without those rows that had no answer.
fn parts(rows: &[Row], of: fn(&Row) -> f64) -> Vec<Vec<(f64, f64)>> {
    let point = |row: &Row| (row.at_s - row.seconds / 2.0, of(row));
    let parts = rows.split(|row| row.operations == 0);
    parts.filter(|part| !part.is_empty()).map(|part| part.iter().map(point).collect()).collect()
}

fn notes(series: &[Series<'_>], is_comparison: bool) -> String {
    let is_open = series.iter().flat_map(|series| &series.runs).any(|run| run.counts.due > 0);
    let mut html = "<h2>How it was measured</h2>\n<p>".to_owned();
    html.push_str(if is_open {
        "Open loop: requests leave at their scheduled time whether or not answers came, and latency counts from then, so that \
         a stall shows in full."
    } else {
        "Closed loop: each client sends a batch, takes its replies, sends the next; latency counts from the sending of the \
         batch. Requests that a slow server keeps from being sent are not in it."
    });
    html.push_str(" Over time, an operation counts when its answer comes.</p>\n");
    if is_comparison {
        html.push_str(
            "<p>The targets had the same load in turn, round by round; thin upright lines are the ends of rounds. Percentiles \
             are of all rounds together; op/s, CPU and ratios are medians of the rounds, with the smallest and the largest.</p>\n",
        );
    }
    for series in series {
        let operations: u64 = series.runs.iter().map(|run| run.operations).sum();
        let seconds: f64 = series.runs.iter().map(|run| run.seconds).sum();
        let cpu: f64 = series.runs.iter().map(|run| run.generator_cpu_us * run.operations as f64).sum();
        let _ = writeln!(
            html,
            "<p>{}: {operations} operations in {seconds:.1} s; the load generator itself took {:.2} µs of CPU for each.</p>",
            escape(series.address),
            cpu / operations.max(1) as f64,
        );
        if let Some(error) = series.runs.iter().find_map(|run| run.first_error.as_ref()) {
            let _ = writeln!(html, "<p>First error: {}</p>", escape(error));
        }
    }
    let _ = writeln!(html, "<p>ringfort-loadgen {}</p>", env!("CARGO_PKG_VERSION"));
    html
}

/// Text for HTML.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(at_s: f64, operations: u64) -> Row {
        let (p50_us, p99_us, max_us) = (100.0, 200.0, 300.0);
        Row {
            at_s,
            seconds: 1.0,
            operations,
            succeeded: operations,
            p50_us,
            p99_us,
            max_us,
            ..Row::default()
        }
    }

    fn summary(rows: &[Row]) -> Summary {
        let mut summary = Summary { timeline: rows.to_vec(), ..Summary::default() };
        summary.counts.record(100_000, 10);
        summary.latency = summary.counts.latency();
        summary.latency_curve = summary.counts.curve();
        summary
    }

    #[test]
    fn a_report_needs_nothing_but_itself() {
        let mut summary = summary(&[row(1.0, 5), row(2.0, 0), row(3.0, 5)]);
        summary.first_error = Some("ERR <script>".to_owned());
        let html = of_run("get \"quoted\" & <b>", "127.0.0.1:1", &summary);
        assert!(
            html.starts_with("<!doctype html>") && html.contains("get &quot;quoted&quot; &amp; &lt;b&gt;")
        );
        assert!(html.contains("ERR &lt;script&gt;"));
        for outside in ["http:", "https:", "src=", "@import", "url(", "<script"] {
            assert!(!html.contains(outside), "{outside}");
        }
        assert_eq!(html.matches("class=\"band\"").count(), 4, "two charts over time, in two widths");
        assert_eq!(html.matches("<svg class=\"wide\"").count(), 3);
        assert!(!html.contains("NaN") && !html.contains("inf"), "{html}");
    }

    #[test]
    fn an_empty_run_has_a_report_too() {
        let html = of_run("get", "127.0.0.1:1", &Summary::default());
        assert!(!html.contains("NaN") && !html.contains("inf"), "{html}");
    }

    #[test]
    fn rounds_follow_each_other_and_long_runs_are_drawn_together() {
        let (first, second) = (summary(&[row(1.0, 5), row(2.0, 5)]), summary(&[row(1.0, 7)]));
        let mut series = Series {
            name: "a",
            address: "h:1",
            latency: &first.latency,
            curve: &first.latency_curve,
            figures: None,
            errors: 0,
            runs: vec![&first, &second],
        };
        let places: Vec<_> = series.rows().iter().map(|row| (row.at_s, row.operations)).collect();
        assert_eq!(places, [(1.0, 5), (2.0, 5), (3.0, 7)]);
        assert_eq!(series.ends(), [2.0]);

        let long: Vec<_> = (1..=1500).map(|n| row(f64::from(n), 2)).collect();
        let long = summary(&long);
        series.runs = vec![&long];
        let rows = series.rows();
        assert_eq!((rows.len(), rows[0].operations, rows[0].at_s), (500, 6, 3.0));
        assert!((rows[0].seconds - 3.0).abs() < 1e-9);
    }

    #[test]
    fn outages_are_one_while_they_last_and_break_lines() {
        let rows = [row(1.0, 5), row(2.0, 0), row(3.0, 0), row(4.0, 5), row(5.0, 0)];
        assert_eq!(outages(&rows), [(1.0, 3.0), (4.0, 5.0)]);
        assert_eq!(parts(&rows, |row| row.p50_us), [vec![(0.5, 100.0)], vec![(3.5, 100.0)]]);
    }
}
