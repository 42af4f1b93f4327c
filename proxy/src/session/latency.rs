//! LATENCY: how long commands took. Events are not watched here, so there are none.

use super::Args;
use super::connection::{Outcome, text};
use crate::clients::Clients;
use crate::stats::{CommandSnapshot, bucket_end_us};
use ringfort_resp::{CommandSpec, ReplyWriter};

const DOCTOR: &str = "Ringfort watches no latency events. LATENCY HISTOGRAM and INFO latencystats show how long commands \
                      took, SLOWLOG GET which were slow.\n";

pub(super) fn execute(
    spec: &CommandSpec,
    args: Args<'_>,
    clients: &Clients,
    out: &mut ReplyWriter<'_>,
) -> Outcome {
    match spec.short_name() {
        "latest" | "history" => out.array(0),
        "reset" => out.integer(0),
        "doctor" => text(out, DOCTOR),
        "graph" => {
            let event = String::from_utf8_lossy(args.get(2));
            return Err(format!("ERR No samples available for event '{event}'"));
        }
        _ => {
            let counted = clients.counted();
            let is_asked = |name: &str| {
                args.len() == 2 || args.iter().skip(2).any(|arg| arg.eq_ignore_ascii_case(name.as_bytes()))
            };
            let asked: Vec<_> =
                counted.used().filter(|(spec, c)| c.calls > 0 && is_asked(spec.name)).collect();
            out.map(asked.len());
            for (spec, command) in asked {
                out.bulk(spec.name.as_bytes());
                write_histogram(command, out);
            }
        }
    }
    Ok(())
}

/// The calls up to each power of two of µs, as far as there are more than up to the one before.
fn write_histogram(command: &CommandSnapshot, out: &mut ReplyWriter<'_>) {
    let mut points: Vec<(u64, u64)> = Vec::new();
    let (mut seen, mut last) = (0, 0);
    for (i, count) in command.latency.buckets.iter().enumerate() {
        seen += count;
        let end = bucket_end_us(i).unwrap_or(u64::MAX / 2 + 1);
        if end.is_power_of_two() && seen > last {
            points.push((end, seen));
            last = seen;
        }
    }
    out.map(2);
    out.bulk(b"calls");
    out.integer(command.calls.cast_signed());
    out.bulk(b"histogram_usec");
    out.map(points.len());
    for (us, calls) in points {
        out.integer(i64::try_from(us).unwrap_or(i64::MAX));
        out.integer(calls.cast_signed());
    }
}
