//! Which host wants what of its clients' certificates, and which connection may carry whose requests: a client-auth
//! policy holds for the whole host, and a connection made under one policy, or shown one tenant's certificate, never
//! carries requests for a host with another. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::client_auth::Policy;
use crate::l7::head::TlsInfo;
use crate::l7::live::Live;
use crate::model::HostPattern;

type ByHost = HashMap<Box<str>, Option<Arc<Policy>>, RandomState>;

/// Policies by host. Without any it is empty, and costs nothing.
#[derive(Debug, Default)]
pub struct ClientPolicies {
    exact: ByHost,
    /// Keyed by what follows `*.`.
    wildcard: ByHost,
    any: Option<Arc<Policy>>,
}

impl ClientPolicies {
    /// From all hosts and what each wants.
    pub fn new(hosts: impl Iterator<Item = (HostPattern, Option<Arc<Policy>>)> + Clone) -> Self {
        let mut policies = Self::default();
        if hosts.clone().all(|(_, policy)| policy.is_none()) {
            return policies;
        }
        for (host, policy) in hosts {
            match host {
                HostPattern::Exact(name) => drop(policies.exact.insert(name.into(), policy)),
                HostPattern::Wildcard(parent) => drop(policies.wildcard.insert(parent.into(), policy)),
                HostPattern::Any => policies.any = policy,
            }
        }
        policies
    }

    /// What a host (lower case) wants. The empty name stands for a client that named none.
    pub fn find(&self, host: &str) -> Option<&Arc<Policy>> {
        if let Some(policy) = self.exact.get(host) {
            return policy.as_ref();
        }
        // A wildcard covers exactly one label, and not an empty one.
        if let Some((label, parent)) = host.split_once('.')
            && !label.is_empty()
            && let Some(policy) = self.wildcard.get(parent)
        {
            return policy.as_ref();
        }
        self.any.as_ref()
    }

    /// No host wants anything.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.wildcard.is_empty() && self.any.is_none()
    }
}

/// Whether a request for `host` came by a connection that may not carry it (421).
pub fn is_misdirected(live: &Live, host: &str, tls: &TlsInfo) -> bool {
    if tls.policy.is_some() || !live.client_policies.is_empty() {
        let wanted = live.client_policies.find(host).map(|policy| policy.id);
        if wanted != tls.policy {
            return true;
        }
    }
    match tls.server_name.as_deref() {
        Some(name) => name != host && !live.certificates.share_a_connection(name, host),
        // Old clients, and probes by address: they get the default certificate, and no host with a policy.
        None => false,
    }
}
