//! Snapshots on their way between nodes, each on a connection of its own, at the rate of `move_rate`. The worker makes the
//! connection and judges what came; the bytes pass on a thread of their own, so that turns go on meanwhile.

use super::super::core::{SnapshotReceive, SnapshotSend};
use super::super::ports::worker_of;
use super::super::shared::{Pace, Shared};
use super::Shell;
use super::threads::yield_to_turns;
use crate::clock::{Clock as _, SystemClock};
use crate::failpoint::{self, Point};
use crate::log::{FsDisk, LogError, SnapshotReader};
use ringfort_proxy::server::peer::read_frame;
use ringfort_wire::frame::{self, Kind, Reader, put_bytes};
use ringfort_wire::hello::Channel;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// Bytes of a snapshot in one frame.
const SNAPSHOT_FRAME_BYTES: usize = 64 << 10;
/// Time without progress after which the transfer of a snapshot is given up.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(30);

/// The thread on which the bytes of a worker's snapshots pass between sockets and files, and into fresh states: a file that is
/// slow holds the others up. Dropping it gives up what is under way.
#[derive(Debug)]
pub(super) struct Transfers {
    runtime: tokio::runtime::Handle,
    /// The thread ends when this is gone.
    life: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Transfers {
    pub(super) fn start(worker: u16) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (life, ended) = oneshot::channel();
        let thread = std::thread::Builder::new().name(format!("transfer-{worker}")).spawn(move || {
            yield_to_turns();
            // An error is the end: nobody ever sends anything.
            let _ = runtime.block_on(ended);
        })?;
        Ok(Self { runtime: handle, life: Some(life), thread: Some(thread) })
    }

    /// Runs `work` on the thread.
    async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = anyhow::Result<T>> + Send + 'static,
    ) -> anyhow::Result<T> {
        self.runtime.spawn(work).await?
    }
}

impl Drop for Transfers {
    fn drop(&mut self) {
        self.life = None;
        if let Some(thread) = self.thread.take() {
            // It ends with what it does at the moment, a read or write of one frame.
            let _ = thread.join();
        }
    }
}

impl Shell {
    pub(super) async fn send_snapshot(self: Rc<Self>, send: SnapshotSend<FsDisk>) {
        let (to, group, replica) = (send.to.clone(), send.group, send.message.to());
        let index = send.reader.header().index;
        let outcome = self.copy_snapshot(send).await;
        if let Err(error) = &outcome {
            match error.downcast_ref::<LogError>() {
                Some(error) => self.core.borrow_mut().snapshot_unreadable(group, index, error),
                None => tracing::warn!(%group, %to, %error, "a snapshot could not be sent"),
            }
        }
        self.core.borrow_mut().snapshot_sent(group, replica, outcome.is_ok());
        self.inbox.wake.notify_one();
    }

    async fn copy_snapshot(&self, send: SnapshotSend<FsDisk>) -> anyhow::Result<()> {
        let SnapshotSend { to, group, incarnation, message, reader } = send;
        let map = self.shared.map().ok_or_else(|| anyhow::anyhow!("no cluster map"))?;
        let node = map.node(&to).ok_or_else(|| anyhow::anyhow!("the node has left the cluster"))?;
        let workers = self.core.borrow_mut().peer_workers(&to);
        let (stream, _) = self.connect(&node.peer, Channel::Snapshot, worker_of(group, workers)).await?;
        let mut begin = Vec::new();
        frame::put(&mut begin, Kind::SnapshotBegin, |out| {
            out.extend_from_slice(&group.0.to_le_bytes());
            out.extend_from_slice(&incarnation.to_le_bytes());
            let mut announced = Vec::new();
            message.encode(&mut announced);
            put_bytes(out, &announced);
        });
        // A socket belongs to the runtime that watches it.
        let stream = stream.into_std()?;
        let shared = Arc::clone(&self.shared);
        self.transfers
            .run(async move { send_bytes(TcpStream::from_std(stream)?, begin, reader, &shared).await })
            .await
    }

    pub(super) async fn serve_snapshot(self: Rc<Self>, stream: TcpStream) {
        if let Err(error) = self.take_snapshot(stream).await {
            tracing::warn!(%error, "a snapshot could not be received");
        }
    }

