//! The corpus of malformed, ambiguous and unusual messages in `tests/http1_vectors`: for each, what the client gets and
//! what the backend received.
//!
//! A block per vector, separated by empty lines. `send:`/`reply:` lines hold bytes with Rust's escapes and are joined;
//! `backend:`/`client:` what must arrive (without the lines that we add), `-` for nothing. `answers:` the statuses in
//! order, then `closes` or `stays`.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::harness::{Backend, Client, Peer, Proxy};

#[derive(Debug, Default, Clone)]
struct Vector {
    name: String,
    send: Vec<u8>,
    reply: Vec<u8>,
    answers: Vec<u16>,
    closes: bool,
    backend: Option<Vec<u8>>,
    client: Option<Vec<u8>>,
}

fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match rest.next().unwrap() {
            b'r' => out.push(b'\r'),
            b'n' => out.push(b'\n'),
            b't' => out.push(b'\t'),
            b'0' => out.push(0),
            b'x' => {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                out.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
            }
            // `\*1000a`: a thousand times `a`.
            b'*' => {
                let digits: String = rest.by_ref().take(5).map(char::from).collect();
                let byte = rest.next().unwrap();
                out.resize(out.len() + digits.parse::<usize>().unwrap(), byte);
            }
            other => out.push(other),
        }
    }
    out
}

fn vectors(text: &str) -> Vec<Vector> {
    let mut vectors = Vec::new();
    for block in text.split("\n\n") {
        let mut vector = Vector::default();
        for line in block.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let (key, value) =
                line.split_once(": ").unwrap_or_else(|| panic!("not a line of a vector: {line}"));
            match key {
                "name" => value.clone_into(&mut vector.name),
                "send" => vector.send.extend(unescape(value)),
                "reply" => vector.reply.extend(unescape(value)),
                "answers" => {
                    let mut words: Vec<&str> = value.split(' ').collect();
                    vector.closes = match words.pop() {
                        Some("closes") => true,
                        Some("stays") => false,
                        _ => panic!("{line}: `closes` or `stays` must be last"),
                    };
                    vector.answers = words.iter().map(|status| status.parse().unwrap()).collect();
                }
                "backend" if value == "-" => vector.backend = Some(Vec::new()),
                "backend" => vector.backend.get_or_insert_default().extend(unescape(value)),
                "client" => vector.client.get_or_insert_default().extend(unescape(value)),
                _ => panic!("not a key of a vector: {line}"),
            }
        }
        if !vector.name.is_empty() {
            vectors.push(vector);
        }
    }
    vectors
}

/// Without the lines that the router adds to requests.
fn without_ours(bytes: &[u8]) -> Vec<u8> {
    let ours = |line: &&[u8]| {
        ![
            "X-Forwarded-For: 127.",
            "X-Forwarded-Proto: http",
            "X-Forwarded-Port: ",
            "X-Forwarded-Host: ",
            "X-Real-IP: 127.",
            "X-Request-ID: ",
        ]
        .iter()
        .any(|start| line.starts_with(start.as_bytes()))
    };
    bytes.split_inclusive(|byte| *byte == b'\n').filter(ours).collect::<Vec<_>>().concat()
}

fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

