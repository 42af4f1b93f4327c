//! An append-list: APPEND of tokens that are each sent once, GET.

use super::history::{Outcome, Phase, Tally, Time};

/// Bytes of one token: five hexadecimal digits of the object, three of the token, `;`.
pub(super) const TOKEN_BYTES: usize = 9;
/// Tokens a list takes before a fresh key replaces it: keeps its value below 10 KB, so that reading it is cheap.
pub(super) const TOKENS_MAX: usize = 1024;

/// The history of one append-list.
///
/// Every read must hold each token at most once (else **duplicated**), hold every token acknowledged before the read
/// was invoked (else **stale**; at the last read: **lost**), keep the real-time order of appends and each client's own
/// order (else **stale**: an append worked on an old state), and extend what earlier reads showed (else **lost**). An
/// APPEND's reply is the length after it, which says where its token must stand.
#[derive(Debug)]
pub(super) struct List {
    object: u32,
    tokens: Vec<Token>,
    failed: usize,
    acknowledged: usize,
    /// The longest sequence of tokens that a read showed.
    shown: Vec<u16>,
    missing_at_end: u64,
    forked: u64,
    stale: u64,
    repeated: u64,
    excess: u64,
}

#[derive(Debug)]
struct Token {
    client: u16,
    batch: u64,
    invoked: Time,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Pending or unknown: may be there or not.
    Open,
    Failed,
    Acknowledged {
        at: Time,
        end_bytes: u64,
    },
}

