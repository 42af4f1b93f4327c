//! `ringfort log-level`: what the log of running processes shows.

use std::net::SocketAddr;

use anyhow::Context as _;
use ringfort_proxy::logging::check_levels;

use super::client::Client;
use super::find::{Target, in_parallel, resolve};
use super::output::{Cell, ColorChoice, Style, out, table};

/// Show or change what the logs of running nodes and of the proxy show.
///
/// Without --at it does so for every node of the file and its proxy. A change lasts until the process ends.
///
/// LEVELS is one of off, error, warn, info, debug, trace, and MODULE=LEVEL for single modules, joined by commas.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ringfort log-level                               what all processes show
  ringfort log-level debug                         change it
  ringfort log-level info,ringfort::shard=debug    only one module says more
  ringfort log-level info --at 127.0.0.1:7001      only one process")]
pub(super) struct Args {
    /// What to show from now on; left out: print what is shown
    #[arg(value_name = "LEVELS")]
    levels: Option<String>,
    #[command(flatten)]
    target: Target,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    if let Some(levels) = &args.levels {
        check_levels(levels).map_err(anyhow::Error::msg)?;
    }
    let processes = processes(&args.target)?;
    let answers = in_parallel(&processes, |(_, address)| ask(*address, args.levels.as_deref()));
    let mut rows = Vec::new();
    let mut failures = Vec::new();
    for ((name, address), answer) in processes.iter().zip(answers) {
        match answer {
            Ok(levels) => rows.push(vec![Cell::plain(name), Cell::plain(address), Cell::plain(levels)]),
            Err(error) => failures.push(format!("{name} at {address} does not answer: {error:#}")),
        }
    }
    if !rows.is_empty() {
        out(&table(&rows, &[], Style::of_stdout(ColorChoice::Never)));
    }
    anyhow::ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

/// Name and client address of the processes that are asked.
fn processes(target: &Target) -> anyhow::Result<Vec<(String, SocketAddr)>> {
    if let Some(at) = &target.at {
        let address = resolve(at)?.into_iter().next().with_context(|| format!("'{at}' has no address"))?;
        return Ok(vec![(at.clone(), address)]);
    }
    let (config, _) = target.file()?;
    let mut all: Vec<_> = config.nodes.iter().map(|node| (node.id.to_string(), node.client)).collect();
    all.extend(config.proxy.map(|proxy| ("proxy".to_owned(), proxy.listen)));
    Ok(all)
}

/// Changes the levels of one process if asked to; what they are then.
fn ask(address: SocketAddr, levels: Option<&str>) -> anyhow::Result<String> {
    let mut client = Client::connect(address)?;
    if let Some(levels) = levels {
        client.call(&["RINGFORT", "LOG", levels])?;
    }
    let now = client.call(&["RINGFORT", "LOG"])?;
    Ok(String::from_utf8_lossy(now.as_bytes().context("RINGFORT LOG gave no text")?).into_owned())
}
