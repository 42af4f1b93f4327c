//! The last reads, and the removal of the keys.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::history::{History, ObjectId, Outcome, Phase, Sender};
use super::{Shared, VERIFY_MAX};
use crate::conn::Conn;
use crate::reply::Reply;

/// Keys read or removed at a time.
const BATCH: usize = 64;
/// Pause after an error, and before a suspicious key is read again.
const PAUSE: Duration = Duration::from_millis(200);
/// Longest that one batch may take.
const BATCH_MAX: Duration = Duration::from_secs(5);
/// Longest that the removal of the keys may take.
const REMOVE_MAX: Duration = Duration::from_secs(10);

/// Reads every key once more. A read that lacks something is repeated, because only the second tells an old view
/// (stale) from a loss. Then removes the keys, unless they are to be kept.
pub(super) async fn run(shared: &Rc<RefCell<Shared>>) {
    let mut reader = Reader { shared: Rc::clone(shared), conn: None, target: 0 };
    let all: Vec<_> = shared.borrow().history.objects().collect();
    let suspicious = reader.read_all(&all, Attempt::First).await;
    if !suspicious.is_empty() {
        sleep(PAUSE).await;
        reader.read_all(&suspicious, Attempt::Second).await;
    }
    if !shared.borrow().options.keep {
        reader.remove_all(&all).await;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    First,
    Second,
}

struct Reader {
    shared: Rc<RefCell<Shared>>,
    conn: Option<Conn>,
    target: usize,
}

impl Reader {
    /// Returns the keys whose read lacked something (at the first attempt; the second is final).
    async fn read_all(&mut self, objects: &[ObjectId], attempt: Attempt) -> Vec<ObjectId> {
        let deadline = Instant::now() + VERIFY_MAX;
        let mut left: VecDeque<_> = objects.iter().copied().collect();
        let mut suspicious = Vec::new();
        while !left.is_empty() {
            let batch: Vec<_> = left.drain(..left.len().min(BATCH)).collect();
            let unanswered = self.read(&batch, attempt, &mut suspicious).await;
            if unanswered.is_empty() {
                continue;
            }
            left.extend(unanswered);
            if Instant::now() >= deadline {
                break;
            }
            sleep(PAUSE).await;
        }
        for object in left {
            self.shared.borrow_mut().history.set_unread(object);
        }
        suspicious
    }

    /// Reads some keys, and returns those that were not answered.
    async fn read(
        &mut self,
        batch: &[ObjectId],
        attempt: Attempt,
        suspicious: &mut Vec<ObjectId>,
    ) -> Vec<ObjectId> {
        let Some(mut conn) = self.connected().await else { return batch.to_vec() };
        let mut out = Vec::new();
        let operations: Vec<_> = {
            let shared = &mut *self.shared.borrow_mut();
            let by = Sender { client: u16::MAX, batch: shared.next_batch() };
            let now = shared.now();
            batch.iter().map(|&object| shared.history.begin_read(object, by, now, &mut out)).collect()
        };
        let deadline = Instant::now() + BATCH_MAX;
        if conn.send(&out, deadline).await.is_err() {
            return batch.to_vec();
        }
        let mut unanswered = Vec::new();
        for (n, operation) in operations.iter().enumerate() {
            let Ok(reply) = conn.reply(deadline).await else {
                unanswered.extend_from_slice(&batch[n..]);
                return unanswered;
            };
            let shared = &mut *self.shared.borrow_mut();
            if let Reply::Error(text) = reply {
                shared.count_error(&String::from_utf8_lossy(text));
                unanswered.push(operation.object);
                continue;
            }
            let now = shared.now();
            let history = &mut shared.history;
            match (history.would_lose(operation, reply), attempt) {
                (true, Attempt::First) => suspicious.push(operation.object),
                (is_loss, _) => {
                    if attempt == Attempt::Second && !is_loss {
                        history.set_stale_at_end(operation.object);
                    }
                    history.end(operation, &Outcome::Done(reply), now, Phase::Final);
                }
            }
        }
        self.conn = Some(conn);
        unanswered
    }

    async fn remove_all(&mut self, objects: &[ObjectId]) {
        let deadline = Instant::now() + REMOVE_MAX;
        for batch in objects.chunks(BATCH) {
            let Some(mut conn) = self.connected().await else { return };
            let out = remove(&self.shared.borrow().history, batch);
            if conn.send(&out, deadline).await.is_err() {
                return;
            }
            for _ in batch {
                if conn.reply(deadline).await.is_err() {
                    return;
                }
            }
            self.conn = Some(conn);
        }
    }

    async fn connected(&mut self) -> Option<Conn> {
        if let Some(conn) = self.conn.take() {
            return Some(conn);
        }
        let address = {
            let targets = &self.shared.borrow().options.targets;
            targets[self.target % targets.len()].clone()
        };
        self.target += 1;
        Conn::connect(&address, BATCH_MAX).await.ok()
    }
}

fn remove(history: &History, objects: &[ObjectId]) -> Vec<u8> {
    let mut out = Vec::new();
    for &object in objects {
        crate::encode::command(&mut out, &[b"DEL", history.key(object).as_bytes()]);
    }
    out
}
