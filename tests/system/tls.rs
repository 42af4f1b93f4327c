//! TLS beside plain: the proxy, a node's client port, a node's own proxy.

use crate::client::{Client, encode, encode_line};
use crate::cluster::{Cluster, Options, START};
use crate::departures::others;
use crate::wait::eventually;
use ringfort_resp::reply::{Value, frame_len, parse};
use rustix::process::Signal;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const MIB: usize = 1 << 20;
/// Longest wait for one reply.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Makes certificates.
struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pem: String,
    der: CertificateDer<'static>,
}

impl Authority {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().expect("a key");
        let cert = params.self_signed(&key).expect("a certificate");
        Self { pem: cert.pem(), der: cert.der().clone(), issuer: rcgen::Issuer::new(params, key) }
    }

    fn sign(&self, names: Vec<String>) -> (rcgen::Certificate, rcgen::KeyPair) {
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(names).expect("names");
        (params.signed_by(&key, &self.issuer).expect("a certificate"), key)
    }

    /// Writes `server.crt` and `server.key` for these names.
    fn write_server(&self, folder: &Path, names: Vec<String>) {
        let (cert, key) = self.sign(names);
        fs::write(folder.join("server.crt"), cert.pem()).expect("written");
        fs::write(folder.join("server.key"), key.serialize_pem()).expect("written");
    }

    /// A client that trusts this authority.
    fn client(&self, shows_certificate: bool) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).expect("an authority");
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        Arc::new(if shows_certificate {
            let (cert, key) = self.sign(vec!["client".to_owned()]);
            let key = PrivatePkcs8KeyDer::from(key.serialize_der());
            builder.with_client_auth_cert(vec![cert.der().clone()], key.into()).expect("a pair")
        } else {
            builder.with_no_client_auth()
        })
    }
}

/// A cluster with TLS everywhere.
struct TlsCluster {
    cluster: Cluster,
    authority: Authority,
    proxy: SocketAddr,
    /// `tls_client` of each node.
    nodes: Vec<SocketAddr>,
    /// `tls_proxy` of each node.
    node_proxies: Vec<SocketAddr>,
}

impl TlsCluster {
    /// With further lines in section `[tls]`.
    fn start(more: &str) -> Self {
        Self::start_with(Options::default(), more)
    }

    fn start_with(options: Options, more: &str) -> Self {
        let nodes = options.nodes;
        let mut cluster = Cluster::prepare(options);
        let authority = Authority::new();
        let host = cluster.proxy_address.ip();
        authority.write_server(&cluster.folder.0, vec![host.to_string()]);
        fs::write(cluster.folder.0.join("ca.crt"), &authority.pem).expect("written");
        let ports = free_ports(host, 1 + 2 * nodes, &cluster.config_text());
        let mut text = cluster.config_text().replace(
            "[proxy]\n",
            &format!(
                "[tls]\ncert_file = \"server.crt\"\nkey_file = \"server.key\"\n{more}\n[proxy]\ntls_listen = \"{}\"\n",
                ports[0]
            ),
        );
        for (n, addresses) in cluster.addresses.iter().enumerate() {
            for (key, address, tls) in
                [("client", addresses.client, ports[1 + n]), ("proxy", addresses.proxy, ports[1 + nodes + n])]
            {
                let line = format!("{key} = \"{address}\"\n");
                text = text.replace(&line, &format!("{line}tls_{key} = \"{tls}\"\n"));
            }
        }
        fs::write(cluster.config_path(), text).expect("written");
        cluster.start_all();
        Self {
            cluster,
            authority,
            proxy: ports[0],
            nodes: ports[1..=nodes].to_vec(),
            node_proxies: ports[1 + nodes..].to_vec(),
        }
    }

    fn connect(&self, address: SocketAddr) -> TlsClient {
        TlsClient::connect(address, &self.authority.client(false))
    }
}

fn free_ports(host: IpAddr, count: usize, text: &str) -> Vec<SocketAddr> {
    // Those that the file names are free as well: nobody listens there yet.
    let bind = || TcpListener::bind((host, 0)).expect("a free port");
    let (mut listeners, mut free) = (Vec::new(), Vec::new());
    while free.len() < count {
        let listener = bind();
        let address = listener.local_addr().expect("its address");
        if !text.contains(&format!("\"{address}\"")) {
            free.push(address);
        }
        listeners.push(listener);
    }
    free
}

/// One TLS connection.
struct TlsClient {
    stream: StreamOwned<ClientConnection, TcpStream>,
    input: Vec<u8>,
}

impl TlsClient {
    fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> Self {
        let name = ServerName::IpAddress(address.ip().into());
        Self::connect_as(address, config, name)
    }

