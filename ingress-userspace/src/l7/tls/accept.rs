//! The TLS listeners of a worker: accepts, reads which name the client wants, shakes hands in tokio as that name wants
//! it, then hands the connection to the HTTP/1 engine or to `http2`, as ALPN says. One task a handshake, none afterwards
//! for HTTP/1.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use rustls::pki_types::UnixTime;
use rustls::server::Acceptor;
use rustls::{Connection, ServerConfig, ServerConnection};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::client_auth::Policy;
use super::config::Server;
use super::passthrough;
use super::stream::{self, Socket, TlsStream};
use crate::l7::balance::ClusterState;
use crate::l7::head::{ConnectionInfo, TlsInfo};
use crate::l7::http1::Engine;
use crate::l7::http2::Http2;
use crate::l7::proxy_protocol;
use crate::l7::timeouts;
use crate::l7::worker::Worker;

/// Handshakes at once on one worker. Above it connections wait in the kernel's queue.
const MAX_HANDSHAKES: usize = 8192;

/// How long to wait before accepting again when the process has no descriptor or memory left.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(100);

/// How much of a client's first message is read at once; most fit.
const HELLO: usize = 4096;

/// Configurations that are kept, those of policies that are long gone among them.
const MAX_CONFIGS: usize = 1024;

/// A worker's TLS side.
pub struct TlsAccept {
    worker: Rc<Worker>,
    engine: Rc<Engine>,
    http2: Rc<Http2>,
    server: Server,
    /// Configurations by [`Policy::id`].
    configs: RefCell<HashMap<[u8; 32], Arc<ServerConfig>>>,
    limit: Arc<Semaphore>,
    handshakes: Cell<usize>,
}

impl TlsAccept {
    /// A TLS side that hands its connections to these engines.
    pub fn new(worker: Rc<Worker>, engine: Rc<Engine>, http2: Rc<Http2>, server: Server) -> Rc<Self> {
        let limit = Arc::new(Semaphore::new(MAX_HANDSHAKES));
        Rc::new(Self {
            worker,
            engine,
            http2,
            server,
            configs: RefCell::default(),
            limit,
            handshakes: Cell::new(0),
        })
    }

    /// Handshakes under way, and connections that are passed through.
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
        let mut info = ConnectionInfo::new(client, local, None);
        let handshake = {
            let _counted = Counted::new(&self.handshakes);
            tokio::time::timeout(timeouts::HANDSHAKE, self.begin(&stream, &mut info)).await
        };
        drop(permit);
        let (session, tls) = match handshake {
            Ok(Ok(Shaken::Done(session, tls))) => (session, tls),
            Ok(Ok(Shaken::PassedOn(to, hello))) => {
                let _counted = Counted::new(&self.handshakes);
                return passthrough::pass(&self.worker, stream, &hello, to.as_deref()).await;
            }
            // Somebody looked whether we are there.
            Ok(Ok(Shaken::Left)) => return,
            Ok(Err(_)) | Err(_) => return self.worker.stats.tls_failed.add(1),
        };
        let is_http2 = session.alpn_protocol() == Some(b"h2");
        let info = Rc::new(info.encrypted(tls));
        if is_http2 {
            Rc::clone(&self.http2).serve(TlsStream::new(stream, session.into()), info).await;
        } else {
            let handed_over =
                stream.into_std().and_then(|stream| self.engine.accept_tls(stream, session, info));
            if let Err(error) = handed_over {
                tracing::warn!(%client, %error, "a connection could not be handed to the HTTP/1 engine");
            }
        }
    }

    /// A trusted proxy's header first, if one is due, then the handshake.
    async fn begin(&self, stream: &TcpStream, info: &mut ConnectionInfo) -> io::Result<Shaken> {
        let mut early = Vec::new();
        if self.worker.awaits_proxy_header(info) {
            let (header, rest) = proxy_protocol::read(stream)
                .await
                .inspect_err(|error| self.worker.proxy_header_failed(info, error))?;
            *info = info.clone().proxied(&header);
            early = rest;
        }
        self.handshake(stream, info.local, early).await
    }

    /// `early`: what was read of it.
    async fn handshake(&self, stream: &TcpStream, local: SocketAddr, early: Vec<u8>) -> io::Result<Shaken> {
        let Some((accepted, read)) = client_hello(stream, early).await? else { return Ok(Shaken::Left) };
        // Names in SNI are ASCII; case does not matter (RFC 6066 3).
        let name = accepted.client_hello().server_name().map(str::to_ascii_lowercase);
        // Who names no host gets what is wanted where rules name none.
        let host = name.as_deref().unwrap_or_default();
        let live = self.worker.live();
        let router = live.router_at(local.ip().to_canonical());
        if let Some(route) = router.passthrough(host) {
            let backend = route.cluster.and_then(|key| live.backend(key));
            let to = backend.map(|backend| self.worker.balancer.cluster(backend));
            return Ok(Shaken::PassedOn(to, read));
        }
        let policy = router.client_policy(host).cloned();
        let config = match &policy {
            Some(policy) => self.config(policy).map_err(io::Error::other)?,
            None => Arc::clone(self.server.plain()),
        };
        let session = match accepted.into_connection(config) {
            Ok(session) => session,
            Err((error, mut alert)) => {
                let _ = alert.write(&mut Socket(stream));
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        };
        let mut session = Connection::from(session);
        // What came together with the ClientHello.
        stream::process(stream, &mut session)?;
        stream::handshake(stream, &mut session).await?;
        let Connection::Server(session) = session else { return Ok(Shaken::Left) };
        let client = policy.as_ref().map(|policy| policy.judge(session.peer_certificates(), UnixTime::now()));
        let server_name = name.map(String::into_boxed_str);
        let tls = TlsInfo { server_name, policy: policy.map(|policy| policy.id), client };
        Ok(Shaken::Done(session, tls))
    }

    fn config(&self, policy: &Policy) -> Result<Arc<ServerConfig>, rustls::Error> {
        let mut configs = self.configs.borrow_mut();
        if let Some(config) = configs.get(&policy.id) {
            return Ok(Arc::clone(config));
        }
        if configs.len() >= MAX_CONFIGS {
            configs.clear();
        }
        let config = self.server.with_client_auth(policy.verifier(), policy.id)?;
        configs.insert(policy.id, Arc::clone(&config));
        Ok(config)
    }
}

/// What became of a connection.
#[expect(clippy::large_enum_variant, reason = "moved once, and nearly always the large one")]
enum Shaken {
    /// Its handshake is done.
    Done(ServerConnection, TlsInfo),
    /// Its name's connections are passed through: where to, if there is such a cluster, and what was read of it.
    PassedOn(Option<Rc<ClusterState>>, Vec<u8>),
    /// The client left without a word.
    Left,
}

/// Reads until it is known what the client wants, and gives what was read besides. `read`: what was read already. `None`:
/// it closed before its first byte.
async fn client_hello(
    stream: &TcpStream,
    mut read: Vec<u8>,
) -> io::Result<Option<(rustls::server::Accepted, Vec<u8>)>> {
    let mut acceptor = Acceptor::default();
    let mut buffer = [0; HELLO];
    let mut seen = 0;
    loop {
        while seen < read.len() {
            seen += acceptor.read_tls(&mut &read[seen..])?;
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => return Ok(Some((accepted, read))),
            Ok(None) => {}
            Err((error, mut alert)) => {
                let _ = alert.write(&mut Socket(stream));
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
        match stream::read(stream, &mut buffer).await? {
            0 if read.is_empty() => return Ok(None),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => read.extend_from_slice(&buffer[..count]),
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
