//! Upgrades: after 101 both sides speak freely.

use std::io::Read as _;
use std::net::Shutdown;

use super::harness::{Backend, Peer, Proxy, eventually};

const ASK: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: k\r\n\r\n";

fn switching(mut peer: Peer) {
    let request = peer.head().unwrap();
    assert_eq!(
        (request.header("upgrade"), request.header("connection")),
        (Some("websocket"), Some("upgrade"))
    );
    // The first bytes of the new protocol ride along.
    peer.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: v\r\n\r\nhello");
    let mut buffer = [0; 4096];
    while let Ok(count) = peer.reader.read(&mut buffer) {
        if count == 0 {
            peer.send("bye");
            return;
        }
        peer.send(&buffer[..count]);
    }
}

#[test]
fn a_tunnel_carries_bytes_both_ways_and_closes_by_halves() {
    let backend = Backend::start(switching);
    let proxy = Proxy::start(&[backend.address]);
    let mut client = proxy.client();
    // The client, too, may be early.
    client.send(ASK).send("early");
    let answer = client.head();
    assert_eq!((answer.status(), answer.header("upgrade")), (101, Some("websocket")));
    assert_eq!(answer.header("sec-websocket-accept"), Some("v"));
    let mut read = vec![0; 10];
    client.0.reader.read_exact(&mut read).unwrap();
    assert_eq!(read, b"helloearly");
    for round in 0..100 {
        let text = format!("message {round}: \r\n\r\nGET / HTTP/1.1\r\n");
        client.send(&text);
        let mut read = vec![0; text.len()];
        client.0.reader.read_exact(&mut read).unwrap();
        assert_eq!(read, text.as_bytes());
    }
    client.0.stream().shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.0.rest(), b"bye");
    eventually("the connection is closed", || proxy.l7.connections() == 0);
}

#[test]
fn a_refused_upgrade_is_an_ordinary_answer() {
    let backend = Backend::start(super::harness::always("no"));
    let proxy = Proxy::start(&[backend.address]);
    let mut client = proxy.client();
    client.send(ASK);
    assert_eq!(client.answer().payload(), b"no");
    assert_eq!(client.get("/").payload(), b"no");
}

#[test]
fn a_tunnel_ends_with_either_side() {
    let backend = Backend::start(|mut peer: Peer| {
        peer.head().unwrap();
        peer.send("HTTP/1.1 101 S\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n");
        let mut byte = [0];
        let _ = peer.reader.read(&mut byte);
    });
    let proxy = Proxy::start(&[backend.address]);
    let mut one = proxy.client();
    one.send(ASK);
    one.head();
    one.send("x");
    assert!(one.0.is_closed(), "the backend closed");
    let mut other = proxy.client();
    other.send(ASK);
    other.head();
    drop(other);
    eventually("the client closed", || backend.open() == 0);
}
