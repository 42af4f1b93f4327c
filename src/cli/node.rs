//! `ringfort node`: one cache node.

use std::num::NonZeroU8;
use std::path::PathBuf;
use std::sync::Arc;

use ringfort_ring::NodeId;

use crate::config::Config;
use crate::node::{NodeOptions, run as run_node};

use super::{default_data_dir, process};

/// Run one node of a cluster.
///
/// The node reads the file to know its own addresses and to find its peers. It forms a new cluster when all nodes of the
/// file are empty; otherwise it goes on with the data of its folder. SIGTERM or Ctrl-C hands its leaderships over, then stops.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ringfort node --config configs/local.toml --id n1
  ringfort node --config prod.toml --id cache-1 --data-dir /var/lib/ringfort
  ringfort node --config prod.toml --id cache-1 --workers 8 --log-format json")]
pub(super) struct Args {
    /// The file that describes the cluster; the same on every node
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Which [[node]] of the file this is
    #[arg(long, value_name = "NODE")]
    id: String,
    /// Folder of the node's data, made when missing [default: data/CLUSTER/NODE]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Worker threads, 1 to 255 [default: one per core]
    #[arg(long, value_name = "N")]
    workers: Option<NonZeroU8>,
    /// Set a damaged data folder aside, as damaged-ID within it, and be seeded from the other nodes; for one start
    #[arg(long)]
    rebuild: bool,
    /// Enable RINGFORT FAULT, which cuts links and fills the disk on command: for tests only
    #[arg(long)]
    faults: bool,
    #[command(flatten)]
    log: process::LogArgs,
    /// Stop when stdin ends
    #[arg(long, hide = true)]
    parent_pipe: bool,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let config = Config::load(&args.config)?;
    let id = NodeId(args.id);
    let Some(node) = config.node(&id) else {
        let ids: Vec<&str> = config.nodes.iter().map(|node| node.id.0.as_str()).collect();
        anyhow::bail!("no node '{id}' in {}; its nodes are {}", args.config.display(), ids.join(", "));
    };
    args.log.start(&config.log)?;
    let needs_tls = node.tls_client.is_some() || node.tls_proxy.is_some();
    let tls = if needs_tls { config.load_tls(&args.config)? } else { None };
    process::raise_open_files();
    if args.faults {
        process::enable_faults(&config)?;
    }
    if args.parent_pipe {
        process::stop_with_parent()?;
    }
    let data_dir = args.data_dir.unwrap_or_else(|| default_data_dir(&config.cluster.name).join(&id.0));
    let workers = args.workers.map_or_else(process::default_workers, |workers| workers.get().into());
    run_node(NodeOptions { config, id, data_dir, workers, tls: tls.map(Arc::new), rebuild: args.rebuild })
}
