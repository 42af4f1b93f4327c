//! Joining the replies of a command that went to several partitions.

use crate::session::OUTPUT_BYTES_MAX;
use ringfort_resp::{Command, Protocol, ReplyWriter, reply};

/// Most bytes of the parts' replies altogether; more would cut the client anyway.
const PARTS_BYTES_MAX: usize = OUTPUT_BYTES_MAX;

/// How the parts' replies become one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Join {
    /// The integers are added (DEL, UNLINK, EXISTS, TOUCH, DBSIZE).
    Sum,
    /// OK when all say so (MSET, FLUSHALL, FLUSHDB).
    AllOk,
    /// The elements of the parts' arrays in the order of the keys: for each key its part and its place there (MGET).
    Elements(Vec<(u32, u32)>),
    /// The elements of all arrays, part after part (KEYS).
    Concat,
    /// Each part is an array of a count of keys and one of the keys; the answer is one of these (RANDOMKEY).
    RandomKey {
        /// A random number: it chooses the part, each as likely as it has keys.
        random: u64,
        /// Whether the answer is itself a part of another join: the sum of the counts, and the key.
        is_part: bool,
    },
}

impl Join {
    /// How the replies of all partitions to a command of [`Scope::AllPartitions`](ringfort_resp::Scope::AllPartitions)
    /// become one, or a part of one.
    pub fn everywhere(command: Command, random: u64, is_part: bool) -> Self {
        match command {
            Command::Keys => Self::Concat,
            Command::RandomKey => Self::RandomKey { random, is_part },
            command if command.spec().is_write => Self::AllOk,
            _ => Self::Sum,
        }
    }
}

/// The replies to one command so far. An error of any part is the answer to the whole, the first part's first.
#[derive(Debug)]
pub struct Gather {
    join: Join,
    protocol: Protocol,
    replies: Vec<Option<Box<[u8]>>>,
    missing: usize,
    /// Bytes in `replies`.
    bytes: usize,
    /// Whether they were more than [`PARTS_BYTES_MAX`]; then they are dropped.
    is_too_large: bool,
}

impl Gather {
    /// A command in `parts` parts, whose reply has the form of `protocol`.
    pub fn new(join: Join, protocol: Protocol, parts: usize) -> Self {
        Self { join, protocol, replies: vec![None; parts], missing: parts, bytes: 0, is_too_large: false }
    }

    /// Takes the reply of part `i`; the joined reply when it was the last.
    pub(crate) fn answer(&mut self, i: usize, reply: &[u8]) -> Option<Vec<u8>> {
        let place @ None = self.replies.get_mut(i)? else { return None };
        self.bytes += reply.len();
        self.is_too_large |= PARTS_BYTES_MAX < self.bytes;
        *place = Some(if self.is_too_large { Box::default() } else { reply.into() });
        if self.is_too_large {
            self.replies.iter_mut().flatten().for_each(|reply| *reply = Box::default());
        }
        self.missing -= 1;
        (self.missing == 0).then(|| self.joined())
    }

    /// Takes the reply of any part, where it does not matter of which; the joined reply when it was the last.
    pub fn push(&mut self, reply: &[u8]) -> Option<Vec<u8>> {
        self.answer(self.replies.len() - self.missing, reply)
    }

    /// The answer to a command that has no parts.
    pub fn empty(join: Join, protocol: Protocol) -> Vec<u8> {
        Self::new(join, protocol, 0).joined()
    }

    fn joined(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(if self.is_too_large { 0 } else { self.bytes });
        let writer = &mut ReplyWriter::new(&mut out, self.protocol);
        if self.is_too_large {
            writer.error("ERR the reply is too large; ask for less at once");
            return out;
        }
        let replies = || self.replies.iter().flatten().map(|reply| &**reply);
        if let Some(error) = replies().find(|reply| reply.starts_with(b"-")) {
            return error.to_vec();
        }
        let is_whole = match &self.join {
            Join::Sum => {
                let sum = replies().try_fold(0i64, |sum, r| reply::integer(r).map(|n| sum.saturating_add(n)));
                sum.map(|sum| writer.integer(sum))
            }
            Join::AllOk => {
                let is_ok = replies().all(|reply| reply == b"+OK\r\n");
                is_ok.then(|| writer.ok())
            }
            Join::Elements(order) => elements(order, replies(), writer),
            Join::Concat => concat(replies(), writer),
            Join::RandomKey { random, is_part } => random_key(*random, *is_part, replies(), writer),
        };
        if is_whole.is_none() {
            out.clear();
            ReplyWriter::new(&mut out, self.protocol)
                .error("ERR the partitions' replies do not fit together");
        }
        out
    }
}

/// Writes one array of the elements of all parts; `None` when a part is no array.
fn concat<'a>(parts: impl Iterator<Item = &'a [u8]>, writer: &mut ReplyWriter<'_>) -> Option<()> {
    let parts: Vec<Vec<&[u8]>> = parts.map(reply::array_elements).collect::<Option<_>>()?;
    writer.array(parts.iter().map(Vec::len).sum());
    parts.iter().flatten().for_each(|element| writer.raw(element));
    Some(())
}

/// Writes the key of a part that is drawn by the counts, nil when all are 0; `None` when a part has another form.
fn random_key<'a>(
    random: u64,
    is_part: bool,
    parts: impl Iterator<Item = &'a [u8]>,
    writer: &mut ReplyWriter<'_>,
) -> Option<()> {
    let count_and_key = |part: &'a [u8]| {
        let [count, key] = reply::array_elements(part)?[..] else { return None };
        Some((u64::try_from(reply::integer(count)?).ok()?, key))
    };
    let parts: Vec<(u64, &[u8])> = parts.map(count_and_key).collect::<Option<_>>()?;
    let total: u64 = parts.iter().map(|(count, _)| count).sum();
    if is_part {
        writer.array(2);
        writer.integer(total.cast_signed());
    }
    let mut left = random.checked_rem(total).unwrap_or(0);
    for (count, key) in parts {
        if left < count {
            writer.raw(key);
            return Some(());
        }
        left -= count;
    }
    writer.null();
    Some(())
}

