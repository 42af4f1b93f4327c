//! The HTTP port of nodes and proxies: `/metrics` and `/health`.

use crate::cluster::{Cluster, Options, START};
use crate::wait::eventually;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The page that lists all metrics.
const PAGE: &str = include_str!("../../docs/metrics.md");

/// Status and body of the answer to `METHOD path`.
fn ask(address: SocketAddr, request: &str) -> Result<(u16, String), String> {
    let exchange = || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(format!("{request} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = exchange().map_err(|error| error.to_string())?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| format!("no answer: {answer}"))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.ok_or_else(|| head.to_owned())?, body.to_owned()))
}

/// A metric: its type, help, and samples (name and labels, value).
#[derive(Debug, Default)]
struct Family {
    kind: String,
    help: String,
    samples: Vec<(String, f64)>,
}

/// Reads the text format strictly: each family is announced once, by HELP and TYPE, and followed by its samples.
fn parse(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            current = name.to_owned();
            let family = Family { help: help.to_owned(), ..Family::default() };
            assert!(families.insert(current.clone(), family).is_none(), "{name} comes twice");
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            assert_eq!(name, current, "TYPE without HELP");
            families.get_mut(name).expect("it has HELP").kind = kind.to_owned();
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
            let name = series.split('{').next().expect("there is a first");
            let family = families.get_mut(&current).unwrap_or_else(|| panic!("no family: {line}"));
            let of_histogram = ["_bucket", "_sum", "_count"].map(|suffix| format!("{current}{suffix}"));
            let is_own = if family.kind == "histogram" {
                of_histogram.iter().any(|own| own == name)
            } else {
                name == current
            };
            assert!(is_own, "{line} is not of {current}");
            assert!(family.samples.iter().all(|(other, _)| other != series), "{series} comes twice");
            family.samples.push((series.to_owned(), value.parse().unwrap_or_else(|e| panic!("{line}: {e}"))));
        }
    }
    families
}

/// The rules for names and values.
fn lint(families: &BTreeMap<String, Family>) {
    for (name, family) in families {
        let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        assert!(name.starts_with("ringfort_") && name.bytes().all(is_word), "{name}");
        assert!(family.help.ends_with('.'), "{name}: {}", family.help);
        assert_eq!(name.ends_with("_total"), family.kind == "counter", "{name} is a {}", family.kind);
        for foreign in [
            "_ms", "_us", "_millis", "_micros", "_minutes", "_kb", "_mb", "_percent", "_count", "_sum",
            "_bucket",
        ] {
            let stem = name.trim_end_matches("_total");
            assert!(!stem.ends_with(foreign), "{name}: use base units and no reserved endings");
        }
        match family.kind.as_str() {
            "counter" | "gauge" => assert!(family.samples.iter().all(|(_, value)| *value >= 0.0), "{name}"),
            "histogram" => {
                assert!(name.ends_with("_seconds"), "{name}");
                let mut last = 0.0;
                for (series, value) in &family.samples {
                    if series.contains("_bucket") {
                        assert!(*value >= last, "{series} is below the bucket before");
                        last = *value;
                    } else if series.contains("_count") {
                        assert!((*value - last).abs() < 0.5, "{series} is not the last bucket");
                        last = 0.0;
                    }
                }
            }
            other => panic!("{name} is a {other}"),
        }
    }
}

fn value(families: &BTreeMap<String, Family>, series: &str) -> f64 {
    let name = series.split('{').next().expect("there is a first");
    let samples =
        families.iter().filter(|(family, _)| name.starts_with(family.as_str())).flat_map(|(_, f)| &f.samples);
    samples.filter(|(of, _)| of == series).map(|(_, value)| *value).next_back().unwrap_or(-1.0)
}

