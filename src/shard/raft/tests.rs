use super::convert::to_raft;
use super::*;

/// A log that holds nothing: every entry must still be in memory.
pub(in crate::shard) struct NoDisk;

impl EntryReader for NoDisk {
    fn read(&self, _: u16, lo: u64, _: u64, _: usize) -> Result<Vec<LogEntry>, String> {
        Err(format!("entry {lo} was asked of the disk"))
    }

    fn bytes(&self, _: u16) -> u64 {
        0
    }
}

pub(in crate::shard) fn start(replica: u64, voters: &[u64]) -> Start {
    Start {
        group: 1,
        replica,
        membership: Membership::founded(voters),
        hard_state: HardState { term: 0, vote: 0, commit: 0 },
        mark_index: 0,
        mark_term: 0,
        last_index: 0,
        terms: Vec::new(),
        applied: 0,
        rank: replica as usize - 1,
        seed: 1,
        is_restart: false,
        limits: Limits::default(),
    }
}

#[test]
fn single_voter_commits_once_persisted() {
    let mut raft = Raft::new(start(1, &[1]), Rc::new(NoDisk)).unwrap();
    raft.campaign();
    let index = raft.propose(b"x".to_vec()).unwrap();
    let ready = raft.take_ready().unwrap();
    assert_eq!(ready.entries.last().map(|e| e.index), Some(index));
    assert!(ready.committed.is_empty(), "nothing is committed before it is persisted");
    raft.persisted(ready.number);
    let ready = raft.take_ready().unwrap();
    assert_eq!(ready.committed.last().map(|e| e.data.as_ref()), Some(&b"x"[..]));
}

#[test]
fn a_follower_that_answers_never_looks_dead() {
    let respond = |kind: MessageType, term: u64| {
        let mut m = eraftpb::Message::default();
        m.set_msg_type(kind);
        (m.to, m.from, m.term) = (1, 2, term);
        Message(m)
    };
    let mut leader = Raft::new(start(1, &[1, 2]), Rc::new(NoDisk)).unwrap();
    let settle = |leader: &mut Raft| {
        while let Some(ready) = leader.take_ready() {
            leader.persisted(ready.number);
        }
    };
    leader.campaign();
    settle(&mut leader);
    leader.step(respond(MessageType::MsgRequestPreVoteResponse, 1));
    settle(&mut leader);
    leader.step(respond(MessageType::MsgRequestVoteResponse, 1));
    settle(&mut leader);
    assert!(leader.is_leader());
    let is_active = |leader: &Raft| leader.followers().iter().all(|f| f.is_active);
    for tick in 0..4 * ELECTION_TICKS_MIN {
        if tick % HEARTBEAT_TICKS == 0 {
            leader.step(respond(MessageType::MsgHeartbeatResponse, 1));
        }
        leader.tick(1, false);
        settle(&mut leader);
        assert!(is_active(&leader), "tick {tick}");
    }
    leader.report_unreachable(2);
    let mut left = 2 * ELECTION_TICKS_MIN;
    while leader.is_leader() && is_active(&leader) {
        leader.tick(1, false);
        settle(&mut leader);
        left = left.checked_sub(1).expect("a dead follower is seen as such");
    }
}

#[test]
fn a_vote_is_written_before_it_is_sent() {
    let mut ask = eraftpb::Message::default();
    ask.set_msg_type(MessageType::MsgRequestVote);
    (ask.to, ask.from, ask.term) = (1, 2, 5);
    let mut raft = Raft::new(start(1, &[1, 2, 3]), Rc::new(NoDisk)).unwrap();
    raft.step(Message(ask));
    let ready = raft.take_ready().unwrap();
    assert_eq!(ready.hard_state, Some(HardState { term: 5, vote: 2, commit: 0 }));
    assert!(ready.messages.is_empty(), "the vote waits for the disk");
    assert_eq!(ready.persisted_messages.len(), 1);
}

