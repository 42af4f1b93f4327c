//! When the cluster serves, and what its user is told then.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::sleep;

use crate::cli::client::Client;
use crate::clock::{Clock as _, SystemClock};
use crate::config::Config;

/// Time between two questions.
const POLL: Duration = Duration::from_millis(50);

/// Time between two words about the wait.
const PATIENCE_US: u64 = 5_000_000;

/// Returns once every partition answers through the proxy at `listen`. Calls `grumble` with the problem now and then.
pub(super) async fn wait(listen: SocketAddr, grumble: impl Fn(&str)) {
    let mut grumble_at_us = SystemClock.now().boot_us + PATIENCE_US;
    loop {
        let Err(error) =
            tokio::task::spawn_blocking(move || probe(listen)).await.unwrap_or_else(|e| Err(e.into()))
        else {
            return;
        };
        let now_us = SystemClock.now().boot_us;
        if grumble_at_us <= now_us {
            grumble(&format!("{error:#}"));
            grumble_at_us = now_us + PATIENCE_US;
        }
        sleep(POLL).await;
    }
}

/// Asks the proxy for the number of keys, which every partition's leader has to answer.
fn probe(listen: SocketAddr) -> anyhow::Result<()> {
    let mut client = Client::connect(listen)?;
    client.call(&["PING"])?;
    client.call(&["DBSIZE"])?.as_integer().context("DBSIZE gave no number")?;
    Ok(())
}

/// Where to connect and what to try.
pub(super) fn banner(
    config: &Config,
    file: &Path,
    listen: SocketAddr,
    pids: &[(String, Option<u32>)],
) -> String {
    let port = listen.port();
    let host = if listen.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { listen.ip() };
    let target = SocketAddr::new(host, port);
    let at = if host == Ipv4Addr::LOCALHOST { format!("-p {port}") } else { format!("-h {host} -p {port}") };
    let mut text = format!("\ncluster \"{}\" is ready on {target}\n\n", config.cluster.name);
    let mut try_next = |what: &str, command: String| {
        let _ = writeln!(text, "  {what:<18} {command}");
    };
    try_next("connect", format!("redis-cli {at}"));
    if let Some(node) = config.nodes.first() {
        let (ip, port) = (node.client.ip(), node.client.port());
        let at = if ip == Ipv4Addr::LOCALHOST { format!("-p {port}") } else { format!("-h {ip} -p {port}") };
        try_next("cluster client", format!("redis-cli -c {at}"));
    }
    try_next("benchmark", format!("redis-benchmark {at} -t set,get -n 200000 -r 1000000 -P 16 -q"));
    try_next("look inside", format!("ringfort status --config {}", file.display()));
    try_next(
        "check for losses",
        format!("ringfort-loadgen check --target {target} --clients 16 --duration 30s"),
    );
    let victim = pids.get(1).or_else(|| pids.first());
    if let Some((id, Some(pid))) = victim {
        try_next("see a failover", format!("kill -9 {pid}    (node {id}; it comes back by itself)"));
    }
    try_next("stop", "Ctrl-C".to_owned());
    let known = pids.iter().filter_map(|(id, pid)| Some(format!("{id} {}", (*pid)?)));
    let _ = write!(text, "\n  node pids: {}\n", known.collect::<Vec<_>>().join(", "));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_banner_says_where_and_what_next() {
        let config = Config::parse(crate::config::LOCAL_TOML, "local.toml").unwrap();
        let pids = [("n1".to_owned(), Some(11)), ("n2".to_owned(), Some(12)), ("n3".to_owned(), None)];
        let text = banner(&config, Path::new("configs/local.toml"), "0.0.0.0:6379".parse().unwrap(), &pids);
        let expected = r#"
cluster "demo" is ready on 127.0.0.1:6379

  connect            redis-cli -p 6379
  cluster client     redis-cli -c -p 7001
  benchmark          redis-benchmark -p 6379 -t set,get -n 200000 -r 1000000 -P 16 -q
  look inside        ringfort status --config configs/local.toml
  check for losses   ringfort-loadgen check --target 127.0.0.1:6379 --clients 16 --duration 30s
  see a failover     kill -9 12    (node n2; it comes back by itself)
  stop               Ctrl-C

  node pids: n1 11, n2 12
"#;
        assert_eq!(text, expected);
    }
}
