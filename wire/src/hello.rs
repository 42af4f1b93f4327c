//! The handshake of every link of the peer port, and the frames by which an empty cluster forms.
//!
//! ```text
//!  the side that connects                       the node that it connects to
//!     Hello, with a nonce if it has a secret ->
//!                                            <- Challenge: a nonce                (only with a secret)
//!     Proof: MAC("connects", Hello, nonce)   ->                                   (only with a secret)
//!                                            <- HelloAck, with MAC("answers", Hello, nonce, HelloAck) if it has one
//!                                            or HelloRefuse: a sentence
//! ```
//!
//! MAC is HMAC-SHA-256 under the peer secret over the label and the parts named, each behind its length as 8 bytes; `Hello`
//! and `HelloAck` stand for their bodies without the proof. So a proof holds for this link, in this direction, for these
//! ids and workers, and for no other; the secret itself is not sent. Neither side acts on any other frame before it has
//! seen the other's proof, and until then a frame may have [`HANDSHAKE_BYTES_MAX`]. With a secret on one side only, that
//! one refuses. What follows the handshake is neither encrypted nor signed.
//!
//! Body of `Hello`:
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 4 | `RGF2`: the protocol and its version |
//! | 4 | 2 | feature level |
//! | 6 | 1 | [`Channel`] |
//! | 7 | 16 | cluster id, 0 while the sender knows none |
//! | 23 | 16 | the sender's store id, 0 for a proxy |
//! | 39 | 2 | the sender's worker |
//! | 41 | 2 | the worker that the link is for |
//! | 43 | 4 + n | the sender's node id behind its length; empty for a proxy |
//! | 47 + n | 0 or 32 | nonce; none without a secret |
//!
//! `Challenge`: 32 bytes, a nonce. `Proof`: 32 bytes. Body of `HelloAck`: feature level (2), cluster id (16), store id (16),
//! number of workers (2), node id behind its length (4 + n), proof (32, or none without a secret).

use crate::frame::{self, Kind, Reader, WireError, put_bytes};

use crate::secret::{NONCE_BYTES, Nonce, PeerSecret};

/// Largest frame of a handshake.
pub const HANDSHAKE_BYTES_MAX: usize = 4096;

const MAGIC: u32 = u32::from_le_bytes(*b"RGF2");
const CONNECTS: &[u8] = b"ringfort peer 2: connects";
const ANSWERS: &[u8] = b"ringfort peer 2: answers";

/// Told to a side without a secret by one that has one.
const LACKS: &str = "the node asks for the peer secret, and the process that connects has none: set peer_secret_file to \
                     the same secret in the config file of every machine";
const HAS: &str = "the process that connects has a peer secret, and the node has none: set peer_secret_file to the same \
                   secret in the config file of every machine";
const DIFFERS: &str = "the process that connects has another peer secret than the node: put the same secret into \
                       peer_secret_file on every machine, and start the process again";
const UNPROVEN: &str = "the node did not prove that it knows the peer secret: it is not a node of this cluster, or its \
                        peer_secret_file holds another secret";
const ORDER: &str = "the other side does not speak this version of the peer protocol";

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
    /// The sender's nonce; `None` when it has no peer secret. [`Initiator`] sets it.
    pub nonce: Option<Nonce>,
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
            out.extend_from_slice(self.nonce.as_ref().map_or(&[], |n| n));
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
            nonce: if r.is_empty() { None } else { Some(r.array::<NONCE_BYTES>()?) },
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
    /// The frame's body without the proof.
    fn body(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&self.feature_level.to_le_bytes());
        out.extend_from_slice(&self.cluster_id.to_le_bytes());
        out.extend_from_slice(&self.store_id.to_le_bytes());
        out.extend_from_slice(&self.workers.to_le_bytes());
        put_bytes(&mut out, self.node.as_bytes());
        out
    }

    /// Reads a frame's body; what stands behind it is the proof.
    fn decode(body: &[u8]) -> Result<(Self, &[u8]), WireError> {
        let mut r = Reader::new(body, "hello answer");
        let ack = Self {
            feature_level: r.u16()?,
            cluster_id: r.u128()?,
            store_id: r.u128()?,
            workers: r.u16()?,
            node: r.text()?.to_owned(),
        };
        Ok((ack, r.rest()))
    }
}

/// The side that connects.
#[derive(Debug)]
pub struct Initiator<'a> {
    secret: Option<&'a PeerSecret>,
    hello: Vec<u8>,
    challenge: Option<Nonce>,
}

