//! `ringfort transfer`: moves the leadership of a partition to another of its nodes.

use std::time::Duration;

use anyhow::Context as _;

use super::client::Client;
use super::find::Target;
use super::output::out;
use super::process::pause;
use super::status::{NodeState, PartitionStatus, Status, look};
use crate::clock::{Clock as _, SystemClock};

/// Longest wait for the new leader: a leader hands over after it has led for 5 s.
const WAIT_US: u64 = 10_000_000;
/// Time between two looks.
const POLL: Duration = Duration::from_millis(100);

/// Move the leadership of a partition to another node.
///
/// The node must hold a replica that is up to date. It becomes the partition's preferred leader: it leads from now on
/// whenever it can, until the next transfer. No acknowledged write is lost; commands wait for a few milliseconds.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ringfort transfer 12 n2
  ringfort transfer 12 n2 --at 127.0.0.1:7001")]
pub(super) struct Args {
    /// Number of the partition, from 0
    #[arg(value_name = "PARTITION")]
    partition: u16,
    /// Id of the node
    #[arg(value_name = "NODE")]
    node: String,
    #[command(flatten)]
    target: Target,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let (number, node) = (args.partition, args.node.as_str());
    let status = look(&args.target)?;
    let before = judge(&status, number, node)?;
    let addresses = status.nodes.iter().filter(|node| node.state == NodeState::Up).map(|node| &node.client);
    let address = addresses.clone().next().context("no node serves")?;
    let address = address.parse().with_context(|| format!("'{address}' is no address"))?;
    Client::connect(address)?.call(&["RINGFORT", "TRANSFER", &number.to_string(), node])?;
    let started_us = SystemClock.now().boot_us;
    loop {
        let waited_us = SystemClock.now().boot_us.saturating_sub(started_us);
        let status = look(&args.target)?;
        let leader = partition(&status, number)?.leader.as_ref();
        if leader.is_some_and(|leader| leader.0 == node) {
            let seconds = waited_us as f64 / 1e6;
            out(&format!(
                "partition {number}: {before} -> {node} in {seconds:.1} s; {node} is its preferred leader from now on"
            ));
            return Ok(());
        }
        anyhow::ensure!(
            waited_us < WAIT_US,
            "{node} is the preferred leader of partition {number} now, but does not lead it after {} s: see `ringfort status`",
            WAIT_US / 1_000_000
        );
        pause(POLL);
    }
}

/// The present leader, if the transfer can be asked for.
fn judge(status: &Status, number: u16, node: &str) -> anyhow::Result<String> {
    let partition = partition(status, number)?;
    let names = |ids: Vec<&str>| ids.join(", ");
    let known = names(status.nodes.iter().map(|node| node.id.0.as_str()).collect());
    anyhow::ensure!(
        status.nodes.iter().any(|known| known.id.0 == node),
        "there is no node '{node}'; the nodes are {known}"
    );
    let holders = names(partition.replicas.iter().map(|id| id.0.as_str()).collect());
    anyhow::ensure!(
        partition.replicas.iter().any(|holder| holder.0 == node),
        "{node} has no replica of partition {number}; its replicas are on {holders}"
    );
    anyhow::ensure!(
        !status.nodes.iter().any(|known| known.id.0 == node && known.drained),
        "{node} is drained: `ringfort undrain {node}` lets it lead again"
    );
    let leader =
        partition.leader.as_ref().with_context(|| format!("partition {number} has no leader now"))?;
    anyhow::ensure!(
        leader.0 != node || partition.preferred.0 != node,
        "{node} leads partition {number} already"
    );
    anyhow::ensure!(
        !partition.lagging.iter().any(|lagging| lagging.0 == node),
        "{node} is not up to date with partition {number}: see `ringfort status`"
    );
    Ok(leader.0.clone())
}

fn partition(status: &Status, number: u16) -> anyhow::Result<&PartitionStatus> {
    status.partitions.get(usize::from(number)).with_context(|| {
        format!("there is no partition {number}; they are 0 to {}", status.partitions.len() - 1)
    })
}
