//! Lookup, balance and movement of the ring beside its alternatives.
fn main() {}
