//! Handshakes and encrypted bytes over real sockets.

use super::*;
use crate::stream::{ClientSocket, ClientStream};
use crate::testing::Random;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion, version};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long anything may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// A folder with the files of a server, and the authority that made them.
struct Authority {
    folder: PathBuf,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    der: CertificateDer<'static>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("ringfort-tls-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap();
        std::fs::write(folder.join("ca.crt"), cert.pem()).unwrap();
        let authority = Self { folder, der: cert.der().clone(), issuer: rcgen::Issuer::new(params, key) };
        authority.write_server("localhost");
        authority
    }

    fn sign(&self, name: &str) -> (rcgen::Certificate, rcgen::KeyPair) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    fn write_server(&self, name: &str) {
        let (cert, key) = self.sign(name);
        std::fs::write(self.folder.join("server.crt"), cert.pem()).unwrap();
        std::fs::write(self.folder.join("server.key"), key.serialize_pem()).unwrap();
    }

    fn files(&self, auth_clients: AuthClients) -> TlsFiles {
        let of = |name: &str| self.folder.join(name);
        TlsFiles { cert: of("server.crt"), key: of("server.key"), ca: Some(of("ca.crt")), auth_clients }
    }

    fn client(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        shows_certificate: bool,
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        if !shows_certificate {
            return builder.with_no_client_auth();
        }
        let (cert, key) = self.sign("client");
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        builder.with_client_auth_cert(vec![cert.der().clone()], key.into()).unwrap()
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

type Client = StreamOwned<ClientConnection, TcpStream>;

fn connect(address: SocketAddr, config: ClientConfig, name: &'static str) -> Client {
    let name = ServerName::try_from(name).unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    StreamOwned::new(connection, tcp(address))
}

fn tcp(address: SocketAddr) -> TcpStream {
    let tcp = TcpStream::connect(address).unwrap();
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    tcp.set_write_timeout(Some(PATIENCE)).unwrap();
    tcp
}

/// A server that sends every byte back. It ends with the test's process.
fn echo_server(tls: Arc<Tls>) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let admit = |socket, _| drop(tokio::task::spawn_local(echo(socket)));
            tokio::select! {
                never = serve(&listener, &tls, admit) => match never {},
                never = tls.watch() => match never {},
            }
        });
    });
    address
}

