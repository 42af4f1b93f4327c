//! Why a command was refused, in Redis's own words.

use ringfort_resp::{ReplyWriter, ScanError};

/// A command that changed nothing; its text is the reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CommandError {
    /// An option that is unknown, or not allowed beside another one.
    #[error("ERR syntax error")]
    Syntax,
    /// Too few or too many arguments.
    #[error("ERR wrong number of arguments for '{0}' command")]
    Arity(&'static str),
    /// An argument, or the value to add to, is no 64-bit integer.
    #[error("ERR value is not an integer or out of range")]
    NotInteger,
    /// The sum is no 64-bit integer.
    #[error("ERR increment or decrement would overflow")]
    Overflow,
    /// DECRBY by the one number whose negation is no 64-bit integer.
    #[error("ERR decrement would overflow")]
    DecrementOverflow,
    /// An argument, or the value to add to, is no number.
    #[error("ERR value is not a valid float")]
    NotFloat,
    /// The sum is no finite number.
    #[error("ERR increment would produce NaN or Infinity")]
    NotFinite,
    /// A negative offset.
    #[error("ERR offset is out of range")]
    Offset,
    /// RENAME of a key that does not exist.
    #[error("ERR no such key")]
    NoSuchKey,
    /// COPY of a key to itself.
    #[error("ERR source and destination objects are the same")]
    SameKey,
    /// A database number that is no 32-bit integer.
    #[error("ERR value is out of range, value must between -2147483648 and 2147483647")]
    NotInt32,
    /// A database other than 0.
    #[error("ERR DB index is out of range")]
    Database,
    /// Both LEN and IDX.
    #[error("ERR If you want both the length and indexes, please just use IDX.")]
    LcsLenAndIdx,
    /// The table of LCS would be larger than [`VALUE_BYTES_MAX`](crate::VALUE_BYTES_MAX).
    #[error("ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len")]
    LcsTooLarge,
    /// An expiry that is not positive where it must be, or too far away to be stored.
    #[error("ERR invalid expire time in '{0}' command")]
    ExpireTime(&'static str),
    /// An unknown option of EXPIRE and its kin.
    #[error("ERR Unsupported option {}", .0.escape_ascii())]
    UnsupportedOption(Vec<u8>),
    /// Options of EXPIRE and its kin that exclude each other.
    #[error("ERR NX and XX, GT or LT options at the same time are not compatible")]
    NxWithOther,
    /// Options of EXPIRE and its kin that exclude each other.
    #[error("ERR GT and LT options at the same time are not compatible")]
    GtWithLt,
    /// The resulting value is longer than [`VALUE_BYTES_MAX`](crate::VALUE_BYTES_MAX).
    #[error("ERR string exceeds maximum allowed size (proto-max-bulk-len)")]
    ValueTooLong,
    /// The key is longer than [`KEY_BYTES_MAX`](crate::KEY_BYTES_MAX); not in Redis, which allows 512 MiB.
    #[error("ERR key exceeds maximum allowed size ({} bytes)", crate::KEY_BYTES_MAX)]
    KeyTooLong,
    /// The reply is longer than [`REPLY_BYTES_MAX`](crate::REPLY_BYTES_MAX); not in Redis, which cuts the client instead.
    #[error("ERR the reply is too large; ask for fewer keys at once")]
    ReplyTooLong,
    /// As [`Self::ReplyTooLong`], of KEYS and CLUSTER GETKEYSINSLOT.
    #[error("ERR the reply is too large; use SCAN, or a narrower pattern")]
    KeysTooLong,
    /// The arguments of SCAN, or a pattern.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// No slot.
    #[error("ERR Invalid slot")]
    Slot,
    /// No slot, or a negative number of keys.
    #[error("ERR Invalid slot or number of keys")]
    SlotOrCount,
    /// OBJECT FREQ under a policy that does not count uses.
    #[error(
        "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching \
         between policies at runtime LRU and LFU data will take some time to adjust."
    )]
    FreqNotTracked,
    /// OBJECT IDLETIME under a policy that counts uses.
    #[error(
        "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when switching between \
         policies at runtime LRU and LFU data will take some time to adjust."
    )]
    IdleTimeNotTracked,
    /// The key's slot is not one of this partition's: a mistake of the router, never the client's.
    #[error("ERR key belongs to another partition")]
    Misplaced,
    /// A command that the keyspace does not execute, or a write sent to the reading door.
    #[error("ERR command is not served here")]
    NotServed,
}

impl CommandError {
    /// Writes the error as the command's reply.
    pub(crate) fn write(&self, reply: &mut ReplyWriter<'_>) {
        match self {
            // Redis echoes the option's own bytes, which need not be text.
            Self::UnsupportedOption(option) => {
                let end = option.iter().rposition(|b| !is_line_break(*b)).map_or(0, |last| last + 1);
                let mut line = b"-ERR Unsupported option ".to_vec();
                line.extend(option[..end].iter().map(|b| if is_line_break(*b) { b' ' } else { *b }));
                line.extend_from_slice(b"\r\n");
                reply.raw(&line);
            }
            other => reply.error(&other.to_string()),
        }
    }
}

fn is_line_break(byte: u8) -> bool {
    byte == b'\r' || byte == b'\n'
}
