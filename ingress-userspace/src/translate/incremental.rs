//! Translation that does no work twice. A change of EndpointSlices rebuilds the clusters of the Services that they name, one
//! of Ingresses, Services or Secrets the hosts and certificates of those that hang together (`patch`); all the rest is shared
//! with the snapshot before.
//! The result is the same as that of a translation from nothing: a property test compares them.

mod index;
mod patch;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::annotation::{self, Served};
use super::endpoints::Slices;
use super::problems::Problems;
use super::service::{Backends, Wanted};
use super::{Settings, class, ingress, node, tls, vip, vip_routes};
use crate::model::{Cluster, ClusterId, Problem, Scope, Shared, Snapshot, Target};
use crate::source::{Key, Objects};
use index::Index;
use patch::Patched;

/// Translates one state of the objects after the other.
#[derive(Debug)]
pub struct Translator {
    settings: Settings,
    slices: Slices,
    frame: Option<Frame>,
    scope: Scope,
    clusters: Shared<BTreeMap<ClusterId, Arc<Cluster>>>,
    /// Of endpoints, by the cluster in which they were found.
    cluster_problems: BTreeMap<ClusterId, Vec<Problem>>,
}

/// All that does not depend on EndpointSlices.
#[derive(Debug)]
struct Frame {
    /// What it was made of.
    objects: Objects,
    /// Without clusters.
    snapshot: Snapshot,
    /// Those of Ingresses, but for what is wrong with their certificates.
    ingress_problems: Vec<Problem>,
    other_problems: Vec<Problem>,
    wanted: BTreeMap<ClusterId, Wanted>,
    classes: class::Classes,
    vips: vip::Vips,
    tls: tls::Table,
    /// Of our own node.
    zone: Option<String>,
    index: Index,
}

