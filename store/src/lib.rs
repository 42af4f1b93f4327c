//! The keyspace of one partition: records, command execution, expiry and snapshots.
//!
//! Deterministic and without I/O: no clock, no randomness, no memory pressure and no iteration order of a hash table
//! ever reaches a reply, a digest or a snapshot. The same calls on two stores give the same bytes.
//!
//! - [`Store::apply`]: the one door through which commands change the keyspace; called for each committed log entry.
//! - [`Store::read`]: commands that change nothing.
//! - [`Store::expire`], [`Store::due`]: removal of keys whose time has come, proposed by the leader.
//! - [`Store::evict`], [`Store::victims`]: removal of keys to make room, proposed by the leader.
//! - [`Store::snapshot_begin`], [`Restorer`]: the state as bytes, slot by slot, while writes go on.
//!
//! What is deliberately absent: databases (`SELECT`), types other than strings.

mod apply;
mod arena;
mod bucket;
mod commands;
mod counts;
mod error;
mod evict;
mod expiry;
mod extended;
mod keyspace;
mod memory;
mod number;
mod packed;
mod reclaim;
mod record;
mod restore;
mod slots;
mod snapshot;

pub use apply::{ApplyContext, ExpiredKey};
pub use evict::{Evictor, Victim};
pub use keyspace::{Reach, Spot, Store};
pub use memory::{MemoryLimit, Policy};
pub use record::LargeValue;
pub use restore::{RestoreError, Restorer};
pub use snapshot::snapshot_bytes;

/// Longest key that a write accepts, bytes. Longer ones are refused, so that a record's header stays small and an index
/// or a reply of keys stays bounded; reads of longer keys find nothing.
pub const KEY_BYTES_MAX: usize = u16::MAX as usize;

/// Longest reply of one command, bytes: more fits no frame between a node and a proxy.
pub const REPLY_BYTES_MAX: usize = 48 << 20;

/// Longest value, bytes; the same as the largest bulk string that a client may send.
pub const VALUE_BYTES_MAX: usize = 32 << 20;
