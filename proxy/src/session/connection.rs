//! The commands that a connection answers by itself.

use super::{Args, Host, RingfortQuery, cluster, command, config, info, server};
use crate::clients::{Place, WorkerClients};
use crate::logging;
use ringfort_resp::commands::{write_help, wrong_arity_error};
use ringfort_resp::{Command, CommandSpec, Protocol, ReplyWriter};

/// The state that connection commands change.
#[derive(Debug)]
pub(super) struct Connection {
    /// What it shares with the other connections of the process.
    pub(super) clients: WorkerClients,
    place: Place,
    pub(super) addr: String,
    pub(super) protocol: Protocol,
    pub(super) name: String,
    pub(super) lib_name: String,
    pub(super) lib_version: String,
    pub(super) is_readonly: bool,
    /// Whether the client came by TLS, so that it is sent to TLS addresses.
    pub(super) is_tls: bool,
}

/// A reply is written, or the text of an error reply.
pub(super) type Outcome = Result<(), String>;

impl Connection {
    pub(super) fn new(place: Place, addr: String, clients: WorkerClients) -> Self {
        Self {
            clients,
            place,
            addr,
            protocol: Protocol::Resp2,
            name: String::new(),
            lib_name: String::new(),
            lib_version: String::new(),
            is_readonly: false,
            is_tls: false,
        }
    }

    pub(super) fn id(&self) -> u64 {
        self.place.id()
    }

    pub(super) fn protocol(&self) -> Protocol {
        self.protocol
    }

    pub(super) fn is_readonly(&self) -> bool {
        self.is_readonly
    }

    /// Executes a command or subcommand of [`ringfort_resp::Scope::Connection`] whose arity is right; appends its reply.
    ///
    /// # Errors
    /// The text of the error reply, which is appended too.
    pub(super) fn execute(
        &mut self,
        spec: &'static CommandSpec,
        args: Args<'_>,
        host: &dyn Host,
        out: &mut Vec<u8>,
    ) -> Outcome {
        self.try_execute(spec, args, host, out)
            .inspect_err(|error| ReplyWriter::new(out, self.protocol).error(error))
    }

    /// Appends the reply, or appends nothing and returns the text of the error reply.
    fn try_execute(
        &mut self,
        spec: &'static CommandSpec,
        args: Args<'_>,
        host: &dyn Host,
        out: &mut Vec<u8>,
    ) -> Outcome {
        // HELLO and RESET change the protocol, and their own replies are in the new one.
        match spec.command {
            Command::Hello => return self.hello(args, host, out),
            Command::Reset => {
                self.protocol = Protocol::Resp2;
                self.name.clear();
                self.is_readonly = false;
                ReplyWriter::new(out, self.protocol).simple("RESET");
                return Ok(());
            }
            _ => {}
        }
        let out = &mut ReplyWriter::new(out, self.protocol);
        match spec.command {
            Command::Ping => match args.len() {
                1 => out.simple("PONG"),
                2 => out.bulk(args.get(1)),
                _ => return Err(wrong_arity_error(spec.name)),
            },
            Command::Echo => out.bulk(args.get(1)),
            // Slots do not migrate one by one, so that nobody is sent here to ask.
            Command::Quit | Command::Asking => out.ok(),
            Command::ReadOnly => {
                self.is_readonly = true;
                out.ok();
            }
            Command::ReadWrite => {
                self.is_readonly = false;
                out.ok();
            }
            Command::Select => match integer(args.get(1)) {
                None => return Err("ERR value is not an integer or out of range".to_owned()),
                Some(0) => out.ok(),
                Some(n) if i32::try_from(n).is_err() => {
                    let range = "value must between -2147483648 and 2147483647";
                    return Err(format!("ERR value is out of range, {range}"));
                }
                Some(_) if host.my_node().is_some() => {
                    return Err("ERR SELECT is not allowed in cluster mode".to_owned());
                }
                Some(_) => return Err("ERR DB index is out of range".to_owned()),
            },
            Command::Info => text(out, &info::text(args.iter().skip(1), host, self.clients.all())),
            container if spec.name.ends_with("|help") => write_help(container.spec(), out),
            Command::Time
            | Command::LastSave
            | Command::Lolwut
            | Command::Role
            | Command::Wait
            | Command::WaitAof => {
                return server::execute(spec, args, host, self.clients.wall_us(), out);
            }
            Command::Client => return self.client(spec, args, out),
            Command::Command => return command::execute(spec, args, out),
            Command::Config => return config::execute(spec, args, host, self.clients.all(), out),
            Command::Cluster => return cluster::execute(spec, args, host, self.is_tls, out),
            Command::Ringfort => return ringfort(spec, args, host, out),
            _ => return Err(format!("ERR '{}' is not a command of a connection", spec.name)),
        }
        Ok(())
    }

