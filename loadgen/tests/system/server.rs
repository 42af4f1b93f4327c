//! A minimal server that is correct, or wrong in one way.

use ringfort_loadgen::linear::{self, Op};
use ringfort_ring::slot::{SLOTS, slot_of};
use std::collections::BTreeMap;
use std::io::{BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What the server does wrong, at every 100th write (reads: every 100th read).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Acknowledges a SET without doing it.
    LosesSet,
    /// Acknowledges an APPEND, and forgets it a little later.
    LosesAppend,
    /// Answers an INCR rightly, but keeps the former value.
    LosesIncr,
    /// Applies an APPEND twice and answers as if once.
    AppendsTwice,
    /// Applies an INCR twice.
    IncrementsTwice,
    /// Does a compare-and-set whatever the key holds.
    ComparesNothing,
    /// Answers a read from before the key's last write.
    StaleReads,
    /// Refuses a write with an error that means "not done", and does it.
    DoesWhatItRefuses,
    /// Cuts the connection after a write, done or not: not wrong.
    CutsConnections,
    /// Refuses writes without doing them: not wrong.
    Refuses,
}

/// Which write or read of a hundred is treated wrongly.
const ONE_OF: u64 = 100;

#[derive(Debug, Default)]
pub(crate) struct Data {
    pub(crate) values: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Each key's value before its last write.
    before: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// Writes; with [`Fault::StaleReads`], and reads.
    pub(crate) count: u64,
}

/// What a connection does after a command.
enum Answer {
    Reply(Vec<u8>),
    Cut,
}

/// Starts a server on a free port, and returns its address. Its threads end with the test's process.
pub(crate) fn serve(fault: Fault) -> String {
    serve_data(Arc::default(), fault)
}

/// Like [`serve`], with data that the test can look into.
pub(crate) fn serve_data(data: Arc<Mutex<Data>>, fault: Fault) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let data = Arc::clone(&data);
            std::thread::spawn(move || talk(stream, |args| execute(&data, args, fault)));
        }
    });
    address
}

/// Starts a cluster of two nodes that share `data`: the first serves the lower half of the slots, the second the upper one.
pub(crate) fn serve_cluster(data: &Arc<Mutex<Data>>) -> [String; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    let addresses = listeners.each_ref().map(|listener| listener.local_addr().expect("bound").to_string());
    for (own, listener) in listeners.into_iter().enumerate() {
        let (data, addresses) = (Arc::clone(data), addresses.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (data, addresses) = (Arc::clone(&data), addresses.clone());
                std::thread::spawn(move || {
                    talk(stream, |args| {
                        route(args, own, &addresses).unwrap_or_else(|| execute(&data, args, Fault::None))
                    });
                });
            }
        });
    }
    addresses
}

/// What node `own` answers when it is asked for the map, or for a key of the other node.
fn route(args: &[Vec<u8>], own: usize, addresses: &[String; 2]) -> Option<Answer> {
    if args[0] == b"CLUSTER" {
        let ranges = addresses.iter().zip([(0, SLOTS / 2 - 1), (SLOTS / 2, SLOTS - 1)]);
        let ranges = ranges.map(|(address, (first, last))| {
            let (host, port) = address.rsplit_once(':').expect("host:port");
            format!("*3\r\n:{first}\r\n:{last}\r\n*2\r\n${}\r\n{host}\r\n:{port}\r\n", host.len())
        });
        return Some(Answer::Reply(format!("*2\r\n{}", ranges.collect::<String>()).into_bytes()));
    }
    let slot = slot_of(&args[1]);
    let of = usize::from(slot.0 / (SLOTS / 2));
    (of != own).then(|| Answer::Reply(format!("-MOVED {} {}\r\n", slot.0, addresses[of]).into_bytes()))
}

fn execute(data: &Mutex<Data>, args: &[Vec<u8>], fault: Fault) -> Answer {
    data.lock().expect("no thread panicked").execute(args, fault)
}

fn talk(stream: TcpStream, mut answer: impl FnMut(&[Vec<u8>]) -> Answer) {
    stream.set_nodelay(true).expect("a socket takes options");
    let mut writer = stream.try_clone().expect("a socket can be cloned");
    let mut reader = BufReader::new(stream);
    while let Some(args) = read_command(&mut reader) {
        match answer(&args) {
            Answer::Reply(bytes) if writer.write_all(&bytes).is_ok() => {}
            _ => return,
        }
    }
}

fn read_command(reader: &mut impl std::io::BufRead) -> Option<Vec<Vec<u8>>> {
    let count = read_number(reader)?;
    let read_bulk = |_| {
        let mut bytes = vec![0; read_number(reader)? + 2];
        reader.read_exact(&mut bytes).ok()?;
        bytes.truncate(bytes.len() - 2);
        Some(bytes)
    };
    (0..count).map(read_bulk).collect()
}

fn read_number(reader: &mut impl std::io::BufRead) -> Option<usize> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    line.get(1..)?.trim_end().parse().ok()
}

