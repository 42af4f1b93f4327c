//! TLS for clients: certificate files, handshakes, encrypted connections.
//!
//! ```text
//!  files --load, reload--> Tls --current--> serve: accepts, shakes hands --ClientSocket--> a worker
//! ```
//!
//! Handshakes run on a thread of their own, so that their arithmetic holds no worker up; a worker gets a connection that is
//! ready for its first command. Below that the cores know nothing of TLS.

mod accept;
mod files;
mod session;

pub use accept::{HANDSHAKE_TIMEOUT, HANDSHAKES_MAX, serve};
pub use files::{AuthClients, PEM_BYTES_MAX, RELOAD_INTERVAL, Tls, TlsError, TlsFile, TlsFiles};
pub(crate) use session::TlsSession;
pub use session::UNSENT_BYTES_MAX;

#[cfg(test)]
mod tests;
