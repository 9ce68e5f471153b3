//! The TLS listeners of a worker: accepts, shakes hands in tokio, then hands the connection to the HTTP/1 engine or to
//! `http2`, as ALPN says. One task a handshake, none afterwards for HTTP/1.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::l7::head::{ConnectionInfo, TlsInfo};
use crate::l7::http1::Engine;
use crate::l7::http2::Http2;
use crate::l7::timeouts;
use crate::l7::worker::Worker;

/// Handshakes at once on one worker. Above it connections wait in the kernel's queue.
const MAX_HANDSHAKES: usize = 8192;

/// How long to wait before accepting again when the process has no descriptor or memory left.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(100);

/// A worker's TLS side.
pub struct TlsAccept {
    worker: Rc<Worker>,
    engine: Rc<Engine>,
    http2: Rc<Http2>,
    acceptor: TlsAcceptor,
    limit: Arc<Semaphore>,
    handshakes: Cell<usize>,
}

impl TlsAccept {
    /// A TLS side that hands its connections to these engines.
    pub fn new(
        worker: Rc<Worker>,
        engine: Rc<Engine>,
        http2: Rc<Http2>,
        config: Arc<ServerConfig>,
    ) -> Rc<Self> {
        let limit = Arc::new(Semaphore::new(MAX_HANDSHAKES));
        Rc::new(Self { worker, engine, http2, acceptor: config.into(), limit, handshakes: Cell::new(0) })
    }

    /// Handshakes under way.
    pub fn handshakes(&self) -> usize {
        self.handshakes.get()
    }

    /// Serves a listener until `stop`.
    pub fn listen(
        self: &Rc<Self>,
        listener: std::net::TcpListener,
        stop: CancellationToken,
    ) -> io::Result<()> {
        let listener = TcpListener::from_std(listener)?;
        let local = listener.local_addr()?;
        tokio::task::spawn_local(Rc::clone(self).accept_loop(listener, local, stop));
        Ok(())
    }

    async fn accept_loop(self: Rc<Self>, listener: TcpListener, local: SocketAddr, stop: CancellationToken) {
        loop {
            let next = async {
                // Acquiring cannot fail: the semaphore is never closed.
                let permit = Arc::clone(&self.limit).acquire_owned().await.ok();
                (permit, listener.accept().await)
            };
            let (permit, accepted) = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                next = next => next,
            };
            match accepted {
                Ok((stream, client)) => {
                    tokio::task::spawn_local(Rc::clone(&self).connection(stream, client, local, permit));
                }
                Err(error) if is_about_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%local, %error, "cannot accept connections; raise the limit of open files");
                    tokio::time::sleep(OUT_OF_DESCRIPTORS).await;
                }
            }
        }
        // What the kernel has already accepted would be reset together with the listener.
        while let Some(Ok((stream, client))) = listener.accept().now_or_never() {
            tokio::task::spawn_local(Rc::clone(&self).connection(stream, client, local, None));
        }
    }

    async fn connection(
        self: Rc<Self>,
        stream: TcpStream,
        client: SocketAddr,
        listener: SocketAddr,
        permit: Option<OwnedSemaphorePermit>,
    ) {
        // Only a wildcard listener needs a system call to learn which address the client chose.
        let local = if listener.ip().is_unspecified() { stream.local_addr() } else { Ok(listener) };
        let Ok(local) = local else { return };
        let handshake = {
            let _counted = Counted::new(&self.handshakes);
            tokio::time::timeout(timeouts::HANDSHAKE, self.acceptor.accept(stream)).await
        };
        drop(permit);
        let Ok(Ok(stream)) = handshake else {
            self.worker.stats.tls_failed.add(1);
            return;
        };
        let session = stream.get_ref().1;
        let server_name = session.server_name().map(|name| name.to_ascii_lowercase().into_boxed_str());
        let info = ConnectionInfo::new(client, local, Some(TlsInfo { server_name }));
        if session.alpn_protocol() == Some(b"h2") {
            Rc::clone(&self.http2).serve(stream, Rc::new(info)).await;
        } else {
            let (stream, session) = stream.into_inner();
            let handed_over =
                stream.into_std().and_then(|stream| self.engine.accept_tls(stream, session, Rc::new(info)));
            if let Err(error) = handed_over {
                tracing::warn!(%client, %error, "a connection could not be handed to the HTTP/1 engine");
            }
        }
    }
}

/// Errors of `accept` that say something about the connection only (accept(2)).
fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, WouldBlock};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | WouldBlock)
}

/// Counts itself while it lives.
struct Counted<'c>(&'c Cell<usize>);

impl<'c> Counted<'c> {
    fn new(count: &'c Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
