//! The certificate, its key and the clients' authority: files that are checked, used, and read anew when they change.

use core::convert::Infallible;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::{NoClientAuth, WebPkiClientVerifier, danger::ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{InconsistentKeys, RootCertStore, ServerConfig};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// Largest file of certificates or keys that is read, bytes.
pub const PEM_BYTES_MAX: u64 = 1 << 20;
/// How often the files are looked at; they are read anew when they have changed and then stayed as they are for so long.
pub const RELOAD_INTERVAL: Duration = Duration::from_secs(1);

/// A certificate that ends within this time is warned of.
const ENDING: Duration = Duration::from_secs(14 * DAY_S);
const DAY_S: u64 = 86_400;

/// Whether clients must show a certificate that the authority signed (Redis: `tls-auth-clients`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthClients {
    /// They are not asked.
    No,
    /// They may; a wrong one is refused.
    Optional,
    /// They must.
    Yes,
}

/// Which files, and how they are used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM: the server's certificate, then those that lead to its authority.
    pub cert: PathBuf,
    /// PEM: the certificate's key, not encrypted.
    pub key: PathBuf,
    /// PEM: the authorities of clients' certificates; must be there unless clients are not asked.
    pub ca: Option<PathBuf>,
    /// Whether clients are asked.
    pub auth_clients: AuthClients,
}

/// One of [`TlsFiles`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsFile {
    /// The certificate.
    Cert,
    /// The key.
    Key,
    /// The authorities.
    Ca,
}

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {what}", path.display())]
pub struct TlsError {
    /// Which one it is.
    pub file: TlsFile,
    /// Where it is.
    pub path: PathBuf,
    /// What is wrong, and what to do.
    pub what: String,
}

/// The certificate in use. New connections get the newest that was right.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    /// The files as they were when `current` was read.
    loaded: Stamps,
    current: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads and checks the files. A certificate that has expired, or soon will, is only warned of: a restart must not fail
    /// for it.
    ///
    /// # Errors
    /// The first file that is wrong.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let loaded = files.stamps();
        let config = files.read()?;
        Ok(Self { files, loaded, current: RwLock::new(Arc::new(config)) })
    }

    pub(super) fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the files anew at SIGHUP and when they have changed. When one of them is wrong, what was in use stays in use.
    /// Never ends.
    pub async fn watch(&self) -> Infallible {
        use tokio::signal::unix::{SignalKind, signal};
        let mut hang_up = signal(SignalKind::hangup())
            .inspect_err(|error| tracing::warn!(%error, "SIGHUP is not watched for"))
            .ok();
        let mut loaded = self.loaded;
        let mut seen = loaded;
        loop {
            let is_asked = tokio::select! {
                () = tokio::time::sleep(RELOAD_INTERVAL) => false,
                () = asked(hang_up.as_mut()) => true,
            };
            let now = self.files.stamps();
            // Half of a pair, or of a file, is not read: it will change once more.
            let is_settled = now == seen;
            seen = now;
            if is_asked || (is_settled && now != loaded) {
                loaded = now;
                self.reload();
            }
        }
    }

    fn reload(&self) {
        match self.files.read() {
            Ok(config) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
                tracing::info!(cert = %self.files.cert.display(), "new TLS connections get the certificate read now");
            }
            Err(error) => {
                tracing::error!(%error, "TLS goes on with the certificate from before: this one cannot be used");
            }
        }
    }
}

async fn asked(hang_up: Option<&mut tokio::signal::unix::Signal>) {
    match hang_up {
        Some(signal) => drop(signal.recv().await),
        None => core::future::pending().await,
    }
}

/// What tells that a file has changed: ns since 1970, bytes, inode; `None`: it is not there.
type Stamps = [Option<(i64, i64, u64, u64)>; 3];

impl TlsFiles {
    fn stamps(&self) -> Stamps {
        [Some(&self.cert), Some(&self.key), self.ca.as_ref()].map(|path| {
            let meta = std::fs::metadata(path?).ok()?;
            Some((meta.mtime(), meta.mtime_nsec(), meta.len(), meta.ino()))
        })
    }

    fn error(&self, file: TlsFile, what: impl Into<String>) -> TlsError {
        let path = match file {
            TlsFile::Cert => &self.cert,
            TlsFile::Key => &self.key,
            TlsFile::Ca => self.ca.as_ref().unwrap_or(&self.cert),
        };
        TlsError { file, path: path.clone(), what: what.into() }
    }