impl List {
    pub(super) fn new(object: u32) -> Self {
        Self {
            object,
            tokens: Vec::new(),
            failed: 0,
            acknowledged: 0,
            shown: Vec::new(),
            missing_at_end: 0,
            forked: 0,
            stale: 0,
            repeated: 0,
            excess: 0,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.tokens.len() >= TOKENS_MAX
    }

    pub(super) fn begin_write(&mut self, client: u16, batch: u64, now: Time) -> u32 {
        self.tokens.push(Token { client, batch, invoked: now, state: State::Open });
        self.tokens.len() as u32 - 1
    }

    /// `floor` is what [`Self::write_floor`] said when the APPEND was invoked.
    pub(super) fn end_write(
        &mut self,
        number: u32,
        floor: u64,
        outcome: &Outcome<'_>,
        now: Time,
    ) -> Option<String> {
        let token = &mut self.tokens[number as usize];
        match outcome {
            Outcome::Unknown => return None,
            Outcome::Failed => {
                token.state = State::Failed;
                self.failed += 1;
                return None;
            }
            Outcome::Done(reply) => {
                let end_bytes = reply.integer().unwrap_or(0);
                token.state = State::Acknowledged { at: now, end_bytes };
                self.acknowledged += 1;
                let least = floor + TOKEN_BYTES as u64;
                let most = ((self.tokens.len() - self.failed) * TOKEN_BYTES) as u64;
                if end_bytes < least {
                    self.forked += 1;
                    return Some(format!("an APPEND returned length {end_bytes}, {least} or more was due"));
                }
                if end_bytes > most {
                    self.excess = self.excess.max((end_bytes - most).div_ceil(TOKEN_BYTES as u64));
                    return Some(format!(
                        "an APPEND returned length {end_bytes}, only {most} bytes were sent"
                    ));
                }
            }
        }
        None
    }

    /// Bytes that an APPEND invoked now must find there already.
    pub(super) fn write_floor(&self) -> u64 {
        (self.acknowledged.max(self.shown.len()) * TOKEN_BYTES) as u64
    }

    /// Tokens that a read invoked now must show at least.
    pub(super) fn read_floor(&self) -> u64 {
        self.shown.len() as u64
    }

    /// Whether a read of `bytes` shows that something acknowledged or seen before is gone.
    pub(super) fn lacks_something(&self, bytes: &[u8], floor: u64, batch: u64, invoked: Time) -> bool {
        match self.decode(bytes) {
            Ok(order) => {
                (order.len() as u64) < floor
                    || self.missing(&order, batch, invoked) > 0
                    || !is_prefix(&order, &self.shown)
            }
            Err(_) => true,
        }
    }

    pub(super) fn end_read(
        &mut self,
        bytes: &[u8],
        (floor, batch, invoked): (u64, u64, Time),
        phase: Phase,
    ) -> Option<String> {
        let order = match self.decode(bytes) {
            Ok(order) => order,
            Err(text) => {
                self.forked += 1;
                return Some(text);
            }
        };
        if let Some(complaint) = self.judge_repeats(&order) {
            return Some(complaint);
        }
        let missing = self.missing(&order, batch, invoked);
        if missing > 0 {
            match phase {
                Phase::Run => self.stale += 1,
                Phase::Final => self.missing_at_end = missing,
            }
            return Some(format!(
                "{missing} acknowledged appends are not in the {} tokens read",
                order.len()
            ));
        }
        let is_extension = is_prefix(&order, &self.shown);
        let is_shorter = (order.len() as u64) < floor;
        if order.len() > self.shown.len() || !is_extension {
            self.shown.clone_from(&order);
        }
        if !is_extension {
            self.forked += 1;
            return Some("no longer begins with the tokens that an earlier read showed".to_owned());
        }
        if is_shorter {
            self.stale += 1;
            return Some(format!("{} tokens were read after {floor} had been shown", order.len()));
        }
        self.judge_order(&order)
    }

    pub(super) fn tally(&self) -> Tally {
        Tally {
            lost: self.missing_at_end.max(self.forked),
            stale: self.stale,
            duplicated: self.repeated.max(self.excess),
        }
    }

    /// Bytes -> token numbers.
    fn decode(&self, bytes: &[u8]) -> Result<Vec<u16>, String> {
        let mut order = Vec::with_capacity(bytes.len() / TOKEN_BYTES);
        for chunk in bytes.chunks(TOKEN_BYTES) {
            let number = decode_token(chunk)
                .filter(|&(object, n)| object == self.object && usize::from(n) < self.tokens.len());
            match number {
                Some((_, n)) => order.push(n),
                None => {
                    return Err(format!("holds {:?}, which nobody appended", String::from_utf8_lossy(chunk)));
                }
            }
        }
        Ok(order)
    }

    fn judge_repeats(&mut self, order: &[u16]) -> Option<String> {
        let mut times = vec![0_u32; self.tokens.len()];
        let (mut repeated, mut refused) = (0, 0);
        for &n in order {
            times[usize::from(n)] += 1;
            repeated += u64::from(times[usize::from(n)] > 1);
            refused += u64::from(self.tokens[usize::from(n)].state == State::Failed);
        }
        self.repeated = self.repeated.max(repeated + refused);
        if repeated > 0 {
            return Some(format!("{repeated} appends are there more than once"));
        }
        (refused > 0)
            .then(|| format!("{refused} appends took effect although they were answered as not done"))
    }

    /// Tokens not in `order` that were acknowledged before `invoked`, or earlier in the read's own batch.
    fn missing(&self, order: &[u16], batch: u64, invoked: Time) -> u64 {
        let mut is_there = vec![false; self.tokens.len()];
        for &n in order {
            is_there[usize::from(n)] = true;
        }
        let is_due = |token: &Token| match token.state {
            State::Acknowledged { at, .. } => at < invoked || token.batch == batch,
            State::Open | State::Failed => false,
        };
        self.tokens.iter().zip(is_there).filter(|(token, there)| !there && is_due(token)).count() as u64
    }

    fn judge_order(&mut self, order: &[u16]) -> Option<String> {
        let mut latest_invoked = 0;
        let mut last_of_client = std::collections::BTreeMap::new();
        for (position, &n) in order.iter().enumerate() {
            let token = &self.tokens[usize::from(n)];
            let last = last_of_client.entry(token.client).or_insert(n);
            let is_overtaken = match token.state {
                State::Acknowledged { at, end_bytes } => {
                    at < latest_invoked || n < *last || end_bytes != ((position + 1) * TOKEN_BYTES) as u64
                }
                State::Open | State::Failed => false,
            };
            *last = n.max(*last);
            latest_invoked = latest_invoked.max(token.invoked);
            if is_overtaken {
                self.stale += 1;
                return Some(format!(
                    "append {n} stands at place {position}, which its reply or its time excludes"
                ));
            }
        }
        None
    }
}

/// Writes the text of token `number` of `object`.
pub(super) fn encode_token(object: u32, number: u32) -> String {
    format!("{object:05x}{number:03x};")
}

fn decode_token(chunk: &[u8]) -> Option<(u32, u16)> {
    if chunk.len() != TOKEN_BYTES || chunk[TOKEN_BYTES - 1] != b';' {
        return None;
    }
    let object = u32::from_str_radix(std::str::from_utf8(&chunk[..5]).ok()?, 16).ok()?;
    let number = u16::from_str_radix(std::str::from_utf8(&chunk[5..8]).ok()?, 16).ok()?;
    Some((object, number))
}

/// Whether one of the two begins with the other.
fn is_prefix(a: &[u16], b: &[u16]) -> bool {
    a.iter().zip(b).all(|(x, y)| x == y)
}
