//! A command for one partition and its answer.
//!
//! Exactly-once (RIFL, Lee et al. 2015): a write carries its session and a sequence number; the partition executes only
//! `seq = last + 1` and keeps the replies above `acked`, so that a write which is sent again is answered, not repeated.
//!
//! Request body:
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 8 | id, chosen by the sender, unique on the link |
//! | 8 | 2 | partition |
//! | 10 | 1 | [`RequestKind`] |
//! | 11 | 8 | session (0 = none) |
//! | 19 | 8 | seq: of a write, its number in the session; of a read, the write which it must see (0 = none) |
//! | 27 | 8 | acked: every reply up to this seq has arrived and may be forgotten |
//! | 35 | .. | command ([`CommandBody`]), for reads and writes |
//!
//! Reply body: id (8), [`Status`] (1), and what the status says.
//!
//! Body of a part of a large reply ([`ReplyPart`]): id (8), length of the whole (4), its next bytes. When so many have come
//! they are what `Status::Done` would hold. The parts of one reply follow each other, with other replies in between.
//!
//! Command:
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 2 | number of the command |
//! | 2 | 1 | protocol of the reply: 2 or 3 |
//! | 3 | 4 | count of arguments, the name not included |
//! | 7 | .. | each argument: length (4), bytes |
//!
//! **Credit.** A sender has at most [`CREDIT_REQUESTS`] unanswered requests, of [`CREDIT_BYTES`] altogether, on one link;
//! every reply gives its request's credit back, and a sender without credit keeps its requests. A node drops a link with
//! more unanswered requests than that; it counts requests, not their bytes.

use crate::frame::{self, FRAME_BYTES_MAX, Kind, Reader, WireError, put_bytes};
use ringfort_resp::Protocol;
use ringfort_ring::PartitionId;
use smallvec::SmallVec;

/// Most unanswered requests on one link.
pub const CREDIT_REQUESTS: usize = 8192;
/// Most bytes of unanswered requests on one link; one request alone may be larger.
pub const CREDIT_BYTES: usize = 64 << 20;
/// Most unanswered writes of one session; a partition keeps at most so many replies for it.
pub const SESSION_WINDOW: u64 = 1024;
/// Most sessions of one partition; the least recently used one gives way.
pub const SESSIONS_MAX: usize = 4096;

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RequestKind {
    /// A command that changes nothing.
    Read = 1,
    /// A command that goes through the log.
    Write = 2,
    /// A new session; answered by [`Status::Opened`].
    OpenSession = 3,
    /// Gives a sequence number up: if it was not executed yet it never will be.
    Skip = 4,
}

/// A request as it stands in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// Chosen by the sender, unique on the link.
    pub id: u64,
    /// The partition of its keys.
    pub partition: PartitionId,
    /// What it asks for.
    pub kind: RequestKind,
    /// Session, 0 = none.
    pub session: u64,
    /// See the table above.
    pub seq: u64,
    /// Every reply up to this seq has arrived.
    pub acked: u64,
    /// The encoded command; empty for OpenSession and Skip.
    pub command: &'a [u8],
}

const REQUEST_HEADER_BYTES: usize = 35;

impl<'a> Request<'a> {
    /// Appends the frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        frame::put(out, Kind::Request, |out| {
            let mut head = [0u8; REQUEST_HEADER_BYTES];
            head[..8].copy_from_slice(&self.id.to_le_bytes());
            head[8..10].copy_from_slice(&self.partition.0.to_le_bytes());
            head[10] = self.kind as u8;
            head[11..19].copy_from_slice(&self.session.to_le_bytes());
            head[19..27].copy_from_slice(&self.seq.to_le_bytes());
            head[27..35].copy_from_slice(&self.acked.to_le_bytes());
            out.extend_from_slice(&head);
            out.extend_from_slice(self.command);
        });
    }

    /// Reads a frame's body.
    ///
    /// # Errors
    /// It is malformed: drop the link.
    pub fn decode(body: &'a [u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(body, "request");
        let id = r.u64()?;
        let partition = PartitionId(r.u16()?);
        let kind = match r.u8()? {
            1 => RequestKind::Read,
            2 => RequestKind::Write,
            3 => RequestKind::OpenSession,
            4 => RequestKind::Skip,
            _ => return Err(r.malformed()),
        };
        Ok(Self { id, partition, kind, session: r.u64()?, seq: r.u64()?, acked: r.u64()?, command: r.rest() })
    }
}

