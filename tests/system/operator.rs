//! What an operator runs against a live cluster: `status`, `log-level`, `up`.

use crate::cluster::{Cluster, Options, START};
use crate::process::Process;
use crate::wait::eventually;
use ringfort_resp::reply::Value;
use serde_json::Value as Json;
use std::process::{Command, Output};

/// Runs `ringfort` to its end.
pub(crate) fn ringfort(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringfort")).args(args).output().expect("the binary runs")
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn is_healthy(status: &Json) -> Result<(), String> {
    if status["health"] == "ok" { Ok(()) } else { Err(status.to_string()) }
}

#[test]
fn status_says_what_is_missing() {
    let mut cluster = Cluster::start(Options::default());
    let config = cluster.config_path();
    let config = config.to_str().expect("a UTF-8 path");
    eventually("a healthy cluster", START, || is_healthy(&cluster.status()));
    let text = stdout(&ringfort(&["status", "--config", config, "--color", "always"]));
    assert!(text.contains("\x1b[32mall 16 partitions have a leader and 3 of 3 replicas\x1b[0m"), "{text}");
    let plain = stdout(&ringfort(&["status", "--at", &cluster.proxy_address.to_string()]));
    assert!(!plain.contains('\x1b') && !plain.contains("problems"), "{plain}");

    cluster.kill(1);
    let status = eventually("two replicas of each partition", START, || {
        let status = cluster.status();
        if status["problems"][0] == "2 of 3 replicas: partitions 0-15" {
            Ok(status)
        } else {
            Err(status["problems"].to_string())
        }
    });
    assert_eq!(status["health"], "degraded");
    assert_eq!((&status["nodes"][1]["state"], &status["nodes"][0]["state"]), (&"down".into(), &"up".into()));
    assert_eq!(status["summary"], "all 16 partitions have a leader, 16 have fewer than 3 of 3 replicas");
    let client = cluster.addresses[1].client;
    assert_eq!(status["problems"][1], format!("n2 does not answer at {client}: connection refused"));

    cluster.start_node(1);
    eventually("a healthy cluster again", START, || is_healthy(&cluster.status()));
}

#[test]
fn a_node_that_cannot_serve_yet_says_so() {
    let mut cluster = Cluster::prepare(Options::default());
    cluster.start_node(0);
    eventually("a node that waits for the others", START, || match cluster.node_json(0)? {
        node if node["state"] == "loading" => Ok(()),
        node => Err(node.to_string()),
    });
    cluster.start_all();
    assert_eq!(cluster.node_json(0).expect("it answers")["state"], "up");
}

#[test]
fn log_levels_change_while_all_runs() {
    let cluster = Cluster::start(Options::default());
    let config = cluster.config_path();
    let config = config.to_str().expect("a UTF-8 path");
    let levels = |args: &[&str]| -> Vec<String> {
        let text = stdout(&ringfort(&[&["log-level", "--config", config], args].concat()));
        text.lines().map(|line| line.split_whitespace().last().unwrap_or("").to_owned()).collect()
    };
    assert_eq!(levels(&[]), ["info"; 4]);
    let wanted = "warn,ringfort::node=debug";
    assert_eq!(levels(&[wanted]), [wanted; 4]);
    assert_eq!(levels(&[]), [wanted; 4]);
    let at = cluster.addresses[0].proxy.to_string();
    assert!(stdout(&ringfort(&["log-level", "off", "--at", &at])).ends_with(" off\n"));
    // The proxy within a node is part of its process.
    assert_eq!(levels(&[]), ["off", wanted, wanted, wanted]);
    let reply = cluster.node_client(1).value("RINGFORT LOG loud");
    assert!(matches!(&reply, Value::Error(text) if text.starts_with("ERR 'loud' is no level")), "{reply:?}");
    assert_eq!(levels(&[]), ["off", wanted, wanted, wanted]);
}

#[test]
fn the_log_of_a_whole_cluster_is_json() {
    let cluster = Cluster::prepare(Options::default());
    let (config, folder) = (cluster.config_path(), cluster.folder.0.join("data"));
    let log = cluster.folder.0.join("up.log");
    let path = |path: &std::path::Path| path.to_str().expect("a UTF-8 path").to_owned();
    let args = ["up", "--log-format", "json", "--config", &path(&config), "--data-dir", &path(&folder)];
    let mut up = Process::start(&args, &log);
    eventually("the banner", START, || {
        up.output().contains("is ready on").then_some(()).ok_or_else(|| up.output())
    });
    up.stop();
    let output = up.output();
    let lines = output.lines().filter(|line| line.starts_with('{'));
    let lines: Vec<Json> = lines.map(|line| serde_json::from_str(line).expect("JSON")).collect();
    for process in ["up", "n1", "n2", "n3", "proxy"] {
        let of_process: Vec<_> = lines.iter().filter(|line| line["process"] == process).collect();
        assert!(!of_process.is_empty(), "{process} said nothing:\n{output}");
        for line in of_process {
            let has_all = ["timestamp", "level", "target", "message"].iter().all(|key| line[key].is_string());
            assert!(has_all, "{line}");
        }
    }
    assert!(lines.iter().any(|line| line["process"] == "n2" && line["message"] == "ready"), "{output}");
    assert!(!output.contains("[n1]") && !output.contains("[up]"), "{output}");
}

#[test]
fn a_transfer_lasts() {
    let cluster = Cluster::start(Options { nodes: 4, ..Options::default() });
    let config = cluster.config_path();
    let config = config.to_str().expect("a UTF-8 path");
    let status =
        eventually("a healthy cluster", START, || is_healthy(&cluster.status()).map(|()| cluster.status()));
    let transfer = |partition: &str, node: &str| ringfort(&["transfer", partition, node, "--config", config]);
    let fails = |partition: &str, node: &str| {
        let output = transfer(partition, node);
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).expect("text").trim_end().to_owned()
    };
    let partition = &status["partitions"][5];
    let ids = |list: &Json| -> Vec<String> {
        list.as_array().expect("a list").iter().map(|id| id.as_str().expect("an id").to_owned()).collect()
    };
    let (leader, replicas) = (partition["leader"].as_str().expect("a leader"), ids(&partition["replicas"]));
    let all = ["n1", "n2", "n3", "n4"].map(str::to_owned);
    let outside = all.iter().find(|id| !replicas.contains(id)).expect("3 of 4 hold it");
    assert_eq!(fails("16", "n1"), "error: there is no partition 16; they are 0 to 15");
    assert_eq!(fails("5", "n9"), "error: there is no node 'n9'; the nodes are n1, n2, n3, n4");
    assert_eq!(
        fails("5", outside),
        format!(
            "error: {outside} has no replica of partition 5; its replicas are on {}",
            replicas.join(", ")
        )
    );
    assert_eq!(fails("5", leader), format!("error: {leader} leads partition 5 already"));

    let target = replicas.iter().find(|id| *id != leader).expect("another replica");
    let said = stdout(&transfer("5", target));
    assert!(said.starts_with(&format!("partition 5: {leader} -> {target} in ")), "{said}");
    // The new leader is the preferred one, so nobody takes the leadership back.
    let after = cluster.status();
    assert_eq!(
        (&after["partitions"][5]["leader"], &after["partitions"][5]["preferred"]),
        (&Json::from(target.as_str()), &Json::from(target.as_str()))
    );
    assert!(after["epoch"].as_u64() > status["epoch"].as_u64(), "{after}");
    let reply = cluster.node_client(0).call("RINGFORT TRANSFER 99 n1");
    assert_eq!(reply, "-ERR there is no partition 99; they are 0 to 15\r\n");
}
