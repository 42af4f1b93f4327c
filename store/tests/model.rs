//! Random operations against a model in a `BTreeMap`, with snapshots taken and restored in between.
//!
//! Two stores get the same operations; only one of them takes snapshots. After every step both must hold what the model
//! holds, have equal digests and satisfy their invariants, and the snapshot must restore to the state at its beginning.

use std::{collections::BTreeMap, sync::LazyLock};

use proptest::prelude::*;
use ringfort_resp::{Command, Protocol, ReplyWriter};
use ringfort_ring::slot_of;
use ringfort_store::{ApplyContext, Store};

const FIRST: u16 = 4096;
const LAST: u16 = 4159;
const KEYS_LEN: usize = 24;
const START_MS: u64 = 1_700_000_000_000;

/// Keys of the partition; a third of them share one slot.
static KEYS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let own = |key: &String| (FIRST..=LAST).contains(&slot_of(key.as_bytes()).0);
    let tag = (0..).map(|n| format!("{{{n}}}")).find(own).expect("one tag in 256 is ours");
    let tagged = (0..KEYS_LEN / 3).map(|n| format!("{tag}{n}"));
    let plain = (0..).map(|n| format!("key:{n}")).filter(own).take(KEYS_LEN - KEYS_LEN / 3);
    tagged.chain(plain).map(String::into_bytes).collect()
});

#[derive(Debug, Clone)]
enum Op {
    Set { key: usize, value: Vec<u8>, left_ms: Option<u64>, keep: bool },
    SetIfEq { key: usize, value: Vec<u8>, is_equal: bool, is_get: bool },
    DelIfEq { key: usize, is_equal: bool },
    Append { key: usize, value: Vec<u8> },
    IncrBy { key: usize, by: i64 },
    MSet { keys: Vec<usize>, value: Vec<u8> },
    Del { keys: Vec<usize> },
    Expire { key: usize, left_ms: i64 },
    Persist { key: usize },
    Get { key: usize },
    FlushAll,
    Pass { ms: u64 },
    ExpireDue { max: usize },
    Reclaim { max: usize },
    SnapshotBegin,
    SnapshotNext { bytes: usize },
    SnapshotAbort,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let key = 0..KEYS_LEN;
    let keys = || prop::collection::vec(0..KEYS_LEN, 1..6);
    let value = || prop::collection::vec(any::<u8>(), 0..40);
    let op = prop_oneof![
        8 => (key.clone(), value(), prop::option::of(0_u64..60), any::<bool>())
            .prop_map(|(key, value, left_ms, keep)| Op::Set { key, value, left_ms, keep }),
        3 => (key.clone(), value(), any::<bool>(), any::<bool>())
            .prop_map(|(key, value, is_equal, is_get)| Op::SetIfEq { key, value, is_equal, is_get }),
        2 => (key.clone(), any::<bool>()).prop_map(|(key, is_equal)| Op::DelIfEq { key, is_equal }),
        3 => (key.clone(), value()).prop_map(|(key, value)| Op::Append { key, value }),
        3 => (key.clone(), -5_i64..5).prop_map(|(key, by)| Op::IncrBy { key, by }),
        3 => (keys(), value()).prop_map(|(keys, value)| Op::MSet { keys, value }),
        3 => keys().prop_map(|keys| Op::Del { keys }),
        4 => (key.clone(), -5_i64..60).prop_map(|(key, left_ms)| Op::Expire { key, left_ms }),
        2 => key.clone().prop_map(|key| Op::Persist { key }),
        1 => key.prop_map(|key| Op::Get { key }),
        1 => Just(Op::FlushAll),
        3 => (1_u64..20).prop_map(|ms| Op::Pass { ms }),
        2 => (0_usize..5).prop_map(|max| Op::ExpireDue { max }),
        1 => (0_usize..20).prop_map(|max| Op::Reclaim { max }),
        2 => Just(Op::SnapshotBegin),
        10 => (0_usize..150).prop_map(|bytes| Op::SnapshotNext { bytes }),
        1 => Just(Op::SnapshotAbort),
    ];
    prop::collection::vec(op, 1..120)
}

