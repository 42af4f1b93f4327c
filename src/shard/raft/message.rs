//! Messages between the replicas of a group, and their codec.

use super::Membership;
use super::convert::{conf_state, to_raft};
use crate::log::LogEntry;
use crate::shard::invariants::Promise;
use bytes::Bytes;
use raft::eraftpb::{self, MessageType};
use ringfort_wire::frame::{Reader, WireError, put_bytes};

/// A message of the Raft engine; opaque outside its modules.
#[derive(Debug, Clone, PartialEq)]
pub struct Message(pub(super) eraftpb::Message);

/// Bytes of a message that follow its fixed part, and the fixed part:
///
/// | offset | size | field |
/// | --- | --- | --- |
/// | 0 | 1 | message type |
/// | 1 | 8 x 9 | to, from, term, log term, index, commit, commit term, reject hint, request snapshot |
/// | 73 | 1 | bit 0: reject (of the answer to a heartbeat: the sender's disk lacks room), bit 1: a snapshot's metadata follows the context |
/// | 74 | 4 + n | context |
/// | .. | 16 + 4 + n | snapshot: index, term, its [`Membership`] |
/// | .. | 4 | count of entries |
/// | .. | 1 + 8 + 8 + 4 + n each | entry: kind, index, term, data |
impl Message {
    /// The replica that it is for.
    pub fn to(&self) -> u64 {
        self.0.to
    }

    /// The replica that sent it.
    pub fn from(&self) -> u64 {
        self.0.from
    }

    /// Index of the snapshot that goes with it; `None` for every other message.
    pub fn snapshot_index(&self) -> Option<u64> {
        (self.0.get_msg_type() == MessageType::MsgSnapshot)
            .then(|| self.0.get_snapshot().get_metadata().index)
    }

    /// One that announces a snapshot at `index`, with three members, to a replica.
    #[cfg(test)]
    pub(crate) fn of_snapshot(to: u64, index: u64) -> Self {
        let mut message = eraftpb::Message { to, term: 1, ..Default::default() };
        message.set_msg_type(MessageType::MsgSnapshot);
        message.mut_snapshot().data = Membership::founded(&[1, 2, 3]).encode().into();
        message.mut_snapshot().mut_metadata().index = index;
        Self(message)
    }

    /// The members at the snapshot that goes with it, encoded; empty for every other message.
    pub fn snapshot_members(&self) -> &[u8] {
        &self.0.get_snapshot().data
    }

    /// Whether it makes its receiver write to the log.
    pub fn is_append(&self) -> bool {
        matches!(self.0.get_msg_type(), MessageType::MsgAppend | MessageType::MsgSnapshot)
    }

    /// Of a follower's question how far it must apply: who asks, its round.
    pub fn as_read_ask(&self) -> Option<(u64, u64)> {
        Some((self.0.from, self.round_of(MessageType::MsgReadIndex)?))
    }

    /// Of the answer to it: the round, the index.
    pub fn as_read_answer(&self) -> Option<(u64, u64)> {
        Some((self.round_of(MessageType::MsgReadIndexResp)?, self.0.index))
    }

    fn round_of(&self, kind: MessageType) -> Option<u64> {
        let round = || self.0.context.as_ref().try_into().ok().map(u64::from_le_bytes);
        (self.0.get_msg_type() == kind).then(round).flatten()
    }

    /// Whether it is a heartbeat, or answers one.
    pub fn is_heartbeat(&self) -> bool {
        is_heartbeat(&self.0)
    }

    /// Whether it answers a heartbeat, and so promises nothing that must be on disk first.
    pub fn is_heartbeat_response(&self) -> bool {
        self.0.get_msg_type() == MessageType::MsgHeartbeatResponse
    }

    /// Whether it answers a heartbeat that asked nothing: the leader counts on it within its election timeout.
    pub fn is_idle_answer(&self) -> bool {
        self.is_heartbeat_response() && self.0.context.is_empty()
    }

    /// What it says of that; `None`: nothing.
    pub(super) fn take_fit(&mut self) -> Option<bool> {
        self.is_heartbeat_response().then(|| !std::mem::take(&mut self.0.reject))
    }

