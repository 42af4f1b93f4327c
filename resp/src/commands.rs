//! The one table of commands: what proxy, node and `COMMAND` know about each.

mod arguments;
mod describe;
mod errors;
mod refused;
mod spec;
mod table;

pub use describe::{syntax, write_command_docs, write_command_info, write_help, write_key_flags};
pub use errors::{unknown_command_error, unknown_subcommand_error, wrong_arity_error};
pub use refused::refusal;
pub use spec::{CommandSpec, Keys, Scope};

use table::{INTERNAL, SPECS};

/// A command this version serves. The number is part of the log format: it never changes and is never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u16)]
#[expect(missing_docs, reason = "each variant is the Redis command of that name")]
pub enum Command {
    Get = 1,
    Set = 2,
    Del = 3,
    Exists = 4,
    Incr = 5,
    IncrBy = 6,
    Append = 7,
    MGet = 8,
    MSet = 9,
    Expire = 10,
    PExpire = 11,
    Ttl = 12,
    PTtl = 13,
    Persist = 14,
    DbSize = 15,
    FlushAll = 16,
    SetNx = 17,
    SetEx = 18,
    PSetEx = 19,
    GetSet = 20,
    GetDel = 21,
    GetEx = 22,
    GetRange = 23,
    SetRange = 24,
    SubStr = 25,
    StrLen = 26,
    Decr = 27,
    DecrBy = 28,
    IncrByFloat = 29,
    MSetNx = 30,
    Lcs = 31,
    Unlink = 32,
    Touch = 33,
    Type = 34,
    Rename = 35,
    RenameNx = 36,
    Copy = 37,
    ExpireAt = 38,
    PExpireAt = 39,
    ExpireTime = 40,
    PExpireTime = 41,
    FlushDb = 42,
    Object = 43,
    Memory = 44,
    DelIfEq = 45,
    Scan = 46,
    Keys = 47,
    RandomKey = 48,
    // CLUSTER COUNTKEYSINSLOT and GETKEYSINSLOT as a partition executes them; no client can name them.
    SlotCount = 49,
    SlotKeys = 50,
    // From here on: answered by the session that holds the connection; never in a log.
    Ping = 1000,
    Echo = 1001,
    Hello = 1002,
    Client = 1003,
    Command = 1004,
    Info = 1005,
    Cluster = 1006,
    Config = 1007,
    Select = 1008,
    Quit = 1009,
    Reset = 1010,
    ReadOnly = 1011,
    ReadWrite = 1012,
    Ringfort = 1013,
    Auth = 1014,
    Time = 1015,
    Lolwut = 1016,
    SlowLog = 1017,
    Monitor = 1018,
    Wait = 1019,
    Asking = 1022,
    Latency = 1023,
    Role = 1024,
    Acl = 1025,
    LastSave = 1028,
    WaitAof = 1030,
}

/// Finds a command by its name, in any case. Allocates nothing; five or so comparisons of integers.
pub fn lookup(name: &[u8]) -> Option<&'static CommandSpec> {
    if name.len() > NAME_BYTES_MAX {
        return None;
    }
    let mut lower = [0; NAME_BYTES_MAX];
    lower[..name.len()].copy_from_slice(name);
    // All of it, for it is then one step for the machine; the padding stays NUL.
    lower.make_ascii_lowercase();
    let spec = &SPECS[NAMES.binary_search(&u128::from_be_bytes(lower)).ok()?];
    // A name that ends with NUL looks like a shorter one.
    (spec.name.len() == name.len()).then_some(spec)
}

/// Finds a command, or a subcommand under its full name (`client|list`), in any case.
pub fn find(name: &[u8]) -> Option<&'static CommandSpec> {
    match memchr::memchr(b'|', name) {
        None => lookup(name),
        Some(at) => lookup(&name[..at])?.subcommand(&name[at + 1..]),
    }
}

/// Every command, ordered by name.
pub fn all() -> &'static [CommandSpec] {
    &SPECS
}

/// Every command, each followed by its subcommands: the one at [`CommandSpec::row`], and so on.
pub fn rows() -> impl Iterator<Item = &'static CommandSpec> {
    SPECS.iter().flat_map(|spec| core::iter::once(spec).chain(spec.subcommands))
}

