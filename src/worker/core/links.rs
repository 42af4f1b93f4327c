//! Requests of proxies.

use super::WorkerCore;
use crate::clock::Now;
use crate::log::Disk;
use crate::shard::{Origin, Ports as _, Submission};
use crate::worker::ports::{Link, TOO_MANY_LARGE};
use crate::worker::replies::{ParkedRead, Unparked};
use ringfort_proxy::session::Host as _;
use ringfort_resp::Command;
use ringfort_wire::GroupId;
use ringfort_wire::entry::OpKind;
use ringfort_wire::frame::{self, Kind, WireError};
use ringfort_wire::request::{CREDIT_REQUESTS, CommandBody, Request, RequestKind, Status};

/// What a write is answered while the disk is almost full; Redis's prefix for a server that cannot persist.
const DISK_FULL: &[u8] =
    b"-MISCONF Ringfort refuses writes: the disk of the leader is almost full; free space or add a node\r\n";

/// What a write is answered that the cluster's feature level does not have.
const LEVEL_TOO_LOW: &[u8] = b"-ERR this command is not supported by the feature level of the cluster\r\n";

impl<D: Disk> WorkerCore<D> {
    /// A proxy's link opened.
    pub fn link_open(&mut self) -> u64 {
        self.ports.links.insert(Link::default())
    }

    /// A proxy's link closed. What it asked for goes on; the answers are dropped.
    pub fn link_close(&mut self, link: u64) {
        self.ports.links.remove(link);
    }

    /// Takes bytes of a proxy's link.
    ///
    /// # Errors
    /// They are malformed, or beyond the link's credit: drop the link.
    pub fn link_data(&mut self, link: u64, bytes: &[u8], now: Now) -> Result<(), WireError> {
        self.stir();
        self.ports.now_us = now.boot_us;
        let Some(state) = self.ports.links.get_mut(link) else { return Ok(()) };
        let mut input = std::mem::take(&mut state.input);
        input.extend_from_slice(bytes);
        let taken = self.requests(link, &input, now);
        input.drain(..taken?);
        if let Some(state) = self.ports.links.get_mut(link) {
            state.input = input;
        }
        Ok(())
    }

    /// Takes the whole frames at the start of `input`; returns their length.
    fn requests(&mut self, link: u64, input: &[u8], now: Now) -> Result<usize, WireError> {
        let mut start = 0;
        while let Some(frame) = frame::next(&input[start..])? {
            match frame.kind {
                Kind::Request => self.request(link, &Request::decode(frame.body)?, now)?,
                Kind::PartTaken => self.ports.part_taken(link),
                Kind::RestUnwanted => {
                    let id =
                        frame.body.try_into().map_err(|_| WireError::Malformed("id of an unwanted reply"))?;
                    self.ports.drop_rest(link, u64::from_le_bytes(id));
                }
                _ => {}
            }
            start += frame.consumed;
        }
        Ok(start)
    }

    fn request(&mut self, link: u64, request: &Request<'_>, now: Now) -> Result<(), WireError> {
        let Some(state) = self.ports.links.get_mut(link) else { return Ok(()) };
        state.unanswered += 1;
        if state.unanswered > CREDIT_REQUESTS {
            return Err(WireError::Malformed("use of the link's credit"));
        }
        let origin = Origin::Link { link, id: request.id };
        let partitions = self.view.map().map_or(0, |m| m.partitions.get());
        if request.partition.0 >= partitions {
            self.ports.reply(origin, Status::NotHere(self.shared.epoch()));
            return Ok(());
        }
        let id = GroupId::of(request.partition);
        let submission = Submission {
            origin,
            session: request.session,
            seq: request.seq,
            acked: request.acked,
            is_after_queued: false,
            body: request.command,
        };
        self.clients.stats().asked_by_proxy();
        match request.kind {
            RequestKind::Read => self.queue_read(id, submission, false, now),
            RequestKind::Write => self.submit_write(id, OpKind::Command, submission),
            RequestKind::OpenSession => self.submit_write(id, OpKind::OpenSession, submission),
            RequestKind::Skip => self.submit_write(id, OpKind::Skip, submission),
        }
        Ok(())
    }

    /// `is_replicas`: a follower may answer.
    pub(super) fn submit_read(
        &mut self,
        id: GroupId,
        submission: Submission<'_>,
        is_replicas: bool,
        now: Now,
    ) {
        let Some(group) = self.groups.get_mut(id.0) else {
            self.ports.reply(submission.origin, Status::NotHere(self.shared.epoch()));
            return;
        };
        if is_replicas {
            group.set_read_age_max(self.read_age_us_max);
            group.read_as_replica(submission, now, &mut self.ports, &mut self.executed);
        } else {
            group.read(submission, now, &mut self.ports, &mut self.executed);
        }
        if group.has_reads_to_serve(now) || group.has_proposable() {
            self.touch(id.0);
        }
    }