impl<'a> Initiator<'a> {
    /// Appends the first frame. `nonce` is random, and of use only with a secret.
    pub fn new(hello: Hello, secret: Option<&'a PeerSecret>, nonce: Nonce, out: &mut Vec<u8>) -> Self {
        let start = out.len() + frame::FRAME_HEADER_BYTES;
        Hello { nonce: secret.map(|_| nonce), ..hello }.encode(out);
        Self { secret, hello: out[start..].to_vec(), challenge: None }
    }

    /// Takes a frame and appends what to send; the answer to the hello ends the handshake.
    ///
    /// # Errors
    /// The link is refused, by the node or by this side: the sentence says why. Close it.
    pub fn take(&mut self, kind: Kind, body: &[u8], out: &mut Vec<u8>) -> Result<Option<HelloAck>, String> {
        match (kind, self.secret) {
            (Kind::HelloRefuse, _) => Err(String::from_utf8_lossy(body).into_owned()),
            (Kind::Challenge, Some(secret)) if self.challenge.is_none() => {
                let nonce = Nonce::try_from(body).map_err(|_| ORDER)?;
                let proof = secret.prove(CONNECTS, &[&self.hello, &nonce]);
                frame::put(out, Kind::Proof, |out| out.extend_from_slice(&proof));
                self.challenge = Some(nonce);
                Ok(None)
            }
            (Kind::HelloAck, secret) => {
                let (ack, proof) = HelloAck::decode(body).map_err(|_| ORDER)?;
                if let Some(secret) = secret {
                    let nonce = self.challenge.as_ref().ok_or(UNPROVEN)?;
                    let parts: [&[u8]; 3] = [&self.hello, nonce, &ack.body()];
                    if !secret.is_proof(ANSWERS, &parts, proof) {
                        return Err(UNPROVEN.to_owned());
                    }
                }
                Ok(Some(ack))
            }
            _ => Err(ORDER.to_owned()),
        }
    }
}

/// The node that is connected to.
#[derive(Debug)]
pub struct Responder<'a> {
    secret: Option<&'a PeerSecret>,
    nonce: Nonce,
    /// The hello and its body.
    hello: Option<(Hello, Vec<u8>)>,
}

impl<'a> Responder<'a> {
    /// `nonce` is random, and of use only with a secret.
    pub fn new(secret: Option<&'a PeerSecret>, nonce: Nonce) -> Self {
        Self { secret, nonce, hello: None }
    }

    /// Takes a frame and appends what to send. A hello that comes back is proven: judge it, and accept it or refuse it.
    ///
    /// # Errors
    /// The link is refused; the sentence says why, and is in `out` as well. Send that and close the link.
    pub fn take(&mut self, kind: Kind, body: &[u8], out: &mut Vec<u8>) -> Result<Option<Hello>, String> {
        let outcome = self.try_take(kind, body, out);
        if let Err(error) = &outcome {
            refuse(error, out);
        }
        outcome.map_err(str::to_owned)
    }

    fn try_take(
        &mut self,
        kind: Kind,
        body: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Hello>, &'static str> {
        match (kind, &self.hello, self.secret) {
            (Kind::Hello, None, secret) => {
                let hello = Hello::decode(body).map_err(|_| ORDER)?;
                match (secret, hello.nonce) {
                    (Some(_), None) => return Err(LACKS),
                    (None, Some(_)) => return Err(HAS),
                    (None, None) => return Ok(Some(hello)),
                    (Some(_), Some(_)) => {}
                }
                frame::put(out, Kind::Challenge, |out| out.extend_from_slice(&self.nonce));
                self.hello = Some((hello, body.to_vec()));
                Ok(None)
            }
            (Kind::Proof, Some((hello, bytes)), Some(secret)) => {
                if secret.is_proof(CONNECTS, &[bytes, &self.nonce], body) {
                    Ok(Some(hello.clone()))
                } else {
                    Err(DIFFERS)
                }
            }
            _ => Err(ORDER),
        }
    }

    /// Appends the answer that opens the link.
    pub fn accept(&self, ack: &HelloAck, out: &mut Vec<u8>) {
        let body = ack.body();
        frame::put(out, Kind::HelloAck, |out| {
            out.extend_from_slice(&body);
            if let (Some(secret), Some((_, hello))) = (self.secret, &self.hello) {
                out.extend_from_slice(&secret.prove(ANSWERS, &[hello, &self.nonce, &body]));
            }
        });
    }
}

/// Appends the answer that refuses a link.
pub fn refuse(why: &str, out: &mut Vec<u8>) {
    frame::put(out, Kind::HelloRefuse, |out| out.extend_from_slice(why.as_bytes()));
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
mod tests;
