//! Load generator and checker of acknowledged writes, for any server that speaks the Redis protocol.
//!
//! - [`check`]: did the server keep every write it acknowledged, exactly once, and how long was it away?
//! - [`linear`]: is the history of one key linearizable, whatever commands it saw?
//! - [`nemesis`]: breaks a cluster meanwhile: kills, pauses, cuts links, fills disks.
//! - [`load`]: fill it with keys; send a mix of commands and measure latencies, in a closed or an open loop.
//! - [`compare`]: the same load to several servers, in turn.
//! - [`report`]: what [`load`] or [`compare`] measured, as one HTML file.
//! - [`reply`], [`encode`], [`conn`], [`routes`]: just enough of the protocol, on the client's side.

pub mod check;
pub mod compare;
pub mod conn;
pub mod encode;
pub mod linear;
pub mod load;
pub mod nemesis;
pub mod reply;
pub mod report;
pub mod rng;
pub mod routes;
