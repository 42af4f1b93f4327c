//! Everything too much at once: crowds, deep pipelines, large values, slow readers, a stalled follower, strangers on the
//! peer port. Nothing acknowledged is lost, and memory stays within what docs/configuration.md states.
//!
//! `scripts/overload` runs the first test in its big form and shows its figures.

use crate::client::{Client, encode, encode_line};
use crate::cluster::{Cluster, Options, START};
use crate::process::Process;
use crate::wait::{eventually, now};
use ringfort_loadgen::check;
use ringfort_store::VALUE_BYTES_MAX;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

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
    load: Duration,
    /// Most memory of a process, bytes.
    rss_max: usize,
}

impl Size {
    fn from_environment() -> Self {
        match std::env::var_os("RINGFORT_OVERLOAD") {
            // Slow readers beyond what all clients of a process may hold: they are cut.
            Some(_) => Self {
                connections: 10_000,
                slow_readers: 40,
                pipelines: 16,
                load: Duration::from_secs(30),
                rss_max: 3584 * MIB,
            },
            None => Self {
                connections: 2000,
                slow_readers: 4,
                pipelines: 3,
                load: Duration::from_secs(6),
                rss_max: 1536 * MIB,
            },
        }
    }
}

/// A client that does one thing after the other, and how long each took.
struct Bystander {
    is_over: Arc<AtomicBool>,
    phase: Arc<AtomicUsize>,
    thread: JoinHandle<[Vec<Duration>; 2]>,
}

impl Bystander {
    fn start(address: SocketAddr) -> Self {
        let (is_over, phase) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let thread = {
            let (is_over, phase) = (Arc::clone(&is_over), Arc::clone(&phase));
            std::thread::spawn(move || {
                let mut took = [Vec::new(), Vec::new()];
                let mut client = Client::connect(address);
                for i in 0.. {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    let started = now();
                    let reply = client.call(&format!("SET bystander:{} v", i % 64));
                    // While a leader changes it may be told to try again.
                    assert!(reply == "+OK\r\n" || reply.starts_with('-'), "{reply}");
                    took[phase.load(Ordering::Relaxed)].push(now() - started);
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
        for (mut took, what) in took.into_iter().zip(["before", "during"]) {
            took.sort_unstable();
            let at =
                |percent: usize| took.get((took.len() * percent / 100).min(took.len().saturating_sub(1)));
            println!("bystander {what}: {} writes, p50 {:?}, p99 {:?}", took.len(), at(50), at(99));
        }
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
    let bystander = Bystander::start(cluster.proxy_address);
    let options = cluster.check_options(size.load);
    let before = now();
    eventually("a baseline", START, || {
        if now() - before > size.load / 3 { Ok(()) } else { Err("it is taken".to_owned()) }
    });

    bystander.phase.store(1, Ordering::Relaxed);
    let checking = std::thread::spawn(move || check::run(&options));
    let mut crowd: Vec<Client> = Vec::new();
    for i in 0..size.connections {
        let mut client = Client::connect(ports[i % 2]);
        client.send(&encode_line("PING")).expect("sent");
        crowd.push(client);
    }
    let mut slow: Vec<Client> = Vec::new();
    for i in 0..2 * size.slow_readers {
        let mut client = Client::connect(ports[i % 2]);
        client.send(&encode_line("GET {t}v").repeat(8)).expect("sent");
        slow.push(client);
    }
    // One that leads neither the large value, whose readers are slow, nor the check's time.
    let stalled = (leader + 1) % 3;
    let pipelines: Vec<_> = (0..2 * size.pipelines)
        .map(|i| {
            let (port, key) = (ports[i % 2], format!("{{t}}pipeline{i}"));
            std::thread::spawn(move || (pipeline(port, &key), key))
        })
        .collect();
    cluster.node(stalled).signal(Signal::STOP);
    for (i, client) in crowd.iter_mut().enumerate() {
        assert_eq!(client.reply(), "+PONG\r\n", "client {i} of a crowd");
    }
    let done: Vec<_> = pipelines.into_iter().map(|p| p.join().expect("a pipeline ends")).collect();
    cluster.node(stalled).signal(Signal::CONT);
    let report = checking.join().expect("the check ends").expect("the check can run");
    bystander.end();
    let mut peak = Vec::new();
    for n in 0..3 {
        peak.push((format!("n{}", n + 1), cluster.node(n).peak_rss()));
    }
    peak.push(("proxy".to_owned(), cluster.proxy().peak_rss()));
    let holding = slow.len();
    drop((slow, crowd));

    println!("check: {report}, failed {}, errors {:?}", report.failed, report.errors);
    assert!(report.is_clean(), "{report}\n{:#?}", report.violations);
    for ((last, errors), key) in done {
        println!("{key}: {last} of {PIPELINE} acknowledged, {errors} errors");
        // A number that was not acknowledged may have been counted; one that was stays.
        let kept = eventually("the number", START, || {
            let reply = cluster.client().call(&format!("GET {key}"));
            let number = reply.lines().nth(1).and_then(|number| number.parse::<usize>().ok());
            number.ok_or(reply)
        });
        assert!(
            (last..=last + errors).contains(&kept),
            "{key}: {kept}, acknowledged {last}, {errors} errors"
        );
    }
    for (what, bytes) in &peak {
        println!("{what}: peak {} MiB", bytes / MIB);
    }
    println!(
        "{} connections, {holding} slow readers of {} MiB values",
        size.connections,
        VALUE_BYTES_MAX / MIB
    );
    for (what, bytes) in peak {
        assert!(bytes < size.rss_max, "{what}: {} MiB", bytes / MIB);
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

impl Process {
    /// Most bytes of memory that it has had in use.
    fn peak_rss(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its memory");
        let kib: usize = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kib << 10
    }
}
