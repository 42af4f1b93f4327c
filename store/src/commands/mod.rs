//! Command execution: one file per family. Each function checks its arguments, acts and writes one reply; one that
//! returns an error has written nothing and changed nothing but for removing expired keys that it touched.

mod expire;
mod keys;
mod server;
mod strings;

use ringfort_resp::{Command, ReplyWriter};

use crate::{ApplyContext, Store, error::CommandError, keyspace::Reader};

type Done = Result<(), CommandError>;

/// Whether the command is served by [`read`].
pub(crate) fn is_read(command: Command) -> bool {
    matches!(
        command,
        Command::Get | Command::MGet | Command::Exists | Command::Ttl | Command::PTtl | Command::DbSize
    )
}

/// Executes a command that may change the keyspace.
pub(crate) fn write(
    store: &mut Store,
    ctx: &ApplyContext,
    command: Command,
    args: &[&[u8]],
    reply: &mut ReplyWriter<'_>,
) -> Done {
    let now_ms = ctx.log_time_ms;
    match command {
        Command::Set => strings::set(store, now_ms, args, reply),
        Command::MSet => strings::mset(store, args, reply),
        Command::Incr => strings::incr(store, now_ms, args, reply),
        Command::IncrBy => strings::incrby(store, now_ms, args, reply),
        Command::Append => strings::append(store, now_ms, args, reply),
        Command::Del => keys::del(store, now_ms, args, reply),
        Command::Expire => expire::expire(store, now_ms, args, reply),
        Command::PExpire => expire::pexpire(store, now_ms, args, reply),
        Command::Persist => expire::persist(store, now_ms, args, reply),
        Command::FlushAll => server::flushall(store, args, reply),
        _ => Err(CommandError::NotServed),
    }
}

/// Executes a command that changes nothing. Writes no reply when the reader met keys past their expiry.
pub(crate) fn read(
    reader: &mut Reader<'_>,
    command: Command,
    args: &[&[u8]],
    reply: &mut ReplyWriter<'_>,
) -> Done {
    match command {
        Command::Get => strings::get(reader, args, reply),
        Command::MGet => strings::mget(reader, args, reply),
        Command::Exists => keys::exists(reader, args, reply),
        Command::Ttl => expire::ttl(reader, args, reply),
        Command::PTtl => expire::pttl(reader, args, reply),
        Command::DbSize => server::dbsize(reader, args, reply),
        _ => Err(CommandError::NotServed),
    }
}

/// Whether an argument is the option `name`, in any case. As in Redis, which compares C strings, a zero byte ends it.
fn is_option(arg: &[u8], name: &str) -> bool {
    c_str(arg).eq_ignore_ascii_case(name.as_bytes())
}

/// The argument up to its first zero byte.
fn c_str(arg: &[u8]) -> &[u8] {
    arg.split(|byte| *byte == 0).next().unwrap_or_default()
}