    fn read(&self) -> Result<ServerConfig, TlsError> {
        let provider = Arc::new(default_provider());
        let cert = self.certificate(&provider)?;
        let clients: Arc<dyn ClientCertVerifier> = match self.auth_clients {
            AuthClients::No => Arc::new(NoClientAuth),
            AuthClients::Optional | AuthClients::Yes => {
                let roots = Arc::new(self.authorities()?);
                let builder = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
                let builder = match self.auth_clients {
                    AuthClients::Optional => builder.allow_unauthenticated(),
                    _ => builder,
                };
                builder.build().map_err(|error| self.error(TlsFile::Ca, error.to_string()))?
            }
        };
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| self.error(TlsFile::Cert, error.to_string()))?
            .with_client_cert_verifier(clients)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(cert)));
        Ok(config)
    }

    fn certificate(&self, provider: &rustls::crypto::CryptoProvider) -> Result<CertifiedKey, TlsError> {
        let of_cert = |what: String| self.error(TlsFile::Cert, what);
        let of_key = |what: &str| self.error(TlsFile::Key, what);
        let chain = certificates(&self.cert).map_err(of_cert)?;
        let first = chain.first().ok_or_else(|| {
            self.error(TlsFile::Cert, "holds no certificate: name a PEM file with BEGIN CERTIFICATE")
        })?;
        warn_of_end(&self.cert, first).map_err(of_cert)?;
        let text = contents(&self.key).map_err(|what| self.error(TlsFile::Key, what))?;
        let key = PrivateKeyDer::from_pem_slice(&text).map_err(|_| {
            let is_encrypted = text.windows(9).any(|piece| piece == b"ENCRYPTED");
            of_key(if is_encrypted {
                "is encrypted: store the key without a passphrase, readable by the service only"
            } else {
                "holds no private key: name a PEM file with BEGIN PRIVATE KEY"
            })
        })?;
        let key = provider.key_provider.load_private_key(key).map_err(|_| {
            of_key("is of no kind that is supported: use RSA of 2048 to 8192 bits, ECDSA P-256 or P-384, or Ed25519")
        })?;
        let cert = CertifiedKey::new(chain, key);
        match cert.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(cert),
            Err(_) => Err(of_key(&format!(
                "is not the key of the certificate in {}: use the two that were made together",
                self.cert.display()
            ))),
        }
    }

    fn authorities(&self) -> Result<RootCertStore, TlsError> {
        let of_ca = |what: String| self.error(TlsFile::Ca, what);
        let Some(path) = &self.ca else { return Err(of_ca("no file of authorities is named".to_owned())) };
        let mut roots = RootCertStore::empty();
        for cert in certificates(path).map_err(of_ca)? {
            roots.add(cert).map_err(|error| of_ca(format!("holds a damaged certificate: {error}")))?;
        }
        if roots.is_empty() {
            return Err(of_ca("holds no certificate: name a PEM file with BEGIN CERTIFICATE".to_owned()));
        }
        Ok(roots)
    }
}

fn contents(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    std::fs::File::open(path).and_then(|file| file.take(PEM_BYTES_MAX + 1).read_to_end(&mut bytes)).map_err(
        |error| {
            let text = error.to_string();
            format!("cannot be read: {}", text.split(" (os error").next().unwrap_or(&text).to_lowercase())
        },
    )?;
    if bytes.len() as u64 > PEM_BYTES_MAX {
        return Err(format!("is larger than {PEM_BYTES_MAX} bytes: is it a PEM file?"));
    }
    Ok(bytes)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(&contents(path)?)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("is not a PEM file: {error}"))
}

/// Warns of a certificate that is not valid now, or soon will not be.
fn warn_of_end(path: &Path, cert: &CertificateDer<'_>) -> Result<(), String> {
    let cert = webpki::EndEntityCert::try_from(cert)
        .map_err(|error| format!("holds a damaged certificate: {error}"))?;
    let path = path.display();
    let now = UnixTime::now();
    match end_of(&cert, now) {
        Some(Invalid::From(since)) => {
            let days = since.saturating_sub(now.as_secs()) / DAY_S;
            tracing::warn!(%path, days, "the TLS certificate is not valid yet: clients will refuse it for so many days");
        }
        Some(Invalid::Until(end)) => {
            let days = now.as_secs().saturating_sub(end) / DAY_S;
            tracing::warn!(%path, days, "the TLS certificate expired so many days ago: clients will refuse it; renew it");
        }
        None => {
            let soon = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()) + ENDING);
            if let Some(Invalid::Until(end)) = end_of(&cert, soon) {
                let days = end.saturating_sub(now.as_secs()) / DAY_S;
                tracing::warn!(%path, days, "the TLS certificate expires in so many days: renew it");
            }
        }
    }
    Ok(())
}

/// When a certificate that is not valid begins or ends, s since 1970.
enum Invalid {
    From(u64),
    Until(u64),
}

fn end_of(cert: &webpki::EndEntityCert<'_>, time: UnixTime) -> Option<Invalid> {
    // Nobody is trusted here, so this always fails; the certificate's own time is what it looks at first.
    let usage = webpki::KeyUsage::server_auth();
    match cert.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &[], &[], time, usage, None, None) {
        Err(webpki::Error::CertExpired { not_after, .. }) => Some(Invalid::Until(not_after.as_secs())),
        Err(webpki::Error::CertNotValidYet { not_before, .. }) => Some(Invalid::From(not_before.as_secs())),
        _ => None,
    }
}
