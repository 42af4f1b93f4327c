//! What the process knows of one connection.

use core::fmt::Write as _;
use core::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering::Relaxed};
use parking_lot::Mutex;
use ringfort_resp::{CommandSpec, commands};
use std::os::fd::AsRawFd as _;

/// Lines of MONITOR that wait for the monitor's worker, bytes; a monitor with more is cut.
const MONITOR_BYTES_MAX: usize = 8 << 20;
/// The record of a connection that has sent no command.
const NO_COMMAND: u16 = u16::MAX;

/// The addresses of a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Address {
    /// The client's.
    pub peer: String,
    /// That of the listener.
    pub local: String,
    /// The system's number of the socket.
    pub fd: i32,
}

impl Address {
    /// The addresses of a socket; empty as far as the system does not know them any more.
    pub fn of(socket: &tokio::net::TcpStream) -> Self {
        let text = |addr: std::io::Result<core::net::SocketAddr>| {
            addr.map_or_else(|_| String::new(), |addr| addr.to_string())
        };
        Self { peer: text(socket.peer_addr()), local: text(socket.local_addr()), fd: socket.as_raw_fd() }
    }
}

/// What a client says of itself.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) name: String,
    pub(crate) lib_name: String,
    pub(crate) lib_version: String,
}

/// How much memory a session holds, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Held {
    /// Input that is not decoded.
    pub(crate) input: usize,
    /// Room left in the input buffer.
    pub(crate) input_free: usize,
    /// Replies not sent.
    pub(crate) output: usize,
    /// Replies that wait for the replies before them.
    pub(crate) waiting: usize,
}

/// The kinds of connection that CLIENT LIST and CLIENT KILL tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Every connection that there is so far.
    Normal,
    /// None yet: kinds of Redis that no connection has here.
    Absent,
}

impl Kind {
    pub(crate) fn parse(name: &[u8]) -> Result<Self, String> {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if is("normal") {
            Ok(Self::Normal)
        } else if ["master", "replica", "slave", "pubsub"].into_iter().any(is) {
            Ok(Self::Absent)
        } else {
            Err(format!("ERR Unknown client type '{}'", String::from_utf8_lossy(name)))
        }
    }
}

/// One connection, written by its session and read by all.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) id: u64,
    pub(crate) address: Address,
    pub(crate) worker: usize,
    opened_us: u64,
    /// The worker's number of the client.
    key: AtomicU64,
    last_us: AtomicU64,
    /// Row of the last command.
    row: AtomicU16,
    pub(crate) is_readonly: AtomicBool,
    pub(crate) is_monitor: AtomicBool,
    pub(crate) is_paused: AtomicBool,
    pub(crate) is_no_evict: AtomicBool,
    pub(crate) is_no_touch: AtomicBool,
    pub(crate) is_resp3: AtomicBool,
    pub(crate) is_killed: AtomicBool,
    input: AtomicU64,
    input_free: AtomicU64,
    output: AtomicU64,
    waiting: AtomicU64,
    /// The most of `output` so far.
    output_peak: AtomicU64,
    pub(crate) names: Mutex<Names>,
    /// Lines for a monitor that its session has not taken yet.
    lines: Mutex<Vec<u8>>,
}

impl Record {
    pub(crate) fn new(id: u64, address: Address, worker: usize, now_us: u64) -> Self {
        Self {
            id,
            address,
            worker,
            opened_us: now_us,
            key: AtomicU64::new(0),
            last_us: AtomicU64::new(now_us),
            row: AtomicU16::new(NO_COMMAND),
            is_readonly: AtomicBool::new(false),
            is_monitor: AtomicBool::new(false),
            is_paused: AtomicBool::new(false),
            is_no_evict: AtomicBool::new(false),
            is_no_touch: AtomicBool::new(false),
            is_resp3: AtomicBool::new(false),
            is_killed: AtomicBool::new(false),
            input: AtomicU64::new(0),
            input_free: AtomicU64::new(0),
            output: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            output_peak: AtomicU64::new(0),
            names: Mutex::default(),
            lines: Mutex::default(),
        }
    }

