//! Inputs made of real encodings, in the layouts of the targets.

use crate::targets::frames;
use bytes::Bytes;
use ringfort::log::{
    Disk, DiskFile, HardState, Identity, Log, LogEntry, LogOptions, Mark, MemDisk, SnapshotFiles,
    SnapshotHeader,
};
use ringfort::meta::{Change as MapChange, MetaMachine};
use ringfort::shard::machine::PartitionMachine;
use ringfort::shard::membership::{Change, Membership};
use ringfort_resp::{Command, Protocol, ReplyWriter, Value, write_command};
use ringfort_ring::{NodeId, PartitionId};
use ringfort_wire::entry::{EntryBuilder, Op, OpKind};
use ringfort_wire::frame::{self, Kind, put_bytes};
use ringfort_wire::hello::ProbeAck;
use ringfort_wire::request::{CommandBody, Reply, Request, RequestKind, Status};
use ringfort_wire::{MetaAnswer, MetaWrite};

/// Name and bytes of each seed of a target, by name.
type Seeds = Vec<(String, Vec<u8>)>;

/// The seeds of all targets.
pub(crate) fn all() -> Vec<(&'static str, Seeds)> {
    let of = |seeds: Vec<(&str, Vec<u8>)>| {
        let mut seeds: Seeds = seeds.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect();
        seeds.sort();
        seeds
    };
    vec![
        ("resp", of(resp())),
        ("reply", of(reply())),
        ("log", of(log())),
        ("snapshot", of(snapshot())),
        ("frames", of(frames())),
        ("machine", of(machine())),
        ("text", of(text())),
    ]
}

fn with(head: &[u8], rest: &[u8]) -> Vec<u8> {
    [head, rest].concat()
}

fn short(bytes: &[u8]) -> Vec<u8> {
    with(&(bytes.len() as u16).to_le_bytes(), bytes)
}

fn resp() -> Vec<(&'static str, Vec<u8>)> {
    let mut commands = Vec::new();
    for line in ["SET k v EX 10", "GET k", "MSET a 1 b 2", "CLIENT SETNAME x", "CONFIG GET *", "NOSUCH a b"] {
        write_command(&line.split(' ').collect::<Vec<_>>(), &mut commands);
    }
    vec![
        ("commands", with(&[1, 3], &commands)),
        ("commands-small", with(&[0, 3], &commands)),
        ("empty", with(&[0, 9], b"*0\r\n\r\n*-1\r\n*2\r\n$0\r\n\r\n$1\r\nx\r\n")),
        ("inline", with(&[1, 1], b"SET k \"a\\x41\\n b\" 'it\\'s'\r\nPING\nGET  k \r\n")),
        ("limits", with(&[0, 5], b"*7\r\n$41\r\n*1048577\r\n$33554433\r\n")),
    ]
}

fn reply() -> Vec<(&'static str, Vec<u8>)> {
    let leaves = vec![
        Value::Null,
        Value::Simple("OK".into()),
        Value::Error("ERR no".into()),
        Value::Integer(-7),
        Value::Bulk(b"ab\r\n".to_vec()),
        Value::Double(1.5),
        Value::Double(f64::NAN),
        Value::Double(f64::NEG_INFINITY),
        Value::Boolean(true),
        Value::BigNumber("-123456789012345678901234567890".into()),
        Value::Verbatim(*b"txt", b"some".to_vec()),
    ];
    let nested = Value::Map(vec![
        (Value::Set(leaves.clone()), Value::Array(vec![Value::Array(leaves.clone()), Value::Array(vec![])])),
        (Value::Push(vec![Value::Simple("p".into())]), Value::Integer(1)),
    ]);
    let written = |value: &Value, protocol| {
        let mut out = vec![4];
        value.write(&mut ReplyWriter::new(&mut out, protocol));
        out
    };
    vec![
        ("attribute", with(&[0], b"|1\r\n+a\r\n:1\r\n*2\r\n$-1\r\n*-1\r\n")),
        ("leaves", written(&Value::Array(leaves), Protocol::Resp3)),
        ("nested", written(&nested, Protocol::Resp3)),
        ("nested-resp2", written(&nested, Protocol::Resp2)),
    ]
}

