//! Reply bytes, as a client reads them.

use ringfort_resp::reply::{ReplyError, frame_len, integer};

/// One reply; aggregates are skipped over, their elements are of no interest here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply<'a> {
    /// `+text`.
    Simple(&'a [u8]),
    /// `-text`.
    Error(&'a [u8]),
    /// `:number`.
    Integer(i64),
    /// `$bytes`.
    Bulk(&'a [u8]),
    /// `$-1`, `*-1` or `_`.
    Null,
    /// Anything else: an array, map, set, push, double, ...
    Other,
}

impl Reply<'_> {
    /// The number of an integer reply that is not negative.
    pub fn integer(&self) -> Option<u64> {
        match self {
            Self::Integer(n) => u64::try_from(*n).ok(),
            _ => None,
        }
    }
}

/// Reads the first whole reply in `buf`; returns it with its length in bytes, or `None` when it is not complete.
///
/// # Errors
/// The bytes are no reply: the connection is of no more use.
pub fn parse(buf: &[u8]) -> Result<Option<(Reply<'_>, usize)>, ReplyError> {
    Ok(frame_len(buf)?.map(|len| (view(&buf[..len]), len)))
}

/// Views one whole reply.
fn view(frame: &[u8]) -> Reply<'_> {
    let line_end = memchr::memchr(b'\n', frame).unwrap_or(frame.len() - 1);
    let line = &frame[1..line_end - 1];
    match frame[0] {
        b'+' => Reply::Simple(line),
        b'-' => Reply::Error(line),
        b':' => integer(frame).map_or(Reply::Other, Reply::Integer),
        b'_' => Reply::Null,
        b'$' | b'*' if line.starts_with(b"-") => Reply::Null,
        b'$' => Reply::Bulk(&frame[line_end + 1..frame.len() - 2]),
        _ => Reply::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EACH: [(&[u8], Reply<'_>); 9] = [
        (b"+OK\r\n", Reply::Simple(b"OK")),
        (b"-ERR no\r\n", Reply::Error(b"ERR no")),
        (b":-42\r\n", Reply::Integer(-42)),
        (b"$3\r\nab\n\r\n", Reply::Bulk(b"ab\n")),
        (b"$-1\r\n", Reply::Null),
        (b"_\r\n", Reply::Null),
        (b"*-1\r\n", Reply::Null),
        (b"*2\r\n*1\r\n:1\r\n$1\r\nx\r\n", Reply::Other),
        (b"%1\r\n+a\r\n,1.5\r\n", Reply::Other),
    ];

    #[test]
    fn reads_each_type_at_every_split() {
        for (bytes, reply) in EACH {
            for cut in 0..bytes.len() {
                assert_eq!(
                    parse(&bytes[..cut]),
                    Ok(None),
                    "{:?} cut at {cut}",
                    String::from_utf8_lossy(bytes)
                );
            }
            assert_eq!(parse(bytes), Ok(Some((reply, bytes.len()))));
            assert_eq!(parse(&[bytes, b"+more\r\n"].concat()), Ok(Some((reply, bytes.len()))));
        }
    }

    #[test]
    fn refuses_what_is_no_reply() {
        for bytes in [&b"HTTP/1.1 400\r\n"[..], b"\r\n", b":x\r\n", b"$9x\r\n"] {
            assert!(parse(bytes).is_err(), "{:?}", String::from_utf8_lossy(bytes));
        }
        assert!(parse(&b"*1\r\n".repeat(1000)).is_err());
    }
}
