//! Frames of the peer port and what stands in them: handshakes, requests, replies, Raft messages, entries, the cluster map.
//!
//! - Where frames end does not depend on how the bytes are cut; none is longer than its limit.
//! - No body of any kind panics, and what a body claims to hold sizes no allocation.
//! - What was decoded and encoded again is decoded as the same.
//! - No handshake is accepted whose proof is not the one that the secret gives.

use ringfort::meta::{Change as MapChange, MetaMachine};
use ringfort::shard::membership::{Change, Membership};
use ringfort::shard::raft::Message;
use ringfort_ring::{NodeId, PartitionCount};
use ringfort_wire::entry::{Entry, EntryBuilder, Op, OpKind};
use ringfort_wire::frame::{self, FRAME_BYTES_MAX, Kind, Reader, WireError};
use ringfort_wire::hello::{Channel, Hello, HelloAck, Initiator, ProbeAck, Responder};
use ringfort_wire::map::{MapGroup, MapNode, MapSeat};
use ringfort_wire::request::{CommandBody, Reply, Request};
use ringfort_wire::{ClusterMap, MetaAnswer, MetaWrite, PeerSecret, settings};
use std::sync::OnceLock;

use super::input::{Input, pieces};

/// Runs the target. Layout: kind (1), seed of the pieces (1), then frames, or what [`body`] decodes behind its number (1).
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let (kind, seed) = (input.u8(), input.u8());
    match kind % 3 {
        0 => stream(input.rest(), seed),
        1 => handshake(input.rest()),
        _ => body(input.u8(), input.rest()),
    }
}

/// A frame's kind, its body, and what it took.
type Cut = (Vec<(Kind, Vec<u8>)>, Option<WireError>);

