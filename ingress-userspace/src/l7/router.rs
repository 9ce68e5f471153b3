//! Hosts and paths to routes, compiled for look-up: a hash on the host, then a hash per path element, so that the cost
//! does not grow with the number of rules. Made by `live`, asked by `decide`. Pure: no IO, no time.

mod paths;
mod regexes;

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::model::{HostPattern, HostRoutes, Route, RouteTable, Shared};

use super::ClusterKey;
use super::stats::IngressSlot;
use super::tls::client_auth::Policy;
use super::upstream::transport::Transport;
use paths::PathTable;
use regexes::Regexes;

/// One rule's destination.
#[derive(Debug)]
pub struct RouteEntry {
    /// The rule as translated: filters, names for logs.
    pub route: Arc<Route>,
    /// Its cluster; `None` if the Service does not exist.
    pub cluster: Option<ClusterKey>,
    /// Where its requests are counted.
    pub ingress: IngressSlot,
    /// `namespace-service-port`, as ingress-nginx names upstreams in its logs.
    pub upstream_name: Box<str>,
    /// How its endpoints are spoken to; `None`: by plain HTTP/1.1.
    pub transport: Option<Arc<Transport>>,
    /// What its path is, if that is a regex: for captures.
    pub regex: Option<Arc<regex::bytes::Regex>>,
    /// Where some of its requests go instead.
    pub canary: Option<Box<CanaryEntry>>,
}

/// The canary of a rule.
#[derive(Debug)]
pub struct CanaryEntry {
    /// The rule with the canary's cluster in the place of its own.
    pub entry: RouteEntry,
    /// That of the header that decides, if it has one.
    pub pattern: Option<regex::bytes::Regex>,
}

/// What a look-up found.
#[derive(Debug, Clone, Copy)]
pub enum Found<'r> {
    /// A rule of this host, or a default backend.
    Route(&'r RouteEntry),
    /// Neither a rule nor a default backend.
    Nothing,
}

/// The compiled table.
#[derive(Debug, Default)]
pub struct Router {
    exact: HostMap,
    /// Keyed by what follows `*.`.
    wildcard: HostMap,
    any: Option<Arc<HostTable>>,
    /// Hosts that want certificates of their clients.
    policies: usize,
    /// Hosts whose TLS connections are passed through.
    passthroughs: usize,
    /// Hosts that are but other names.
    other_names: usize,
    default: Option<RouteEntry>,
}

/// Cloned with every change: its keys are shared.
type HostMap = HashMap<Arc<str>, Arc<HostTable>, RandomState>;

/// One host's rules, with what they were compiled from.
#[derive(Debug)]
struct HostTable {
    source: Shared<HostRoutes>,
    paths: PathTable,
    regexes: Regexes,
    default: Option<RouteEntry>,
    /// What it wants of its clients' certificates.
    policy: Option<Arc<Policy>>,
    /// Where its TLS connections go as they are.
    passthrough: Option<RouteEntry>,
}

impl Router {
    /// Compiles a table. Hosts that are the same memory in `source`, of which `previous` was made, are not looked at; those that
    /// are equal are shared with it. `entry` turns a route into an entry and must give equal entries for equal routes.
    pub fn compile(
        table: &RouteTable,
        source: &RouteTable,
        previous: &Self,
        mut entry: impl FnMut(&Arc<Route>) -> RouteEntry,
    ) -> Self {
        let mut router = Self {
            exact: previous.exact.clone(),
            wildcard: previous.wildcard.clone(),
            any: previous.any.clone(),
            default: table.default.as_ref().map(&mut entry),
            ..*previous
        };
        for (pattern, was, is) in changes(&source.hosts, &table.hosts) {
            let old = was.and_then(|_| router.take(pattern));
            let Some(is) = is else { continue };
            let compiled = match old {
                Some(old) if same_routes(&old.source, is) => old,
                _ => Arc::new(HostTable {
                    source: is.clone(),
                    paths: PathTable::compile(&is.paths, &mut entry),
                    regexes: Regexes::compile(&is.paths, &mut entry),
                    default: is.default.as_ref().map(&mut entry),
                    passthrough: is.passthrough.as_ref().map(&mut entry),
                    policy: is.client_auth.as_ref().map(|auth| Arc::new(Policy::new(auth))),
                }),
            };
            router.put(pattern, compiled);
        }
        router
    }

    fn put(&mut self, pattern: &HostPattern, host: Arc<HostTable>) {
        self.passthroughs += usize::from(host.passthrough.is_some());
        self.policies += usize::from(host.policy.is_some());
        self.other_names += usize::from(host.source.www_redirect.is_some());
        match pattern {
            HostPattern::Exact(name) => drop(self.exact.insert(name.as_str().into(), host)),
            HostPattern::Wildcard(parent) => drop(self.wildcard.insert(parent.as_str().into(), host)),
            HostPattern::Any => self.any = Some(host),
        }
    }