impl Translator {
    /// Has seen nothing yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            slices: Slices::default(),
            frame: None,
            scope: Scope::default(),
            clusters: Shared::default(),
            cluster_problems: BTreeMap::new(),
        }
    }

    /// Translates `objects` at the time `now` (seconds since 1970).
    pub fn translate(&mut self, objects: &Objects, now: i64) -> (Arc<Snapshot>, Arc<Vec<Problem>>) {
        self.settings.now = now;
        let touched = self.slices.update(&objects.endpoint_slices);
        let mut before = self.frame.take();
        let patched = before.as_mut().and_then(|frame| {
            if !frame.objects.differ_only_in_routes(objects) {
                return None;
            }
            frame.patch(objects, &self.settings)
        });
        self.scope = match &before {
            Some(frame) if patched.is_some() && frame.objects.differ_only_in_slices(objects) => {
                Scope::Endpoints
            }
            Some(_) if patched.is_some() => Scope::Routes,
            _ => Scope::Everything,
        };
        let frame = match (before, patched) {
            (Some(frame), Some(Patched { changed, gone })) => {
                for id in &gone {
                    self.clusters.remove(id);
                    self.cluster_problems.remove(id);
                }
                let of_slices = touched.iter().flat_map(|service| frame.wanted.range(ports_of(service)));
                let changed = changed.iter().filter_map(|id| frame.wanted.get_key_value(id));
                for (id, wanted) in of_slices.chain(changed) {
                    self.build(id, wanted);
                }
                frame
            }
            (mut before, _) => {
                let frame = self.frame(objects, before.as_mut());
                let known = before.map(|before| before.wanted).unwrap_or_default();
                for (id, wanted) in &frame.wanted {
                    let is_touched = || touched.contains(&Key::new(&id.namespace, &id.service));
                    if known.get(id) != Some(wanted) || is_touched() {
                        self.build(id, wanted);
                    }
                }
                if known.keys().any(|id| !frame.wanted.contains_key(id)) {
                    self.clusters.retain(|id, _| frame.wanted.contains_key(id));
                    self.cluster_problems.retain(|id, _| frame.wanted.contains_key(id));
                }
                frame
            }
        };
        let snapshot = Snapshot { clusters: self.clusters.clone(), ..frame.snapshot.clone() };
        let mut problems = Problems::default();
        let Frame { ingress_problems, other_problems, tls, .. } = &frame;
        let of_clusters = self.cluster_problems.values().flatten();
        let of_objects = ingress_problems.iter().chain(other_problems).chain(tls.problems());
        for problem in of_objects.chain(of_clusters) {
            problems.push(problem.clone());
        }
        self.frame = Some(Frame { objects: objects.clone(), ..frame });
        (Arc::new(snapshot), Arc::new(problems.into_sorted()))
    }

    /// How much the last translation had to look at.
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// Brings one cluster up to date.
    fn build(&mut self, id: &ClusterId, wanted: &Wanted) {
        let mut problems = Problems::default();
        let cluster = wanted.cluster(id, &self.slices, &mut problems);
        let problems = problems.into_sorted();
        if problems.is_empty() {
            self.cluster_problems.remove(id);
        } else {
            self.cluster_problems.insert(id.clone(), problems);
        }
        if self.clusters.get(id).is_none_or(|known| **known != cluster) {
            self.clusters.insert(id.clone(), Arc::new(cluster));
        }
    }

    /// Everything but the clusters; what is equal to `before` is shared with it.
    fn frame(&self, objects: &Objects, before: Option<&mut Frame>) -> Frame {
        let settings = &self.settings;
        let mut problems = Problems::default();
        for problem in objects.problems.iter() {
            problems.push(problem.clone());
        }
        let classes = class::Classes::new(objects, settings, &mut problems);
        let mut of_ingresses = Problems::default();
        let owned = classes.owned(objects, &mut of_ingresses);
        let vips = vip::Vips::new(objects, settings, &classes, &owned, &mut problems);
        let served = annotation::served(owned, objects, &mut of_ingresses);
        let (mut before, mut certificates) = (before, Shared::default());
        let known = before.as_mut().map(|before| std::mem::take(&mut before.tls));
        let mut tls = known.unwrap_or_default().emptied();
        for Served { owned, .. } in &served {
            tls.put(&Key::of(&owned.ingress.metadata), &owned.ingress, objects);
        }
        tls.settle(settings.now, &mut certificates);
        let zone = node::zone(objects, settings.node.as_deref());
        let mut backends = Backends::new(objects, zone.clone());
        let (routes, vip_routes) = vip_routes::tables(&served, &vips, &mut of_ingresses, |some, problems| {
            ingress::routes(some, settings, &tls, &mut backends, problems)
        });
        let addresses = |Served { owned, .. }: &Served| (owned.reference.clone(), vips.of(owned));
        let ingresses = served.iter().map(addresses).collect();
        let (wanted, asked) = backends.into_parts();
        let mut index = Index::new(served.iter().map(|Served { owned, .. }| &owned.ingress));
        index.asked(served.iter().map(|Served { owned, .. }| owned.reference.clone()), asked);
        let (all_vips, own_statuses) = vips.parts();
        let mut snapshot = Snapshot {
            downstream: classes.downstream(&settings.ingress_class),
            nodes: node::nodes(objects, &mut problems),
            routes,
            vip_routes,
            clusters: Shared::default(),
            certificates,
            ingresses,
            own_statuses: own_statuses.into(),
            vips: all_vips,
        };
        if let Some(Frame { snapshot: before, .. }) = before {
            snapshot.routes = snapshot.routes.or_same_as(&before.routes);
            snapshot.vip_routes = snapshot.vip_routes.or_same_as(&before.vip_routes);
            snapshot.certificates = snapshot.certificates.or_same_as(&before.certificates);
            snapshot.own_statuses = snapshot.own_statuses.or_same_as(&before.own_statuses);
            snapshot.ingresses = snapshot.ingresses.or_same_as(&before.ingresses);
        }
        Frame {
            objects: objects.clone(),
            snapshot,
            ingress_problems: of_ingresses.into_sorted(),
            other_problems: problems.into_sorted(),
            wanted,
            classes,
            vips,
            tls,
            zone,
            index,
        }
    }
}

impl Frame {
    /// Where requests go that no rule matches.
    fn default_cluster(&self) -> Option<&ClusterId> {
        match &self.snapshot.routes.default.as_ref()?.target {
            Target::Cluster(id) => Some(id),
            Target::Missing => None,
        }
    }
}

/// The clusters that a Service can have.
fn ports_of(service: &Key) -> std::ops::RangeInclusive<ClusterId> {
    let id = |port, by_service| ClusterId {
        namespace: Arc::clone(&service.namespace),
        service: Arc::clone(&service.name),
        port,
        by_service,
    };
    id(0, false)..=id(u16::MAX, true)
}
