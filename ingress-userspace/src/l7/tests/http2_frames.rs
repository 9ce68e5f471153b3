//! HTTP/2 as attackers speak it, in raw frames: what breaks RFC 9113's rules, and floods. For each it is said what must
//! happen to the stream or the connection; others on the same worker go on, and backends see nothing of it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Rules;
use super::backend::{Backend, Behaviour};
use super::client::Client;
use crate::l7::{Config, L7};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const PATIENCE: Duration = Duration::from_mins(1);

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A header block without compression.
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            bytes.push(text.len() as u8);
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    bytes
}

const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":authority", "a.test"), (":path", "/")];

/// A request on stream 1 with these fields behind the usual ones.
fn get_with(fields: &[(&str, &str)]) -> Vec<u8> {
    request(&[&GET[..], fields].concat())
}

fn request(fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(fields))
}

fn post(stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    let all = [&[(":method", "POST")], &GET[1..], fields].concat();
    frame(HEADERS, END_HEADERS, stream, &block(&all))
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// GOAWAY with this code.
    Goaway(u32),
    /// The connection closed without a word.
    Closed,
    /// The stream was reset with this code.
    Reset(u32),
    /// The stream got this answer.
    Status(u16),
    /// Nothing: a ping behind it was answered.
    Nothing,
}

fn connect(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).unwrap();
    stream
}

fn outcome(address: SocketAddr, bytes: &[u8]) -> Outcome {
    const MARK: &[u8] = b"the mark";
    let mut stream = connect(address);
    let _ = stream.write_all(bytes);
    // An answer may take as long as it wants; only where nothing is to come the ping tells so.
    let asks = bytes.get(3) == Some(&HEADERS);
    let _ = stream.write_all(&frame(PING, 0, 0, MARK));
    loop {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).is_err() {
            return Outcome::Closed;
        }
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        if stream.read_exact(&mut payload).is_err() {
            return Outcome::Closed;
        }
        let word = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
        match head[3] {
            GOAWAY => return Outcome::Goaway(word(4)),
            RST_STREAM => return Outcome::Reset(word(0)),
            HEADERS => return Outcome::Status(status(&payload)),
            PING if !asks && payload == MARK => return Outcome::Nothing,
            _ => {}
        }
    }
}

/// The status is the first field of an answer: an entry of the static table, or three digits.
fn status(block: &[u8]) -> u16 {
    const KNOWN: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    if (0x88..=0x8e).contains(&block[0]) {
        return KNOWN[usize::from(block[0] - 0x88)];
    }
    let (length, text) = (usize::from(block[1] & 0x7f), &block[2..]);
    if block[1] & 0x80 == 0 {
        return std::str::from_utf8(&text[..length]).unwrap().parse().unwrap();
    }
    // Huffman: 0 to 2 have five bits, 3 to 9 have six.
    let mut bits =
        text[..length].iter().flat_map(|byte| (0..8).rev().map(move |bit| u16::from(byte >> bit & 1)));
    let mut digit = || {
        let five = (0..5).fold(0, |code, _| code << 1 | bits.next().unwrap());
        if five <= 2 { five } else { (five << 1 | bits.next().unwrap()) - 0x19 + 3 }
    };
    digit() * 100 + digit() * 10 + digit()
}

const NO_ERROR: u32 = 0;
const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const FRAME_SIZE_ERROR: u32 = 6;
const COMPRESSION_ERROR: u32 = 9;

