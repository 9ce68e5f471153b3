//! A steady stream of requests, each on a connection of its own: what new users notice while nodes and objects
//! change. Open loop: a request that hangs doesn't hold back the next.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use super::PATIENCE;
use crate::lab::{
    Host,
    http::{self, Failure, Target},
};

const STACK: usize = 192 << 10;
/// Longer than this, and a user thinks that something is wrong (a lost SYN costs 1 s).
pub const SLOW: Duration = Duration::from_millis(900);

/// A running stream of requests.
#[derive(Debug)]
pub struct SteadyRequests {
    shared: Arc<Shared>,
    threads: Option<JoinHandle<Result<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    requests: Mutex<Vec<Request>>,
}

/// One request.
#[derive(Debug, Clone)]
pub struct Request {
    /// When it was due (and sent).
    pub start: Instant,
    /// How long it took, whatever its outcome.
    pub took: Duration,
    /// Who served it (node, pod), or why nobody did.
    pub outcome: Result<(IpAddr, String), Lost>,
}

/// Why a request was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lost {
    /// No response.
    Failure(Failure),
    /// A response that isn't a backend's 200.
    Status(u16),
}

/// What became of the requests.
#[derive(Debug, Clone)]
pub struct SteadyReport {
    /// In the order of their ends.
    pub requests: Vec<Request>,
}

impl SteadyRequests {
    /// Starts sending `per_second` requests from `host`.
    pub fn start(host: &Host, target: &Target, per_second: u32) -> Self {
        let shared = Arc::new(Shared::default());
        let every = Duration::from_secs(1) / per_second.max(1);
        let threads = host.thread({
            let (shared, target) = (Arc::clone(&shared), target.clone());
            move || {
                thread::scope(|scope| -> Result<()> {
                    let mut due = Instant::now();
                    while !shared.stop.load(Ordering::Relaxed) {
                        let (shared, target) = (&*shared, &target);
                        let send = move || send(shared, target, due);
                        thread::Builder::new().stack_size(STACK).spawn_scoped(scope, send)?;
                        // After a stall (a busy machine) the stream goes on; it doesn't send what it missed.
                        due = (due + every).max(Instant::now().checked_sub(every).unwrap_or(due));
                        thread::sleep(due.saturating_duration_since(Instant::now()));
                    }
                    Ok(())
                })
            }
        });
        Self { shared, threads: Some(threads) }
    }

    /// The requests that have ended until now.
    pub fn report(&self) -> SteadyReport {
        let requests = self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner).clone();
        SteadyReport { requests }
    }

    /// Waits until a request that began after `since` was served by the node with the address `node`.
    pub fn wait_for_node(&self, nodes: &[IpAddr], since: Instant, at_most: Duration) -> Result<Duration> {
        loop {
            let report = self.report();
            let served = report.requests.iter().find(|request| {
                request.start >= since && matches!(&request.outcome, Ok((by, _)) if nodes.contains(by))
            });
            if let Some(request) = served {
                return Ok(request.start + request.took - since);
            }
            if since.elapsed() > at_most {
                bail!("no request was served by {nodes:?} within {at_most:?}");
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Lets the last requests end and reports.
    pub fn finish(mut self) -> Result<SteadyReport> {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(threads) = self.threads.take() {
            match threads.join() {
                Ok(result) => result?,
                Err(_) => bail!("a load client panicked"),
            }
        }
        Ok(self.report())
    }
}

impl Drop for SteadyRequests {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

fn send(shared: &Shared, target: &Target, start: Instant) {
    let outcome = match http::get(target, PATIENCE) {
        Ok(response) => match response.echo() {
            Ok(echo) => Ok((echo.peer, echo.pod)),
            Err(_) => Err(Lost::Status(response.status)),
        },
        Err(failure) => Err(Lost::Failure(failure)),
    };
    let request = Request { start, took: start.elapsed(), outcome };
    shared.requests.lock().unwrap_or_else(PoisonError::into_inner).push(request);
}

impl SteadyReport {
    /// The requests that began in `from..to`.
    #[must_use]
    pub fn between(&self, from: Instant, to: Instant) -> Self {
        let requests = self.requests.iter().filter(|request| (from..to).contains(&request.start));
        Self { requests: requests.cloned().collect() }
    }

    /// How many.
    pub fn sent(&self) -> usize {
        self.requests.len()
    }

    /// How many got no good response.
    pub fn lost(&self) -> usize {
        self.requests.iter().filter(|request| request.outcome.is_err()).count()
    }

    /// How many got a good response, but late.
    pub fn slow(&self) -> usize {
        self.requests.iter().filter(|request| request.outcome.is_ok() && request.took >= SLOW).count()
    }

    /// The longest that a request took.
    pub fn slowest(&self) -> Duration {
        self.requests.iter().map(|request| request.took).max().unwrap_or_default()
    }

    /// For how long after `event` requests that were begun were lost or slow: zero where none was.
    pub fn disturbed_after(&self, event: Instant) -> Duration {
        let bad = self.requests.iter().filter(|r| r.start >= event && (r.outcome.is_err() || r.took >= SLOW));
        bad.map(|request| request.start - event).max().unwrap_or_default()
    }

    /// The nodes that served any.
    pub fn nodes(&self) -> BTreeSet<IpAddr> {
        self.requests.iter().filter_map(|request| Some(request.outcome.as_ref().ok()?.0)).collect()
    }

    /// The pods that served any.
    pub fn pods(&self) -> BTreeSet<&str> {
        self.requests.iter().filter_map(|request| Some(request.outcome.as_ref().ok()?.1.as_str())).collect()
    }

    /// How often each kind of loss occurred, for messages.
    pub fn losses(&self) -> BTreeMap<Lost, usize> {
        let mut counts = BTreeMap::new();
        for lost in self.requests.iter().filter_map(|request| request.outcome.as_ref().err()) {
            *counts.entry(*lost).or_default() += 1;
        }
        counts
    }
}
