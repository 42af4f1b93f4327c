//! Three replicas of one group, and more that come later, joined by a perfect network and an instant disk; time stands still
//! unless a test moves it.

use super::machine::PartitionMachine;
use super::membership::Change;
use super::raft::tests::{NoDisk, start};
use super::raft::{ELECTION_TICKS_MAX, HEARTBEAT_TICKS, Message, ProposeError, TICK_MS};
use super::reads::ExecutedReads;
use super::*;
use ringfort_resp::{Command, Protocol};
use ringfort_store::{LargeValue, MemoryLimit, Policy};
use ringfort_wire::entry::OpKind;
use ringfort_wire::request::CommandBody;

/// What a replica has sent and answered.
struct Captured {
    messages: Vec<(u64, Message)>,
    replies: Vec<(Origin, String)>,
    /// For the reply to a read.
    room: usize,
    keeps_parked: bool,
    parked: Vec<(Origin, usize)>,
}

impl Default for Captured {
    fn default() -> Self {
        Self {
            messages: Vec::new(),
            replies: Vec::new(),
            room: usize::MAX,
            keeps_parked: true,
            parked: Vec::new(),
        }
    }
}

impl Ports for Captured {
    fn reply(&mut self, origin: Origin, status: Status<'_>) {
        let text = match status {
            Status::Done(bytes) => String::from_utf8_lossy(bytes).trim_end().to_owned(),
            other => format!("{other:?}"),
        };
        self.replies.push((origin, text));
    }

    fn reply_large(&mut self, origin: Origin, head: &[u8], value: LargeValue) {
        let value = String::from_utf8_lossy(value.as_ref());
        self.replies.push((origin, format!("{}{value}", String::from_utf8_lossy(head))));
    }

    fn room(&self, _: Origin) -> usize {
        self.room
    }

    fn reserve(&mut self, _: Origin, _: usize) {}

    fn park(&mut self, _: GroupId, read: Submission<'_>, reply_bytes: usize, _: u64) -> bool {
        self.parked.push((read.origin, reply_bytes));
        self.keeps_parked
    }

    fn send(&mut self, _: GroupId, _: u32, to: &NodeId, message: &Message) {
        let replica = to.0.trim_start_matches('n').parse().unwrap();
        self.messages.push((replica, message.clone()));
    }
}

struct Trio {
    groups: Vec<Group>,
    ports: Vec<Captured>,
    executed: Vec<ExecutedReads>,
    /// The ages at which followers answered, µs.
    ages: Vec<u64>,
    ticks: usize,
    now: Now,
    /// Replicas that hear and say nothing.
    cut: Vec<u64>,
    /// Replicas without room for entries, as after a write that found their disk full.
    full: Vec<u64>,
    /// Whether queued writes stay in their queues.
    holds_writes: bool,
    /// Whether what replica 1 writes to its disk stays on the way there, and the numbers of that work.
    has_slow_disk: bool,
    unpersisted: Vec<u64>,
}

impl Trio {
    fn new() -> Self {
        let groups = (1..=3).map(|replica| replica_of(replica, seats(1, &[1, 2, 3]))).collect();
        let ports = (0..3).map(|_| Captured::default()).collect();
        let mut trio = Self {
            groups,
            ports,
            executed: (0..3).map(|_| ExecutedReads::default()).collect(),
            ages: Vec::new(),
            ticks: 0,
            now: Now { boot_us: 1_000_000, wall_ms: 1_000_000 },
            cut: Vec::new(),
            full: Vec::new(),
            holds_writes: false,
            has_slow_disk: false,
            unpersisted: Vec::new(),
        };
        trio.groups[0].campaign();
        trio.settle();
        assert!(trio.groups[0].raft().is_leader());
        trio
    }

    /// Replica 3 needs entries that the leader's log has no more, and the leader has no snapshot.
    fn with_one_that_needs_a_snapshot() -> Self {
        let mut trio = Self::new();
        trio.cut = vec![3];
        trio.write(1, 1, &[b"k", b"v"], Command::Set);
        trio.settle();
        let (index, term) = trio.groups[0].snapshot_begin().expect("there is something");
        trio.groups[0].compacted(index, term, Membership::founded(&[1, 2, 3]));
        trio.groups[0].snapshot_lost();
        trio.cut.clear();
        trio.tick(2 * HEARTBEAT_TICKS);
        assert!(trio.groups[0].take_snapshot_wanted());
        trio
    }

    /// The map gives replica 3's seat to the new replica 4, which starts with nothing.
    fn reseat(&mut self) {
        let seats = seats(2, &[1, 2, 4]);
        for group in &mut self.groups {
            group.set_seats(seats.clone());
        }
        self.groups.push(replica_of(4, seats));
        self.ports.push(Captured::default());
        self.executed.push(ExecutedReads::default());
    }

    fn voters(&self, replica: usize) -> &[u64] {
        &self.groups[replica - 1].raft().membership().voters
    }

    /// Lets every replica work until nothing is left to do.
    fn settle(&mut self) {
        loop {
            let mut is_idle = true;
            for (n, (group, ports)) in self.groups.iter_mut().zip(&mut self.ports).enumerate() {
                if !self.holds_writes {
                    group.propose(self.now, ports);
                }
                while let Some((number, _)) = group.take_ready(ports) {
                    group.apply_taken(ports).unwrap();
                    if n == 0 && self.has_slow_disk {
                        self.unpersisted.push(number);
                    } else {
                        group.persisted(number, ports);
                    }
                    is_idle = false;
                }
            }
            for replica in 1..=self.groups.len() {
                self.serve_reads(replica);
                self.finish_reads(replica);
            }
            for from in 1..=self.groups.len() as u64 {
                for (to, message) in std::mem::take(&mut self.ports[from as usize - 1].messages) {
                    is_idle = false;
                    let is_lost = self.cut.contains(&from)
                        || self.cut.contains(&to)
                        || (self.full.contains(&to) && message.is_append());
                    if !is_lost && let Some(group) = self.groups.get_mut(to as usize - 1) {
                        group.step(message, &mut self.ports[to as usize - 1]);
                    }
                }
            }
            if is_idle && !self.groups.iter().any(|g| g.raft().has_ready()) {
                return;
            }
        }
    }

