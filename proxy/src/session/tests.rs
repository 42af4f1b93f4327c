use super::*;
use crate::clients::{Address, Clients};
use crate::testing;
use ringfort_resp::reply::{self as resp_reply, Value};

struct Fake {
    map: Option<ClusterMap>,
    me: Option<NodeId>,
    /// Whether every partition is led by its first node; else nobody is known.
    has_leaders: bool,
}

impl Host for Fake {
    fn map(&self) -> Option<&ClusterMap> {
        self.map.as_ref()
    }

    fn leader_of(&self, partition: PartitionId) -> Option<&NodeId> {
        let group = self.map.as_ref()?.groups.get(usize::from(partition.0))?;
        Some(&group.leader).filter(|_| self.has_leaders)
    }

    fn my_node(&self) -> Option<&NodeId> {
        self.me.as_ref()
    }

    fn facts(&self) -> Facts {
        Facts {
            run_id: "r".repeat(40),
            tcp_port: 6379,
            keyspace: self.me.as_ref().map(|_| Keyspace { keys: 5, expires: 1, ..Keyspace::default() }),
            follower_reads: None,
            ..Facts::default()
        }
    }

    fn ringfort(&self, query: RingfortQuery) -> Result<String, String> {
        match query {
            RingfortQuery::Map => Ok("{}".to_owned()),
            RingfortQuery::Node | RingfortQuery::Digest => Err("not a node".to_owned()),
        }
    }
}

fn proxy() -> Fake {
    Fake { map: Some(testing::map(3, 16)), me: None, has_leaders: true }
}

fn node() -> Fake {
    Fake { map: Some(testing::map(3, 16)), me: Some(NodeId("n2".to_owned())), has_leaders: true }
}

fn address() -> Address {
    Address { peer: "127.0.0.1:5".to_owned(), local: "127.0.0.1:6".to_owned(), fd: 7 }
}

fn session(mode: Mode) -> Session {
    let clients = Clients::new(1);
    let place = clients.accept(u64::MAX).unwrap();
    Session::new(mode, place, &address(), clients.worker(0))
}

/// Feeds `input`; answers each ask with its arguments joined by blanks; returns the output and whether it is over.
fn talk(mode: Mode, host: &Fake, input: &[u8], piece: usize) -> (String, bool) {
    let mut session = session(mode);
    let mut output = Vec::new();
    for piece in input.chunks(piece) {
        session.push_input(piece);
        let mut answers = Vec::new();
        while let Some(ask) = session.next(host) {
            let words: Vec<_> = ask.args.iter().map(String::from_utf8_lossy).collect();
            answers.push((ask.ticket, format!("+{}\r\n", words.join(" "))));
        }
        for (ticket, answer) in answers.into_iter().rev() {
            session.answer(ticket, answer.as_bytes());
        }
        output.extend_from_slice(session.output());
        let sent = session.output().len();
        session.sent(sent);
    }
    (String::from_utf8(output).unwrap(), session.is_over())
}

fn reply(host: &Fake, command: &str) -> String {
    let mode = if host.me.is_some() { Mode::Node } else { Mode::Proxy };
    talk(mode, host, format!("{command}\r\n").as_bytes(), usize::MAX).0
}

#[test]
fn connection_commands_answer_as_redis_does() {
    for (command, expected) in [
        ("PING", "+PONG\r\n"),
        ("ping hi", "$2\r\nhi\r\n"),
        ("PING a b", "-ERR wrong number of arguments for 'ping' command\r\n"),
        ("ECHO x", "$1\r\nx\r\n"),
        ("ECHO", "-ERR wrong number of arguments for 'echo' command\r\n"),
        ("NOPE a b", "-ERR unknown command 'NOPE', with args beginning with: 'a' 'b' \r\n"),
        ("get", "-ERR wrong number of arguments for 'get' command\r\n"),
        ("mset a 1 b", "-ERR wrong number of arguments for 'mset' command\r\n"),
        ("SELECT 0", "+OK\r\n"),
        ("SELECT 1", "-ERR DB index is out of range\r\n"),
        (
            "SELECT 99999999999",
            "-ERR value is out of range, value must between -2147483648 and 2147483647\r\n",
        ),
        ("SELECT x", "-ERR value is not an integer or out of range\r\n"),
        ("CLIENT", "-ERR wrong number of arguments for 'client' command\r\n"),
        ("CLIENT FOO", "-ERR unknown subcommand 'FOO'. Try CLIENT HELP.\r\n"),
        ("CLIENT SETNAME", "-ERR wrong number of arguments for 'client|setname' command\r\n"),
        (
            "CLIENT SETNAME \"a b\"",
            "-ERR Client names cannot contain spaces, newlines or special characters.\r\n",
        ),
        ("CLIENT GETNAME", "$-1\r\n"),
        ("CLIENT ID", ":1\r\n"),
        ("CLIENT SETINFO lib-name x", "+OK\r\n"),
        ("CLIENT SETINFO foo x", "-ERR Unrecognized option 'foo'\r\n"),
        ("HELLO x", "-ERR Protocol version is not an integer or out of range\r\n"),
        ("HELLO 4", "-NOPROTO unsupported protocol version\r\n"),
        ("HELLO 2 FOO", "-ERR Syntax error in HELLO option 'FOO'\r\n"),
        ("HELLO 2 AUTH a b", "-WRONGPASS invalid username-password pair or user is disabled.\r\n"),
        ("AUTH default b", "+OK\r\n"),
        ("AUTH a b c", "-ERR syntax error\r\n"),
        ("AUTH", "-ERR wrong number of arguments for 'auth' command\r\n"),
        ("CONFIG GET save", "*2\r\n$4\r\nsave\r\n$0\r\n\r\n"),
        ("CONFIG GET append[o]nly* nope", "*2\r\n$10\r\nappendonly\r\n$2\r\nno\r\n"),
        ("CONFIG GET nope", "*0\r\n"),
        ("CONFIG FOO", "-ERR unknown subcommand 'FOO'. Try CONFIG HELP.\r\n"),
        ("COMMAND INFO nope config|nope", "*2\r\n$-1\r\n$-1\r\n"),
        ("COMMAND LIST FILTERBY PATTERN Config|[gs]et", "*2\r\n$10\r\nconfig|get\r\n$10\r\nconfig|set\r\n"),
        ("COMMAND LIST FILTERBY ACLCAT nope", "*0\r\n"),
        ("COMMAND LIST FILTERBY MODULE x", "*0\r\n"),
        ("COMMAND LIST FILTERBY nope x", "-ERR syntax error\r\n"),
        ("COMMAND COUNT x", "-ERR wrong number of arguments for 'command|count' command\r\n"),
        ("COMMAND GETKEYS object encoding x", "*1\r\n$1\r\nx\r\n"),
        ("COMMAND GETKEYS object nope x", "-ERR Invalid command specified\r\n"),
        ("COMMAND GETKEYSANDFLAGS mset a 1", "*1\r\n*2\r\n$1\r\na\r\n*2\r\n+OW\r\n+update\r\n"),
        (
            "COMMAND GETKEYSANDFLAGS copy a b",
            "*2\r\n*2\r\n$1\r\na\r\n*2\r\n+RO\r\n+access\r\n*2\r\n$1\r\nb\r\n*2\r\n+OW\r\n+update\r\n",
        ),
        (
            "CONFIG GET PORT max*-policy port",
            "*4\r\n$16\r\nmaxmemory-policy\r\n$10\r\nnoeviction\r\n$4\r\nport\r\n$4\r\n6379\r\n",
        ),
        ("CONFIG GET cluster-enabled", "*2\r\n$15\r\ncluster-enabled\r\n$2\r\nno\r\n"),
        ("CONFIG GET", "-ERR wrong number of arguments for 'config|get' command\r\n"),
        ("CONFIG SET timeout", "-ERR wrong number of arguments for 'config|set' command\r\n"),
        ("CONFIG SET timeout 5 x", "-ERR syntax error\r\n"),
        ("CONFIG SET nope 5", "-ERR Unknown option or number of arguments for CONFIG SET - 'nope'\r\n"),
        ("CONFIG SET save \"\"", "+OK\r\n"),
        ("CONFIG RESETSTAT", "+OK\r\n"),
        ("CONFIG RESETSTAT x", "-ERR wrong number of arguments for 'config|resetstat' command\r\n"),
        ("CONFIG HELP x", "-ERR wrong number of arguments for 'config|help' command\r\n"),
        ("CONFIG REWRITE x", "-ERR wrong number of arguments for 'config|rewrite' command\r\n"),
        ("COMMAND GETKEYS mset a 1 b 2", "*2\r\n$1\r\na\r\n$1\r\nb\r\n"),
        ("COMMAND GETKEYS ping x", "-ERR The command has no key arguments\r\n"),
        ("COMMAND FOO", "-ERR unknown subcommand 'FOO'. Try COMMAND HELP.\r\n"),
        ("RINGFORT MAP", "$2\r\n{}\r\n"),
        ("RINGFORT NODE", "-ERR not a node\r\n"),
        ("READONLY", "+OK\r\n"),
        ("READWRITE", "+OK\r\n"),
        ("RESET", "+RESET\r\n"),
        ("CLUSTER KEYSLOT foo", ":12182\r\n"),
        ("CLUSTER MYID", "-ERR a proxy has no node id\r\n"),
        (
            "CLUSTER COUNTKEYSINSLOT",
            "-ERR wrong number of arguments for 'cluster|countkeysinslot' command\r\n",
        ),
        ("CLUSTER COUNTKEYSINSLOT x", "-ERR value is not an integer or out of range\r\n"),
        ("CLUSTER COUNTKEYSINSLOT 16384", "-ERR Invalid slot\r\n"),
        ("CLUSTER COUNTKEYSINSLOT -1", "-ERR Invalid slot\r\n"),
        ("CLUSTER GETKEYSINSLOT 5", "-ERR wrong number of arguments for 'cluster|getkeysinslot' command\r\n"),
        ("CLUSTER GETKEYSINSLOT 5 x", "-ERR value is not an integer or out of range\r\n"),
        ("CLUSTER GETKEYSINSLOT 16384 1", "-ERR Invalid slot or number of keys\r\n"),
        ("CLUSTER GETKEYSINSLOT 5 -1", "-ERR Invalid slot or number of keys\r\n"),
        ("cluster getkeysinslot 5 1", "+cluster getkeysinslot 5 1\r\n"),
        ("SCAN x COUNT x", "-ERR invalid cursor\r\n"),
        ("SCAN 0 COUNT 0", "-ERR syntax error\r\n"),
        ("SCAN 0 MATCH", "-ERR syntax error\r\n"),
        ("SCAN 0 MATCH a*", "+SCAN 0 MATCH a*\r\n"),
        ("RANDOMKEY x", "-ERR wrong number of arguments for 'randomkey' command\r\n"),
        ("CLUSTER LINKS", "*0\r\n"),
        ("CLUSTER REPLICAS x", "-ERR Unknown node x\r\n"),
        ("CLUSTER COUNT-FAILURE-REPORTS x", "-ERR Unknown node x\r\n"),
        ("ASKING", "+OK\r\n"),
        ("ROLE", "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"),
        ("WAIT 0 0", ":1\r\n"),
        ("WAIT -1 100", ":1\r\n"),
        ("WAIT 0 -1", "-ERR timeout is negative\r\n"),
        ("WAIT a b", "-ERR value is not an integer or out of range\r\n"),
        ("WAIT 0 b", "-ERR timeout is not an integer or out of range\r\n"),
        ("WAITAOF 0 1 0", "*2\r\n:0\r\n:0\r\n"),
        ("WAITAOF 1 1 0", "-ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.\r\n"),
        ("WAITAOF 2 1 0", "-ERR value is out of range, must be between 0 and 1\r\n"),
        ("WAITAOF 0 -1 0", "-ERR value is out of range, must be positive\r\n"),
        ("SWAPDB 0 1", "-ERR SWAPDB is not supported: there is one database, 0\r\n"),
    ] {
        assert_eq!(reply(&proxy(), command), expected, "{command}");
    }
}

