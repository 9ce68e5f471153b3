//! Ingresses: rules to routes. The oldest Ingress keeps a host and path that two of them claim.

mod canary;
mod regex;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use k8s_openapi::api::networking::v1::IngressRule;

use self::regex::Written;
use super::annotation::{self, Annotations, Served};
use super::class::Owned;
use super::problems::Problems;
use super::service::Backends;
use super::{Settings, host, path, tls};
use crate::model::{
    ClientAuth, Filters, HostPattern, HostRoutes, Kind, ObjectRef, PathMatch, PathRule, Reason, Route,
    RouteTable, Shared, Target,
};

/// The routing table of these Ingresses of ours (the oldest first).
pub(super) fn routes(
    served: &[&Served],
    settings: &Settings,
    certificates: &tls::Table,
    backends: &mut Backends<'_>,
    problems: &mut Problems,
) -> RouteTable {
    let has_certificate = |host: &HostPattern| certificates.serves(host);
    let mut table =
        Table { hosts: BTreeMap::new(), other_names: BTreeMap::new(), default: None, backends, problems };
    for Served { owned, annotations } in served.iter().filter(|one| one.annotations.canary.is_none()) {
        table.ingress(owned, annotations, &has_certificate);
    }
    for Served { owned, annotations } in served {
        if let Some(rules) = &annotations.canary {
            table.canary(owned, annotations, rules);
        }
    }
    let Table { hosts, other_names, default, backends, problems } = table;
    let default = default.or_else(|| {
        let backend = settings.default_backend.as_ref()?;
        Some(Arc::new(Route {
            // No Ingress: the Service stands for it in metrics.
            ingress: ObjectRef::new(Kind::Service, &backend.namespace, &backend.service),
            target: backends.default_target(backend, problems),
            filters: Filters { body_limit: annotation::DEFAULT_BODY_LIMIT, ..Filters::default() },
        }))
    });
    let mut finished: BTreeMap<_, _> =
        hosts.into_iter().map(|(pattern, host)| finish(pattern, host, problems)).collect();
    for (from, to) in other_names {
        // A host that has rules of its own stays what it is, as with ingress-nginx.
        finished
            .entry(from)
            .or_insert_with(|| HostRoutes { www_redirect: Some(to), ..HostRoutes::default() }.into());
    }
    RouteTable { hosts: finished, default }
}

struct Table<'t, 'o> {
    hosts: BTreeMap<HostPattern, Host>,
    /// `from-to-www-redirect`: a name, and the host to which it leads.
    other_names: BTreeMap<HostPattern, Arc<str>>,
    default: Option<Arc<Route>>,
    backends: &'t mut Backends<'o>,
    problems: &'t mut Problems,
}

#[derive(Default)]
struct Host {
    /// In the order in which the first match wins.
    paths: BTreeMap<Rank, Written>,
    default: Option<Arc<Route>>,
    client_auth: Option<Arc<ClientAuth>>,
    app_root: Option<Arc<str>>,
    passthrough: Option<Arc<Route>>,
}

/// Longest path first, at equal length `Exact` before `Prefix`, then by bytes.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Rank(std::cmp::Reverse<usize>, bool, String);

impl Rank {
    fn of(path: &PathMatch) -> Self {
        let (is_prefix, text) = match path {
            // Regexes are made of the others, once all are known.
            PathMatch::Exact(text) | PathMatch::Regex(text) => (false, text),
            PathMatch::Prefix(text) => (true, text),
        };
        Self(std::cmp::Reverse(text.len()), is_prefix, text.clone())
    }
}

fn finish(pattern: HostPattern, host: Host, problems: &mut Problems) -> (HostPattern, Shared<HostRoutes>) {
    let Host { paths, default, client_auth, app_root, passthrough } = host;
    let paths = regex::rules(&pattern, paths.into_values().collect(), problems);
    (pattern, HostRoutes { paths, default, client_auth, app_root, passthrough, www_redirect: None }.into())
}

