//! One child process: started, listened to, started again when it dies, stopped when its phase has come or it is dismissed.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::cli::output::relay;
use crate::clock::{Clock as _, SystemClock};
use crate::config::reason;

use super::{readable, say};
use ringfort_proxy::logging::{self, Format};

/// First wait before a dead child is started again; it doubles with each early death.
const BACKOFF_MIN: Duration = Duration::from_millis(200);

/// Longest wait before a dead child is started again.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// A child that lived this long was well: the wait starts from [`BACKOFF_MIN`] again.
const WELL_AFTER: Duration = Duration::from_secs(10);

/// How long a child may take to stop after SIGTERM before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest line that is passed on in one piece; a longer one is cut into several.
const LINE_BYTES_MAX: usize = 4096;

/// How far the supervisor is, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Everything runs.
    Run,
    /// The proxy stops.
    StopProxy,
    /// The nodes stop.
    StopNodes,
    /// What is left is killed.
    Kill,
}

/// What is started.
#[derive(Debug, Clone)]
pub(super) struct ChildSpec {
    /// Its name in messages and before each of its lines.
    pub(super) label: String,
    pub(super) program: PathBuf,
    pub(super) args: Vec<OsString>,
}

/// A child process, which a task watches over.
pub(super) struct Child {
    label: String,
    pid: watch::Receiver<Option<u32>>,
    dismissed: watch::Sender<bool>,
}

impl Child {
    /// Starts it, and keeps it running until the phase reaches `stop_at` or it is dismissed.
    pub(super) fn start(spec: ChildSpec, stop_at: Phase, phase: watch::Receiver<Phase>) -> Self {
        let (pid, pids) = watch::channel(None);
        let (dismissed, is_dismissed) = watch::channel(false);
        let label = spec.label.clone();
        tokio::spawn(supervise(spec, End { phase, stop_at, is_dismissed }, pid));
        Self { label, pid: pids, dismissed }
    }

    pub(super) fn label(&self) -> &str {
        &self.label
    }

    /// Its process id, while it runs.
    pub(super) fn pid(&self) -> Option<u32> {
        *self.pid.borrow()
    }

    /// Has it stop, alone and for good.
    pub(super) fn dismiss(&self) {
        self.dismissed.send_replace(true);
    }

    /// Returns when it has been stopped.
    ///
    /// # Cancel safety
    /// It can be asked again.
    pub(super) async fn ended(&self) {
        // The task holds the other end for as long as it watches.
        let mut pid = self.pid.clone();
        while pid.changed().await.is_ok() {}
    }
}

/// When a child is to end.
struct End {
    phase: watch::Receiver<Phase>,
    stop_at: Phase,
    is_dismissed: watch::Receiver<bool>,
}

impl End {
    fn has_come(&self) -> bool {
        *self.is_dismissed.borrow() || self.stop_at <= *self.phase.borrow()
    }

    /// Returns once it has come.
    async fn comes(&mut self) {
        tokio::select! {
            () = reached(&mut self.phase, |phase| self.stop_at <= *phase) => {}
            () = reached(&mut self.is_dismissed, |is_dismissed| *is_dismissed) => {}
        }
    }

    /// Returns once even a child that stops is killed.
    async fn is_kill(&mut self) {
        reached(&mut self.phase, |phase| Phase::Kill <= *phase).await;
    }
}

