//! `compare`: the same load to several targets in turn, round after round, so that what the machine does meanwhile hits all.

use std::io::{self, Write as _};
use std::time::Duration;

use serde::Serialize;

use crate::load::stats::{Counts, Latency, Point};
use crate::load::{self, LoadError, Summary};
use crate::routes::Routes;

/// Most rounds: each keeps its histogram, a quarter of a megabyte.
const ROUNDS_MAX: usize = 100;

/// What to compare.
#[derive(Debug, Clone)]
pub struct Options {
    /// The load; its target does not matter. If it is for a cluster, targets that are none are asked as they are.
    pub load: load::Options,
    /// At least two.
    pub targets: Vec<Target>,
    /// How often each has its turn.
    pub rounds: usize,
}

/// A server to compare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// What reports call it.
    pub name: String,
    /// Address, host:port.
    pub address: String,
    /// Its processes on this machine, whose CPU time is to be measured.
    pub pids: Vec<u32>,
}

/// What came out.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// In the order of the options.
    pub targets: Vec<Outcome>,
    /// Each target but the second, divided by the second.
    pub ratios: Vec<Ratio>,
}

/// What was measured of one target.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: String,
    /// Over the rounds.
    pub figures: Figures<Spread>,
    /// Operations that did not succeed, in all rounds.
    pub errors: u64,
    /// Latencies of all rounds together.
    pub latency: Latency,
    /// Their distribution.
    pub latency_curve: Vec<Point>,
    /// Each round.
    pub rounds: Vec<Summary>,
}

/// How one target did beside another, round by round.
#[derive(Debug, Clone, Serialize)]
pub struct Ratio {
    /// Name of the target.
    pub of: String,
    /// Name of the one that it is divided by.
    pub to: String,
    /// Over the rounds.
    pub figures: Figures<Spread>,
}

/// What is compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Figures<T> {
    /// Operations a second.
    pub ops_per_second: T,
    /// Median latency.
    pub p50_us: T,
    /// 99th percentile.
    pub p99_us: T,
    /// 99.9th percentile.
    pub p999_us: T,
    /// CPU time of the target's processes for each operation, if they are known.
    pub cpu_us: Option<T>,
}

/// A figure over the rounds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Spread {
    /// Median.
    pub median: f64,
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
}

/// Runs the comparison. Blocks.
///
/// # Errors
/// The options are wrong, a target cannot be reached, or one of its processes is not there.
pub fn run(options: &Options) -> Result<Comparison, LoadError> {
    if options.targets.len() < 2 || options.rounds == 0 || options.rounds > ROUNDS_MAX {
        return Err(LoadError::Usage("a comparison needs two targets, and 1 to 100 rounds"));
    }
    let names = options.targets.iter().enumerate();
    for (n, target) in names {
        if options.targets[..n].iter().any(|other| other.name == target.name) {
            return Err(LoadError::Usage("each target needs a name of its own"));
        }
    }
    let mut loads = Vec::new();
    for target in &options.targets {
        let is_cluster = options.load.is_cluster && is_cluster(&target.address)?;
        loads.push(load::Options { target: target.address.clone(), is_cluster, ..options.load.clone() });
    }
    if options.load.is_cluster && !loads.iter().any(|load| load.is_cluster) {
        return Err(LoadError::Usage("no target is a node of a cluster"));
    }
    let mut rounds = vec![Vec::new(); loads.len()];
    for round in 1..=options.rounds {
        for ((target, load), taken) in options.targets.iter().zip(&loads).zip(&mut rounds) {
            if load.progress {
                // A closed standard error is no reason to stop.
                let _ = writeln!(io::stderr(), "round {round} of {}: {}", options.rounds, target.name);
            }
            taken.push(Taken::run(target, load)?);
        }
    }
    let ratios = ratios(options, &rounds);
    let targets = options.targets.iter().zip(rounds).map(|(target, rounds)| Outcome::new(target, rounds));
    Ok(Comparison { targets: targets.collect(), ratios })
}

/// Each target but the second, divided by the second.
fn ratios(options: &Options, rounds: &[Vec<Taken>]) -> Vec<Ratio> {
    let mut ratios = Vec::new();
    for (target, taken) in options.targets.iter().zip(rounds) {
        let base = &options.targets[1];
        if target.name != base.name {
            let divided = taken.iter().zip(&rounds[1]).map(|(a, b)| a.figures.zip(b.figures, |a, b| a / b));
            let figures = Figures::spread(&divided.collect::<Vec<_>>());
            ratios.push(Ratio { of: target.name.clone(), to: base.name.clone(), figures });
        }
    }
    ratios
}

/// Whether a node of a cluster answers there.
fn is_cluster(address: &str) -> Result<bool, LoadError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(LoadError::Start)?;
    Ok(runtime.block_on(Routes::fetch(&[address.to_owned()])).is_ok())
}

/// One round of one target.
#[derive(Debug, Clone)]
struct Taken {
    figures: Figures<f64>,
    summary: Summary,
}

