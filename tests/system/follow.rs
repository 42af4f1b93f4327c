//! `ringfort up` follows its file: nodes come and go by an edit.

use crate::client::Client;
use crate::cluster::{Cluster, Options, START, assert_clean};
use crate::operator::ringfort;
use crate::process::Process;
use crate::wait::eventually;
use ringfort_loadgen::check;
use serde_json::Value as Json;
use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

/// Longest that a change of the members may take.
const CHANGE: Duration = Duration::from_secs(90);

/// With so many replicas to move that a change lasts longer than an edit takes to count.
fn slow() -> Options {
    Options { partitions: 256, ..Options::default() }
}

/// A cluster that `ringfort up` runs.
struct Up {
    cluster: Cluster,
    process: Process,
    /// How often it was started.
    starts: usize,
}

impl Up {
    fn start(options: Options) -> Self {
        let cluster = Cluster::prepare(options);
        let process = Self::run(&cluster, 0);
        let up = Self { cluster, process, starts: 1 };
        up.says("is ready on");
        up
    }

    fn run(cluster: &Cluster, number: usize) -> Process {
        let (config, data) = (cluster.config_path(), cluster.folder.0.join("up"));
        let text = |path: &PathBuf| path.to_str().expect("a UTF-8 path").to_owned();
        let log = cluster.folder.0.join(format!("up.{number}.log"));
        Process::start(&["up", "--config", &text(&config), "--data-dir", &text(&data)], &log)
    }

    /// Ends the process, if it runs, by SIGKILL, and waits until its children have ended.
    fn end(&mut self) {
        self.process.kill();
        let Cluster { addresses, proxy_address, .. } = &self.cluster;
        let all =
            addresses.iter().flat_map(|a| [a.client, a.peer, a.proxy, a.metrics]).chain([*proxy_address]);
        eventually("free ports", Duration::from_secs(30), || {
            for address in all.clone() {
                drop(TcpListener::bind(address).map_err(|error| format!("{address}: {error}"))?);
            }
            Ok(())
        });
    }

    /// Ends it, and starts another one.
    fn start_again(&mut self) {
        self.end();
        self.process = Self::run(&self.cluster, self.starts);
        self.starts += 1;
        self.says("is ready on");
    }

    /// Waits until it has said something.
    #[track_caller]
    fn says(&self, what: &str) {
        self.says_times(what, 1);
    }

    /// Waits until it has said something so often.
    #[track_caller]
    fn says_times(&self, what: &str, times: usize) {
        eventually(what, CHANGE, || match self.said() {
            said if said.matches(what).count() >= times => Ok(()),
            said => {
                let lines: Vec<&str> = said.lines().collect();
                Err(lines[lines.len().saturating_sub(40)..].join("\n"))
            }
        });
    }

    /// What it has said, with the config file as FILE.
    fn said(&self) -> String {
        let file = self.cluster.config_path();
        self.process.output().replace(file.to_str().expect("a UTF-8 path"), "FILE")
    }

    /// Puts a file in place of the config file, as editors do.
    fn save(&self, text: &str) {
        let aside = self.cluster.folder.0.join("cluster.toml.edited");
        fs::write(&aside, text).expect("the file is written");
        fs::rename(&aside, self.cluster.config_path()).expect("the file is renamed");
    }

    fn text(&self) -> String {
        fs::read_to_string(self.cluster.config_path()).expect("the config file is there")
    }

    /// The file without some of its nodes.
    fn without(&self, ids: &[&str]) -> String {
        let text = self.text();
        let mut parts = text.split("[[node]]");
        let head = parts.next().expect("a part").to_owned();
        let is_kept = |part: &&str| !ids.iter().any(|id| part.starts_with(&format!("\nid = \"{id}\"")));
        let kept = parts.filter(is_kept);
        kept.fold(head, |text, part| format!("{text}[[node]]{part}"))
    }

