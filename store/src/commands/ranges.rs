//! STRLEN, GETRANGE, SUBSTR, SETRANGE.

use ringfort_resp::ReplyWriter;

use super::{Done, strings::check_value_len};
use crate::{Store, error::CommandError, keyspace::Reader, number::parse_i64, record::Content};

/// `STRLEN key`.
pub(super) fn strlen(reader: &mut Reader<'_>, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    let [key] = args else { return Err(CommandError::Arity("strlen")) };
    let record = reader.get(key)?;
    if reader.expired.is_empty() {
        reply.integer(record.map_or(0, |record| record.value().len()) as i64);
    }
    Ok(())
}

/// `GETRANGE key start end`, `SUBSTR key start end`: both ends belong to it, negative ones count from the end.
pub(super) fn getrange(reader: &mut Reader<'_>, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    let [key, start, end] = args else { return Err(CommandError::Arity("getrange")) };
    let start = parse_i64(start).ok_or(CommandError::NotInteger)?;
    let end = parse_i64(end).ok_or(CommandError::NotInteger)?;
    let record = reader.get(key)?;
    if reader.expired.is_empty() {
        reply.bulk(record.map_or(&[], |record| range(record.value(), start, end)));
    }
    Ok(())
}

/// `SETRANGE key offset value`: the length. What lies between the old end and the offset becomes zero bytes.
pub(super) fn setrange(store: &mut Store, now_ms: u64, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    let [key, offset, patch] = args else { return Err(CommandError::Arity("setrange")) };
    let offset = parse_i64(offset).ok_or(CommandError::NotInteger)?;
    let offset = usize::try_from(offset).map_err(|_| CommandError::Offset)?;
    let place = store.place_for_write(key)?;
    let old_len = store.touch(place, key, now_ms).map(|record| record.value().len());
    if patch.is_empty() {
        reply.integer(old_len.unwrap_or(0) as i64);
        return Ok(());
    }
    let end = offset.saturating_add(patch.len());
    check_value_len(end)?;
    if old_len.is_some() {
        store.overwrite(place, key, offset, patch);
    } else {
        let value = [&vec![0; offset], *patch].concat();
        store.put(place, Content::new(key, &value, None));
    }
    reply.integer(end.max(old_len.unwrap_or(0)) as i64);
    Ok(())
}

/// Redis's range: an end before the first byte is taken for the first byte, except where both are negative and cross.
fn range(value: &[u8], start: i64, end: i64) -> &[u8] {
    if start < 0 && end < 0 && end < start {
        return &[];
    }
    let len = value.len() as i64;
    let from_front = |index: i64| if index < 0 { (len + index).max(0) } else { index };
    let (start, end) = (from_front(start), from_front(end).min(len - 1));
    if end < start {
        return &[];
    }
    // Both lie within the value here: 0 <= start <= end < len.
    value.get(start as usize..=end as usize).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use ringfort_resp::Command;

    use super::super::testing::Session;
    use crate::VALUE_BYTES_MAX;

    #[test]
    fn strlen_and_getrange() {
        Session::new().script(
            "STRLEN k -> :0
             GETRANGE k 0 -1 -> $0
             SET k 0123456789 -> +OK
             STRLEN k -> :10
             GETRANGE k 0 -1 -> $10|0123456789
             GETRANGE k 2 4 -> $3|234
             SUBSTR k -3 -2 -> $2|78
             GETRANGE k -2 -3 -> $0
             GETRANGE k 5 4 -> $0
             GETRANGE k 0 -100 -> $1|0
             GETRANGE k -100 -100 -> $1|0
             GETRANGE k 9 100 -> $1|9
             GETRANGE k 10 100 -> $0
             GETRANGE k -9223372036854775808 9223372036854775807 -> $10|0123456789
             GETRANGE k x 1 -> -ERR value is not an integer or out of range
             SUBSTR k 1 x -> -ERR value is not an integer or out of range",
        );
    }

    #[test]
    fn setrange_overwrites_and_pads() {
        let mut session = Session::new();
        session.script(
            "SETRANGE k 3 xy -> :5
             STRLEN k -> :5
             EXPIRE k 100 -> :1
             SETRANGE k 0 abc -> :5
             GET k -> $5|abcxy
             TTL k -> :100
             SETRANGE k -1 x -> -ERR offset is out of range
             SETRANGE k x x -> -ERR value is not an integer or out of range
             SETRANGE k 9223372036854775807 x -> -ERR string exceeds maximum allowed size (proto-max-bulk-len)",
        );
        assert_eq!(session.run_args(Command::SetRange, &[b"k", b"9", b""]), b":5\r\n");
        assert_eq!(session.run_args(Command::SetRange, &[b"new", b"9", b""]), b":0\r\n");
        assert_eq!(session.run("EXISTS new"), ":0");
        session.run("SETRANGE pad 2 x");
        assert_eq!(session.run_args(Command::Get, &[b"pad"]), b"$3\r\n\0\0x\r\n");
        let last = (VALUE_BYTES_MAX - 1).to_string();
        assert_eq!(session.run_args(Command::SetRange, &[b"k", last.as_bytes(), b"x"]), b":33554432\r\n");
        assert!(
            session.run_args(Command::SetRange, &[b"k", last.as_bytes(), b"xy"]).starts_with(b"-ERR string")
        );
    }
}