#[test]
fn hello_switches_the_protocol_from_its_own_reply_on() {
    let (out, _) = talk(
        Mode::Proxy,
        &proxy(),
        b"HELLO 3 SETNAME me\r\nCLIENT GETNAME\r\nRESET\r\nCLIENT GETNAME\r\n",
        7,
    );
    assert!(out.starts_with("%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n"), "{out}");
    assert!(out.contains("$5\r\nproto\r\n:3\r\n") && out.contains("standalone"), "{out}");
    assert!(out.ends_with("$2\r\nme\r\n+RESET\r\n$-1\r\n"), "{out}");
    assert!(reply(&node(), "HELLO").contains("$7\r\ncluster\r\n"));
}

#[test]
fn info_has_the_sections_asked_for() {
    let all = reply(&node(), "INFO");
    for line in [
        "redis_version:7.2.4",
        "redis_mode:cluster",
        "connected_clients:1",
        "cluster_enabled:1",
        "role:master",
    ] {
        assert!(all.contains(&format!("{line}\r\n")), "{line} in {all}");
    }
    assert!(all.contains("\r\n\r\n# Keyspace\r\ndb0:keys=5,expires=1,avg_ttl=0\r\n"), "{all}");
    assert_eq!(reply(&proxy(), "INFO cluster"), "$30\r\n# Cluster\r\ncluster_enabled:0\r\n\r\n");
    assert_eq!(reply(&proxy(), "INFO nope"), "$0\r\n\r\n");
}

#[test]
fn cluster_shows_the_nodes_with_their_own_addresses() {
    let slots = reply(&proxy(), "CLUSTER SLOTS");
    assert!(
        slots.starts_with("*16\r\n*3\r\n:0\r\n:1023\r\n*4\r\n$9\r\n127.0.0.1\r\n:7001\r\n$40\r\n"),
        "{slots}"
    );
    let shards = reply(&node(), "CLUSTER SHARDS");
    assert!(shards.starts_with("*3\r\n*4\r\n$5\r\nslots\r\n*12\r\n:0\r\n:1023\r\n:3072\r\n"), "{shards}");
    let info = reply(&proxy(), "CLUSTER INFO");
    for line in
        ["cluster_state:ok", "cluster_known_nodes:3", "cluster_size:3", "cluster_slots_assigned:16384"]
    {
        assert!(info.contains(&format!("{line}\r\n")), "{line} in {info}");
    }
    let nodes = reply(&node(), "CLUSTER NODES");
    assert!(nodes.contains(" 127.0.0.1:7001@7101 master - 0 0 1 connected 0-1023 3072-4095 "), "{nodes}");
    assert!(nodes.contains(" 127.0.0.1:7002@7102 myself,master - "), "{nodes}");
    assert!(nodes.contains(&reply(&node(), "CLUSTER MYID")[5..45]), "{nodes}");
    assert!(
        reply(&Fake { map: None, me: None, has_leaders: true }, "CLUSTER SLOTS").starts_with("-CLUSTERDOWN ")
    );
}

