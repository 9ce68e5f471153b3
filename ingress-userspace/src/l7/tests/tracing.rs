//! Trace context across the router: whose span the backend's is, and what becomes of contexts that are not traced.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;

use super::backend::{Backend, Behaviour};
use super::client::{self, Client};
use super::{Config, L7, Rules};
use crate::l7::trace::{Span, TraceConfig};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// Traces who asks for it, and nobody else.
fn start(backend: &Backend) -> (L7, std::net::SocketAddr, Receiver<Span>) {
    let rules = Rules::default().rule("a.test", "/", "service", &[backend.address]);
    let (sink, spans) = sync_channel(16);
    let tracing = Some(TraceConfig { share: 0.0, sink, counts: Arc::default() });
    let http = vec!["127.0.0.1:0".parse().unwrap()];
    let l7 = L7::start(Config { workers: 1, http, tracing, ..Config::default() }, &rules.0).unwrap();
    let address = l7.addresses().next().unwrap().socket;
    (l7, address, spans)
}

/// The values of a field in a head as the backend got it.
fn values<'h>(head: &'h str, name: &str) -> Vec<&'h str> {
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
}

fn is_continued(head: &str, spans: &Receiver<Span>, backend: &Backend) {
    let span = spans.recv_timeout(Duration::from_mins(1)).expect("a span of each traced request");
    let id = format!("{:016x}", u64::from_be_bytes(span.id));
    assert_eq!(values(head, "traceparent"), [format!("00-{TRACE}-{id}-01")], "{head}");
    assert_eq!(values(head, "tracestate"), ["vendor=1"], "{head}");
    assert_eq!(format!("{:032x}", u128::from_be_bytes(span.trace)), TRACE);
    assert_eq!(span.parent.map(u64::from_be_bytes), u64::from_str_radix(PARENT, 16).ok());
    assert_eq!(
        (&*span.ingress, &*span.upstream_name, span.status),
        ("default/service", "default-service-80", 200)
    );
    let upstream = span.upstream.expect("its endpoint");
    assert_eq!((upstream.endpoint, upstream.status), (backend.address, 200));
    assert!(upstream.response <= span.took + Duration::from_millis(1), "{span:?}");
}

#[test]
fn a_traced_requests_backend_continues_our_span() {
    let backend = Backend::start("one", Behaviour::Echo);
    let (_l7, address, spans) = start(&backend);
    let mut client = Client::connect(address);
    client.send(&format!(
        "GET / HTTP/1.1\r\nHost: a.test\r\nTraceparent: 00-{TRACE}-{PARENT}-01\r\nTracestate: vendor=1\r\n\r\n"
    ));
    assert_eq!(client.response().unwrap().status, 200);
    is_continued(&backend.seen()[0], &spans, &backend);

    // Not sampled, and none at all: untouched, and no span; the next request of the connection is its own.
    let unsampled = format!("00-{TRACE}-{PARENT}-00");
    client.send(&format!("GET / HTTP/1.1\r\nHost: a.test\r\ntraceparent: {unsampled}\r\n\r\n"));
    assert_eq!(client.response().unwrap().status, 200);
    assert_eq!(client.get("a.test", "/").status, 200);
    let seen = backend.seen();
    assert_eq!(values(&seen[1], "traceparent"), [unsampled]);
    assert!(values(&seen[2], "traceparent").is_empty());

    // What we answer ourselves is a span, too.
    client.send(&format!("GET / HTTP/1.1\r\nHost: b.test\r\ntraceparent: 00-{TRACE}-{PARENT}-01\r\n\r\n"));
    assert_eq!(client.response().unwrap().status, 404);
    let span = spans.recv_timeout(Duration::from_mins(1)).unwrap();
    assert_eq!(
        (span.status, &*span.ingress, &*span.host, span.upstream.is_none()),
        (404, "", "b.test", true)
    );
    assert!(spans.try_recv().is_err());
}

#[tokio::test]
async fn the_same_by_http2() {
    let backend = Backend::start("one", Behaviour::Echo);
    let (_l7, address, spans) = start(&backend);
    let mut sender = client::http2(tokio::net::TcpStream::connect(address).await.unwrap()).await;
    let request = http::Request::get("http://a.test/")
        .header("traceparent", format!("00-{TRACE}-{PARENT}-01"))
        .header("tracestate", "vendor=1")
        .body(Full::<Bytes>::default())
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    // The span is there when the answer has been read.
    drop(http_body_util::BodyExt::collect(answer.into_body()).await.unwrap());
    tokio::task::spawn_blocking(move || is_continued(&backend.seen()[0], &spans, &backend)).await.unwrap();
}
