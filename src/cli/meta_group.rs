//! Changes that a command asks of the meta group, at the peer ports of its nodes.

use std::time::Duration;

use ringfort_proxy::server::meta;
use ringfort_wire::hello::{Channel, Hello};
use ringfort_wire::{ClusterMap, FEATURE_LEVEL, MetaWrite, PeerSecret};

use crate::config::Config;

/// Time for one request, whoever has to be asked.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// The way to the meta group.
pub(super) struct MetaGroup {
    runtime: tokio::runtime::Runtime,
    secret: Option<PeerSecret>,
    hello: Hello,
}

impl MetaGroup {
    /// With the peer secret of a config file; `command` is what the nodes hear of who asks.
    ///
    /// # Errors
    /// The secret cannot be read.
    pub(super) fn of(config: &Config, command: &str) -> anyhow::Result<Self> {
        let hello = Hello {
            feature_level: FEATURE_LEVEL,
            channel: Channel::Control,
            cluster_id: 0,
            node: command.to_owned(),
            store_id: 0,
            worker: 0,
            to_worker: 0,
            nonce: None,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { runtime, secret: config.load_peer_secret()?, hello })
    }

    /// Has it make a change; a map that shows it.
    ///
    /// # Errors
    /// The text of the error reply: it is refused, or was not confirmed in time.
    pub(super) fn write(&self, map: &ClusterMap, change: &MetaWrite) -> Result<ClusterMap, String> {
        self.runtime.block_on(meta::write(map, &self.hello, self.secret.as_ref(), change, ASK_TIMEOUT))
    }
}