    fn connect_as(address: SocketAddr, config: &Arc<ClientConfig>, name: ServerName<'static>) -> Self {
        let tcp = TcpStream::connect_timeout(&address, TIMEOUT).expect("a connection");
        tcp.set_read_timeout(Some(TIMEOUT)).expect("set");
        tcp.set_write_timeout(Some(TIMEOUT)).expect("set");
        tcp.set_nodelay(true).expect("set");
        let connection = ClientConnection::new(Arc::clone(config), name).expect("a client");
        Self { stream: StreamOwned::new(connection, tcp), input: Vec::new() }
    }

    fn try_reply(&mut self) -> io::Result<Vec<u8>> {
        let mut piece = vec![0; 64 << 10];
        loop {
            if let Some(len) = frame_len(&self.input).map_err(io::Error::other)? {
                return Ok(self.input.drain(..len).collect());
            }
            match self.stream.read(&mut piece)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => self.input.extend_from_slice(&piece[..n]),
            }
        }
    }

    fn try_call(&mut self, line: &str) -> io::Result<String> {
        self.stream.write_all(&encode_line(line))?;
        self.try_reply().map(|reply| String::from_utf8_lossy(&reply).into_owned())
    }

    #[track_caller]
    fn call(&mut self, line: &str) -> String {
        self.try_call(line).unwrap_or_else(|error| panic!("{line}: {error}"))
    }
}

#[test]
fn plain_and_tls_clients_share_the_data() {
    let tls = TlsCluster::start("");
    let mut plain = tls.cluster.client();
    assert_eq!(plain.call("SET {t}k plain"), "+OK\r\n");
    let leader = tls.cluster.leader_of("{t}k");
    for address in [tls.proxy, tls.node_proxies[0], tls.nodes[leader]] {
        let mut client = tls.connect(address);
        assert_eq!(client.call("GET {t}k"), "$5\r\nplain\r\n");
        assert_eq!(client.call("SET {t}k plain"), "+OK\r\n");
        // Many commands at once, in pieces that end anywhere.
        let commands: Vec<u8> = (0..5000).flat_map(|_| encode_line("INCR {t}n")).collect();
        for piece in commands.chunks(7001) {
            client.stream.write_all(piece).expect("sent");
        }
        let first = client.try_reply().expect("a reply");
        let first: u32 = String::from_utf8_lossy(&first[1..]).trim().parse().expect("a number");
        for i in 1..5000 {
            assert_eq!(client.try_reply().expect("a reply"), format!(":{}\r\n", first + i).into_bytes());
        }
        assert_eq!(client.call("QUIT"), "+OK\r\n");
        assert_eq!(client.stream.read(&mut [0]).expect("a farewell"), 0);
    }
    assert_eq!(plain.call("GET {t}n"), "$5\r\n15000\r\n");
}

#[test]
fn large_values_pass_by_tls() {
    let tls = TlsCluster::start("");
    let value: Vec<u8> = (0..20 * MIB).map(|i| (i % 251) as u8).collect();
    for is_by_proxy in [true, false] {
        // On a busy machine a command of 20 MiB may cost a leader its office.
        eventually("a large value", Duration::from_secs(60), || {
            let node = tls.nodes[tls.cluster.leader_of("{t}")];
            let mut client = tls.connect(if is_by_proxy { tls.proxy } else { node });
            client.stream.write_all(&encode(&[b"SET", b"{t}v", &value])).map_err(|e| e.to_string())?;
            let reply = client.try_reply().map_err(|e| e.to_string())?;
            if reply != b"+OK\r\n" {
                return Err(String::from_utf8_lossy(&reply).into_owned());
            }
            client.stream.write_all(&encode_line("GET {t}v")).map_err(|e| e.to_string())?;
            let reply = client.try_reply().map_err(|e| e.to_string())?;
            match parse(&reply) {
                Ok(Some((Value::Bulk(bytes), _))) if bytes == value => Ok(()),
                _ => Err(format!("{} bytes", reply.len())),
            }
        });
    }
}