#[test]
fn restarted_voter_is_silent_for_one_election_timeout() {
    let mut candidate = Raft::new(start(2, &[1, 2]), Rc::new(NoDisk)).unwrap();
    candidate.campaign();
    let ready = candidate.take_ready().unwrap();
    let ask = ready.messages.into_iter().chain(ready.persisted_messages).next().unwrap();
    let restarted = Start { is_restart: true, ..start(1, &[1, 2]) };
    let mut raft = Raft::new(restarted, Rc::new(NoDisk)).unwrap();
    raft.step(ask.clone());
    assert!(raft.take_ready().is_none(), "it voted before the timeout of its earlier promise");
    for _ in 0..ELECTION_TICKS_MIN {
        raft.tick(1, false);
    }
    raft.step(ask);
    assert!(raft.take_ready().is_some());
}

#[test]
fn an_entry_is_persisted_with_the_commit_index_that_was_known() {
    let message = |kind: MessageType, index: u64, commit: u64| {
        let mut m = eraftpb::Message::default();
        m.set_msg_type(kind);
        (m.to, m.from, m.term, m.index, m.commit) = (1, 2, 1, index, commit);
        m.log_term = u64::from(index > 0);
        if kind == MessageType::MsgAppend {
            m.entries.push(to_raft(LogEntry { index: index + 1, term: 1, kind: 0, data: Bytes::new() }));
        }
        Message(m)
    };
    let mut raft = Raft::new(start(1, &[1, 2]), Rc::new(NoDisk)).unwrap();
    let mut states = Vec::new();
    for message in [
        message(MessageType::MsgAppend, 0, 0),
        message(MessageType::MsgHeartbeat, 0, 1),
        message(MessageType::MsgAppend, 1, 1),
    ] {
        raft.step(message);
        let ready = raft.take_ready().unwrap();
        states.push(ready.hard_state.map(|s| s.commit));
        raft.persisted(ready.number);
    }
    assert_eq!(states, [Some(0), None, Some(1)], "the heartbeat's commit index goes with the next entry");
}

/// Replica 1 with a log that was compacted at index 9, term 3.
fn start_at_9(membership: Membership) -> Start {
    Start {
        membership,
        hard_state: HardState { term: 3, vote: 0, commit: 9 },
        mark_index: 9,
        mark_term: 3,
        last_index: 9,
        applied: 9,
        ..start(1, &[])
    }
}

#[test]
fn a_joint_configuration_survives_a_restart() {
    let membership =
        Membership { epoch: 4, voters: vec![1, 2, 4], outgoing: vec![1, 2, 3], learners: vec![5] };
    let mut raft = Raft::new(start_at_9(membership.clone()), Rc::new(NoDisk)).unwrap();
    assert_eq!(raft.membership(), &membership);
    raft.campaign();
    let asked: Vec<u64> = raft.take_ready().unwrap().persisted_messages.iter().map(Message::to).collect();
    assert_eq!(asked.len(), 3, "old and new voters are asked, learners are not: {asked:?}");
}

#[test]
fn a_late_answer_does_not_make_a_voter_forget_the_leader_that_counts_on_it() {
    let answers = [
        MessageType::MsgRequestPreVoteResponse,
        MessageType::MsgRequestVoteResponse,
        MessageType::MsgAppendResponse,
        MessageType::MsgHeartbeatResponse,
    ];
    for kind in answers {
        let mut raft = Raft::new(start(1, &[1, 2, 3]), Rc::new(NoDisk)).unwrap();
        let mut heartbeat = eraftpb::Message::default();
        heartbeat.set_msg_type(MessageType::MsgHeartbeat);
        (heartbeat.to, heartbeat.from, heartbeat.term) = (1, 2, 5);
        raft.step(Message(heartbeat));
        // Replica 3 campaigned while the leader was away.
        let mut answer = eraftpb::Message::default();
        answer.set_msg_type(kind);
        (answer.to, answer.from, answer.term, answer.reject) = (1, 3, 6, true);
        for _ in 0..ELECTION_TICKS_MIN - 1 {
            raft.step(Message(answer.clone()));
            assert_eq!((raft.term(), raft.leader()), (5, Some(2)), "{kind:?}");
            raft.tick(1, false);
        }
        raft.tick(1, false);
        raft.step(Message(answer));
        assert_eq!((raft.term(), raft.leader()), (6, None), "{kind:?}: nobody counts on it any more");
    }
}

