//! Tables and properties of the request parser, with httparse as the independent reader.

use proptest::prelude::*;

use super::*;

fn parse(text: &[u8]) -> Result<Option<ParsedRequest>, Refusal> {
    let mut parsed = ParsedRequest::default();
    let limits = HeadLimits { bytes: 1024, line: 256, fields: 16 };
    parsed.parse(text, &limits).map(|progress| (progress == Progress::Complete).then_some(parsed))
}

fn complete(text: &str) -> ParsedRequest {
    parse(text.as_bytes()).expect(text).expect(text)
}

fn span(span: Span, text: &str) -> &str {
    std::str::from_utf8(span.of(text.as_bytes())).unwrap()
}

#[test]
fn reads_a_request() {
    let text = "POST /a/b?c=d HTTP/1.1\r\nHost: foo.bar:80\r\nContent-Length: 3\r\nX-A:  b \r\n\r\nabcGET";
    let parsed = complete(text);
    assert_eq!(span(parsed.method, text), "POST");
    assert_eq!(span(parsed.target, text), "/a/b?c=d");
    assert_eq!(span(parsed.authority.unwrap(), text), "foo.bar:80");
    assert_eq!(parsed.framing, Framing::Length(3));
    assert_eq!(&text[parsed.length..], "abcGET");
    assert_eq!(parsed.fields.len(), 3);
    assert!(parsed.keep_alive && !parsed.expect_continue && parsed.upgrade.is_none());
}

#[test]
fn waits_for_every_cut() {
    let text =
        b"\r\nPUT /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-Continue\r\n\r\n";
    for cut in 0..text.len() {
        assert!(parse(&text[..cut]).unwrap().is_none(), "cut at {cut}");
    }
    let parsed = parse(text).unwrap().unwrap();
    assert_eq!((parsed.framing, parsed.length, parsed.expect_continue), (Framing::Chunked, text.len(), true));
}

#[test]
fn target_forms() {
    for (line, form, path, authority) in [
        ("GET / HTTP/1.1", TargetForm::Origin, "/", "h"),
        ("GET //x HTTP/1.1", TargetForm::Origin, "//x", "h"),
        ("OPTIONS * HTTP/1.1", TargetForm::Asterisk, "*", "h"),
        ("GET http://other:8/p?q HTTP/1.1", TargetForm::Absolute, "/p?q", "other:8"),
        ("GET HTTPS://other HTTP/1.1", TargetForm::Absolute, "", "other"),
        ("GET http://other?q HTTP/1.1", TargetForm::Absolute, "?q", "other"),
    ] {
        let text = format!("{line}\r\nHost: h\r\n\r\n");
        let parsed = complete(&text);
        assert_eq!(parsed.form, form, "{line}");
        assert_eq!(span(parsed.path_and_query, &text), path, "{line}");
        assert_eq!(span(parsed.authority.unwrap(), &text), authority, "{line}");
    }
}

#[test]
fn connection_options() {
    for (version, connection, keep) in [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: x, CLOSE\r\n", false),
        ("1.1", "Connection: keep-alive\r\nConnection: close\r\n", false),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
    ] {
        let text = format!("GET / HTTP/{version}\r\nHost: h\r\n{connection}\r\n");
        assert_eq!(complete(&text).keep_alive, keep, "{text:?}");
    }
}

#[test]
fn upgrades_that_pass() {
    for (fields, passes) in [
        ("Upgrade: websocket\r\nConnection: Upgrade\r\n", true),
        ("Upgrade: websocket\r\nConnection: keep-alive, upgrade\r\n", true),
        ("Upgrade: websocket\r\n", false),
        ("Connection: upgrade\r\n", false),
        ("Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n", false),
        ("Upgrade: websocket, H2C\r\nConnection: Upgrade\r\n", false),
        ("Upgrade: websocket\r\nUpgrade: x\r\nConnection: Upgrade\r\n", false),
        ("Upgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 1\r\n", false),
    ] {
        let text = format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
        assert_eq!(complete(&text).upgrade.is_some(), passes, "{text:?}");
    }
}

