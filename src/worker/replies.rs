//! The replies of one proxy's link: a read is answered only when there is room for its reply, and a large reply leaves in
//! parts, with small replies in between, so that who asks for much holds up nobody else.
//!
//! ```text
//!  put --small--> small --\  in turn
//!       --large--> large --+--> current --sent--> socket
//!                  (parts)
//!  park --------> parked: reads whose replies find no room; taken again by `take_parked` when there is
//! ```
//!
//! Few parts are ahead of what the proxy has taken, so that a small reply never finds many before it in the sockets.
//! A large reply of many parts is a bulk reply: each of its parts leaves when the caller lets it (`let_bulk`).
//!
//! # Invariants
//! - Replies to reads have at most `reply_room_bytes` and one small reply more, and one large reply.
//! - What is parked is within the link's credit. Replies to writes find room always: they cannot be had again later.

use crate::shard::limits::Limits;
use bytes::Bytes;
use ringfort_proxy::pace::BULK_BYTES;
use ringfort_wire::GroupId;
use ringfort_wire::request::{Reply, ReplyPart, Status};
use std::collections::VecDeque;

/// Most reads with large replies that wait on one link, an eighth of its credit: who asks for values of megabytes leaves
/// most of it to others.
pub(super) const PARKED_LARGE_MAX: usize = 1024;
/// Longest that a read waits for room, µs: the proxy has given it up by then.
const PARKED_MAX_US: u64 = 5_000_000;
/// Capacity of a buffer that is kept when it is empty, bytes.
const KEPT_BYTES: usize = 1 << 20;
/// Parts of a reply from which on it is a bulk reply: as many bytes as for a client, with the limits of a process.
const BULK_PARTS: usize = 16;
const _: () = assert!(BULK_PARTS * Limits::USUAL.large_reply_bytes == BULK_BYTES);

/// A read that waits for room for its reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ParkedRead {
    /// Its request's id.
    pub(super) id: u64,
    pub(super) group: GroupId,
    pub(super) session: u64,
    pub(super) seq: u64,
    pub(super) body: Vec<u8>,
    pub(super) since_us: u64,
    /// Bytes that its reply had, or would have had.
    pub(super) reply_bytes: usize,
}

/// What becomes of a read that was parked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unparked {
    /// There is room: execute it.
    Execute(ParkedRead),
    /// It has waited for too long.
    TooLate(ParkedRead),
}

/// A reply that leaves in parts.
#[derive(Debug)]
pub(super) struct LargeReply {
    id: u64,
    whole_len: usize,
    /// What is not in a part yet.
    pieces: VecDeque<Bytes>,
}

impl LargeReply {
    pub(super) fn new(id: u64, pieces: impl Into<VecDeque<Bytes>>) -> Self {
        let pieces: VecDeque<Bytes> = pieces.into();
        Self { id, whole_len: pieces.iter().map(Bytes::len).sum(), pieces }
    }

    fn is_bulk(&self, limits: &Limits) -> bool {
        BULK_PARTS * limits.large_reply_bytes <= self.whole_len
    }

    /// Moves the next part to `out`; `false`: it was the last one.
    fn put_part(&mut self, bytes_max: usize, out: &mut Vec<u8>) -> bool {
        let Some(piece) = self.pieces.front_mut() else { return false };
        let bytes = piece.split_to(piece.len().min(bytes_max.max(1)));
        ReplyPart { id: self.id, whole_len: self.whole_len as u32, bytes: &bytes }.encode(out);
        if piece.is_empty() {
            self.pieces.pop_front();
        }
        !self.pieces.is_empty()
    }
}

/// The replies that a proxy has not taken yet, and the reads that wait for that.
#[derive(Debug, Default)]
pub(super) struct LinkReplies {
    /// Being sent; the first `sent` bytes are with the system.
    current: Vec<u8>,
    sent: usize,
    /// Whether that is a part of a large reply.
    is_current_large: bool,
    /// Frames of small replies.
    small: Vec<u8>,
    /// Large ones: of reads one at most.
    large: VecDeque<LargeReply>,
    /// Parts of them that were sent, and that the proxy has not said to have taken.
    parts_ahead: usize,
    /// Whether the next part of a bulk reply may be sent.
    is_bulk_let: bool,
    /// Room for the replies of reads that are executed in this turn.
    reserved_bytes: usize,
    is_large_reserved: bool,
    parked_small: VecDeque<ParkedRead>,
    parked_large: VecDeque<ParkedRead>,
}

