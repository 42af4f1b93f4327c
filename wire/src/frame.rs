//! Frames: length, kind, body.

/// Largest frame: one command of the largest size with its headers, or one batch of log entries.
pub const FRAME_BYTES_MAX: usize = 64 << 20;

/// Bytes before a frame's body.
pub const FRAME_HEADER_BYTES: usize = 5;

/// Longest wait that [`Kind::MapGet`] may ask for; a longer one is cut to it.
pub const MAP_WAIT_MS_MAX: u32 = 10_000;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Opens a link ([`crate::hello::Hello`]).
    Hello = 1,
    /// Accepts it ([`crate::hello::HelloAck`]).
    HelloAck = 2,
    /// Refuses it; the body is a sentence.
    HelloRefuse = 3,
    /// Asks the side that connects to prove that it knows the peer secret; see [`crate::hello`].
    Challenge = 4,
    /// That proof.
    Proof = 5,
    /// A command for a partition ([`crate::Request`]).
    Request = 10,
    /// Its answer ([`crate::Reply`]).
    Reply = 11,
    /// A part of a large one ([`crate::request::ReplyPart`]).
    ReplyPart = 12,
    /// The proxy has taken one of those; no body. A node sends so few ahead of that (its limit `parts_ahead`) that a small
    /// reply never finds many bytes before it.
    PartTaken = 13,
    /// Nobody waits for the rest of the large reply to this request (id, 8 bytes), some parts of which have come: its client
    /// is gone, or it was given up. The request is answered for both sides; parts on their way are taken as any others.
    RestUnwanted = 14,
    /// Asks for the cluster map if its epoch is above the one in the body (8 bytes); the answer may wait for such a map
    /// for so many milliseconds (4 bytes, at most [`MAP_WAIT_MS_MAX`]).
    MapGet = 20,
    /// The cluster map, as JSON; an empty body when the asker's epoch is the newest.
    Map = 21,
    /// A change for the meta group ([`crate::MetaWrite`]).
    MetaWrite = 22,
    /// Its answer ([`crate::MetaAnswer`]).
    MetaAnswer = 23,
    /// A Raft message of one group.
    Raft = 30,
    /// Announces a snapshot: length and the Raft message that goes with it.
    SnapshotBegin = 31,
    /// The next bytes of it.
    SnapshotChunk = 32,
    /// Its end.
    SnapshotEnd = 33,
    /// On a link of Raft messages: what a group tells the meta group ([`crate::MetaWrite::Left`]), never answered. On a control
    /// link: a node asks to be taken in ([`crate::MetaWrite::Replace`]); the answer says why not, or nothing.
    MetaReport = 34,
    /// Asks a node for its state before a cluster exists.
    Probe = 40,
    /// The answer ([`crate::hello::ProbeAck`]).
    ProbeAck = 41,
}

impl Kind {
    /// The kind of a number; `None` for a number that this version does not know.
    pub const fn from_u8(n: u8) -> Option<Self> {
        Some(match n {
            1 => Self::Hello,
            2 => Self::HelloAck,
            3 => Self::HelloRefuse,
            4 => Self::Challenge,
            5 => Self::Proof,
            10 => Self::Request,
            11 => Self::Reply,
            12 => Self::ReplyPart,
            13 => Self::PartTaken,
            14 => Self::RestUnwanted,
            20 => Self::MapGet,
            21 => Self::Map,
            22 => Self::MetaWrite,
            23 => Self::MetaAnswer,
            30 => Self::Raft,
            31 => Self::SnapshotBegin,
            32 => Self::SnapshotChunk,
            33 => Self::SnapshotEnd,
            34 => Self::MetaReport,
            40 => Self::Probe,
            41 => Self::ProbeAck,
            _ => return None,
        })
    }
}

/// Why bytes of a peer are not what they should be: drop the link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A frame longer than [`FRAME_BYTES_MAX`], or of length zero.
    #[error("frame of {0} bytes is out of range")]
    FrameLength(usize),
    /// A kind that this version does not know.
    #[error("frame of unknown kind {0}")]
    UnknownKind(u8),
    /// The body ends in the middle of a field, or holds a value out of range.
    #[error("malformed {0}")]
    Malformed(&'static str),
}

/// A frame at the start of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it holds.
    pub kind: Kind,
    /// Its body.
    pub body: &'a [u8],
    /// Bytes of the buffer that it takes.
    pub consumed: usize,
}

