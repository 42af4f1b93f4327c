//! The nodes: processes that start, take turns and end.

use super::{Event, World, members};
use crate::invariants::Invariants;
use crate::net::Use;
use crate::node::{Death, TurnClock};
use crate::options::{PARTITIONS, SECOND};
use ringfort::shard::Group;
use ringfort::shard::raft::TICK_MS;
use ringfort::worker::JobDone;
use ringfort_wire::{GroupId, MetaAnswer};
use std::cell::Cell;

/// Turns between two looks at Log Matching.
const MATCHING_EVERY: u64 = 64;

impl World {
    pub(super) fn start(&mut self, node: usize) -> Result<(), String> {
        if self.nodes[node].is_up || self.nodes[node].is_gone || self.stays_away(node) {
            return Ok(());
        }
        let Some(map) = self.nodes[node].kept.clone() else {
            self.rejoin(node);
            return Ok(());
        };
        if map.node(&self.nodes[node].id).is_none() {
            self.leave_for_good(node);
            return Ok(());
        }
        let seed = self.rng.next();
        let state = &mut self.nodes[node];
        let is_first = !state.has_lived;
        let started = state.start(&self.options, &map, seed);
        self.trace.note(self.now, 1, node as u64, u64::from(started.is_ok()));
        if let Err(error) = started {
            if !self.nodes[node].is_full {
                return Err(format!("n{} does not start: {error:#}", node + 1));
            }
            self.line(|| format!("n{} does not start on a full disk: {error:#}", node + 1));
            self.nodes[node].stop(Death::Kill, self.now, 0);
            self.after(200_000, Event::Start { node });
            return Ok(());
        }
        self.report.restarts += u64::from(!is_first);
        self.line(|| format!("n{} starts", node + 1));
        let life = self.nodes[node].life;
        for worker in 0..self.nodes[node].workers.len() {
            let phase = self.rng.below(10_000);
            self.after(phase, Event::Tick { node, worker, life });
            self.want_turn(node, worker);
        }
        Ok(())
    }

    /// The process ends; everybody who was connected to it notices in time.
    pub(super) fn die(&mut self, node: usize, death: Death) {
        let seed = self.rng.next();
        self.line(|| format!("n{} dies: {death:?}", node + 1));
        self.trace.note(self.now, 2, node as u64, death as u64);
        let now = self.now;
        let received: Vec<u64> =
            self.nodes[node].workers.iter().flat_map(|w| w.received.values().copied()).collect();
        for number in received {
            self.answer_snapshot(number, false);
        }
        self.nodes[node].stop(death, now, seed);
        self.invariants.forget(node);
        for conn in 0..self.conns.len() {
            if let Some(end) = self.conns[conn].ends.iter().position(|&host| host == node) {
                self.break_conn(conn);
                self.forget_end(conn, end);
            }
        }
        self.after(0, Event::Resume { host: node });
        let after = if self.is_healed { 100_000 } else { self.rng.spread(50_000, self.options.fault_us) };
        self.after(after, Event::Start { node });
    }

    /// A process dies and is back at once, and so are its connections.
    pub(super) fn restart(&mut self, node: usize) -> Result<(), String> {
        if self.is_healed || !self.nodes[node].is_up {
            return Ok(());
        }
        self.die(node, Death::Kill);
        self.start(node)
    }

    /// A core said that it cannot go on.
    pub(super) fn end_process(&mut self, node: usize, error: &anyhow::Error) -> Result<(), String> {
        match self.nodes[node].doom {
            Some(death) => {
                self.line(|| format!("n{} stops: {error:#}", node + 1));
                self.die(node, death);
                Ok(())
            }
            None => Err(format!("n{} stops without a fault of its disk: {error:#}", node + 1)),
        }
    }

    pub(super) fn want_turn(&mut self, node: usize, worker: usize) {
        let state = &mut self.nodes[node];
        let life = state.life;
        if !std::mem::replace(&mut state.workers[worker].has_turn, true) {
            let after = self.rng.below(200);
            self.after(after, Event::Turn { node, worker, life });
        }
    }

    pub(super) fn want_flush(&mut self, node: usize, worker: usize) {
        let state = &mut self.nodes[node];
        let life = state.life;
        if !std::mem::replace(&mut state.workers[worker].has_flush, true) {
            self.after(10, Event::Flush { node, worker, life });
        }
    }

    pub(super) fn tick(&mut self, node: usize, worker: usize) -> Result<(), String> {
        let state = &mut self.nodes[node];
        let now = state.clocks.now(self.now);
        let Some(core) = &mut state.workers[worker].core else { return Ok(()) };
        let has_ticked = core.next_tick_us() <= now.boot_us && core.pass_time(now);
        let is_resting = now.boot_us + 2 * TICK_MS * 1_000 < core.next_tick_us();
        self.report.rests += u64::from(has_ticked && is_resting);
        let wants_turn = core.wants_turn();
        let (life, tick_us) = (state.life, state.clocks.tick_us());
        self.trace.note(self.now, 3, node as u64, u64::from(wants_turn));
        let late = self.rng.below(300);
        self.after(tick_us + late, Event::Tick { node, worker, life });
        if !has_ticked {
            return Ok(());
        }
        // As the real shell: a turn also sees what came without a message, such as another worker's map.
        self.want_turn(node, worker);
        self.want_flush(node, worker);
        Ok(())
    }

