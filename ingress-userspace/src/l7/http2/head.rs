//! From hyper's HTTP/2 request to the request head that `decide` sees, and to the head that an endpoint gets: the bytes of
//! HTTP/1.1, or hyper's type for HTTP/2. Pure.

use std::borrow::Cow;
use std::io::Write as _;

use http::header::{CONTENT_LENGTH, COOKIE, HOST, HeaderName, HeaderValue, SEC_WEBSOCKET_KEY, TE};
use http::request::Parts;
use http::uri::{self, PathAndQuery, Scheme};
use http::{Method, Uri, Version};

use super::websocket::Handshake;
use crate::l7::answer::Answer;
use crate::l7::forwarded::{self, keeps_request_header};
use crate::l7::head::{ConnectionInfo, HeadEdits, RequestHead, normalise_path, parse_authority};
use crate::l7::http1::request::Framing;
use crate::l7::http1::syntax::decimal;
use crate::l7::http1::write;
use crate::l7::origin::Origin;
use crate::l7::upstream::transport::Transport;
use crate::model::Downstream;

/// Room for most heads.
const HEAD: usize = 1024;

/// A request's target, checked and in normal form.
#[derive(Debug)]
pub(super) struct Target<'p> {
    authority: &'p str,
    host: Cow<'p, str>,
    path: Cow<'p, str>,
}

/// Checks what routing depends on.
pub(super) fn target(parts: &Parts) -> Result<Target<'_>, Answer> {
    if parts.method == Method::CONNECT {
        return Err(Answer::new(501, "CONNECT is not supported"));
    }
    // Nobody sends 10^18 bytes, and what is done about its length must not depend on who reads it.
    if parts.headers.get(CONTENT_LENGTH).is_some_and(|value| decimal(value.as_bytes()).is_none()) {
        return Err(Answer::bad_request("the length of the body is not valid"));
    }
    let authority = authority(parts)?;
    let host = parse_authority(authority).map_err(|error| Answer::bad_request(error.to_string()))?.host;
    let path = match parts.uri.path() {
        "*" if parts.method == Method::OPTIONS => Cow::Borrowed("*"),
        path => normalise_path(path).map_err(|error| Answer::bad_request(error.to_string()))?,
    };
    Ok(Target { authority, host, path })
}

/// `:authority`, or `Host` in its place. Both are allowed if they say the same (RFC 9113 8.3.1).
fn authority(parts: &Parts) -> Result<&str, Answer> {
    let mut hosts = parts.headers.get_all(HOST).iter();
    let host = match hosts.next().map(HeaderValue::to_str) {
        Some(Ok(host)) => Some(host),
        Some(Err(_)) => return Err(Answer::bad_request("the host is not valid")),
        None => None,
    };
    if hosts.next().is_some() {
        return Err(Answer::bad_request("there is more than one Host"));
    }
    match (parts.uri.authority(), host) {
        (Some(authority), Some(host)) if !authority.as_str().eq_ignore_ascii_case(host) => {
            Err(Answer::bad_request("Host and :authority differ"))
        }
        (Some(authority), _) => Ok(authority.as_str()),
        (None, Some(host)) => Ok(host),
        (None, None) => Err(Answer::bad_request("there is no host")),
    }
}

