//! MONITOR: what its lines look like, and what nobody must see.

use super::Args;
use super::recent_args::REDACTED;
use ringfort_resp::{Command, CommandSpec};

/// Whether MONITOR shows a command: not what administrators do.
pub(super) fn shows(spec: &CommandSpec) -> bool {
    !spec.flags.contains(&"admin") && !spec.flags.contains(&"skip_monitor")
}

/// The first argument that nobody must see, and behind it how many of them are shown again: AUTH hides all, HELLO all
/// behind its first word `auth`, CONFIG SET the value of `requirepass`.
pub(super) fn first_secret(spec: &CommandSpec, args: Args<'_>) -> Option<(usize, usize)> {
    let behind = |word: &[u8]| args.iter().position(|arg| arg.eq_ignore_ascii_case(word)).map(|i| i + 1);
    match spec.command {
        Command::Auth => Some((1, args.len())),
        Command::Hello => behind(b"auth").map(|first| (first, args.len())),
        Command::Config => behind(b"requirepass").map(|first| (first, first + 1)),
        _ => None,
    }
}

/// The arguments with what nobody must see replaced.
pub(super) fn redacted<'a>(spec: &CommandSpec, args: Args<'a>) -> Vec<&'a [u8]> {
    let secret = first_secret(spec, args).map_or(0..0, |(first, end)| first..end);
    args.iter().enumerate().map(|(i, arg)| if secret.contains(&i) { REDACTED } else { arg }).collect()
}

/// One line, as Redis writes it.
pub(super) fn line(unix_us: u64, addr: &str, args: &[&[u8]]) -> Vec<u8> {
    let (s, us) = (unix_us / 1_000_000, unix_us % 1_000_000);
    let mut out = format!("+{s}.{us:06} [0 {addr}]").into_bytes();
    for arg in args {
        out.extend_from_slice(b" \"");
        for &byte in *arg {
            match byte {
                b'\\' | b'"' => out.extend_from_slice(&[b'\\', byte]),
                b'\n' => out.extend_from_slice(b"\\n"),
                b'\r' => out.extend_from_slice(b"\\r"),
                b'\t' => out.extend_from_slice(b"\\t"),
                0x07 => out.extend_from_slice(b"\\a"),
                0x08 => out.extend_from_slice(b"\\b"),
                b' '..=b'~' => out.push(byte),
                _ => out.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
            }
        }
        out.push(b'"');
    }
    out.extend_from_slice(b"\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The line of redis-server 7.0.15 for the same command.
    #[test]
    fn lines_are_those_of_redis() {
        let args: [&[u8]; 3] = [b"set", b"a\"\n1", b"b\x01\r\n\t\\\x07\x08\xff'"];
        assert_eq!(
            String::from_utf8(line(1_795_228_757_006_328, "127.0.0.1:58772", &args)).unwrap(),
            "+1795228757.006328 [0 127.0.0.1:58772] \"set\" \"a\\\"\\n1\" \"b\\x01\\r\\n\\t\\\\\\a\\b\\xff'\"\r\n"
        );
    }
}
