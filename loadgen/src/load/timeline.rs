//! What happened when: a row for each interval of a run.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;

use super::stats::Counts;

/// One interval of a run. Operations count when they are answered, their latency from when they were due (open loop).
///
/// So a stall shows as rows without operations whose `waiting` grows, and then as one with the latencies of all that waited.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Row {
    /// Its end, since the start.
    pub at_s: f64,
    /// Its length.
    pub seconds: f64,
    /// Operations answered, error replies included.
    pub operations: u64,
    /// Operations answered well.
    pub succeeded: u64,
    /// Error replies, broken and unsent operations.
    pub errors: u64,
    /// Operations that were due at its end and had no answer yet (open loop).
    pub waiting: u64,
    /// Median latency.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// Longest.
    pub max_us: f64,
}

impl Row {
    /// Whether nothing succeeded in it.
    pub fn is_outage(&self) -> bool {
        self.succeeded == 0
    }

    fn new(at: Duration, length: Duration, counts: &Counts, waiting: u64) -> Self {
        let latency = counts.latency();
        Self {
            at_s: at.as_secs_f64(),
            seconds: length.as_secs_f64(),
            operations: counts.operations,
            succeeded: counts.operations.saturating_sub(counts.errors),
            errors: counts.failed(),
            waiting,
            p50_us: latency.p50_us,
            p99_us: latency.p99_us,
            max_us: latency.max_us,
        }
    }
}

/// Cuts a run into rows.
#[derive(Debug)]
pub(super) struct Cutter {
    interval: Duration,
    /// Where the row began that is being counted.
    began: Duration,
    counts: Counts,
    waiting: u64,
}

impl Cutter {
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, began: Duration::ZERO, counts: Counts::default(), waiting: 0 }
    }

    /// When the row is to be cut, since the start.
    pub(super) fn next(&self) -> Duration {
        // In step with the start, however late a cut was.
        let cuts = self.began.as_nanos() / self.interval.as_nanos() + 1;
        Duration::from_nanos((self.interval.as_nanos() * cuts) as u64)
    }

    /// Adds what was counted until now.
    pub(super) fn add(&mut self, counts: &Counts) {
        self.counts.add(counts);
        self.waiting =
            (self.waiting + counts.due).saturating_sub(counts.operations + counts.broken + counts.not_sent);
    }

    /// Ends the row at `now`, or `None` when nothing is in it: the end of a run needs no row of its own.
    pub(super) fn cut(&mut self, now: Duration) -> Option<Row> {
        let length = now.saturating_sub(self.began);
        let is_empty = self.counts.operations + self.counts.failed() == 0 && length < self.interval / 2;
        let row = (!is_empty).then(|| Row::new(now, length, &self.counts, self.waiting));
        self.began = now;
        self.counts.reset();
        row
    }
}

/// Where a row comes from, in a comparison.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Origin<'a> {
    /// Name of the target.
    pub target: &'a str,
    /// Round, from 1.
    pub round: usize,
}

/// Writes rows as CSV with a line of names, or each as a JSON object on a line of its own.
///
/// # Errors
/// Those of `out`.
pub fn write<'a>(
    out: &mut impl Write,
    is_csv: bool,
    rows: impl IntoIterator<Item = (Option<Origin<'a>>, &'a Row)>,
) -> io::Result<()> {
    #[derive(Serialize)]
    struct Line<'a> {
        #[serde(flatten)]
        origin: Option<Origin<'a>>,
        #[serde(flatten)]
        row: &'a Row,
    }
    let mut is_first = true;
    for (origin, row) in rows {
        if !is_csv {
            serde_json::to_writer(&mut *out, &Line { origin, row })?;
            writeln!(out)?;
            continue;
        }
        if std::mem::take(&mut is_first) {
            let names = "at_s,seconds,operations,succeeded,errors,waiting,p50_us,p99_us,max_us";
            writeln!(out, "{}{names}", origin.map_or("", |_| "target,round,"))?;
        }
        if let Some(Origin { target, round }) = origin {
            // Names of targets are letters, digits and a few signs that need no quotes.
            write!(out, "{target},{round},")?;
        }
        let Row { at_s, seconds, operations, succeeded, errors, waiting, p50_us, p99_us, max_us } = row;
        writeln!(
            out,
            "{at_s:.3},{seconds:.3},{operations},{succeeded},{errors},{waiting},{p50_us:.1},{p99_us:.1},{max_us:.1}"
        )?;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(operations: u64, due: u64) -> Counts {
        let mut counts = Counts::default();
        counts.record(1_000_000, operations);
        counts.due = due;
        counts
    }

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn rows_keep_step_and_tell_who_waits() {
        let mut cutter = Cutter::new(MS(100));
        assert_eq!(cutter.next(), MS(100));
        cutter.add(&counts(3, 5));
        let row = cutter.cut(MS(130)).expect("a row");
        assert_eq!((row.operations, row.waiting, row.is_outage()), (3, 2, false), "{row:?}");
        assert_eq!(cutter.next(), MS(200));
        cutter.add(&counts(0, 5));
        let row = cutter.cut(MS(200)).expect("a row");
        assert_eq!((row.operations, row.waiting, row.is_outage()), (0, 7, true), "{row:?}");
        let mut late = counts(6, 0);
        late.broken = 1;
        cutter.add(&late);
        let row = cutter.cut(MS(300)).expect("a row");
        assert_eq!((row.operations, row.succeeded, row.errors, row.waiting), (6, 6, 1, 0), "{row:?}");
        assert!((row.seconds - 0.1).abs() < 1e-9);
        assert!(cutter.cut(MS(310)).is_none(), "a rest with nothing in it");
        assert!(cutter.cut(MS(400)).is_some(), "an interval with nothing in it");
    }

    #[test]
    fn rows_are_csv_or_lines_of_json() {
        let row =
            Row { at_s: 1.0, seconds: 0.5, operations: 2, succeeded: 2, p50_us: 1.25, ..Row::default() };
        let text = |is_csv, origin| {
            let mut out = Vec::new();
            write(&mut out, is_csv, [(origin, &row), (origin, &row)]).expect("memory takes all");
            String::from_utf8(out).expect("text")
        };
        let line = "1.000,0.500,2,2,0,0,1.2,0.0,0.0\n";
        let names = "at_s,seconds,operations,succeeded,errors,waiting,p50_us,p99_us,max_us\n";
        assert_eq!(text(true, None), format!("{names}{line}{line}"));
        let origin = Some(Origin { target: "a", round: 2 });
        assert_eq!(text(true, origin), format!("target,round,{names}a,2,{line}a,2,{line}"));
        let json = text(false, origin);
        assert_eq!(json.lines().count(), 2);
        assert!(
            json.starts_with(
                r#"{"target":"a","round":2,"at_s":1.0,"seconds":0.5,"operations":2,"succeeded":2,"#
            ),
            "{json}"
        );
        assert!(text(false, None).starts_with(r#"{"at_s":1.0,"#));
    }
}
