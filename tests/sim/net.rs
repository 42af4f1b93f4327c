//! The network: connections as TCP gives them. Each direction is a FIFO; a connection that breaks loses what is on its
//! way, and its two ends notice at different times. Between connections nothing is ordered: what a broken one left behind
//! may be read beside its successor, so that requests and Raft messages come late, out of order, and once more when they
//! were sent again (`world/network.rs`). Within a connection TCP neither loses, repeats nor re-orders, and nor does this.

use std::collections::VecDeque;

/// A host: the nodes, then the proxies, then the direct clients.
pub(crate) type Host = usize;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// Raft messages between two nodes: all of their workers.
    Peers,
    /// Requests of a proxy (end `a`) to a worker of a node (end `b`).
    Requests {
        /// The node's worker.
        worker: u16,
    },
    /// A client (end `a`) at the client port of a node (end `b`).
    Client {
        /// The node's worker.
        worker: u16,
    },
}

/// Bytes on their way.
#[derive(Debug)]
pub(crate) struct Packet {
    /// When they arrive, unless the way is blocked then.
    pub(crate) at: u64,
    /// The worker that they are for.
    pub(crate) worker: u16,
    pub(crate) bytes: Vec<u8>,
}

/// One direction of a connection.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    pub(crate) packets: VecDeque<Packet>,
    /// Whether an event will look at `packets`.
    pub(crate) is_scheduled: bool,
}

/// One connection, again and again.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) ends: [Host; 2],
    pub(crate) what: Use,
    pub(crate) is_up: bool,
    /// Which end believes that it is up.
    pub(crate) knows: [bool; 2],
    /// Counts its lives.
    pub(crate) life: u64,
    /// `streams[e]` goes to end `e`.
    pub(crate) streams: [Stream; 2],
    /// Number that the node gave it (requests and clients).
    pub(crate) number: u64,
}

impl Conn {
    pub(crate) fn new(ends: [Host; 2], what: Use) -> Self {
        Self {
            ends,
            what,
            is_up: false,
            knows: [false; 2],
            life: 0,
            streams: [Stream::default(), Stream::default()],
            number: 0,
        }
    }
}
