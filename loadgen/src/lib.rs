//! Load generator and checker of acknowledged writes.
