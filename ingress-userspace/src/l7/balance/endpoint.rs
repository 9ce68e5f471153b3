//! What a worker knows of one endpoint: how busy it is, how fast it answers, whether it fails. Used by `balance` only.
//! No IO; the clock comes with the calls.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Failures in a row after which an endpoint is left alone for a while.
const FAILURES: u32 = 5;
/// How long, the first time; each time in a row takes that much longer, up to the longest.
const EJECTED: Duration = Duration::from_secs(10);
const EJECTED_MOST: u32 = 6;
/// After so long an answer's time weighs 1/e of a new one (ingress-nginx' `DECAY_TIME`).
const DECAY: f64 = 10.0;
/// The share of requests that an endpoint gets in the first moment of a slow start.
const COLD: f64 = 0.1;

#[derive(Debug)]
pub(super) struct EndpointState {
    pub(super) address: SocketAddr,
    pub(super) in_flight: Cell<u32>,
    /// When it joined endpoints that were there already.
    joined: Option<Instant>,
    /// In a row.
    failures: Cell<u32>,
    ejections: Cell<u32>,
    ejected_until: Cell<Option<Instant>>,
    /// Seconds that answers took, decaying, and when that was written.
    answered: Cell<Option<(f64, Instant)>>,
}

impl EndpointState {
    pub(super) fn new(address: SocketAddr, joined: Option<Instant>) -> Self {
        Self {
            address,
            in_flight: Cell::new(0),
            joined,
            failures: Cell::new(0),
            ejections: Cell::new(0),
            ejected_until: Cell::new(None),
            answered: Cell::new(None),
        }
    }

    pub(super) fn is_ejected(&self, now: Instant) -> bool {
        self.ejected_until.get().is_some_and(|until| now < until)
    }

    /// Notes a failure; whether there were so many that it should be left alone.
    pub(super) fn failed(&self) -> bool {
        self.failures.set(self.failures.get() + 1);
        self.failures.get() >= FAILURES
    }

    /// Leaves it alone; until when.
    pub(super) fn eject(&self, now: Instant) -> Instant {
        let times = (self.ejections.get() + 1).min(EJECTED_MOST);
        self.ejections.set(times);
        // One more failure afterwards is enough.
        self.failures.set(FAILURES - 1);
        let until = now + EJECTED * times;
        self.ejected_until.set(Some(until));
        until
    }

    /// It has answered.
    pub(super) fn succeeded(&self) {
        if self.failures.get() > 0 {
            self.failures.set(0);
            self.ejections.set(0);
        }
    }

    /// An answer took so long.
    pub(super) fn took(&self, seconds: f64, now: Instant) {
        let known = self.answered.get().map_or(seconds, |(known, at)| {
            let weight = (-now.saturating_duration_since(at).as_secs_f64() / DECAY).exp();
            known * weight + seconds * (1.0 - weight)
        });
        self.answered.set(Some((known, now)));
    }

    /// How long a request would take here, about; `None`: nobody knows yet.
    pub(super) fn expected(&self, now: Instant) -> Option<f64> {
        let (seconds, at) = self.answered.get()?;
        let weight = (-now.saturating_duration_since(at).as_secs_f64() / DECAY).exp();
        Some(seconds * weight * f64::from(self.in_flight.get() + 1))
    }

    /// Its share while it warms up, 1 afterwards.
    pub(super) fn warmth(&self, slow_start: Duration, now: Instant) -> f64 {
        let Some(joined) = self.joined else { return 1.0 };
        let age = now.saturating_duration_since(joined).as_secs_f64() / slow_start.as_secs_f64();
        (COLD + (1.0 - COLD) * age).min(1.0)
    }
}
