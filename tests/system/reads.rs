//! Reads of processes that were stopped: nothing older than what was acknowledged before the read was sent; of a follower,
//! nothing older than the setting allows.

use crate::client::{Client, moved_to};
use crate::cluster::{Cluster, Options, START};
use crate::wait::{eventually, now};
use rustix::process::Signal;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Time between two reads of a reader, which waits for no answer in between.
const PACE: Duration = Duration::from_millis(2);
/// How much longer than needed a process is stopped; scripts/pause-trials says 30.
fn pause_s() -> Duration {
    let seconds = std::env::var("PAUSE_S").ok().and_then(|s| s.parse().ok());
    Duration::from_secs(seconds.unwrap_or(1))
}

/// What was acknowledged, and when.
#[derive(Default)]
struct Acknowledged(Mutex<Vec<(Instant, u64)>>);

impl Acknowledged {
    fn add(&self, value: u64) {
        self.0.lock().expect("nobody panicked").push((now(), value));
    }

    /// The newest value that was acknowledged at `time`.
    fn at(&self, time: Instant) -> u64 {
        let all = self.0.lock().expect("nobody panicked");
        let before = all.partition_point(|(when, _)| *when <= time);
        before.checked_sub(1).map_or(0, |last| all[last].1)
    }

    fn newest(&self) -> u64 {
        self.at(now())
    }
}

/// Counts up the value of a key through the proxy until it is told to stop.
struct Writer {
    acknowledged: Arc<Acknowledged>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Writer {
    fn start(proxy: SocketAddr) -> Self {
        let (acknowledged, stop) = (Arc::<Acknowledged>::default(), Arc::<AtomicBool>::default());
        let (log, is_over) = (acknowledged.clone(), stop.clone());
        let thread = thread::spawn(move || {
            let mut client = Client::connect(proxy);
            let mut value = 0;
            while !is_over.load(Ordering::Relaxed) {
                value += 1;
                // What did not surely happen is followed by a greater value that did.
                if client.call(&format!("SET k {value}")) == "+OK\r\n" {
                    log.add(value);
                }
            }
        });
        Self { acknowledged, stop, thread }
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the writer ends");
    }
}

/// What became of a reader's reads.
#[derive(Debug, Default)]
struct Seen {
    values: u64,
    refusals: u64,
}

/// Sends reads of the key at its pace, whatever is answered, and checks every answer.
struct Reader {
    stop: mpsc::Sender<()>,
    sender: JoinHandle<()>,
    receiver: JoinHandle<Seen>,
    /// How many values it has seen so far.
    values: Arc<AtomicU64>,
}

impl Reader {
    /// `age`: how old an answer may be, of a client that says READONLY.
    fn start(name: &'static str, to: SocketAddr, age: Option<Duration>, log: &Arc<Acknowledged>) -> Self {
        let mut client = Client::connect(to);
        if age.is_some() {
            assert_eq!(client.call("READONLY"), "+OK\r\n");
        }
        let mut out = client.sender();
        // The process that it asks stands still for so long; the two are one socket.
        out.set_read_timeout(Some(pause_s() + START)).expect("it is a socket");
        let (stop, stopped) = mpsc::channel();
        let (sent, to_check) = mpsc::channel();
        let log = log.clone();
        let values = Arc::<AtomicU64>::default();
        let count = values.clone();
        let sender = thread::spawn(move || {
            while stopped.recv_timeout(PACE) == Err(mpsc::RecvTimeoutError::Timeout) {
                sent.send(now()).expect("the receiver lives");
                out.write_all(b"GET k\r\n").expect("the socket takes it");
            }
        });
        let receiver = thread::spawn(move || {
            let mut seen = Seen::default();
            for at in to_check {
                let reply = client.reply();
                if let Some(value) = reply.strip_prefix('$') {
                    let value: u64 = value.split("\r\n").nth(1).and_then(|v| v.parse().ok()).unwrap_or(0);
                    let least = log.at(at - age.unwrap_or_default());
                    assert!(least <= value, "{name}: read {value}, although {least} had been acknowledged");
                    seen.values += 1;
                    count.fetch_add(1, Ordering::Relaxed);
                } else {
                    let is_refusal = moved_to(&reply).is_some() || reply.starts_with("-CLUSTERDOWN");
                    assert!(is_refusal, "{name}: {reply}");
                    seen.refusals += 1;
                }
            }
            seen
        });
        Self { stop, sender, receiver, values }
    }

    /// Waits until it has seen some more values.
    fn wait_for_values(&self) {
        let first = self.values.load(Ordering::Relaxed);
        eventually("values", START, || match self.values.load(Ordering::Relaxed) - first {
            21.. => Ok(()),
            few => Err(format!("{few}; did its receiver end? {}", self.receiver.is_finished())),
        });
    }

