//! One client of a check: chooses operations, sends them, records how they end.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::Shared;
use super::history::{Kind, ObjectId, Operation, Outcome, Phase, Sender};
use super::plan::Place;
use crate::conn::Conn;
use crate::reply::Reply;
use crate::rng::Rng;

/// Pause after anything but success. Short, for it limits how exactly an outage's end is seen.
pub(super) const BACK_OFF: Duration = Duration::from_millis(5);
/// Longest that one connection attempt may take.
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// A client this far behind its rate lets the arrears go.
const BEHIND_MAX: Duration = Duration::from_secs(1);

/// What an error reply says about a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It was not done and will not be.
    NotDone,
    /// It may have been done.
    Unknown,
    /// As unknown, but an answer that this checker does not expect.
    Unexpected,
}

/// Classifies the text of an error reply (without its `-`).
pub fn classify(text: &[u8]) -> Failure {
    const NOT_DONE: [&[u8]; 9] = [
        b"CLUSTERDOWN",
        b"CROSSSLOT",
        b"MISCONF",
        b"TRYAGAIN",
        b"LOADING",
        b"MOVED",
        b"READONLY",
        b"OOM",
        b"ERR max number of clients",
    ];
    if text.starts_with(b"ERR outcome unknown") {
        Failure::Unknown
    } else if NOT_DONE.iter().any(|prefix| text.starts_with(prefix)) {
        Failure::NotDone
    } else {
        Failure::Unexpected
    }
}

/// Runs client number `id` until the run is over.
pub(super) async fn run(shared: Rc<RefCell<Shared>>, id: u16) {
    let (rng, due) = {
        let shared = shared.borrow();
        (Rng::new(shared.options.seed, u64::from(id)), Instant::from_std(shared.start))
    };
    let mut client =
        Client { target: usize::from(id), conns: BTreeMap::new(), held: Vec::new(), shared, id, rng, due };
    while client.turn().await {}
    for place in client.held {
        let mut shared = client.shared.borrow_mut();
        let bucket = shared.plan.bucket(place);
        shared.outages.release(bucket);
    }
}

struct Client {
    shared: Rc<RefCell<Shared>>,
    id: u16,
    rng: Rng,
    /// By address; outside of a cluster one at most.
    conns: BTreeMap<String, Conn>,
    /// Next target to connect to, modulo their number.
    target: usize,
    /// Places whose last write did not succeed and which this client goes on trying.
    held: Vec<Place>,
    /// When the next operation is due at the wanted rate.
    due: Instant,
}

/// An operation to send.
#[derive(Debug, Clone, Copy)]
enum Wish {
    Write(Place),
    Read(ObjectId),
}

impl Client {
    /// Sends one batch and takes its replies; false when the run is over.
    async fn turn(&mut self) -> bool {
        if self.shared.borrow().is_over() {
            return false;
        }
        let (address, wishes) = self.choose();
        self.pace(wishes.len()).await;
        let begun = self.want(&wishes);
        let is_all_well = match self.connected(&address).await {
            Some(mut conn) => {
                let (is_alive, is_all_well) = self.exchange(&mut conn, &wishes, begun).await;
                if is_alive {
                    self.conns.insert(address, conn);
                } else {
                    super::refresh_routes(&self.shared).await;
                }
                is_all_well
            }
            None => {
                self.fail_all(&wishes);
                super::refresh_routes(&self.shared).await;
                false
            }
        };
        if !is_all_well {
            sleep(BACK_OFF).await;
        }
        true
    }

    /// The places held, filled up to a batch of random length; all for one address.
    fn choose(&mut self) -> (String, Vec<Wish>) {
        let shared = self.shared.borrow();
        // In a cluster each node that holds one of them has its turn.
        if !self.held.is_empty() {
            self.held.rotate_left(1);
        }
        let len = 1 + self.rng.index(usize::from(shared.options.pipeline));
        let mut wishes: Vec<_> = self.held.iter().copied().map(Wish::Write).collect();
        while wishes.len() < len {
            let is_read = self.rng.below(100) < u64::from(shared.options.reads_percent);
            wishes.push(if is_read {
                Wish::Read(shared.plan.pick_read(&shared.history, &mut self.rng))
            } else {
                Wish::Write(shared.plan.pick_write(self.id, &mut self.rng))
            });
        }
        let address = |wish: &Wish| {
            let object = match *wish {
                Wish::Write(place) => shared.plan.current(place),
                Wish::Read(object) => object,
            };
            shared.address(object, self.target)
        };
        let first = address(&wishes[0]);
        if shared.routes.is_some() {
            wishes.retain(|wish| address(wish) == first);
        }
        (first, wishes)
    }

    /// Waits until `n` operations are due.
    async fn pace(&mut self, n: usize) {
        let interval = {
            let options = &self.shared.borrow().options;
            let Some(rate) = options.rate else { return };
            Duration::from_secs_f64(n as f64 * f64::from(options.clients) / rate)
        };
        let now = Instant::now();
        if now > self.due + BEHIND_MAX {
            self.due = now;
        }
        sleep_until(self.due).await;
        self.due += interval;
    }

    /// Tells the outage clock that writes are wanted, and returns since when.
    fn want(&self, wishes: &[Wish]) -> u64 {
        let mut shared = self.shared.borrow_mut();
        let now = shared.now();
        for wish in wishes {
            if let Wish::Write(place) = *wish {
                let bucket = shared.plan.bucket(place);
                shared.outages.begin(bucket, now);
            }
        }
        now
    }

