//! `ringfort apply`: makes the cluster what a config file says, and shows how far it is. `ringfort abort`: gives that up.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use ringfort_wire::{ClusterMap, MetaWrite};

use super::find::{Proposal, Target, ask_by, connect};
use super::looks::Looks;
use super::meta_group::MetaGroup;
use super::output::{ColorChoice, Style, bar, bytes, out, out_in_place};
use super::plan::{Made, ask};
use super::status::Moves;
use crate::clock::{Clock as _, SystemClock};
use crate::config::Config;

/// In the error reply to a plan that was made from an older map.
pub(super) const PLAN_AGAIN: &str = "plan again";
/// Attempts: each from a new plan, when the members change at the same time.
const ATTEMPTS: usize = 3;
/// Looks at one node's map for each look at everything: on a terminal, and where the progress goes to a file.
const GLANCES: (u32, u32) = (4, 20);

/// What is read of a map between two looks at everything.
#[derive(Debug, serde::Deserialize)]
struct Glance {
    change: Option<serde::de::IgnoredAny>,
}

/// Make the cluster what a config file says.
///
/// It prints the plan, has the cluster agree on it, and shows how far it is until it is done. Clients go on meanwhile. It may be
/// interrupted: the cluster goes on by itself, and the same command shows the progress again. A file that has changed since
/// replaces the change that is under way; `ringfort abort` goes back to what was before it.
///
/// Start the nodes of the file that are new before or after it: nothing moves to them until they have joined.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ringfort apply configs/local.toml
  ringfort apply configs/local.toml --no-wait
  ringfort apply fewer-nodes.toml --at 127.0.0.1:7001 --yes")]
pub(super) struct Args {
    #[command(flatten)]
    proposal: Proposal,
    /// Remove more than one node, too
    #[arg(long)]
    yes: bool,
    /// Return when the cluster has agreed, and do not wait for the moves
    #[arg(long)]
    no_wait: bool,
    /// When to use colours
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto", hide_possible_values = true)]
    color: ColorChoice,
}

/// Give up the change of the members that is under way.
///
/// What has moved moves back, and nodes that were added leave again: the cluster becomes what it was before the change. That is
/// a change as well: `ringfort status` shows how far it is.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ringfort abort
  ringfort abort --config prod.toml --no-wait")]
pub(super) struct AbortArgs {
    /// The file that describes the cluster [default: configs/local.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Return when the cluster has agreed, and do not wait for the moves
    #[arg(long)]
    no_wait: bool,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let mut attempt = 1;
    let (made, epoch) = loop {
        let made = Made::of(&args.proposal)?;
        if attempt == 1 {
            made.show(Style::of_stdout(args.color));
        }
        if made.plan.is_empty() {
            // Nothing to ask for: but a change that was asked for before may be under way.
            let epoch = made.map.planned_epoch;
            break (made, epoch);
        }
        let removed = made.removed();
        anyhow::ensure!(
            removed.len() < 2 || args.yes,
            "the file lacks {} nodes of the cluster ({}): add --yes if all of them are to leave",
            removed.len(),
            removed.join(", ")
        );
        match propose(&made)? {
            Ok(epoch) => break (made, epoch),
            Err(error) if error.contains(PLAN_AGAIN) && attempt < ATTEMPTS => attempt += 1,
            Err(error) => anyhow::bail!(error),
        }
    };
    if args.no_wait {
        return Ok(());
    }
    wait(&made.config, &args.proposal.target(), epoch, !made.plan.is_empty())
}

pub(super) fn abort(args: AbortArgs) -> anyhow::Result<()> {
    let target = Target { config: args.config, at: None };
    let config = target.file()?.0;
    let (map, _) = ask(&config, &target)?;
    let map = MetaGroup::of(&config, "abort")?.write(&map, &MetaWrite::Abort);
    let map = map.map_err(anyhow::Error::msg)?;
    out("the change is given up: the cluster becomes what it was before");
    if args.no_wait {
        return Ok(());
    }
    wait(&config, &target, map.planned_epoch, true)
}

/// Asks the meta group for what was planned. The epoch at which it agreed, or the text of its error reply.
///
/// # Errors
/// The peer secret cannot be read.
pub(super) fn propose(made: &Made) -> anyhow::Result<Result<u64, String>> {
    let change = MetaWrite::Apply(Box::new(made.plan.request(&made.map, &made.wanted)));
    let map = MetaGroup::of(&made.config, "apply")?.write(&made.map, &change);
    Ok(map.map(|map| map.planned_epoch))
}