#[test]
fn refusals() {
    let long_target = format!("GET /{} HTTP/1.1\r\n", "a".repeat(300));
    let long_field = format!("GET / HTTP/1.1\r\nHost: h\r\nA: {}", "a".repeat(1100));
    let long_method = format!("{} / HTTP/1.1\r\n", "A".repeat(33));
    for (text, refusal) in [
        ("GET  / HTTP/1.1\r\n", Refusal::RequestLine),
        (" GET / HTTP/1.1\r\n", Refusal::RequestLine),
        ("GET\t/ HTTP/1.1\r\n", Refusal::RequestLine),
        ("GET / HTTP/1.1 \r\n", Refusal::RequestLine),
        ("GET /  HTTP/1.1\r\n", Refusal::RequestLine),
        ("GET /\r\n", Refusal::RequestLine),
        ("GET / http/1.1\r\n", Refusal::RequestLine),
        ("GET / HTTP/1.1x\r\n", Refusal::RequestLine),
        ("GET / HTTP/11\r\n\r\n", Refusal::RequestLine),
        ("\x16\x03\x01\x02\x00\x01", Refusal::RequestLine),
        (&long_method, Refusal::RequestLine),
        ("GET / HTTP/1.2\r\n", Refusal::Version),
        ("GET / HTTP/2.0\r\n", Refusal::Version),
        ("GET / HTTP/0.9\r\n", Refusal::Version),
        ("GET / HTTP/1.1\n", Refusal::LineEnd),
        ("GET / HTTP/1.1\rX", Refusal::LineEnd),
        ("\nGET / HTTP/1.1\r\n", Refusal::LineEnd),
        ("GET /\0 HTTP/1.1\r\n", Refusal::Target),
        ("GET /a#b HTTP/1.1\r\n", Refusal::Target),
        ("GET /\x7f HTTP/1.1\r\n", Refusal::Target),
        ("GET a HTTP/1.1\r\nHost: h\r\n\r\n", Refusal::TargetForm),
        ("GET * HTTP/1.1\r\nHost: h\r\n\r\n", Refusal::TargetForm),
        ("GET ftp://h/ HTTP/1.1\r\nHost: h\r\n\r\n", Refusal::TargetForm),
        ("GET http:///p HTTP/1.1\r\nHost: h\r\n\r\n", Refusal::TargetForm),
        ("CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n", Refusal::Connect),
        ("GET / HTTP/1.1\r\n\r\n", Refusal::HostMissing),
        ("GET http://h/ HTTP/1.1\r\n\r\n", Refusal::HostMissing),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Refusal::HostRepeated),
        ("GET / HTTP/1.0\r\nHost: a\r\nHOST: b\r\n\r\n", Refusal::HostRepeated),
        ("GET / HTTP/1.1\r\nHost: h\r\nExpect: x\r\n\r\n", Refusal::Expectation),
        ("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Refusal::TransferEncoding),
        (&long_target, Refusal::TargetTooLong),
        (&long_field, Refusal::HeadTooLarge),
    ] {
        assert_eq!(parse(text.as_bytes()).err(), Some(refusal), "{text:?}");
    }
    for (fields, refusal) in [
        ("Content-Length: 1\r\nContent-Length: 1", Refusal::ContentLength),
        ("Content-Length: 1\r\nContent-Length: 2", Refusal::ContentLength),
        ("Content-Length: 1, 1", Refusal::ContentLength),
        ("Content-Length: +1", Refusal::ContentLength),
        ("Content-Length: -1", Refusal::ContentLength),
        ("Content-Length: 0x1", Refusal::ContentLength),
        ("Content-Length:", Refusal::ContentLength),
        ("Content-Length: 1 1", Refusal::ContentLength),
        ("Content-Length: 9999999999999999999", Refusal::ContentLength),
        ("Content-Length: 1\r\nTransfer-Encoding: chunked", Refusal::BothFramings),
        ("Transfer-Encoding: chunked\r\nContent-Length: 0", Refusal::BothFramings),
        ("Transfer-Encoding: gzip, chunked", Refusal::TransferEncoding),
        ("Transfer-Encoding: chunked, chunked", Refusal::TransferEncoding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", Refusal::TransferEncoding),
        ("Transfer-Encoding: identity", Refusal::TransferEncoding),
        ("Transfer-Encoding: xchunked", Refusal::TransferEncoding),
        ("Transfer-Encoding: \"chunked\"", Refusal::TransferEncoding),
        ("Transfer-Encoding:", Refusal::TransferEncoding),
        ("Transfer-Encoding : chunked", Refusal::FieldName),
        (" X: y", Refusal::Folding),
        ("X: y\r\n z", Refusal::Folding),
        ("X: y\0", Refusal::FieldValue),
        ("X: y\rZ: 1", Refusal::LineEnd),
        ("X: y\nZ: 1", Refusal::LineEnd),
    ] {
        let text = format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n");
        assert_eq!(parse(text.as_bytes()).err(), Some(refusal), "{text:?}");
    }
    let many = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "A: b\r\n".repeat(16));
    assert_eq!(parse(many.as_bytes()).err(), Some(Refusal::HeadTooLarge));
}

