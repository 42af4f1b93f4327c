//! Simulated clients: they speak RESP, keep some operations under way, and note what came of each.

use crate::check::sequence::Token;
use crate::history::{Answer, Ask, COUNTERS, Key, LISTS, MIXED, Outcome, REGISTERS};
use crate::rng::Rng;
use ringfort_loadgen::linear::Op;
use ringfort_resp::reply::{self, Value};
use std::collections::{BTreeMap, VecDeque};

/// An operation under way.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    pub(crate) ask: Ask,
    pub(crate) invoke: u64,
}

/// Where a client connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    /// A proxy.
    Proxy(usize),
    /// The nodes' own ports.
    Nodes,
}

/// One client.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) via: Via,
    /// Its connection to a proxy, while that lives.
    pub(crate) id: Option<ringfort_proxy::ClientId>,
    /// Under way, oldest first: replies come in this order.
    pub(crate) pending: VecDeque<Pending>,
    /// Received bytes that are no whole reply yet.
    pub(crate) input: Vec<u8>,
    /// Whether it says READONLY, and reads only.
    pub(crate) is_readonly: bool,
    /// Its connections to the nodes, as indices of the network's.
    pub(crate) conns: Vec<usize>,
    /// The one that `pending` is on.
    pub(crate) node: usize,
    /// The node to ask for each partition.
    pub(crate) guess: Vec<usize>,
    /// Names the connection in tokens of lists; changes with each.
    pub(crate) connection: u32,
    /// Tokens sent on it.
    pub(crate) tokens: u32,
    /// The last token sent on it to each list.
    pub(crate) last_tokens: BTreeMap<Key, Token>,
    /// Numbers of commands, to know whether one has timed out.
    pub(crate) asked: u64,
}

impl Client {
    pub(crate) fn new(via: Via) -> Self {
        Self {
            via,
            id: None,
            pending: VecDeque::new(),
            input: Vec::new(),
            is_readonly: false,
            conns: Vec::new(),
            node: 0,
            guess: Vec::new(),
            connection: 0,
            tokens: 0,
            last_tokens: BTreeMap::new(),
            asked: 0,
        }
    }

    /// The next reply in the input.
    pub(crate) fn next_reply(&mut self) -> Result<Option<Value>, String> {
        match reply::parse(&self.input) {
            Ok(Some((value, used))) => {
                self.input.drain(..used);
                Ok(Some(value))
            }
            Ok(None) => Ok(None),
            Err(e) => Err(format!("a client got no RESP: {e}")),
        }
    }
}

/// What numbers a workload has used.
#[derive(Debug, Default)]
pub(crate) struct Workload {
    values: u64,
    ephemerals: u64,
    /// Whether a quarter of the operations go to mixed keys.
    is_mixed: bool,
    /// The values drawn last for mixed keys: what a compare-and-set expects.
    hints: [u64; MIXED as usize],
}

/// Values of mixed keys are so far apart that a few INCRs of one never give another.
const MIXED_STEP: u64 = 1_000;

impl Workload {
    /// The workload of a seed. Some have mixed keys; none of the listed regressions.
    pub(crate) fn of(seed: u64) -> Self {
        Self { is_mixed: matches!(seed % 5, 0 | 2), ..Self::default() }
    }

    /// The keys that take every command, if any.
    pub(crate) fn mixed_keys(&self) -> impl Iterator<Item = Key> + use<> {
        (0..if self.is_mixed { MIXED } else { 0 }).map(Key::Mixed)
    }

    fn draw_mixed(&mut self, rng: &mut Rng) -> Ask {
        let n = rng.below(MIXED);
        let hint = self.hints[n as usize];
        let text = |value: u64| value.to_string().into_bytes();
        // Mostly what the key may hold now, or after a few INCRs.
        let expected = text(if rng.one_in(8) { MIXED_STEP } else { hint + rng.below(3) });
        let mut value = || {
            self.values += 1;
            self.hints[n as usize] = self.values * MIXED_STEP;
            text(self.values * MIXED_STEP)
        };
        let op = match rng.below(100) {
            0..26 => Op::Get,
            26..34 => Op::Set(value()),
            34..42 => Op::SetNx(value()),
            42..58 => Op::SetIfEq { expected, value: value() },
            58..64 => Op::GetSet(value()),
            64..68 => Op::GetDel,
            68..74 => Op::Del,
            74..80 => Op::DelIfEq(expected),
            80..95 => Op::Incr,
            // A digit keeps a number a number, a letter ends that.
            95..98 => Op::Append(text(rng.below(10))),
            _ => Op::Append(b"x".to_vec()),
        };
        Ask::Mixed(Key::Mixed(n), op)
    }

