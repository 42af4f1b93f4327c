//! Client bytes -> commands.

use core::ops::Range;

/// Bounds on what a client may send; passing one ends the connection with Redis's own error text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest bulk string, bytes (Redis: `proto-max-bulk-len`).
    pub bulk_bytes_max: usize,
    /// Most arguments of one command, the name included.
    pub args_max: usize,
    /// Longest inline command, and longest line of a header, bytes.
    pub inline_bytes_max: usize,
    /// Most bytes of one whole command.
    pub command_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bulk_bytes_max: 32 << 20,
            args_max: 1 << 20,
            inline_bytes_max: 64 << 10,
            command_bytes_max: 48 << 20,
        }
    }
}

/// Why a client's bytes are not a command; the text is what Redis answers after `-ERR Protocol error: `.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// `*N` with N out of range or not a number.
    #[error("invalid multibulk length")]
    MultibulkLength,
    /// `$N` with N out of range or not a number.
    #[error("invalid bulk length")]
    BulkLength,
    /// Something else than `$` where a bulk string must start.
    #[error("expected '$', got '{0}'")]
    ExpectedBulk(char),
    /// An inline command or header line longer than the limit.
    #[error("too big inline request")]
    InlineTooBig,
    /// A header line longer than the limit.
    #[error("too big mbulk count string")]
    MultibulkTooBig,
    /// A header line longer than the limit.
    #[error("too big bulk count string")]
    BulkTooBig,
    /// Unbalanced quotes in an inline command.
    #[error("unbalanced quotes in request")]
    UnbalancedQuotes,
}

/// Outcome of one [`CommandDecoder::decode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// A whole command: its arguments are in [`CommandDecoder::args`]; drop `consumed` bytes from the buffer after use.
    /// Zero arguments (an empty line, `*0`) are to be skipped without a reply.
    Complete {
        /// Bytes of the buffer that the command took.
        consumed: usize,
    },
    /// More bytes are needed; call again with the same buffer, longer. Nothing already scanned is scanned again.
    Incomplete,
}

/// Incremental decoder of one connection. The caller keeps the bytes; the decoder keeps offsets into them.
#[derive(Debug, Default)]
pub struct CommandDecoder {
    _limits: Limits,
    args: Vec<Range<usize>>,
}

impl CommandDecoder {
    /// Creates a decoder with the given bounds.
    pub fn new(limits: Limits) -> Self {
        Self { _limits: limits, args: Vec::new() }
    }

    /// Decodes the next command at the start of `buf`.
    ///
    /// # Errors
    /// The bytes can never become a command: answer the error and close the connection.
    pub fn decode(&mut self, _buf: &[u8]) -> Result<Status, ProtocolError> {
        todo!()
    }

    /// Byte ranges (into the buffer that was decoded) of the arguments of the last complete command, its name first.
    /// For an inline command with quoting the unescaped text is not in the buffer: see [`CommandDecoder::arg`].
    pub fn args(&self) -> &[Range<usize>] {
        &self.args
    }

    /// Argument `i` of the last complete command.
    pub fn arg<'a>(&'a self, buf: &'a [u8], i: usize) -> &'a [u8] {
        &buf[self.args[i].clone()]
    }
}