/// As a shell serves a client, with at most 1 MiB kept.
async fn echo(socket: ClientSocket) -> std::io::Result<()> {
    assert!(socket.is_tls());
    let stream = ClientStream::new(socket)?;
    let mut unsent = Vec::new();
    let mut buffer = vec![0; ClientStream::READ_BYTES_MIN];
    let mut is_open = true;
    while is_open || !unsent.is_empty() || stream.has_unsent() {
        let ready = stream.ready(is_open && unsent.len() < 1 << 20, !unsent.is_empty()).await?;
        if ready.is_readable() && is_open {
            match stream.try_read(&mut buffer) {
                Ok(count) => {
                    is_open = count > 0;
                    unsent.extend_from_slice(&buffer[..count]);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        match stream.try_write(&unsent) {
            Ok(count) => drop(unsent.drain(..count)),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    stream.finish().await;
    Ok(())
}

fn ping(client: &mut Client) -> std::io::Result<()> {
    client.write_all(b"ping")?;
    let mut reply = [0; 4];
    client.read_exact(&mut reply)?;
    assert_eq!(&reply, b"ping");
    Ok(())
}

fn load(authority: &Authority, auth_clients: AuthClients) -> Arc<Tls> {
    Arc::new(Tls::load(authority.files(auth_clients)).unwrap())
}

#[test]
fn every_byte_passes_in_order_in_both_versions() {
    let authority = Authority::new("echo");
    let address = echo_server(load(&authority, AuthClients::No));
    for (version, seed) in [(&version::TLS12, 1), (&version::TLS13, 2)] {
        let mut client = connect(address, authority.client(&[version], false), "localhost");
        let mut random = Random(seed);
        for size in [1, 2, 100, 16_384, 16_385, 65_536, 300_000, 5_000_000] {
            let sent: Vec<u8> = (0..size).map(|_| random.next() as u8).collect();
            // Pieces of a record, so that reads end within records.
            let mut received = Vec::new();
            for chunk in sent.chunks(1 + random.below(400_000) as usize) {
                client.write_all(chunk).unwrap();
                let from = received.len();
                received.resize(from + chunk.len(), 0);
                client.read_exact(&mut received[from..]).unwrap();
            }
            assert!(sent == received, "{version:?}: {size} bytes came back changed");
        }
        // Its farewell is answered by one.
        client.conn.send_close_notify();
        client.flush().unwrap();
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    }
}

#[test]
fn a_client_that_does_not_read_gets_everything_later() {
    let authority = Authority::new("slow");
    let address = echo_server(load(&authority, AuthClients::No));
    let mut client = connect(address, authority.client(&[&version::TLS13], false), "localhost");
    ping(&mut client).unwrap();
    // More than the system's buffers hold, and less than with the server's own: it does not have to be read to be taken.
    let sent: Vec<u8> = (0..900_000_u32).map(|i| (i / 4) as u8).collect();
    client.write_all(&sent).unwrap();
    let mut received = vec![0; sent.len()];
    client.read_exact(&mut received).unwrap();
    assert!(sent == received);
}

#[test]
fn the_end_does_not_wait_for_a_client_that_does_not_read() {
    let authority = Authority::new("end");
    let tls = load(&authority, AuthClients::No);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let config = authority.client(&[&version::TLS13], false);
    let client = std::thread::spawn(move || {
        let mut client = connect(address, config, "localhost");
        client.write_all(b"x").unwrap();
        client
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let (sender, mut accepted) = tokio::sync::mpsc::channel(1);
        let admit = |socket, _| sender.try_send(socket).unwrap();
        let socket = tokio::select! {
            never = serve(&listener, &tls, admit) => match never {},
            socket = accepted.recv() => socket.unwrap(),
        };
        let stream = ClientStream::new(socket).unwrap();
        let piece = vec![0; 64 << 10];
        // The system makes more room for a while.
        let writable = || tokio::time::timeout(Duration::from_millis(200), stream.ready(false, true));
        while writable().await.is_ok() {
            while stream.try_write(&piece).is_ok() {}
        }
        assert!(stream.has_unsent());
        tokio::time::timeout(PATIENCE, stream.finish()).await.expect("it ends in time");
    });
    drop(client.join().unwrap());
}

#[test]
fn clients_are_asked_for_certificates_as_told() {
    let authority = Authority::new("auth");
    let stranger = Authority::new("stranger");
    for (auth, without, with_wrong, with_right) in [
        (AuthClients::No, true, true, true),
        (AuthClients::Optional, true, false, true),
        (AuthClients::Yes, false, false, true),
    ] {
        let address = echo_server(load(&authority, auth));
        for version in [&version::TLS12, &version::TLS13] {
            let outcome = |config| ping(&mut connect(address, config, "localhost")).is_ok();
            assert_eq!(outcome(authority.client(&[version], false)), without, "{auth:?} {version:?}");
            assert_eq!(outcome(authority.client(&[version], true)), with_right, "{auth:?} {version:?}");
            let mut wrong = stranger.client(&[version], true);
            let own = authority.client(&[version], false);
            // It trusts the server, and shows a certificate of its own authority.
            wrong.dangerous().set_certificate_verifier(verifier_of(&own, &authority));
            assert_eq!(outcome(wrong), with_wrong, "{auth:?} {version:?}");
        }
    }
}

fn verifier_of(
    config: &ClientConfig,
    authority: &Authority,
) -> Arc<dyn rustls::client::danger::ServerCertVerifier> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der.clone()).unwrap();
    let provider = Arc::clone(config.crypto_provider());
    rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap()
}

#[test]
fn a_client_without_tls_is_told_so() {
    let authority = Authority::new("plain");
    let address = echo_server(load(&authority, AuthClients::No));
    let mut plain = tcp(address);
    plain.write_all(b"*1\r\n$4\r\nPING\r\n").unwrap();
    let mut reply = String::new();
    plain.read_to_string(&mut reply).unwrap();
    assert_eq!(reply, "-ERR this port speaks TLS: connect with TLS, or use the plain port\r\n");
}

#[test]
fn stalled_and_broken_handshakes_hold_nobody_up() {
    let authority = Authority::new("stall");
    let address = echo_server(load(&authority, AuthClients::No));
    let mut stalled: Vec<TcpStream> = (0..HANDSHAKES_MAX + 20).map(|_| tcp(address)).collect();
    for (i, tcp) in stalled.iter_mut().enumerate() {
        // Half of a first record from some, nothing from others. The oldest may be cut already.
        let _ = if i % 2 == 0 { tcp.write_all(&[0x16, 3, 1, 2]) } else { Ok(()) };
    }
    let mut broken = tcp(address);
    broken.write_all(&[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0]).unwrap();
    let mut alert = Vec::new();
    broken.read_to_end(&mut alert).unwrap();
    assert_eq!(alert.first(), Some(&0x15), "an alert says what was wrong: {alert:?}");
    ping(&mut connect(address, authority.client(&[&version::TLS13], false), "localhost")).unwrap();
    let mut oldest = Vec::new();
    // Bytes that were not read turn the end into a reset.
    let end = stalled[0].read_to_end(&mut oldest);
    assert!(end.is_ok() || end.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset));
    assert_eq!(oldest, b"");
    let newest = stalled.last_mut().unwrap();
    newest.set_nonblocking(true).unwrap();
    assert_eq!(newest.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "it may go on");
}

#[test]
fn a_changed_certificate_is_used_and_a_broken_one_is_not() {
    let authority = Authority::new("reload");
    let address = echo_server(load(&authority, AuthClients::No));
    let config = || authority.client(&[&version::TLS13], false);
    let mut old = connect(address, config(), "localhost");
    ping(&mut old).unwrap();
    authority.write_server("renewed");
    eventually(|| ping(&mut connect(address, config(), "renewed")).is_ok());
    assert!(ping(&mut connect(address, config(), "localhost")).is_err(), "the old name is gone");
    ping(&mut old).unwrap();
    std::fs::write(authority.folder.join("server.key"), "no key").unwrap();
    let broken = Tls::load(authority.files(AuthClients::No)).unwrap_err();
    assert_eq!((broken.file, broken.path), (TlsFile::Key, authority.folder.join("server.key")));
    authority.write_server("again");
    eventually(|| {
        let serves = |name| ping(&mut connect(address, config(), name)).is_ok();
        let is_again = serves("again");
        // Until the next right pair is read, the one before serves. It may be read between two looks.
        assert!(is_again || serves("renewed") || serves("again"));
        is_again
    });
    ping(&mut old).unwrap();
}

#[expect(clippy::disallowed_methods, reason = "a shell: waits for another thread")]
fn eventually(mut is_so: impl FnMut() -> bool) {
    let until = std::time::Instant::now() + PATIENCE;
    while !is_so() {
        assert!(std::time::Instant::now() < until, "not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn wrong_files_are_named_with_what_to_do() {
    let authority = Authority::new("files");
    let other = Authority::new("other-files");
    let write = |name: &str, text: &str| std::fs::write(authority.folder.join(name), text).unwrap();
    let read = |name: &str| std::fs::read_to_string(authority.folder.join(name)).unwrap();
    let error = |name: &str, text: &str| {
        let right = read(name);
        write(name, text);
        let error = Tls::load(authority.files(AuthClients::Yes)).unwrap_err();
        write(name, &right);
        assert_eq!(error.path, authority.folder.join(name));
        error.what
    };
    Tls::load(authority.files(AuthClients::Yes)).unwrap();
    let no_certificate = "holds no certificate: name a PEM file with BEGIN CERTIFICATE";
    assert_eq!(error("server.crt", ""), no_certificate);
    assert_eq!(error("server.crt", &read("server.key")), no_certificate);
    assert_eq!(error("ca.crt", "# nothing"), no_certificate);
    let no_der = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(error("server.crt", no_der).starts_with("holds a damaged certificate: "));
    assert!(error("ca.crt", no_der).starts_with("holds a damaged certificate: "));
    assert!(error("server.crt", &no_der[..30]).starts_with("is not a PEM file: "));
    assert_eq!(
        error("server.key", &read("server.crt")),
        "holds no private key: name a PEM file with BEGIN PRIVATE KEY"
    );
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    assert_eq!(
        error("server.key", encrypted),
        "is encrypted: store the key without a passphrase, readable by the service only"
    );
    let other_key = std::fs::read_to_string(other.folder.join("server.key")).unwrap();
    assert!(error("server.key", &other_key).starts_with("is not the key of the certificate in "));
    assert_eq!(
        error("server.key", &" ".repeat(PEM_BYTES_MAX as usize + 1)),
        "is larger than 1048576 bytes: is it a PEM file?"
    );
    let gone = TlsFiles { cert: Path::new("/no/such.crt").into(), ..authority.files(AuthClients::No) };
    assert_eq!(
        Tls::load(gone).unwrap_err().to_string(),
        "/no/such.crt: cannot be read: no such file or directory"
    );
}
