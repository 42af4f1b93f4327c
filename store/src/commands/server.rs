//! DBSIZE, FLUSHALL, FLUSHDB: the whole partition.

use ringfort_resp::ReplyWriter;

use super::{Done, is_option};
use crate::{Store, error::CommandError, keyspace::Reader};

/// `DBSIZE`: the number of keys of this partition; as in Redis, those past their expiry count until they are removed.
pub(super) fn dbsize(reader: &mut Reader<'_>, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    if !args.is_empty() {
        return Err(CommandError::Arity("dbsize"));
    }
    reply.integer(reader.store().len() as i64);
    Ok(())
}

/// `FLUSHALL [ASYNC | SYNC]`, `FLUSHDB [ASYNC | SYNC]`: both modes empty the partition at once and free the memory step by step.
pub(super) fn flushall(store: &mut Store, args: &[&[u8]], reply: &mut ReplyWriter<'_>) -> Done {
    match args {
        [] => {}
        [mode] if is_option(mode, "async") || is_option(mode, "sync") => {}
        _ => return Err(CommandError::Syntax),
    }
    store.flush();
    reply.ok();
    Ok(())
}

#[cfg(test)]
mod tests {
    use ringfort_resp::Command;

    use super::super::testing::Session;
    use crate::{ApplyContext, Store};

    #[test]
    fn dbsize_and_flushall() {
        Session::new().script(
            "MSET a 1 b 2 -> +OK
             EXPIRE a 10 -> :1
             DBSIZE -> :2
             FLUSHALL -> +OK
             DBSIZE -> :0
             GET a -> $-1
             SET a 1 -> +OK
             FLUSHALL ASYNC -> +OK
             FLUSHALL sync -> +OK
             DBSIZE -> :0
             SET a 1 -> +OK
             FLUSHDB ASYNC -> +OK
             DBSIZE -> :0
             FLUSHDB NOW -> -ERR syntax error
             FLUSHALL NOW -> -ERR syntax error
             FLUSHALL SYNC ASYNC -> -ERR syntax error",
        );
    }

    #[test]
    fn refuses_what_is_no_keyspace_command_or_no_key_of_ours() {
        let mut session = Session::new();
        assert_eq!(session.run("PING"), "-ERR command is not served here");
        assert_eq!(session.read("SET k v").0, "-ERR command is not served here");
        // "foo" is in slot 12182.
        session.store = Store::new(0, 12181);
        assert_eq!(session.run("SET foo v"), "-ERR key belongs to another partition");
        assert_eq!(session.run("MGET foo"), "-ERR key belongs to another partition");
        assert!(!session.store.expire(b"foo", 1));
        session.store = Store::new(12182, 12182);
        assert_eq!(session.run("SET foo v"), "+OK");
        assert_eq!(session.store.slot_len(12182), 1);
        assert_eq!(session.store.slot_len(12183), 0);
        assert_eq!(session.store.slot_len(0), 0);
    }

    #[test]
    fn no_number_of_arguments_panics() {
        let mut session = Session::new();
        let args: [&[u8]; 5] = [b"k", b"1", b"EX", b"10", b"GET"];
        for spec in ringfort_resp::commands::all() {
            for len in 0..=args.len() {
                for now_ms in [0, u64::MAX] {
                    session.now_ms = now_ms;
                    assert!(!session.run_args(spec.command, &args[..len]).is_empty());
                    let mut out = Vec::new();
                    let mut reply = ringfort_resp::ReplyWriter::new(&mut out, Default::default());
                    session.store.read(now_ms, spec.command, &args[..len], &mut reply, &mut Vec::new());
                }
            }
        }
        let ctx = ApplyContext { log_time_ms: u64::MAX, seed: 0 };
        let mut out = Vec::new();
        let mut reply = ringfort_resp::ReplyWriter::new(&mut out, Default::default());
        session.store.apply(&ctx, Command::Get, &[b"k"], &mut reply);
    }
}
