//! `ringfort plan`: what it takes to make the cluster what a config file says. Changes nothing.

mod view;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize as _;

use super::find::{IS_IT_RUNNING, Proposal, Target, map_of};
use super::output::{ColorChoice, Style, WIDTH_UNLIMITED, out, terminal_size};
use super::process::pause;
use super::status::{self, NodeState, Status, look_at};
use crate::config::{Config, ConfigError};
use crate::meta::plan::{Facts, GroupFacts, NodeFacts, Plan, Refusal, Wanted, plan};
use ringfort_ring::NodeId;
use ringfort_wire::ClusterMap;

/// Attempts to make a plan, and the time between two.
const ATTEMPTS: usize = 10;
const AGAIN: Duration = Duration::from_millis(250);
/// Exit code when the file asks for changes.
const CHANGES: u8 = 2;

/// Show what it takes to make the cluster what a config file says; change nothing.
///
/// It compares the nodes of the file, their weights, zones and addresses, `replicas` and how replicas move with what the
/// cluster has agreed on, and prints what would move where, what that costs, and warnings.
///
/// HOLDS and LEADS count partitions of which the node holds a replica, and that it is to lead; PEAK is what it receives while
/// what it gives up may still be there. Exits with 0 when there is nothing to do, with 2 when there are changes, with 1 when they
/// are refused or the cluster does not answer.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ringfort plan configs/local.toml
  ringfort plan more-nodes.toml --at 127.0.0.1:7001
  ringfort plan more-nodes.toml --json | jq '.replicas_moved, .minimum'")]
pub(super) struct Args {
    #[command(flatten)]
    proposal: Proposal,
    /// Print JSON, with every move
    #[arg(long)]
    json: bool,
    /// When to use colours
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto", hide_possible_values = true)]
    color: ColorChoice,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let made = Made::of(&args.proposal)?;
    if args.json {
        out(&serde_json::to_string_pretty(&made.plan)?);
    } else {
        made.show(Style::of_stdout(args.color));
    }
    Ok(if made.plan.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(CHANGES) })
}

/// A plan, and what it was made of.
pub(super) struct Made {
    pub(super) config: Config,
    pub(super) map: ClusterMap,
    pub(super) wanted: Wanted,
    pub(super) plan: Plan,
    file: String,
}

impl Made {
    /// Asks the cluster and plans how it becomes what the file says; again, when it is refused for what may pass in a moment.
    ///
    /// # Errors
    /// The file is wrong, the cluster does not answer, or the change is refused.
    pub(super) fn of(proposal: &Proposal) -> anyhow::Result<Self> {
        let file = &proposal.file;
        let config = Config::load(file)?;
        let mut attempt = 1;
        loop {
            let heard = ask(&config, &proposal.target())?;
            match Self::new(config.clone(), &file.display().to_string(), heard) {
                Ok(made) => return Ok(made),
                Err(refusals) if attempt < ATTEMPTS && refusals.iter().all(|refusal| refusal.may_pass) => {
                    attempt += 1;
                    pause(AGAIN);
                }
                Err(refusals) => {
                    let places = refusals.into_iter().map(|refusal| (refusal.place, refusal.text));
                    return Err(ConfigError::at(file, places).into());
                }
            }
        }
    }

    /// Plans how a cluster of which this was heard becomes what `config` says; `file` is its name.
    ///
    /// # Errors
    /// The change is refused.
    pub(super) fn new(config: Config, file: &str, heard: (ClusterMap, Status)) -> Result<Self, Vec<Refusal>> {
        let wanted = Wanted::of_config(&config);
        Self::with(config, wanted, file, heard)
    }

    /// The same for a membership that no file describes; `config` is only used to reach the cluster.
    ///
    /// # Errors
    /// The change is refused.
    pub(super) fn with(
        config: Config,
        wanted: Wanted,
        file: &str,
        (map, status): (ClusterMap, Status),
    ) -> Result<Self, Vec<Refusal>> {
        let plan = plan(&map, &wanted, &facts(&status))?;
        Ok(Self { config, map, wanted, plan, file: file.to_owned() })
    }

    /// Prints it for people.
    pub(super) fn show(&self, style: Style) {
        let (width, _) = terminal_size().unwrap_or((WIDTH_UNLIMITED, 0));
        out(&self.text(style, width));
    }

    /// The same as text.
    pub(super) fn text(&self, style: Style, width: usize) -> String {
        let Self { config, map, plan, file, .. } = self;
        view::for_people(plan, map, config.cluster.moving, file, style, width)
    }

    /// The nodes that are to leave.
    pub(super) fn removed(&self) -> Vec<&str> {
        let removed = self.plan.changes.iter().filter(|change| change.node.is_some() && change.to.is_none());
        removed.filter_map(|change| change.node.as_ref()).map(|id| id.0.as_str()).collect()
    }
}

/// The newest map of the cluster of `config`, and what its nodes say.
///
/// # Errors
/// Nobody answers.
pub(super) fn ask(config: &Config, target: &Target) -> anyhow::Result<(ClusterMap, Status)> {
    heard(target.map(|map| newest_of(config, map))?)
}

/// The same of the processes of `config`, which is called `file` in messages.
///
/// # Errors
/// Nobody answers.
pub(super) fn ask_all_of(config: &Config, file: &str) -> anyhow::Result<(ClusterMap, Status)> {
    heard(map_of(config, file, |map| newest_of(config, map))?)
}

/// A new node of the file may still belong to another cluster.
fn newest_of(config: &Config, map: &serde_json::Value) -> (bool, Option<u64>) {
    (map["name"] == config.cluster.name.as_str(), map["epoch"].as_u64())
}

fn heard(json: serde_json::Value) -> anyhow::Result<(ClusterMap, Status)> {
    let map = ClusterMap::from_json(json.to_string().as_bytes()).map_err(anyhow::Error::msg)?;
    let asked = status::ClusterMap::deserialize(&json).context("the map is of another version")?;
    let status = look_at(&asked)?;
    // A proxy tells the last map that it heard of.
    let is_alive = status.nodes.iter().any(|node| node.state != NodeState::Down);
    anyhow::ensure!(is_alive, "no node of cluster {} answers; {IS_IT_RUNNING}", map.name);
    Ok((map, status))
}

/// What the nodes told, as the plan needs it.
fn facts(status: &Status) -> Facts {
    let partition = |partition: &status::PartitionStatus| GroupFacts {
        leader: partition.leader.clone(),
        live: partition.replicas.iter().filter(|id| !partition.lagging.contains(id)).cloned().collect(),
        keys: partition.keys,
        bytes: partition.bytes,
    };
    let node = |node: &status::NodeStatus| -> (NodeId, NodeFacts) {
        let is_up = node.state != NodeState::Down;
        (node.id.clone(), NodeFacts { is_up, workers: node.workers, memory_bytes: node.memory_bytes })
    };
    Facts {
        partitions: status.partitions.iter().map(partition).collect(),
        meta: GroupFacts {
            leader: status.meta_leader.clone(),
            live: status.meta_live.iter().cloned().collect(),
            ..GroupFacts::default()
        },
        nodes: status.nodes.iter().map(node).collect(),
    }
}
