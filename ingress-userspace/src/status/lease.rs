//! The Lease object (coordination.k8s.io/v1) as the API server keeps it: does what `leader::Elector` asks for and tells
//! the writers whether they may. The only place where the Lease is read or written.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Client, Error};
use tokio::sync::watch;
use tokio::time::timeout;

use super::clock::{Moment, sleep_until};
use super::leader::{Action, Claim, Elector, Record, Timing};
use super::{Config, LEASE_NAME, why};

/// A request that takes longer is given up: less than what a leader has between its last write and its Lease's end.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);

/// Why a request failed that took longer.
pub(super) const NO_ANSWER: &str = "no answer in time";

/// Whether this daemon is the leader.
#[derive(Debug, Clone)]
pub(super) struct Leadership(watch::Receiver<Option<Moment>>);

impl Leadership {
    /// May something be written right now? To be asked just before each write: a process can be paused at any time.
    pub(super) fn held(&self) -> bool {
        self.0.borrow().is_some_and(|until| Moment::now() < until)
    }

    /// Waits until this daemon is the leader.
    pub(super) async fn won(&self) {
        let mut receiver = self.0.clone();
        while !self.held() {
            if receiver.changed().await.is_err() {
                // Nobody campaigns any more: it will never be.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until it no longer is.
    pub(super) async fn lost(&self) {
        let mut receiver = self.0.clone();
        loop {
            let Some(until) = *receiver.borrow_and_update() else { return };
            if until <= Moment::now() {
                return;
            }
            tokio::select! {
                () = sleep_until(until) => {}
                changed = receiver.changed() => if changed.is_err() { return },
            }
        }
    }
}

/// Takes part in the election.
pub(super) struct Candidate {
    api: Api<Lease>,
    me: String,
    timing: Timing,
    elector: Elector,
    /// The object as last received; written back with our fields changed, so that labels of others stay.
    last: Option<Lease>,
    leads: watch::Sender<Option<Moment>>,
    /// Failures in a row: the first is worth a warning, the others are not.
    failures: u32,
}

impl Candidate {
    /// A candidate that has not read the Lease yet, and the view of its success.
    pub(super) fn new(client: &Client, config: &Config) -> (Self, Leadership) {
        let namespace = config.namespace.as_deref().unwrap_or(client.default_namespace());
        let seed = random();
        let me = format!("{}_{seed:016x}", config.identity);
        let timing = Timing::default();
        let (leads, view) = watch::channel(None);
        let candidate = Self {
            api: Api::namespaced(client.clone(), namespace),
            elector: Elector::new(me.clone(), timing, seed),
            me,
            timing,
            last: None,
            leads,
            failures: 0,
        };
        (candidate, Leadership(view))
    }

    /// Campaigns for ever.
    pub(super) async fn campaign(&mut self) {
        loop {
            match self.elector.next(Moment::now()) {
                Action::Wait(until) => sleep_until(until).await,
                Action::Read => self.read().await,
                Action::Write(claim) => self.claim(&claim).await,
            }
            self.leads.send_if_modified(|leads| {
                let now = self.elector.writes_until();
                std::mem::replace(leads, now) != now
            });
        }
    }

    /// Lets another daemon lead at once, if this one does.
    pub(super) async fn release(&mut self) {
        let version = self.elector.resign();
        self.leads.send_replace(None);
        let (Some(version), Some(mut lease)) = (version, self.last.take()) else { return };
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(String::new());
        lease.metadata.resource_version = Some(version);
        match timeout(REQUEST_TIMEOUT, self.api.replace(LEASE_NAME, &PostParams::default(), &lease)).await {
            Ok(Ok(_)) => tracing::info!(identity = %self.me, "leader: Lease released"),
            Ok(Err(error)) => self.not_released(&why(&error)),
            Err(_) => self.not_released(NO_ANSWER),
        }
    }

    fn not_released(&self, error: &str) {
        tracing::info!(
            identity = %self.me, error,
            "leader: Lease not released; another daemon leads when it has run out"
        );
    }

    async fn read(&mut self) {
        match timeout(REQUEST_TIMEOUT, self.api.get_opt(LEASE_NAME)).await {
            Ok(Ok(lease)) => {
                self.failures = 0;
                self.elector.saw(Moment::now(), lease.as_ref().map(record));
                self.last = lease;
            }
            Ok(Err(error)) => self.failed(&why(&error)),
            Err(_) => self.failed(NO_ANSWER),
        }
    }

    async fn claim(&mut self, claim: &Claim) {
        let sent = Moment::now();
        let lease = self.filled(claim);
        let write = async {
            match claim.over {
                None => self.api.create(&PostParams::default(), &lease).await,
                Some(_) => self.api.replace(LEASE_NAME, &PostParams::default(), &lease).await,
            }
        };
        match timeout(REQUEST_TIMEOUT, write).await {
            Ok(Ok(lease)) => {
                self.failures = 0;
                let version = lease.metadata.resource_version.clone().unwrap_or_default();
                self.last = Some(lease);
                self.elector.claimed(sent, version);
            }
            // 409: somebody was faster. 404: the Lease was deleted, or its namespace is not there.
            Ok(Err(Error::Api(status))) if status.code == 409 || status.code == 404 => {
                if status.code == 404 && claim.over.is_none() {
                    self.failed(&status.message);
                } else {
                    self.elector.refused(Moment::now());
                }
            }
            Ok(Err(error)) => self.failed(&why(&error)),
            Err(_) => self.failed(NO_ANSWER),
        }
    }

    fn failed(&mut self, error: &str) {
        self.elector.failed(Moment::now());
        self.failures += 1;
        if self.failures == 1 {
            tracing::warn!(
                identity = %self.me, lease = LEASE_NAME, error,
                "leader: the Lease could not be read or written; trying again. If this stays: is the API server \
                 reachable, and may our ServiceAccount get, create and update Leases in its namespace?"
            );
        } else {
            tracing::debug!(identity = %self.me, failures = self.failures, error, "leader: failed again");
        }
    }

    /// The object to write for `claim`.
    fn filled(&self, claim: &Claim) -> Lease {
        let mut lease = self.last.clone().unwrap_or_else(|| Lease {
            metadata: ObjectMeta { name: Some(LEASE_NAME.to_owned()), ..ObjectMeta::default() },
            spec: None,
        });
        lease.metadata.resource_version.clone_from(&claim.over);
        let now = MicroTime(jiff::Timestamp::now());
        let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
        if claim.takes_over {
            spec.acquire_time = Some(now.clone());
            // As client-go counts: the first holder is no transition.
            spec.lease_transitions =
                Some(if claim.over.is_none() { 0 } else { spec.lease_transitions.unwrap_or_default() + 1 });
        }
        spec.holder_identity = Some(self.me.clone());
        spec.lease_duration_seconds = i32::try_from(self.timing.lease.as_secs()).ok();
        spec.renew_time = Some(now);
        lease
    }
}

fn record(lease: &Lease) -> Record {
    let spec = lease.spec.as_ref();
    let seconds = spec.and_then(|spec| spec.lease_duration_seconds);
    Record {
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
        holder: spec.and_then(|spec| spec.holder_identity.clone()).unwrap_or_default(),
        duration: seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs),
    }
}

/// A number that no other process has: the standard library's hash seed.
fn random() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    std::hash::RandomState::new().build_hasher().finish()
}
