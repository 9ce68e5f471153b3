//! A TLS connection as hyper reads and writes it: rustls over a tokio socket. Reads decrypt straight into hyper's buffer;
//! what is written is encrypted at once and leaves with the flush, so that the frames of many streams share a system
//! call. Used for HTTP/2 from clients and to endpoints.

use std::io::{self, BufRead as _, IoSlice, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::Connection;
use tokio::net::TcpStream;

/// Encrypted bytes that may wait for the kernel before the writer has to.
const BUFFER: usize = 128 << 10;

/// One connection.
#[derive(Debug)]
pub struct TlsStream {
    socket: TcpStream,
    session: Connection,
}

impl TlsStream {
    /// A connection whose handshake is done.
    pub fn new(socket: TcpStream, mut session: Connection) -> Self {
        session.set_buffer_limit(Some(BUFFER));
        Self { socket, session }
    }

    /// What it runs over.
    pub(in crate::l7) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Sends as much as the kernel takes.
    fn send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut Socket(&self.socket)) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.socket.poll_write_ready(cx))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn write(
        &mut self,
        cx: &mut Context<'_>,
        write: impl Fn(&mut dyn Write) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let taken = write(&mut self.session.writer())?;
            if taken > 0 {
                return Poll::Ready(Ok(taken));
            }
            // The buffer is full.
            ready!(self.send(cx))?;
        }
    }
}

impl hyper::rt::Read for TlsStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match this.session.reader().fill_buf() {
                Ok(plain) => {
                    let count = plain.len().min(buffer.remaining());
                    buffer.put_slice(&plain[..count]);
                    this.session.reader().consume(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
            match this.session.read_tls(&mut Socket(&this.socket)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(this.socket.poll_read_ready(cx))?;
                    continue;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
            if let Err(error) = this.session.process_new_packets() {
                // The alert, if it can be sent at once.
                let _ = this.session.write_tls(&mut Socket(&this.socket));
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
            }
            // Answers of the protocol itself; what the kernel does not take now leaves with the next flush.
            if this.session.wants_write() && !this.session.is_handshaking() {
                let _ = this.session.write_tls(&mut Socket(&this.socket));
            }
        }
    }
}

impl hyper::rt::Write for TlsStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.get_mut().write(cx, |writer| writer.write(bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().send(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.session.send_close_notify();
        ready!(this.send(cx))?;
        tokio::io::AsyncWrite::poll_shutdown(Pin::new(&mut this.socket), cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if pieces.iter().all(|piece| piece.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        self.get_mut().write(cx, |writer| writer.write_vectored(pieces))
    }
}

/// Shakes hands to the end: everything is sent, and nothing is read that is not needed. An error has told the peer, if
/// there was something to tell.
pub async fn handshake(socket: &TcpStream, session: &mut Connection) -> io::Result<()> {
    loop {
        while session.wants_write() {
            match session.write_tls(&mut Socket(socket)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.writable().await?,
                Err(error) => return Err(error),
            }
        }
        if !session.is_handshaking() {
            return Ok(());
        }
        match session.read_tls(&mut Socket(socket)) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                socket.readable().await?;
                continue;
            }
            Err(error) => return Err(error),
        }
        process(socket, session)?;
    }
}

/// Waits for bytes and reads some. 0: the peer has closed.
pub(in crate::l7) async fn read(socket: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        socket.readable().await?;
        match socket.try_read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            done => return done,
        }
    }
}

/// Lets rustls look at what was read.
pub(super) fn process(socket: &TcpStream, session: &mut Connection) -> io::Result<()> {
    if let Err(error) = session.process_new_packets() {
        let _ = session.write_tls(&mut Socket(socket));
        return Err(io::Error::new(io::ErrorKind::InvalidData, error));
    }
    Ok(())
}

/// The socket as rustls wants it: it never waits.
pub(super) struct Socket<'s>(pub(super) &'s TcpStream);

impl Read for Socket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(pieces)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
