//! When the cluster serves, and what its user is told then.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::sleep;

use crate::cli::client::Client;
use crate::cli::output::{Paint, Style};
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

/// Where clients on this machine reach what listens at an address.
fn reached_at(listen: SocketAddr) -> SocketAddr {
    let host = if listen.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { listen.ip() };
    SocketAddr::new(host, listen.port())
}

/// Asks the proxy for the number of keys, which every partition's leader has to answer.
fn probe(listen: SocketAddr) -> anyhow::Result<()> {
    let mut client = Client::connect(listen)?;
    match client.call(&["DBSIZE"]) {
        // A cluster with a password (`requirepass`) says no more to a stranger, but who asks for it is ready.
        Err(error) if error.to_string().contains("NOAUTH") => Ok(()),
        reply => reply?.as_integer().context("DBSIZE gave no number").map(drop),
    }
}

/// What the banner tells of.
pub(super) struct Banner<'a> {
    pub(super) config: &'a Config,
    pub(super) file: &'a Path,
    pub(super) data_dir: &'a Path,
    /// The proxy's address.
    pub(super) listen: SocketAddr,
    /// Names and process ids of the nodes.
    pub(super) pids: &'a [(String, Option<u32>)],
}

impl Banner<'_> {
    /// Where to connect and what to try.
    pub(super) fn text(&self, style: Style) -> String {
        let Self { config, listen, pids, .. } = self;
        let target = reached_at(*listen);
        let cluster = &config.cluster;
        let title = format!("cluster \"{}\" is ready on {target}", cluster.name);
        let mut text = format!("\n{}\n\n", style.paint(Paint::Green, &title));
        let mut line = |what: &str, command: String| {
            let _ = writeln!(text, "  {}  {command}", style.paint(Paint::Dim, &format!("{what:<16}")));
        };
        line("connect", format!("redis-cli {}", redis_address(target)));
        if let Some(tls) = config.proxy.as_ref().and_then(|proxy| proxy.tls_listen) {
            line(
                "connect by TLS",
                format!("redis-cli --tls --cacert FILE {}", redis_address(reached_at(tls))),
            );
        }
        if let Some(node) = config.nodes.first() {
            line("cluster client", format!("redis-cli -c {}", redis_address(node.client)));
        }
        line("look inside", format!("ringfort status --watch --config {}", self.file.display()));
        line(
            "benchmark",
            format!("redis-benchmark {} -t set,get -n 200000 -r 1000000 -P 16 -q", redis_address(target)),
        );
        line(
            "check for losses",
            format!("ringfort-loadgen check --target {target} --clients 16 --duration 30s"),
        );
        if let Some((id, Some(pid))) = pids.get(1).or_else(|| pids.first()) {
            line("see a failover", format!("kill -9 {pid}    (node {id}; it comes back by itself)"));
        }
        line("more nodes", format!("add a [[node]] block to {} and save it", self.file.display()));
        line("stop", format!("Ctrl-C; the data stays in {}", self.data_dir.display()));
        let known = pids.iter().filter_map(|(id, pid)| Some(format!("{id} {}", (*pid)?)));
        let _ = write!(
            text,
            "\n  {} partitions, {} replicas each, durability {}; node pids: {}\n",
            cluster.partitions.get(),
            cluster.replicas,
            cluster.durability.as_str(),
            known.collect::<Vec<_>>().join(", ")
        );
        text
    }
}

/// An address as redis-cli takes it.
fn redis_address(address: SocketAddr) -> String {
    let (host, port) = (address.ip(), address.port());
    if host == Ipv4Addr::LOCALHOST { format!("-p {port}") } else { format!("-h {host} -p {port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_banner_says_where_and_what_next() {
        let config = Config::parse(crate::config::LOCAL_TOML, "local.toml").unwrap();
        let pids = [("n1".to_owned(), Some(11)), ("n2".to_owned(), Some(12)), ("n3".to_owned(), None)];
        let banner = Banner {
            config: &config,
            file: Path::new("configs/local.toml"),
            data_dir: Path::new("data/demo"),
            listen: "0.0.0.0:6379".parse().unwrap(),
            pids: &pids,
        };
        let text = banner.text(Style::PLAIN);
        let expected = r#"
cluster "demo" is ready on 127.0.0.1:6379

  connect           redis-cli -p 6379
  cluster client    redis-cli -c -p 7001
  look inside       ringfort status --watch --config configs/local.toml
  benchmark         redis-benchmark -p 6379 -t set,get -n 200000 -r 1000000 -P 16 -q
  check for losses  ringfort-loadgen check --target 127.0.0.1:6379 --clients 16 --duration 30s
  see a failover    kill -9 12    (node n2; it comes back by itself)
  more nodes        add a [[node]] block to configs/local.toml and save it
  stop              Ctrl-C; the data stays in data/demo

  64 partitions, 3 replicas each, durability buffered; node pids: n1 11, n2 12
"#;
        assert_eq!(text, expected);
    }
}
