//! A client's place in a cluster.

use std::io;

use ringfort_ring::slot::Slot;

use crate::routes::Routes;

/// The node of a cluster that a client talks to: number `client` modulo the nodes that serve slots.
#[derive(Debug, Clone)]
pub(super) struct Seat {
    client: usize,
    routes: Routes,
    address: String,
}

impl Seat {
    /// That of client number `client`, who knows no node yet.
    pub(super) fn new(client: usize) -> Self {
        Self { client, routes: Routes::default(), address: String::new() }
    }

    /// Asks where slots are, the nodes known first, then `target`.
    ///
    /// # Errors
    /// No node told.
    pub(super) async fn renewed(&self, target: &str) -> io::Result<Self> {
        let routes = self.routes.renewed(target).await?;
        let nodes = routes.addresses();
        let address = nodes[self.client % nodes.len()].clone();
        Ok(Self { client: self.client, routes, address })
    }

    /// The node; nothing before [`Self::renewed`].
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Whether the node serves `slot`.
    pub(super) fn has(&self, slot: Slot) -> bool {
        self.routes.address(slot) == Some(self.address.as_str())
    }

    /// Learns from an error reply when it is MOVED; whether the node has nothing left to serve then.
    pub(super) fn is_lost_by(&mut self, error: &str) -> bool {
        self.routes.learn(error.as_bytes()) && !self.routes.serves(&self.address)
    }
}
