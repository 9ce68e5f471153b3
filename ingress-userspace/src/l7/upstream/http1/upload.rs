//! A request on its way to an endpoint: the head, then the body as it comes from the client, only as fast as the endpoint
//! takes it. A request without a body keeps its head, to be sent again.

use std::cell::RefCell;
use std::io::{self, IoSlice, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http::HeaderMap;
use hyper::body::Body as _;
use tokio::io::AsyncWrite as _;

use super::io::Io;
use crate::l7::http1::chunked::{Direction, may_be_trailer};
use crate::l7::http1::request::Framing;
use crate::l7::http1::write;
use crate::l7::http2::{RequestBody, RequestBodyError};

/// Why a request came to no end.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The endpoint takes no more.
    #[error("the endpoint takes no more of the request: {0}")]
    Io(#[from] io::Error),
    /// The client broke off, or we take no more of it.
    #[error(transparent)]
    Body(#[from] RequestBodyError),
    /// It is not as long as it said.
    #[error("the request's body is not as long as its head says")]
    Length,
}

/// A request by HTTP/1.1.
#[derive(Debug)]
pub struct Upload {
    /// The head, and later what frames the body; unsent from `at` on.
    out: Vec<u8>,
    at: usize,
    /// A piece of the body, behind it.
    piece: Bytes,
    /// What ends the piece.
    end: &'static [u8],
    body: RequestBody,
    /// With the length that is left.
    framing: Framing,
    /// All of it is in `out` and `piece`.
    is_complete: bool,
    has_begun: bool,
    is_flushed: bool,
    is_broken: bool,
}

impl Upload {
    /// A request whose head frames its body so.
    pub fn new(head: Vec<u8>, body: RequestBody, framing: Framing) -> Self {
        let is_complete = matches!(body, RequestBody::Empty);
        Self {
            out: head,
            at: 0,
            piece: Bytes::new(),
            end: b"",
            body,
            framing,
            is_complete,
            has_begun: false,
            is_flushed: true,
            is_broken: false,
        }
    }

    /// No byte of it has left yet.
    pub fn is_untouched(&self) -> bool {
        !self.has_begun
    }

    /// Makes it ready to be sent once more. Only for requests of which nothing has left, or without a body.
    pub fn rewind(&mut self) {
        (self.at, self.has_begun, self.is_flushed, self.is_broken) = (0, false, true, false);
    }

    /// The endpoint takes no more.
    pub(super) fn break_off(&mut self) {
        self.is_broken = true;
    }

    pub(super) fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// The rest of it, to be sent beside the answer.
    pub(super) fn take(&mut self) -> Self {
        std::mem::replace(self, Self::new(Vec::new(), RequestBody::Empty, Framing::None))
    }

    /// Sends what the endpoint takes. Ready: all of it has left.
    pub(super) fn poll(&mut self, io: &RefCell<Io>, cx: &mut Context<'_>) -> Poll<Result<(), UploadError>> {
        loop {
            // The head leaves together with the body's first piece, if that is there.
            if !self.is_complete && self.piece.is_empty() && (self.at == self.out.len() || !self.has_begun) {
                self.next_piece(cx)?;
            }
            let io = &mut *io.borrow_mut();
            if self.at < self.out.len() || !self.piece.is_empty() || !self.end.is_empty() {
                ready!(self.write(io, cx))?;
                continue;
            }
            if !self.is_flushed {
                ready!(Pin::new(&mut *io).poll_flush(cx))?;
                self.is_flushed = true;
            }
            return if self.is_complete { Poll::Ready(Ok(())) } else { Poll::Pending };
        }
    }

    /// Takes the body's next piece in, if it is there.
    fn next_piece(&mut self, cx: &mut Context<'_>) -> Result<(), UploadError> {
        while let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            match frame.transpose()?.map(hyper::body::Frame::into_data) {
                Some(Ok(piece)) if piece.is_empty() => {}
                Some(Ok(piece)) => return self.put(piece),
                Some(Err(frame)) => return self.finish(frame.trailers_ref()),
                None => return self.finish(None),
            }
        }
        Ok(())
    }

    /// Room behind what was sent.
    fn room(&mut self) -> &mut Vec<u8> {
        if self.at == self.out.len() {
            self.out.clear();
            self.at = 0;
        }
        &mut self.out
    }

    fn put(&mut self, piece: Bytes) -> Result<(), UploadError> {
        if let Framing::Length(left) = &mut self.framing {
            *left = left.checked_sub(piece.len() as u64).ok_or(UploadError::Length)?;
        } else {
            // Writing into a Vec cannot fail.
            let _ = write!(self.room(), "{:x}\r\n", piece.len());
            self.end = b"\r\n";
        }
        self.piece = piece;
        if self.body.is_end_stream() && self.framing == Framing::Length(0) {
            self.is_complete = true;
        }
        Ok(())
    }

    fn finish(&mut self, trailers: Option<&HeaderMap>) -> Result<(), UploadError> {
        self.is_complete = true;
        match self.framing {
            Framing::None | Framing::Length(0) => return Ok(()),
            Framing::Length(_) | Framing::UntilClose => return Err(UploadError::Length),
            Framing::Chunked => {}
        }
        let out = self.room();
        out.extend_from_slice(b"0\r\n");
        for (name, value) in trailers.into_iter().flatten() {
            let name = name.as_str().as_bytes();
            if may_be_trailer(name, Direction::Request) && !name.contains(&b'_') {
                write::field(out, name, value.as_bytes());
            }
        }
        out.extend_from_slice(b"\r\n");
        Ok(())
    }

    fn write(&mut self, io: &mut Io, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let out = &self.out[self.at..];
        let io = Pin::new(io);
        let mut count = ready!(if self.piece.is_empty() && self.end.is_empty() {
            io.poll_write(cx, out)
        } else {
            let pieces = [IoSlice::new(out), IoSlice::new(&self.piece), IoSlice::new(self.end)];
            io.poll_write_vectored(cx, &pieces)
        })?;
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        (self.has_begun, self.is_flushed) = (true, false);
        let now = count.min(out.len());
        self.at += now;
        count -= now;
        let now = count.min(self.piece.len());
        self.piece.advance(now);
        self.end = &self.end[(count - now).min(self.end.len())..];
        Poll::Ready(Ok(()))
    }
}
