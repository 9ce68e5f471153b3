//! What the workers serve right now: a snapshot compiled for look-up. [`Compiler`] makes one off the workers' threads,
//! [`Shared`] hands it over; workers look at nothing but a generation number per request.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

use crate::model::{
    self, CanaryValue, Certificate, Cluster, ClusterId, Downstream, Filters, ObjectRef, Route, RouteTable,
    Snapshot, Target,
};

use super::balance::Load;
use super::router::{CanaryEntry, RouteEntry, Router};
use super::stats::{IngressSlot, MAX_INGRESSES};
use super::tls::Certificates;
use super::upstream::transport::Transports;

/// A cluster's number: stable over snapshots, dense, so that workers keep their state in plain arrays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterKey(pub(super) u32);

impl ClusterKey {
    /// The index of its state in an array.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A cluster with its number.
#[derive(Debug, Clone)]
pub struct Backend {
    /// Stable over snapshots.
    pub key: ClusterKey,
    /// Its endpoints.
    pub cluster: Arc<Cluster>,
    /// Requests of all workers, of routes that limit them.
    pub load: Arc<Load>,
}

/// One generation, immutable.
#[derive(Debug, Default)]
pub struct Live {
    /// Grows by one with each published snapshot.
    pub generation: u64,
    /// Hosts and paths, of all classes.
    pub router: Arc<Router>,
    /// What VIPs serve in its place.
    pub(super) by_vip: HashMap<IpAddr, Arc<Router>>,
    /// How clients are understood: by VIP, if that is not everywhere the same, and elsewhere.
    pub(super) downstreams: HashMap<IpAddr, Option<Arc<Downstream>>>,
    pub(super) downstream: Option<Arc<Downstream>>,
    /// What `router` and `by_vip` were made of.
    pub(super) source:
        (model::Shared<RouteTable>, model::Shared<BTreeMap<IpAddr, model::Shared<RouteTable>>>),
    /// What the TLS listeners show.
    pub certificates: Arc<Certificates>,
    /// What `certificates` was made of.
    pub(super) certificates_source: model::Shared<Vec<Arc<Certificate>>>,
    /// What `backends` was made of.
    pub(super) clusters: model::Shared<BTreeMap<ClusterId, Arc<Cluster>>>,
    /// By [`ClusterKey`].
    pub(super) backends: Vec<Option<Backend>>,
}

impl Live {
    /// The routes that clients reach through `local`, an address of ours.
    pub fn router_at(&self, local: IpAddr) -> &Router {
        if self.by_vip.is_empty() {
            return &self.router;
        }
        self.by_vip.get(&local).unwrap_or(&self.router)
    }

    /// How the clients of `local`, an address of ours, are understood. `None`: as everywhere.
    pub fn downstream_at(&self, local: IpAddr) -> Option<&Downstream> {
        if self.downstreams.is_empty() {
            return self.downstream.as_deref();
        }
        self.downstreams.get(&local).unwrap_or(&self.downstream).as_deref()
    }

    /// The backend of that number; `None` if the snapshot has no such cluster.
    pub fn backend(&self, key: ClusterKey) -> Option<&Backend> {
        self.backends.get(key.index())?.as_ref()
    }
}

/// Turns snapshots into [`Live`]s, and remembers which numbers clusters and Ingresses got.
#[derive(Debug, Default)]
pub struct Compiler {
    clusters: HashMap<ClusterId, ClusterKey>,
    ingresses: HashMap<ObjectRef, IngressSlot>,
    transports: Transports,
}

impl Compiler {
    /// Compiles. What did not change since `previous` is shared with it.
    pub fn compile(&mut self, snapshot: &Snapshot, previous: &Live) -> Live {
        let Self { clusters, ingresses, transports } = self;
        let mut compile =
            |table: &model::Shared<RouteTable>, source: &model::Shared<RouteTable>, old: &Arc<Router>| {
                // Most changes are changes of endpoints: nothing to look at then.
                if table.is(source) {
                    return Arc::clone(old);
                }
                Arc::new(Router::compile(table, source, old, |route| {
                    entry(clusters, ingresses, transports, route)
                }))
            };
        let (routes, vip_routes) = &previous.source;
        let router = compile(&snapshot.routes, routes, &previous.router);
        let by_vip = snapshot.vip_routes.iter().map(|(vip, table)| {
            let (source, old) = match (vip_routes.get(vip), previous.by_vip.get(vip)) {
                (Some(source), Some(old)) => (source, old),
                // A VIP that is new may serve what another one did.
                _ => (routes, &previous.router),
            };
            (*vip, compile(table, source, old))
        });
        let by_vip = by_vip.collect();
        let backends = backends(clusters, snapshot, previous);
        let certificates = if snapshot.certificates.is(&previous.certificates_source) {
            Arc::clone(&previous.certificates)
        } else {
            Arc::new(Certificates::compile(&snapshot.certificates, &previous.certificates))
        };
        Live {
            generation: previous.generation + 1,
            router,
            by_vip,
            downstreams: downstreams(snapshot),
            downstream: snapshot.downstream.clone(),
            source: (snapshot.routes.clone(), snapshot.vip_routes.clone()),
            clusters: snapshot.clusters.clone(),
            certificates,
            certificates_source: snapshot.certificates.clone(),
            backends,
        }
    }

