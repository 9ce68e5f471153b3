//! The one request-head type that routing and filters see, whatever protocol the request came by.
//! Filled by the HTTP/1 engine from slices of its buffer and by `http2` from hyper's types; read by `decide` and
//! `filter`. What filters want changed is recorded in [`HeadEdits`] and applied when the head is written.

mod authority;
mod path;

use std::borrow::Cow;
use std::net::SocketAddr;

pub use authority::{Authority, AuthorityError, parse_authority};
pub use path::{PathError, normalise_path};

use super::forwarded;
use super::origin::Origin;
use super::proxy_protocol;
use super::tls::client_auth::Client;

/// How the client reached us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Plain.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// As it is written in URLs and in `X-Forwarded-Proto`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that URLs of this scheme leave out.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// A request's header fields, wherever they are kept.
pub trait Headers {
    /// The value of the first field of that name (any case), without surrounding white space.
    fn get(&self, name: &str) -> Option<&[u8]>;

    /// The values of all fields of that name, in the order in which they came.
    fn all(&self, name: &str) -> Vec<&[u8]>;
}

impl Headers for http::HeaderMap {
    fn get(&self, name: &str) -> Option<&[u8]> {
        http::HeaderMap::get(self, name).map(http::HeaderValue::as_bytes)
    }

    fn all(&self, name: &str) -> Vec<&[u8]> {
        self.get_all(name).iter().map(http::HeaderValue::as_bytes).collect()
    }
}

/// A request's head, parsed, checked and normalised.
#[derive(Clone, Copy)]
pub struct RequestHead<'a> {
    /// The method as sent; methods are case-sensitive.
    pub method: &'a str,
    /// Who the client is and how it came (never what the target says).
    pub origin: Origin<'a>,
    /// `Host`, or the authority of the target, as sent: what the backend gets as `Host`. Empty only for HTTP/1.0.
    pub authority: &'a str,
    /// What is routed by: [`Authority::host`] of it. Empty only for HTTP/1.0 without `Host`.
    pub host: &'a str,
    /// [`normalise_path`] of the target's path, or `*` (`OPTIONS *`). What is matched is what is forwarded.
    pub path: &'a str,
    /// What follows the first `?`, never touched.
    pub query: Option<&'a str>,
    /// How long the body is: what `Content-Length` says, else what has come of it so far.
    pub body_length: u64,
    /// The header fields.
    pub headers: &'a dyn Headers,
    /// The connection it came by.
    pub connection: &'a ConnectionInfo,
}

impl<'a> RequestHead<'a> {
    /// The value of the first cookie of that name (RFC 6265 section 4.2).
    pub fn cookie(&self, name: &str) -> Option<&'a [u8]> {
        let cookies = self.headers.get("cookie")?.split(|byte| *byte == b';');
        cookies
            .map(<[u8]>::trim_ascii)
            .find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
    }
}

/// What is known of a client's connection. Made once when it is accepted.
#[derive(Debug, Clone)]
pub struct ConnectionInfo {
    /// The client's address.
    pub client: SocketAddr,
    /// Ours: the VIP and port that the client chose.
    pub local: SocketAddr,
    /// The port that the client chose, there or at a proxy that told us by the PROXY protocol.
    pub port: u16,
    /// The client's TLS ended at such a proxy.
    tls_before: bool,
    /// Set if the connection is encrypted.
    pub tls: Option<TlsInfo>,
    /// The header lines that are the same for all requests of the connection (see `forwarded`).
    pub(super) forwarded_lines: Box<[u8]>,
}

/// What the handshake told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsInfo {
    /// The name that the client asked for (SNI), lower case.
    pub server_name: Option<Box<str>>,
    /// The policy under which the client was asked for a certificate (`Policy::id`).
    pub policy: Option<[u8; 32]>,
    /// What its certificate is worth; set if `policy` is.
    pub client: Option<Client>,
}

