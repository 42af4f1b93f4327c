//! `ringfort recover`: starts partitions anew that have lost their majority for good.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use ringfort_wire::{ClusterMap, MetaWrite};

use super::find::Target;
use super::meta_group::MetaGroup;
use super::output::out;
use super::process::pause;
use super::status::{NodeState, PartitionStatus, Status, look};
use crate::clock::{Clock as _, SystemClock};

/// How long a group must have been without a leader: an election takes far less, and its group needs nobody's help.
const LEADERLESS_US: u64 = 5_000_000;
/// Time between two looks at who leads.
const LOOK: Duration = Duration::from_millis(200);
/// Longest wait for the partitions to start anew; replicas that are left need a few seconds to say what they hold.
const WAIT_US: u64 = 60_000_000;
/// Time between two requests.
const POLL: Duration = Duration::from_secs(1);

/// Start partitions anew that have lost most of their replicas for good.
///
/// Without --accept-loss it only shows which partitions have had no leader for 5 s, and where their replicas are. With it, each of them
/// starts anew from the replica that is left and whose log ends last; if none is left, it starts empty. What only lost
/// replicas held is gone, and a node that comes back later with such a replica drops it: start every node first that still
/// can be started.
///
/// The meta group must have a majority; it is asked at its peer ports, with the secret of the file.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ringfort recover
  ringfort recover --config prod.toml --accept-loss
  ringfort recover --config prod.toml --partition 12 --accept-loss")]
pub(super) struct Args {
    /// The file that describes the cluster [default: configs/local.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only this partition
    #[arg(long, value_name = "PARTITION")]
    partition: Option<u16>,
    /// Start them anew, and accept that writes are lost
    #[arg(long)]
    accept_loss: bool,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let target = Target { config: args.config, at: None };
    let (status, lost) = leaderless(&target, args.partition)?;
    let lost: Vec<&PartitionStatus> = status.partitions.iter().filter(|p| lost.contains(&p.id.0)).collect();
    if lost.is_empty() {
        out("every partition that was asked for has a leader: there is nothing to recover");
        return Ok(());
    }
    for partition in &lost {
        out(&format!(
            "partition {} has no leader; its replicas: {}",
            partition.id.0,
            replicas(&status, partition)
        ));
    }
    if !args.accept_loss {
        out(
            "start the nodes that are down if that is possible; else --accept-loss goes on with what is left",
        );
        return Ok(());
    }
    let meta_group = MetaGroup::of(&target.file()?.0, "recover")?;
    let mut map: ClusterMap = target.map(|map: &ClusterMap| map.epoch)?;
    let wanted: Vec<(u16, u32)> = lost
        .iter()
        .filter_map(|p| Some((p.id.0, map.groups.get(usize::from(p.id.0))?.incarnation)))
        .collect();
    let started_us = SystemClock.now().boot_us;
    loop {
        let is_waiting = |(partition, incarnation): &&(u16, u32)| {
            map.groups.get(usize::from(*partition)).is_some_and(|group| group.incarnation == *incarnation)
        };
        let waiting: Vec<(u16, u32)> = wanted.iter().filter(is_waiting).copied().collect();
        if waiting.is_empty() {
            break;
        }
        let waited_us = SystemClock.now().boot_us.saturating_sub(started_us);
        anyhow::ensure!(
            waited_us < WAIT_US,
            "{} partitions have not started anew in time: try again",
            waiting.len()
        );
        for (partition, incarnation) in waiting {
            let write = MetaWrite::Recover { group: partition + 1, incarnation, accept_loss: true };
            map = meta_group.write(&map, &write).map_err(anyhow::Error::msg).context("the meta group")?;
        }
        pause(POLL);
    }
    for (partition, _) in &wanted {
        let recovery = map.groups.get(usize::from(*partition)).and_then(|group| group.recovery.as_ref());
        let from = recovery.and_then(|recovery| recovery.from.as_ref());
        let with = from.map_or_else(|| "nothing".to_owned(), |seat| format!("what {} held", seat.node));
        out(&format!("partition {partition} starts anew with {with}"));
    }
    Ok(())
}

/// The partitions, of those that were asked for, that have no leader in any look of [`LEADERLESS_US`], and the last look.
///
/// # Errors
/// The meta group has no leader either, or nobody answers.
fn leaderless(target: &Target, only: Option<u16>) -> anyhow::Result<(Status, Vec<u16>)> {
    let started_us = SystemClock.now().boot_us;
    let mut lost: Option<Vec<u16>> = None;
    loop {
        let status = look(target)?;
        let was_lost = |id: u16| lost.as_ref().is_none_or(|lost| lost.contains(&id));
        let is_lost = |p: &&PartitionStatus| {
            p.leader.is_none() && only.is_none_or(|only| p.id.0 == only) && was_lost(p.id.0)
        };
        let now_lost: Vec<u16> = status.partitions.iter().filter(is_lost).map(|p| p.id.0).collect();
        let is_long = LEADERLESS_US <= SystemClock.now().boot_us.saturating_sub(started_us);
        if status.meta_leader.is_some() && (now_lost.is_empty() || is_long) {
            return Ok((status, now_lost));
        }
        anyhow::ensure!(
            !is_long,
            "the meta group has no leader, so nothing can be changed: start the nodes that hold its replicas (one of one, \
             two of three, three of five). If their folders are lost for good, the cluster cannot be continued: start it \
             anew with empty folders"
        );
        lost = Some(now_lost);
        pause(LOOK);
    }
}

fn replicas(status: &Status, partition: &PartitionStatus) -> String {
    let state = |id: &ringfort_ring::NodeId| {
        let node = status.nodes.iter().find(|node| node.id == *id);
        format!("{id} ({})", node.map_or(NodeState::Down, |node| node.state).as_str())
    };
    partition.replicas.iter().map(state).collect::<Vec<_>>().join(", ")
}