    /// The Ingresses that are counted one by one.
    pub fn ingress_slots(&self) -> impl Iterator<Item = (&ObjectRef, IngressSlot)> {
        self.ingresses.iter().map(|(ingress, slot)| (ingress, *slot))
    }
}

/// Of all VIPs, if one of them differs from what holds elsewhere.
fn downstreams(snapshot: &Snapshot) -> HashMap<IpAddr, Option<Arc<Downstream>>> {
    if snapshot.vips.iter().all(|vip| vip.downstream == snapshot.downstream) {
        return HashMap::new();
    }
    snapshot.vips.iter().map(|vip| (vip.address, vip.downstream.clone())).collect()
}

/// The backends by number. Most changes are of the endpoints of one cluster: all others are taken over from `previous`.
fn backends(
    numbers: &HashMap<ClusterId, ClusterKey>,
    snapshot: &Snapshot,
    previous: &Live,
) -> Vec<Option<Backend>> {
    let put = |backends: &mut Vec<Option<Backend>>, id: &ClusterId, cluster: &Arc<Cluster>| {
        // A cluster that no route leads to needs no number.
        if let Some(&key) = numbers.get(id) {
            let known = previous.backend(key).map(|backend| Arc::clone(&backend.load));
            let load = known.unwrap_or_default();
            backends[key.index()] = Some(Backend { key, cluster: Arc::clone(cluster), load });
        }
    };
    let (old, new) = (&previous.clusters, &snapshot.clusters);
    if previous.backends.len() == numbers.len() && old.len() == new.len() {
        let mut backends = previous.backends.clone();
        let are_the_same_names = old.iter().zip(new.iter()).all(|((old_id, old), (id, cluster))| {
            // The same memory has the same name: none is compared where nothing changed.
            Arc::ptr_eq(old, cluster) || {
                put(&mut backends, id, cluster);
                old_id == id
            }
        });
        if are_the_same_names {
            return backends;
        }
    }
    let mut backends = vec![None; numbers.len()];
    for (id, cluster) in new.iter() {
        put(&mut backends, id, cluster);
    }
    backends
}

fn entry(
    clusters: &mut HashMap<ClusterId, ClusterKey>,
    ingresses: &mut HashMap<ObjectRef, IngressSlot>,
    transports: &mut Transports,
    route: &Arc<Route>,
) -> RouteEntry {
    let cluster = match &route.target {
        Target::Cluster(id) => Some(clusters.get(id).copied().unwrap_or_else(|| {
            let key = ClusterKey(clusters.len() as u32);
            clusters.insert(id.clone(), key);
            key
        })),
        Target::Missing => None,
    };
    let ingress = match ingresses.get(&route.ingress) {
        Some(slot) => *slot,
        None if ingresses.len() + 1 < MAX_INGRESSES => {
            let slot = IngressSlot(ingresses.len() as u32 + 1);
            ingresses.insert(route.ingress.clone(), slot);
            slot
        }
        None => IngressSlot::OTHER,
    };
    let upstream_name = match &route.target {
        Target::Cluster(id) => format!("{}-{}-{}", id.namespace, id.service, id.port).into(),
        Target::Missing => Box::default(),
    };
    let transport = match (&route.filters.upstream, &route.target) {
        (Some(upstream), Target::Cluster(id)) => {
            transports.of(upstream, &format!("{}.{}.svc", id.service, id.namespace))
        }
        _ => Ok(None),
    };
    // `translate` has checked what it is made of.
    let (cluster, transport) = match transport {
        Ok(transport) => (cluster, transport),
        Err(error) => {
            tracing::error!(ingress = %route.ingress, %error, "TLS to this backend is not possible; its requests get 503");
            (None, None)
        }
    };
    let canary = route.filters.canary.as_ref().map(|canary| {
        let filters = Filters { canary: None, ..route.filters.clone() };
        let to = Route { ingress: route.ingress.clone(), target: canary.target.clone(), filters };
        let pattern = match canary.header.as_ref().map(|header| &header.value) {
            // `translate` has checked it.
            Some(CanaryValue::Matching(pattern)) => model::header_regex(pattern).ok(),
            _ => None,
        };
        Box::new(CanaryEntry { entry: entry(clusters, ingresses, transports, &Arc::new(to)), pattern })
    });
    RouteEntry { route: Arc::clone(route), cluster, ingress, upstream_name, transport, regex: None, canary }
}

/// The hand-over of generations to the workers.
#[derive(Debug, Default)]
pub struct Shared {
    generation: AtomicU64,
    live: ArcSwap<Live>,
}

impl Shared {
    /// The number of the newest generation.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The newest generation.
    pub fn load(&self) -> Arc<Live> {
        self.live.load_full()
    }

    /// Makes a generation the newest.
    pub fn publish(&self, live: Arc<Live>) {
        let generation = live.generation;
        self.live.store(live);
        // After the store: who sees the number finds at least that generation.
        self.generation.store(generation, Ordering::Release);
    }
}
