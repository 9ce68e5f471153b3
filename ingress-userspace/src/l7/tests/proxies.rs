//! Proxies in front of us: whose word counts, by HTTP/1.1 and HTTP/2, with `X-Forwarded-*` and with the PROXY protocol.
//! Clients at 127.0.0.1 are the trusted proxy, those at 127.0.0.2 are not.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use super::backend::{Backend, Behaviour};
use super::{Router, Rules, client, tls};
use crate::model::{Downstream, SourceRange};

fn trusting() -> Downstream {
    Downstream { trusted: vec!["127.0.0.1/32".parse().unwrap()], ..Downstream::default() }
}

/// One host, whose list lets 192.0.2.9 in.
fn router(backend: &Backend, downstream: Downstream) -> Router {
    let mut rules = Rules::default().rule("a.test", "/", "one", &[backend.address]).rule(
        "list.test",
        "/",
        "one",
        &[backend.address],
    );
    let listed = rules.0.routes.hosts.get_mut(&crate::model::HostPattern::Exact("list.test".into())).unwrap();
    let allow = Some(vec!["192.0.2.9/32".parse().unwrap()]);
    let range = Arc::new(SourceRange { deny: Vec::new(), allow });
    Arc::make_mut(&mut listed.paths[0].route).filters.source_range = Some(range);
    rules.0.downstream = Some(Arc::new(downstream));
    Router::start(&rules)
}

