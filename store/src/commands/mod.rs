//! Command execution: one file per family. Each function checks its arguments, acts and writes one reply; one that
//! returns an error has written nothing and changed nothing but for removing expired keys that it touched.

mod expire;
mod float;
mod introspect;
mod keys;
mod lcs;
mod ranges;
mod scan;
mod server;
mod set;
mod strings;

use ringfort_resp::{Command, ReplyWriter};

use crate::{ApplyContext, Store, error::CommandError, keyspace::Reader};

type Done = Result<(), CommandError>;

/// Whether the command is served by [`read`].
pub(crate) fn is_read(command: Command) -> bool {
    matches!(
        command,
        Command::Get
            | Command::MGet
            | Command::StrLen
            | Command::GetRange
            | Command::SubStr
            | Command::Lcs
            | Command::Exists
            | Command::Touch
            | Command::Type
            | Command::Ttl
            | Command::PTtl
            | Command::ExpireTime
            | Command::PExpireTime
            | Command::Object
            | Command::Memory
            | Command::DbSize
            | Command::Scan
            | Command::Keys
            | Command::RandomKey
            | Command::SlotCount
            | Command::SlotKeys
    )
}

/// Whether a read of a key counts as a use of it, for eviction. As in Redis, questions about a key do not.
pub(crate) fn is_use(command: Command) -> bool {
    matches!(
        command,
        Command::Get
            | Command::MGet
            | Command::StrLen
            | Command::GetRange
            | Command::SubStr
            | Command::Lcs
            | Command::Touch
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
        Command::Set => set::set(store, now_ms, args, reply),
        Command::SetNx => set::setnx(store, now_ms, args, reply),
        Command::SetEx => set::setex(store, now_ms, args, reply),
        Command::PSetEx => set::psetex(store, now_ms, args, reply),
        Command::GetSet => set::getset(store, now_ms, args, reply),
        Command::GetDel => set::getdel(store, now_ms, args, reply),
        Command::GetEx => set::getex(store, now_ms, args, reply),
        Command::DelIfEq => set::delifeq(store, now_ms, args, reply),
        Command::MSet => strings::mset(store, args, reply),
        Command::MSetNx => strings::msetnx(store, now_ms, args, reply),
        Command::Incr => strings::incr(store, now_ms, args, reply),
        Command::IncrBy => strings::incrby(store, now_ms, args, reply),
        Command::Decr => strings::decr(store, now_ms, args, reply),
        Command::DecrBy => strings::decrby(store, now_ms, args, reply),
        Command::IncrByFloat => float::incrbyfloat(store, now_ms, args, reply),
        Command::SetRange => ranges::setrange(store, now_ms, args, reply),
        Command::Append => strings::append(store, now_ms, args, reply),
        Command::Del | Command::Unlink => keys::del(store, now_ms, args, reply),
        Command::Rename => keys::rename(store, now_ms, args, reply),
        Command::RenameNx => keys::renamenx(store, now_ms, args, reply),
        Command::Copy => keys::copy(store, now_ms, args, reply),
        Command::Expire => expire::expire(store, now_ms, args, reply),
        Command::PExpire => expire::pexpire(store, now_ms, args, reply),
        Command::ExpireAt => expire::expireat(store, now_ms, args, reply),
        Command::PExpireAt => expire::pexpireat(store, now_ms, args, reply),
        Command::Persist => expire::persist(store, now_ms, args, reply),
        Command::FlushAll | Command::FlushDb => server::flushall(store, args, reply),
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
        Command::StrLen => ranges::strlen(reader, args, reply),
        Command::GetRange | Command::SubStr => ranges::getrange(reader, args, reply),
        Command::Lcs => lcs::lcs(reader, args, reply),
        Command::Exists | Command::Touch => keys::exists(reader, args, reply),
        Command::Type => keys::type_of(reader, args, reply),
        Command::Ttl => expire::ttl(reader, args, reply),
        Command::PTtl => expire::pttl(reader, args, reply),
        Command::ExpireTime => expire::expiretime(reader, args, reply),
        Command::PExpireTime => expire::pexpiretime(reader, args, reply),
        Command::Object => introspect::object(reader, args, reply),
        Command::Memory => introspect::memory(reader, args, reply),
        Command::DbSize => server::dbsize(reader, args, reply),
        Command::Scan => scan::scan(reader, args, reply),
        Command::Keys => scan::keys(reader, args, reply),
        Command::RandomKey => scan::random_key(reader, args, reply),
        Command::SlotCount => scan::slot_count(reader, args, reply),
        Command::SlotKeys => scan::slot_keys(reader, args, reply),
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

#[cfg(test)]
pub(super) mod testing {
    //! A store and a clock, driven by lines of text.

    use ringfort_resp::{Command, Protocol, ReplyWriter};
    use ringfort_ring::SLOTS;

    use crate::{ApplyContext, ExpiredKey, Store};

    /// The log time at which every test begins.
    pub(crate) const START_MS: u64 = 1_700_000_000_000;

    /// A store of all slots at a log time.
    pub(crate) struct Session {
        pub(crate) store: Store,
        pub(crate) now_ms: u64,
    }

    impl Session {
        pub(crate) fn new() -> Self {
            Self { store: Store::new(0, SLOTS - 1), now_ms: START_MS }
        }

        /// Applies one line (words divided by one space); the reply without its last line break, others as `|`.
        pub(crate) fn run(&mut self, line: &str) -> String {
            let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            let reply = self.run_args(command(line), &words[1..]);
            String::from_utf8(reply).unwrap().trim_end().replace("\r\n", "|")
        }

        pub(crate) fn run_args(&mut self, command: Command, args: &[&[u8]]) -> Vec<u8> {
            let mut out = Vec::new();
            let ctx = ApplyContext { log_time_ms: self.now_ms, seed: 0 };
            self.store.apply(&ctx, command, args, &mut ReplyWriter::new(&mut out, Protocol::Resp2));
            self.store.check_invariants();
            out
        }

        /// Reads with one line.
        pub(crate) fn read(&self, line: &str) -> (String, Vec<ExpiredKey>) {
            let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            let (mut out, mut expired) = (Vec::new(), Vec::new());
            let mut reply = ReplyWriter::new(&mut out, Protocol::Resp2);
            self.store.read(self.now_ms, command(line), &words[1..], &mut reply, &mut expired);
            (String::from_utf8(out).unwrap().trim_end().replace("\r\n", "|"), expired)
        }

        /// Applies each line of a script `command -> reply` and compares.
        pub(crate) fn script(&mut self, script: &str) {
            for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
                let (command, reply) = line.split_once(" -> ").expect("a line is `command -> reply`");
                assert_eq!(self.run(command), reply, "{command}");
            }
        }
    }

    fn command(line: &str) -> Command {
        let name = line.split(' ').next().unwrap_or_default();
        ringfort_resp::commands::lookup(name.as_bytes()).expect("the command is in the table").command
    }
}
