//! COMMAND: what the table of commands tells clients.

use super::connection::Outcome;
use super::{Args, NAMES_MAX};
use ringfort_resp::commands::{self, write_command_docs, write_command_info, write_key_flags};
use ringfort_resp::{CommandSpec, Glob, ReplyWriter};

/// COMMAND itself and its subcommands.
pub(super) fn execute(spec: &'static CommandSpec, args: Args<'_>, out: &mut ReplyWriter<'_>) -> Outcome {
    let names = args.iter().skip(2);
    if names.len() > NAMES_MAX {
        return Err(format!("ERR at most {NAMES_MAX} names at once"));
    }
    match spec.short_name() {
        "count" => out.integer(commands::all().len() as i64),
        "docs" => {
            let found: Vec<_> = if names.len() == 0 {
                commands::all().iter().collect()
            } else {
                names.filter_map(commands::find).collect()
            };
            out.map(found.len());
            found.into_iter().for_each(|spec| write_command_docs(spec, out));
        }
        "info" if names.len() > 0 => {
            out.array(names.len());
            for name in names {
                match commands::find(name) {
                    Some(spec) => write_command_info(spec, out),
                    None => out.null(),
                }
            }
        }
        "list" => return list(args, out),
        "getkeys" => return keys(args, false, out),
        "getkeysandflags" => return keys(args, true, out),
        _ => {
            out.array(commands::all().len());
            commands::all().iter().for_each(|spec| write_command_info(spec, out));
        }
    }
    Ok(())
}

/// `COMMAND LIST [FILTERBY MODULE name | ACLCAT category | PATTERN pattern]`; subcommands are listed only by a filter.
fn list(args: Args<'_>, out: &mut ReplyWriter<'_>) -> Outcome {
    let is = |i: usize, word: &str| args.get(i).eq_ignore_ascii_case(word.as_bytes());
    let filter: Box<dyn Fn(&CommandSpec) -> bool> = match args.len() {
        2 => Box::new(|spec| !spec.name.contains('|')),
        5 if is(2, "filterby") && is(3, "module") => Box::new(|_| false),
        5 if is(2, "filterby") && is(3, "aclcat") => {
            Box::new(|spec| spec.categories().any(|c| c.as_bytes().eq_ignore_ascii_case(args.get(4))))
        }
        5 if is(2, "filterby") && is(3, "pattern") => {
            let pattern = Glob::nocase(args.get(4));
            Box::new(move |spec| pattern.is_match(spec.name.as_bytes()))
        }
        _ => return Err("ERR syntax error".to_owned()),
    };
    let rows = commands::all().iter().flat_map(|spec| core::iter::once(spec).chain(spec.subcommands));
    let found: Vec<_> = rows.filter(|spec| filter(spec)).collect();
    out.array(found.len());
    found.into_iter().for_each(|spec| out.bulk(spec.name.as_bytes()));
    Ok(())
}

/// The keys of the command that stands behind `COMMAND GETKEYS` or `COMMAND GETKEYSANDFLAGS`.
fn keys(args: Args<'_>, with_flags: bool, out: &mut ReplyWriter<'_>) -> Outcome {
    let argc = args.len() - 2;
    let container = commands::lookup(args.get(2));
    let spec = match container {
        Some(spec) if !spec.subcommands.is_empty() && argc > 1 => spec.subcommand(args.get(3)),
        _ => container,
    };
    let Some(spec) = spec else { return Err("ERR Invalid command specified".to_owned()) };
    if spec.keys.first == 0 {
        return Err("ERR The command has no key arguments".to_owned());
    }
    if !spec.is_arity_ok(argc) {
        return Err("ERR Invalid number of arguments specified for command".to_owned());
    }
    let keys = spec.keys(argc);
    out.array(keys.len());
    for (nth, i) in keys.enumerate() {
        if with_flags {
            out.array(2);
        }
        out.bulk(args.get(2 + i));
        if with_flags {
            write_key_flags(spec, nth, out);
        }
    }
    Ok(())
}
