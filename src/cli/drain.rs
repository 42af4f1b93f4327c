//! `ringfort drain`: has a node lead nothing, so that it can be stopped without a pause. `ringfort undrain`: ends that.

use std::io::IsTerminal as _;

use anyhow::Context as _;

use super::client::Client;
use super::find::Target;
use super::looks::Looks;
use super::output::{bar, out, out_in_place};
use super::status::{NodeState, NodeStatus, Status, look};

/// Have a node give up everything that it leads, before it is stopped.
///
/// Its replicas stay, receive everything and vote. The partitions that it is preferred to lead, and the meta group, are led by
/// the other nodes that hold them, spread evenly, until `ringfort undrain`, also across restarts. If no other node can lead a
/// partition, the drained one does all the same. To empty a node, take it out of the config file instead (`ringfort apply`).
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ringfort drain n2
  ringfort drain n2 --at 127.0.0.1:7001 --no-wait")]
pub(super) struct Args {
    /// Id of the node
    #[arg(value_name = "NODE")]
    node: String,
    #[command(flatten)]
    target: Target,
    /// Return when the cluster has agreed, and do not wait until the node leads nothing
    #[arg(long)]
    no_wait: bool,
}

/// Have a drained node lead again as before.
///
/// Its leaderships come back one after the other, each with a pause of a few milliseconds for its partition.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ringfort undrain n2
  ringfort undrain n2 --at 127.0.0.1:7001")]
pub(super) struct UndrainArgs {
    /// Id of the node
    #[arg(value_name = "NODE")]
    node: String,
    #[command(flatten)]
    target: Target,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let Args { node, target, no_wait } = args;
    let first = leads(&ask(&target, "DRAIN", &node)?, &node);
    if no_wait {
        out(&format!("{node} is drained: it gives up what it leads ({first} now)"));
        return Ok(());
    }
    let is_terminal = std::io::stdout().is_terminal();
    let (mut looks, mut told) = (Looks::default(), usize::MAX);
    loop {
        let Some(status) = looks.take(look(&target))? else { continue };
        let left = leads(&status, &node);
        if left == 0 {
            break;
        }
        if left != told {
            let line = progress(first.max(left), left);
            if is_terminal {
                out_in_place(&line)
            } else {
                _ = out(&line)
            }
            told = left;
        }
        Looks::pause();
    }
    if is_terminal && told != usize::MAX {
        out_in_place("");
    }
    out(&format!("{node} leads nothing: it can be stopped"));
    Ok(())
}

pub(super) fn undrain(args: UndrainArgs) -> anyhow::Result<()> {
    let node = &args.node;
    ask(&args.target, "UNDRAIN", node)?;
    out(&format!("{node} is not drained: what it is preferred to lead comes back to it"));
    Ok(())
}

/// Has the cluster note it; what it was like just before.
fn ask(target: &Target, command: &str, node: &str) -> anyhow::Result<Status> {
    let status = look(target)?;
    judge(&status.nodes, node)?;
    let serving = status.nodes.iter().find(|node| node.state == NodeState::Up).context("no node serves")?;
    let address = serving.client.parse().with_context(|| format!("'{}' is no address", serving.client))?;
    Client::connect(address)?.call(&["RINGFORT", command, node])?;
    Ok(status)
}

/// Whether there is such a node.
fn judge(nodes: &[NodeStatus], node: &str) -> anyhow::Result<()> {
    let ids = || nodes.iter().map(|node| node.id.0.as_str());
    if ids().any(|id| id == node) {
        return Ok(());
    }
    let nearest = ids().min_by_key(|id| strsim::damerau_levenshtein(node, id)).unwrap_or_default();
    let all = ids().collect::<Vec<_>>().join(", ");
    anyhow::bail!("there is no node '{node}'; did you mean '{nearest}'? The nodes are {all}")
}

/// How many groups a node leads, the meta group among them.
fn leads(status: &Status, node: &str) -> usize {
    let partitions = status.nodes.iter().find(|known| known.id.0 == node).map_or(0, |known| known.leaders);
    let has_meta = status.meta_leader.as_ref().is_some_and(|leader| leader.0 == node);
    partitions + usize::from(has_meta)
}

/// `[=======>                      ] 5 of 22 handed over`.
fn progress(first: usize, left: usize) -> String {
    let done = first - left;
    format!("{} {done} of {first} handed over", bar(done as u64, first as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_says_how_many_are_handed_over() {
        assert_eq!(progress(22, 17), "[======>                       ] 5 of 22 handed over");
        assert_eq!(progress(22, 22), format!("[>{}] 0 of 22 handed over", " ".repeat(29)));
    }
}