/// (first slot, last slot, ports of the leader and its followers) of CLUSTER SLOTS on a connection that said READONLY.
fn slots_of_reader(host: &Fake) -> Vec<(i64, i64, Vec<i64>)> {
    let (output, _) = talk(Mode::Node, host, b"READONLY\r\nCLUSTER SLOTS\r\n", 64);
    let slots = output.strip_prefix("+OK\r\n").unwrap().as_bytes();
    let Some((Value::Array(ranges), used)) = resp_reply::parse(slots).unwrap() else { panic!("{output}") };
    assert_eq!(used, slots.len());
    let port = |node: &Value| match node {
        Value::Array(node) => node[1].as_integer().unwrap(),
        other => panic!("{other:?}"),
    };
    let range = |range: &Value| match range {
        Value::Array(range) => {
            let [first, last] = [0, 1].map(|i| range[i].as_integer().unwrap());
            (first, last, range[2..].iter().map(port).collect())
        }
        other => panic!("{other:?}"),
    };
    ranges.iter().map(range).collect()
}

#[test]
fn a_client_that_says_readonly_is_told_the_followers() {
    let slots = slots_of_reader(&node());
    let (fronts, others) = slots.split_at(3);
    assert!(fronts.iter().all(|(first, last, nodes)| first == last && nodes.len() == 1), "{fronts:?}");
    let mut leaders: Vec<_> = fronts.iter().map(|(.., nodes)| nodes[0]).collect();
    leaders.sort_unstable();
    assert_eq!(leaders, [7001, 7002, 7003], "each is seen as a leader first");
    for (.., nodes) in others {
        let mut nodes = nodes.clone();
        nodes.sort_unstable();
        assert_eq!(nodes, [7001, 7002, 7003], "{others:?}");
    }
    let mut covered: Vec<_> = slots.iter().map(|(first, last, _)| (*first, *last)).collect();
    covered.sort_unstable();
    let mut next = 0;
    for (first, last) in covered {
        assert_eq!(first, next, "{slots:?}");
        next = last + 1;
    }
    assert_eq!(next, 16384);
    let (output, _) = talk(Mode::Node, &node(), b"READONLY\r\nREADWRITE\r\nCLUSTER SLOTS\r\n", 64);
    assert_eq!(output, "+OK\r\n+OK\r\n".to_owned() + &reply(&node(), "CLUSTER SLOTS"));
}

#[test]
fn waitaof_counts_disks_only_when_writes_are_on_them() {
    let mut host = proxy();
    host.map.as_mut().unwrap().fsync = true;
    assert_eq!(reply(&host, "WAITAOF 1 1 0"), "*2\r\n:1\r\n:1\r\n");
    assert_eq!(reply(&node(), "SELECT 1"), "-ERR SELECT is not allowed in cluster mode\r\n");
}

#[test]
fn a_partition_without_leader_shows() {
    let host = Fake { has_leaders: false, ..node() };
    let info = reply(&host, "CLUSTER INFO");
    for line in ["cluster_state:fail", "cluster_slots_ok:0", "cluster_slots_fail:16384", "cluster_size:0"] {
        assert!(info.contains(&format!("{line}\r\n")), "{line} in {info}");
    }
    assert!(reply(&host, "CLUSTER SHARDS").contains("$6\r\nhealth\r\n$4\r\nfail\r\n"));
    assert!(!reply(&node(), "CLUSTER SHARDS").contains("\r\nfail\r\n"));
}

#[test]
fn a_node_that_leads_nothing_is_a_replica() {
    let mut host = node();
    for group in &mut host.map.as_mut().unwrap().groups {
        group.leader = NodeId("n1".to_owned());
    }
    let id = |name: &str| {
        let host = Fake { me: Some(NodeId(name.to_owned())), ..node() };
        reply(&host, "CLUSTER MYID")[5..45].to_owned()
    };
    let (n1, n2) = (id("n1"), id("n2"));
    // A node that leads is nobody's replica, as clients want it.
    assert!(!reply(&node(), "CLUSTER SHARDS").contains("replica\r\n"));
    assert!(reply(&host, "CLUSTER SLOTS").starts_with("*1\r\n*5\r\n:0\r\n:16383\r\n*4\r\n"));
    assert_eq!(reply(&host, "CLUSTER SHARDS").matches("replica\r\n").count(), 2);
    assert_eq!(reply(&host, "CLUSTER MYSHARDID"), format!("$40\r\n{n1}\r\n"));
    assert_eq!(reply(&node(), "CLUSTER MYSHARDID"), format!("$40\r\n{n2}\r\n"));
    for command in ["REPLICAS", "SLAVES"] {
        let replicas = reply(&host, &format!("CLUSTER {command} {n1}"));
        assert!(
            replicas.starts_with("*2\r\n") && replicas.contains(&format!("myself,slave {n1}")),
            "{replicas}"
        );
    }
    let refused = "-ERR The specified node is not a master\r\n";
    assert_eq!(reply(&host, &format!("CLUSTER REPLICAS {n2}")), refused);
    assert_eq!(reply(&host, &format!("CLUSTER COUNT-FAILURE-REPORTS {n2}")), ":0\r\n");
    let links = reply(&host, "CLUSTER LINKS");
    assert!(
        links.starts_with("*4\r\n*6\r\n$9\r\ndirection\r\n$2\r\nto\r\n") && !links.contains(&n2),
        "{links}"
    );
}

#[test]
fn time_is_that_of_the_host() {
    let clients = Clients::new(1);
    let worker = clients.worker(0);
    worker.set_now(5_000_000);
    worker.set_wall(1_700_000_000_000_123);
    worker.set_now(6_000_000);
    let mut session = Session::new(Mode::Proxy, clients.accept(1).unwrap(), &address(), worker);
    session.push_input(b"TIME\r\nLASTSAVE\r\nLOLWUT VERSION 1\r\n");
    assert!(session.next(&proxy()).is_none());
    let output = String::from_utf8_lossy(session.output());
    assert!(output.starts_with("*2\r\n$10\r\n1700000001\r\n$3\r\n123\r\n:1700000001\r\n$"), "{output}");
    assert!(output.contains("|_____|__\n\nRingfort ver. "), "{output}");
}

#[test]
fn command_lists_every_command() {
    let count = ringfort_resp::commands::all().len();
    assert!(reply(&proxy(), "COMMAND").starts_with(&format!("*{count}\r\n*10\r\n")));
    assert_eq!(reply(&proxy(), "COMMAND COUNT"), format!(":{count}\r\n"));
    assert!(reply(&proxy(), "COMMAND LIST").starts_with(&format!("*{count}\r\n$3\r\nacl\r\n")));
    assert!(reply(&proxy(), "COMMAND DOCS get nope").starts_with("*2\r\n$3\r\nget\r\n"));
}

#[test]
fn keys_of_several_slots_are_refused_where_they_cannot_be_split() {
    assert_eq!(reply(&proxy(), "MGET a b"), "+MGET a b\r\n");
    assert_eq!(reply(&node(), "MGET a b"), "-CROSSSLOT Keys in request don't hash to the same slot\r\n");
    assert_eq!(reply(&node(), "MGET {t}a {t}b"), "+MGET {t}a {t}b\r\n");
    let mut session = session(Mode::Proxy);
    session.push_input(b"GET foo\r\nMGET a b\r\nDBSIZE\r\n");
    let mut slots = Vec::new();
    while let Some(ask) = session.next(&proxy()) {
        slots.push(ask.slots);
    }
    assert_eq!(slots, [Slots::One(Slot(12182)), Slots::Many, Slots::None]);
}