/// Shows the progress of the change that was planned at `epoch` until it is done; `is_new`: it has just been asked for.
fn wait(config: &Config, target: &Target, epoch: u64, is_new: bool) -> anyhow::Result<()> {
    let is_terminal = std::io::stdout().is_terminal();
    let started_us = SystemClock.now().boot_us;
    let (mut looks, mut last) = (Looks::default(), String::new());
    let mut bytes_first = None;
    loop {
        let Some((map, status)) = looks.take(ask(config, target))? else { continue };
        // A node may answer with the map from before.
        let is_old = map.planned_epoch < epoch;
        let seconds = SystemClock.now().boot_us.saturating_sub(started_us) as f64 / 1e6;
        if !is_old && map.change.is_none() {
            if is_terminal && !last.is_empty() {
                out_in_place("");
            }
            if is_new || bytes_first.is_some() {
                out(&format!("done in {seconds:.1} s: cluster {} at epoch {}", map.name, map.epoch));
            }
            return Ok(());
        }
        anyhow::ensure!(
            map.planned_epoch <= epoch,
            "another change has replaced this one: `ringfort status --watch` shows how far it is"
        );
        if !is_old {
            let moves = &status.moves;
            let first = *bytes_first.get_or_insert(moves.bytes_left);
            let line = progress(moves, first.saturating_sub(moves.bytes_left), seconds, &waits(&map));
            if is_terminal {
                out_in_place(&line);
            } else if line != last {
                out(&line);
            }
            last = line;
        }
        pause(&map, if is_terminal { GLANCES.0 } else { GLANCES.1 });
    }
}

/// Waits until it is time to look at everything again, which takes every node and proxy some time that their clients miss.
/// Meanwhile one node's map alone tells whether the change is still under way.
fn pause(map: &ClusterMap, glances: u32) {
    let mut members = map.nodes.iter().filter(|node| !node.is_leaving);
    let mut client = members.find_map(|node| connect(&node.client).ok());
    for _ in 0..glances {
        Looks::pause();
        let seen: Option<Glance> = client.as_mut().and_then(|client| ask_by(client, "MAP").ok());
        if seen.is_none_or(|seen| seen.change.is_none()) {
            return;
        }
    }
}

/// The new nodes that have not joined.
pub(super) fn waits(map: &ClusterMap) -> String {
    let absent: Vec<&str> =
        map.nodes.iter().filter(|n| n.store_id == 0 && !n.is_leaving).map(|n| n.id.0.as_str()).collect();
    if absent.is_empty() { String::new() } else { format!("; waiting for {} to start", absent.join(", ")) }
}

/// `[=====>    ] 12 of 48 replicas, 2 under way, 1.2 MiB left, 3.1 MiB/s, 4 s left`.
pub(super) fn progress(moves: &Moves, sent: u64, seconds: f64, waits: &str) -> String {
    let rate = if seconds > 0.0 { sent as f64 / seconds } else { 0.0 };
    let left = if rate > 0.0 {
        format!(", {}/s, {:.0} s left", bytes(rate as u64), moves.bytes_left as f64 / rate)
    } else {
        String::new()
    };
    format!(
        "{} {} of {} replicas, {} under way, {} left{left}{waits}",
        bar(moves.done, moves.total),
        moves.done,
        moves.total,
        moves.active,
        bytes(moves.bytes_left)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_says_what_is_left() {
        let moves = Moves { total: 48, done: 12, active: 2, bytes_left: 3 << 20, seconds_left: 1 };
        assert_eq!(
            progress(&moves, 1 << 20, 2.0, "; waiting for n4 to start"),
            "[=======>                      ] 12 of 48 replicas, 2 under way, 3.0 MiB left, 512.0 KiB/s, 6 s left; \
             waiting for n4 to start"
        );
        let done = Moves { total: 0, done: 0, active: 0, bytes_left: 0, seconds_left: 0 };
        let line = progress(&done, 0, 0.0, "");
        assert_eq!(line, format!("[{}] 0 of 0 replicas, 0 under way, 0 B left", "=".repeat(30)));
    }
}
