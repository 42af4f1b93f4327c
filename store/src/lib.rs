//! The keyspace of one partition: deterministic, no I/O, no clock.
