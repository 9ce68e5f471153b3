//! Which endpoint gets a request: by default power of two choices on the fewest requests in flight; what a route wants
//! instead is in its [`Choice`]. Endpoints that fail again and again are left alone for a while. One [`Balancer`] a
//! worker, used by both engines; its state is keyed by the cluster and survives new snapshots. No IO.

mod choice;
mod endpoint;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

pub use choice::{By, Choice};
use endpoint::EndpointState;

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
    /// Whose turn it is.
    turn: Cell<usize>,
    /// Until when some endpoint is left alone; `None`: none is.
    ejected_until: Cell<Option<Instant>>,
    load: Arc<Load>,
}

/// Requests to a cluster of all workers, of routes that limit them.
#[derive(Debug, Default)]
pub struct Load {
    /// Under way.
    busy: AtomicU32,
    /// Waiting for one of those to end.
    pending: AtomicU32,
}

#[derive(Debug)]
struct Inner {
    source: Arc<Cluster>,
    endpoints: Vec<Rc<EndpointState>>,
}

/// A chosen endpoint. It counts as one request in flight until this is dropped.
#[derive(Debug)]
pub struct InFlight {
    endpoint: Rc<EndpointState>,
    /// When it was chosen, if its answers are timed.
    since: Option<Instant>,
    limited: Option<Arc<Load>>,
}

/// A request's place among those that wait until fewer are under way; given up when this is dropped.
#[derive(Debug)]
pub struct Pending(Arc<Load>);

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why there is no endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoEndpoint {
    /// There is none at all.
    Empty,
    /// All were tried.
    Tried,
    /// As many requests as are allowed are under way.
    Full,
}

impl InFlight {
    /// Where to connect.
    pub fn address(&self) -> SocketAddr {
        self.endpoint.address
    }

    /// An answer has begun: the endpoint works.
    pub fn succeeded(&self) {
        self.endpoint.succeeded();
        if let Some(since) = self.since {
            let now = Instant::now();
            self.endpoint.took(now.saturating_duration_since(since).as_secs_f64(), now);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.endpoint.in_flight.set(self.endpoint.in_flight.get() - 1);
        if let Some(load) = &self.limited {
            load.busy.fetch_sub(1, Ordering::Relaxed);
        }
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
}

impl ClusterState {
    fn new(backend: &Backend, random: Rc<Random>) -> Self {
        let source = Arc::clone(&backend.cluster);
        let endpoints = endpoint_states(&source, &[]);
        // Workers and nodes begin at different places.
        let turn = Cell::new(random.next() as usize >> 1);
        let load = Arc::clone(&backend.load);
        let inner = RefCell::new(Inner { source, endpoints });
        Self {
            key: backend.key,
            budget: Budget::default(),
            random,
            inner,
            turn,
            ejected_until: Cell::new(None),
            load,
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

    /// Picks an endpoint that is not in `tried`, by `choice`.
    pub fn pick(&self, tried: &[SocketAddr], choice: Choice) -> Result<InFlight, NoEndpoint> {
        let inner = self.inner.borrow();
        let endpoints = inner.endpoints.as_slice();
        if endpoints.is_empty() {
            return Err(NoEndpoint::Empty);
        }
        let chosen = if tried.is_empty() && !self.has_ejected() {
            self.pick_of(endpoints.len(), |i| &endpoints[i], choice)
        } else {
            let now = Instant::now();
            let untried = || endpoints.iter().filter(|endpoint| !tried.contains(&endpoint.address));
            let mut left: Vec<&Rc<EndpointState>> =
                untried().filter(|endpoint| !endpoint.is_ejected(now)).collect();
            if left.is_empty() {
                left = untried().collect();
            }
            self.pick_of(left.len(), |i| left[i], choice)
        };
        let chosen = chosen.ok_or(NoEndpoint::Tried)?;
        let limited = match choice.limit {
            Some(limit) if self.load.busy.fetch_add(1, Ordering::Relaxed) >= limit.get() => {
                self.load.busy.fetch_sub(1, Ordering::Relaxed);
                return Err(NoEndpoint::Full);
            }
            limit => limit.map(|_| Arc::clone(&self.load)),
        };
        chosen.in_flight.set(chosen.in_flight.get() + 1);
        let since = (choice.by == By::Ewma).then(Instant::now);
        Ok(InFlight { endpoint: Rc::clone(chosen), since, limited })
    }

    /// A place for a request to wait in, after [`NoEndpoint::Full`]; `None`: as many as are allowed wait already.
    pub fn wait(&self, choice: Choice) -> Option<Pending> {
        let pending = Pending(Arc::clone(&self.load));
        (self.load.pending.fetch_add(1, Ordering::Relaxed) < choice.pending).then_some(pending)
    }

    /// Whether there are endpoints besides those that were tried and the one that has just failed.
    pub fn has_more(&self, tried: &[SocketAddr], failed: SocketAddr) -> bool {
        let is_left = |address| address != failed && !tried.contains(&address);
        self.inner.borrow().endpoints.iter().any(|endpoint| is_left(endpoint.address))
    }

    /// An endpoint refused the connection, or broke it off without an answer. After some of these in a row it is left
    /// alone for a while, unless half of all are already.
    pub fn failed(&self, in_flight: &InFlight) {
        if !in_flight.endpoint.failed() {
            return;
        }
        let now = Instant::now();
        let inner = self.inner.borrow();
        let ejected = inner.endpoints.iter().filter(|endpoint| endpoint.is_ejected(now)).count();
        if (ejected + 1) * 2 <= inner.endpoints.len() && !in_flight.endpoint.is_ejected(now) {
            let until = in_flight.endpoint.eject(now);
            self.ejected_until.set(self.ejected_until.get().max(Some(until)));
            tracing::warn!(cluster = %inner.source.id, endpoint = %in_flight.address(), "an endpoint fails again and again; the others get its requests for a while");
        }
    }

    fn has_ejected(&self) -> bool {
        match self.ejected_until.get() {
            Some(until) if Instant::now() < until => true,
            Some(_) => {
                self.ejected_until.set(None);
                false
            }
            None => false,
        }
    }

    fn pick_of<'e>(
        &self,
        len: usize,
        at: impl Fn(usize) -> &'e Rc<EndpointState>,
        choice: Choice,
    ) -> Option<&'e Rc<EndpointState>> {
        match (len, choice.by) {
            (0, _) => None,
            (1, _) => Some(at(0)),
            (_, By::RoundRobin) => {
                let turn = self.turn.get().wrapping_add(1);
                self.turn.set(turn);
                Some(at(turn % len))
            }
            // Rendezvous: who leaves takes only its own keys along.
            (_, By::Hash(key)) => (0..len).map(at).max_by_key(|endpoint| weight(key, endpoint.address)),
            (_, By::HashSubset(key, size)) => {
                let mut subset: Vec<_> = (0..len).map(at).collect();
                let size = (size.get() as usize).min(len);
                if size < len {
                    subset.select_nth_unstable_by_key(size - 1, |endpoint| {
                        std::cmp::Reverse(weight(key, endpoint.address))
                    });
                }
                let choice = Choice { by: By::LeastOfTwo, ..choice };
                Some(if size == 1 { subset[0] } else { self.pick_of_two(size, |i| subset[i], choice) })
            }
            (_, By::LeastOfTwo | By::Ewma) => Some(self.pick_of_two(len, at, choice)),
        }
    }

    /// The better one of two random ones, of at least two.
    fn pick_of_two<'e>(
        &self,
        len: usize,
        at: impl Fn(usize) -> &'e Rc<EndpointState>,
        choice: Choice,
    ) -> &'e Rc<EndpointState> {
        let (i, j) = self.random.two_below(len as u32);
        let (a, b) = (at(i as usize), at(j as usize));
        if self.is_better(b, a, choice) { b } else { a }
    }

