//! Reply bytes -> elements.
//!
//! - Where replies end does not depend on how the bytes are cut.
//! - All readers of replies agree on what is one.
//! - A value that was read and written again is read as the same.

use ringfort_resp::reply::{FrameScanner, ReplyError, array_elements, frame_len, integer, parse};
use ringfort_resp::{Protocol, ReplyWriter, Value};

use super::input::{Input, pieces};

/// Runs the target. Layout: seed of the pieces (1), the bytes.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let seed = input.u8();
    let bytes = input.rest();
    let whole = scan([bytes]);
    assert_eq!(scan(pieces(bytes, seed)), whole, "cut into pieces");
    assert_eq!(scan(bytes.chunks(1)), whole, "byte by byte");
    let mut rest = bytes;
    for len in whole.0 {
        one(&rest[..len]);
        rest = &rest[len..];
    }
    let parsed = parse(rest).map(|value| value.map(|(_, len)| len));
    assert_eq!(parsed, whole.1.map_or(Ok(None), Err), "what is left");
}

fn scan<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<usize>, Option<ReplyError>) {
    let (mut scanner, mut buf, mut lens) = (FrameScanner::default(), Vec::new(), Vec::new());
    for piece in pieces {
        buf.extend_from_slice(piece);
        loop {
            match scanner.scan(&buf) {
                Ok(Some(len)) => {
                    buf.drain(..len);
                    lens.push(len);
                }
                Ok(None) => break,
                Err(error) => return (lens, Some(error)),
            }
        }
    }
    (lens, None)
}

/// Values are compared as text, in which nan equals nan.
fn one(reply: &[u8]) {
    assert_eq!(frame_len(reply), Ok(Some(reply.len())));
    let (value, len) = parse(reply).expect("it is one").expect("it is whole");
    assert_eq!(len, reply.len());
    if let Some(n) = integer(reply) {
        assert_eq!(value.as_integer(), Some(n));
    }
    if let (Some(elements), Value::Array(values)) = (array_elements(reply), &value) {
        let each = elements.iter().map(|e| parse(e).expect("it is one").expect("it is whole").0);
        assert_eq!(format!("{:?}", each.collect::<Vec<_>>()), format!("{values:?}"));
    }
    for protocol in [Protocol::Resp2, Protocol::Resp3] {
        let mut written = Vec::new();
        value.write(&mut ReplyWriter::new(&mut written, protocol));
        let (again, len) = parse(&written).expect("what was written is one").expect("and whole");
        assert_eq!(len, written.len());
        // Line ends in a simple string become blanks, and RESP2 has fewer types.
        if protocol == Protocol::Resp3 && !has_line_ends(&value) {
            assert_eq!(format!("{again:?}"), format!("{value:?}"));
        }
    }
}

fn has_line_ends(value: &Value) -> bool {
    match value {
        Value::Simple(text) | Value::Error(text) | Value::BigNumber(text) => text.contains(['\r', '\n']),
        Value::Array(values) | Value::Set(values) | Value::Push(values) => values.iter().any(has_line_ends),
        Value::Map(pairs) => pairs.iter().any(|(key, value)| has_line_ends(key) || has_line_ends(value)),
        _ => false,
    }
}
