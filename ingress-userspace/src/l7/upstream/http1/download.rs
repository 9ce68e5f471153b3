//! The body of an answer by HTTP/1.1, without its framing. Gives the connection back to the pool as soon as all of it has
//! arrived; a connection whose answer is not read to its end closes.

use std::cell::Cell;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::HeaderMap;
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead as _, AsyncReadExt as _, ReadBuf};
use tokio::task::JoinHandle;

use super::io::Io;
use super::upload::{Upload, UploadError};
use super::{Broken, Connection, PIECE, append};
use crate::l7::http1::body::Body;
use crate::l7::http1::error::BadAnswer;
use crate::l7::http1::fields;
use crate::l7::http1::request::HeadLimits;
use crate::l7::upstream::client::Pool;
use crate::l7::upstream::pool::PoolKey;

/// From here on a body is read into memory of its own, instead of being copied there.
const DIRECT: u64 = 16 << 10;

/// The rest of an answer.
#[derive(Debug)]
pub struct Download {
    /// Until all of it has arrived.
    connection: Option<Connection>,
    /// The rest of the request.
    uploading: Option<Uploading>,
    body: Body,
    /// What came and was not asked for yet.
    rest: Bytes,
    trailers: Vec<u8>,
    is_clean: bool,
    home: (PoolKey, Rc<Pool>),
}

impl Download {
    pub(super) fn new(
        (connection, upload): (Connection, Option<Upload>),
        body: Body,
        (rest, trailers): (Bytes, Vec<u8>),
        is_clean: bool,
        home: (PoolKey, Rc<Pool>),
    ) -> Self {
        let uploading = upload.map(|upload| Uploading::start(&connection, upload));
        let connection = Some(connection);
        let mut download = Self { connection, uploading, body, rest, trailers, is_clean, home };
        if is_clean && download.body.is_done() {
            download.finish();
        }
        download
    }

    /// The connection of a 101, and what came behind its head.
    pub fn into_stream(mut self) -> Option<(Bytes, Io)> {
        let io = Rc::try_unwrap(self.connection.take()?.io).ok()?;
        Some((std::mem::take(&mut self.rest), io.into_inner()))
    }

    /// Nothing more comes.
    pub fn is_end_stream(&self) -> bool {
        self.body.is_done() && self.rest.is_empty() && self.trailers.len() <= 2
    }

    /// How much more comes, if that is known.
    pub fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        match self.body {
            Body::Done => SizeHint::with_exact(rest),
            Body::Length(left) => SizeHint::with_exact(rest + left),
            Body::Chunked(_) | Body::UntilClose => SizeHint::default(),
        }
    }

    /// The next piece.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        loop {
            if !self.rest.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.rest)))));
            }
            if self.body.is_done() {
                let trailers = std::mem::take(&mut self.trailers);
                // Without any there is the empty line alone.
                return Poll::Ready((trailers.len() > 2).then(|| trailer_map(trailers)));
            }
            if let Err(error) = ready!(self.read(cx)) {
                self.connection = None;
                return Poll::Ready(Some(Err(error)));
            }
            if self.body.is_done() {
                self.finish();
            }
        }
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let Some(connection) = &self.connection else {
            return Poll::Ready(Err(BadAnswer::Truncated.into()));
        };
        let mut io = connection.io.borrow_mut();
        let io = Pin::new(&mut *io);
        if let Body::Length(left) = self.body
            && left >= DIRECT
        {
            let room = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            let mut piece = BytesMut::with_capacity(room);
            // Its own memory may be longer than it was asked for; what is behind the answer stays where it is.
            let mut limited = (&mut piece).limit(room);
            let count = ready!(pin!(io.get_mut().read_buf(&mut limited)).poll(cx))?;
            if count == 0 {
                return Poll::Ready(Err(BadAnswer::Truncated.into()));
            }
            self.body.passed(count);
            // A small piece shall not hold a large one's memory.
            self.rest = if count < room / 2 { Bytes::copy_from_slice(&piece) } else { piece.freeze() };
            return Poll::Ready(Ok(()));
        }
        let scratch = &mut *self.home.1.scratch.borrow_mut();
        let mut buffer = ReadBuf::new(&mut scratch.bytes);
        ready!(io.poll_read(cx, &mut buffer))?;
        let bytes = buffer.filled();
        if bytes.is_empty() {
            if !matches!(self.body, Body::UntilClose) {
                return Poll::Ready(Err(BadAnswer::Truncated.into()));
            }
            (self.body, self.is_clean) = (Body::Done, false);
            return Poll::Ready(Ok(()));
        }
        let taken = if let Body::Chunked(_) = self.body {
            let mut payload = Vec::new();
            let taken = self.body.take_decoded(bytes, &mut payload, &mut self.trailers);
            self.rest = payload.into();
            taken.map_err(|_| BadAnswer::Chunk)?
        } else {
            let taken = self.body.take(bytes).map_err(|_| BadAnswer::Chunk)?;
            self.rest = Bytes::copy_from_slice(&bytes[..taken]);
            taken
        };
        self.is_clean &= taken == bytes.len();
        Poll::Ready(Ok(()))
    }

    /// The answer is complete: its connection may serve the next request.
    fn finish(&mut self) {
        let is_sent = self.uploading.take().is_none_or(|uploading| uploading.is_done.get());
        if let Some(connection) = self.connection.take()
            && self.is_clean
            && is_sent
        {
            let (key, pool) = &self.home;
            pool.give_back(*key, connection);
        }
    }
}

/// The parser has checked each of its bytes.
fn trailer_map(trailers: Vec<u8>) -> Result<Frame<Bytes>, Broken> {
    let mut lines = Vec::new();
    let end = fields::parse(&trailers, 0, HeadLimits::default().fields, &mut lines);
    if !matches!(end, Ok(Some(_))) {
        return Err(BadAnswer::Chunk.into());
    }
    let trailers = Bytes::from(trailers);
    let mut map = HeaderMap::with_capacity(lines.len());
    for line in &lines {
        append(&mut map, line, &trailers);
    }
    Ok(Frame::trailers(map))
}

/// A request's body that goes on while its answer is read: a task, since the client may take the answer only when all of
/// its request has been taken.
#[derive(Debug)]
struct Uploading {
    task: JoinHandle<()>,
    /// All of it has left.
    is_done: Rc<Cell<bool>>,
}

impl Uploading {
    fn start(connection: &Connection, mut upload: Upload) -> Self {
        let io = Rc::clone(&connection.io);
        let is_done = Rc::new(Cell::new(false));
        let done = Rc::clone(&is_done);
        let task = tokio::task::spawn_local(async move {
            match std::future::poll_fn(|cx| upload.poll(&io, cx)).await {
                Ok(()) => done.set(true),
                // Its answer may be complete all the same.
                Err(UploadError::Io(_)) => {}
                // The endpoint would wait for the rest, and we for it.
                Err(error) => {
                    tracing::debug!(%error, "a request broke off");
                    io.borrow().abort();
                }
            }
        });
        Self { task, is_done }
    }
}

impl Drop for Uploading {
    fn drop(&mut self) {
        self.task.abort();
    }
}
