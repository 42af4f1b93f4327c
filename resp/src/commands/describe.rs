//! What COMMAND and HELP tell of the rows of the table, in Redis's forms.

use super::{CommandSpec, Keys, arguments};
use crate::ReplyWriter;

/// Writes the element of `COMMAND` and `COMMAND INFO` for one command: Redis 7's ten fields.
pub fn write_command_info(spec: &CommandSpec, out: &mut ReplyWriter<'_>) {
    out.array(10);
    out.bulk(spec.name.as_bytes());
    out.integer(i64::from(spec.arity));
    write_simple_set(spec.flags, out);
    out.integer(i64::from(spec.keys.first));
    out.integer(i64::from(spec.keys.last));
    out.integer(i64::from(spec.keys.step));
    out.set(spec.categories().count());
    spec.categories().for_each(|category| out.simple(&format!("@{category}")));
    out.set(spec.tips.len());
    spec.tips.iter().for_each(|tip| out.bulk(tip.as_bytes()));
    out.set(spec.key_flags.len());
    match spec.key_flags {
        [only] => write_key_spec(spec, only, spec.keys, out),
        several => {
            for (flags, i) in several.iter().zip(spec.keys.first..) {
                write_key_spec(spec, flags, Keys { first: i, last: i.cast_signed(), step: 1 }, out);
            }
        }
    }
    out.set(spec.subcommands.len());
    spec.subcommands.iter().for_each(|sub| write_command_info(sub, out));
}

/// Writes the pair of `COMMAND DOCS` for one command: its name and what is known of it.
///
/// The caller writes the header first: a map of as many pairs as there are commands.
pub fn write_command_docs(spec: &CommandSpec, out: &mut ReplyWriter<'_>) {
    let docs = &spec.docs;
    let (since, replaced_by) = docs.deprecated.unwrap_or_default();
    let texts = [
        ("summary", docs.summary),
        ("since", docs.since),
        ("group", docs.group),
        ("complexity", docs.complexity),
    ];
    let deprecation = [("deprecated_since", since), ("replaced_by", replaced_by)];
    let lists = [docs.history.is_empty(), docs.arguments.is_empty(), spec.subcommands.is_empty()];
    let count = |texts: &[(&str, &str)]| texts.iter().filter(|(_, text)| !text.is_empty()).count();

    out.bulk(spec.name.as_bytes());
    let deprecated_fields = if since.is_empty() { 0 } else { 1 + count(&deprecation) };
    out.map(count(&texts) + deprecated_fields + lists.iter().filter(|is_empty| !**is_empty).count());
    write_texts(&texts, out);
    if !since.is_empty() {
        out.bulk(b"doc_flags");
        write_simple_set(&["deprecated"], out);
        write_texts(&deprecation, out);
    }
    if !docs.history.is_empty() {
        out.bulk(b"history");
        out.set(docs.history.len());
        for (version, change) in docs.history {
            out.array(2);
            out.bulk(version.as_bytes());
            out.bulk(change.as_bytes());
        }
    }
    if !docs.arguments.is_empty() {
        out.bulk(b"arguments");
        arguments::write(docs.arguments, out);
    }
    if !spec.subcommands.is_empty() {
        out.bulk(b"subcommands");
        out.map(spec.subcommands.len());
        spec.subcommands.iter().for_each(|sub| write_command_docs(sub, out));
    }
}

/// Writes the set of flags of a command's key that is its `nth`, from 0, as `COMMAND GETKEYSANDFLAGS` shows them.
pub fn write_key_flags(spec: &CommandSpec, nth: usize, out: &mut ReplyWriter<'_>) {
    let flags = spec.key_flags.get(nth).or_else(|| spec.key_flags.last()).copied().unwrap_or_default();
    write_simple_set(flags, out);
}

/// A command with its arguments as people write them: `SET key value [NX | XX] ...`.
pub fn syntax(spec: &CommandSpec) -> String {
    let name = spec.name.replace('|', " ").to_ascii_uppercase();
    let arguments = arguments::syntax(spec.docs.arguments);
    if arguments.is_empty() { name } else { format!("{name} {arguments}") }
}

/// Writes the reply to HELP of a container: Redis's form, with the syntax and the summary of each subcommand.
pub fn write_help(container: &CommandSpec, out: &mut ReplyWriter<'_>) {
    let name = container.name.to_ascii_uppercase();
    out.array(1 + 2 * container.subcommands.len());
    out.simple(&format!("{name} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"));
    for sub in container.subcommands {
        out.simple(&syntax(sub)[name.len() + 1..]);
        out.simple(&format!("    {}.", sub.docs.summary));
    }
}

fn write_texts(texts: &[(&str, &str)], out: &mut ReplyWriter<'_>) {
    for (key, text) in texts.iter().filter(|(_, text)| !text.is_empty()) {
        out.bulk(key.as_bytes());
        out.bulk(text.as_bytes());
    }
}

fn write_simple_set(words: &[&str], out: &mut ReplyWriter<'_>) {
    out.set(words.len());
    for word in words {
        out.simple(word);
    }
}

/// Redis 7's form of "from argument `first` on, a range": the last key is relative to the first unless it is negative.
fn write_key_spec(spec: &CommandSpec, flags: &[&str], keys: Keys, out: &mut ReplyWriter<'_>) {
    let first = i64::from(keys.first);
    let last = i64::from(keys.last);
    out.map(if spec.key_notes.is_some() { 4 } else { 3 });
    if let Some(notes) = spec.key_notes {
        out.bulk(b"notes");
        out.bulk(notes.as_bytes());
    }
    out.bulk(b"flags");
    write_simple_set(flags, out);

    out.bulk(b"begin_search");
    out.map(2);
    out.bulk(b"type");
    out.bulk(b"index");
    out.bulk(b"spec");
    out.map(1);
    out.bulk(b"index");
    out.integer(first);

    out.bulk(b"find_keys");
    out.map(2);
    out.bulk(b"type");
    out.bulk(b"range");
    out.bulk(b"spec");
    out.map(3);
    out.bulk(b"lastkey");
    out.integer(if last < 0 { last } else { last - first });
    out.bulk(b"keystep");
    out.integer(i64::from(keys.step));
    out.bulk(b"limit");
    out.integer(0);
}
