//! HTTP/2 from clients: hyper's server per connection, one task each, requests through the same `decide` as HTTP/1.
//! Connections come from `tls::accept` (ALPN) and from the HTTP/1 engine (prior knowledge).

mod body;
mod exchange;
mod grpc;
mod head;
mod io;
mod websocket;

use std::cell::Cell;
use std::convert::Infallible;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::rt::{Read, Write};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_util::sync::CancellationToken;

use super::head::ConnectionInfo;
use super::timeouts;
use super::upstream::hyper::Pool;
use super::worker::Worker;

pub use body::{RequestBody, ResponseBody};

/// Requests at once on one connection (nginx' `http2_max_concurrent_streams`).
const MAX_STREAMS: u32 = 128;
/// Streams that the client reset before we looked at them, and that we reset for its errors: beyond it the connection
/// ends (CVE-2023-44487 and its kin).
const MAX_RESETS: usize = 128;
/// The longest header list of a request, as RFC 9113 counts it.
const MAX_HEADER_LIST: u32 = 32 << 10;
/// What a client may send of one body, and of all bodies of a connection, before we have passed it on.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// A client that is gone without a word is noticed by its missing answer to a ping.
const PING_EVERY: Duration = Duration::from_mins(1);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a connection that we asked to end may take without any stream left.
const GOODBYE: Duration = Duration::from_secs(5);
/// A connection with open streams on which no body moved for so long is cut: its client neither reads nor sends.
/// Twice the time that an endpoint has, so that the client of a slow endpoint gets its answer first.
const STALLED: Duration = Duration::from_mins(2);
/// How often idle upstream connections are looked at.
const SWEEP: Duration = Duration::from_secs(10);

/// A worker's HTTP/2 side.
pub struct Http2 {
    worker: Rc<Worker>,
    pool: Rc<Pool>,
    builder: http2::Builder<LocalExecutor>,
    drain: CancellationToken,
    connections: Cell<usize>,
}

/// When something last happened on a connection, and how much is going on.
#[derive(Debug)]
struct Activity {
    last: Cell<Instant>,
    streams: Cell<usize>,
}

impl Http2 {
    /// An HTTP/2 side. Its connections are asked to end when `drain` is cancelled.
    pub fn new(worker: Rc<Worker>, drain: CancellationToken) -> Rc<Self> {
        let mut builder = http2::Builder::new(LocalExecutor);
        builder
            .timer(TokioTimer::new())
            // RFC 8441.
            .enable_connect_protocol()
            .max_concurrent_streams(MAX_STREAMS)
            .max_pending_accept_reset_streams(MAX_RESETS)
            .max_local_error_reset_streams(MAX_RESETS)
            .max_header_list_size(MAX_HEADER_LIST)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT);
        Rc::new(Self { worker, pool: Rc::default(), builder, drain, connections: Cell::new(0) })
    }

    /// Open connections.
    pub fn connections(&self) -> usize {
        self.connections.get()
    }

    /// Closes upstream connections that nobody uses. Runs for as long as the worker.
    pub async fn sweep(self: Rc<Self>) {
        loop {
            tokio::time::sleep(SWEEP).await;
            self.pool.sweep();
        }
    }

    /// Takes a connection from the HTTP/1 engine that began with the HTTP/2 preface.
    pub fn take_over(self: &Rc<Self>, stream: std::net::TcpStream, prefix: Bytes, info: Rc<ConnectionInfo>) {
        match tokio::net::TcpStream::from_std(stream) {
            Ok(stream) => {
                let stream = TokioIo::new(io::Prefixed::new(prefix, stream));
                // The engine has counted it as accepted.
                tokio::task::spawn_local(Rc::clone(self).run(stream, info));
            }
            Err(error) => tracing::warn!(%error, "cannot take an HTTP/2 connection over"),
        }
    }

    /// Serves a connection that was just accepted to its end.
    pub async fn serve(
        self: Rc<Self>,
        stream: impl Read + Write + Unpin + 'static,
        info: Rc<ConnectionInfo>,
    ) {
        self.worker.stats.accepted.add(1);
        self.run(stream, info).await;
    }

    async fn run(self: Rc<Self>, stream: impl Read + Write + Unpin + 'static, info: Rc<ConnectionInfo>) {
        let _open = Open::new(Rc::clone(&self));
        let activity = Rc::new(Activity { last: Cell::new(Instant::now()), streams: Cell::new(0) });
        let service = service_fn(|request| {
            let (this, info, activity) = (Rc::clone(&self), Rc::clone(&info), Rc::clone(&activity));
            // Boxed, since tokio moves a task some five times on its way, and an exchange is thousands of bytes.
            Box::pin(async move {
                let stream = Stream::new(activity);
                Ok::<_, Infallible>(exchange::exchange(&this, &info, request, stream).await)
            })
        });
        let mut connection = pin!(self.builder.serve_connection(stream, service));
        let ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            () = self.drain.cancelled() => None,
            () = activity.idle(timeouts::CLIENT_IDLE) => None,
            () = activity.stalled() => Some(Ok(())),
        };
        let ended = if let Some(ended) = ended {
            ended
        } else {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection.as_mut() => ended,
                () = activity.idle(GOODBYE) => Ok(()),
                () = activity.stalled() => Ok(()),
            }
        };
        if let Err(error) = ended {
            tracing::debug!(client = %info.client, %error, "HTTP/2 connection ended");
        }
    }
}

impl Activity {
    /// Something happened.
    fn touch(&self) {
        self.last.set(Instant::now());
    }

    /// Returns when nothing has happened for [`STALLED`].
    async fn stalled(&self) {
        loop {
            let due = self.last.get() + STALLED;
            if Instant::now() >= due {
                return;
            }
            tokio::time::sleep_until(due.into()).await;
        }
    }

    /// Returns when nothing has gone on for so long, counted from now at the earliest.
    async fn idle(&self, limit: Duration) {
        let start = Instant::now();
        loop {
            let due = self.last.get().max(start) + limit;
            if self.streams.get() == 0 && Instant::now() >= due {
                return;
            }
            tokio::time::sleep_until(due.max(Instant::now() + limit / 8).into()).await;
        }
    }
}

/// A connection counts as open while this lives.
struct Open(Rc<Http2>);

impl Open {
    fn new(http2: Rc<Http2>) -> Self {
        http2.connections.set(http2.connections.get() + 1);
        http2.worker.stats.open.add(1);
        Self(http2)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.set(self.0.connections.get() - 1);
        self.0.worker.stats.open.sub(1);
    }
}

/// A request is under way while this lives.
struct Stream(Rc<Activity>);

impl Stream {
    fn new(activity: Rc<Activity>) -> Self {
        activity.streams.set(activity.streams.get() + 1);
        activity.touch();
        Self(activity)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
        self.0.touch();
    }
}

/// Runs hyper's tasks on this thread.
#[derive(Debug, Clone, Copy)]
pub(in crate::l7) struct LocalExecutor;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
