//! INCRBYFLOAT.

use ringfort_resp::ReplyWriter;

use super::Done;
use crate::{
    Store,
    error::CommandError,
    extended::{Extended, Number},
    record::{Content, Record},
};

/// `INCRBYFLOAT key increment`: the sum, in the digits of Redis's `long double`.
pub(super) fn incrbyfloat(
    store: &mut Store,
    now_ms: u64,
    args: &[&[u8]],
    reply: &mut ReplyWriter<'_>,
) -> Done {
    let [key, increment] = args else { return Err(CommandError::Arity("incrbyfloat")) };
    let place = store.place_for_write(key)?;
    let old = store.touch(place, key, now_ms);
    let value = old.map_or(&b"0"[..], Record::value);
    let value = Number::parse(value).ok_or(CommandError::NotFloat)?;
    let increment = Number::parse(increment).ok_or(CommandError::NotFloat)?;
    let sum = add(value, increment).ok_or(CommandError::NotFinite)?.to_string();
    let expires_at_ms = old.and_then(Record::expires_at_ms);
    store.put(place, Content::new(key, sum.as_bytes(), expires_at_ms));
    reply.bulk(sum.as_bytes());
    Ok(())
}

fn add(a: Number, b: Number) -> Option<Extended> {
    match (a, b) {
        (Number::Finite(a), Number::Finite(b)) => a.checked_add(b),
        (Number::Infinite, _) | (_, Number::Infinite) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Session;

    #[test]
    fn adds_and_keeps_the_expiry() {
        Session::new().script(
            "INCRBYFLOAT k 10.50 -> $4|10.5
             EXPIRE k 100 -> :1
             INCRBYFLOAT k 0.1 -> $4|10.6
             INCRBYFLOAT k -5 -> $3|5.6
             TTL k -> :100
             GET k -> $3|5.6
             INCRBYFLOAT k abc -> -ERR value is not a valid float
             INCRBYFLOAT k nan -> -ERR value is not a valid float
             INCRBYFLOAT k inf -> -ERR increment would produce NaN or Infinity
             SET k abc -> +OK
             INCRBYFLOAT k 1 -> -ERR value is not a valid float
             SET k 1e4932 -> +OK
             INCRBYFLOAT k 1e4932 -> -ERR increment would produce NaN or Infinity
             GET k -> $6|1e4932",
        );
    }
}