impl ConnectionInfo {
    /// Describes a connection. IPv4 addresses mapped into IPv6 are turned back.
    pub fn new(client: SocketAddr, local: SocketAddr, tls: Option<TlsInfo>) -> Self {
        let client = SocketAddr::new(client.ip().to_canonical(), client.port());
        let local = SocketAddr::new(local.ip().to_canonical(), local.port());
        Self { client, local, port: local.port(), tls_before: false, tls, forwarded_lines: Box::default() }
            .rendered()
    }

    /// The same connection as a trusted proxy tells of it.
    #[must_use]
    pub fn proxied(self, header: &proxy_protocol::Header) -> Self {
        let Some((client, local)) = header.addresses else { return self };
        let client = SocketAddr::new(client.ip().to_canonical(), client.port());
        // As ingress-nginx does: balancers whose TLS ends there say so by the port, at best.
        let tls_before = header.is_tls || local.port() == Scheme::Https.default_port();
        Self { client, port: local.port(), tls_before, ..self }.rendered()
    }

    /// The same connection once its handshake is done.
    #[must_use]
    pub fn encrypted(self, tls: TlsInfo) -> Self {
        Self { tls: Some(tls), ..self }.rendered()
    }

    fn rendered(self) -> Self {
        let forwarded_lines = forwarded::connection_lines(self.client.ip(), self.port, self.scheme());
        Self { forwarded_lines, ..self }
    }

    /// Encrypted on the client's side or not.
    pub fn scheme(&self) -> Scheme {
        if self.tls.is_some() || self.tls_before { Scheme::Https } else { Scheme::Http }
    }
}

/// What the filters of a route change in the request's head. Empty in the usual case, and then costs nothing.
#[derive(Debug, Default)]
pub struct HeadEdits(Option<Box<Edits>>);

/// The changes themselves, applied in this order: remove, set, host, path.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Edits {
    /// Names of header fields to leave out, lower case.
    pub remove: Vec<Cow<'static, str>>,
    /// Fields to set (those sent with the same name are left out), names lower case.
    pub set: Vec<(Cow<'static, str>, Vec<u8>)>,
    /// `Host` towards the backend.
    pub host: Option<String>,
    /// The path towards the backend, already normalised and encoded; the query stays.
    pub path: Option<String>,
}

impl HeadEdits {
    /// The changes, if there are any.
    pub fn get(&self) -> Option<&Edits> {
        self.0.as_deref()
    }

    /// The changes, to add one.
    pub fn edit(&mut self) -> &mut Edits {
        self.0.get_or_insert_default()
    }
}

#[cfg(test)]
impl ConnectionInfo {
    /// One without TLS, for tests.
    pub(super) fn example() -> Self {
        Self::new(([192, 0, 2, 7], 5000).into(), ([192, 0, 2, 1], 80).into(), None)
    }
}

#[cfg(test)]
impl<'a> RequestHead<'a> {
    /// `GET / HTTP/1.1` for `a.test`, for tests.
    pub(super) fn example(connection: &'a ConnectionInfo, headers: &'a dyn Headers) -> Self {
        Self {
            method: "GET",
            origin: Origin::of_connection(connection),
            authority: "a.test",
            host: "a.test",
            path: "/",
            query: None,
            body_length: 0,
            headers,
            connection,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_free_until_made() {
        let mut edits = HeadEdits::default();
        assert!(edits.get().is_none());
        edits.edit().host = Some("other".to_owned());
        assert_eq!(edits.get().and_then(|e| e.host.as_deref()), Some("other"));
    }

    #[test]
    fn mapped_addresses_are_turned_back() {
        let info = ConnectionInfo::new(
            "[::ffff:192.0.2.1]:1234".parse().unwrap(),
            "[::ffff:192.0.2.9]:80".parse().unwrap(),
            None,
        );
        assert_eq!(info.client.to_string(), "192.0.2.1:1234");
        assert_eq!(info.scheme(), Scheme::Http);
    }
}