/// Text that is nearly a request: fragments of one, glued in random order, with some bytes changed.
fn nearly_a_request() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "GET ",
        "POST ",
        "/",
        "/a?b=c",
        "http://x/",
        "*",
        " ",
        "HTTP/1.1",
        "HTTP/1.0",
        "\r\n",
        "\r",
        "\n",
        "Host: h",
        "Host:",
        "Content-Length: 3",
        "Transfer-Encoding: chunked",
        "Connection: close",
        ":",
        ": ",
        "\t",
        "X: y",
        ",",
        "\0",
        "é",
        "Expect: 100-continue",
        "Upgrade: x",
        "-",
        "12345678",
    ]);
    let glued = prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat().into_bytes());
    let whole = prop::collection::vec(glued, 0..3).prop_map(|lines| {
        let mut text = b"GET /p HTTP/1.1\r\nHost: h\r\n".to_vec();
        for line in lines {
            text.extend_from_slice(&line);
            text.extend_from_slice(b"\r\n");
        }
        text.extend_from_slice(b"\r\n");
        text
    });
    let any_bytes = prop::collection::vec(any::<u8>(), 0..200);
    let changed =
        (whole.clone(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut text, at, byte)| {
            let at = at.index(text.len());
            text[at] = byte;
            text
        });
    prop_oneof![2 => whole, 2 => changed, 1 => any_bytes, 1 => prop::collection::vec(prop::sample::select(
        vec!["GET / HTTP/1.1\r\n", "Host: a\r\n", "A: b\r\n", "\r\n", "B :c\r\n", " d\r\n"]), 0..8)
        .prop_map(|lines| lines.concat().into_bytes())]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_we_accept_httparse_reads_alike(text in nearly_a_request()) {
        if let Ok(Some(ours)) = parse(&text) {
            let mut fields = [httparse::EMPTY_HEADER; 32];
            let mut theirs = httparse::Request::new(&mut fields);
            let status = theirs.parse(&text);
            prop_assert_eq!(status, Ok(httparse::Status::Complete(ours.length)));
            prop_assert_eq!(theirs.method.map(str::as_bytes), Some(ours.method.of(&text)));
            prop_assert_eq!(theirs.path.map(str::as_bytes), Some(ours.target.of(&text)));
            prop_assert_eq!(theirs.version, Some(u8::from(ours.version == Version::Http11)));
            let theirs: Vec<_> = theirs.headers.iter().map(|field| (field.name.as_bytes(), field.value)).collect();
            let ours: Vec<_> =
                ours.fields.iter().map(|field| (field.name.of(&text), field.value.of(&text))).collect();
            prop_assert_eq!(theirs, ours);
        }
    }

    #[test]
    fn pieces_make_no_difference(text in nearly_a_request(), cut in any::<prop::sample::Index>()) {
        let cut = cut.index(text.len() + 1);
        // What is refused early is refused as a whole; what is complete early is complete as a whole.
        match parse(&text[..cut]) {
            Err(Refusal::HeadTooLarge) | Ok(None) => {}
            Err(early) => prop_assert_eq!(parse(&text).err(), Some(early)),
            Ok(Some(early)) => prop_assert_eq!(parse(&text).unwrap().unwrap().length, early.length),
        }
    }
}