    fn tick(&mut self, ticks: usize) {
        for _ in 0..ticks {
            self.now.boot_us += TICK_MS * 1000;
            self.now.wall_ms += TICK_MS;
            self.ticks += 1;
            for (group, ports) in self.groups.iter_mut().zip(&mut self.ports) {
                group.tick(1, self.ticks.is_multiple_of(HEARTBEAT_TICKS), ports);
                group.reconcile(false);
            }
            self.settle();
        }
    }

    /// As [`Self::tick`], and leaders give leadership to the preferred replica.
    fn preferring(&mut self, ticks: u64) {
        for _ in 0..ticks {
            self.tick(1);
            for group in &mut self.groups {
                group.transfer_to_preferred();
            }
            self.settle();
        }
    }

    fn submission<'a>(id: u64, body: &'a [u8]) -> Submission<'a> {
        let origin = Origin::Link { link: 1, id };
        Submission { origin, session: 0, seq: 0, acked: 0, is_after_queued: true, body }
    }

    fn write(&mut self, replica: usize, id: u64, args: &[&[u8]], command: Command) {
        let body = body(command, args);
        self.groups[replica - 1].write(
            OpKind::Command,
            Self::submission(id, &body),
            &mut self.ports[replica - 1],
        );
    }

    fn read(&mut self, replica: usize, id: u64, key: &[u8]) {
        let body = body(Command::Get, &[key]);
        let (ports, executed) = (&mut self.ports[replica - 1], &mut self.executed[replica - 1]);
        self.groups[replica - 1].read(Self::submission(id, &body), self.now, ports, executed);
    }

    fn serve_reads(&mut self, replica: usize) {
        let (ports, executed) = (&mut self.ports[replica - 1], &mut self.executed[replica - 1]);
        self.groups[replica - 1].serve_reads(self.now, ports, executed);
    }

    /// Whether a read was executed that is not answered.
    fn has_executed(&self, replica: usize) -> bool {
        !self.executed[replica - 1].is_empty()
    }

    fn finish_reads(&mut self, replica: usize) {
        let (group, ports) = (&mut self.groups[replica - 1], &mut self.ports[replica - 1]);
        let (ages, now) = (&mut self.ages, self.now);
        self.executed[replica - 1]
            .drain(|_, read, bytes| ages.extend(group.finish_read(read, bytes, now, ports)));
    }

    /// A read of a READONLY client.
    fn read_as_replica(&mut self, replica: usize, id: u64, key: &[u8]) {
        let body = body(Command::Get, &[key]);
        let read = Submission { is_after_queued: false, ..Self::submission(id, &body) };
        let (ports, executed) = (&mut self.ports[replica - 1], &mut self.executed[replica - 1]);
        self.groups[replica - 1].read_as_replica(read, self.now, ports, executed);
    }

    /// Every follower answers at once at ages below this.
    fn set_read_age_max(&mut self, ms: u64) {
        self.groups.iter_mut().for_each(|group| group.set_read_age_max(ms * 1000));
    }

    fn rounds(&self, replica: usize) -> u64 {
        self.groups[replica - 1].status().activity.read_rounds
    }

    /// The answers to request `id` so far.
    fn answers(&self, id: u64) -> Vec<&str> {
        let all = self.ports.iter().flat_map(|p| &p.replies);
        all.filter(|(o, _)| *o == Origin::Link { link: 1, id }).map(|(_, text)| text.as_str()).collect()
    }
}

fn seats(epoch: u64, wanted: &[u64]) -> Seats {
    let peers = (1..=4).map(|r| (r, NodeId(format!("n{r}")))).collect();
    let wanted = wanted.to_vec();
    Seats {
        epoch,
        joining: wanted.clone(),
        returned: Vec::new(),
        wanted,
        turned_epoch: 0,
        peers,
        preferred: 1,
        drained: Vec::new(),
        rank: 0,
    }
}

fn replica_of(replica: u64, seats: Seats) -> Group {
    let seats = Seats { rank: replica as usize - 1, ..seats };
    let machine = Machine::Partition(Box::new(PartitionMachine::new(0, 16383)));
    let raft = start(replica, &[1, 2, 3]);
    Group::new(GroupStart { id: GroupId(1), incarnation: 1, seats, raft, machine }, Rc::new(NoDisk)).unwrap()
}

fn body(command: Command, args: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    CommandBody::encode(&mut out, command as u16, Protocol::Resp2, args.iter());
    out
}

#[test]
fn a_write_is_answered_when_a_majority_has_it() {
    let mut trio = Trio::new();
    trio.cut = vec![2, 3];
    trio.write(1, 1, &[b"k", b"v"], Command::Set);
    trio.settle();
    assert!(trio.answers(1).is_empty(), "nobody else has it yet");
    trio.cut = vec![3];
    trio.tick(10);
    assert_eq!(trio.answers(1), ["+OK"]);
}

#[test]
fn a_follower_acknowledges_nothing_before_it_is_persisted() {
    let mut trio = Trio::new();
    trio.write(1, 1, &[b"k", b"v"], Command::Set);
    trio.groups[0].propose(trio.now, &mut trio.ports[0]);
    while let Some((number, _)) = trio.groups[0].take_ready(&mut trio.ports[0]) {
        trio.groups[0].apply_taken(&mut trio.ports[0]).unwrap();
        trio.groups[0].persisted(number, &mut trio.ports[0]);
    }
    for (to, message) in std::mem::take(&mut trio.ports[0].messages) {
        if to == 2 {
            trio.groups[1].step(message, &mut trio.ports[1]);
        }
    }
    let (number, work) = trio.groups[1].take_ready(&mut trio.ports[1]).unwrap();
    assert!(!work.entries.is_empty(), "the follower has something to write");
    assert!(trio.ports[1].messages.is_empty(), "it answers before that is written");
    trio.groups[1].persisted(number, &mut trio.ports[1]);
    assert!(!trio.ports[1].messages.is_empty());
}