fn cut<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Cut {
    let (mut buf, mut frames) = (Vec::new(), Vec::new());
    for piece in pieces {
        buf.extend_from_slice(piece);
        loop {
            match frame::next(&buf) {
                Ok(Some(frame)) => {
                    let consumed = frame.consumed;
                    assert!(consumed == 5 + frame.body.len() && consumed <= 4 + FRAME_BYTES_MAX);
                    frames.push((frame.kind, frame.body.to_vec()));
                    buf.drain(..consumed);
                }
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

fn stream(bytes: &[u8], seed: u8) {
    let whole = cut([bytes]);
    assert_eq!(cut(pieces(bytes, seed)), whole, "cut into pieces");
    assert_eq!(cut(bytes.chunks(1)), whole, "byte by byte");
    for (kind, body) in whole.0 {
        let mut again = Vec::new();
        frame::put(&mut again, kind, |out| out.extend_from_slice(&body));
        assert_eq!(cut([again.as_slice()]), (vec![(kind, body.clone())], None));
        self::body(kind as u8, &body);
    }
}

/// Decodes a body as what its frame's kind says; from 128 on: parts of bodies, and what the log holds.
pub fn body(kind: u8, bytes: &[u8]) {
    match kind {
        1 => round_trip(bytes, Hello::decode, |hello, out| hello.encode(out)),
        11 => round_trip(bytes, Reply::decode, |reply, out| reply.encode(out)),
        10 => {
            round_trip(bytes, Request::decode, |request, out| request.encode(out));
            if let Ok(request) = Request::decode(bytes) {
                command(request.command);
            }
        }
        20 => {
            let mut r = Reader::new(bytes, "question for a map");
            if let (Ok(epoch), Ok(wait_ms)) = (r.u64(), r.u32()) {
                let mut out = Vec::new();
                frame::put_map_get(&mut out, epoch, wait_ms);
                assert_eq!(cut([out.as_slice()]).0, [(Kind::MapGet, bytes[..12].to_vec())]);
            }
        }
        21 => {
            if let Ok(map) = ClusterMap::from_json(bytes) {
                assert_eq!(ClusterMap::from_json(&map.to_json()), Ok(map.clone()));
                use_map(&map);
            }
        }
        22 | 34 => {
            if let Ok(write) = MetaWrite::from_json(bytes) {
                assert_eq!(MetaWrite::from_json(&write.to_json()), Ok(write));
                meta(bytes);
            }
        }
        23 => round_trip(bytes, MetaAnswer::decode, |answer, out| answer.encode(out)),
        30 => {
            let mut r = Reader::new(bytes, "Raft frame");
            if r.u16().and_then(|_| r.u32()).is_ok() {
                message(r.rest());
            }
        }
        31 => {
            let mut r = Reader::new(bytes, "announcement of a snapshot");
            if let Ok(bytes) = r.u16().and_then(|_| r.u32()).and_then(|_| r.bytes()) {
                message(bytes);
            }
        }
        41 => round_trip(bytes, ProbeAck::decode, |ack, out| ack.encode(out)),
        128 => message(bytes),
        129 => entry(bytes),
        130 => command(bytes),
        131 => {
            if let Ok(Some(membership)) = Membership::decode(bytes) {
                assert_eq!(membership.encode(), bytes);
            }
        }
        132 => {
            if let Ok((change, epoch)) = Change::decode(bytes) {
                assert_eq!(change.encode(epoch), bytes);
            }
        }
        133 => meta(bytes),
        134 => {
            if let Ok(secret) = PeerSecret::new(bytes) {
                assert_eq!(format!("{secret:?}"), "PeerSecret(..)");
            }
        }
        _ => {}
    }
}

/// What is decoded, encoded into a frame and decoded again is the same.
fn round_trip<'a, T: PartialEq + core::fmt::Debug>(
    bytes: &'a [u8],
    decode: impl Fn(&'a [u8]) -> Result<T, WireError>,
    encode: impl FnOnce(&T, &mut Vec<u8>),
) {
    let Ok(value) = decode(bytes) else { return };
    let mut frame = Vec::new();
    encode(&value, &mut frame);
    let body = frame::next(&frame).expect("it is a frame").expect("it is whole").body;
    // Bytes behind the last field are not looked at; the others are as they were.
    assert!(bytes.starts_with(body), "{value:?} is encoded as other bytes");
    assert_eq!(decode(&bytes[..body.len()]).as_ref(), Ok(&value));
}

fn message(bytes: &[u8]) {
    let Ok(message) = Message::decode(bytes) else { return };
    let (_, _) = (message.to(), message.from());
    if message.snapshot_index().is_some() {
        assert!(Membership::decode(message.snapshot_members()).is_ok_and(|members| members.is_some()));
    }
    let mut again = Vec::new();
    message.encode(&mut again);
    let same = Message::decode(&again).expect("what was encoded is a message");
    assert_eq!(same, message);
}

fn entry(bytes: &[u8]) {
    let Ok(entry) = Entry::decode(bytes) else { return };
    let ops: Result<Vec<_>, _> = entry.ops().take(1 << 16).collect();
    if let Ok(ops) = ops {
        let mut builder = EntryBuilder::default();
        for op in &ops {
            builder.push(op);
            if op.kind == OpKind::Command {
                command(op.body);
            }
        }
        let again = builder.finish(entry.log_time_ms, entry.seed);
        assert!(bytes[2..].starts_with(&again[2..]), "the same but for the feature level");
    }
}

fn command(bytes: &[u8]) {
    if let Ok(body) = CommandBody::decode(bytes)
        && let Ok(args) = body.args()
    {
        let mut again = Vec::new();
        CommandBody::encode(&mut again, body.command, body.protocol, args.iter());
        if body.is_no_touch {
            CommandBody::mark_no_touch(&mut again);
        }
        assert_eq!(again, bytes);
    }
}

fn use_map(map: &ClusterMap) {
    for (id, group) in map.all_groups() {
        assert!(map.group(id) == Some(group));
        let _ = (group.founders(), group.node_of(1));
        assert!(group.peers().all(|seat| map.node(&seat.node).is_some()));
    }
    for setting in settings::ALL {
        let _ =
            (setting.value(Some(map)), map.setting_integer(setting.name), map.setting_is_on(setting.name));
    }
}

/// A small map of three nodes.
pub fn sample_map() -> ClusterMap {
    let node = |n: u8| MapNode {
        id: NodeId(format!("n{n}")),
        client: format!("127.0.0.1:700{n}"),
        tls_client: None,
        peer: format!("127.0.0.1:710{n}"),
        weight: 1,
        zone: "a".to_owned(),
        store_id: u128::from(n),
        is_leaving: false,
        is_drained: false,
        is_down: false,
    };
    let group = |first: u64| {
        let seats = (1..=3).map(|n| MapSeat { node: NodeId(format!("n{n}")), replica: first + n }).collect();
        MapGroup::new(seats, NodeId("n1".to_owned()))
    };
    ClusterMap {
        cluster_id: 5,
        name: "fuzz".to_owned(),
        epoch: 1,
        partitions: PartitionCount::new(16).expect("it is the least"),
        replicas: 3,
        fsync: false,
        nodes: (1..=3).map(node).collect(),
        meta: group(0),
        groups: (1..=16).map(|p| group(p * 3)).collect(),
        next_replica: 52,
        feature_level: 1,
        settings: [("timeout".to_owned(), "5".to_owned())].into(),
        moving: Default::default(),
        former_nodes: Default::default(),
        planned_epoch: 1,
        change: None,
    }
}

/// The entry that gives the meta group its first map.
pub fn first_map_entry() -> &'static [u8] {
    static ENTRY: OnceLock<Vec<u8>> = OnceLock::new();
    ENTRY.get_or_init(|| meta_entry(&MapChange { expected_epoch: 0, map: sample_map() }.encode()))
}

fn meta_entry(body: &[u8]) -> Vec<u8> {
    let mut builder = EntryBuilder::default();
    builder.push(&Op { kind: OpKind::Command, session: 0, seq: 0, acked: 0, body });
    builder.finish(1, 2)
}

/// A change, applied twice by two replicas: they agree, and the map stays one that everybody can read.
fn meta(body: &[u8]) {
    let [mut one, mut other] = [(); 2].map(|()| MetaMachine::default());
    for machine in [&mut one, &mut other] {
        machine.apply(first_map_entry(), |_, _| ()).expect("the first map is an entry");
        for _ in 0..2 {
            machine.apply(&meta_entry(body), |_, _| ()).expect("a malformed change is refused, not an error");
        }
    }
    assert_eq!(one.digest(), other.digest());
    let map = one.map().expect("it was set");
    // A whole new map is proposed by nodes alone, which made it themselves; a change must keep it consistent.
    if MetaWrite::from_json(body).is_ok() {
        assert_eq!(ClusterMap::from_json(&map.to_json()).as_ref(), Ok(map));
        assert!(1 <= map.epoch);
        use_map(map);
    }
}

const SECRET: &[u8] = b"0123456789abcdef";
const NONCE_NODE: [u8; 32] = [2; 32];
const NONCE_CALLER: [u8; 32] = [1; 32];

/// The hello with which this target's own caller opens a link.
pub fn sample_hello() -> Hello {
    Hello {
        feature_level: 1,
        channel: Channel::Requests,
        cluster_id: 1 << 100,
        node: "n1".to_owned(),
        store_id: 5,
        worker: 1,
        to_worker: 2,
        nonce: None,
    }
}

/// The answer of the node.
pub fn sample_ack() -> HelloAck {
    HelloAck { feature_level: 1, cluster_id: 2, store_id: 3, workers: 4, node: "n2".to_owned() }
}

/// The frames that the caller of a link sends, and those of the node.
pub fn recorded_handshake() -> [Vec<u8>; 2] {
    let secret = PeerSecret::new(SECRET).expect("it is long enough");
    let (mut caller_out, mut node_out) = (Vec::new(), Vec::new());
    let mut caller = Initiator::new(sample_hello(), Some(&secret), NONCE_CALLER, &mut caller_out);
    let mut node = Responder::new(Some(&secret), NONCE_NODE);
    let (hello, _) = cut([caller_out.as_slice()]);
    node.take(hello[0].0, &hello[0].1, &mut node_out).expect("a hello is taken");
    let (challenge, _) = cut([node_out.as_slice()]);
    caller.take(challenge[0].0, &challenge[0].1, &mut caller_out).expect("a challenge is taken");
    node.accept(&sample_ack(), &mut node_out);
    [caller_out, node_out]
}

/// Frames to a node, and to a caller, with and without a secret.
fn handshake(bytes: &[u8]) {
    let (frames, _) = cut([bytes]);
    let secret = PeerSecret::new(SECRET).expect("it is long enough");
    let recorded = recorded_handshake().map(|bytes| cut([bytes.as_slice()]).0);
    for secret in [None, Some(&secret)] {
        let mut node = Responder::new(secret, NONCE_NODE);
        let mut seen = Vec::new();
        for (kind, body) in &frames {
            let mut out = Vec::new();
            seen.push((*kind, body.clone()));
            match node.take(*kind, body, &mut out) {
                // Only who knows the secret can make a proof, and here that is the recorded caller alone.
                Ok(Some(_)) if secret.is_some() => assert_eq!(seen, recorded[0], "who proved this?"),
                Ok(_) => assert!(cut([out.as_slice()]).1.is_none(), "it answers with frames"),
                Err(_) => {
                    assert_eq!(cut([out.as_slice()]).0.last().map(|f| f.0), Some(Kind::HelloRefuse));
                    break;
                }
            }
        }
        let mut out = Vec::new();
        let mut caller = Initiator::new(sample_hello(), secret, NONCE_CALLER, &mut out);
        for (kind, body) in &frames {
            match caller.take(*kind, body, &mut out) {
                Ok(Some(ack)) if secret.is_some() => {
                    assert!(frames.contains(&recorded[1][0]) && frames.contains(&recorded[1][1]));
                    assert_eq!(ack, sample_ack(), "who proved this?");
                }
                Ok(_) => {}
                Err(_) => break,
            }
        }
    }
}
