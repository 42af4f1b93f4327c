//! Redis 7's errors for commands that do not exist or are not complete.

use super::CommandSpec;
use super::refused::refused_error;

/// How much of a name, and of all arguments together, an error repeats, bytes (Redis: `%.128s`).
const ERROR_QUOTE_BYTES_MAX: usize = 128;

/// Redis 7's error for a name that is no command: ``ERR unknown command 'foo', with args beginning with: 'a' 'b' ``.
///
/// What Ringfort refuses on purpose is answered with the reason instead ([`super::refusal`]).
///
/// `args` are the arguments after the name. Cut as Redis cuts: the name at 128 bytes, arguments until 128 bytes are
/// quoted, each at its first NUL; CR and LF become spaces. Unlike in Redis, bytes that are not UTF-8 become U+FFFD.
pub fn unknown_command_error<'a>(name: &[u8], args: impl IntoIterator<Item = &'a [u8]>) -> String {
    if let Some(error) = core::str::from_utf8(name).ok().and_then(refused_error) {
        return error;
    }
    let mut quoted = Vec::with_capacity(ERROR_QUOTE_BYTES_MAX + 8);
    for arg in args {
        if quoted.len() >= ERROR_QUOTE_BYTES_MAX {
            break;
        }
        let room = ERROR_QUOTE_BYTES_MAX - quoted.len();
        quoted.push(b'\'');
        quoted.extend_from_slice(cut(arg, room));
        quoted.extend_from_slice(b"' ");
    }
    format!(
        "ERR unknown command '{}', with args beginning with: {}",
        printable(cut(name, ERROR_QUOTE_BYTES_MAX)),
        printable(&quoted)
    )
}

/// Redis 7's error for a container's subcommand that does not exist: `ERR unknown subcommand 'foo'. Try CLIENT HELP.`
///
/// Cut and cleaned, and refused on purpose, as in [`unknown_command_error`].
pub fn unknown_subcommand_error(container: &CommandSpec, subcommand: &[u8]) -> String {
    let full_name = core::str::from_utf8(subcommand).map(|short| format!("{}|{short}", container.name));
    if let Some(error) = full_name.ok().and_then(|name| refused_error(&name)) {
        return error;
    }
    let quoted = printable(cut(subcommand, ERROR_QUOTE_BYTES_MAX));
    format!("ERR unknown subcommand '{quoted}'. Try {} HELP.", container.name.to_ascii_uppercase())
}

/// Redis 7's error for a wrong number of arguments: `ERR wrong number of arguments for 'get' command`.
///
/// `name` is the command's name in lower case; of a container's subcommand `client|setname`.
pub fn wrong_arity_error(name: &str) -> String {
    format!("ERR wrong number of arguments for '{name}' command")
}

/// C's `%.*s`: up to `bytes_max` bytes, ending before the first NUL.
fn cut(text: &[u8], bytes_max: usize) -> &[u8] {
    let text = &text[..text.len().min(bytes_max)];
    memchr::memchr(0, text).map_or(text, |end| &text[..end])
}

fn printable(text: &[u8]) -> String {
    String::from_utf8_lossy(text).replace(['\r', '\n'], " ")
}

#[cfg(test)]
mod tests {
    use super::super::Command;
    use super::*;

    /// Names and arguments with the answers of redis-server 7.0.15.
    #[test]
    fn unknown_commands_are_named_as_redis_names_them() {
        let y = |n: usize| "y".repeat(n);
        let z = || "z".repeat(10);
        for (name, args, expected) in [
            ("foo", vec![], "ERR unknown command 'foo', with args beginning with: ".into()),
            ("", vec![], "ERR unknown command '', with args beginning with: ".into()),
            (
                "FoO",
                vec!["a".into(), "b".into()],
                "ERR unknown command 'FoO', with args beginning with: 'a' 'b' ".into(),
            ),
            (
                "f\r\no\0x",
                vec!["a\r\nb".into(), "c\0d".into(), String::new()],
                "ERR unknown command 'f  o', with args beginning with: 'a  b' 'c' '' ".into(),
            ),
            (
                "foo",
                vec![y(200), z()],
                format!("ERR unknown command 'foo', with args beginning with: '{}' ", y(128)),
            ),
            (
                "foo",
                vec![y(125), z()],
                format!("ERR unknown command 'foo', with args beginning with: '{}' ", y(125)),
            ),
            (
                "foo",
                vec![y(124), z()],
                format!("ERR unknown command 'foo', with args beginning with: '{}' 'z' ", y(124)),
            ),
            (
                "foo",
                vec![y(123), z()],
                format!("ERR unknown command 'foo', with args beginning with: '{}' 'zz' ", y(123)),
            ),
            (
                "foo",
                vec!["ab".into(); 60],
                format!("ERR unknown command 'foo', with args beginning with: {}", "'ab' ".repeat(26)),
            ),
        ] {
            let error = unknown_command_error(name.as_bytes(), args.iter().map(String::as_bytes));
            assert_eq!(error, expected);
        }
        let long = unknown_command_error(&[b'x'; 200], []);
        assert_eq!(long, format!("ERR unknown command '{}', with args beginning with: ", "x".repeat(128)));
    }

    #[test]
    fn other_errors_are_those_of_redis() {
        let cluster = Command::Cluster.spec();
        assert_eq!(
            unknown_subcommand_error(cluster, b"Failover"),
            "ERR CLUSTER FAILOVER is not supported: use `ringfort transfer` to hand leaderships over"
        );
        assert!(unknown_command_error(b"SAVE", []).starts_with("ERR SAVE is not supported: "));
        assert_eq!(wrong_arity_error("get"), "ERR wrong number of arguments for 'get' command");
        assert_eq!(
            unknown_subcommand_error(cluster, b"\r\nfoo"),
            "ERR unknown subcommand '  foo'. Try CLUSTER HELP."
        );
        assert_eq!(
            unknown_subcommand_error(cluster, &[b'x'; 300]),
            format!("ERR unknown subcommand '{}'. Try CLUSTER HELP.", "x".repeat(128))
        );
    }
}
