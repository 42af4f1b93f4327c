//! Changes for the meta group which clients of one worker asked for and which are under way.
//!
//! A core only lists them; its shell carries them out beside the turns and gives each its outcome.

use crate::session::Ticket;
use crate::slab::Slab;
use ringfort_wire::MetaWrite;

/// Most errands of one worker that are under way; the next is answered [`TOO_MANY`].
pub const ERRANDS_MAX: usize = 64;
/// What a client is told beyond [`ERRANDS_MAX`].
pub const TOO_MANY: &str =
    "TRYAGAIN too many changes of the cluster's settings are under way; nothing was changed";

/// The errands of one worker.
#[derive(Debug, Default)]
pub struct Errands {
    under_way: Slab<(u64, Ticket)>,
    new: Vec<(u64, MetaWrite)>,
}

impl Errands {
    /// Begins an errand for a client's command. Returns whether there is room for it.
    pub fn begin(&mut self, client: u64, ticket: Ticket, write: MetaWrite) -> bool {
        let has_room = self.under_way.len() < ERRANDS_MAX;
        if has_room {
            let id = self.under_way.insert((client, ticket));
            self.new.push((id, write));
        }
        has_room
    }

    /// Takes the errands that are new, with their numbers.
    pub fn take(&mut self) -> Vec<(u64, MetaWrite)> {
        core::mem::take(&mut self.new)
    }

    /// An errand is over; returns the client's command that waits for it.
    pub fn end(&mut self, errand: u64) -> Option<(u64, Ticket)> {
        self.under_way.remove(errand)
    }
}

/// The reply for an errand's outcome.
pub fn reply(outcome: &Result<(), String>) -> Vec<u8> {
    match outcome {
        Ok(()) => b"+OK\r\n".to_vec(),
        Err(error) => format!("-{}\r\n", error.replace(['\r', '\n'], " ")).into_bytes(),
    }
}
