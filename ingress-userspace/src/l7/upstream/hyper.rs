//! Connections to endpoints for requests that came by HTTP/2: hyper's client connections in a pool of the worker, by
//! HTTP/1.1 (the most recently used first) or HTTP/2 (shared by many requests). Used by `http2`. (Requests of the HTTP/1
//! engine have a pool of their own.)

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper::rt::{Read, Write};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::Connection;
use tokio::net::TcpStream;

use super::pool::PoolKey;
use super::transport::Transport;
use crate::l7::http2::{LocalExecutor, RequestBody};
use crate::l7::timeouts;
use crate::l7::tls::stream::{self, TlsStream};

/// Idle connections kept per endpoint (`upstream-keepalive-connections`).
const MAX_IDLE: usize = 320;

/// The longest head of a response, and how much of a body is read at once.
const BUFFER: usize = 64 << 10;

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

/// The handle by which a request is sent over one connection.
#[derive(Debug)]
pub enum Sender {
    /// For this request alone.
    Http1(http1::SendRequest<RequestBody>),
    /// Shared.
    Http2(Stream),
}

/// A worker's connections.
#[derive(Debug, Default)]
pub struct Pool {
    idle: RefCell<HashMap<PoolKey, Vec<Idle>, RandomState>>,
    shared: RefCell<HashMap<PoolKey, Vec<Rc<Multiplexed>>, RandomState>>,
}

#[derive(Debug)]
struct Idle {
    sender: http1::SendRequest<RequestBody>,
    since: Instant,
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
    /// Sends a request. An error that still has it has sent nothing of it.
    pub async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        match self {
            Self::Http1(sender) => sender.try_send_request(request).await,
            Self::Http2(stream) => stream.0.sender.clone().try_send_request(request).await,
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
        // What was given back a moment ago may not be ready yet; what is closed goes with the next sweep.
        let usable = |idle: &Idle| idle.sender.is_ready() && idle.since.elapsed() < timeouts::UPSTREAM_IDLE;
        let index = connections.iter().rposition(usable)?;
        Some(Sender::Http1(connections.swap_remove(index).sender))
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
            let mut session = session.map(Connection::from);
            if let Some(session) = &mut session {
                stream::handshake(&socket, session).await?;
            }
            Ok::<_, io::Error>((socket, session))
        };
        let (socket, session) =
            tokio::time::timeout(limit, connecting).await.map_err(|_| ConnectError::Timeout)??;
        let key = (address, Transport::id(transport));
        let http2 = transport.is_some_and(|transport| transport.http2);
        match session {
            Some(session) => self.start(key, http2, TlsStream::new(socket, session)).await,
            None => self.start(key, http2, TokioIo::new(socket)).await,
        }
    }

    async fn start(
        &self,
        key: PoolKey,
        http2: bool,
        io: impl Read + Write + Unpin + Send + 'static,
    ) -> Result<Sender, ConnectError> {
        let ended = move |ended: Result<(), hyper::Error>| {
            if let Err(error) = ended {
                tracing::debug!(address = %key.0, %error, "upstream connection ended");
            }
        };
        if !http2 {
            let (sender, connection) = http1::Builder::new().max_buf_size(BUFFER).handshake(io).await?;
            tokio::task::spawn_local(async move { ended(connection.with_upgrades().await) });
            return Ok(Sender::Http1(sender));
        }
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

    /// Takes a connection back whose response has been read to the end; drops it if it cannot be used again. hyper's
    /// connection task learns of the end only when it runs next: until then [`Pool::take`] passes over it.
    pub fn give_back(&self, key: PoolKey, sender: Sender) {
        // A shared one has never been taken away.
        let Sender::Http1(sender) = sender else { return };
        if sender.is_closed() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let connections = idle.entry(key).or_default();
        if connections.len() < MAX_IDLE {
            connections.push(Idle { sender, since: Instant::now() });
        }
    }

    /// Closes what was idle for too long or was closed by the endpoint. Called every few seconds.
    pub fn sweep(&self) {
        self.idle.borrow_mut().retain(|_, connections| {
            connections
                .retain(|idle| !idle.sender.is_closed() && idle.since.elapsed() < timeouts::UPSTREAM_IDLE);
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
