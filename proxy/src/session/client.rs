//! CLIENT: what a connection says and asks about itself; about others: `client_list`.

use super::connection::{Connection, Outcome, integer, plain_text, text};
use super::{Args, Silence};
use core::sync::atomic::Ordering::Relaxed;
use ringfort_resp::{CommandSpec, ReplyWriter};

const NO_TRACKING: &str =
    "ERR CLIENT TRACKING is not supported: Ringfort does not tell clients which keys have changed";

impl Connection {
    pub(super) fn client(
        &mut self,
        spec: &'static CommandSpec,
        args: Args<'_>,
        out: &mut ReplyWriter<'_>,
    ) -> Outcome {
        match spec.short_name() {
            "setname" => self.set_name(plain_text(args.get(2), "Client names")?),
            "setinfo" => self.set_info(args)?,
            "no-evict" => self.record.is_no_evict.store(on_or_off(args.get(2))?, Relaxed),
            "no-touch" => self.record.is_no_touch.store(on_or_off(args.get(2))?, Relaxed),
            "unpause" => self.clients.all().unpause(),
            "getname" => {
                match self.name().as_str() {
                    "" => out.null(),
                    name => out.bulk(name.as_bytes()),
                }
                return Ok(());
            }
            "id" => {
                out.integer(self.id().cast_signed());
                return Ok(());
            }
            "info" => {
                let mut line = String::new();
                self.record.write_line(self.clients.now_us(), &mut line);
                text(out, &line);
                return Ok(());
            }
            "list" => return self.list(args, out),
            "kill" => return self.kill(args, out),
            "pause" => return self.pause(args, out),
            "reply" => return self.reply(args.get(2), out),
            "unblock" => return unblock(args, out),
            name => return tracking(name, args, out),
        }
        out.ok();
        Ok(())
    }

    fn set_info(&self, args: Args<'_>) -> Outcome {
        let option = args.get(2);
        let mut names = self.record.names.lock();
        if option.eq_ignore_ascii_case(b"lib-name") {
            names.lib_name = plain_text(args.get(3), "lib-name")?;
        } else if option.eq_ignore_ascii_case(b"lib-ver") {
            names.lib_version = plain_text(args.get(3), "lib-ver")?;
        } else {
            return Err(format!("ERR Unrecognized option '{}'", String::from_utf8_lossy(option)));
        }
        Ok(())
    }

    /// `CLIENT REPLY ON | OFF | SKIP`: only ON has a reply itself.
    fn reply(&mut self, mode: &[u8], out: &mut ReplyWriter<'_>) -> Outcome {
        if mode.eq_ignore_ascii_case(b"on") {
            self.silence = Silence::No;
            self.is_reply_on = true;
            out.ok();
        } else if mode.eq_ignore_ascii_case(b"off") {
            self.silence = Silence::All;
        } else if !mode.eq_ignore_ascii_case(b"skip") {
            return Err("ERR syntax error".to_owned());
        } else if self.silence == Silence::No {
            self.silence = Silence::Next;
        }
        Ok(())
    }
}

fn on_or_off(word: &[u8]) -> Result<bool, String> {
    if word.eq_ignore_ascii_case(b"on") {
        Ok(true)
    } else if word.eq_ignore_ascii_case(b"off") {
        Ok(false)
    } else {
        Err("ERR syntax error".to_owned())
    }
}

/// `CLIENT UNBLOCK id [TIMEOUT | ERROR]`: no command blocks, so nobody is freed.
fn unblock(args: Args<'_>, out: &mut ReplyWriter<'_>) -> Outcome {
    let reason = args.iter().nth(3);
    let is_known =
        |reason: &[u8]| reason.eq_ignore_ascii_case(b"timeout") || reason.eq_ignore_ascii_case(b"error");
    if !reason.is_none_or(is_known) || args.len() > 4 {
        return Err("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR".to_owned());
    }
    integer(args.get(2)).ok_or("ERR value is not an integer or out of range")?;
    out.integer(0);
    Ok(())
}

/// The subcommands around client-side caching, which is always off.
fn tracking(name: &str, args: Args<'_>, out: &mut ReplyWriter<'_>) -> Outcome {
    match name {
        "getredir" => out.integer(-1),
        "caching" => {
            return Err(
                "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or \
                        OPTOUT mode enabled"
                    .to_owned(),
            );
        }
        "trackinginfo" => {
            out.map(3);
            out.bulk(b"flags");
            out.set(1);
            out.bulk(b"off");
            out.bulk(b"redirect");
            out.integer(-1);
            out.bulk(b"prefixes");
            out.array(0);
        }
        _ if on_or_off(args.get(2))? => return Err(NO_TRACKING.to_owned()),
        _ => out.ok(),
    }
    Ok(())
}
