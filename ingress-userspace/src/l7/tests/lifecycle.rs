//! Changes and the end: a new snapshot, listeners, draining.

use std::time::{Duration, Instant};

use super::backend::{Backend, Behaviour};
use super::client::{Client, get};
use super::{Config, L7, Router, Rules};
use crate::model::{Kind, ObjectRef, Vip};

fn drain(l7: &L7, grace: Duration) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(l7.drain(grace))
}

#[test]
fn an_open_connection_sees_the_new_snapshot() {
    let (one, two) = (Backend::start("one", Behaviour::Echo), Backend::start("two", Behaviour::Echo));
    let router = Router::start(&Rules::default().rule("a", "/", "service", &[one.address]));
    let mut client = Client::connect(router.http);
    assert_eq!(client.get("a", "/").header("x-backend"), Some("one"));
    router.l7.publish(&Rules::default().rule("a", "/", "service", &[two.address]).0);
    assert_eq!(client.get("a", "/").header("x-backend"), Some("two"));
    router.l7.publish(&Rules::default().0);
    assert_eq!(client.get("a", "/").status, 404);
    router.l7.publish(&Rules::default().rule("", "/", "other", &[one.address]).0);
    assert_eq!(client.get("a", "/").header("x-backend"), Some("one"));
    assert_eq!(router.l7.connections(), 1);
}

#[test]
fn requests_are_counted_by_ingress() {
    let one = Backend::start("one", Behaviour::Echo);
    let router = Router::start(&Rules::default().rule("a", "/", "service", &[one.address]));
    for host in ["a", "a", "b"] {
        get(router.http, host, "/");
    }
    let report = router.l7.stats();
    assert_eq!(report.totals.requests, [0, 2, 0, 1, 0]);
    let (name, slot) = &report.ingresses[0];
    assert_eq!(name.name, "service");
    let of = report.totals.by_ingress.iter().find(|(other, _)| other == slot).unwrap();
    assert_eq!(of.1.by_class, [0, 2, 0, 0, 0]);
}

#[test]
fn draining_finishes_what_runs_and_takes_nothing_new() {
    let slow = Backend::start("slow", Behaviour::Slow(Duration::from_millis(300)));
    let router = Router::start(&Rules::default().rule("", "/", "slow", &[slow.address]));
    let mut busy = Client::connect(router.http);
    busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut idle = Client::connect(router.http);
    assert_eq!(idle.get("a", "/").status, 200);
    let address = router.http;
    let busy = std::thread::spawn(move || {
        let response = busy.response().unwrap();
        (response.body, busy.is_closed())
    });
    std::thread::sleep(Duration::from_millis(50));
    let start = Instant::now();
    assert_eq!(drain(&router.l7, Duration::from_secs(8)), 0);
    assert!(start.elapsed() < Duration::from_secs(7), "{:?}", start.elapsed());
    assert_eq!(busy.join().unwrap(), ("first\nlast".to_owned(), true));
    assert!(idle.is_closed());
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[test]
fn draining_ends_with_the_grace_period() {
    let slow = Backend::start("slow", Behaviour::Slow(Duration::from_secs(20)));
    let router = Router::start(&Rules::default().rule("", "/", "slow", &[slow.address]));
    let mut client = Client::connect(router.http);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    std::thread::sleep(Duration::from_millis(100));
    let start = Instant::now();
    assert_eq!(drain(&router.l7, Duration::from_millis(200)), 1);
    assert!((200..2000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
}

#[test]
fn listeners_follow_the_vips() {
    let one = Backend::start("one", Behaviour::Echo);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut rules = Rules::default().rule("", "/", "one", &[one.address]);
    let mut vip = Vip::new("127.77.0.1".parse().unwrap(), ObjectRef::new(Kind::IngressClass, "", "xdp"));
    vip.http_ports.push(port);
    rules.0.vips.push(vip);
    let vip = (rules.0.vips[0].address, port).into();
    let config = Config { workers: 2, follow_vips: true, ..Config::default() };
    let l7 = L7::start(config, &rules.0).unwrap();
    let mut client = Client::connect(vip);
    assert_eq!(client.get("a", "/").status, 200);
    rules.0.vips.clear();
    l7.publish(&rules.0);
    let gone = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        std::net::TcpStream::connect(vip).is_err()
    });
    assert!(gone, "still listening");
    assert_eq!(client.get("a", "/").status, 200, "the open connection stays");
}

#[test]
fn a_taken_port_is_one_clear_sentence() {
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap();
    let config = Config { workers: 1, http: vec![address], ..Config::default() };
    let error = L7::start(config, &Rules::default().0).unwrap_err();
    let expected =
        format!("cannot listen on {address}: another process uses this port; stop it or choose another port");
    assert_eq!(error.to_string(), expected);
}

#[test]
fn finished_requests_are_logged() {
    use crate::l7::access_log::{AccessLogConfig, Format};
    let one = Backend::start("one", Behaviour::Echo);
    let (sink, lines) = std::sync::mpsc::sync_channel(16);
    let access_log = Some(AccessLogConfig { format: Format::Json, node: "node-a".to_owned(), sink });
    let http = vec!["127.0.0.1:0".parse().unwrap()];
    let config = Config { workers: 1, http, access_log, ..Config::default() };
    let rules = Rules::default().rule("a", "/", "service", &[one.address]);
    let l7 = L7::start(config, &rules.0).unwrap();
    let address = l7.addresses().next().unwrap().socket;
    for host in ["a", "b"] {
        get(address, host, "/path?query");
    }
    let mut text = String::new();
    while text.lines().count() < 2 {
        let batch = lines.recv_timeout(Duration::from_secs(10)).expect("a batch within a tick or two");
        text.push_str(std::str::from_utf8(&batch.text).unwrap());
    }
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (served, refused) = (&lines[0], &lines[1]);
    assert_eq!(
        (&served["status"], &served["host"], &served["uri"]),
        (&200.into(), &"a".into(), &"/path?query".into())
    );
    assert_eq!((&served["node"], &served["ingress"]), (&"node-a".into(), &"service".into()));
    assert_eq!(served["upstream"], one.address.to_string());
    assert_eq!(
        (served["vip"].as_str(), &served["upstream_status"]),
        (Some(&*address.to_string()), &200.into())
    );
    assert_eq!(
        (&refused["status"], refused.get("upstream"), &refused["host"]),
        (&404.into(), None, &"b".into())
    );
    let totals = l7.stats().totals;
    let finished: u64 = totals.by_ingress.iter().flat_map(|(_, ingress)| ingress.latency).sum();
    assert_eq!(finished, 2, "both are in a latency bucket");
}