type Model = BTreeMap<Vec<u8>, (Vec<u8>, Option<u64>)>;

/// The snapshot under way: what it must restore to, and its bytes so far.
struct Running {
    model: Model,
    now_ms: u64,
    digest: u64,
    len: usize,
    bytes: Vec<u8>,
}

struct World {
    store: Store,
    twin: Store,
    model: Model,
    now_ms: u64,
    running: Option<Running>,
}

impl World {
    fn new() -> Self {
        Self {
            store: Store::new(FIRST, LAST),
            twin: Store::new(FIRST, LAST),
            model: Model::new(),
            now_ms: START_MS,
            running: None,
        }
    }

    fn apply(&mut self, command: Command, args: &[&[u8]]) -> Vec<u8> {
        let ctx = ApplyContext { log_time_ms: self.now_ms, seed: 7 };
        let [reply, twin] = [&mut self.store, &mut self.twin].map(|store| {
            let mut out = Vec::new();
            store.apply(&ctx, command, args, &mut ReplyWriter::new(&mut out, Protocol::Resp3));
            out
        });
        assert_eq!(reply, twin, "equal operations give equal replies");
        reply
    }

    fn step(&mut self, op: &Op) {
        let now_ms = self.now_ms;
        match op {
            Op::Set { key, value, left_ms, keep } => {
                let key = &KEYS[*key];
                let left = left_ms.map(|ms| (now_ms + ms).to_string());
                let mut args: Vec<&[u8]> = vec![key, value];
                match &left {
                    Some(at) => args.extend([&b"PXAT"[..], at.as_bytes()]),
                    None if *keep => args.push(b"KEEPTTL"),
                    None => {}
                }
                assert_eq!(self.apply(Command::Set, &args), b"+OK\r\n");
                let kept = self.model.get(key).and_then(|(_, expiry)| *expiry).filter(|_| *keep);
                let expiry = left_ms.map(|ms| now_ms + ms).or(kept);
                self.model.insert(key.clone(), (value.clone(), expiry));
            }
            Op::SetIfEq { key, value, is_equal, is_get } => {
                let key = &KEYS[*key];
                let (old, comparison) = self.comparison(key, *is_equal);
                let mut args: Vec<&[u8]> = vec![key, value, b"IFEQ", &comparison];
                args.extend(is_get.then_some(&b"GET"[..]));
                let is_set = old.as_ref() == Some(&comparison);
                let expected = match (is_get, is_set) {
                    (true, _) => bulk(old.as_deref()),
                    (false, true) => b"+OK\r\n".to_vec(),
                    (false, false) => bulk(None),
                };
                assert_eq!(self.apply(Command::Set, &args), expected);
                if is_set {
                    self.model.insert(key.clone(), (value.clone(), None));
                }
            }
            Op::DelIfEq { key, is_equal } => {
                let key = &KEYS[*key];
                let (old, comparison) = self.comparison(key, *is_equal);
                let is_deleted = old.is_some_and(|old| old == comparison);
                let expected: &[u8] = if is_deleted { b":1\r\n" } else { b":0\r\n" };
                assert_eq!(self.apply(Command::DelIfEq, &[key, &comparison]), expected);
                if is_deleted {
                    self.model.remove(key);
                }
            }
            Op::Append { key, value } => {
                let key = &KEYS[*key];
                let entry = self.model.entry(key.clone()).or_default();
                entry.0.extend_from_slice(value);
                let reply = format!(":{}\r\n", entry.0.len());
                assert_eq!(self.apply(Command::Append, &[key, value]), reply.as_bytes());
            }
            Op::IncrBy { key, by } => {
                let key = &KEYS[*key];
                let old = self.model.get(key).map_or(Some(0), |(value, _)| canonical_integer(value));
                let reply = self.apply(Command::IncrBy, &[key, by.to_string().as_bytes()]);
                match old.and_then(|old| old.checked_add(*by)) {
                    Some(sum) => {
                        assert_eq!(reply, format!(":{sum}\r\n").as_bytes());
                        self.model.entry(key.clone()).or_default().0 = sum.to_string().into_bytes();
                    }
                    None => assert!(reply.starts_with(b"-ERR ")),
                }
            }
            Op::MSet { keys, value } => {
                let args: Vec<&[u8]> = keys.iter().flat_map(|key| [&KEYS[*key][..], value]).collect();
                assert_eq!(self.apply(Command::MSet, &args), b"+OK\r\n");
                for key in keys {
                    self.model.insert(KEYS[*key].clone(), (value.clone(), None));
                }
            }
            Op::Del { keys } => {
                let args: Vec<&[u8]> = keys.iter().map(|key| &KEYS[*key][..]).collect();
                let reply = self.apply(Command::Del, &args);
                let deleted = args.iter().filter(|key| self.model.remove(**key).is_some()).count();
                assert_eq!(reply, format!(":{deleted}\r\n").as_bytes());
            }
            Op::Expire { key, left_ms } => {
                let key = &KEYS[*key];
                let reply = self.apply(Command::PExpire, &[key, left_ms.to_string().as_bytes()]);
                let entry = self.model.get_mut(key);
                assert_eq!(reply, if entry.is_some() { b":1\r\n" } else { b":0\r\n" });
                if let Some(entry) = entry {
                    entry.1 = Some(now_ms.saturating_add_signed(*left_ms));
                }
            }
            Op::Persist { key } => {
                let key = &KEYS[*key];
                let reply = self.apply(Command::Persist, &[key]);
                let expiry = self.model.get_mut(key).and_then(|(_, expiry)| expiry.take());
                assert_eq!(reply, if expiry.is_some() { b":1\r\n" } else { b":0\r\n" });
            }
            Op::Get { key } => {
                let key = &KEYS[*key];
                let reply = self.apply(Command::Get, &[key]);
                assert_eq!(reply, bulk(self.model.get(key).map(|(value, _)| &value[..])));
            }
            Op::FlushAll => {
                assert_eq!(self.apply(Command::FlushAll, &[]), b"+OK\r\n");
                self.model.clear();
            }
            Op::Pass { ms } => self.now_ms += ms,
            Op::ExpireDue { max } => self.expire_due(*max),
            Op::Reclaim { max } => {
                self.store.reclaim(*max);
            }
            Op::SnapshotBegin => self.snapshot_begin(),
            Op::SnapshotNext { bytes } => self.snapshot_next(*bytes),
            Op::SnapshotAbort => {
                self.store.snapshot_abort();
                self.running = None;
            }
        }
        let now_ms = self.now_ms;
        self.model.retain(|_, (_, expiry)| expiry.is_none_or(|at| now_ms < at));
        self.check();
    }