fn log() -> Vec<(&'static str, Vec<u8>)> {
    let disk = MemDisk::new();
    let options = LogOptions { segment_bytes: 400, ..LogOptions::default() };
    let (mut log, _) = Log::open(disk.clone(), options).unwrap();
    for index in 1..=4 {
        let entry = LogEntry { index, term: index / 3, kind: 0, data: Bytes::from_static(b"0123456789") };
        log.stage_entries(1, &[entry]).unwrap();
        log.stage_hard_state(1, &HardState { term: 1, vote: 2, commit: index }).unwrap();
        log.stage_identity(2, &Identity { replica: 9, incarnation: 1, ..Identity::default() }).unwrap();
        log.write().unwrap();
        log.sync_job().unwrap().run().unwrap();
    }
    log.stage_mark(1, &Mark { index: 2, term: 0, conf: Bytes::from_static(b"members") }, true).unwrap();
    log.stage_mark(2, &Mark { index: 7, term: 1, conf: Bytes::new() }, false).unwrap();
    log.stage_remove_group(3).unwrap();
    log.write().unwrap();
    let mut files = vec![0, 0];
    for name in disk.list().unwrap() {
        let file = disk.open(&name).unwrap();
        let mut bytes = vec![0; file.bytes().unwrap() as usize];
        file.read_at(0, &mut bytes).unwrap();
        files.extend(short(&bytes));
    }
    // One segment of two writes: entries 1 to 2 and a hard state of group 1; a mark, a removal, a moved entry.
    let forged = [
        &[1, 0, 0, 0, 2][..],
        &[0, 3, 1, 1, 0, 1, 1, 2, b'a', b'b', 1, 1, 0, 2, 1, 0, 3, 1, 0, 1, 2, 2, 0],
        &[
            0, 4, 5, 1, 0, 1, 1, 1, b'c', 7, 2, 0, 0, 2, 1, 0, 2, 1, 3, b'd', b'e', b'f', 4, 3, 0, 9, 4, 1,
            0, 0, 0,
        ],
    ]
    .concat();
    let steps = [
        &[1, 1, 0, 1, 3, 0, b'a', b'b', b'c', 2, 1, 1, 2, 1, 0, b'x', 4, 1, 3, 1, 2, 9, 0][..],
        &[5, 2, 7, 6, 1, 1, 2, 0, b'm', b'n', 10, 0, 9, 0, 1, 2, 0, 3, 40, 0],
        &[7; 40],
        &[8, 0, 3, 0, 0, 0, 2, 0, b'z', b'z', 11, 0, 0, 0],
    ]
    .concat();
    let end = |end: &[u8]| [&[2][..], &steps, end].concat();
    vec![
        ("raw", files),
        ("forged", forged),
        ("steps-crash", end(&[0, 7, 7, 7])),
        ("steps-damage", end(&[2, 0, 0, 60, 0, 4, 1])),
        ("steps-kill", end(&[1])),
    ]
}

fn command_of(line: &str) -> Vec<u8> {
    let words: Vec<&str> = line.split(' ').collect();
    let spec = ringfort_resp::commands::lookup(words[0].as_bytes()).unwrap();
    let mut body = Vec::new();
    CommandBody::encode(&mut body, spec.command as u16, Protocol::Resp2, words[1..].iter());
    body
}

fn entry() -> Vec<u8> {
    let mut builder = EntryBuilder::default();
    let set = command_of("SET {24}1 v EX 100");
    let mut push = |kind, session, seq, body: &[u8]| {
        builder.push(&Op { kind, session, seq, acked: 0, body });
    };
    push(OpKind::OpenSession, 0, 0, b"");
    push(OpKind::Command, 0, 0, &set);
    push(OpKind::Command, 1 << 16, 1, &set);
    push(OpKind::Skip, 1 << 16, 2, b"");
    push(OpKind::Expire, 0, 0, b"12345678{24}1");
    push(OpKind::Evict, 0, 0, b"12345678{24}1");
    push(OpKind::Limit, 0, 0, &ringfort_store::MemoryLimit::default().encode());
    builder.finish(1_700_000_000_000, 7)
}

/// Entries as the target `machine` reads them: time, one operation, its kind, the command and its arguments.
fn script() -> Vec<u8> {
    let mut script = Vec::new();
    // A write by its place in the table, a key, a value, a seed.
    for (command, key) in [(1, 0), (1, 1), (4, 2), (6, 1), (2, 0), (9, 4), (11, 1), (20, 5), (24, 2)] {
        script.extend([7, 1, 0, 0, command, 3, 0, key, 200, key, 120, 0, 1]);
    }
    // A session, a write in it, the same again, a limit, an eviction, an expiry, a read, a snapshot.
    script.extend([7, 1, 0, 201, 1]);
    for seq in [1, 1, 2] {
        script.extend([7, 1, 0, 170, 0, seq, 0, 4, 1, 0, 3, 99, 1]);
    }
    script.extend([7, 1, 0, 241, 4, 90, 5, 1]);
    script.extend([7, 7, 0, 226, 1, 7, 7, 0, 216, 1]);
    script.extend([1, 9, 0, 1, 0, 3, 99, 1, 0, 0, 1, 2, 0, 3, 200, 8, 1]);
    script.extend([0, 1, 0, 0, 1, 2, 0, 6, 200, 8, 1]);
    script.extend([7, 6, 0, 0, 1, 2, 0, 7, 230, 0, 1, 1]);
    script
}

