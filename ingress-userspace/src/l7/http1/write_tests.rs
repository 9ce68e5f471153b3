//! What heads look like on the other side.

use super::super::super::head::{ConnectionInfo, HeadEdits};
use super::super::request::HeadLimits;
use super::*;

fn forwarded(text: &str, edits: &HeadEdits) -> String {
    let mut parsed = ParsedRequest::default();
    parsed.parse(text.as_bytes(), &HeadLimits::default()).unwrap();
    let connection = ConnectionInfo::example();
    let headers = ParsedHeaders { buffer: text.as_bytes(), request: &parsed };
    let head = RequestHead {
        authority: "foo.bar:80",
        host: "foo.bar",
        path: "/p",
        query: Some("q=1"),
        ..RequestHead::example(&connection, &headers)
    };
    let mut out = Vec::new();
    request(&mut out, text.as_bytes(), &parsed, &head, edits.get(), &[b'0'; 32]);
    String::from_utf8(out).unwrap()
}

const OURS: &str = "X-Forwarded-For: 192.0.2.7\r\nX-Real-IP: 192.0.2.7\r\nX-Forwarded-Proto: http\r\n\
                    X-Forwarded-Port: 80\r\nX-Forwarded-Host: foo.bar:80\r\n\
                    X-Request-ID: 00000000000000000000000000000000\r\n";

#[test]
fn hop_by_hop_and_named_fields_stay_here() {
    let text = "GET /p?q=1 HTTP/1.1\r\nA: 1\r\nHost: foo.bar:80\r\nKeep-Alive: 5\r\nTE: trailers\r\nB:2\r\nX-Secret: s\r\n\
                X_Y: 1\r\nX-Forwarded-For: 6.6.6.6\r\nConnection: keep-alive, X-Secret, Content-Length, Upgrade\r\nExpect: 100-continue\r\n\
                Content-Length: 0\r\nC: 3\r\n\r\n";
    assert_eq!(
        forwarded(text, &HeadEdits::default()),
        format!(
            "GET /p?q=1 HTTP/1.1\r\nHost: foo.bar:80\r\nA: 1\r\nB:2\r\nContent-Length: 0\r\nC: 3\r\n{OURS}\r\n"
        )
    );
}

#[test]
fn framing_and_upgrade_are_written_anew() {
    let text = "POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\nExpect: 100-continue\r\n\r\n";
    assert_eq!(
        forwarded(text, &HeadEdits::default()),
        format!(
            "GET /p?q=1 HTTP/1.1\r\nHost: foo.bar:80\r\nExpect: 100-continue\r\n{OURS}Transfer-Encoding: chunked\r\n\r\n"
        )
    );
    let text = "GET /p HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-A: b\r\n\r\n";
    assert_eq!(
        forwarded(text, &HeadEdits::default()),
        format!(
            "GET /p?q=1 HTTP/1.1\r\nHost: foo.bar:80\r\nSec-A: b\r\n{OURS}Connection: upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
    );
}

#[test]
fn edits_are_applied() {
    let mut edits = HeadEdits::default();
    edits.edit().remove.push("cookie".into());
    edits.edit().set.push(("accept".into(), b"text/plain".to_vec()));
    edits.edit().host = Some("other".to_owned());
    edits.edit().path = Some("/new".to_owned());
    let text = "GET /p HTTP/1.1\r\nHost: a\r\nCookie: c\r\nAccept: */*\r\nA: b\r\n\r\n";
    assert_eq!(
        forwarded(text, &edits),
        format!("GET /new?q=1 HTTP/1.1\r\nHost: other\r\nA: b\r\n{OURS}accept: text/plain\r\n\r\n")
    );
}

fn returned(text: &str, persistence: Persistence, chunked: bool) -> String {
    let mut parsed = ParsedResponse::default();
    parsed.parse(text.as_bytes(), &HeadLimits::default(), false).unwrap();
    let mut out = Vec::new();
    response(&mut out, text.as_bytes(), &parsed, persistence, chunked, None);
    String::from_utf8(out).unwrap()
}

#[test]
fn answers() {
    for (text, persistence, chunked, expected) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nKeep-Alive: x\r\nServer: s\r\nConnection: x-a\r\nX-A: 1\r\n\r\n",
            Persistence::Default,
            false,
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nServer: s\r\n\r\n",
        ),
        (
            "HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n",
            Persistence::Close,
            true,
            "HTTP/1.1 200 \r\nTrailer: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
        ),
        (
            "HTTP/1.0 204 N\r\nContent-Length: 0\r\n\r\n",
            Persistence::KeepAlive,
            false,
            "HTTP/1.1 204 N\r\nConnection: keep-alive\r\n\r\n",
        ),
        (
            "HTTP/1.1 304 N\r\nContent-Length: 7\r\n\r\n",
            Persistence::Default,
            false,
            "HTTP/1.1 304 N\r\nContent-Length: 7\r\n\r\n",
        ),
        (
            "HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: upgrade\r\nA: b\r\n\r\n",
            Persistence::Upgrade,
            false,
            "HTTP/1.1 101 S\r\nA: b\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        ),
    ] {
        assert_eq!(returned(text, persistence, chunked), expected);
    }
}

#[test]
fn hsts_stands_in_the_place_of_the_backends() {
    let text = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nstrict-transport-security: max-age=1\r\nA: b\r\n\r\n";
    let mut parsed = ParsedResponse::default();
    parsed.parse(text.as_bytes(), &HeadLimits::default(), false).unwrap();
    let mut out = Vec::new();
    response(&mut out, text.as_bytes(), &parsed, Persistence::Default, false, Some(Hsts::default()));
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nA: b\r\n\
         Strict-Transport-Security: max-age=31536000; includeSubDomains\r\n\r\n"
    );
    assert_eq!(returned(text, Persistence::Default, false), text);
}
