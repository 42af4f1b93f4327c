//! Counts replies without reading them.

use ringfort_resp::reply::{ReplyError, frame_len};

/// The replies at the front of a buffer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) replies: u64,
    pub(super) errors: u64,
    pub(super) bytes: usize,
    pub(super) first_error: Option<String>,
}

/// Counts the whole replies at the front of `buf`.
pub(super) fn count(buf: &[u8]) -> Result<Counted, ReplyError> {
    let mut counted = Counted::default();
    while let Some(len) = reply_len(&buf[counted.bytes..])? {
        let reply = &buf[counted.bytes..counted.bytes + len];
        if reply[0] == b'-' {
            counted.errors += 1;
            counted
                .first_error
                .get_or_insert_with(|| String::from_utf8_lossy(&reply[1..len - 2]).into_owned());
        }
        counted.replies += 1;
        counted.bytes += len;
    }
    Ok(counted)
}

/// Length of the first reply; the commonest one is known at a glance.
fn reply_len(buf: &[u8]) -> Result<Option<usize>, ReplyError> {
    if buf.starts_with(b"+OK\r\n") { Ok(Some(5)) } else { frame_len(buf) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_whole_replies_only() {
        let bytes = b"+OK\r\n$1\r\nx\r\n-ERR no\r\n*1\r\n:1\r\n$5\r\nab";
        let counted = count(bytes).expect("replies");
        assert_eq!(
            counted,
            Counted { replies: 4, errors: 1, bytes: bytes.len() - 6, first_error: Some("ERR no".to_owned()) }
        );
        assert_eq!(count(b"").expect("nothing").replies, 0);
        assert!(count(b"HTTP/1.1").is_err());
    }
}
