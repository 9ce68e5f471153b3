//! HTTP/2 over TLS (ALPN), and without by prior knowledge.

use std::convert::Infallible;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::TokioIo;

use super::backend::{Backend, Behaviour};
use super::{Router, Rules, client, tls};
use crate::model::{Filters, Target};

async fn connect(router: &Router) -> SendRequest<Full<Bytes>> {
    let config = tls::client_config(rustls::DEFAULT_VERSIONS, &["h2", "http/1.1"]);
    let stream = tokio::net::TcpStream::connect(router.https).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::clone(&config));
    let stream = connector.connect("a.test".try_into().unwrap(), stream).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    client::http2(stream).await
}

/// By prior knowledge, on the plain listener.
async fn connect_plain(router: &Router) -> SendRequest<Full<Bytes>> {
    let stream = tokio::net::TcpStream::connect(router.http).await.unwrap();
    client::http2(stream).await
}

async fn ask(
    sender: &mut SendRequest<Full<Bytes>>,
    method: &str,
    uri: &str,
    body: &'static str,
) -> (u16, String) {
    let request = http::Request::builder().method(method).uri(uri).header("x-forwarded-for", "6.6.6.6");
    let response = sender.send_request(request.body(Full::from(body)).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn requests_by_http2() {
    let backend = Backend::start("one", Behaviour::Echo);
    let rules =
        Rules::default().rule("a.test", "/", "one", &[backend.address]).rule("empty.test", "/", "none", &[]);
    let router = Router::start(&rules);
    let mut sender = connect(&router).await;

    let (status, body) = ask(&mut sender, "GET", "https://a.test/x//y?z", "").await;
    let body = body.to_ascii_lowercase();
    assert_eq!(status, 200);
    assert!(body.contains("get /x/y?z http/1.1\r\n") && body.contains("\r\nhost: a.test\r\n"), "{body}");
    assert!(body.contains("x-forwarded-for: 127.0.0.1\r\n") && body.contains("x-forwarded-proto: https\r\n"));
    assert!(!body.contains("6.6.6.6"));

    let (status, body) = ask(&mut sender, "POST", "https://a.test/", "hello").await;
    assert_eq!((status, body.ends_with("\r\n\r\nhello")), (200, true), "{body}");

    let (status, body) = ask(&mut sender, "GET", "https://b.test/", "").await;
    assert_eq!((status, body.as_str()), (404, "404 Not Found: no Ingress rule matches this host and path\n"));
    assert_eq!(ask(&mut sender, "GET", "https://empty.test/", "").await.0, 503);
    assert_eq!(ask(&mut sender, "GET", "https://a.test/..%2f..", "").await.0, 400);
    assert_eq!(router.l7.stats().totals.requests, [0, 2, 0, 2, 1]);
}

#[tokio::test]
async fn hsts_over_tls_only() {
    let backend = Backend::start("one", Behaviour::Echo);
    let mut rules =
        Rules::default().rule("a.test", "/", "one", &[backend.address]).missing("a.test", "/missing");
    for rule in &mut rules.0.routes.hosts.values_mut().next().unwrap().paths {
        Arc::make_mut(&mut rule.route).filters.hsts = Some(crate::model::Hsts::default());
    }
    let router = Router::start(&rules);
    let wanted = Some("max-age=31536000; includeSubDomains");
    let (mut encrypted, mut plain) = (connect(&router).await, connect_plain(&router).await);
    for (path, status) in [("/", 200), ("/missing", 503)] {
        for (sender, scheme, wanted) in [(&mut encrypted, "https", wanted), (&mut plain, "http", None)] {
            let request =
                http::Request::get(format!("{scheme}://a.test{path}")).body(Full::default()).unwrap();
            let response = sender.send_request(request).await.unwrap();
            let value =
                response.headers().get("strict-transport-security").map(|value| value.to_str().unwrap());
            assert_eq!((response.status().as_u16(), value), (status, wanted), "{scheme} {path}");
        }
        // HTTP/1.1 says the same.
        let config = tls::client_config(rustls::DEFAULT_VERSIONS, &[]);
        let mut stream = tls::connect(router.https, &config, "a.test");
        let request = format!("GET {path} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
        std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
        let line = "\r\nStrict-Transport-Security: max-age=31536000; includeSubDomains\r\n";
        assert!(answer.contains(line), "{answer}");
        let answer = client::get(router.http, "a.test", path);
        assert_eq!(answer.header("strict-transport-security"), None, "{path}");
    }
}

#[tokio::test]
async fn prior_knowledge() {
    let backend = Backend::start("one", Behaviour::Echo);
    let router = Router::start(&Rules::default().rule("a.test", "/", "one", &[backend.address]));
    let mut sender = connect_plain(&router).await;
    for _ in 0..3 {
        let (status, body) = ask(&mut sender, "POST", "http://a.test/x", "hello").await;
        assert_eq!((status, body.ends_with("\r\n\r\nhello")), (200, true), "{body}");
        assert!(body.to_ascii_lowercase().contains("x-forwarded-proto: http\r\n"), "{body}");
    }
    let totals = router.l7.stats().totals;
    assert_eq!((totals.accepted, totals.open), (1, 1));
}

#[tokio::test]
async fn many_streams_share_upstream_connections() {
    let backend = Backend::start("one", Behaviour::Echo);
    let router = Router::start(&Rules::default().rule("", "/", "one", &[backend.address]));
    let sender = connect(&router).await;
    for _ in 0..10 {
        let streams = (0..20).map(|_| {
            let mut sender = sender.clone();
            tokio::spawn(async move { ask(&mut sender, "GET", "https://a.test/", "").await.0 })
        });
        for status in futures_util::future::join_all(streams).await {
            assert_eq!(status.unwrap(), 200);
        }
    }
    let connections = backend.connections.load(std::sync::atomic::Ordering::Relaxed);
    assert!(connections <= 40, "{connections} connections for 200 requests, 20 at once");
}

#[tokio::test]
async fn endpoints_that_fail() {
    let (one_shot, hang_up) =
        (Backend::start("one", Behaviour::OneShot), Backend::start("two", Behaviour::HangUp));
    let refused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let rules = Rules::default()
        .rule("one.test", "/", "one", &[one_shot.address])
        .rule("two.test", "/", "two", &[hang_up.address])
        .rule("some.test", "/", "some", &[one_shot.address, refused])
        .rule("none.test", "/", "none", &[refused]);
    let router = Router::start(&rules);
    let mut sender = connect(&router).await;
    for _ in 0..10 {
        // Each answer leaves a connection that looks alive and is not.
        assert_eq!(ask(&mut sender, "GET", "https://one.test/", "").await.0, 200);
        assert_eq!(ask(&mut sender, "GET", "https://some.test/", "").await.0, 200);
    }
    assert_eq!(ask(&mut sender, "POST", "https://two.test/", "once").await.0, 502);
    assert_eq!(hang_up.seen().len(), 1);
    assert_eq!(ask(&mut sender, "GET", "https://none.test/", "").await.0, 502);
}

#[tokio::test]
async fn draining_says_goodbye_and_finishes_streams() {
    let slow = Backend::start("slow", Behaviour::Slow(Duration::from_millis(300)));
    let router = Router::start(&Rules::default().rule("", "/", "slow", &[slow.address]));
    let mut sender = connect(&router).await;
    let mut other = sender.clone();
    let running = tokio::spawn(async move { ask(&mut other, "GET", "https://a.test/", "").await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(router.l7.drain(Duration::from_secs(8)).await, 0);
    assert_eq!(running.await.unwrap(), (200, "first\nlast".to_owned()));
    assert!(sender.ready().await.is_err());
}

#[tokio::test]
async fn our_own_answers_to_grpc_carry_its_status() {
    let router = Router::start(&Rules::default().rule("a.test", "/", "none", &[]));
    let mut sender = connect_plain(&router).await;
    for (uri, status) in
        [("http://a.test/pkg.Service/Method", "14"), ("http://b.test/pkg.Service/Method", "12")]
    {
        let request =
            http::Request::post(uri).header("content-type", "application/grpc").header("te", "trailers");
        let response = sender.send_request(request.body(Full::default()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], status);
        assert_eq!(response.headers()["content-type"], "application/grpc");
        assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());
    }
}

/// Answers an upgrade to WebSocket, then sends everything back; with a wrong answer if `wrong`.
async fn websocket_echo(wrong: bool) -> std::net::SocketAddr {
    use base64::Engine as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("GET /chat HTTP/1.1\r\n"), "{head}");
        let field = |name: &str| {
            head.lines()
                .filter_map(|line| line.split_once(": "))
                .find(|(n, _)| n.eq_ignore_ascii_case(name))
                .unwrap()
                .1
        };
        assert_eq!((field("connection"), field("upgrade")), ("upgrade", "websocket"));
        assert_eq!(field("sec-websocket-version"), "13");
        let text = format!("{}258EAFA5-E914-47DA-95CA-C5AB0DC85B11", field("sec-websocket-key"));
        let digest = aws_lc_rs::digest::digest(
            &aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY,
            if wrong { b"wrong" } else { text.as_bytes() },
        );
        let accept = base64::engine::general_purpose::STANDARD.encode(digest);
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
        let (mut reader, mut writer) = stream.split();
        tokio::io::copy(&mut reader, &mut writer).await.unwrap();
        // The end of one direction ends the other.
        writer.shutdown().await.unwrap();
    });
    address
}

#[tokio::test]
async fn websocket_by_http2() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let rules = Rules::default().rule("a.test", "/", "one", &[websocket_echo(false).await]).rule(
        "wrong.test",
        "/",
        "two",
        &[websocket_echo(true).await],
    );
    let router = Router::start(&rules);
    let mut sender = connect_plain(&router).await;
    // The server's settings, which allow extended CONNECT, have arrived with this answer.
    assert_eq!(ask(&mut sender, "GET", "http://none.test/", "").await.0, 404);
    let wish = |host: &str, protocol| {
        let uri = format!("http://{host}/chat");
        let request =
            http::Request::builder().method("CONNECT").uri(uri).header("sec-websocket-version", "13");
        let protocol = hyper::ext::Protocol::from_static(protocol);
        request.extension(protocol).body(Full::<Bytes>::default()).unwrap()
    };
    assert_eq!(sender.send_request(wish("a.test", "smtp")).await.unwrap().status(), 501);
    assert_eq!(sender.send_request(wish("wrong.test", "websocket")).await.unwrap().status(), 502);
    let response = sender.send_request(wish("a.test", "websocket")).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(!response.headers().contains_key("sec-websocket-accept"));
    let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    let sent: Vec<u8> = (0..300_000_u32).map(|at| at as u8).collect();
    let (mut reader, mut writer) = tokio::io::split(&mut stream);
    let mut received = Vec::new();
    let (written, read) = tokio::join!(
        async {
            writer.write_all(&sent).await?;
            writer.shutdown().await
        },
        reader.read_to_end(&mut received)
    );
    written.unwrap();
    read.unwrap();
    assert!(received == sent, "{} bytes of {} came back", received.len(), sent.len());
}

