//! Where a running cluster is asked: the processes of a config file, or one address. Used by `status` and its like.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;

use anyhow::Context as _;
use serde::de::DeserializeOwned;

use crate::config::{Config, LOCAL_TOML};

use super::client::Client;
use super::{BUILT_IN_CONFIG, config_path};

/// Ends every error of a cluster that does not answer.
pub(super) const IS_IT_RUNNING: &str = "is the cluster running? start it with `ringfort up`";

/// Which cluster is asked.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Target {
    /// The file that describes the cluster [default: configs/local.toml]
    #[arg(long, value_name = "FILE", conflicts_with = "at")]
    pub(super) config: Option<PathBuf>,
    /// Client address of any node, or of a proxy
    #[arg(long, value_name = "HOST:PORT")]
    pub(super) at: Option<String>,
}

/// What the cluster is to become, and where to find it.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Proposal {
    /// The file that describes the cluster as it is to be
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
    /// Client address of any node, or of a proxy; without it all of the file are asked
    #[arg(long, value_name = "HOST:PORT")]
    pub(super) at: Option<String>,
}

impl Proposal {
    /// Where the cluster is found.
    pub(super) fn target(&self) -> Target {
        let config = self.at.is_none().then(|| self.file.clone());
        Target { config, at: self.at.clone() }
    }
}

impl Target {
    /// The config file and its name in messages.
    ///
    /// # Errors
    /// The file cannot be read or is wrong.
    pub(super) fn file(&self) -> anyhow::Result<(Config, String)> {
        match config_path(self.config.clone()) {
            Some(path) => Ok((Config::load(&path)?, path.display().to_string())),
            None => Ok((Config::parse(LOCAL_TOML, BUILT_IN_CONFIG)?, BUILT_IN_CONFIG.to_owned())),
        }
    }

    /// Asks `RINGFORT MAP` of the one address, or of all of the file, and returns the one that `order` (the epoch) puts last.
    ///
    /// # Errors
    /// Nobody answers; the sentence says what to do.
    pub(super) fn map<T: DeserializeOwned + Send, K: Ord>(
        &self,
        order: impl Fn(&T) -> K,
    ) -> anyhow::Result<T> {
        if let Some(at) = &self.at {
            return map_at(at);
        }
        let (config, file) = self.file()?;
        map_of(&config, &file, order)
    }
}

/// Asks `RINGFORT MAP` of all processes of a config, which is called `file` in messages, and returns the one that `order`
/// puts last.
///
/// # Errors
/// Nobody answers; the sentence says what to do.
pub(super) fn map_of<T: DeserializeOwned + Send, K: Ord>(
    config: &Config,
    file: &str,
    order: impl Fn(&T) -> K,
) -> anyhow::Result<T> {
    let mut addresses: Vec<SocketAddr> = config.nodes.iter().map(|node| node.client).collect();
    addresses.extend(config.proxy.as_ref().map(|proxy| proxy.listen));
    let answers: Vec<anyhow::Result<T>> = in_parallel(&addresses, |address| ask(*address, "MAP"));
    // Who listens but cannot answer has more to say than "connection refused".
    let refused = |error: &anyhow::Error| error.to_string() == "connection refused";
    let speaking = addresses.iter().zip(&answers).find_map(|(address, answer)| match answer {
        Err(error) if !refused(error) => Some(format!(" ({address}: {error:#})")),
        _ => None,
    });
    answers.into_iter().flatten().max_by_key(order).with_context(|| {
        let why = speaking.unwrap_or_default();
        format!("no node of {file} answers{why}; {IS_IT_RUNNING}")
    })
}

fn map_at<T: DeserializeOwned>(at: &str) -> anyhow::Result<T> {
    let mut last = None;
    for address in resolve(at)? {
        match ask(address, "MAP") {
            Ok(map) => return Ok(map),
            Err(error) => last = Some(error),
        }
    }
    let why = last.map_or_else(|| "the name has no address".to_owned(), |error| format!("{error:#}"));
    anyhow::bail!("{at} does not answer: {why}; {IS_IT_RUNNING}")
}

/// The addresses of `HOST:PORT`.
///
/// # Errors
/// It is none.
pub(super) fn resolve(at: &str) -> anyhow::Result<Vec<SocketAddr>> {
    let addresses = at.to_socket_addrs().with_context(|| format!("'{at}' is no HOST:PORT"))?;
    Ok(addresses.collect())
}

/// Asks `RINGFORT NODE` of a node's client address.
///
/// # Errors
/// It does not answer.
pub(super) fn ask_node<T: DeserializeOwned>(client: &str) -> anyhow::Result<T> {
    ask_by(&mut connect(client)?, "NODE")
}

/// Connects to a node by its client address.
///
/// # Errors
/// It does not answer.
pub(super) fn connect(client: &str) -> anyhow::Result<Client> {
    Client::connect(client.parse().with_context(|| format!("'{client}' is no address"))?)
}

fn ask<T: DeserializeOwned>(address: SocketAddr, what: &str) -> anyhow::Result<T> {
    ask_by(&mut Client::connect(address)?, what)
}

/// Sends `RINGFORT <what>` and reads the JSON of its reply.
///
/// # Errors
/// There is no reply, or not such a one.
pub(super) fn ask_by<T: DeserializeOwned>(client: &mut Client, what: &str) -> anyhow::Result<T> {
    let value = client.call(&["RINGFORT", what])?;
    let json = value.as_bytes().with_context(|| format!("RINGFORT {what} gave no text"))?;
    serde_json::from_slice(json).with_context(|| format!("RINGFORT {what} gave JSON of another version"))
}

/// Calls `ask` for every item, each on a thread of its own: one dead node costs one time-out, not one each.
pub(super) fn in_parallel<I: Sync, T: Send>(items: &[I], ask: impl Fn(&I) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let ask = &ask;
        let threads: Vec<_> = items.iter().map(|item| scope.spawn(move || ask(item))).collect();
        let joined = threads.into_iter().map(std::thread::ScopedJoinHandle::join);
        joined.map(|answer| answer.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}