/// A description, the frames, what must come of them. A connection that ends may end without GOAWAY.
fn rules() -> Vec<(&'static str, Vec<u8>, Outcome)> {
    use Outcome::{Goaway, Nothing, Reset, Status};
    let reset = Reset(PROTOCOL_ERROR);
    let broken = Goaway(PROTOCOL_ERROR);
    let setting =
        |id: u16, value: u32| frame(SETTINGS, 0, 0, &[&id.to_be_bytes()[..], &value.to_be_bytes()].concat());
    let without = |name: &str| {
        let rest: Vec<_> = GET.iter().filter(|(known, _)| *known != name).copied().collect();
        request(&rest)
    };
    let body = |length: &str, bytes: &[u8]| {
        [post(1, &[("content-length", length)]), frame(DATA, END_STREAM, 1, bytes)].concat()
    };
    vec![
        ("a good request", get_with(&[("te", "trailers")]), Status(200)),
        ("Host that says the same", get_with(&[("host", "a.test")]), Status(200)),
        ("Host that says otherwise", get_with(&[("host", "b.test")]), Status(400)),
        ("two Hosts", get_with(&[("host", "a.test"), ("host", "a.test")]), Status(400)),
        ("no authority at all", without(":authority"), Status(400)),
        (
            "an authority with user",
            request(&[GET[0], GET[1], (":authority", "u@a.test"), GET[3]]),
            Status(400),
        ),
        ("a path out of the root", request(&[GET[0], GET[1], GET[2], (":path", "/../x")]), Status(400)),
        ("CONNECT", request(&[(":method", "CONNECT"), (":authority", "a.test:80")]), Status(501)),
        ("connection", get_with(&[("connection", "close")]), reset),
        ("keep-alive", get_with(&[("keep-alive", "1")]), reset),
        ("proxy-connection", get_with(&[("proxy-connection", "x")]), reset),
        ("transfer-encoding", get_with(&[("transfer-encoding", "chunked")]), reset),
        ("upgrade", get_with(&[("upgrade", "websocket")]), reset),
        ("te but trailers", get_with(&[("te", "gzip")]), reset),
        ("a name in upper case", get_with(&[("X-Upper", "1")]), reset),
        ("a name with a space", get_with(&[("x y", "1")]), reset),
        ("an empty name", get_with(&[("", "1")]), reset),
        ("a value with CR LF", get_with(&[("x", "1\r\nx-evil: 1")]), reset),
        ("a value with NUL", get_with(&[("x", "\0")]), reset),
        ("an unknown pseudo-field", get_with(&[(":x", "1")]), reset),
        ("a response's pseudo-field", get_with(&[(":status", "200")]), reset),
        ("a pseudo-field behind others", request(&[GET[0], GET[1], ("x", "1"), GET[2], GET[3]]), reset),
        ("two paths", get_with(&[(":path", "/x")]), reset),
        ("two methods", get_with(&[(":method", "PUT")]), reset),
        ("no method", without(":method"), reset),
        ("no scheme", without(":scheme"), reset),
        ("no path", without(":path"), reset),
        ("an empty path", request(&[GET[0], GET[1], GET[2], (":path", "")]), reset),
        ("a body shorter than its length", body("5", b"1234"), reset),
        ("a body longer than its length", body("3", b"1234"), reset),
        ("a length that is none", body("x", b"1234"), reset),
        (
            "two lengths",
            [
                post(1, &[("content-length", "4"), ("content-length", "5")]),
                frame(DATA, END_STREAM, 1, b"1234"),
            ]
            .concat(),
            reset,
        ),
        ("DATA on an idle stream", frame(DATA, END_STREAM, 1, b"x"), broken),
        ("DATA on stream 0", frame(DATA, END_STREAM, 0, b"x"), broken),
        ("HEADERS on stream 0", frame(HEADERS, END_HEADERS, 0, &block(&GET)), broken),
        ("HEADERS on a stream of ours", frame(HEADERS, END_HEADERS, 2, &block(&GET)), broken),
        (
            "more padding than there is",
            frame(HEADERS, END_HEADERS | END_STREAM | PADDED, 1, &[200, 0x82]),
            broken,
        ),
        (
            "an invalid index",
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff, 0x7f]),
            Goaway(COMPRESSION_ERROR),
        ),
        ("CONTINUATION without HEADERS", frame(CONTINUATION, END_HEADERS, 1, &[0x82]), broken),
        (
            "a PING inside a header block",
            [frame(HEADERS, 0, 1, &[0x82]), frame(PING, 0, 0, &[0; 8])].concat(),
            broken,
        ),
        ("PUSH_PROMISE", frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2, 0x82]), broken),
        ("RST_STREAM of an idle stream", frame(RST_STREAM, 0, 1, &[0; 4]), broken),
        ("RST_STREAM of a wrong size", frame(RST_STREAM, 0, 1, &[0; 3]), Goaway(FRAME_SIZE_ERROR)),
        ("PRIORITY of a wrong size", frame(PRIORITY, 0, 1, &[0; 4]), Goaway(FRAME_SIZE_ERROR)),
        ("PING of a wrong size", frame(PING, 0, 0, &[0; 7]), Goaway(FRAME_SIZE_ERROR)),
        ("PING on a stream", frame(PING, 0, 1, &[0; 8]), broken),
        ("SETTINGS of a wrong size", frame(SETTINGS, 0, 0, &[0; 5]), Goaway(FRAME_SIZE_ERROR)),
        ("SETTINGS on a stream", frame(SETTINGS, 0, 1, &[]), broken),
        ("an acknowledgement with settings", frame(SETTINGS, ACK, 0, &[0; 6]), Goaway(FRAME_SIZE_ERROR)),
        ("ENABLE_PUSH 2", setting(2, 2), broken),
        ("INITIAL_WINDOW_SIZE too big", setting(4, 1 << 31), Goaway(FLOW_CONTROL_ERROR)),
        ("MAX_FRAME_SIZE too small", setting(5, 1), broken),
        ("an unknown setting", setting(0xfafa, 7), Nothing),
        ("WINDOW_UPDATE of 0", frame(WINDOW_UPDATE, 0, 0, &[0; 4]), broken),
        (
            "a window beyond its end",
            frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
            Goaway(FLOW_CONTROL_ERROR),
        ),
        ("a frame longer than allowed", frame(DATA, 0, 1, &[0; 16_385]), Goaway(FRAME_SIZE_ERROR)),
        ("an unknown frame", frame(0xfa, 0, 0, b"x"), Nothing),
    ]
}

