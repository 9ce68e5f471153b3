//! Bodies in both directions: streamed, byte for byte, under concurrency, with back-pressure.

use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::harness::{Backend, Client, PATIENCE, Peer, Proxy, always, eventually};

const MIB: usize = 1024 * 1024;

/// Bytes that no mistake of order or offset leaves equal.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
    .take(length)
    .collect()
}

fn chunked(bytes: &[u8], size: usize) -> Vec<u8> {
    let mut wire = Vec::new();
    for chunk in bytes.chunks(size) {
        wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        wire.extend_from_slice(chunk);
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b"0\r\n\r\n");
    wire
}

/// Sends back what it gets, framed in the same way.
fn echo(mut peer: Peer) {
    while let Some(request) = peer.message() {
        let framing = match request.header("content-length") {
            Some(length) => format!("Content-Length: {length}"),
            None => "Transfer-Encoding: chunked".to_owned(),
        };
        peer.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n"));
        peer.send(&request.body);
    }
}

#[test]
fn five_mebibytes_both_ways_under_concurrency() {
    let backend = Backend::start(echo);
    let proxy = Proxy::start(&[backend.address]);
    let address = proxy.address;
    let clients: Vec<_> = (0..8u64)
        .map(|number| {
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                for round in 0..2 {
                    let body = noise(number * 2 + round, 5 * MIB + number as usize);
                    let (head, wire) = if number % 2 == 0 {
                        (format!("Content-Length: {}", body.len()), body.clone())
                    } else {
                        (
                            "Transfer-Encoding: chunked".to_owned(),
                            chunked(&body, 10_007 * (1 + number as usize)),
                        )
                    };
                    let mut writer = client.0.stream().try_clone().unwrap();
                    let head = format!("PUT /{number} HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n");
                    let sender = std::thread::spawn(move || {
                        writer.write_all(head.as_bytes()).unwrap();
                        writer.write_all(&wire).unwrap();
                    });
                    let answer = client.answer();
                    sender.join().unwrap();
                    assert_eq!(answer.status(), 200);
                    assert!(answer.payload() == body, "client {number}, round {round}: the body changed");
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
}

#[test]
fn answers_stream_and_are_not_held_back() {
    let backend = Backend::start(|mut peer: Peer| {
        while peer.message().is_some() {
            peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nfirst\n\r\n");
            // The rest comes only once the client has seen the beginning and says so.
            peer.message();
            peer.send("5\r\nlast\n\r\n0\r\n\r\n");
        }
    });
    let other = Backend::start(always("x"));
    let proxy = Proxy::start(&[backend.address]);
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.head();
    let mut first = [0; 11];
    client.0.reader.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"6\r\nfirst\n\r\n");
    // Nothing but the pause: the backend waits for a message that never comes, and its connection is cut by the client.
    drop(client);
    eventually("the backend's connection closes with its client's", || backend.open() == 0);
    drop(other);
}

#[test]
fn a_slow_reader_does_not_fill_the_memory() {
    let taken = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&taken);
    let backend = Backend::start(move |mut peer: Peer| {
        while let Some(request) = peer.message() {
            if !request.head.contains("/large") {
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                continue;
            }
            peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 64 * MIB));
            let piece = vec![b'x'; MIB];
            // No byte more than announced: what follows would be taken for the next answer.
            for _ in 0..64 {
                if peer.reader.get_mut().write_all(&piece).is_err() {
                    break;
                }
                count.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    let proxy = Proxy::start(&[backend.address]);
    let mut client = proxy.client();
    client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
    client.head();
    std::thread::sleep(Duration::from_secs(1));
    // The client reads nothing: what was taken is in the kernel's buffers, and 64 KiB of it in ours.
    assert!(taken.load(Ordering::SeqCst) < 64, "everything was taken though nobody reads");
    assert_eq!(proxy.client().get("/").status(), 200, "others are served meanwhile");
    std::io::copy(&mut client.0.reader.by_ref().take(64 * MIB as u64), &mut std::io::sink()).unwrap();
    assert_eq!(client.get("/").status(), 200, "it goes on once the client reads");
}

#[test]
fn a_body_that_comes_byte_by_byte() {
    let backend = Backend::start(echo);
    let proxy = Proxy::start(&[backend.address]);
    let mut client = proxy.client();
    let request = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\nT: 1\r\n\r\n";
    for byte in request {
        client.send([*byte]);
        std::thread::sleep(Duration::from_micros(300));
    }
    let answer = client.answer();
    assert_eq!(answer.payload(), b"abcdefg");
    assert!(answer.body.ends_with(b"0\r\nT: 1\r\n\r\n"));
}

#[test]
fn a_body_that_turns_bad_is_never_complete_for_the_backend() {
    let seen = Arc::<Mutex<Vec<u8>>>::default();
    let record = Arc::clone(&seen);
    let backend = Backend::start(move |mut peer: Peer| {
        peer.record = Some(Arc::clone(&record));
        assert_eq!(peer.message(), None, "a whole message arrived");
    });
    let proxy = Proxy::start(&[backend.address]);
    for bad in [
        "zz\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "0\r\nContent-Length: 3\r\n\r\n",
        "0\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        seen.lock().unwrap().clear();
        let mut client = proxy.client();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
        eventually("the beginning arrives", || seen.lock().unwrap().ends_with(b"3\r\nabc\r\n"));
        client.send(bad);
        let answer = client.answer();
        assert_eq!((answer.status(), answer.header("connection")), (400, Some("close")), "{bad:?}");
        assert!(client.0.is_closed());
        eventually("the backend's connection is closed", || backend.open() == 0);
        assert!(seen.lock().unwrap().ends_with(b"3\r\nabc\r\n"), "more arrived: {bad:?}");
    }
}

#[test]
fn expect_100_continue() {
    let backend = Backend::start(|mut peer: Peer| {
        let head = peer.head().unwrap();
        assert_eq!(head.header("expect"), Some("100-continue"));
        peer.send("HTTP/1.1 100 Continue\r\n\r\n");
        let mut body = [0; 5];
        peer.reader.read_exact(&mut body).unwrap();
        assert_eq!(&body, b"hello");
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        peer.rest();
    });
    let proxy = Proxy::start(&[backend.address]);
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.head().status(), 100);
    client.send("hello");
    assert_eq!(client.answer().status(), 200);
}

#[test]
fn an_early_answer_to_an_unfinished_upload() {
    let backend = Backend::start(|mut peer: Peer| {
        peer.head().unwrap();
        peer.send("HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nno\n");
        peer.rest();
    });
    let proxy = Proxy::start(&[backend.address]);
    let mut client = proxy.client();
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", 100 * MIB));
    client.send(vec![b'x'; 100_000]);
    let answer = client.answer();
    assert_eq!((answer.status(), answer.header("connection")), (413, Some("close")));
    // What was under way does not turn the answer into a reset; the end is a clean one.
    client.send(vec![b'x'; 100_000]);
    assert!(client.0.is_closed());
    eventually("the backend's connection is closed", || backend.open() == 0);
}

#[test]
fn small_bodies_of_refused_requests_keep_the_connection() {
    let proxy = Proxy::start(&[]);
    let mut client = proxy.client();
    for body in ["", "abc"] {
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len()));
        std::thread::sleep(Duration::from_millis(20));
        client.send(body);
        let answer = client.answer();
        assert_eq!((answer.status(), answer.header("connection")), (503, None));
    }
    client.0.stream().set_read_timeout(Some(PATIENCE)).unwrap();
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {MIB}\r\n\r\n"));
    assert_eq!(client.answer().header("connection"), Some("close"));
}
