//! The stores of a node, as benches and `examples/figures.rs` measure them. Keys have 16 bytes, values 32.

use std::hint::black_box;

use ringfort_resp::{Command, Protocol, ReplyWriter};
use ringfort_ring::{SLOTS, slot_of};
use ringfort_store::{ApplyContext, Reach, Store};

pub(crate) const VALUE: [u8; 32] = [b'v'; 32];
pub(crate) const CONTEXT: ApplyContext = ApplyContext { log_time_ms: 1_700_000_000_000, seed: 0 };

/// Stores that divide all slots evenly.
pub(crate) struct Node {
    pub(crate) stores: Vec<Store>,
    width: u16,
    reply: Vec<u8>,
}

impl Node {
    pub(crate) fn new(stores: u16) -> Self {
        let width = SLOTS / stores;
        let stores = (0..stores).map(|i| Store::new(i * width, i * width + (width - 1))).collect();
        Self { stores, width, reply: Vec::new() }
    }

    /// The store of a key.
    pub(crate) fn store_of(&self, key: &[u8]) -> usize {
        usize::from(slot_of(key).0 / self.width)
    }

    /// Executes a write; its first argument is a key.
    pub(crate) fn apply(&mut self, command: Command, args: &[&[u8]]) {
        let store = self.store_of(args[0]);
        self.reply.clear();
        let reply = &mut ReplyWriter::new(&mut self.reply, Protocol::Resp2);
        self.stores[store].apply(&CONTEXT, command, args, reply);
        black_box(&self.reply);
    }

    pub(crate) fn get(&mut self, key: &[u8]) {
        let store = &self.stores[self.store_of(key)];
        self.reply.clear();
        let mut reply = ReplyWriter::new(&mut self.reply, Protocol::Resp2);
        store.read(CONTEXT.log_time_ms, Command::Get, &[key], &mut reply, &mut Vec::new());
        black_box(&self.reply);
    }
}

/// Has the processor fetch what GETs of these keys of one store will look at.
pub(crate) fn prefetch(store: &Store, keys: &[[u8; 16]]) {
    let spots = || keys.iter().filter_map(|key| store.spot(key));
    for reach in Reach::ALL {
        spots().for_each(|spot| store.prefetch(spot, reach));
    }
}

/// The key of a number.
pub(crate) fn key(n: usize) -> [u8; 16] {
    let mut key = *b"key:000000000000";
    let mut rest = n;
    for byte in key[4..].iter_mut().rev() {
        *byte = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key
}

/// The i-th number below `n` in an order that jumps about.
pub(crate) fn scattered(i: usize, n: usize) -> usize {
    (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11) % n
}