/// One worker, so that everybody shares it.
fn start(backend: &Backend) -> (L7, SocketAddr) {
    let rules = Rules::default().rule("a.test", "/", "one", &[backend.address]);
    let http = vec!["127.0.0.1:0".parse().unwrap()];
    let l7 = L7::start(Config { workers: 1, http, ..Config::default() }, &rules.0).unwrap();
    let address = l7.addresses().next().unwrap().socket;
    (l7, address)
}

#[test]
fn what_breaks_the_rules_ends_its_stream_or_connection() {
    let backend = Backend::start("one", Behaviour::Echo);
    let (_l7, address) = start(&backend);
    let mut others = Client::connect(address);
    let (mut wrong, mut good) = (Vec::new(), 0);
    for (what, bytes, must) in rules() {
        let found = outcome(address, &bytes);
        let is_so = match must {
            // RFC 9113 5.4.1: an endpoint may close at once; and an error of a stream may be one of the connection.
            Outcome::Goaway(_) => {
                matches!(found, Outcome::Closed | Outcome::Goaway(_)) && found != Outcome::Goaway(NO_ERROR)
            }
            Outcome::Reset(_) => {
                matches!(found, Outcome::Reset(_) | Outcome::Goaway(_)) || found == Outcome::Status(400)
            }
            _ => found == must,
        };
        if !is_so {
            wrong.push(format!("{what}: {found:?}, not {must:?}"));
        }
        good += usize::from(must == Outcome::Status(200));
        assert_eq!(others.get("a.test", "/others").status, 200, "after {what}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let seen = backend.seen();
    let strange: Vec<_> =
        seen.iter().filter(|head| head.contains("evil") || head.contains("b.test")).collect();
    assert!(strange.is_empty(), "{strange:?}");
    assert!(seen.iter().filter(|head| head.starts_with("GET / ")).count() == good, "{seen:?}");
}

/// What is sent in the round of this number.
type Next = Box<dyn FnMut(u32) -> Vec<u8> + Send>;

/// Sends what `next` gives until the connection ends, or `enough`; whether it ended.
fn flood(address: SocketAddr, enough: &AtomicBool, next: &mut dyn FnMut(u32) -> Vec<u8>) -> bool {
    let mut stream = connect(address);
    stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut reader = stream.try_clone().unwrap();
    // Nobody reads what comes back as fast as it comes; the end is noticed all the same.
    reader.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let mut buffer = [0; 1024];
    for round in 0.. {
        if enough.load(Ordering::Relaxed) {
            return false;
        }
        match stream.write_all(&next(round)) {
            Ok(()) => {}
            // We are not read any more: that ends it for us.
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return false,
            Err(_) => return true,
        }
        match reader.read(&mut buffer) {
            Ok(0) => return true,
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return true,
            _ => {}
        }
    }
    false
}

#[test]
fn floods_cost_others_nothing() {
    let get = |stream: u32| frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&GET));
    let odd = |round: u32, count: u32| (0..count).map(move |n| (round * count + n) * 2 + 1);
    let floods: Vec<(&str, bool, Next)> = vec![
        (
            "rapid reset",
            true,
            Box::new(move |round| {
                odd(round, 200)
                    .flat_map(|id| [get(id), frame(RST_STREAM, 0, id, &[0, 0, 0, 8])].concat())
                    .collect()
            }),
        ),
        (
            "rapid reset, one by one",
            true,
            Box::new(move |round| {
                std::thread::sleep(Duration::from_millis(1));
                let id = round / 2 * 2 + 1;
                if round % 2 == 0 { get(id) } else { frame(RST_STREAM, 0, id, &[0, 0, 0, 8]) }
            }),
        ),
        (
            "CONTINUATION",
            true,
            Box::new(|round| {
                let kind = if round == 0 { HEADERS } else { CONTINUATION };
                frame(kind, 0, 1, &block(&[("x", &"y".repeat(120))]).repeat(100))
            }),
        ),
        (
            "empty CONTINUATION",
            true,
            Box::new(|round| {
                if round == 0 {
                    frame(HEADERS, 0, 1, &block(&GET))
                } else {
                    frame(CONTINUATION, 0, 1, &[]).repeat(1000)
                }
            }),
        ),
        ("SETTINGS", false, Box::new(|_| frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]).repeat(1000))),
        ("PING", false, Box::new(|_| frame(PING, 0, 0, &[7; 8]).repeat(1000))),
        ("PRIORITY", false, Box::new(|_| frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]).repeat(1000))),
        (
            "empty DATA",
            false,
            Box::new(|round| if round == 0 { post(1, &[]) } else { frame(DATA, 0, 1, &[]).repeat(1000) }),
        ),
        (
            "header list bombs",
            false,
            Box::new(move |round| {
                // One entry of the dynamic table, named again and again: 4 KB for each byte.
                let mut bomb = block(&GET);
                bomb.extend([0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
                bomb.extend([b'y'; 4000]);
                bomb.extend([0xbe; 10_000]);
                frame(HEADERS, END_HEADERS | END_STREAM, round * 2 + 1, &bomb)
            }),
        ),
    ];
    for (what, must_end, mut next) in floods {
        let backend = Backend::start("one", Behaviour::Echo);
        let (_l7, address) = start(&backend);
        let (served, ended) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let flooding = scope.spawn(|| {
                // Where it has to end, it goes on until it does; else while others are served.
                let never = AtomicBool::new(false);
                let enough = if must_end { &never } else { &served };
                let did = flood(address, enough, &mut *next);
                ended.store(true, Ordering::Relaxed);
                did
            });
            let end = Instant::now() + PATIENCE;
            let (mut requests, mut client) = (0, Client::connect(address));
            while requests < 50 || (must_end && !ended.load(Ordering::Relaxed)) {
                assert_eq!(client.get("a.test", "/others").status, 200, "{what}");
                requests += 1;
                assert!(Instant::now() < end, "{what}: {requests} requests of others, the flood goes on");
            }
            served.store(true, Ordering::Relaxed);
            assert!(flooding.join().unwrap() || !must_end, "{what}: the connection was not ended");
        });
        assert_eq!(outcome(address, &get_with(&[])), Outcome::Status(200), "after {what}");
        // A header that was refused has reached nobody.
        assert!(backend.seen().iter().all(|head| !head.contains("yyyy")), "{what}");
    }
}