impl<'p> Target<'p> {
    /// The head for `decide`.
    pub(super) fn head(
        &'p self,
        parts: &'p Parts,
        connection: &'p ConnectionInfo,
        downstream: Option<&'p Downstream>,
    ) -> RequestHead<'p> {
        let origin = Origin::of(connection, downstream, &parts.headers);
        RequestHead {
            method: parts.method.as_str(),
            authority: origin.host.unwrap_or(self.authority),
            origin,
            host: &self.host,
            path: &self.path,
            query: parts.uri.query(),
            body_length: content_length(parts).unwrap_or_default(),
            headers: &parts.headers,
            connection,
        }
    }

    /// The head for an endpoint by HTTP/2.
    pub(super) fn http2(
        &self,
        parts: &Parts,
        head: &RequestHead<'_>,
        id: &[u8],
        edits: &HeadEdits,
        transport: &Transport,
    ) -> Result<Parts, Answer> {
        let mut headers = parts.headers.clone();
        forwarded::apply_to_request(&mut headers, head, id);
        if parts.headers.get(TE).is_some_and(|te| te == "trailers") {
            // gRPC asks for it, and by HTTP/2 trailers do go on to the next hop.
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
        let mut host = head.authority;
        let mut path = self.path.as_ref();
        if let Some(edits) = edits.get() {
            for name in &edits.remove {
                headers.remove(name.as_ref());
            }
            for (name, value) in &edits.set {
                // Filters are compiled from checked annotations; what is no header field is left out.
                if let (Ok(name), Ok(value)) =
                    (HeaderName::try_from(name.as_ref()), HeaderValue::from_bytes(value))
                {
                    headers.insert(name, value);
                }
            }
            host = edits.host.as_deref().unwrap_or(host);
            path = edits.path.as_deref().unwrap_or(path);
        }
        headers.remove(HOST);
        let mut uri = uri::Parts::default();
        uri.scheme = Some(if transport.is_tls() { Scheme::HTTPS } else { Scheme::HTTP });
        uri.authority = Some(host.parse().map_err(|_| Answer::bad_request("the host is not valid"))?);
        uri.path_and_query = Some(path_and_query(parts, path)?);
        let mut upstream = http::Request::new(()).into_parts().0;
        upstream.method = parts.method.clone();
        upstream.uri = Uri::from_parts(uri).map_err(|_| Answer::bad_request("the path is not valid"))?;
        upstream.version = Version::HTTP_2;
        upstream.headers = headers;
        Ok(upstream)
    }
}

