//! The router as a whole, on 127.0.0.1, with small backends: what clients get and what backends see.

mod backend;
mod changes;
mod client;
mod client_auth;
mod http;
mod http2;
mod http2_frames;
mod http2_upstreams;
mod lifecycle;
mod limits;
mod proxies;
mod tls;
mod tracing;
mod upstreams;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::{Config, L7, Proto};
use crate::model::{
    Cluster, ClusterId, Endpoint, Filters, HostPattern, Kind, ObjectRef, PathMatch, PathRule, Route,
    Snapshot, SslRedirect, Target,
};

/// Builds snapshots rule by rule.
#[derive(Default, Clone)]
struct Rules(Snapshot);

impl Rules {
    /// `host` may be `*.foo.com` or empty; `path` is a prefix. `endpoints`: of the Service `name`.
    fn rule(mut self, host: &str, path: &str, name: &str, endpoints: &[SocketAddr]) -> Self {
        let id = ClusterId { namespace: "default".into(), service: name.into(), port: 80, by_service: false };
        let mut endpoints: Vec<Endpoint> =
            endpoints.iter().map(|&address| Endpoint { address, node: None }).collect();
        endpoints.sort_by_key(|endpoint| endpoint.address);
        self.0.clusters.insert(id.clone(), Arc::new(Cluster { id: id.clone(), endpoints }));
        self.route(host, path, name, Target::Cluster(id), Filters::default())
    }

    fn missing(self, host: &str, path: &str) -> Self {
        self.route(host, path, "missing", Target::Missing, Filters::default())
    }

    fn redirect(self, host: &str) -> Self {
        let filters = Filters {
            ssl_redirect: Some(SslRedirect { code: 308, keep_slash: false, with_port: false }),
            ..Filters::default()
        };
        self.route(host, "/", "redirect", Target::Missing, filters)
    }

    fn route(mut self, host: &str, path: &str, name: &str, target: Target, filters: Filters) -> Self {
        let host = match host.strip_prefix("*.") {
            Some(parent) => HostPattern::Wildcard(parent.into()),
            None if host.is_empty() => HostPattern::Any,
            None => HostPattern::Exact(host.into()),
        };
        let ingress = ObjectRef::new(Kind::Ingress, "default", name);
        let rule = PathRule {
            path: PathMatch::Prefix(path.trim_end_matches('/').into()),
            route: Arc::new(Route { ingress, target, filters }),
        };
        self.0.routes.hosts.entry(host).or_default().paths.insert(0, rule);
        self
    }

    /// Clients of this host (a rule has named it) show a certificate.
    fn client_auth(mut self, host: &str, auth: crate::model::ClientAuth) -> Self {
        let host = HostPattern::Exact(host.into());
        self.0.routes.hosts.get_mut(&host).unwrap().client_auth = Some(Arc::new(auth));
        self
    }

    fn certificate(mut self, certificate: Arc<crate::model::Certificate>) -> Self {
        self.0.certificates.push(certificate);
        self
    }
}

/// A router with one plain and one TLS listener on free ports.
struct Router {
    l7: L7,
    http: SocketAddr,
    https: SocketAddr,
}

impl Router {
    fn start(rules: &Rules) -> Self {
        Self::with_seed(rules, None)
    }

    /// Its session tickets are made of this seed.
    fn with_seed(rules: &Rules, ticket_seed: Option<super::tls::tickets::Seed>) -> Self {
        let local: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let config =
            Config { workers: 2, http: vec![local], https: vec![local], ticket_seed, ..Config::default() };
        let l7 = L7::start(config, &rules.0).unwrap();
        let by_proto: BTreeMap<Proto, SocketAddr> = l7.addresses().map(|a| (a.proto, a.socket)).collect();
        Self { http: by_proto[&Proto::Http], https: by_proto[&Proto::Https], l7 }
    }
}
