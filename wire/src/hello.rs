//! The handshake of every link, and the frames by which an empty cluster forms.
//!
//! The side that connects sends `Hello`; the other answers `HelloAck` or `HelloRefuse` and then both speak freely.

use crate::frame::{self, Kind, Reader, WireError, put_bytes};

const MAGIC: u32 = u32::from_le_bytes(*b"RGF1");

/// What a link is for; the three kinds travel on separate connections, so that none waits for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Channel {
    /// Raft messages between two nodes' workers.
    Raft = 1,
    /// Requests of a proxy's worker to a node's worker.
    Requests = 2,
    /// One snapshot from a leader to a follower.
    Snapshot = 3,
    /// Probes and the cluster map.
    Control = 4,
}

/// The first frame of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Feature level of the sender.
    pub feature_level: u16,
    /// What the link is for.
    pub channel: Channel,
    /// The cluster, 0 while the sender knows none.
    pub cluster_id: u128,
    /// The sender's node id; empty for a proxy.
    pub node: String,
    /// The sender's store id; 0 for a proxy.
    pub store_id: u128,
    /// The sender's worker.
    pub worker: u16,
    /// The worker that the link is for.
    pub to_worker: u16,
    /// The peer secret's proof; empty when the cluster has no secret.
    pub proof: Vec<u8>,
}

impl Hello {
    /// Appends the frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        frame::put(out, Kind::Hello, |out| {
            out.extend_from_slice(&MAGIC.to_le_bytes());
            out.extend_from_slice(&self.feature_level.to_le_bytes());
            out.push(self.channel as u8);
            out.extend_from_slice(&self.cluster_id.to_le_bytes());
            out.extend_from_slice(&self.store_id.to_le_bytes());
            out.extend_from_slice(&self.worker.to_le_bytes());
            out.extend_from_slice(&self.to_worker.to_le_bytes());
            put_bytes(out, self.node.as_bytes());
            put_bytes(out, &self.proof);
        });
    }

    /// Reads a frame's body.
    ///
    /// # Errors
    /// It is malformed, or the sender speaks something else.
    pub fn decode(body: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(body, "hello");
        if r.u32()? != MAGIC {
            return Err(r.malformed());
        }
        let feature_level = r.u16()?;
        let channel = match r.u8()? {
            1 => Channel::Raft,
            2 => Channel::Requests,
            3 => Channel::Snapshot,
            4 => Channel::Control,
            _ => return Err(r.malformed()),
        };
        Ok(Self {
            feature_level,
            channel,
            cluster_id: r.u128()?,
            store_id: r.u128()?,
            worker: r.u16()?,
            to_worker: r.u16()?,
            node: r.text()?.to_owned(),
            proof: r.bytes()?.to_vec(),
        })
    }
}

/// The answer to [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HelloAck {
    /// Feature level of the answering node.
    pub feature_level: u16,
    /// The cluster, 0 while the node knows none.
    pub cluster_id: u128,
    /// Its store id.
    pub store_id: u128,
    /// Its number of workers: partition p is on worker p mod workers.
    pub workers: u16,
    /// Its node id.
    pub node: String,
}

impl HelloAck {
    /// Appends the frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        frame::put(out, Kind::HelloAck, |out| {
            out.extend_from_slice(&self.feature_level.to_le_bytes());
            out.extend_from_slice(&self.cluster_id.to_le_bytes());
            out.extend_from_slice(&self.store_id.to_le_bytes());
            out.extend_from_slice(&self.workers.to_le_bytes());
            put_bytes(out, self.node.as_bytes());
        });
    }

    /// Reads a frame's body.
    ///
    /// # Errors
    /// It is malformed.
    pub fn decode(body: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(body, "hello answer");
        Ok(Self {
            feature_level: r.u16()?,
            cluster_id: r.u128()?,
            store_id: r.u128()?,
            workers: r.u16()?,
            node: r.text()?.to_owned(),
        })
    }
}

/// What a node says of itself before a cluster exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeAck {
    /// Its node id.
    pub node: String,
    /// Its store id.
    pub store_id: u128,
    /// Hash of the membership in its config file.
    pub config_hash: u64,
    /// The cluster map it has, as JSON; empty when its data folder is empty.
    pub map: Vec<u8>,
}

impl ProbeAck {
    /// Appends the frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        frame::put(out, Kind::ProbeAck, |out| {
            out.extend_from_slice(&self.store_id.to_le_bytes());
            out.extend_from_slice(&self.config_hash.to_le_bytes());
            put_bytes(out, self.node.as_bytes());
            put_bytes(out, &self.map);
        });
    }

    /// Reads a frame's body.
    ///
    /// # Errors
    /// It is malformed.
    pub fn decode(body: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(body, "probe answer");
        Ok(Self {
            store_id: r.u128()?,
            config_hash: r.u64()?,
            node: r.text()?.to_owned(),
            map: r.bytes()?.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshake_round_trips() {
        let hello = Hello {
            feature_level: 1,
            channel: Channel::Requests,
            cluster_id: 1 << 100,
            node: "n1".into(),
            store_id: 5,
            worker: 1,
            to_worker: 2,
            proof: vec![1, 2],
        };
        let mut out = Vec::new();
        hello.encode(&mut out);
        assert_eq!(Hello::decode(frame::next(&out).unwrap().unwrap().body).unwrap(), hello);
        let ack = HelloAck { feature_level: 1, cluster_id: 2, store_id: 3, workers: 4, node: "n2".into() };
        out.clear();
        ack.encode(&mut out);
        assert_eq!(HelloAck::decode(frame::next(&out).unwrap().unwrap().body).unwrap(), ack);
    }
}