    fn take(&mut self, pattern: &HostPattern) -> Option<Arc<HostTable>> {
        let host = match pattern {
            HostPattern::Exact(name) => self.exact.remove(name.as_str()),
            HostPattern::Wildcard(parent) => self.wildcard.remove(parent.as_str()),
            HostPattern::Any => self.any.take(),
        }?;
        self.passthroughs -= usize::from(host.passthrough.is_some());
        self.policies -= usize::from(host.policy.is_some());
        self.other_names -= usize::from(host.source.www_redirect.is_some());
        Some(host)
    }

    /// Finds the rule for a host (lower case, without port) and a normalised path (or `*`).
    ///
    /// Exact hosts win over wildcards, those over rules without a host. A host that is known but has no matching path
    /// does not fall back to a less exact one: its own default backend, then the global one.
    pub fn find(&self, host: &str, path: &str) -> Found<'_> {
        self.table_of(host)
            .and_then(|table| {
                table.regexes.find(path).or_else(|| table.paths.find(path)).or(table.default.as_ref())
            })
            .or(self.default.as_ref())
            .map_or(Found::Nothing, Found::Route)
    }

    /// The host whose other name this is. `None`: it is no other name.
    pub fn www_redirect(&self, host: &str) -> Option<&str> {
        if self.other_names == 0 {
            return None;
        }
        self.table_of(host)?.source.www_redirect.as_deref()
    }

    /// Where `/` of a host is redirected to. `None`: nowhere.
    pub fn app_root(&self, host: &str) -> Option<&str> {
        self.table_of(host)?.source.app_root.as_deref()
    }

    /// What a host wants of its clients' certificates. `None`: nothing.
    pub fn client_policy(&self, host: &str) -> Option<&Arc<Policy>> {
        if self.policies == 0 {
            return None;
        }
        self.table_of(host)?.policy.as_ref()
    }

    /// Where the TLS connections of a host go as they are. `None`: they end here.
    pub fn passthrough(&self, host: &str) -> Option<&RouteEntry> {
        if self.passthroughs == 0 {
            return None;
        }
        self.table_of(host)?.passthrough.as_ref()
    }

    fn table_of(&self, host: &str) -> Option<&HostTable> {
        if let Some(table) = self.exact.get(host) {
            return Some(table);
        }
        // A wildcard covers exactly one label, and not an empty one.
        if let Some((label, parent)) = host.split_once('.')
            && !label.is_empty()
            && let Some(table) = self.wildcard.get(parent)
        {
            return Some(table);
        }
        self.any.as_deref()
    }
}

/// A host, what it was, and what it is.
type Change<'t> = (&'t HostPattern, Option<&'t Shared<HostRoutes>>, Option<&'t Shared<HostRoutes>>);

/// The hosts that are not the same memory in both.
fn changes<'t>(
    before: &'t BTreeMap<HostPattern, Shared<HostRoutes>>,
    after: &'t BTreeMap<HostPattern, Shared<HostRoutes>>,
) -> Vec<Change<'t>> {
    let mut changes = Vec::new();
    let (mut before, mut after) = (before.iter().peekable(), after.iter().peekable());
    loop {
        let order = match (before.peek(), after.peek()) {
            (None, None) => return changes,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            // The same memory under another name is possible, though nobody makes it.
            (Some((a, was)), Some((b, is))) if was.is(is) && a == b => {
                before.next();
                after.next();
                continue;
            }
            (Some((a, _)), Some((b, _))) => a.cmp(b),
        };
        let was = if order == Ordering::Greater { None } else { before.next() };
        let is = if order == Ordering::Less { None } else { after.next() };
        if let Some((pattern, _)) = was.or(is) {
            changes.push((pattern, was.map(|(_, host)| host), is.map(|(_, host)| host)));
        }
    }
}

/// Equality that takes shared routes for equal without looking into them: most of a new snapshot is shared.
fn same_routes(old: &HostRoutes, new: &HostRoutes) -> bool {
    let same = |a: &Arc<Route>, b: &Arc<Route>| Arc::ptr_eq(a, b) || a == b;
    old.paths.len() == new.paths.len()
        && old.app_root == new.app_root
        && old.www_redirect == new.www_redirect
        && old.paths.iter().zip(&new.paths).all(|(a, b)| a.path == b.path && same(&a.route, &b.route))
        && old.client_auth == new.client_auth
        && [(&old.default, &new.default), (&old.passthrough, &new.passthrough)].into_iter().all(|pair| {
            match pair {
                (Some(a), Some(b)) => same(a, b),
                (None, None) => true,
                _ => false,
            }
        })
}

#[cfg(test)]
mod tests;
