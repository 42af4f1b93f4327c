//! `compare`.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use ringfort_loadgen::compare::{self, Comparison, Figures, Options, Spread, Target};
use ringfort_loadgen::load::timeline::Origin;
use ringfort_loadgen::report;

use super::load::{Load, exit, refuse, say, title, write_timeline};

/// Send the same load to two targets or more, in turn, and compare what comes of it.
///
/// Each round gives every target its turn (a b, a b, ...), so that what else the machine does hits all of them. Printed are
/// the medians over the rounds with the smallest and the largest, and the same of each round's ratio to b.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ringfort-loadgen compare --a 127.0.0.1:7001 --b 127.0.0.1:6379
  ringfort-loadgen compare --a ringfort=127.0.0.1:7001 --b redis=127.0.0.1:6379 --cluster --rounds 7 --duration 5s \\
      --mix set --pipeline 64 --pids ringfort=4711,4712,4713 --pids redis=4720")]
pub(super) struct Args {
    /// A target, [NAME=]HOST:PORT
    #[arg(long, value_name = "TARGET", value_parser = target)]
    a: Named,
    /// The one that the others are divided by
    #[arg(long, value_name = "TARGET", value_parser = target)]
    b: Named,
    /// One more
    #[arg(long, value_name = "TARGET", value_parser = target)]
    also: Vec<Named>,
    /// How often each has its turn
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,
    /// Measure also the CPU time of these processes of a target, NAME=PID,PID (on this machine)
    #[arg(long, value_name = "PIDS", value_parser = pids)]
    pids: Vec<(String, Vec<u32>)>,
    #[command(flatten)]
    load: Load,
    /// Write everything to FILE as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// A target with the name that it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Named {
    name: Option<String>,
    address: String,
}

pub(super) fn main(args: Args) -> ExitCode {
    let (json, timeline, html) = (args.json.clone(), args.load.timeline.clone(), args.load.html.clone());
    let options = match args.into_options() {
        Ok(options) => options,
        Err(problem) => {
            let _ = writeln!(std::io::stderr(), "ringfort-loadgen: {problem}");
            return ExitCode::from(2);
        }
    };
    let comparison = match compare::run(&options) {
        Ok(comparison) => comparison,
        Err(error) => return refuse(&error),
    };
    say(&format!("compare {}", heading(&options)), &describe(&comparison));
    let is_json_written = json.is_none_or(|path| super::write_json(&path, &comparison));
    let is_timeline_written = timeline.is_none_or(|path| {
        let rows = comparison.targets.iter().flat_map(|target| {
            target.rounds.iter().zip(1..).flat_map(|(summary, round)| {
                let origin = Origin { target: &target.name, round };
                summary.timeline.iter().map(move |row| (Some(origin), row))
            })
        });
        write_timeline(&path, rows)
    });
    let is_html_written = html.is_none_or(|path| {
        let page = report::of_comparison(&heading(&options), &comparison);
        super::written(&path, |out| out.write_all(page.as_bytes()))
    });
    let answers =
        |target: &compare::Outcome| target.rounds.iter().all(|round| round.operations > round.errors);
    exit(comparison.targets.iter().all(answers) && is_json_written && is_timeline_written && is_html_written)
}

impl Args {
    fn into_options(self) -> Result<Options, String> {
        let Self { a, b, also, rounds, pids, load, .. } = self;
        let named = |named: Named, name: &str| Target {
            name: named.name.unwrap_or_else(|| name.to_owned()),
            address: named.address,
            pids: Vec::new(),
        };
        let mut targets = vec![named(a, "a"), named(b, "b")];
        targets.extend(also.into_iter().map(|target| {
            let name = target.address.clone();
            named(target, &name)
        }));
        for (name, pids) in pids {
            let target = targets.iter_mut().find(|target| target.name == name);
            target.ok_or_else(|| format!("--pids: no target is named {name:?}"))?.pids = pids;
        }
        Ok(Options { load: load.into_options(String::new()), targets, rounds })
    }
}