    /// The connection, made anew when there is none; one attempt.
    async fn connected(&mut self, address: &str) -> Option<Conn> {
        if let Some(conn) = self.conns.remove(address) {
            return Some(conn);
        }
        match Conn::connect(address, CONNECT_MAX).await {
            Ok(conn) => Some(conn),
            Err(error) => {
                self.target += 1;
                let mut shared = self.shared.borrow_mut();
                shared.report.connections_broken += 1;
                shared.count_error(&format!("connect: {error}"));
                None
            }
        }
    }

    /// No connection: nothing was sent, nothing enters the history, but the buckets go on waiting.
    fn fail_all(&mut self, wishes: &[Wish]) {
        for wish in wishes {
            if let Wish::Write(place) = *wish {
                self.fail(place);
            }
        }
    }

    /// Returns whether the connection is still of use, and whether every operation succeeded.
    async fn exchange(&mut self, conn: &mut Conn, wishes: &[Wish], begun: u64) -> (bool, bool) {
        let mut out = Vec::new();
        let operations = self.begin(wishes, &mut out);
        let deadline = Instant::now() + self.shared.borrow().options.timeout;
        let mut broken = conn.send(&out, deadline).await.err();
        let mut is_all_well = true;
        for (wish, operation) in wishes.iter().zip(&operations) {
            let reply = match broken {
                Some(_) => None,
                None => match conn.reply(deadline).await {
                    Ok(reply) => Some(reply),
                    Err(error) => {
                        broken = Some(error);
                        None
                    }
                },
            };
            is_all_well &= self.end(*wish, operation, reply, begun);
        }
        if let Some(error) = &broken {
            self.target += 1;
            let mut shared = self.shared.borrow_mut();
            shared.report.connections_broken += 1;
            shared.count_error(&format!("connection: {error}"));
        }
        (broken.is_none(), is_all_well)
    }

    fn begin(&self, wishes: &[Wish], out: &mut Vec<u8>) -> Vec<Operation> {
        let shared = &mut *self.shared.borrow_mut();
        let by = Sender { client: self.id, batch: shared.next_batch() };
        let now = shared.now();
        let (history, plan) = (&mut shared.history, &mut shared.plan);
        let mut begin = |wish: &Wish| match *wish {
            Wish::Write(place) => {
                let object = plan.object(place, history);
                history.begin_write(object, by, now, out)
            }
            Wish::Read(object) => history.begin_read(object, by, now, out),
        };
        wishes.iter().map(&mut begin).collect()
    }

    /// Records how an operation ended; `None`: without a reply. Returns whether it succeeded.
    fn end(&mut self, wish: Wish, operation: &Operation, reply: Option<Reply<'_>>, begun: u64) -> bool {
        let is_done = {
            let shared = &mut *self.shared.borrow_mut();
            let outcome = judge_reply(shared, operation, reply);
            let now = shared.now();
            shared.history.end(operation, &outcome, now, Phase::Run);
            let is_done = matches!(outcome, Outcome::Done(_));
            let report = &mut shared.report;
            *match (operation.is_write(), &outcome) {
                (true, Outcome::Done(_)) => &mut report.acknowledged,
                (true, Outcome::Failed) => &mut report.failed,
                (true, Outcome::Unknown) => &mut report.unknown,
                (false, Outcome::Done(_)) => &mut report.reads,
                (false, _) => &mut report.reads_failed,
            } += 1;
            if let (true, Wish::Write(place)) = (is_done, wish) {
                shared.outages.succeed(shared.plan.bucket(place), begun, now);
            }
            is_done
        };
        if let Wish::Write(place) = wish {
            if is_done { self.let_go(place) } else { self.fail(place) }
        }
        is_done
    }

    /// A write did not succeed: keeps trying its place, unless another client does so for its bucket.
    fn fail(&mut self, place: Place) {
        let shared = &mut *self.shared.borrow_mut();
        let bucket = shared.plan.bucket(place);
        shared.outages.fail(bucket);
        if !self.held.contains(&place) && shared.outages.hold(bucket) {
            self.held.push(place);
        }
    }

    fn let_go(&mut self, place: Place) {
        if let Some(at) = self.held.iter().position(|&held| held == place) {
            self.held.swap_remove(at);
            let shared = &mut *self.shared.borrow_mut();
            let bucket = shared.plan.bucket(place);
            shared.outages.release(bucket);
        }
    }
}

/// What a reply (`None`: there was none) says about an operation.
fn judge_reply<'a>(shared: &mut Shared, operation: &Operation, reply: Option<Reply<'a>>) -> Outcome<'a> {
    let Some(reply) = reply else { return Outcome::Unknown };
    if let Reply::Error(text) = reply {
        let is_learned = shared.routes.as_mut().is_some_and(|routes| routes.learn(text));
        // In a cluster each MOVED differs, and is its way to say where a slot is now.
        shared.count_error(&if is_learned { "MOVED".into() } else { String::from_utf8_lossy(text) });
        let is_unknown_command =
            text.starts_with(b"ERR syntax error") || text.starts_with(b"ERR unknown command");
        if is_unknown_command && shared.history.kind(operation.object) == Kind::Mixed {
            shared.history.set_lacks_compare();
            return Outcome::Failed;
        }
        return match classify(text) {
            Failure::NotDone => Outcome::Failed,
            Failure::Unknown | Failure::Unexpected => Outcome::Unknown,
        };
    }
    let is_expected = match (operation.is_write(), shared.history.kind(operation.object)) {
        (false, _) => true,
        (true, Kind::Register) => reply == Reply::Simple(b"OK"),
        (true, Kind::Counter | Kind::List) => matches!(reply, Reply::Integer(_)),
        (true, Kind::Mixed) => reply != Reply::Other,
    };
    if is_expected {
        return Outcome::Done(reply);
    }
    shared.count_error(&format!("a write was answered {reply:?}"));
    Outcome::Unknown
}
