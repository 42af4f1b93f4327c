//! Nodes and a proxy on one thread, for measurements: production cores, disks in memory, a clock that stands still. What is
//! counted here are instructions and allocations, which do not depend on the machine's load; times are for benches.

pub mod cluster;
pub mod requests;

pub use cluster::{Cluster, Direct, Proxied};
