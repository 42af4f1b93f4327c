//! Internal frames.