impl Data {
    fn execute(&mut self, args: &[Vec<u8>], fault: Fault) -> Answer {
        let key = &args[1];
        if args[0] == b"GET" {
            return Answer::Reply(self.get(key, fault));
        }
        if args[0] == b"DEL" {
            let exists = u8::from(self.values.remove(key).is_some());
            return Answer::Reply(format!(":{exists}\r\n").into_bytes());
        }
        if let Some(reply) = self.execute_on_records(args) {
            return Answer::Reply(reply);
        }
        self.count += 1;
        let is_hit = self.count.is_multiple_of(ONE_OF);
        let old = self.values.get(key).cloned();
        let arg = |i: usize| args[i].clone();
        let op = match (args[0].as_slice(), args.len()) {
            (b"SET", 3) => Op::Set(arg(2)),
            (b"SET", 5) => Op::SetIfEq { expected: arg(4), value: arg(2) },
            (b"SETNX", _) => Op::SetNx(arg(2)),
            (b"GETSET", _) => Op::GetSet(arg(2)),
            (b"GETDEL", _) => Op::GetDel,
            (b"DELIFEQ", _) => Op::DelIfEq(arg(2)),
            (b"APPEND", _) => Op::Append(arg(2)),
            (b"INCR", _) => Op::Incr,
            _ => return Answer::Reply(b"-ERR unknown command\r\n".to_vec()),
        };
        let (mut new, answer) = op.apply(&old);
        let mut reply = match answer {
            linear::Answer::Ok => "+OK\r\n".to_owned(),
            linear::Answer::Integer(n) => format!(":{n}\r\n"),
            linear::Answer::Value(None) => "$-1\r\n".to_owned(),
            linear::Answer::Value(Some(v)) => format!("${}\r\n{}\r\n", v.len(), v.escape_ascii()),
            linear::Answer::NotInteger => "-ERR value is not an integer or out of range\r\n".to_owned(),
        };
        match (fault, args[0].as_slice()) {
            (Fault::LosesSet, b"SET") | (Fault::LosesAppend, b"APPEND") | (Fault::LosesIncr, b"INCR")
                if is_hit =>
            {
                return Answer::Reply(reply.into_bytes());
            }
            (Fault::AppendsTwice, b"APPEND") if is_hit => new = Op::Append(arg(2)).apply(&new).0,
            (Fault::IncrementsTwice, b"INCR") if is_hit => new = Op::Incr.apply(&new).0,
            (Fault::ComparesNothing, b"SET") if args.len() == 5 => {
                new = Some(arg(2));
                reply = "+OK\r\n".to_owned();
            }
            (Fault::Refuses, _) if is_hit => return Answer::Reply(b"-TRYAGAIN later\r\n".to_vec()),
            (Fault::CutsConnections, _) if is_hit && self.count.is_multiple_of(2 * ONE_OF) => {
                return Answer::Cut;
            }
            _ => {}
        }
        self.before.insert(key.clone(), old);
        match new {
            Some(new) => self.values.insert(key.clone(), new),
            None => self.values.remove(key),
        };
        match fault {
            Fault::DoesWhatItRefuses if is_hit => Answer::Reply(b"-READONLY no\r\n".to_vec()),
            Fault::CutsConnections if is_hit => Answer::Cut,
            _ => Answer::Reply(reply.into_bytes()),
        }
    }

    /// What YCSB needs beyond single strings; of a hash, only whether it is there and how often it was written is kept.
    fn execute_on_records(&mut self, args: &[Vec<u8>]) -> Option<Vec<u8>> {
        let array = |elements: Vec<Vec<u8>>| {
            [format!("*{}\r\n", elements.len()).into_bytes(), elements.concat()].concat()
        };
        let bulk = |bytes: &[u8]| format!("${}\r\n{}\r\n", bytes.len(), bytes.escape_ascii()).into_bytes();
        let number = |arg: &[u8]| std::str::from_utf8(arg).ok()?.parse::<usize>().ok();
        Some(match args[0].as_slice() {
            b"MGET" => array(args[1..].iter().map(|key| self.get(key, Fault::None)).collect()),
            b"SETRANGE" => {
                let (value, at) = (self.values.get_mut(&args[1])?, number(&args[2])?);
                value[at..at + args[3].len()].copy_from_slice(&args[3]);
                format!(":{}\r\n", value.len()).into_bytes()
            }
            b"HSET" => {
                self.values.entry(args[1].clone()).or_default().push(b'w');
                b":1\r\n".to_vec()
            }
            b"HGETALL" => {
                let record = self.values.get(&args[1]);
                array(record.map(|writes| vec![bulk(b"writes"), bulk(writes)]).unwrap_or_default())
            }
            b"ZADD" => b":1\r\n".to_vec(),
            b"ZRANGEBYSCORE" => {
                let first = [b"user:", args[2].as_slice()].concat();
                array(self.values.range(first..).take(number(&args[6])?).map(|(key, _)| bulk(key)).collect())
            }
            _ => return None,
        })
    }

    fn get(&mut self, key: &Vec<u8>, fault: Fault) -> Vec<u8> {
        let value = if fault == Fault::StaleReads {
            self.count += 1;
            // The reads at the end come without writes between them; they are answered rightly, so that nothing is lost.
            match self.before.get(key) {
                Some(before) if self.count.is_multiple_of(ONE_OF) => before.as_ref(),
                _ => self.values.get(key),
            }
        } else {
            self.values.get(key)
        };
        match value {
            None => b"$-1\r\n".to_vec(),
            Some(value) => [format!("${}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat(),
        }
    }
}
