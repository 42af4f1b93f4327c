//! A client's connection as the shells of proxy and node hold it: a TCP socket, plain or with TLS on it.

use crate::tls::TlsSession;
use core::cell::RefCell;
use core::task::{Context, Poll, ready};
use core::time::Duration;
use std::io;
use tokio::io::{Interest, Ready};
use tokio::net::TcpStream;

/// How long a client may be silent before the system asks whether it still exists (Redis: `tcp-keepalive`).
const KEEPALIVE: Duration = Duration::from_secs(300);
/// How long a TLS connection that ends may take to send its last encrypted bytes.
pub const FINISH_TIMEOUT: Duration = Duration::from_secs(1);

/// Whether an error of a socket that does not block says that it is of no use any more, and not only that nothing can be
/// done now. Whoever takes the first for the second tries again for ever.
pub fn is_fatal(error: &io::Error) -> bool {
    !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Reads what is there now, as [`TcpStream::try_read`]. A read that leaves room in the buffer has emptied the socket: whoever
/// waits for more is not told that there is some, only to ask in vain. (`AsyncRead` does the same, `try_read` does not.)
///
/// # Errors
/// `WouldBlock`: nothing is there now. Others: see [`is_fatal`].
pub fn read_some(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut last = None;
    let result = stream.try_io(Interest::READABLE, || {
        let count = rustix::io::read(stream, &mut *buffer)?;
        if (1..buffer.len()).contains(&count) {
            // What the runtime takes for "nothing is there" makes it wait for the system's next word.
            last = Some(count);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(count)
    });
    last.map_or(result, Ok)
}

/// A connection on its way to the worker that will serve it; its handshake, if there is one, is done.
#[derive(Debug)]
pub struct ClientSocket {
    tcp: std::net::TcpStream,
    tls: Option<Box<TlsSession>>,
}

impl ClientSocket {
    /// A plain connection. The socket must be non-blocking.
    pub fn plain(tcp: std::net::TcpStream) -> Self {
        Self { tcp, tls: None }
    }

    pub(crate) fn encrypted(tcp: std::net::TcpStream, tls: TlsSession) -> Self {
        Self { tcp, tls: Some(Box::new(tls)) }
    }

    /// Whether it came by TLS.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Sends a last word and closes. The buffer of a new socket has room; a client that is gone needs no answer.
    pub fn turn_away(self, word: &[u8]) {
        let mut tcp = &self.tcp;
        let _ = match self.tls {
            None => io::Write::write(&mut tcp, word),
            Some(mut tls) => tls.write(word, &mut tcp).inspect(|_| tls.end(&mut tcp)),
        };
    }
}

/// A connection in the runtime of its worker. What it calls readable and writable counts for the client's own bytes, so a
/// caller need not know whether there is TLS.
#[derive(Debug)]
pub struct ClientStream {
    tcp: TcpStream,
    tls: Option<Box<RefCell<TlsSession>>>,
}

impl ClientStream {
    /// Shortest buffer that [`ClientStream::try_read`] can use.
    pub const READ_BYTES_MIN: usize = 32 << 10;

    /// Takes a connection into the runtime of the calling thread; the system asks from time to time whether a silent client
    /// still exists.
    ///
    /// # Errors
    /// The system does not watch the socket, or the client is gone: drop it.
    pub fn new(socket: ClientSocket) -> io::Result<Self> {
        let tcp = TcpStream::from_std(socket.tcp)?;
        tcp.set_nodelay(true)?;
        let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE);
        socket2::SockRef::from(&tcp).set_tcp_keepalive(&keepalive)?;
        Ok(Self { tcp, tls: socket.tls.map(|tls| Box::new(RefCell::new(*tls))) })
    }

    /// Whether it came by TLS.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// The socket, for its options and addresses.
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Reads what the client has sent; 0 is its end.
    ///
    /// # Errors
    /// `WouldBlock`: nothing is there now. Others: the connection is of no use any more.
    ///
    /// # Panics
    /// `buffer` is shorter than [`ClientStream::READ_BYTES_MIN`] and there is TLS.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.tls {
            None => read_some(&self.tcp, buffer),
            Some(tls) => {
                let tls = &mut *tls.borrow_mut();
                let result = tls.read(buffer, |cipher| read_some(&self.tcp, cipher));
                // Room for writing is often there: an answer of TLS itself, or its word on what was wrong.
                let _ = tls.flush(&mut Writer(&self.tcp));
                result
            }
        }
    }

    /// Sends bytes to the client; returns how many were taken, at least one.
    ///
    /// # Errors
    /// `WouldBlock`: there is no room now. Others: the connection is of no use any more.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match &self.tls {
            None => self.tcp.try_write(bytes),
            Some(tls) => tls.borrow_mut().write(bytes, &mut Writer(&self.tcp)),
        }
    }

    /// Whether bytes that [`ClientStream::try_write`] took, or that TLS itself has to say, are not with the system yet.
    /// [`ClientStream::ready`] and [`ClientStream::poll_flush`] send them on.
    pub fn has_unsent(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.borrow().wants_write())
    }

    /// Waits until the connection can be read or written, as wanted; for ever when neither is and nothing is unsent.
    ///
    /// # Errors
    /// The connection is of no use any more.
    pub async fn ready(&self, read: bool, write: bool) -> io::Result<Ready> {
        if read && self.has_plain() {
            return Ok(Ready::READABLE);
        }
        let interest = match (read, write || self.has_unsent()) {
            (true, true) => Interest::READABLE | Interest::WRITABLE,
            (true, false) => Interest::READABLE,
            (false, true) => Interest::WRITABLE,
            (false, false) => core::future::pending().await,
        };
        let ready = self.tcp.ready(interest).await?;
        if ready.is_writable()
            && let Some(tls) = &self.tls
        {
            tls.borrow_mut().flush(&mut Writer(&self.tcp))?;
        }
        Ok(ready)
    }

    /// As [`ClientStream::try_read`]; when nothing is there now, the task is woken when there is.
    pub fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        for _ in 0..2 {
            match self.try_read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.tcp.poll_read_ready(cx))?;
                }
                result => return Poll::Ready(result),
            }
        }
        // Much came that says nothing: others first.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether there is more to read now; if not, the task is woken when there is.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> bool {
        self.has_plain() || self.tcp.poll_read_ready(cx).is_ready()
    }

    /// Sends what is unsent; when there is no room for all of it, the task is woken when there is.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.has_unsent() {
            ready!(self.poll_write(cx, &[]))?;
        }
        Poll::Ready(Ok(()))
    }

    /// As [`ClientStream::try_write`]; when there is no room now, the task is woken when there is.
    pub fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.tcp.poll_write_ready(cx))?;
                }
                result => return Poll::Ready(result),
            }
        }
    }

    /// Sends what is unsent, for [`FINISH_TIMEOUT`] at most, and tells a TLS client that this is the end.
    pub async fn finish(&self) {
        let Some(tls) = &self.tls else { return };
        let flush = async { while self.has_unsent() && self.ready(false, true).await.is_ok() {} };
        // A client that does not read in time does not get the rest.
        let _ = tokio::time::timeout(FINISH_TIMEOUT, flush).await;
        tls.borrow_mut().end(&mut Writer(&self.tcp));
    }

    /// Whether bytes of the client may be here that the socket does not show.
    fn has_plain(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.borrow().has_plain())
    }
}

/// Writes to a socket without waiting.
pub(crate) struct Writer<'a>(pub(crate) &'a TcpStream);

impl io::Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, pieces: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(pieces)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
