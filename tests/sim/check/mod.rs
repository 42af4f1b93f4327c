//! Checkers of histories: what the clients saw must be explained by one order of the operations, in which each takes
//! effect at some instant between its invocation and its return (linearizability, Herlihy and Wing 1990).
//!
//! Deciding that is hard in general, but not here: values and tokens are unique, so each read names the write that it
//! saw. The checkers are exact and take `O(n log n)`; tests compare them with a search over all orders ([`wgl`]).

pub(crate) mod ephemeral;
pub(crate) mod register;
pub(crate) mod sequence;
#[cfg(test)]
pub(crate) mod wgl;

/// Return time of an operation whose outcome is unknown: it may take effect at any later time, or never.
pub(crate) const NEVER: u64 = u64::MAX;

/// The time during which an operation took effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// Virtual µs at which it was sent.
    pub(crate) invoke: u64,
    /// Virtual µs at which its reply came, or [`NEVER`].
    pub(crate) ret: u64,
}

impl Span {
    /// Whether this operation had returned when `other` was invoked.
    pub(crate) fn precedes(self, other: Self) -> bool {
        self.ret < other.invoke
    }
}
