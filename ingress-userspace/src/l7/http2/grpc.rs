//! Our own answers to gRPC clients: a response without a message whose head carries `grpc-status` ("Trailers-Only" in the
//! protocol's words), so that the client's library reports why instead of a protocol error. Pure.

use std::fmt::Write as _;

use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{HeaderName, StatusCode};

use crate::l7::answer::Answer;

/// Whether a request is one of gRPC (also `application/grpc+proto` and the like; gRPC-Web is plain HTTP).
pub(super) fn is_request(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(CONTENT_TYPE) else { return false };
    let kind = kind.as_bytes();
    kind.strip_prefix(b"application/grpc")
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// The code for a status, as gRPC maps HTTP (its `http-grpc-status-mapping.md`), and what that leaves open. `None`: the
/// client has to see the status itself (redirects, 421).
fn code(status: u16) -> Option<u8> {
    Some(match status {
        300..=399 | 421 => return None,
        400 => 13,             // INTERNAL
        401 => 16,             // UNAUTHENTICATED
        403 => 7,              // PERMISSION_DENIED
        404 => 12,             // UNIMPLEMENTED
        408 | 504 => 4,        // DEADLINE_EXCEEDED
        413 | 431 => 8,        // RESOURCE_EXHAUSTED
        429 | 502 | 503 => 14, // UNAVAILABLE
        _ => 2,                // UNKNOWN
    })
}

/// Status and header fields of the answer.
pub(super) fn answer(answer: &Answer) -> Option<(StatusCode, HeaderMap)> {
    let code = code(answer.status)?;
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(HeaderName::from_static("grpc-status"), HeaderValue::from(u16::from(code)));
    // Percent-encoded text is a header value.
    if let Ok(message) = HeaderValue::from_str(&encoded(&answer.reason)) {
        headers.insert(HeaderName::from_static("grpc-message"), message);
    }
    Some((StatusCode::OK, headers))
}

/// `Status-Message` of the protocol: printable ASCII but `%`.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' | 0..=0x1f | 0x7f.. => {
                let _ = write!(out, "%{byte:02X}");
            }
            _ => out.push(byte as char),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_by_their_content_type() {
        for (kind, is) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;x=y", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]);
            assert_eq!(is_request(&headers), is, "{kind}");
        }
        assert!(!is_request(&HeaderMap::new()));
    }

    #[test]
    fn answers_carry_the_reason() {
        let (status, headers) = answer(&Answer::NO_ENDPOINTS).unwrap();
        assert_eq!((status, &headers["grpc-status"]), (StatusCode::OK, &HeaderValue::from_static("14")));
        assert_eq!(headers["grpc-message"], "the Service behind this rule has no ready endpoints");
        assert_eq!(encoded("100 %\n\u{e9}"), "100 %25%0A%C3%A9");
        assert!(answer(&Answer::MISDIRECTED).is_none());
    }
}