    fn value(&mut self) -> u64 {
        self.values += 1;
        self.values
    }

    /// The next operation of a client, where memory is short: half of them write a new key.
    pub(crate) fn draw_large(&mut self, rng: &mut Rng, client: &mut Client) -> Ask {
        if rng.one_in(2) || client.is_readonly {
            return self.draw(rng, client);
        }
        self.ephemerals += 1;
        Ask::SetExpiring(Key::Ephemeral(self.ephemerals), rng.range(1_000, 60_000))
    }

    /// The next operation of a client.
    pub(crate) fn draw(&mut self, rng: &mut Rng, client: &mut Client) -> Ask {
        if self.is_mixed && !client.is_readonly && rng.one_in(4) {
            return self.draw_mixed(rng);
        }
        let register = |rng: &mut Rng| Key::Register(rng.below(REGISTERS));
        if client.is_readonly {
            return Ask::Get(match rng.below(3) {
                0 => register(rng),
                1 => Key::Counter(rng.below(COUNTERS)),
                _ => Key::List(rng.below(LISTS)),
            });
        }
        let is_proxy = client.via != Via::Nodes;
        match rng.below(100) {
            0..24 => Ask::Get(register(rng)),
            24..42 => Ask::Set(register(rng), self.value()),
            42..56 => Ask::Incr(Key::Counter(rng.below(COUNTERS))),
            56..60 => Ask::Get(Key::Counter(rng.below(COUNTERS))),
            60..74 => {
                client.tokens += 1;
                let (key, token) = (Key::List(rng.below(LISTS)), (client.connection, client.tokens));
                client.last_tokens.insert(key, token);
                Ask::Append(key, token)
            }
            74..80 => {
                let key = Key::List(rng.below(LISTS));
                Ask::GetOwn(key, client.last_tokens.get(&key).copied())
            }
            80..83 => {
                self.ephemerals += 1;
                Ask::SetExpiring(Key::Ephemeral(self.ephemerals), rng.range(1, 3_000))
            }
            83..90 => {
                // One of the last few.
                let n = self.ephemerals.saturating_sub(rng.below(4)).max(1);
                Ask::Get(Key::Ephemeral(n))
            }
            90..95 if is_proxy => {
                let first = rng.below(REGISTERS);
                Ask::MGet((0..3).map(|i| Key::Register((first + i) % REGISTERS)).collect())
            }
            95..100 if is_proxy => {
                let first = rng.below(REGISTERS);
                Ask::MSet((0..2).map(|i| (Key::Register((first + i) % REGISTERS), self.value())).collect())
            }
            _ => Ask::Get(register(rng)),
        }
    }

    /// A value that nobody has written.
    pub(crate) fn fresh(&mut self) -> u64 {
        self.value()
    }
}

/// Appends a command in RESP.
pub(crate) fn encode(ask: &Ask, is_hot: bool) -> Vec<u8> {
    let args = ask.args(is_hot);
    let mut out = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        out.extend_from_slice(format!("${}\r\n{arg}\r\n", arg.len()).as_bytes());
    }
    out
}

/// What a reply says.
pub(crate) fn judge(reply: &Value) -> Result<Outcome, String> {
    if let Some(error) = reply.as_error() {
        let is_failed = ["CLUSTERDOWN", "MOVED", "TRYAGAIN", "LOADING", "MISCONF", "OOM"]
            .iter()
            .any(|e| error.starts_with(e));
        return match () {
            () if is_failed => Ok(Outcome::Failed),
            // The proxy asks for no reply that it has had, and its session executes in order, without a gap.
            () if error.contains("no longer kept") => Err(format!(
                "exactly once (design 6): a write's reply was forgotten before its client had it: {error:?}"
            )),
            () if error.contains("outcome unknown") => Ok(Outcome::Unknown),
            () if error.starts_with("ERR value is not an integer") => Ok(Outcome::Done(Answer::NotInteger)),
            () => Err(format!("a client got the error {error:?}")),
        };
    }
    let value = |v: &Value| v.as_bytes().map(<[u8]>::to_vec);
    Ok(Outcome::Done(match reply {
        Value::Simple(_) => Answer::Ok,
        Value::Integer(n) => Answer::Integer(*n),
        other => match other.elements() {
            Some(elements) => Answer::Values(elements.iter().map(value).collect()),
            None => Answer::Values(vec![value(other)]),
        },
    }))
}

/// The node that a redirection names.
pub(crate) fn moved_to(error: &str) -> Option<usize> {
    let port: usize = error.strip_prefix("MOVED ")?.rsplit(':').next()?.parse().ok()?;
    port.checked_sub(7001)
}
