//! HTTP/1.1 to an endpoint for a request that came by HTTP/2: one request at a time on a connection, without a task or a
//! channel. `upload` sends the request, `download` reads the answer, both with the strict parsers of the HTTP/1 engine.
//! Used by `client` only.

mod download;
mod io;
mod upload;

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::io::{AsyncRead as _, ReadBuf};

use super::client::Pool;
use super::pool::PoolKey;
use crate::l7::http1::body::Body;
use crate::l7::http1::chunked::Direction;
use crate::l7::http1::error::BadAnswer;
use crate::l7::http1::fields::Field;
use crate::l7::http1::request::{Framing, HeadLimits, Progress};
use crate::l7::http1::response::{MAX_INTERIM, ParsedResponse};
use crate::l7::http1::write::crossing;

pub use download::Download;
pub use io::Io;
pub use upload::{Upload, UploadError};

/// What one read may bring.
const PIECE: usize = 64 << 10;

/// What all connections of a worker read into, one after the other.
pub(super) struct Scratch {
    bytes: Box<[u8]>,
    parsed: ParsedResponse,
}

impl Default for Scratch {
    fn default() -> Self {
        Self { bytes: vec![0; PIECE].into(), parsed: ParsedResponse::default() }
    }
}

/// Why there is no answer, or no end of it.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The connection ended before a byte of the answer.
    #[error("the connection ended before an answer")]
    Closed,
    /// The endpoint cannot be read from.
    #[error("the connection broke: {0}")]
    Io(#[from] std::io::Error),
    /// What it sent is not HTTP, or ambiguous.
    #[error(transparent)]
    Bad(#[from] BadAnswer),
    /// The request itself came to no end.
    #[error(transparent)]
    Request(UploadError),
}

/// A connection to an endpoint.
#[derive(Debug)]
pub struct Connection {
    /// Shared with the rest of a request's body that is still on its way when its answer begins.
    io: Rc<RefCell<Io>>,
}

/// The head of an answer, and the rest.
pub(super) type Answer = (StatusCode, HeaderMap, Download);

impl Connection {
    pub(super) fn new(io: Io) -> Self {
        Self { io: Rc::new(RefCell::new(io)) }
    }

    /// Whether it can be used again: it is open and nothing has come that nobody asked for.
    pub(super) fn is_quiet(&self) -> bool {
        let mut byte = [0];
        let mut nobody = Context::from_waker(std::task::Waker::noop());
        let mut io = self.io.borrow_mut();
        Pin::new(&mut *io).poll_read(&mut nobody, &mut ReadBuf::new(&mut byte)).is_pending()
    }

    /// Sends a request and reads the head of its answer. `key` is where the connection goes back to at the end.
    pub(super) async fn ask(
        self,
        upload: &mut Upload,
        to_head: bool,
        (key, pool): (PoolKey, &Rc<Pool>),
    ) -> Result<Answer, Broken> {
        let mut asking = Asking { to_head, pending: Vec::new(), interim: 0, uploading: true };
        let head = poll_fn(|cx| asking.poll(&self, upload, &pool.scratch, cx)).await?;
        let Head { status, headers, body, rest, trailers, is_clean } = head;
        let upload = asking.uploading.then(|| upload.take());
        let download =
            Download::new((self, upload), body, (rest, trailers), is_clean, (key, Rc::clone(pool)));
        Ok((status, headers, download))
    }
}

/// A final answer's head, and what came behind it.
struct Head {
    status: StatusCode,
    headers: HeaderMap,
    body: Body,
    /// Payload, or (101) whatever follows.
    rest: Bytes,
    /// What came of the trailer section.
    trailers: Vec<u8>,
    /// The connection may serve another request afterwards.
    is_clean: bool,
}

/// A request without an answer.
struct Asking {
    to_head: bool,
    /// The beginning of a head that has not arrived as a whole.
    pending: Vec<u8>,
    interim: u8,
    /// The request is not complete, and the endpoint takes it.
    uploading: bool,
}

impl Asking {
    fn poll(
        &mut self,
        connection: &Connection,
        upload: &mut Upload,
        scratch: &RefCell<Scratch>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Head, Broken>> {
        if self.uploading {
            match upload.poll(&connection.io, cx) {
                Poll::Ready(Ok(())) => self.uploading = false,
                // It may have answered before it closed.
                Poll::Ready(Err(UploadError::Io(_))) => {
                    self.uploading = false;
                    upload.break_off();
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Broken::Request(error))),
                Poll::Pending => {}
            }
        }
        let scratch = &mut *scratch.borrow_mut();
        loop {
            let before = self.pending.len();
            scratch.bytes[..before].copy_from_slice(&self.pending);
            let mut buffer = ReadBuf::new(&mut scratch.bytes[before..]);
            let read = {
                let mut io = connection.io.borrow_mut();
                ready!(Pin::new(&mut *io).poll_read(cx, &mut buffer))
            };
            let have = before + buffer.filled().len();
            match read {
                Ok(()) if have > before => {}
                _ if before > 0 => return Poll::Ready(Err(BadAnswer::Truncated.into())),
                Ok(()) => return Poll::Ready(Err(Broken::Closed)),
                Err(error) => return Poll::Ready(Err(error.into())),
            }
            if let Some(mut head) = self.parse(&scratch.bytes[..have], &mut scratch.parsed)? {
                head.is_clean &= !upload.is_broken();
                return Poll::Ready(Ok(head));
            }
        }
    }

    /// Passes over interim answers: HTTP/2 clients do without them. `None`: more has to come.
    fn parse(&mut self, bytes: &[u8], parsed: &mut ParsedResponse) -> Result<Option<Head>, BadAnswer> {
        let mut at = 0;
        loop {
            let bytes = &bytes[at..];
            if parsed.parse(bytes, &HeadLimits::default(), self.to_head)? == Progress::Partial {
                self.pending.clear();
                self.pending.extend_from_slice(bytes);
                return Ok(None);
            }
            if !parsed.is_interim() {
                return head(parsed, bytes).map(Some);
            }
            self.interim += 1;
            if self.interim > MAX_INTERIM {
                return Err(BadAnswer::Excess);
            }
            at += parsed.length;
        }
    }
}

/// The head at the start of `bytes`, for the client.
fn head(parsed: &ParsedResponse, bytes: &[u8]) -> Result<Head, BadAnswer> {
    let status = StatusCode::from_u16(parsed.status).map_err(|_| BadAnswer::StatusLine)?;
    let mut body = Body::new(parsed.framing, Direction::Response);
    let mut trailers = Vec::new();
    let behind = &bytes[parsed.length..];
    let (buffer, rest, taken) = if status == StatusCode::SWITCHING_PROTOCOLS {
        let buffer = Bytes::copy_from_slice(bytes);
        (buffer.clone(), buffer.slice(parsed.length..), 0)
    } else if parsed.framing == Framing::Chunked {
        let mut payload = Vec::new();
        let taken = body.take_decoded(behind, &mut payload, &mut trailers).map_err(|_| BadAnswer::Chunk)?;
        (Bytes::copy_from_slice(&bytes[..parsed.length]), payload.into(), taken)
    } else {
        // Head and body share one piece of memory.
        let taken = body.take(behind).map_err(|_| BadAnswer::Chunk)?;
        let buffer = Bytes::copy_from_slice(&bytes[..parsed.length + taken]);
        let rest = buffer.slice(parsed.length..);
        (buffer, rest, taken)
    };
    let is_clean = parsed.keep_alive && taken == behind.len() && status != StatusCode::SWITCHING_PROTOCOLS;
    Ok(Head { status, headers: fields(parsed, &buffer), body, rest, trailers, is_clean })
}

/// The fields that go on to the client. Their values are slices of `buffer`.
fn fields(parsed: &ParsedResponse, buffer: &Bytes) -> HeaderMap {
    let crosses = crossing(buffer, parsed);
    // Room for those that are added on the way.
    let mut map = HeaderMap::with_capacity(parsed.fields.len() + 2);
    for field in parsed.fields.iter().filter(|field| crosses(field)) {
        append(&mut map, field, buffer);
    }
    map
}

/// Adds a field that was parsed from `buffer`.
fn append(map: &mut HeaderMap, field: &Field, buffer: &Bytes) {
    let value = buffer.slice(field.value.start as usize..field.value.end as usize);
    // What the parser lets through is a name and a value for `http`, too.
    if let (Ok(name), Ok(value)) =
        (HeaderName::from_bytes(field.name.of(buffer)), HeaderValue::from_maybe_shared(value))
    {
        map.append(name, value);
    }
}
