//! The classic examples, from a snapshot to a decision.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use super::*;
use crate::l7::head::ConnectionInfo;
use crate::l7::live::Compiler;
use crate::model::{
    Canary, Cluster, ClusterId, Endpoint, Filters, HostPattern, HostRoutes, Kind, ObjectRef, PathMatch,
    PathRule, Redirect, Route, RouteTable, Shared, Snapshot, SourceRange, SslRedirect, Target,
};

fn id(service: &str, port: u16) -> ClusterId {
    ClusterId { namespace: "default".into(), service: service.into(), port, by_service: false }
}

fn rule(
    host: HostPattern,
    path: &str,
    target: Target,
    filters: Filters,
) -> (HostPattern, Shared<HostRoutes>) {
    let ingress = ObjectRef::new(Kind::Ingress, "default", "example");
    let route = Arc::new(Route { ingress, target, filters });
    let path = PathMatch::Prefix(path.to_owned());
    (host, HostRoutes { paths: vec![PathRule { path, route }], ..HostRoutes::default() }.into())
}

/// All requests go there.
fn canary(target: Target) -> Filters {
    let total = NonZeroU32::MIN;
    let canary = Canary { header: None, cookie: None, weight: 1, total, target };
    Filters { canary: Some(Arc::new(canary)), ..Filters::default() }
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
    let redirect = Filters {
        ssl_redirect: Some(SslRedirect { code: 308, keep_slash: false, with_port: false }),
        ..Filters::default()
    };
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
                rule(exact("canary.org"), "", to("service1", 80), canary(to("service2", 80))),
                rule(exact("canary-empty.org"), "", to("service1", 80), canary(to("empty", 80))),
                rule(exact("canary-missing.org"), "", to("service1", 80), canary(Target::Missing)),
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
    let (connection, headers) = (ConnectionInfo::example(), http::HeaderMap::new());
    let head = RequestHead { authority: host, host, path, ..RequestHead::example(&connection, &headers) };
    match decide(&live(), &head) {
        Decision::Forward { backend, edits, .. } => {
            assert!(edits.get().is_none());
            Ok(backend.cluster.id.service.to_string())
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
        ("canary.org", "/", Ok("service2")),
        ("canary-empty.org", "/", Ok("service1")),
        ("canary-missing.org", "/", Ok("service1")),
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

/// What becomes of `GET http://app.test{path}` from 192.0.2.7 with these filters: status and `Location`, or `Host`.
fn filtered(
    path: &str,
    filters: Filters,
    app_root: Option<&str>,
) -> Result<Option<String>, (u16, Option<String>)> {
    let cluster = id("service1", 80);
    let endpoint = Endpoint { address: SocketAddr::from(([10, 0, 0, 1], 80)), node: None };
    let (host, mut routes) = rule(exact("app.test"), "/app", Target::Cluster(cluster.clone()), filters);
    routes.app_root = app_root.map(Into::into);
    let clusters = [(cluster.clone(), Arc::new(Cluster { id: cluster, endpoints: vec![endpoint] }))];
    let snapshot = Snapshot {
        clusters: BTreeMap::from(clusters).into(),
        routes: RouteTable { hosts: BTreeMap::from([(host, routes)]), default: None }.into(),
        ..Snapshot::default()
    };
    let live = Compiler::default().compile(&snapshot, &Live::default());
    let (connection, headers) = (ConnectionInfo::example(), http::HeaderMap::new());
    let example = RequestHead::example(&connection, &headers);
    let head = RequestHead { authority: "App.test:8080", host: "app.test", path, ..example };
    match decide(&live, &head) {
        Decision::Forward { edits, .. } => Ok(edits.get().and_then(|edits| edits.host.clone())),
        Decision::Answer { answer, .. } => Err((answer.status, answer.location)),
    }
}

fn range(deny: &[&str], allow: Option<&[&str]>) -> Filters {
    let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    let range = SourceRange { deny: nets(deny), allow: allow.map(nets) };
    Filters { source_range: Some(Arc::new(range)), ..Filters::default() }
}

#[test]
fn clients_by_address() {
    let forbidden = Err((403, None));
    for (deny, allow, expected) in [
        (&[][..], None, Ok(None)),
        (&["192.0.2.0/24"][..], None, forbidden.clone()),
        (&["192.0.3.0/24", "2001:db8::/32"][..], None, Ok(None)),
        (&[][..], Some(&["192.0.2.7/32"][..]), Ok(None)),
        (&[][..], Some(&["10.0.0.0/8", "2001:db8::/32"][..]), forbidden.clone()),
        (&["192.0.2.7/32"][..], Some(&["192.0.2.0/24"][..]), forbidden),
    ] {
        assert_eq!(filtered("/app", range(deny, allow), None), expected, "{deny:?} {allow:?}");
    }
}

#[test]
fn redirects_come_before_everything_else() {
    let redirect = Redirect { code: 301, location: "https://other.test/x".into() };
    let filters = Filters {
        redirect: Some(redirect),
        ssl_redirect: Some(SslRedirect { code: 308, keep_slash: false, with_port: false }),
        ..range(&["0.0.0.0/0"], None)
    };
    assert_eq!(filtered("/app", filters, None), Err((301, Some("https://other.test/x".to_owned()))));
}

#[test]
fn the_root_leads_to_the_application() {
    let there = Err((302, Some("http://App.test:8080/app/".to_owned())));
    // Though no rule has `/`: it acts on the host.
    assert_eq!(filtered("/", Filters::default(), Some("/app/")), there);
    assert_eq!(filtered("/app", Filters::default(), Some("/app/")), Ok(None));
    assert_eq!(filtered("/", Filters::default(), None), Err((404, None)));
}

#[test]
fn another_host_for_the_backend() {
    let filters = Filters { upstream_vhost: Some("inner.test".into()), ..Filters::default() };
    assert_eq!(filtered("/app", filters, None), Ok(Some("inner.test".to_owned())));
}
