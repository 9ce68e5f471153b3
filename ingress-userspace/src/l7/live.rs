//! What the workers serve right now: a snapshot compiled for look-up. [`Compiler`] makes one off the workers' threads,
//! [`Shared`] hands it over; workers look at nothing but a generation number per request.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

use crate::model::{Cluster, ClusterId, ObjectRef, Route, Snapshot, Target};

use super::router::{RouteEntry, Router};
use super::stats::{IngressSlot, MAX_INGRESSES};
use super::tls::Certificates;

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
}

/// One generation, immutable.
#[derive(Debug, Default)]
pub struct Live {
    /// Grows by one with each published snapshot.
    pub generation: u64,
    /// Hosts and paths.
    pub router: Router,
    /// What the TLS listeners show.
    pub certificates: Certificates,
    /// By [`ClusterKey`].
    pub(super) backends: Vec<Option<Backend>>,
}

impl Live {
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
}

impl Compiler {
    /// Compiles. What did not change since `previous` is shared with it.
    pub fn compile(&mut self, snapshot: &Snapshot, previous: &Live) -> Live {
        let Self { clusters, ingresses } = self;
        let router =
            Router::compile(&snapshot.routes, &previous.router, |route| entry(clusters, ingresses, route));
        let mut backends = vec![None; clusters.len()];
        for (id, cluster) in &snapshot.clusters {
            // A cluster that no route leads to needs no number.
            if let Some(&key) = clusters.get(id) {
                backends[key.index()] = Some(Backend { key, cluster: Arc::clone(cluster) });
            }
        }
        Live {
            generation: previous.generation + 1,
            router,
            certificates: Certificates::compile(&snapshot.certificates, &previous.certificates),
            backends,
        }
    }

    /// The Ingresses that are counted one by one.
    pub fn ingress_slots(&self) -> impl Iterator<Item = (&ObjectRef, IngressSlot)> {
        self.ingresses.iter().map(|(ingress, slot)| (ingress, *slot))
    }
}

fn entry(
    clusters: &mut HashMap<ClusterId, ClusterKey>,
    ingresses: &mut HashMap<ObjectRef, IngressSlot>,
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
    RouteEntry { route: Arc::clone(route), cluster, ingress }
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
