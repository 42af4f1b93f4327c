//! Replies in request order, whatever order the answers come in.

use super::output::Output;
use super::recent_args::Place;
use super::{OUTPUT_BYTES_MAX, Ticket};
use bytes::Bytes;
use ringfort_resp::{CommandSpec, Protocol, ReplyWriter};
use std::borrow::Cow;
use std::collections::VecDeque;

/// Size that a session's first replies are taken to have, bytes.
const FIRST_REPLY_BYTES: usize = 1 << 20;
/// Most buffers of answers that are kept for the next ones, and the capacity up to which one is, bytes.
const SPARES_MAX: usize = 64;
const SPARE_BYTES_MAX: usize = 1 << 10;
/// Of this many answers, a large one is forgotten by a factor of e.
const REPLIES_REMEMBERED: usize = 64;

/// A command that is given out, or a reply that waits for the replies before it.
#[derive(Debug)]
struct Waiting {
    /// `None` when the session itself answered it.
    asked: Option<Asked>,
    reply: Option<Kept>,
}

/// An answer, as it comes.
#[derive(Debug, Clone)]
pub enum Answer<'a> {
    /// Bytes to be copied.
    Copied(&'a [u8]),
    /// Bytes to be kept as they are until they are sent: no error.
    Shared(Vec<Bytes>),
}

impl Answer<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Copied(bytes) => bytes.len(),
            Self::Shared(pieces) => pieces.iter().map(Bytes::len).sum(),
        }
    }

    /// All bytes of it.
    pub(crate) fn bytes(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Copied(bytes) => Cow::Borrowed(bytes),
            Self::Shared(pieces) => Cow::Owned(pieces.concat()),
        }
    }
}

/// An answer that waits for those before it.
#[derive(Debug)]
enum Kept {
    Copied(Vec<u8>),
    Shared(Vec<Bytes>),
}

impl Kept {
    fn len(&self) -> usize {
        match self {
            Self::Copied(bytes) => bytes.len(),
            Self::Shared(pieces) => pieces.iter().map(Bytes::len).sum(),
        }
    }
}

/// A command that waits for its answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) spec: &'static CommandSpec,
    /// When it was decoded, µs.
    pub(super) at_us: u64,
    /// Its arguments, for the slow log.
    pub(super) args: Place,
    /// Whether its reply is dropped (CLIENT REPLY).
    pub(super) is_silent: bool,
}

/// The replies of one session.
///
/// # Invariants
/// - `waiting[i]` belongs to ticket `first + i`; one without a reply is a command without its answer.
/// - `waiting` never starts with an answer: that is written to the output at once.
#[derive(Debug)]
pub(super) struct ReplyQueue {
    output: Output,
    first: u64,
    waiting: VecDeque<Waiting>,
    /// Empty buffers for answers that wait.
    spares: Vec<Vec<u8>>,
    /// Bytes in `waiting`.
    waiting_bytes: usize,
    /// The largest of the last replies, fading.
    large_reply_bytes: usize,
    has_overflowed: bool,
}

impl Default for ReplyQueue {
    fn default() -> Self {
        Self {
            output: Output::default(),
            first: 0,
            waiting: VecDeque::new(),
            spares: Vec::new(),
            waiting_bytes: 0,
            large_reply_bytes: FIRST_REPLY_BYTES,
            has_overflowed: false,
        }
    }
}

impl ReplyQueue {
    /// Whether one more command may be given out: if all replies to come are as large as the largest of the last ones,
    /// half of [`OUTPUT_BYTES_MAX`] holds them. So a pipeline of large reads is held up, and not cut, when the client reads
    /// more slowly than the cluster answers. One command may always be given out.
    pub(super) fn has_room(&self) -> bool {
        let held = self.output_bytes() + self.waiting_bytes;
        let to_come = (self.waiting.len() + 1).saturating_mul(self.large_reply_bytes);
        self.waiting.is_empty() || held + to_come <= OUTPUT_BYTES_MAX / 2
    }

    /// Replies that are still to be written to the output.
    pub(super) fn unanswered(&self) -> usize {
        self.waiting.len()
    }

    /// Whether the replies that wait, if any, wait for this one.
    pub(super) fn is_next(&self, ticket: Ticket) -> bool {
        ticket.0 == self.first
    }

    /// The oldest command without its answer.
    pub(super) fn oldest(&self) -> Option<Asked> {
        self.waiting.front()?.asked
    }

