//! A change of a few Ingresses, Services or Secrets: only those Ingresses are translated anew that share hosts with them, or
//! whose hosts got or lost a certificate, and their hosts take the place of the former ones. Where more can hang on a change
//! (VIPs, classes, the default for all hosts) this declines, and `incremental` translates everything.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::networking::v1::Ingress;

use super::Frame;
use super::index::Changed;
use crate::model::{ClusterId, HostPattern, Kind, ObjectRef, RouteTable, Shared};
use crate::source::{Change, Key, Objects};
use crate::translate::annotation::{self, Served};
use crate::translate::order::oldest_first;
use crate::translate::problems::Problems;
use crate::translate::service::Backends;
use crate::translate::{Settings, class, host, ingress, vip, vip_routes};

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
    /// Brings all but the clusters up to date; `None`: all must be translated. What else has changed than Ingresses, Services,
    /// Secrets and EndpointSlices, the caller has looked at.
    pub(super) fn patch(&mut self, objects: &Objects, settings: &Settings) -> Option<Patched> {
        let before = self.objects.clone();
        let ingresses = objects.ingresses.changes(&before.ingresses);
        let services: Vec<&Key> =
            objects.services.changes(&before.services).into_iter().map(|(key, ..)| key).collect();
        let secrets = objects.secrets.changes(&before.secrets);
        let of_all = settings.default_backend.as_ref();
        let is_of_all = |key: &Key| {
            of_all.is_some_and(|all| *key.namespace == *all.namespace && *key.name == *all.service)
        };
        if ingresses.len() + services.len() + secrets.len() > MANY
            || services.iter().any(|key| is_of_all(key))
            || !ingresses.iter().all(|(_, was, is)| touches_hosts_alone(was.map(|w| &**w), is.map(|i| &**i)))
        {
            return None;
        }
        let certified = self.certify(objects, &ingresses, &secrets, settings.now)?;
        let secrets: Vec<&Key> = secrets.into_iter().map(|(key, ..)| key).collect();
        let changed = Changed { ingresses: &ingresses, services: &services, secrets: &secrets, certified };
        let group = self.index.group(objects, changed, MANY)?;
        if group.ingresses.is_empty() {
            return Some(Patched::default());
        }
        let members = oldest_first(group.ingresses.iter().filter_map(|key| objects.ingresses.find(key)));
        if members.iter().any(|ingress| !has_rules(ingress)) {
            return None;
        }

        let mut problems = Problems::default();
        let owned = members.into_iter().filter_map(|ingress| self.classes.own(ingress, &mut problems));
        let owned = owned.collect();
        let served = annotation::served(owned, objects, &mut problems);
        let by_vip = self.vips.holders();
        // Where all VIPs have the same holders, whether they need tables of their own hangs on all Ingresses.
        let are_apart = by_vip.values().collect::<BTreeSet<_>>().len() > 1;
        let is_everywhere = |one: &Served| {
            let holder = self.vips.holder(&one.owned);
            by_vip.values().all(|set| holder.as_ref().is_some_and(|holder| set.contains(holder)))
        };
        let are_one = self.snapshot.vip_routes.is_empty() && served.iter().all(is_everywhere);
        if !are_apart && !are_one {
            return None;
        }
        let mut backends = Backends::new(objects, self.zone.clone());
        let settings = Settings { default_backend: None, ..settings.clone() };
        let (table, vip_tables) = vip_routes::tables(&served, &self.vips, &mut problems, |some, problems| {
            ingress::routes(some, &settings, &self.tls, &mut backends, problems)
        });

        put_hosts(&mut self.snapshot.routes, &group.hosts, &table);
        self.put_vip_hosts(&group.hosts, &vip_tables);
        self.put_problems(&group.ingresses, problems);
        for (key, was, _) in &ingresses {
            let known = was.and_then(|was| self.classes.own(was, &mut Problems::default()));
            if let Some(known) = known {
                self.index.remove(key, &known.ingress);
            }
        }
        let reference = |key: &Key| ObjectRef::new(Kind::Ingress, &*key.namespace, &*key.name);
        let changed: BTreeSet<&Key> = ingresses.iter().map(|(key, ..)| *key).collect();
        let mut addresses: BTreeMap<ObjectRef, _> = BTreeMap::new();
        for one in &served {
            let key = Key::of(&one.owned.ingress.metadata);
            if changed.contains(&key) {
                self.index.add(&key, &one.owned.ingress);
            }
            addresses.insert(one.owned.reference.clone(), self.vips.of(&one.owned));
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

    /// Brings the certificates up to date. Gives the hosts that have one now and had none, or the other way round; `None`: too
    /// many Ingresses name what has changed.
    fn certify(
        &mut self,
        objects: &Objects,
        ingresses: &[Change<'_, Ingress>],
        secrets: &[Change<'_, Secret>],
        now: i64,
    ) -> Option<Vec<HostPattern>> {
        let mut again = BTreeSet::new();
        for (key, _, is) in secrets {
            again.extend(self.tls.reread(key, *is));
        }
        if again.len() > MANY {
            return None;
        }
        for key in &again {
            if let Some(ingress) = objects.ingresses.find(key) {
                self.tls.put(key, ingress, objects);
            }
        }
        for (key, _, is) in ingresses {
            match is.filter(|is| self.owns(is)) {
                Some(is) => self.tls.put(key, is, objects),
                None => self.tls.remove(key),
            }
        }
        let changed = self.tls.settle(now, &mut self.snapshot.certificates);
        let mut hosts: Vec<HostPattern> = Vec::new();
        for name in changed {
            if matches!(name, HostPattern::Wildcard(_)) {
                let known = self.snapshot.routes.hosts.keys();
                hosts.extend(known.filter(|known| host::covers(&name, known)).cloned());
            }
            hosts.push(name);
        }
        Some(hosts)
    }

    /// Whether an Ingress is ours.
    fn owns(&self, ingress: &Arc<Ingress>) -> bool {
        self.classes.own(ingress, &mut Problems::default()).is_some()
    }

    /// The same as `put_hosts` where each VIP has a table: those that had one table have one afterwards.
    fn put_vip_hosts(
        &mut self,
        names: &BTreeSet<HostPattern>,
        tables: &BTreeMap<IpAddr, Shared<RouteTable>>,
    ) {
        let mut done: Vec<(Shared<RouteTable>, Shared<RouteTable>)> = Vec::new();
        for (vip, table) in tables {
            let Some(was) = self.snapshot.vip_routes.get(vip).cloned() else { continue };
            let known = done.iter().find(|(before, _)| before.is(&was)).map(|(_, now)| now.clone());
            let now = known.unwrap_or_else(|| {
                let mut now = was.clone();
                put_hosts(&mut now, names, table);
                done.push((was.clone(), now.clone()));
                now
            });
            if !now.is(&was) {
                self.snapshot.vip_routes.insert(*vip, now);
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

/// These hosts of `table` are now what `new` says; equal ones stay the same memory.
fn put_hosts(table: &mut Shared<RouteTable>, names: &BTreeSet<HostPattern>, new: &RouteTable) {
    debug_assert!(new.hosts.keys().all(|host| names.contains(host)), "the group does not know all hosts");
    let changes: Vec<_> = names.iter().filter(|name| table.hosts.get(name) != new.hosts.get(name)).collect();
    // Not even a copy where nothing changes.
    if changes.is_empty() {
        return;
    }
    let known = &mut table.hosts;
    for name in changes {
        match new.hosts.get(name) {
            Some(is) => drop(known.insert(name.clone(), is.clone())),
            None => drop(known.remove(name)),
        }
    }
}

fn has_rules(ingress: &Ingress) -> bool {
    ingress.spec.as_ref().and_then(|spec| spec.rules.as_ref()).is_some_and(|rules| !rules.is_empty())
}

/// Whether nothing hangs on the change but the hosts and certificates of the Ingress: no VIP, and it is not the default for
/// all hosts.
fn touches_hosts_alone(was: Option<&Ingress>, is: Option<&Ingress>) -> bool {
    let both = || [was, is].into_iter().flatten();
    let asks = |ingress: &Ingress| {
        let annotations = ingress.metadata.annotations.as_ref();
        [vip::ADDRESS, vip::ADDRESS_POOL].map(|name| annotations.and_then(|all| all.get(name)).cloned())
    };
    let keeps_its_vips = match (was, is) {
        (Some(was), Some(is)) if asks(was) != [None, None] => {
            asks(was) == asks(is) && keeps_its_place(was, is)
        }
        _ => both().all(|ingress| asks(ingress) == [None, None]),
    };
    keeps_its_vips && both().all(has_rules)
}

/// Whether it is as old as before, of the same class, and the same to whoever selects it.
fn keeps_its_place(was: &Ingress, is: &Ingress) -> bool {
    let class = |ingress: &Ingress| {
        let named = ingress.spec.as_ref().and_then(|spec| spec.ingress_class_name.clone());
        let annotations = ingress.metadata.annotations.as_ref();
        (named, annotations.and_then(|all| all.get(class::LEGACY)).cloned())
    };
    was.metadata.creation_timestamp == is.metadata.creation_timestamp
        && was.metadata.labels == is.metadata.labels
        && class(was) == class(is)
}
