//! Ringfort: a sharded cache cluster for Redis clients, replicated by Raft.

pub mod cli;
pub mod clock;
pub mod config;
pub mod log;
pub mod node;
