//! The proxy's shell over real sockets, in front of a node that is a few threads of the test.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

use ringfort_proxy::{ProxyOptions, Running, ServerError, start};
use ringfort_resp::{Command, ReplyWriter, reply};
use ringfort_ring::{NodeId, PartitionCount};
use ringfort_wire::hello::{Channel, Hello, HelloAck, Responder};
use ringfort_wire::map::{MapGroup, MapNode, MapSeat};
use ringfort_wire::request::CommandBody;
use ringfort_wire::secret::NONCE_BYTES;
use ringfort_wire::{ClusterMap, FEATURE_LEVEL, Kind, Reply, Request, RequestKind, Status, frame};
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long anything may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(20);
const NODE_WORKERS: u16 = 2;

#[derive(Default)]
struct Session {
    last: u64,
    replies: BTreeMap<u64, Vec<u8>>,
}

/// Values and sessions by partition.
#[derive(Default)]
struct Data {
    values: BTreeMap<u16, BTreeMap<Vec<u8>, Vec<u8>>>,
    sessions: BTreeMap<(u16, u64), Session>,
    next_session: u64,
}

/// A node whose only replica of everything it is; requests arrive in frames on loopback.
struct Node {
    addr: SocketAddr,
    /// Connections end after so many requests each; 0 = never.
    requests_per_connection: AtomicU64,
    /// Requests are read but not answered.
    is_mute: AtomicBool,
    data: Mutex<Data>,
}

impl Node {
    fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let node = Arc::new(Self {
            addr: listener.local_addr().unwrap(),
            requests_per_connection: AtomicU64::new(0),
            is_mute: AtomicBool::new(false),
            data: Mutex::default(),
        });
        let accepting = Arc::clone(&node);
        // The threads end with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let node = Arc::clone(&accepting);
                std::thread::spawn(move || node.serve(stream.unwrap()));
            }
        });
        node
    }

    fn map(&self) -> ClusterMap {
        let id = NodeId("n1".to_owned());
        let group = || MapGroup::new(vec![MapSeat { node: id.clone(), replica: 1 }], id.clone());
        ClusterMap {
            cluster_id: 9,
            name: "test".to_owned(),
            epoch: 3,
            partitions: PartitionCount::new(16).unwrap(),
            replicas: 1,
            fsync: false,
            nodes: vec![MapNode {
                id: id.clone(),
                client: "127.0.0.1:7001".to_owned(),
                tls_client: None,
                peer: self.addr.to_string(),
                weight: 1,
                zone: String::new(),
                store_id: 1,
                is_leaving: false,
                is_drained: false,
                is_down: false,
            }],
            meta: group(),
            groups: (0..16).map(|_| group()).collect(),
            next_replica: 2,
            feature_level: FEATURE_LEVEL,
            settings: Default::default(),
            moving: Default::default(),
            former_nodes: Default::default(),
            planned_epoch: 1,
            change: None,
        }
    }

    fn serve(&self, mut stream: TcpStream) {
        let mut input = Vec::new();
        let mut channel = None;
        let mut served = 0;
        loop {
            let mut out = Vec::new();
            let mut consumed = 0;
            while let Some(frame) = frame::next(&input[consumed..]).unwrap() {
                consumed += frame.consumed;
                match (frame.kind, channel) {
                    (Kind::Hello, None) => {
                        let hello = Hello::decode(frame.body).unwrap();
                        assert!(hello.to_worker < NODE_WORKERS);
                        channel = Some((hello.channel, hello.to_worker));
                        let ack = HelloAck {
                            feature_level: FEATURE_LEVEL,
                            cluster_id: 9,
                            store_id: 1,
                            workers: NODE_WORKERS,
                            node: "n1".to_owned(),
                        };
                        Responder::new(None, [0; NONCE_BYTES]).accept(&ack, &mut out);
                    }
                    (Kind::MapGet, Some((Channel::Control, _))) => {
                        let epoch = u64::from_le_bytes(frame.body[..8].try_into().unwrap());
                        let map = self.map();
                        let body = if epoch < map.epoch { map.to_json() } else { Vec::new() };
                        frame::put(&mut out, Kind::Map, |out| out.extend_from_slice(&body));
                    }
                    (Kind::Request, Some((Channel::Requests, worker))) => {
                        let request = Request::decode(frame.body).unwrap();
                        assert_eq!(request.partition.0 % NODE_WORKERS, worker);
                        served += 1;
                        let mut data = self.data.lock().unwrap();
                        if self.is_mute.load(Ordering::Relaxed) {
                            continue;
                        }
                        // The last request before the cut is executed, its reply lost.
                        let status = data.serve(&request);
                        if served == self.requests_per_connection.load(Ordering::Relaxed) {
                            return;
                        }
                        let status = match &status {
                            Ok(reply) => Status::Done(reply),
                            Err(status) => *status,
                        };
                        Reply { id: request.id, status }.encode(&mut out);
                    }
                    (kind, channel) => panic!("{kind:?} on {channel:?}"),
                }
            }
            input.drain(..consumed);
            if stream.write_all(&out).is_err() {
                return;
            }
            let mut buffer = [0; 4096];
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(count) => input.extend_from_slice(&buffer[..count]),
            }
        }
    }
}

