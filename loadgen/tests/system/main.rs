//! The load generator against a server within the test.

mod check;
mod load;
mod server;