#[test]
fn several_keys_of_one_command_lie_in_one_slot_unless_they_can_be_split() {
    for command in [
        "MSETNX a 1 b 2",
        "RENAME a b",
        "RENAMENX a b",
        "COPY a b",
        "COPY a b DB 0 REPLACE",
        "LCS a b",
        "LCS a b IDX MINMATCHLEN 1 WITHMATCHLEN",
    ] {
        for host in [proxy(), node()] {
            let one_slot = command.replace(" a ", " {t}a ").replace(" b", " {t}b");
            assert_eq!(reply(&host, &one_slot), format!("+{one_slot}\r\n"));
            let crossslot = "-CROSSSLOT Keys in request don't hash to the same slot\r\n";
            assert_eq!(reply(&host, command), crossslot, "{command}");
        }
    }
    for command in ["UNLINK a b", "TOUCH a b"] {
        assert_eq!(reply(&proxy(), command), format!("+{command}\r\n"));
        assert!(reply(&node(), command).starts_with("-CROSSSLOT "), "{command}");
    }
    assert_eq!(reply(&proxy(), "MSETNX a 1 a"), "-ERR wrong number of arguments for 'msetnx' command\r\n");
    assert_eq!(reply(&proxy(), "FLUSHDB"), "+FLUSHDB\r\n");
}

#[test]
fn containers_with_keys_are_answered_where_there_is_no_key() {
    let starting = Fake { map: None, me: None, has_leaders: true };
    for host in [proxy(), node(), starting] {
        assert!(reply(&host, "OBJECT HELP").contains("\r\n+OBJECT <subcommand> "));
        assert!(reply(&host, "memory help").contains("\r\n+MEMORY <subcommand> "));
        assert_eq!(reply(&host, "OBJECT NOPE k"), "-ERR unknown subcommand 'NOPE'. Try OBJECT HELP.\r\n");
        let arity = "-ERR wrong number of arguments for 'object|encoding' command\r\n";
        assert_eq!(reply(&host, "OBJECT ENCODING"), arity);
    }
    for command in ["OBJECT ENCODING k", "OBJECT refcount k", "MEMORY USAGE k SAMPLES 1"] {
        assert_eq!(reply(&proxy(), command), format!("+{command}\r\n"));
    }
}

#[test]
fn keyed_commands_wait_for_a_map() {
    let host = Fake { map: None, me: None, has_leaders: true };
    assert_eq!(reply(&host, "GET a"), "-LOADING Ringfort is starting: no cluster map yet\r\n");
    assert_eq!(reply(&host, "PING"), "+PONG\r\n");
}

#[test]
fn any_split_of_the_bytes_gives_the_same_replies() {
    let input =
        b"*2\r\n$3\r\nGET\r\n$3\r\nfoo\r\nPING\r\n\r\n*0\r\nSET a \"b c\"\r\n*1\r\n$4\r\nQUIT\r\nPING\r\n";
    let expected = ("+GET foo\r\n+PONG\r\n+SET a b c\r\n+OK\r\n".to_owned(), true);
    for piece in 1..=input.len() {
        assert_eq!(talk(Mode::Proxy, &proxy(), input, piece), expected, "pieces of {piece}");
    }
}

#[test]
fn protocol_error_closes_after_what_came_before() {
    let mut session = session(Mode::Proxy);
    session.push_input(b"GET a\r\n*1\r\n:1\r\nPING\r\n");
    let ticket = session.next(&proxy()).unwrap().ticket;
    assert!(session.next(&proxy()).is_none());
    assert!(!session.wants_input() && !session.is_over());
    session.answer(ticket, b"+v\r\n");
    assert_eq!(session.output(), b"+v\r\n-ERR Protocol error: expected '$', got ':'\r\n");
    assert!(!session.is_over());
    session.sent(session.output().len());
    assert!(session.is_over());
}

#[test]
fn command_that_is_put_back_comes_again() {
    let mut session = session(Mode::Proxy);
    session.push_input(b"GET a\r\nGET b\r\nPING\r\n");
    let first = session.next(&proxy()).unwrap().ticket;
    let second = session.next(&proxy()).unwrap().ticket;
    session.put_back();
    session.answer(first, b"+1\r\n");
    let again = session.next(&proxy()).unwrap();
    assert_eq!((again.ticket, again.args.get(1)), (second, &b"b"[..]));
    assert!(session.next(&proxy()).is_none());
    session.answer(second, b"+2\r\n");
    assert_eq!(session.output(), b"+1\r\n+2\r\n+PONG\r\n");
}

#[test]
fn what_came_before_the_end_of_input_is_answered() {
    let mut session = session(Mode::Proxy);
    session.push_input(b"GET a\r\nPING\r\nGET");
    session.end_input();
    assert!(!session.is_over() && !session.wants_input());
    let ticket = session.next(&proxy()).unwrap().ticket;
    assert!(session.next(&proxy()).is_none() && !session.is_over());
    session.answer(ticket, b"$-1\r\n");
    assert_eq!(session.output(), b"$-1\r\n+PONG\r\n");
    session.sent(session.output().len());
    assert!(session.is_over());
}

#[test]
fn full_pipeline_stops_decoding_until_an_answer_comes() {
    let mut session = session(Mode::Proxy);
    see_replies(&mut session, 300, b"$-1\r\n");
    session.push_input(&b"GET a\r\n".repeat(PIPELINE_MAX + 5));
    let mut tickets = Vec::new();
    while let Some(ask) = session.next(&proxy()) {
        tickets.push(ask.ticket);
    }
    assert_eq!(tickets.len(), PIPELINE_MAX);
    assert!(!session.wants_input() && !session.wants_next());
    session.answer(tickets[0], b"$-1\r\n");
    assert!(session.wants_next());
    assert!(session.next(&proxy()).is_some() && session.next(&proxy()).is_none());
    for ticket in &tickets[1..] {
        session.answer(*ticket, b"$-1\r\n");
    }
    let rest = core::iter::from_fn(|| session.next(&proxy()).map(|_| ())).count();
    assert_eq!(rest, 4);
    assert!(session.wants_input());
}

/// Has `count` commands answered with `reply`, one by one.
fn see_replies(session: &mut Session, count: usize, reply: &[u8]) {
    session.push_input(&b"GET a\r\n".repeat(count));
    for _ in 0..count {
        let ticket = session.next(&proxy()).unwrap().ticket;
        session.answer(ticket, reply);
        session.sent(session.output().len());
    }
}

#[test]
fn large_replies_shorten_the_pipeline_so_that_the_client_is_not_cut() {
    let mut session = session(Mode::Proxy);
    let reply = vec![b'x'; 3 << 20];
    see_replies(&mut session, 1, &reply);
    session.push_input(&b"GET a\r\n".repeat(100));
    let (mut tickets, mut answered) = (Vec::new(), 0);
    while answered < 100 {
        while let Some(ask) = session.next(&proxy()) {
            tickets.push(ask.ticket);
        }
        // All answers come at once, the last one first, and then the client reads.
        assert!(!tickets.is_empty());
        answered += tickets.len();
        tickets.drain(..).rev().for_each(|ticket| session.answer(ticket, &reply));
        assert!(!session.is_over() && !session.output().is_empty());
        session.sent(session.output().len());
    }
    // Small replies make it long again.
    see_replies(&mut session, 600, b"$-1\r\n");
    session.push_input(&b"GET a\r\n".repeat(PIPELINE_MAX));
    assert_eq!(core::iter::from_fn(|| session.next(&proxy()).map(|_| ())).count(), PIPELINE_MAX);
}

#[test]
fn unread_output_stops_decoding_then_ends_the_session() {
    let mut session = session(Mode::Proxy);
    session.push_input(b"GET a\r\nGET b\r\n");
    let tickets = [session.next(&proxy()).unwrap().ticket, session.next(&proxy()).unwrap().ticket];
    session.push_input(b"PING\r\n");
    session.answer(tickets[0], &vec![b'x'; OUTPUT_PAUSE_BYTES]);
    assert!(!session.wants_next() && session.next(&proxy()).is_none());
    session.sent(1);
    assert!(session.wants_next());
    session.answer(tickets[1], &vec![b'x'; OUTPUT_BYTES_MAX]);
    assert!(session.is_over() && session.output().is_empty());
}

