//! HTTP/1.1 from clients by hyper, through the same exchange as HTTP/2: serves until `http1`, the engine of our own,
//! takes its place behind the same interface. Accepts plain connections itself; gets the encrypted ones from `tls`.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;

use futures_util::FutureExt as _;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::head::ConnectionInfo;
use super::http2::Http2;
use super::timeouts;
use super::worker::Worker;

/// A worker's HTTP/1 side.
pub struct Engine {
    worker: Rc<Worker>,
    http2: Rc<Http2>,
    listeners: RefCell<HashMap<SocketAddr, CancellationToken>>,
    drain: CancellationToken,
    connections: Cell<usize>,
}

impl Engine {
    /// An HTTP/1 side whose requests go through `http2`'s exchange.
    pub fn new(worker: Rc<Worker>, http2: Rc<Http2>) -> Rc<Self> {
        Rc::new(Self {
            worker,
            http2,
            listeners: RefCell::default(),
            drain: CancellationToken::new(),
            connections: Cell::new(0),
        })
    }

    /// Serves a listener.
    pub fn add_listener(self: &Rc<Self>, listener: std::net::TcpListener) -> io::Result<()> {
        let listener = TcpListener::from_std(listener)?;
        let local = listener.local_addr()?;
        let stop = self.drain.child_token();
        self.listeners.borrow_mut().insert(local, stop.clone());
        tokio::task::spawn_local(Rc::clone(self).accept_loop(listener, stop));
        Ok(())
    }

    /// Closes a listener; its connections stay.
    pub fn remove_listener(&self, address: SocketAddr) {
        if let Some(stop) = self.listeners.borrow_mut().remove(&address) {
            stop.cancel();
        }
    }

    /// Stops accepting, and ends each connection with its next answer.
    pub fn drain(&self) {
        self.drain.cancel();
    }

    /// Open connections.
    pub fn connections(&self) -> usize {
        self.connections.get()
    }

    async fn accept_loop(self: Rc<Self>, listener: TcpListener, stop: CancellationToken) {
        let connection = |(stream, client): (tokio::net::TcpStream, SocketAddr)| {
            if let Ok(local) = stream.local_addr() {
                let info = ConnectionInfo::new(client, local, None);
                tokio::task::spawn_local(Rc::clone(&self).serve(stream, info));
            }
        };
        while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
            match accepted {
                Ok(accepted) => connection(accepted),
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            }
        }
        // What the kernel has already accepted would be reset together with the listener.
        while let Some(Ok(accepted)) = listener.accept().now_or_never() {
            connection(accepted);
        }
    }

    /// Serves a connection to its end.
    pub async fn serve(
        self: Rc<Self>,
        stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
        info: ConnectionInfo,
    ) {
        let _open = Open::new(&self);
        let service = service_fn(|request| {
            let this = &self;
            let info = &info;
            async move { Ok::<_, Infallible>(this.http2.exchange(info, request).await) }
        });
        let mut connection = pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(timeouts::CLIENT_IDLE)
                .serve_connection(TokioIo::new(stream), service)
        );
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.drain.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(client = %info.client, %error, "HTTP/1 connection ended");
        }
    }
}

/// A connection counts as open while this lives.
struct Open<'e>(&'e Engine);

impl<'e> Open<'e> {
    fn new(engine: &'e Engine) -> Self {
        engine.connections.set(engine.connections.get() + 1);
        engine.worker.stats.accepted.add(1);
        engine.worker.stats.open.add(1);
        Self(engine)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.connections.set(self.0.connections.get() - 1);
        self.0.worker.stats.open.sub(1);
    }
}