impl Data {
    fn serve(&mut self, request: &Request<'_>) -> Result<Vec<u8>, Status<'static>> {
        let p = request.partition.0;
        match request.kind {
            RequestKind::Read => return Ok(self.run(p, request.command)),
            RequestKind::OpenSession => {
                self.next_session += 1;
                self.sessions.insert((p, self.next_session), Session::default());
                return Err(Status::Opened(self.next_session));
            }
            RequestKind::Write | RequestKind::Skip => {}
        }
        let key = (p, request.session);
        let Some(session) = self.sessions.get(&key) else { return Err(Status::NoSession) };
        if request.seq <= session.last {
            return Ok(session.replies[&request.seq].clone());
        }
        if session.last + 1 < request.seq {
            return Err(Status::Gap(session.last));
        }
        let reply = if request.kind == RequestKind::Skip {
            b"+OK\r\n".to_vec()
        } else {
            self.run(p, request.command)
        };
        let session = self.sessions.get_mut(&key).unwrap();
        session.last = request.seq;
        session.replies.insert(request.seq, reply.clone());
        Ok(reply)
    }

    fn run(&mut self, p: u16, command: &[u8]) -> Vec<u8> {
        let body = CommandBody::decode(command).unwrap();
        let args = body.args().unwrap();
        let values = self.values.entry(p).or_default();
        let mut out = Vec::new();
        let writer = &mut ReplyWriter::new(&mut out, body.protocol);
        let write_value = |writer: &mut ReplyWriter<'_>, value: Option<&Vec<u8>>| match value {
            Some(value) => writer.bulk(value),
            None => writer.null(),
        };
        match Command::from_u16(body.command).unwrap() {
            Command::Set | Command::MSet => {
                for pair in args.chunks(2) {
                    values.insert(pair[0].to_vec(), pair[1].to_vec());
                }
                writer.ok();
            }
            Command::Get => write_value(writer, values.get(args[0])),
            Command::MGet => {
                writer.array(args.len());
                args.iter().for_each(|key| write_value(writer, values.get(*key)));
            }
            Command::Incr => {
                let value = values.entry(args[0].to_vec()).or_insert_with(|| b"0".to_vec());
                let next = std::str::from_utf8(value).unwrap().parse::<i64>().unwrap() + 1;
                *value = next.to_string().into_bytes();
                writer.integer(next);
            }
            Command::Del => {
                writer.integer(args.iter().filter(|key| values.remove(**key).is_some()).count() as i64)
            }
            Command::Exists => {
                writer.integer(args.iter().filter(|key| values.contains_key(**key)).count() as i64)
            }
            Command::DbSize => writer.integer(values.len() as i64),
            Command::FlushAll => {
                values.clear();
                writer.ok();
            }
            other => panic!("{other:?}"),
        }
        out
    }
}

