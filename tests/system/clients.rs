//! What connections know of each other: CLIENT LIST, KILL and PAUSE, MONITOR, SLOWLOG, passwords; over all workers.

use crate::client::Client;
use crate::cluster::{Cluster, Options};
use crate::wait::eventually;
use std::process::Command;
use std::time::Duration;

/// Longest that a process may take to hear of a change.
const HEARD: Duration = Duration::from_secs(5);

fn start() -> Cluster {
    Cluster::start(Options { nodes: 1, replicas: 1, workers: 2, ..Options::default() })
}

fn id(client: &mut Client) -> String {
    client.call("CLIENT ID").trim_matches([':', '\r', '\n']).to_owned()
}

/// The proxy beside a node, and the node's own port: each has two workers, and deals connections to them in turn.
#[test]
fn clients_of_all_workers_are_listed_paused_watched_and_killed() {
    let cluster = start();
    let mut admin = Client::connect(cluster.addresses[0].proxy);
    // The proxy beside a node may hear of the map a moment after the other one.
    eventually("the proxy takes a setting", HEARD, || {
        match admin.call("CONFIG SET maxmemory-policy allkeys-lfu") {
            reply if reply == "+OK\r\n" => Ok(()),
            reply => Err(reply),
        }
    });
    admin.call("SET used v");
    eventually("the policy holds", HEARD, || {
        let reply = admin.call("OBJECT FREQ used");
        if reply.starts_with(':') { Ok(()) } else { Err(reply) }
    });
    admin.call("DEL used");
    for address in [cluster.addresses[0].proxy, cluster.addresses[0].client] {
        let [mut admin, mut one, mut two] = [0; 3].map(|_| Client::connect(address));
        one.call("CLIENT SETNAME one");
        two.call("CLIENT SETNAME two");
        let list = admin.call("CLIENT LIST");
        assert!(list.contains(" name=one ") && list.contains(" name=two "), "{list}");
        assert!(list.contains(&format!(" laddr={address} ")), "{list}");

        let mut monitor = Client::connect(address);
        assert_eq!(monitor.call("MONITOR"), "+OK\r\n");
        one.call("SET k one");
        two.call("GET k");
        for expected in [r#"] "SET" "k" "one""#, r#"] "GET" "k""#] {
            let line = monitor.reply();
            assert!(line.ends_with(&format!("{expected}\r\n")), "{line}");
        }

        // The policy counts uses, up to the first one surely.
        one.call("SET used v");
        let uses = |client: &mut Client| client.call("OBJECT FREQ used");
        assert_eq!(two.call("CLIENT NO-TOUCH on"), "+OK\r\n");
        assert_eq!([two.call("GET used"), uses(&mut two)], ["$1\r\nv\r\n", ":5\r\n"]);
        assert_eq!([one.call("GET used"), uses(&mut one)], ["$1\r\nv\r\n", ":6\r\n"]);
        assert_eq!(one.call("DEL used"), ":1\r\n");

        // Writes wait, reads do not; it ends by itself and by word.
        assert_eq!(admin.call("CLIENT PAUSE 200 WRITE"), "+OK\r\n");
        assert_eq!(one.call("GET k"), "$3\r\none\r\n");
        assert_eq!([one.call("SET k 1"), two.call("SET k 2")], ["+OK\r\n", "+OK\r\n"]);
        assert_eq!(admin.call("CLIENT PAUSE 1000000000 ALL"), "+OK\r\n");
        for client in [&mut one, &mut two] {
            client.send(b"SET k 3\r\n").unwrap();
        }
        assert_eq!(admin.call("CLIENT UNPAUSE"), "+OK\r\n");
        assert_eq!([one.reply(), two.reply()], ["+OK\r\n", "+OK\r\n"]);

        for mut client in [one, two] {
            let id = id(&mut client);
            assert_eq!(admin.call(&format!("CLIENT KILL ID {id}")), ":1\r\n");
            assert_eq!(client.rest(), "");
        }
        assert_eq!(admin.call("SLOWLOG RESET"), "+OK\r\n");
        let info = admin.call("INFO everything");
        for line in ["cmdstat_set:calls=", "latency_percentiles_usec_get:p50=", "used_memory:", "db0:keys=1,"]
        {
            assert!(info.contains(&format!("\r\n{line}")), "{line} in {info}");
        }
    }
}

#[test]
fn a_password_holds_for_every_process_and_the_tools_know_it() {
    let cluster = start();
    let mut admin = cluster.client();
    assert_eq!(admin.call("CONFIG SET requirepass secret slowlog-log-slower-than 0"), "+OK\r\n");
    for address in [cluster.proxy_address, cluster.addresses[0].proxy, cluster.addresses[0].client] {
        eventually(&format!("{address} asks for the password"), HEARD, || {
            let reply = Client::connect(address).call("GET k");
            if reply.starts_with("-NOAUTH ") { Ok(()) } else { Err(reply) }
        });
        let mut client = Client::connect(address);
        assert!(client.call("AUTH default wrong").starts_with("-WRONGPASS "));
        assert_eq!(client.call("AUTH secret"), "+OK\r\n");
        assert_eq!(client.call("SET k v"), "+OK\r\n");
        let log = client.call("SLOWLOG GET");
        assert!(log.contains("$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n") && !log.contains("secret"), "{log}");
    }
    assert_eq!(admin.call("GET k"), "$1\r\nv\r\n", "who was there stays");
    let config = cluster.config_path();
    let status = |password| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringfort"));
        command.args(["status", "--json", "--config"]).arg(&config).env("RINGFORT_PASSWORD", password);
        command.output().expect("the binary runs").status.success()
    };
    assert_eq!(["wrong", "secret"].map(status), [false, true]);
}