#[test]
fn metrics_are_well_formed_documented_and_true() {
    let cluster = Cluster::start(Options::default());
    let mut client = cluster.client();
    for i in 0..50 {
        client.call(&format!("SET k{i} v"));
        client.call(&format!("GET k{i}"));
    }
    client.call("INCR k0");
    let of = |address| {
        let (status, text) = ask(address, "GET /metrics").expect("an answer");
        assert_eq!(status, 200, "{text}");
        let families = parse(&text);
        lint(&families);
        families
    };
    let proxy = of(cluster.proxy_metrics);
    assert_eq!(
        value(&proxy, "ringfort_command_duration_seconds_count{port=\"proxy\",command=\"set\"}"),
        50.0
    );
    assert_eq!(value(&proxy, "ringfort_command_errors_total{port=\"proxy\",command=\"incr\"}"), 1.0);
    // The workers publish every 100 ms.
    let nodes = eventually("counts of all nodes", START, || {
        let nodes: Vec<_> = cluster.addresses.iter().map(|node| of(node.metrics)).collect();
        let sum = |series| nodes.iter().map(|node| value(node, series)).sum::<f64>();
        let (keys, replicas) = (sum("ringfort_keys"), sum("ringfort_replica_keys"));
        let commits = sum("ringfort_commit_duration_seconds_count");
        let reads = sum("ringfort_reads_total{by=\"lease\"}") + sum("ringfort_reads_total{by=\"round\"}");
        let leaders = sum("ringfort_leaders");
        if (keys, replicas, leaders) == (50.0, 150.0, 16.0) && commits >= 50.0 && reads >= 50.0 {
            Ok(nodes)
        } else {
            Err(format!(
                "keys {keys}, in replicas {replicas}, leaders {leaders}, commits {commits}, reads {reads}"
            ))
        }
    });
    assert!(value(&nodes[0], "ringfort_resident_memory_bytes") > 1e6);
    assert!(value(&nodes[0], "ringfort_log_sync_duration_seconds_count") > 0.0);

    let mut told = BTreeSet::new();
    for (name, family) in &nodes[0] {
        let by = if proxy.contains_key(name) { "node, proxy" } else { "node" };
        told.insert((name.clone(), family.kind.clone(), by.to_owned(), family.help.clone()));
    }
    assert!(proxy.keys().all(|name| nodes[0].contains_key(name)), "the proxy has metrics of its own");
    let rows = PAGE.lines().filter_map(|line| line.strip_prefix("| `ringfort_")?.strip_suffix(" |"));
    let documented: BTreeSet<_> = rows
        .map(|row| {
            let cells: Vec<_> = row.split(" | ").collect();
            let [name, kind, _, by, help] = cells[..] else { panic!("{row}") };
            (
                format!("ringfort_{}", name.trim_end_matches('`')),
                kind.to_owned(),
                by.to_owned(),
                help.to_owned(),
            )
        })
        .collect();
    assert_eq!(documented, told, "docs/metrics.md is not what a node tells");
}

#[test]
fn health_is_what_the_node_can_do() {
    let mut cluster = Cluster::prepare(Options::default());
    cluster.start_node(0);
    let metrics = cluster.addresses[0].metrics;
    let loading = eventually("an answer while it loads", START, || ask(metrics, "GET /health"));
    assert_eq!(loading.0, 503);
    assert!(
        loading.1.contains("\"reason\":\"it finds its cluster or reads its data\",\"state\":\"loading\""),
        "{}",
        loading.1
    );
    assert_eq!(ask(metrics, "GET /health/live").expect("an answer").0, 200);

    cluster.start_all();
    let is_healthy = |address| match ask(address, "GET /health")? {
        (200, body) if body == "{\"state\":\"up\",\"status\":\"ok\"}\n" => Ok(()),
        other => Err(format!("{other:?}")),
    };
    for address in cluster.addresses.iter().map(|node| node.metrics).chain([cluster.proxy_metrics]) {
        eventually("a healthy process", START, || is_healthy(address));
    }
    let (status, body) = ask(metrics, "HEAD /metrics").expect("an answer");
    assert_eq!((status, body.as_str()), (200, ""));
    for (request, expected) in
        [("GET /", 404), ("GET /metrics/", 404), ("POST /health", 405), ("GET", 400), ("\u{1}", 400)]
    {
        assert_eq!(ask(metrics, request).expect("an answer").0, expected, "{request}");
    }

    // Without a majority it is alive but serves nobody.
    cluster.kill(1);
    cluster.kill(2);
    let body = eventually("a node without leaders", START, || match ask(metrics, "GET /health")? {
        (503, body) => Ok(body),
        other => Err(format!("{other:?}")),
    });
    assert!(body.contains("groups have no leader"), "{body}");
    assert_eq!(ask(metrics, "GET /health/live").expect("an answer").0, 200);
    cluster.start_node(1);
    eventually("a healthy node again", START, || is_healthy(metrics));
}
