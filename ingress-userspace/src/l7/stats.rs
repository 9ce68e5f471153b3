//! A worker's counters. Written by that worker alone, so a plain load and store does instead of a locked add; read by
//! any thread, which sums the workers' when it is asked. Every label is bounded.

pub mod native;

use std::ops::AddAssign;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::access_log::{Finished, UpstreamPart};
use native::{Latencies, NativeBuckets};

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

/// Upper bounds of the buckets of a latency histogram, in microseconds; a last bucket has none.
pub const LATENCY_BOUNDS: [u64; 12] = [
    1_000, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000,
];

/// Requests by latency: one bucket for each of [`LATENCY_BOUNDS`] (not cumulative), and one for the rest.
pub type Buckets<T> = [T; LATENCY_BOUNDS.len() + 1];

/// What is counted for one Ingress. Made with its first request, so that those without any cost no memory.
#[derive(Debug, Default)]
struct IngressStats {
    by_class: ByClass<Counter>,
    latency: Times,
    fine: Latencies,
    received: Counter,
    sent: Counter,
    upstream_by_class: ByClass<Counter>,
    upstream_unanswered: Counter,
    upstream_latency: Times,
}

/// Times in buckets, and their sum in microseconds.
#[derive(Debug, Default)]
struct Times {
    buckets: Buckets<Counter>,
    micros: Counter,
}

/// The same at one moment, summed over the workers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IngressTotals {
    /// Requests answered, by class of status.
    pub by_class: ByClass<u64>,
    /// Requests that ended, by latency; upgraded connections are left out.
    pub latency: Buckets<u64>,
    /// The same requests in finer buckets.
    pub fine: NativeBuckets,
    /// The sum of those latencies, in microseconds.
    pub latency_micros: u64,
    /// Bytes of requests that ended.
    pub received: u64,
    /// Bytes of their answers' bodies.
    pub sent: u64,
    /// What the endpoints answered that were asked last, by class of status.
    pub upstream_by_class: ByClass<u64>,
    /// Requests that went to endpoints and got no answer there.
    pub upstream_unanswered: u64,
    /// Times of these endpoints, answer's end included; upgraded connections are left out.
    pub upstream_latency: Buckets<u64>,
    /// The sum of those times, in microseconds.
    pub upstream_micros: u64,
}

/// A worker's counters.
#[derive(Debug)]
pub struct Stats {
    by_ingress: Box<[OnceLock<Box<IngressStats>>]>,
    /// Lines of the access log that its writer could not take.
    pub log_dropped: Counter,
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
    pub by_ingress: Vec<(IngressSlot, IngressTotals)>,
    pub log_dropped: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub accepted: u64,
    pub open: u64,
    pub tls_failed: u64,
    pub connect_failed: u64,
    pub connected: u64,
    pub retried: u64,
    pub upstream_failed: u64,
    /// Spans that the collector took; see `trace`.
    pub spans_exported: u64,
    /// Spans that were lost.
    pub spans_dropped: u64,
}

