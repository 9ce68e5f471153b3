//! HTTP/1.1 over TLS: the same machine with records in between.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use xdp_ingress::l7::{Config, L7};

use super::anybody::Anybody;
use super::harness::{Backend, PATIENCE, Peer, eventually, snapshot};

type Stream = BufReader<StreamOwned<ClientConnection, TcpStream>>;

fn connect(address: SocketAddr, version: &'static rustls::SupportedProtocolVersion) -> Stream {
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    let tcp = TcpStream::connect(address).unwrap();
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    let session = ClientConnection::new(Arc::new(config), "a".try_into().unwrap()).unwrap();
    BufReader::new(StreamOwned::new(session, tcp))
}

fn router(backend: &Backend) -> (L7, SocketAddr) {
    let https = vec!["127.0.0.1:0".parse().unwrap()];
    let config = Config { workers: 1, http: vec![], https, follow_vips: false, ..Config::default() };
    let l7 = L7::start(config, &snapshot(&[backend.address])).unwrap();
    let address = l7.addresses().next().unwrap().socket;
    (l7, address)
}

fn head(stream: &mut Stream) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(stream.read_line(&mut head).unwrap() > 0, "the end in the head: {head:?}");
    }
    head
}

/// Answers with as many bytes as the path says, each the low byte of its offset.
fn counted(mut peer: Peer) {
    while let Some(request) = peer.message() {
        assert!(request.head.contains("X-Forwarded-Proto: https\r\n"));
        let size: usize = request.head.split([' ', '/']).nth(2).unwrap().parse().unwrap();
        let sum: u64 = request.body.iter().map(|byte| u64::from(*byte)).sum();
        peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\nX-Sum: {sum}\r\n\r\n"));
        peer.send((0..size).map(|at| at as u8).collect::<Vec<u8>>());
    }
}

#[test]
fn bodies_of_all_sizes_both_ways() {
    let backend = Backend::start(counted);
    let (l7, address) = router(&backend);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut stream = connect(address, version);
        for size in [0usize, 1, 4095, 16_384, 16_385, 65_536, 1_000_003, 5 * 1024 * 1024] {
            let body = vec![3u8; size];
            let request = format!("POST /{size} HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n");
            stream.get_mut().write_all(request.as_bytes()).unwrap();
            stream.get_mut().write_all(&body).unwrap();
            let head = head(&mut stream);
            assert!(head.contains(&format!("X-Sum: {}\r\n", 3 * size)), "{head}");
            let mut answer = vec![0; size];
            stream.read_exact(&mut answer).unwrap();
            assert!(answer.iter().enumerate().all(|(at, byte)| *byte == at as u8), "{size} bytes changed");
        }
        assert_eq!(l7.connections(), 1);
        drop(stream);
        eventually("the connection is closed", || l7.connections() == 0);
    }
}

#[test]
fn the_end_is_announced() {
    let backend = Backend::start(counted);
    let (_l7, address) = router(&backend);
    let mut stream = connect(address, &rustls::version::TLS13);
    stream.get_mut().write_all(b"GET /2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    head(&mut stream);
    // Without close_notify rustls calls this an unexpected end.
    let mut rest = Vec::new();
    assert_eq!(stream.read_to_end(&mut rest).unwrap(), 2);
    // A refused request, too.
    let mut stream = connect(address, &rustls::version::TLS13);
    stream.get_mut().write_all(b"GET / HTTP/1.1\r\nHost : a\r\n\r\nand more").unwrap();
    assert!(head(&mut stream).starts_with("HTTP/1.1 400 "));
    let mut rest = Vec::new();
    assert!(stream.read_to_end(&mut rest).unwrap() > 0);
}

#[test]
fn a_request_that_comes_with_the_handshake_and_in_pieces() {
    let backend = Backend::start(counted);
    let (_l7, address) = router(&backend);
    let mut stream = connect(address, &rustls::version::TLS13);
    // Finished and the first record share a segment; the rest are records of one byte.
    for piece in [&b"GET /3 HTTP/1.1\r\nHo"[..], b"s", b"t", b":", b"a", b"\r", b"\n", b"\r", b"\n"] {
        stream.get_mut().write_all(piece).unwrap();
    }
    assert!(head(&mut stream).contains("Content-Length: 3\r\n"));
}
