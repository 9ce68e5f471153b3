//! Which header fields cross the proxy, and the `X-Forwarded-*` family that it sets. Used by the HTTP/1 engine (bytes)
//! and by `http2` (hyper's `HeaderMap`), so that the rule exists once.
//!
//! What a client says about itself is dropped and set anew, from what `origin` believes.

mod rfc7239;

use std::cell::Cell;
use std::io::Write as _;
use std::net::IpAddr;

use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::head::{RequestHead, Scheme};
use super::origin::Origin;
use super::trace::hex_digits;

/// Fields that belong to one connection, not to the message (RFC 9110 7.6.1), and `Proxy` (httpoxy). Lower case.
/// The engines write framing, `Upgrade` and `Connection` of their own where they need them.
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// Fields by which proxies describe the client. Lower case.
const FORWARDED: [&str; 12] = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-forwarded-scheme",
    "x-forwarded-server",
    "x-forwarded-ssl",
    "x-real-ip",
    "x-request-id",
    "x-scheme",
];

/// Whether a request's header field goes on to the backend as it is. Names with an underscore don't unless wanted, as with
/// ingress-nginx: CGI-like backends read `X_Forwarded_For` as `X-Forwarded-For`.
pub fn keeps_request_header(name: &[u8], underscores: bool) -> bool {
    !is_hop_by_hop(name) && !is_forwarded(name) && (underscores || !name.contains(&b'_'))
}

/// Whether a response's header field goes on to the client as it is.
pub fn keeps_response_header(name: &[u8]) -> bool {
    !is_hop_by_hop(name)
}

