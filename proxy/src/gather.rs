//! Joining the replies of a command that went to several partitions.

use ringfort_resp::{Protocol, ReplyWriter, reply};

/// How the parts' replies become one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Join {
    /// The integers are added (DEL, UNLINK, EXISTS, TOUCH, DBSIZE).
    Sum,
    /// OK when all say so (MSET, FLUSHALL, FLUSHDB).
    AllOk,
    /// The elements of the parts' arrays in the order of the keys: for each key its part and its place there (MGET).
    Elements(Vec<(u32, u32)>),
}

/// The replies to one command so far. An error of any part is the answer to the whole, the first part's first.
#[derive(Debug)]
pub(crate) struct Gather {
    join: Join,
    protocol: Protocol,
    replies: Vec<Option<Box<[u8]>>>,
    missing: usize,
}

impl Gather {
    /// A command in `parts` parts, whose reply has the form of `protocol`.
    pub(crate) fn new(join: Join, protocol: Protocol, parts: usize) -> Self {
        Self { join, protocol, replies: vec![None; parts], missing: parts }
    }

    /// Takes the reply of part `i`; the joined reply when it was the last.
    pub(crate) fn answer(&mut self, i: usize, reply: &[u8]) -> Option<Vec<u8>> {
        let place @ None = self.replies.get_mut(i)? else { return None };
        *place = Some(reply.into());
        self.missing -= 1;
        (self.missing == 0).then(|| self.joined())
    }

    fn joined(&self) -> Vec<u8> {
        let replies = || self.replies.iter().flatten();
        if let Some(error) = replies().find(|reply| reply.starts_with(b"-")) {
            return error.to_vec();
        }
        let mut out = Vec::with_capacity(replies().map(|r| r.len()).sum::<usize>().min(64 << 20));
        let writer = &mut ReplyWriter::new(&mut out, self.protocol);
        let is_whole = match &self.join {
            Join::Sum => {
                let sum = replies().try_fold(0i64, |sum, r| reply::integer(r).map(|n| sum.saturating_add(n)));
                sum.map(|sum| writer.integer(sum))
            }
            Join::AllOk => {
                let is_ok = replies().all(|reply| &**reply == b"+OK\r\n");
                is_ok.then(|| writer.ok())
            }
            Join::Elements(order) => elements(order, replies().map(|r| &**r), writer),
        };
        if is_whole.is_none() {
            out.clear();
            ReplyWriter::new(&mut out, self.protocol)
                .error("ERR the partitions' replies do not fit together");
        }
        out
    }
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
    fn first_error_is_the_answer() {
        assert_eq!(join(Join::Sum, &[":1\r\n", "-A x\r\n", "-B\r\n"]), "-A x\r\n");
        assert_eq!(join(Join::AllOk, &["+OK\r\n", "-OOM\r\n"]), "-OOM\r\n");
    }

    #[test]
    fn replies_of_another_shape_are_an_error() {
        for (how, reply) in [
            (Join::Sum, "+OK\r\n"),
            (Join::AllOk, ":1\r\n"),
            (Join::Elements(vec![(0, 1)]), "*1\r\n$-1\r\n"),
            (Join::Elements(vec![(0, 0)]), "*1\r\n$5\r\nab"),
        ] {
            assert!(join(how, &[reply]).starts_with("-ERR "), "{reply}");
        }
    }
}
