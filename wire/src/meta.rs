//! Changes that a client asks of the meta group, and the answers.
//!
//! | frame | body |
//! | --- | --- |
//! | [`Kind::MetaWrite`] | a [`MetaWrite`] as JSON |
//! | [`Kind::MetaAnswer`] | 1 byte: 0 done, 1 not the leader, 2 refused, 3 ask again; then the map as JSON, the leader's node id, the error, nothing |
//!
//! Every [`MetaWrite`] is idempotent: who did not hear an answer asks again.

use crate::frame::{self, Kind, Reader, WireError};
use crate::map::{MapAside, Moving};
use core::net::SocketAddr;
use ringfort_ring::{NodeId, Seats};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Most settings that the map holds.
pub const SETTINGS_MAX: usize = 256;
/// Most bytes of their names and values.
pub const SETTINGS_BYTES_MAX: usize = 64 << 10;

/// A change of the cluster map that depends on the map at the moment it is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetaWrite {
    /// Give these settings these values (see [`crate::settings`]); the others stay.
    Set(BTreeMap<String, String>),
    /// Name this address as the one where a node takes clients by TLS; `None`: it takes none.
    TlsClient(NodeId, Option<SocketAddr>),
    /// The leader of this partition is to be this node, which holds a replica of it.
    Lead(u16, NodeId),
    /// This node is to lead nothing that somebody else can lead; `false`: it leads again as before.
    Drain(NodeId, bool),
    /// A node's data folder is lost: every replica that was in it is replaced by a new one in the folder that it has now.
    Replace {
        /// The node.
        node: NodeId,
        /// The folder that the cluster knew, as hexadecimal digits.
        old_store: String,
        /// The folder that the node has now.
        new_store: String,
    },
    /// Make the members these, and have the partitions where this says.
    Apply(Box<Apply>),
    /// Give the change of the members up that is under way: go back to what was before it.
    Abort,
    /// This node is there. Only said to the leader of the meta group, never written to its log.
    Here(NodeId),
    /// Its leader judges who is down.
    Down(Box<Down>),
    /// In these groups these replicas vote now.
    Arrived(Vec<(u16, Vec<u64>)>),
    /// In these groups these replicas take part no more.
    Left(Vec<(u16, Vec<u64>)>),
    /// These replicas stand aside.
    Aside(Vec<Aside>),
    /// In these groups, which have a leader, these replicas stand aside: their seats are for new ones.
    Reseat(Vec<(u16, u64)>),
    /// This group is to start anew from what is left, if it has still this incarnation.
    Recover {
        /// The group.
        group: u16,
        /// Its incarnation now.
        incarnation: u32,
        /// Whether an operator accepts that more than the last second of writes may be lost.
        #[serde(default)]
        accept_loss: bool,
    },
}

/// Who is to be a member from now on, and where the replicas are to be in the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Apply {
    /// The [`planned_epoch`](crate::ClusterMap::planned_epoch) of the map that it was planned from: compare and set.
    pub planned_epoch: u64,
    /// The members, ordered by id; all others leave.
    pub nodes: Vec<Member>,
    /// Replicas of each partition.
    pub replicas: u16,
    /// How replicas move.
    pub moving: Moving,
    /// Where each partition is to be.
    pub partitions: Vec<Seats>,
    /// Where the meta group is to be.
    pub meta: Seats,
}

/// Who is down, and where the replicas are to be meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Down {
    /// The [`planned_epoch`](crate::ClusterMap::planned_epoch) of the map that it was planned from: compare and set.
    pub planned_epoch: u64,
    /// The members that are down; all others are not.
    pub nodes: Vec<NodeId>,
    /// Where each partition is to be.
    pub partitions: Vec<Seats>,
    /// Where the meta group is to be.
    pub meta: Seats,
}

/// A member as it is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its id.
    pub id: NodeId,
    /// Where Redis clients reach it.
    pub client: String,
    /// Where nodes and proxies reach it.
    pub peer: String,
    /// Its share.
    pub weight: u32,
    /// Its failure domain.
    pub zone: String,
}

/// Most replicas that one [`MetaWrite::Aside`] names.
pub const ASIDES_MAX: usize = 256;

/// What a replica that stands aside says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aside {
    /// Its group.
    pub group: u16,
    /// The incarnation of the group in which it took part.
    pub incarnation: u32,
    /// Who it is, and where its log ends.
    #[serde(flatten)]
    pub aside: MapAside,
}

impl MetaWrite {
    /// The change as JSON: the body of its frame, and of its operation in the meta group's log.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a change has only string keys and plain values")
    }

    /// Reads it.
    ///
    /// # Errors
    /// It is none, or none that this version knows.
    pub fn from_json(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes).map_err(|e| format!("change of the cluster map: {e}"))
    }
}

/// What became of a [`MetaWrite`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetaAnswer {
    /// It is made; a map, as JSON, that shows it.
    Done(Vec<u8>),
    /// Not made: this node does not lead the meta group; the node that does, when known (else empty).
    NotLeader(String),
    /// Not made, and it never will be; the text of the error reply.
    Refused(String),
    /// It may or may not be made: ask again.
    Again,
}

impl MetaAnswer {
    /// Appends the frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (tag, rest): (u8, &[u8]) = match self {
            Self::Done(map) => (0, map),
            Self::NotLeader(hint) => (1, hint.as_bytes()),
            Self::Refused(error) => (2, error.as_bytes()),
            Self::Again => (3, &[]),
        };
        frame::put(out, Kind::MetaAnswer, |out| {
            out.push(tag);
            out.extend_from_slice(rest);
        });
    }

    /// Reads a frame's body.
    ///
    /// # Errors
    /// It is malformed.
    pub fn decode(body: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(body, "answer of the meta group");
        let (tag, rest) = (r.u8()?, r.rest());
        let text = || core::str::from_utf8(rest).map(str::to_owned).map_err(|_| r.malformed());
        Ok(match tag {
            0 => Self::Done(rest.to_vec()),
            1 => Self::NotLeader(text()?),
            2 => Self::Refused(text()?),
            3 => Self::Again,
            _ => return Err(r.malformed()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_round_trip() {
        for answer in [
            MetaAnswer::Done(b"{}".to_vec()),
            MetaAnswer::NotLeader("n1".into()),
            MetaAnswer::NotLeader(String::new()),
            MetaAnswer::Refused("ERR no".into()),
            MetaAnswer::Again,
        ] {
            let mut out = Vec::new();
            answer.encode(&mut out);
            let frame = frame::next(&out).unwrap().unwrap();
            assert_eq!(frame.kind, Kind::MetaAnswer);
            assert_eq!(MetaAnswer::decode(frame.body), Ok(answer));
        }
        for malformed in [&b""[..], b"\x04", b"\x01\xff"] {
            assert!(MetaAnswer::decode(malformed).is_err());
        }
    }

    #[test]
    fn an_address_is_one_json_object() {
        let write = MetaWrite::TlsClient(NodeId("n1".into()), Some("127.0.0.1:7".parse().unwrap()));
        assert_eq!(write.to_json(), br#"{"tls_client":["n1","127.0.0.1:7"]}"#);
        assert_eq!(MetaWrite::from_json(&write.to_json()), Ok(write));
    }

    #[test]
    fn a_change_of_settings_is_one_json_object() {
        let write = MetaWrite::Set([("timeout".to_owned(), "5".to_owned())].into());
        assert_eq!(write.to_json(), br#"{"set":{"timeout":"5"}}"#);
        assert_eq!(MetaWrite::from_json(&write.to_json()), Ok(write));
        assert!(MetaWrite::from_json(b"{}").is_err());
    }
}