#[test]
fn an_answer_to_a_heartbeat_needs_no_ready_once_the_log_holds_the_term() {
    let from_leader = |kind: MessageType| {
        let mut m = eraftpb::Message::default();
        m.set_msg_type(kind);
        (m.to, m.from, m.term) = (1, 2, 5);
        Message(m)
    };
    let mut raft = Raft::new(start(1, &[1, 2]), Rc::new(NoDisk)).unwrap();
    raft.step(from_leader(MessageType::MsgHeartbeat));
    assert_eq!(raft.take_heartbeats().count(), 0, "the term is not in the log");
    let ready = raft.take_ready().unwrap();
    assert_eq!(ready.persisted_messages.len(), 1);
    raft.persisted(ready.number);
    raft.set_hampered(true);
    raft.step(from_leader(MessageType::MsgHeartbeat));
    let mut answers: Vec<_> = raft.take_heartbeats().collect();
    assert_eq!(answers.iter_mut().map(Message::take_fit).collect::<Vec<_>>(), [Some(false)]);
    assert!(!raft.has_ready());
    raft.step(from_leader(MessageType::MsgHeartbeat));
    raft.step(from_leader(MessageType::MsgAppend));
    assert_eq!(raft.take_heartbeats().count(), 0, "an acknowledgement waits for the disk, in its order");
    assert_eq!(raft.take_ready().map(|ready| ready.persisted_messages.len()), Some(2));
}

#[test]
fn ticks_at_once_are_as_many_as_one_by_one() {
    let ticks_until_it_asks = |restarted: bool, at_once: u64| {
        let mut raft =
            Raft::new(Start { is_restart: restarted, ..start(1, &[1, 2]) }, Rc::new(NoDisk)).unwrap();
        let mut ticks = 0;
        while !raft.has_ready() {
            raft.tick(at_once, false);
            ticks += at_once;
        }
        ticks
    };
    for restarted in [false, true] {
        let ticks = ticks_until_it_asks(restarted, 1);
        assert_eq!(ticks_until_it_asks(restarted, 10), ticks.next_multiple_of(10));
    }
}

#[test]
fn a_leader_that_learns_that_it_has_left_is_none_any_more() {
    let joint =
        start_at_9(Membership { epoch: 4, voters: vec![2, 3, 4], outgoing: vec![1, 2, 3], learners: vec![] });
    let message = |kind: MessageType, from: u64, term: u64, index: u64| {
        let mut m = eraftpb::Message::default();
        m.set_msg_type(kind);
        (m.to, m.from, m.term, m.index, m.log_term) = (1, from, term, index, 3);
        m
    };
    let mut raft = Raft::new(joint, Rc::new(NoDisk)).unwrap();
    let persist_all = |raft: &mut Raft| {
        while let Some(ready) = raft.take_ready() {
            raft.persisted(ready.number);
        }
    };
    // The entry with which it leaves comes from a leader that is gone before anybody knows that it is committed.
    let mut append = message(MessageType::MsgAppend, 2, 3, 9);
    let leave = Change::Leave.encode(5);
    let entry = LogEntry { index: 10, term: 3, kind: ENTRY_CHANGE, data: leave.clone().into() };
    append.entries.push(to_raft(entry));
    raft.step(Message(append));
    persist_all(&mut raft);
    raft.campaign();
    persist_all(&mut raft);
    for (kind, term) in
        [(MessageType::MsgRequestPreVoteResponse, 4), (MessageType::MsgRequestVoteResponse, 4)]
    {
        [2, 3].into_iter().for_each(|from| raft.step(Message(message(kind, from, term, 0))));
        if kind == MessageType::MsgRequestPreVoteResponse {
            persist_all(&mut raft);
        }
    }
    assert!(raft.is_leader());
    let own = raft.take_ready().unwrap();
    for from in [2, 3] {
        raft.step(Message(message(MessageType::MsgAppendResponse, from, 4, 11)));
    }
    let committed = raft.take_ready().unwrap().committed;
    assert!(committed.iter().any(|entry| entry.index == 10 && entry.data.as_ref() == &leave[..]));
    raft.apply_change(&leave).unwrap();
    assert!(!raft.is_leader(), "it is no member");
    raft.persisted(own.number);
    raft.tick(1, false);
}

