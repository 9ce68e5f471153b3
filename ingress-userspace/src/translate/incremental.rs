//! Translation that does no work twice. Endpoints change all the time and everything else rarely: a change of
//! EndpointSlices rebuilds the clusters of the Services that they name, and shares all the rest with the snapshot before.
//! The result is the same as that of a translation from nothing: a property test compares them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::annotation::{self, Served};
use super::endpoints::Slices;
use super::problems::Problems;
use super::secret::Parsed;
use super::service::{Backends, Wanted};
use super::{Settings, class, ingress, node, tls, vip, vip_routes};
use crate::model::{Cluster, ClusterId, Problem, Shared, Snapshot};
use crate::source::{Key, Objects};

/// Translates one state of the objects after the other.
#[derive(Debug)]
pub struct Translator {
    settings: Settings,
    parsed: Parsed,
    slices: Slices,
    frame: Option<Frame>,
    was_incremental: bool,
    clusters: Shared<BTreeMap<ClusterId, Arc<Cluster>>>,
    /// Of endpoints, by the cluster in which they were found.
    cluster_problems: BTreeMap<ClusterId, Vec<Problem>>,
}

/// All that does not depend on EndpointSlices.
#[derive(Debug)]
struct Frame {
    /// What it was made of.
    objects: Objects,
    /// When one of the certificates expires, that is to be said.
    good_until: i64,
    /// Without clusters.
    snapshot: Snapshot,
    problems: Vec<Problem>,
    wanted: BTreeMap<ClusterId, Wanted>,
}

impl Translator {
    /// Has seen nothing yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            parsed: Parsed::default(),
            slices: Slices::default(),
            frame: None,
            was_incremental: false,
            clusters: Shared::default(),
            cluster_problems: BTreeMap::new(),
        }
    }

    /// Translates `objects` at the time `now` (seconds since 1970).
    pub fn translate(&mut self, objects: &Objects, now: i64) -> (Arc<Snapshot>, Arc<Vec<Problem>>) {
        self.settings.now = now;
        let touched = self.slices.update(&objects.endpoint_slices);
        let before = self.frame.take();
        self.was_incremental = false;
        let frame = match before {
            Some(frame) if now <= frame.good_until && frame.objects.differ_only_in_slices(objects) => {
                self.was_incremental = true;
                for service in &touched {
                    for (id, wanted) in frame.wanted.range(ports_of(service)) {
                        self.build(id, wanted);
                    }
                }
                frame
            }
            before => {
                let frame = self.frame(objects, before.as_ref());
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
        for problem in frame.problems.iter().chain(self.cluster_problems.values().flatten()) {
            problems.push(problem.clone());
        }
        self.frame = Some(Frame { objects: objects.clone(), ..frame });
        (Arc::new(snapshot), Arc::new(problems.into_sorted()))
    }

    /// Whether the last translation built only clusters whose endpoints changed.
    pub fn was_incremental(&self) -> bool {
        self.was_incremental
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
    fn frame(&mut self, objects: &Objects, before: Option<&Frame>) -> Frame {
        let settings = &self.settings;
        let mut problems = Problems::default();
        for problem in objects.problems.iter() {
            problems.push(problem.clone());
        }
        let classes = class::Classes::new(objects, settings, &mut problems);
        let owned = classes.owned(objects, &mut problems);
        let vips = vip::Vips::new(objects, settings, &classes, &owned, &mut problems);
        let served = annotation::served(owned, objects, &mut problems);
        let (certificates, good_until) =
            tls::certificates(objects, settings, &served, &mut self.parsed, &mut problems);
        self.parsed.sweep();
        let mut backends = Backends::new(objects, node::zone(objects, settings.node.as_deref()));
        let (routes, vip_routes) = vip_routes::tables(&served, &vips, &mut problems, |some, problems| {
            ingress::routes(some, settings, &certificates, &mut backends, problems)
        });
        let addresses = |Served { owned, .. }: &Served| (owned.reference.clone(), vips.of(owned));
        let ingresses = served.iter().map(addresses).collect();
        let (vips, own_statuses) = vips.into_parts();
        let mut snapshot = Snapshot {
            downstream: classes.downstream(&settings.ingress_class),
            nodes: node::nodes(objects, &mut problems),
            routes,
            vip_routes,
            clusters: Shared::default(),
            certificates: certificates.into(),
            ingresses,
            own_statuses: own_statuses.into(),
            vips,
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
            good_until,
            snapshot,
            problems: problems.into_sorted(),
            wanted: backends.into_wanted(),
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