    /// Bytes of replies that wait for the replies before them.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// The next bytes to send.
    pub(super) fn output(&self) -> &[u8] {
        self.output.first()
    }

    /// Bytes to send, altogether.
    pub(super) fn output_bytes(&self) -> usize {
        self.output.len()
    }

    /// Whether the client let more than [`OUTPUT_BYTES_MAX`] bytes pile up; what was held is dropped then.
    pub(super) fn has_overflowed(&self) -> bool {
        self.has_overflowed
    }

    /// Makes room for a reply that comes later.
    pub(super) fn expect_one(&mut self, asked: Asked) -> Ticket {
        self.waiting.push_back(Waiting { asked: Some(asked), reply: None });
        Ticket(self.first + (self.waiting.len() - 1) as u64)
    }

    /// Takes back the last [`Self::expect_one`], which nothing followed.
    pub(super) fn expect_one_less(&mut self) {
        let last = self.waiting.pop_back();
        debug_assert!(
            last.is_some_and(|last| last.reply.is_none()),
            "only what is not answered can be taken back"
        );
    }

    /// Appends a reply that is known at once.
    pub(super) fn write(&mut self, protocol: Protocol, write: impl FnOnce(&mut ReplyWriter<'_>)) {
        self.write_raw(|out| write(&mut ReplyWriter::new(out, protocol)));
    }

    /// As [`Self::write`], with the buffer itself.
    pub(super) fn write_raw<T>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let result = if self.waiting.is_empty() {
            self.output.write(write)
        } else {
            let mut reply = self.spares.pop().unwrap_or_default();
            let result = write(&mut reply);
            self.waiting_bytes += reply.len();
            self.waiting.push_back(Waiting { asked: None, reply: Some(Kept::Copied(reply)) });
            result
        };
        self.check_size();
        result
    }

    /// Takes the reply for a ticket; `None` when it has one already.
    pub(super) fn answer(&mut self, ticket: Ticket, reply: Answer<'_>) -> Option<Asked> {
        let i = usize::try_from(ticket.0.checked_sub(self.first)?).ok()?;
        let waiting = self.waiting.get_mut(i).filter(|waiting| waiting.reply.is_none())?;
        let asked = waiting.asked;
        let reply = if asked.is_some_and(|asked| asked.is_silent) { Answer::Copied(&[]) } else { reply };
        let faded = self.large_reply_bytes - self.large_reply_bytes / REPLIES_REMEMBERED;
        self.large_reply_bytes = faded.max(reply.len());
        if i == 0 {
            self.waiting.pop_front();
            self.first += 1;
            match reply {
                Answer::Copied(bytes) => self.output.write(|out| out.extend_from_slice(bytes)),
                Answer::Shared(pieces) => self.output.share(pieces),
            }
            self.write_ready();
        } else {
            self.waiting_bytes += reply.len();
            waiting.reply = Some(match reply {
                Answer::Copied(bytes) => {
                    let mut reply = self.spares.pop().unwrap_or_default();
                    reply.extend_from_slice(bytes);
                    Kept::Copied(reply)
                }
                Answer::Shared(pieces) => Kept::Shared(pieces),
            });
        }
        self.check_size();
        asked
    }

    /// Moves the answers that are next in line to the output.
    fn write_ready(&mut self) {
        while let Some(reply) = self.waiting.front_mut().and_then(|waiting| waiting.reply.take()) {
            self.waiting_bytes -= reply.len();
            match reply {
                Kept::Copied(mut bytes) => {
                    self.output.write(|out| out.extend_from_slice(&bytes));
                    if bytes.capacity() <= SPARE_BYTES_MAX && self.spares.len() < SPARES_MAX {
                        bytes.clear();
                        self.spares.push(bytes);
                    }
                }
                Kept::Shared(pieces) => self.output.share(pieces),
            }
            self.waiting.pop_front();
            self.first += 1;
        }
    }

    fn check_size(&mut self) {
        if self.output_bytes() + self.waiting_bytes > OUTPUT_BYTES_MAX {
            self.overflow();
        }
    }

    /// Drops what is held, and what is still to come.
    pub(super) fn overflow(&mut self) {
        *self =
            Self { has_overflowed: true, first: self.first + self.waiting.len() as u64, ..Self::default() };
    }