/// What one session holds when it wants a reply of so many bytes and reads nothing.
fn hold(session: &mut Session, bytes: usize) {
    session.push_input(b"GET a\r\n");
    let ticket = session.next(&proxy()).unwrap().ticket;
    session.answer(ticket, &vec![b'x'; bytes]);
}

#[test]
fn who_holds_more_than_a_share_is_cut_when_all_hold_too_much() {
    const MAX: usize = 1 << 20;
    let clients = Clients::with_held_max(1, MAX);
    let mut sessions: Vec<_> = (0..4)
        .map(|_| Session::new(Mode::Proxy, clients.accept(9).unwrap(), &address(), clients.worker(0)))
        .collect();
    // A quarter is a share. One alone may hold more while the others hold less.
    hold(&mut sessions[0], MAX / 2);
    hold(&mut sessions[1], MAX / 8);
    hold(&mut sessions[2], MAX / 4);
    assert_eq!(clients.held(), MAX * 7 / 8);
    // Within its share a client is never cut; beyond it, the one that makes it too much is.
    hold(&mut sessions[3], MAX / 4);
    assert!(sessions.iter().all(|session| !session.is_over()));
    hold(&mut sessions[2], MAX / 64);
    assert!(sessions[2].is_over() && sessions[2].output().is_empty() && !sessions[2].wants_input());
    assert_eq!(clients.held(), MAX * 7 / 8);
    // The same for a command that does not end.
    sessions[1].push_input(b"*2\r\n$3\r\nGET\r\n$500000\r\n");
    sessions[1].push_input(&vec![b'k'; MAX / 16]);
    assert!(!sessions[1].is_over());
    sessions[1].push_input(&vec![b'k'; MAX / 8]);
    assert!(sessions[1].is_over());
    // What is sent, or gone, is held no more.
    let sent = sessions[0].output().len();
    sessions[0].sent(sent);
    drop(sessions);
    assert_eq!(clients.held(), 0);
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_survived(input: Vec<u8>, piece in 1..50usize) {
        talk(Mode::Proxy, &proxy(), String::from_utf8_lossy(&input).as_bytes(), piece);
    }
}

#[test]
fn commands_are_counted_with_the_time_to_their_answer() {
    let clients = Clients::new(1);
    let worker = clients.worker(0);
    let mut session = Session::new(Mode::Proxy, clients.accept(1).unwrap(), &address(), worker.clone());
    assert!(clients.accept(1).is_none(), "one client too many");
    worker.set_now(100);
    session.push_input(b"GET a\r\nPING\r\nGET\r\nCLIENT x\r\nGET b\r\n");
    let tickets = [session.next(&proxy()).unwrap().ticket, session.next(&proxy()).unwrap().ticket];
    worker.set_now(140);
    session.answer(tickets[1], b"-ERR no\r\n");
    worker.set_now(200);
    session.answer(tickets[0], b"$-1\r\n");
    session.answer(tickets[0], b"$-1\r\n");
    let sent = session.output().len();
    session.sent(sent);
    let counted = clients.counted();
    let of = |command: Command| {
        let c = &counted.commands[command.spec().row()];
        (c.calls, c.micros, c.rejected, c.failed)
    };
    assert_eq!(of(Command::Get), (2, 140, 1, 1));
    assert_eq!((of(Command::Ping), of(Command::Client)), ((1, 0, 0, 0), (0, 0, 1, 0)));
    assert_eq!((counted.bytes_in, counted.bytes_out), (35, sent as u64));
    assert_eq!((counted.connections, counted.rejected_connections, clients.open()), (2, 1, 1));
    clients.reset_stats();
    assert_eq!((clients.counted().calls(), clients.totals().calls()), (0, 3));
    drop(session);
    assert_eq!(clients.open(), 0);
}

#[test]
fn what_follows_a_change_of_settings_waits_for_it() {
    let mut host = proxy();
    let mut session = session(Mode::Proxy);
    session.push_input(b"config set timeout 5 slowlog-max-len 7\r\nCONFIG GET timeout\r\nGET k\r\n");
    assert!(session.next(&host).is_none());
    let (ticket, write) = session.take_errand().unwrap();
    let pairs = [("timeout", "5"), ("slowlog-max-len", "7")].map(|(n, v)| (n.to_owned(), v.to_owned()));
    assert_eq!(write, MetaWrite::Set(pairs.clone().into()));
    assert!(session.take_errand().is_none() && !session.wants_next() && !session.wants_input());
    assert!(session.next(&host).is_none() && session.output().is_empty());

    host.map.as_mut().unwrap().settings = pairs.into();
    session.answer(ticket, b"+OK\r\n");
    assert!(session.wants_next());
    assert_eq!(session.next(&host).unwrap().spec.name, "get");
    assert_eq!(session.output(), b"+OK\r\n*2\r\n$7\r\ntimeout\r\n$1\r\n5\r\n");
}

#[test]
fn settings_need_a_map_to_be_set_but_not_to_be_seen() {
    let host = Fake { map: None, me: None, has_leaders: true };
    assert_eq!(reply(&host, "CONFIG SET timeout 5"), format!("-{NO_MAP}\r\n"));
    assert_eq!(reply(&host, "CONFIG GET timeout"), "*2\r\n$7\r\ntimeout\r\n$1\r\n0\r\n");
}

#[test]
fn scans_and_questions_of_slots_go_to_the_slot() {
    let slots = |host: &Fake, line: &str| {
        let mut session = session(if host.me.is_some() { Mode::Node } else { Mode::Proxy });
        session.push_input(format!("{line}\r\n").as_bytes());
        session.next(host).map(|ask| (ask.spec.command, ask.slots))
    };
    let at = ringfort_resp::Cursor::new(77, 5).number();
    assert_eq!(slots(&proxy(), &format!("SCAN {at}")), Some((Command::Scan, Slots::One(Slot(77)))));
    assert_eq!(slots(&proxy(), "SCAN -1"), Some((Command::Scan, Slots::One(Slot(16383)))));
    assert_eq!(slots(&proxy(), "CLUSTER COUNTKEYSINSLOT 9"), Some((Command::SlotCount, Slots::One(Slot(9)))));
    // This fake knows no leader, so that the node is none.
    assert_eq!(reply(&node(), "CLUSTER COUNTKEYSINSLOT 9"), ":0\r\n");
    assert_eq!(reply(&node(), "CLUSTER GETKEYSINSLOT 9 1"), "*0\r\n");
}

#[test]
fn a_write_waits_for_a_scan() {
    let mut session = session(Mode::Proxy);
    session.push_input(b"SCAN 0\r\nSET k v\r\n");
    let mut reads = PendingReads::default();
    let scan = session.next(&proxy()).map(|ask| {
        reads.add(&ask);
        ask.ticket
    });
    assert!(session.next(&proxy()).is_some_and(|write| reads.conflicts_with(&write)));
    reads.remove(scan.unwrap());
    session.put_back();
    assert!(session.next(&proxy()).is_some_and(|write| !reads.conflicts_with(&write)));
}

/// Two sessions of one process, on two workers, and what they share.
struct Pair {
    clients: std::sync::Arc<Clients>,
    sessions: [Session; 2],
    host: Fake,
}

impl Pair {
    fn new() -> Self {
        let clients = Clients::new(2);
        let sessions = [0, 1].map(|worker| {
            let mut session =
                Session::new(Mode::Proxy, clients.accept(9).unwrap(), &address(), clients.worker(worker));
            session.set_key(100 + worker as u64);
            session
        });
        Self { clients, sessions, host: proxy() }
    }

