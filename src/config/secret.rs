//! The file that holds the peer secret.

use super::{Config, reason};
use ringfort_wire::PeerSecret;
use ringfort_wire::secret::SECRET_BYTES_MAX;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Permissions of others than the owner and the group.
const OTHERS: u32 = 0o007;

impl Config {
    /// Reads the peer secret; `None` when the config names none.
    ///
    /// # Errors
    /// The file cannot be read, or is open to everyone, or its secret is too short or too long: one line.
    pub fn load_peer_secret(&self) -> anyhow::Result<Option<PeerSecret>> {
        self.cluster.peer_secret_file.as_deref().map(read).transpose()
    }
}

fn read(path: &Path) -> anyhow::Result<PeerSecret> {
    let shown = path.display();
    let unreadable = |error: std::io::Error| {
        anyhow::anyhow!("the peer secret {shown} (peer_secret_file) cannot be read: {}", reason(&error))
    };
    let file = File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.permissions().mode();
    anyhow::ensure!(
        mode & OTHERS == 0,
        "the peer secret {shown} is open to everyone on this machine (mode {:03o}): chmod o-rwx {shown}, and make a new \
         one if somebody else may have read it",
        mode & 0o777
    );
    let mut bytes = Vec::new();
    // Room for a line end; what is longer is refused by its length.
    file.take(SECRET_BYTES_MAX as u64 + 3).read_to_end(&mut bytes).map_err(unreadable)?;
    PeerSecret::new(&bytes).map_err(|error| anyhow::anyhow!("{shown}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_bad_secret_file_is_one_line_that_says_what_to_do() {
        let folder = std::env::temp_dir().join(format!("ringfort-secret-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("secret");
        let written = |text: &str, mode: u32| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            read(&path).map(|_| ()).map_err(|error| error.to_string())
        };
        let shown = path.display();
        assert_eq!(written("0123456789abcdef\n", 0o640), Ok(()));
        assert_eq!(
            written("0123456789abcdef\n", 0o644).unwrap_err(),
            format!(
                "the peer secret {shown} is open to everyone on this machine (mode 644): chmod o-rwx {shown}, and make \
                 a new one if somebody else may have read it"
            )
        );
        let short = written("secret\n", 0o600).unwrap_err();
        assert!(
            short.starts_with(&format!("{shown}: the peer secret has 6 bytes: use 16 to 4096")),
            "{short}"
        );
        assert!(written(&"x".repeat(SECRET_BYTES_MAX + 2), 0o600).is_err());
        assert_eq!(written(&format!("{}\r\n", "x".repeat(SECRET_BYTES_MAX)), 0o600), Ok(()));
        let missing = read(&folder.join("none")).unwrap_err().to_string();
        assert!(
            missing.ends_with("(peer_secret_file) cannot be read: no such file or directory"),
            "{missing}"
        );
        fs::remove_dir_all(&folder).unwrap();
    }
}