    /// Gives the memory of the buffers back, which are empty.
    pub(super) fn give_back_buffers(&mut self) {
        debug_assert!(self.output_bytes() == 0 && self.waiting.is_empty(), "the buffers are used");
        self.output = Output::default();
        self.waiting = VecDeque::new();
        self.spares = Vec::new();
    }

    /// Bytes of memory that the buffers have.
    #[cfg(test)]
    pub(super) fn buffer_bytes(&self) -> usize {
        let spares: usize = self.spares.iter().map(Vec::capacity).sum();
        self.output.buffer_bytes() + self.waiting.capacity() * size_of::<Waiting>() + spares
    }

    /// Forgets `count` bytes that have been sent.
    pub(super) fn sent(&mut self, count: usize) {
        self.output.sent(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfort_resp::Command;

    fn asked() -> Asked {
        Asked { spec: Command::Get.spec(), at_us: 0, args: Place::default(), is_silent: false }
    }

    #[test]
    fn answers_leave_in_request_order() {
        let mut queue = ReplyQueue::default();
        let tickets = [queue.expect_one(asked()), queue.expect_one(asked())];
        queue.write_raw(|out| out.extend_from_slice(b"+3\r\n"));
        queue.answer(tickets[1], Answer::Copied(b"+2\r\n"));
        assert_eq!((queue.output(), queue.unanswered()), (&b""[..], 3));
        queue.answer(tickets[1], Answer::Copied(b"+again\r\n"));
        queue.answer(tickets[0], Answer::Copied(b"+1\r\n"));
        queue.answer(tickets[0], Answer::Copied(b"+again\r\n"));
        assert_eq!((queue.output(), queue.unanswered()), (&b"+1\r\n+2\r\n+3\r\n"[..], 0));
        queue.sent(4);
        queue.write_raw(|out| out.extend_from_slice(b"+4\r\n"));
        assert_eq!(queue.output(), b"+2\r\n+3\r\n+4\r\n");
        queue.sent(12);
        let next = queue.expect_one(asked());
        queue.answer(next, Answer::Copied(b"+5\r\n"));
        assert_eq!(queue.output(), b"+5\r\n");
    }

    #[test]
    fn a_silent_command_has_an_answer_that_nobody_sees() {
        let mut queue = ReplyQueue::default();
        let silent = Asked { is_silent: true, ..asked() };
        let tickets = [queue.expect_one(silent), queue.expect_one(asked()), queue.expect_one(silent)];
        for (ticket, reply) in tickets.into_iter().zip([b"+1\r\n", b"+2\r\n", b"+3\r\n"]).rev() {
            assert!(queue.answer(ticket, Answer::Copied(reply)).is_some());
            assert!(queue.answer(ticket, Answer::Copied(reply)).is_none());
        }
        assert_eq!((queue.output(), queue.unanswered()), (&b"+2\r\n"[..], 0));
    }

    #[test]
    fn shared_answers_keep_their_place() {
        let mut queue = ReplyQueue::default();
        let tickets = [queue.expect_one(asked()), queue.expect_one(asked()), queue.expect_one(asked())];
        let shared = |text: &'static str| Answer::Shared(vec![Bytes::from_static(text.as_bytes())]);
        queue.answer(tickets[2], shared("+3\r\n"));
        queue.answer(tickets[1], Answer::Copied(b"+2\r\n"));
        assert_eq!((queue.output_bytes(), queue.waiting_bytes()), (0, 8));
        queue.answer(tickets[0], shared("+1\r\n"));
        assert_eq!((queue.output_bytes(), queue.waiting_bytes()), (12, 0));
        for reply in [b"+1\r\n", b"+2\r\n", b"+3\r\n"] {
            assert_eq!(queue.output(), reply);
            queue.sent(reply.len());
        }
    }

    #[test]
    fn output_beyond_the_limit_ends_the_session() {
        let mut queue = ReplyQueue::default();
        let (first, second) = (queue.expect_one(asked()), queue.expect_one(asked()));
        queue.answer(second, Answer::Copied(&vec![b'x'; OUTPUT_BYTES_MAX]));
        assert!(!queue.has_overflowed());
        queue.answer(first, Answer::Copied(b"+\r\n"));
        assert!(queue.has_overflowed());
        assert_eq!((queue.output().len(), queue.unanswered()), (0, 0));
        queue.answer(second, Answer::Copied(b"+late\r\n"));
        assert_eq!(queue.output().len(), 0);
    }
}