/// Outcome of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status<'a> {
    /// Done; the reply for the client, in RESP.
    Done(&'a [u8]),
    /// Not executed: this node does not lead the partition; the node that does, when known (else empty).
    NotLeader(&'a str),
    /// The leader lost its office with the write in the log: it may or may not be executed. Send the same seq again.
    Retry,
    /// Not executed: the session's last executed seq is this one. Send again from the next on.
    Gap(u64),
    /// The session does not exist (any more). Whether its unanswered writes were executed is unknown.
    NoSession,
    /// Not executed: too much is queued here. Send again later.
    Busy,
    /// The new session's id.
    Opened(u64),
    /// Not executed, and it never will be; an error for the client, in RESP.
    Refused(&'a [u8]),
    /// Not executed: no replica of the partition is here; this node's map has the epoch given.
    NotHere(u64),
}

/// A reply as it stands in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply<'a> {
    /// The request's id.
    pub id: u64,
    /// What became of it.
    pub status: Status<'a>,
}

impl<'a> Reply<'a> {
    /// Appends the frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        frame::put(out, Kind::Reply, |out| {
            out.extend_from_slice(&self.id.to_le_bytes());
            match self.status {
                Status::Done(reply) => {
                    out.push(0);
                    out.extend_from_slice(reply);
                }
                Status::NotLeader(hint) => {
                    out.push(1);
                    out.extend_from_slice(hint.as_bytes());
                }
                Status::Retry => out.push(2),
                Status::Gap(last) => {
                    out.push(3);
                    out.extend_from_slice(&last.to_le_bytes());
                }
                Status::NoSession => out.push(4),
                Status::Busy => out.push(5),
                Status::Opened(id) => {
                    out.push(6);
                    out.extend_from_slice(&id.to_le_bytes());
                }
                Status::Refused(error) => {
                    out.push(7);
                    out.extend_from_slice(error);
                }
                Status::NotHere(epoch) => {
                    out.push(8);
                    out.extend_from_slice(&epoch.to_le_bytes());
                }
            }
        });
    }

    /// Reads a frame's body.
    ///
    /// # Errors
    /// It is malformed: drop the link.
    pub fn decode(body: &'a [u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(body, "reply");
        let id = r.u64()?;
        let status = match r.u8()? {
            0 => Status::Done(r.rest()),
            1 => Status::NotLeader(core::str::from_utf8(r.rest()).map_err(|_| r.malformed())?),
            2 => Status::Retry,
            3 => Status::Gap(r.u64()?),
            4 => Status::NoSession,
            5 => Status::Busy,
            6 => Status::Opened(r.u64()?),
            7 => Status::Refused(r.rest()),
            8 => Status::NotHere(r.u64()?),
            _ => return Err(r.malformed()),
        };
        Ok(Self { id, status })
    }
}

/// A part of a reply that is too large to hold up the others on its link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyPart<'a> {
    /// The request's id.
    pub id: u64,
    /// Bytes of the whole reply.
    pub whole_len: u32,
    /// The next of them.
    pub bytes: &'a [u8],
}

impl<'a> ReplyPart<'a> {
    /// Appends the frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        frame::put(out, Kind::ReplyPart, |out| {
            out.extend_from_slice(&self.id.to_le_bytes());
            out.extend_from_slice(&self.whole_len.to_le_bytes());
            out.extend_from_slice(self.bytes);
        });
    }

    /// Reads a frame's body.
    ///
    /// # Errors
    /// It is malformed: drop the link.
    pub fn decode(body: &'a [u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(body, "part of a reply");
        let part = Self { id: r.u64()?, whole_len: r.u32()?, bytes: r.rest() };
        let is_possible = !part.bytes.is_empty()
            && part.bytes.len() <= part.whole_len as usize
            && part.whole_len as usize <= FRAME_BYTES_MAX;
        if is_possible { Ok(part) } else { Err(r.malformed()) }
    }
}

/// The arguments of a command: up to four take no allocation.
pub type Args<'a> = SmallVec<[&'a [u8]; 4]>;

/// A command as requests and log entries carry it: encoded once, by whoever parsed the client's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandBody<'a> {
    /// Number of the command ([`ringfort_resp::Command`]).
    pub command: u16,
    /// Protocol of the reply.
    pub protocol: Protocol,
    /// Whether reading a key is no use of it, for eviction (CLIENT NO-TOUCH).
    pub is_no_touch: bool,
    argc: u32,
    args: &'a [u8],
}

