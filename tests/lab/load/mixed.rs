//! The load that scenarios and the demo put on a lab: held connections and a stream of new ones, over every IP
//! version that the lab has.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::{
    HeldConnections, HoldReport, SteadyReport, SteadyRequests,
    hold::{End, Habit, Held},
};
use crate::lab::{Lab, Node, http::Target};

/// How often each held connection carries a request.
const EVERY: Duration = Duration::from_millis(500);

/// A running load.
#[derive(Debug)]
pub struct Load {
    habit: Habit,
    held: Vec<HeldConnections>,
    steady: Vec<SteadyRequests>,
}

/// What became of it.
#[derive(Debug, Clone)]
pub struct LoadReport {
    /// The held connections.
    pub hold: HoldReport,
    /// The requests on connections of their own.
    pub steady: SteadyReport,
}

impl Load {
    /// Starts `connections` held connections and `per_second` new ones, in total, from the lab's first client to
    /// `host` and `path`.
    pub fn start(lab: &Lab, host: &str, path: &str, connections: usize, per_second: u32) -> Result<Self> {
        Self::start_with(lab, host, path, connections, per_second, Habit::of(EVERY))
    }

    /// As [`Load::start`], with held connections of another habit.
    pub fn start_with(
        lab: &Lab,
        host: &str,
        path: &str,
        connections: usize,
        per_second: u32,
        habit: Habit,
    ) -> Result<Self> {
        let mut load = Self { habit, held: Vec::new(), steady: Vec::new() };
        load.hold_more(lab, host, path, connections)?;
        let vips = lab.vips();
        for &vip in &vips {
            let rate = per_second / u32::try_from(vips.len())?;
            load.steady.push(SteadyRequests::start(lab.client(0), &Target::new(vip, host, path), rate));
        }
        Ok(load)
    }

    /// Opens `connections` more to be held.
    pub fn hold_more(&mut self, lab: &Lab, host: &str, path: &str, connections: usize) -> Result<()> {
        let vips = lab.vips();
        for &vip in &vips {
            let target = Target::new(vip, host, path);
            let held =
                HeldConnections::start_with(lab.client(0), &target, connections / vips.len(), self.habit);
            self.held.push(held.with_context(|| format!("holding connections to {target}"))?);
        }
        Ok(())
    }

    /// Waits until new connections over every IP version, begun after `since`, were served by `node`; the longest.
    pub fn wait_for_node(&self, node: &Node, since: Instant, at_most: Duration) -> Result<Duration> {
        let waits = self.steady.iter().map(|steady| steady.wait_for_node(node.addresses(), since, at_most));
        let longest = waits.collect::<Result<Vec<_>>>()?.into_iter().max();
        longest.with_context(|| format!("waiting for {} to serve", node.name()))
    }

    /// How it stands now.
    pub fn report(&self) -> LoadReport {
        let held = self.held.iter().flat_map(|held| held.report().held).collect();
        let requests = self.steady.iter().flat_map(|steady| steady.report().requests).collect();
        LoadReport { hold: HoldReport { held }, steady: SteadyReport { requests } }
    }

    /// Ends it.
    pub fn finish(mut self) -> Result<LoadReport> {
        let mut report = LoadReport {
            hold: HoldReport { held: Vec::new() },
            steady: SteadyReport { requests: Vec::new() },
        };
        for held in self.held.drain(..) {
            report.hold.held.extend(held.finish()?.held);
        }
        for steady in self.steady.drain(..) {
            report.steady.requests.extend(steady.finish()?.requests);
        }
        if report.steady.sent() == 0 && report.hold.responses() == 0 {
            bail!("the load sent nothing");
        }
        Ok(report)
    }
}

impl LoadReport {
    /// Held connections that `node` serves.
    pub fn held_on(&self, node: &Node) -> usize {
        self.hold.count(|address| address.is_some_and(|address| node.addresses().contains(&address)))
    }

    /// Held connections that broke on any node but `dead`.
    pub fn broken_elsewhere(&self, dead: Option<&Node>) -> usize {
        let is_dead = |address| dead.is_some_and(|node| node.addresses().contains(&address));
        self.hold.broken(|address| !address.is_some_and(is_dead))
    }

    /// Held connections that broke on `node`.
    pub fn broken_on(&self, node: &Node) -> usize {
        self.hold.broken(|address| address.is_some_and(|address| node.addresses().contains(&address)))
    }

    /// The held connections, without those that broke outside `from..to`.
    #[must_use]
    pub fn broken_between(&self, from: Instant, to: Instant) -> Self {
        let elsewhen =
            |held: &&Held| !matches!(held.end, Some(End::Broken(_, at)) if !(from..to).contains(&at));
        let held = self.hold.held.iter().filter(elsewhen).cloned().collect();
        Self { hold: HoldReport { held }, steady: self.steady.between(from, to) }
    }

    /// How long after `event` new connections still went to `node`.
    pub fn last_new_on(&self, node: &Node, event: Instant) -> Duration {
        let mine = |request: &&super::steady::Request| {
            matches!(&request.outcome, Ok((by, _)) if node.addresses().contains(by)) && request.start >= event
        };
        self.steady
            .requests
            .iter()
            .filter(mine)
            .map(|request| request.start - event)
            .max()
            .unwrap_or_default()
    }

    /// One line for people.
    pub fn summary(&self) -> String {
        format!(
            "requests lost {} of {} {:?}, slow {}, slowest {:.0} ms; connections broken {} of {} {:?}",
            self.steady.lost(),
            self.steady.sent(),
            self.steady.losses(),
            self.steady.slow(),
            self.steady.slowest().as_secs_f64() * 1e3,
            self.hold.broken(|_| true),
            self.hold.held.len(),
            self.hold.failures(),
        )
    }
}
