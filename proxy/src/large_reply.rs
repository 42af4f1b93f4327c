//! A large reply, as its parts come on a link: kept in pieces, which are sent to the client as they are.

use bytes::Bytes;
use ringfort_wire::request::ReplyPart;

/// Bytes of a large reply that are kept in one piece: megabytes in one would be memory of the system's, filled with zeros
/// first and given back at once, which takes milliseconds.
const PIECE_BYTES: usize = 64 << 10;

/// What has come of a large reply.
#[derive(Debug)]
pub(crate) struct LargeReply {
    id: u64,
    whole_len: u32,
    len: usize,
    pieces: Vec<Bytes>,
    /// The next of them, not full yet.
    piece: Vec<u8>,
}

impl LargeReply {
    /// The reply whose first part this is; [`LargeReply::take`] takes it.
    pub(crate) fn new(part: &ReplyPart<'_>) -> Self {
        Self { id: part.id, whole_len: part.whole_len, len: 0, pieces: Vec::new(), piece: Vec::new() }
    }

    /// The request that it answers.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Whether all of it has come.
    pub(crate) fn is_whole(&self) -> bool {
        self.len == self.whole_len as usize
    }

    /// Takes the next part; `false`: it is of another reply, or too long.
    pub(crate) fn take(&mut self, part: &ReplyPart<'_>) -> bool {
        let len = self.len + part.bytes.len();
        let fits = self.id == part.id && self.whole_len == part.whole_len && len <= part.whole_len as usize;
        if fits {
            self.len = len;
            let mut rest = part.bytes;
            while !rest.is_empty() {
                let (next, after) = rest.split_at(rest.len().min(PIECE_BYTES - self.piece.len()));
                self.piece.extend_from_slice(next);
                rest = after;
                if self.piece.len() == PIECE_BYTES || self.is_whole() && rest.is_empty() {
                    self.pieces.push(core::mem::take(&mut self.piece).into());
                }
            }
        }
        fits
    }

    /// All that has come, once it is whole.
    pub(crate) fn into_pieces(self) -> Vec<Bytes> {
        self.pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_any_size_become_pieces_of_one_size() {
        let whole: Vec<u8> = (0..3 * PIECE_BYTES + 5).map(|i| i as u8).collect();
        for step in [1, 11, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, whole.len()] {
            let part = |bytes| ReplyPart { id: 7, whole_len: whole.len() as u32, bytes };
            let mut large = LargeReply::new(&part(&[]));
            for bytes in whole.chunks(step) {
                assert!(!large.is_whole() && large.take(&part(bytes)));
            }
            assert!(large.is_whole() && large.id() == 7);
            assert!(!large.take(&part(&[0])), "it would be too long");
            let pieces = large.into_pieces();
            assert_eq!(
                pieces.iter().map(Bytes::len).collect::<Vec<_>>(),
                [PIECE_BYTES, PIECE_BYTES, PIECE_BYTES, 5]
            );
            assert_eq!(pieces.concat(), whole);
        }
    }

    #[test]
    fn a_part_of_another_reply_is_not_taken() {
        let part = |id, whole_len| ReplyPart { id, whole_len, bytes: b"x" };
        let mut large = LargeReply::new(&part(7, 3));
        assert!(large.take(&part(7, 3)));
        assert!(!large.take(&part(8, 3)) && !large.take(&part(7, 4)));
    }
}
