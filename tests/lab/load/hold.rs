//! Many keep-alive connections with steady traffic in each: what happens to those that are established while nodes
//! come and go. A connection is broken when it ends otherwise than after a response with `Connection: close`.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use super::PATIENCE;
use crate::lab::{
    Host,
    http::{Connection, Failure, Target},
};

/// One thread per connection: small stacks, so that some thousands fit.
const STACK: usize = 192 << 10;

/// What the connections of one client are like.
#[derive(Debug, Clone, Copy)]
pub struct Habit {
    /// A request in each so often.
    pub every: Duration,
    /// How long it waits for a response before it holds the connection for broken.
    pub patience: Duration,
    /// New connections are spread, as users are: this long between two.
    pub pace: Duration,
}

impl Habit {
    /// A request in each connection `every` so often, and no more patience than users have.
    pub const fn of(every: Duration) -> Self {
        Self { every, patience: PATIENCE, pace: Duration::from_micros(500) }
    }

    /// Of thousands at once, also on a busy machine: slowness is not what is looked for, only connections that break.
    pub const MANY: Self = Self {
        every: Duration::from_secs(2),
        patience: Duration::from_secs(20),
        pace: Duration::from_millis(3),
    };
}

/// All are up within this, also on a busy machine.
const UP: Duration = Duration::from_mins(1);

/// Connections that are being held.
#[derive(Debug)]
pub struct HeldConnections {
    shared: Arc<Shared>,
    threads: Option<JoinHandle<Result<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// Wakes all who wait for their next request: thousands that looked for `stop` from time to time would keep a core busy.
    sleepers: (Mutex<()>, Condvar),
    held: Mutex<Vec<Held>>,
}

impl Shared {
    fn stop(&self) {
        let asleep = self.sleepers.0.lock().unwrap_or_else(PoisonError::into_inner);
        self.stop.store(true, Ordering::Relaxed);
        drop(asleep);
        self.sleepers.1.notify_all();
    }

    /// Sleeps until `until`, or until the stop.
    fn wait(&self, until: Instant) {
        let mut asleep = self.sleepers.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.stop.load(Ordering::Relaxed) {
                return;
            }
            let woken = self.sleepers.1.wait_timeout(asleep, left);
            asleep = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// One connection's fate.
#[derive(Debug, Clone)]
pub struct Held {
    /// The node that serves it (the address that the pods see); none before the first response.
    pub node: Option<IpAddr>,
    /// Responses received.
    pub responses: u64,
    /// Its end, if it has ended before it was told to.
    pub end: Option<End>,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy)]
pub enum End {
    /// The server said `Connection: close` with its last response.
    Closed,
    /// In a way that a user notices.
    Broken(Failure, Instant),
}

/// What became of the connections.
#[derive(Debug, Clone)]
pub struct HoldReport {
    /// One entry per connection.
    pub held: Vec<Held>,
}

impl HeldConnections {
    /// Opens `count` connections from `host` and sends a request in each `every` so often; returns when all had
    /// their first response.
    pub fn start(host: &Host, target: &Target, count: usize, every: Duration) -> Result<Self> {
        Self::start_with(host, target, count, Habit::of(every))
    }

