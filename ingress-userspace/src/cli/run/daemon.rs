//! The running daemon, as the admin address and the control socket see it: the data plane's handles, and the picture of
//! them that `status` and `/metrics` show.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::Change;
use super::succession::{Legacy, Succession};
use crate::cli::config::RunArgs;
use crate::l4::{Findings, Generation, L4};
use crate::l7::L7;
use crate::l7::tls::tickets::Seed;
use crate::model::Problem;
use crate::observe::admin;
use crate::observe::changes::Changes;
use crate::observe::exposition::Exposition;
use crate::observe::status::{ProblemStatus, SnapshotStatus, State, Status};

/// All handles of the running daemon.
pub(super) struct Daemon {
    node: String,
    source: String,
    started: Instant,
    l4: Mutex<Front>,
    /// Set once the first snapshot is there.
    l7: OnceLock<L7>,
    served: Mutex<Served>,
    succession: Succession,
}

/// The front in the life of a daemon.
#[derive(Default)]
enum Front {
    /// Not up yet.
    #[default]
    Starting,
    /// `--l4 off`.
    Off,
    On(Box<L4>),
    /// Stopped, or left to another daemon.
    Gone,
}

impl Front {
    const fn get(&self) -> Option<&L4> {
        match self {
            Self::On(l4) => Some(l4),
            _ => None,
        }
    }
}

/// What is served, and whether we want to.
#[derive(Default)]
struct Served {
    draining: bool,
    /// Draining because the daemon ends, not because an operator wants it.
    stopping: bool,
    generation: u64,
    last: Option<LastChange>,
    changes: Changes,
}

struct LastChange {
    snapshot: Arc<crate::model::Snapshot>,
    problems: Arc<Vec<Problem>>,
    live_at: Instant,
    took: Duration,
}

impl Daemon {
    pub(super) fn new(arguments: &RunArgs, node: String) -> Self {
        Self {
            node,
            source: arguments.source.to_string(),
            started: Instant::now(),
            l4: Mutex::default(),
            succession: Succession::default(),
            l7: OnceLock::new(),
            served: Mutex::default(),
        }
    }

    pub(super) fn node(&self) -> &str {
        &self.node
    }

    /// `None`: with `--l4 off`.
    pub(super) fn set_front(&self, l4: Option<L4>) {
        *lock(&self.l4) = l4.map_or(Front::Off, |l4| Front::On(Box::new(l4)));
    }

    pub(super) const fn succession(&self) -> &Succession {
        &self.succession
    }

    /// Called once, with the first snapshot.
    pub(super) fn start_router(&self, l7: L7) {
        assert!(self.l7.set(l7).is_ok(), "the router starts once");
    }

    /// Whether the router has been started.
    pub(super) fn is_serving(&self) -> bool {
        self.l7.get().is_some()
    }

    /// Makes a change live: the router first, so that no packet is led to a VIP at which nobody listens.
    pub(super) fn publish(&self, change: &Change) {
        if let Some(l7) = self.l7.get() {
            l7.publish(&change.snapshot);
        }
        if let Some(l4) = lock(&self.l4).get() {
            l4.publish(Arc::clone(&change.snapshot));
        }
        let mut served = lock(&self.served);
        log_problems(served.last.as_ref().map_or(&[], |last| &last.problems), &change.problems);
        served.generation += 1;
        let took = change.since.elapsed();
        served.changes.add(change.scope, took);
        served.last = Some(LastChange {
            snapshot: Arc::clone(&change.snapshot),
            problems: Arc::clone(&change.problems),
            live_at: Instant::now(),
            took,
        });
    }

    /// The daemon was told to end: from now on it drains for that.
    pub(super) fn stop(&self) {
        lock(&self.served).stopping = true;
        admin::Daemon::drain(self, true);
    }

    /// Whether there are other nodes that could learn of our draining.
    pub(super) fn has_peers(&self) -> bool {
        lock(&self.l4).get().is_some()
            && lock(&self.served).last.as_ref().is_some_and(|last| last.snapshot.nodes.len() > 1)
    }

    /// Stops accepting and waits until the connections have ended, at most for `grace`.
    pub(super) async fn drain_router(&self, grace: Duration) {
        if let Some(l7) = self.l7.get() {
            l7.drain(grace).await;
        }
    }

    /// Makes TLS session tickets of another secret from now on.
    pub(super) fn set_ticket_seed(&self, seed: Seed) {
        if let Some(l7) = self.l7.get() {
            l7.set_ticket_seed(seed);
        }
    }

    /// Keeps telling the router's clients which packets fit into the tunnels between nodes. Never returns.
    pub(super) async fn follow_tunnels(&self) -> std::convert::Infallible {
        let mtu = lock(&self.l4).get().map(L4::tunnelled_mtu);
        if let Some(mut mtu) = mtu {
            // Ends when the front does.
            while mtu.changed().await.is_ok() {
                let limit = *mtu.borrow_and_update();
                tracing::info!(?limit, "size of clients' packets so that they fit into the tunnels to peers");
                if let Some(l7) = self.l7.get() {
                    l7.limit_packets(limit);
                }
            }
        }
        std::future::pending().await
    }

    /// What this node alone sees of the VIPs.
    pub(super) fn findings(&self) -> Option<watch::Receiver<Findings>> {
        lock(&self.l4).get().map(L4::findings)
    }

    /// Keeps logging what this node alone sees to be wrong. Never returns.
    pub(super) async fn log_findings(&self) -> std::convert::Infallible {
        if let Some(mut findings) = self.findings() {
            let mut before = Vec::new();
            while findings.changed().await.is_ok() {
                let now = findings.borrow_and_update().problems.clone();
                log_problems(&before, &now);
                before = now;
            }
        }
        std::future::pending().await
    }