impl LinkReplies {
    /// The largest reply to a read for which there is room now.
    pub(super) fn room(&self, limits: &Limits) -> usize {
        let current = if self.is_current_large { 0 } else { self.current.len() - self.sent };
        let small = current + self.small.len() + self.reserved_bytes;
        let is_large_free = !self.is_large_reserved && self.large.is_empty();
        match small < limits.reply_room_bytes {
            false => 0,
            true if is_large_free => usize::MAX,
            true => limits.large_reply_bytes,
        }
    }

    /// Keeps room for a reply until the turn is over and the reply is put.
    pub(super) fn reserve(&mut self, bytes: usize, limits: &Limits) {
        match limits.large_reply_bytes < bytes {
            true => self.is_large_reserved = true,
            false => self.reserved_bytes += bytes,
        }
    }

    /// Forgets what was reserved: the turn is over.
    pub(super) fn end_turn(&mut self) {
        self.reserved_bytes = 0;
        self.is_large_reserved = false;
    }

    /// Takes a reply of so many bytes.
    pub(super) fn put(&mut self, reply: &Reply<'_>, limits: &Limits) {
        match reply.status {
            Status::Done(bytes) if limits.large_reply_bytes < bytes.len() => {
                self.put_large(LargeReply::new(reply.id, [Bytes::copy_from_slice(bytes)]));
            }
            _ => reply.encode(&mut self.small),
        }
    }

    /// Takes a large reply.
    pub(super) fn put_large(&mut self, reply: LargeReply) {
        self.large.push_back(reply);
    }

    /// Keeps a read until there is room for its reply. `false`: too many wait for a large one.
    pub(super) fn park(&mut self, read: ParkedRead, limits: &Limits) -> bool {
        if read.reply_bytes <= limits.large_reply_bytes {
            self.parked_small.push_back(read);
            return true;
        }
        let has_place = self.parked_large.len() < PARKED_LARGE_MAX;
        if has_place {
            self.parked_large.push_back(read);
        }
        has_place
    }

    /// Whether reads wait for room.
    pub(super) fn has_parked(&self) -> bool {
        !self.parked_small.is_empty() || !self.parked_large.is_empty()
    }

    /// The next read that waits no more, a small one first; none whose reply is larger than `most`.
    pub(super) fn take_parked(&mut self, now_us: u64, most: usize, limits: &Limits) -> Option<Unparked> {
        let room = self.room(limits).min(most);
        for parked in [&mut self.parked_small, &mut self.parked_large] {
            let Some(read) = parked.front() else { continue };
            let is_late = PARKED_MAX_US < now_us.saturating_sub(read.since_us);
            if is_late || read.reply_bytes <= room {
                let read = parked.pop_front()?;
                return Some(if is_late { Unparked::TooLate(read) } else { Unparked::Execute(read) });
            }
        }
        None
    }

    /// Bytes of small replies that are not sent.
    pub(super) fn small_bytes(&self) -> usize {
        let current = if self.is_current_large { 0 } else { self.current.len() - self.sent };
        current + self.small.len()
    }

    /// Whether nothing waits for the socket: what comes next must be told to whoever sends. Parts of large replies may wait
    /// for something else.
    pub(super) fn is_flushed(&self) -> bool {
        self.sent == self.current.len() && self.small.is_empty()
    }

    /// The proxy has taken a part. One that says so too often may have more ahead of it: that is its own loss.
    pub(super) fn part_taken(&mut self) {
        self.parts_ahead = self.parts_ahead.saturating_sub(1);
    }

    /// Nobody waits for the rest of a large reply that is under way; one that is all sent already stays so.
    pub(super) fn drop_rest(&mut self, id: u64) {
        if self.large.front().is_some_and(|reply| reply.id == id) {
            self.large.pop_front();
        }
    }

    /// Whether a part of a bulk reply waits for [`LinkReplies::let_bulk`].
    pub(super) fn has_bulk(&self, limits: &Limits) -> bool {
        !self.is_bulk_let
            && self.parts_ahead < limits.parts_ahead
            && self.large.front().is_some_and(|reply| reply.is_bulk(limits))
    }

    /// Lets the next part of a bulk reply be sent, in its turn.
    pub(super) fn let_bulk(&mut self) {
        self.is_bulk_let = true;
    }

