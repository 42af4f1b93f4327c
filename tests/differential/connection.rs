//! Commands that a connection answers, and what every command answers to malformed arguments.

use crate::Target;
use crate::generator::{Generator, Words};

/// Lines for every door.
const LINES: &[&str] = &[
    "PING",
    "PING hello",
    "PING a b",
    "ECHO x",
    "ECHO",
    "ECHO a b",
    "SELECT 0",
    "SELECT x",
    "SELECT 1",
    "SELECT",
    "SELECT 0 0",
    "SELECT 99999999999",
    "HELLO x",
    "HELLO 4",
    "HELLO 3 FOO",
    "HELLO 2 AUTH a",
    "HELLO 3 SETNAME",
    "AUTH",
    "AUTH a b c",
    "AUTH secret",
    "AUTH default secret",
    "AUTH nobody secret",
    "CLIENT",
    "CLIENT NOSUCH",
    "CLIENT SETNAME",
    "CLIENT SETNAME somebody",
    "CLIENT GETNAME",
    "CLIENT GETNAME x",
    "CLIENT ID x",
    "COMMAND GETKEYS",
    "COMMAND GETKEYS get",
    "COMMAND GETKEYS get k",
    "COMMAND GETKEYS mset a 1 b 2",
    "COMMAND GETKEYS ping",
    "COMMAND GETKEYS nosuch k",
    "COMMAND GETKEYSANDFLAGS get k",
    "COMMAND INFO get nosuch",
    "COMMAND DOCS get nosuch",
    "COMMAND COUNT x",
    "COMMAND NOSUCH",
    "CONFIG",
    "CONFIG GET",
    "CONFIG GET nosuch",
    "CONFIG NOSUCH x",
    "NOSUCH",
    "nosuch a b c",
    "GET",
    "SET k",
    "OBJECT",
    "OBJECT NOSUCH k",
    "OBJECT ENCODING",
    "MEMORY",
    "MEMORY NOSUCH k",
    "MEMORY USAGE",
    "SCAN",
    "SCAN x",
    "SCAN -",
    "SCAN 0 COUNT",
    "SCAN 0 COUNT 0",
    "SCAN 0 COUNT x",
    "SCAN 0 MATCH",
    "SCAN 0 NOSUCH 1",
    "SCAN 18446744073709551616",
    "KEYS",
    "KEYS a b",
    "RANDOMKEY x",
    "DBSIZE x",
    "FLUSHALL NOW",
    "FLUSHDB SYNC ASYNC",
    "CLUSTER",
    "CLUSTER NOSUCH",
    "CLUSTER KEYSLOT",
    "RESET",
];

/// Lines to which Redis has an answer in cluster mode only.
const CLUSTER_LINES: &[&str] = &[
    "READONLY",
    "READWRITE",
    "READONLY x",
    "CLUSTER KEYSLOT foo",
    "CLUSTER KEYSLOT {foo}bar",
    "CLUSTER KEYSLOT a b",
    "CLUSTER COUNTKEYSINSLOT x",
    "CLUSTER COUNTKEYSINSLOT -1",
    "CLUSTER COUNTKEYSINSLOT 16384",
    "CLUSTER COUNTKEYSINSLOT",
    "CLUSTER GETKEYSINSLOT 5",
    "CLUSTER GETKEYSINSLOT 5 x",
    "CLUSTER GETKEYSINSLOT x 5",
    "CLUSTER GETKEYSINSLOT 5 -1",
    "CLUSTER GETKEYSINSLOT 16384 1",
    "CLUSTER COUNTKEYSINSLOT 16383",
    "CLUSTER GETKEYSINSLOT 16383 10",
];

/// One of the lines, in any case.
pub(crate) fn step(generator: &mut Generator, target: Target, protocol: &str) -> Vec<Words> {
    let is_of_cluster = target == Target::Nodes && generator.random(4) == 0;
    let line = generator.one_of(if is_of_cluster { CLUSTER_LINES } else { LINES });
    let mut words: Words = line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
    words[0] = generator.cased(&line[..words[0].len()]);
    let mut all = vec![words];
    if line == "RESET" {
        // It takes the protocol back to RESP2.
        all.push(vec![b"HELLO".to_vec(), protocol.as_bytes().to_vec()]);
    }
    all
}

/// Whether the reply names the server: HELLO, when it is no error.
pub(crate) fn is_incomparable(words: &Words, theirs: &[u8]) -> bool {
    words[0].eq_ignore_ascii_case(b"hello") && !theirs.starts_with(b"-")
}
