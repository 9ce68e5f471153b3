//! Plain HTTP/1.1: routing, our own answers, headers.

use super::backend::{Backend, Behaviour};
use super::client::{Client, get};
use super::{Router, Rules};

#[test]
fn the_classic_examples() {
    let (one, two) =
        (Backend::start("service1", Behaviour::Echo), Backend::start("service2", Behaviour::Echo));
    let rules = Rules::default()
        .rule("foo.bar.com", "/bar", "service1", &[one.address])
        .rule("*.foo.com", "/foo", "service2", &[two.address])
        .rule("app.test.com", "/", "service1", &[one.address])
        .rule("app.prod.com", "/", "service2", &[two.address]);
    let router = Router::start(&rules);
    for (host, path, expected) in [
        ("foo.bar.com", "/bar", Some("service1")),
        ("FOO.bar.com:80", "/bar/x?y=1", Some("service1")),
        ("foo.bar.com", "/barx", None),
        ("x.foo.com", "/foo", Some("service2")),
        ("x.y.foo.com", "/foo", None),
        ("foo.com", "/foo", None),
        ("app.test.com", "/", Some("service1")),
        ("app.prod.com", "/any/thing", Some("service2")),
        ("unknown.test", "/", None),
    ] {
        let response = get(router.http, host, path);
        if let Some(service) = expected {
            assert_eq!((response.status, response.header("x-backend")), (200, Some(service)), "{host}{path}");
            assert!(response.body.contains(&format!("GET {path} HTTP/1.1\r\n")), "{}", response.body);
        } else {
            assert_eq!(response.status, 404, "{host}{path}");
            assert_eq!(response.body, "404 Not Found: no Ingress rule matches this host and path\n");
        }
        assert!(response.header("server").is_none());
    }
}

#[test]
fn our_own_answers_name_the_reason() {
    let (hang_up, nonsense) =
        (Backend::start("a", Behaviour::HangUp), Backend::start("b", Behaviour::Nonsense));
    let refused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let rules = Rules::default()
        .rule("empty.test", "/", "empty", &[])
        .missing("missing.test", "/")
        .redirect("secure.test")
        .rule("refused.test", "/", "refused", &[refused])
        .rule("hangup.test", "/", "hangup", &[hang_up.address])
        .rule("nonsense.test", "/", "nonsense", &[nonsense.address]);
    let router = Router::start(&rules);
    for (host, status, reason) in [
        ("empty.test", 503, "has no ready endpoints"),
        ("missing.test", 503, "does not exist"),
        ("secure.test", 308, "elsewhere"),
        ("refused.test", 502, "accepts connections"),
        ("hangup.test", 502, "closed the connection"),
        ("nonsense.test", 502, "invalid response"),
    ] {
        let response = get(router.http, host, "/a?b");
        assert_eq!(response.status, status, "{host}");
        assert!(response.body.contains(reason), "{host}: {}", response.body);
        assert_eq!(response.header("location").is_some(), status == 308);
    }
    // A request that a backend may have worked on is not sent twice.
    assert_eq!(hang_up.seen().len(), 1);
    assert_eq!(get(router.http, "secure.test", "/a?b").header("location"), Some("https://secure.test/a?b"));
}

#[test]
fn forwarded_headers_tell_the_connection_and_not_the_clients_tale() {
    let backend = Backend::start("one", Behaviour::Echo);
    let router = Router::start(&Rules::default().rule("a.test", "/", "one", &[backend.address]));
    let mut client = Client::connect(router.http);
    client.send(
        "GET / HTTP/1.1\r\nHost: a.test:81\r\nX-Forwarded-For: 6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\n\
         Forwarded: for=6.6.6.6\r\nX-Request-ID: mine\r\nX_Under: 1\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\
         Keep-Alive: 1\r\nX-Kept: yes\r\n\r\n",
    );
    let body = client.response().unwrap().body.to_ascii_lowercase();
    let port = router.http.port();
    for line in [
        "x-forwarded-for: 127.0.0.1\r\n".to_owned(),
        "x-real-ip: 127.0.0.1\r\n".to_owned(),
        "x-forwarded-proto: http\r\n".to_owned(),
        format!("x-forwarded-port: {port}\r\n"),
        "x-forwarded-host: a.test:81\r\n".to_owned(),
        "\r\nhost: a.test:81\r\n".to_owned(),
        "x-kept: yes\r\n".to_owned(),
        // Kept, as ingress-nginx keeps it: it names the request and says nothing about the client.
        "x-request-id: mine\r\n".to_owned(),
    ] {
        assert_eq!(body.matches(line.as_str()).count(), 1, "{line} in {body}");
    }
    for word in ["6.6.6.6", "x_under", "x-hop", "keep-alive"] {
        assert!(!body.contains(word), "{word} in {body}");
    }
}

#[test]
fn bodies_go_both_ways() {
    let backend = Backend::start("one", Behaviour::Echo);
    let router = Router::start(&Rules::default().rule("", "/", "one", &[backend.address]));
    let mut client = Client::connect(router.http);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    assert!(client.response().unwrap().body.ends_with("\r\n\r\nhello"));
    client.send(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
    );
    assert!(client.response().unwrap().body.ends_with("\r\n\r\nabcde"));
}

#[test]
fn a_dead_endpoint_is_passed_over() {
    let backend = Backend::start("one", Behaviour::Echo);
    let refused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let router = Router::start(&Rules::default().rule("", "/", "one", &[backend.address, refused]));
    for _ in 0..20 {
        assert_eq!(get(router.http, "a", "/").status, 200);
    }
    assert!(router.l7.stats().totals.connect_failed > 0);
}

#[test]
fn a_used_connection_that_died_is_replaced() {
    let backend = Backend::start("one", Behaviour::OneShot);
    let router = Router::start(&Rules::default().rule("", "/", "one", &[backend.address]));
    let mut client = Client::connect(router.http);
    for _ in 0..10 {
        assert_eq!(client.get("a", "/").status, 200);
    }
}
