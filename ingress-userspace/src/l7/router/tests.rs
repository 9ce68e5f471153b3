//! The router against the Ingress specification's own table and against a naive oracle.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::model::{ClusterId, Filters, Kind, ObjectRef, PathMatch, PathRule, Target};

fn route(name: &str) -> Arc<Route> {
    Arc::new(Route {
        ingress: ObjectRef::new(Kind::Ingress, "default", name),
        target: Target::Cluster(ClusterId {
            namespace: "default".into(),
            service: name.into(),
            port: 80,
            by_service: false,
        }),
        filters: Filters::default(),
    })
}

fn entry(route: &Arc<Route>) -> RouteEntry {
    RouteEntry {
        route: Arc::clone(route),
        cluster: None,
        ingress: IngressSlot::OTHER,
        transport: None,
        regex: None,
        canary: None,
        upstream_name: Box::default(),
    }
}

fn compile(table: &RouteTable) -> Router {
    Router::compile(table, &RouteTable::default(), &Router::default(), entry)
}

fn name_of(found: Found<'_>) -> Option<&str> {
    match found {
        Found::Route(entry) => Some(&entry.route.ingress.name),
        Found::Nothing => None,
    }
}

/// Rules in the order that the model promises: longest first, `Exact` before `Prefix`.
fn host_routes(rules: impl IntoIterator<Item = PathMatch>, default: Option<&str>) -> HostRoutes {
    let mut matches: Vec<PathMatch> = rules.into_iter().collect();
    let length = |m: &PathMatch| match m {
        PathMatch::Exact(p) => (p.len(), 1),
        PathMatch::Prefix(p) | PathMatch::Regex(p) => (p.len(), 0),
    };
    matches.sort_by_key(|m| std::cmp::Reverse(length(m)));
    HostRoutes {
        paths: matches
            .into_iter()
            .map(|path| {
                let name = format!("{path:?}");
                PathRule { path, route: route(&name) }
            })
            .collect(),
        default: default.map(route),
        ..HostRoutes::default()
    }
}

fn exact(path: &str) -> PathMatch {
    PathMatch::Exact(path.to_owned())
}

fn prefix(path: &str) -> PathMatch {
    PathMatch::Prefix(path.trim_end_matches('/').to_owned())
}

/// The examples of the Kubernetes documentation ("Path types"): kind, rule's paths, request, matching path.
#[test]
fn path_examples_of_the_specification() {
    for (rules, path, expected) in [
        (vec![prefix("/")], "/any/path", Some(prefix("/"))),
        (vec![exact("/foo")], "/foo", Some(exact("/foo"))),
        (vec![exact("/foo")], "/bar", None),
        (vec![exact("/foo")], "/foo/", None),
        (vec![exact("/foo/")], "/foo", None),
        (vec![prefix("/foo")], "/foo", Some(prefix("/foo"))),
        (vec![prefix("/foo")], "/foo/", Some(prefix("/foo"))),
        (vec![prefix("/foo/")], "/foo", Some(prefix("/foo"))),
        (vec![prefix("/foo/")], "/foo/", Some(prefix("/foo"))),
        (vec![prefix("/aaa/bb")], "/aaa/bbb", None),
        (vec![prefix("/aaa/bbb")], "/aaa/bbb", Some(prefix("/aaa/bbb"))),
        (vec![prefix("/aaa/bbb/")], "/aaa/bbb", Some(prefix("/aaa/bbb"))),
        (vec![prefix("/aaa/bbb")], "/aaa/bbb/", Some(prefix("/aaa/bbb"))),
        (vec![prefix("/aaa/bbb")], "/aaa/bbb/ccc", Some(prefix("/aaa/bbb"))),
        (vec![prefix("/aaa/bbb")], "/aaa/bbbxyz", None),
        (vec![prefix("/"), prefix("/aaa")], "/aaa/ccc", Some(prefix("/aaa"))),
        (vec![prefix("/"), prefix("/aaa"), prefix("/aaa/bbb")], "/aaa/bbb", Some(prefix("/aaa/bbb"))),
        (vec![prefix("/"), prefix("/aaa"), prefix("/aaa/bbb")], "/ccc", Some(prefix("/"))),
        (vec![prefix("/aaa")], "/ccc", None),
        (vec![prefix("/foo"), exact("/foo")], "/foo", Some(exact("/foo"))),
        (vec![prefix("/foo"), exact("/foo")], "/foo/", Some(prefix("/foo"))),
        (vec![prefix("/")], "*", Some(prefix("/"))),
        (vec![prefix("/foo")], "*", None),
        (vec![prefix("/café")], "/caf%C3%A9/x", Some(prefix("/café"))),
        (vec![exact("/a%7eb")], "/a~b", Some(exact("/a%7eb"))),
        (vec![prefix("foo")], "/foo", None),
    ] {
        let hosts = BTreeMap::from([(HostPattern::Any, host_routes(rules.clone(), None).into())]);
        let router = compile(&RouteTable { hosts, default: None });
        let expected = expected.map(|path| format!("{path:?}"));
        assert_eq!(name_of(router.find("h", path)), expected.as_deref(), "{rules:?} {path}");
    }
}

