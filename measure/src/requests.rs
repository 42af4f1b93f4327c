//! Commands of a pipeline, and what answers them.

use ringfort_resp::write_command;

/// Commands that arrive together.
pub const PIPELINE: usize = 16;
/// Different keys.
pub const KEYS: usize = 10_000;
/// A value.
pub const VALUE: [u8; 64] = [b'v'; 64];

/// Which keys a pipeline asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// Of any partition.
    Many,
    /// Of one partition, by a hash tag.
    One,
}

/// Pipelines that are sent again and again.
#[derive(Debug)]
pub struct Pipelines {
    /// The bytes of each.
    pub requests: Vec<Vec<u8>>,
    /// Bytes of the replies to one of them.
    pub reply_bytes: usize,
}

impl Pipelines {
    /// GETs of all keys.
    pub fn get(spread: Spread) -> Self {
        let reply_bytes = PIPELINE * (b"$64\r\n".len() + VALUE.len() + 2);
        Self { requests: pipelines(spread, |key, out| write_command(&[&b"GET"[..], key], out)), reply_bytes }
    }

    /// SETs of all keys.
    pub fn set(spread: Spread) -> Self {
        let write = |key: &[u8], out: &mut Vec<u8>| write_command(&[&b"SET"[..], key, &VALUE], out);
        Self { requests: pipelines(spread, write), reply_bytes: PIPELINE * b"+OK\r\n".len() }
    }
}

fn pipelines(spread: Spread, write: impl Fn(&[u8], &mut Vec<u8>)) -> Vec<Vec<u8>> {
    let pipeline = |first: usize| {
        let mut out = Vec::new();
        for number in first..first + PIPELINE {
            write(key(spread, number).as_bytes(), &mut out);
        }
        out
    };
    (0..KEYS / PIPELINE).map(|i| pipeline(i * PIPELINE)).collect()
}

/// A key of 16 bytes.
pub fn key(spread: Spread, number: usize) -> String {
    match spread {
        Spread::Many => format!("key:{number:012}"),
        Spread::One => format!("{{one}}:{number:010}"),
    }
}
