//! The routing table, as the Ingress specification orders it. `l7::router` compiles it for look-up.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::Arc;

use ipnet::IpNet;

use super::{Canary, ClientAuth, ClusterId, Forwarding, ObjectRef, Rewrite, Shared, Upstream};

/// `spec.rules[].host`, lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    /// `foo.bar.com`.
    Exact(String),
    /// `*.foo.com`, kept as `foo.com`: covers exactly one more label.
    Wildcard(String),
    /// No host given: every host that no other rule names.
    Any,
}

/// Hosts to paths to routes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RouteTable {
    /// Rules by host.
    pub hosts: BTreeMap<HostPattern, Shared<HostRoutes>>,
    /// Serves what nothing else does: `--default-backend`, or an Ingress with nothing but a `defaultBackend`.
    pub default: Option<Arc<Route>>,
}

/// What one host serves.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HostRoutes {
    /// Its rules in the order in which the first match wins: longest path first, at equal length `Exact` before
    /// `Prefix`; no two of them are equal (the oldest Ingress kept the place).
    pub paths: Vec<PathRule>,
    /// `spec.defaultBackend` of the oldest Ingress that names this host and has one.
    pub default: Option<Arc<Route>>,
    /// `auth-tls-*` of the oldest Ingress of this host that has them: all its requests need what it says.
    pub client_auth: Option<Arc<ClientAuth>>,
    /// `app-root` of the oldest Ingress of this host that has it: where `/` is redirected to.
    pub app_root: Option<Arc<str>>,
    /// `ssl-passthrough`: where its TLS connections go as they are. What else is here is for plain HTTP.
    pub passthrough: Option<Arc<Route>>,
    /// It has no rules: it is the other name (`from-to-www-redirect`) of this host, to which all requests are redirected.
    pub www_redirect: Option<Arc<str>>,
}

/// One path of one host.
#[derive(Debug, Clone, PartialEq)]
pub struct PathRule {
    /// What it matches.
    pub path: PathMatch,
    /// Where it leads.
    pub route: Arc<Route>,
}

/// `paths[].path` with its `pathType`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PathMatch {
    /// Byte for byte.
    Exact(String),
    /// By a case-insensitive regex over the whole path, `^` included; then all rules of the host are of this kind.
    Regex(String),
    /// By whole `/`-separated elements; kept without its trailing slash (`/` is kept as the empty string).
    Prefix(String),
}

/// The most that one compiled regex may take, in bytes.
const REGEX_SIZE_LIMIT: usize = 1 << 20;

/// The regex of a [`PathMatch::Regex`]; requests' paths are compared as the bytes of their normal form.
pub fn path_regex(pattern: &str) -> Result<regex::bytes::Regex, regex::Error> {
    regex_builder(pattern).case_insensitive(true).build()
}

/// For a regex over bytes that somebody else wrote.
pub(super) fn regex_builder(pattern: &str) -> regex::bytes::RegexBuilder {
    let mut builder = regex::bytes::RegexBuilder::new(pattern);
    builder.unicode(false).size_limit(REGEX_SIZE_LIMIT);
    builder
}

/// What happens to the requests of one rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// The Ingress that it comes from: metrics, logs.
    pub ingress: ObjectRef,
    /// Where they go.
    pub target: Target,
    /// What its annotations ask for, compiled.
    pub filters: Filters,
}

/// Where the requests of a route go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// To this cluster (which may have no endpoints: 503).
    Cluster(ClusterId),
    /// Nowhere: the Service or its port does not exist, the backend is of a kind that we don't do, or the Ingress has a
    /// lock that we don't honour. 503.
    Missing,
}

/// The annotations of a route, compiled by `translate::annotation`, one field per group; each has its twin of the same
/// name in `l7::filter`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filters {
    /// `proxy-body-size`: the longest body of a request, in bytes. `None`: any.
    pub body_limit: Option<NonZeroU64>,
    /// `permanent-redirect`, `temporal-redirect`: no backend is asked.
    pub redirect: Option<Redirect>,
    /// What answers over TLS tell browsers (`hsts` and its kin); `None`: nothing, or there is no certificate.
    pub hsts: Option<Hsts>,
    /// Plain HTTP is redirected to HTTPS.
    pub ssl_redirect: Option<SslRedirect>,
    /// `denylist-source-range`, `allowlist-source-range`: who may ask, by address.
    pub source_range: Option<Arc<SourceRange>>,
    /// `rewrite-target` with `x-forwarded-prefix`: only where the path is a regex.
    pub rewrite: Option<Arc<Rewrite>>,
    /// `upstream-vhost`: the `Host` that the backend gets.
    pub upstream_vhost: Option<Arc<str>>,
    /// `proxy-*-timeout`, `proxy-next-upstream*`: read by the engines while a request is with its backend.
    pub forwarding: Forwarding,
    /// `backend-protocol`, `proxy-ssl-*`, `load-balance`, `upstream-hash-by`. `None`: as everywhere.
    pub upstream: Option<Arc<Upstream>>,
    /// `canary*` of another Ingress with the same host and path: what goes elsewhere. All else is as on this route.
    pub canary: Option<Arc<Canary>>,
}

/// `Strict-Transport-Security` (RFC 6797).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hsts {
    /// Seconds for which browsers remember to use TLS only; 0 makes them forget.
    pub max_age: u32,
    /// For the names below the host, too.
    pub include_subdomains: bool,
    /// The owner wants the host in the browsers' own lists.
    pub preload: bool,
}

impl Default for Hsts {
    /// ingress-nginx's.
    fn default() -> Self {
        Self { max_age: 31_536_000, include_subdomains: true, preload: false }
    }
}

/// An answer that leads elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// 300 to 308.
    pub code: u16,
    /// The `Location`.
    pub location: Arc<str>,
}

/// Addresses of clients. The first list is asked first, as nginx does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceRange {
    /// 403 for these.
    pub deny: Vec<IpNet>,
    /// `Some`: 403 for all others.
    pub allow: Option<Vec<IpNet>>,
}

/// `ssl-redirect` and `force-ssl-redirect`, with `preserve-trailing-slash` and `use-port-in-redirects`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SslRedirect {
    /// The status: 308 by ingress-nginx's default (`http-redirect-code`).
    pub code: u16,
    /// Keep a slash at the target's end, which ingress-nginx takes off.
    pub keep_slash: bool,
    /// Name the port.
    pub with_port: bool,
}