#[test]
fn a_follower_answers_no_heartbeat_before_its_term_is_persisted() {
    let mut trio = Trio::new();
    trio.cut = vec![1];
    trio.tick(ELECTION_TICKS_MAX);
    trio.cut.clear();
    assert!(trio.groups[1].raft().is_leader());
    // Replica 1 hears of the new term, and its disk is slow.
    let beat = |trio: &mut Trio| {
        trio.groups[1].tick(1, true, &mut trio.ports[1]);
        for (to, message) in std::mem::take(&mut trio.ports[1].messages) {
            if to == 1 {
                trio.groups[0].step(message, &mut trio.ports[0]);
            }
        }
    };
    beat(&mut trio);
    let (number, work) = trio.groups[0].take_ready(&mut trio.ports[0]).unwrap();
    trio.groups[0].apply_taken(&mut trio.ports[0]).unwrap();
    assert!(work.hard_state.is_some(), "the term is to be written");
    beat(&mut trio);
    assert!(trio.ports[0].messages.is_empty(), "it answers before that is written");
    trio.groups[0].persisted(number, &mut trio.ports[0]);
    assert_eq!(trio.ports[0].messages.len(), 1, "now it may");
    beat(&mut trio);
    assert_eq!(trio.ports[0].messages.len(), 3, "and needs nothing else for the answers after that");
}

#[test]
fn a_follower_hears_of_a_commit_with_the_next_entry_or_heartbeat() {
    let mut trio = Trio::new();
    let applied = |trio: &Trio| trio.groups.iter().map(|g| g.raft().applied_index()).collect::<Vec<_>>();
    let start = applied(&trio)[0];
    for id in 1..=2 {
        trio.write(1, id, &[b"k", b"v"], Command::Set);
        trio.settle();
        assert_eq!(trio.answers(id), ["+OK"]);
    }
    assert_eq!(applied(&trio), [start + 2, start + 1, start + 1]);
    trio.tick(HEARTBEAT_TICKS);
    assert_eq!(applied(&trio), [start + 2; 3]);
}

#[test]
fn a_read_sees_the_write_queued_before_it() {
    let mut trio = Trio::new();
    trio.write(1, 1, &[b"k", b"v"], Command::Set);
    trio.read(1, 2, b"k");
    assert!(trio.answers(2).is_empty());
    trio.settle();
    trio.tick(1);
    assert_eq!(trio.answers(2), ["$1\r\nv"]);
}

#[test]
fn a_read_without_room_for_its_reply_is_parked_and_answered_when_it_is_asked_again() {
    let mut trio = Trio::new();
    trio.write(1, 1, &[b"k", b"value"], Command::Set);
    trio.settle();
    trio.ports[0].room = 10;
    trio.read(1, 2, b"k");
    trio.ports[0].room = 11;
    trio.read(1, 3, b"k");
    // Found by the length of the value alone.
    trio.ports[0].room = 4;
    trio.read(1, 4, b"k");
    trio.settle();
    let ids = trio.ports[0].parked.iter().map(|(origin, bytes)| (*origin, *bytes)).collect::<Vec<_>>();
    assert_eq!(ids, [(Origin::Link { link: 1, id: 2 }, 11), (Origin::Link { link: 1, id: 4 }, 5)]);
    assert_eq!((trio.answers(2), trio.answers(3)), (vec![], vec!["$5\r\nvalue"]));
    trio.ports[0].room = usize::MAX;
    trio.read(1, 2, b"k");
    trio.settle();
    assert_eq!(trio.answers(2), ["$5\r\nvalue"]);
    // What the port does not keep waits in the group.
    trio.ports[0].room = 4;
    trio.ports[0].keeps_parked = false;
    trio.read(1, 5, b"k");
    trio.tick(3);
    assert!(trio.answers(5).is_empty());
    trio.ports[0].room = usize::MAX;
    trio.tick(3);
    assert_eq!(trio.answers(5), ["$5\r\nvalue"]);
}

#[test]
fn a_read_executed_under_a_lease_that_ends_before_the_check_is_asked_of_a_quorum() {
    let mut trio = Trio::new();
    trio.write(1, 1, &[b"k", b"v"], Command::Set);
    trio.settle();
    trio.read(1, 2, b"k");
    assert!(trio.has_executed(1), "the lease of the write's round covers it");
    // The process is stopped between the execution and the check.
    trio.now.boot_us += 1_000_000;
    trio.finish_reads(1);
    assert!(trio.answers(2).is_empty(), "the lease was over when the answer would have left");
    trio.tick(2);
    assert_eq!(trio.answers(2), ["$1\r\nv"]);
}

#[test]
fn reads_are_served_by_rounds_after_a_transfer_has_voided_the_lease() {
    let mut trio = Trio::new();
    trio.cut = vec![2, 3];
    assert!(trio.groups[0].transfer(None), "a follower can be asked");
    trio.settle();
    trio.cut.clear();
    trio.tick(50); // the transfer is given up; same leader, same term, no lease
    assert!(trio.groups[0].raft().is_leader());
    trio.read(1, 1, b"k");
    trio.tick(2);
    assert_eq!(trio.answers(1), ["$-1"]);
}

#[test]
fn a_read_on_a_leader_that_steps_down_before_the_check_is_answered() {
    let mut trio = Trio::new();
    trio.write(1, 1, &[b"k", b"v"], Command::Set);
    trio.settle();
    trio.cut = vec![1];
    trio.tick(ELECTION_TICKS_MAX);
    assert!(trio.groups[1].raft().is_leader() || trio.groups[2].raft().is_leader());
    let mut alone = Trio::new();
    alone.write(1, 1, &[b"k", b"v"], Command::Set);
    alone.settle();
    alone.read(1, 2, b"k");
    assert!(alone.has_executed(1));
    // Without an answer for an election timeout a leader gives its office up, in the same turn as the read.
    for _ in 0..2 * ELECTION_TICKS_MAX {
        alone.groups[0].tick(1, false, &mut alone.ports[0]);
    }
    assert!(!alone.groups[0].raft().is_leader());
    alone.settle();
    assert_eq!(alone.answers(2).len(), 1, "answered once: {:?}", alone.answers(2));
}