impl Command {
    /// The command of a number from a frame or a log; `None` when this version does not know it.
    pub fn from_u16(n: u16) -> Option<Self> {
        let row = *ROWS.get(usize::from(n))?;
        (row != NO_ROW).then(|| row_of(row).command)
    }

    /// Its row of the table.
    pub fn spec(self) -> &'static CommandSpec {
        row_of(ROWS[self as usize])
    }
}

/// A row by its number in `ROWS`.
fn row_of(row: u8) -> &'static CommandSpec {
    let row = usize::from(row);
    if row < SPECS.len() { &SPECS[row] } else { &INTERNAL[row - SPECS.len()] }
}

/// Room for the longest name of the table; a `u128` of it, big-endian, sorts as the names do.
const NAME_BYTES_MAX: usize = 16;

/// The names of `SPECS` in its order, each padded with NUL to one integer.
static NAMES: [u128; SPECS.len()] = {
    let mut names = [0; SPECS.len()];
    let mut i = 0;
    while i < names.len() {
        names[i] = padded(SPECS[i].name);
        assert!(i == 0 || names[i - 1] < names[i], "a name occurs once");
        i += 1;
    }
    names
};

const fn padded(name: &str) -> u128 {
    let name = name.as_bytes();
    let mut padded = [0; NAME_BYTES_MAX];
    let mut i = 0;
    while i < name.len() {
        padded[i] = name[i];
        i += 1;
    }
    u128::from_be_bytes(padded)
}

/// One more than the highest number that a [`Command`] may have.
const NUMBERS: usize = 1100;

/// Entry of `ROWS` for a number that no command has.
const NO_ROW: u8 = u8::MAX;

/// Row by the command's number: of `SPECS`, and from its length on of `INTERNAL`.
static ROWS: [u8; NUMBERS] = {
    assert!(SPECS.len() + INTERNAL.len() < NO_ROW as usize, "a row fits a byte");
    let mut rows = [NO_ROW; NUMBERS];
    let mut i = 0;
    while i < SPECS.len() + INTERNAL.len() {
        let spec = if i < SPECS.len() { &SPECS[i] } else { &INTERNAL[i - SPECS.len()] };
        let number = spec.command as usize;
        assert!(rows[number] == NO_ROW, "a command has one row");
        rows[number] = i as u8;
        i += 1;
    }
    rows
};

