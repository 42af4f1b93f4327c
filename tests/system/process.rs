//! One child process, which never outlives its test.

use crate::wait::eventually;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// A running `ringfort` with its output in a file. Dropping it kills it; so does the end of the test's own process, for
/// `--parent-pipe` watches the pipe that is held here.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `ringfort` with these arguments, appending its output to `log`.
    pub(crate) fn start(args: &[&str], log: &Path) -> Self {
        // RINGFORT_BIN names another folder of binaries, such as that of the release build.
        let folder = std::env::var_os("RINGFORT_BIN").map(PathBuf::from);
        let binary = folder.map_or_else(|| env!("CARGO_BIN_EXE_ringfort").into(), |f| f.join("ringfort"));
        Self::spawn(Command::new(binary).args(args), log)
    }

    /// Starts the binary of these tests' own build, in which failpoints are, under the control file `control`.
    #[cfg(debug_assertions)]
    pub(crate) fn start_with_failpoints(args: &[&str], log: &Path, control: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringfort"));
        Self::spawn(command.args(args).env(ringfort::failpoint::CONTROL, control), log)
    }

    fn spawn(command: &mut Command, log: &Path) -> Self {
        let open = || File::options().create(true).append(true).open(log).expect("a log file");
        let child =
            command.stdin(Stdio::piped()).stdout(open()).stderr(open()).spawn().expect("the binary runs");
        Self { child, log: log.to_owned() }
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What each of its threads does now: name, state, ticks of user and system time, where it waits in the kernel.
    pub(crate) fn threads(&self) -> String {
        let tasks = format!("/proc/{}/task", self.id());
        let Ok(threads) = std::fs::read_dir(tasks) else { return String::new() };
        let describe = |thread: std::fs::DirEntry| {
            let read = |name: &str| std::fs::read_to_string(thread.path().join(name)).unwrap_or_default();
            let stat = read("stat");
            let field = |n: usize| stat.rsplit(") ").next().and_then(|s| s.split(' ').nth(n)).unwrap_or("");
            let (name, waits_in) = (read("comm"), read("wchan"));
            format!("{} {} {}+{} {waits_in}\n", name.trim(), field(0), field(11), field(12))
        };
        threads.flatten().map(describe).collect()
    }

    /// All that it, and earlier processes with the same file, have said.
    pub(crate) fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// SIGKILL, and waits for the end.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("the process is there");
    }

    /// SIGTERM, and waits for a planned stop.
    #[track_caller]
    pub(crate) fn stop(&mut self) {
        self.signal(Signal::TERM);
        let status = self.exit_status(Duration::from_secs(20));
        assert!(status.success(), "a planned stop ended with {status}:\n{}", self.output());
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn exit_status(&mut self, limit: Duration) -> ExitStatus {
        eventually("the end of the process", limit, || {
            self.child.try_wait().expect("a child").ok_or_else(|| "it runs".to_owned())
        })
    }

    /// Waits until it ends by itself with exit code 1, and returns its lines that begin with `error:`.
    #[track_caller]
    pub(crate) fn refusal(mut self) -> Vec<String> {
        let status = self.exit_status(Duration::from_secs(20));
        assert_eq!(status.code(), Some(1), "{}", self.output());
        self.output().lines().filter(|line| line.starts_with("error:")).map(str::to_owned).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
