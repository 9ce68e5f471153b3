//! Connections to endpoints for requests that came by HTTP/2, in a pool of the worker: by HTTP/1.1 (see `http1`; the most
//! recently used first) or by HTTP/2 (hyper's client; shared by many requests). Used by `http2`. (Requests of the HTTP/1
//! engine have a pool of their own.)

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use foldhash::fast::RandomState;
use http::request::Parts;
use http::{HeaderMap, Request, StatusCode};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::client::conn::http2;
use hyper::rt::{Read, Write};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

use super::http1::{self, Broken, Connection, Io, Scratch, Upload, UploadError};
use super::pool::PoolKey;
use super::transport::Transport;
use crate::l7::forwarded;
use crate::l7::http2::{LocalExecutor, RequestBody};
use crate::l7::timeouts;
use crate::l7::tls::stream::{self, TlsStream};

/// Idle connections kept per endpoint (`upstream-keepalive-connections`).
const MAX_IDLE: usize = 320;

/// Requests at once on one connection by HTTP/2, before another one is made: what gRPC servers allow at least.
const MAX_STREAMS: u32 = 100;
/// What an endpoint may send of one answer, and of all answers of a connection, before we have passed it on.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// The longest header list of an answer.
const MAX_HEADER_LIST: u32 = 64 << 10;
/// An endpoint that is gone without a word is noticed by its missing answer to a ping, while requests wait for it.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// A connection that a request may be sent over.
#[derive(Debug)]
pub enum Sender {
    /// For this request alone.
    Http1(Connection),
    /// Shared.
    Http2(Stream),
}

/// A request, ready to be sent.
#[derive(Debug)]
pub enum Outgoing {
    /// By HTTP/1.1.
    Http1(Box<Upload>),
    /// By HTTP/2: `None` once it was sent; and its head, if it may be sent again.
    Http2(Option<Box<Request<RequestBody>>>, Option<Box<Parts>>),
}

impl Outgoing {
    /// A request by HTTP/2.
    pub fn http2(head: Parts, body: RequestBody) -> Self {
        let again = matches!(body, RequestBody::Empty).then(|| Box::new(head.clone()));
        Self::Http2(Some(Box::new(Request::from_parts(head, body))), again)
    }

    /// Nothing of it has left yet.
    pub fn is_untouched(&self) -> bool {
        match self {
            Self::Http1(upload) => upload.is_untouched(),
            Self::Http2(request, _) => request.is_some(),
        }
    }

    /// Makes it ready to be sent once more. Only for requests of which nothing has left, or without a body.
    pub fn rewind(&mut self) {
        match self {
            Self::Http1(upload) => upload.rewind(),
            Self::Http2(request, again) => {
                let head = again.clone().map(|head| Request::from_parts(*head, RequestBody::Empty));
                *request = request.take().or(head.map(Box::new));
            }
        }
    }
}

/// An answer.
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its fields.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Download,
}

/// The body of an answer. Its connection may serve the next request once it has come to its end.
#[derive(Debug)]
pub enum Download {
    /// By HTTP/1.1.
    Http1(http1::Download),
    /// By HTTP/2, and its place on the connection.
    Http2(Incoming, Option<Stream>),
}

impl Download {
    /// The next piece.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        match self {
            Self::Http1(body) => body.poll_frame(cx).map_err(Failure::from),
            Self::Http2(body, place) => {
                let frame = Pin::new(&mut *body).poll_frame(cx).map_err(Failure::from);
                if body.is_end_stream() {
                    *place = None;
                }
                frame
            }
        }
    }

    /// Nothing more comes.
    pub fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body, _) => body.is_end_stream(),
        }
    }

    /// How much more comes, if that is known.
    pub fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body, _) => body.size_hint(),
        }
    }
}