/// Writes the elements of the parts in the order of the keys; `None` when one is missing.
fn elements<'a>(
    order: &[(u32, u32)],
    parts: impl Iterator<Item = &'a [u8]>,
    writer: &mut ReplyWriter<'_>,
) -> Option<()> {
    let parts: Vec<Vec<&[u8]>> = parts.map(reply::array_elements).collect::<Option<_>>()?;
    writer.array(order.len());
    for (part, place) in order {
        writer.raw(parts.get(*part as usize)?.get(*place as usize)?);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join(join: Join, replies: &[&str]) -> String {
        let mut gather = Gather::new(join, Protocol::Resp2, replies.len());
        let mut last = None;
        for (i, reply) in replies.iter().enumerate().rev() {
            assert_eq!(last, None);
            last = gather.answer(i, reply.as_bytes());
            assert_eq!(gather.answer(i, b"+twice\r\n"), None);
        }
        String::from_utf8(last.unwrap()).unwrap()
    }

    #[test]
    fn replies_are_joined() {
        assert_eq!(join(Join::Sum, &[":1\r\n", ":41\r\n"]), ":42\r\n");
        assert_eq!(join(Join::AllOk, &["+OK\r\n", "+OK\r\n"]), "+OK\r\n");
        let order = Join::Elements(vec![(1, 0), (0, 0), (1, 1)]);
        assert_eq!(
            join(order, &["*1\r\n$1\r\na\r\n", "*2\r\n$-1\r\n:5\r\n"]),
            "*3\r\n$-1\r\n$1\r\na\r\n:5\r\n"
        );
    }

    #[test]
    fn keys_are_put_behind_one_another() {
        let parts = ["*1\r\n$1\r\na\r\n", "*0\r\n", "*2\r\n$1\r\nb\r\n$1\r\nc\r\n"];
        assert_eq!(join(Join::Concat, &parts), "*3\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n");
    }

    #[test]
    fn a_random_key_is_drawn_by_the_counts() {
        let parts = ["*2\r\n:0\r\n$-1\r\n", "*2\r\n:1\r\n$1\r\na\r\n", "*2\r\n:3\r\n$1\r\nb\r\n"];
        let of = |random| Join::RandomKey { random, is_part: false };
        let drawn: String = (0..8).map(|random| join(of(random), &parts)).collect();
        assert_eq!(drawn, "$1\r\na\r\n$1\r\nb\r\n$1\r\nb\r\n$1\r\nb\r\n".repeat(2));
        assert_eq!(join(of(5), &parts[..1]), "$-1\r\n");
        let part = Join::RandomKey { random: 1, is_part: true };
        assert_eq!(join(part.clone(), &parts), "*2\r\n:4\r\n$1\r\nb\r\n");
        assert_eq!(join(part, &parts[..1]), "*2\r\n:0\r\n$-1\r\n");
    }

    #[test]
    fn a_command_without_parts_has_an_answer() {
        for (command, answer) in [
            (Command::DbSize, ":0\r\n"),
            (Command::FlushAll, "+OK\r\n"),
            (Command::Keys, "*0\r\n"),
            (Command::RandomKey, "$-1\r\n"),
        ] {
            let empty = Gather::empty(Join::everywhere(command, 9, false), Protocol::Resp2);
            assert_eq!(String::from_utf8(empty).unwrap(), answer, "{command:?}");
        }
    }

    #[test]
    fn replies_beyond_the_limit_are_an_error_and_are_not_kept() {
        let mut part = b"*1\r\n$33554432\r\n".to_vec();
        part.resize(part.len() + (32 << 20), b'x');
        part.extend_from_slice(b"\r\n");
        let mut gather = Gather::new(Join::Concat, Protocol::Resp2, 3);
        assert_eq!(gather.push(&part), None);
        assert_eq!(gather.push(&part), None);
        assert!(gather.replies.iter().flatten().all(|reply| reply.is_empty()));
        let answer = gather.push(b"*0\r\n").unwrap();
        assert_eq!(answer, b"-ERR the reply is too large; ask for less at once\r\n");
    }

    #[test]
    fn first_error_is_the_answer() {
        assert_eq!(join(Join::Sum, &[":1\r\n", "-A x\r\n", "-B\r\n"]), "-A x\r\n");
        assert_eq!(join(Join::AllOk, &["+OK\r\n", "-OOM\r\n"]), "-OOM\r\n");
    }

    #[test]
    fn replies_of_another_shape_are_an_error() {
        for (how, reply) in [
            (Join::Sum, "+OK\r\n"),
            (Join::AllOk, ":1\r\n"),
            (Join::Concat, ":1\r\n"),
            (Join::RandomKey { random: 0, is_part: false }, "*1\r\n:1\r\n"),
            (Join::RandomKey { random: 0, is_part: false }, "*2\r\n:-1\r\n$-1\r\n"),
            (Join::Elements(vec![(0, 1)]), "*1\r\n$-1\r\n"),
            (Join::Elements(vec![(0, 0)]), "*1\r\n$5\r\nab"),
        ] {
            assert!(join(how, &[reply]).starts_with("-ERR "), "{reply}");
        }
    }
}
