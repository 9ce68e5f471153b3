//! The classic examples, from a snapshot to a decision.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::*;
use crate::l7::head::ConnectionInfo;
use crate::l7::live::Compiler;
use crate::model::{
    Cluster, ClusterId, Endpoint, Filters, HostPattern, HostRoutes, Kind, ObjectRef, PathMatch, PathRule,
    Route, RouteTable, Snapshot, SslRedirect, Target,
};

fn id(service: &str, port: u16) -> ClusterId {
    ClusterId { namespace: "default".into(), service: service.into(), port }
}

fn rule(host: HostPattern, path: &str, target: Target, filters: Filters) -> (HostPattern, HostRoutes) {
    let ingress = ObjectRef::new(Kind::Ingress, "default", "example");
    let route = Arc::new(Route { ingress, target, filters });
    let path = PathMatch::Prefix(path.to_owned());
    (host, HostRoutes { paths: vec![PathRule { path, route }], ..HostRoutes::default() })
}

fn exact(host: &str) -> HostPattern {
    HostPattern::Exact(host.to_owned())
}

fn live() -> Live {
    let cluster = |service: &str, port: u16, endpoints: usize| {
        let endpoint = Endpoint { address: SocketAddr::from(([10, 0, 0, 1], port)), node: None };
        (id(service, port), Arc::new(Cluster { id: id(service, port), endpoints: vec![endpoint; endpoints] }))
    };
    let to = |service: &str, port: u16| Target::Cluster(id(service, port));
    let redirect = Filters { ssl_redirect: Some(SslRedirect { code: 308 }) };
    let snapshot = Snapshot {
        clusters: BTreeMap::from([
            cluster("service1", 80, 1),
            cluster("service2", 80, 1),
            cluster("empty", 80, 0),
        ])
        .into(),
        routes: RouteTable {
            hosts: BTreeMap::from([
                rule(exact("foo.bar.com"), "/bar", to("service1", 80), Filters::default()),
                rule(HostPattern::Wildcard("foo.com".into()), "/foo", to("service2", 80), Filters::default()),
                rule(exact("empty.org"), "", to("empty", 80), Filters::default()),
                rule(exact("gone.org"), "", to("gone", 80), Filters::default()),
                rule(exact("missing.org"), "", Target::Missing, Filters::default()),
                rule(exact("secure.org"), "", to("service1", 80), redirect),
            ]),
            default: None,
        }
        .into(),
        ..Snapshot::default()
    };
    Compiler::default().compile(&snapshot, &Live::default())
}

/// The service that gets the request, or the status of our own answer.
fn fate(host: &str, path: &str) -> Result<String, u16> {
    let connection =
        ConnectionInfo::new("192.0.2.7:5000".parse().unwrap(), "192.0.2.1:80".parse().unwrap(), None);
    let headers = http::HeaderMap::new();
    let head = RequestHead {
        method: "GET",
        scheme: connection.scheme(),
        authority: host,
        host,
        path,
        query: None,
        headers: &headers,
        connection: &connection,
    };
    match decide(&live(), &head) {
        Decision::Forward { backend, edits, .. } => {
            assert!(edits.get().is_none());
            Ok(backend.cluster.id.service.clone())
        }
        Decision::Answer { answer, .. } => Err(answer.status),
    }
}

#[test]
fn requests_meet_their_fate() {
    for (host, path, expected) in [
        ("foo.bar.com", "/bar", Ok("service1")),
        ("foo.bar.com", "/bar/x", Ok("service1")),
        ("foo.bar.com", "/foo", Err(404)),
        ("x.foo.com", "/foo", Ok("service2")),
        ("x.y.foo.com", "/foo", Err(404)),
        ("foo.com", "/foo", Err(404)),
        ("unknown.org", "/", Err(404)),
        ("empty.org", "/", Err(503)),
        ("gone.org", "/", Err(503)),
        ("missing.org", "/", Err(503)),
        ("secure.org", "/", Err(308)),
    ] {
        assert_eq!(fate(host, path), expected.map(str::to_owned), "{host}{path}");
    }
}

/// A VIP with a table of its own serves that and nothing else; all other addresses serve the table of all classes.
#[test]
fn a_vip_serves_the_routes_of_its_classes_only() {
    let table = |host: &str| RouteTable {
        hosts: BTreeMap::from([rule(exact(host), "", Target::Missing, Filters::default())]),
        default: None,
    };
    let mut both = table("a.org");
    both.hosts.extend(table("b.org").hosts);
    let vips = [("192.0.2.1", "a.org"), ("192.0.2.2", "b.org")];
    let snapshot = Snapshot {
        routes: both.into(),
        vip_routes: vips.iter().map(|(vip, host)| (vip.parse().unwrap(), table(host).into())).collect(),
        ..Snapshot::default()
    };
    let mut compiler = Compiler::default();
    let first = compiler.compile(&snapshot, &Live::default());
    let second = compiler.compile(&snapshot, &first);
    for live in [first, second] {
        for (local, host, known) in [
            ("192.0.2.1", "a.org", true),
            ("192.0.2.1", "b.org", false),
            ("192.0.2.2", "a.org", false),
            ("192.0.2.2", "b.org", true),
            ("127.0.0.1", "a.org", true),
            ("127.0.0.1", "b.org", true),
        ] {
            let found = live.router_at(local.parse().unwrap()).find(host, "/");
            assert_eq!(matches!(found, Found::Route(_)), known, "{host} at {local}");
        }
    }
}
