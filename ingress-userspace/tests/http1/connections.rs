//! The life of connections on both sides: reuse, loss, retries, draining.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::harness::{Backend, Client, Peer, Proxy, always, eventually, snapshot};

/// An address at which nobody listens.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn connections_are_used_again_on_both_sides() {
    let backend = Backend::start(always("ok"));
    let proxy = Proxy::start(&[backend.address]);
    let mut client = proxy.client();
    for _ in 0..50 {
        assert_eq!(client.get("/").payload(), b"ok");
    }
    for _ in 0..20 {
        assert_eq!(proxy.client().get("/").payload(), b"ok");
    }
    assert_eq!(backend.connections(), 1);
}

#[test]
fn many_pipelined_requests_are_answered_in_order() {
    let backend = Backend::start(|mut peer: Peer| {
        while let Some(request) = peer.message() {
            let path = request.head.split(' ').nth(1).unwrap().to_owned();
            peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len()));
        }
    });
    let proxy = Proxy::start(&[backend.address]);
    let mut client = proxy.client();
    let wire =
        (0..3000).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n")).collect::<Vec<_>>().concat();
    let mut writer = client.0.stream().try_clone().unwrap();
    let sender = std::thread::spawn(move || std::io::Write::write_all(&mut writer, wire.as_bytes()).unwrap());
    for n in 0..3000 {
        assert_eq!(client.answer().payload(), format!("/{n}").as_bytes());
    }
    sender.join().unwrap();
}

#[test]
fn a_pooled_connection_that_died_costs_no_request() {
    // Closes each connection after its first answer, without saying so.
    let backend = Backend::start(|mut peer: Peer| {
        peer.message().unwrap();
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    let proxy = Proxy::start(&[backend.address]);
    let mut client = proxy.client();
    for n in 0..100 {
        // POST cannot be sent twice: its connection is looked at before.
        let method = if n % 2 == 0 { "GET" } else { "POST" };
        client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"));
        assert_eq!(client.answer().payload(), b"ok", "request {n}");
        if n % 2 == 0 {
            // The end has arrived by the time of the POST.
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn a_reused_connection_that_dies_under_a_request_is_replaced_once_for_idempotent_ones() {
    let requests = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&requests);
    // Answers the first request of a connection, and hangs up on the second.
    let backend = Backend::start(move |mut peer: Peer| {
        peer.message().unwrap();
        count.fetch_add(1, Ordering::SeqCst);
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        if peer.message().is_some() {
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let proxy = Proxy::start(&[backend.address]);
    let mut client = proxy.client();
    assert_eq!(client.get("/1").payload(), b"ok");
    assert_eq!(client.get("/2").payload(), b"ok");
    assert_eq!((requests.load(Ordering::SeqCst), backend.connections()), (3, 2));
    client.send("POST /3 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!(client.answer().status(), 502);
    assert_eq!((requests.load(Ordering::SeqCst), backend.connections()), (4, 2));
    assert_eq!(proxy.l7.stats().totals.retried, 1);
}

#[test]
fn dead_endpoints_are_passed_over() {
    let backend = Backend::start(always("ok"));
    let proxy = Proxy::start(&[nobody(), nobody(), backend.address]);
    for _ in 0..30 {
        let mut client = proxy.client();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
        assert_eq!(client.answer().status(), 200);
    }
    let proxy = Proxy::start(&[nobody(), nobody(), nobody(), nobody()]);
    let mut client = proxy.client();
    let answer = client.get("/");
    assert_eq!(answer.status(), 502);
    assert_eq!(proxy.l7.stats().totals.connect_failed, 3);
    assert_eq!(client.get("/").status(), 502, "the connection goes on");
}

#[test]
fn a_client_that_goes_away_takes_its_request_along() {
    let backend = Backend::start(|mut peer: Peer| {
        peer.head().unwrap();
        // Never answers; ends when the router hangs up.
        peer.rest();
    });
    let proxy = Proxy::start(&[backend.address]);
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the request arrives", || backend.open() == 1);
    drop(client);
    eventually("the router hangs up", || backend.open() == 0 && proxy.l7.connections() == 0);
    // Amid an upload, too.
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc");
    eventually("the request arrives", || backend.open() == 1);
    drop(client);
    eventually("the router hangs up", || backend.open() == 0 && proxy.l7.connections() == 0);
}

#[test]
fn a_client_that_said_close_may_close_its_half() {
    let backend = Backend::start(|mut peer: Peer| {
        peer.message().unwrap();
        std::thread::sleep(Duration::from_millis(100));
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    let proxy = Proxy::start(&[backend.address]);
    for request in
        ["GET / HTTP/1.0\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"]
    {
        let mut client = proxy.client();
        client.send(request);
        client.0.stream().shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(client.answer().payload(), b"ok");
        assert!(client.0.is_closed());
    }
}

#[test]
fn a_change_of_the_snapshot_leaves_connections_alone() {
    let (one, other) = (Backend::start(always("one")), Backend::start(always("other")));
    let proxy = Proxy::start(&[one.address]);
    let mut client = proxy.client();
    for _ in 0..20 {
        assert_eq!(client.get("/").payload(), b"one");
        proxy.l7.publish(&snapshot(&[other.address]));
        assert_eq!(client.get("/").payload(), b"other");
        proxy.l7.publish(&snapshot(&[one.address]));
    }
}

#[test]
fn draining_ends_each_connection_with_its_next_answer() {
    let backend = Backend::start(|mut peer: Peer| {
        while peer.message().is_some() {
            std::thread::sleep(Duration::from_millis(200));
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let proxy = Proxy::start(&[backend.address]);
    let address = proxy.address;
    let (mut busy, mut idle, mut active) = (proxy.client(), proxy.client(), proxy.client());
    assert_eq!(idle.get("/").status(), 200);
    assert_eq!(active.get("/").status(), 200);
    busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    std::thread::sleep(Duration::from_millis(50));
    let drained = proxy.drain();
    std::thread::sleep(Duration::from_millis(50));
    // One more request on an open connection is served, and is the last.
    let last = active.get("/");
    assert_eq!((last.payload(), last.header("connection")), (b"ok".to_vec(), Some("close")));
    let last = busy.answer();
    assert_eq!((last.payload(), last.header("connection")), (b"ok".to_vec(), Some("close")));
    assert!(busy.0.is_closed() && active.0.is_closed());
    assert!(idle.0.is_closed(), "those without a request are closed after a moment");
    assert_eq!(drained.join().unwrap(), 0);
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[test]
fn many_clients_at_once() {
    let backends = [Backend::start(always("ok")), Backend::start(always("ok"))];
    let proxy = Proxy::start(&backends.each_ref().map(|backend| backend.address));
    let address = proxy.address;
    let threads: Vec<_> = (0..16)
        .map(|_| {
            std::thread::spawn(move || {
                for round in 0..50 {
                    let mut client = Client::connect(address);
                    for _ in 0..=round % 4 {
                        assert_eq!(client.get("/").payload(), b"ok");
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    eventually("all connections are closed", || proxy.l7.connections() == 0);
    let report = proxy.l7.stats();
    assert_eq!((report.totals.requests[1], report.totals.accepted), (16 * 123, 800));
}
