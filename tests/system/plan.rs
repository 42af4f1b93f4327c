//! `ringfort plan` beside a live cluster.

use crate::cluster::{Cluster, Options, START};
use crate::operator::ringfort;
use crate::wait::eventually;
use serde_json::Value as Json;
use std::process::Output;

/// What a plan says of a file: its exit code, stdout and stderr.
fn plan(cluster: &Cluster, text: &str, more: &[&str]) -> (Option<i32>, String, String) {
    let path = cluster.folder.0.join("wanted.toml");
    std::fs::write(&path, text).expect("the file is written");
    let path = path.to_str().expect("a UTF-8 path");
    let Output { status, stdout, stderr } = ringfort(&[&["plan", path], more].concat());
    let text = |bytes| String::from_utf8(bytes).expect("text").replace(path, "wanted.toml");
    (status.code(), text(stdout), text(stderr))
}

/// The file of the cluster with a further node, which nobody starts.
fn with_n4(cluster: &Cluster) -> String {
    let host = cluster.addresses[0].client.ip();
    format!("{}[[node]]\nid = \"n4\"\nclient = \"{host}:1\"\npeer = \"{host}:2\"\n", cluster.config_text())
}

#[track_caller]
fn number(plan: &Json, key: &str) -> u64 {
    plan[key].as_u64().unwrap_or_else(|| panic!("no {key} in {plan}"))
}

#[test]
fn a_plan_says_what_a_file_would_change_and_changes_nothing() {
    let mut cluster = Cluster::start(Options::default());
    let mut client = cluster.client();
    for n in 0..200 {
        assert_eq!(client.call(&format!("SET key{n} value")), "+OK\r\n");
    }
    eventually("a healthy cluster", START, || match cluster.status() {
        status if status["health"] == "ok" && status["keys"] == 200 => Ok(()),
        status => Err(status.to_string()),
    });
    let epoch = cluster.status()["epoch"].clone();
    let same = cluster.config_text();
    let (code, said, _) = plan(&cluster, &same, &[]);
    assert!(
        code == Some(0) && said.starts_with("nothing to do: cluster test is as wanted.toml says"),
        "{said}"
    );
    let (code, said, _) = plan(&cluster, &same, &["--json"]);
    let json: Json = serde_json::from_str(&said).expect("JSON");
    assert_eq!((code, number(&json, "replicas_moved"), &json["moves"]), (Some(0), 0, &Json::Array(vec![])));

    let more = with_n4(&cluster);
    let (code, said, _) = plan(&cluster, &more, &["--color", "always"]);
    assert!(code == Some(2) && said.contains("\x1b[32m+ n4  "), "{said}");
    assert!(said.contains("12 of 48 move, the minimum"), "{said}");
    let at = cluster.proxy_address.to_string();
    let (code, said, _) = plan(&cluster, &more, &["--json", "--at", &at]);
    let json: Json = serde_json::from_str(&said).expect("JSON");
    assert_eq!((code, number(&json, "replicas_moved"), number(&json, "minimum")), (Some(2), 12, 12));
    assert_eq!((&json["epoch"], number(&json, "leader_changes")), (&epoch, 4));
    let moves = json["moves"].as_array().expect("moves");
    assert_eq!(moves.len(), 12);
    assert!(
        moves.iter().all(|m| m["to"] == "n4" && m["from"].is_string() && m["partition"].is_u64()),
        "{said}"
    );
    // A key is sent as 7 bytes, its name and its value.
    let keys = number(&json, "keys");
    assert!((100..=200).contains(&keys), "{said}");
    assert!(keys * 16 <= number(&json, "bytes") && number(&json, "bytes") <= keys * 18, "{said}");
    assert!(number(&json, "seconds") > 0, "{said}");
    assert_eq!(
        (&json["nodes"][3]["id"], &json["nodes"][3]["change"]),
        (&Json::from("n4"), &Json::from("added"))
    );

    let fewer =
        same.split("[[node]]\nid = \"n3\"").next().expect("a part").replace("replicas = 3", "replicas = 1");
    let (code, said, _) = plan(&cluster, &fewer, &["--json"]);
    let json: Json = serde_json::from_str(&said).expect("JSON");
    assert_eq!((code, &json["changes"][1]["node"]), (Some(2), &Json::from("n3")), "{said}");

    let other = same.replace("partitions = 16", "partitions = 32").replace("\"test\"", "\"other\"");
    let expected = "\
error: wanted.toml:2: name is 'other', the cluster's is 'test': it never changes
error: wanted.toml:3: partitions is 32, the cluster has 16: the number never changes
";
    assert_eq!(plan(&cluster, &other, &[]), (Some(1), String::new(), expected.to_owned()));
    assert_eq!(cluster.status()["epoch"], epoch, "a plan changes nothing");

    // A dead node can be replaced by a new one; without a majority nothing can.
    cluster.kill(2);
    eventually("a lost node is known", START, || match cluster.status() {
        status if status["problems"][0] == "2 of 3 replicas: partitions 0-15" => Ok(()),
        status => Err(status.to_string()),
    });
    let replaced = more
        .replace("id = \"n3\"", "id = \"n5\"")
        .replace(&format!(":{}\"", cluster.addresses[2].client.port()), ":3\"");
    let (code, said, error) = plan(&cluster, &replaced, &["--json"]);
    assert_eq!(code, Some(2), "{said}{error}");
    cluster.kill(1);
    let (code, _, error) = eventually("a refusal", START, || match plan(&cluster, &replaced, &[]) {
        (Some(1), out, error) if error.contains("partitions 0-15 cannot change") => Ok((Some(1), out, error)),
        (code, out, error) => Err(format!("{code:?}\n{out}\n{error}")),
    });
    assert!(code == Some(1) && error.contains("the meta group cannot change: "), "{error}");
    assert!(error.contains("nobody answers on n2, n3; start what can be started"), "{error}");
    cluster.kill(0);
    let (code, _, error) = plan(&cluster, &same, &[]);
    let running = "is the cluster running? start it with `ringfort up`\n";
    assert_eq!((code, error), (Some(1), format!("error: no node of cluster test answers; {running}")));
    let expected = format!("error: no node of wanted.toml answers; {running}");
    let nobody = same.replace(&cluster.proxy_address.to_string(), "127.0.0.1:1");
    assert_eq!(plan(&cluster, &nobody, &[]), (Some(1), String::new(), expected));
}