    /// The value of a key, and what to compare it with.
    fn comparison(&self, key: &[u8], is_equal: bool) -> (Option<Vec<u8>>, Vec<u8>) {
        let old = self.model.get(key).map(|(value, _)| value.clone());
        let mut comparison = old.clone().unwrap_or_default();
        if !is_equal {
            comparison.push(b'x');
        }
        (old, comparison)
    }

    fn expire_due(&mut self, max: usize) {
        let due = self.store.due(self.now_ms, max);
        assert_eq!(due, self.twin.due(self.now_ms, max), "equal stores have equal keys due");
        assert!(due.len() <= max);
        assert!(due.is_sorted_by_key(|due| due.expires_at_ms));
        for due in due {
            assert!(due.expires_at_ms <= self.now_ms);
            assert!(!self.store.expire(&due.key, due.expires_at_ms + 1));
            assert!(self.store.expire(&due.key, due.expires_at_ms));
            assert!(self.twin.expire(&due.key, due.expires_at_ms));
        }
    }

    fn snapshot_begin(&mut self) {
        self.store.snapshot_begin();
        self.running = Some(Running {
            model: self.model.clone(),
            now_ms: self.now_ms,
            digest: self.store.digest(),
            len: self.store.len(),
            bytes: Vec::new(),
        });
    }

