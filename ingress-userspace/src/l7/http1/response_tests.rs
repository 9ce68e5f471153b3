//! Tables and properties of the response parser, with httparse as the independent reader.

use proptest::prelude::*;

use super::*;

fn parse(text: &[u8], to_head: bool) -> Result<Option<ParsedResponse>, BadAnswer> {
    let mut parsed = ParsedResponse::default();
    let limits = HeadLimits { bytes: 1024, line: 256, fields: 16 };
    parsed.parse(text, &limits, to_head).map(|progress| (progress == Progress::Complete).then_some(parsed))
}

#[test]
fn framing_and_persistence() {
    for (text, to_head, framing, keep) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", false, Framing::Length(5), true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false, Framing::None, true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", false, Framing::Chunked, true),
        ("HTTP/1.1 200 OK\r\n\r\n", false, Framing::UntilClose, false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true, Framing::None, true),
        ("HTTP/1.1 200 OK\r\n\r\n", true, Framing::None, true),
        ("HTTP/1.1 204 No Content\r\n\r\n", false, Framing::None, true),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", false, Framing::None, true),
        ("HTTP/1.1 100 Continue\r\n\r\n", false, Framing::None, true),
        ("HTTP/1.1 200\r\nContent-Length: 1\r\nConnection: close\r\n\r\n", false, Framing::Length(1), false),
        ("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n", false, Framing::Length(1), false),
        (
            "HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\n",
            false,
            Framing::Length(1),
            true,
        ),
    ] {
        let parsed = parse(text.as_bytes(), to_head).expect(text).expect(text);
        assert_eq!(
            (parsed.framing, parsed.keep_alive, parsed.length),
            (framing, keep, text.len()),
            "{text:?}"
        );
        for cut in 0..text.len() {
            assert!(matches!(parse(&text.as_bytes()[..cut], to_head), Ok(None)), "{text:?} cut at {cut}");
        }
    }
}

#[test]
fn refusals() {
    for (text, error) in [
        ("HTTP/2.0 200 OK\r\n", BadAnswer::StatusLine),
        ("http/1.1 200 OK\r\n", BadAnswer::StatusLine),
        ("HTTP/1.1  200 OK\r\n", BadAnswer::StatusLine),
        ("HTTP/1.1 20 OK\r\n", BadAnswer::StatusLine),
        ("HTTP/1.1 2000 OK\r\n", BadAnswer::StatusLine),
        ("HTTP/1.1 099 OK\r\n", BadAnswer::StatusLine),
        ("HTTP/1.1 +20 OK\r\n", BadAnswer::StatusLine),
        ("HTTP/1.1 200 OK\n", BadAnswer::StatusLine),
        ("HTTP/1.1 200 O\0K\r\n", BadAnswer::StatusLine),
        ("SSH-2.0-OpenSSH", BadAnswer::StatusLine),
        ("<html>", BadAnswer::StatusLine),
        ("HTTP/1.1 200 OK\r\nA: b\n\r\n", BadAnswer::Field),
        ("HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", BadAnswer::Field),
        ("HTTP/1.1 200 OK\r\nA : b\r\n\r\n", BadAnswer::Field),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", BadAnswer::ContentLength),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\n", BadAnswer::ContentLength),
        ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", BadAnswer::ContentLength),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            BadAnswer::TransferEncoding,
        ),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", BadAnswer::TransferEncoding),
        ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", BadAnswer::TransferEncoding),
    ] {
        assert_eq!(parse(text.as_bytes(), false).err(), Some(error), "{text:?}");
    }
    let large = format!("HTTP/1.1 200 OK\r\nA: {}", "b".repeat(1024));
    assert_eq!(parse(large.as_bytes(), false).err(), Some(BadAnswer::HeadTooLarge));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn what_we_accept_httparse_reads_alike(
        lines in prop::collection::vec(prop::sample::select(vec![
            "A: b", "Content-Length: 3", "X:\ty ", "Transfer-Encoding: chunked", "é: 1", "B: é", "C :d", " e", "",
        ]), 0..5),
        start in prop::sample::select(vec!["HTTP/1.1 200 OK", "HTTP/1.0 404 Not Found", "HTTP/1.1 500", "HTTP/1.1 200 "]),
        at in any::<prop::sample::Index>(),
        byte in proptest::option::of(any::<u8>()),
    ) {
        let mut text = format!("{start}\r\n{}\r\n\r\n", lines.join("\r\n")).into_bytes();
        if let Some(byte) = byte {
            let at = at.index(text.len());
            text[at] = byte;
        }
        if let Ok(Some(ours)) = parse(&text, false) {
            let mut fields = [httparse::EMPTY_HEADER; 32];
            let mut theirs = httparse::Response::new(&mut fields);
            prop_assert_eq!(theirs.parse(&text), Ok(httparse::Status::Complete(ours.length)));
            prop_assert_eq!(theirs.code, Some(ours.status));
            let theirs: Vec<_> = theirs.headers.iter().map(|field| (field.name.as_bytes(), field.value)).collect();
            let ours: Vec<_> =
                ours.fields.iter().map(|field| (field.name.of(&text), field.value.of(&text))).collect();
            prop_assert_eq!(theirs, ours);
        }
    }
}
