//! From hyper's HTTP/2 request to the request head that `decide` sees, and to the HTTP/1.1 head that an endpoint gets.
//! Pure.

use std::borrow::Cow;

use http::header::{CONTENT_LENGTH, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, TE};
use http::request::Parts;
use http::uri::{self, PathAndQuery, Scheme};
use http::{Method, Uri, Version};

use crate::l7::answer::Answer;
use crate::l7::forwarded;
use crate::l7::head::{ConnectionInfo, HeadEdits, RequestHead, normalise_path, parse_authority};
use crate::l7::origin::Origin;
use crate::l7::upstream::transport::Transport;
use crate::model::Downstream;

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
            body_length: content_length(&parts.headers),
            headers: &parts.headers,
            connection,
        }
    }

    /// The head for an endpoint: origin form, `Host`, the forwarded family, the filters' edits.
    pub(super) fn upstream(
        &self,
        parts: &Parts,
        head: &RequestHead<'_>,
        id: &[u8],
        edits: &HeadEdits,
        transport: Option<&Transport>,
    ) -> Result<Parts, Answer> {
        let mut headers = parts.headers.clone();
        forwarded::apply_to_request(&mut headers, head, id);
        let http2 = transport.filter(|transport| transport.http2);
        if http2.is_none() {
            join_cookies(&mut headers);
        } else if parts.headers.get(TE).is_some_and(|te| te == "trailers") {
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
        let mut upstream = http::Request::new(()).into_parts().0;
        upstream.method = parts.method.clone();
        let target = path_and_query(parts, path)?;
        if let Some(transport) = http2 {
            let mut uri = uri::Parts::default();
            uri.scheme = Some(if transport.is_tls() { Scheme::HTTPS } else { Scheme::HTTP });
            uri.authority = Some(host.parse().map_err(|_| Answer::bad_request("the host is not valid"))?);
            uri.path_and_query = Some(target);
            headers.remove(HOST);
            upstream.uri = Uri::from_parts(uri).map_err(|_| Answer::bad_request("the path is not valid"))?;
            upstream.version = Version::HTTP_2;
        } else {
            let host =
                HeaderValue::from_str(host).map_err(|_| Answer::bad_request("the host is not valid"))?;
            headers.insert(HOST, host);
            upstream.uri = Uri::from(target);
            upstream.version = Version::HTTP_11;
        }
        upstream.headers = headers;
        Ok(upstream)
    }
}

/// What `Content-Length` says; 0 if it says nothing (hyper has checked that it is a number).
fn content_length(headers: &HeaderMap) -> u64 {
    let value = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    value.and_then(|value| value.parse().ok()).unwrap_or_default()
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

/// HTTP/2 may split cookies into several fields; HTTP/1 has one (RFC 9113 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::l7::forwarded::RequestIds;

    fn parts(uri: &str, headers: &[(&'static str, &'static str)]) -> Parts {
        let mut request = http::Request::builder().uri(uri).version(Version::HTTP_2);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn upstream(uri: &str, headers: &[(&'static str, &'static str)], edits: &HeadEdits) -> Parts {
        let connection =
            ConnectionInfo::new("192.0.2.7:5000".parse().unwrap(), "192.0.2.1:80".parse().unwrap(), None);
        let parts = parts(uri, headers);
        let target = target(&parts).unwrap();
        let head = target.head(&parts, &connection, None);
        target.upstream(&parts, &head, &RequestIds::new().make().0, edits, None).unwrap()
    }

    #[test]
    fn the_upstream_head_is_http1() {
        let sent = upstream(
            "http://Foo.bar.com:8080/a//b?x=1//2",
            &[("cookie", "a=1"), ("cookie", "b=2"), ("te", "trailers"), ("x-forwarded-for", "6.6.6.6")],
            &HeadEdits::default(),
        );
        assert_eq!((sent.uri.to_string().as_str(), sent.version), ("/a/b?x=1//2", Version::HTTP_11));
        assert_eq!(sent.headers["host"], "Foo.bar.com:8080");
        assert_eq!(sent.headers["cookie"], "a=1; b=2");
        assert_eq!(sent.headers.get_all("cookie").iter().count(), 1);
        assert_eq!(sent.headers["x-forwarded-for"], "192.0.2.7");
        assert!(!sent.headers.contains_key("te"));
    }

    #[test]
    fn edits_are_applied() {
        let mut edits = HeadEdits::default();
        edits.edit().remove.push("x-secret".into());
        edits.edit().set.push(("x-new".into(), b"1".to_vec()));
        edits.edit().host = Some("other.test".to_owned());
        edits.edit().path = Some("/new".to_owned());
        let sent = upstream("http://a/old?q", &[("x-secret", "1")], &edits);
        assert_eq!(
            (sent.uri.to_string().as_str(), &sent.headers["host"]),
            ("/new?q", &HeaderValue::from_static("other.test"))
        );
        assert!(!sent.headers.contains_key("x-secret") && sent.headers["x-new"] == "1");
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
        ] {
            assert_eq!(target(&parts(uri, headers)).unwrap_err().status, 400, "{uri} {headers:?}");
        }
        assert_eq!(target(&parts("http://A/", &[("host", "a")])).unwrap().host, "a");
    }
}
