//! What a session has to send: bytes that it wrote, and large replies that it shares with others.

use bytes::Bytes;
use std::collections::VecDeque;

/// Capacity of the buffer that is kept when it is empty, bytes.
const KEPT_BYTES: usize = 256 << 10;

#[derive(Debug)]
enum Part {
    Written(Vec<u8>),
    Shared(Bytes),
}

impl Part {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Written(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

/// The output of a session.
///
/// # Invariants
/// Only the last part may be empty, and only one that was written.
#[derive(Debug, Default)]
pub(super) struct Output {
    parts: VecDeque<Part>,
    /// Bytes of the first part that are sent already.
    sent: usize,
    /// Bytes that are not.
    len: usize,
}

impl Output {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The next bytes to send: none only if there are none.
    pub(super) fn first(&self) -> &[u8] {
        self.parts.front().map_or(&[], |part| &part.bytes()[self.sent..])
    }

    /// Has something appended to a buffer.
    pub(super) fn write<T>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        if let Some(Part::Written(bytes)) = self.parts.back_mut() {
            let before = bytes.len();
            let result = write(bytes);
            self.len += bytes.len() - before;
            return result;
        }
        let mut bytes = Vec::new();
        let result = write(&mut bytes);
        self.len += bytes.len();
        self.parts.push_back(Part::Written(bytes));
        result
    }

    /// Appends bytes as they are.
    pub(super) fn share(&mut self, pieces: Vec<Bytes>) {
        if self.parts.back().is_some_and(|last| last.bytes().is_empty()) {
            self.parts.pop_back();
        }
        for piece in pieces.into_iter().filter(|piece| !piece.is_empty()) {
            self.len += piece.len();
            self.parts.push_back(Part::Shared(piece));
        }
    }

    /// Forgets `count` of the next bytes, which have been sent.
    pub(super) fn sent(&mut self, count: usize) {
        debug_assert!(count <= self.first().len(), "more was sent than there was");
        self.sent += count;
        self.len -= count;
        if !self.first().is_empty() {
            return;
        }
        self.sent = 0;
        if let Some(Part::Written(mut bytes)) = self.parts.pop_front()
            && self.parts.is_empty()
        {
            bytes.clear();
            bytes.shrink_to(KEPT_BYTES);
            self.parts.push_back(Part::Written(bytes));
        }
    }

    /// Bytes of memory that its buffers have.
    #[cfg(test)]
    pub(super) fn buffer_bytes(&self) -> usize {
        let written = self.parts.iter().map(|part| match part {
            Part::Written(bytes) => bytes.capacity(),
            Part::Shared(_) => 0,
        });
        written.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends everything, at most `step` bytes at a time.
    fn send_all(output: &mut Output, step: usize) -> Vec<u8> {
        let mut sent = Vec::new();
        while !output.first().is_empty() {
            let piece = &output.first()[..step.min(output.first().len())];
            sent.extend_from_slice(piece);
            output.sent(piece.len());
        }
        assert_eq!(output.len(), 0);
        sent
    }

    #[test]
    fn leaves_in_order_and_keeps_its_buffer() {
        for step in [1, 3, 100] {
            let mut output = Output::default();
            for _ in 0..2 {
                output.write(|out| out.extend_from_slice(b"ab"));
                output.share(vec![Bytes::from_static(b"cde"), Bytes::new(), Bytes::from_static(b"f")]);
                output.write(|_| ());
                output.share(vec![Bytes::from_static(b"g")]);
                output.write(|out| out.extend_from_slice(b"hi"));
                output.write(|out| out.push(b'j'));
                assert_eq!(output.len(), 10);
                assert_eq!(send_all(&mut output, step), b"abcdefghij");
            }
            assert!(output.buffer_bytes() > 0);
        }
    }
}