#[test]
fn a_replica_that_cannot_read_what_it_must_apply_leads_nothing_and_asks_for_a_snapshot() {
    let from_leader = |kind: MessageType, index: u64, commit: u64| {
        let mut m = eraftpb::Message::default();
        m.set_msg_type(kind);
        (m.to, m.from, m.term, m.index, m.log_term, m.commit) = (1, 2, 4, index, 3, commit);
        m
    };
    let mut asked = Vec::new();
    let mut settle = |raft: &mut Raft| {
        let mut kinds = Vec::new();
        for round in 0.. {
            assert!(round < 10, "there is always something to do");
            let Some(ready) = raft.take_ready() else { return kinds };
            assert!(ready.committed.is_empty(), "nothing can be read");
            let messages = ready.messages.iter().chain(&ready.persisted_messages);
            kinds.extend(messages.clone().map(|message| message.0.get_msg_type()));
            asked.extend(messages.map(|message| message.0.request_snapshot).filter(|index| *index > 0));
            raft.persisted(ready.number);
            if let Some((index, _)) = ready.snapshot {
                raft.applied(index);
            }
        }
        kinds
    };
    // Entries up to 9 are committed and none is applied.
    let hard_state = HardState { term: 3, vote: 0, commit: 9 };
    let restarted = Start { hard_state, last_index: 9, terms: vec![(1, 3)], ..start(1, &[1, 2, 3]) };
    let mut raft = Raft::new(restarted, Rc::new(NoDisk)).unwrap();
    settle(&mut raft);
    assert!(raft.is_stuck());
    raft.campaign();
    let mut kinds = settle(&mut raft);
    for _ in 0..2 * ELECTION_TICKS_MAX {
        raft.tick(1, false);
        kinds.extend(settle(&mut raft));
    }
    assert!(kinds.is_empty(), "it campaigns, or asks nobody for something: {kinds:?}");
    let mut append = from_leader(MessageType::MsgAppend, 9, 9);
    append.entries.push(to_raft(LogEntry { index: 10, term: 4, kind: 0, data: Bytes::new() }));
    raft.step(Message(append));
    settle(&mut raft);
    raft.tick(1, false);
    settle(&mut raft);
    let mut snapshot = from_leader(MessageType::MsgSnapshot, 0, 0);
    let metadata = snapshot.mut_snapshot().mut_metadata();
    (metadata.index, metadata.term) = (12, 4);
    let membership = Membership::founded(&[1, 2, 3]);
    metadata.set_conf_state(conf_state(&membership));
    snapshot.mut_snapshot().data = membership.encode().into();
    raft.step(Message(snapshot));
    settle(&mut raft);
    assert!(!raft.is_stuck() && raft.applied_index() == 12);
    assert_eq!(asked, [10]);
}

/// It can be elected: what it holds is not known to be committed.
#[test]
fn a_leader_that_cannot_read_what_it_must_apply_is_none_any_more() {
    let hard_state = HardState { term: 3, vote: 0, commit: 0 };
    let restarted = Start { hard_state, last_index: 9, terms: vec![(1, 3)], ..start(1, &[1]) };
    let mut raft = Raft::new(restarted, Rc::new(NoDisk)).unwrap();
    raft.campaign();
    let mut has_led = false;
    for _ in 0..2 * ELECTION_TICKS_MAX {
        for round in 0.. {
            assert!(round < 10, "there is always something to do");
            has_led |= raft.is_leader();
            let Some(ready) = raft.take_ready() else { break };
            assert!(ready.committed.is_empty(), "nothing can be read");
            raft.persisted(ready.number);
        }
        raft.tick(1, false);
    }
    assert!(has_led && raft.is_stuck() && !raft.is_leader());
}