impl Table<'_, '_> {
    fn ingress(
        &mut self,
        Owned { ingress, reference, .. }: &Owned,
        annotations: &Annotations,
        has_certificate: &dyn Fn(&HostPattern) -> bool,
    ) {
        let Some(spec) = &ingress.spec else { return };
        let default = spec.default_backend.as_ref().map(|backend| {
            let by_service = annotations.by_service;
            self.backends.target(reference, "spec.defaultBackend", backend, by_service, self.problems)
        });
        let rules = spec.rules.as_deref().unwrap_or_default();
        if rules.is_empty() {
            match default {
                Some(target) => self.only_default(reference, target, annotations),
                None => self.problems.add(
                    reference,
                    "spec.rules",
                    Reason::InvalidValue,
                    "there are neither rules nor a defaultBackend; nothing is served",
                    "write one of the two",
                ),
            }
            return;
        }
        let mut routes = Routes { reference, annotations, made: Vec::new() };
        for (index, rule) in rules.iter().enumerate() {
            let field = format!("spec.rules[{index}]");
            let text = rule.host.as_deref().unwrap_or_default();
            let pattern = match host::parse(text) {
                Ok(pattern) => pattern,
                Err(message) => {
                    self.problems.add(
                        reference,
                        format!("{field}.host"),
                        Reason::InvalidValue,
                        format!("`{text}` is not a host name: {message}; the rule is left out"),
                        "write a DNS name in lower case, or `*.` and a DNS name",
                    );
                    continue;
                }
            };
            let tls = has_certificate(&pattern);
            self.rule(&pattern, rule, &field, tls, &mut routes);
            if let Some(target) = &default {
                self.host_default(&pattern, routes.route(target.clone(), tls, None), reference);
            }
        }
    }

    fn rule(
        &mut self,
        pattern: &HostPattern,
        rule: &IngressRule,
        field: &str,
        tls: bool,
        routes: &mut Routes<'_>,
    ) {
        // A rule without paths is no mistake: its host goes to the default backend.
        let paths = rule.http.as_ref().map(|http| http.paths.as_slice()).unwrap_or_default();
        if !self.hosts.contains_key(pattern) {
            self.hosts.insert(pattern.clone(), Host::default());
        }
        if let (Some(host), Some(auth)) = (self.hosts.get_mut(pattern), &routes.annotations.client_auth) {
            host.client_auth.get_or_insert_with(|| Arc::clone(auth));
        }
        if let (Some(host), Some(path)) = (self.hosts.get_mut(pattern), &routes.annotations.app_root) {
            host.app_root.get_or_insert_with(|| Arc::clone(path));
        }
        self.passthrough_conflict(pattern, field, routes);
        if let (true, HostPattern::Exact(name)) = (routes.annotations.www_redirect, pattern) {
            let other = name.strip_prefix("www.").map_or_else(|| format!("www.{name}"), str::to_owned);
            self.other_names.entry(HostPattern::Exact(other)).or_insert_with(|| name.as_str().into());
        }
        for (index, entry) in paths.iter().enumerate() {
            let field = format!("{field}.http.paths[{index}]");
            let matched = match path::parse(entry.path.as_deref(), &entry.path_type) {
                Ok(matched) => matched,
                Err(wrong) => {
                    self.problems.add(
                        routes.reference,
                        format!("{field}.{}", wrong.field),
                        Reason::InvalidValue,
                        format!("{}; the path is left out", wrong.message),
                        wrong.hint,
                    );
                    continue;
                }
            };
            let target = self.backends.target(
                routes.reference,
                &format!("{field}.backend"),
                &entry.backend,
                routes.annotations.by_service,
                self.problems,
            );
            let Some(host) = self.hosts.get_mut(pattern) else { continue };
            // One connection has one backend: that of `/`, or the first.
            if routes.annotations.passthrough
                && host.paths.values().all(|written| written.rule.route.ingress == *routes.reference)
                && (host.passthrough.is_none()
                    || matches!(&matched, PathMatch::Prefix(path) if path.is_empty()))
            {
                host.passthrough = Some(routes.route(target.clone(), tls, None));
            }
            match host.paths.entry(Rank::of(&matched)) {
                Entry::Vacant(place) => {
                    let text = entry.path.clone().unwrap_or_default();
                    let by_itself = routes.annotations.rewrites.needs_regex(&text);
                    let route = routes.route(target, tls, Some(&text));
                    place.insert(Written { rule: PathRule { path: matched, route }, path: text, by_itself });
                }
                Entry::Occupied(place) => {
                    let owner = &place.get().rule.route.ingress;
                    let who = if owner == routes.reference {
                        "another rule of this Ingress".to_owned()
                    } else {
                        format!("{owner}, which came first,")
                    };
                    self.problems.add(
                        routes.reference,
                        format!("{field}.path"),
                        Reason::Conflict,
                        format!(
                            "{who} already has {} {}; this one is left out",
                            host::show(pattern),
                            path::show(&matched)
                        ),
                        "give one of the two another host or path, or delete it",
                    );
                }
            }
        }
    }

