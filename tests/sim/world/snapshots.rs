//! Snapshots on their way between nodes.

use super::{Event, World};
use ringfort::log::MemDisk;
use ringfort::shard::raft::Message;
use ringfort::worker::SnapshotSend;
use ringfort_wire::GroupId;

/// A snapshot on its way.
pub(super) struct Transfer {
    pub(super) from: usize,
    from_worker: usize,
    from_life: u64,
    pub(super) to: usize,
    to_life: u64,
    group: GroupId,
    incarnation: u32,
    replica: u64,
    message: Vec<u8>,
    bytes: Vec<u8>,
}

impl World {
    pub(super) fn send_snapshot(&mut self, node: usize, worker: usize, mut send: SnapshotSend<MemDisk>) {
        let to = self.node_number(&send.to.0);
        let mut message = Vec::new();
        send.message.encode(&mut message);
        let mut bytes = Vec::new();
        let read = send.reader.next_raw(usize::MAX, &mut bytes).map(drop);
        let transfer = Transfer {
            from: node,
            from_worker: worker,
            from_life: self.nodes[node].life,
            to,
            to_life: self.nodes[to].life,
            group: send.group,
            incarnation: send.incarnation,
            replica: Message::to(&send.message),
            message,
            bytes: if read.is_ok() { bytes } else { Vec::new() },
        };
        let number = self.next_transfer;
        self.next_transfer += 1;
        self.report.snapshots += 1;
        self.line(|| {
            format!(
                "n{} sends a snapshot of {} to n{}: {} bytes",
                node + 1,
                transfer.group,
                to + 1,
                transfer.bytes.len()
            )
        });
        let is_lost =
            !self.nodes[to].is_up || self.is_blocked(node, to) || (!self.is_healed && self.rng.one_in(8));
        self.transfers.insert(number, transfer);
        let after = 4 * self.latency();
        if is_lost {
            self.after(after, Event::SnapshotReport { number, is_delivered: false });
        } else {
            self.after(after, Event::Snapshot { number });
        }
    }

    pub(super) fn receive_snapshot(&mut self, number: u64) -> Result<(), String> {
        let Some(t) = self.transfers.get(&number) else { return Ok(()) };
        let node = t.to;
        let worker = usize::from(ringfort::worker::worker_of(t.group, self.options.workers));
        let is_here = self.nodes[node].is_up && self.nodes[node].life == t.to_life;
        let mut is_taken = false;
        if is_here && let Some(core) = &mut self.nodes[node].workers[worker].core {
            let received = core.receive_snapshot(t.group.0, t.incarnation, &t.message).and_then(|receive| {
                let Some(mut receive) = receive else { return Ok(None) };
                for chunk in t.bytes.chunks(1000) {
                    receive.write(chunk)?;
                }
                core.snapshot_received(receive)
            });
            let group = t.group;
            match received {
                Ok(Some(id)) => {
                    // The leader hears of it when it is durable.
                    self.nodes[node].workers[worker].received.insert(id, number);
                    is_taken = true;
                }
                Ok(None) => {}
                Err(error) => {
                    let state = &self.nodes[node];
                    if state.doom.is_none() && !state.is_full {
                        return Err(format!("n{} refuses a whole snapshot of {group}: {error:#}", node + 1));
                    }
                }
            }
            self.want_turn(node, worker);
            self.want_flush(node, worker);
        }
        self.trace.note(self.now, 6, number, u64::from(is_taken));
        if !is_taken {
            self.answer_snapshot(number, false);
        }
        Ok(())
    }

    /// The receiver of a snapshot tells the sender what became of it; that may be lost.
    pub(super) fn answer_snapshot(&mut self, number: u64, is_durable: bool) {
        let after = self.latency();
        let is_delivered = is_durable && (self.is_healed || !self.rng.one_in(10));
        self.after(after, Event::SnapshotReport { number, is_delivered });
    }

    pub(super) fn report_snapshot(&mut self, number: u64, is_delivered: bool) {
        let Some(t) = self.transfers.remove(&number) else { return };
        let state = &mut self.nodes[t.from];
        if state.is_up
            && state.life == t.from_life
            && let Some(core) = &mut state.workers[t.from_worker].core
        {
            core.snapshot_sent(t.group, t.replica, is_delivered);
            self.want_turn(t.from, t.from_worker);
        }
    }
}
