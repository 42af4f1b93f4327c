//! Load generator and checker of acknowledged writes, for any server that speaks the Redis protocol.
//!
//! - [`check`]: did the server keep every write it acknowledged, exactly once, and how long was it away?
//! - [`reply`], [`encode`], [`conn`]: just enough of the protocol, on the client's side.

pub mod check;
pub mod conn;
pub mod encode;
pub mod reply;
pub mod rng;