    pub(super) fn turn(&mut self, node: usize, worker: usize) -> Result<(), String> {
        let is_slow = self.now < self.nodes[node].slow_until;
        let stall_us = if is_slow && self.rng.one_in(8) {
            self.rng.spread(1_000, SECOND / 2)
        } else if !self.is_healed && self.rng.one_in(self.options.stall_one_in) {
            self.rng.spread(1_000, SECOND)
        } else {
            self.rng.below(100)
        };
        let state = &mut self.nodes[node];
        state.workers[worker].has_turn = false;
        let clock =
            TurnClock { clocks: state.clocks, at: Cell::new(self.now), stall_us, readings: Cell::new(0) };
        let Some(core) = &mut state.workers[worker].core else { return Ok(()) };
        let result = core.turn(&clock);
        let wants_turn = core.wants_turn();
        if stall_us >= 1_000 {
            state.paused_until = state.paused_until.max(clock.at.get());
        }
        self.trace.note(self.now, 4, node as u64, u64::from(wants_turn));
        self.turns += 1;
        if let Err(error) = result {
            return self.end_process(node, &error);
        }
        self.check(node, worker)?;
        if wants_turn {
            self.want_turn(node, worker);
        }
        self.want_flush(node, worker);
        Ok(())
    }

    pub(super) fn check(&mut self, node: usize, worker: usize) -> Result<(), String> {
        let Some(core) = &self.nodes[node].workers[worker].core else { return Ok(()) };
        if let Some(map) = core.shared().map() {
            let news = self.invariants.check_map(node, &map)?;
            for group in news {
                let spec = map.group(group);
                self.trace.line(self.now, || format!("map {}: group {group} {spec:?}", map.epoch));
            }
        }
        for group in core.groups() {
            if self.invariants.check(node, group)? {
                self.check_leases(node, group)?;
            }
            self.invariants.check_memory(node, group, &self.options)?;
        }
        if self.turns.is_multiple_of(MATCHING_EVERY) {
            let id = GroupId(self.rng.below(u64::from(PARTITIONS) + 1) as u16);
            let replicas: Vec<_> = self
                .nodes
                .iter()
                .flat_map(|n| n.workers.iter().filter_map(|w| w.core.as_ref()?.group(id)))
                .collect();
            for pair in replicas.windows(2) {
                Invariants::check_log_matching(pair[0], pair[1], &mut self.rng)?;
            }
        }
        Ok(())
    }

    /// No other replica of the group may answer reads by its lease while this one does, or commits.
    fn check_leases(&self, node: usize, group: &Group) -> Result<(), String> {
        if !group.raft().is_leader() {
            return Ok(());
        }
        let covers = |n: usize, g: &Group| g.covers_reads(self.nodes[n].clocks.now(self.now));
        for other in (0..self.nodes.len()).filter(|&other| other != node) {
            let worker = usize::from(ringfort::worker::worker_of(group.id(), self.options.workers));
            let core = self.nodes[other].workers[worker].core.as_ref();
            if let Some(theirs) = core.and_then(|core| core.group(group.id()))
                && theirs.raft().is_leader()
            {
                Invariants::check_leases((group, covers(node, group)), (theirs, covers(other, theirs)))?;
            }
        }
        Ok(())
    }

