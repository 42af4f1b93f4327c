//! The fuzz targets without a fuzzer: their corpora, and some thousand changed copies of them, in an ordinary test.
//!
//! `FUZZ_INPUTS=n` sets how many copies each target gets, `FUZZ_SEED=n` chooses others. What is found here or by libFuzzer
//! (`scripts/fuzz`) becomes a test of the part that it broke, beside its input in the corpus.

#[expect(unreachable_pub, reason = "the folder fuzz/ is a crate of its own, which exports them")]
#[path = "../../fuzz/src/lib.rs"]
mod targets;

mod change;
#[expect(clippy::unwrap_used, reason = "real encodings do not fail")]
mod seeds;

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// Copies for each target unless `FUZZ_INPUTS` says otherwise.
const INPUTS: u64 = 10_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

fn folder(kind: &str, target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(kind).join(target)
}

fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("the folder is readable").path())
        .map(|path| {
            let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
            (name, std::fs::read(path).expect("the file is readable"))
        })
        .collect();
    files.sort();
    files
}

fn hold(target: &str) {
    let (_, run) = targets::TARGETS.into_iter().find(|(name, _)| *name == target).expect("a target");
    let inputs: Vec<Vec<u8>> = ["seeds", "corpus"]
        .into_iter()
        .flat_map(|kind| files(&folder(kind, target)))
        .map(|(_, bytes)| bytes)
        .collect();
    let run = |what: &str, input: &[u8]| {
        if catch_unwind(AssertUnwindSafe(|| run(input))).is_err() {
            let hex = input.iter().fold(String::new(), |mut hex, byte| {
                let _ = write!(hex, "{byte:02x}");
                hex
            });
            panic!("target {target} fails on {what}: {hex}");
        }
    };
    inputs.iter().for_each(|input| run("a file", input));
    let mut change = change::Change::new(number("FUZZ_SEED").unwrap_or(1));
    for n in 0..number("FUZZ_INPUTS").unwrap_or(INPUTS) {
        run(&format!("changed input {n}"), &change.one(&inputs));
    }
}

macro_rules! hold {
    ($($target:ident)*) => { mod holds { $(#[test] fn $target() { super::hold(stringify!($target)); })* } };
}
hold!(resp reply log snapshot frames machine text);

/// The seeds are real encodings; when a format changes, so do they: `FUZZ_WRITE_SEEDS=1` writes them anew.
#[test]
fn the_seeds_are_those_of_todays_formats() {
    for (target, seeds) in seeds::all() {
        let folder = folder("seeds", target);
        if number("FUZZ_WRITE_SEEDS").is_some() {
            let _ = std::fs::remove_dir_all(&folder);
            std::fs::create_dir_all(&folder).unwrap();
            for (name, bytes) in &seeds {
                std::fs::write(folder.join(name), bytes).unwrap();
            }
        }
        assert!(files(&folder) == seeds, "the seeds of {target} are not those in {}", folder.display());
    }
}
