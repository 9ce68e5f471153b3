//! Timeouts, with an engine whose patience is short.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::live::{Compiler, Live, Shared};
use super::*;
use crate::model::{
    Cluster, ClusterId, Endpoint, Filters, HostPattern, Kind, ObjectRef, PathMatch, PathRule, Route,
    Snapshot, Target,
};

const SHORT: Duration = Duration::from_millis(300);
/// By then a short timeout has passed for sure, and a long one for sure not.
const SOON: Duration = Duration::from_secs(3);
const LONG: Duration = Duration::from_secs(20);

/// Everything but what a test shortens waits for long.
fn patient() -> Http1Config {
    Http1Config {
        head_timeout: LONG,
        idle_timeout: LONG,
        client_timeout: LONG,
        connect_timeout: LONG,
        upstream_timeout: LONG,
        pool_timeout: LONG,
        linger: LONG,
        ..Http1Config::default()
    }
}

fn snapshot(endpoints: &[SocketAddr]) -> Snapshot {
    let id =
        ClusterId { namespace: "default".into(), service: "backend".into(), port: 80, by_service: false };
    let mut endpoints: Vec<_> = endpoints.iter().map(|&address| Endpoint { address, node: None }).collect();
    endpoints.sort_by_key(|endpoint| endpoint.address);
    let mut snapshot = Snapshot::default();
    snapshot.clusters.insert(id.clone(), Arc::new(Cluster { id: id.clone(), endpoints }));
    let ingress = ObjectRef::new(Kind::Ingress, "default", "all");
    let route = Arc::new(Route { ingress, target: Target::Cluster(id), filters: Filters::default() });
    let rule = PathRule { path: PathMatch::Prefix(String::new()), route };
    snapshot.routes.hosts.entry(HostPattern::Any).or_default().paths.push(rule);
    snapshot
}

/// An engine on a thread of its own, which runs until the tests end.
fn engine(config: Http1Config, endpoints: &[SocketAddr]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let shared = Arc::new(Shared::default());
    shared.publish(Arc::new(Compiler::default().compile(&snapshot(endpoints), &Live::default())));
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let engine = Engine::new(Worker::new(0, shared, Arc::default()), config).unwrap();
            engine.add_listener(listener).unwrap();
            engine.run().await;
        });
    });
    address
}

