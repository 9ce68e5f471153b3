//! Which endpoint gets a request: power of two choices on the fewest requests in flight. One [`Balancer`] a worker,
//! used by both engines; its state is keyed by the cluster and survives new snapshots. No IO.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use crate::model::Cluster;

use super::retry::Budget;
use super::{Backend, ClusterKey};

/// A worker's balancing state.
#[derive(Debug, Default)]
pub struct Balancer {
    /// By [`ClusterKey`].
    clusters: RefCell<Vec<Option<Rc<ClusterState>>>>,
    random: Rc<Random>,
}

/// A worker's view of one cluster. Engines keep it for the time of a request, so that a retry needs no second look-up
/// and sees the endpoints of the newest snapshot.
#[derive(Debug)]
pub struct ClusterState {
    /// Its key.
    pub key: ClusterKey,
    /// How many of its requests may be sent again.
    pub budget: Budget,
    random: Rc<Random>,
    inner: RefCell<Inner>,
}

#[derive(Debug)]
struct Inner {
    source: Arc<Cluster>,
    endpoints: Vec<Rc<EndpointState>>,
}

#[derive(Debug)]
struct EndpointState {
    address: SocketAddr,
    in_flight: Cell<u32>,
}

/// A chosen endpoint. It counts as one request in flight until this is dropped.
#[derive(Debug)]
pub struct InFlight(Rc<EndpointState>);

impl InFlight {
    /// Where to connect.
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
    }
}

impl Balancer {
    /// The state of a cluster, brought up to date with `backend`.
    pub fn cluster(&self, backend: &Backend) -> Rc<ClusterState> {
        let index = backend.key.0 as usize;
        let mut clusters = self.clusters.borrow_mut();
        if clusters.len() <= index {
            clusters.resize(index + 1, None);
        }
        if let Some(state) = &clusters[index] {
            state.update(&backend.cluster);
            return Rc::clone(state);
        }
        let state = Rc::new(ClusterState::new(backend, Rc::clone(&self.random)));
        clusters[index] = Some(Rc::clone(&state));
        state
    }

    /// Picks an endpoint of a cluster that is not in `tried`. `None`: there is none (left).
    pub fn pick(&self, backend: &Backend, tried: &[SocketAddr]) -> Option<InFlight> {
        self.cluster(backend).pick(tried)
    }
}

impl ClusterState {
    fn new(backend: &Backend, random: Rc<Random>) -> Self {
        let source = Arc::clone(&backend.cluster);
        let endpoints = endpoint_states(&source, &[]);
        Self {
            key: backend.key,
            budget: Budget::default(),
            random,
            inner: RefCell::new(Inner { source, endpoints }),
        }
    }

    fn update(&self, cluster: &Arc<Cluster>) {
        // Asked for every request: unchanged clusters are shared between snapshots.
        if Arc::ptr_eq(&self.inner.borrow().source, cluster) {
            return;
        }
        let mut inner = self.inner.borrow_mut();
        let kept = if inner.source.id == cluster.id { inner.endpoints.as_slice() } else { &[] };
        inner.endpoints = endpoint_states(cluster, kept);
        inner.source = Arc::clone(cluster);
    }

    /// Picks an endpoint that is not in `tried`. `None`: there is none (left).
    pub fn pick(&self, tried: &[SocketAddr]) -> Option<InFlight> {
        let inner = self.inner.borrow();
        let endpoints = inner.endpoints.as_slice();
        let chosen = if tried.is_empty() {
            self.pick_of(endpoints.len(), |i| &endpoints[i])?
        } else {
            let left: Vec<&Rc<EndpointState>> =
                endpoints.iter().filter(|endpoint| !tried.contains(&endpoint.address)).collect();
            self.pick_of(left.len(), |i| left[i])?
        };
        chosen.in_flight.set(chosen.in_flight.get() + 1);
        Some(InFlight(Rc::clone(chosen)))
    }

    /// Whether there is no endpoint at all (503 rather than 502).
    pub fn is_empty(&self) -> bool {
        self.inner.borrow().endpoints.is_empty()
    }

