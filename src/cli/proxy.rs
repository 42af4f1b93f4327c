//! `ringfort proxy`: one proxy.

use std::num::NonZeroU8;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;

use ringfort_proxy::server::{ProxyOptions, TlsOptions, run as run_proxy};

use crate::config::Config;

use super::process;

/// Run one proxy: any Redis client, one address, the whole cluster.
///
/// It listens on [proxy] listen of the file and finds the cluster through the peer addresses of the nodes. Any number of
/// proxies may run; they hold no data.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ringfort proxy --config configs/local.toml
  redis-cli -p 6379 ping")]
pub(super) struct Args {
    /// The file that describes the cluster
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Worker threads, 1 to 255 [default: one per core]
    #[arg(long, value_name = "N")]
    workers: Option<NonZeroU8>,
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
    let proxy = config.proxy.as_ref();
    let proxy = proxy.with_context(|| format!("{} has no [proxy] section", args.config.display()))?;
    args.log.start(&config.log)?;
    let tls = match proxy.tls_listen {
        Some(listen) => config.load_tls(&args.config)?.map(|tls| TlsOptions { listen, tls: Arc::new(tls) }),
        None => None,
    };
    let secret = config.load_peer_secret()?;
    process::raise_open_files();
    if args.faults {
        process::enable_faults(&config)?;
    }
    if args.parent_pipe {
        process::stop_with_parent()?;
    }
    let workers = args.workers.map_or_else(process::default_workers, |workers| workers.get().into());
    let seeds = config.nodes.iter().map(|node| node.peer.to_string()).collect();
    let metrics = proxy.metrics;
    run_proxy(ProxyOptions { tls, workers, metrics, secret, ..ProxyOptions::new(proxy.listen, seeds) })
        .with_context(|| format!("the proxy of {}", args.config.display()))
}