#[test]
fn a_tls_client_may_end_its_side_or_die() {
    let tls = TlsCluster::start_with(Options { nodes: 1, replicas: 1, ..Options::default() }, "");
    let value = vec![b'v'; 16 * MIB];
    let mut plain = tls.cluster.client();
    plain.send(&encode(&[b"SET", b"{t}v", &value])).expect("sent");
    assert_eq!(plain.reply(), "+OK\r\n");
    let node = tls.cluster.addresses[0].client;
    for (by_tls, by_plain) in [(tls.proxy, tls.cluster.proxy_address), (tls.nodes[0], node)] {
        let mut client = tls.connect(by_tls);
        client.stream.write_all(&encode_line("GET {t}v").repeat(3)).expect("sent");
        client.stream.conn.send_close_notify();
        client.stream.flush().expect("sent");
        for _ in 0..3 {
            assert!(client.try_reply().expect("a reply").len() > value.len());
        }
        assert_eq!(client.stream.read(&mut [0]).expect("a farewell"), 0);

        let mut admin = Client::connect(by_plain);
        let mut dead = tls.connect(by_tls);
        assert_eq!(dead.call("CLIENT SETNAME dead"), "+OK\r\n");
        dead.stream.write_all(&encode_line("GET {t}v").repeat(8)).expect("sent");
        eventually("unsent replies", TIMEOUT, || {
            let others = others(&mut admin);
            let is_full = others.iter().any(|(name, held)| name == "dead" && *held > 2 * MIB);
            if is_full { Ok(()) } else { Err(format!("{others:?}")) }
        });
        drop(dead);
        eventually("the client is forgotten", TIMEOUT, || {
            let others = others(&mut admin);
            if others.iter().any(|(name, _)| name == "dead") { Err(format!("{others:?}")) } else { Ok(()) }
        });
    }
}

#[test]
fn cluster_aware_clients_are_sent_to_ports_of_their_kind() {
    let tls = TlsCluster::start("");
    let plain: Vec<SocketAddr> = tls.cluster.addresses.iter().map(|a| a.client).collect();
    let mut by_tls = tls.connect(tls.nodes[0]);
    let mut by_plain = tls.cluster.node_client(0);
    let moved = |reply: &str| reply.split_whitespace().nth(2).map(str::to_owned);
    let (mut led, mut not_led) = (0, 0);
    for i in 0..50 {
        let line = format!("GET key{i}");
        match (moved(&by_tls.call(&line)), moved(&by_plain.call(&line))) {
            (None, None) => led += 1,
            (Some(to_tls), Some(to_plain)) => {
                not_led += 1;
                let at = |all: &[SocketAddr], to: &str| all.iter().position(|a| a.to_string() == to);
                let node = at(&tls.nodes, &to_tls).unwrap_or_else(|| panic!("{to_tls} is no TLS port"));
                assert_eq!(at(&plain, &to_plain), Some(node));
                let reply = tls.connect(tls.nodes[node]).call(&line);
                assert_eq!(reply, "$-1\r\n", "the one it was sent to");
            }
            (by_tls, by_plain) => panic!("{by_tls:?}, {by_plain:?}"),
        }
    }
    assert!(led > 0 && not_led > 0, "{led} {not_led}");
    // A proxy tells its own clients the same.
    let mut proxy = tls.connect(tls.proxy);
    let mut plain_proxy = tls.cluster.client();
    for (tls_address, plain_address) in tls.nodes.iter().zip(&plain) {
        let (tls_port, plain_port) = (tls_address.port(), plain_address.port());
        for reply in [by_tls.call("CLUSTER SLOTS"), proxy.call("CLUSTER SLOTS")] {
            assert!(reply.contains(&format!(":{tls_port}\r\n")), "{reply}");
            assert!(!reply.contains(&format!(":{plain_port}\r\n")), "{reply}");
        }
        for reply in [by_plain.call("CLUSTER SLOTS"), plain_proxy.call("CLUSTER SLOTS")] {
            assert!(!reply.contains(&format!(":{tls_port}\r\n")), "{reply}");
            assert!(reply.contains(&format!(":{plain_port}\r\n")), "{reply}");
        }
        assert!(by_tls.call("CLUSTER NODES").contains(&format!(" {tls_address}@")));
        assert!(by_plain.call("CLUSTER NODES").contains(&format!(" {plain_address}@")));
        for reply in [by_tls.call("CLUSTER SHARDS"), by_plain.call("CLUSTER SHARDS")] {
            let both = format!("$4\r\nport\r\n:{plain_port}\r\n$8\r\ntls-port\r\n:{tls_port}\r\n");
            assert!(reply.contains(&both), "{reply}");
        }
    }
}