#[tokio::test]
async fn bodies_that_are_too_long() {
    let backend = Backend::start("one", Behaviour::Echo);
    let rules = Rules::default().rule("a.test", "/", "one", &[backend.address]);
    let filters = Filters { body_limit: NonZeroU64::new(10), ..Filters::default() };
    let Target::Cluster(id) = rules.0.routes.hosts.values().next().unwrap().paths[0].route.target.clone()
    else {
        panic!("a rule leads to its cluster")
    };
    let router = Router::start(&rules.route("b.test", "/", "limited", Target::Cluster(id), filters));
    let mut sender = connect(&router).await;
    assert_eq!(ask(&mut sender, "POST", "https://b.test/", "0123456789").await.0, 200);
    assert_eq!(ask(&mut sender, "POST", "https://b.test/", "0123456789a").await.0, 413);
    assert_eq!(ask(&mut sender, "POST", "https://a.test/", "0123456789a").await.0, 200);
    // Without Content-Length.
    let stream = tokio::net::TcpStream::connect(router.http).await.unwrap();
    let mut sender = client::http2(stream).await;
    for (pieces, status) in [(vec!["01234", "56789"], 200), (vec!["01234", "56789a"], 413)] {
        let frames = pieces.into_iter().map(|piece| Ok::<_, Infallible>(Frame::data(Bytes::from(piece))));
        let body = StreamBody::new(futures_util::stream::iter(frames));
        let request = http::Request::builder().method("POST").uri("http://b.test/").body(body).unwrap();
        assert_eq!(sender.send_request(request).await.unwrap().status(), status);
    }
}

