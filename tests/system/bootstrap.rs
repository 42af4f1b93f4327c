//! How a cluster forms, and what is refused: one clear line, exit code 1.

use crate::client::Client;
use crate::cluster::{Cluster, Options, START};
use crate::wait::eventually;
use std::fs;
use std::net::TcpListener;
use std::time::Duration;

#[test]
fn nothing_forms_until_all_nodes_agree() {
    let mut cluster = Cluster::prepare(Options::default());
    cluster.start_node(0);
    cluster.start_node(1);
    eventually("n1 waits for n3", START, || {
        let said = cluster.node(0).output();
        if said.contains("node n3 does not answer yet") { Ok(()) } else { Err(said) }
    });
    // A client of a node that waits is told so.
    let mut client = cluster.node_client(0);
    assert_eq!(client.call("PING"), "+PONG\r\n");
    assert_eq!(client.call("GET k"), "-LOADING Ringfort is starting: no cluster map yet\r\n");
    assert!(client.call("RINGFORT MAP").contains("has not formed yet"));

    // The third has another number of partitions: still nothing forms.
    let other = cluster.folder.0.join("other.toml");
    fs::write(&other, cluster.config_text().replace("partitions = 16", "partitions = 32")).expect("written");
    let mut third = cluster.node_with(2, &other, &cluster.node_folder(2));
    eventually("n1 sees the difference", START, || {
        let said = cluster.node(0).output();
        if said.contains("node n3 was started with another config") { Ok(()) } else { Err(said) }
    });
    assert!(!cluster.node_folder(0).join("cluster.json").exists(), "n1 has formed a cluster");
    third.kill();

    // With the right file it forms, on the same folders.
    cluster.start_all();
    assert_eq!(cluster.client().call("SET k v"), "+OK\r\n");
    drop(client);

    // Who knows the cluster does not form another one.
    cluster.stop_all();
    cluster.start_all();
    assert_eq!(cluster.client().call("GET k"), "$1\r\nv\r\n");
}

#[test]
fn what_cannot_be_right_is_one_clear_line() {
    let mut cluster = Cluster::start(Options::default());
    let (config, folder) = (cluster.config_path(), cluster.node_folder(0));

    // Two processes on one folder.
    let lines = cluster.node_with(0, &config, &folder).refusal();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("is in use by another process"), "{lines:?}");

    // A taken port.
    let free = cluster.folder.0.join("free");
    let lines = cluster.node_with(0, &config, &free).refusal();
    let expected = format!("error: cannot listen on {} (the node's 'client')", cluster.addresses[0].client);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with(&expected) && lines[0].contains("in use"), "{lines:?}");

    // The proxy's port, too.
    let log = cluster.folder.0.join("second-proxy.log");
    let args = ["proxy", "--parent-pipe", "--config", config.to_str().expect("UTF-8")];
    let lines = crate::process::Process::start(&args, &log).refusal();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains(&format!("cannot listen on {}", cluster.proxy_address)), "{lines:?}");

    cluster.stop_all();

    // Another node's folder.
    let lines = cluster.node_with(0, &config, &cluster.node_folder(1)).refusal();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("is node n2's, not node n1's"), "{lines:?}");

    // Another cluster's folder.
    let renamed = cluster.folder.0.join("renamed.toml");
    fs::write(&renamed, cluster.config_text().replace("\"test\"", "\"other\"")).expect("written");
    let lines = cluster.node_with(0, &renamed, &folder).refusal();
    assert_eq!(lines, ["error: the data folder is of cluster 'test', the config file of cluster 'other'"]);

    // A folder that cannot be made.
    let lines = cluster.node_with(0, &config, "/dev/null/data".as_ref()).refusal();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("error: cannot make the data folder /dev/null/data"), "{lines:?}");

    // Nobody was harmed.
    cluster.start_all();
    assert_eq!(cluster.client().call("SET k v"), "+OK\r\n");
}

#[test]
fn up_runs_the_whole_cluster_and_its_end_ends_all() {
    let cluster = Cluster::prepare(Options::default());
    let config = cluster.config_path();
    let data = cluster.folder.0.join("up");
    let args =
        ["up", "--config", config.to_str().expect("UTF-8"), "--data-dir", data.to_str().expect("UTF-8")];
    let mut up = crate::process::Process::start(&args, &cluster.folder.0.join("up.log"));
    let serve = || {
        eventually("a reply", START, || {
            let reply = Client::try_connect(cluster.proxy_address).and_then(|mut c| c.try_call("SET k v"));
            match reply {
                Ok(reply) if reply == "+OK\r\n" => Ok(()),
                Ok(reply) => Err(reply),
                Err(error) => Err(error.to_string()),
            }
        });
    };
    let all_ended = || {
        eventually("free ports", Duration::from_secs(30), || {
            let nodes = cluster.addresses.iter().flat_map(|a| [a.client, a.peer, a.proxy]);
            for address in nodes.chain([cluster.proxy_address]) {
                drop(TcpListener::bind(address).map_err(|e| format!("{address}: {e}"))?);
            }
            Ok(())
        });
    };
    serve();
    up.stop();
    all_ended();
    // kill -9 of `up` leaves no child behind.
    let mut up = crate::process::Process::start(&args, &cluster.folder.0.join("up2.log"));
    serve();
    up.kill();
    all_ended();
}
