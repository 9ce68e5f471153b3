//! How a route's endpoints are chosen and spoken to: `backend-protocol`, `proxy-ssl-*`, `load-balance`,
//! `upstream-hash-by`. Made by `translate::annotation::upstream`, compiled by `l7::upstream::transport`.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

/// What differs from plain HTTP/1.1 to the least loaded endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Upstream {
    /// HTTP/2 instead of HTTP/1.1 (`GRPC`, `GRPCS`): by prior knowledge, or by ALPN over TLS.
    pub http2: bool,
    /// TLS (`HTTPS`, `GRPCS`).
    pub tls: Option<Arc<BackendTls>>,
    /// Which endpoint gets a request.
    pub balance: Balance,
    /// `xdp-ingress.io/max-requests`: so many at once from one node; more wait, or get 503.
    pub max_requests: Option<NonZeroU32>,
    /// `xdp-ingress.io/max-pending-requests`: so many wait for one of those to end, as long as for a connection; more get 503.
    pub max_pending: u32,
    /// `xdp-ingress.io/slow-start`: how long a new endpoint gets fewer requests than the others.
    pub slow_start: Option<Duration>,
}

/// Which endpoint gets a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Balance {
    /// The one of two random ones that has fewer requests in flight.
    #[default]
    LeastOfTwo,
    /// `round_robin`: one after the other.
    RoundRobin,
    /// `ewma`: the one of two random ones that answered faster of late.
    Ewma,
    /// `upstream-hash-by`: the same one for the same key.
    Hash(Arc<[HashPart]>),
    /// With `upstream-hash-by-subset`: one of the same few for the same key.
    HashSubset(Arc<[HashPart]>, NonZeroU32),
}

/// A piece of the key of `upstream-hash-by`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashPart {
    /// As it is.
    Text(String),
    /// `$request_uri`: path and query as asked for (the path in normal form).
    RequestUri,
    /// `$uri`: the path.
    Path,
    /// `$args`.
    Query,
    /// `$remote_addr`.
    RemoteAddr,
    /// `$host`.
    Host,
    /// `$http_NAME`: the field of that name, lower case and with dashes; nothing if it is absent.
    Header(String),
    /// `$arg_NAME`.
    Argument(String),
    /// `$cookie_NAME`.
    Cookie(String),
}

/// TLS to endpoints: `proxy-ssl-*`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct BackendTls {
    /// The certificate that we show, DER, the leaf first, and its key.
    pub client: Option<(Vec<Vec<u8>>, Vec<u8>)>,
    /// `proxy-ssl-verify`.
    pub verify: Option<VerifyBackend>,
    /// `proxy-ssl-name`: whom the certificate has to name, and what SNI says. `None`: `SERVICE.NAMESPACE.svc`.
    pub name: Option<String>,
    /// `proxy-ssl-server-name`: SNI is sent.
    pub server_name: bool,
    /// `proxy-ssl-protocols`: the versions that are spoken.
    pub versions: TlsVersions,
}

/// What a backend's certificate has to be.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct VerifyBackend {
    /// Who signs it, DER. Never empty.
    pub ca: Vec<Vec<u8>>,
    /// `proxy-ssl-verify-depth`: intermediate certificates at most.
    pub depth: u8,
}

/// Versions of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TlsVersions {
    /// 1.2 and 1.3.
    Both,
    /// 1.2 only.
    Tls12,
    /// 1.3 only.
    Tls13,
}

impl Default for BackendTls {
    fn default() -> Self {
        Self { client: None, verify: None, name: None, server_name: false, versions: TlsVersions::Both }
    }
}

// Written by hand: a private key must never reach a log.
impl std::fmt::Debug for BackendTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackendTls")
            .field("client", &self.client.is_some())
            .field("verify", &self.verify.is_some())
            .field("name", &self.name)
            .field("server_name", &self.server_name)
            .field("versions", &self.versions)
            .finish()
    }
}