    fn hello(&mut self, args: Args<'_>, host: &dyn Host, out: &mut Vec<u8>) -> Outcome {
        let mut protocol = self.protocol;
        let mut name = None;
        if args.len() > 1 {
            protocol = match integer(args.get(1)) {
                None => return Err("ERR Protocol version is not an integer or out of range".to_owned()),
                Some(2) => Protocol::Resp2,
                Some(3) => Protocol::Resp3,
                Some(_) => return Err("NOPROTO unsupported protocol version".to_owned()),
            };
        }
        let mut i = 2;
        while i < args.len() {
            let (option, left) = (args.get(i), args.len() - i - 1);
            if option.eq_ignore_ascii_case(b"auth") && left >= 2 {
                check_user(args.get(i + 1))?;
                i += 3;
            } else if option.eq_ignore_ascii_case(b"setname") && left >= 1 {
                name = Some(plain_text(args.get(i + 1), "Client names")?);
                i += 2;
            } else {
                return Err(format!(
                    "ERR Syntax error in HELLO option '{}'",
                    String::from_utf8_lossy(option)
                ));
            }
        }
        self.protocol = protocol;
        if let Some(name) = name {
            self.name = name;
        }
        let out = &mut ReplyWriter::new(out, protocol);
        let mode: &[u8] = if host.my_node().is_some() { b"cluster" } else { b"standalone" };
        out.map(7);
        out.bulk(b"server");
        out.bulk(b"redis");
        out.bulk(b"version");
        out.bulk(info::REDIS_VERSION.as_bytes());
        out.bulk(b"proto");
        out.integer(if protocol == Protocol::Resp3 { 3 } else { 2 });
        out.bulk(b"id");
        out.integer(self.id().cast_signed());
        out.bulk(b"mode");
        out.bulk(mode);
        out.bulk(b"role");
        out.bulk(b"master");
        out.bulk(b"modules");
        out.array(0);
        Ok(())
    }
}

/// AUTH on a server without passwords, whose only user is `default`; the text of the error reply, if it is one.
pub(super) fn auth(args: Args<'_>) -> Outcome {
    match args.len() {
        2 => Err("ERR AUTH <password> called without any password configured for the default user. Are you sure your \
                  configuration is correct?"
            .to_owned()),
        3 => check_user(args.get(1)),
        1 => Err(wrong_arity_error("auth")),
        _ => Err("ERR syntax error".to_owned()),
    }
}

/// The one user there is needs no password, so that any is right.
fn check_user(user: &[u8]) -> Outcome {
    if user == b"default" {
        Ok(())
    } else {
        Err("WRONGPASS invalid username-password pair or user is disabled.".to_owned())
    }
}

/// Text for people: a verbatim string where the protocol has it.
pub(super) fn text(out: &mut ReplyWriter<'_>, text: &str) {
    out.verbatim(b"txt", text.as_bytes());
}

/// Redis's rule for what stands in one line of CLIENT LIST.
pub(super) fn plain_text(bytes: &[u8], what: &str) -> Result<String, String> {
    match core::str::from_utf8(bytes) {
        Ok(text) if bytes.iter().all(|b| (b'!'..=b'~').contains(b)) => Ok(text.to_owned()),
        _ => Err(format!("ERR {what} cannot contain spaces, newlines or special characters.")),
    }
}

/// A decimal integer as Redis reads it: no plus sign, no blanks.
pub(super) fn integer(bytes: &[u8]) -> Option<i64> {
    if bytes.starts_with(b"+") {
        return None;
    }
    core::str::from_utf8(bytes).ok()?.parse().ok()
}

fn ringfort(spec: &CommandSpec, args: Args<'_>, host: &dyn Host, out: &mut ReplyWriter<'_>) -> Outcome {
    let query = match spec.short_name() {
        "log" => return log(spec, args, out),
        "map" => RingfortQuery::Map,
        "digest" => RingfortQuery::Digest,
        _ => RingfortQuery::Node,
    };
    let json = host.ringfort(query).map_err(|error| format!("ERR {error}"))?;
    out.bulk(json.as_bytes());
    Ok(())
}

/// RINGFORT LOG: what the log of this process shows. RINGFORT LOG levels: what it shows from now on.
fn log(spec: &CommandSpec, args: Args<'_>, out: &mut ReplyWriter<'_>) -> Outcome {
    match args.len() {
        2 => out.bulk(logging::levels().unwrap_or_default().as_bytes()),
        3 => {
            logging::set_levels(&String::from_utf8_lossy(args.get(2)))
                .map_err(|error| format!("ERR {error}"))?;
            out.ok();
        }
        _ => return Err(wrong_arity_error(spec.name)),
    }
    Ok(())
}
