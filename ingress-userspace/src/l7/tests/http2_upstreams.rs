//! Endpoints by HTTP/1.1 behind clients by HTTP/2: what the endpoints get, which of their answers are passed on, and when a
//! connection serves another request.

use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::SendRequest;

use super::{Router, Rules, client};

type Sent = UnsyncBoxBody<Bytes, Infallible>;

/// Long enough for a machine that does much else.
const PATIENCE: Duration = Duration::from_mins(1);

async fn connect(router: &Router) -> SendRequest<Sent> {
    let stream = tokio::net::TcpStream::connect(router.http).await.unwrap();
    client::http2(stream).await
}

fn request(method: &str, body: Sent) -> Request<Sent> {
    Request::builder().method(method).uri("http://a.test/").body(body).unwrap()
}

fn frames(frames: Vec<Frame<Bytes>>) -> Sent {
    StreamBody::new(stream::iter(frames.into_iter().map(Ok))).boxed_unsync()
}

fn data(bytes: &'static [u8]) -> Frame<Bytes> {
    Frame::data(Bytes::from_static(bytes))
}

/// Runs `serve` for each connection, on a thread of its own; the numbers of the connections come by the channel.
fn endpoint(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> (SocketAddr, Receiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
            let serve = serve.clone();
            if sender.send(number).is_err() {
                return;
            }
            std::thread::spawn(move || serve(stream));
        }
    });
    (address, receiver)
}

/// Reads until `end` has come; `None` if the other side closes first.
fn read_until(mut stream: &TcpStream, end: &[u8]) -> Option<String> {
    let mut all = Vec::new();
    let mut piece = [0; 4096];
    while !all.ends_with(end) {
        let count = stream.read(&mut piece).ok().filter(|&count| count > 0)?;
        all.extend_from_slice(&piece[..count]);
    }
    String::from_utf8(all).ok()
}

/// Answers each request with these pieces, the others after a pause; then closes, if told so.
fn scripted(pieces: &'static [&'static str], closes: bool) -> (SocketAddr, Receiver<usize>) {
    endpoint(move |mut stream| {
        stream.set_nodelay(true).unwrap();
        while read_until(&stream, b"\r\n\r\n").is_some() {
            for (number, piece) in pieces.iter().enumerate() {
                if number > 0 {
                    std::thread::sleep(Duration::from_millis(20));
                }
                if stream.write_all(piece.as_bytes()).is_err() {
                    return;
                }
            }
            if closes {
                return;
            }
        }
    })
}

fn router(address: SocketAddr) -> Router {
    Router::start(&Rules::default().rule("a.test", "/", "one", &[address]))
}

/// Status, body and trailers; an error if the answer breaks off.
async fn ask(
    sender: &mut SendRequest<Sent>,
    method: &str,
) -> Result<(Response<()>, String, Option<HeaderMap>), hyper::Error> {
    let sent = sender.send_request(request(method, Empty::new().boxed_unsync()));
    let response = tokio::time::timeout(PATIENCE, sent).await.expect("an answer")?;
    let (head, body) = response.into_parts();
    let body = tokio::time::timeout(PATIENCE, body.collect()).await.expect("the end of a body")?;
    let trailers = body.trailers().cloned();
    let text = String::from_utf8(body.to_bytes().to_vec()).unwrap();
    Ok((Response::from_parts(head, ()), text, trailers))
}