fn connect(from: &str, to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(from.parse().unwrap(), 0).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

/// All that comes back, lower case.
fn ask(mut stream: impl std::io::Read + std::io::Write, pieces: &[&[u8]]) -> String {
    for piece in pieces {
        stream.write_all(piece).unwrap();
        stream.flush().unwrap();
    }
    let mut answer = Vec::new();
    // A reset is an answer, too.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).to_ascii_lowercase()
}

fn request(host: &str, fields: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{fields}\r\n")
}

#[test]
fn a_trusted_proxys_fields_count_and_nobody_elses() {
    let backend = Backend::start("one", Behaviour::Echo);
    let router = router(&backend, Downstream { forwarded_headers: true, ..trusting() });
    let fields = "X-Forwarded-For: 6.6.6.6, 192.0.2.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: public.test\r\n\
                  X-Request-ID: from-client\r\n";
    let told = ask(connect("127.0.0.1", router.http), &[request("a.test", fields).as_bytes()]);
    for line in [
        "x-forwarded-for: 192.0.2.9",
        "x-real-ip: 192.0.2.9",
        "x-forwarded-proto: https",
        "x-forwarded-port: 443",
        "x-forwarded-host: public.test",
        "host: public.test",
        "x-request-id: from-client",
    ] {
        assert!(told.contains(&format!("\r\n{line}\r\n")), "{line}: {told}");
    }
    assert!(!told.contains("6.6.6.6"), "{told}");
    let own = ask(connect("127.0.0.2", router.http), &[request("a.test", fields).as_bytes()]);
    for line in ["x-forwarded-for: 127.0.0.2", "x-forwarded-proto: http", "host: a.test"] {
        assert!(own.contains(&format!("\r\n{line}\r\n")), "{line}: {own}");
    }
    assert!(!own.contains("192.0.2.9") && !own.contains("public.test"), "{own}");
    // Lists go by the same address.
    for (from, status) in [("127.0.0.1", "200"), ("127.0.0.2", "403")] {
        let answer = ask(connect(from, router.http), &[request("list.test", fields).as_bytes()]);
        assert!(answer.starts_with(&format!("http/1.1 {status} ")), "{from}: {answer}");
    }
}

#[test]
fn forwarded_is_ours_or_absent() {
    let backend = Backend::start("one", Behaviour::Echo);
    let spoofed = request("a.test", "Forwarded: for=6.6.6.6\r\nX-Forwarded-For: 192.0.2.9\r\n");
    for (forwarded, from, expected) in [
        (true, "127.0.0.1", "\r\nforwarded: for=192.0.2.9;host=\"a.test\";proto=http\r\n"),
        (true, "127.0.0.2", "\r\nforwarded: for=127.0.0.2;host=\"a.test\";proto=http\r\n"),
        (false, "127.0.0.1", "\r\nx-forwarded-for: 192.0.2.9\r\n"),
        (false, "127.0.0.2", "\r\nx-forwarded-for: 127.0.0.2\r\n"),
    ] {
        let router = router(&backend, Downstream { forwarded_headers: true, forwarded, ..trusting() });
        let told = ask(connect(from, router.http), &[spoofed.as_bytes()]);
        assert!(told.contains(expected), "{from}: {told}");
        assert_eq!(told.matches("\r\nforwarded:").count(), usize::from(forwarded), "{told}");
        assert!(!told.contains("6.6.6.6"), "{told}");
    }
}

#[test]
fn proxy_headers_before_http_and_tls() {
    let backend = Backend::start("one", Behaviour::Echo);
    let router = router(&backend, Downstream { proxy_protocol: true, ..trusting() });
    let plain = request("a.test", "X-Forwarded-For: 6.6.6.6\r\n");
    let line = b"PROXY TCP4 192.0.2.9 192.0.2.1 5000 80\r\n";
    // At once, and byte by byte.
    let bytes: Vec<&[u8]> = line.chunks(1).chain([plain.as_bytes()]).collect();
    for pieces in [&[&[&line[..], plain.as_bytes()].concat()[..]][..], &bytes] {
        let answer = ask(connect("127.0.0.1", router.http), pieces);
        assert!(answer.contains("\r\nx-forwarded-for: 192.0.2.9\r\n"), "{answer}");
        assert!(answer.contains("\r\nx-forwarded-proto: http\r\n"), "{answer}");
    }
    // TLS that ended at the proxy.
    let tls_before = b"PROXY TCP4 192.0.2.9 192.0.2.1 5000 443\r\n";
    let answer = ask(connect("127.0.0.1", router.http), &[tls_before, plain.as_bytes()]);
    assert!(answer.contains("\r\nx-forwarded-proto: https\r\nx-forwarded-port: 443\r\n"), "{answer}");
    // TLS that ends here.
    let config = tls::client_config(rustls::DEFAULT_VERSIONS, &[]);
    let session = rustls::ClientConnection::new(config, "a.test".try_into().unwrap()).unwrap();
    let mut stream = connect("127.0.0.1", router.https);
    stream.write_all(line).unwrap();
    let answer = ask(rustls::StreamOwned::new(session, stream), &[plain.as_bytes()]);
    assert!(
        answer.contains(
            "\r\nx-forwarded-for: 192.0.2.9\r\nx-real-ip: 192.0.2.9\r\nx-forwarded-proto: https\r\n"
        ),
        "{answer}"
    );
    // The list goes by the address of the header.
    let answer = ask(connect("127.0.0.1", router.http), &[line, request("list.test", "").as_bytes()]);
    assert!(answer.starts_with("http/1.1 200 "), "{answer}");

    let seen = backend.seen().len();
    // Without a header, with a broken one, and with one from somebody who is not trusted.
    assert_eq!(ask(connect("127.0.0.1", router.http), &[plain.as_bytes()]), "");
    assert_eq!(ask(connect("127.0.0.1", router.http), &[b"PROXY TCP4 192.0.2.9\r\n", plain.as_bytes()]), "");
    let forged = ask(connect("127.0.0.2", router.http), &[line, plain.as_bytes()]);
    assert!(forged.starts_with("http/1.1 400 "), "{forged}");
    assert_eq!(backend.seen().len(), seen);
    // Who is no proxy is a client.
    let answer = ask(connect("127.0.0.2", router.http), &[plain.as_bytes()]);
    assert!(answer.contains("\r\nx-forwarded-for: 127.0.0.2\r\n"), "{answer}");
}

#[tokio::test]
async fn http2_says_the_same() {
    use tokio::io::AsyncWriteExt as _;

    let backend = Backend::start("one", Behaviour::Echo);
    let options = Downstream { proxy_protocol: true, forwarded_headers: true, forwarded: true, ..trusting() };
    let router = router(&backend, options);
    let mut stream = tokio::net::TcpStream::connect(router.http).await.unwrap();
    // The proxy's client is a proxy of ours, too.
    stream.write_all(b"PROXY TCP4 127.0.0.1 192.0.2.1 5000 80\r\n").await.unwrap();
    let mut sender = client::http2(stream).await;
    let request = http::Request::get("http://a.test/")
        .header("forwarded", "for=6.6.6.6")
        .header("x-forwarded-for", "6.6.6.6")
        .header("x-forwarded-for", "192.0.2.9")
        .header("x-forwarded-host", "public.test")
        .header("x-request-id", "from-client")
        .header("x_y", "1");
    let request = request.body(http_body_util::Full::<bytes::Bytes>::default()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    let body = String::from_utf8_lossy(&body).to_ascii_lowercase();
    for line in [
        "x-forwarded-for: 192.0.2.9",
        "x-forwarded-host: public.test",
        "host: public.test",
        "x-request-id: from-client",
        "forwarded: for=192.0.2.9;host=\"public.test\";proto=http",
    ] {
        assert!(body.contains(&format!("\r\n{line}\r\n")), "{line}: {body}");
    }
    assert!(!body.contains("6.6.6.6") && !body.contains("x_y"), "{body}");
}