fn machine() -> Vec<(&'static str, Vec<u8>)> {
    let mut meta = EntryBuilder::default();
    let write = MetaWrite::Set([("timeout".to_owned(), "7".to_owned())].into()).to_json();
    meta.push(&Op { kind: OpKind::Command, session: 0, seq: 0, acked: 0, body: &write });
    vec![
        ("entry", with(&[0xff], &entry())),
        ("meta", with(&[0xff], &meta.finish(1, 2))),
        ("script", with(&[0], &script())),
    ]
}

fn snapshot() -> Vec<(&'static str, Vec<u8>)> {
    let mut machine = PartitionMachine::new(0, crate::targets::machine::LAST_SLOT);
    machine.apply(1, &entry(), |_, _| ()).unwrap();
    let bytes = crate::targets::machine::snapshot(&mut machine);
    let mut files = SnapshotFiles::load(MemDisk::new()).unwrap();
    let conf = Bytes::from(Membership::founded(&[1, 2, 3]).encode());
    let header = SnapshotHeader { group: 3, feature_level: 1, incarnation: 1, index: 9, term: 2, conf };
    let mut writer = files.create(header).unwrap();
    bytes.chunks(50).for_each(|chunk| writer.chunk(chunk).unwrap());
    writer.finish().unwrap().run().unwrap();
    files.complete(3, 9).unwrap();
    let mut file = Vec::new();
    files.open(3).unwrap().unwrap().next_raw(usize::MAX, &mut file).unwrap();
    let mut meta = MetaMachine::default();
    meta.apply(frames::first_map_entry(), |_, _| ()).unwrap();
    meta.snapshot_begin();
    let mut map = Vec::new();
    meta.snapshot_next(&mut map);
    let forged =
        [&[1, 2, 0, 1, 0, 3, 1, 4, b'c', b'o', b'n', b'f', 9, 2, 2][..], &short(&bytes), &short(b"x")]
            .concat();
    vec![
        ("any", with(&[0, 2], &file)),
        ("contents", with(&[3, 2], &bytes)),
        ("contents-meta", with(&[3, 2], &map)),
        ("damaged", with(&[2, 2, 90, 0, 4], &script())),
        ("forged", forged),
    ]
}

fn raft_message(kind: u8, entries: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    for n in [2_u64, 1, 3, 3, 8, 7, 0, 0, 0] {
        out.extend_from_slice(&n.to_le_bytes());
    }
    out.push(if kind == 7 { 2 } else { 0 });
    put_bytes(&mut out, b"context");
    if kind == 7 {
        out.extend_from_slice(&9_u64.to_le_bytes());
        out.extend_from_slice(&2_u64.to_le_bytes());
        put_bytes(&mut out, &Membership::founded(&[1, 2, 3]).encode());
    }
    out.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    for (index, kind) in (9_u64..).zip(entries) {
        out.push(*kind);
        out.extend_from_slice(&index.to_le_bytes());
        out.extend_from_slice(&3_u64.to_le_bytes());
        put_bytes(&mut out, &entry());
    }
    out
}