#[test]
fn tls_may_come_to_a_cluster_that_is_there() {
    let mut tls = TlsCluster::start("");
    let with_tls = fs::read_to_string(tls.cluster.config_path()).expect("the file");
    let slots = |tls: &TlsCluster| tls.connect(tls.proxy).call("CLUSTER SLOTS");
    // One node after the other loses its TLS port, and gets it back.
    let without: String = with_tls
        .lines()
        .filter(|line| !line.starts_with("tls_client"))
        .flat_map(|line| [line, "\n"])
        .collect();
    let nodes = tls.nodes.clone();
    for (text, is_told) in [(without, false), (with_tls, true)] {
        fs::write(tls.cluster.config_path(), text).expect("written");
        for n in 0..3 {
            tls.cluster.node(n).stop();
            tls.cluster.start_node(n);
            tls.cluster.wait_until_joined(n);
        }
        eventually("a map that follows", START, || {
            let reply = slots(&tls);
            let told = nodes.iter().filter(|node| reply.contains(&format!(":{}\r\n", node.port()))).count();
            if told == if is_told { 3 } else { 0 } { Ok(()) } else { Err(reply) }
        });
    }
}

#[test]
fn clients_without_a_certificate_are_refused_where_one_is_asked_for() {
    let tls = TlsCluster::start("ca_file = \"ca.crt\"");
    let stranger = Authority::new();
    for address in [tls.proxy, tls.nodes[0], tls.node_proxies[0]] {
        let ping = |config: Arc<ClientConfig>| TlsClient::connect(address, &config).try_call("PING").ok();
        assert_eq!(ping(tls.authority.client(true)).as_deref(), Some("+PONG\r\n"));
        assert_eq!(ping(tls.authority.client(false)), None);
        assert_eq!(ping(stranger.client(true)), None, "a client that does not trust the server");
    }
    // The plain ports ask for nothing.
    assert_eq!(tls.cluster.client().call("PING"), "+PONG\r\n");
}

#[test]
fn a_renewed_certificate_serves_without_a_restart() {
    let mut tls = TlsCluster::start("");
    let folder = tls.cluster.folder.0.clone();
    let addresses = [tls.proxy, tls.nodes[0], tls.node_proxies[0]];
    let host = tls.proxy.ip().to_string();
    let mut old: Vec<TlsClient> = addresses.iter().map(|address| tls.connect(*address)).collect();
    old.iter_mut().for_each(|client| assert_eq!(client.call("PING"), "+PONG\r\n"));
    let serves = |address: SocketAddr, name: &'static str| {
        let name = ServerName::try_from(name).expect("a name");
        let config = tls.authority.client(false);
        match TlsClient::connect_as(address, &config, name).try_call("PING") {
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    };
    // By itself: the files are watched.
    tls.authority.write_server(&folder, vec![host.clone(), "renewed".to_owned()]);
    for address in addresses {
        eventually("the renewed certificate", START, || serves(address, "renewed"));
    }
    // A broken one changes nothing, and is told.
    fs::write(folder.join("server.crt"), "broken").expect("written");
    let told = "TLS goes on with the certificate from before";
    eventually("the error of the proxy", START, || {
        if tls.cluster.proxy().output().contains(told) { Ok(()) } else { Err("not told".to_owned()) }
    });
    eventually("the error of the node", START, || {
        if tls.cluster.node(0).output().contains(told) { Ok(()) } else { Err("not told".to_owned()) }
    });
    for address in addresses {
        assert_eq!(serves(address, "renewed"), Ok(()));
    }
    // At SIGHUP.
    tls.authority.write_server(&folder, vec![host, "again".to_owned()]);
    tls.cluster.proxy().signal(Signal::HUP);
    tls.cluster.node(0).signal(Signal::HUP);
    for address in addresses {
        eventually("the certificate after SIGHUP", START, || serves(address, "again"));
    }
    old.iter_mut().for_each(|client| assert_eq!(client.call("PING"), "+PONG\r\n", "it went on"));
}

#[test]
fn clients_that_do_not_speak_tls_hold_nobody_up() {
    let mut tls = TlsCluster::start("");
    for address in [tls.proxy, tls.nodes[0], tls.node_proxies[0]] {
        let mut silent: Vec<TcpStream> =
            (0..200).map(|_| TcpStream::connect(address).expect("a connection")).collect();
        for (i, client) in silent.iter_mut().enumerate() {
            // Half of a greeting, or nothing.
            client.write_all(if i % 2 == 0 { &[0x16, 3, 1] } else { &[] }).expect("sent");
        }
        assert_eq!(tls.connect(address).call("PING"), "+PONG\r\n");
        let mut plain = Client::connect(address);
        let refusal = "-ERR this port speaks TLS: connect with TLS, or use the plain port\r\n";
        assert_eq!(plain.call("PING"), refusal);
        assert_eq!(plain.rest(), "");
        assert_eq!(tls.connect(address).call("PING"), "+PONG\r\n");
    }
    let log = tls.cluster.proxy().output();
    assert!(log.contains("it does not speak TLS, which this port is for"), "{log}");
}
