//! Faults on purpose, for tests on real processes (`--faults`, RINGFORT FAULT): cut links, a full disk, a slow one.
//!
//! A *cut* is one direction: nothing that one node (or the proxies) sends arrives here any more, as if a cable were cut
//! on the way in. The kernel drops the packets (a socket filter that accepts none), so all that TCP makes of it is real:
//! connections stay, nothing is acknowledged, unacknowledged links time out, new ones do not come about, and what was not
//! given up arrives late after the heal. The other direction is cut at the other process.
//!
//! Each fault has an end, which a thread of its own keeps: a tester who dies leaves nothing broken. A process that was not
//! started with `--faults` has none of this but one load of a pointer that is null.

use super::{now, peer::invalid};
use core::fmt::Write as _;
use core::net::SocketAddr;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use parking_lot::{Condvar, Mutex};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use socket2::{SockFilter, SockRef};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;
use std::time::Instant;
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::sync::watch;

/// Longest that one fault lasts.
pub const FAULT_MAX: Duration = Duration::from_secs(600);
/// Under this name all proxies are cut off.
pub const PROXY: &str = "proxy";
/// Remote ends of accepted links that are remembered; beyond it those that are gone are forgotten.
const GREETED_MAX: usize = 4096;

const NOT_ENABLED: &str = "ERR faults are for tests and not enabled in this process: start it with --faults";

static FAULTS: OnceLock<Faults> = OnceLock::new();

#[derive(Debug)]
struct Faults {
    state: Mutex<State>,
    /// The state has changed: there may be an earlier end.
    wake: Condvar,
    /// Tells links that are held up.
    changed: watch::Sender<()>,
    is_disk_full: AtomicBool,
    is_disk_slow: AtomicBool,
    /// The disk may be quick again.
    quick: Condvar,
}

#[derive(Debug)]
struct State {
    /// Who is at the other end, by its address: the nodes' peer ports, and who greeted.
    nodes: BTreeMap<SocketAddr, String>,
    greeted: BTreeMap<SocketAddr, String>,
    /// Until when nothing of somebody arrives.
    cuts: BTreeMap<String, Instant>,
    disk_full: Option<Instant>,
    /// How much longer a sync takes, and until when.
    disk_slow: Option<(Duration, Instant)>,
}

impl State {
    fn is_cut(&self, name: &str) -> bool {
        self.cuts.contains_key(name)
    }

    fn name(&self, address: SocketAddr) -> Option<&str> {
        self.nodes.get(&address).or_else(|| self.greeted.get(&address)).map(String::as_str)
    }

    fn next_end(&self) -> Option<Instant> {
        let slow = self.disk_slow.map(|(_, until)| until);
        self.cuts.values().copied().chain(self.disk_full).chain(slow).min()
    }

    fn end_until(&mut self, time: Instant) {
        self.cuts.retain(|_, until| time < *until);
        self.disk_full = self.disk_full.filter(|until| time < *until);
        self.disk_slow = self.disk_slow.filter(|(_, until)| time < *until);
    }
}

/// Lets this process be told to misbehave; `nodes` are the peer ports of the cluster. Only the first call counts.
///
/// # Errors
/// The system has no thread to give.
pub fn enable(nodes: impl IntoIterator<Item = (String, SocketAddr)>) -> io::Result<()> {
    let nodes = nodes.into_iter().map(|(name, address)| (address, name)).collect();
    let state =
        State { nodes, greeted: BTreeMap::new(), cuts: BTreeMap::new(), disk_full: None, disk_slow: None };
    let faults = Faults {
        state: Mutex::new(state),
        wake: Condvar::new(),
        changed: watch::Sender::new(()),
        is_disk_full: AtomicBool::new(false),
        is_disk_slow: AtomicBool::new(false),
        quick: Condvar::new(),
    };
    if FAULTS.set(faults).is_ok() {
        tracing::warn!("faults are enabled: anyone who reaches a client port can cut links of this process");
        std::thread::Builder::new().name("faults".to_owned()).spawn(keep_time)?;
    }
    Ok(())
}

