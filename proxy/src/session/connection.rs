//! The commands that a connection answers by itself.

use super::{
    Args, Host, RingfortQuery, auth, cluster, command, config, info, latency, monitor, server, slow_log,
};
use crate::clients::{Address, Held, Place, Record, SlowEntry, WorkerClients};
use crate::logging;
use crate::server::faults;
use core::sync::atomic::Ordering::Relaxed;
use ringfort_resp::commands::{self, write_help, wrong_arity_error};
use ringfort_resp::{Command, CommandSpec, Protocol, ReplyWriter};
use std::sync::Arc;

const HELLO_BEFORE_AUTH: &str = "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO \
                                 <proto> AUTH <user> <pass> option can be used to authenticate the client and select \
                                 the RESP protocol version at the same time";

/// Which replies CLIENT REPLY drops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Silence {
    No,
    /// That of the next command.
    Next,
    All,
}

/// The state that connection commands change.
#[derive(Debug)]
pub(super) struct Connection {
    /// What it shares with the other connections of the process.
    pub(super) clients: WorkerClients,
    place: Place,
    /// What the others see of it.
    pub(super) record: Arc<Record>,
    protocol: Protocol,
    is_readonly: bool,
    /// Whether the client came by TLS, so that it is sent to TLS addresses.
    pub(super) is_tls: bool,
    /// Whether it said MONITOR.
    pub(super) is_monitor: bool,
    pub(super) is_authenticated: bool,
    /// The command that was looked up last: most are followed by another of the same name.
    last_command: Option<&'static CommandSpec>,
    /// Whether it has been seen if there is a password; before the first map nobody knows.
    pub(super) knows_password: bool,
    pub(super) silence: Silence,
    /// Whether the last command was CLIENT REPLY ON.
    pub(super) is_reply_on: bool,
}

/// A reply is written, or the text of an error reply.
pub(super) type Outcome = Result<(), String>;

impl Connection {
    pub(super) fn new(place: Place, address: &Address, clients: WorkerClients) -> Self {
        Self {
            record: clients.register(&place, address),
            clients,
            place,
            protocol: Protocol::Resp2,
            is_readonly: false,
            is_tls: false,
            is_monitor: false,
            is_authenticated: false,
            last_command: None,
            knows_password: false,
            silence: Silence::No,
            is_reply_on: false,
        }
    }