impl Taken {
    fn run(target: &Target, load: &load::Options) -> Result<Self, LoadError> {
        let before = cpu_time(&target.pids)?;
        let summary = load::run(load)?;
        let cpu = cpu_time(&target.pids)?.saturating_sub(before);
        let Latency { p50_us, p99_us, p999_us, .. } = summary.latency;
        let cpu_us = cpu.as_secs_f64() * 1e6 / summary.operations.max(1) as f64;
        let figures = Figures {
            ops_per_second: summary.ops_per_second,
            p50_us,
            p99_us,
            p999_us,
            cpu_us: (!target.pids.is_empty()).then_some(cpu_us),
        };
        Ok(Self { figures, summary })
    }
}

impl Outcome {
    fn new(target: &Target, rounds: Vec<Taken>) -> Self {
        let mut counts = Counts::default();
        for taken in &rounds {
            counts.add(&taken.summary.counts);
        }
        Self {
            name: target.name.clone(),
            address: target.address.clone(),
            figures: Figures::spread(&rounds.iter().map(|taken| taken.figures).collect::<Vec<_>>()),
            errors: counts.failed(),
            latency: counts.latency(),
            latency_curve: counts.curve(),
            rounds: rounds.into_iter().map(|taken| taken.summary).collect(),
        }
    }
}

impl Figures<f64> {
    fn zip(self, other: Self, f: fn(f64, f64) -> f64) -> Self {
        Self {
            ops_per_second: f(self.ops_per_second, other.ops_per_second),
            p50_us: f(self.p50_us, other.p50_us),
            p99_us: f(self.p99_us, other.p99_us),
            p999_us: f(self.p999_us, other.p999_us),
            cpu_us: self.cpu_us.zip(other.cpu_us).map(|(a, b)| f(a, b)),
        }
    }
}

impl Figures<Spread> {
    fn spread(rounds: &[Figures<f64>]) -> Self {
        let of = |figure: fn(&Figures<f64>) -> f64| Spread::of(rounds.iter().map(figure));
        let has_cpu = rounds.iter().all(|round| round.cpu_us.is_some());
        Self {
            ops_per_second: of(|round| round.ops_per_second),
            p50_us: of(|round| round.p50_us),
            p99_us: of(|round| round.p99_us),
            p999_us: of(|round| round.p999_us),
            cpu_us: has_cpu.then(|| of(|round| round.cpu_us.unwrap_or_default())),
        }
    }
}

impl Spread {
    /// Of figures that can be compared; of none, or of no number among them, all is 0.
    fn of(figures: impl Iterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = figures.collect();
        sorted.sort_by(f64::total_cmp);
        let (Some(&min), Some(&max)) = (sorted.first(), sorted.last()) else { return Self::default() };
        if !sorted.iter().all(|figure| figure.is_finite()) {
            return Self::default();
        }
        let half = sorted.len() / 2;
        let median =
            if sorted.len() % 2 == 1 { sorted[half] } else { f64::midpoint(sorted[half - 1], sorted[half]) };
        Self { median, min, max }
    }
}

/// User and system time of processes so far, with the kernel's precision of a tick (10 ms).
fn cpu_time(pids: &[u32]) -> Result<Duration, LoadError> {
    let mut ticks = 0;
    for &pid in pids {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        let stat = stat.map_err(|source| LoadError::Process { pid, source })?;
        ticks += cpu_ticks(&stat).ok_or_else(|| LoadError::Process {
            pid,
            source: io::Error::other("unknown form of its stat"),
        })?;
    }
    Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}

/// The sum of utime and stime, fields 14 and 15; the name, field 2, may hold blanks and parentheses.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_are_medians_with_their_bounds() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0].into_iter()), Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(Spread::of([4.0, 1.0].into_iter()), Spread { median: 2.5, min: 1.0, max: 4.0 });
        assert_eq!(Spread::of(std::iter::empty()), Spread::default());
        assert_eq!(Spread::of([1.0, f64::INFINITY].into_iter()), Spread::default());
    }

    #[test]
    fn cpu_time_is_read_whatever_the_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 1 2 3 4 120 30 5 6 20 0 9 0 1";
        assert_eq!(cpu_ticks(stat), Some(150));
        assert_eq!(cpu_ticks("7 (a) S 1"), None);
        assert!(cpu_time(&[std::process::id()]).is_ok());
        assert!(matches!(cpu_time(&[u32::MAX]), Err(LoadError::Process { .. })));
    }

    #[test]
    fn cpu_is_compared_when_it_is_known_of_both() {
        let known = Figures { ops_per_second: 1.0, cpu_us: Some(2.0), ..Figures::default() };
        let unknown = Figures { cpu_us: None, ..known };
        assert_eq!(known.zip(known, |a, b| a / b).cpu_us, Some(1.0));
        assert_eq!(known.zip(unknown, |a, b| a / b).cpu_us, None);
        assert_eq!(Figures::spread(&[known, unknown]).cpu_us, None);
        assert_eq!(Figures::spread(&[known, known]).cpu_us.map(|cpu| cpu.max), Some(2.0));
    }
}
