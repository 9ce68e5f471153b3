//! Which header fields cross the proxy, and the `X-Forwarded-*` family that it sets. Used by the HTTP/1 engine (bytes)
//! and by `http2` (hyper's `HeaderMap`), so that the rule exists once.
//!
//! What a client says about itself is dropped and set anew from the connection. (A list of trusted proxies whose word
//! counts will be asked here, and only here.)

use std::cell::Cell;
use std::io::Write as _;
use std::net::IpAddr;

use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::head::{ConnectionInfo, RequestHead, Scheme};

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

/// Whether a request's header field goes on to the backend as it is. Names with an underscore don't, as with
/// ingress-nginx: CGI-like backends read `X_Forwarded_For` as `X-Forwarded-For`.
pub fn keeps_request_header(name: &[u8]) -> bool {
    !is_hop_by_hop(name) && !is_forwarded(name) && !name.contains(&b'_')
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

/// Appends the lines `X-Forwarded-For/-Proto/-Port/-Host`, `X-Real-IP` and `X-Request-ID`.
pub fn write_forwarded(out: &mut Vec<u8>, head: &RequestHead<'_>, id: &RequestId) {
    out.extend_from_slice(&head.connection.forwarded_lines);
    if !head.authority.is_empty() {
        out.extend_from_slice(b"X-Forwarded-Host: ");
        out.extend_from_slice(head.authority.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"X-Request-ID: ");
    out.extend_from_slice(&id.0);
    out.extend_from_slice(b"\r\n");
}

/// The same for a `HeaderMap`: drops what must not cross, then sets the family. `authority` is the request's, as sent.
pub fn apply_to_request(
    headers: &mut HeaderMap,
    connection: &ConnectionInfo,
    authority: &str,
    id: &RequestId,
) {
    drop_fields(headers, keeps_request_header);
    let client = connection.client.ip().to_string();
    let port = connection.local.port().to_string();
    for (name, value) in [
        ("x-forwarded-for", client.as_bytes()),
        ("x-real-ip", client.as_bytes()),
        ("x-forwarded-proto", connection.scheme().as_str().as_bytes()),
        ("x-forwarded-port", port.as_bytes()),
        ("x-forwarded-host", authority.as_bytes()),
        ("x-request-id", &id.0),
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

fn drop_fields(headers: &mut HeaderMap, keeps: fn(&[u8]) -> bool) {
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

    /// A new one.
    pub fn make(&self) -> RequestId {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        // PCG with 128 bits of state (XSL-RR's multiplier); the halves are mixed, so that neighbours look apart.
        let state = self
            .0
            .get()
            .wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645)
            .wrapping_add(0x5851_f42d_4c95_7f2d_1405_7b7e_f767_814f);
        self.0.set(state);
        let mixed = state ^ (state >> 64);
        let mut id = [0; 32];
        for (pair, byte) in id.chunks_exact_mut(2).zip(mixed.to_be_bytes()) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
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
    use super::super::head::TlsInfo;
    use super::*;

    fn head<'a>(connection: &'a ConnectionInfo, headers: &'a HeaderMap) -> RequestHead<'a> {
        RequestHead {
            method: "GET",
            scheme: connection.scheme(),
            authority: "Foo.bar.com:8443",
            host: "foo.bar.com",
            path: "/",
            query: None,
            body_length: 0,
            headers,
            connection,
        }
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
            assert!(!keeps_request_header(name.as_bytes()), "{name}");
        }
        for name in ["accept", "cookie", "x-custom", "trailer", "te2", "from", "user-agent", ""] {
            assert!(keeps_request_header(name.as_bytes()), "{name}");
        }
        assert!(keeps_response_header(b"x-request-id") && !keeps_response_header(b"Keep-Alive"));
    }

    #[test]
    fn bytes_and_map_say_the_same() {
        let connection = connection();
        let mut map = HeaderMap::new();
        for (name, value) in [
            ("x-forwarded-for", "6.6.6.6"),
            ("forwarded", "for=6.6.6.6"),
            ("connection", "close, X-Secret"),
            ("x-secret", "1"),
            ("accept", "*/*"),
        ] {
            map.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let id = RequestIds::new().make();
        let empty = HeaderMap::new();
        apply_to_request(&mut map, &connection, "Foo.bar.com:8443", &id);
        assert_eq!(map.len(), 7);
        assert_eq!(map["accept"], "*/*");

        let mut bytes = Vec::new();
        write_forwarded(&mut bytes, &head(&connection, &empty), &id);
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(text.lines().count(), 6);
        for line in text.lines() {
            let (name, value) = line.split_once(": ").unwrap();
            assert_eq!(map[name], value, "{name}");
        }
        assert!(
            text.contains("X-Forwarded-For: 192.0.2.7\r\n") && text.contains("X-Forwarded-Proto: https\r\n")
        );
        assert!(
            text.contains("X-Forwarded-Host: Foo.bar.com:8443\r\n")
                && text.contains("X-Forwarded-Port: 8443\r\n")
        );
    }

    #[test]
    fn request_ids_differ() {
        let ids = RequestIds::new();
        let many: std::collections::HashSet<[u8; 32]> = (0..1000).map(|_| ids.make().0).collect();
        assert_eq!(many.len(), 1000);
        assert!(many.iter().flatten().all(u8::is_ascii_hexdigit));
    }
}
