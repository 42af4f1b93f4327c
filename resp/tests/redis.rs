//! Every row of the table beside a real `redis-server`: COMMAND INFO and COMMAND DOCS answer the same bytes. Without `redis-server` in the path the test passes with a note.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Child, Command as Process, Stdio},
    time::Duration,
};

use ringfort_resp::commands::{self, write_command_docs, write_command_info};
use ringfort_resp::{CommandSpec, Protocol, ReplyWriter, Value, reply, write_command};

/// Commands and subcommands that redis-server 7.0.15 does not have, besides RINGFORT.
const OWN: &[&str] = &["client|no-touch", "client|setinfo", "cluster|myshardid", "delifeq", "waitaof"];

/// Rows whose arguments a line of the table cannot tell (`ip:port`, which is deprecated), so that their DOCS differ.
const OTHER_ARGUMENTS: &[&str] = &["client|kill"];

/// A `redis-server` of this test's own; ends with it.
struct Redis {
    process: Child,
    stream: TcpStream,
}

impl Redis {
    /// Starts a server on a free port; `None` when there is no `redis-server`.
    fn start() -> Option<Self> {
        // The free port may be taken by somebody else before the server binds it.
        (0..5).find_map(|_| match Self::try_start() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some(None),
            Err(_) => None,
            Ok(redis) => Some(Some(redis)),
        })?
    }

    fn try_start() -> std::io::Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut process = Process::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--logfile", ""])
            .current_dir(std::env::temp_dir())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        // The log ends when the server does, so this waits neither blindly nor for ever.
        let log = BufReader::new(process.stdout.take().expect("standard output is piped"));
        log.lines().map_while(Result::ok).any(|line| line.contains("Ready to accept"));
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => {
                stream.set_read_timeout(Some(Duration::from_secs(30)))?;
                Ok(Self { process, stream })
            }
            Err(error) => {
                process.kill()?;
                process.wait()?;
                Err(error)
            }
        }
    }

    fn ask(&mut self, words: &[&str]) -> Vec<u8> {
        let mut out = Vec::new();
        write_command(words, &mut out);
        self.stream.write_all(&out).expect("redis-server reads");
        let (mut got, mut buffer) = (Vec::new(), [0; 1 << 16]);
        while reply::frame_len(&got).expect("redis-server speaks RESP").is_none() {
            let len = self.stream.read(&mut buffer).expect("redis-server answers");
            got.extend_from_slice(&buffer[..len]);
        }
        got
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn every_row() -> impl Iterator<Item = &'static CommandSpec> {
    commands::all().iter().flat_map(|spec| core::iter::once(spec).chain(spec.subcommands))
}

fn written(protocol: Protocol, write: impl FnOnce(&mut ReplyWriter<'_>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut ReplyWriter::new(&mut out, protocol));
    out
}

/// COMMAND INFO and COMMAND DOCS of one row.
fn ours(protocol: Protocol, row: &CommandSpec) -> [Vec<u8>; 2] {
    let info = written(protocol, |w| {
        w.array(1);
        write_command_info(row, w);
    });
    let docs = written(protocol, |w| {
        w.map(1);
        write_command_docs(row, w);
    });
    [info, docs]
}

/// A reply under RESP3 without a container's subcommands, which have rows of their own.
fn without_subcommands(reply: &[u8]) -> Value {
    let mut value = reply::parse(reply).expect("a reply").expect("a whole reply").0;
    match &mut value {
        Value::Array(rows) => {
            let Some(Value::Array(fields)) = rows.first_mut() else { panic!("{rows:?} is no COMMAND INFO") };
            fields.pop().expect("the subcommands are the last field");
        }
        Value::Map(rows) => {
            let Some((_, Value::Map(fields))) = rows.first_mut() else {
                panic!("{rows:?} is no COMMAND DOCS")
            };
            fields.retain(|(key, _)| key.as_bytes() != Some(b"subcommands"));
        }
        other => panic!("{other:?} is neither"),
    }
    value
}

#[test]
fn rows_are_those_of_redis() {
    let Some(mut redis) = Redis::start() else {
        println!("there is no redis-server; nothing is compared");
        return;
    };
    for (protocol, hello) in [(Protocol::Resp2, "2"), (Protocol::Resp3, "3")] {
        redis.ask(&["HELLO", hello]);
        for row in every_row() {
            let theirs = ["INFO", "DOCS"].map(|what| redis.ask(&["COMMAND", what, row.name]));
            if OWN.contains(&row.name) || row.name.starts_with("ringfort") {
                assert_eq!(theirs[1][1..], *b"0\r\n", "this redis-server knows {}", row.name);
                continue;
            }
            let compared = if OTHER_ARGUMENTS.contains(&row.name) { 1 } else { 2 };
            for (ours, theirs) in ours(protocol, row).iter().zip(&theirs).take(compared) {
                if row.subcommands.is_empty() {
                    assert_eq!(ours.escape_ascii().to_string(), theirs.escape_ascii().to_string());
                } else if protocol == Protocol::Resp3 {
                    assert_eq!(without_subcommands(ours), without_subcommands(theirs));
                }
            }
        }
    }
}
