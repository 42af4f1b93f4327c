//! [`Config`] -> TOML text, for the processes that `ringfort up` starts: they read what it has taken from the user's file,
//! whatever is in that file by now.

use super::{ClusterConfig, Config, FileKey, LogConfig, NodeConfig, ProxyConfig, TlsConfig};
use ringfort_proxy::tls::AuthClients;
use ringfort_wire::map::Moving;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

impl Config {
    /// The config as text that gives the same config again; paths are absolute.
    pub fn to_toml(&self) -> String {
        let Self { cluster, tls, proxy, log, nodes } = self;
        let mut text = Text::default();
        text.cluster(cluster);
        if let Some(tls) = tls {
            text.tls(tls);
        }
        if let Some(ProxyConfig { listen, tls_listen, metrics }) = proxy {
            text.section("[proxy]");
            text.address("listen", Some(listen));
            text.address("tls_listen", tls_listen.as_ref());
            text.address("metrics", metrics.as_ref());
        }
        let LogConfig { level, format } = log;
        text.section("[log]");
        text.string("level", level);
        text.string("format", format.as_str());
        nodes.iter().for_each(|node| text.node(node));
        text.0
    }
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn cluster(&mut self, cluster: &ClusterConfig) {
        let ClusterConfig {
            name,
            partitions,
            replicas,
            durability,
            maxmemory_bytes,
            maxmemory_policy,
            moving: Moving { bytes_per_s, at_once, down_after_s },
            peer_secret_file,
        } = cluster;
        self.section("[cluster]");
        self.string("name", name);
        self.number("partitions", partitions.get().into());
        self.number("replicas", (*replicas).into());
        self.string("durability", durability.as_str());
        self.number("maxmemory", *maxmemory_bytes);
        self.string("maxmemory_policy", maxmemory_policy.name());
        self.number("move_rate", *bytes_per_s);
        self.number("moves_at_once", (*at_once).into());
        self.number("down_after", (*down_after_s).into());
        if let Some(path) = peer_secret_file {
            self.path("peer_secret_file", path);
        }
    }

    fn tls(&mut self, tls: &TlsConfig) {
        let TlsConfig { cert_file, key_file, ca_file, auth_clients } = tls;
        self.section("[tls]");
        for (key, file) in
            [("cert_file", Some(cert_file)), ("key_file", Some(key_file)), ("ca_file", ca_file.as_ref())]
        {
            if let Some(FileKey { path, line: _ }) = file {
                self.path(key, path);
            }
        }
        let auth = match auth_clients {
            AuthClients::Yes => "yes",
            AuthClients::Optional => "optional",
            AuthClients::No => "no",
        };
        self.string("auth_clients", auth);
    }

    fn node(&mut self, node: &NodeConfig) {
        let NodeConfig { id, client, tls_client, peer, proxy, tls_proxy, metrics, weight, zone } = node;
        self.section("[[node]]");
        self.string("id", &id.0);
        self.address("client", Some(client));
        self.address("tls_client", tls_client.as_ref());
        self.address("peer", Some(peer));
        self.address("proxy", proxy.as_ref());
        self.address("tls_proxy", tls_proxy.as_ref());
        self.address("metrics", metrics.as_ref());
        self.number("weight", (*weight).into());
        self.string("zone", zone);
    }

    fn section(&mut self, name: &str) {
        let gap = if self.0.is_empty() { "" } else { "\n" };
        self.line(&format!("{gap}{name}"));
    }

    fn number(&mut self, key: &str, value: u64) {
        self.line(&format!("{key} = {value}"));
    }

    fn string(&mut self, key: &str, value: &str) {
        // What JSON writes for text, TOML reads as a basic string.
        self.line(&format!("{key} = {}", serde_json::json!(value)));
    }

    fn address(&mut self, key: &str, value: Option<&SocketAddr>) {
        if let Some(value) = value {
            self.string(key, &value.to_string());
        }
    }

    fn path(&mut self, key: &str, value: &Path) {
        let absolute = std::path::absolute(value).unwrap_or_else(|_| value.to_owned());
        self.string(key, &absolute.display().to_string());
    }

    fn line(&mut self, line: &str) {
        let _ = writeln!(self.0, "{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_the_same() {
        let local = Config::parse(crate::config::LOCAL_TOML, "local.toml").unwrap();
        assert_eq!(Config::parse(&local.to_toml(), "written").unwrap(), local);
        let all = r#"
[cluster]
name = "a"
partitions = 16
replicas = 1
durability = "fsync"
maxmemory = 0
maxmemory_policy = "allkeys-lru"
move_rate = "2mb"
moves_at_once = 7
down_after = "1h"
peer_secret_file = "/s \"quoted\" \\ {"
[tls]
cert_file = "/c"
key_file = "/k"
ca_file = "/a"
auth_clients = "optional"
[proxy]
listen = "127.0.0.1:1"
tls_listen = "127.0.0.1:2"
metrics = "127.0.0.1:3"
[log]
level = "warn,ringfort::node=debug"
format = "json"
[[node]]
id = "n1"
client = "[::1]:4"
tls_client = "127.0.0.1:5"
peer = "127.0.0.1:6"
proxy = "127.0.0.1:7"
tls_proxy = "127.0.0.1:8"
metrics = "127.0.0.1:9"
weight = 5
zone = "ä"
"#;
        let config = Config::parse(all, "all").unwrap();
        let mut again = Config::parse(&config.to_toml(), "written").unwrap();
        for (key, old) in again
            .tls
            .iter_mut()
            .flat_map(TlsConfig::keys)
            .zip(config.clone().tls.iter_mut().flat_map(TlsConfig::keys))
        {
            key.line = old.line;
        }
        assert_eq!(again, config);
    }
}