/// A backend that does `serve` with each connection.
fn backend(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let serve = Arc::clone(&serve);
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

/// Reads what comes first, then answers with `answer`, then waits for the end.
fn answering(answer: &'static str) -> SocketAddr {
    backend(move |mut stream| {
        let mut buffer = [0; 4096];
        while stream.read(&mut buffer).is_ok_and(|count| count > 0) {
            stream.write_all(answer.as_bytes()).unwrap();
        }
    })
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream
}

/// Sends `request` and reads to the end; what came, and whether the end came soon.
fn converse(address: SocketAddr, request: &str) -> (String, bool) {
    let start = Instant::now();
    let mut stream = connect(address);
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    (answer, start.elapsed() < SOON)
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn a_slow_head_gets_408() {
    let address = engine(Http1Config { head_timeout: SHORT, linger: SHORT, ..patient() }, &[]);
    let (answer, soon) = converse(address, "GET / HTTP/1.1\r\nHo");
    assert!(
        soon && answer.starts_with("HTTP/1.1 408 ") && answer.contains("Connection: close\r\n"),
        "{answer}"
    );
    // Bytes that trickle in win no time.
    let start = Instant::now();
    let mut stream = connect(address);
    while stream.write_all(b"a").is_ok() && start.elapsed() < LONG {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(start.elapsed() < SOON);
}

#[test]
fn idle_connections_are_closed_without_a_word() {
    let address = engine(Http1Config { head_timeout: SHORT, ..patient() }, &[]);
    assert_eq!(converse(address, ""), (String::new(), true));
    let ok = answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let address = engine(Http1Config { idle_timeout: SHORT, ..patient() }, &[ok]);
    assert_eq!(converse(address, GET), ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned(), true));
}

#[test]
fn a_silent_backend_gives_504_and_the_connection_goes_on() {
    let address = engine(Http1Config { upstream_timeout: SHORT, ..patient() }, &[answering("")]);
    let mut stream = connect(address);
    let start = Instant::now();
    for _ in 0..2 {
        stream.write_all(GET.as_bytes()).unwrap();
        let mut buffer = [0; 1024];
        let count = stream.read(&mut buffer).unwrap();
        assert!(buffer[..count].starts_with(b"HTTP/1.1 504 "), "{}", buffer[..count].escape_ascii());
    }
    assert!(start.elapsed() < SOON);
}

#[test]
fn a_backend_that_falls_silent_ends_the_connection() {
    let stuck = answering("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
    let address = engine(Http1Config { upstream_timeout: SHORT, ..patient() }, &[stuck]);
    let (answer, soon) = converse(address, GET);
    assert!(soon && answer.ends_with("half"), "{answer}");
}

#[test]
fn a_stalled_upload_gets_408() {
    let config = Http1Config { client_timeout: SHORT, upstream_timeout: SHORT, ..patient() };
    let address = engine(config, &[answering("")]);
    let (answer, soon) = converse(address, "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf");
    assert!(soon && answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[test]
fn a_body_that_only_drips_gives_408() {
    // Each byte comes in time, all of them would take for ever.
    let config = Http1Config { client_timeout: SHORT, body_rate: 100_000, ..patient() };
    let reading = backend(|mut stream| drop(stream.read_to_end(&mut Vec::new())));
    let address = engine(config, &[reading]);
    let mut stream = connect(address);
    stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n").unwrap();
    let mut dripping = stream.try_clone().unwrap();
    std::thread::spawn(move || {
        while dripping.write_all(b"x").is_ok() {
            std::thread::sleep(SHORT / 10);
        }
    });
    let mut status = [0; 12];
    stream.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 408");
}

#[test]
fn an_endpoint_that_takes_no_connection_is_passed_over_or_gives_504() {
    // A full queue: the kernel drops what else comes, as a host does that is gone.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.listen(0).unwrap();
    let hole = socket.local_addr().unwrap().as_socket().unwrap();
    let _filling: Vec<_> = (0..3).map(|_| TcpStream::connect_timeout(&hole, SHORT)).collect();
    let config = || Http1Config { connect_timeout: SHORT, idle_timeout: SHORT, ..patient() };
    let ok = answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let address = engine(config(), &[hole, ok]);
    for _ in 0..4 {
        let (answer, _) = converse(address, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    let address = engine(config(), &[hole]);
    let (answer, _) = converse(address, GET);
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
}

#[test]
fn unused_connections_to_endpoints_are_closed() {
    let (ended, wait) = std::sync::mpsc::channel();
    let ok = backend(move |mut stream| {
        let mut buffer = [0; 4096];
        while stream.read(&mut buffer).is_ok_and(|count| count > 0) {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        }
        ended.send(()).unwrap();
    });
    let address = engine(Http1Config { pool_timeout: SHORT, ..patient() }, &[ok]);
    let mut stream = connect(address);
    stream.write_all(GET.as_bytes()).unwrap();
    wait.recv_timeout(SOON).unwrap();
}

#[test]
fn a_refused_client_cannot_linger_forever() {
    let address = engine(Http1Config { linger: SHORT, ..patient() }, &[]);
    let mut stream = connect(address);
    stream.write_all(b"GET / HTTP/1.1\r\nHost : a\r\n\r\n").unwrap();
    let start = Instant::now();
    while stream.write_all(b"more").is_ok() && start.elapsed() < LONG {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(start.elapsed() < SOON);
}

#[test]
fn a_silent_tunnel_is_closed() {
    let switching = answering("HTTP/1.1 101 S\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n");
    let address = engine(Http1Config { upstream_timeout: SHORT, ..patient() }, &[switching]);
    let (answer, soon) =
        converse(address, "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n");
    assert!(soon && answer.starts_with("HTTP/1.1 101 "), "{answer}");
}