/// Ends each fault in time. Never returns.
fn keep_time() {
    let Some(faults) = FAULTS.get() else { return };
    let mut state = faults.state.lock();
    loop {
        match state.next_end() {
            Some(end) if end <= now() => faults.change(&mut state, |state| state.end_until(now())),
            Some(end) => drop(faults.wake.wait_until(&mut state, end)),
            None => faults.wake.wait(&mut state),
        }
    }
}

/// Whether the disk is to count as full.
pub fn is_disk_full() -> bool {
    FAULTS.get().is_some_and(|faults| faults.is_disk_full.load(Ordering::Relaxed))
}

/// Called ahead of a sync: waits for as long as the disk is to be slower, or until it is quick again.
pub fn hold_sync() {
    let Some(faults) = FAULTS.get().filter(|faults| faults.is_disk_slow.load(Ordering::Relaxed)) else {
        return;
    };
    let began = now();
    let mut state = faults.state.lock();
    while let Some((longer, _)) = state.disk_slow
        && now() < began + longer
    {
        faults.quick.wait_until(&mut state, began + longer);
    }
}

/// Connects; from a node that is cut off no answer comes.
pub(super) async fn connect(address: &str) -> io::Result<TcpStream> {
    let Some(faults) = FAULTS.get() else { return TcpStream::connect(address).await };
    let mut last = invalid("the address resolves to nothing");
    for address in lookup_host(address).await? {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        let is_cut = |state: &State| state.name(address).is_some_and(|name| state.is_cut(name));
        let was_cut = is_cut(&faults.state.lock());
        cut(&socket, was_cut)?;
        match socket.connect(address).await {
            Ok(stream) => {
                // A change meanwhile has not found the socket.
                cut(&stream, is_cut(&faults.state.lock()))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// A link was accepted from the node of this name, or from a proxy when it has none. Waits for as long as it is cut off.
pub async fn greeted(stream: &TcpStream, name: &str) {
    let (Some(faults), Ok(address)) = (FAULTS.get(), stream.peer_addr()) else { return };
    let name = if name.is_empty() { PROXY } else { name };
    let mut changes = faults.changed.subscribe();
    {
        let mut state = faults.state.lock();
        if GREETED_MAX <= state.greeted.len() {
            let mut open = BTreeSet::new();
            let note = |_: &OwnedFd, address| {
                open.insert(address);
            };
            if each_socket(note).is_ok() {
                state.greeted.retain(|address, _| open.contains(address));
            }
        }
        state.greeted.insert(address, name.to_owned());
    }
    loop {
        let is_cut = faults.state.lock().is_cut(name);
        // It fails only on a socket that is of no use any more.
        let _ = cut(stream, is_cut);
        if !is_cut || changes.changed().await.is_err() {
            return;
        }
    }
}

/// RINGFORT FAULT: the state as JSON, or a change of it. The error is the text of the error reply.
///
/// # Errors
/// Faults are not enabled, or the arguments are none.
pub(crate) fn command(args: &[&[u8]]) -> Result<String, String> {
    let faults = FAULTS.get().ok_or(NOT_ENABLED)?;
    let is = |word: &[u8], name: &str| word.eq_ignore_ascii_case(name.as_bytes());
    let time = |millis: &[u8]| {
        let millis = core::str::from_utf8(millis).ok().and_then(|text| text.parse().ok());
        let time = millis.map(Duration::from_millis).filter(|time| *time <= FAULT_MAX);
        time.ok_or_else(|| format!("ERR a fault lasts 0 to {} ms", FAULT_MAX.as_millis()))
    };
    let until = |millis: &[u8]| time(millis).map(|time| now() + time);
    let mut state = faults.state.lock();
    match args {
        [] => return Ok(describe(&state)),
        [word] if is(word, "heal") => faults.change(&mut state, |state| {
            state.cuts.clear();
            (state.disk_full, state.disk_slow) = (None, None);
        }),
        [word, millis] if is(word, "disk-full") => {
            let until = until(millis)?;
            faults.change(&mut state, |state| state.disk_full = Some(until));
        }
        [word, longer, millis] if is(word, "disk-slow") => {
            let slow = (time(longer)?, until(millis)?);
            faults.change(&mut state, |state| state.disk_slow = Some(slow));
        }
        [word, name, millis] if is(word, "cut") => {
            let name = String::from_utf8_lossy(name).into_owned();
            if name != PROXY && !state.nodes.values().any(|node| *node == name) {
                return Err(format!(
                    "ERR '{}' is no node of the config file, and not '{PROXY}'",
                    name.escape_debug()
                ));
            }
            let until = until(millis)?;
            faults.change(&mut state, |state| {
                state.cuts.insert(name, until);
            });
        }
        _ => {
            return Err("ERR RINGFORT FAULT takes CUT node milliseconds, DISK-FULL milliseconds, \
                 DISK-SLOW longer-ms milliseconds, or HEAL"
                .to_owned());
        }
    }
    Ok(describe(&state))
}

fn describe(state: &State) -> String {
    let left = |until: &Instant| {
        u64::try_from(until.saturating_duration_since(now()).as_millis()).unwrap_or(u64::MAX)
    };
    let cuts: BTreeMap<_, _> = state.cuts.iter().map(|(name, until)| (name, left(until))).collect();
    let slow = state.disk_slow.as_ref().map(|(_, until)| left(until));
    serde_json::json!({ "cuts": cuts, "disk_full": state.disk_full.as_ref().map(left), "disk_slow": slow })
        .to_string()
}

impl Faults {
    /// Makes a change and has it take effect on everything that is open.
    fn change(&self, state: &mut State, change: impl FnOnce(&mut State)) {
        change(state);
        self.is_disk_full.store(state.disk_full.is_some(), Ordering::Relaxed);
        self.is_disk_slow.store(state.disk_slow.is_some(), Ordering::Relaxed);
        self.quick.notify_all();
        if let Err(error) = cut_open_sockets(state) {
            tracing::error!(%error, "links cannot be cut");
        }
        self.wake.notify_one();
        self.changed.send_replace(());
        let mut text = String::new();
        for name in state.cuts.keys() {
            let _ = write!(text, " {name}");
        }
        tracing::warn!(
            cut_off = text.trim_start(),
            disk_full = state.disk_full.is_some(),
            disk_slow = state.disk_slow.is_some(),
            "faults"
        );
    }
}

/// Cuts or heals every socket of this process whose other end has a name.
fn cut_open_sockets(state: &State) -> io::Result<()> {
    each_socket(|socket, address| {
        if let Some(name) = state.name(address) {
            // An end that is closed meanwhile needs no cut.
            let _ = cut(socket, state.is_cut(name));
        }
    })
}

/// Calls `act` with every connected socket of this process and the address of its other end.
fn each_socket(mut act: impl FnMut(&OwnedFd, SocketAddr)) -> io::Result<()> {
    let me = pidfd_open(getpid(), PidfdFlags::empty())?;
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let Some(number) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // It may be closed by now, or no socket.
        let Ok(file) = pidfd_getfd(&me, number, PidfdGetfdFlags::empty()) else { continue };
        let address = SockRef::from(&file).peer_addr().ok().and_then(|address| address.as_socket());
        if let Some(address) = address {
            act(&file, address);
        }
    }
    Ok(())
}

/// Has the kernel drop every packet that arrives at a socket, or no more.
fn cut(socket: &impl AsFd, is_cut: bool) -> io::Result<()> {
    /// `BPF_RET | BPF_K` of 0 bytes.
    const NOTHING: SockFilter = SockFilter::new(0x06, 0, 0, 0);
    let socket = SockRef::from(socket);
    if is_cut {
        return socket.attach_filter(&[NOTHING]);
    }
    match socket.detach_filter() {
        // It had none.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