    /// Whether `b` shall get a request rather than `a`.
    fn is_better(&self, b: &EndpointState, a: &EndpointState, choice: Choice) -> bool {
        let (mut load_a, mut load_b) = (f64::from(a.in_flight.get()), f64::from(b.in_flight.get()));
        let now = (choice.by == By::Ewma || choice.slow_start.is_some()).then(Instant::now);
        if let (By::Ewma, Some(now)) = (choice.by, now)
            && let (Some(a), Some(b)) = (a.expected(now), b.expected(now))
        {
            (load_a, load_b) = (a, b);
        }
        if let (Some(slow_start), Some(now)) = (choice.slow_start, now) {
            let (warm_a, warm_b) = (a.warmth(slow_start, now), b.warmth(slow_start, now));
            if warm_a < 1.0 || warm_b < 1.0 {
                // By chance in the ratio of both: few requests leave both idle most of the time.
                let share = warm_b / (warm_a + warm_b);
                return (self.random.next() >> 11) as f64 / (1_u64 << 53) as f64 <= share;
            }
        }
        load_b < load_a
    }
}

/// How much an endpoint wants a key.
fn weight(key: u64, address: SocketAddr) -> u64 {
    let (high, low) = match address.ip() {
        std::net::IpAddr::V4(v4) => (0, u64::from(u32::from(v4))),
        std::net::IpAddr::V6(v6) => ((u128::from(v6) >> 64) as u64, u128::from(v6) as u64),
    };
    [high, low, u64::from(address.port())].into_iter().fold(mix(key), |hash, word| mix(hash ^ mix(word)))
}

fn endpoint_states(cluster: &Cluster, kept: &[Rc<EndpointState>]) -> Vec<Rc<EndpointState>> {
    let joined = (!kept.is_empty()).then(Instant::now);
    let state = |address: SocketAddr| {
        // Both lists are in address order (`Cluster::endpoints`).
        match kept.binary_search_by_key(&address, |endpoint| endpoint.address) {
            Ok(index) => Rc::clone(&kept[index]),
            Err(_) => Rc::new(EndpointState::new(address, joined)),
        }
    };
    cluster.endpoints.iter().map(|endpoint| state(endpoint.address)).collect()
}

/// Spreads the bits (the finish of `SplitMix64`).
fn mix(word: u64) -> u64 {
    let mixed = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
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
        let state = self.0.get();
        self.0.set(state.wrapping_add(0x9e37_79b9_7f4a_7c15));
        mix(state)
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
mod tests;