#[test]
fn requests() {
    let record = Arc::<Mutex<Vec<u8>>>::default();
    let recorder = Arc::clone(&record);
    let backend = Backend::start(move |mut peer: Peer| {
        peer.record = Some(Arc::clone(&recorder));
        while let Some(request) = peer.message() {
            let body = if request.head.starts_with("HEAD ") { "" } else { "ok" };
            peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{body}"));
        }
    });
    let proxy = Proxy::start(&[backend.address]);
    let vectors = vectors(include_str!("../http1_vectors/requests.txt"));
    assert!(vectors.len() >= 150, "only {} vectors", vectors.len());
    let mut wrong = Vec::new();
    for vector in &vectors {
        record.lock().unwrap().clear();
        let mut client = proxy.client();
        client.send(&vector.send);
        let mut statuses = Vec::new();
        for _ in &vector.answers {
            let is_head = vector.send.starts_with(b"HEAD ");
            match if is_head { client.0.head() } else { client.0.message() } {
                Some(answer) => statuses.push(answer.status()),
                None => break,
            }
        }
        let mut fail = |what: String| wrong.push(format!("{}: {what}", vector.name));
        if statuses != vector.answers {
            fail(format!("answers {statuses:?}, not {:?}", vector.answers));
            continue;
        }
        if vector.closes {
            let rest = client.0.rest();
            if !rest.is_empty() {
                fail(format!("more came: {}", shown(&rest)));
            }
        } else {
            client.send("GET /alive HTTP/1.1\r\nHost: a\r\n\r\n");
            if client.0.message().is_none_or(|answer| answer.status() != 200) {
                fail("the connection is out of step afterwards".into());
            }
        }
        // What must not arrive gets a moment to do so.
        if vector.backend.as_ref().is_some_and(Vec::is_empty) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut received = without_ours(&record.lock().unwrap());
        if !vector.closes {
            let alive = b"GET /alive HTTP/1.1\r\nHost: a\r\n\r\n";
            match received.strip_suffix(alive) {
                Some(before) => received = before.to_vec(),
                None => fail("the backend did not get the request after it".into()),
            }
        }
        let expected = vector.backend.as_ref().expect("`backend:` is missing");
        if &received != expected {
            fail(format!("the backend received\n   {}\n  not {}", shown(&received), shown(expected)));
        }
    }
    assert!(wrong.is_empty(), "{} of {} vectors:\n{}", wrong.len(), vectors.len(), wrong.join("\n"));
}

#[test]
fn answers() {
    let reply = Arc::<Mutex<Vec<u8>>>::default();
    let current = Arc::clone(&reply);
    let backend = Backend::start(move |mut peer: Peer| {
        while let Some(request) = peer.message() {
            if request.head.contains("/alive") {
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                continue;
            }
            let reply = current.lock().unwrap().clone();
            match reply.strip_suffix(b"<close>") {
                Some(reply) => {
                    peer.send(reply);
                    return;
                }
                None => peer.send(&reply),
            }
        }
    });
    let proxy = Proxy::start(&[backend.address]);
    let vectors = vectors(include_str!("../http1_vectors/answers.txt"));
    assert!(vectors.len() >= 30, "only {} vectors", vectors.len());
    let mut wrong = Vec::new();
    for vector in &vectors {
        reply.lock().unwrap().clone_from(&vector.reply);
        let mut client = proxy.client();
        let send =
            if vector.send.is_empty() { b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" } else { &vector.send[..] };
        client.send(send);
        let mut fail = |what: String| wrong.push(format!("{}: {what}", vector.name));
        let mut got = Vec::new();
        if vector.closes {
            got = client.0.rest();
        } else {
            let expected = vector.client.as_ref().map_or(0, Vec::len);
            got.resize(expected, 0);
            if std::io::Read::read_exact(&mut client.0.reader, &mut got).is_err() {
                fail("less came than expected".into());
                continue;
            }
            client.send("GET /alive HTTP/1.1\r\nHost: a\r\n\r\n");
            if client.0.message().is_none_or(|answer| answer.status() != 200) {
                fail("the connection is out of step afterwards".into());
            }
        }
        match (&vector.client, vector.answers.first()) {
            (Some(expected), _) if expected != &got => {
                fail(format!("the client got\n   {}\n  not {}", shown(&got), shown(expected)));
            }
            (None, Some(status)) if !got.starts_with(format!("HTTP/1.1 {status} ").as_bytes()) => {
                fail(format!("the client got {}", shown(&got)));
            }
            _ => {}
        }
        // Whatever happened, the next client is served.
        let mut next = Client::connect(proxy.address);
        if next.get("/alive").status() != 200 {
            fail("the next client is not served".into());
        }
    }
    assert!(wrong.is_empty(), "{} of {} vectors:\n{}", wrong.len(), vectors.len(), wrong.join("\n"));
}