    fn with_password(mut self, password: &str) -> Self {
        self.set("requirepass", password);
        self
    }

    fn set(&mut self, name: &str, value: &str) {
        let map = self.host.map.as_mut().unwrap();
        map.settings.insert(name.to_owned(), value.to_owned());
        self.clients.follow(map);
    }

    fn set_wall(&self, wall_us: u64) {
        [0, 1].iter().for_each(|worker| self.clients.worker(*worker).set_wall(wall_us));
    }

    fn set_now(&self, now_us: u64) {
        [0, 1].iter().for_each(|worker| self.clients.worker(*worker).set_now(now_us));
    }

    /// What a session answers to lines; commands for the host are answered by their names.
    fn say(&mut self, who: usize, lines: &str) -> String {
        self.sessions[who].push_input(format!("{lines}\r\n").as_bytes());
        self.go_on(who)
    }

    fn go_on(&mut self, who: usize) -> String {
        let session = &mut self.sessions[who];
        for key in self.clients.worker(who).take_noted() {
            assert_eq!(key, 100 + who as u64);
            session.attend();
        }
        while let Some((ticket, name)) = session.next(&self.host).map(|ask| (ask.ticket, ask.spec.name)) {
            session.answer(ticket, format!("+{name}\r\n").as_bytes());
        }
        let output = String::from_utf8(session.output().to_vec()).unwrap();
        session.sent(session.output().len());
        output
    }
}

const NOAUTH: &str = "-NOAUTH Authentication required.\r\n";
const WRONGPASS: &str = "-WRONGPASS invalid username-password pair or user is disabled.\r\n";

/// Every expectation is what redis-server 7.0.15 answers.
#[test]
fn a_password_is_asked_for_before_all_but_a_few_commands() {
    let mut pair = Pair::new();
    assert_eq!(pair.say(1, "PING"), "+PONG\r\n");
    let mut pair = pair.with_password("secret");
    for (line, expected) in [
        ("PING", NOAUTH),
        ("GET a", NOAUTH),
        ("CLIENT HELP", NOAUTH),
        ("COMMAND COUNT", NOAUTH),
        ("NOPE", "-ERR unknown command 'NOPE', with args beginning with: \r\n"),
        ("GET", "-ERR wrong number of arguments for 'get' command\r\n"),
        ("HELLO 4", "-NOPROTO unsupported protocol version\r\n"),
        ("HELLO 3 AUTH default no", WRONGPASS),
        ("RESET", "+RESET\r\n"),
        ("AUTH secre", WRONGPASS),
        ("AUTH other secret", WRONGPASS),
        ("AUTH a b c", "-ERR syntax error\r\n"),
        ("PING", NOAUTH),
        ("AUTH secret", "+OK\r\n"),
        ("PING", "+PONG\r\n"),
        ("GET a", "+get\r\n"),
        ("AUTH no", WRONGPASS),
        ("PING", "+PONG\r\n"),
        ("RESET", "+RESET\r\n"),
        ("PING", NOAUTH),
        ("AUTH default secret", "+OK\r\n"),
        ("ACL WHOAMI", "$7\r\ndefault\r\n"),
        ("QUIT", "+OK\r\n"),
    ] {
        assert_eq!(pair.say(0, line), expected, "{line}");
    }
    // Who was there before the password stays.
    assert_eq!(pair.say(1, "PING"), "+PONG\r\n");
    assert!(pair.say(1, "HELLO 3").starts_with("%7\r\n"));
    assert_eq!(pair.say(1, "RESET\r\nPING"), format!("+RESET\r\n{NOAUTH}"));
    assert!(pair.say(1, "HELLO 3").starts_with("-NOAUTH HELLO must be called with the client already"));
    assert!(pair.say(1, "HELLO 3 AUTH default secret SETNAME me").starts_with("%7\r\n"));
    assert_eq!(pair.say(1, "CLIENT GETNAME"), "$2\r\nme\r\n");
    pair.set("requirepass", "");
    assert_eq!(pair.say(1, "RESET\r\nPING"), "+RESET\r\n+PONG\r\n");
}

#[test]
fn without_a_map_nobody_can_authenticate_or_look_at_others() {
    let mut pair = Pair::new();
    let map = pair.host.map.take();
    for line in ["AUTH secret", "HELLO 2 AUTH default x", "MONITOR", "CLIENT LIST", "CLIENT KILL ID 2"] {
        assert!(pair.say(0, line).starts_with("-LOADING "), "{line}");
    }
    assert_eq!(pair.say(0, "PING"), "+PONG\r\n");
    pair.host.map = map;
    assert_eq!(pair.with_password("x").say(0, "PING"), NOAUTH);
}

#[test]
fn clients_are_listed_with_what_they_do() {
    let mut pair = Pair::new();
    pair.set_now(1_000_000);
    pair.say(
        1,
        "CLIENT SETNAME two\r\nCLIENT SETINFO lib-name py\r\nCLIENT NO-EVICT on\r\nREADONLY\r\nGET a",
    );
    pair.set_now(4_500_000);
    let list = pair.say(0, "CLIENT LIST");
    let lines: Vec<&str> = list.lines().skip(1).filter(|line| !line.is_empty()).collect();
    assert!(
        lines[0].starts_with("id=1 addr=127.0.0.1:5 laddr=127.0.0.1:6 fd=7 name= age=4 idle=0 flags=N db=0 ")
    );
    assert!(lines[0].contains(" cmd=client|list user=default redir=-1 resp=2 lib-name= lib-ver="));
    assert!(
        lines[1].starts_with("id=2 addr=127.0.0.1:5 laddr=127.0.0.1:6 fd=7 name=two age=4 idle=3 flags=re ")
    );
    assert!(lines[1].contains(" cmd=get ") && lines[1].ends_with(" lib-name=py lib-ver="));
    let names: Vec<_> = lines[1].split(' ').map(|field| field.split_once('=').unwrap().0).collect();
    let redis = "id addr laddr fd name age idle flags db sub psub ssub multi qbuf qbuf-free argv-mem multi-mem rbs rbp \
                 obl oll omem tot-mem events cmd user redir resp lib-name lib-ver";
    assert_eq!(names.join(" "), redis);
    assert!(
        pair.say(0, "CLIENT LIST ID 2 7").contains("id=2 ")
            && !pair.say(0, "CLIENT LIST ID 2").contains("id=1 ")
    );
    assert_eq!(pair.say(0, "CLIENT LIST TYPE replica"), "$0\r\n\r\n");
    assert!(pair.say(0, "CLIENT INFO").contains("id=1 "));
    for (line, expected) in [
        ("CLIENT LIST TYPE foo", "-ERR Unknown client type 'foo'\r\n"),
        ("CLIENT LIST ID x", "-ERR Invalid client ID\r\n"),
        ("CLIENT LIST ID", "-ERR syntax error\r\n"),
        ("CLIENT NO-EVICT x", "-ERR syntax error\r\n"),
        ("CLIENT NO-TOUCH off", "+OK\r\n"),
        (
            "CLIENT TRACKINGINFO",
            "*6\r\n$5\r\nflags\r\n*1\r\n$3\r\noff\r\n$8\r\nredirect\r\n:-1\r\n$8\r\nprefixes\r\n*0\r\n",
        ),
        ("CLIENT GETREDIR", ":-1\r\n"),
        ("CLIENT TRACKING off", "+OK\r\n"),
        ("CLIENT TRACKING x", "-ERR syntax error\r\n"),
        ("CLIENT UNBLOCK 1", ":0\r\n"),
        ("CLIENT UNBLOCK x", "-ERR value is not an integer or out of range\r\n"),
        ("CLIENT UNBLOCK 1 foo", "-ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR\r\n"),
    ] {
        assert_eq!(pair.say(0, line), expected, "{line}");
    }
    assert!(pair.say(0, "CLIENT TRACKING on").starts_with("-ERR CLIENT TRACKING is not supported"));
    let Pair { clients, sessions, .. } = pair;
    drop(sessions);
    assert_eq!((clients.records().len(), clients.open()), (0, 0));
}