    async fn take_snapshot(&self, mut stream: TcpStream) -> anyhow::Result<()> {
        let mut body = Vec::new();
        let kind = tokio::time::timeout(SNAPSHOT_TIMEOUT, read_frame(&mut stream, &mut body)).await??;
        anyhow::ensure!(kind == Kind::SnapshotBegin, "a snapshot must begin with its announcement");
        let mut r = Reader::new(&body, "announcement of a snapshot");
        let (group, incarnation, message) = (r.u16()?, r.u32()?, r.bytes()?);
        let receive = self.core.borrow_mut().receive_snapshot(group, incarnation, message)?;
        let Some(receive) = receive else { return Ok(()) };
        let stream = stream.into_std()?;
        let shared = Arc::clone(&self.shared);
        let took = async move { take_bytes(TcpStream::from_std(stream)?, body, receive, &shared).await };
        let (stream, receive) = self.transfers.run(took).await?;
        let id = self.core.borrow_mut().snapshot_received(receive)?;
        let mut stream = TcpStream::from_std(stream)?;
        let id = id.ok_or_else(|| anyhow::anyhow!("another snapshot of the group came just before"))?;
        let (sender, durable) = oneshot::channel();
        self.received.borrow_mut().insert(id, sender);
        self.inbox.wake.notify_one();
        // The leader goes on from the snapshot only when it is durable here; else it would send it again.
        anyhow::ensure!(durable.await.unwrap_or(false), "the snapshot could not be made durable");
        failpoint::hit(Point::SnapshotAcknowledge)?;
        let mut out = Vec::new();
        frame::put(&mut out, Kind::SnapshotEnd, |_| {});
        stream.write_all(&out).await?;
        Ok(())
    }
}

/// Sends the rest of a snapshot after what is in `out`, and waits until the other side has it durably.
async fn send_bytes(
    mut stream: TcpStream,
    mut out: Vec<u8>,
    mut reader: SnapshotReader<FsDisk>,
    shared: &Shared,
) -> anyhow::Result<()> {
    loop {
        let before = out.len();
        let mut read = Ok(0);
        frame::put(&mut out, Kind::SnapshotChunk, |out| read = reader.next_raw(SNAPSHOT_FRAME_BYTES, out));
        let bytes = read?;
        if bytes == 0 {
            out.truncate(before);
            break;
        }
        failpoint::hit(Point::SnapshotSend)?;
        tokio::time::timeout(SNAPSHOT_TIMEOUT, stream.write_all(&out)).await??;
        out.clear();
        keep_pace(&shared.sending, shared, bytes).await;
    }
    frame::put(&mut out, Kind::SnapshotEnd, |_| {});
    tokio::time::timeout(SNAPSHOT_TIMEOUT, stream.write_all(&out)).await??;
    failpoint::hit(Point::SnapshotSent)?;
    let kind = tokio::time::timeout(SNAPSHOT_TIMEOUT, read_frame(&mut stream, &mut out)).await??;
    anyhow::ensure!(kind == Kind::SnapshotEnd, "the receiver did not take the snapshot");
    Ok(())
}

/// Takes the bytes of a snapshot up to its end; `body` is room for a frame.
async fn take_bytes(
    mut stream: TcpStream,
    mut body: Vec<u8>,
    mut receive: SnapshotReceive<FsDisk>,
    shared: &Shared,
) -> anyhow::Result<(std::net::TcpStream, SnapshotReceive<FsDisk>)> {
    loop {
        match tokio::time::timeout(SNAPSHOT_TIMEOUT, read_frame(&mut stream, &mut body)).await?? {
            Kind::SnapshotChunk => {
                receive.write(&body)?;
                keep_pace(&shared.receiving, shared, body.len()).await;
            }
            Kind::SnapshotEnd => return Ok((stream.into_std()?, receive)),
            _ => anyhow::bail!("a frame of another kind in a snapshot"),
        }
    }
}

/// Waits for as long as so many bytes may take.
async fn keep_pace(pace: &Pace, shared: &Shared, bytes: usize) {
    let rate = shared.map().map_or(u64::MAX, |map| map.moving.bytes_per_s);
    let wait_us = pace.wait_us(SystemClock.now().boot_us, bytes as u64, rate);
    tokio::time::sleep(Duration::from_micros(wait_us)).await;
}