    pub(crate) fn set_key(&self, key: u64) {
        self.key.store(key, Relaxed);
    }

    pub(crate) fn key(&self) -> u64 {
        self.key.load(Relaxed)
    }

    /// A command came.
    pub(crate) fn asked(&self, spec: &CommandSpec, now_us: u64) {
        self.row.store(spec.row() as u16, Relaxed);
        self.last_us.store(now_us, Relaxed);
    }

    /// Bytes went either way.
    pub(crate) fn hold(&self, held: Held, now_us: u64) {
        self.last_us.store(now_us, Relaxed);
        self.input.store(held.input as u64, Relaxed);
        self.input_free.store(held.input_free as u64, Relaxed);
        self.output.store(held.output as u64, Relaxed);
        self.waiting.store(held.waiting as u64, Relaxed);
        if self.output_peak.load(Relaxed) < held.output as u64 {
            self.output_peak.store(held.output as u64, Relaxed);
        }
    }

    /// Seconds since the connection was made.
    pub(crate) fn age_s(&self, now_us: u64) -> u64 {
        now_us.saturating_sub(self.opened_us) / 1_000_000
    }

    /// Seconds since bytes went either way.
    pub(crate) fn idle_s(&self, now_us: u64) -> u64 {
        now_us.saturating_sub(self.last_us.load(Relaxed)) / 1_000_000
    }

    /// Adds a line for this monitor; whether its worker must be told. One that does not take them is cut.
    pub(crate) fn push_line(&self, line: &[u8]) -> bool {
        let mut lines = self.lines.lock();
        if lines.len() + line.len() > MONITOR_BYTES_MAX {
            self.is_killed.store(true, Relaxed);
            return true;
        }
        lines.extend_from_slice(line);
        lines.len() == line.len()
    }

    pub(crate) fn take_lines(&self) -> Vec<u8> {
        core::mem::take(&mut *self.lines.lock())
    }

    fn flags(&self) -> String {
        let all = [
            (&self.is_monitor, 'O'),
            (&self.is_paused, 'b'),
            (&self.is_readonly, 'r'),
            (&self.is_no_evict, 'e'),
            (&self.is_no_touch, 'T'),
        ];
        let flags: String = all.into_iter().filter(|(is, _)| is.load(Relaxed)).map(|(_, f)| f).collect();
        if flags.is_empty() { "N".to_owned() } else { flags }
    }

    /// Its line in CLIENT LIST, with the line's end.
    pub(crate) fn write_line(&self, now_us: u64, out: &mut String) {
        let at = |value: &AtomicU64| value.load(Relaxed);
        let (input, free, output, waiting) =
            (at(&self.input), at(&self.input_free), at(&self.output), at(&self.waiting));
        let total = input + free + output + waiting + size_of::<Self>() as u64;
        let spec = commands::rows().nth(usize::from(self.row.load(Relaxed)));
        let names = self.names.lock();
        let Address { peer, local, fd } = &self.address;
        writeln!(
            out,
            "id={} addr={peer} laddr={local} fd={fd} name={} age={} idle={} flags={} db=0 sub=0 psub=0 ssub=0 multi=-1 \
             qbuf={input} qbuf-free={free} argv-mem=0 multi-mem=0 rbs={output} rbp={} obl={output} oll=0 \
             omem={waiting} tot-mem={total} events={} cmd={} user=default redir=-1 resp={} lib-name={} lib-ver={}",
            self.id,
            names.name,
            self.age_s(now_us),
            self.idle_s(now_us),
            self.flags(),
            at(&self.output_peak),
            if output > 0 { "rw" } else { "r" },
            spec.map_or("NULL", |spec| spec.name),
            if self.is_resp3.load(Relaxed) { 3 } else { 2 },
            names.lib_name,
            names.lib_version,
        )
        .expect("a String takes every write");
    }
}
