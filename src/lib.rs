//! Ringfort: a sharded cache cluster for Redis clients, replicated by Raft.
//!
//! Modules in reading order: the command line; how a node is configured and told the time; what a worker drives (shard
//! groups, their log, the meta group); the worker itself; the node that joins the workers.

pub mod cli;
pub mod clock;
pub mod config;
pub mod failpoint;
pub mod log;
pub mod meta;
pub mod node;
pub mod shard;
pub mod worker;
