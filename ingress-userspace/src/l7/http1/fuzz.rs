//! What must hold for any bytes of a client or a backend. See `crate::fuzz`.

use std::fmt::Debug;

use super::super::head::{ConnectionInfo, HeadEdits, RequestHead};
use super::super::origin::Origin;
use super::body::Body;
use super::chunked::Direction;
use super::fields::FieldKind;
use super::receive::request_head;
use super::request::{Framing, HeadLimits, ParsedRequest, Progress};
use super::response::ParsedResponse;
use super::write::{self, ParsedHeaders, Persistence};

/// Where the fuzzer cuts a message in two; the first byte says it.
fn cut(data: &[u8]) -> Option<(usize, &[u8])> {
    let (&at, data) = data.split_first()?;
    Some((usize::from(at).min(data.len()), data))
}

/// What was said of the first piece holds for the whole; `same`: both end at the same place and are framed alike.
fn pieces_agree<E: Copy + Debug + PartialEq>(
    first: Result<Progress, E>,
    whole: Result<Progress, E>,
    same: bool,
) {
    match first {
        Ok(Progress::Partial) => {}
        Ok(Progress::Complete) => {
            assert_eq!(whole, Ok(Progress::Complete));
            assert!(same, "a complete head changed with what came behind it");
        }
        // Maybe for another reason: which one is seen first depends on how much is there.
        Err(_) => assert!(whole.is_err()),
    }
}

/// A client's bytes. The same in pieces as in one; and what goes on to the backend is one request with the same framing,
/// one `Host` and no `Connection` but for an upgrade. What filters want changed is changed, and nothing else.
pub fn request(data: &[u8]) {
    let Some((at, data)) = cut(data) else { return };
    let limits = HeadLimits::default();
    let (mut early, mut parsed) = (ParsedRequest::default(), ParsedRequest::default());
    let first = early.parse(&data[..at], &limits);
    let whole = parsed.parse(data, &limits);
    pieces_agree(first, whole, (early.length, early.framing) == (parsed.length, parsed.framing));
    if whole != Ok(Progress::Complete) {
        return;
    }
    let Ok(head) = request_head(data, &parsed) else { return };
    let connection = ConnectionInfo::new(([192, 0, 2, 7], 5000).into(), ([192, 0, 2, 1], 80).into(), None);
    let head = RequestHead {
        method: head.method,
        origin: Origin::of_connection(&connection),
        authority: head.authority,
        host: &head.host,
        path: &head.path,
        query: head.query,
        body_length: 0,
        headers: &ParsedHeaders { buffer: data, request: &parsed },
        connection: &connection,
    };
    if head.authority.is_empty() {
        return; // HTTP/1.0 without `Host`: what we send on has an empty one.
    }
    forwarded(data, &parsed, &head, &HeadEdits::default());
    let mut edits = HeadEdits::default();
    edits.edit().remove.push("cookie".into());
    edits.edit().set.push(("traceparent".into(), b"ours".to_vec()));
    edits.edit().host = Some("other.test".to_owned());
    edits.edit().path = Some("/new".to_owned());
    let (out, sent) = forwarded(data, &parsed, &head, &edits);
    let text = String::from_utf8_lossy(&out);
    let values = |name: &str| {
        let named =
            sent.fields.iter().filter(|field| field.name.of(&out).eq_ignore_ascii_case(name.as_bytes()));
        named.map(|field| field.value.of(&out)).collect::<Vec<_>>()
    };
    assert_eq!((values("cookie"), values("traceparent")), (vec![], vec![&b"ours"[..]]), "{text:?}");
    assert_eq!(values("host"), [b"other.test"], "{text:?}");
    let path = sent.path_and_query.of(&out);
    assert_eq!(path.split(|byte| *byte == b'?').next(), Some(&b"/new"[..]), "{text:?}");
}

/// What goes on to the backend, read again.
fn forwarded(
    data: &[u8],
    parsed: &ParsedRequest,
    head: &RequestHead<'_>,
    edits: &HeadEdits,
) -> (Vec<u8>, ParsedRequest) {
    let mut out = Vec::new();
    write::request(&mut out, data, parsed, head, edits.get(), &[b'0'; 32]);
    // What we add may be more than a client may send.
    let limits = HeadLimits { bytes: usize::MAX, line: usize::MAX, fields: usize::MAX };
    let mut sent = ParsedRequest::default();
    let text = String::from_utf8_lossy(&out);
    assert_eq!(sent.parse(&out, &limits), Ok(Progress::Complete), "{text:?}");
    assert_eq!(sent.length, out.len(), "{text:?}");
    let same = sent.framing == parsed.framing
        || matches!(
            (sent.framing, parsed.framing),
            (Framing::None, Framing::Length(0)) | (Framing::Length(0), Framing::None)
        );
    assert!(same, "{:?} became {:?}: {text:?}", parsed.framing, sent.framing);
    let count = |kind| sent.fields.iter().filter(|field| field.kind == kind).count();
    assert_eq!(count(FieldKind::Host), 1, "{text:?}");
    assert_eq!(count(FieldKind::Connection), usize::from(parsed.upgrade.is_some()), "{text:?}");
    assert_eq!(sent.upgrade.is_some(), parsed.upgrade.is_some(), "{text:?}");
    (out, sent)
}

/// A backend's bytes: the same in pieces as in one; what goes on to the client ends where the original does.
pub fn response(data: &[u8]) {
    let Some((at, data)) = cut(data) else { return };
    let limits = HeadLimits::default();
    let (mut early, mut parsed) = (ParsedResponse::default(), ParsedResponse::default());
    let first = early.parse(&data[..at], &limits, false);
    let whole = parsed.parse(data, &limits, false);
    pieces_agree(first, whole, (early.length, early.framing) == (parsed.length, parsed.framing));
    if whole != Ok(Progress::Complete) {
        return;
    }
    let chunked = parsed.framing == Framing::Chunked;
    let persistence =
        if parsed.framing == Framing::UntilClose { Persistence::Close } else { Persistence::Default };
    let mut out = Vec::new();
    write::response(&mut out, data, &parsed, persistence, chunked, None);
    let limits = HeadLimits { bytes: usize::MAX, line: usize::MAX, fields: usize::MAX };
    let mut sent = ParsedResponse::default();
    let text = String::from_utf8_lossy(&out);
    assert_eq!(sent.parse(&out, &limits, false), Ok(Progress::Complete), "{text:?}");
    assert_eq!((sent.length, sent.status), (out.len(), parsed.status), "{text:?}");
    assert_eq!(sent.framing, parsed.framing, "{text:?}");
}

/// A chunked body with something behind it: pieces make no difference to the payload, to where it ends or to whether it
/// is refused.
pub fn body(data: &[u8]) {
    let Some((at, data)) = cut(data) else { return };
    for direction in [Direction::Request, Direction::Response] {
        let whole = decode(&[data], direction);
        let pieces = decode(&[&data[..at], &data[at..]], direction);
        assert_eq!(whole, pieces);
    }
}

/// The payload and the length of the body, `None` when it goes on; an error when it is refused.
fn decode(pieces: &[&[u8]], direction: Direction) -> Result<Option<(Vec<u8>, usize)>, ()> {
    let mut body = Body::new(Framing::Chunked, direction);
    let (mut payload, mut length) = (Vec::new(), 0);
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() && !body.is_done() {
            let taken = body.take_payload(rest, &mut payload).map_err(drop)?;
            length += taken;
            rest = &rest[taken..];
        }
    }
    Ok(body.is_done().then_some((payload, length)))
}
