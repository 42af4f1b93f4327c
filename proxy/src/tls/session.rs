//! TLS on one connection: bytes of the socket on one side, bytes of the client on the other. It knows no socket.

use rustls::{ServerConfig, ServerConnection};
use std::io::{self, Read as _, Write};
use std::sync::Arc;

/// Most encrypted bytes of a connection that wait for its socket; at the limit the client's replies stay in its session.
pub const UNSENT_BYTES_MAX: usize = 256 << 10;

/// Reads of the socket in a row that may give nothing for the client's session; then other connections have their turn.
const READS_MAX: usize = 4;

/// Room in front of what is read: more than one record of TLS.
const RECORD_ROOM: usize = 20 << 10;

/// The server's side of one TLS connection.
#[derive(Debug)]
pub(crate) struct TlsSession {
    connection: ServerConnection,
    /// Whether nothing was read since the handshake, whose last packet may have brought the client's first bytes.
    is_fresh: bool,
    /// Whether the client has said that it sends no more. Its farewell may have come with its last bytes, so that the socket
    /// shows nothing of it.
    is_ended: bool,
}

impl TlsSession {
    pub(super) fn new(config: Arc<ServerConfig>) -> io::Result<Self> {
        let mut connection = ServerConnection::new(config).map_err(io::Error::other)?;
        connection.set_buffer_limit(Some(UNSENT_BYTES_MAX));
        Ok(Self { connection, is_fresh: true, is_ended: false })
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Takes bytes of the handshake.
    pub(super) fn handshake(&mut self, mut bytes: &[u8]) -> Result<(), rustls::Error> {
        while !bytes.is_empty() {
            match self.connection.read_tls(&mut bytes) {
                Ok(1..) => self.is_ended |= self.connection.process_new_packets()?.peer_has_closed(),
                // Nothing more is taken after the client's farewell, nor beyond the library's own bound.
                Ok(0) | Err(_) => return Err(rustls::Error::General("too much, or a farewell".to_owned())),
            }
        }
        Ok(())
    }

    /// Reads bytes of the client, with `read` for those of the socket; 0 is the end. `WouldBlock` does not always mean that
    /// the socket has no more.
    ///
    /// What `read` gives goes to the back of `buffer`, and what it says to the front: that is never longer than the records
    /// it came in, the start of the first of which, at most [`RECORD_ROOM`], was there before.
    pub(crate) fn read(
        &mut self,
        buffer: &mut [u8],
        mut read: impl FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.is_fresh = false;
        for _ in 0..READS_MAX {
            match self.connection.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
            let count = read(&mut buffer[RECORD_ROOM..])?;
            if count == 0 {
                return Ok(0);
            }
            let plain = self.decrypt(buffer, RECORD_ROOM, RECORD_ROOM + count)?;
            if plain > 0 {
                return Ok(plain);
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Decrypts `buffer[start..end]` to the front of `buffer`; returns the length.
    fn decrypt(&mut self, buffer: &mut [u8], mut start: usize, end: usize) -> io::Result<usize> {
        let mut plain = 0;
        while start < end {
            let taken = self.connection.read_tls(&mut &buffer[start..end])?;
            if taken == 0 {
                break; // the client has said that this is its end
            }
            start += taken;
            let state = self
                .connection
                .process_new_packets()
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            self.is_ended |= state.peer_has_closed();
            if state.plaintext_bytes_to_read() > 0 {
                plain += self.connection.reader().read(&mut buffer[plain..start])?;
            }
        }
        Ok(plain)
    }

    /// Encrypts bytes and sends them to `socket` as far as it has room; returns how many were taken, at least one.
    pub(crate) fn write(&mut self, bytes: &[u8], socket: &mut impl Write) -> io::Result<usize> {
        let mut taken = 0;
        self.flush(socket)?;
        while taken < bytes.len() && !self.wants_write() {
            taken += self.connection.writer().write(&bytes[taken..])?;
            self.flush(socket)?;
        }
        if taken == 0 && (self.wants_write() || !bytes.is_empty()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(taken)
    }

    /// Sends what is encrypted, as far as the socket has room.
    pub(crate) fn flush(&mut self, socket: &mut impl Write) -> io::Result<()> {
        while self.wants_write() {
            match self.connection.write_tls(socket) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Says farewell, if there is room.
    pub(crate) fn end(&mut self, socket: &mut impl Write) {
        self.connection.send_close_notify();
        let _ = self.flush(socket);
    }

    /// Whether encrypted bytes wait for the socket.
    pub(crate) fn wants_write(&self) -> bool {
        self.connection.wants_write()
    }

    /// Whether [`TlsSession::read`] may give something although the socket has nothing: bytes of the client, or its end.
    pub(crate) fn has_plain(&self) -> bool {
        self.is_fresh || self.is_ended
    }
}
