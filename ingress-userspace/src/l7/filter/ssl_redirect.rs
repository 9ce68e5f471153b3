//! Plain HTTP is redirected to HTTPS: `nginx.ingress.kubernetes.io/ssl-redirect` and `force-ssl-redirect`.
//! Called by the filter chain.

use crate::l7::answer::Answer;
use crate::l7::head::{RequestHead, Scheme, parse_authority};
use crate::model::SslRedirect;

/// Where ACME's HTTP-01 challenges are answered (RFC 8555 8.3): a certificate must be obtainable before there is one.
const ACME: &str = "/.well-known/acme-challenge/";

pub(super) fn request(redirect: &SslRedirect, head: &RequestHead<'_>) -> Result<(), Answer> {
    if head.origin.scheme == Scheme::Https || head.host.is_empty() || head.path.starts_with(ACME) {
        return Ok(());
    }
    let port = if redirect.with_port { ":443" } else { "" };
    // What the client knows us by, if a trusted proxy says so.
    let told = head.origin.host.and_then(|host| parse_authority(host).ok());
    let host = told.as_ref().map_or(head.host, |told| told.host.as_ref());
    let location = format!("https://{host}{port}{}", uri(head, redirect.keep_slash));
    Err(Answer::redirect(redirect.code, location))
}

/// What follows the host in a redirect to the same resource. ingress-nginx takes a slash off the end, even one of a query.
pub(super) fn uri(head: &RequestHead<'_>, keep_slash: bool) -> String {
    let mut uri = if head.path == "*" { "/" } else { head.path }.to_owned();
    if let Some(query) = head.query {
        uri.push('?');
        uri.push_str(query);
    }
    if !keep_slash && uri.ends_with('/') {
        uri.pop();
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::l7::head::{ConnectionInfo, TlsInfo};

    fn location(tls: bool, host: &str, path: &str, query: Option<&str>) -> Option<(u16, String)> {
        let (client, local) = ("192.0.2.7:5000".parse().unwrap(), "192.0.2.1:80".parse().unwrap());
        let connection = ConnectionInfo::new(client, local, tls.then(TlsInfo::default));
        let headers = http::HeaderMap::new();
        let example = RequestHead::example(&connection, &headers);
        let head = RequestHead { authority: host, host, path, query, ..example };
        let answer = request(
            &SslRedirect { code: 308, keep_slash: path == "/keep/", with_port: path == "/port" },
            &head,
        )
        .err()?;
        Some((answer.status, answer.location?))
    }

    #[test]
    fn plain_requests_are_redirected_with_path_and_query() {
        let expected = (308, "https://foo.bar.com/a%20b?x=%2F&y".to_owned());
        assert_eq!(location(false, "foo.bar.com", "/a%20b", Some("x=%2F&y")), Some(expected));
        assert_eq!(location(false, "foo.bar.com", "*", None), Some((308, "https://foo.bar.com".to_owned())));
        for (path, query, expected) in [
            ("/", None, ""),
            ("/a/", None, "/a"),
            ("/a/", Some("b/"), "/a/?b"),
            ("/keep/", None, "/keep/"),
            ("/port", None, ":443/port"),
        ] {
            let (_, location) = location(false, "foo.bar.com", path, query).unwrap();
            assert_eq!(location.strip_prefix("https://foo.bar.com"), Some(expected), "{path}");
        }
    }

    #[test]
    fn encrypted_ones_and_acme_challenges_pass() {
        assert_eq!(location(true, "foo.bar.com", "/", None), None);
        assert_eq!(location(false, "foo.bar.com", "/.well-known/acme-challenge/token", None), None);
        assert_eq!(location(false, "", "/", None), None);
    }
}
