//! One link to a node's worker: connecting, the handshake, frames both ways.

use super::peer::{self, invalid};
use super::worker::Worker;
use crate::WantedLink;
use core::cell::{Cell, RefCell};
use core::future::poll_fn;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use ringfort_wire::hello::{Channel, Hello, HelloAck};
use ringfort_wire::request::ReplyPart;
use ringfort_wire::{FEATURE_LEVEL, Kind, Reply, frame};
use std::io;
use std::rc::Rc;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;
use tokio::time::timeout;

/// How long connecting and the handshake may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// First pause before connecting again; it doubles up to the longest.
const RECONNECT_PAUSE: Duration = Duration::from_millis(20);
/// Longest pause.
const RECONNECT_PAUSE_MAX: Duration = Duration::from_millis(500);
/// How long a node's machine may leave bytes unacknowledged before the connection counts as lost: one that lost its power
/// or its network sends no reset.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(3);
/// What the system keeps of replies that are not read: what a small one finds before it.
const REPLY_BUFFER_BYTES: usize = 256 << 10;
/// Bytes of one read after which others have their turn before the next.
const LARGE_READ_BYTES: usize = 64 << 10;
/// Capacity of the buffers that is kept when they are empty, bytes.
const KEPT_BYTES: usize = 1 << 20;

/// What the link's task and the turn share.
pub(super) struct LinkShell {
    wanted: WantedLink,
    /// The node's address.
    pub(super) peer: String,
    /// Frames to send; the first `written` bytes are sent already.
    pub(super) output: RefCell<Vec<u8>>,
    written: Cell<usize>,
    /// The open connection.
    write: RefCell<Option<OwnedWriteHalf>>,
    /// Wakes the task: there is output that the socket did not take, or the link ended.
    wake: Notify,
    is_ended: Cell<bool>,
}

impl LinkShell {
    pub(super) fn new(wanted: WantedLink) -> Self {
        Self {
            peer: wanted.peer.clone(),
            wanted,
            output: RefCell::default(),
            written: Cell::new(0),
            write: RefCell::default(),
            wake: Notify::new(),
            is_ended: Cell::new(false),
        }
    }

    /// Ends the link for good.
    pub(super) fn end(&self) {
        self.is_ended.set(true);
        self.wake.notify_one();
    }

    /// Sends what the socket takes; the task sends the rest.
    pub(super) fn flush(&self) {
        let write = self.write.borrow();
        let Some(write) = &*write else {
            self.forget_output();
            return;
        };
        while self.has_output() {
            let result = write.try_write(&self.output.borrow()[self.written.get()..]);
            match result {
                Ok(count) => self.sent(count),
                // A broken connection shows when the task reads from it.
                Err(_) => {
                    self.wake.notify_one();
                    return;
                }
            }
        }
    }

    fn has_output(&self) -> bool {
        self.written.get() < self.output.borrow().len()
    }

    fn sent(&self, count: usize) {
        self.written.set(self.written.get() + count);
        if !self.has_output() {
            self.forget_output();
        }
    }

    fn forget_output(&self) {
        let mut output = self.output.borrow_mut();
        output.clear();
        output.shrink_to(KEPT_BYTES);
        self.written.set(0);
    }
}

/// Holds a link until it is wanted no more.
pub(super) async fn hold(worker: Rc<Worker>, link: Rc<LinkShell>) {
    let mut pause = RECONNECT_PAUSE;
    while !link.is_ended.get() {
        match connect(&worker, &link).await {
            // Ended meanwhile: another task may hold the link by now.
            Ok(_) if link.is_ended.get() => return,
            Ok((stream, ack)) => {
                let (read, write) = stream.into_split();
                *link.write.borrow_mut() = Some(write);
                link.forget_output();
                let now_us = worker.shared.now_us();
                if worker.core.borrow_mut().link_up(link.wanted.link, ack.workers, now_us) {
                    tracing::debug!(node = %link.wanted.node, worker = link.wanted.link.worker, "link up");
                    pause = RECONNECT_PAUSE;
                    worker.turn.notify_one();
                    let error = serve(&worker, &link, read).await;
                    tracing::debug!(node = %link.wanted.node, worker = link.wanted.link.worker, %error, "link down");
                    worker.core.borrow_mut().link_down(link.wanted.link, worker.shared.now_us());
                }
                *link.write.borrow_mut() = None;
                link.forget_output();
                worker.turn.notify_one();
            }
            Err(error) => tracing::debug!(node = %link.wanted.node, %error, "cannot connect"),
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = link.wake.notified() => {}
        }
        pause = (pause * 2).min(RECONNECT_PAUSE_MAX);
    }
}

