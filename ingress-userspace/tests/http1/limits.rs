//! Limits of bodies, timeouts of routes, and what goes to another endpoint. What backends saw is part of every assertion.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use xdp_ingress::model::{Filters, Forwarding, Retry, RetryOn};

use super::harness::{Backend, Peer, Proxy, always, filtered};

fn limited(backend: &Backend, limit: u64) -> Proxy {
    let filters = Filters { body_limit: NonZeroU64::new(limit), ..Filters::default() };
    Proxy::serving(&filtered(&[backend.address], filters))
}

fn forwarding(endpoints: &[SocketAddr], forwarding: Forwarding) -> Proxy {
    Proxy::serving(&filtered(endpoints, Filters { forwarding, ..Filters::default() }))
}

/// A backend that remembers the bodies it got as a whole.
fn remembering() -> (Backend, Arc<Mutex<Vec<Vec<u8>>>>) {
    let bodies = Arc::<Mutex<Vec<Vec<u8>>>>::default();
    let seen = Arc::clone(&bodies);
    let backend = Backend::start(move |mut peer: Peer| {
        while let Some(request) = peer.message() {
            seen.lock().unwrap().push(request.payload());
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    });
    (backend, bodies)
}

#[test]
fn bodies_of_a_known_length_are_refused_at_once() {
    let (backend, bodies) = remembering();
    let proxy = limited(&backend, 10);
    // Nothing but the head is sent: the answer cannot have waited for the body.
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11000000\r\n\r\n");
    let answer = client.answer();
    assert_eq!((answer.status(), answer.header("connection")), (413, Some("close")));
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 11\r\n\r\n");
    assert_eq!(client.answer().status(), 413);
    // Exactly the limit passes; and a short body that does not pass is read, so that the connection goes on.
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n0123456789a");
    assert_eq!(client.answer().status(), 413);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789");
    assert_eq!(client.answer().status(), 200);
    assert_eq!(*bodies.lock().unwrap(), [b"0123456789"]);
}

#[test]
fn bodies_in_chunks_are_refused_when_too_much_has_come() {
    let (backend, bodies) = remembering();
    let proxy = limited(&backend, 10);
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    // With the head, and behind it.
    let mut client = proxy.client();
    client.send(format!("{head}b\r\n0123456789a\r\n"));
    assert_eq!(client.answer().status(), 413);
    let mut client = proxy.client();
    client.send(head);
    client.send("6\r\n012345\r\n").send("5\r\n6789a\r\n0\r\n\r\n");
    assert_eq!(client.answer().status(), 413);
    // The payload counts, not the chunks around it.
    let mut client = proxy.client();
    client.send(format!("{head}1\r\n0\r\n1\r\n1\r\n8;x=yyyyyyyyyyyy\r\n23456789\r\n0\r\n\r\n"));
    assert_eq!(client.answer().status(), 200);
    assert_eq!(*bodies.lock().unwrap(), [b"0123456789"]);
}

#[test]
fn a_slow_endpoint_costs_its_routes_read_timeout_only() {
    let silent = Backend::start(|mut peer: Peer| drop(peer.rest()));
    let quick = Some(Duration::from_secs(1));
    let proxy = forwarding(&[silent.address], Forwarding { read_timeout: quick, ..Forwarding::default() });
    assert_eq!(proxy.client().get("/").status(), 504);
    // A GET goes to the other endpoint, if that one has not answered it in the first place.
    let fine = Backend::start(always("fine"));
    let endpoints = [silent.address, fine.address];
    let proxy = forwarding(&endpoints, Forwarding { read_timeout: quick, ..Forwarding::default() });
    let before = silent.connections();
    let mut client = proxy.client();
    // Which one is asked first is chance: until the silent one was.
    while silent.connections() == before {
        assert_eq!(client.get("/").body, b"fine");
    }
}

/// An endpoint that answers every request with `status`, and how many it got.
fn failing(status: u16) -> (Backend, Arc<AtomicUsize>) {
    let count = Arc::<AtomicUsize>::default();
    let seen = Arc::clone(&count);
    let backend = Backend::start(move |mut peer: Peer| {
        while peer.message().is_some() {
            seen.fetch_add(1, Ordering::SeqCst);
            peer.send(format!("HTTP/1.1 {status} X\r\nContent-Length: 3\r\n\r\nbad"));
        }
    });
    (backend, count)
}

fn on_503() -> Forwarding {
    let mut on = RetryOn::default();
    assert!(on.statuses.insert(503));
    Forwarding { retry: Retry { on, ..Retry::default() }, ..Forwarding::default() }
}

#[test]
fn statuses_that_the_route_names_go_to_another_endpoint() {
    let (bad, asked) = failing(503);
    let good = Backend::start(always("good"));
    let proxy = forwarding(&[bad.address, good.address], on_503());
    let mut client = proxy.client();
    for _ in 0..8 {
        assert_eq!(client.get("/").body, b"good");
    }
    // A POST that was sent stays where it is.
    let mut statuses = Vec::new();
    for _ in 0..32 {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
        statuses.push(client.answer().status());
    }
    assert!(statuses.contains(&503) && statuses.contains(&200), "{statuses:?}");
    assert!(asked.load(Ordering::SeqCst) > 0);
    // Nobody else is there: the client gets what the endpoint said, once.
    let (alone, asked) = failing(503);
    let answer = forwarding(&[alone.address], on_503()).client().get("/");
    assert_eq!((answer.status(), &answer.body[..], asked.load(Ordering::SeqCst)), (503, &b"bad"[..], 1));
}

#[test]
fn an_endpoint_that_hangs_up_is_asked_once_and_the_other_one_answers() {
    let asked = Arc::<AtomicUsize>::default();
    let seen = Arc::clone(&asked);
    let hang_up = Backend::start(move |mut peer: Peer| {
        if peer.message().is_some() {
            seen.fetch_add(1, Ordering::SeqCst);
        }
    });
    let good = Backend::start(always("good"));
    let endpoints = [hang_up.address, good.address];
    let proxy = Proxy::start(&endpoints);
    let mut client = proxy.client();
    // Which one is asked first is chance: until the one that hangs up was, a few times (the budget allows ten).
    while asked.load(Ordering::SeqCst) < 3 {
        assert_eq!(client.get("/").body, b"good");
    }
    // `off`: whoever fails is whom the client hears of.
    let off = Forwarding { retry: Retry { on: RetryOn::OFF, ..Retry::default() }, ..Forwarding::default() };
    let proxy = forwarding(&endpoints, off);
    let statuses: Vec<u16> = (0..32).map(|_| proxy.client().get("/").status()).collect();
    assert!(statuses.contains(&502) && statuses.contains(&200), "{statuses:?}");
}
