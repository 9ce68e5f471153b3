//! Answers that we give ourselves, made by `decide`, the filters and the engines, rendered by both engines.
//! A plain-text body names the reason for the person who reads it; nothing names our version.

use std::borrow::Cow;

use super::filter::hsts;
use crate::model::Hsts;

/// One answer of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// What is wrong, as a sentence without a full stop.
    pub reason: Cow<'static, str>,
    /// `Location`, for redirects.
    pub location: Option<String>,
    /// `Strict-Transport-Security`, where the route wants it.
    pub hsts: Option<Hsts>,
}

impl Answer {
    /// An answer with a reason.
    pub const fn new(status: u16, reason: &'static str) -> Self {
        Self { status, reason: Cow::Borrowed(reason), location: None, hsts: None }
    }

    /// A redirect. `status` is one of 301, 302, 303, 307, 308.
    pub fn redirect(status: u16, location: String) -> Self {
        Self { location: Some(location), ..Self::new(status, "the resource is elsewhere") }
    }

    /// 400 with a reason: the message is not valid or ambiguous. The connection closes.
    pub fn bad_request(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { status: 400, reason: reason.into(), location: None, hsts: None }
    }

    /// 403: the client's address is on no list that lets it in, or on one that keeps it out.
    pub const FORBIDDEN: Self = Self::new(403, "this client may not ask for this");
    /// 404: no rule matches and there is no default backend.
    pub const NO_RULE: Self = Self::new(404, "no Ingress rule matches this host and path");
    /// 408: the client was too slow with the head or the body of its request.
    pub const REQUEST_TIMEOUT: Self = Self::new(408, "the request did not arrive in time");
    /// 413: the body is longer than is allowed.
    pub const BODY_TOO_LARGE: Self = Self::new(413, "the request body is too large");
    /// 414: the target is longer than is allowed.
    pub const URI_TOO_LONG: Self = Self::new(414, "the request target is too long");
    /// 421: the connection was made for another host, whose certificate or policy differs (RFC 9110 15.5.20).
    pub const MISDIRECTED: Self =
        Self::new(421, "this host is not served over this connection; open another");
    /// 431: too many header fields, or too long ones.
    pub const HEAD_TOO_LARGE: Self = Self::new(431, "the request header is too large");
    /// 502: no endpoint took the connection.
    pub const CONNECT_FAILED: Self = Self::new(502, "no endpoint of the backend accepts connections");
    /// 502: the backend closed the connection before it answered.
    pub const BACKEND_CLOSED: Self = Self::new(502, "the backend closed the connection before it answered");
    /// 502: what the backend sent is not HTTP, or ambiguous.
    pub const BACKEND_INVALID: Self = Self::new(502, "the backend sent an invalid response");
    /// 503: the Service or its port does not exist, or the backend is of a kind that we don't do.
    pub const NO_SERVICE: Self = Self::new(503, "the Service behind this rule does not exist");
    /// 503: the Service has no ready endpoint.
    pub const NO_ENDPOINTS: Self = Self::new(503, "the Service behind this rule has no ready endpoints");
    /// 503: as many requests as the rule allows are under way.
    pub const BACKEND_FULL: Self =
        Self::new(503, "the backend has as many requests at once as this rule allows");
    /// 504: the backend took too long to accept the connection or to answer.
    pub const BACKEND_TIMEOUT: Self = Self::new(504, "the backend did not answer in time");

    /// 501: WebSocket needs HTTP/1.1 to the backend.
    pub const NO_WEBSOCKET: Self =
        Self::new(501, "the backend of this rule is asked by HTTP/2, which has no upgrades");
    /// 505: the backend speaks gRPC, whose messages do not fit into HTTP/1.1.
    pub const NEEDS_HTTP2: Self = Self::new(505, "the backend of this rule is asked by HTTP/2 only (gRPC)");

    /// The reason phrase of the status line.
    pub fn phrase(&self) -> &'static str {
        http::StatusCode::from_u16(self.status)
            .ok()
            .and_then(|status| status.canonical_reason())
            .unwrap_or("")
    }

    /// The body, `text/plain; charset=utf-8`.
    pub fn body(&self) -> String {
        format!("{} {}: {}\n", self.status, self.phrase(), self.reason)
    }

    /// Appends the whole HTTP/1.1 answer. `head_only` leaves the body out (HEAD); `close` says
    /// `Connection: close`.
    pub fn write_http1(&self, out: &mut Vec<u8>, head_only: bool, close: bool) {
        use std::io::Write as _;
        let body = self.body();
        // Writing into a Vec cannot fail.
        let _ = write!(
            out,
            "HTTP/1.1 {} {}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n",
            self.status,
            self.phrase(),
            body.len()
        );
        if let Some(location) = &self.location {
            let _ = write!(out, "Location: {location}\r\n");
        }
        if let Some(hsts) = self.hsts {
            hsts::write(out, hsts);
        }
        if close {
            out.extend_from_slice(b"Connection: close\r\n");
        }
        out.extend_from_slice(b"\r\n");
        if !head_only {
            out.extend_from_slice(body.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(answer: &Answer, head_only: bool, close: bool) -> String {
        let mut out = Vec::new();
        answer.write_http1(&mut out, head_only, close);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn renders_reason_and_framing() {
        assert_eq!(
            written(&Answer::NO_RULE, false, false),
            "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 58\r\n\r\n\
             404 Not Found: no Ingress rule matches this host and path\n"
        );
    }

    #[test]
    fn head_has_the_length_but_no_body() {
        let text = written(&Answer::redirect(308, "https://a/".to_owned()), true, true);
        assert!(text.contains("\r\nLocation: https://a/\r\n") && text.contains("\r\nConnection: close\r\n"));
        assert!(text.ends_with("\r\n\r\n") && !text.contains("Content-Length: 0"));
    }
}
