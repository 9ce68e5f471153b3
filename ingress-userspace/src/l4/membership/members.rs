//! Both ways of knowing who lives, without IO: heartbeats all to all (`machine`) up to a number of declared nodes, gossip
//! (`swim`) above it. Driven by `thread` and by the simulation in the tests.
//!
//! All nodes switch when they hear of the same declaration, and not all hear it at once. So a node that gossips still
//! answers whoever sends it heartbeats, and a peer is up if either way says so.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::machine::{Announced, Beat, Incarnation, Legacy, Liveness, Machine, Timing};
use super::swim::Swim;

/// After the switch heartbeats go on to all for this long: until the gossip has found everybody.
const OVERLAP: Duration = Duration::from_secs(3);
/// Gossip has heard of all who live after this.
const SWIM_SETTLES: Duration = Duration::from_secs(2);

/// One node's knowledge of the others.
#[derive(Debug)]
pub(crate) struct Members {
    machine: Machine,
    swim: Option<Swim>,
    name: String,
    gossip_above: usize,
    /// Milliseconds since 1970.
    started_ms: u64,
    seed: u64,
    announced: Announced,
    /// When this node began to gossip.
    gossips_since: Option<Instant>,
    /// Set when there are few nodes again.
    gossips_until: Option<Instant>,
    settled: bool,
    /// Who was up for the daemon before, a moment ago.
    expected: Option<BTreeSet<String>>,
}

impl Members {
    pub(crate) fn new(
        name: String,
        incarnation: Incarnation,
        timing: Timing,
        gossip_above: usize,
        started_ms: u64,
    ) -> Self {
        Self {
            machine: Machine::new(name.clone(), incarnation, timing),
            swim: None,
            name,
            gossip_above,
            started_ms,
            seed: incarnation.0,
            announced: Announced::Joining,
            gossips_since: None,
            gossips_until: None,
            settled: false,
            expected: None,
        }
    }

    /// See [`Machine::legacy`].
    pub(crate) fn legacy(&self) -> Legacy {
        let up = self.view().into_iter().filter(|(_, liveness)| *liveness != Liveness::Down);
        let mut legacy = self.machine.legacy();
        legacy.up = Some(up.map(|(name, _)| name).collect());
        legacy
    }

    /// See [`Machine::inherit`]. Gossip begins anew, under a later identity that says the same.
    pub(crate) fn inherit(&mut self, now: Instant, legacy: Legacy) {
        self.announced = legacy.announced;
        self.expected.clone_from(&legacy.up);
        self.machine.inherit(now, legacy);
    }

    /// Only declared nodes take part.
    pub(crate) fn declare(&mut self, now: Instant, names: &[&str]) {
        self.machine.declare(now, names.iter().copied());
        if names.len() <= self.gossip_above {
            if let Some(swim) = &mut self.swim {
                // Until the heartbeats have found everybody.
                self.gossips_until.get_or_insert(now + OVERLAP);
                swim.declare(names.iter().copied());
            }
            self.gossips_since = None;
        } else if names.contains(&self.name.as_str()) {
            self.gossips_since.get_or_insert(now);
            self.gossips_until = None;
            let swim = self
                .swim
                .get_or_insert_with(|| Swim::new(&self.name, self.started_ms, self.announced, self.seed));
            swim.declare(names.iter().copied());
        }
    }

    pub(crate) fn announce(&mut self, now: Instant, announced: Announced) {
        self.announced = announced;
        self.machine.announce(announced);
        if let Some(swim) = &mut self.swim {
            swim.announce(now, announced);
        }
    }

    /// Takes a heartbeat in. True if it should be answered at once.
    pub(crate) fn receive(&mut self, now: Instant, beat: &Beat) -> bool {
        self.machine.receive(now, beat)
    }

    /// Takes a gossip message in; a node that does not gossip (yet) has no use for it.
    pub(crate) fn gossip(&mut self, now: Instant, message: &[u8]) {
        if let Some(swim) = &mut self.swim {
            swim.receive(now, message);
        }
    }

    /// Time for the heartbeats: silent peers go down. Call it once per interval.
    pub(crate) fn tick(&mut self, now: Instant) {
        self.machine.tick(now);
        if self.gossips_until.is_some_and(|end| end <= now) {
            self.gossips_until = None;
            self.swim = None;
        }
        self.settled |= match self.gossips_since {
            None => self.machine.is_settled(),
            Some(since) => {
                let is_expected =
                    |name: &String| self.expected.as_ref().is_none_or(|expected| expected.contains(name));
                let mut view = self.view().into_iter().filter(|(name, _)| is_expected(name));
                view.all(|(_, liveness)| liveness != Liveness::Down)
                    || now.saturating_duration_since(since) >= SWIM_SETTLES
            }
        };
    }

    /// Time for the gossip, if it is due.
    pub(crate) fn tick_gossip(&mut self, now: Instant) {
        if let Some(swim) = &mut self.swim
            && swim.next().is_none_or(|due| due <= now)
        {
            swim.tick(now);
        }
    }

    /// When [`Members::tick_gossip`] has something to do.
    pub(crate) fn next_gossip(&self) -> Option<Instant> {
        self.swim.as_ref().and_then(Swim::next)
    }

    /// Whether `peer` gets heartbeats: all do where there is no gossip, else those who send us some and do not gossip.
    pub(crate) fn beats(&self, now: Instant, peer: &str) -> bool {
        self.gossips_since.is_none_or(|since| now.saturating_duration_since(since) < OVERLAP)
            || self.machine.needs_beats(peer)
    }

    /// The heartbeat for one peer.
    pub(crate) fn beat_for(&mut self, peer: &str) -> Option<Beat> {
        let gossips = self.gossips_since.is_some();
        self.machine.beat_for(peer).map(|beat| Beat { gossips, ..beat })
    }

    /// Gossip that must be sent, and to whom.
    pub(crate) fn take_messages(&mut self) -> Vec<(String, Vec<u8>)> {
        self.swim.as_mut().map(Swim::take_messages).unwrap_or_default()
    }

    /// How many peers are up and suspected to be dead: by gossip where there is some, else for their silence.
    pub(crate) fn suspects(&self, now: Instant) -> usize {
        match (&self.swim, self.gossips_since) {
            (Some(swim), Some(_)) => swim.suspects(),
            _ => self.machine.suspects(now),
        }
    }

    /// Whether the view can be acted on.
    pub(crate) const fn is_settled(&self) -> bool {
        self.settled
    }

    pub(crate) fn view(&self) -> BTreeMap<String, Liveness> {
        let mut view = self.machine.view();
        if let Some(swim) = &self.swim {
            for (name, liveness) in swim.view() {
                view.entry(name)
                    .and_modify(|known| {
                        if *known == Liveness::Down {
                            *known = liveness;
                        }
                    })
                    .or_insert(liveness);
            }
        }
        view
    }
}

#[cfg(test)]
mod tests;