#[test]
fn writes_under_way_are_retried_elsewhere_when_the_office_is_lost() {
    let mut trio = Trio::new();
    trio.cut = vec![1];
    trio.write(1, 1, &[b"k", b"v"], Command::Set);
    trio.settle();
    trio.tick(2 * ELECTION_TICKS_MAX);
    assert_eq!(trio.answers(1), ["Retry"]);
    trio.write(1, 2, &[b"k", b"v"], Command::Set);
    assert!(trio.answers(2)[0].starts_with("NotLeader"));
}

#[test]
fn a_returned_leader_has_nothing_that_was_never_acknowledged() {
    let mut trio = Trio::new();
    trio.cut = vec![1];
    trio.write(1, 1, &[b"k", b"lost"], Command::Set);
    trio.settle();
    trio.tick(2 * ELECTION_TICKS_MAX);
    let leader = (2..=3).find(|&r| trio.groups[r - 1].raft().is_leader()).unwrap();
    trio.write(leader, 2, &[b"k", b"new"], Command::Set);
    trio.settle();
    assert_eq!(trio.answers(2), ["+OK"]);
    trio.cut.clear();
    trio.tick(20);
    let digests: Vec<u64> = trio
        .groups
        .iter()
        .map(|g| match g.machine() {
            Machine::Partition(m) => m.digest(),
            Machine::Meta(_) => 0,
        })
        .collect();
    assert!(digests.windows(2).all(|d| d[0] == d[1]), "{digests:?}");
}

#[test]
fn an_expired_key_is_deleted_by_the_log_before_a_read_says_so() {
    let mut trio = Trio::new();
    trio.write(1, 1, &[b"k", b"v", b"PX", b"50"], Command::Set);
    trio.settle();
    trio.tick(10);
    trio.read(1, 2, b"k");
    trio.tick(2);
    assert_eq!(trio.answers(2), ["$-1"]);
    trio.tick(HEARTBEAT_TICKS);
    for group in &trio.groups {
        let Machine::Partition(m) = group.machine() else { panic!("a partition") };
        assert_eq!(m.store().len(), 0, "the deletion is an entry that every replica applies");
    }
}

/// Has replica 1 propose a memory limit of 10,000 bytes.
fn limited(policy: Policy) -> Trio {
    let mut trio = Trio::new();
    let limit = MemoryLimit { quota_bytes: 10_000, policy, ..MemoryLimit::default() };
    trio.groups[0].follow_limit(&limit);
    trio.settle();
    trio.tick(10);
    for group in &mut trio.groups {
        assert_eq!(group.status().limit.quota_bytes, 10_000, "every replica has it");
        group.follow_limit(&limit);
        assert!(!group.has_proposable(), "it is proposed once");
    }
    trio
}

fn bytes(trio: &Trio) -> Vec<u64> {
    trio.groups.iter().map(|g| g.status().bytes).collect()
}

#[test]
fn a_leader_makes_room_before_it_writes() {
    let mut trio = limited(Policy::AllKeysLru);
    trio.write(1, 1, &[b"hot", b"v"], Command::Set);
    for i in 0..2_000_u64 {
        // Several entries under way at once, and several writes in each.
        for j in 0..3 {
            trio.write(1, 2, &[format!("{i}-{j}").as_bytes(), &[b'v'; 60]], Command::Set);
            let now = trio.now;
            if j < 2 {
                trio.groups[0].propose(now, &mut trio.ports[0]);
            }
        }
        trio.settle();
        trio.ports.iter_mut().for_each(|p| p.replies.clear());
        if i % 5 == 0 {
            trio.tick(20);
            trio.read(1, 3, b"hot");
            trio.settle();
            assert_eq!(trio.answers(3), ["$1\r\nv"], "what is used is kept ({i})");
        }
        assert!(bytes(&trio)[0] <= 10_000, "{:?}", bytes(&trio));
    }
    trio.tick(20);
    assert_eq!(bytes(&trio)[1..], [bytes(&trio)[0]; 2]);
    assert!(bytes(&trio)[0] > 9_000, "{:?}", bytes(&trio));
    assert!(trio.groups.windows(2).all(|g| g[0].digest() == g[1].digest()));
    let evicted: Vec<u64> = trio.groups.iter().map(Group::evicted_keys).collect();
    assert!(evicted[0] > 5_500 && evicted[1..] == [0, 0], "only the leader counts: {evicted:?}");
}

#[test]
fn writes_that_were_queued_before_the_limit_count_as_well() {
    let mut trio = Trio::new();
    let limit = MemoryLimit { quota_bytes: 10_000, policy: Policy::AllKeysLru, ..MemoryLimit::default() };
    let batches = 2 * INFLIGHT_MAX;
    for i in 0..batches {
        if i == 2 {
            trio.groups[0].follow_limit(&limit);
        }
        trio.groups[0].queue_batch();
        // The last one is larger than the limit.
        for j in 0..if i == batches - 1 { 90 } else { 10 } {
            trio.write(1, 1, &[format!("{i}-{j}").as_bytes(), &[b'v'; 200]], Command::Set);
        }
    }
    trio.settle();
    trio.tick(10);
    assert_eq!(trio.answers(1), vec!["+OK"; 10 * batches + 80]);
    assert!(bytes(&trio)[0] <= 10_000, "{:?}", bytes(&trio));
}

