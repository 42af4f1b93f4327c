//! What happens at some time.

use crate::net::Host;

/// One event of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    Tick {
        node: usize,
        worker: usize,
        life: u64,
    },
    Turn {
        node: usize,
        worker: usize,
        life: u64,
    },
    Flush {
        node: usize,
        worker: usize,
        life: u64,
    },
    Mail {
        node: usize,
        worker: usize,
        life: u64,
    },
    JobRun {
        node: usize,
        worker: usize,
        life: u64,
    },
    JobDone {
        node: usize,
        worker: usize,
        life: u64,
    },
    /// Packets of a connection reach one end.
    Deliver {
        conn: usize,
        end: usize,
        life: u64,
    },
    /// One end of a connection learns that it broke.
    Lost {
        conn: usize,
        end: usize,
        life: u64,
    },
    /// The next bytes that a broken connection left behind reach their end.
    Late {
        number: u64,
    },
    /// What was held up while a host was paused happens.
    Resume {
        host: Host,
    },
    Connect {
        conn: usize,
        life: u64,
    },
    Snapshot {
        number: u64,
    },
    SnapshotReport {
        number: u64,
        is_delivered: bool,
    },
    ProxyTurn {
        proxy: usize,
        life: u64,
    },
    /// A client asks something.
    Ask {
        client: usize,
    },
    /// A client looks whether an operation takes too long.
    Timeout {
        client: usize,
        asked: u64,
    },
    /// A client asks the meta group for a change of the settings.
    Setting,
    /// An operator asks for other members.
    Change,
    /// Proxies ask for a newer map.
    ProxyMaps,
    Fault,
    Block {
        from: Host,
        to: Host,
    },
    Restart {
        node: usize,
    },
    Unblock {
        from: Host,
        to: Host,
    },
    Start {
        node: usize,
    },
    Die {
        node: usize,
        life: u64,
        is_crash: bool,
    },
    Room {
        node: usize,
    },
    /// A node asks another one for a newer map, and keeps what it has.
    FollowMap {
        node: usize,
    },
    /// A node that never gets well restarts once more.
    Flap {
        node: usize,
    },
    Heal,
    Verdict,
    Settled,
}
