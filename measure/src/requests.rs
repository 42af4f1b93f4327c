//! Commands of a pipeline, and what answers them.

/// Commands that arrive together.
pub const PIPELINE: usize = 16;
/// Different keys.
pub const KEYS: usize = 10_000;
/// Bytes of a value.
pub const VALUE_BYTES: usize = 64;

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
        let reply_bytes = PIPELINE * (b"$64\r\n".len() + VALUE_BYTES + 2);
        Self { requests: pipelines(spread, |key, out| command(&[b"GET", key], out)), reply_bytes }
    }

    /// SETs of all keys.
    pub fn set(spread: Spread) -> Self {
        let write = |key: &[u8], out: &mut Vec<u8>| command(&[b"SET", key, &[b'v'; VALUE_BYTES]], out);
        Self { requests: pipelines(spread, write), reply_bytes: PIPELINE * b"+OK\r\n".len() }
    }
}

fn pipelines(spread: Spread, write: impl Fn(&[u8], &mut Vec<u8>)) -> Vec<Vec<u8>> {
    let pipeline = |first: usize| {
        let mut out = Vec::new();
        for number in first..first + PIPELINE {
            let key = match spread {
                Spread::Many => format!("key:{number:012}"),
                Spread::One => format!("{{one}}:{number:010}"),
            };
            write(key.as_bytes(), &mut out);
        }
        out
    };
    (0..KEYS / PIPELINE).map(|i| pipeline(i * PIPELINE)).collect()
}

/// Appends a command as clients send it.
pub fn command(args: &[&[u8]], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
    for arg in args {
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}
