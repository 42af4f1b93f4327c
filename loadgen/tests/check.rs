//! `check` against a minimal server that is correct, or wrong in one way. Each wrong way must be flagged as what it is.

use std::collections::BTreeMap;
use std::io::{BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringfort_loadgen::check::{self, CheckError, Options, Report};

/// What the server does wrong, at every 100th write (reads: every 100th read).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
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
struct Data {
    values: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Each key's value before its last write.
    before: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    count: u64,
}

/// What a connection does after a command.
enum Answer {
    Reply(Vec<u8>),
    Cut,
}

/// Starts a server on a free port, and returns its address. Its threads end with the test's process.
fn serve(fault: Fault) -> String {
    serve_data(Arc::default(), fault)
}

fn serve_data(data: Arc<Mutex<Data>>, fault: Fault) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let data = Arc::clone(&data);
            std::thread::spawn(move || talk(stream, &data, fault));
        }
    });
    address
}

fn talk(stream: TcpStream, data: &Mutex<Data>, fault: Fault) {
    stream.set_nodelay(true).expect("a socket takes options");
    let mut writer = stream.try_clone().expect("a socket can be cloned");
    let mut reader = BufReader::new(stream);
    while let Some(args) = read_command(&mut reader) {
        let answer = data.lock().expect("no thread panicked").execute(&args, fault);
        match answer {
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
            self.values.remove(key);
            return Answer::Reply(b":1\r\n".to_vec());
        }
        self.count += 1;
        let is_hit = self.count.is_multiple_of(ONE_OF);
        let old = self.values.get(key).cloned();
        let mut new = old.clone().unwrap_or_default();
        let reply = match args[0].as_slice() {
            b"SET" => {
                new.clone_from(&args[2]);
                "+OK\r\n".to_owned()
            }
            b"APPEND" => {
                new.extend_from_slice(&args[2]);
                format!(":{}\r\n", new.len())
            }
            b"INCR" => {
                let text = String::from_utf8(new).expect("a number");
                let value = text.parse::<i64>().unwrap_or(0) + 1;
                new = value.to_string().into_bytes();
                format!(":{value}\r\n")
            }
            _ => "-ERR unknown command\r\n".to_owned(),
        };
        match (fault, args[0].as_slice()) {
            (Fault::LosesSet, b"SET") | (Fault::LosesAppend, b"APPEND") | (Fault::LosesIncr, b"INCR")
                if is_hit =>
            {
                return Answer::Reply(reply.into_bytes());
            }
            (Fault::AppendsTwice, b"APPEND") if is_hit => new.extend_from_slice(&args[2]),
            (Fault::IncrementsTwice, b"INCR") if is_hit => {
                new = (String::from_utf8(new).expect("a number").parse::<i64>().expect("a number") + 1)
                    .to_string()
                    .into_bytes();
            }
            (Fault::Refuses, _) if is_hit => return Answer::Reply(b"-TRYAGAIN later\r\n".to_vec()),
            (Fault::CutsConnections, _) if is_hit && self.count.is_multiple_of(2 * ONE_OF) => {
                return Answer::Cut;
            }
            _ => {}
        }
        self.before.insert(key.clone(), old);
        self.values.insert(key.clone(), new);
        match fault {
            Fault::DoesWhatItRefuses if is_hit => Answer::Reply(b"-READONLY no\r\n".to_vec()),
            Fault::CutsConnections if is_hit => Answer::Cut,
            _ => Answer::Reply(reply.into_bytes()),
        }
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

fn options(target: String) -> Options {
    Options {
        clients: 8,
        duration: Duration::from_secs(2),
        rate: Some(20_000.0),
        keys: 64,
        ..Options::new(target)
    }
}

fn check(fault: Fault) -> Report {
    let report = check::run(&options(serve(fault))).expect("the server runs");
    assert!(report.acknowledged > 1000, "{report}");
    assert!(report.reads > 500, "{report:?}");
    assert_eq!(report.keys_unread, 0);
    assert_eq!(report.is_clean(), report.violations.is_empty(), "{report:?}");
    report
}

#[test]
fn a_correct_server_is_clean() {
    let report = check(Fault::None);
    assert_eq!((report.lost, report.stale, report.duplicated, report.unknown), (0, 0, 0, 0), "{report:?}");
    assert!(report.is_clean());
    let line = report.to_string();
    let start = format!(
        "acknowledged {}, lost 0, stale 0, duplicated 0, unknown 0, longest outage ",
        report.acknowledged
    );
    assert!(line.starts_with(&start) && line.ends_with(" ms"), "{line}");
}

#[test]
fn a_server_that_cuts_connections_is_clean_with_unknown_operations() {
    let report = check(Fault::CutsConnections);
    assert_eq!((report.lost, report.stale, report.duplicated), (0, 0, 0), "{report:?}");
    assert!(report.unknown > 10, "{report:?}");
    assert!(report.connections_broken > 10, "{report:?}");
}

#[test]
fn a_server_that_refuses_writes_is_clean_with_failed_operations() {
    let report = check(Fault::Refuses);
    assert_eq!((report.lost, report.stale, report.duplicated, report.unknown), (0, 0, 0, 0), "{report:?}");
    assert!(report.failed > 10, "{report:?}");
}

#[test]
fn lost_sets_are_flagged() {
    let report = check(Fault::LosesSet);
    // A lost SET is seen as stale until the next one covers it.
    assert!(report.lost + report.stale > 0, "{report:?}");
    assert_eq!(report.duplicated, 0, "{report:?}");
}

#[test]
fn lost_appends_are_flagged() {
    let report = check(Fault::LosesAppend);
    assert!(report.lost > 0, "{report:?}");
    assert_eq!(report.duplicated, 0, "{report:?}");
}

#[test]
fn lost_increments_are_flagged() {
    let report = check(Fault::LosesIncr);
    assert!(report.lost > 0, "{report:?}");
    assert_eq!(report.duplicated, 0, "{report:?}");
}

#[test]
fn appends_done_twice_are_flagged() {
    let report = check(Fault::AppendsTwice);
    assert!(report.duplicated > 0, "{report:?}");
    assert_eq!(report.lost, 0, "{report:?}");
}

#[test]
fn increments_done_twice_are_flagged() {
    let report = check(Fault::IncrementsTwice);
    assert!(report.duplicated > 0, "{report:?}");
    assert_eq!(report.lost, 0, "{report:?}");
}

#[test]
fn stale_reads_are_flagged() {
    let report = check(Fault::StaleReads);
    assert!(report.stale > 0, "{report:?}");
    assert_eq!((report.lost, report.duplicated), (0, 0), "{report:?}");
}

#[test]
fn writes_that_were_refused_and_done_are_flagged() {
    let report = check(Fault::DoesWhatItRefuses);
    assert!(report.duplicated > 0, "{report:?}");
}

#[test]
fn an_outage_is_timed() {
    // Answers nothing for a while in the middle of the run: the lock of its data is held.
    let data = Arc::new(Mutex::new(Data::default()));
    let address = serve_data(Arc::clone(&data), Fault::None);
    let outage = std::thread::spawn(move || {
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while data.lock().expect("no thread panicked").count < 1000 {
            assert!(std::time::Instant::now() < deadline, "no writes arrive");
            std::thread::yield_now();
        }
        let _held = data.lock().expect("no thread panicked");
        // The length of the outage is what is measured, so this sleep is no wait for a condition.
        std::thread::sleep(Duration::from_millis(700));
    });
    let report = check::run(&options(address)).expect("the server runs");
    outage.join().expect("no panic");
    assert!(report.is_clean(), "{report:?}");
    assert!(report.longest_outage_ms >= 650.0, "{report:?}");
}

#[test]
fn no_server_is_an_error() {
    let port = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.local_addr().expect("bound").port()
    };
    let result = check::run(&options(format!("127.0.0.1:{port}")));
    assert!(matches!(result, Err(CheckError::Connect { .. })), "{result:?}");
}

#[test]
fn wrong_options_are_refused() {
    for wrong in [
        Options { clients: 0, ..options("127.0.0.1:1".to_owned()) },
        Options { keys: 5, ..options("127.0.0.1:1".to_owned()) },
        Options { rate: Some(0.0), ..options("127.0.0.1:1".to_owned()) },
        Options { reads_percent: 101, ..options("127.0.0.1:1".to_owned()) },
    ] {
        assert!(matches!(check::run(&wrong), Err(CheckError::Usage(_))), "{wrong:?}");
    }
}
