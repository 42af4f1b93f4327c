//! OBJECT ENCODING, FREQ, IDLETIME and REFCOUNT, MEMORY USAGE.

use ringfort_resp::{Command, ReplyWriter};

use super::{Done, is_option};
use crate::{error::CommandError, keyspace::Reader, memory::idle_seconds, number::parse_i64};

/// Longest value that Redis stores in one piece with its header, bytes.
const EMBSTR_BYTES_MAX: usize = 44;
/// Redis holds the integers below this once for all keys.
const SHARED_INTEGERS: i64 = 10_000;
/// The count of references that Redis shows for those.
const SHARED_REFCOUNT: i64 = i32::MAX as i64;

/// `OBJECT ENCODING key`, `OBJECT REFCOUNT key`: what Redis says of a value that SET has written. (Redis remembers a
/// value's history: after APPEND and SETRANGE it is `raw`, after INCRBYFLOAT never `int`.)
///
/// `OBJECT FREQ key`, `OBJECT IDLETIME key`: of this replica, and only one of them, by the policy.
pub(super) fn object(reader: &mut Reader<'_>, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    let spec = match Command::Object.spec().judge(args.iter().copied()) {
        Ok(spec) => spec,
        Err(error) => {
            reply.error(&error);
            return Ok(());
        }
    };
    let [_, key] = args else { return Err(CommandError::NotServed) };
    let record = reader.get(key)?;
    if !reader.expired.is_empty() {
        return Ok(());
    }
    let Some(record) = record else {
        reply.null();
        return Ok(());
    };
    let integer = parse_i64(record.value());
    let usage = &reader.store().usage;
    if spec.name == "object|freq" {
        if !usage.limit.policy.is_lfu() {
            return Err(CommandError::FreqNotTracked);
        }
        reply.integer(usage.lfu_count(record.mark(), reader.now_ms()).into());
    } else if spec.name == "object|idletime" {
        if usage.limit.policy.is_lfu() {
            return Err(CommandError::IdleTimeNotTracked);
        }
        reply.integer(idle_seconds(record.mark(), reader.now_ms()).into());
    } else if spec.name == "object|encoding" {
        reply.bulk(match record.value().len() {
            _ if integer.is_some() => b"int",
            ..=EMBSTR_BYTES_MAX => b"embstr",
            _ => b"raw",
        });
    } else {
        let is_shared = integer.is_some_and(|n| (0..SHARED_INTEGERS).contains(&n));
        reply.integer(if is_shared { SHARED_REFCOUNT } else { 1 });
    }
    Ok(())
}

/// `MEMORY USAGE key [SAMPLES count]`: logical bytes of the record, which `maxmemory` counts too.
pub(super) fn memory(reader: &mut Reader<'_>, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    if let Err(error) = Command::Memory.spec().judge(args.iter().copied()) {
        reply.error(&error);
        return Ok(());
    }
    let [_, key, options @ ..] = args else { return Err(CommandError::NotServed) };
    let mut options = options.iter();
    while let Some(name) = options.next() {
        let count = options.next().filter(|_| is_option(name, "samples")).ok_or(CommandError::Syntax)?;
        if parse_i64(count).ok_or(CommandError::NotInteger)? < 0 {
            return Err(CommandError::Syntax);
        }
    }
    let record = reader.get(key)?;
    if reader.expired.is_empty() {
        match record {
            Some(record) => reply.integer(record.logical_bytes() as i64),
            None => reply.null(),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::Session;
    use crate::{MemoryLimit, Policy};

    #[test]
    fn object_encoding_and_refcount() {
        let mut session = Session::new();
        for (value, encoding, refcount) in [
            ("1", "$3|int", ":2147483647"),
            ("9999", "$3|int", ":2147483647"),
            ("10000", "$3|int", ":1"),
            ("-1", "$3|int", ":1"),
            ("01", "$6|embstr", ":1"),
            ("v", "$6|embstr", ":1"),
            (&"v".repeat(44), "$6|embstr", ":1"),
            (&"v".repeat(45), "$3|raw", ":1"),
        ] {
            session.run(&format!("SET k {value}"));
            assert_eq!(session.run("OBJECT ENCODING k"), encoding, "{value}");
            assert_eq!(session.run("object refcount k"), refcount, "{value}");
        }
        assert_eq!(session.run("OBJECT ENCODING x"), "$-1");
    }

    #[test]
    fn object_freq_and_idletime_go_by_the_policy() {
        let mut session = Session::new();
        session.run("SET k v");
        session.now_ms += 25_000;
        let read = |session: &Session, line: &str| session.read(line).0;
        assert_eq!(read(&session, "OBJECT IDLETIME k"), ":25");
        for question in ["EXISTS k", "TTL k", "TYPE k", "MEMORY USAGE k", "OBJECT ENCODING k"] {
            read(&session, question);
            assert_eq!(read(&session, "OBJECT IDLETIME k"), ":25", "{question} is no use");
        }
        assert!(
            read(&session, "OBJECT FREQ k").starts_with("-ERR An LFU maxmemory policy is not selected, ")
        );
        for using in ["GET k", "MGET x k", "STRLEN k", "GETRANGE k 0 1", "TOUCH k"] {
            session.now_ms += 9_000;
            assert_ne!(read(&session, "OBJECT IDLETIME k"), ":0");
            read(&session, using);
            assert_eq!(read(&session, "OBJECT IDLETIME k"), ":0", "{using} is a use");
        }
        session.store.set_limit(MemoryLimit { policy: Policy::VolatileLfu, ..MemoryLimit::default() });
        session.run("SET new v");
        assert_eq!(read(&session, "OBJECT FREQ new"), ":5");
        assert!(
            read(&session, "OBJECT IDLETIME k").starts_with("-ERR An LFU maxmemory policy is selected, ")
        );
        for subcommand in ["FREQ", "IDLETIME"] {
            assert_eq!(read(&session, &format!("OBJECT {subcommand} x")), "$-1");
        }
        read(&session, "GET new");
        assert_eq!(read(&session, "OBJECT FREQ new"), ":6");
    }

    #[test]
    fn memory_usage_is_the_logical_size() {
        let mut session = Session::new();
        session.script(
            "MEMORY USAGE k -> $-1
             SET k v -> +OK
             MEMORY USAGE k -> :34
             EXPIRE k 10 -> :1
             MEMORY USAGE k SAMPLES 0 -> :42
             MEMORY USAGE k SAMPLES -1 -> -ERR syntax error
             MEMORY USAGE k SAMPLES -> -ERR syntax error
             MEMORY USAGE k SAMPLES x -> -ERR value is not an integer or out of range
             MEMORY USAGE k BAD 1 -> -ERR syntax error",
        );
        assert_eq!(session.store.logical_bytes(), 42);
    }
}
