//! The small HTTP server that operators, probes and our own command line talk to. Read-only over TCP; what changes
//! something, or shows more than health, is on the Unix socket, whose file permissions guard it.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;

use super::exposition::Exposition;

/// What the server asks the daemon.
pub trait Daemon: Send + Sync + 'static {
    /// `Ok` when this node may get traffic, else why not.
    fn ready(&self) -> Result<(), String>;
    /// All metrics in this format.
    fn metrics(&self, exposition: Exposition) -> Vec<u8>;
    /// Everything that `xdp-ingress status` shows, as JSON.
    fn status(&self) -> String;
    /// Stop or start taking new connections on this node.
    fn drain(&self, draining: bool);
    /// What would become of a packet, as JSON; `query` is what the command line asks. May block for some tenths of a second.
    /// Or why there is no answer.
    fn why(&self, query: &str) -> Result<String, String>;
    /// Another daemon, of the node `node`, has come to take this one's place: it needs the admin address. Or why it may not.
    fn introduced(&self, node: &str) -> Result<(), String>;
    /// Leaves the node to that daemon, and gives what it goes on with, as JSON. Or why not (yet).
    fn hand_over(&self) -> Pin<Box<dyn Future<Output = Result<String, String>> + Send + '_>>;
}

/// Who may ask for what.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    /// Health and metrics: the admin address.
    Observe,
    /// All: the control socket.
    Control,
}

/// The admin address, as long as it is ours.
#[derive(Debug)]
pub struct Admin {
    /// Where it is, with the real port.
    pub address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Admin {
    /// Lets somebody else have the address. Requests that are being answered end by themselves.
    pub async fn stop(self) {
        self.accepting.abort();
        let _ = self.accepting.await;
    }
}

/// Serves `/healthz`, `/readyz` and `/metrics` at `address` until the runtime ends or it is stopped. Port 0 picks a free one.
pub async fn serve_tcp(address: SocketAddr, daemon: Arc<dyn Daemon>) -> io::Result<Admin> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    let accepting = tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => connection(stream, Arc::clone(&daemon), Access::Observe),
                Err(error) => accept_failed(&error).await,
            }
        }
    });
    Ok(Admin { address, accepting })
}

/// Serves the control socket at `path` (mode 0600) until the guard is dropped. A socket left by a crashed daemon is
/// replaced; one on which somebody answers is not: two daemons must not share a state directory.
pub fn serve_unix(path: &Path, daemon: Arc<dyn Daemon>) -> io::Result<SocketFile> {
    if fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket()) {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another daemon is running on it"));
        }
        fs::remove_file(path)?;
    }
    serve_new(path, path, daemon)
}

/// The same in the place of a daemon that has handed over. Whoever asks gets an answer at any time.
pub fn replace_unix(path: &Path, daemon: Arc<dyn Daemon>) -> io::Result<SocketFile> {
    let mut random = [0; 4];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| io::Error::other("no random numbers from the system"))?;
    // Short: a socket's path has at most 107 bytes.
    let aside = path.with_extension(format!("{:x}", u32::from_ne_bytes(random)));
    serve_new(&aside, path, daemon)
}

/// Makes the socket at `aside`, then gives it its name.
fn serve_new(aside: &Path, path: &Path, daemon: Arc<dyn Daemon>) -> io::Result<SocketFile> {
    let listener = UnixListener::bind(aside)?;
    fs::set_permissions(aside, fs::Permissions::from_mode(0o600))?;
    fs::rename(aside, path)?;
    let guard = SocketFile { path: path.to_owned(), inode: fs::symlink_metadata(path)?.ino() };
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => connection(stream, Arc::clone(&daemon), Access::Control),
                Err(error) => accept_failed(&error).await,
            }
        }
    });
    Ok(guard)
}

/// Removes the socket's file when dropped, unless another daemon has put its own there.
pub struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // It may be gone already, with its directory; nothing hangs on it.
        if fs::symlink_metadata(&self.path).is_ok_and(|file| file.ino() == self.inode) {
            drop(fs::remove_file(&self.path));
        }
    }
}

async fn accept_failed(error: &io::Error) {
    tracing::warn!(%error, "admin: accepting a connection failed; trying again in 100 ms");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    daemon: Arc<dyn Daemon>,
    access: Access,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let daemon = Arc::clone(&daemon);
        async move { Ok::<_, Infallible>(answer(&request, daemon.as_ref(), access).await) }
    });
    tokio::spawn(async move {
        let served = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_secs(10))
            .serve_connection(TokioIo::new(stream), service)
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "admin: connection ended early");
        }
    });
}