/// Cuts the first frame out of `buf`; `None` while it is incomplete.
///
/// # Errors
/// The length or the kind is impossible: drop the link.
pub fn next(buf: &[u8]) -> Result<Option<Frame<'_>>, WireError> {
    let Some(header) = buf.first_chunk::<4>() else { return Ok(None) };
    let len = u32::from_le_bytes(*header) as usize;
    if len == 0 || len > FRAME_BYTES_MAX {
        return Err(WireError::FrameLength(len));
    }
    let Some(&kind) = buf.get(4) else { return Ok(None) };
    let kind = Kind::from_u8(kind).ok_or(WireError::UnknownKind(kind))?;
    let Some(body) = buf.get(FRAME_HEADER_BYTES..4 + len) else { return Ok(None) };
    Ok(Some(Frame { kind, body, consumed: 4 + len }))
}

/// Appends a frame whose body `write` appends.
pub fn put(out: &mut Vec<u8>, kind: Kind, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0, 0, 0, 0, kind as u8]);
    write(out);
    let len = out.len() - start - 4;
    assert!(len <= FRAME_BYTES_MAX, "a frame of {len} bytes was built; the limit is {FRAME_BYTES_MAX}");
    out[start..start + 4].copy_from_slice(&(len as u32).to_le_bytes());
}

/// Reads fields from the start of a body.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// Reads `bytes`; `what` names them in errors.
    pub const fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    /// The error for a bad value in this body.
    pub const fn malformed(&self) -> WireError {
        WireError::Malformed(self.what)
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// Fewer are left.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or_else(|| self.malformed())?;
        self.rest = rest;
        Ok(*head)
    }

    /// One byte. # Errors: none is left.
    pub fn u8(&mut self) -> Result<u8, WireError> {
        Ok(self.array::<1>()?[0])
    }

    /// Two bytes. # Errors: fewer are left.
    pub fn u16(&mut self) -> Result<u16, WireError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Four bytes. # Errors: fewer are left.
    pub fn u32(&mut self) -> Result<u32, WireError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Eight bytes. # Errors: fewer are left.
    pub fn u64(&mut self) -> Result<u64, WireError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Sixteen bytes. # Errors: fewer are left.
    pub fn u128(&mut self) -> Result<u128, WireError> {
        Ok(u128::from_le_bytes(self.array()?))
    }

    /// Bytes behind a four-byte length. # Errors: fewer are left.
    pub fn bytes(&mut self) -> Result<&'a [u8], WireError> {
        let len = self.u32()? as usize;
        let (head, rest) = self.rest.split_at_checked(len).ok_or_else(|| self.malformed())?;
        self.rest = rest;
        Ok(head)
    }

    /// UTF-8 text behind a four-byte length. # Errors: fewer bytes are left, or they are not UTF-8.
    pub fn text(&mut self) -> Result<&'a str, WireError> {
        core::str::from_utf8(self.bytes()?).map_err(|_| self.malformed())
    }

    /// All that is left.
    pub const fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// Whether nothing is left.
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

/// Appends a question for a map newer than `epoch`; the answer may wait for `wait_ms`.
pub fn put_map_get(out: &mut Vec<u8>, epoch: u64, wait_ms: u32) {
    put(out, Kind::MapGet, |out| {
        out.extend_from_slice(&epoch.to_le_bytes());
        out.extend_from_slice(&wait_ms.to_le_bytes());
    });
}

/// Appends bytes behind a four-byte length.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_split() {
        let mut out = Vec::new();
        put(&mut out, Kind::Raft, |o| o.extend_from_slice(b"abc"));
        put_map_get(&mut out, 7, 5);
        for cut in 0..8 {
            assert_eq!(next(&out[..cut]), Ok(None));
        }
        let first = next(&out).unwrap().unwrap();
        assert_eq!((first.kind, first.body, first.consumed), (Kind::Raft, &b"abc"[..], 8));
        let second = next(&out[8..]).unwrap().unwrap();
        assert_eq!((second.kind, second.body.len()), (Kind::MapGet, 12));
    }

    #[test]
    fn refuses_impossible_frames() {
        assert_eq!(next(&[0, 0, 0, 0, 1]), Err(WireError::FrameLength(0)));
        assert_eq!(next(&[1, 0, 0, 0, 99]), Err(WireError::UnknownKind(99)));
        assert!(next(&u32::MAX.to_le_bytes()).is_err());
    }
}