#[test]
fn election_timeouts_of_three_voters_never_overlap() {
    for term in 0..50 {
        let mut seen: Vec<usize> = (1..=3)
            .map(|id| {
                let mut raft = Raft::new(start(id, &[1, 2, 3]), Rc::new(NoDisk)).unwrap();
                raft.raw.raft.term = term;
                raft.set_timeout();
                raft.raw.raft.randomized_election_timeout()
            })
            .collect();
        seen.sort_unstable();
        assert!(seen[1] - seen[0] >= 4 && seen[2] - seen[1] >= 4, "term {term}: {seen:?}");
    }
}

#[test]
fn messages_round_trip_and_proposals_do_not_travel() {
    let mut m = eraftpb::Message::default();
    m.set_msg_type(MessageType::MsgAppend);
    (m.to, m.from, m.term, m.index) = (1, 2, 3, 4);
    m.entries.push(to_raft(LogEntry { index: 5, term: 3, kind: 0, data: Bytes::from_static(b"data") }));
    let mut out = Vec::new();
    Message(m.clone()).encode(&mut out);
    assert_eq!(Message::decode(&out).unwrap(), Message(m));
    for cut in 0..out.len() {
        assert!(Message::decode(&out[..cut]).is_err());
    }
    out[0] = MessageType::MsgPropose as u8;
    assert!(Message::decode(&out).is_err());
}

/// A log of so many bytes, whose entries are all still in memory.
struct OfBytes(u64);

impl EntryReader for OfBytes {
    fn read(&self, group: u16, lo: u64, hi: u64, bytes_max: usize) -> Result<Vec<LogEntry>, String> {
        NoDisk.read(group, lo, hi, bytes_max)
    }

    fn bytes(&self, _: u16) -> u64 {
        self.0
    }
}

/// What the leader sends to replica 3, which has nothing, when replica 2 has the first `acked` of the 3 entries; and whether it
/// wants a snapshot for it.
fn sent_to_an_empty_replica(log_bytes: u64, acked: u64, has_snapshot: bool) -> (Vec<MessageType>, bool) {
    let mut raft = Raft::new(start(1, &[1, 2, 3]), Rc::new(OfBytes(log_bytes))).unwrap();
    let respond = |raft: &mut Raft, kind: MessageType, from: u64, index: u64, reject: bool| {
        let mut m = eraftpb::Message::default();
        m.set_msg_type(kind);
        (m.to, m.from, m.term, m.index, m.reject) = (1, from, 1, index, reject);
        raft.step(Message(m));
        let mut sent = Vec::new();
        while let Some(ready) = raft.take_ready() {
            sent.extend(ready.messages);
            if let Some(last) = ready.committed.last() {
                raft.applied(last.index);
            }
            raft.persisted(ready.number);
        }
        sent
    };
    raft.campaign();
    respond(&mut raft, MessageType::MsgRequestPreVoteResponse, 2, 0, false);
    respond(&mut raft, MessageType::MsgRequestVoteResponse, 2, 0, false);
    assert!(raft.is_leader());
    (0..2).for_each(|_| assert!(raft.propose(b"x".to_vec()).is_ok()));
    respond(&mut raft, MessageType::MsgAppendResponse, 2, acked, false);
    assert_eq!(raft.applied_index(), acked);
    if has_snapshot {
        raft.compacted(acked, 1, Membership::founded(&[1, 2, 3]));
    }
    let sent = respond(&mut raft, MessageType::MsgAppendResponse, 3, 0, true);
    let to_3 = sent.iter().filter(|m| m.to() == 3).map(|m| m.0.get_msg_type()).collect();
    (to_3, raft.take_snapshot_wanted())
}

#[test]
fn a_replica_that_has_nothing_gets_a_snapshot_unless_the_log_is_tiny_or_nothing_is_applied() {
    let (tiny, large) = (Limits::default().seed_log_bytes, Limits::default().seed_log_bytes + 1);
    assert_eq!(sent_to_an_empty_replica(tiny, 2, false), (vec![MessageType::MsgAppend], false));
    assert_eq!(sent_to_an_empty_replica(large, 2, false), (vec![], true));
    assert_eq!(sent_to_an_empty_replica(large, 2, true), (vec![MessageType::MsgSnapshot], false));
    // Its acknowledgement may be what is lacking for the first entry to be committed.
    assert_eq!(sent_to_an_empty_replica(large, 0, false), (vec![MessageType::MsgAppend], false));
}
