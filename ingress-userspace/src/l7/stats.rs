//! A worker's counters. Written by that worker alone, so a plain load and store does instead of a locked add; read by
//! any thread, which sums the workers' when it is asked. Every label is bounded.

use std::ops::AddAssign;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// One counter with a single writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds. Only the owning worker may call this.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Takes away; for gauges. Only the owning worker may call this.
    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(n), Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Where the requests of one Ingress are counted. Given out by `live`; the first [`MAX_INGRESSES`] that were ever seen
/// have one of their own, the rest shares [`IngressSlot::OTHER`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IngressSlot(pub(super) u32);

impl IngressSlot {
    /// Requests without an Ingress (404, 400), and Ingresses beyond the bound.
    pub const OTHER: Self = Self(0);
}

/// How many Ingresses are counted one by one.
pub const MAX_INGRESSES: usize = 4096;

/// Answers by the first digit of their status.
pub type ByClass<T> = [T; 5];

/// A worker's counters.
#[derive(Debug)]
pub struct Stats {
    by_ingress: Box<[ByClass<Counter>]>,
    /// Bytes that clients sent, without TLS; of HTTP/2 the bodies only.
    pub bytes_in: Counter,
    /// Bytes that clients got, without TLS; of HTTP/2 the bodies only.
    pub bytes_out: Counter,
    /// Connections accepted so far.
    pub accepted: Counter,
    /// Connections open now.
    pub open: Counter,
    /// TLS handshakes that failed or took too long.
    pub tls_failed: Counter,
    /// Connections to endpoints that could not be made.
    pub connect_failed: Counter,
    /// Connections to endpoints made.
    pub connected: Counter,
    /// Requests sent again on another connection.
    pub retried: Counter,
    /// Requests that ended because an endpoint broke off, sent nonsense or was too slow.
    pub upstream_failed: Counter,
}

/// The sum of all workers' counters at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of `Stats`")]
pub struct Totals {
    /// Requests answered, by class of status (index 0 is 1xx; unused), over all Ingresses.
    pub requests: ByClass<u64>,
    /// The same by slot; slots without requests are left out.
    pub by_ingress: Vec<(IngressSlot, ByClass<u64>)>,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub accepted: u64,
    pub open: u64,
    pub tls_failed: u64,
    pub connect_failed: u64,
    pub connected: u64,
    pub retried: u64,
    pub upstream_failed: u64,
}

impl Stats {
    /// All zero.
    pub fn new() -> Self {
        Self {
            by_ingress: std::iter::repeat_with(Default::default).take(MAX_INGRESSES).collect(),
            bytes_in: Counter::default(),
            bytes_out: Counter::default(),
            accepted: Counter::default(),
            open: Counter::default(),
            tls_failed: Counter::default(),
            connect_failed: Counter::default(),
            connected: Counter::default(),
            retried: Counter::default(),
            upstream_failed: Counter::default(),
        }
    }

    /// Counts one answered request.
    pub fn request(&self, ingress: IngressSlot, status: u16) {
        let slot = self.by_ingress.get(ingress.0 as usize).unwrap_or(&self.by_ingress[0]);
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        slot[class].add(1);
    }

    /// Adds this worker's counters to a sum.
    pub fn add_to(&self, totals: &mut Totals) {
        for (index, counters) in self.by_ingress.iter().enumerate() {
            let values: ByClass<u64> = std::array::from_fn(|class| counters[class].get());
            if values == [0; 5] {
                continue;
            }
            add_each(&mut totals.requests, values);
            let slot = IngressSlot(index as u32);
            match totals.by_ingress.binary_search_by_key(&slot, |(slot, _)| *slot) {
                Ok(at) => add_each(&mut totals.by_ingress[at].1, values),
                Err(at) => totals.by_ingress.insert(at, (slot, values)),
            }
        }
        totals.bytes_in += self.bytes_in.get();
        totals.bytes_out += self.bytes_out.get();
        totals.accepted += self.accepted.get();
        totals.open += self.open.get();
        totals.tls_failed += self.tls_failed.get();
        totals.connect_failed += self.connect_failed.get();
        totals.connected += self.connected.get();
        totals.retried += self.retried.get();
        totals.upstream_failed += self.upstream_failed.get();
    }
}

impl Default for Stats {
    fn default() -> Self {
        Self::new()
    }
}

fn add_each(sums: &mut ByClass<u64>, values: ByClass<u64>) {
    for (sum, value) in sums.iter_mut().zip(values) {
        sum.add_assign(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_summed() {
        let (a, b) = (Stats::new(), Stats::new());
        a.request(IngressSlot(2), 200);
        b.request(IngressSlot(2), 204);
        b.request(IngressSlot::OTHER, 404);
        b.request(IngressSlot(u32::MAX), 999);
        a.bytes_in.add(5);
        b.open.add(2);
        b.open.sub(1);
        let mut totals = Totals::default();
        a.add_to(&mut totals);
        b.add_to(&mut totals);
        assert_eq!(totals.requests, [0, 2, 0, 1, 1]);
        assert_eq!(totals.by_ingress, [(IngressSlot(0), [0, 0, 0, 1, 1]), (IngressSlot(2), [0, 2, 0, 0, 0])]);
        assert_eq!((totals.bytes_in, totals.open), (5, 1));
    }
}
