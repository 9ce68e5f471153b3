//! A router with one worker, backends whose every byte a test decides, and a client that reads answers one by one.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use xdp_ingress::l7::{Config, L7};
use xdp_ingress::model::{
    Cluster, ClusterId, Endpoint, Filters, HostPattern, Kind, ObjectRef, PathMatch, PathRule, Route,
    Snapshot, Target,
};

pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A snapshot that sends everything to `endpoints`.
pub(crate) fn snapshot(endpoints: &[SocketAddr]) -> Snapshot {
    filtered(endpoints, Filters::default())
}

/// The same, with what annotations ask for.
pub(crate) fn filtered(endpoints: &[SocketAddr], filters: Filters) -> Snapshot {
    let id =
        ClusterId { namespace: "default".into(), service: "backend".into(), port: 80, by_service: false };
    let mut endpoints: Vec<Endpoint> =
        endpoints.iter().map(|&address| Endpoint { address, node: None }).collect();
    endpoints.sort_by_key(|endpoint| endpoint.address);
    let mut snapshot = Snapshot::default();
    snapshot.clusters.insert(id.clone(), Arc::new(Cluster { id: id.clone(), endpoints }));
    let ingress = ObjectRef::new(Kind::Ingress, "default", "all");
    let route = Arc::new(Route { ingress, target: Target::Cluster(id), filters });
    let rule = PathRule { path: PathMatch::Prefix(String::new()), route };
    snapshot.routes.hosts.entry(HostPattern::Any).or_default().paths.push(rule);
    snapshot
}

pub(crate) struct Proxy {
    pub(crate) l7: L7,
    pub(crate) address: SocketAddr,
}

impl Proxy {
    /// A router in front of `endpoints`.
    pub(crate) fn start(endpoints: &[SocketAddr]) -> Self {
        Self::serving(&snapshot(endpoints))
    }

    /// A router that serves this.
    pub(crate) fn serving(snapshot: &Snapshot) -> Self {
        let http = vec!["127.0.0.1:0".parse().unwrap()];
        let config = Config { workers: 1, http, https: vec![], follow_vips: false, ..Config::default() };
        let l7 = L7::start(config, snapshot).unwrap();
        let address = l7.addresses().next().unwrap().socket;
        Self { l7, address }
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// Begins to drain, on a thread of its own.
    pub(crate) fn drain(self) -> std::thread::JoinHandle<usize> {
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(self.l7.drain(PATIENCE))
        })
    }
}

/// A backend: `serve` gets each connection on a thread of its own.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
}

impl Backend {
    pub(crate) fn start(serve: impl Fn(Peer) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, open) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (total, current, serve) = (Arc::clone(&connections), Arc::clone(&open), Arc::new(serve));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                total.fetch_add(1, Ordering::SeqCst);
                current.fetch_add(1, Ordering::SeqCst);
                let (serve, current) = (Arc::clone(&serve), Arc::clone(&current));
                std::thread::spawn(move || {
                    serve(Peer::new(stream));
                    current.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, connections, open }
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Connections open now.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

/// Waits until `condition` holds.
pub(crate) fn eventually(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// One side of a connection, reading whole messages.
pub(crate) struct Peer {
    pub(crate) reader: BufReader<TcpStream>,
    /// Everything that was read, if somebody wants to know.
    pub(crate) record: Option<Arc<Mutex<Vec<u8>>>>,
}

/// A head and its body as sent (chunks included).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Message {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Message {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The status of an answer.
    pub(crate) fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// The body without its chunks.
    pub(crate) fn payload(&self) -> Vec<u8> {
        if self.header("transfer-encoding").is_none() {
            return self.body.clone();
        }
        let (mut rest, mut payload) = (&self.body[..], Vec::new());
        loop {
            let end = rest.windows(2).position(|pair| pair == b"\r\n").unwrap();
            let line = std::str::from_utf8(&rest[..end]).unwrap();
            let size = usize::from_str_radix(line.split(';').next().unwrap(), 16).unwrap();
            if size == 0 {
                return payload;
            }
            payload.extend_from_slice(&rest[end + 2..end + 2 + size]);
            rest = &rest[end + 2 + size + 2..];
        }
    }
}

impl Peer {
    pub(crate) fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { reader: BufReader::new(stream), record: None }
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // The other side may have gone; the test sees that by what it reads.
        let _ = self.reader.get_mut().write_all(bytes.as_ref());
    }

    fn noted(&self, bytes: &[u8]) {
        if let Some(record) = &self.record {
            record.lock().unwrap().extend_from_slice(bytes);
        }
    }

    fn line(&mut self, into: &mut Vec<u8>) -> Option<()> {
        let start = into.len();
        let read = self.reader.read_until(b'\n', into).ok()?;
        self.noted(&into[start..]);
        (read > 0).then_some(())
    }

    fn exactly(&mut self, length: usize, into: &mut Vec<u8>) -> Option<()> {
        let start = into.len();
        into.resize(start + length, 0);
        let read = self.reader.read_exact(&mut into[start..]);
        self.noted(&into[start..]);
        read.ok()
    }

    /// The next head; `None` at the end.
    pub(crate) fn head(&mut self) -> Option<Message> {
        let mut head = Vec::new();
        loop {
            let start = head.len();
            self.line(&mut head)?;
            if &head[start..] == b"\r\n" && start > 0 {
                return Some(Message { head: String::from_utf8_lossy(&head).into_owned(), body: Vec::new() });
            }
        }
    }

    /// The next message with its body, if it says how long that is.
    pub(crate) fn message(&mut self) -> Option<Message> {
        let mut message = self.head()?;
        let mut body = Vec::new();
        if let Some(length) = message.header("content-length") {
            let length = length.parse().unwrap();
            self.exactly(length, &mut body)?;
        } else if message.header("transfer-encoding").is_some() {
            loop {
                let start = body.len();
                self.line(&mut body)?;
                let line = String::from_utf8_lossy(&body[start..]).into_owned();
                let size = usize::from_str_radix(line.trim().split(';').next().unwrap(), 16).ok()?;
                if size == 0 {
                    loop {
                        let start = body.len();
                        self.line(&mut body)?;
                        if &body[start..] == b"\r\n" {
                            break;
                        }
                    }
                    break;
                }
                self.exactly(size + 2, &mut body)?;
            }
        }
        message.body = body;
        Some(message)
    }

    /// Everything until the other side closes.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        // A reset ends it too.
        let _ = self.reader.read_to_end(&mut rest);
        self.noted(&rest);
        rest
    }

    /// Whether the other side has closed, with nothing left to read.
    pub(crate) fn is_closed(&mut self) -> bool {
        self.reader.fill_buf().map_or(true, <[u8]>::is_empty)
    }
}

/// A client.
pub(crate) struct Client(pub(crate) Peer);

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self(Peer::new(TcpStream::connect(address).unwrap()))
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.0.send(bytes);
        self
    }

    pub(crate) fn get(&mut self, path: &str) -> Message {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        self.answer()
    }

    pub(crate) fn answer(&mut self) -> Message {
        self.0.message().expect("an answer")
    }

    /// An answer to `HEAD`, or an interim one.
    pub(crate) fn head(&mut self) -> Message {
        self.0.head().expect("a head")
    }
}

/// Answers every request with 200 and `body`.
pub(crate) fn always(body: &'static str) -> impl Fn(Peer) + Send + Sync {
    move |mut peer: Peer| {
        while let Some(request) = peer.message() {
            let shown = if request.head.starts_with("HEAD ") { "" } else { body };
            peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{shown}", body.len()));
        }
    }
}