fn options(seed: SocketAddr) -> ProxyOptions {
    let listen = "127.0.0.1:0".parse().unwrap();
    ProxyOptions { workers: 2, ..ProxyOptions::new(listen, vec![seed.to_string()]) }
}

/// A proxy in front of a node, ready to serve.
fn proxy(node: &Node) -> Running {
    let running = start(options(node.addr)).unwrap();
    wait_until_ready(&running);
    running
}

/// Both workers have a map: two connections in turn ask for a key until they get one.
fn wait_until_ready(running: &Running) {
    for _ in 0..2 {
        let mut client = Client::connect(running);
        while client.ask("GET none\r\n").starts_with("-LOADING") {
            std::thread::yield_now();
        }
    }
}

struct Client(TcpStream, Vec<u8>);

impl Client {
    fn connect(running: &Running) -> Self {
        let stream = TcpStream::connect(running.addr()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream, Vec::new())
    }

    fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// The next whole reply.
    fn receive(&mut self) -> String {
        loop {
            if let Some(len) = reply::frame_len(&self.1).unwrap() {
                return String::from_utf8(self.1.drain(..len).collect()).unwrap();
            }
            let mut buffer = [0; 65536];
            let count = self.0.read(&mut buffer).expect("a reply comes in time");
            assert!(count > 0, "the connection was closed");
            self.1.extend_from_slice(&buffer[..count]);
        }
    }

    fn ask(&mut self, command: &str) -> String {
        self.send(command.as_bytes());
        self.receive()
    }

    /// Everything up to the end of the connection.
    fn receive_all(&mut self) -> String {
        self.0.read_to_end(&mut self.1).unwrap();
        String::from_utf8(std::mem::take(&mut self.1)).unwrap()
    }
}

#[test]
fn pipelined_commands_in_odd_splits_are_answered_in_order() {
    let node = Node::start();
    let running = proxy(&node);
    let dialogue = [
        ("FLUSHALL", "+OK\r\n"),
        ("SET a 1", "+OK\r\n"),
        ("GET a", "$1\r\n1\r\n"),
        ("INCR a", ":2\r\n"),
        ("INCR a", ":3\r\n"),
        ("MSET b x c y d z", "+OK\r\n"),
        ("PING", "+PONG\r\n"),
        ("MGET d a none b c d", "*6\r\n$1\r\nz\r\n$1\r\n3\r\n$-1\r\n$1\r\nx\r\n$1\r\ny\r\n$1\r\nz\r\n"),
        ("EXISTS a b none", ":2\r\n"),
        ("DEL b c none", ":2\r\n"),
        ("DBSIZE", ":2\r\n"),
        ("NOPE", "-ERR unknown command 'NOPE', with args beginning with: \r\n"),
        ("GET b", "$-1\r\n"),
    ];
    let commands: String = dialogue.iter().map(|(command, _)| format!("{command}\r\n")).collect();
    for piece in [1, 2, 3, 7, 16, 61, 1000] {
        let mut client = Client::connect(&running);
        for part in commands.as_bytes().chunks(piece) {
            client.send(part);
        }
        for (command, expected) in dialogue {
            assert_eq!(client.receive(), expected, "{command} in pieces of {piece}");
        }
    }
    running.stop();
}

#[test]
fn large_values_and_deep_pipelines_pass() {
    let node = Node::start();
    let running = proxy(&node);
    let mut client = Client::connect(&running);
    let value = "v".repeat(5 << 20);
    assert_eq!(
        client.ask(&format!("*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n${}\r\n{value}\r\n", value.len())),
        "+OK\r\n"
    );
    assert_eq!(client.ask("GET big\r\n"), format!("${}\r\n{value}\r\n", value.len()));
    // Far beyond PIPELINE_MAX; a thread writes while this one reads.
    const COUNT: usize = 20_000;
    let mut writing = client.0.try_clone().unwrap();
    let writer = std::thread::spawn(move || writing.write_all(&b"INCR n\r\n".repeat(COUNT)).unwrap());
    for n in 1..=COUNT {
        assert_eq!(client.receive(), format!(":{n}\r\n"));
    }
    writer.join().unwrap();
    running.stop();
}