#[test]
fn a_lowered_limit_evicts_without_a_write() {
    let mut trio = limited(Policy::AllKeysRandom);
    for i in 0..90 {
        trio.write(1, 1, &[format!("{i}").as_bytes(), &[b'v'; 60]], Command::Set);
    }
    trio.settle();
    assert!(bytes(&trio)[0] > 8_000);
    let limit = MemoryLimit { quota_bytes: 1_000, policy: Policy::AllKeysRandom, ..MemoryLimit::default() };
    trio.groups[0].follow_limit(&limit);
    trio.settle();
    trio.groups[0].evict_excess();
    trio.settle();
    assert!(bytes(&trio)[0] <= 1_000, "{:?}", bytes(&trio));
    trio.groups[0].evict_excess();
    assert!(!trio.groups[0].has_proposable(), "nothing is left to do");
}

#[test]
fn keys_without_an_expiry_stay_and_writes_are_refused_when_only_they_are_left() {
    let mut trio = limited(Policy::VolatileLru);
    for i in 0..80 {
        let key = format!("{i}");
        let expiring: [&[u8]; 4] = [key.as_bytes(), &[b'v'; 100], b"EX", b"1000"];
        trio.write(1, 1, &expiring[..if i < 60 { 2 } else { 4 }], Command::Set);
        trio.settle();
    }
    assert!(bytes(&trio)[0] <= 10_000);
    trio.ports.iter_mut().for_each(|p| p.replies.clear());
    for i in 0..60 {
        trio.write(1, 2, &[format!("more-{i}").as_bytes(), &[b'v'; 100]], Command::Set);
        trio.settle();
    }
    let answers = trio.answers(2);
    assert_eq!(answers[0], "+OK", "there were keys that expire");
    assert!(answers[59].starts_with("-OOM command not allowed"), "{answers:?}");
    assert!(bytes(&trio)[0] < 10_150, "one write passed the limit: {:?}", bytes(&trio));
    trio.write(1, 3, &[b"0", b"1"], Command::Del);
    trio.settle();
    trio.write(1, 4, &[b"0", b"v"], Command::Set);
    trio.settle();
    assert_eq!((trio.answers(3), trio.answers(4)), (vec![":2"], vec!["+OK"]));
}

#[test]
fn a_new_leader_goes_on_evicting() {
    let mut trio = limited(Policy::AllKeysLfu);
    for i in 0..300 {
        trio.write(1, 1, &[format!("{i}").as_bytes(), &[b'v'; 60]], Command::Set);
    }
    trio.cut = vec![1];
    trio.settle();
    trio.tick(2 * ELECTION_TICKS_MAX);
    let leader = (2..=3).find(|&r| trio.groups[r - 1].raft().is_leader()).unwrap();
    for i in 0..300 {
        trio.write(leader, 2, &[format!("n{i}").as_bytes(), &[b'v'; 60]], Command::Set);
        trio.settle();
    }
    trio.cut.clear();
    trio.tick(20);
    assert!(bytes(&trio).iter().all(|b| *b <= 10_000), "{:?}", bytes(&trio));
    assert!(trio.groups.windows(2).all(|g| g[0].digest() == g[1].digest()));
}

#[test]
fn a_new_replica_takes_the_seat_of_a_lost_one() {
    let mut trio = Trio::new();
    trio.write(1, 1, &[b"k", b"v"], Command::Set);
    trio.settle();
    trio.cut = vec![3];
    trio.reseat();
    trio.tick(20);
    assert_eq!(
        (trio.voters(1), trio.voters(2), trio.voters(4)),
        (&[1, 2, 4][..], &[1, 2, 4][..], &[1, 2, 4][..])
    );
    assert!(!trio.groups[0].raft().membership().is_joint());
    assert_eq!(trio.groups[3].digest(), trio.groups[0].digest());
    trio.cut = vec![2, 3];
    trio.write(1, 2, &[b"k", b"w"], Command::Set);
    trio.tick(10);
    assert_eq!(trio.answers(2), ["+OK"], "the new replica counts");
    trio.cut = vec![1, 3];
    trio.tick(3 * ELECTION_TICKS_MAX);
    assert!(trio.groups[3].raft().is_leader(), "it is the only one that has the last write");
}

#[test]
fn a_replacement_is_done_only_when_an_entry_after_it_is_committed() {
    let mut trio = Trio::new();
    trio.cut = vec![3];
    trio.reseat();
    while trio.voters(1) != [1, 2, 4] || trio.groups[0].raft().membership().is_joint() {
        trio.tick(1);
    }
    let changed_at = trio.groups[0].raft().last_index();
    assert_eq!(
        trio.groups[0].reconcile(false),
        Step::Wait,
        "the others may not know that the change is committed"
    );
    trio.settle();
    assert_eq!(trio.groups[0].reconcile(false), Step::Done);
    assert!(trio.groups[0].raft().commit_index() > changed_at);
    assert_eq!(trio.groups[0].raft().last_index(), changed_at + 1, "one empty entry is enough");
}

#[test]
fn a_learner_that_is_not_heard_of_changes_nothing_for_the_others() {
    let mut trio = Trio::new();
    trio.reseat();
    trio.cut = vec![4];
    trio.tick(200);
    assert_eq!(trio.voters(1), [1, 2, 3]);
    assert_eq!(trio.groups[0].raft().membership().learners, [4]);
    assert!(!trio.groups[0].transfer(Some(4)), "leadership never goes to a learner");
    trio.cut = vec![3, 4];
    trio.write(1, 1, &[b"k", b"v"], Command::Set);
    trio.tick(10);
    assert_eq!(trio.answers(1), ["+OK"], "two of three voters are enough");
}

#[test]
fn another_leader_goes_on_with_a_change_that_its_predecessor_began() {
    let mut trio = Trio::new();
    trio.reseat();
    // Stopped after each number of ticks: with a learner, in the joint configuration, after it.
    for ticks in 1..12 {
        let mut trio = Trio::new();
        trio.reseat();
        trio.tick(ticks);
        trio.cut = vec![1];
        trio.tick(3 * ELECTION_TICKS_MAX);
        let others = [2, 3, 4].map(|r| trio.groups[r - 1].raft().is_leader());
        assert!(others.contains(&true), "after {ticks} ticks nobody leads");
        trio.cut.clear();
        trio.tick(3 * ELECTION_TICKS_MAX);
        assert_eq!(trio.voters(1), [1, 2, 4], "after {ticks} ticks");
        assert!(!trio.groups[0].raft().membership().is_joint(), "after {ticks} ticks");
    }
}

