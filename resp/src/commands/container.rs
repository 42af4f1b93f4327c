//! OBJECT and MEMORY: containers whose subcommands have a key, and so are executed by a partition.

use super::{Command, CommandSpec, unknown_subcommand_error, wrong_arity_error};
use crate::ReplyWriter;

/// A subcommand that has a key.
struct Subcommand {
    /// The container and its name as errors write them.
    full_name: &'static str,
    /// As [`CommandSpec::arity`]: the container's name counts.
    arity: i16,
}

const ENCODING: Subcommand = Subcommand { full_name: "object|encoding", arity: 3 };
const REFCOUNT: Subcommand = Subcommand { full_name: "object|refcount", arity: 3 };
const USAGE: Subcommand = Subcommand { full_name: "memory|usage", arity: -3 };

const OBJECT_HELP: &[&str] = &[
    "OBJECT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "ENCODING <key>",
    "    Return the kind of internal representation used in order to store the value",
    "    associated with a <key>.",
    "REFCOUNT <key>",
    "    Return the number of references of the value associated with the specified",
    "    <key>.",
    "HELP",
    "    Prints this help.",
];

const MEMORY_HELP: &[&str] = &[
    "MEMORY <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "USAGE <key> [SAMPLES <count>]",
    "    Return memory in bytes used by <key> and its value. Nested values are",
    "    sampled up to <count> times (default: 5, 0 means sample all).",
    "HELP",
    "    Prints this help.",
];

/// Answers what of OBJECT and MEMORY needs no key: HELP, an unknown subcommand, a wrong number of arguments.
///
/// `args` are the arguments after the container's name. Returns whether it wrote a reply; `false` for any other command
/// and for a subcommand that a partition is to execute.
pub fn write_container_reply(spec: &CommandSpec, args: &[&[u8]], out: &mut ReplyWriter<'_>) -> bool {
    let (subcommands, help): (&[Subcommand], _) = match spec.command {
        Command::Object => (&[ENCODING, REFCOUNT], OBJECT_HELP),
        Command::Memory => (&[USAGE], MEMORY_HELP),
        _ => return false,
    };
    let Some(name) = args.first() else {
        out.error(&wrong_arity_error(spec.name));
        return true;
    };
    let is_short_name = |full_name: &str| {
        full_name.split_once('|').is_some_and(|(_, short)| name.eq_ignore_ascii_case(short.as_bytes()))
    };
    if let Some(found) = subcommands.iter().find(|subcommand| is_short_name(subcommand.full_name)) {
        let spec = CommandSpec { arity: found.arity, ..*spec };
        if spec.is_arity_ok(args.len() + 1) {
            return false;
        }
        out.error(&wrong_arity_error(found.full_name));
    } else if !name.eq_ignore_ascii_case(b"help") {
        out.error(&unknown_subcommand_error(spec, name));
    } else if args.len() == 1 {
        out.array(help.len());
        help.iter().for_each(|line| out.simple(line));
    } else {
        out.error(&wrong_arity_error(&format!("{}|help", spec.name)));
    }
    true
}

#[cfg(test)]
mod tests {
    use super::super::lookup;
    use super::*;
    use crate::Protocol;

    fn reply(line: &str) -> Option<String> {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let mut out = Vec::new();
        let mut writer = ReplyWriter::new(&mut out, Protocol::Resp2);
        let is_answered = write_container_reply(lookup(words[0]).unwrap(), &words[1..], &mut writer);
        assert_eq!(is_answered, !out.is_empty());
        is_answered.then(|| String::from_utf8(out).unwrap())
    }

    #[test]
    fn answers_what_needs_no_key_as_redis_does() {
        for (line, expected) in [
            ("OBJECT", "-ERR wrong number of arguments for 'object' command\r\n"),
            ("OBJECT foo", "-ERR unknown subcommand 'foo'. Try OBJECT HELP.\r\n"),
            ("object FREQ k", "-ERR unknown subcommand 'FREQ'. Try OBJECT HELP.\r\n"),
            ("OBJECT encoding", "-ERR wrong number of arguments for 'object|encoding' command\r\n"),
            ("OBJECT REFCOUNT a b", "-ERR wrong number of arguments for 'object|refcount' command\r\n"),
            ("OBJECT HELP x", "-ERR wrong number of arguments for 'object|help' command\r\n"),
            ("MEMORY usage", "-ERR wrong number of arguments for 'memory|usage' command\r\n"),
            ("MEMORY DOCTOR", "-ERR unknown subcommand 'DOCTOR'. Try MEMORY HELP.\r\n"),
        ] {
            assert_eq!(reply(line).as_deref(), Some(expected), "{line}");
        }
        assert!(reply("OBJECT help").unwrap().starts_with("*9\r\n+OBJECT <subcommand> "));
        assert!(reply("MEMORY HELP").unwrap().starts_with("*6\r\n+MEMORY <subcommand> "));
    }

    #[test]
    fn leaves_the_rest_to_a_partition() {
        for line in ["OBJECT ENCODING k", "object refcount k", "MEMORY USAGE k", "MEMORY USAGE k x", "GET k"]
        {
            assert_eq!(reply(line), None, "{line}");
        }
    }
}
