//! Everything too much at once: crowds, deep pipelines, large values, slow readers, a stalled follower, strangers on the
//! peer port. Nothing acknowledged is lost, and memory stays within what docs/configuration.md states.
//!
//! `scripts/overload` runs the first test in its big form and shows its figures.

use crate::client::{Client, encode, encode_line};
use crate::cluster::{Cluster, Options, START};
use crate::process::Process;
use crate::wait::{eventually, now};
use ringfort_loadgen::check;
use ringfort_proxy::clients::CLIENTS_BYTES_MAX;
use ringfort_store::VALUE_BYTES_MAX;
use ringfort_wire::request::CREDIT_BYTES;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;
/// Commands that one client sends before it looks at a reply.
const PIPELINE: usize = 10_000;
/// Of a node, while it knows not whom it talks to (`GREETINGS_MAX`).
const GREETINGS_MAX: usize = 1024;
/// Time that it gives each of them (`GREETING_TIMEOUT`).
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);

/// How much of it.
struct Size {
    /// Connections, half of them on the proxy and half on a node.
    connections: usize,
    /// Clients on each of the two that ask for large values and read nothing.
    slow_readers: usize,
    /// Clients on each of the two that send [`PIPELINE`] commands at once.
    pipelines: usize,
    /// Length of the part without overload, and least length of each part with one more.
    part: Duration,
}

/// What comes in one part after the other, and stays.
const PARTS: [&str; 5] = [
    "ordinary load",
    "+ connections",
    "+ slow readers",
    "+ pipelines, stalled follower",
    "pipelines over, follower back",
];

/// Operations a second of ordinary clients all the while, in the baseline too.
const ORDINARY_RATE: f64 = 1000.0;

impl Size {
    fn from_environment() -> Self {
        match std::env::var_os("RINGFORT_OVERLOAD") {
            // Slow readers beyond what all clients of a process may hold: they are cut.
            Some(_) => {
                Self { connections: 10_000, slow_readers: 40, pipelines: 16, part: Duration::from_secs(6) }
            }
            None => Self { connections: 2000, slow_readers: 4, pipelines: 3, part: Duration::from_secs(1) },
        }
    }

    /// Most bytes that a process may hold beside what it has before: the sum of "Memory bound" in docs/configuration.md for
    /// one worker, all of whose partitions may have a full queue.
    fn bound(&self, is_node: bool) -> usize {
        let partitions = usize::from(Options::default().partitions);
        let busy = 2 * self.slow_readers + 2 * self.pipelines;
        let clients = 2 * CLIENTS_BYTES_MAX + busy * (384 << 10) + self.connections * (2 << 10);
        let frame = 64 * MIB;
        if is_node {
            let led = (64 + 16 + 4) * MIB;
            let (other_nodes, links) = (2, 1);
            // Commands wait for a partition only if a link or a client has brought them.
            let queues = (partitions * led).min(links * CREDIT_BYTES + partitions * 4 * MIB);
            clients + queues + other_nodes * 64 * MIB + links * (frame + (8 + 48) * MIB)
        } else {
            clients + partitions * 16 * MIB + 3 * (CREDIT_BYTES + frame)
        }
    }
}

/// A client that does one thing after the other, and how long each took.
struct Bystander {
    is_over: Arc<AtomicBool>,
    phase: Arc<AtomicUsize>,
    thread: JoinHandle<[Vec<Duration>; PARTS.len()]>,
}

impl Bystander {
    fn start(address: SocketAddr) -> Self {
        let (is_over, phase) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let thread = {
            let (is_over, phase) = (Arc::clone(&is_over), Arc::clone(&phase));
            std::thread::spawn(move || {
                let mut took = [const { Vec::new() }; PARTS.len()];
                let mut client = Client::connect(address);
                for i in 0.. {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    let started = now();
                    let reply = client.call(&format!("SET bystander:{} v", i % 64));
                    // While a leader changes it may be told to try again.
                    assert!(reply == "+OK\r\n" || reply.starts_with('-'), "{reply}");
                    took[phase.load(Ordering::Relaxed).min(PARTS.len() - 1)].push(now() - started);
                }
                took
            })
        };
        Self { is_over, phase, thread }
    }

