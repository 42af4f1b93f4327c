//! CLIENT LIST, KILL and PAUSE: what concerns other connections of the process.

use super::connection::{Connection, Outcome, integer, text};
use super::{Args, NAMES_MAX};
use crate::clients::{Kind, Record};
use ringfort_resp::ReplyWriter;

const SYNTAX: &str = "ERR syntax error";

impl Connection {
    /// `CLIENT LIST [TYPE kind] [ID id ...]`
    pub(super) fn list(&self, args: Args<'_>, out: &mut ReplyWriter<'_>) -> Outcome {
        let option = args.iter().nth(2).unwrap_or_default();
        let is_of_kind = option.eq_ignore_ascii_case(b"type") && args.len() == 4;
        let is_of_ids = option.eq_ignore_ascii_case(b"id") && args.len() > 3;
        let records = if args.len() == 2 {
            self.clients.all().records()
        } else if is_of_kind {
            match Kind::parse(args.get(3))? {
                Kind::Normal => self.clients.all().records(),
                Kind::Absent => Vec::new(),
            }
        } else if is_of_ids && args.len() - 3 > NAMES_MAX {
            return Err(format!("ERR at most {NAMES_MAX} ids at once"));
        } else if is_of_ids {
            let ids: Option<Vec<i64>> = args.iter().skip(3).map(integer).collect();
            let ids = ids.ok_or("ERR Invalid client ID")?;
            ids.into_iter().filter_map(|id| self.clients.all().record(id.cast_unsigned())).collect()
        } else {
            return Err(SYNTAX.to_owned());
        };
        let mut lines = String::new();
        records.iter().for_each(|record| record.write_line(self.clients.now_us(), &mut lines));
        text(out, &lines);
        Ok(())
    }

    /// `CLIENT KILL addr`, or `CLIENT KILL filter value ...`
    pub(super) fn kill(&self, args: Args<'_>, out: &mut ReplyWriter<'_>) -> Outcome {
        let is_old = args.len() == 3;
        let filter = if is_old {
            KillFilter { addr: Some(args.get(2)), skips_me: false, ..KillFilter::default() }
        } else {
            KillFilter::parse(args)?
        };
        let now_us = self.clients.now_us();
        let killed: Vec<_> = self
            .clients
            .all()
            .records()
            .into_iter()
            .filter(|record| filter.matches(record, self.id(), now_us))
            .collect();
        killed.iter().for_each(|record| self.clients.all().kill(record));
        match killed.len() {
            0 if is_old => return Err("ERR No such client".to_owned()),
            _ if is_old => out.ok(),
            count => out.integer(count as i64),
        }
        Ok(())
    }

    /// `CLIENT PAUSE ms [WRITE | ALL]`
    pub(super) fn pause(&self, args: Args<'_>, out: &mut ReplyWriter<'_>) -> Outcome {
        let is_all = match args.iter().nth(3) {
            None => true,
            Some(mode) if mode.eq_ignore_ascii_case(b"all") => true,
            Some(mode) if mode.eq_ignore_ascii_case(b"write") => false,
            Some(_) => return Err("ERR CLIENT PAUSE mode must be WRITE or ALL".to_owned()),
        };
        let ms = integer(args.get(2)).ok_or("ERR timeout is not an integer or out of range")?;
        let ms = u64::try_from(ms).map_err(|_| "ERR timeout is negative")?;
        let now_us = self.clients.now_us();
        self.clients.all().pause().begin(now_us, now_us.saturating_add(ms.saturating_mul(1000)), is_all);
        out.ok();
        Ok(())
    }
}

/// Which connections CLIENT KILL ends: those that fit all that is given.
#[derive(Debug)]
struct KillFilter<'a> {
    id: Option<u64>,
    addr: Option<&'a [u8]>,
    laddr: Option<&'a [u8]>,
    kind: Option<Kind>,
    /// Least age, s.
    max_age_s: Option<u64>,
    skips_me: bool,
}

impl Default for KillFilter<'_> {
    fn default() -> Self {
        Self { id: None, addr: None, laddr: None, kind: None, max_age_s: None, skips_me: true }
    }
}

impl<'a> KillFilter<'a> {
    fn parse(args: Args<'a>) -> Result<Self, String> {
        let mut filter = Self::default();
        let mut i = 2;
        while i < args.len() {
            let option = args.get(i);
            let is = |name: &str| option.eq_ignore_ascii_case(name.as_bytes());
            if i + 1 == args.len() {
                return Err(SYNTAX.to_owned());
            }
            let value = args.get(i + 1);
            if is("id") {
                let id = integer(value).and_then(|id| u64::try_from(id).ok()).filter(|&id| id > 0);
                filter.id = Some(id.ok_or("ERR client-id should be greater than 0")?);
            } else if is("type") {
                filter.kind = Some(Kind::parse(value)?);
            } else if is("addr") {
                filter.addr = Some(value);
            } else if is("laddr") {
                filter.laddr = Some(value);
            } else if is("user") {
                if value != b"default" {
                    return Err(format!("ERR No such user '{}'", String::from_utf8_lossy(value)));
                }
            } else if is("maxage") {
                let age = integer(value).and_then(|age| u64::try_from(age).ok()).filter(|&age| age > 0);
                filter.max_age_s = Some(age.ok_or("ERR maxage is not an integer or out of range")?);
            } else if is("skipme") && value.eq_ignore_ascii_case(b"yes") {
                filter.skips_me = true;
            } else if is("skipme") && value.eq_ignore_ascii_case(b"no") {
                filter.skips_me = false;
            } else {
                return Err(SYNTAX.to_owned());
            }
            i += 2;
        }
        Ok(filter)
    }

    fn matches(&self, record: &Record, me: u64, now_us: u64) -> bool {
        let Self { id, addr, laddr, kind, max_age_s, skips_me } = self;
        id.is_none_or(|id| record.id == id)
            && addr.is_none_or(|addr| record.address.peer.as_bytes() == addr)
            && laddr.is_none_or(|laddr| record.address.local.as_bytes() == laddr)
            && kind.is_none_or(|kind| kind == Kind::Normal)
            && max_age_s.is_none_or(|age| record.age_s(now_us) >= age)
            && !(*skips_me && record.id == me)
    }
}
