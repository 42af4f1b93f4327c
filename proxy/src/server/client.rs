//! One client's socket.

use super::Accepted;
use super::worker::Worker;
use crate::ClientId;
use crate::clients::Address;
use crate::pace::Pass;
use crate::stream::{self, ClientStream};
use core::cell::{Cell, RefCell};
use core::future::poll_fn;
use core::task::{Context, Poll, Waker};
use std::rc::Rc;

/// Most bytes that one read takes from a client, so that a busy client leaves room in the turn for others.
const READ_BYTES: usize = 64 << 10;
const _: () = assert!(READ_BYTES >= ClientStream::READ_BYTES_MIN);
/// Most bytes that are written to one client before the others have their turn.
const WRITE_BYTES: usize = 64 << 10;

/// What a client's task does next.
enum Step {
    /// It waits for a pass to write a piece of a large reply.
    Bulk,
    /// It closes the connection.
    Over,
}

/// What the client's task and the turn share.
pub(super) struct ClientShell {
    id: ClientId,
    stream: ClientStream,
    /// Wakes the task.
    waker: RefCell<Option<Waker>>,
    /// Whether the task does not watch the socket for input and must be woken to.
    is_parked: Cell<bool>,
    /// Whether the socket failed.
    is_broken: Cell<bool>,
}

impl ClientShell {
    /// Takes a socket in and starts its task.
    pub(super) fn open(worker: &Rc<Worker>, (socket, place): Accepted) {
        let stream = match ClientStream::new(socket) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%error, "client is gone already");
                return;
            }
        };
        let id = worker.core.borrow_mut().client_open(place, &Address::of(stream.tcp()));
        if stream.is_tls() {
            worker.core.borrow_mut().client_set_tls(id);
        }
        let shell = Rc::new(Self {
            id,
            stream,
            waker: RefCell::default(),
            is_parked: Cell::new(false),
            is_broken: Cell::new(false),
        });
        worker.clients.borrow_mut().insert(id, Rc::clone(&shell));
        tokio::task::spawn_local(shell.serve(Rc::clone(worker)));
    }

    async fn serve(self: Rc<Self>, worker: Rc<Worker>) {
        let mut pass = None;
        while let Step::Bulk = poll_fn(|cx| self.poll(cx, &worker, &mut pass)).await {
            // Whoever has come meanwhile is read first.
            tokio::task::yield_now().await;
            pass = Some(Rc::clone(&worker.pace).pass().await);
        }
        drop(pass);
        self.stream.finish().await;
        worker.clients.borrow_mut().remove(&self.id);
        worker.core.borrow_mut().client_close(self.id);
        // A stopping worker waits for the last client.
        worker.turn.notify_one();
    }

    /// Writes and reads what it can; ready when it needs a pass to write on, or when the connection is to be closed. A pass
    /// is used up.
    fn poll(&self, cx: &mut Context<'_>, worker: &Worker, pass: &mut Option<Pass>) -> Poll<Step> {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        drop(waker);
        let core = &mut *worker.core.borrow_mut();
        let pass = pass.take();
        if pass.is_none() && core.client_is_bulk(self.id) && !self.is_broken.get() {
            return Poll::Ready(Step::Bulk);
        }
        let mut budget = WRITE_BYTES;
        while let output @ [_, ..] = core.client_output(self.id) {
            if budget == 0 {
                cx.waker().wake_by_ref();
                break;
            }
            match self.stream.poll_write(cx, &output[..output.len().min(budget)]) {
                Poll::Pending => break,
                Poll::Ready(Ok(count @ 1..)) => {
                    budget -= count;
                    core.client_sent(self.id, count);
                    if pass.is_none() {
                        worker.pace.serves_others();
                    }
                }
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Step::Over),
            }
        }
        drop(pass);
        if core.has_work() {
            worker.turn.notify_one();
        }
        let is_lost = matches!(self.stream.poll_flush(cx), Poll::Ready(Err(_)));
        if is_lost || self.is_broken.get() || core.client_is_over(self.id) {
            return Poll::Ready(Step::Over);
        }
        self.is_parked.set(true);
        if !core.client_wants_input(self.id) {
            return Poll::Pending;
        }
        let buffer = &mut worker.read_buffer.borrow_mut()[..READ_BYTES];
        match self.stream.poll_read(cx, buffer) {
            Poll::Pending => self.is_parked.set(false),
            Poll::Ready(Err(_)) => return Poll::Ready(Step::Over),
            Poll::Ready(Ok(count)) => {
                if count == 0 {
                    core.client_end_input(self.id);
                } else {
                    core.client_data(self.id, &buffer[..count]);
                    // Watched already for what comes next; when that is here already, the turn wakes the task.
                    self.is_parked.set(self.stream.poll_readable(cx));
                }
                worker.turn.notify_one();
            }
        }
        Poll::Pending
    }

    /// Writes the client's replies unless they are large, and wakes its task if there is something to do for it.
    pub(super) fn after_turn(&self, worker: &Worker) {
        let core = &mut *worker.core.borrow_mut();
        let mut budget = if core.client_is_bulk(self.id) { 0 } else { WRITE_BYTES };
        while let output @ [_, ..] = core.client_output(self.id)
            && budget > 0
        {
            match self.stream.try_write(&output[..output.len().min(budget)]) {
                Ok(count) => {
                    budget -= count;
                    core.client_sent(self.id, count);
                    worker.pace.serves_others();
                }
                Err(error) => {
                    self.is_broken.set(stream::is_fatal(&error));
                    break;
                }
            }
        }
        let has_output = !core.client_output(self.id).is_empty();
        let wants_input = self.is_parked.get() && core.client_wants_input(self.id);
        if (has_output
            || wants_input
            || self.stream.has_unsent()
            || core.client_is_over(self.id)
            || self.is_broken.get())
            && let Some(waker) = &*self.waker.borrow()
        {
            waker.wake_by_ref();
        }
    }
}