/// Where the protocol's byte stands in a command.
const PROTOCOL_AT: usize = 2;
/// Bit of that byte: the keys are read without being used.
const NO_TOUCH: u8 = 0x80;

impl<'a> CommandBody<'a> {
    /// Appends a command with its arguments (the name not included).
    pub fn encode<A: AsRef<[u8]>>(
        out: &mut Vec<u8>,
        command: u16,
        protocol: Protocol,
        args: impl ExactSizeIterator<Item = A>,
    ) {
        out.extend_from_slice(&command.to_le_bytes());
        out.push(match protocol {
            Protocol::Resp2 => 2,
            Protocol::Resp3 => 3,
        });
        out.extend_from_slice(&(args.len() as u32).to_le_bytes());
        for arg in args {
            put_bytes(out, arg.as_ref());
        }
    }

    /// Marks an encoded command: reading its keys is no use of them.
    pub fn mark_no_touch(body: &mut [u8]) {
        if let Some(byte) = body.get_mut(PROTOCOL_AT) {
            *byte |= NO_TOUCH;
        }
    }

    /// Reads the header; the arguments follow by [`CommandBody::args`].
    ///
    /// # Errors
    /// It is malformed.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes, "command");
        let command = r.u16()?;
        let byte = r.u8()?;
        let protocol = match byte & !NO_TOUCH {
            2 => Protocol::Resp2,
            3 => Protocol::Resp3,
            _ => return Err(r.malformed()),
        };
        let argc = r.u32()?;
        Ok(Self { command, protocol, is_no_touch: byte & NO_TOUCH != 0, argc, args: r.rest() })
    }

    /// The first argument, of most commands a key; `None` when there is none, or it is malformed.
    pub fn first_arg(&self) -> Option<&'a [u8]> {
        Reader::new(self.args, "command arguments").bytes().ok().filter(|_| self.argc > 0)
    }

    /// The arguments.
    ///
    /// # Errors
    /// They are malformed.
    pub fn args(&self) -> Result<Args<'a>, WireError> {
        let mut args = Args::new();
        let mut r = Reader::new(self.args, "command arguments");
        for _ in 0..self.argc {
            args.push(r.bytes()?);
        }
        if r.is_empty() { Ok(args) } else { Err(r.malformed()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_says_whether_it_touches() {
        let mut command = Vec::new();
        CommandBody::encode(&mut command, 2, Protocol::Resp3, [&b"k"[..]].iter());
        assert!(!CommandBody::decode(&command).unwrap().is_no_touch);
        CommandBody::mark_no_touch(&mut command);
        let body = CommandBody::decode(&command).unwrap();
        assert!(body.is_no_touch && body.protocol == Protocol::Resp3);
    }

    #[test]
    fn request_round_trips() {
        let mut command = Vec::new();
        CommandBody::encode(&mut command, 2, Protocol::Resp3, [&b"k"[..], b"v"].iter());
        let request = Request {
            id: 9,
            partition: PartitionId(63),
            kind: RequestKind::Write,
            session: 4,
            seq: 5,
            acked: 3,
            command: &command,
        };
        let mut out = Vec::new();
        request.encode(&mut out);
        let frame = frame::next(&out).unwrap().unwrap();
        assert_eq!(Request::decode(frame.body).unwrap(), request);
        let body = CommandBody::decode(request.command).unwrap();
        assert_eq!((body.command, body.protocol), (2, Protocol::Resp3));
        assert_eq!(body.args().unwrap()[..], [&b"k"[..], b"v"]);
        assert_eq!(body.first_arg(), Some(&b"k"[..]));
    }

    #[test]
    fn every_status_round_trips() {
        for status in [
            Status::Done(b"+OK\r\n"),
            Status::NotLeader("n2"),
            Status::Retry,
            Status::Gap(7),
            Status::NoSession,
            Status::Busy,
            Status::Opened(1 << 40),
            Status::Refused(b"-ERR no\r\n"),
            Status::NotHere(3),
        ] {
            let mut out = Vec::new();
            Reply { id: 1, status }.encode(&mut out);
            let frame = frame::next(&out).unwrap().unwrap();
            assert_eq!(Reply::decode(frame.body).unwrap(), Reply { id: 1, status });
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_decode_without_panic(bytes: Vec<u8>) {
            let _ = frame::next(&bytes);
            let _ = Request::decode(&bytes);
            let _ = Reply::decode(&bytes);
            if let Ok(body) = CommandBody::decode(&bytes) {
                assert!(body.args().is_err() || body.first_arg() == body.args().unwrap().first().copied());
            }
        }
    }
}
