//! Limits of requests to a cluster: who waits for room, who is refused, by both protocols and over all workers.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Empty;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::{Router, Rules, client};
use crate::model::{ClusterId, Filters, Target, Upstream};

/// A backend that answers when it may, and knows how many requests it had at once.
#[derive(Default)]
struct Gate {
    now: AtomicUsize,
    most: AtomicUsize,
}

async fn backend(gate: Arc<Gate>, may_answer: Arc<Semaphore>) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, Arc::clone(&gate), Arc::clone(&may_answer)));
        }
    });
    address
}

async fn serve(mut stream: TcpStream, gate: Arc<Gate>, may_answer: Arc<Semaphore>) -> Option<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.ok()?);
        }
        let now = gate.now.fetch_add(1, Ordering::SeqCst) + 1;
        gate.most.fetch_max(now, Ordering::SeqCst);
        may_answer.acquire().await.ok()?.forget();
        gate.now.fetch_sub(1, Ordering::SeqCst);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.ok()?;
    }
}

/// The status of a request by HTTP/1.1, on a connection of its own: on any worker.
async fn http1(router: Arc<Router>) -> u16 {
    let mut stream = TcpStream::connect(router.http).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

async fn http2(router: Arc<Router>) -> u16 {
    let mut sender = client::http2(TcpStream::connect(router.http).await.unwrap()).await;
    let request = http::Request::get("http://a/").body(Empty::<Bytes>::new()).unwrap();
    sender.send_request(request).await.unwrap().status().as_u16()
}

fn rules(address: std::net::SocketAddr, max_requests: u32, max_pending: u32) -> Rules {
    let upstream =
        Upstream { max_requests: NonZeroU32::new(max_requests), max_pending, ..Upstream::default() };
    let id =
        ClusterId { namespace: "default".into(), service: "limited".into(), port: 80, by_service: false };
    let filters = Filters { upstream: Some(Arc::new(upstream)), ..Filters::default() };
    // The cluster is made by a rule of a host that nobody asks for.
    Rules::default().rule("other", "/", "limited", &[address]).route(
        "a",
        "/",
        "limited",
        Target::Cluster(id),
        filters,
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_wait_for_room_and_those_beyond_are_refused() {
    let (gate, may_answer) = (Arc::new(Gate::default()), Arc::new(Semaphore::new(0)));
    let address = backend(Arc::clone(&gate), Arc::clone(&may_answer)).await;
    let router = Arc::new(Router::start(&rules(address, 2, 4)));
    let (sent, mut answers) = tokio::sync::mpsc::unbounded_channel();
    for number in 0..10 {
        let (router, sent) = (Arc::clone(&router), sent.clone());
        tokio::spawn(async move {
            let status = if number % 2 == 0 { http1(router).await } else { http2(router).await };
            sent.send(status).unwrap();
        });
    }
    // Two are under way and four wait, whoever they are; the other four hear it at once.
    for _ in 0..4 {
        assert_eq!(answers.recv().await, Some(503));
    }
    assert!(tokio::time::timeout(Duration::from_millis(100), answers.recv()).await.is_err());
    for _ in 0..6 {
        may_answer.add_permits(1);
        assert_eq!(answers.recv().await, Some(200));
    }
    assert_eq!(gate.most.load(Ordering::SeqCst), 2, "requests at once at the backend");
    // All places are free again.
    may_answer.add_permits(2);
    assert_eq!((http1(Arc::clone(&router)).await, http2(router).await), (200, 200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_too_long_is_refused_and_who_leaves_gives_up_its_place() {
    let (gate, may_answer) = (Arc::new(Gate::default()), Arc::new(Semaphore::new(0)));
    let address = backend(Arc::clone(&gate), Arc::clone(&may_answer)).await;
    let router = Arc::new(Router::start(&rules(address, 1, 1)));
    let first = tokio::spawn(http1(Arc::clone(&router)));
    while gate.now.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    // It waits: another one is refused at once. Then it goes away.
    let impatient = loop {
        let mut stream = TcpStream::connect(router.http).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let other = tokio::time::timeout(Duration::from_millis(500), http1(Arc::clone(&router))).await;
        // Who asked earlier was answered earlier, if it was refused too.
        let is_waiting = tokio::time::timeout(Duration::from_millis(500), stream.readable()).await.is_err();
        if other == Ok(503) && is_waiting {
            break stream;
        }
    };
    drop(impatient);
    // Its place is another one's, who is refused after the time that a connection may take (5 s).
    let left = Instant::now();
    loop {
        let asked = Instant::now();
        assert_eq!(http2(Arc::clone(&router)).await, 503);
        if asked.elapsed() > Duration::from_secs(4) {
            break;
        }
        assert!(left.elapsed() < Duration::from_secs(3), "the place is not given up");
    }
    may_answer.add_permits(1);
    assert_eq!(first.await.unwrap(), 200);
}
