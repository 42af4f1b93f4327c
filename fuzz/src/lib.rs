//! What the fuzz targets do with their bytes.
//!
//! Each module has one function `run`, which panics when a law of the code under test is broken: libFuzzer calls it from
//! `fuzz_targets/`, and `tests/fuzz/main.rs` of the main workspace calls it for the corpora and for changed copies of them.
//! The laws are listed at the top of each module.
//!
//! A target reads its input front to back by [`input::Input`], and `tests/fuzz/seeds.rs` writes the same layout out of real
//! encodings; so a corpus begins deep in the formats.

pub mod frames;
pub mod input;
pub mod log;
pub mod machine;
pub mod reply;
pub mod resp;
pub mod snapshot;
pub mod text;

/// A target: its name, which is that of its corpus's folder, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 7] = [
    ("resp", resp::run),
    ("reply", reply::run),
    ("log", log::run),
    ("snapshot", snapshot::run),
    ("frames", frames::run),
    ("machine", machine::run),
    ("text", text::run),
];