/// The head for an endpoint by HTTP/1.1: origin form, `Host`, the forwarded family, the filters' edits.
pub(super) fn http1(
    parts: &Parts,
    head: &RequestHead<'_>,
    id: &[u8],
    edits: &HeadEdits,
    (framing, handshake): (Framing, Option<&Handshake>),
) -> Vec<u8> {
    let edits = edits.get();
    let mut out = Vec::with_capacity(HEAD);
    write::request_line(&mut out, head, edits);
    let underscores = head.origin.downstream.is_some_and(|options| options.underscores);
    for name in parts.headers.keys() {
        // HTTP/2 has no `Connection` that could name more of them.
        let ours = *name == HOST || *name == CONTENT_LENGTH || *name == SEC_WEBSOCKET_KEY;
        let bytes = name.as_str().as_bytes();
        if ours || !keeps_request_header(bytes, underscores) || write::is_edited(edits, bytes) {
            continue;
        }
        let values = parts.headers.get_all(name);
        if *name == COOKIE {
            // HTTP/2 may split cookies into several fields; HTTP/1 has one (RFC 9113 8.2.3).
            let mut separator = &b"cookie: "[..];
            for crumb in values {
                out.extend_from_slice(separator);
                out.extend_from_slice(crumb.as_bytes());
                separator = b"; ";
            }
            out.extend_from_slice(b"\r\n");
            continue;
        }
        for value in values {
            write::field(&mut out, bytes, value.as_bytes());
        }
    }
    forwarded::write_forwarded(&mut out, head, id);
    match framing {
        Framing::Length(length) => {
            // Writing into a Vec cannot fail.
            let _ = write!(out, "Content-Length: {length}\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        Framing::None | Framing::UntilClose => {}
    }
    if let Some(handshake) = handshake {
        handshake.ask(&mut out);
    }
    write::set_fields(&mut out, edits);
    out.extend_from_slice(b"\r\n");
    out
}

/// How a body is framed towards an endpoint by HTTP/1.1. h2 checks that the body keeps to its `Content-Length`.
pub(super) fn framing(parts: &Parts, has_body: bool) -> Framing {
    match content_length(parts) {
        Some(length) if has_body || length == 0 => Framing::Length(length),
        _ if has_body => Framing::Chunked,
        _ => Framing::None,
    }
}

/// What `Content-Length` says; `target` has checked that it is a number.
fn content_length(parts: &Parts) -> Option<u64> {
    decimal(parts.headers.get(CONTENT_LENGTH)?.as_bytes())
}

fn path_and_query(parts: &Parts, path: &str) -> Result<PathAndQuery, Answer> {
    // Nearly always the path was in normal form already, and its bytes are shared.
    if path == parts.uri.path()
        && let Some(same) = parts.uri.path_and_query()
    {
        return Ok(same.clone());
    }
    let target = match parts.uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    PathAndQuery::try_from(target).map_err(|_| Answer::bad_request("the path is not valid"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(uri: &str, headers: &[(&'static str, &'static str)]) -> Parts {
        let mut request = http::Request::builder().uri(uri).version(Version::HTTP_2);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn upstream(
        uri: &str,
        headers: &[(&'static str, &'static str)],
        edits: &HeadEdits,
        has_body: bool,
    ) -> String {
        let connection = ConnectionInfo::example();
        let parts = parts(uri, headers);
        let target = target(&parts).unwrap();
        let head = target.head(&parts, &connection, None);
        let framing = framing(&parts, has_body);
        let sent = http1(&parts, &head, b"id", edits, (framing, None));
        String::from_utf8(sent).unwrap()
    }

    /// The value of each line of that name.
    fn values<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
        let lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
    }

    #[test]
    fn the_upstream_head_is_http1() {
        let sent = upstream(
            "http://Foo.bar.com:8080/a//b?x=1//2",
            &[
                ("cookie", "a=1"),
                ("accept", "x"),
                ("accept", "y"),
                ("cookie", "b=2"),
                ("te", "trailers"),
                ("x-forwarded-for", "6.6.6.6"),
                ("x_forwarded_for", "6.6.6.6"),
            ],
            &HeadEdits::default(),
            false,
        );
        assert!(sent.starts_with("GET /a/b?x=1//2 HTTP/1.1\r\nHost: Foo.bar.com:8080\r\n"), "{sent}");
        assert!(sent.ends_with("\r\n\r\n") && !sent.contains("6.6.6.6"), "{sent}");
        for (name, expected) in [
            ("host", &["Foo.bar.com:8080"][..]),
            ("cookie", &["a=1; b=2"]),
            ("accept", &["x", "y"]),
            ("x-forwarded-for", &["192.0.2.7"]),
            ("x-request-id", &["id"]),
            ("te", &[]),
            ("content-length", &[]),
            ("transfer-encoding", &[]),
        ] {
            assert_eq!(values(&sent, name), expected, "{name}");
        }
    }

    #[test]
    fn bodies_are_framed_once() {
        for (length, has_body, expected) in [
            (None, false, [&[][..], &[]]),
            (None, true, [&[], &["chunked"]]),
            (Some("5"), true, [&["5"], &[]]),
            (Some("0"), false, [&["0"], &[]]),
            // h2 does not let this through.
            (Some("5"), false, [&[], &[]]),
        ] {
            let headers: Vec<_> = length.into_iter().map(|length| ("content-length", length)).collect();
            let sent = upstream("http://a/", &headers, &HeadEdits::default(), has_body);
            let found = ["content-length", "transfer-encoding"].map(|name| values(&sent, name));
            assert_eq!(found, expected.map(<[_]>::to_vec), "{length:?} {has_body}");
        }
    }

    #[test]
    fn edits_are_applied() {
        let mut edits = HeadEdits::default();
        edits.edit().remove.push("x-secret".into());
        edits.edit().set.push(("x-new".into(), b"1".to_vec()));
        edits.edit().host = Some("other.test".to_owned());
        edits.edit().path = Some("/new".to_owned());
        let sent = upstream("http://a/old?q", &[("x-secret", "1"), ("x-new", "0")], &edits, false);
        assert!(sent.starts_with("GET /new?q HTTP/1.1\r\nHost: other.test\r\n"), "{sent}");
        assert_eq!((values(&sent, "x-secret"), values(&sent, "x-new")), (vec![], vec!["1"]));
    }

    #[test]
    fn what_is_ambiguous_is_refused() {
        for (uri, headers) in [
            ("http://a/", &[("host", "b")][..]),
            ("/", &[][..]),
            ("/", &[("host", "a"), ("host", "a")][..]),
            ("/", &[("host", "a b")][..]),
            ("http://a/%00", &[][..]),
            ("http://a/../b", &[][..]),
            ("http://a/", &[("content-length", "5, 5")][..]),
            ("http://a/", &[("content-length", "1000000000000000000")][..]),
        ] {
            assert_eq!(target(&parts(uri, headers)).unwrap_err().status, 400, "{uri} {headers:?}");
        }
        assert_eq!(target(&parts("http://A/", &[("host", "a")])).unwrap().host, "a");
    }
}