    fn snapshot_next(&mut self, bytes: usize) {
        let Some(running) = &mut self.running else {
            assert!(self.store.snapshot_next(bytes, &mut Vec::new()));
            return;
        };
        let before = running.bytes.len();
        if !self.store.snapshot_next(bytes, &mut running.bytes) {
            assert!(bytes <= running.bytes.len() - before);
            return;
        }
        let running = self.running.take().expect("a snapshot was running");
        let mut restorer = Store::restorer(FIRST, LAST);
        for piece in running.bytes.chunks(bytes.max(1)) {
            restorer.push(piece).expect("what was written can be read");
        }
        let restored = restorer.finish().expect("the snapshot is whole");
        restored.check_invariants();
        assert_eq!(restored.digest(), running.digest, "restores the state at its beginning");
        assert_eq!(restored.len(), running.len);
        check_content(&restored, &running.model, running.now_ms);
    }

    fn check(&self) {
        self.store.check_invariants();
        self.twin.check_invariants();
        assert_eq!(self.store.digest(), self.twin.digest(), "equal operations give equal content");
        assert_eq!(self.store.logical_bytes(), self.twin.logical_bytes());
        check_content(&self.store, &self.model, self.now_ms);
        let due = self.store.due(self.now_ms, usize::MAX);
        assert_eq!(self.store.len() - due.len(), self.model.len(), "what is not due is alive");
    }
}

/// Compares every key, by reads: value, time left, and that an expired one is named.
fn check_content(store: &Store, model: &Model, now_ms: u64) {
    let mut len = 0;
    for key in KEYS.iter() {
        let read = |command| {
            let (mut out, mut expired) = (Vec::new(), Vec::new());
            let mut reply = ReplyWriter::new(&mut out, Protocol::Resp3);
            store.read(now_ms, command, &[key], &mut reply, &mut expired);
            (out, expired)
        };
        let (value, expired) = read(Command::Get);
        let entry = model.get(key);
        if let [gone] = &expired[..] {
            assert_eq!((&gone.key, entry), (key, None), "an expired key is gone from the model");
            assert!(gone.expires_at_ms <= now_ms);
            assert!(value.is_empty(), "nothing is written for an expired key");
            len += 1;
            continue;
        }
        assert_eq!(value, bulk(entry.map(|(value, _)| &value[..])));
        let left = match entry {
            None => -2,
            Some((_, None)) => -1,
            Some((_, Some(at))) => (at - now_ms) as i64,
        };
        assert_eq!(read(Command::PTtl).0, format!(":{left}\r\n").as_bytes());
        len += usize::from(entry.is_some());
    }
    assert_eq!(store.len(), len, "no key is there that nobody wrote");
    let slots = (FIRST..=LAST).map(|slot| {
        assert_eq!(store.keys_in_slot(slot, usize::MAX).len(), store.slot_len(slot));
        store.slot_len(slot)
    });
    assert_eq!(slots.sum::<usize>(), len);
    let digests = (FIRST..=LAST).map(|slot| store.digest_slot(slot)).fold(0, u64::wrapping_add);
    assert_eq!(store.digest(), digests);
}

/// The integer whose one decimal form `text` is.
fn canonical_integer(text: &[u8]) -> Option<i64> {
    let n: i64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (n.to_string().as_bytes() == text).then_some(n)
}

fn bulk(value: Option<&[u8]>) -> Vec<u8> {
    value.map_or_else(
        || b"_\r\n".to_vec(),
        |value| [format!("${}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat(),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn equals_the_model_and_restores_to_the_beginning_of_the_snapshot(ops in ops()) {
        let mut world = World::new();
        for op in &ops {
            world.step(op);
        }
        // Whatever is under way is brought to its end.
        while world.running.is_some() {
            world.step(&Op::SnapshotNext { bytes: 64 });
        }
    }

    #[test]
    fn bytes_from_anywhere_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), head in any::<bool>()) {
        if head {
            bytes.splice(0..0, [1, 0x00, 0x10, 0x3f, 0x10]);
        }
        let mut restorer = Store::restorer(FIRST, LAST);
        for piece in bytes.chunks(7) {
            let _ = restorer.push(piece);
        }
        prop_assert!(restorer.finish().is_err());
    }
}
