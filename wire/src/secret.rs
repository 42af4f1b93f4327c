//! The secret that the nodes and proxies of a cluster share, and how they prove to know it.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// Shortest secret, bytes.
pub const SECRET_BYTES_MIN: usize = 16;
/// Longest secret, bytes.
pub const SECRET_BYTES_MAX: usize = 4096;
/// Length of a proof.
pub const PROOF_BYTES: usize = 32;
/// Length of the random number that each side gives for one proof.
pub const NONCE_BYTES: usize = 32;

/// A random number for one proof; never used twice.
pub type Nonce = [u8; NONCE_BYTES];

/// The peer secret. It never leaves the process, and is not shown.
#[derive(Clone)]
pub struct PeerSecret {
    mac: Hmac<Sha256>,
}

impl core::fmt::Debug for PeerSecret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("PeerSecret(..)")
    }
}

impl PeerSecret {
    /// The secret in a file's bytes; one line end behind it does not belong to it.
    ///
    /// # Errors
    /// It is too short or too long: a sentence.
    pub fn new(file: &[u8]) -> Result<Self, String> {
        let bytes = file.strip_suffix(b"\n").unwrap_or(file);
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        if !(SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&bytes.len()) {
            return Err(format!(
                "the peer secret has {} bytes: use {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} random ones, for example by \
                 `openssl rand -hex 32`",
                bytes.len()
            ));
        }
        let mac = Hmac::new_from_slice(bytes).map_err(|error| error.to_string())?;
        Ok(Self { mac })
    }

    /// HMAC-SHA-256 of `label` and `parts`, each behind its length.
    pub(crate) fn prove(&self, label: &[u8], parts: &[&[u8]]) -> [u8; PROOF_BYTES] {
        self.over(label, parts).finalize().into_bytes().into()
    }

    /// Whether `proof` is [`Self::prove`] of the same; the time does not tell where it differs.
    pub(crate) fn is_proof(&self, label: &[u8], parts: &[&[u8]], proof: &[u8]) -> bool {
        self.over(label, parts).verify_slice(proof).is_ok()
    }

    fn over(&self, label: &[u8], parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac = self.mac.clone();
        for part in core::iter::once(&label).chain(parts) {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"0123456789abcdef";

    #[test]
    fn a_line_end_does_not_count_and_a_short_secret_is_refused() {
        let proof = PeerSecret::new(SECRET).unwrap().prove(b"x", &[]);
        for file in [&b"0123456789abcdef\n"[..], b"0123456789abcdef\r\n"] {
            assert!(PeerSecret::new(file).unwrap().is_proof(b"x", &[], &proof));
        }
        assert!(!PeerSecret::new(b"0123456789abcdef\n\n").unwrap().is_proof(b"x", &[], &proof));
        for file in [&b""[..], b"0123456789abcde\n", &vec![b'x'; SECRET_BYTES_MAX + 1]] {
            assert!(PeerSecret::new(file).unwrap_err().contains("use 16 to 4096 random ones"));
        }
    }

    #[test]
    fn a_proof_fits_its_secret_label_and_parts_only() {
        let secret = PeerSecret::new(SECRET).unwrap();
        let proof = secret.prove(b"label", &[b"ab", b"c"]);
        assert!(secret.is_proof(b"label", &[b"ab", b"c"], &proof));
        assert!(!secret.is_proof(b"label", &[b"a", b"bc"], &proof), "other borders");
        assert!(!secret.is_proof(b"other", &[b"ab", b"c"], &proof));
        assert!(!secret.is_proof(b"label", &[b"ab", b"c"], &proof[..31]));
        assert!(!secret.is_proof(b"label", &[b"ab", b"c"], &[]));
        let other = PeerSecret::new(b"0123456789abcdeF").unwrap();
        assert!(!other.is_proof(b"label", &[b"ab", b"c"], &proof));
    }

    #[test]
    fn is_hmac_sha256() {
        // RFC 4231, test case 1.
        let secret = PeerSecret::new(&[0x0b; 20]).unwrap();
        let mut mac = secret.mac.clone();
        mac.update(b"Hi There");
        let bytes: [u8; 32] = mac.finalize().into_bytes().into();
        assert_eq!(bytes[..8], [0xb0, 0x34, 0x4c, 0x61, 0xd8, 0xdb, 0x38, 0x53]);
    }

    #[test]
    fn debug_shows_nothing_of_it() {
        assert_eq!(format!("{:?}", PeerSecret::new(SECRET).unwrap()), "PeerSecret(..)");
    }
}