    fn end(self) -> Seen {
        self.stop.send(()).expect("the sender lives");
        self.sender.join().expect("everything was sent");
        self.receiver.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn wait_for_writes(log: &Acknowledged, count: u64) {
    let first = log.newest();
    eventually("writes", START, || match log.newest() - first {
        n if count <= n => Ok(()),
        n => Err(format!("{n} of {count}")),
    });
}

/// Waits for a while in which `log` grows.
fn wait_while_written(log: &Acknowledged, time: Duration) {
    let end = now() + time;
    eventually(
        "the end of the pause",
        START + time,
        || if end <= now() { Ok(()) } else { Err(String::new()) },
    );
    wait_for_writes(log, 1);
}

/// A replica of the key's partition that does not lead it.
fn follower_of(cluster: &Cluster, key: &str) -> usize {
    (cluster.leader_of(key) + 1) % 3
}

#[test]
fn a_leader_that_was_stopped_answers_nothing_stale() {
    let mut cluster = Cluster::start(Options::default());
    let age = Duration::from_secs(1);
    for _ in 0..2 {
        let leader = cluster.leader_of("k");
        let follower = follower_of(&cluster, "k");
        let writer = Writer::start(cluster.proxy_address);
        let log = writer.acknowledged.clone();
        wait_for_writes(&log, 20);
        let [old, other] = [leader, follower].map(|n| cluster.addresses[n]);
        let readers = [
            ("the leader", old.client, None),
            ("the leader, READONLY", old.client, Some(age)),
            ("the leader's proxy", old.proxy, None),
            ("a proxy", cluster.proxy_address, None),
            ("a follower, READONLY", other.client, Some(age)),
        ];
        let readers = readers.map(|(name, to, age)| (name, Reader::start(name, to, age, &log)));
        wait_for_writes(&log, 50);
        cluster.node(leader).signal(Signal::STOP);
        // Another one leads and acknowledges newer values, while reads wait in the sockets of the old one.
        wait_for_writes(&log, 50);
        wait_while_written(&log, pause_s());
        cluster.node(leader).signal(Signal::CONT);
        wait_for_writes(&log, 50);
        for (name, reader) in readers {
            let seen = reader.end();
            eprintln!("{name}: {seen:?}");
            assert!(seen.values > 0, "{name}: {seen:?}");
        }
        writer.end();
        cluster.wait_until_equal();
    }
}

#[test]
fn a_follower_that_was_stopped_answers_nothing_older_than_the_setting_says() {
    let mut cluster = Cluster::start(Options::default());
    for age_ms in [1000, 100, 0] {
        assert_eq!(
            cluster.client().call(&format!("CONFIG SET replica-max-staleness-ms {age_ms}")),
            "+OK\r\n"
        );
        let follower = follower_of(&cluster, "k");
        eventually("the setting everywhere", START, || {
            let mut client = cluster.node_client(follower);
            let reply = client.call("CONFIG GET replica-max-staleness-ms");
            if reply.ends_with(&format!("\r\n{age_ms}\r\n")) { Ok(()) } else { Err(reply) }
        });
        let writer = Writer::start(cluster.proxy_address);
        let log = writer.acknowledged.clone();
        wait_for_writes(&log, 20);
        let age = Some(Duration::from_millis(age_ms));
        let reader = Reader::start("a follower", cluster.addresses[follower].client, age, &log);
        reader.wait_for_values();
        cluster.node(follower).signal(Signal::STOP);
        wait_while_written(&log, pause_s() + Duration::from_millis(age_ms));
        cluster.node(follower).signal(Signal::CONT);
        reader.wait_for_values();
        let seen = reader.end();
        eprintln!("age {age_ms} ms: {seen:?}");
        writer.end();
    }
}

#[test]
fn a_connection_says_readonly_and_readwrite_as_in_redis_cluster() {
    let cluster = Cluster::start(Options::default());
    assert_eq!(cluster.client().call("SET k v"), "+OK\r\n");
    let leader = cluster.leader_of("k");
    let mut client = cluster.node_client(follower_of(&cluster, "k"));
    assert_eq!(client.call("READONLY"), "+OK\r\n");
    eventually("the value", START, || match client.call("GET k") {
        value if value == "$1\r\nv\r\n" => Ok(()),
        other => Err(other),
    });
    assert_eq!(client.call("READWRITE"), "+OK\r\n");
    let moved = format!("-MOVED 7629 {}\r\n", cluster.addresses[leader].client);
    let value = "$1\r\nv\r\n";
    // What two servers of Redis 7 in cluster mode answer to the same.
    let expected = [
        ("GET k", moved.as_str()),
        ("READONLY", "+OK\r\n"),
        ("GET k", value),
        ("EXISTS k", ":1\r\n"),
        ("TTL k", ":-1\r\n"),
        ("STRLEN k", ":1\r\n"),
        ("MGET {k}a k", "*2\r\n$-1\r\n$1\r\nv\r\n"),
        ("MGET k other", "-CROSSSLOT Keys in request don't hash to the same slot\r\n"),
        ("READWRITE", "+OK\r\n"),
        ("GET k", &moved),
        ("READONLY", "+OK\r\n"),
        ("SET k w", &moved),
        ("INCR k", &moved),
        ("DEL k", &moved),
        ("GETDEL k", &moved),
        ("GETEX k", &moved),
        ("READONLY x", "-ERR wrong number of arguments for 'readonly' command\r\n"),
        ("GET k", value),
        ("RESET", "+RESET\r\n"),
        ("GET k", &moved),
    ];
    let pipeline: String = expected.iter().map(|(line, _)| format!("{line}\r\n")).collect();
    client.sender().write_all(pipeline.as_bytes()).expect("the socket takes it");
    for (line, reply) in expected {
        assert_eq!(client.reply(), reply, "{line}");
    }
}