    /// Ends the front's part of the daemon; the program stays in the kernel.
    pub(super) async fn stop_front(&self) {
        let front = std::mem::replace(&mut *lock(&self.l4), Front::Gone);
        if let Front::On(l4) = front {
            l4.stop().await;
        }
    }

    /// For another daemon. `None` with `--l4 off`.
    fn take_front(&self) -> Result<Option<L4>, String> {
        let mut front = lock(&self.l4);
        if matches!(*front, Front::Starting) {
            return Err("this daemon is still starting".to_owned());
        }
        match std::mem::replace(&mut *front, Front::Gone) {
            Front::On(l4) => Ok(Some(*l4)),
            Front::Off => Ok(None),
            Front::Starting | Front::Gone => Err("this daemon is ending".to_owned()),
        }
    }

    fn picture(&self) -> Status {
        let not_ready = admin::Daemon::ready(self).err();
        let l4 = lock(&self.l4).get().map(L4::status);
        let served = lock(&self.served);
        let state = match (&served.last, served.draining) {
            (None, _) => State::Starting,
            (Some(_), false) => State::Serving,
            (Some(_), true) => State::Draining,
        };
        let (snapshot, problems) = match &served.last {
            None => Default::default(),
            Some(last) => (
                SnapshotStatus {
                    generation: served.generation,
                    age_seconds: last.live_at.elapsed().as_secs(),
                    last_change_seconds: last.took.as_secs_f64(),
                    changes: served.changes.clone(),
                    ..SnapshotStatus::of(&last.snapshot)
                },
                {
                    let own = l4.iter().flat_map(|l4| &l4.findings.problems);
                    last.problems.iter().chain(own).map(ProblemStatus::from).collect()
                },
            ),
        };
        drop(served);
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: self.node.clone(),
            source: self.source.clone(),
            state,
            not_ready,
            uptime_seconds: self.started.elapsed().as_secs(),
            snapshot,
            problems,
            l4,
            l7: self.l7.get().map(L7::stats).map(Into::into).unwrap_or_default(),
        }
    }
}

impl admin::Daemon for Daemon {
    fn ready(&self) -> Result<(), String> {
        let served = lock(&self.served);
        match &served.last {
            None => Err("waiting for the objects of the source".to_owned()),
            Some(_) if served.draining => Err("draining".to_owned()),
            Some(_) if matches!(*lock(&self.l4), Front::Starting) => {
                Err("waiting for the daemon before to hand over".to_owned())
            }
            Some(_) if lock(&self.l4).get().is_some_and(|l4| l4.generation() == Generation::default()) => {
                Err("the XDP front is not filled yet".to_owned())
            }
            Some(_) => Ok(()),
        }
    }

    fn metrics(&self, exposition: Exposition) -> Vec<u8> {
        crate::observe::metrics::render(self.picture(), exposition)
    }

    fn status(&self) -> String {
        // Plain data with string keys: it always serialises.
        serde_json::to_string(&self.picture()).unwrap_or_default()
    }

    fn drain(&self, draining: bool) {
        lock(&self.served).draining = draining;
        if let Some(l4) = lock(&self.l4).get() {
            l4.drain(draining);
        }
        tracing::info!(node = self.node, draining, "drain state changed");
    }

    fn why(&self, query: &str) -> Result<String, String> {
        let question = crate::cli::why::parse(query).ok_or("expected SRC:PORT,VIP:PORT,syn or ack")?;
        let ask = lock(&self.l4).get().map(|l4| l4.why(question));
        let ask = ask.ok_or("there is no XDP front here (--l4 off, or it is not up yet)")?;
        // The verifier takes its time; other tasks of this thread move on meanwhile.
        let answer = tokio::task::block_in_place(ask).map_err(|error| error.to_string())?;
        serde_json::to_string(&answer).map_err(|error| error.to_string())
    }

    fn introduced(&self, node: &str) -> Result<(), String> {
        if node != self.node {
            return Err(format!(
                "this is the daemon of the node {}: give each its own --state-dir",
                self.node
            ));
        }
        tracing::info!("another daemon of this node has come to take over");
        self.succession.introduced();
        Ok(())
    }

    fn hand_over(&self) -> Pin<Box<dyn Future<Output = Result<String, String>> + Send + '_>> {
        Box::pin(async {
            let l4 = self.take_front()?;
            let draining = {
                let mut served = lock(&self.served);
                std::mem::replace(&mut served.draining, true) && !served.stopping
            };
            let front = match l4 {
                Some(l4) => l4.hand_over().await,
                None => None,
            };
            self.succession.handed_over();
            // Plain data with string keys: it always serialises.
            serde_json::to_string(&Legacy { front, draining }).map_err(|error| error.to_string())
        })
    }
}

/// A panic while it was held leaves handles and numbers that are still good.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Logs what is new, and what is no longer wrong.
fn log_problems(before: &[Problem], now: &[Problem]) {
    // The usual case, and cheap even where there are very many.
    if before == now {
        return;
    }
    let before: BTreeSet<&Problem> = before.iter().collect();
    let now: BTreeSet<&Problem> = now.iter().collect();
    for problem in now.difference(&before) {
        tracing::warn!(object = %problem.object, field = problem.field, reason = %problem.reason, hint = problem.hint,
            "{}", problem.message);
    }
    for problem in before.difference(&now) {
        tracing::info!(object = %problem.object, field = problem.field, reason = %problem.reason, "solved: {}",
            problem.message);
    }
}
