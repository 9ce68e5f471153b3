//! A change of a few Ingresses or Services: only those are translated anew that share hosts with them, and their hosts take
//! the place of the former ones. Where more can hang on a change (certificates, VIPs, classes, the default for all hosts)
//! this declines, and `incremental` translates everything.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::networking::v1::Ingress;

use super::Frame;
use crate::model::{ClusterId, HostPattern, HostRoutes, Kind, ObjectRef, Shared};
use crate::source::{Key, Objects};
use crate::translate::annotation::{self, Served};
use crate::translate::ingress;
use crate::translate::order::oldest_first;
use crate::translate::problems::Problems;
use crate::translate::service::Backends;
use crate::translate::{Settings, vip};

/// More changes at once, or more Ingresses that hang together, are as quickly translated as a whole.
const MANY: usize = 500;

/// What became of the clusters.
#[derive(Debug, Default)]
pub(super) struct Patched {
    /// Wanted anew, or otherwise than before.
    pub(super) changed: Vec<ClusterId>,
    /// Nobody wants them any more.
    pub(super) gone: Vec<ClusterId>,
}

impl Frame {
    /// Brings all but the clusters up to date; `None`: nothing was done, and all must be translated. What else has changed
    /// than Ingresses, Services and EndpointSlices, the caller has looked at.
    pub(super) fn patch(&mut self, objects: &Objects, settings: &Settings) -> Option<Patched> {
        // Classes side by side: a host may be in several tables.
        if !self.snapshot.vip_routes.is_empty() {
            return None;
        }
        let before = self.objects.clone();
        let ingresses = objects.ingresses.changes(&before.ingresses);
        let services: Vec<&Key> =
            objects.services.changes(&before.services).into_iter().map(|(key, ..)| key).collect();
        let of_all = settings.default_backend.as_ref();
        let is_of_all = |key: &Key| {
            of_all.is_some_and(|all| *key.namespace == *all.namespace && *key.name == *all.service)
        };
        if ingresses.len() + services.len() > MANY
            || services.iter().any(|key| is_of_all(key))
            || !ingresses.iter().all(|(_, was, is)| touches_hosts_alone(was.map(|w| &**w), is.map(|i| &**i)))
        {
            return None;
        }
        let group = self.index.group(objects, &ingresses, &services, MANY)?;
        let members = oldest_first(group.ingresses.iter().filter_map(|key| objects.ingresses.find(key)));
        if members.iter().any(|ingress| !has_rules(ingress)) {
            return None;
        }

        let mut problems = Problems::default();
        let owned = members.into_iter().filter_map(|ingress| self.classes.own(ingress, &mut problems));
        let owned = owned.collect();
        let served = annotation::served(owned, objects, &mut problems);
        // Who is reached through other VIPs, or through none, would make tables by VIP necessary.
        let by_vip = self.vips.holders();
        if !served.iter().all(|one| {
            let holder = self.vips.holder(&one.owned);
            by_vip.values().all(|set| holder.as_ref().is_some_and(|holder| set.contains(holder)))
        }) {
            return None;
        }
        let mut backends = Backends::new(objects, self.zone.clone());
        let settings = Settings { default_backend: None, ..settings.clone() };
        let some: Vec<&Served> = served.iter().collect();
        let table = ingress::routes(&some, &settings, &self.certified, &mut backends, &mut problems);

        self.put_hosts(&group.hosts, table.hosts);
        self.put_problems(&group.ingresses, problems);
        for (key, was, _) in &ingresses {
            if let Some(was) = was {
                self.index.remove(key, was);
            }
        }
        let reference = |key: &Key| ObjectRef::new(Kind::Ingress, &*key.namespace, &*key.name);
        let mut addresses: BTreeMap<ObjectRef, _> =
            served.iter().map(|one| (one.owned.reference.clone(), self.vips.of(&one.owned))).collect();
        for (key, _, is) in &ingresses {
            if let Some(is) = is.filter(|_| addresses.contains_key(&reference(key))) {
                self.index.add(key, is);
            }
        }
        for key in &group.ingresses {
            let reference = reference(key);
            let now = addresses.remove(&reference);
            if self.snapshot.ingresses.get(&reference) != now.as_ref() {
                match now {
                    Some(now) => drop(self.snapshot.ingresses.insert(reference, now)),
                    None => drop(self.snapshot.ingresses.remove(&reference)),
                }
            }
        }
        let (wanted, asked) = backends.into_parts();
        let mut patched = Patched::default();
        for (id, wanted) in wanted {
            if self.wanted.get(&id) != Some(&wanted) {
                patched.changed.push(id.clone());
                self.wanted.insert(id, wanted);
            }
        }
        let left = self.index.asked(group.ingresses.iter().map(reference), asked);
        // Not an Ingress's alone.
        for id in left.into_iter().filter(|id| self.default_cluster() != Some(id)).collect::<Vec<_>>() {
            self.wanted.remove(&id);
            patched.gone.push(id);
        }
        Some(patched)
    }

