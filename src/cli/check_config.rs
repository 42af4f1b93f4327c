//! `ringfort check-config`: says whether a config file is right.

use std::path::PathBuf;

use crate::config::{Config, LogConfig};

use super::output::out;
use super::process;

/// Check a config file without starting anything.
///
/// Prints one line when the file is right; otherwise each problem with file, line, key and what to do, and exits with 1.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  ringfort check-config configs/production.toml")]
pub(super) struct Args {
    /// The file to check
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let config = Config::load(&args.file)?;
    // A certificate that will soon expire is said in the log.
    process::LogArgs::default().start(&LogConfig::default())?;
    config.load_tls(&args.file)?;
    // The secret is only on the machines that run the cluster.
    let is_here = |file: &std::path::Path| file.try_exists().unwrap_or(true);
    let missing = config.cluster.peer_secret_file.as_deref().filter(|file| !is_here(file));
    if missing.is_none() {
        config.load_peer_secret()?;
    }
    out(&format!("{}: ok: {}", args.file.display(), summary(&config)));
    if let Some(file) = missing {
        out(&format!("not checked: the peer secret {} is not on this machine", file.display()));
    }
    Ok(())
}

fn summary(config: &Config) -> String {
    let nodes = config.nodes.len();
    format!(
        "cluster \"{}\", {nodes} {}, {} partitions, replicas {}",
        config.cluster.name,
        if nodes == 1 { "node" } else { "nodes" },
        config.cluster.partitions.get(),
        config.cluster.replicas,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_a_file_up() {
        let local = Config::parse(crate::config::LOCAL_TOML, "local.toml").unwrap();
        assert_eq!(summary(&local), "cluster \"demo\", 3 nodes, 64 partitions, replicas 3");
    }
}
