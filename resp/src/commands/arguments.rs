//! The arguments of a command as the table writes them in one line, for COMMAND DOCS and for people.
//!
//! ```text
//! key#0 value:string condition:oneof@2.6.12?(nx=NX xx=XX) expiration:oneof?(seconds:integer=EX keepttl=KEEPTTL)
//! ```
//!
//! An argument is `name`, then what applies of: `#0` (a key, of the key specification 0) or `:type` (without either it is
//! a pure token), `=TOKEN`, `@since`, `?` (optional), `*` (multiple), `+` (its token is repeated too), `(its arguments)`.

use crate::ReplyWriter;

/// One argument, borrowed from the line.
#[derive(Debug, Default)]
struct Argument<'a> {
    name: &'a str,
    kind: &'a str,
    key_spec: Option<i64>,
    token: &'a str,
    since: &'a str,
    /// `?`, `*`, `+` as far as they apply.
    marks: &'a str,
    inner: Vec<Self>,
}

/// Redis's flags, by their marks and in Redis's order.
const FLAGS: [(char, &str); 3] = [('?', "optional"), ('*', "multiple"), ('+', "multiple_token")];

/// Writes the array of COMMAND DOCS.
pub(super) fn write(line: &str, out: &mut ReplyWriter<'_>) {
    write_all(&parse(line), out);
}

/// The line as people read it: `key value [NX | XX] [EX seconds | KEEPTTL]`.
pub(super) fn syntax(line: &str) -> String {
    join(&parse(line), " ")
}

fn parse(line: &str) -> Vec<Argument<'_>> {
    arguments(&mut { line })
}

/// Takes arguments off the front up to the end or a closing parenthesis, which it takes too.
fn arguments<'a>(rest: &mut &'a str) -> Vec<Argument<'a>> {
    let mut found = Vec::new();
    loop {
        *rest = rest.trim_start();
        if rest.is_empty() {
            return found;
        }
        if let Some(after) = rest.strip_prefix(')') {
            *rest = after;
            return found;
        }
        found.push(argument(rest));
    }
}

fn argument<'a>(rest: &mut &'a str) -> Argument<'a> {
    let mut argument = Argument { name: take_word(rest, 0), kind: "pure-token", ..Argument::default() };
    if let Some(after) = rest.strip_prefix('#') {
        *rest = after;
        argument.kind = "key";
        argument.key_spec = take_word(rest, 0).parse().ok();
    } else if let Some(after) = rest.strip_prefix(':') {
        *rest = after;
        argument.kind = take_word(rest, 0);
    }
    if let Some(after) = rest.strip_prefix('=') {
        *rest = after;
        // A token may be a sign, such as `=` or `*`.
        argument.token = take_word(rest, 1);
    }
    if let Some(after) = rest.strip_prefix('@') {
        *rest = after;
        argument.since = take_word(rest, 0);
    }
    let marks = rest.len() - rest.trim_start_matches(['?', '*', '+']).len();
    (argument.marks, *rest) = rest.split_at(marks);
    if let Some(after) = rest.strip_prefix('(') {
        *rest = after;
        argument.inner = arguments(rest);
    }
    argument
}

/// Takes what stands before the next sign; the first `from` bytes are no signs.
fn take_word<'a>(rest: &mut &'a str, from: usize) -> &'a str {
    let signs = [' ', '#', ':', '=', '@', '?', '*', '+', '(', ')'];
    let end = rest.get(from..).and_then(|tail| tail.find(signs)).map_or(rest.len(), |at| from + at);
    let (word, after) = rest.split_at(end);
    *rest = after;
    word
}

fn write_all(arguments: &[Argument<'_>], out: &mut ReplyWriter<'_>) {
    out.array(arguments.len());
    for argument in arguments {
        write_one(argument, out);
    }
}

fn write_one(argument: &Argument<'_>, out: &mut ReplyWriter<'_>) {
    let Argument { name, kind, key_spec, token, since, marks, inner } = argument;
    let optional =
        [!token.is_empty(), key_spec.is_some(), !since.is_empty(), !marks.is_empty(), !inner.is_empty()];
    out.map(2 + optional.into_iter().filter(|is_there| *is_there).count());
    let text = |key: &str, value: &str, out: &mut ReplyWriter<'_>| {
        if !value.is_empty() {
            out.bulk(key.as_bytes());
            out.bulk(value.as_bytes());
        }
    };
    text("name", name, out);
    text("type", kind, out);
    if let Some(key_spec) = key_spec {
        out.bulk(b"key_spec_index");
        out.integer(*key_spec);
    }
    text("token", token, out);
    text("since", since, out);
    if !marks.is_empty() {
        out.bulk(b"flags");
        let flags = FLAGS.iter().filter(|(mark, _)| marks.contains(*mark));
        out.set(flags.clone().count());
        flags.for_each(|(_, flag)| out.simple(flag));
    }
    if !inner.is_empty() {
        out.bulk(b"arguments");
        write_all(inner, out);
    }
}

fn join(arguments: &[Argument<'_>], between: &str) -> String {
    arguments.iter().map(shown).collect::<Vec<_>>().join(between)
}

fn shown(argument: &Argument<'_>) -> String {
    let value = match argument.kind {
        "pure-token" => String::new(),
        "oneof" => join(&argument.inner, " | "),
        "block" => join(&argument.inner, " "),
        _ => argument.name.replace('_', "-"),
    };
    let has = |mark| argument.marks.contains(mark);
    let one = match (argument.token, value.as_str()) {
        ("", value) => value.to_owned(),
        (token, "") => token.to_owned(),
        (token, value) => format!("{token} {value}"),
    };
    let repeated = if has('+') { &one } else { &value };
    let is_choice = argument.kind == "oneof" && !has('?');
    match (has('?'), has('*')) {
        (true, true) => format!("[{one} [{repeated} ...]]"),
        (true, false) => format!("[{one}]"),
        (false, true) => format!("{one} [{repeated} ...]"),
        (false, false) if is_choice => format!("<{one}>"),
        (false, false) => one,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_shown_as_people_write_it() {
        for (line, shown) in [
            ("", ""),
            ("key#0", "key"),
            ("key#0*", "key [key ...]"),
            ("data:block*(key#0 value:string)", "key value [key value ...]"),
            (
                "key#0 value:string condition:oneof@2.6.12?(nx=NX xx=XX) get=GET@6.2.0?",
                "key value [NX | XX] [GET]",
            ),
            ("a:oneof(b:integer=EX c=PERSIST)", "<EX b | PERSIST>"),
            (
                "client-id:integer=ID*? pattern:pattern=LIKE*+",
                "[ID client-id [client-id ...]] LIKE pattern [LIKE pattern ...]",
            ),
            ("operator:oneof?(equal== approximately=~) id:oneof(auto=* x:string)", "[= | ~] <* | x>"),
        ] {
            assert_eq!(syntax(line), shown);
        }
    }
}