    /// The next bytes to send, and whether they are of a large reply.
    pub(super) fn output(&mut self, limits: &Limits) -> (&[u8], bool) {
        if self.sent == self.current.len() {
            self.refill(limits);
        }
        (&self.current[self.sent..], self.is_current_large)
    }

    /// Forgets `count` bytes of the output, which have been sent.
    pub(super) fn sent(&mut self, count: usize) {
        self.sent += count;
        debug_assert!(self.sent <= self.current.len(), "more was sent than there was");
    }

    /// All of `current` is sent: parts of large replies and small ones take turns.
    fn refill(&mut self, limits: &Limits) {
        self.sent = 0;
        self.current.clear();
        self.current.shrink_to(KEPT_BYTES);
        let was_large = std::mem::replace(&mut self.is_current_large, false);
        if (!was_large || self.small.is_empty())
            && self.parts_ahead < limits.parts_ahead
            && let Some(reply) =
                self.large.front_mut().filter(|reply| self.is_bulk_let || !reply.is_bulk(limits))
        {
            self.is_bulk_let &= !reply.is_bulk(limits);
            self.is_current_large = true;
            self.parts_ahead += 1;
            if !reply.put_part(limits.large_reply_bytes, &mut self.current) {
                self.large.pop_front();
            }
        } else {
            std::mem::swap(&mut self.current, &mut self.small);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfort_wire::frame;

    const LIMITS: Limits = Limits { reply_room_bytes: 100, large_reply_bytes: 10, ..Limits::USUAL };

    fn put(replies: &mut LinkReplies, id: u64, bytes: usize) {
        replies.put(&Reply { id, status: Status::Done(&vec![b'x'; bytes]) }, &LIMITS);
    }

    fn parked(id: u64, reply_bytes: usize) -> ParkedRead {
        let (group, body) = (GroupId(1), Vec::new());
        ParkedRead { id, group, session: 0, seq: 0, body, since_us: 0, reply_bytes }
    }

    /// Sends everything, `step` bytes at a time; the ids in the order in which their replies are whole.
    fn send_all(replies: &mut LinkReplies, step: usize) -> Vec<u64> {
        let mut bytes = Vec::new();
        loop {
            replies.let_bulk();
            while let (output @ [_, ..], _) = replies.output(&LIMITS) {
                let piece = output[..step.min(output.len())].to_vec();
                replies.sent(piece.len());
                bytes.extend(piece);
                replies.let_bulk();
            }
            if replies.parts_ahead == 0 {
                break;
            }
            replies.part_taken();
        }
        let (mut ids, mut rest, mut come) = (Vec::new(), &bytes[..], 0);
        while let Some(frame) = frame::next(rest).unwrap() {
            if frame.kind == frame::Kind::Reply {
                ids.push(Reply::decode(frame.body).unwrap().id);
            } else {
                let part = ReplyPart::decode(frame.body).unwrap();
                assert!(part.bytes.len() <= LIMITS.large_reply_bytes);
                come += part.bytes.len();
                if come == part.whole_len as usize {
                    come = 0;
                    ids.push(part.id);
                }
            }
            rest = &rest[frame.consumed..];
        }
        assert!(rest.is_empty() && replies.is_flushed() && replies.large.is_empty());
        ids
    }

    #[test]
    fn large_replies_leave_one_after_the_other_with_small_ones_in_between() {
        for step in [1, 7, 1000] {
            let mut replies = LinkReplies::default();
            put(&mut replies, 1, 5);
            for id in [10, 11, 12] {
                put(&mut replies, id, 50);
            }
            for id in [2, 3] {
                put(&mut replies, id, 5);
            }
            assert_eq!(send_all(&mut replies, step), [1, 2, 3, 10, 11, 12]);
        }
    }

    #[test]
    fn a_bulk_reply_leaves_part_by_part_when_it_is_told_to() {
        let mut replies = LinkReplies::default();
        put(&mut replies, 10, 10 * BULK_PARTS);
        put(&mut replies, 1, 5);
        let small = replies.output(&LIMITS).0.len();
        replies.sent(small);
        assert!(replies.is_flushed() && replies.output(&LIMITS).0.is_empty());
        for _ in 0..BULK_PARTS {
            assert!(replies.has_bulk(&LIMITS) && replies.output(&LIMITS).0.is_empty());
            replies.let_bulk();
            assert!(!replies.has_bulk(&LIMITS), "it need not be let twice");
            let part = replies.output(&LIMITS).0.len();
            replies.sent(part);
            replies.part_taken();
        }
        assert!(!replies.has_bulk(&LIMITS) && replies.output(&LIMITS).0.is_empty());
        put(&mut replies, 11, 10 * BULK_PARTS - 1);
        assert!(!replies.output(&LIMITS).0.is_empty(), "this one is large, and not bulk");
    }

    #[test]
    fn the_rest_of_a_large_reply_is_dropped_and_the_next_one_follows() {
        let mut replies = LinkReplies::default();
        for id in [10, 11] {
            put(&mut replies, id, 50);
        }
        let part = replies.output(&LIMITS).0.len();
        replies.drop_rest(11);
        assert_eq!(replies.large.len(), 2, "it is not under way");
        replies.sent(1);
        replies.drop_rest(10);
        assert_eq!(replies.output(&LIMITS).0.len(), part - 1, "a part that was begun is sent whole");
        replies.sent(part - 1);
        replies.drop_rest(10);
        replies.part_taken();
        assert_eq!(send_all(&mut replies, 7), [11]);
    }

    #[test]
    fn few_parts_are_ahead_of_the_proxy_and_small_replies_pass_them() {
        for bytes in [100, 10 * BULK_PARTS] {
            let mut replies = LinkReplies::default();
            put(&mut replies, 10, bytes);
            let mut parts = 0;
            replies.let_bulk();
            while let (part @ [_, ..], true) = replies.output(&LIMITS) {
                parts += 1;
                let part = part.len();
                replies.sent(part);
                replies.let_bulk();
            }
            assert_eq!(parts, LIMITS.parts_ahead);
            assert!(replies.is_flushed());
            put(&mut replies, 1, 5);
            let small = replies.output(&LIMITS).0.len();
            assert_ne!(small, 0);
            replies.sent(small);
            assert!(replies.output(&LIMITS).0.is_empty());
            replies.part_taken();
            assert!(!replies.output(&LIMITS).0.is_empty());
        }
    }

    #[test]
    fn room_is_for_one_large_reply_and_some_small_ones() {
        let mut replies = LinkReplies::default();
        assert_eq!(replies.room(&LIMITS), usize::MAX);
        replies.reserve(50, &LIMITS);
        assert_eq!(replies.room(&LIMITS), 10, "another large one must wait");
        put(&mut replies, 1, 50);
        replies.end_turn();
        assert_eq!(replies.room(&LIMITS), 10, "it is under way");
        for id in 2..12 {
            put(&mut replies, id, 10);
        }
        assert_eq!(replies.room(&LIMITS), 0);
        send_all(&mut replies, 1000);
        assert_eq!(replies.room(&LIMITS), usize::MAX);
        replies.reserve(10, &LIMITS);
        (0..9).for_each(|_| replies.reserve(10, &LIMITS));
        assert_eq!(replies.room(&LIMITS), 0, "what is executed in this turn counts");
    }

    #[test]
    fn a_parked_read_goes_on_when_its_reply_has_room_small_ones_first() {
        let mut replies = LinkReplies::default();
        put(&mut replies, 1, 50);
        for (id, bytes) in [(2, 50), (3, 5), (4, 50)] {
            assert!(replies.park(parked(id, bytes), &LIMITS));
        }
        assert_eq!(replies.take_parked(1, usize::MAX, &LIMITS), Some(Unparked::Execute(parked(3, 5))));
        assert_eq!(replies.take_parked(1, usize::MAX, &LIMITS), None, "a large reply is under way");
        send_all(&mut replies, 8);
        assert_eq!(replies.take_parked(1, 10, &LIMITS), None, "the worker has no time for it");
        assert_eq!(replies.take_parked(1, usize::MAX, &LIMITS), Some(Unparked::Execute(parked(2, 50))));
        replies.reserve(50, &LIMITS);
        assert_eq!(replies.take_parked(1, usize::MAX, &LIMITS), None);
        let late = replies.take_parked(PARKED_MAX_US + 1, usize::MAX, &LIMITS);
        assert_eq!(late, Some(Unparked::TooLate(parked(4, 50))));
        assert!(!replies.has_parked());
    }

    #[test]
    fn reads_with_large_replies_leave_most_of_the_credit_to_others() {
        let mut replies = LinkReplies::default();
        for id in 0..PARKED_LARGE_MAX as u64 {
            assert!(replies.park(parked(id, 50), &LIMITS));
        }
        assert!(!replies.park(parked(5000, 50), &LIMITS));
        assert!(replies.park(parked(5001, 5), &LIMITS));
    }
}
