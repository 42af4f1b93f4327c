//! The built binary as its users run it: real processes, sockets, disks and signals.
//!
//! Every test starts its own cluster on loopback addresses of its own, so that tests may run side by side.

mod bad_input;
mod bootstrap;
mod client;
mod clients;
mod cluster;
mod commands;
mod departures;
#[cfg(debug_assertions)]
mod disk_errors;
mod disk_full;
mod drain;
mod expiry;
mod failover;
#[cfg(debug_assertions)]
mod failpoints;
mod faults;
mod follow;
mod limits;
mod memory;
mod metrics;
mod move_faults;
mod moves;
mod operator;
mod overload;
mod plan;
#[cfg(debug_assertions)]
mod power;
mod process;
mod reads;
mod recovery;
mod redis_crate;
mod restart;
mod scan;
mod secret;
mod settings;
mod snapshot;
mod tls;
mod wait;