#[tokio::test]
async fn answers_and_whether_their_connections_live_on() {
    const OK: &str = "HTTP/1.1 200 OK\r\n";
    for (method, pieces, closes, expected, connections) in [
        ("GET", &["HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"][..], false, Some((200, "hello")), 1),
        // In any pieces.
        (
            "GET",
            &["HTTP/1.1 2", "00 OK\r\nContent-Le", "ngth: 5\r\n\r", "\nhe", "llo"],
            false,
            Some((200, "hello")),
            1,
        ),
        (
            "GET",
            &[OK, "Transfer-Encoding: chunked\r\n\r\n3\r\nhel", "\r\n2\r\nlo\r\n0\r", "\n\r\n"],
            false,
            Some((200, "hello")),
            1,
        ),
        ("GET", &["HTTP/1.1 204 No Content\r\n\r\n"], false, Some((204, "")), 1),
        ("GET", &["HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"], false, Some((304, "")), 1),
        ("HEAD", &["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"], false, Some((200, "")), 1),
        ("GET", &["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"], false, Some((200, "")), 1),
        // Interim answers are passed over.
        (
            "GET",
            &["HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", OK, "Content-Length: 2\r\n\r\nhi"],
            false,
            Some((200, "hi")),
            1,
        ),
        // Used once.
        ("GET", &[OK, "\r\nuntil", " the end"], true, Some((200, "until the end")), 3),
        (
            "GET",
            &["HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi"],
            true,
            Some((200, "hi")),
            3,
        ),
        ("GET", &["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi and more"], false, Some((200, "hi")), 3),
        ("GET", &["HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi"], false, Some((200, "hi")), 3),
        // Broken off.
        ("GET", &["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi"], true, None, 3),
        ("GET", &["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhi"], true, None, 3),
        ("GET", &["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "x\r\nhi"], false, None, 3),
    ] {
        let (address, opened) = scripted(pieces, closes);
        let router = router(address);
        let mut sender = connect(&router).await;
        for round in 0..3 {
            let answer = ask(&mut sender, method).await.ok();
            let answer = answer.as_ref().map(|(head, text, _)| (head.status().as_u16(), text.as_str()));
            assert_eq!(answer, expected, "{method} {pieces:?}, round {round}");
        }
        // A client's connection stays with one worker and its pool.
        for number in 0..connections {
            assert_eq!(opened.recv_timeout(PATIENCE), Ok(number), "{method} {pieces:?}");
        }
        assert_eq!(opened.try_iter().count(), 0, "{method} {pieces:?} takes {connections} connections");
    }
}

#[tokio::test]
async fn answers_that_are_refused() {
    let many: &'static str = Box::leak("HTTP/1.1 103 Early Hints\r\n\r\n".repeat(20).into_boxed_str());
    for answer in [
        "SMTP 220 hello\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 2\n\nhi",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-Folded: a\r\n b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        many,
    ] {
        let (address, _opened) = scripted(Box::leak(Box::new([answer])), false);
        let router = router(address);
        let mut sender = connect(&router).await;
        let (head, text, _) = ask(&mut sender, "GET").await.unwrap();
        assert_eq!(head.status(), 502, "{answer:?}: {text}");
        assert!(text.contains("invalid response"), "{answer:?}: {text}");
    }
}

#[tokio::test]
async fn fields_and_trailers_cross_as_they_may() {
    let (address, _opened) = scripted(
        &[
            "HTTP/1.1 200 Fine\r\nX-One: 1\r\nx-one: 2\r\nConnection: close, X-Secret\r\nX-Secret: 1\r\nKeep-Alive: timeout=5\r\n\
           Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 7\r\nX-Empty:\r\n\r\n",
        ],
        true,
    );
    let router = router(address);
    let (head, text, trailers) = ask(&mut connect(&router).await, "GET").await.unwrap();
    assert_eq!(text, "hi");
    let ones: Vec<_> = head.headers().get_all("x-one").iter().collect();
    assert_eq!(ones, ["1", "2"]);
    for gone in ["x-secret", "keep-alive", "connection", "transfer-encoding"] {
        assert!(!head.headers().contains_key(gone), "{gone}");
    }
    let trailers = trailers.unwrap();
    assert_eq!((&trailers["x-sum"], &trailers["x-empty"]), (&"7".parse().unwrap(), &"".parse().unwrap()));
}

#[tokio::test]
async fn bodies_of_requests_in_chunks() {
    let (sender, received) = channel();
    let (address, _opened) = endpoint(move |mut stream| {
        let Some(request) = read_until(&stream, b"0\r\nx-sum: 7\r\n\r\n") else { return };
        let _ = sender.send(request);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    });
    let router = router(address);
    let mut client = connect(&router).await;
    let mut trailers = HeaderMap::new();
    for (name, value) in [("x-sum", "7"), ("host", "evil.test"), ("x-forwarded-for", "6.6.6.6"), ("x_y", "1")]
    {
        trailers.insert(name, value.parse().unwrap());
    }
    let body = frames(vec![data(b"hello"), data(b""), data(b" world"), Frame::trailers(trailers)]);
    let response = tokio::time::timeout(PATIENCE, client.send_request(request("POST", body))).await.unwrap();
    assert_eq!(response.unwrap().status(), 200);
    let request = received.recv_timeout(PATIENCE).unwrap();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(head.to_ascii_lowercase().contains("\r\ntransfer-encoding: chunked"), "{head}");
    assert_eq!(body, "5\r\nhello\r\n6\r\n world\r\n0\r\nx-sum: 7\r\n\r\n");
}

/// An endpoint that has answered before the request is complete keeps its client from nothing, and its connection, on which
/// the rest of the request is missing, serves nobody else.
#[tokio::test]
async fn early_answers() {
    let (address, opened) = endpoint(|mut stream| {
        if read_until(&stream, b"first\r\n").is_some() {
            let _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    let router = router(address);
    let mut client = connect(&router).await;
    for connections in 1..=3 {
        let endless = stream::iter([Ok(data(b"first"))]);
        let endless = futures_util::StreamExt::chain(endless, stream::pending());
        let sent = client.send_request(request("POST", StreamBody::new(endless).boxed_unsync()));
        let response = tokio::time::timeout(PATIENCE, sent).await.unwrap().unwrap();
        assert_eq!(response.status(), 403);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "no");
        assert_eq!(opened.recv_timeout(PATIENCE), Ok(connections - 1));
    }
}

/// A client that takes the answer only after it has sent all of its request is served, however long both are.
#[tokio::test]
async fn the_request_goes_on_while_the_answer_waits() {
    const PIECES: usize = 64;
    static PIECE: [u8; 64 << 10] = [b'x'; 64 << 10];
    let (address, _opened) = endpoint(|stream| {
        let writer = stream.try_clone().unwrap();
        let answering = std::thread::spawn(move || {
            let mut writer = writer;
            let length = PIECES * PIECE.len();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
            writer.write_all(head.as_bytes()).unwrap();
            for _ in 0..PIECES {
                writer.write_all(&PIECE).unwrap();
            }
        });
        read_until(&stream, b"\r\n0\r\n\r\n").unwrap();
        answering.join().unwrap();
    });
    let router = router(address);
    let mut client = connect(&router).await;
    let (sender, sent) = tokio::sync::oneshot::channel();
    let mut sender = Some(sender);
    let pieces = stream::iter((0..=PIECES).map(move |number| {
        if number == PIECES {
            let _ = sender.take().unwrap().send(());
        }
        Ok(data(if number == PIECES { b"" } else { &PIECE }))
    }));
    let asking = client.send_request(request("POST", StreamBody::new(pieces).boxed_unsync()));
    let response: Response<Incoming> = tokio::time::timeout(PATIENCE, asking).await.unwrap().unwrap();
    tokio::time::timeout(PATIENCE, sent).await.expect("all of the request is taken").unwrap();
    let body = tokio::time::timeout(PATIENCE, response.into_body().collect()).await.unwrap().unwrap();
    assert_eq!(body.to_bytes().len(), PIECES * PIECE.len());
}
