//! A collector on a real socket gets what the router traced; one that is away or refuses costs spans, never requests.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::Receiver;

use super::*;
use crate::l7::trace::TraceConfig;
use crate::l7::{Config, L7};
use crate::model::Snapshot;

const LONG: Duration = Duration::from_mins(1);

/// Takes messages, answers each with `status`, and passes on head and body.
fn collector(status: &'static str) -> (SocketAddr, Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sink, messages) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (head, body) = read(&stream);
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            (&stream).write_all(answer.as_bytes()).unwrap();
            if sink.send((head, body)).is_err() {
                return;
            }
        }
    });
    (address, messages)
}

fn read(mut stream: &TcpStream) -> (String, Vec<u8>) {
    let mut bytes = Vec::new();
    loop {
        let mut piece = [0; 4096];
        let count = stream.read(&mut piece).unwrap();
        assert!(count > 0, "cut off after {} bytes", bytes.len());
        bytes.extend_from_slice(&piece[..count]);
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_ascii_lowercase();
        let length: usize =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
        if bytes.len() >= end + 4 + length {
            return (head, bytes[end + 4..].to_vec());
        }
    }
}

/// A router without rules that traces all requests, and its counters.
fn router(collector: SocketAddr) -> (L7, SocketAddr, Arc<SpanCounts>) {
    let endpoint = format!("http://{collector}/otlp/").parse().unwrap();
    let counts = Arc::<SpanCounts>::default();
    let resource = Resource { node: "node-a".to_owned(), version: "1.2.3".to_owned() };
    let sink = start(endpoint, resource, Arc::clone(&counts)).unwrap();
    let tracing = Some(TraceConfig { share: 1.0, sink, counts: Arc::clone(&counts) });
    let http = vec!["127.0.0.1:0".parse().unwrap()];
    let l7 =
        L7::start(Config { workers: 1, http, tracing, ..Config::default() }, &Snapshot::default()).unwrap();
    let address = l7.addresses().next().unwrap().socket;
    (l7, address, counts)
}

fn ask(address: SocketAddr, context: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!(
        "GET /path?query HTTP/1.1\r\nhost: a.test\r\n{context}user-agent: test\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Those that are texts.
fn texts(attributes: &[model::KeyValue]) -> BTreeMap<&str, &str> {
    let mut texts = BTreeMap::new();
    for model::KeyValue { key, value } in attributes {
        if let Some(model::AnyValue { value: Some(model::Value::Text(text)) }) = value {
            texts.insert(key.as_str(), text.as_str());
        }
    }
    texts
}

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_collector_gets_spans() {
    let (collector, messages) = collector("200 OK");
    let (_l7, address, counts) = router(collector);
    let context = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n";
    assert!(ask(address, context).starts_with("HTTP/1.1 404"));
    let (head, body) = messages.recv_timeout(LONG).unwrap();
    assert!(head.starts_with("post /otlp/v1/traces http/1.1"), "{head}");
    assert!(head.contains("content-type: application/x-protobuf"), "{head}");

    let request = model::ExportTraceServiceRequest::decode(body.as_slice()).unwrap();
    let [model::ResourceSpans { resource: Some(resource), scope_spans }] = &*request.resource_spans else {
        panic!("{request:?}")
    };
    let of_all = texts(&resource.attributes);
    assert_eq!((of_all["service.name"], of_all["k8s.node.name"]), ("xdp-ingress", "node-a"));
    let [model::ScopeSpans { spans, .. }] = &**scope_spans else { panic!("{scope_spans:?}") };
    let [span] = &**spans else { panic!("{spans:?}") };
    assert_eq!(span.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes());
    assert_eq!(span.parent_span_id, 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes(), "the client's span");
    assert_eq!(span.span_id.len(), 8);
    assert_eq!((&*span.name, span.kind), ("GET", 2));
    let (start, end) = (span.start_time_unix_nano, span.end_time_unix_nano);
    assert!(start <= end && start > 1_700_000_000_000_000_000, "{start} {end}");
    let attributes = texts(&span.attributes);
    for (key, value) in [
        ("http.request.method", "GET"),
        ("url.scheme", "http"),
        ("url.path", "/path"),
        ("url.query", "query"),
        ("network.protocol.version", "1.1"),
        ("server.address", "a.test"),
        ("client.address", "127.0.0.1"),
        ("user_agent.original", "test"),
        ("xdp_ingress.vip", &address.to_string()),
    ] {
        assert_eq!(attributes[key], value, "{key}");
    }
    wait_for("counted as exported", || counts.exported.load(Relaxed) == 1);
}

#[test]
fn a_collector_that_refuses_or_is_away_costs_spans_only() {
    let (refusing, messages) = collector("503 Service Unavailable");
    let (l7, address, counts) = router(refusing);
    assert!(ask(address, "").starts_with("HTTP/1.1 404"));
    messages.recv_timeout(LONG).unwrap();
    wait_for("counted as dropped", || counts.dropped.load(Relaxed) == 1);
    assert_eq!((l7.stats().totals.spans_dropped, l7.stats().totals.spans_exported), (1, 0));

    // Nobody listens on a port that was just given up.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (_l7, address, counts) = router(gone);
    assert!(ask(address, "").starts_with("HTTP/1.1 404"));
    wait_for("counted as dropped", || counts.dropped.load(Relaxed) == 1);
}

#[test]
fn endpoints() {
    let parsed = |text: &str| text.parse::<Endpoint>().map(|endpoint| (endpoint.authority, endpoint.path));
    assert_eq!(parsed("http://otel:4318"), Ok(("otel:4318".into(), "/v1/traces".into())));
    assert_eq!(parsed("http://[fd00::1]:4318/a/"), Ok(("[fd00::1]:4318".into(), "/a/v1/traces".into())));
    assert_eq!(parsed("http://otel"), Ok(("otel:80".into(), "/v1/traces".into())));
    for wrong in ["", "otel:4318", "https://otel:4318", "http://otel:4318?x", "grpc://otel:4317", "http://:1"]
    {
        assert!(parsed(wrong).is_err(), "{wrong}");
    }
}
