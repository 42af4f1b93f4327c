//! Passwords: who may do what before AUTH, AUTH itself, ACL.
//!
//! There is one user, `default`, with the password of the cluster's setting `requirepass`; without one, all may do
//! everything. As in Redis, a connection stays authenticated when the password changes.

use super::connection::{Connection, Outcome};
use super::{Args, Host, NO_MAP};
use ringfort_resp::{Command, CommandSpec, ReplyWriter};
use ringfort_wire::settings::REQUIREPASS;

const WRONG: &str = "WRONGPASS invalid username-password pair or user is disabled.";
const NO_PASSWORD: &str = "ERR AUTH <password> called without any password configured for the default user. Are you \
                           sure your configuration is correct?";

impl Connection {
    /// Whether the connection may execute a command now.
    ///
    /// # Errors
    /// The text of the error reply.
    pub(super) fn admit(&mut self, spec: &CommandSpec, host: &dyn Host) -> Outcome {
        if self.is_authenticated {
            return Ok(());
        }
        let Some(map) = host.map() else {
            // Whether there is a password is not known yet; what tells of other clients, or touches them, must wait.
            let is_about_others = match spec.command {
                Command::Auth | Command::Monitor | Command::SlowLog => true,
                Command::Client => matches!(spec.short_name(), "kill" | "list" | "pause"),
                _ => false,
            };
            return if is_about_others { Err(NO_MAP.to_owned()) } else { Ok(()) };
        };
        let is_open = map.setting(REQUIREPASS).is_empty();
        if !core::mem::replace(&mut self.knows_password, true) {
            self.is_authenticated = is_open;
        }
        if is_open || spec.flags.contains(&"no_auth") {
            Ok(())
        } else {
            Err("NOAUTH Authentication required.".to_owned())
        }
    }

    /// Whether HELLO without AUTH must be refused.
    pub(super) fn needs_password(&self, host: &dyn Host) -> bool {
        !self.is_authenticated && host.map().is_some_and(|map| !map.setting(REQUIREPASS).is_empty())
    }

    /// AUTH, and the part of HELLO.
    pub(super) fn authenticate(&mut self, user: &[u8], password: &[u8], host: &dyn Host) -> Outcome {
        let map = host.map().ok_or(NO_MAP)?;
        let required = map.setting(REQUIREPASS);
        if user != b"default" || !(required.is_empty() || is_same(required.as_bytes(), password)) {
            return Err(WRONG.to_owned());
        }
        self.is_authenticated = true;
        Ok(())
    }

    pub(super) fn auth(&mut self, args: Args<'_>, host: &dyn Host) -> Outcome {
        match args.len() {
            2 if host.map().is_some_and(|map| map.setting(REQUIREPASS).is_empty()) => {
                Err(NO_PASSWORD.to_owned())
            }
            2 => self.authenticate(b"default", args.get(1), host),
            3 => self.authenticate(args.get(1), args.get(2), host),
            _ => Err("ERR syntax error".to_owned()),
        }
    }
}

/// Compares in a time that depends on the lengths alone.
fn is_same(required: &[u8], given: &[u8]) -> bool {
    let differences = required.iter().zip(given.iter().chain(core::iter::repeat(&0)));
    let differs = differences.fold(0, |differs, (a, b)| core::hint::black_box(differs | (a ^ b)));
    differs == 0 && required.len() == given.len()
}

/// ACL: who am I, and who is there. There is one user, and no way to make another.
pub(super) fn acl(spec: &CommandSpec, out: &mut ReplyWriter<'_>) {
    match spec.short_name() {
        "whoami" => out.bulk(b"default"),
        _ => {
            out.array(1);
            out.bulk(b"default");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_the_same_or_not() {
        for (required, given, same) in [
            (&b"secret"[..], &b"secret"[..], true),
            (b"secret", b"secreT", false),
            (b"secret", b"secre", false),
            (b"secret", b"secret\0", false),
            (b"secret", b"", false),
            (b"a\0", b"a", false),
        ] {
            assert_eq!(is_same(required, given), same, "{}", given.escape_ascii());
        }
    }
}