fn is_hop_by_hop(name: &[u8]) -> bool {
    // The first letter tells most names apart before any comparison.
    matches!(name.first().map(|b| b | 0x20), Some(b'c' | b'k' | b'p' | b't' | b'u'))
        && HOP_BY_HOP.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

fn is_forwarded(name: &[u8]) -> bool {
    matches!(name.first().map(|b| b | 0x20), Some(b'f' | b'x'))
        && FORWARDED.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

/// The field names that a `Connection` value lists: they end here too. `close` and `keep-alive` are among them.
pub fn connection_options(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(<[u8]>::trim_ascii).filter(|option| !option.is_empty())
}

/// The header lines that are the same for all requests of a connection, rendered once.
pub(super) fn connection_lines(client: IpAddr, port: u16, scheme: Scheme) -> Box<[u8]> {
    let mut out = Vec::with_capacity(128);
    let scheme = scheme.as_str();
    // Writing into a Vec cannot fail.
    let _ = write!(
        out,
        "X-Forwarded-For: {client}\r\nX-Real-IP: {client}\r\nX-Forwarded-Proto: {scheme}\r\n\
         X-Forwarded-Port: {port}\r\n"
    );
    out.into_boxed_slice()
}

/// Appends the lines `X-Forwarded-For/-Proto/-Port/-Host` and `X-Real-IP`; `Forwarded` where it is wanted; and, unless `id`
/// is empty, `X-Request-ID`.
pub fn write_forwarded(out: &mut Vec<u8>, head: &RequestHead<'_>, id: &[u8]) {
    let is_wanted = rfc7239::is_wanted(head);
    let list = if head.origin.is_told || is_wanted {
        head.origin.forwarded_for(head.connection, head.headers)
    } else {
        Vec::new()
    };
    if head.origin.is_told {
        let Origin { client, scheme, port, .. } = &head.origin;
        out.extend_from_slice(b"X-Forwarded-For: ");
        out.extend_from_slice(&list);
        let scheme = scheme.as_str();
        // Writing into a Vec cannot fail.
        let _ = write!(
            out,
            "\r\nX-Real-IP: {client}\r\nX-Forwarded-Proto: {scheme}\r\nX-Forwarded-Port: {port}\r\n"
        );
    } else {
        out.extend_from_slice(&head.connection.forwarded_lines);
    }
    if !head.authority.is_empty() {
        out.extend_from_slice(b"X-Forwarded-Host: ");
        out.extend_from_slice(head.authority.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    if is_wanted {
        out.extend_from_slice(b"Forwarded: ");
        rfc7239::write(out, head, &list);
        out.extend_from_slice(b"\r\n");
    }
    if !id.is_empty() {
        out.extend_from_slice(b"X-Request-ID: ");
        out.extend_from_slice(id);
        out.extend_from_slice(b"\r\n");
    }
}

/// The same for a `HeaderMap`, a copy of the request's: drops what must not cross, then sets the family.
pub fn apply_to_request(headers: &mut HeaderMap, head: &RequestHead<'_>, id: &[u8]) {
    let origin = &head.origin;
    let underscores = origin.downstream.is_some_and(|options| options.underscores);
    drop_fields(headers, |name| keeps_request_header(name, underscores));
    let forwarded_for = origin.forwarded_for(head.connection, head.headers);
    let client = origin.client.to_string();
    let port = origin.port.to_string();
    let mut forwarded = Vec::new();
    if rfc7239::is_wanted(head) {
        rfc7239::write(&mut forwarded, head, &forwarded_for);
    }
    for (name, value) in [
        ("x-forwarded-for", forwarded_for.as_slice()),
        ("x-real-ip", client.as_bytes()),
        ("x-forwarded-proto", origin.scheme.as_str().as_bytes()),
        ("x-forwarded-port", port.as_bytes()),
        ("x-forwarded-host", head.authority.as_bytes()),
        ("forwarded", &forwarded),
        ("x-request-id", id),
    ] {
        if let (false, Ok(value)) = (value.is_empty(), HeaderValue::from_bytes(value)) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

/// Drops from a response what must not cross.
pub fn apply_to_response(headers: &mut HeaderMap) {
    drop_fields(headers, keeps_response_header);
}

fn drop_fields(headers: &mut HeaderMap, keeps: impl Fn(&[u8]) -> bool) {
    let named: Vec<HeaderName> = headers
        .get_all(http::header::CONNECTION)
        .iter()
        .flat_map(|value| connection_options(value.as_bytes()))
        .filter_map(|option| HeaderName::from_bytes(option).ok())
        .collect();
    let dropped: Vec<HeaderName> =
        headers.keys().filter(|name| !keeps(name.as_str().as_bytes())).cloned().collect();
    for name in named.iter().chain(&dropped) {
        headers.remove(name);
    }
}

/// 128 random bits as hexadecimal digits, as nginx' `$request_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestId(pub [u8; 32]);

/// The `X-Request-ID` that goes to the backend.
#[derive(Debug, Clone, Copy)]
pub enum SentId<'a> {
    /// The client's own.
    Kept(&'a [u8]),
    /// One of ours.
    Made(RequestId),
    /// None: there was none, and none is wanted (`generate-request-id`).
    Nothing,
}

impl<'a> SentId<'a> {
    /// The client's own, if it sent one that may go on: a word of bounded length. `make` makes one.
    pub fn of(head: &RequestHead<'a>, make: impl FnOnce() -> RequestId) -> Self {
        const LONGEST: usize = 128;
        let is_plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b',' | b';');
        match head.headers.get("x-request-id") {
            Some(id) if (1..=LONGEST).contains(&id.len()) && id.iter().all(is_plain) => Self::Kept(id),
            _ if head.origin.downstream.is_none_or(|options| options.request_ids) => Self::Made(make()),
            _ => Self::Nothing,
        }
    }

    /// The value; empty if there is none.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Kept(id) => id,
            Self::Made(id) => &id.0,
            Self::Nothing => &[],
        }
    }
}

/// Makes request ids: a worker's own generator, seeded by the kernel. Unique, not secret.
#[derive(Debug)]
pub struct RequestIds(Cell<u128>);

impl RequestIds {
    /// A generator with a random start.
    pub fn new() -> Self {
        use std::hash::{BuildHasher as _, RandomState};
        // `RandomState` takes its keys from the kernel's random numbers: 2 × 64 bits.
        let word = || u128::from(RandomState::new().hash_one(0_u8));
        Self(Cell::new((word() << 64 | word()) | 1))
    }

    /// 128 random bits.
    pub fn bits(&self) -> u128 {
        // PCG with 128 bits of state (XSL-RR's multiplier); the halves are mixed, so that neighbours look apart.
        let state = self
            .0
            .get()
            .wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645)
            .wrapping_add(0x5851_f42d_4c95_7f2d_1405_7b7e_f767_814f);
        self.0.set(state);
        state ^ (state >> 64)
    }

    /// A new one.
    pub fn make(&self) -> RequestId {
        let mut id = [0; 32];
        for (pair, byte) in id.chunks_exact_mut(2).zip(self.bits().to_be_bytes()) {
            pair.copy_from_slice(&hex_digits(byte));
        }
        RequestId(id)
    }
}

impl Default for RequestIds {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::super::head::{ConnectionInfo, TlsInfo};
    use super::*;
    use crate::model::Downstream;

    fn head<'a>(connection: &'a ConnectionInfo, headers: &'a HeaderMap) -> RequestHead<'a> {
        let example = RequestHead::example(connection, headers);
        RequestHead { authority: "Foo.bar.com:8443", host: "foo.bar.com", ..example }
    }

    fn connection() -> ConnectionInfo {
        ConnectionInfo::new(
            "192.0.2.7:5000".parse().unwrap(),
            "192.0.2.1:8443".parse().unwrap(),
            Some(TlsInfo::default()),
        )
    }

    #[test]
    fn names_that_do_not_cross() {
        for name in HOP_BY_HOP.iter().chain(&FORWARDED).chain(&["x_forwarded_for", "X-FORWARDED-FOR", "Te"]) {
            assert!(!keeps_request_header(name.as_bytes(), false), "{name}");
            assert_eq!(keeps_request_header(name.as_bytes(), true), name.contains('_'), "{name}");
        }
        for name in ["accept", "cookie", "x-custom", "trailer", "te2", "from", "user-agent", ""] {
            assert!(keeps_request_header(name.as_bytes(), false), "{name}");
        }
        assert!(keeps_response_header(b"x-request-id") && !keeps_response_header(b"Keep-Alive"));
    }

    #[test]
    fn bytes_and_map_say_the_same() {
        let options = Downstream {
            trusted: vec!["192.0.2.7/32".parse().unwrap()],
            forwarded_headers: true,
            full_forwarded_for: true,
            forwarded: true,
            ..Downstream::default()
        };
        let connection = connection();
        let mut sent = HeaderMap::new();
        for (name, value) in [
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-proto", "http"),
            ("forwarded", "for=6.6.6.6"),
            ("connection", "close, X-Secret"),
            ("x-secret", "1"),
            ("accept", "*/*"),
        ] {
            sent.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let id = RequestIds::new().make();
        for (options, forwarded_for, proto, port, count) in
            [(None, "192.0.2.7", "https", "8443", 6), (Some(&options), "6.6.6.6, 192.0.2.7", "http", "80", 7)]
        {
            let head =
                RequestHead { origin: Origin::of(&connection, options, &sent), ..head(&connection, &sent) };
            let mut map = sent.clone();
            apply_to_request(&mut map, &head, &id.0);
            assert_eq!(map.len(), count + 1);
            assert_eq!(map["accept"], "*/*");

            let mut bytes = Vec::new();
            write_forwarded(&mut bytes, &head, &id.0);
            let text = String::from_utf8(bytes).unwrap();
            assert_eq!(text.lines().count(), count);
            for line in text.lines() {
                let (name, value) = line.split_once(": ").unwrap();
                assert_eq!(map[name], value, "{name}");
            }
            assert_eq!(map["x-forwarded-for"], forwarded_for);
            assert_eq!(
                (&map["x-forwarded-proto"], &map["x-forwarded-port"]),
                (&proto.parse().unwrap(), &port.parse().unwrap())
            );
            assert_eq!(map["x-forwarded-host"], "Foo.bar.com:8443");
            // No id is wanted.
            let mut bytes = Vec::new();
            write_forwarded(&mut bytes, &head, b"");
            assert!(!String::from_utf8(bytes).unwrap().contains("X-Request-ID"));
        }
    }

    #[test]
    fn request_ids_are_kept_if_they_are_words() {
        let (connection, ids) = (connection(), RequestIds::new());
        let off = Downstream { request_ids: false, ..Downstream::default() };
        let long = "x".repeat(129);
        for (id, kept) in
            [("abc-1.2_3:4/5+6=", true), ("", false), ("a b", false), ("a\"b", false), (&long, false)]
        {
            let mut sent = HeaderMap::new();
            sent.insert("x-request-id", id.parse().unwrap());
            let mut head = head(&connection, &sent);
            let found = SentId::of(&head, || ids.make());
            assert_eq!(
                (found.as_bytes() == id.as_bytes(), found.as_bytes().is_empty()),
                (kept, false),
                "{id}"
            );
            head.origin.downstream = Some(&off);
            let found = SentId::of(&head, || ids.make());
            assert_eq!(found.as_bytes(), if kept { id.as_bytes() } else { b"" }, "{id}");
        }
    }

    #[test]
    fn request_ids_differ() {
        let ids = RequestIds::new();
        let many: std::collections::HashSet<[u8; 32]> = (0..1000).map(|_| ids.make().0).collect();
        assert_eq!(many.len(), 1000);
        assert!(many.iter().flatten().all(u8::is_ascii_hexdigit));
    }
}
