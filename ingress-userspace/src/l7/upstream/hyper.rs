//! HTTP/1.1 connections to endpoints for requests that came by HTTP/2: hyper's client connections in a pool of the
//! worker, the most recently used first. Used by `http2`. (Requests of the HTTP/1 engine have a pool of their own.)

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use foldhash::fast::RandomState;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::l7::http2::RequestBody;
use crate::l7::timeouts;

/// The handle by which a request is sent over one connection.
pub type Sender = http1::SendRequest<RequestBody>;

/// Idle connections kept per endpoint (`upstream-keepalive-connections`).
const MAX_IDLE: usize = 320;

/// The longest head of a response, and how much of a body is read at once.
const BUFFER: usize = 64 << 10;

/// A worker's idle connections.
#[derive(Debug, Default)]
pub struct Pool {
    idle: RefCell<HashMap<SocketAddr, Vec<Idle>, RandomState>>,
}

#[derive(Debug)]
struct Idle {
    sender: Sender,
    since: Instant,
}

/// Why there is no connection to an endpoint.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// It refused, or cannot be reached.
    #[error("cannot connect: {0}")]
    Io(#[from] io::Error),
    /// It did not answer within [`timeouts::CONNECT`].
    #[error("it did not accept the connection in time")]
    Timeout,
    /// hyper refused to start.
    #[error("cannot start HTTP: {0}")]
    Http(#[from] hyper::Error),
}

impl Pool {
    /// An idle connection to the endpoint, if there is one that still seems alive: the most recently used.
    pub fn take(&self, address: SocketAddr) -> Option<Sender> {
        let mut idle = self.idle.borrow_mut();
        let connections = idle.get_mut(&address)?;
        // What was given back a moment ago may not be ready yet; what is closed goes with the next sweep.
        let usable = |idle: &Idle| idle.sender.is_ready() && idle.since.elapsed() < timeouts::UPSTREAM_IDLE;
        let index = connections.iter().rposition(usable)?;
        Some(connections.swap_remove(index).sender)
    }

    /// A new connection. Its task ends when both sides are done with it.
    pub async fn connect(&self, address: SocketAddr) -> Result<Sender, ConnectError> {
        let connecting = tokio::time::timeout(timeouts::CONNECT, TcpStream::connect(address));
        let stream = connecting.await.map_err(|_| ConnectError::Timeout)??;
        stream.set_nodelay(true)?;
        let (sender, connection) =
            http1::Builder::new().max_buf_size(BUFFER).handshake(TokioIo::new(stream)).await?;
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%address, %error, "upstream connection ended");
            }
        });
        Ok(sender)
    }

    /// Takes a connection back whose response has been read to the end; drops it if it cannot be used again. hyper's
    /// connection task learns of the end only when it runs next: until then [`Pool::take`] passes over it.
    pub fn give_back(&self, address: SocketAddr, sender: Sender) {
        if sender.is_closed() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let connections = idle.entry(address).or_default();
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
    }

    /// How many are idle.
    pub fn idle(&self) -> usize {
        self.idle.borrow().values().map(Vec::len).sum()
    }
}