    fn status(&self) -> Json {
        let at = self.cluster.proxy_address.to_string();
        let output = ringfort(&["status", "--json", "--at", &at]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// Ids of the members.
    fn members(&self) -> Vec<String> {
        let status = self.status();
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        nodes.iter().filter_map(|node| node["id"].as_str().map(str::to_owned)).collect()
    }

    /// Waits until all is whole.
    #[track_caller]
    fn is_healthy(&self) {
        eventually("a healthy cluster", START, || match self.status() {
            status if status["health"] == "ok" => Ok(()),
            status => Err(status["problems"].to_string()),
        });
    }

    /// Whether node `n` (from 0) listens.
    fn listens(&self, n: usize) -> bool {
        Client::try_connect(self.cluster.addresses[n].client).is_ok()
    }
}

#[test]
fn a_node_comes_and_goes_by_an_edit_under_load() {
    let mut up = Up::start(Options::default());
    let options = up.cluster.check_options(Duration::from_secs(12));
    let checking = std::thread::spawn(move || check::run(&options));
    let three = up.text();
    up.cluster.add_node();
    up.says("[up] FILE has changed");
    up.says("[up] starting n4, data in ");
    up.says("12 of 48 move, the minimum");
    up.says("[up] done in ");
    assert_eq!(up.members(), ["n1", "n2", "n3", "n4"]);
    let four = up.text();
    up.save(&three);
    up.says("n4 has left the cluster: its process is stopped; its data stays in ");
    up.says("[up] n4 stopped");
    up.says_times("[up] done in ", 2);
    assert!(!up.listens(3));
    assert_eq!(up.members(), ["n1", "n2", "n3"]);
    assert_clean(&checking.join().expect("the check ends").expect("the check can run"));
    assert!(up.cluster.folder.0.join("up/n4").is_dir());

    // Its id is not used again.
    up.save(&four);
    up.says(": id 'n4' was that of a node that left: give the new one another id, ids are never reused");
    up.says("the cluster is not as FILE says; it is tried again when the file is saved");
    assert!(!up.listens(3));
    up.save(&four.replace("\"n4\"", "\"n5\""));
    up.says_times("[up] done in ", 3);
    assert_eq!(up.members(), ["n1", "n2", "n3", "n5"]);
    up.process.stop();
}

#[test]
fn another_edit_replaces_a_change_that_is_under_way() {
    let mut up = Up::start(slow());
    up.is_healthy();
    up.cluster.add_node();
    up.says(" under way, ");
    up.cluster.add_node();
    up.says("[up] starting n5, data in ");
    up.says("[up] done in ");
    let all = ["n1", "n2", "n3", "n4", "n5"];
    assert_eq!(up.members(), all);
    // One that is about to leave stays after all.
    let five = up.text();
    up.save(&up.without(&["n5"]));
    up.says("- n5  ");
    up.save(&five);
    up.says_times("+ n5  ", 2);
    up.says_times("[up] done in ", 2);
    assert_eq!(up.members(), all);
    assert!(!up.said().contains("n5 stopped"), "{}", up.said());
    up.is_healthy();
    up.process.stop();
}

#[test]
fn a_change_that_was_given_up_is_not_asked_for_again_by_itself() {
    let mut up = Up::start(slow());
    up.is_healthy();
    up.cluster.add_node();
    up.says(" under way, ");
    eventually("a node that has joined", CHANGE, || match up.status() {
        status if status["moves"]["done"].as_u64() > Some(0) => Ok(()),
        status => Err(status["moves"].to_string()),
    });
    let file = up.cluster.config_path();
    let output = ringfort(&["abort", "--config", file.to_str().expect("a UTF-8 path")]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    up.says(
        "somebody else has changed the cluster since (`ringfort apply`, `abort`): it is not as FILE says",
    );
    assert_eq!(up.members(), ["n1", "n2", "n3"]);
    up.save(&up.text());
    up.says("n4 was in the cluster before, and cannot join it with the data that it had: delete ");
    assert!(!up.listens(3));
    fs::remove_dir_all(up.cluster.folder.0.join("up/n4")).expect("its folder is removed");
    up.save(&up.text());
    up.says("[up] done in ");
    assert_eq!(up.members(), ["n1", "n2", "n3", "n4"]);
    up.process.stop();
}

#[test]
fn nodes_move_to_other_addresses_by_an_edit() {
    let mut up = Up::start(Options::default());
    up.is_healthy();
    let options = up.cluster.check_options(Duration::from_secs(15));
    let checking = std::thread::spawn(move || check::run(&options));
    let mut text = up.text();
    let old = up.cluster.addresses.clone();
    for address in [old[1].client, old[1].peer, old[2].peer] {
        let free =
            TcpListener::bind((address.ip(), 0)).expect("a free port").local_addr().expect("its address");
        text = text.replace(&format!("\"{address}\""), &format!("\"{free}\""));
    }
    up.save(&text);
    up.says("n2 moves from ");
    up.says("n3 moves from ");
    up.says("[up] cluster test is as FILE says, at epoch ");
    up.is_healthy();
    let status = up.status();
    for (n, node) in old.iter().enumerate() {
        let is_same = (
            status["nodes"][n]["client"] == node.client.to_string(),
            status["nodes"][n]["peer"] == node.peer.to_string(),
        );
        assert_eq!(is_same, [(true, true), (false, false), (true, false)][n], "{status}");
    }
    assert_clean(&checking.join().expect("the check ends").expect("the check can run"));
    // What was edited while it was down is found as well.
    up.process.stop();
    let text = text.replace(&format!("\"{}\"", old[0].client), &format!("\"{}\"", old[1].client));
    up.save(&text);
    up.start_again();
    up.says("n1 moves from ");
    up.says("[up] cluster test is as FILE says, at epoch ");
    up.is_healthy();
    assert_eq!(up.status()["nodes"][0]["client"], old[1].client.to_string());
    up.process.stop();
}

#[test]
fn files_that_are_wrong_change_nothing() {
    let mut up = Up::start(Options::default());
    up.is_healthy();
    let (right, epoch) = (up.text(), up.status()["epoch"].clone());
    // Half of it, then a wrong key; the same mistake is told once.
    let half = right.len() - 20;
    fs::write(up.cluster.config_path(), &right[..half]).expect("the file is written");
    up.says("FILE cannot be used as it is: nothing is changed");
    up.save(&format!("{right}wieght = 2\n"));
    up.says("unknown key 'wieght' in [[node]]; did you mean 'weight'?");
    up.save(&format!("{right}wieght = 2\n"));
    up.save(&format!("# a comment\n{right}wieght = 3\n"));
    up.says_times("unknown key 'wieght' in [[node]]", 2);
    fs::remove_file(up.cluster.config_path()).expect("the file is removed");
    up.says("FILE: cannot be read: no such file or directory");
    assert_eq!(up.said().matches("unknown key 'wieght'").count(), 2, "{}", up.said());
    assert_eq!(up.status()["epoch"], epoch);

    // Whose port is taken is not started.
    fs::write(up.cluster.config_path(), &right).expect("the file is written");
    let n4 = up.cluster.add_node();
    let four = up.text();
    up.save(&right);
    let taken = TcpListener::bind(up.cluster.addresses[n4].client).expect("its port");
    up.save(&four);
    up.says(" (client of node n4) is taken: stop what uses it or change 'client' of node n4 in FILE");
    assert_eq!(up.members().len(), 3);
    drop(taken);
    up.save(&four);
    up.says("[up] done in ");

    // What cannot change is named, the rest counts.
    let text = four.replace("partitions = 16", "partitions = 32").replace("\"test\"", "\"other\"");
    let listen = up.cluster.proxy_address.to_string();
    let text = text.replace(&format!("listen = \"{listen}\""), "listen = \"127.0.0.1:1\"");
    up.save(&text.replace("replicas = 3", "replicas = 3\nmoves_at_once = 3"));
    up.says("FILE:2: name is 'other', the cluster's is 'test': it never changes");
    up.says("FILE:3: partitions is 32, the cluster has 16: the number never changes");
    up.says("[proxy] counts when `ringfort up` starts again");
    up.says("~ cluster  moves_at_once 2 -> 3");
    up.says_times("[up] done in ", 2);
    up.process.stop();
}

#[test]
fn several_nodes_leave_only_by_apply() {
    let mut up = Up::start(Options { nodes: 5, ..Options::default() });
    up.is_healthy();
    up.save(&up.without(&["n5"]));
    up.says("[up] done in ");
    up.save(&up.without(&["n3", "n4"]).replace("replicas = 3", "replicas = 1"));
    up.says("FILE lacks 2 nodes of the cluster (n3, n4): if all of them are to leave, run `ringfort apply FILE --yes`");
    assert_eq!(up.members().len(), 4);
    let file = up.cluster.config_path();
    let output = ringfort(&["apply", file.to_str().expect("a UTF-8 path"), "--yes"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    up.says("[up] n3 stopped");
    up.says("[up] n4 stopped");
    // Each node hears of it by itself.
    eventually("two members", CHANGE, || match up.members() {
        members if members == ["n1", "n2"] => Ok(()),
        members => Err(format!("{members:?}")),
    });
    assert_eq!(up.cluster.client().call("SET k v"), "+OK\r\n");
    up.process.stop();
}

#[test]
fn a_change_outlives_up_and_an_edit_while_it_is_down_is_found() {
    let mut up = Up::start(Options::default());
    up.is_healthy();
    assert_eq!(up.cluster.client().call("SET k v"), "+OK\r\n");
    let three = up.text();
    up.cluster.add_node();
    up.says("of 48 move, the minimum");
    up.start_again();
    eventually("four members", CHANGE, || match up.status() {
        status if status["nodes"].as_array().map(Vec::len) == Some(4) && status["moves"]["total"] == 0 => {
            Ok(())
        }
        status => Err(status["moves"].to_string()),
    });
    assert!(up.listens(3));
    up.process.stop();
    up.save(&three);
    up.start_again();
    up.says("- n4  ");
    up.says("[up] n4 stopped");
    assert_eq!(up.members(), ["n1", "n2", "n3"]);
    assert_eq!(up.cluster.client().call("GET k"), "$1\r\nv\r\n");
    up.process.stop();
}

#[test]
fn what_had_to_be_recovered_is_said() {
    let mut up = Up::start(Options::default());
    assert_eq!(up.cluster.client().call("SET k v"), "+OK\r\n");
    up.end();
    fs::remove_dir_all(up.cluster.folder.0.join("up/n3")).expect("removed");
    up.start_again();
    up.says("[up] n3 came with another data folder");
    assert!(!up.said().contains("started anew"), "nothing else had to be");
    // As if the machine had lost power.
    up.end();
    for n in 1..=3 {
        fs::write(up.cluster.folder.0.join(format!("up/n{n}/boot")), "another boot").expect("written");
    }
    up.start_again();
    up.says("up to a second of writes before it may be gone");
    assert_eq!(up.cluster.client().call("GET k"), "$1\r\nv\r\n");
}
