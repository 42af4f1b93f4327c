//! Operations on their way on one connection, and what each reply means for them.

use std::collections::VecDeque;
use std::io;

use ringfort_resp::reply::{ReplyError, frame_len};

use super::stats::Counts;
use super::workload::{Generator, Op, Step};

/// The replies that one connection owes, in order.
#[derive(Debug, Default)]
pub(super) struct Flight {
    waiting: VecDeque<Waiting>,
    /// A reply before the last one of the foremost operation was an error.
    has_failed: bool,
    /// The first error reply.
    error: Option<String>,
}

/// A reply that is to come.
#[derive(Debug)]
struct Waiting {
    /// When its operation was due, nanoseconds since some start.
    due_ns: u64,
    step: Step,
}

impl Flight {
    /// Adds an operation whose first commands are on their way.
    pub(super) fn add(&mut self, op: Op, due_ns: u64) {
        for _ in 0..op.more {
            self.waiting.push_back(Waiting { due_ns, step: Step::More });
        }
        self.waiting.push_back(Waiting { due_ns, step: op.last });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Replies that are to come.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Takes the whole replies at the front of `buf`, counts the operations that they end, and appends the commands that
    /// follow from them to `out`; returns the bytes taken.
    ///
    /// # Errors
    /// The bytes are no replies, or nobody waits for them: the connection is of no more use.
    pub(super) fn take(
        &mut self,
        buf: &[u8],
        now_ns: u64,
        generator: &mut Generator,
        out: &mut Vec<u8>,
        counts: &mut Counts,
    ) -> io::Result<usize> {
        let mut taken = 0;
        // Operations that began together, as those of a batch, are counted together.
        let (mut began_ns, mut ended) = (0, 0);
        while let Some(len) = reply_len(&buf[taken..]).map_err(io::Error::other)? {
            let reply = &buf[taken..taken + len];
            taken += len;
            let Waiting { due_ns, step } =
                self.waiting.pop_front().ok_or_else(|| io::Error::other("more replies than commands"))?;
            let is_error = reply[0] == b'-';
            if is_error {
                let text = &reply[1..len - 2];
                self.error.get_or_insert_with(|| String::from_utf8_lossy(text).into_owned());
            }
            match step {
                Step::More => {
                    self.has_failed |= is_error;
                    continue;
                }
                Step::Update(key) if !is_error => {
                    generator.update(key, out);
                    self.add(Op::ONE_COMMAND, due_ns);
                    continue;
                }
                Step::ReadAll if !is_error => {
                    let reads = generator.read_all(reply, out);
                    if reads > 0 {
                        self.add(Op { more: reads - 1, last: Step::Last }, due_ns);
                        continue;
                    }
                }
                Step::Inserted(number) => generator.settle(number),
                Step::Last | Step::Update(_) | Step::ReadAll => {}
            }
            if due_ns != began_ns {
                counts.record(now_ns.saturating_sub(began_ns), std::mem::take(&mut ended));
                began_ns = due_ns;
            }
            ended += 1;
            counts.errors += u64::from(std::mem::take(&mut self.has_failed) | is_error);
        }
        counts.record(now_ns.saturating_sub(began_ns), ended);
        Ok(taken)
    }

    /// The text of the first error reply since this was asked last.
    pub(super) fn take_error(&mut self) -> Option<String> {
        self.error.take()
    }

    /// The connection broke: nothing is on its way any more. Returns the number of operations that were.
    pub(super) fn clear(&mut self, generator: &Generator) -> u64 {
        self.has_failed = false;
        let mut operations = 0;
        for Waiting { step, .. } in self.waiting.drain(..) {
            operations += u64::from(step != Step::More);
            if let Step::Inserted(number) = step {
                generator.settle(number);
            }
        }
        operations
    }
}

/// Length of the first reply; the commonest one is known at a glance.
fn reply_len(buf: &[u8]) -> Result<Option<usize>, ReplyError> {
    if buf.starts_with(b"+OK\r\n") { Ok(Some(5)) } else { frame_len(buf) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::keys::Records;
    use super::super::workload::{Commands, Workload};
    use super::super::ycsb::{Form, Letter, Ycsb};
    use super::*;

    /// A connection with its generator, and the clock at 100 ns.
    struct Client {
        generator: Generator,
        records: Arc<Records>,
        flight: Flight,
        out: Vec<u8>,
        counts: Counts,
    }

    impl Client {
        fn new(letter: Letter) -> Self {
            let workload = Workload {
                commands: Commands::Ycsb(Ycsb { letter, form: Form::Hash }),
                distribution: None,
                keys: 10,
                value_bytes: 1,
                multi_keys: 1,
                seed: 1,
            };
            let records = Arc::new(Records::new(10));
            Self {
                generator: Generator::new(&workload, 0, 1, &records),
                records,
                flight: Flight::default(),
                out: Vec::new(),
                counts: Counts::default(),
            }
        }

        /// Takes `replies`; returns the names of the commands that follow.
        fn take(&mut self, replies: &[u8]) -> Vec<String> {
            self.out.clear();
            let taken = self.flight.take(replies, 100, &mut self.generator, &mut self.out, &mut self.counts);
            assert_eq!(taken.expect("replies"), replies.len());
            let text = String::from_utf8(self.out.clone()).expect("ASCII");
            let is_name = |line: &&str| ["HGETALL", "HSET"].contains(line);
            text.split("\r\n").filter(is_name).map(str::to_owned).collect()
        }

        fn done(&self) -> (u64, u64) {
            (self.counts.operations, self.counts.errors)
        }
    }

    #[test]
    fn a_read_modify_write_is_done_with_its_write() {
        let mut client = Client::new(Letter::F);
        client.flight.add(Op { more: 0, last: Step::Update(3) }, 10);
        assert_eq!(client.take(b"*0\r\n"), ["HSET"]);
        assert_eq!(client.done(), (0, 0));
        assert!(client.take(b":0\r\n").is_empty());
        assert_eq!(client.done(), (1, 0));
        // From its start, not from its second command's.
        assert!((0.089..0.091).contains(&client.counts.latency().max_us), "{:?}", client.counts.latency());
    }

    #[test]
    fn a_scan_is_done_with_the_last_of_its_records() {
        let mut client = Client::new(Letter::E);
        client.flight.add(Op { more: 0, last: Step::ReadAll }, 0);
        client.flight.add(Op { more: 0, last: Step::ReadAll }, 0);
        assert_eq!(client.take(b"*2\r\n$1\r\na\r\n$1\r\nb\r\n*0\r\n"), ["HGETALL", "HGETALL"]);
        assert_eq!(client.done(), (1, 0), "the second one found nothing");
        client.take(b"*0\r\n");
        assert_eq!(client.done(), (1, 0));
        client.take(b"*0\r\n");
        assert_eq!(client.done(), (2, 0));
        assert!(client.flight.is_empty());
    }

    #[test]
    fn an_operation_fails_once_and_has_no_second_part_then() {
        let mut client = Client::new(Letter::F);
        client.flight.add(Op { more: 0, last: Step::Update(3) }, 0);
        assert!(client.take(b"-ERR no\r\n").is_empty());
        assert_eq!(client.done(), (1, 1));
        client.flight.add(Op { more: 2, last: Step::Last }, 0);
        client.take(b"-ERR a\r\n-ERR b\r\n-ERR c\r\n");
        assert_eq!(client.done(), (2, 2));
        assert_eq!(client.flight.take_error().as_deref(), Some("ERR no"));
        assert_eq!(client.flight.take_error(), None);
        client.flight.add(Op::ONE_COMMAND, 0);
        client.take(b"+OK\r\n");
        assert_eq!(client.done(), (3, 2));
    }

    #[test]
    fn takes_whole_replies_that_are_waited_for_only() {
        let mut client = Client::new(Letter::C);
        let Client { generator, flight, out, counts, .. } = &mut client;
        for due_ns in [10, 10, 20] {
            flight.add(Op::ONE_COMMAND, due_ns);
        }
        let taken = flight.take(b"+OK\r\n$1\r\nx\r\n$5\r\nab", 100, generator, out, counts);
        assert_eq!((taken.expect("replies"), counts.operations, flight.len()), (12, 2, 1));
        assert!(flight.take(b"HTTP/1.1", 100, generator, out, counts).is_err());
        assert!(flight.take(b":1\r\n:2\r\n", 100, generator, out, counts).is_err());
    }

    #[test]
    fn inserts_that_failed_or_broke_are_settled_too() {
        let mut client = Client::new(Letter::D);
        for _ in 0..3 {
            let number = client.records.take();
            client.flight.add(Op { more: 1, last: Step::Inserted(number) }, 0);
        }
        client.take(b":1\r\n:1\r\n:1\r\n-ERR no\r\n");
        assert_eq!(client.records.end(), 12);
        assert_eq!(client.flight.clear(&client.generator), 1);
        assert_eq!(client.records.end(), 13);
    }
}