#[test]
fn a_follower_that_waits_for_a_snapshot_has_one_made_not_two() {
    let mut trio = Trio::with_one_that_needs_a_snapshot();
    assert!(trio.groups[0].snapshot_begin().is_some());
    trio.tick(2 * HEARTBEAT_TICKS);
    assert!(!trio.groups[0].take_snapshot_wanted(), "it is being written");
    trio.groups[0].snapshot_abort();
    trio.tick(2 * HEARTBEAT_TICKS);
    assert!(trio.groups[0].take_snapshot_wanted(), "it was given up");
    let (index, term) = trio.groups[0].snapshot_begin().expect("it is begun again");
    trio.tick(2 * HEARTBEAT_TICKS);
    trio.groups[0].compacted(index, term, Membership::founded(&[1, 2, 3]));
    assert!(!trio.groups[0].take_snapshot_wanted(), "what was asked for meanwhile is there");
}

#[test]
fn an_answer_that_shows_that_a_snapshot_is_needed_has_the_leader_take_a_turn() {
    let mut trio = Trio::with_one_that_needs_a_snapshot();
    let mut is_busy = false;
    trio.groups[0].tick(1, true, &mut trio.ports[0]);
    for (to, heartbeat) in std::mem::take(&mut trio.ports[0].messages) {
        if to == 3 {
            trio.groups[2].step(heartbeat, &mut trio.ports[2]);
        }
    }
    for (_, answer) in std::mem::take(&mut trio.ports[2].messages) {
        is_busy |= trio.groups[0].step(answer, &mut trio.ports[0]);
    }
    assert!(is_busy && !trio.groups[0].raft().has_ready(), "there is nothing else to do");
    assert!(trio.groups[0].take_snapshot_wanted());
}