    /// Finds a command by its name.
    pub(super) fn look_up(&mut self, name: &[u8]) -> Option<&'static CommandSpec> {
        let last = self.last_command.filter(|last| last.name.as_bytes().eq_ignore_ascii_case(name));
        let spec = last.or_else(|| commands::lookup(name));
        self.last_command = spec;
        spec
    }

    pub(super) fn id(&self) -> u64 {
        self.place.id()
    }

    pub(super) fn name(&self) -> String {
        self.record.names.lock().name.clone()
    }

    pub(super) fn set_name(&self, name: String) {
        self.record.names.lock().name = name;
    }

    pub(super) fn set_key(&self, key: u64) {
        self.record.set_key(key);
    }

    pub(super) fn is_killed(&self) -> bool {
        self.record.is_killed.load(Relaxed)
    }

    pub(super) fn take_lines(&self) -> Vec<u8> {
        if self.is_monitor { self.record.take_lines() } else { Vec::new() }
    }

    pub(super) fn hold(&self, held: Held) {
        self.record.hold(held, self.clients.now_us());
    }

    /// Whether it was silent for longer than the setting `timeout` allows; a monitor may be.
    pub(super) fn is_idle(&self) -> bool {
        let idle_s = self.record.idle_s(self.clients.now_us());
        !self.is_monitor && self.clients.idle_max_s().is_some_and(|max_s| idle_s > max_s)
    }

    /// Whether CLIENT PAUSE holds a command up; CLIENT LIST shows it then. CLIENT UNPAUSE is never held up (in Redis it
    /// is), so that a pause that is too long can be ended.
    pub(super) fn is_paused(&self, spec: &CommandSpec) -> bool {
        let is_paused = self.clients.all().pause().holds(spec.is_write, self.clients.now_us())
            && spec.name != "client|unpause";
        if is_paused {
            self.set_paused(true);
        }
        is_paused
    }

    pub(super) fn set_paused(&self, is_paused: bool) {
        self.record.is_paused.store(is_paused, Relaxed);
    }

    /// A command is to be executed.
    pub(super) fn asked(&self, spec: &'static CommandSpec, args: Args<'_>) {
        self.record.asked(spec, self.clients.now_us());
        if self.clients.all().is_monitored() && monitor::shows(spec) {
            let line = monitor::line(
                self.clients.wall_us(),
                &self.record.address.peer,
                &monitor::redacted(spec, args),
            );
            self.clients.all().monitor(&line);
        }
    }

    /// Whether the reply of the command that comes now is dropped.
    pub(super) fn take_silence(&mut self) -> bool {
        let silence = self.silence;
        if silence == Silence::Next {
            self.silence = Silence::No;
        }
        silence != Silence::No
    }

    /// Whether the last command was CLIENT REPLY ON, whose own reply is always seen.
    pub(super) fn take_reply_on(&mut self) -> bool {
        core::mem::take(&mut self.is_reply_on)
    }

    pub(super) fn log_slow(&self, us: u64, args: impl FnOnce() -> Vec<Vec<u8>>) {
        self.clients.log_slow(|| SlowEntry {
            id: 0,
            unix_s: self.clients.wall_us() / 1_000_000,
            us,
            args: args(),
            addr: self.record.address.peer.clone(),
            name: self.name(),
        });
    }

    pub(super) fn protocol(&self) -> Protocol {
        self.protocol
    }

    pub(super) fn is_readonly(&self) -> bool {
        self.is_readonly
    }

    /// Executes a command of [`ringfort_resp::Scope::Connection`] whose arity is right and appends its reply.
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
                self.reset();
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
            Command::ReadOnly | Command::ReadWrite => {
                self.set_readonly(spec.command == Command::ReadOnly);
                out.ok();
            }
            Command::Auth => {
                self.auth(args, host)?;
                out.ok();
            }
            Command::Monitor => {
                self.is_monitor = true;
                self.clients.all().add_monitor(&self.record);
                out.ok();
            }
            Command::SlowLog => return slow_log::execute(spec, args, self.clients.all(), out),
            Command::Latency => return latency::execute(spec, args, self.clients.all(), out),
            Command::Acl => auth::acl(spec, out),
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
            Command::Info => info::write(info::text(args.rest(), host, &self.clients), None, out),
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
            Command::Cluster => {
                return cluster::execute(spec, args, host, self.is_tls, self.is_readonly, out);
            }
            Command::Ringfort => return ringfort(spec, args, host, out),
            _ => return Err(format!("ERR '{}' is not a command of a connection", spec.name)),
        }
        Ok(())
    }

    /// RESET: as a new connection, of the same id.
    fn reset(&mut self) {
        self.set_protocol(Protocol::Resp2);
        self.set_name(String::new());
        self.set_readonly(false);
        self.is_authenticated = false;
        self.knows_password = false;
        self.is_reply_on = self.silence == Silence::All;
        self.silence = Silence::No;
        if core::mem::take(&mut self.is_monitor) {
            self.clients.all().remove_monitor(self.id());
            self.record.take_lines();
        }
        self.record.is_no_evict.store(false, Relaxed);
        self.record.is_no_touch.store(false, Relaxed);
    }

    fn set_protocol(&mut self, protocol: Protocol) {
        self.protocol = protocol;
        self.record.is_resp3.store(protocol == Protocol::Resp3, Relaxed);
    }

    pub(super) fn is_no_touch(&self) -> bool {
        self.record.is_no_touch.load(Relaxed)
    }

    fn set_readonly(&mut self, is_readonly: bool) {
        self.is_readonly = is_readonly;
        self.record.is_readonly.store(is_readonly, Relaxed);
    }

    fn hello(&mut self, args: Args<'_>, host: &dyn Host, out: &mut Vec<u8>) -> Outcome {
        let mut protocol = self.protocol;
        let (mut user, mut name) = (None, None);
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
                user = Some((args.get(i + 1), args.get(i + 2)));
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
        match user {
            Some((user, password)) => self.authenticate(user, password, host)?,
            None if self.needs_password(host) => return Err(HELLO_BEFORE_AUTH.to_owned()),
            None => {}
        }
        self.set_protocol(protocol);
        if let Some(name) = name {
            self.set_name(name);
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
        "fault" => {
            let args: Vec<&[u8]> = (2..args.len()).map(|n| args.get(n)).collect();
            out.bulk(faults::command(&args)?.as_bytes());
            return Ok(());
        }
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
