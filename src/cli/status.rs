//! `ringfort status`: asks the cluster for its map, every node for its groups, and shows both as one.

mod health;
mod merge;
pub(super) mod recovery;
mod view;

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use super::find::{Target, ask_node, in_parallel};
use super::output::{ColorChoice, Style, WIDTH_UNLIMITED, cut, out, terminal_size};
use crate::clock::{Clock as _, SystemClock};
use merge::merge;
pub(super) use merge::{ClusterMap, Moves, NodeState, NodeStatus, PartitionStatus, Status};

/// Time between two looks of `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Show nodes, groups, leaders and keys of a running cluster.
///
/// It asks the nodes of the file, or the one address given with --at, which tells of all others.
///
/// LEADS and HOLDS count partitions that the node leads, and of which it holds a replica; LAG is the most log entries that one of
/// its replicas lacks. Columns that a narrow terminal has no room for are left out.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ringfort status
  ringfort status --watch
  ringfort status --config configs/production.toml
  ringfort status --at 127.0.0.1:7001
  ringfort status --json | jq -r '.problems[]'")]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    /// Look again every second, in place, until Ctrl-C
    #[arg(long)]
    watch: bool,
    /// Print JSON; with --watch one line for each look
    #[arg(long)]
    json: bool,
    /// When to use colours
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto", hide_possible_values = true)]
    color: ColorChoice,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    if args.watch {
        return watch(args);
    }
    let status = look(&args.target)?;
    if args.json {
        out(&serde_json::to_string_pretty(&status)?);
    } else {
        let (width, _) = terminal_size().unwrap_or((WIDTH_UNLIMITED, 0));
        out(&view::for_people(&status, Style::of_stdout(args.color), width));
    }
    Ok(())
}

/// Asks all nodes.
///
/// # Errors
/// Nobody answers.
pub(super) fn look(target: &Target) -> anyhow::Result<Status> {
    look_at(&target.map(|map: &ClusterMap| map.epoch)?)
}

/// Asks the nodes of a map.
///
/// # Errors
/// The map contradicts itself.
pub(super) fn look_at(map: &ClusterMap) -> anyhow::Result<Status> {
    let answers = in_parallel(&map.nodes, |node| ask_node(&node.client));
    let mut status = merge(map, answers)?;
    status.at_ms = SystemClock.now().wall_ms;
    Ok(status)
}

/// Looks again and again until Ctrl-C: in place on a terminal, else one text after the other. A cluster that does not
/// answer is shown as such, and asked again.
fn watch(args: Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let looking = async {
        let mut ticks = tokio::time::interval(WATCH_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut is_first = true;
        loop {
            ticks.tick().await;
            let target = args.target.clone();
            let status = tokio::task::spawn_blocking(move || look(&target)).await?;
            if !show(&args, status, std::mem::replace(&mut is_first, false))? {
                return Ok(());
            }
        }
    };
    let result = runtime.block_on(async {
        tokio::select! {
            result = looking => result,
            stopped = tokio::signal::ctrl_c() => Ok(stopped?),
        }
    });
    // A look may still wait for its time-outs.
    runtime.shutdown_background();
    result
}

/// Shows one look. Whether anybody still reads it.
fn show(args: &Args, status: anyhow::Result<Status>, is_first: bool) -> anyhow::Result<bool> {
    if args.json {
        let line = match status {
            Ok(status) => serde_json::to_string(&status)?,
            Err(error) => serde_json::json!({ "error": format!("{error:#}") }).to_string(),
        };
        return Ok(out(&line));
    }
    let style = Style::of_stdout(args.color);
    let text = |width| match &status {
        Ok(status) => view::for_people(status, style, width),
        Err(error) => format!("error: {}", cut(&format!("{error:#}"), width.saturating_sub(7))),
    };
    if !std::io::stdout().is_terminal() {
        return Ok(out(&format!("{}{}", if is_first { "" } else { "\n" }, text(WIDTH_UNLIMITED))));
    }
    let (width, height) = terminal_size().unwrap_or((80, 24));
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(in_place(&text(width), height, is_first).as_bytes());
    Ok(written.and_then(|()| stdout.flush()).is_ok())
}

/// The bytes that put `text` at the top of a terminal of `height` lines in place of what is there. Each line clears its own
/// rest and the last one what is below, so that nothing flickers.
fn in_place(text: &str, height: usize, is_first: bool) -> String {
    let mut bytes = String::from(if is_first { "\x1b[2J\x1b[H" } else { "\x1b[H" });
    for line in text.lines().take(height.saturating_sub(1)) {
        bytes += line;
        bytes += "\x1b[K\r\n";
    }
    bytes + "\x1b[J"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_replaces_the_last_one_and_never_scrolls() {
        assert_eq!(in_place("a\nb\nc", 3, true), "\x1b[2J\x1b[Ha\x1b[K\r\nb\x1b[K\r\n\x1b[J");
        assert_eq!(in_place("a", 24, false), "\x1b[Ha\x1b[K\r\n\x1b[J");
    }
}
