//! What a change of an Ingress, a Service or a Secret can touch: Ingresses that share a host decide together who has which
//! path, and no others. Kept by `incremental` from one state of the objects to the next.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::networking::v1::{Ingress, IngressBackend};

use crate::model::{ClusterId, HostPattern, ObjectRef};
use crate::source::{Change, Key, Objects};
use crate::translate::{host, named};

/// Which of our Ingresses have something to do with a host, a Service or a Secret (those of `spec.tls` are `tls`'s), and which
/// clusters they asked for.
#[derive(Debug, Default)]
pub(super) struct Index {
    by_family: HashMap<HostPattern, Vec<Key>>,
    by_service: HashMap<Key, Vec<Key>>,
    by_secret: HashMap<Key, Vec<Key>>,
    asked: HashMap<ObjectRef, Vec<ClusterId>>,
    /// How many asked for each.
    uses: BTreeMap<ClusterId, usize>,
}

/// What has changed.
pub(super) struct Changed<'c> {
    pub(super) ingresses: &'c [Change<'c, Ingress>],
    pub(super) services: &'c [&'c Key],
    pub(super) secrets: &'c [&'c Key],
    /// Hosts that have a certificate now and had none, or the other way round.
    pub(super) certified: Vec<HostPattern>,
}

/// Ingresses that must be looked at together, and all hosts that they have or had, with their other names.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) ingresses: BTreeSet<Key>,
    pub(super) hosts: BTreeSet<HostPattern>,
}

/// The hosts of an Ingress.
fn hosts(ingress: &Ingress) -> BTreeSet<HostPattern> {
    let rules = ingress.spec.iter().flat_map(|spec| spec.rules.iter().flatten());
    rules.filter_map(|rule| host::parse(rule.host.as_deref().unwrap_or_default()).ok()).collect()
}

/// A name and its other name (`from-to-www-redirect`) are looked at together: what both are called here.
fn family(host: &HostPattern) -> HostPattern {
    match host {
        HostPattern::Exact(name) => HostPattern::Exact(name.trim_start_matches("www.").to_owned()),
        other => other.clone(),
    }
}

fn families(ingress: &Ingress) -> BTreeSet<HostPattern> {
    hosts(ingress).iter().map(family).collect()
}

/// That other name.
fn other_name(host: &HostPattern) -> Option<HostPattern> {
    let HostPattern::Exact(name) = host else { return None };
    let other = name.strip_prefix("www.").map_or_else(|| format!("www.{name}"), str::to_owned);
    Some(HostPattern::Exact(other))
}

/// The Services that it names.
fn services(key: &Key, ingress: &Ingress) -> BTreeSet<Key> {
    let spec = ingress.spec.as_ref();
    let rules = spec.into_iter().flat_map(|spec| spec.rules.iter().flatten());
    let paths = rules.flat_map(|rule| rule.http.iter().flat_map(|http| &http.paths));
    let default = spec.and_then(|spec| spec.default_backend.as_ref());
    let name =
        |backend: &IngressBackend| backend.service.as_ref().map(|service| service.name.as_str().into());
    let names = paths.map(|path| &path.backend).chain(default).filter_map(name);
    names.map(|name| Key { namespace: Arc::clone(&key.namespace), name }).collect()
}

/// The Secrets that its annotations name.
fn secrets(key: &Key, ingress: &Ingress) -> BTreeSet<Key> {
    let secret = |name: &str| Key { namespace: Arc::clone(&key.namespace), name: name.into() };
    named::annotated(&key.namespace, ingress).map(secret).collect()
}

impl Index {
    /// Of these Ingresses, with the annotations that their classes give them.
    pub(super) fn new<'a>(ingresses: impl Iterator<Item = &'a Arc<Ingress>>) -> Self {
        let mut index = Self::default();
        for ingress in ingresses {
            index.add(&Key::of(&ingress.metadata), ingress);
        }
        index
    }

    pub(super) fn add(&mut self, key: &Key, ingress: &Ingress) {
        for family in families(ingress) {
            self.by_family.entry(family).or_default().push(key.clone());
        }
        for service in services(key, ingress) {
            self.by_service.entry(service).or_default().push(key.clone());
        }
        for secret in secrets(key, ingress) {
            self.by_secret.entry(secret).or_default().push(key.clone());
        }
    }

    pub(super) fn remove(&mut self, key: &Key, ingress: &Ingress) {
        for family in families(ingress) {
            take_out(&mut self.by_family, &family, key);
        }
        for service in services(key, ingress) {
            take_out(&mut self.by_service, &service, key);
        }
        for secret in secrets(key, ingress) {
            take_out(&mut self.by_secret, &secret, key);
        }
    }

    /// All that these changes can touch; `None`: more than `most` Ingresses.
    pub(super) fn group(&self, objects: &Objects, changed: Changed<'_>, most: usize) -> Option<Group> {
        let Changed { ingresses, services, secrets, certified: mut names } = changed;
        let mut group = Group::default();
        let mut seen = BTreeSet::new();
        for (key, was, is) in ingresses {
            group.ingresses.insert((*key).clone());
            names.extend([was, is].into_iter().flatten().flat_map(|ingress| hosts(ingress)));
        }
        let by_service = services.iter().filter_map(|service| self.by_service.get(service));
        let by_secret = secrets.iter().filter_map(|secret| self.by_secret.get(secret));
        let mut new: Vec<&Key> = by_service.chain(by_secret).flatten().collect();
        loop {
            for name in names.drain(..) {
                let family = family(&name);
                if !seen.contains(&family) {
                    new.extend(self.by_family.get(&family).into_iter().flatten());
                    seen.insert(family);
                }
                group.hosts.extend(other_name(&name));
                group.hosts.insert(name);
            }
            let Some(key) = new.pop() else { return Some(group) };
            if group.ingresses.insert(key.clone())
                && let Some(ingress) = objects.ingresses.find(key)
            {
                names.extend(hosts(ingress));
            }
            if group.ingresses.len() > most {
                return None;
            }
        }
    }

    /// Notes which clusters these Ingresses ask for now; gives those that nobody asks for any more.
    pub(super) fn asked(
        &mut self,
        ingresses: impl Iterator<Item = ObjectRef>,
        mut asked: HashMap<ObjectRef, Vec<ClusterId>>,
    ) -> Vec<ClusterId> {
        let mut less = Vec::new();
        for ingress in ingresses {
            let new = asked.remove(&ingress).unwrap_or_default();
            for id in &new {
                *self.uses.entry(id.clone()).or_default() += 1;
            }
            less.extend(self.asked.remove(&ingress).into_iter().flatten());
            if !new.is_empty() {
                self.asked.insert(ingress, new);
            }
        }
        less.retain(|id| {
            let Some(uses) = self.uses.get_mut(id) else { return false };
            *uses -= 1;
            *uses == 0
        });
        for id in &less {
            self.uses.remove(id);
        }
        less
    }
}

fn take_out<K: Eq + std::hash::Hash>(map: &mut HashMap<K, Vec<Key>>, from: &K, key: &Key) {
    if let Some(keys) = map.get_mut(from) {
        keys.retain(|known| known != key);
        if keys.is_empty() {
            map.remove(from);
        }
    }
}