#[tokio::test]
async fn finished_requests_are_logged_and_counted() {
    use crate::l7::access_log::{AccessLogConfig, Format};
    use crate::l7::{Config, L7};

    let (one, slow) = (
        Backend::start("one", Behaviour::Echo),
        Backend::start("slow", Behaviour::Slow(Duration::from_mins(10))),
    );
    let (sink, lines) = std::sync::mpsc::sync_channel(64);
    let access_log = Some(AccessLogConfig { format: Format::Json, node: "node-a".to_owned(), sink });
    let http = vec!["127.0.0.1:0".parse().unwrap()];
    let rules = Rules::default().rule("a.test", "/", "one", &[one.address]).rule(
        "slow.test",
        "/",
        "slow",
        &[slow.address],
    );
    let l7 = L7::start(Config { workers: 1, http, access_log, ..Config::default() }, &rules.0).unwrap();
    let address = l7.addresses().next().unwrap().socket;
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut sender = client::http2(stream).await;
    let (status, body) = ask(&mut sender, "POST", "http://a.test/path?query", "hello").await;
    assert_eq!(status, 200);
    assert_eq!(ask(&mut sender, "GET", "http://b.test/", "").await.0, 404);
    // A client that does not wait for the end.
    let request = http::Request::get("http://slow.test/").body(Full::default()).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    drop(answer);
    let read = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        while text.lines().count() < 3 {
            let batch = lines.recv_timeout(Duration::from_mins(1)).expect("a batch within a tick or two");
            text.push_str(std::str::from_utf8(&batch.text).unwrap());
        }
        text
    });
    let text = read.await.unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (served, refused, left) = (&lines[0], &lines[1], &lines[2]);
    for (key, value) in [
        ("method", "POST"),
        ("uri", "/path?query"),
        ("protocol", "HTTP/2.0"),
        ("host", "a.test"),
        ("ingress", "one"),
        ("upstream", &one.address.to_string()),
    ] {
        assert_eq!(served[key], value, "{key}");
    }
    assert_eq!((&served["status"], &served["upstream_status"]), (&200.into(), &200.into()));
    assert_eq!((&served["body_bytes"], &served["upstream_bytes"]), (&body.len().into(), &body.len().into()));
    let received = served["request_bytes"].as_u64().unwrap();
    assert!((60..200).contains(&received), "{received} bytes with a body of 5");
    assert_eq!((&refused["status"], refused.get("upstream")), (&404.into(), None));
    assert_eq!((&left["status"], &left["ingress"]), (&200.into(), &"slow".into()));
    let totals = l7.stats().totals;
    let of = |by: fn(&crate::l7::stats::IngressTotals) -> u64| {
        totals.by_ingress.iter().map(|(_, ingress)| by(ingress)).sum::<u64>()
    };
    assert_eq!(of(|ingress| ingress.latency.iter().sum()), 3, "all are in a latency bucket");
    assert!(of(|ingress| ingress.sent) > body.len() as u64 && of(|ingress| ingress.received) > received);
}