    #[expect(clippy::print_stdout, reason = "figures, shown with --nocapture")]
    fn end(self) {
        self.is_over.store(true, Ordering::Relaxed);
        let took = self.thread.join().expect("the bystander is served to the end");
        for (part, (mut took, what)) in took.into_iter().zip(PARTS).enumerate() {
            took.sort_unstable();
            let us = |permille: usize| {
                let at = (took.len() * permille / 1000).min(took.len().saturating_sub(1));
                took.get(at).map_or(0, Duration::as_micros)
            };
            println!("part {part} | {what} | {} | {} | {} | {}", took.len(), us(500), us(990), us(1000));
        }
    }

    /// The next part begins.
    fn next_part(&self) {
        self.phase.fetch_add(1, Ordering::Relaxed);
    }
}

/// Sends all of a pipeline, then reads the replies: each is the next number, or an error. Returns the last number.
fn pipeline(address: SocketAddr, key: &str) -> (usize, usize) {
    let mut client = Client::connect(address);
    let mut sender = client.sender();
    let commands = encode_line(&format!("INCR {key}")).repeat(PIPELINE);
    let sending = std::thread::spawn(move || sender.write_all(&commands));
    let (mut last, mut errors) = (0, 0);
    for i in 0..PIPELINE {
        let reply = client.reply();
        match reply.strip_prefix(':') {
            Some(number) => {
                let number = number.trim().parse().expect("a number");
                assert!(last < number && number <= i + 1, "{key}: {number} after {last}, reply {i}");
                last = number;
            }
            None => errors += usize::from(reply.starts_with('-')),
        }
    }
    sending.join().expect("the sender ends").expect("all is sent");
    (last, errors)
}

#[test]
fn everything_too_much_at_once_loses_nothing_and_stays_in_bounds() {
    let size = Size::from_environment();
    raise_open_files();
    let mut cluster = Cluster::start(Options::default());
    let value = vec![b'v'; VALUE_BYTES_MAX];
    eventually("a value at the size limit", START, || {
        let mut client = cluster.client();
        client.send(&encode(&[b"SET", b"{t}v", &value])).map_err(|e| e.to_string())?;
        let reply = client.reply();
        if reply == "+OK\r\n" { Ok(()) } else { Err(reply) }
    });
    let leader = cluster.leader_of("{t}v");
    let ports = [cluster.proxy_address, cluster.addresses[leader].client];
    let options =
        check::Options { rate: Some(ORDINARY_RATE), ..cluster.check_options(size.part * PARTS.len() as u32) };
    let checking = std::thread::spawn(move || check::run(&options));
    let bystander = Bystander::start(cluster.proxy_address);
    let pass = |since: Instant| {
        eventually("the end of a part", START, || {
            if now() - since > size.part { Ok(()) } else { Err("not yet".to_owned()) }
        });
        bystander.next_part();
        now()
    };
    let since = pass(now());
    let rss_before = cluster.rss();
    let mut crowd: Vec<Client> = Vec::new();
    for i in 0..size.connections {
        let mut client = Client::connect(ports[i % 2]);
        client.send(&encode_line("PING")).expect("sent");
        crowd.push(client);
    }
    for (i, client) in crowd.iter_mut().enumerate() {
        assert_eq!(client.reply(), "+PONG\r\n", "client {i} of a crowd");
    }
    for ((what, bytes), (_, before)) in cluster.rss().into_iter().zip(&rss_before) {
        println!("crowd | {what} | {} MiB before | {} MiB with it", before / MIB, bytes / MIB);
    }
    let since = pass(since);
    let mut slow: Vec<Client> = Vec::new();
    for i in 0..2 * size.slow_readers {
        let mut client = Client::connect(ports[i % 2]);
        // Some ask for more than a client may leave unread, and are cut; the others hold what they asked for.
        let count = if i % 4 < 2 { 8 } else { 1 };
        client.send(&encode_line("GET {t}v").repeat(count)).expect("sent");
        slow.push(client);
    }
    let since = pass(since);
    // One that leads neither the large value, whose readers are slow, nor the check's time.
    let stalled = (leader + 1) % 3;
    let pipelines: Vec<_> = (0..2 * size.pipelines)
        .map(|i| {
            let (port, key) = (ports[i % 2], format!("{{t}}pipeline{i}"));
            std::thread::spawn(move || (pipeline(port, &key), key))
        })
        .collect();
    cluster.node(stalled).signal(Signal::STOP);
    let done: Vec<_> = pipelines.into_iter().map(|p| p.join().expect("a pipeline ends")).collect();
    let since = pass(since);
    cluster.node(stalled).signal(Signal::CONT);
    pass(since);
    let report = checking.join().expect("the check ends").expect("the check can run");
    bystander.end();
    let mut peak = Vec::new();
    for n in 0..3 {
        peak.push((format!("n{}", n + 1), cluster.node(n).peak_rss()));
    }
    peak.push(("proxy".to_owned(), cluster.proxy().peak_rss()));
    let holding = slow.len();
    drop((slow, crowd));

    println!("check | {report}, failed {}, errors {:?}", report.failed, report.errors);
    assert!(report.is_clean(), "{report}\n{:#?}", report.violations);
    let failed = |i: usize| done.iter().skip(i).step_by(2).map(|((_, errors), _)| errors).sum::<usize>();
    println!("pipelines | {} of {PIPELINE} commands", done.len());
    println!("errors | {} through the proxy, {} at a node", failed(0), failed(1));
    // Where a leader stays, no command waits for as long as the proxy's deadline.
    let is_moved = cluster.leader_of("{t}v") != leader;
    assert!(is_moved || failed(0) == 0, "slow readers hold up the replies of others: {done:?}");
    for ((last, errors), key) in done {
        // A number that was not acknowledged may have been counted; one that was stays.
        let kept = eventually("the number", START, || {
            let reply = cluster.client().call(&format!("GET {key}"));
            match reply.lines().nth(1).and_then(|number| number.parse::<usize>().ok()) {
                Some(number) => Ok(number),
                // The node that was asked may have led no more: then nothing was counted.
                None if reply == "$-1\r\n" => Ok(0),
                None => Err(reply),
            }
        });
        assert!(
            (last..=last + errors).contains(&kept),
            "{key}: {kept}, acknowledged {last}, {errors} errors"
        );
    }
    let bound = |what: &str| {
        let before = rss_before.iter().find(|(other, _)| other == what).map_or(0, |(_, bytes)| *bytes);
        before + size.bound(what != "proxy")
    };
    for (what, bytes) in &peak {
        println!("peak | {what} | {} MiB, bound {} MiB", bytes / MIB, bound(what) / MIB);
    }
    println!(
        "{} connections, {holding} slow readers of {} MiB values",
        size.connections,
        VALUE_BYTES_MAX / MIB
    );
    for (what, bytes) in peak {
        assert!(bytes < bound(&what), "{what}: {} MiB", bytes / MIB);
    }
    cluster.wait_until_equal();
}

