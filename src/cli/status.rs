//! `ringfort status`: asks the cluster for its map, every node for its groups, and shows both as one.

mod merge;

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;

use anyhow::Context as _;
use serde::de::DeserializeOwned;

use crate::config::{Config, LOCAL_TOML};

use super::client::Client;
use super::output::{bytes, grouped, out, table};
use super::{BUILT_IN_CONFIG, config_path};
use merge::{ClusterMap, NodeAnswer, NodeState, Status, merge};

/// Show nodes, groups, leaders and keys of a running cluster.
///
/// It asks the nodes of the file, or the one address given with --at, which tells of all others.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ringfort status
  ringfort status --config configs/production.toml
  ringfort status --at 127.0.0.1:7001
  ringfort status --json | jq '.partitions[] | select(.leader == null) | .id'")]
pub(super) struct Args {
    /// The file that describes the cluster [default: configs/local.toml]
    #[arg(long, value_name = "FILE", conflicts_with = "at")]
    config: Option<PathBuf>,
    /// Client address of any node, or of a proxy
    #[arg(long, value_name = "HOST:PORT")]
    at: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let map = match &args.at {
        Some(at) => map_at(at)?,
        None => map_of_file(args.config)?,
    };
    let answers = in_parallel(&map.nodes, |node| ask_node(&node.client));
    let status = merge(&map, answers)?;
    if args.json {
        out(&serde_json::to_string_pretty(&status)?);
    } else {
        out(&for_people(&status));
    }
    Ok(())
}

fn map_at(at: &str) -> anyhow::Result<ClusterMap> {
    let addresses = at.to_socket_addrs().with_context(|| format!("'{at}' is no HOST:PORT"))?;
    let mut last = None;
    for address in addresses {
        match ask(address, "MAP") {
            Ok(map) => return Ok(map),
            Err(error) => last = Some(error),
        }
    }
    let why = last.map_or_else(|| "the name has no address".to_owned(), |error| format!("{error:#}"));
    anyhow::bail!("{at} does not answer: {why}; is the cluster running? start it with `ringfort up`")
}

/// The newest map that a node of the file has, or else the proxy.
fn map_of_file(named: Option<PathBuf>) -> anyhow::Result<ClusterMap> {
    let path = config_path(named);
    let (config, file) = match &path {
        Some(path) => (Config::load(path)?, path.display().to_string()),
        None => (Config::parse(LOCAL_TOML, BUILT_IN_CONFIG)?, BUILT_IN_CONFIG.to_owned()),
    };
    let mut addresses: Vec<SocketAddr> = config.nodes.iter().map(|node| node.client).collect();
    addresses.extend(config.proxy.map(|proxy| proxy.listen));
    let answers: Vec<anyhow::Result<ClusterMap>> = in_parallel(&addresses, |address| ask(*address, "MAP"));
    // Who listens but cannot answer has more to say than "connection refused".
    let refused = |error: &anyhow::Error| error.to_string() == "connection refused";
    let speaking = addresses.iter().zip(&answers).find_map(|(address, answer)| match answer {
        Err(error) if !refused(error) => Some(format!(" ({address}: {error:#})")),
        _ => None,
    });
    answers.into_iter().flatten().max_by_key(|map| map.epoch).with_context(|| {
        let why = speaking.unwrap_or_default();
        format!("no node of {file} answers{why}; is the cluster running? start it with `ringfort up`")
    })
}

fn ask_node(client: &str) -> anyhow::Result<NodeAnswer> {
    let address = client.parse().with_context(|| format!("'{client}' is no address"))?;
    ask(address, "NODE")
}

/// Sends `RINGFORT <what>` and reads the JSON of its reply.
fn ask<T: DeserializeOwned>(address: SocketAddr, what: &str) -> anyhow::Result<T> {
    let value = Client::connect(address)?.call(&["RINGFORT", what])?;
    let json = value.as_bytes().with_context(|| format!("RINGFORT {what} gave no text"))?;
    serde_json::from_slice(json).with_context(|| format!("RINGFORT {what} gave JSON of another version"))
}

/// Calls `ask` for every item, each on a thread of its own: one dead node costs one time-out, not one each.
fn in_parallel<I: Sync, T: Send>(items: &[I], ask: impl Fn(&I) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let ask = &ask;
        let threads: Vec<_> = items.iter().map(|item| scope.spawn(move || ask(item))).collect();
        let joined = threads.into_iter().map(std::thread::ScopedJoinHandle::join);
        joined.map(|answer| answer.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}

fn for_people(status: &Status) -> String {
    let head = ["NODE", "CLIENT", "STATE", "LEADERS", "REPLICAS", "KEYS", "BYTES"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let or_dash = |number: Option<u64>, show: fn(u64) -> String| number.map_or_else(|| "-".to_owned(), show);
    for node in &status.nodes {
        rows.push(vec![
            node.id.to_string(),
            node.client.clone(),
            node.state.as_str().to_owned(),
            node.leaders.to_string(),
            node.replicas.to_string(),
            or_dash(node.keys, grouped),
            or_dash(node.bytes, bytes),
        ]);
    }
    let led = status.partitions.iter().filter(|partition| partition.leader.is_some()).count();
    let mut lines = vec![
        format!("cluster {}, epoch {}", status.name, status.epoch),
        String::new(),
        table(&rows, &[3, 4, 5, 6]),
        String::new(),
        format!(
            "{} partitions, {led} with a leader; {} keys, {} (replicas counted once); {}",
            status.partitions.len(),
            grouped(status.keys),
            bytes(status.bytes),
            status.moves,
        ),
    ];
    let orphans: Vec<u16> =
        status.partitions.iter().filter(|partition| partition.leader.is_none()).map(|p| p.id.0).collect();
    if !orphans.is_empty() {
        lines.push(format!(
            "WITHOUT LEADER, their keys cannot be read or written: partitions {}",
            ranges(&orphans)
        ));
    }
    for node in status.nodes.iter().filter(|node| node.state == NodeState::Down) {
        lines.push(format!(
            "{} does not answer: {}",
            node.id,
            node.problem.as_deref().unwrap_or("no reason known")
        ));
    }
    lines.join("\n")
}

/// Ascending numbers as `0-3, 7`.
fn ranges(numbers: &[u16]) -> String {
    let mut runs: Vec<(u16, u16)> = Vec::new();
    for &number in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    let show = |(first, last): &(u16, u16)| {
        if first == last { format!("{first}") } else { format!("{first}-{last}") }
    };
    runs.iter().map(show).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_partitions_read_as_ranges() {
        assert_eq!(ranges(&[]), "");
        assert_eq!(ranges(&[3]), "3");
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), "0-2, 5, 7-8");
    }

    #[test]
    fn people_see_leaderless_partitions_and_dead_nodes() {
        let (map, answers) = merge::tests::two_nodes_one_down();
        let text = for_people(&merge(&map, answers).unwrap());
        let expected = "\
cluster demo, epoch 7

NODE  CLIENT          STATE  LEADERS  REPLICAS   KEYS    BYTES
n1    127.0.0.1:7001  up           2        16  1,203  2.3 KiB
n2    127.0.0.1:7002  down         0        16      -        -

16 partitions, 2 with a leader; 1,200 keys, 2.3 KiB (replicas counted once); no moves
WITHOUT LEADER, their keys cannot be read or written: partitions 2-15
n2 does not answer: connection refused";
        assert_eq!(text, expected);
    }
}