#[test]
fn hosts_by_exactness() {
    let one = |name: &str| HostRoutes {
        paths: vec![PathRule { path: prefix("/foo"), route: route(name) }],
        ..HostRoutes::default()
    };
    let with_default = HostRoutes { default: Some(route("own default")), ..one("defaulted") };
    let hosts = BTreeMap::from([
        (HostPattern::Exact("bar.foo.com".into()), one("exact").into()),
        (HostPattern::Wildcard("foo.com".into()), one("wildcard").into()),
        (HostPattern::Exact("defaulted.org".into()), with_default.into()),
        (HostPattern::Any, one("any").into()),
    ]);
    let mut table = RouteTable { hosts, default: None };
    let router = compile(&table);
    for (host, path, expected) in [
        ("bar.foo.com", "/foo", Some("exact")),
        ("bar.foo.com", "/bar", None),
        ("baz.foo.com", "/foo", Some("wildcard")),
        ("baz.bar.foo.com", "/foo", Some("any")),
        ("foo.com", "/foo", Some("any")),
        (".foo.com", "/foo", Some("any")),
        ("defaulted.org", "/foo", Some("defaulted")),
        ("defaulted.org", "/bar", Some("own default")),
        ("", "/foo", Some("any")),
    ] {
        assert_eq!(name_of(router.find(host, path)), expected, "{host}{path}");
    }
    table.default = Some(route("global"));
    let router = compile(&table);
    assert_eq!(name_of(router.find("bar.foo.com", "/bar")), Some("global"));
    assert_eq!(name_of(router.find("defaulted.org", "/bar")), Some("own default"));
}

#[test]
fn equal_hosts_are_shared_with_the_previous_router() {
    let hosts = BTreeMap::from([
        (HostPattern::Exact("a".into()), host_routes([prefix("/")], None).into()),
        (HostPattern::Exact("b".into()), host_routes([prefix("/")], None).into()),
        (HostPattern::Exact("c".into()), host_routes([prefix("/")], None).into()),
        (HostPattern::Exact("d".into()), host_routes([prefix("/")], None).into()),
    ]);
    let mut table = RouteTable { hosts, default: None };
    let first = compile(&table);
    let before = table.clone();
    let exact = |name: &str| HostPattern::Exact(name.to_owned());
    table.hosts.insert(exact("b"), host_routes([prefix("/x")], None).into());
    table.hosts.remove(&exact("c"));
    let same = HostRoutes::clone(&table.hosts[&exact("d")]);
    table.hosts.insert(exact("d"), same.into());
    let other_name = HostRoutes { www_redirect: Some("a".into()), ..HostRoutes::default() };
    table.hosts.insert(exact("www.a"), other_name.into());
    let second = Router::compile(&table, &before, &first, entry);
    assert!(Arc::ptr_eq(&first.exact["a"], &second.exact["a"]));
    assert!(Arc::ptr_eq(&first.exact["d"], &second.exact["d"]), "equal, though not the same memory");
    assert!(!Arc::ptr_eq(&first.exact["b"], &second.exact["b"]));
    assert_eq!(name_of(second.find("b", "/y")), None);
    assert!(!second.exact.contains_key("c") && first.exact.contains_key("c"));
    assert_eq!((first.www_redirect("www.a"), second.www_redirect("www.a")), (None, Some("a")));
    let third = Router::compile(&before, &table, &second, entry);
    assert_eq!((third.exact.len(), third.other_names), (4, 0));
}

/// The specification read aloud: the first rule in order whose path matches.
fn oracle<'t>(routes: &'t HostRoutes, path: &str) -> Option<&'t str> {
    let matches = |rule: &PathMatch| match rule {
        PathMatch::Exact(exact) => exact == path,
        PathMatch::Regex(regex) => regex::Regex::new(regex).unwrap().is_match(path),
        PathMatch::Prefix(prefix) => {
            let mut theirs = path.split('/');
            prefix.split('/').all(|element| theirs.next() == Some(element))
        }
    };
    let rule = routes.paths.iter().find(|rule| matches(&rule.path));
    rule.map(|rule| &rule.route).or(routes.default.as_ref()).map(|route| route.ingress.name.as_str())
}

proptest! {
    #[test]
    fn agrees_with_the_oracle(
        exacts in prop::collection::btree_set("/([a-d]{1,2}/){0,2}([a-d]{1,2})?", 0..8),
        prefixes in prop::collection::btree_set("(/[a-d]{1,2}){0,4}", 0..24),
        paths in prop::collection::vec("/([a-d]{1,2}/){0,4}([a-d]{1,2})?", 1..40),
        default in any::<bool>(),
    ) {
        let rules = exacts.into_iter().map(PathMatch::Exact).chain(prefixes.into_iter().map(PathMatch::Prefix));
        let routes = host_routes(rules, default.then_some("default"));
        let hosts = BTreeMap::from([(HostPattern::Any, routes.into())]);
        let table = RouteTable { hosts, default: None };
        let router = compile(&table);
        for path in paths {
            prop_assert_eq!(name_of(router.find("h", &path)), oracle(&table.hosts[&HostPattern::Any], &path), "{}", path);
        }
    }
}
