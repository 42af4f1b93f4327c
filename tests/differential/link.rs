//! One connection: its commands, their replies from both sides, and the comparison.

use crate::client::{Client, encode, moved_to};
use crate::cluster::Cluster;
use crate::generator::{Generator, Words, is_equal, shown};
use crate::{Target, connection};
use ringfort_resp::commands;
use ringfort_ring::slot_of;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// Slots that one connection uses.
const TAGS: u64 = 4;
/// Commands on the same keys that a failure shows.
const CONTEXT: usize = 12;
/// Commands that are remembered for it.
const HISTORY_MAX: usize = 4000;
/// How far the time left may differ, seconds: the machine may be busy.
const TTL_SLACK_S: i64 = 20;
/// How often a command is sent after a MOVED.
const MOVES_MAX: usize = 1000;

/// The cluster had no leader, or changed it: this reply says nothing.
#[derive(Debug)]
pub(crate) struct Disturbed(pub(crate) String);

/// Replies in the order of the commands.
type Replies = Vec<Vec<u8>>;

/// What a pipeline was.
#[derive(Default)]
pub(crate) struct Counted {
    pub(crate) replies: u64,
    pub(crate) errors: u64,
    pub(crate) names: BTreeSet<&'static str>,
}

pub(crate) struct Link {
    pub(crate) generator: Generator,
    target: Target,
    number: u64,
    seed: u64,
    protocol: &'static str,
    reference: Client,
    ours: Ours,
    history: Vec<Words>,
}

impl Link {
    pub(crate) fn new(target: Target, seed: u64, number: u64, cluster: &Cluster, redis: SocketAddr) -> Self {
        let tags = (0..TAGS).map(|tag| format!("{{{number}.{tag}}}")).collect();
        let addresses: Vec<_> = match target {
            Target::Proxy => vec![cluster.proxy_address],
            Target::Nodes => cluster.addresses.iter().map(|a| a.client).collect(),
        };
        let mut ours = Ours::connect(addresses);
        let mut reference = Client::connect(redis);
        let protocol = if number.is_multiple_of(2) { "2" } else { "3" };
        for client in ours.clients.iter_mut().chain([&mut reference]) {
            client.value(&format!("HELLO {protocol}"));
        }
        let generator = Generator::among_others(seed ^ number << 56, tags);
        Self { generator, target, number, seed, protocol, reference, ours, history: Vec::new() }
    }

    pub(crate) fn tags(&self) -> Vec<String> {
        self.generator.tags().to_vec()
    }

    /// Sends a pipeline of random length to both and compares.
    pub(crate) fn pipeline(&mut self) -> Result<Counted, Disturbed> {
        let len = self.generator.one_of(&[1, 1, 3, 10, 30, 100]);
        let mut all = Vec::new();
        while all.len() < len {
            all.extend(match self.generator.random(12) {
                0 => connection::step(&mut self.generator, self.target, self.protocol),
                _ => self.generator.step(),
            });
        }
        let (ours, theirs) = self.run(&all)?;
        let mut counted = Counted::default();
        for ((words, a), b) in all.iter().zip(&ours).zip(&theirs) {
            if !connection::is_incomparable(words, b) {
                let is_same = is_equal(words, a, b, TTL_SLACK_S) || is_explained(words, a, b);
                self.assert_equal(words, is_same, a, b);
            }
            counted.replies += 1;
            counted.errors += u64::from(b.starts_with(b"-"));
            counted.names.extend(commands::lookup(&words[0]).map(|spec| spec.name));
            self.history.push(words.clone());
        }
        if HISTORY_MAX < self.history.len() {
            self.history.drain(..HISTORY_MAX / 2);
        }
        Ok(counted)
    }

    /// The replies of both sides to a pipeline.
    pub(crate) fn run(&mut self, all: &[Words]) -> Result<(Replies, Replies), Disturbed> {
        let refs: Vec<&Words> = all.iter().collect();
        send(&mut self.reference, &refs);
        let ours = self.ours.run(all);
        let theirs = all.iter().map(|words| reply(&mut self.reference, words)).collect();
        let is_disturbed = |reply: &&Vec<u8>| {
            let starts = [&b"-ERR outcome unknown"[..], b"-CLUSTERDOWN", b"-TRYAGAIN", b"-MOVED"];
            starts.iter().any(|start| reply.starts_with(start))
        };
        match ours.iter().find(is_disturbed) {
            Some(reply) => Err(Disturbed(reply.escape_ascii().to_string())),
            None => Ok((ours, theirs)),
        }
    }

    /// The replies of all doors, and of Redis, to one command on all keys.
    pub(crate) fn everywhere(&mut self, words: &Words) -> (Vec<Vec<u8>>, Vec<u8>) {
        let ours = self.ours.clients.iter_mut().map(|client| ask(client, words)).collect();
        (ours, ask(&mut self.reference, words))
    }