/// Why there is no answer, or no end of it.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// By HTTP/1.1.
    #[error(transparent)]
    Http1(#[from] Broken),
    /// By HTTP/2.
    #[error(transparent)]
    Http2(#[from] hyper::Error),
}

impl Failure {
    /// The connection ended before an answer began.
    pub fn is_closed(&self) -> bool {
        match self {
            Self::Http1(error) => matches!(error, Broken::Closed | Broken::Io(_)),
            Self::Http2(error) => error.is_closed() || error.is_incomplete_message() || error.is_canceled(),
        }
    }

    /// What the endpoint sent is no HTTP.
    pub fn is_invalid(&self) -> bool {
        match self {
            Self::Http1(error) => matches!(error, Broken::Bad(_)),
            Self::Http2(error) => error.is_parse(),
        }
    }

    /// It is the client who broke off.
    pub fn is_clients(&self) -> bool {
        let Self::Http1(Broken::Request(error)) = self else { return false };
        matches!(error, UploadError::Body(_) | UploadError::Length)
    }
}

/// A worker's connections.
#[derive(Default)]
pub struct Pool {
    idle: RefCell<HashMap<PoolKey, Vec<Idle>, RandomState>>,
    shared: RefCell<HashMap<PoolKey, Vec<Rc<Multiplexed>>, RandomState>>,
    /// For what is read by HTTP/1.1.
    pub(super) scratch: RefCell<Scratch>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("idle", &self.idle()).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

impl Idle {
    fn is_usable(&self) -> bool {
        self.since.elapsed() < timeouts::UPSTREAM_IDLE && self.connection.is_quiet()
    }
}

/// A connection by HTTP/2.
#[derive(Debug)]
struct Multiplexed {
    sender: http2::SendRequest<RequestBody>,
    /// Requests under way.
    streams: Cell<u32>,
    /// When the last one ended.
    since: Cell<Instant>,
}

/// A place on a connection by HTTP/2.
#[derive(Debug)]
pub struct Stream(Rc<Multiplexed>);

impl Stream {
    fn on(connection: &Rc<Multiplexed>) -> Self {
        connection.streams.set(connection.streams.get() + 1);
        Self(Rc::clone(connection))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
        self.0.since.set(Instant::now());
    }
}

impl Sender {
    /// Sends a request and waits for the head of its answer. `to_head`: the request is a `HEAD`.
    pub async fn send(
        self,
        request: &mut Outgoing,
        to_head: bool,
        (key, pool): (PoolKey, &Rc<Pool>),
    ) -> Result<Answer, Failure> {
        match (self, request) {
            (Self::Http1(connection), Outgoing::Http1(upload)) => {
                let (status, headers, body) = connection.ask(upload, to_head, (key, pool)).await?;
                Ok(Answer { status, headers, body: Download::Http1(body) })
            }
            (Self::Http2(stream), Outgoing::Http2(request, _)) => {
                let Some(sent) = request.take() else { return Err(Broken::Closed.into()) };
                let sent = stream.0.sender.clone().try_send_request(*sent).await;
                let (mut head, body) = sent
                    .map_err(|mut error| {
                        *request = error.take_message().map(Box::new);
                        error.into_error()
                    })?
                    .into_parts();
                forwarded::apply_to_response(&mut head.headers);
                let place = (!body.is_end_stream()).then_some(stream);
                Ok(Answer { status: head.status, headers: head.headers, body: Download::Http2(body, place) })
            }
            // A route's requests and connections follow from the same transport.
            _ => Err(Broken::Closed.into()),
        }
    }
}

/// Why there is no connection to an endpoint.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// It refused, or cannot be reached, or its certificate is not what was wanted.
    #[error("cannot connect: {0}")]
    Io(#[from] io::Error),
    /// It did not answer within the time for connecting.
    #[error("it did not accept the connection in time")]
    Timeout,
    /// hyper refused to start.
    #[error("cannot start HTTP: {0}")]
    Http(#[from] hyper::Error),
    /// rustls refused to start.
    #[error("cannot start TLS: {0}")]
    Tls(#[from] rustls::Error),
}

impl Pool {
    /// A connection to the endpoint that seems alive: for HTTP/1.1 the idle one that was used last, for HTTP/2 the one
    /// with the fewest requests, if it takes one more.
    pub fn take(&self, address: SocketAddr, transport: Option<&Arc<Transport>>) -> Option<Sender> {
        let key = (address, Transport::id(transport));
        if transport.is_some_and(|transport| transport.http2) {
            let shared = self.shared.borrow();
            let usable = |connection: &&Rc<Multiplexed>| {
                connection.streams.get() < MAX_STREAMS && !connection.sender.is_closed()
            };
            let connection = shared.get(&key)?.iter().filter(usable).min_by_key(|one| one.streams.get())?;
            return Some(Sender::Http2(Stream::on(connection)));
        }
        let mut idle = self.idle.borrow_mut();
        let connections = idle.get_mut(&key)?;
        loop {
            let idle = connections.pop()?;
            if idle.is_usable() {
                return Some(Sender::Http1(idle.connection));
            }
        }
    }

    /// A new connection, made within `limit`. Its task ends when both sides are done with it.
    pub async fn connect(
        &self,
        address: SocketAddr,
        transport: Option<&Arc<Transport>>,
        limit: Duration,
    ) -> Result<Sender, ConnectError> {
        let session = transport.map(|transport| transport.session()).transpose()?.flatten();
        let connecting = async {
            let socket = TcpStream::connect(address).await?;
            socket.set_nodelay(true)?;
            let mut session = session.map(rustls::Connection::from);
            if let Some(session) = &mut session {
                stream::handshake(&socket, session).await?;
            }
            Ok::<_, io::Error>((socket, session))
        };
        let (socket, session) =
            tokio::time::timeout(limit, connecting).await.map_err(|_| ConnectError::Timeout)??;
        let key = (address, Transport::id(transport));
        if !transport.is_some_and(|transport| transport.http2) {
            return Ok(Sender::Http1(Connection::new(match session {
                Some(session) => Io::Tls(Box::new(TokioIo::new(TlsStream::new(socket, session)))),
                None => Io::Plain(socket),
            })));
        }
        match session {
            Some(session) => self.share(key, TlsStream::new(socket, session)).await,
            None => self.share(key, TokioIo::new(socket)).await,
        }
    }

    /// Starts a connection by HTTP/2.
    async fn share(
        &self,
        key: PoolKey,
        io: impl Read + Write + Unpin + Send + 'static,
    ) -> Result<Sender, ConnectError> {
        let ended = move |ended: Result<(), hyper::Error>| {
            if let Err(error) = ended {
                tracing::debug!(address = %key.0, %error, "upstream connection ended");
            }
        };
        let (sender, connection) = http2::Builder::new(LocalExecutor)
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(MAX_HEADER_LIST)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT)
            .handshake(io)
            .await?;
        tokio::task::spawn_local(async move { ended(connection.await) });
        let connection =
            Rc::new(Multiplexed { sender, streams: Cell::new(0), since: Cell::new(Instant::now()) });
        let stream = Stream::on(&connection);
        self.shared.borrow_mut().entry(key).or_default().push(connection);
        Ok(Sender::Http2(stream))
    }

    /// Takes a connection back whose answer has been read to the end.
    pub(super) fn give_back(&self, key: PoolKey, connection: Connection) {
        let mut idle = self.idle.borrow_mut();
        let connections = idle.entry(key).or_default();
        if connections.len() < MAX_IDLE {
            connections.push(Idle { connection, since: Instant::now() });
        }
    }

    /// Closes what was idle for too long or was closed by the endpoint. Called every few seconds.
    pub fn sweep(&self) {
        self.idle.borrow_mut().retain(|_, connections| {
            connections.retain(Idle::is_usable);
            !connections.is_empty()
        });
        self.shared.borrow_mut().retain(|_, connections| {
            connections.retain(|one| {
                let idle = one.streams.get() == 0 && one.since.get().elapsed() >= timeouts::UPSTREAM_IDLE;
                !one.sender.is_closed() && !idle
            });
            !connections.is_empty()
        });
    }

    /// How many are idle.
    pub fn idle(&self) -> usize {
        let shared = self.shared.borrow();
        let unused = shared.values().flatten().filter(|connection| connection.streams.get() == 0).count();
        self.idle.borrow().values().map(Vec::len).sum::<usize>() + unused
    }
}