impl Stats {
    /// All zero.
    pub fn new() -> Self {
        Self {
            by_ingress: std::iter::repeat_with(OnceLock::new).take(MAX_INGRESSES).collect(),
            log_dropped: Counter::default(),
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
        self.of(ingress).by_class[class_of(status)].add(1);
    }

    /// Counts what is known at a request's end.
    pub fn finished(&self, finished: &Finished<'_>) {
        let stats = self.of(finished.ingress);
        stats.received.add(finished.received);
        stats.sent.add(finished.sent);
        // What an upgraded connection lasted is no latency.
        if finished.status != 101 {
            let micros = micros(finished.took);
            stats.latency.add(micros);
            stats.fine.add(micros);
        }
        if let Some(upstream) = &finished.upstream {
            stats.upstream(upstream);
        }
    }

    fn of(&self, ingress: IngressSlot) -> &IngressStats {
        let slot = self.by_ingress.get(ingress.0 as usize).unwrap_or(&self.by_ingress[0]);
        slot.get_or_init(Box::default)
    }

    /// Adds this worker's counters to a sum.
    pub fn add_to(&self, totals: &mut Totals) {
        for (index, slot) in self.by_ingress.iter().enumerate() {
            let Some(stats) = slot.get() else { continue };
            let slot = IngressSlot(index as u32);
            let at = totals.by_ingress.binary_search_by_key(&slot, |(slot, _)| *slot).unwrap_or_else(|at| {
                totals.by_ingress.insert(at, (slot, IngressTotals::default()));
                at
            });
            stats.add_to(&mut totals.by_ingress[at].1);
            add_each(&mut totals.requests, stats.by_class.each_ref().map(Counter::get));
        }
        totals.log_dropped += self.log_dropped.get();
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

impl IngressStats {
    fn upstream(&self, upstream: &UpstreamPart) {
        if upstream.status == 0 {
            self.upstream_unanswered.add(1);
        } else {
            self.upstream_by_class[class_of(upstream.status)].add(1);
        }
        if upstream.status != 101 {
            self.upstream_latency.add(micros(upstream.response));
        }
    }

    fn add_to(&self, totals: &mut IngressTotals) {
        add_each(&mut totals.by_class, self.by_class.each_ref().map(Counter::get));
        self.latency.add_to(&mut totals.latency, &mut totals.latency_micros);
        totals.fine.add(&self.fine);
        totals.received += self.received.get();
        totals.sent += self.sent.get();
        add_each(&mut totals.upstream_by_class, self.upstream_by_class.each_ref().map(Counter::get));
        totals.upstream_unanswered += self.upstream_unanswered.get();
        self.upstream_latency.add_to(&mut totals.upstream_latency, &mut totals.upstream_micros);
    }
}

impl Times {
    fn add(&self, micros: u64) {
        self.buckets[bucket(micros)].add(1);
        self.micros.add(micros);
    }

    fn add_to(&self, buckets: &mut Buckets<u64>, micros: &mut u64) {
        add_each(buckets, self.buckets.each_ref().map(Counter::get));
        *micros += self.micros.get();
    }
}

/// The place of a status in [`ByClass`].
fn class_of(status: u16) -> usize {
    usize::from(status / 100).clamp(1, 5) - 1
}

/// The bucket of a latency in microseconds.
fn bucket(micros: u64) -> usize {
    LATENCY_BOUNDS.iter().position(|bound| micros <= *bound).unwrap_or(LATENCY_BOUNDS.len())
}

/// The place of a time in [`Buckets`].
pub fn bucket_of(time: Duration) -> usize {
    bucket(micros(time))
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn add_each<const N: usize>(sums: &mut [u64; N], values: [u64; N]) {
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
        let by_class: Vec<_> =
            totals.by_ingress.iter().map(|(slot, totals)| (slot.0, totals.by_class)).collect();
        assert_eq!(by_class, [(0, [0, 0, 0, 1, 1]), (2, [0, 2, 0, 0, 0])]);
        assert_eq!((totals.bytes_in, totals.open), (5, 1));
    }

    #[test]
    fn latencies_fall_into_buckets() {
        let stats = Stats::new();
        let connection = super::super::head::ConnectionInfo::new(
            ([192, 0, 2, 7], 1).into(),
            ([192, 0, 2, 1], 80).into(),
            None,
        );
        let upstream = |status, millis| UpstreamPart {
            endpoint: ([192, 0, 2, 8], 80).into(),
            status,
            connect: Duration::ZERO,
            header: None,
            response: Duration::from_millis(millis),
            bytes: 20,
        };
        let finished = |status, millis, upstream| {
            stats.finished(&Finished {
                connection: &connection,
                client: connection.client.ip(),
                ingress: IngressSlot(3),
                status,
                received: 10,
                sent: 20,
                took: Duration::from_millis(millis),
                upstream,
                notes: &super::super::access_log::Notes::default(),
            });
        };
        for millis in [1, 2, 5, 60_000] {
            finished(200, millis, Some(upstream(200, millis - 1)));
        }
        finished(101, 60_000, Some(upstream(101, 60_000)));
        finished(502, 3, Some(upstream(0, 2)));
        finished(404, 1, None);
        let mut totals = Totals::default();
        stats.add_to(&mut totals);
        let (slot, ingress) = &totals.by_ingress[0];
        assert_eq!((slot.0, ingress.latency), (3, [2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]));
        assert_eq!(ingress.upstream_by_class, [1, 4, 0, 0, 0]);
        assert_eq!(ingress.upstream_unanswered, 1);
        assert_eq!(ingress.upstream_latency, [2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(ingress.upstream_micros, 60_006_000);
        let fine: u64 = ingress.fine.zero + ingress.fine.positive.iter().map(|(_, count)| count).sum::<u64>();
        assert_eq!((fine, ingress.fine.positive.len()), (6, 5));
        assert_eq!((ingress.latency_micros, ingress.received, ingress.sent), (60_012_000, 70, 140));
    }
}
