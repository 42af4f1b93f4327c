//! The last reads, and the removal of the keys.

use std::cell::RefCell;
use std::collections::BTreeMap;
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
/// Longest that one connection attempt may take.
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// Longest that one batch may take.
const BATCH_MAX: Duration = Duration::from_secs(5);
/// Longest that the removal of the keys may take.
const REMOVE_MAX: Duration = Duration::from_secs(10);

/// Reads every key once more. A read that lacks something is repeated, because only the second tells an old view
/// (stale) from a loss. Then removes the keys, unless they are to be kept.
pub(super) async fn run(shared: &Rc<RefCell<Shared>>) {
    let mut reader = Reader { shared: Rc::clone(shared), conns: BTreeMap::new(), target: 0 };
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
    conns: BTreeMap<String, Conn>,
    target: usize,
}

impl Reader {
    /// Returns the keys whose read lacked something (at the first attempt; the second is final).
    async fn read_all(&mut self, objects: &[ObjectId], attempt: Attempt) -> Vec<ObjectId> {
        let deadline = Instant::now() + VERIFY_MAX;
        let mut left = objects.to_vec();
        let mut suspicious = Vec::new();
        while !left.is_empty() {
            let mut unanswered = Vec::new();
            for (address, objects) in self.by_address(&left) {
                for batch in objects.chunks(BATCH) {
                    if Instant::now() >= deadline {
                        unanswered.extend_from_slice(batch);
                        continue;
                    }
                    unanswered.extend(self.read(&address, batch, attempt, &mut suspicious).await);
                }
            }
            left = unanswered;
            if left.is_empty() || Instant::now() >= deadline {
                break;
            }
            self.target += 1;
            sleep(PAUSE).await;
            super::refresh_routes(&self.shared).await;
        }
        for object in left {
            self.shared.borrow_mut().history.set_unread(object);
        }
        suspicious
    }

    /// Reads some keys, and returns those that were not answered.
    async fn read(
        &mut self,
        address: &str,
        batch: &[ObjectId],
        attempt: Attempt,
        suspicious: &mut Vec<ObjectId>,
    ) -> Vec<ObjectId> {
        let Some(mut conn) = self.connected(address).await else { return batch.to_vec() };
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
                if !shared.routes.as_mut().is_some_and(|routes| routes.learn(text)) {
                    shared.count_error(&String::from_utf8_lossy(text));
                }
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
        self.conns.insert(address.to_owned(), conn);
        unanswered
    }

    async fn remove_all(&mut self, objects: &[ObjectId]) {
        let deadline = Instant::now() + REMOVE_MAX;
        for (address, objects) in self.by_address(objects) {
            for batch in objects.chunks(BATCH) {
                // What cannot be removed now stays.
                let Some(mut conn) = self.connected(&address).await else { break };
                let out = remove(&self.shared.borrow().history, batch);
                if conn.send(&out, deadline).await.is_err() {
                    break;
                }
                for _ in batch {
                    if conn.reply(deadline).await.is_err() {
                        return;
                    }
                }
                self.conns.insert(address.clone(), conn);
            }
        }
    }

    fn by_address(&self, objects: &[ObjectId]) -> BTreeMap<String, Vec<ObjectId>> {
        let shared = self.shared.borrow();
        let mut groups = BTreeMap::<_, Vec<_>>::new();
        for &object in objects {
            groups.entry(shared.address(object, self.target)).or_default().push(object);
        }
        groups
    }

    async fn connected(&mut self, address: &str) -> Option<Conn> {
        match self.conns.remove(address) {
            Some(conn) => Some(conn),
            None => Conn::connect(address, CONNECT_MAX).await.ok(),
        }
    }
}

fn remove(history: &History, objects: &[ObjectId]) -> Vec<u8> {
    let mut out = Vec::new();
    for &object in objects {
        crate::encode::command(&mut out, &[b"DEL", history.key(object).as_bytes()]);
    }
    out
}
