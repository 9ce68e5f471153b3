//! `Host` and `:authority`, parsed once and strictly: RFC 9110 7.2 and RFC 3986 3.2.2 without the parts that no
//! Ingress host can have (user information, percent-encoding, sub-delimiters). Shared by both protocol engines.

use std::borrow::Cow;
use std::net::Ipv6Addr;

/// A parsed authority.
#[derive(Debug, PartialEq, Eq)]
pub struct Authority<'a> {
    /// Lower case, without port and without the root's trailing dot. An IPv6 literal keeps its brackets.
    pub host: Cow<'a, str>,
    /// The port, if one was given.
    pub port: Option<u16>,
}

/// Why an authority is refused (400).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// Nothing there.
    #[error("the host is empty")]
    Empty,
    /// Longer than DNS allows.
    #[error("the host is too long")]
    TooLong,
    /// Not a host name or IP address.
    #[error("the host is not valid")]
    InvalidHost,
    /// Not a number from 0 to 65535.
    #[error("the port is not valid")]
    InvalidPort,
}

/// RFC 1035: 253 visible characters, and one for the root's dot.
const MAX_HOST: usize = 254;

/// Parses `host`, `host:port`, `[v6]`, `[v6]:port`. Allocates only if the host has upper-case letters.
pub fn parse_authority(authority: &str) -> Result<Authority<'_>, AuthorityError> {
    let (host, port) = split_port(authority)?;
    if host.is_empty() {
        return Err(AuthorityError::Empty);
    }
    if host.len() > MAX_HOST {
        return Err(AuthorityError::TooLong);
    }
    if let Some(literal) = host.strip_prefix('[') {
        let literal = literal.strip_suffix(']').ok_or(AuthorityError::InvalidHost)?;
        literal.parse::<Ipv6Addr>().map_err(|_| AuthorityError::InvalidHost)?;
        return Ok(Authority { host: lower_case(host), port });
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let mut label_start = true;
    for byte in name.bytes() {
        match byte {
            b'.' if label_start => return Err(AuthorityError::InvalidHost),
            b'.' => label_start = true,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => label_start = false,
            _ => return Err(AuthorityError::InvalidHost),
        }
    }
    if label_start {
        return Err(AuthorityError::InvalidHost);
    }
    Ok(Authority { host: lower_case(name), port })
}

fn split_port(authority: &str) -> Result<(&str, Option<u16>), AuthorityError> {
    let host_end = if authority.starts_with('[') {
        authority.find(']').ok_or(AuthorityError::InvalidHost)? + 1
    } else {
        authority.find(':').unwrap_or(authority.len())
    };
    let (host, rest) = authority.split_at(host_end);
    if rest.is_empty() {
        return Ok((host, None));
    }
    let digits = rest.strip_prefix(':').ok_or(AuthorityError::InvalidHost)?;
    // RFC 3986 3.2.3: the port may be empty after its colon.
    if digits.is_empty() {
        return Ok((host, None));
    }
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(AuthorityError::InvalidPort);
    }
    digits.parse().map(|port| (host, Some(port))).map_err(|_| AuthorityError::InvalidPort)
}

fn lower_case(host: &str) -> Cow<'_, str> {
    if host.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_hosts_with_and_without_ports() {
        for (text, host, port) in [
            ("foo.bar.com", "foo.bar.com", None),
            ("Foo.BAR.com:8080", "foo.bar.com", Some(8080)),
            ("foo.bar.com.", "foo.bar.com", None),
            ("foo.bar.com.:80", "foo.bar.com", Some(80)),
            ("localhost:", "localhost", None),
            ("192.0.2.1:80", "192.0.2.1", Some(80)),
            ("[2001:DB8::1]:443", "[2001:db8::1]", Some(443)),
            ("[::1]", "[::1]", None),
            ("my_app", "my_app", None),
        ] {
            let parsed = parse_authority(text).unwrap();
            assert_eq!((parsed.host.as_ref(), parsed.port), (host, port), "{text}");
        }
    }

    #[test]
    fn the_usual_host_is_borrowed() {
        assert!(matches!(parse_authority("foo.bar.com:80").unwrap().host, Cow::Borrowed(_)));
    }

    #[test]
    fn refuses_everything_else() {
        use AuthorityError::{Empty, InvalidHost, InvalidPort, TooLong};
        let long = "a".repeat(255);
        for (text, error) in [
            ("", Empty),
            (":80", Empty),
            (".", InvalidHost),
            ("..", InvalidHost),
            (".a", InvalidHost),
            ("a..b", InvalidHost),
            ("a b", InvalidHost),
            ("a/b", InvalidHost),
            ("a@b", InvalidHost),
            ("a%41", InvalidHost),
            ("a\u{0}", InvalidHost),
            ("b\u{fc}cher.de", InvalidHost),
            ("[::1", InvalidHost),
            ("[::1]x", InvalidHost),
            ("[zz]", InvalidHost),
            ("a:b", InvalidPort),
            ("a:+80", InvalidPort),
            ("a:65536", InvalidPort),
            ("a:80:80", InvalidPort),
            ("a,b", InvalidHost),
            (long.as_str(), TooLong),
        ] {
            assert_eq!(parse_authority(text), Err(error), "{text:?}");
        }
    }
}