    /// Sends what a worker has to send.
    pub(super) fn flush(&mut self, node: usize, worker: usize) -> Result<(), String> {
        let state = &mut self.nodes[node];
        let (now, life) = (state.clocks.now(self.now), state.life);
        state.workers[worker].has_flush = false;
        let Some(core) = &mut state.workers[worker].core else { return Ok(()) };
        let mut raft = Vec::new();
        core.send_raft_output(|to, worker, bytes| raft.push((to.0.clone(), worker, bytes.to_vec())));
        let snapshots = core.take_snapshot_sends();
        let jobs = core.take_jobs();
        let mail = core.take_worker_output();
        for (number, answer) in core.take_meta_answers() {
            self.trace.note(self.now, 6, number, u64::from(matches!(answer, MetaAnswer::Done(_))));
            match number {
                members::CHANGES.. => {
                    self.report.changes += u64::from(matches!(answer, MetaAnswer::Done(_)));
                }
                _ => self.settings.answer(self.now, number, &answer)?,
            }
        }
        if !raft.is_empty() {
            let w = &state.workers[worker];
            let term_of = |id, index| w.core.as_ref()?.group(id)?.raft().term_at(index);
            let batches = raft.iter().map(|(_, _, bytes)| &bytes[..]);
            self.invariants
                .check_promises(batches, &w.disk, self.options.fsync, term_of)
                .map_err(|e| format!("n{}: {e}", node + 1))?;
        }
        let Some(core) = &mut state.workers[worker].core else { return Ok(()) };
        let mut out = Vec::new();
        for link in core.take_touched_links(now) {
            let mut bytes = Vec::new();
            core.link_let_bulk(link);
            while let (piece @ [_, ..], _) = core.link_output(link) {
                let count = piece.len();
                bytes.extend_from_slice(piece);
                core.link_sent(link, count, now);
                core.link_let_bulk(link);
            }
            out.push((false, link, bytes));
        }
        for client in core.take_touched_clients(now) {
            let mut bytes = Vec::new();
            while let Some((piece @ [_, ..], _)) = core.client_output(client) {
                let count = piece.len();
                bytes.extend_from_slice(piece);
                core.client_sent(client, count, now);
            }
            out.push((true, client, bytes));
        }
        let wants_turn = core.wants_turn();
        let w = &mut state.workers[worker];
        w.jobs.extend(jobs);
        let starts_job = !w.jobs.is_empty() && !std::mem::replace(&mut w.is_job_running, !w.jobs.is_empty());
        if starts_job {
            self.plan_job(node, worker);
        }
        for (to, message) in mail {
            self.nodes[node].workers[usize::from(to)].mail.push_back(message);
            let after = self.rng.below(100);
            self.after(after, Event::Mail { node, worker: usize::from(to), life });
        }
        for (to, to_worker, bytes) in raft {
            let to = self.node_number(&to);
            let conn =
                self.find_conn(|c| c.what == Use::Peers && c.ends.contains(&node) && c.ends.contains(&to));
            self.send(conn, node, to_worker, bytes);
        }
        for (is_client, number, bytes) in out {
            let conn = self.conns.iter().position(|c| {
                c.ends[1] == node
                    && c.knows[1]
                    && c.number == number
                    && match c.what {
                        Use::Peers => false,
                        Use::Requests { worker: w } => !is_client && usize::from(w) == worker,
                        Use::Client { worker: w } => is_client && usize::from(w) == worker,
                    }
            });
            if let Some(conn) = conn
                && !bytes.is_empty()
            {
                self.send(conn, node, 0, bytes);
            }
        }
        for snapshot in snapshots {
            self.send_snapshot(node, worker, snapshot);
        }
        if wants_turn {
            self.want_turn(node, worker);
        }
        Ok(())
    }

    pub(super) fn mail(&mut self, node: usize, worker: usize) {
        let state = &mut self.nodes[node];
        let now = state.clocks.now(self.now);
        let w = &mut state.workers[worker];
        if let (Some(core), Some(message)) = (&mut w.core, w.mail.pop_front()) {
            core.worker_message(message, now);
            self.want_turn(node, worker);
            self.want_flush(node, worker);
        }
    }

    pub(super) fn plan_job(&mut self, node: usize, worker: usize) {
        let life = self.nodes[node].life;
        let is_slow = self.now < self.nodes[node].slow_until;
        let after = if is_slow {
            self.rng.spread(self.options.sync_us, 2 * SECOND)
        } else {
            self.rng.spread(50, self.options.sync_us)
        };
        self.after(after, Event::JobRun { node, worker, life });
    }

    /// The log thread does its next job; the worker hears of it later.
    pub(super) fn run_job(&mut self, node: usize, worker: usize) {
        let w = &mut self.nodes[node].workers[worker];
        let Some(job) = w.jobs.pop_front() else { return };
        w.done = Some(job.run());
        let life = self.nodes[node].life;
        self.trace.note(self.now, 5, node as u64, worker as u64);
        let after = self.rng.below(300);
        self.after(after, Event::JobDone { node, worker, life });
    }

    pub(super) fn finish_job(&mut self, node: usize, worker: usize) -> Result<(), String> {
        let w = &mut self.nodes[node].workers[worker];
        let (Some(core), Some(done)) = (&mut w.core, w.done.take()) else { return Ok(()) };
        let text = self.trace.lines.is_some().then(|| format!("{done:?}"));
        let answer = match &done {
            JobDone::Received(group, header, _, result) => {
                w.received.remove(&(*group, header.index)).map(|number| (number, result.is_ok()))
            }
            _ => None,
        };
        let result = core.job_done(done);
        w.is_job_running = !w.jobs.is_empty();
        let has_more = w.is_job_running;
        if let Some((number, is_durable)) = answer {
            self.answer_snapshot(number, is_durable);
        }
        self.line(|| {
            let text: String = text.unwrap_or_default().chars().take(160).collect();
            format!("n{} job done: {text}", node + 1)
        });
        if let Err(error) = result {
            return self.end_process(node, &error);
        }
        if has_more {
            self.plan_job(node, worker);
        }
        self.want_turn(node, worker);
        self.want_flush(node, worker);
        Ok(())
    }
}