async fn connect(worker: &Worker, link: &LinkShell) -> io::Result<(TcpStream, HelloAck)> {
    let cluster_id = worker.core.borrow().map().map_or(0, |map| map.cluster_id);
    let hello = hello(Channel::Requests, cluster_id, worker.number, link.wanted.link.worker);
    let (stream, ack) =
        timeout(CONNECT_TIMEOUT, peer::connect(&link.peer, hello, worker.shared.options.secret.as_ref()))
            .await??;
    let socket = socket2::SockRef::from(&stream);
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
    socket.set_recv_buffer_size(REPLY_BUFFER_BYTES)?;
    Ok((stream, ack))
}

/// What a proxy says first.
pub(super) fn hello(channel: Channel, cluster_id: u128, worker: u16, to_worker: u16) -> Hello {
    Hello {
        feature_level: FEATURE_LEVEL,
        channel,
        cluster_id,
        node: String::new(),
        store_id: 0,
        worker,
        to_worker,
        nonce: None,
    }
}

/// Moves frames until the connection breaks or the link ends; returns why.
async fn serve(worker: &Worker, link: &LinkShell, mut read: OwnedReadHalf) -> io::Error {
    let mut input = Vec::new();
    loop {
        let has_output = link.has_output();
        tokio::select! {
            result = poll_fn(|cx| poll_read(cx, worker, link, &mut read, &mut input)) => match result {
                Ok(count) => {
                    worker.turn.notify_one();
                    if LARGE_READ_BYTES <= count {
                        // There is more, perhaps for long: others have their turn.
                        tokio::task::yield_now().await;
                    }
                }
                Err(error) => return error,
            },
            result = poll_fn(|cx| poll_flush(cx, link)), if has_output => if let Err(error) = result {
                return error;
            },
            () = link.wake.notified() => {}
        }
        if link.is_ended.get() {
            return io::Error::other("the map does not name it any more");
        }
    }
}

/// Reads once and hands whole frames to the core; what is left of the last one goes to `input`. Returns how much came.
fn poll_read(
    cx: &mut Context<'_>,
    worker: &Worker,
    link: &LinkShell,
    read: &mut OwnedReadHalf,
    input: &mut Vec<u8>,
) -> Poll<io::Result<usize>> {
    let mut buffer = worker.read_buffer.borrow_mut();
    let mut buffer = ReadBuf::new(&mut buffer);
    core::task::ready!(Pin::new(read).poll_read(cx, &mut buffer))?;
    if buffer.filled().is_empty() {
        return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
    }
    let consumed = if input.is_empty() {
        let consumed = take_frames(worker, link, buffer.filled())?;
        input.extend_from_slice(&buffer.filled()[consumed..]);
        0
    } else {
        input.extend_from_slice(buffer.filled());
        take_frames(worker, link, input)?
    };
    input.drain(..consumed);
    if input.is_empty() {
        input.shrink_to(KEPT_BYTES);
    }
    Poll::Ready(Ok(buffer.filled().len()))
}

/// Handles the whole frames at the start of `bytes`; returns how many bytes they are.
fn take_frames(worker: &Worker, link: &LinkShell, bytes: &[u8]) -> io::Result<usize> {
    let mut consumed = 0;
    let now_us = worker.shared.now_us();
    let core = &mut *worker.core.borrow_mut();
    core.link_heard(link.wanted.link, now_us);
    while let Some(frame) = frame::next(&bytes[consumed..]).map_err(invalid)? {
        match frame.kind {
            Kind::Reply => {
                let reply = Reply::decode(frame.body).map_err(invalid)?;
                core.link_reply(link.wanted.link, &reply, now_us);
            }
            Kind::ReplyPart => {
                let part = ReplyPart::decode(frame.body).map_err(invalid)?;
                core.link_part(link.wanted.link, &part, now_us).map_err(invalid)?;
            }
            kind => return Err(invalid(format!("a frame of kind {kind:?} on a link for requests"))),
        }
        consumed += frame.consumed;
    }
    Ok(consumed)
}

/// Sends the output; pending while the socket takes no more.
fn poll_flush(cx: &mut Context<'_>, link: &LinkShell) -> Poll<io::Result<()>> {
    let mut write = link.write.borrow_mut();
    let Some(write) = &mut *write else { return Poll::Ready(Ok(())) };
    while link.has_output() {
        let output = link.output.borrow();
        let count = core::task::ready!(Pin::new(&mut *write).poll_write(cx, &output[link.written.get()..]))?;
        drop(output);
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        link.sent(count);
    }
    Poll::Ready(Ok(()))
}