    /// These hosts are now what `hosts` says; equal ones stay the same memory.
    fn put_hosts(
        &mut self,
        names: &BTreeSet<HostPattern>,
        mut hosts: BTreeMap<HostPattern, Shared<HostRoutes>>,
    ) {
        let known = &self.snapshot.routes.hosts;
        let changes: Vec<_> = names
            .iter()
            .filter_map(|name| {
                let is = hosts.remove(name);
                (known.get(name) != is.as_ref()).then_some((name, is))
            })
            .collect();
        debug_assert!(hosts.is_empty(), "hosts that the group does not know: {:?}", hosts.keys());
        if changes.is_empty() {
            return;
        }
        let known = &mut self.snapshot.routes.hosts;
        for (name, is) in changes {
            match is {
                Some(is) => drop(known.insert(name.clone(), is)),
                None => drop(known.remove(name)),
            }
        }
    }

    /// What was wrong with these Ingresses, certificates apart, is now what `problems` says.
    fn put_problems(&mut self, ingresses: &BTreeSet<Key>, problems: Problems) {
        let is_theirs = |object: &ObjectRef| {
            object.kind == Kind::Ingress && ingresses.contains(&Key::new(&object.namespace, &object.name))
        };
        if !self.ingress_problems.is_empty() {
            self.ingress_problems.retain(|problem| !is_theirs(&problem.object));
        }
        self.ingress_problems.extend(problems.into_sorted());
    }
}

fn has_rules(ingress: &Ingress) -> bool {
    ingress.spec.as_ref().and_then(|spec| spec.rules.as_ref()).is_some_and(|rules| !rules.is_empty())
}

/// Whether nothing hangs on the change but the hosts of the Ingress: no certificate and no VIP, and it is not the default
/// for all hosts.
fn touches_hosts_alone(was: Option<&Ingress>, is: Option<&Ingress>) -> bool {
    let both = || [was, is].into_iter().flatten();
    let has_own_vip = |ingress: &Ingress| {
        let annotations = ingress.metadata.annotations.as_ref();
        annotations
            .is_some_and(|all| [vip::ADDRESS, vip::ADDRESS_POOL].iter().any(|name| all.contains_key(*name)))
    };
    let tls = |ingress: &Ingress| ingress.spec.as_ref().and_then(|spec| spec.tls.clone()).unwrap_or_default();
    let keeps_certificates = match (was, is) {
        (Some(was), Some(is)) => tls(was).is_empty() && tls(is).is_empty() || keeps_its_place(was, is),
        (one, other) => [one, other].into_iter().flatten().all(|ingress| tls(ingress).is_empty()),
    };
    keeps_certificates && both().all(|ingress| has_rules(ingress) && !has_own_vip(ingress))
}

/// Whether it asks for the same certificates, is as old as before, and is served as before.
fn keeps_its_place(was: &Ingress, is: &Ingress) -> bool {
    let annotation = |ingress: &Ingress, name: &str| {
        ingress.metadata.annotations.as_ref().and_then(|all| all.get(name)).cloned()
    };
    let canary = format!("{}canary", annotation::NGINX);
    let legacy = crate::translate::class::LEGACY;
    let (before, now) = (was.spec.as_ref(), is.spec.as_ref());
    was.metadata.creation_timestamp == is.metadata.creation_timestamp
        && before.and_then(|spec| spec.tls.as_ref()) == now.and_then(|spec| spec.tls.as_ref())
        && before.and_then(|spec| spec.ingress_class_name.as_ref())
            == now.and_then(|spec| spec.ingress_class_name.as_ref())
        && [canary.as_str(), legacy].iter().all(|name| annotation(was, name) == annotation(is, name))
}