    /// The connections to our doors, and the one to Redis at the end.
    pub(crate) fn doors(&mut self) -> impl Iterator<Item = &mut Client> {
        self.ours.clients.iter_mut().chain([&mut self.reference])
    }

    pub(crate) fn forget(&mut self) {
        self.history.clear();
    }

    /// Ends the test with what is needed to understand a difference.
    pub(crate) fn assert_equal(&self, words: &Words, is_equal: bool, ours: &[u8], theirs: &[u8]) {
        if is_equal {
            return;
        }
        let keys: Vec<_> = words[1..].iter().filter(|word| is_key(word)).collect();
        let related = self.history.iter().rev().filter(|old| old.iter().any(|word| keys.contains(&word)));
        let context: Vec<_> = related.take(CONTEXT).map(shown).collect();
        let context: String = context.iter().rev().map(|line| format!("  {line}\n")).collect();
        panic!(
            "SEED={} {:?} connection {} RESP{}: the last commands on the keys:\n{context}{}\n ours: {}\nredis: {}",
            self.seed,
            self.target,
            self.number,
            self.protocol,
            shown(words),
            ours.escape_ascii(),
            theirs.escape_ascii()
        );
    }
}

/// Differences of whole replies that [`EXPLAINED`](crate::EXPLAINED) lists.
fn is_explained(words: &Words, ours: &[u8], theirs: &[u8]) -> bool {
    match words[0].to_ascii_lowercase().as_slice() {
        b"mset" | b"msetnx" => ours.starts_with(b"-ERR wrong number") && theirs.starts_with(b"-CROSSSLOT"),
        _ => false,
    }
}

fn is_key(word: &[u8]) -> bool {
    word.starts_with(b"{") && word.windows(4).any(|part| part == b"key:")
}

/// The doors of the cluster: one proxy, or the nodes.
struct Ours {
    clients: Vec<Client>,
    addresses: Vec<SocketAddr>,
    /// The node of each slot, learnt from MOVED.
    leaders: BTreeMap<u16, usize>,
}

impl Ours {
    fn connect(addresses: Vec<SocketAddr>) -> Self {
        let clients = addresses.iter().map(|address| Client::connect(*address)).collect();
        Self { clients, addresses, leaders: BTreeMap::new() }
    }

    /// Sends a pipeline and follows MOVED, keeping the order of the commands of each slot.
    fn run(&mut self, all: &[Words]) -> Vec<Vec<u8>> {
        let slots: Vec<_> = all.iter().map(slot).collect();
        let mut replies = vec![Vec::new(); all.len()];
        let mut open: Vec<usize> = (0..all.len()).collect();
        for _ in 0..MOVES_MAX {
            let door = |i: &usize| slots[*i].and_then(|slot| self.leaders.get(&slot)).copied().unwrap_or(0);
            let doors: Vec<usize> = open.iter().map(door).collect();
            for (n, client) in self.clients.iter_mut().enumerate() {
                let own = open.iter().zip(&doors).filter(|(_, door)| **door == n);
                let words: Vec<_> = own.map(|(i, _)| &all[*i]).collect();
                send(client, &words);
            }
            for (i, door) in open.iter().zip(doors) {
                replies[*i] = reply(&mut self.clients[door], &all[*i]);
            }
            open.retain(|i| replies[*i].starts_with(b"-MOVED"));
            for i in &open {
                let to = moved_to(&String::from_utf8_lossy(&replies[*i]));
                let node = self.addresses.iter().position(|address| Some(*address) == to);
                if let (Some(slot), Some(node)) = (slots[*i], node) {
                    self.leaders.insert(slot, node);
                }
            }
            if open.is_empty() {
                break;
            }
        }
        replies
    }
}

/// The slot of a command's first key.
fn slot(words: &Words) -> Option<u16> {
    let spec = commands::lookup(&words[0])?;
    let spec = spec.judge(words[1..].iter().map(|word| &word[..])).ok()?;
    let key = spec.keys(words.len()).next()?;
    Some(slot_of(&words[key]).0)
}

fn send(client: &mut Client, all: &[&Words]) {
    let mut bytes = Vec::new();
    for words in all {
        bytes.extend(encode(&words.iter().map(|word| &word[..]).collect::<Vec<_>>()));
    }
    client.send(&bytes).expect("the pipeline is sent");
}

fn reply(client: &mut Client, words: &Words) -> Vec<u8> {
    client.try_reply().unwrap_or_else(|error| panic!("{}: no reply: {error}", shown(words)))
}

pub(crate) fn ask(client: &mut Client, words: &Words) -> Vec<u8> {
    send(client, &[words]);
    reply(client, words)
}