    /// As [`HeldConnections::start`].
    pub fn start_with(host: &Host, target: &Target, count: usize, habit: Habit) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let fresh = Held { node: None, responses: 0, end: None };
        shared.held.lock().unwrap_or_else(PoisonError::into_inner).resize(count, fresh);
        let threads = host.thread({
            let (shared, target) = (Arc::clone(&shared), target.clone());
            move || {
                thread::scope(|scope| -> Result<()> {
                    for index in 0..count {
                        let (shared, target) = (&*shared, &target);
                        let hold = move || hold(shared, index, target, habit);
                        thread::Builder::new().stack_size(STACK).spawn_scoped(scope, hold)?;
                        thread::sleep(habit.pace);
                    }
                    Ok(())
                })
            }
        });
        let this = Self { shared, threads: Some(threads) };
        let end = Instant::now() + UP + habit.every;
        loop {
            let report = this.report();
            if report.held.iter().all(|held| held.responses > 0) {
                return Ok(this);
            }
            if let Some(broken) = report.held.iter().find_map(|held| match held.end {
                Some(End::Broken(failure, _)) => Some(failure),
                _ => None,
            }) {
                bail!("a connection to {target} failed at once: {broken}");
            }
            if Instant::now() > end {
                bail!("not all of {count} connections to {target} came up");
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// How it stands now.
    pub fn report(&self) -> HoldReport {
        HoldReport { held: self.shared.held.lock().unwrap_or_else(PoisonError::into_inner).clone() }
    }

    /// Lets each connection finish its present request, and says what became of all.
    pub fn finish(mut self) -> Result<HoldReport> {
        self.shared.stop();
        if let Some(threads) = self.threads.take() {
            match threads.join() {
                Ok(result) => result?,
                Err(_) => bail!("a load client panicked"),
            }
        }
        Ok(self.report())
    }
}

impl Drop for HeldConnections {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

/// Holds the connection number `index` until it ends or is told to stop.
fn hold(shared: &Shared, index: usize, target: &Target, habit: Habit) {
    let Habit { every, patience, .. } = habit;
    let note = |change: &dyn Fn(&mut Held)| {
        let mut held = shared.held.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut held[index]);
    };
    let broken = |failure: Failure| {
        let end = End::Broken(failure, Instant::now());
        note(&|held| held.end = Some(end));
    };
    let mut connection = match Connection::open(target.address, patience) {
        Ok(connection) => connection,
        Err(failure) => return broken(failure),
    };
    // Out of step with each other, always in the same way.
    let offset = every * u32::try_from(index % 97).unwrap_or(0) / 97;
    let mut next = Instant::now();
    while !shared.stop.load(Ordering::Relaxed) {
        let response = match connection.get(target, false) {
            Ok(response) => response,
            Err(failure) => return broken(failure),
        };
        let Ok(echo) = response.echo() else { return broken(Failure::Malformed) };
        let closes = response.closes();
        note(&|held| {
            held.node = Some(held.node.unwrap_or(echo.peer));
            held.responses += 1;
            held.end = closes.then_some(End::Closed);
        });
        if closes {
            return;
        }
        // After a slow response the next request is due at once; missed ones aren't made up for.
        next = (next + every).max(Instant::now());
        shared.wait(next + offset);
    }
}

impl HoldReport {
    /// Connections that broke, of those whose node satisfies `on`.
    pub fn broken(&self, on: impl Fn(Option<IpAddr>) -> bool) -> usize {
        self.held.iter().filter(|held| on(held.node) && matches!(held.end, Some(End::Broken(..)))).count()
    }

    /// All connections whose node satisfies `on`.
    pub fn count(&self, on: impl Fn(Option<IpAddr>) -> bool) -> usize {
        self.held.iter().filter(|held| on(held.node)).count()
    }

    /// Connections that the server closed in good order.
    pub fn closed(&self) -> usize {
        self.held.iter().filter(|held| matches!(held.end, Some(End::Closed))).count()
    }

    /// Responses received over all connections.
    pub fn responses(&self) -> u64 {
        self.held.iter().map(|held| held.responses).sum()
    }

    /// Connections per node.
    pub fn by_node(&self) -> BTreeMap<IpAddr, usize> {
        let mut counts = BTreeMap::new();
        for node in self.held.iter().filter_map(|held| held.node) {
            *counts.entry(node).or_default() += 1;
        }
        counts
    }

    /// How long after `event` the first connection broke, and the last one.
    pub fn breaks_after(&self, event: Instant) -> Option<(Duration, Duration)> {
        let ends = self.held.iter().filter_map(|held| match held.end {
            Some(End::Broken(_, at)) => Some(at.saturating_duration_since(event)),
            _ => None,
        });
        Some((ends.clone().min()?, ends.max()?))
    }

    /// How often each kind of breakage occurred, for messages.
    pub fn failures(&self) -> BTreeMap<Failure, usize> {
        let mut counts = BTreeMap::new();
        for held in &self.held {
            if let Some(End::Broken(failure, _)) = held.end {
                *counts.entry(failure).or_default() += 1;
            }
        }
        counts
    }
}
