//! CLIENT: what a connection says and asks about connections.

use super::Args;
use super::connection::{Connection, Outcome, plain_text, text};
use ringfort_resp::{CommandSpec, Protocol, ReplyWriter};

impl Connection {
    pub(super) fn client(
        &mut self,
        spec: &'static CommandSpec,
        args: Args<'_>,
        out: &mut ReplyWriter<'_>,
    ) -> Outcome {
        match spec.short_name() {
            "setname" => {
                self.name = plain_text(args.get(2), "Client names")?;
                out.ok();
            }
            "getname" if self.name.is_empty() => out.null(),
            "getname" => out.bulk(self.name.as_bytes()),
            "setinfo" => {
                let option = args.get(2);
                if option.eq_ignore_ascii_case(b"lib-name") {
                    self.lib_name = plain_text(args.get(3), "lib-name")?;
                } else if option.eq_ignore_ascii_case(b"lib-ver") {
                    self.lib_version = plain_text(args.get(3), "lib-ver")?;
                } else {
                    return Err(format!("ERR Unrecognized option '{}'", String::from_utf8_lossy(option)));
                }
                out.ok();
            }
            "id" => out.integer(self.id().cast_signed()),
            _ => text(
                out,
                &format!(
                    "id={} addr={} name={} flags={} db=0 sub=0 psub=0 ssub=0 multi=-1 cmd=client|info user=default \
                     redir=-1 resp={} lib-name={} lib-ver={}\n",
                    self.id(),
                    self.addr,
                    self.name,
                    if self.is_readonly { 'r' } else { 'N' },
                    if self.protocol == Protocol::Resp3 { 3 } else { 2 },
                    self.lib_name,
                    self.lib_version,
                ),
            ),
        }
        Ok(())
    }
}
