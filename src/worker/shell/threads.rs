//! The threads beside a worker's: they do what may block, and what is for later.

use super::super::core::Job;
use super::{Inbox, Input};
use crate::clock::{Clock as _, SystemClock};
use crate::log::FsDisk;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Priority of threads that nobody waits for: 1/70 of a turn's share of a busy processor.
#[cfg(target_os = "linux")]
const BACKGROUND_NICE: i32 = 19;
/// Rest after each piece of a snapshot that does not press: it and the worker that reads the pieces would keep a processor to
/// themselves else, for as long as a partition has state. 64 KiB a millisecond are about 60 MiB/s.
const STEP_REST: Duration = Duration::from_millis(1);

/// Starts a thread that runs jobs, in order, until their sender is gone. Their number is bounded: one sync, one piece
/// of an old segment and a few snapshots at a time.
pub(super) fn job_thread(
    name: String,
    inbox: &Arc<Inbox>,
    start: fn(),
) -> io::Result<(crossbeam::channel::Sender<Job<FsDisk>>, std::thread::JoinHandle<()>)> {
    let (sender, queue) = crossbeam::channel::unbounded::<Job<FsDisk>>();
    let inbox = Arc::clone(inbox);
    let thread = std::thread::Builder::new().name(name).spawn(move || {
        start();
        let mut next = queue.recv().ok();
        while let Some(job) = next {
            let has_time = matches!(job, Job::Write { is_pressing: false, .. });
            let started_us = SystemClock.now().boot_us;
            let done = job.run();
            let took_us = SystemClock.now().boot_us.saturating_sub(started_us);
            // The next piece is read when this one is done; another job ends the rest.
            let came = if has_time { queue.recv_timeout(STEP_REST).ok() } else { None };
            inbox.push(Input::Job(done, took_us));
            next = came.or_else(|| queue.recv().ok());
        }
    })?;
    Ok((sender, thread))
}

/// Lets the calling thread run after all others when the processors are short: its work is for later.
pub(super) fn yield_to_turns() {
    // On Linux a thread has a priority of its own; elsewhere this would be the whole process.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), BACKGROUND_NICE)
    {
        tracing::debug!(%error, "a thread keeps its priority");
    }
}