#[test]
fn a_client_is_killed_by_what_fits_it() {
    for (line, expected, killed) in [
        ("CLIENT KILL ID 2", ":1\r\n", [false, true]),
        ("CLIENT KILL ID 2 ADDR 1.1.1.1:1", ":0\r\n", [false, false]),
        ("CLIENT KILL ID 1", ":0\r\n", [false, false]),
        ("CLIENT KILL ID 1 SKIPME no", ":1\r\n", [true, false]),
        ("CLIENT KILL 127.0.0.1:5", "+OK\r\n", [true, true]),
        ("CLIENT KILL 127.0.0.1:9", "-ERR No such client\r\n", [false, false]),
        ("CLIENT KILL LADDR 127.0.0.1:6 TYPE normal USER default", ":1\r\n", [false, true]),
        ("CLIENT KILL TYPE pubsub", ":0\r\n", [false, false]),
        ("CLIENT KILL MAXAGE 4 SKIPME yes", ":1\r\n", [false, true]),
        ("CLIENT KILL MAXAGE 5", ":0\r\n", [false, false]),
        ("CLIENT KILL ID x", "-ERR client-id should be greater than 0\r\n", [false, false]),
        ("CLIENT KILL FOO 1", "-ERR syntax error\r\n", [false, false]),
        ("CLIENT KILL ID 1 ADDR", "-ERR syntax error\r\n", [false, false]),
        ("CLIENT KILL USER nobody", "-ERR No such user 'nobody'\r\n", [false, false]),
    ] {
        let mut pair = Pair::new();
        pair.set_now(4_900_000);
        assert_eq!(pair.say(0, line), expected, "{line}");
        pair.go_on(0);
        pair.go_on(1);
        assert_eq!([pair.sessions[0].is_over(), pair.sessions[1].is_over()], killed, "{line}");
    }
}

#[test]
fn a_pause_holds_commands_up_until_it_ends() {
    let mut pair = Pair::new();
    pair.set_now(1_000);
    assert_eq!(pair.say(0, "CLIENT PAUSE 100 WRITE"), "+OK\r\n");
    assert_eq!(pair.say(1, "GET a\r\nSET a b\r\nGET c"), "+get\r\n");
    assert!(pair.sessions[1].is_paused() && !pair.sessions[1].wants_next());
    assert!(pair.say(0, "CLIENT LIST ID 2").contains(" flags=b "));
    assert_eq!(pair.say(0, "CLIENT PAUSE 1 WRITE\r\nCLIENT UNPAUSE"), "+OK\r\n+OK\r\n");
    assert!(!pair.clients.worker(1).is_paused());
    pair.sessions[1].resume();
    assert_eq!(pair.go_on(1), "+set\r\n+get\r\n");
    // By itself, and all commands.
    assert_eq!(pair.say(0, "CLIENT PAUSE 100\r\nPING"), "+OK\r\n");
    assert_eq!(pair.say(1, "PING"), "");
    assert_eq!(pair.clients.worker(1).pause_end_us(), Some(101_000));
    pair.set_now(101_000);
    assert!(!pair.clients.worker(1).is_paused());
    pair.sessions.iter_mut().for_each(Session::resume);
    assert_eq!((pair.go_on(0), pair.go_on(1)), ("+PONG\r\n".to_owned(), "+PONG\r\n".to_owned()));
    assert_eq!(pair.say(0, "CLIENT PAUSE 100000000\r\nCLIENT UNPAUSE\r\nPING"), "+OK\r\n+OK\r\n+PONG\r\n");
    for (line, expected) in [
        ("CLIENT PAUSE x", "-ERR timeout is not an integer or out of range\r\n"),
        ("CLIENT PAUSE -1", "-ERR timeout is negative\r\n"),
        ("CLIENT PAUSE 1 foo", "-ERR CLIENT PAUSE mode must be WRITE or ALL\r\n"),
    ] {
        assert_eq!(pair.say(0, line), expected, "{line}");
    }
}

#[test]
fn replies_are_dropped_as_client_reply_says() {
    let mut pair = Pair::new();
    for (lines, expected) in [
        ("CLIENT REPLY SKIP\r\nPING\r\nPING", "+PONG\r\n"),
        (
            "CLIENT REPLY OFF\r\nGET a\r\nNOPE\r\nCLIENT REPLY SKIP\r\nPING\r\nCLIENT REPLY ON\r\nPING",
            "+OK\r\n+PONG\r\n",
        ),
        ("CLIENT REPLY SKIP\r\nNOPE\r\nECHO a", "$1\r\na\r\n"),
        ("CLIENT REPLY SKIP\r\nCLIENT REPLY SKIP\r\nGET a\r\nECHO a", "$1\r\na\r\n"),
        ("CLIENT REPLY SKIP\r\nGET a\r\nGET a", "+get\r\n"),
        ("CLIENT REPLY x", "-ERR syntax error\r\n"),
        ("CLIENT REPLY OFF\r\nPING\r\nRESET\r\nECHO a", "+RESET\r\n$1\r\na\r\n"),
    ] {
        assert_eq!(pair.say(0, lines), expected, "{lines}");
    }
}

