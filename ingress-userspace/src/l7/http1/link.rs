//! One TCP connection, plain or TLS, on edge-triggered epoll: reads into the worker's scratch, sends at once, and keeps
//! only what the kernel would not take. Knows nothing of HTTP. Readiness is remembered here: a short read means that
//! the socket is empty, so no system call is spent on learning it again.

use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};

use super::splice::Pipe;

/// What a read gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received {
    /// So many bytes.
    Data(usize),
    /// Nothing now; an event will tell.
    Nothing,
    /// The peer sends no more.
    End,
    /// The connection broke.
    Broken,
}

/// The connection does not take any more bytes, ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Broken;

/// One connection.
pub(crate) struct Link {
    pub(super) fd: OwnedFd,
    tls: Option<Box<rustls::Connection>>,
    /// Whether a read may give something.
    readable: bool,
    /// The peer closed its direction or all of it (RDHUP, HUP, ERR): more reads than a short one are needed to see it.
    hangup: bool,
    /// HUP or ERR: both directions are gone.
    dead: bool,
    /// A read saw the end.
    ended: bool,
    connected: bool,
    /// Our direction is closed.
    finished: bool,
    unsent: Vec<u8>,
    unsent_from: usize,
    /// What waits before `unsent`, of a body that is spliced.
    pub(super) pipe: Option<Pipe>,
}

impl Link {
    /// Wraps a connected, non-blocking socket from which something may be read.
    pub(crate) fn accepted(fd: OwnedFd, tls: Option<rustls::Connection>) -> Link {
        let mut link = Link::connecting(fd, tls);
        link.connected = true;
        link.readable = true;
        link
    }

    /// Wraps a non-blocking socket whose connection is being made; `tls` shakes hands once it stands.
    pub(crate) fn connecting(fd: OwnedFd, tls: Option<rustls::Connection>) -> Link {
        let tls = tls.map(|mut tls| {
            // What may wait is limited by the exchange, which reads no more while something waits.
            tls.set_buffer_limit(None);
            Box::new(tls)
        });
        Link {
            fd,
            tls,
            readable: false,
            hangup: false,
            dead: false,
            ended: false,
            connected: false,
            finished: false,
            unsent: Vec::new(),
            unsent_from: 0,
            pipe: None,
        }
    }

