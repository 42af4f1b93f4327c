//! A worker: one thread that owns the partitions p with p mod workers = its number.

pub mod core;
mod ports;
mod replies;
pub mod shared;
pub mod shell;
pub mod status;

pub use core::{Job, JobDone, SnapshotReceive, SnapshotSend, WorkerCore, WorkerOptions};
pub use ports::{PEER_BYTES_MAX, WorkerMessage, worker_of};
pub use shared::{Shared, View};
