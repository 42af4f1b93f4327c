//! The files that `[tls]` names.

use super::{Config, ConfigError, FileKey, TlsConfig};
use ringfort_proxy::tls::{Tls, TlsFile, TlsFiles};
use std::path::{Path, PathBuf};

impl TlsConfig {
    /// The keys that name files.
    pub(super) fn keys(&mut self) -> impl Iterator<Item = &mut FileKey> {
        let Self { cert_file, key_file, ca_file, .. } = self;
        [Some(cert_file), Some(key_file), ca_file.as_mut()].into_iter().flatten()
    }

    /// The paths of its files.
    pub(super) fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        self.keys().map(|key| &mut key.path)
    }

    /// Reads and checks the files; `config_file` is for the errors.
    ///
    /// # Errors
    /// One line: which key of the config file names what, and what is wrong with it.
    fn load(&self, config_file: &Path) -> Result<Tls, ConfigError> {
        let path = |key: &FileKey| key.path.clone();
        let files = TlsFiles {
            cert: path(&self.cert_file),
            key: path(&self.key_file),
            ca: self.ca_file.as_ref().map(path),
            auth_clients: self.auth_clients,
        };
        Tls::load(files).map_err(|error| {
            let (name, line) = match error.file {
                TlsFile::Cert => ("cert_file", self.cert_file.line),
                TlsFile::Key => ("key_file", self.key_file.line),
                TlsFile::Ca => ("ca_file", self.ca_file.as_ref().map_or(1, |key| key.line)),
            };
            ConfigError::of_line(config_file, line, format!("'{name}' in [tls]: {error}"))
        })
    }
}

impl Config {
    /// Reads and checks the files that `[tls]` names; `None` without one. `config_file` is for the errors.
    ///
    /// # Errors
    /// A file cannot be read, or is not what it should be.
    pub fn load_tls(&self, config_file: &Path) -> Result<Option<Tls>, ConfigError> {
        self.tls.as_ref().map(|tls| tls.load(config_file)).transpose()
    }
}
