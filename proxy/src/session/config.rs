//! CONFIG: settings under Redis's names. Those that can be changed belong to the whole cluster.

use super::connection::Outcome;
use super::{Args, Host};
use crate::clients::Clients;
use ringfort_resp::glob::Glob;
use ringfort_resp::{CommandSpec, ReplyWriter};
use ringfort_wire::MetaWrite;
use ringfort_wire::settings::{self, Setting};

const NO_REWRITE: &str = "ERR CONFIG REWRITE is not needed: the cluster itself keeps what CONFIG SET changes, and the config file is \
                          not touched";

/// Executes every subcommand but HELP, and SET when there is something to change ([`change`]).
pub(super) fn execute(
    spec: &'static CommandSpec,
    args: Args<'_>,
    host: &dyn Host,
    clients: &Clients,
    out: &mut ReplyWriter<'_>,
) -> Outcome {
    match spec.short_name() {
        "get" => get(args, host, out),
        "resetstat" => {
            clients.reset_stats();
            out.ok();
        }
        "rewrite" => return Err(NO_REWRITE.to_owned()),
        _ => out.ok(),
    }
    Ok(())
}

fn get(args: Args<'_>, host: &dyn Host, out: &mut ReplyWriter<'_>) {
    let patterns: Vec<Glob> = args.iter().skip(2).map(Glob::nocase).collect();
    let is_asked = |setting: &&Setting| patterns.iter().any(|p| p.is_match(setting.name.as_bytes()));
    let found: Vec<&Setting> = settings::ALL.iter().filter(is_asked).collect();
    out.map(found.len());
    for setting in found {
        out.bulk(setting.name.as_bytes());
        match setting.name {
            "port" => out.bulk(host.facts().tcp_port.to_string().as_bytes()),
            "cluster-enabled" => out.bulk(if host.my_node().is_some() { b"yes" } else { b"no" }),
            _ => out.bulk(setting.value(host.map()).as_bytes()),
        }
    }
}

/// What a CONFIG SET asks of the meta group; `None` for any other command, and when it changes nothing.
///
/// # Errors
/// The text of the error reply.
pub(super) fn change(
    spec: &'static CommandSpec,
    args: Args<'_>,
    host: &dyn Host,
) -> Result<Option<MetaWrite>, String> {
    if spec.short_name() != "set" {
        return Ok(None);
    }
    let pairs = settings::parse_pairs(&args.iter().skip(2).collect::<Vec<_>>())?;
    if pairs.is_empty() {
        return Ok(None);
    }
    if host.map().is_none() {
        return Err(super::NO_MAP.to_owned());
    }
    Ok(Some(MetaWrite::Set(pairs)))
}