#[test]
fn writes_are_counted_once_although_connections_break() {
    let node = Node::start();
    let running = proxy(&node);
    node.requests_per_connection.store(37, Ordering::Relaxed);
    let clients: Vec<JoinHandle<()>> = (0..4)
        .map(|i| {
            let mut client = Client::connect(&running);
            std::thread::spawn(move || {
                for n in 1..=200 {
                    assert_eq!(client.ask(&format!("INCR counter{i}\r\n")), format!(":{n}\r\n"));
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    running.stop();
}

#[test]
fn one_connection_too_many_is_told_so() {
    let node = Node::start();
    let running = start(ProxyOptions { client_connections_max: 1, ..options(node.addr) }).unwrap();
    let mut first = Client::connect(&running);
    assert_eq!(first.ask("PING\r\n"), "+PONG\r\n");
    let mut second = Client::connect(&running);
    assert_eq!(second.receive_all(), "-ERR max number of clients reached\r\n");
    assert_eq!(first.ask("QUIT\r\n"), "+OK\r\n");
    assert_eq!(first.receive_all(), "");
    // The place is free again as soon as the worker noticed.
    while !Client::connect(&running).ask("PING\r\n").starts_with("+PONG") {}
    running.stop();
}

#[test]
fn without_a_cluster_connections_are_served() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let running = start(options(nobody.local_addr().unwrap())).unwrap();
    let mut client = Client::connect(&running);
    assert_eq!(client.ask("GET a\r\n"), "-LOADING Ringfort is starting: no cluster map yet\r\n");
    assert_eq!(client.ask("PING\r\n"), "+PONG\r\n");
    assert!(client.ask("INFO server\r\n").contains("redis_mode:standalone"));
    running.stop();
}

#[test]
fn protocol_error_closes_and_a_half_closed_client_gets_its_replies() {
    let node = Node::start();
    let running = proxy(&node);
    let mut client = Client::connect(&running);
    client.send(b"SET k v\r\nGET k\r\n*1\r\n:1\r\nGET k\r\n");
    assert_eq!(client.receive_all(), "+OK\r\n$1\r\nv\r\n-ERR Protocol error: expected '$', got ':'\r\n");
    let mut client = Client::connect(&running);
    client.send(b"GET k\r\nGET k\r\nGET");
    client.0.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.receive_all(), "$1\r\nv\r\n$1\r\nv\r\n");
    running.stop();
}

#[test]
fn silent_node_costs_an_error_in_time_and_stopping_is_bounded() {
    let node = Node::start();
    let running = start(ProxyOptions { deadline: Duration::from_millis(300), ..options(node.addr) }).unwrap();
    wait_until_ready(&running);
    let mut client = Client::connect(&running);
    assert_eq!(client.ask("SET a 1\r\n"), "+OK\r\n");
    node.is_mute.store(true, Ordering::Relaxed);
    let [write, read] = [client.ask("SET a 2\r\n"), client.ask("GET a\r\n")];
    assert!(write.starts_with("-ERR outcome unknown: "), "{write}");
    assert!(read.starts_with("-CLUSTERDOWN "), "{read}");
    node.is_mute.store(false, Ordering::Relaxed);
    while client.ask("SET a 3\r\n") != "+OK\r\n" {}
    assert_eq!(client.ask("GET a\r\n"), "$1\r\n3\r\n");
    let addr = running.addr();
    running.stop();
    assert_eq!(client.receive_all(), "");
    assert!(TcpStream::connect(addr).is_err(), "nobody listens any more");
}

#[test]
fn cannot_start_without_seeds_or_on_a_taken_port() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = ProxyOptions::new(taken, Vec::new());
    assert!(matches!(start(nobody), Err(ServerError::NoSeeds)));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = listener.local_addr().unwrap();
    let options = ProxyOptions::new(listen, vec!["127.0.0.1:1".to_owned()]);
    assert!(matches!(start(options), Err(ServerError::Listen { addr, .. }) if addr == listen));
}