    fn pick_of<'e>(
        &self,
        len: usize,
        at: impl Fn(usize) -> &'e Rc<EndpointState>,
    ) -> Option<&'e Rc<EndpointState>> {
        match len {
            0 => None,
            1 => Some(at(0)),
            _ => {
                let (i, j) = self.random.two_below(len as u32);
                let (a, b) = (at(i as usize), at(j as usize));
                Some(if b.in_flight.get() < a.in_flight.get() { b } else { a })
            }
        }
    }
}

fn endpoint_states(cluster: &Cluster, kept: &[Rc<EndpointState>]) -> Vec<Rc<EndpointState>> {
    let state = |address: SocketAddr| {
        // Both lists are in address order (`Cluster::endpoints`).
        match kept.binary_search_by_key(&address, |endpoint| endpoint.address) {
            Ok(index) => Rc::clone(&kept[index]),
            Err(_) => Rc::new(EndpointState { address, in_flight: Cell::new(0) }),
        }
    };
    cluster.endpoints.iter().map(|endpoint| state(endpoint.address)).collect()
}

/// `SplitMix64`: quick, good enough to spread load, not secret.
#[derive(Debug)]
struct Random(Cell<u64>);

impl Default for Random {
    fn default() -> Self {
        use std::hash::{BuildHasher as _, RandomState};
        Self(Cell::new(RandomState::new().hash_one(0_u8)))
    }
}

impl Random {
    fn next(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Two different numbers below `n`, which is at least 2.
    fn two_below(&self, n: u32) -> (u32, u32) {
        let bits = self.next();
        let below = |word: u64, n: u32| (((word & 0xffff_ffff) * u64::from(n)) >> 32) as u32;
        let first = below(bits, n);
        let step = below(bits >> 32, n - 1) + 1;
        (first, (first + step) % n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ClusterId, Endpoint};

    fn address(last: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], last))
    }

    fn backend(service: &str, ports: &[u16]) -> Backend {
        let endpoints = ports.iter().map(|&port| Endpoint { address: address(port), node: None }).collect();
        let id = ClusterId { namespace: "n".into(), service: service.into(), port: 80 };
        Backend { key: ClusterKey(3), cluster: Arc::new(Cluster { id, endpoints }) }
    }

    #[test]
    fn nothing_to_pick_from() {
        let balancer = Balancer::default();
        assert!(balancer.pick(&backend("a", &[]), &[]).is_none());
        assert!(balancer.cluster(&backend("a", &[])).is_empty());
        assert!(balancer.pick(&backend("b", &[1]), &[address(1)]).is_none());
    }

    #[test]
    fn requests_in_flight_are_spread() {
        let (balancer, backend) = (Balancer::default(), backend("a", &[1, 2, 3, 4]));
        let held: Vec<InFlight> = (0..400).map(|_| balancer.pick(&backend, &[]).unwrap()).collect();
        for port in 1..=4 {
            let count = held.iter().filter(|picked| picked.address() == address(port)).count();
            assert!((90..=110).contains(&count), "{port}: {count}");
        }
        drop(held);
        let state = balancer.cluster(&backend);
        assert!(state.inner.borrow().endpoints.iter().all(|endpoint| endpoint.in_flight.get() == 0));
    }

    #[test]
    fn tried_endpoints_are_left_out() {
        let (balancer, backend) = (Balancer::default(), backend("a", &[1, 2, 3]));
        for _ in 0..50 {
            let picked = balancer.pick(&backend, &[address(1), address(3)]).unwrap();
            assert_eq!(picked.address(), address(2));
        }
    }

    #[test]
    fn a_new_snapshot_keeps_what_is_known_and_a_kept_state_sees_it() {
        let balancer = Balancer::default();
        let state = balancer.cluster(&backend("a", &[1]));
        let held = state.pick(&[]).unwrap();
        balancer.cluster(&backend("a", &[1, 2]));
        for _ in 0..50 {
            // Endpoint 1 is busy and 2 is not.
            assert_eq!(state.pick(&[]).unwrap().address(), address(2));
        }
        balancer.cluster(&backend("a", &[2]));
        assert_eq!(held.address(), address(1), "a removed endpoint lives on with its last request");
    }

    #[test]
    fn two_below_gives_two_different_numbers() {
        let random = Random::default();
        for n in 2..20 {
            let (a, b) = random.two_below(n);
            assert!(a != b && a < n && b < n);
        }
    }
}