    /// What it promises of its sender's disk; `None`: nothing. (A leader's own messages rest on the votes that it got.)
    pub fn promise(&self) -> Option<Promise> {
        let m = &self.0;
        let vote = match m.get_msg_type() {
            MessageType::MsgRequestVote => m.from,
            MessageType::MsgRequestVoteResponse if !m.reject => m.to,
            MessageType::MsgRequestVoteResponse
            | MessageType::MsgAppendResponse
            | MessageType::MsgHeartbeatResponse => 0,
            _ => return None,
        };
        let is_acknowledgement = m.get_msg_type() == MessageType::MsgAppendResponse && !m.reject;
        Some(Promise {
            term: m.term,
            vote,
            index: if is_acknowledgement { m.index } else { 0 },
            index_term: None,
        })
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let m = &self.0;
        let numbers = [
            m.to,
            m.from,
            m.term,
            m.log_term,
            m.index,
            m.commit,
            m.commit_term,
            m.reject_hint,
            m.request_snapshot,
        ];
        let has_snapshot = m.get_msg_type() == MessageType::MsgSnapshot;
        out.reserve(1 + size_of_val(&numbers) + 1);
        out.push(m.get_msg_type() as u8);
        out.extend_from_slice(numbers.map(u64::to_le_bytes).as_flattened());
        out.push(u8::from(m.reject) | u8::from(has_snapshot) << 1);
        put_bytes(out, &m.context);
        if has_snapshot {
            let meta = m.get_snapshot().get_metadata();
            out.extend_from_slice(&meta.index.to_le_bytes());
            out.extend_from_slice(&meta.term.to_le_bytes());
            put_bytes(out, &m.get_snapshot().data);
        }
        out.extend_from_slice(&(m.entries.len() as u32).to_le_bytes());
        for entry in &m.entries {
            out.push(match entry.entry_type {
                eraftpb::EntryType::EntryNormal => 0,
                eraftpb::EntryType::EntryConfChange => 1,
                eraftpb::EntryType::EntryConfChangeV2 => 2,
            });
            out.extend_from_slice(&entry.index.to_le_bytes());
            out.extend_from_slice(&entry.term.to_le_bytes());
            put_bytes(out, &entry.data);
        }
    }

    /// Reads a message.
    ///
    /// # Errors
    /// It is malformed, or of a type that never travels.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes, "Raft message");
        let mut m = eraftpb::Message::default();
        let kind = travelling(r.u8()?).ok_or_else(|| r.malformed())?;
        m.set_msg_type(kind);
        m.to = r.u64()?;
        m.from = r.u64()?;
        m.term = r.u64()?;
        m.log_term = r.u64()?;
        m.index = r.u64()?;
        m.commit = r.u64()?;
        m.commit_term = r.u64()?;
        m.reject_hint = r.u64()?;
        m.request_snapshot = r.u64()?;
        let flags = r.u8()?;
        m.reject = flags & 1 != 0;
        m.context = Bytes::copy_from_slice(r.bytes()?);
        if (flags & 2 != 0) != (kind == MessageType::MsgSnapshot) {
            return Err(r.malformed());
        }
        if kind == MessageType::MsgSnapshot {
            let meta = m.mut_snapshot().mut_metadata();
            meta.index = r.u64()?;
            meta.term = r.u64()?;
            let bytes = r.bytes()?;
            let members = Membership::decode(bytes)?.ok_or_else(|| r.malformed())?;
            meta.set_conf_state(conf_state(&members));
            m.mut_snapshot().data = Bytes::copy_from_slice(bytes);
        }
        // A message of term 0 passes for a local one, and entries with a gap break the log: neither is a peer's.
        if m.term == 0 {
            return Err(r.malformed());
        }
        for position in 1..=u64::from(r.u32()?) {
            let kind = r.u8()?;
            let (index, term) = (r.u64()?, r.u64()?);
            if m.index.checked_add(position) != Some(index) {
                return Err(r.malformed());
            }
            let data = Bytes::copy_from_slice(r.bytes()?);
            m.entries.push(to_raft(LogEntry { index, term, kind, data }));
        }
        if r.is_empty() { Ok(Self(m)) } else { Err(r.malformed()) }
    }
}

/// Whether a message is a heartbeat, or answers one.
pub(super) fn is_heartbeat(message: &eraftpb::Message) -> bool {
    matches!(message.get_msg_type(), MessageType::MsgHeartbeat | MessageType::MsgHeartbeatResponse)
}

/// Says whether its sender's disk has room and is quick, if a message answers a heartbeat: in the field that such an answer does not use.
pub(super) fn set_fit(message: &mut eraftpb::Message, is_fit: bool) {
    if message.get_msg_type() == MessageType::MsgHeartbeatResponse {
        message.reject = !is_fit;
    }
}

/// The message types that one replica may send to another here. Proposals are never forwarded; questions about reads are
/// [`Group`](super::Group)'s, the crate never sees them.
fn travelling(n: u8) -> Option<MessageType> {
    [
        MessageType::MsgAppend,
        MessageType::MsgAppendResponse,
        MessageType::MsgRequestVote,
        MessageType::MsgRequestVoteResponse,
        MessageType::MsgSnapshot,
        MessageType::MsgHeartbeat,
        MessageType::MsgHeartbeatResponse,
        MessageType::MsgTimeoutNow,
        MessageType::MsgRequestPreVote,
        MessageType::MsgRequestPreVoteResponse,
        MessageType::MsgReadIndex,
        MessageType::MsgReadIndexResp,
    ]
    .into_iter()
    .find(|t| *t as u8 == n)
}