#[test]
fn a_monitor_sees_what_all_clients_ask() {
    let mut pair = Pair::new();
    pair.set_wall(1_700_000_000_000_000);
    pair.set_now(25);
    assert_eq!(pair.say(0, "MONITOR\r\nMONITOR"), "+OK\r\n+OK\r\n");
    pair.say(
        1,
        "GET a\r\nAUTH x y\r\nHELLO 3 AUTH default x\r\nHELLO 3 SETNAME auth AUTH default x\r\nCLIENT LIST\r\nCONFIG GET a\r\nNOPE\r\nCLIENT ID",
    );
    let line = |args: &str| format!("+1700000000.000025 [0 127.0.0.1:5] {args}\r\n");
    let lines = [
        line(r#""GET" "a""#),
        line(r#""AUTH" "(redacted)" "(redacted)""#),
        line(r#""HELLO" "3" "AUTH" "(redacted)" "(redacted)""#),
        line(r#""HELLO" "3" "SETNAME" "auth" "(redacted)" "(redacted)" "(redacted)""#),
        line(r#""CLIENT" "ID""#),
    ];
    assert_eq!(pair.go_on(0), lines.concat());
    let own = pair.say(0, "GET a\r\nPING");
    assert_eq!(own, "-ERR Replica can't interact with the keyspace\r\n+PONG\r\n");
    assert_eq!(pair.go_on(0), line(r#""PING""#));
    assert!(pair.say(1, "CLIENT LIST").contains(" flags=O "));
    assert_eq!(pair.say(0, "RESET"), "+RESET\r\n");
    pair.say(1, "PING");
    assert_eq!((pair.go_on(0), pair.clients.is_monitored()), (String::new(), false));
    // One that does not take its lines is cut.
    pair.say(0, "MONITOR");
    let long = format!("*2\r\n$4\r\nECHO\r\n$1048576\r\n{}", "x".repeat(1 << 20));
    (0..9).for_each(|_| drop(pair.say(1, &long)));
    pair.go_on(0);
    assert!(pair.sessions[0].is_over() && !pair.sessions[1].is_over());
    let Pair { clients, sessions, .. } = pair;
    drop(sessions);
    assert!(!clients.is_monitored());
}

#[test]
fn slow_commands_are_kept() {
    let mut pair = Pair::new();
    pair.set_wall(1_700_000_000_000_000);
    pair.say(0, "CLIENT SETNAME me");
    pair.sessions[0].push_input(b"GET fast\r\nSET slow value\r\n");
    let tickets = [0, 1].map(|_| pair.sessions[0].next(&pair.host).unwrap().ticket);
    pair.set_now(9_999);
    pair.sessions[0].answer(tickets[0], b"$-1\r\n");
    pair.set_now(10_000);
    pair.sessions[0].answer(tickets[1], b"+OK\r\n");
    pair.go_on(0);
    assert_eq!(pair.say(1, "SLOWLOG LEN"), ":1\r\n");
    assert_eq!(
        pair.say(1, "SLOWLOG GET"),
        "*1\r\n*6\r\n:0\r\n:1700000000\r\n:10000\r\n*3\r\n$3\r\nSET\r\n$4\r\nslow\r\n$5\r\nvalue\r\n\
         $11\r\n127.0.0.1:5\r\n$2\r\nme\r\n"
    );
    assert_eq!(pair.say(1, "SLOWLOG RESET\r\nSLOWLOG GET -1"), "+OK\r\n*0\r\n");
    pair.set("slowlog-log-slower-than", "0");
    pair.set("slowlog-max-len", "2");
    pair.say(1, "PING\r\nAUTH default geheim\r\nGET a");
    let log = pair.say(1, "SLOWLOG GET");
    assert!(log.starts_with("*2\r\n") && log.contains("$10\r\n(redacted)\r\n") && !log.contains("geheim"));
    pair.set("slowlog-log-slower-than", "-1");
    pair.say(1, "SLOWLOG RESET\r\nPING");
    assert_eq!(pair.say(1, "SLOWLOG LEN"), ":0\r\n");
    let bad = "-ERR count should be greater than or equal to -1\r\n";
    assert_eq!(pair.say(1, "SLOWLOG GET x\r\nSLOWLOG GET -2"), bad.repeat(2));
}

#[test]
fn latencies_are_told_as_redis_tells_them() {
    let mut pair = Pair::new();
    for us in [1u64, 3, 3, 100] {
        pair.set_now(0);
        pair.sessions[0].push_input(b"GET a\r\n");
        let ticket = pair.sessions[0].next(&pair.host).unwrap().ticket;
        pair.set_now(us);
        pair.sessions[0].answer(ticket, b"$-1\r\n");
        pair.go_on(0);
    }
    assert!(pair.say(1, "HELLO 3").starts_with("%7"));
    let reply = pair.say(1, "LATENCY HISTOGRAM get nope");
    assert_eq!(
        reply,
        "%1\r\n$3\r\nget\r\n%2\r\n$5\r\ncalls\r\n:4\r\n$14\r\nhistogram_usec\r\n%3\r\n:2\r\n:1\r\n:4\r\n:3\r\n:128\r\n:4\r\n"
    );
    assert_eq!(pair.say(0, "LATENCY LATEST\r\nLATENCY HISTORY x\r\nLATENCY RESET a b"), "*0\r\n*0\r\n:0\r\n");
    assert_eq!(pair.say(0, "LATENCY GRAPH x"), "-ERR No samples available for event 'x'\r\n");
    let info = pair.say(0, "INFO commandstats errorstats latencystats");
    for line in [
        "# Commandstats\r\n",
        "cmdstat_get:calls=4,usec=107,usec_per_call=26.75,rejected_calls=0,failed_calls=0\r\n",
        "cmdstat_latency|graph:calls=1,usec=0,usec_per_call=0.00,rejected_calls=0,failed_calls=1\r\n",
        "errorstat_ERR:count=1\r\n",
        "latency_percentiles_usec_get:p50=3.000,p99=111.000,p99.9=111.000\r\n",
    ] {
        assert!(info.contains(line), "{line} in {info}");
    }
}

#[test]
fn silent_clients_are_cut_after_the_timeout() {
    let mut pair = Pair::new();
    pair.set_now(60_000_000);
    pair.sessions.iter_mut().for_each(Session::cut_if_idle);
    assert!(!pair.sessions[0].is_over(), "there is no timeout");
    pair.set("timeout", "59");
    pair.say(0, "MONITOR");
    pair.say(1, "PING");
    pair.set_now(119_999_999);
    pair.sessions.iter_mut().for_each(Session::cut_if_idle);
    assert!(!pair.sessions[1].is_over());
    pair.set_now(120_000_000);
    pair.sessions.iter_mut().for_each(Session::cut_if_idle);
    assert_eq!(
        [pair.sessions[0].is_over(), pair.sessions[1].is_over()],
        [false, true],
        "a monitor may be silent"
    );
    pair.set("maxclients", "1");
    assert!(pair.clients.accept(9).is_none(), "the setting counts, not the option");
}

#[test]
fn info_of_a_proxy_waits_for_the_number_of_keys() {
    let mut session = session(Mode::Proxy);
    session.push_input(b"INFO keyspace\r\nINFO server\r\nINFO\r\nINFO\r\n");
    let asks: Vec<_> = core::iter::from_fn(|| {
        session.next(&proxy()).map(|ask| (ask.ticket, ask.spec.command, ask.args.len()))
    })
    .collect();
    assert_eq!(asks.iter().map(|ask| (ask.1, ask.2)).collect::<Vec<_>>(), [(Command::DbSize, 1); 3]);
    session.answer(asks[0].0, b":7\r\n");
    let first = String::from_utf8_lossy(session.output()).into_owned();
    assert!(first.starts_with("$44\r\n# Keyspace\r\ndb0:keys=7,expires=0,avg_ttl=0\r\n\r\n$"), "{first}");
    session.sent(session.output().len());
    session.answer(asks[1].0, b"-CLUSTERDOWN nobody leads\r\n");
    assert!(session.output().ends_with(b"# Keyspace\r\n\r\n"), "INFO works without the partitions");
    session.answer(asks[2].0, b":0\r\n");
    assert!(session.output().ends_with(b"# Keyspace\r\n\r\n"), "as Redis without keys");
}

#[test]
fn buffers_of_a_session_that_rests_are_given_back() {
    let host = node();
    let mut session = session(Mode::Node);
    let burst = b"PING 0123456789012345678901234567890123456789\r\n".repeat(4000);
    let run = |session: &mut Session, bytes: &[u8]| {
        session.push_input(bytes);
        while session.wants_next() {
            assert!(session.next(&host).is_none());
            session.sent(session.output().len());
        }
    };
    run(&mut session, &burst);
    let kept = session.buffer_bytes();
    assert!(100_000 < kept, "{kept}: what is kept from one command to the next");
    // Used since the last look: they stay.
    assert!(!session.give_back_buffers());
    run(&mut session, b"PING\r\n");
    assert!(!session.give_back_buffers() && session.buffer_bytes() == kept);
    assert!(session.give_back_buffers() && session.buffer_bytes() == 0);
    assert!(!session.give_back_buffers(), "there is nothing more to give");

    // What is not whole, not answered or not sent stays, however long the client is silent.
    for bytes in [&b"*2\r\n$4\r\nECHO\r\n$"[..], b"1\r\nx\r\nGET k\r\n", b"PING\r\n"] {
        session.push_input(bytes);
        let ticket = session.next(&host).map(|ask| ask.ticket);
        for _ in 0..3 {
            assert!(!session.give_back_buffers());
        }
        if let Some(ticket) = ticket {
            session.answer(ticket, b"$1\r\nv\r\n");
        }
    }
    assert_eq!(session.output(), b"$1\r\nx\r\n$1\r\nv\r\n+PONG\r\n");
    session.sent(session.output().len());
    assert!(session.give_back_buffers());
}
