//! The proxy: client sessions, routing, splitting and joining, retries. The core does no I/O.
//!
//! - [`session`]: one client's connection; a node's own client port uses it too.

pub mod session;

#[cfg(test)]
mod testing;