async fn supervise(spec: ChildSpec, mut end: End, pid: watch::Sender<Option<u32>>) {
    let mut backoff = BACKOFF_MIN;
    let mut deaths: u64 = 0;
    while !end.has_come() {
        let started_us = SystemClock.now().boot_us;
        let died = match Running::start(&spec) {
            Ok(mut child) => {
                pid.send_replace(child.process.id());
                if let (Some(id), 1..) = (child.process.id(), deaths) {
                    say(&format!("{} runs again (pid {id})", spec.label));
                }
                let status = tokio::select! {
                    status = child.process.wait() => Some(status),
                    () = end.comes() => None,
                };
                let id = pid.send_replace(None);
                match status {
                    Some(status) => {
                        child.drain().await;
                        format!("(pid {}) {}", id.unwrap_or(0), status.map_or_else(|e| reason(&e), how))
                    }
                    None => return child.stop(&spec.label, &mut end).await,
                }
            }
            Err(error) => format!("cannot be started: {}", reason(&error)),
        };
        deaths += 1;
        let lived = Duration::from_micros(SystemClock.now().boot_us.saturating_sub(started_us));
        if WELL_AFTER <= lived {
            backoff = BACKOFF_MIN;
        }
        say(&format!("{} {died}; starting it again in {}", spec.label, readable(backoff)));
        tokio::select! {
            () = sleep(backoff) => {}
            () = end.comes() => {}
        }
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

/// Returns once the value is a wanted one.
async fn reached<T>(value: &mut watch::Receiver<T>, is_wanted: impl FnMut(&T) -> bool) {
    if value.wait_for(is_wanted).await.is_err() {
        // Who could say so is gone without a word. Do nothing rather than stop.
        std::future::pending::<()>().await;
    }
}

/// A started process.
struct Running {
    process: tokio::process::Child,
    /// Its stdin: when this end closes, however that comes, the child stops ([`crate::cli::process::stop_with_parent`]).
    _tie: Option<tokio::process::ChildStdin>,
    relays: [JoinHandle<()>; 2],
}

impl Running {
    fn start(spec: &ChildSpec) -> std::io::Result<Self> {
        let mut process = Command::new(&spec.program)
            .args(&spec.args)
            // A group of its own, so that Ctrl-C of the terminal reaches only the supervisor.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let _tie = process.stdin.take();
        let relays = [
            tokio::spawn(pass_on(process.stdout.take(), spec.label.clone(), false)),
            tokio::spawn(pass_on(process.stderr.take(), spec.label.clone(), true)),
        ];
        Ok(Self { process, _tie, relays })
    }

    /// SIGTERM, then SIGKILL after [`STOP_TIMEOUT`] or when the phase says so.
    async fn stop(mut self, label: &str, end: &mut End) {
        // The process is not reaped before `wait` below returns, so its id is still its own.
        let pid = self.process.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        if let Some(pid) = pid {
            let _ = kill_process(pid, Signal::TERM);
        }
        let in_order = tokio::select! {
            _ = self.process.wait() => true,
            () = sleep(STOP_TIMEOUT) => {
                say(&format!("{label} did not stop within {}: killing it", readable(STOP_TIMEOUT)));
                false
            }
            () = end.is_kill() => false,
        };
        if !in_order {
            let _ = self.process.start_kill();
            let _ = self.process.wait().await;
        }
        self.drain().await;
        say(&format!("{label} {}", if in_order { "stopped" } else { "was killed" }));
    }

    /// Waits for the last lines of a process that has ended.
    async fn drain(self) {
        for relay in self.relays {
            // A grandchild may hold the pipe open: do not wait for that.
            let _ = timeout(Duration::from_secs(1), relay).await;
        }
    }
}

/// Passes lines on with the child's name in each.
async fn pass_on(from: Option<impl AsyncRead + Unpin>, label: String, to_stderr: bool) {
    let Some(from) = from else { return };
    let mut lines = Lines::new(&label, logging::format() == Some(Format::Json) && to_stderr);
    let mut from = BufReader::new(from);
    while let Ok(bytes @ [_, ..]) = from.fill_buf().await {
        let len = bytes.len();
        lines.take(bytes, |line| relay(line, to_stderr));
        from.consume(len);
    }
    lines.end(|line| relay(line, to_stderr));
}

/// Cuts bytes into lines of at most [`LINE_BYTES_MAX`] and puts a name into each: `[n1] ` before a line of text,
/// `"process":"n1"` into a JSON object.
struct Lines {
    label: String,
    is_json: bool,
    /// What has come of the line.
    line: Vec<u8>,
    /// Whether the piece before was cut off at the longest line, so that this one goes on with its line.
    is_cut: bool,
}

impl Lines {
    fn new(label: &str, is_json: bool) -> Self {
        Self { label: label.to_owned(), is_json, line: Vec::new(), is_cut: false }
    }

    fn take(&mut self, bytes: &[u8], mut emit: impl FnMut(&[u8])) {
        for &byte in bytes {
            if byte != b'\n' {
                self.line.push(byte);
            }
            let is_full = LINE_BYTES_MAX <= self.line.len();
            if byte == b'\n' || is_full {
                self.emit(byte != b'\n', &mut emit);
            }
        }
    }

    fn end(&mut self, mut emit: impl FnMut(&[u8])) {
        if !self.line.is_empty() {
            self.emit(false, &mut emit);
        }
    }

    fn emit(&mut self, is_cut: bool, emit: &mut impl FnMut(&[u8])) {
        let is_piece = is_cut || self.is_cut;
        emit(&if self.is_json { self.json(is_piece) } else { self.text() });
        self.line.clear();
        self.is_cut = is_cut;
    }

    fn text(&self) -> Vec<u8> {
        let mut line = format!("[{}] ", self.label).into_bytes();
        line.extend_from_slice(&self.line);
        line
    }

    /// A line of the child's log with its name; anything else it says as the message of an object.
    fn json(&self, is_piece: bool) -> Vec<u8> {
        let whole = if is_piece { None } else { self.line.strip_prefix(b"{") };
        if let Some(rest) = whole.filter(|rest| rest.len() > 1 && rest.ends_with(b"}")) {
            let mut line = format!("{{\"process\":{},", serde_json::json!(self.label)).into_bytes();
            line.extend_from_slice(rest);
            return line;
        }
        let message = String::from_utf8_lossy(&self.line);
        serde_json::json!({ "process": self.label, "level": "ERROR", "message": message })
            .to_string()
            .into_bytes()
    }
}

fn how(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn shell(script: &str) -> ChildSpec {
        ChildSpec {
            label: "test".to_owned(),
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
        }
    }

    fn run<F: Future>(test: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
            .block_on(async { timeout(Duration::from_secs(30), test).await.expect("within 30 s") })
    }

    /// The id of the process that runs once it is another than `old`.
    async fn next_pid(child: &mut Child, old: Option<u32>) -> u32 {
        let pid = child.pid.wait_for(|pid| pid.is_some() && *pid != old).await.expect("supervised");
        pid.expect("is_some was asked for")
    }

    fn signal(pid: u32, signal: Signal) {
        kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
    }

    fn is_there(pid: u32) -> bool {
        Path::new(&format!("/proc/{pid}")).exists()
    }

    #[test]
    fn a_killed_child_is_started_again() {
        run(async {
            let (phase, phases) = watch::channel(Phase::Run);
            let mut child = Child::start(shell("read x"), Phase::StopNodes, phases);
            let first = next_pid(&mut child, None).await;
            signal(first, Signal::KILL);
            let second = next_pid(&mut child, Some(first)).await;
            assert!(!is_there(first));
            assert!(is_there(second));
            phase.send_replace(Phase::StopNodes);
            child.ended().await;
            assert!(!is_there(second));
        });
    }

    #[test]
    fn the_proxy_stops_before_the_nodes() {
        run(async {
            let (phase, phases) = watch::channel(Phase::Run);
            let mut proxy = Child::start(shell("read x"), Phase::StopProxy, phases.clone());
            let mut node = Child::start(shell("read x"), Phase::StopNodes, phases);
            let proxy_pid = next_pid(&mut proxy, None).await;
            let node_pid = next_pid(&mut node, None).await;
            phase.send_replace(Phase::StopProxy);
            proxy.ended().await;
            assert!(!is_there(proxy_pid));
            assert!(is_there(node_pid));
            phase.send_replace(Phase::StopNodes);
            node.ended().await;
            assert!(!is_there(node_pid));
        });
    }

    #[test]
    fn one_that_is_dismissed_stops_alone() {
        run(async {
            let (_phase, phases) = watch::channel(Phase::Run);
            let mut stays = Child::start(shell("read x"), Phase::StopNodes, phases.clone());
            let mut goes = Child::start(shell("read x"), Phase::StopNodes, phases);
            let (stays_pid, goes_pid) = (next_pid(&mut stays, None).await, next_pid(&mut goes, None).await);
            goes.dismiss();
            goes.ended().await;
            goes.ended().await;
            assert_eq!(goes.pid(), None);
            assert!(!is_there(goes_pid) && is_there(stays_pid));
        });
    }

    #[test]
    fn a_child_that_ignores_sigterm_is_killed_at_once_when_asked() {
        run(async {
            let (phase, phases) = watch::channel(Phase::Run);
            let mut child = Child::start(shell("trap '' TERM; read x; read y"), Phase::StopNodes, phases);
            let pid = next_pid(&mut child, None).await;
            phase.send_replace(Phase::StopNodes);
            phase.send_replace(Phase::Kill);
            child.ended().await;
            assert!(!is_there(pid));
        });
    }

    #[test]
    fn a_program_that_is_not_there_is_tried_again_until_stopped() {
        run(async {
            let (phase, phases) = watch::channel(Phase::Run);
            let spec = ChildSpec { program: "/no/such/program".into(), ..shell("") };
            let child = Child::start(spec, Phase::StopNodes, phases);
            tokio::task::yield_now().await;
            assert_eq!(child.pid(), None);
            phase.send_replace(Phase::StopNodes);
            child.ended().await;
        });
    }

    #[test]
    fn lines_get_the_name_and_are_bounded() {
        let mut lines = Lines::new("n1", false);
        let mut all = Vec::new();
        let mut emit = |line: &[u8]| all.push(String::from_utf8(line.to_vec()).unwrap());
        lines.take(b"one\ntw", &mut emit);
        lines.take(b"o\n\n", &mut emit);
        lines.take(&[b'x'; LINE_BYTES_MAX + 1], &mut emit);
        lines.end(&mut emit);
        lines.end(&mut emit);
        assert_eq!(all[..3], ["[n1] one", "[n1] two", "[n1] "]);
        assert_eq!(all[3].len(), "[n1] ".len() + LINE_BYTES_MAX);
        assert_eq!(all[4..], ["[n1] x"]);
    }

    #[test]
    fn json_lines_stay_json() {
        let mut lines = Lines::new("n1", true);
        let mut all = Vec::new();
        let mut emit = |line: &[u8]| all.push(serde_json::from_slice::<serde_json::Value>(line).unwrap());
        lines.take(b"{\"level\":\"INFO\",\"message\":\"ready\"}\nerror: \"x\"\n\n", &mut emit);
        lines.take(&[b"{\"message\":\"", &[b'x'; LINE_BYTES_MAX][..], b"\"}\n{}\n"].concat(), &mut emit);
        let of = |level: &str, message: &str| serde_json::json!({"process": "n1", "level": level, "message": message});
        assert_eq!(all[..3], [of("INFO", "ready"), of("ERROR", "error: \"x\""), of("ERROR", "")]);
        // A line that had to be cut is told in pieces.
        assert!(all[3]["message"].as_str().unwrap().starts_with("{\"message\":\"xxx"));
        assert_eq!(all[4..], [of("ERROR", &format!("{}\"}}", "x".repeat(12))), of("ERROR", "{}")]);
    }
}
