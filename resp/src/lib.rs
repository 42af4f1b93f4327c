//! The Redis serialization protocol (RESP2 and RESP3) and the one table of commands.
//!
//! No I/O happens here: bytes come in as slices, replies go out into a `Vec<u8>`.
//!
//! - [`decode`]: client bytes -> commands, in place, incrementally.
//! - [`encode`]: replies -> bytes, for the protocol version of the connection.
//! - [`reply`]: reply bytes -> element boundaries (to split and join replies without copying values), or owned values.
//! - [`glob`]: the patterns of KEYS, SCAN and CONFIG GET.
//! - [`scan`]: the arguments and the cursor of SCAN.
//! - [`commands`]: name, arity, flags and key positions of every command.

pub mod commands;
mod decimal;
pub mod decode;
pub mod encode;
pub mod glob;
pub mod reply;
pub mod scan;

pub use commands::{Command, CommandSpec, Keys, Scope};
pub use decode::{CommandDecoder, Limits, ProtocolError, Status};
pub use encode::{Protocol, ReplyWriter, write_command};
pub use glob::Glob;
pub use reply::{FrameScanner, ReplyError, Value};
pub use scan::{Cursor, ScanArgs, ScanError};
