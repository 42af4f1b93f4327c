//! SLOWLOG.

use super::Args;
use super::connection::{Outcome, integer};
use crate::clients::Clients;
use ringfort_resp::{CommandSpec, ReplyWriter};

/// Entries that SLOWLOG GET shows when no number is given.
const SHOWN: usize = 10;

pub(super) fn execute(
    spec: &CommandSpec,
    args: Args<'_>,
    clients: &Clients,
    out: &mut ReplyWriter<'_>,
) -> Outcome {
    match spec.short_name() {
        "len" => out.integer(clients.slow_log().lock().len() as i64),
        "reset" => {
            clients.slow_log().lock().clear();
            out.ok();
        }
        _ => {
            let count = match args.len() {
                2 => SHOWN,
                3 => match integer(args.get(2)) {
                    Some(-1) => usize::MAX,
                    Some(count @ 0..) => usize::try_from(count).unwrap_or(usize::MAX),
                    _ => return Err("ERR count should be greater than or equal to -1".to_owned()),
                },
                _ => {
                    let name = String::from_utf8_lossy(args.get(1));
                    return Err(format!(
                        "ERR unknown subcommand or wrong number of arguments for '{name}'. Try SLOWLOG HELP."
                    ));
                }
            };
            let entries = clients.slow_log().lock().newest(count);
            out.array(entries.len());
            for entry in entries {
                out.array(6);
                out.integer(entry.id.cast_signed());
                out.integer(entry.unix_s.cast_signed());
                out.integer(entry.us.cast_signed());
                out.array(entry.args.len());
                entry.args.iter().for_each(|arg| out.bulk(arg));
                out.bulk(entry.addr.as_bytes());
                out.bulk(entry.name.as_bytes());
            }
        }
    }
    Ok(())
}