/// What is compared, in a line.
fn heading(options: &Options) -> String {
    let seconds = options.load.duration.as_secs_f64();
    format!("{}, {} rounds of {seconds} s", title(&options.load), options.rounds)
}

/// A column for each target and each ratio: medians, with the smallest and the largest behind them.
fn describe(comparison: &Comparison) -> String {
    let mut columns =
        vec![["", "op/s", "p50 ms", "p99 ms", "p99.9 ms", "CPU us/op", "errors"].map(str::to_owned)];
    for target in &comparison.targets {
        columns.push(column(&target.name, &target.figures, 0, 0.001, &target.errors.to_string()));
    }
    for ratio in &comparison.ratios {
        columns.push(column(&format!("{} / {}", ratio.of, ratio.to), &ratio.figures, 3, 1.0, ""));
    }
    let width = |column: &[String; 7]| column.iter().map(String::len).max().unwrap_or_default();
    let widths: Vec<_> = columns.iter().map(width).collect();
    let line = |row: usize| {
        let cells = columns.iter().zip(&widths).map(|(column, &width)| format!("{:width$}", column[row]));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    (0..columns[0].len()).map(line).collect::<Vec<_>>().join("\n")
}

fn column(
    name: &str,
    figures: &Figures<Spread>,
    digits: usize,
    latency_scale: f64,
    errors: &str,
) -> [String; 7] {
    let cell = |Spread { median, min, max }: Spread, digits: usize, scale: f64| {
        format!("{:.digits$} ({:.digits$} - {:.digits$})", median * scale, min * scale, max * scale)
    };
    let latency = |spread| cell(spread, 3, latency_scale);
    [
        name.to_owned(),
        cell(figures.ops_per_second, digits, 1.0),
        latency(figures.p50_us),
        latency(figures.p99_us),
        latency(figures.p999_us),
        figures.cpu_us.map_or_else(|| "-".to_owned(), |cpu| cell(cpu, digits.max(2), 1.0)),
        errors.to_owned(),
    ]
}

/// Reads `NAME=host:port` or `host:port`.
fn target(text: &str) -> Result<Named, String> {
    let Some((name, address)) = text.split_once('=') else {
        return Ok(Named { name: None, address: super::address(text)? });
    };
    let is_sign = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.is_empty() || !name.chars().all(is_sign) {
        return Err("a name is made of letters, digits, '.', '_' and '-'".to_owned());
    }
    Ok(Named { name: Some(name.to_owned()), address: super::address(address)? })
}

/// Reads `NAME=PID,PID`.
fn pids(text: &str) -> Result<(String, Vec<u32>), String> {
    const USAGE: &str = "expected NAME=PID,PID, such as a=4711";
    let (name, pids) = text.split_once('=').ok_or(USAGE)?;
    let pids = pids.split(',').map(|pid| pid.parse::<u32>().map_err(|_| USAGE.to_owned()));
    Ok((name.to_owned(), pids.collect::<Result<_, _>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_may_have_names() {
        let named = |name: Option<&str>, address: &str| {
            Ok(Named { name: name.map(str::to_owned), address: address.to_owned() })
        };
        assert_eq!(target("h:1"), named(None, "h:1"));
        assert_eq!(target("redis-7.2=h:1"), named(Some("redis-7.2"), "h:1"));
        for bad in ["", "a", "=h:1", "a b=h:1", "a=h", "a,b=h:1"] {
            assert!(target(bad).is_err(), "{bad}");
        }
        assert_eq!(pids("a=1,2"), Ok(("a".to_owned(), vec![1, 2])));
        for bad in ["a", "a=", "a=x", "a=1,"] {
            assert!(pids(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_column_has_medians_and_spreads() {
        let spread = |median| Spread { median, min: median / 2.0, max: median * 2.0 };
        let figures =
            Figures { ops_per_second: spread(1000.0), p50_us: spread(2000.0), ..Figures::default() };
        let cells = column("a", &figures, 0, 0.001, "7");
        assert_eq!(cells[..3], ["a", "1000 (500 - 2000)", "2.000 (1.000 - 4.000)"]);
        assert_eq!(cells[5..], ["-", "7"], "CPU is not known");
    }
}
