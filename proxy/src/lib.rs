//! The proxy: client sessions, routing, splitting and joining, retries. The core does no I/O.