#[test]
fn strangers_who_stall_on_the_peer_port_give_way() {
    raise_open_files();
    let mut cluster = Cluster::start(Options::default());
    let peer = cluster.addresses[0].peer;
    let connect = || TcpStream::connect(peer).expect("a connection");
    // Sooner than after the time that each of them has, so that it was for the others.
    let _crowd = eventually("the oldest gives way", START, || {
        let before = now();
        let mut oldest = connect();
        let crowd: Vec<TcpStream> = (0..GREETINGS_MAX).map(|_| connect()).collect();
        oldest.set_read_timeout(Some(START)).expect("set");
        let end = oldest.read(&mut [0]);
        assert!(matches!(&end, Ok(0)) || end.is_err_and(|e| e.kind() == ErrorKind::ConnectionReset));
        let took = now() - before;
        if took < GREETING_TIMEOUT * 4 / 5 { Ok(crowd) } else { Err(format!("{took:?}")) }
    });
    // New links are greeted all the while.
    cluster.restart_proxy();
    assert_eq!(cluster.client().call("SET k v"), "+OK\r\n");
}

/// As many open files as this user may have.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("within the hard limit");
}

impl Cluster {
    /// Bytes of memory that each process has in use.
    fn rss(&mut self) -> Vec<(String, usize)> {
        let mut rss: Vec<_> =
            (0..3).map(|n| (format!("n{}", n + 1), self.node(n).memory("VmRSS:"))).collect();
        rss.push(("proxy".to_owned(), self.proxy().memory("VmRSS:")));
        rss
    }
}

impl Process {
    /// Most bytes of memory that it has had in use.
    fn peak_rss(&self) -> usize {
        self.memory("VmHWM:")
    }

    /// A line of its status, bytes.
    fn memory(&self, name: &str) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("its memory");
        let kib: usize = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kib << 10
    }
}
