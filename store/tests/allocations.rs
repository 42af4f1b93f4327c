//! How often commands ask the allocator: never for what is there, rarely for what is new.

use allocation_counter::measure;
use ringfort_resp::{Command, Protocol, ReplyWriter};
use ringfort_store::{ApplyContext, MemoryLimit, Policy, Store};

const CONTEXT: ApplyContext = ApplyContext { log_time_ms: 1_700_000_000_000, seed: 0 };
const KEYS: usize = 20_000;

struct Client {
    store: Store,
    reply: Vec<u8>,
}

impl Client {
    /// A client of a store with some keys.
    fn new(limit: MemoryLimit) -> Self {
        let mut store = Store::new(0, 16_383);
        store.set_limit(limit);
        let mut client = Self { store, reply: Vec::with_capacity(100) };
        (0..KEYS).for_each(|i| client.set(&key(i)));
        client
    }

    fn set(&mut self, key: &[u8]) {
        self.apply(Command::Set, &[key, &[b'v'; 32]]);
        assert_eq!(self.reply, b"+OK\r\n");
    }

    fn apply(&mut self, command: Command, args: &[&[u8]]) {
        self.reply.clear();
        let reply = &mut ReplyWriter::new(&mut self.reply, Protocol::Resp2);
        self.store.apply(&CONTEXT, command, args, reply);
    }

    fn get(&mut self, key: &[u8]) {
        self.reply.clear();
        let reply = &mut ReplyWriter::new(&mut self.reply, Protocol::Resp2);
        self.store.read(CONTEXT.log_time_ms, Command::Get, &[key], reply, &mut Vec::new());
        assert!(self.reply.starts_with(b"$32\r\n"));
    }
}

/// 16 bytes; all have one of 64 hash tags, so that slots have hundreds of keys.
fn key(i: usize) -> [u8; 16] {
    let mut key = *b"{00}000000000000";
    let mut put = |at: usize, len: usize, mut rest: usize| {
        for byte in key[at..at + len].iter_mut().rev() {
            *byte = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
    };
    put(1, 2, i % 64);
    put(4, 12, i);
    key
}

fn limits() -> [MemoryLimit; 2] {
    let evicting = MemoryLimit { quota_bytes: 1 << 40, policy: Policy::AllKeysLru, ..MemoryLimit::default() };
    [MemoryLimit::default(), evicting]
}

#[test]
fn reading_and_overwriting_allocate_nothing() {
    for limit in limits() {
        let mut client = Client::new(limit);
        let keys: Vec<_> = (0..KEYS).map(key).collect();
        let gets = measure(|| keys.iter().for_each(|key| client.get(key)));
        assert_eq!(gets.count_total, 0);
        let sets = measure(|| keys.iter().for_each(|key| client.set(key)));
        assert_eq!(sets.count_total, 0);
    }
}

#[test]
fn new_keys_allocate_only_for_the_growth_of_lists() {
    for limit in limits() {
        let mut client = Client::new(limit);
        let keys: Vec<_> = (KEYS..2 * KEYS).map(key).collect();
        let inserts = measure(|| keys.iter().for_each(|key| client.set(key)));
        assert!(inserts.count_total < KEYS as u64 / 100, "{} for {KEYS} keys", inserts.count_total);
    }
}
