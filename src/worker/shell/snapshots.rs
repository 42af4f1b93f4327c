//! Snapshots on their way between nodes, each on a connection of its own, at the rate of `move_rate`. The file is read and
//! written by pool threads, so that turns go on meanwhile.

use super::super::core::SnapshotSend;
use super::super::ports::worker_of;
use super::super::shared::Pace;
use super::Shell;
use crate::clock::Clock as _;
use crate::failpoint::{self, Point};
use crate::log::{FsDisk, LogError};
use ringfort_proxy::server::peer::read_frame;
use ringfort_wire::frame::{self, Kind, Reader, put_bytes};
use ringfort_wire::hello::Channel;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// Bytes of a snapshot in one frame.
const SNAPSHOT_FRAME_BYTES: usize = 64 << 10;
/// Time without progress after which the transfer of a snapshot is given up.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(30);

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
        let SnapshotSend { to, group, incarnation, message, mut reader } = send;
        let map = self.shared.map().ok_or_else(|| anyhow::anyhow!("no cluster map"))?;
        let node = map.node(&to).ok_or_else(|| anyhow::anyhow!("the node has left the cluster"))?;
        let workers = self.core.borrow_mut().peer_workers(&to);
        let (mut stream, _) = self.connect(&node.peer, Channel::Snapshot, worker_of(group, workers)).await?;
        let mut out = Vec::new();
        frame::put(&mut out, Kind::SnapshotBegin, |out| {
            out.extend_from_slice(&group.0.to_le_bytes());
            out.extend_from_slice(&incarnation.to_le_bytes());
            let mut announced = Vec::new();
            message.encode(&mut announced);
            put_bytes(out, &announced);
        });
        loop {
            let bytes;
            (reader, out, bytes) = off_turn(move || {
                let raw = reader.next_raw(SNAPSHOT_FRAME_BYTES)?;
                if !raw.is_empty() {
                    frame::put(&mut out, Kind::SnapshotChunk, |out| out.extend_from_slice(&raw));
                }
                Ok((reader, out, raw.len()))
            })
            .await?;
            if bytes == 0 {
                break;
            }
            failpoint::hit(Point::SnapshotSend)?;
            tokio::time::timeout(SNAPSHOT_TIMEOUT, stream.write_all(&out)).await??;
            out.clear();
            self.keep_pace(&self.shared.sending, bytes).await;
        }
        frame::put(&mut out, Kind::SnapshotEnd, |_| {});
        stream.write_all(&out).await?;
        failpoint::hit(Point::SnapshotSent)?;
        let mut input = Vec::new();
        let kind = tokio::time::timeout(SNAPSHOT_TIMEOUT, read_frame(&mut stream, &mut input)).await??;
        anyhow::ensure!(kind == Kind::SnapshotEnd, "the receiver did not take the snapshot");
        Ok(())
    }

    /// Waits for as long as so many bytes may take.
    async fn keep_pace(&self, pace: &Pace, bytes: usize) {
        let rate = self.shared.map().map_or(u64::MAX, |map| map.moving.bytes_per_s);
        let wait_us = pace.wait_us(self.clock.now().boot_us, bytes as u64, rate);
        tokio::time::sleep(Duration::from_micros(wait_us)).await;
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
        let Some(mut receive) = receive else { return Ok(()) };
        loop {
            match tokio::time::timeout(SNAPSHOT_TIMEOUT, read_frame(&mut stream, &mut body)).await?? {
                Kind::SnapshotChunk => {
                    (receive, body) = off_turn(move || {
                        receive.write(&body)?;
                        Ok((receive, body))
                    })
                    .await?;
                    self.keep_pace(&self.shared.receiving, body.len()).await;
                }
                Kind::SnapshotEnd => break,
                _ => anyhow::bail!("a frame of another kind in a snapshot"),
            }
        }
        let id = self.core.borrow_mut().snapshot_received(receive)?;
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

/// Does work that may wait for the disk or take long on another thread, so that turns go on meanwhile.
async fn off_turn<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await?
}
