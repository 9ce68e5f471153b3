//! HTTP/2 from clients: hyper's server per connection, one task each, requests through the same `decide` as HTTP/1.
//! Connections come from `tls::accept` (ALPN) and from the HTTP/1 engine (prior knowledge).

mod account;
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
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::head::ConnectionInfo;
use super::timeouts;
use super::upstream::client::Pool;
use super::worker::Worker;

pub use body::{RequestBody, RequestBodyError, ResponseBody};

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
/// Requests that a client may reset before they are answered, as long as they are not most of them; beyond it the
/// connection ends: each has cost us and an endpoint work for nothing.
const MAX_UNANSWERED: u32 = 200;
/// How often idle upstream connections are looked at.
const SWEEP: Duration = Duration::from_secs(10);

/// How long connections may do nothing.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Without any stream: also the time for a request's head, however it is cut.
    pub idle: Duration,
    /// The same once we have asked the connection to end.
    pub goodbye: Duration,
    /// With streams of which no body moves: the client neither reads nor sends.
    pub stalled: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            idle: timeouts::CLIENT_IDLE,
            goodbye: Duration::from_secs(5),
            // Twice the time that an endpoint has, so that the client of a slow endpoint gets its answer first.
            stalled: 2 * timeouts::READ,
        }
    }
}

/// A worker's HTTP/2 side.
pub struct Http2 {
    worker: Rc<Worker>,
    pool: Rc<Pool>,
    builder: http2::Builder<LocalExecutor>,
    drain: CancellationToken,
    patience: Patience,
    connections: Cell<usize>,
}

/// When something last happened on a connection, and how much is going on.
#[derive(Debug)]
struct Activity {
    last: Cell<Instant>,
    streams: Cell<usize>,
    /// Requests so far, and those of them that were reset before they were answered.
    requests: Cell<u32>,
    unanswered: Cell<u32>,
    abused: Notify,
}

impl Http2 {
    /// An HTTP/2 side. Its connections are asked to end when `drain` is cancelled.
    pub fn new(worker: Rc<Worker>, drain: CancellationToken, patience: Patience) -> Rc<Self> {
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
        Rc::new(Self { worker, pool: Rc::default(), builder, drain, patience, connections: Cell::new(0) })
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
        let activity = Rc::new(Activity::new());
        let Patience { idle, goodbye, stalled } = self.patience;
        let service = service_fn(|request| {
            let (this, info, activity) = (Rc::clone(&self), Rc::clone(&info), Rc::clone(&activity));
            // Boxed, since tokio moves a task some five times on its way, and an exchange is thousands of bytes.
            Box::pin(async move {
                let stream = Stream::new(Rc::clone(&activity));
                let unanswered = Unanswered::new(activity);
                let response = exchange::exchange(&this, &info, request, stream).await;
                unanswered.answered();
                Ok::<_, Infallible>(response)
            })
        });
        let mut connection = pin!(self.builder.serve_connection(stream, service));
        let ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            () = self.drain.cancelled() => None,
            () = activity.idle(idle) => None,
            () = activity.stalled(stalled) => Some(Ok(())),
            () = activity.abused.notified() => {
                tracing::debug!(client = %info.client, "an HTTP/2 client resets its requests: its connection is closed");
                Some(Ok(()))
            }
        };
        let ended = if let Some(ended) = ended {
            ended
        } else {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection.as_mut() => ended,
                () = activity.idle(goodbye) => Ok(()),
                () = activity.stalled(stalled) => Ok(()),
            }
        };
        if let Err(error) = ended {
            tracing::debug!(client = %info.client, %error, "HTTP/2 connection ended");
        }
    }
}

impl Activity {
    fn new() -> Self {
        Self {
            last: Cell::new(Instant::now()),
            streams: Cell::new(0),
            requests: Cell::new(0),
            unanswered: Cell::new(0),
            abused: Notify::new(),
        }
    }

    /// Something happened.
    fn touch(&self) {
        self.last.set(Instant::now());
    }

    /// Returns when nothing has happened for so long.
    async fn stalled(&self, limit: Duration) {
        loop {
            let due = self.last.get() + limit;
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

/// Counts a request that goes before it is answered.
struct Unanswered(Option<Rc<Activity>>);

impl Unanswered {
    fn new(activity: Rc<Activity>) -> Self {
        activity.requests.set(activity.requests.get().saturating_add(1));
        Self(Some(activity))
    }

    fn answered(mut self) {
        self.0 = None;
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        let Some(activity) = &self.0 else { return };
        let unanswered = activity.unanswered.get().saturating_add(1);
        activity.unanswered.set(unanswered);
        if unanswered > MAX_UNANSWERED && unanswered > activity.requests.get() / 2 {
            activity.abused.notify_one();
        }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// A client that never comes to the end of a request's head is not waited for.
    #[tokio::test]
    async fn slow_heads_end() {
        let short = Duration::from_millis(300);
        let patience = Patience { idle: short, goodbye: short, ..Patience::default() };
        let preface: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        // Nothing, half a preface, and HEADERS that wait for CONTINUATION.
        let headers = [preface, b"\0\0\x01\x01\0\0\0\0\x01\x82"].concat();
        for sent in [&b""[..], &preface[..9], &headers] {
            let local = tokio::task::LocalSet::new();
            local
                .run_until(async {
                    let worker = Worker::new(0, Arc::default(), Arc::default());
                    let http2 = Http2::new(worker, CancellationToken::new(), patience);
                    let (mut client, server) = tokio::io::duplex(1 << 16);
                    let info =
                        ConnectionInfo::new(([192, 0, 2, 7], 1).into(), ([192, 0, 2, 1], 80).into(), None);
                    let serving = Rc::clone(&http2).serve(TokioIo::new(server), Rc::new(info));
                    let serving = tokio::task::spawn_local(serving);
                    client.write_all(sent).await.unwrap();
                    // Empty CONTINUATIONs, now and then, help nobody.
                    let trickling = async {
                        while sent.len() > preface.len()
                            && client.write_all(b"\0\0\0\x09\0\0\0\0\x01").await.is_ok()
                        {
                            tokio::time::sleep(short / 5).await;
                        }
                        client.read_to_end(&mut Vec::new()).await.unwrap();
                    };
                    tokio::time::timeout(Duration::from_secs(30), trickling)
                        .await
                        .expect("the connection goes on");
                    serving.await.unwrap();
                    assert_eq!(http2.connections(), 0);
                })
                .await;
        }
    }
}
