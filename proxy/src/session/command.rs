//! COMMAND: what the table of commands tells clients.

use super::Args;
use super::connection::{Outcome, subcommand};
use ringfort_resp::commands::{write_command_docs, write_command_info};
use ringfort_resp::{CommandSpec, ReplyWriter, commands};

pub(super) fn execute(spec: &'static CommandSpec, args: Args<'_>, out: &mut ReplyWriter<'_>) -> Outcome {
    if args.len() == 1 {
        write_all_info(out);
        return Ok(());
    }
    match subcommand(spec, args, &[("count", 2), ("info", -2), ("docs", -2), ("list", -2), ("getkeys", -3)])?
    {
        "count" => out.integer(commands::all().len() as i64),
        "info" if args.len() == 2 => write_all_info(out),
        "info" => {
            out.array(args.len() - 2);
            for name in args.iter().skip(2) {
                match commands::lookup(name) {
                    Some(spec) => write_command_info(spec, out),
                    None => out.null_array(),
                }
            }
        }
        "docs" if args.len() == 2 => {
            out.map(commands::all().len());
            commands::all().iter().for_each(|spec| write_command_docs(spec, out));
        }
        "docs" => {
            out.map(args.iter().skip(2).filter(|name| commands::lookup(name).is_some()).count());
            args.iter().skip(2).filter_map(commands::lookup).for_each(|spec| write_command_docs(spec, out));
        }
        "list" if args.len() > 2 => return Err("ERR syntax error".to_owned()),
        "list" => {
            out.array(commands::all().len());
            commands::all().iter().for_each(|spec| out.bulk(spec.name.as_bytes()));
        }
        _ => {
            let argc = args.len() - 2;
            let Some(spec) = commands::lookup(args.get(2)) else {
                return Err("ERR Invalid command specified".to_owned());
            };
            let keys = spec.keys(argc);
            if spec.keys.first == 0 {
                return Err("ERR The command has no key arguments".to_owned());
            }
            if !spec.is_arity_ok(argc) {
                return Err("ERR Invalid number of arguments specified for command".to_owned());
            }
            out.array(keys.len());
            keys.for_each(|i| out.bulk(args.get(2 + i)));
        }
    }
    Ok(())
}

fn write_all_info(out: &mut ReplyWriter<'_>) {
    out.array(commands::all().len());
    commands::all().iter().for_each(|spec| write_command_info(spec, out));
}
