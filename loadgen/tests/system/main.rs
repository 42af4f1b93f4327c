//! The load generator against a server within the test.

mod check;
mod cli;
mod compare;
mod load;
mod server;