async fn answer(request: &Request<Incoming>, daemon: &dyn Daemon, access: Access) -> Response<Full<Bytes>> {
    const TEXT: &str = "text/plain; charset=utf-8";
    let control = access == Access::Control;
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/healthz") => reply(StatusCode::OK, TEXT, "ok\n".to_owned()),
        (&Method::GET, "/readyz") => match daemon.ready() {
            Ok(()) => reply(StatusCode::OK, TEXT, "ok\n".to_owned()),
            Err(why) => reply(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("not ready: {why}\n")),
        },
        (&Method::GET, "/metrics") => {
            let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
            let exposition = Exposition::wanted(accept.unwrap_or_default());
            reply(StatusCode::OK, exposition.content_type(), daemon.metrics(exposition))
        }
        (&Method::GET, "/status") if control => reply(StatusCode::OK, "application/json", daemon.status()),
        (&Method::GET, "/why") if control => match daemon.why(request.uri().query().unwrap_or_default()) {
            Ok(answer) => reply(StatusCode::OK, "application/json", answer),
            Err(why) => reply(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{why}\n")),
        },
        (&Method::POST, path @ ("/drain" | "/undrain")) if control => {
            daemon.drain(path == "/drain");
            reply(StatusCode::OK, TEXT, "ok\n".to_owned())
        }
        (&Method::POST, "/introduce") if control => {
            match daemon.introduced(request.uri().query().unwrap_or_default()) {
                Ok(()) => reply(StatusCode::OK, TEXT, "ok\n".to_owned()),
                Err(why) => reply(StatusCode::CONFLICT, TEXT, format!("{why}\n")),
            }
        }
        (&Method::POST, "/hand-over") if control => match daemon.hand_over().await {
            Ok(legacy) => reply(StatusCode::OK, "application/json", legacy),
            Err(why) => reply(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{why}\n")),
        },
        _ => reply(StatusCode::NOT_FOUND, TEXT, "here: /healthz /readyz /metrics\n".to_owned()),
    }
}

fn reply(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::client;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[derive(Default)]
    struct Fake(AtomicBool);

    impl Daemon for Fake {
        fn ready(&self) -> Result<(), String> {
            if self.0.load(Ordering::Relaxed) { Err("draining".to_owned()) } else { Ok(()) }
        }
        fn metrics(&self, exposition: Exposition) -> Vec<u8> {
            if exposition == Exposition::Text { b"# EOF\n".to_vec() } else { b"binary".to_vec() }
        }
        fn status(&self) -> String {
            "{}".to_owned()
        }
        fn drain(&self, draining: bool) {
            self.0.store(draining, Ordering::Relaxed);
        }
        fn why(&self, query: &str) -> Result<String, String> {
            Ok(format!("{{\"asked\": {query:?}}}"))
        }
        fn introduced(&self, _: &str) -> Result<(), String> {
            Ok(())
        }
        fn hand_over(&self) -> Pin<Box<dyn Future<Output = Result<String, String>> + Send + '_>> {
            Box::pin(async { Ok("{}".to_owned()) })
        }
    }

    async fn get(address: SocketAddr, request: &str) -> String {
        get_with(address, request, "accept: */*").await
    }

    async fn get_with(address: SocketAddr, request: &str, field: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream
            .write_all(
                format!("{request} HTTP/1.1\r\nhost: x\r\n{field}\r\nconnection: close\r\n\r\n").as_bytes(),
            )
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn tcp_observes_and_the_socket_controls() {
        let daemon = Arc::new(Fake::default());
        let admin = serve_tcp("127.0.0.1:0".parse().unwrap(), daemon.clone()).await.unwrap();
        let address = admin.address;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let guard = serve_unix(&path, daemon.clone()).unwrap();

        assert!(get(address, "GET /readyz").await.starts_with("HTTP/1.1 200"));
        assert!(get(address, "POST /drain").await.starts_with("HTTP/1.1 404"));
        assert!(get(address, "GET /status").await.starts_with("HTTP/1.1 404"));
        assert!(get(address, "GET /why?x").await.starts_with("HTTP/1.1 404"));
        let answer = client::request(&path, Method::GET, "/why?x").await.unwrap();
        assert_eq!(answer, "{\"asked\": \"x\"}");

        assert_eq!(client::request(&path, Method::GET, "/status").await.unwrap(), "{}");
        client::request(&path, Method::POST, "/drain").await.unwrap();
        let answer = get(address, "GET /readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("draining"), "{answer}");
        client::request(&path, Method::POST, "/undrain").await.unwrap();
        assert!(get(address, "GET /readyz").await.starts_with("HTTP/1.1 200"));
        assert!(get(address, "GET /metrics").await.ends_with("# EOF\n"));
        let accept = format!("accept: {}", Exposition::Protobuf.content_type());
        let answer = get_with(address, "GET /metrics", &accept).await;
        assert!(
            answer.contains(Exposition::Protobuf.content_type()) && answer.ends_with("binary"),
            "{answer}"
        );

        assert!(get(address, "POST /hand-over").await.starts_with("HTTP/1.1 404"));
        admin.stop().await;
        drop(TcpListener::bind(address).await.expect("the address is free again"));

        assert!(serve_unix(&path, daemon.clone()).is_err(), "somebody answers on it");
        let next = replace_unix(&path, daemon).unwrap();
        drop(guard);
        assert!(path.exists(), "it is the next daemon's now");
        assert_eq!(client::request(&path, Method::POST, "/hand-over").await.unwrap(), "{}");
        drop(next);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_dead_daemons_socket_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        serve_unix(&path, Arc::new(Fake::default())).unwrap();
    }
}