#[test]
fn who_waits_for_a_leader_that_hands_over_is_sent_to_its_heir_before_anybody_knows_the_new_leader() {
    let mut trio = Trio::new();
    assert!(trio.groups[0].transfer(Some(3)));
    trio.write(1, 1, &[b"k", b"v"], Command::Set);
    trio.settle();
    assert_eq!(trio.answers(1), [r#"NotLeader("n3")"#]);
    assert!(trio.groups[2].raft().is_leader());
}

#[test]
fn a_preferred_replica_without_room_does_not_keep_writes_waiting() {
    let mut trio = Trio::new();
    assert!(trio.groups[0].transfer(Some(2)));
    trio.tick(1);
    assert!(trio.groups[1].raft().is_leader());
    trio.full.push(1);
    trio.write(2, 1, &[b"k", b"v"], Command::Set);
    trio.settle();
    let mut attempts = 0;
    for _ in 0..2 * RETURN_TICKS {
        attempts += u32::from(trio.groups[1].transfer_to_preferred());
        trio.tick(1);
    }
    assert!((1..=2).contains(&attempts), "asked {attempts} times");
    assert!(trio.groups[1].raft().is_leader());
}

#[test]
fn a_leader_that_is_to_leave_does_not_keep_writes_waiting_for_one_without_room() {
    let mut trio = Trio::new();
    trio.full.push(2);
    trio.write(1, 1, &[b"k", b"v"], Command::Set);
    trio.settle();
    trio.groups.iter_mut().for_each(|group| group.set_seats(seats(2, &[2])));
    let mut waiting = 0;
    for _ in 0..2 * RETURN_TICKS {
        trio.tick(1);
        waiting += u64::from(trio.groups[0].raft().is_transferring());
    }
    assert!(trio.groups[0].raft().is_leader());
    assert!((1..RETURN_TICKS / 2).contains(&waiting), "{waiting} ticks of {}", 2 * RETURN_TICKS);
}

#[test]
fn a_leader_without_room_hands_over_to_one_that_has_some_and_gets_it_back_when_it_has_some_too() {
    let mut trio = Trio::new();
    trio.groups[0].set_hampered(true);
    trio.groups[1].set_hampered(true);
    trio.tick(2 * HEARTBEAT_TICKS);
    assert!(trio.groups[2].raft().is_leader(), "replica 3 alone has room");
    trio.preferring(2 * RETURN_TICKS);
    assert!(trio.groups[2].raft().is_leader(), "it went back to one without room");
    trio.groups[0].set_hampered(false);
    trio.preferring(RETURN_TICKS);
    assert!(trio.groups[0].raft().is_leader(), "the preferred replica has room again");
}

#[test]
fn leadership_stays_where_it_is_while_nobody_has_room() {
    let mut trio = Trio::new();
    trio.groups.iter_mut().for_each(|group| group.set_hampered(true));
    let term = trio.groups[0].raft().term();
    trio.preferring(2 * RETURN_TICKS);
    assert!(trio.groups[0].raft().is_leader() && trio.groups[0].raft().term() == term);
    // One that has room, but is not heard or lacks too much, does not get it either.
    trio.cut.push(3);
    trio.groups[2].set_hampered(false);
    trio.preferring(2 * RETURN_TICKS);
    assert!(trio.groups[0].raft().is_leader());
}

#[test]
fn a_hand_over_for_lack_of_room_that_fails_is_not_tried_all_the_time() {
    let mut trio = Trio::new();
    trio.tick(2 * HEARTBEAT_TICKS);
    trio.full = vec![2, 3];
    trio.write(1, 1, &[b"k", b"v"], Command::Set);
    trio.settle();
    trio.groups[0].set_hampered(true);
    let mut waiting = 0;
    for _ in 0..2 * RETURN_TICKS {
        trio.tick(1);
        waiting += u64::from(trio.groups[0].raft().is_transferring());
    }
    assert!((1..RETURN_TICKS / 2).contains(&waiting), "{waiting} ticks of {}", 2 * RETURN_TICKS);
}

#[test]
fn one_change_at_a_time_and_none_during_a_transfer() {
    let mut trio = Trio::new();
    let leader = &mut trio.groups[0];
    leader.raft.change(&Change::AddLearner(4), 2).unwrap();
    assert_eq!(leader.raft.change(&Change::AddLearner(5), 2), Err(ProposeError::Changing));
    assert!(!leader.transfer(None), "nor a transfer during a change");
    trio.settle();
    let leader = &mut trio.groups[0];
    assert_eq!(
        leader.raft.change(&Change::AddLearner(5), 1),
        Err(ProposeError::Changing),
        "from an older map"
    );
    assert_eq!(leader.raft.change(&Change::Leave, 2), Err(ProposeError::Changing), "nothing to leave");
    trio.cut = vec![2, 3];
    assert!(trio.groups[0].transfer(None));
    assert_eq!(trio.groups[0].raft.change(&Change::RemoveLearner(4), 2), Err(ProposeError::Transferring));
    assert_eq!(trio.groups[1].raft.change(&Change::RemoveLearner(4), 2), Err(ProposeError::NotLeader));
}

#[test]
fn a_leader_that_cannot_write_hands_over_in_the_middle_of_a_change() {
    let mut trio = Trio::new();
    trio.has_slow_disk = true;
    trio.groups[0].raft.change(&Change::AddLearner(4), 2).unwrap();
    trio.settle();
    let is_known = |n: usize| trio.groups[n].raft().membership().contains(4);
    assert!([1, 2].into_iter().all(is_known) && !is_known(0), "the others have committed it");
    assert!(trio.groups[0].hand_over());
    trio.settle();
    assert!(trio.groups[1].raft().is_leader() || trio.groups[2].raft().is_leader());
}

#[test]
fn a_lease_from_before_a_change_of_the_members_is_none() {
    let mut trio = Trio::new();
    trio.write(1, 1, &[b"k", b"v"], Command::Set);
    trio.settle();
    trio.read(1, 2, b"k");
    assert!(trio.has_executed(1), "the write's round covers it");
    trio.groups[0].raft.change(&Change::AddLearner(4), 2).unwrap();
    let mut ports = std::mem::take(&mut trio.ports[0]);
    trio.settle();
    trio.ports[0].replies.append(&mut ports.replies);
    trio.read(1, 3, b"k");
    assert!(!trio.has_executed(1), "it needs a round of the present members");
    trio.tick(2);
    assert_eq!(trio.answers(3), ["$1\r\nv"]);
}

#[test]
fn a_key_that_is_written_all_the_time_is_evicted_as_well() {
    let mut trio = limited(Policy::AllKeysLru);
    for _ in 0..1_000 {
        for _ in 0..INFLIGHT_MAX + 2 {
            trio.write(1, 1, &[b"log", &[b'x'; 50]], Command::Append);
            let now = trio.now;
            trio.groups[0].propose(now, &mut trio.ports[0]);
        }
        trio.settle();
        assert!(bytes(&trio)[0] <= 11_000, "{:?}", bytes(&trio));
    }
}

#[test]
fn a_read_waits_for_its_clients_write_wherever_the_log_puts_it() {
    let mut trio = Trio::new();
    trio.write(1, 1, &[b"k", b"v"], Command::Set);
    trio.read(1, 2, b"k");
    // The members change before the write is proposed: the change takes the place in the log that was next.
    trio.groups[0].raft.change(&Change::AddLearner(4), 2).unwrap();
    trio.holds_writes = true;
    trio.tick(5);
    assert_eq!(trio.answers(2), [] as [&str; 0], "the write is not in the log yet");
    trio.holds_writes = false;
    trio.tick(2);
    assert_eq!(trio.answers(2), ["$1\r\nv"]);
}

#[test]
fn reads_that_wait_share_one_round() {
    let mut trio = Trio::new();
    trio.now.boot_us += 10_000_000; // no lease is left
    let before = trio.rounds(1);
    for id in 1..=1000 {
        trio.read(1, id, b"k");
    }
    trio.settle();
    assert!((1..=1000).all(|id| trio.answers(id) == ["$-1"]));
    assert_eq!(trio.rounds(1) - before, 1);
    // The round is a lease for what comes next.
    (1001..=2000).for_each(|id| trio.read(1, id, b"k"));
    trio.settle();
    assert!((1001..=2000).all(|id| trio.answers(id) == ["$-1"]));
    assert_eq!(trio.rounds(1) - before, 1);
}

#[test]
fn a_follower_answers_with_what_was_acknowledged_before_its_round() {
    let mut trio = Trio::new();
    trio.set_read_age_max(0);
    for round in 0..20 {
        let value = round.to_string();
        trio.write(1, 1, &[b"k", value.as_bytes()], Command::Set);
        trio.settle();
        trio.ports.iter_mut().for_each(|p| p.replies.clear());
        let before = trio.rounds(2);
        (1..=100).for_each(|id| trio.read_as_replica(2, id, b"k"));
        trio.settle();
        let expected = format!("${}\r\n{value}", value.len());
        assert!((1..=100).all(|id| trio.answers(id) == [expected.as_str()]), "{:?}", trio.answers(1));
        assert_eq!(trio.rounds(2) - before, 1, "all share one round");
    }
    assert_eq!(trio.groups[1].status().activity.follower_reads, 2000);
    assert_eq!(
        trio.groups[1].status().activity.follower_age_us_max,
        0,
        "none was answered from an earlier round"
    );
    trio.read(2, 101, b"k");
    assert!(trio.answers(101)[0].starts_with("NotLeader"), "who did not say READONLY is sent to the leader");
}

#[test]
fn a_follower_is_never_older_than_its_age_allows() {
    let mut trio = Trio::new();
    trio.set_read_age_max(500);
    trio.write(1, 1, &[b"k", b"old"], Command::Set);
    trio.settle();
    trio.read_as_replica(2, 2, b"k");
    trio.settle();
    assert_eq!(trio.answers(2), ["$3\r\nold"]);
    trio.cut = vec![2];
    trio.write(1, 3, &[b"k", b"new"], Command::Set);
    trio.settle();
    assert_eq!(trio.answers(3), ["+OK"]);
    trio.tick(49);
    trio.read_as_replica(2, 4, b"k");
    trio.settle();
    assert_eq!(trio.answers(4), ["$3\r\nold"], "490 ms old");
    assert_eq!(trio.ages.last(), Some(&490_000));
    trio.tick(1);
    trio.read_as_replica(2, 5, b"k");
    trio.tick(99);
    assert!(trio.answers(5).is_empty(), "500 ms is too old: {:?}", trio.answers(5));
    trio.tick(2);
    assert!(trio.answers(5)[0].starts_with("NotLeader"), "no round came in time");
    trio.read_as_replica(2, 6, b"k");
    assert!(trio.answers(6)[0].starts_with("NotLeader"), "another does not wait as long");
    trio.cut.clear();
    trio.tick(200);
    trio.read_as_replica(2, 7, b"k");
    trio.tick(2);
    trio.read_as_replica(2, 8, b"k");
    trio.settle();
    assert_eq!(trio.answers(8), ["$3\r\nnew"]);
}

#[test]
fn a_followers_read_whose_age_ends_before_the_check_waits_for_a_round() {
    let mut trio = Trio::new();
    trio.set_read_age_max(500);
    trio.read_as_replica(2, 1, b"k");
    trio.settle();
    trio.read_as_replica(2, 2, b"k");
    assert!(trio.has_executed(2));
    trio.write(1, 3, &[b"k", b"v"], Command::Set);
    // The follower's process is stopped between the execution and the check; the others go on.
    trio.now.boot_us += 600_000;
    trio.finish_reads(2);
    assert!(trio.answers(2).is_empty());
    trio.settle();
    assert_eq!(trio.answers(2), ["$1\r\nv"]);
}

#[test]
fn a_leader_that_may_be_none_answers_no_follower() {
    let mut trio = Trio::new();
    trio.write(1, 1, &[b"k", b"v"], Command::Set);
    trio.settle();
    let ask = trio.groups[1].raft.read_ask(1, 7);
    trio.groups[0].step(ask.clone(), &mut trio.ports[0]);
    trio.serve_reads(1);
    trio.finish_reads(1);
    let is_answer = |(_, m): &(u64, Message)| m.as_read_answer().is_some();
    assert!(trio.ports[0].messages.iter().any(is_answer), "its lease covers the question");
    trio.settle();
    // It was stopped for so long that another may lead, and hears nobody.
    trio.now.boot_us += 30_000_000;
    trio.groups[0].step(ask, &mut trio.ports[0]);
    for _ in 0..20 {
        trio.groups[0].tick(1, false, &mut trio.ports[0]);
        trio.groups[0].take_ready(&mut trio.ports[0]);
        trio.groups[0].apply_taken(&mut trio.ports[0]).unwrap();
        trio.serve_reads(1);
        trio.finish_reads(1);
    }
    assert!(!trio.ports[0].messages.iter().any(is_answer));
}

#[test]
fn a_follower_hides_what_is_past_its_expiry() {
    let mut trio = Trio::new();
    trio.set_read_age_max(10_000);
    trio.write(1, 1, &[b"k", b"v", b"PX", b"50"], Command::Set);
    trio.settle();
    trio.read_as_replica(2, 2, b"k");
    trio.settle();
    assert_eq!(trio.answers(2), ["$1\r\nv"]);
    trio.cut = vec![2];
    trio.tick(5);
    trio.read_as_replica(2, 3, b"k");
    trio.settle();
    assert_eq!(trio.answers(3), ["$-1"]);
    assert_eq!(trio.groups[1].status().keys, 1, "a follower deletes nothing");
}

#[test]
fn a_follower_that_becomes_the_leader_answers_the_reads_that_waited() {
    let mut trio = Trio::new();
    trio.set_read_age_max(0);
    trio.write(1, 1, &[b"k", b"v"], Command::Set);
    trio.settle();
    trio.cut = vec![1];
    trio.read_as_replica(2, 2, b"k");
    trio.tick(ELECTION_TICKS_MAX);
    assert!(trio.groups[1].raft().is_leader());
    assert_eq!(trio.answers(2), ["$1\r\nv"]);
}

#[test]
fn a_leader_reads_nothing_older_than_what_a_follower_has_shown() {
    let mut trio = Trio::new();
    trio.set_read_age_max(1000);
    trio.write(1, 1, &[b"k", b"old"], Command::Set);
    trio.settle();
    trio.read_as_replica(1, 2, b"k");
    trio.read_as_replica(2, 3, b"k");
    trio.settle();
    assert_eq!((trio.answers(2), trio.answers(3)), (vec!["$3\r\nold"], vec!["$3\r\nold"]));
    // The followers are a majority, so the write is committed while the leader's own disk does not have it.
    trio.has_slow_disk = true;
    trio.write(1, 4, &[b"k", b"new"], Command::Set);
    trio.tick(6);
    assert!(trio.answers(4).is_empty(), "the leader has not applied it");
    trio.read_as_replica(2, 5, b"k");
    trio.settle();
    assert_eq!(trio.answers(5), ["$3\r\nnew"]);
    trio.read_as_replica(1, 6, b"k");
    trio.settle();
    assert!(trio.answers(6).is_empty(), "{:?}", trio.answers(6));
    trio.has_slow_disk = false;
    for number in std::mem::take(&mut trio.unpersisted) {
        trio.groups[0].persisted(number, &mut trio.ports[0]);
    }
    trio.tick(1);
    assert_eq!(trio.answers(6), ["$3\r\nnew"]);
}
