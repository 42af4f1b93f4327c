//! Requests of proxies.

use super::WorkerCore;
use crate::clock::Now;
use crate::log::Disk;
use crate::shard::{Origin, Ports as _, Submission};
use crate::worker::ports::Link;
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
        let Some(state) = self.ports.links.get_mut(link) else { return Ok(()) };
        let mut input = std::mem::take(&mut state.input);
        input.extend_from_slice(bytes);
        let mut start = 0;
        while let Some(frame) = frame::next(&input[start..])? {
            if frame.kind == Kind::Request {
                self.request(link, &Request::decode(frame.body)?, now)?;
            }
            start += frame.consumed;
        }
        input.drain(..start);
        if let Some(state) = self.ports.links.get_mut(link) {
            state.input = input;
        }
        Ok(())
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
            RequestKind::Read => self.submit_read(id, submission, false, now),
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
        match self.groups.get_mut(&id.0) {
            Some(group) if is_replicas => {
                group.set_read_age_max(self.read_age_us_max);
                group.read_as_replica(submission, now, &mut self.ports);
            }
            Some(group) => group.read(submission, now, &mut self.ports),
            None => self.ports.reply(submission.origin, Status::NotHere(self.shared.epoch())),
        }
        self.touch(id.0);
    }

    pub(super) fn submit_write(&mut self, id: GroupId, kind: OpKind, submission: Submission<'_>) {
        let level = self.view.map().map_or(0, |map| map.feature_level);
        // The meta group's operations are no commands of clients.
        let is_command = kind == OpKind::Command && id != GroupId::META;
        match self.groups.get_mut(&id.0) {
            Some(group) if group.raft().is_leader() && is_command && level < level_of(submission.body) => {
                self.ports.reply(submission.origin, Status::Refused(LEVEL_TOO_LOW));
            }
            Some(group) if group.raft().is_leader() && (self.is_disk_low || self.is_write_failing) => {
                self.ports.reply(submission.origin, Status::Refused(DISK_FULL));
            }
            Some(group) => group.write(kind, submission, &mut self.ports),
            None => self.ports.reply(submission.origin, Status::NotHere(self.shared.epoch())),
        }
        self.touch(id.0);
    }

    /// Takes what is to be sent on a link.
    pub fn take_link_output(&mut self, link: u64) -> Vec<u8> {
        self.ports.links.get_mut(link).map(|l| std::mem::take(&mut l.output)).unwrap_or_default()
    }

    /// Links that have something to send since the last call.
    pub fn take_touched_links(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.ports.touched_links)
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
