//! What happened, in order: always as a hash, as text when somebody wants to read it.

use twox_hash::XxHash3_64;

/// Lines that are kept.
const LINES_MAX: usize = 4_000_000;

/// The record of a run.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    hash: u64,
    events: u64,
    /// `None`: nobody reads it.
    pub(crate) lines: Option<Vec<String>>,
}

impl Trace {
    pub(crate) fn new(is_read: bool) -> Self {
        Self { lines: is_read.then(Vec::new), ..Self::default() }
    }

    /// Takes part in the hash.
    pub(crate) fn note(&mut self, now: u64, kind: u64, a: u64, b: u64) {
        let mut h = self.hash;
        for word in [now, kind, a, b] {
            h = (h.rotate_left(5) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        }
        self.hash = h;
        self.events += 1;
    }

    pub(crate) fn note_bytes(&mut self, now: u64, kind: u64, a: u64, bytes: &[u8]) {
        self.note(now, kind, a, XxHash3_64::oneshot(bytes));
    }

    /// A line, built only if somebody reads it.
    pub(crate) fn line(&mut self, now: u64, text: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines
            && lines.len() < LINES_MAX
        {
            lines.push(format!("{:>11.6} {}", now as f64 / 1e6, text()));
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn events(&self) -> u64 {
        self.events
    }
}