    pub(super) fn submit_write(&mut self, id: GroupId, kind: OpKind, submission: Submission<'_>) {
        let level = self.view.map().map_or(0, |map| map.feature_level);
        // The meta group's operations are no commands of clients.
        let is_command = kind == OpKind::Command && id != GroupId::META;
        let is_full = self.is_full();
        match self.groups.get_mut(id.0) {
            Some(group) if group.raft().is_leader() && is_command && level < level_of(submission.body) => {
                self.ports.reply(submission.origin, Status::Refused(LEVEL_TOO_LOW));
            }
            Some(group) if group.raft().is_leader() && is_full => {
                self.ports.reply(submission.origin, Status::Refused(DISK_FULL));
            }
            Some(group) => group.write(kind, submission, &mut self.ports),
            None => self.ports.reply(submission.origin, Status::NotHere(self.shared.epoch())),
        }
        self.touch(id.0);
    }

    /// Bytes to be sent on a link, and whether they are of a large reply. Call [`WorkerCore::link_sent`] with what was
    /// sent; there may be more then. Of a bulk reply there is a part for each [`WorkerCore::link_let_bulk`].
    pub fn link_output(&mut self, link: u64) -> (&[u8], bool) {
        let Some(state) = self.ports.links.get_mut(link) else { return (&[], false) };
        state.replies.output(&self.options.limits)
    }

    /// Lets one part of a bulk reply be sent.
    pub fn link_let_bulk(&mut self, link: u64) {
        if let Some(state) = self.ports.links.get_mut(link) {
            state.replies.let_bulk();
        }
    }

    /// Whether a part of a bulk reply waits for [`WorkerCore::link_let_bulk`].
    pub fn link_has_bulk(&self, link: u64) -> bool {
        self.ports.links.get(link).is_some_and(|state| state.replies.has_bulk(&self.options.limits))
    }

    /// So much was sent on a link: reads that waited for room are executed.
    pub fn link_sent(&mut self, link: u64, count: usize, now: Now) {
        if let Some(state) = self.ports.links.get_mut(link) {
            state.replies.sent(count);
        }
        self.unpark(link, now);
    }

    /// Executes the reads of a link whose replies have found room.
    fn unpark(&mut self, link: u64, now: Now) {
        self.ports.now_us = now.boot_us;
        while let most = self.ports.large_room()
            && let Some(state) = self.ports.links.get_mut(link)
            && let Some(unparked) = state.replies.take_parked(now.boot_us, most, &self.options.limits)
        {
            match unparked {
                Unparked::Execute(ParkedRead { id, group, session, seq, body, .. }) => {
                    let origin = Origin::Link { link, id };
                    let read =
                        Submission { origin, session, seq, acked: 0, is_after_queued: false, body: &body };
                    self.submit_read(group, read, false, now);
                }
                Unparked::TooLate(read) => {
                    self.ports.reply(Origin::Link { link, id: read.id }, Status::Refused(TOO_MANY_LARGE));
                }
            }
        }
    }

    /// As [`Self::unpark`], for all links: the worker may have time again.
    pub(super) fn unpark_all(&mut self, now: Now) {
        for link in self.ports.links.keys() {
            if self.ports.links.get(link).is_some_and(|state| state.replies.has_parked()) {
                self.unpark(link, now);
            }
        }
    }

    /// Whether a link should be read: not while its proxy leaves too many replies untaken.
    pub fn link_wants_input(&self, link: u64) -> bool {
        let limit = self.options.limits.reply_room_bytes;
        self.ports.links.get(link).is_some_and(|state| state.replies.small_bytes() < limit)
    }

    /// Links that have something to send since the last call.
    pub fn take_touched_links(&mut self, now: Now) -> Vec<u64> {
        let mut touched = std::mem::take(&mut self.ports.touched_links);
        touched.sort_unstable();
        touched.dedup();
        for &link in &touched {
            self.unpark(link, now);
        }
        touched
    }
}

/// The feature level that a write needs of every node. A number that this version does not know might be executed by some
/// replicas and not by others: no level is enough for it, nor for what is no command.
fn level_of(body: &[u8]) -> u16 {
    let command = CommandBody::decode(body).ok().and_then(|body| Command::from_u16(body.command));
    command.map_or(u16::MAX, |command| command.spec().feature_level)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringfort_resp::Protocol;
    use ringfort_wire::FEATURE_LEVEL;

    #[test]
    fn no_level_is_enough_for_a_command_that_is_not_known() {
        let level = |command: u16| {
            let mut body = Vec::new();
            CommandBody::encode(&mut body, command, Protocol::Resp2, [b"k"].iter());
            level_of(&body)
        };
        for spec in ringfort_resp::commands::all() {
            assert_eq!(level(spec.command as u16), spec.feature_level);
            assert!((1..=FEATURE_LEVEL).contains(&spec.feature_level), "{}", spec.name);
        }
        assert_eq!((level(9999), level_of(b"x")), (u16::MAX, u16::MAX));
    }
}