    /// TLS connections of a host are passed through as a whole or not at all: who came first decides.
    fn passthrough_conflict(&mut self, pattern: &HostPattern, field: &str, routes: &Routes<'_>) {
        let Some(host) = self.hosts.get(pattern) else { return };
        let of_others = |route: &&Arc<Route>| route.ingress != *routes.reference;
        let passed = host.passthrough.as_ref().filter(of_others);
        let opened = host.paths.values().map(|written| &written.rule.route).find(of_others);
        let (owner, what) = match (routes.annotations.passthrough, passed, opened) {
            (false, Some(owner), _) => {
                (owner, "has its TLS connections passed through; these paths are reached by plain HTTP only")
            }
            (true, Some(owner), _) => (owner, "has its TLS connections passed through already"),
            (true, None, Some(owner)) => {
                (owner, "has paths there; its TLS connections are not passed through")
            }
            _ => return,
        };
        self.problems.add(
            routes.reference,
            format!("{field}.host"),
            Reason::Conflict,
            format!("{} of {}, which came first, {what}", host::show(pattern), owner.ingress),
            "give one of the two another host",
        );
    }

    fn host_default(&mut self, pattern: &HostPattern, route: Arc<Route>, reference: &ObjectRef) {
        let Some(host) = self.hosts.get_mut(pattern) else { return };
        match &host.default {
            None => host.default = Some(route),
            Some(first) if first.ingress == *reference => {}
            Some(first) => self.problems.add(
                reference,
                "spec.defaultBackend",
                Reason::Conflict,
                format!(
                    "{}, which came first, already has a defaultBackend for {}; this one is left out there",
                    first.ingress,
                    host::show(pattern)
                ),
                "keep one of the two",
            ),
        }
    }

    fn only_default(&mut self, reference: &ObjectRef, target: Target, annotations: &Annotations) {
        if let Some(first) = &self.default {
            self.problems.add(
                reference,
                "spec.defaultBackend",
                Reason::Conflict,
                format!(
                    "{}, which came first, is already the default for all hosts; this one is left out",
                    first.ingress
                ),
                "keep one of the two, or give this one rules",
            );
            return;
        }
        let (filters, target) = (annotations.filters(false, None), annotations.admit(target));
        self.default = Some(Arc::new(Route { ingress: reference.clone(), target, filters }));
    }
}

/// The routes of one Ingress: equal ones are shared.
struct Routes<'i> {
    reference: &'i ObjectRef,
    annotations: &'i Annotations,
    /// An Ingress has few different backends: a scan is enough.
    made: Vec<(bool, Arc<Route>)>,
}

impl Routes<'_> {
    /// `path`: as written; `None` for a default backend.
    fn route(&mut self, target: Target, tls: bool, path: Option<&str>) -> Arc<Route> {
        let target = self.annotations.admit(target);
        // The last ones only, so that an Ingress with thousands of backends does not take quadratic time.
        let rewrite = path.and_then(|path| self.annotations.rewrites.of(path));
        let recent = self.made.iter().rev().take(16);
        if let Some((_, route)) = recent.clone().find(|(with_tls, route)| {
            *with_tls == tls && route.target == target && route.filters.rewrite.as_ref() == rewrite
        }) {
            return Arc::clone(route);
        }
        let filters = self.annotations.filters(tls, path);
        let route = Arc::new(Route { ingress: self.reference.clone(), target, filters });
        self.made.push((tls, Arc::clone(&route)));
        route
    }
}