/// Place in [`rows`] of each row of `SPECS`.
static FIRST_ROWS: [u16; SPECS.len()] = {
    let mut first = [0; SPECS.len()];
    let mut i = 1;
    while i < first.len() {
        first[i] = first[i - 1] + 1 + SPECS[i - 1].subcommands.len() as u16;
        i += 1;
    }
    first
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_every_command_by_name_and_by_number() {
        for spec in all() {
            assert_eq!(lookup(spec.name.as_bytes()), Some(spec));
            assert_eq!(lookup(spec.name.to_ascii_uppercase().as_bytes()), Some(spec));
            for sub in spec.subcommands {
                assert_eq!(find(sub.name.to_ascii_uppercase().as_bytes()), Some(sub));
                assert_eq!((sub.command, sub.name.split('|').next()), (spec.command, Some(spec.name)));
            }
            assert_eq!(Command::from_u16(spec.command as u16), Some(spec.command));
            assert_eq!(spec.command.spec(), spec);
        }
        for (i, spec) in rows().enumerate() {
            assert_eq!(spec.row(), i, "{}", spec.name);
        }
        // Numbers that have a row; a variant without one would end its `spec()` in a panic.
        let known: Vec<u16> = (0..=u16::MAX).filter(|n| Command::from_u16(*n).is_some()).collect();
        assert_eq!(known.len(), all().len() + INTERNAL.len());
        for spec in &INTERNAL {
            assert_eq!((spec.command.spec(), lookup(spec.name.as_bytes())), (spec, None));
            assert_eq!(rows().nth(spec.row()).map(|row| row.name), Some(spec.name));
        }
    }

    #[test]
    fn finds_nothing_under_other_names() {
        for name in [
            &b""[..],
            b"ge",
            b"gett",
            b"get\0",
            b"\0get",
            b"g\xc5t",
            b"append append append",
            b"config|",
            b"config|get",
            b"get|x",
        ] {
            assert_eq!(lookup(name), None, "{}", name.escape_ascii());
        }
    }

    #[test]
    fn rows_are_consistent() {
        for spec in all() {
            let is_session = spec.command as u16 >= 1000;
            assert_eq!(spec.scope == Scope::Connection, is_session, "{}", spec.name);
            let rows =
                if spec.subcommands.is_empty() { core::slice::from_ref(spec) } else { spec.subcommands };
            for row in rows {
                let has_keys = row.keys != Keys::NONE;
                assert_eq!(has_keys, matches!(row.scope, Scope::Slot | Scope::Split), "{}", row.name);
                assert_eq!(has_keys, !row.key_flags.is_empty(), "{}", row.name);
                assert_eq!(row.is_write, row.flags.contains(&"write"), "{}", row.name);
            }
            assert!(spec.subcommands.is_sorted_by_key(|sub| sub.name), "{}", spec.name);
            let has_help = spec.subcommand(b"HELP").is_some();
            assert_eq!(has_help, !spec.subcommands.is_empty(), "{}", spec.name);
        }
    }

    #[test]
    fn arity_counts_the_name() {
        let get = Command::Get.spec();
        assert!(get.is_arity_ok(2) && !get.is_arity_ok(1) && !get.is_arity_ok(3));
        let set = Command::Set.spec();
        assert!(set.is_arity_ok(3) && set.is_arity_ok(9) && !set.is_arity_ok(2));
    }

    #[test]
    fn keys_stay_among_the_arguments() {
        let keys = |command: Command, argc| command.spec().keys(argc).collect::<Vec<_>>();
        assert_eq!(keys(Command::Get, 2), [1]);
        assert_eq!(keys(Command::Set, 5), [1]);
        assert_eq!(keys(Command::MGet, 4), [1, 2, 3]);
        assert_eq!(keys(Command::MSet, 5), [1, 3]);
        assert_eq!(keys(Command::MSet, 4), [1, 3]);
        assert_eq!(keys(Command::Ping, 2), []);
        for spec in all() {
            for argc in 0..4 {
                assert!(spec.keys(argc).all(|i| 0 < i && i < argc), "{} with {argc}", spec.name);
            }
        }
    }

    #[test]
    fn a_container_judges_its_subcommands() {
        let judge = |line: &str| {
            let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            let spec = lookup(words[0]).unwrap();
            spec.judge(words[1..].iter().copied()).map(|spec| spec.name)
        };
        for (line, expected) in [
            ("GET k", Ok("get")),
            ("COMMAND", Ok("command")),
            ("command Info", Ok("command|info")),
            ("OBJECT ENCODING k", Ok("object|encoding")),
            ("MEMORY USAGE k x", Ok("memory|usage")),
            ("OBJECT HELP", Ok("object|help")),
            ("GET", Err("ERR wrong number of arguments for 'get' command")),
            ("MSET a 1 b", Err("ERR wrong number of arguments for 'mset' command")),
            ("OBJECT", Err("ERR wrong number of arguments for 'object' command")),
            ("OBJECT foo", Err("ERR unknown subcommand 'foo'. Try OBJECT HELP.")),
            ("OBJECT encoding", Err("ERR wrong number of arguments for 'object|encoding' command")),
            ("OBJECT REFCOUNT a b", Err("ERR wrong number of arguments for 'object|refcount' command")),
            ("OBJECT HELP x", Err("ERR wrong number of arguments for 'object|help' command")),
            ("MEMORY usage", Err("ERR wrong number of arguments for 'memory|usage' command")),
        ] {
            assert_eq!(judge(line), expected.map_err(str::to_owned), "{line}");
        }
    }

    #[test]
    fn help_tells_of_each_subcommand() {
        let mut out = Vec::new();
        write_help(Command::Object.spec(), &mut crate::ReplyWriter::new(&mut out, crate::Protocol::Resp2));
        let out = String::from_utf8(out).unwrap();
        let lines = 1 + 2 * Command::Object.spec().subcommands.len();
        let head =
            format!("*{lines}\r\n+OBJECT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:\r\n");
        assert!(out.starts_with(&head), "{out}");
        assert!(
            out.contains("+REFCOUNT key\r\n+    Get the number of references to the value of the key.\r\n")
        );
    }
}
