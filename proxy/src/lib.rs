//! The proxy: client sessions, routing, splitting and joining, retries.
//!
//! The core does no I/O; [`server`] is the shell that moves the bytes.
//!
//! - [`session`]: one client's connection; a node's own client port uses it too.
//! - [`core`]: one worker: sessions, and the lanes and links behind them.
//! - [`clients`], [`stats`]: what the connections of a process share, and what is counted of them.
//! - [`errands`]: changes for the meta group that clients wait for.
//! - [`route`], [`gather`]: splitting a command by partition and joining the replies; a node joins likewise.
//! - `lane`: the requests for one partition, exactly once.
//! - `upstream`: which node a lane talks to, and what it makes of the replies.
//! - [`random`]: randomness from a seed.
//! - [`pace`]: how large replies leave a worker.
//! - [`server`]: threads, sockets and time; [`process`]: what the process uses of the machine.

pub mod clients;
pub mod core;
pub mod errands;
pub mod gather;
pub mod http;
mod lane;
mod large_reply;
pub mod limits;
pub mod logging;
pub mod metrics;
pub mod pace;
pub mod process;
pub mod random;
pub mod route;
pub mod server;
pub mod session;
pub mod slab;
pub mod stats;
pub mod stream;
pub mod tls;
mod upstream;

pub use crate::core::{ClientId, Proxy};
pub use limits::Limits;
pub use server::{ProxyOptions, Running, ServerError, run, start};
pub use upstream::{LinkId, NODE_WORKERS_MAX, WantedLink};

#[cfg(test)]
mod testing;
