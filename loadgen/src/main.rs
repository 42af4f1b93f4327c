//! `ringfort-loadgen`: measures and checks a Redis-speaking cluster.
fn main() {}