fn frames() -> Vec<(&'static str, Vec<u8>)> {
    let raft_frame = |out: &mut Vec<u8>, kind| {
        frame::put(out, kind, |out| {
            out.extend_from_slice(&1_u16.to_le_bytes());
            out.extend_from_slice(&1_u32.to_le_bytes());
            match kind {
                Kind::Raft => out.extend_from_slice(&raft_message(3, &[0, 0])),
                _ => put_bytes(out, &raft_message(7, &[])),
            }
        });
    };
    let mut raft = vec![0, 1];
    raft_frame(&mut raft, Kind::Raft);
    raft_frame(&mut raft, Kind::SnapshotBegin);
    frame::put(&mut raft, Kind::SnapshotChunk, |out| out.extend_from_slice(b"chunk"));
    frame::put(&mut raft, Kind::SnapshotEnd, |_| {});

    let command = command_of("SET k v EX 100");
    let mut requests = vec![0, 2];
    for (id, kind) in [RequestKind::Read, RequestKind::Write, RequestKind::OpenSession, RequestKind::Skip]
        .into_iter()
        .enumerate()
    {
        let request = Request {
            id: id as u64,
            partition: PartitionId(3),
            kind,
            session: 1 << 16,
            seq: 5,
            acked: 4,
            command: &command,
        };
        request.encode(&mut requests);
    }
    let mut replies = vec![0, 3];
    for status in [
        Status::Done(b"+OK\r\n"),
        Status::NotLeader("n2"),
        Status::Retry,
        Status::Gap(7),
        Status::NoSession,
        Status::Busy,
        Status::Opened(1 << 16),
        Status::Refused(b"-ERR no\r\n"),
        Status::NotHere(3),
    ] {
        Reply { id: 9, status }.encode(&mut replies);
    }
    let map = frames::sample_map();
    let mut control = vec![0, 4];
    frame::put(&mut control, Kind::Probe, |_| {});
    ProbeAck { node: "n1".into(), store_id: 4, config_hash: 5, map: map.to_json() }.encode(&mut control);
    frame::put_map_get(&mut control, 7, 1000);
    frame::put(&mut control, Kind::Map, |out| out.extend_from_slice(&map.to_json()));

    let mut meta = vec![0, 5];
    let writes = [
        MetaWrite::Set([("timeout".to_owned(), "7".to_owned())].into()),
        MetaWrite::TlsClient(NodeId("n1".into()), Some(([127, 0, 0, 1], 7).into())),
        MetaWrite::Lead(2, NodeId("n3".into())),
        MetaWrite::Replace {
            node: NodeId("n2".into()),
            old_store: format!("{:032x}", 2),
            new_store: format!("{:032x}", 77),
        },
        MetaWrite::Left(vec![(0, vec![2]), (1, vec![5])]),
    ];
    for write in &writes {
        frame::put(&mut meta, Kind::MetaWrite, |out| out.extend_from_slice(&write.to_json()));
    }
    for answer in [
        MetaAnswer::Done(b"{}".to_vec()),
        MetaAnswer::NotLeader("n1".into()),
        MetaAnswer::Refused("ERR no".into()),
        MetaAnswer::Again,
    ] {
        answer.encode(&mut meta);
    }
    let [caller, node] = frames::recorded_handshake();
    let change = Change::Enter { add: vec![4], remove: vec![1] };
    let body = |kind, bytes: &[u8]| with(&[2, 0, kind], bytes);
    vec![
        ("body-change", body(132, &change.encode(7))),
        ("body-command", body(130, &command)),
        ("body-entry", body(129, &entry())),
        ("body-map-change", body(133, &MapChange { expected_epoch: 1, map }.encode())),
        ("body-membership", body(131, &Membership::founded(&[1, 2, 3]).encode())),
        ("body-message", body(128, &raft_message(3, &[0, 2]))),
        ("body-meta-lead", body(22, &writes[2].to_json())),
        ("body-meta-left", body(22, &writes[4].to_json())),
        ("body-meta-replace", body(22, &writes[3].to_json())),
        ("body-secret", body(134, b"0123456789abcdef\n")),
        ("handshake-caller", with(&[0, 1], &caller)),
        ("handshake-node", with(&[1, 1], &node)),
        ("handshake-proven", with(&[1, 1], &caller)),
        ("stream-control", control),
        ("stream-meta", meta),
        ("stream-raft", raft),
        ("stream-replies", replies),
        ("stream-requests", requests),
    ]
}

fn text() -> Vec<(&'static str, Vec<u8>)> {
    let words = |words: &[&str]| words.iter().flat_map(|word| short(word.as_bytes())).collect::<Vec<_>>();
    let glob = |pattern: &[u8], text: &[u8]| with(&[0], &[&short(pattern)[..], text].concat());
    let config = |name: &str| {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("configs").join(name);
        let text = std::fs::read_to_string(path).unwrap();
        let lines = text.lines().map(|line| line.split('#').next().unwrap().trim_end());
        with(&[3], lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n").as_bytes())
    };
    let cursor = (77_u64 << 39 | 5).to_le_bytes();
    vec![
        ("config-local", config("local.toml")),
        ("config-production", config("production.toml")),
        ("glob", glob(b"a*[^b-d]?\\*[z", b"axxe?*z")),
        ("glob-stars", glob(b"*a*a*a*b", b"aaaaaaaaaaaaaaaaaaaaaaab")),
        (
            "scan",
            [&[1], &cursor[..], &words(&["42", "COUNT", "10", "MATCH", "a*", "TYPE", "string"])].concat(),
        ),
        ("set", with(&[2], &words(&["maxmemory", "10mb", "timeout", "5", "latency-tracking", "YES"]))),
        (
            "set-percentiles",
            with(&[2], &words(&["latency-tracking-info-percentiles", "50 99.9", "save", ""])),
        ),
    ]
}

/// The table of commands is small enough for one byte, as the target `machine` takes it.
#[test]
fn a_byte_names_every_command() {
    let count =
        (0..1000).filter_map(Command::from_u16).filter(|c| c.spec().keys(64).next().is_some()).count();
    assert!(count < 256, "{count} commands have keys");
}
