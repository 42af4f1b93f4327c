//! How large replies leave a worker: one piece at a time, and within a share of its time while others are served.
//!
//! A client that asks for values of megabytes, and perhaps does not read them, is served when nobody else has to wait for
//! it. Each shell has one [`BulkPace`] for each worker, asks it for a [`Pass`] before it writes a piece of such a reply, and
//! tells it of the small replies that it writes.
//!
//! ```text
//!  |<------------- WINDOW ------------->|
//!  | piece | piece |      others        | piece ...
//!  |<--- BUDGET -->|
//! ```
//!
//! Where only large replies are written there is no limit.

use core::cell::RefCell;
use core::time::Duration;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

/// Bytes that are still to be sent to one receiver from which on it is served at this pace.
pub const BULK_BYTES: usize = 1 << 20;
/// Time after which there is a new [`BUDGET`].
const WINDOW: Duration = Duration::from_millis(2);
/// Time in each window for large replies, while there are small ones.
const BUDGET: Duration = Duration::from_micros(500);

/// What large replies may take of a thread's time.
#[derive(Debug)]
struct Share {
    window_end: Instant,
    /// Time that they took in this window.
    used: Duration,
    /// Whether anybody else was served in this window.
    has_others: bool,
}

impl Share {
    fn new(now: Instant) -> Self {
        Self { window_end: now + WINDOW, used: Duration::ZERO, has_others: false }
    }

    /// When the next piece may be written, if not now.
    fn wait(&self, now: Instant) -> Option<Instant> {
        let is_used_up = self.has_others && BUDGET <= self.used && now < self.window_end;
        is_used_up.then_some(self.window_end)
    }

    fn begin(&mut self, now: Instant) {
        if self.window_end <= now {
            *self = Self::new(now);
        }
    }
}

/// Gives passes for pieces of large replies to the tasks of one thread, in the order in which they ask.
#[derive(Debug)]
pub struct BulkPace {
    queue: Arc<Semaphore>,
    share: RefCell<Share>,
}

impl Default for BulkPace {
    fn default() -> Self {
        Self { queue: Arc::new(Semaphore::new(1)), share: RefCell::new(Share::new(Instant::now())) }
    }
}

impl BulkPace {
    /// A small reply is written.
    pub fn serves_others(&self) {
        self.share.borrow_mut().has_others = true;
    }

    /// Waits for the turn of the caller. It writes a piece then, and drops the pass before it waits for anything.
    pub async fn pass(self: Rc<Self>) -> Pass {
        // It is never closed.
        let place = Arc::clone(&self.queue).acquire_owned().await.ok();
        let wait = self.share.borrow().wait(Instant::now());
        if let Some(until) = wait {
            sleep_until(until).await;
        }
        let begin = Instant::now();
        self.share.borrow_mut().begin(begin);
        Pass { pace: self, begin, _place: place }
    }
}

/// Allows one piece to be written; the time until it is dropped counts.
#[derive(Debug)]
pub struct Pass {
    pace: Rc<BulkPace>,
    begin: Instant,
    _place: Option<OwnedSemaphorePermit>,
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.pace.share.borrow_mut().used += self.begin.elapsed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::Cell;

    const PIECE: Duration = Duration::from_micros(100);
    const PIECES: u32 = 1000;

    /// How long a thread needs that does nothing else but wait when it must.
    fn time_to_write(are_others_served: bool) -> Duration {
        let begin = Instant::now();
        let (mut now, mut share) = (begin, Share::new(begin));
        for _ in 0..PIECES {
            now = share.wait(now).unwrap_or(now);
            share.begin(now);
            now += PIECE;
            share.used += PIECE;
            share.has_others |= are_others_served;
        }
        now - begin
    }

    #[test]
    fn large_replies_alone_have_all_the_time() {
        assert_eq!(time_to_write(false), PIECES * PIECE);
    }

    #[test]
    fn beside_small_ones_large_replies_have_their_share() {
        let windows = PIECES * PIECE.as_micros() as u32 / BUDGET.as_micros() as u32;
        let took = time_to_write(true);
        assert!((windows - 1) * WINDOW < took && took <= windows * WINDOW, "{took:?} for {windows} budgets");
    }

    #[test]
    fn one_piece_at_a_time_in_the_order_asked() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let pace = Rc::new(BulkPace::default());
        let (order, is_held) = (RefCell::new(String::new()), Cell::new(false));
        let writer = async |name: char| {
            for _ in 0..3 {
                let pass = Rc::clone(&pace).pass().await;
                assert!(!is_held.replace(true), "{name} is not alone");
                order.borrow_mut().push(name);
                tokio::task::yield_now().await;
                is_held.set(false);
                drop(pass);
            }
        };
        runtime.block_on(async { tokio::join!(writer('a'), writer('b'), writer('c')) });
        assert_eq!(*order.borrow(), "abcabcabc");
    }
}