    /// Takes note of an epoll event; whether there is anything to do for it.
    pub(crate) fn notice(&mut self, flags: EventFlags) -> bool {
        let broken = flags.intersects(EventFlags::HUP | EventFlags::ERR);
        self.dead |= broken;
        self.hangup |= broken || flags.contains(EventFlags::RDHUP);
        self.readable |= self.hangup || flags.contains(EventFlags::IN);
        let connected = !self.connected && !broken && flags.contains(EventFlags::OUT);
        // The handshake's first message leaves with the next flush.
        self.connected |= connected;
        self.readable || self.hangup || connected || self.has_unsent()
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The socket itself, for somebody else. Only for plain connections with nothing unsent.
    pub(crate) fn into_fd(self) -> OwnedFd {
        self.fd
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    pub(crate) fn is_readable(&self) -> bool {
        self.readable && !self.ended
    }

    /// Whether the peer has taken the connection, its TLS handshake included: before that it has seen nothing.
    pub(crate) fn is_connected(&self) -> bool {
        self.connected && !self.is_handshaking()
    }

    /// A TLS handshake is under way, or will be.
    pub(crate) fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// The peer closed at least its sending direction.
    pub(crate) fn is_hung_up(&self) -> bool {
        self.hangup || self.ended
    }

    /// Both directions are gone.
    pub(crate) fn is_dead(&self) -> bool {
        self.dead
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.finished
    }

    /// Whether bytes wait for the kernel; as long as they do, nothing more should be read for this connection.
    pub(crate) fn has_unsent(&self) -> bool {
        self.unsent_from < self.unsent.len()
            || self.pipe.is_some()
            || self.tls.as_ref().is_some_and(|tls| tls.wants_write() || tls.is_handshaking())
    }

    /// Reads what is there. `buffer` must not be empty.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> Received {
        if self.ended {
            return Received::End;
        }
        let received = if self.tls.is_some() { self.receive_tls(buffer) } else { self.receive_plain(buffer) };
        self.note(received);
        received
    }

    /// Takes note of what a read gave.
    pub(super) fn note(&mut self, received: Received) {
        match received {
            Received::Data(_) => self.connected = true,
            Received::End => self.ended = true,
            Received::Broken => self.dead = true,
            Received::Nothing => self.readable = false,
        }
    }

    fn receive_plain(&mut self, buffer: &mut [u8]) -> Received {
        loop {
            let size = buffer.len();
            return match rustix::net::recv(&self.fd, &mut *buffer, RecvFlags::empty()) {
                Ok((0, _)) => Received::End,
                Ok((count, _)) => {
                    self.readable = count == size || self.hangup;
                    Received::Data(count)
                }
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => {
                    self.readable = false;
                    Received::Nothing
                }
                Err(_) => Received::Broken,
            };
        }
    }

    fn receive_tls(&mut self, buffer: &mut [u8]) -> Received {
        let Some(tls) = &mut self.tls else { return Received::Broken };
        loop {
            match tls.reader().read(buffer) {
                Ok(0) => return Received::End,
                Ok(count) => {
                    // `readable` stays as it is unless decrypted data may be left.
                    self.readable |= count == buffer.len();
                    return Received::Data(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Received::End,
            }
            if !self.readable {
                return Received::Nothing;
            }
            let mut socket = Socket { fd: &self.fd, drained: false };
            match tls.read_tls(&mut socket) {
                // The next turn of the loop sees the end, after what is left.
                Ok(0) => {}
                Ok(_) if socket.drained && !self.hangup => self.readable = false,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Received::Nothing;
                }
                Err(_) => return Received::Broken,
            }
            if tls.process_new_packets().is_err() {
                // The alert, if it can be sent at once.
                let _ = tls.write_tls(&mut socket);
                return Received::Broken;
            }
            if tls.wants_write() && flush_tls(tls, &self.fd).is_err() {
                return Received::Broken;
            }
        }
    }

    /// Whether nothing at all is to be read: neither data nor the end. One system call; for connections from the pool.
    pub(crate) fn is_quiet(&self) -> bool {
        let mut byte = [0u8; 1];
        !self.hangup
            && rustix::net::recv(&self.fd, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT)
                == Err(Errno::AGAIN)
    }

    /// Sends both pieces; what the kernel does not take now is kept and goes out with [`Link::flush`].
    pub(crate) fn send(&mut self, first: &[u8], second: &[u8]) -> Result<(), Broken> {
        if let Some(tls) = &mut self.tls {
            let mut writer = tls.writer();
            // Without a limit everything is taken.
            let taken = writer.write_all(first).and_then(|()| writer.write_all(second));
            let sent = taken.map_err(|_| Broken).and_then(|()| flush_tls(tls, &self.fd));
            return self.note_broken(sent);
        }
        let sent = if self.has_unsent() { Ok(0) } else { self.send_now(first, second) };
        match sent {
            Ok(count) => {
                self.connected |= count > 0;
                let rest = count.saturating_sub(first.len());
                self.unsent.extend_from_slice(&first[count.min(first.len())..]);
                self.unsent.extend_from_slice(&second[rest..]);
                Ok(())
            }
            Err(broken) => self.note_broken(Err(broken)),
        }
    }

    fn send_now(&self, first: &[u8], second: &[u8]) -> Result<usize, Broken> {
        loop {
            let sent = if second.is_empty() {
                rustix::net::send(&self.fd, first, SendFlags::NOSIGNAL)
            } else {
                rustix::net::sendmsg(
                    &self.fd,
                    &[IoSlice::new(first), IoSlice::new(second)],
                    &mut SendAncillaryBuffer::default(),
                    SendFlags::NOSIGNAL,
                )
            };
            match sent {
                Ok(count) => return Ok(count),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(0),
                Err(_) => return Err(Broken),
            }
        }
    }

    fn note_broken(&mut self, sent: Result<(), Broken>) -> Result<(), Broken> {
        if sent.is_err() {
            // What the peer sent before it broke off is still there to be read.
            self.hangup = true;
            self.readable = true;
            self.unsent = Vec::new();
            self.unsent_from = 0;
            self.pipe = None;
        }
        sent
    }

    /// Sends what was kept, as far as the kernel takes it.
    pub(crate) fn flush(&mut self) -> Result<(), Broken> {
        if let Some(tls) = &mut self.tls {
            let sent = if tls.wants_write() { flush_tls(tls, &self.fd) } else { Ok(()) };
            return self.note_broken(sent);
        }
        // What is in the pipe came before what waits beside it.
        self.flush_pipe()?;
        if self.unsent_from == self.unsent.len() || self.pipe.is_some() {
            return Ok(());
        }
        match self.send_now(&self.unsent[self.unsent_from..], &[]) {
            Ok(count) => {
                self.connected |= count > 0;
                self.unsent_from += count;
                if self.unsent_from == self.unsent.len() {
                    self.unsent.clear();
                    self.unsent_from = 0;
                }
                Ok(())
            }
            Err(broken) => self.note_broken(Err(broken)),
        }
    }

    fn flush_pipe(&mut self) -> Result<(), Broken> {
        let drained = match &mut self.pipe {
            Some(pipe) => pipe.drain(&self.fd),
            None => return Ok(()),
        };
        match drained {
            Ok(true) => self.pipe = None,
            Ok(false) => {}
            Err(broken) => return self.note_broken(Err(broken)),
        }
        Ok(())
    }

    /// Gives back memory that only a busy connection needs.
    pub(crate) fn relax(&mut self) {
        if self.unsent.is_empty() {
            self.unsent = Vec::new();
        }
    }

    /// Tells the peer that we send no more. Everything must have been flushed.
    pub(crate) fn finish(&mut self) {
        self.finished = true;
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            let _ = flush_tls(tls, &self.fd);
        }
        // Fails only if the connection is gone already.
        let _ = rustix::net::shutdown(&self.fd, rustix::net::Shutdown::Write);
    }
}

fn flush_tls(tls: &mut rustls::Connection, fd: &OwnedFd) -> Result<(), Broken> {
    let mut socket = Socket { fd, drained: false };
    while tls.wants_write() {
        match tls.write_tls(&mut socket) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(_) => return Err(Broken),
        }
    }
    Ok(())
}

/// The socket as rustls wants it.
struct Socket<'a> {
    fd: &'a OwnedFd,
    /// A read was short: nothing is left.
    drained: bool,
}

impl Read for Socket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = buffer.len();
        let (count, _) =
            rustix::io::retry_on_intr(|| rustix::net::recv(self.fd, &mut *buffer, RecvFlags::empty()))?;
        self.drained = count < size && count > 0;
        Ok(count)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| rustix::net::send(self.fd, bytes, SendFlags::NOSIGNAL))?)
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| {
            rustix::net::sendmsg(self.fd, pieces, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL)
        })?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
