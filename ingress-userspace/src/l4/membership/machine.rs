//! Who is alive, as a state machine without IO or clock: heartbeats and the time go in, a view of the peers comes out.
//! Driven by `members`; tests drive many of them against each other with a seeded, lossy network.
//!
//! A peer counts as up only if we hear it *and* it says that it hears this very run of ours (`echo`). So both ends of
//! a link that is broken in one direction agree, and old datagrams that somebody replays bring nobody to life.
//!
//! A node that did not run for a while (a stopped process, a starved machine) must not blame its peers for it: their
//! silence meanwhile is its own, and that they stopped hearing it says nothing of the link.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// How many former incarnations of a peer are remembered, so that their replayed heartbeats are refused.
const REMEMBERED_INCARNATIONS: usize = 8;

/// One run of a daemon: random, so that a restarted daemon is told from its predecessor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Incarnation(pub(crate) u64);

/// What a node says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Announced {
    /// Its tables are not in place yet: no new flows.
    Joining,
    /// Takes new flows.
    Serving,
    /// Keeps its flows, takes no new ones.
    Draining,
    /// Stops now: as good as dead.
    Leaving,
}

impl Announced {
    /// As it goes over the wire.
    pub(crate) const fn to_byte(self) -> u8 {
        match self {
            Self::Joining => 0,
            Self::Serving => 1,
            Self::Draining => 2,
            Self::Leaving => 3,
        }
    }

    /// `None`: no state that we know.
    pub(crate) const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Joining,
            1 => Self::Serving,
            2 => Self::Draining,
            3 => Self::Leaving,
            _ => return None,
        })
    }
}

/// What we hold of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Liveness {
    /// Not heard, or it does not hear us.
    Down,
    /// Heard, not ready yet.
    Joining,
    /// Takes new flows.
    Serving,
    /// Keeps its flows, takes no new ones.
    Draining,
}

/// One heartbeat, from one node to one other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Beat {
    pub(crate) sender: String,
    pub(crate) incarnation: Incarnation,
    /// Counts every datagram of this incarnation, whoever it goes to.
    pub(crate) sequence: u64,
    pub(crate) announced: Announced,
    /// The incarnation of the receiver that the sender hears, if it hears any.
    pub(crate) echo: Option<Incarnation>,
    /// Whether the sender gossips too. One that does not lives by heartbeats alone, so it must go on getting them.
    pub(crate) gossips: bool,
}

/// How often, and for how long silence is forgiven.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Time between two heartbeats to each peer.
    pub interval: Duration,
    /// Silence after which a peer is down.
    pub dead_after: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Peer {
    incarnation: Option<Incarnation>,
    former: VecDeque<Incarnation>,
    sequence: u64,
    /// By this process's clock.
    #[serde(skip)]
    heard: Option<Instant>,
    announced: Announced,
    hears_us: bool,
    gossips: bool,
}

impl Peer {
    const fn new() -> Self {
        Self {
            incarnation: None,
            former: VecDeque::new(),
            sequence: 0,
            heard: None,
            announced: Announced::Joining,
            hears_us: false,
            gossips: false,
        }
    }

    fn liveness(&self) -> Liveness {
        match (self.heard, self.hears_us, self.announced) {
            (None, _, _) | (_, false, _) | (_, _, Announced::Leaving) => Liveness::Down,
            (Some(_), true, Announced::Joining) => Liveness::Joining,
            (Some(_), true, Announced::Serving) => Liveness::Serving,
            (Some(_), true, Announced::Draining) => Liveness::Draining,
        }
    }
}

/// What a daemon leaves to the next one of the same node, which goes on under its incarnation: for the peers it is the same
/// run, and none of them sees the node leave or come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Legacy {
    pub(crate) incarnation: Incarnation,
    /// The last one that was used; with a key it is a nonce, so none is ever used twice.
    sequence: u64,
    pub(crate) announced: Announced,
    peers: BTreeMap<String, Peer>,
    /// Who of them was heard a moment ago.
    heard: BTreeSet<String>,
    /// Who of them was up, heard or by what others say. Nothing in what an earlier version left.
    #[serde(default)]
    pub(crate) up: Option<BTreeSet<String>>,
}

/// One node's knowledge of the others.
#[derive(Debug)]
pub(crate) struct Machine {
    name: String,
    incarnation: Incarnation,
    sequence: u64,
    announced: Announced,
    timing: Timing,
    peers: BTreeMap<String, Peer>,
    last_tick: Option<Instant>,
    /// Until when a peer that does not hear us is excused: we ourselves had been silent.
    excused_until: Option<Instant>,
    /// Since when this node itself is declared: the start of the settling time. Before that the peers don't speak to
    /// it, and their silence says nothing.
    declared: Option<Instant>,
    settled: bool,
}

impl Machine {
    pub(crate) fn new(name: String, incarnation: Incarnation, timing: Timing) -> Self {
        Self {
            name,
            incarnation,
            sequence: 0,
            announced: Announced::Joining,
            timing,
            peers: BTreeMap::new(),
            last_tick: None,
            excused_until: None,
            declared: None,
            settled: false,
        }
    }

    /// What the next daemon of this node goes on with. Nothing may be sent any more after it.
    pub(crate) fn legacy(&self) -> Legacy {
        let heard = self.peers.iter().filter(|(_, peer)| peer.heard.is_some());
        Legacy {
            incarnation: self.incarnation,
            sequence: self.sequence,
            announced: self.announced,
            peers: self.peers.clone(),
            heard: heard.map(|(name, _)| name.clone()).collect(),
            up: None,
        }
    }

    /// Goes on where the daemon before left off; that daemon must have stopped speaking.
    pub(crate) fn inherit(&mut self, now: Instant, legacy: Legacy) {
        self.incarnation = legacy.incarnation;
        self.sequence = legacy.sequence;
        self.announced = legacy.announced;
        self.peers = legacy.peers;
        for name in &legacy.heard {
            if let Some(peer) = self.peers.get_mut(name) {
                peer.heard = Some(now);
            }
        }
    }

    /// Only declared nodes take part. One that is declared anew is down until it is heard.
    pub(crate) fn declare<'a>(&mut self, now: Instant, names: impl IntoIterator<Item = &'a str>) {
        let mut old = std::mem::take(&mut self.peers);
        for name in names {
            if name == self.name {
                self.declared.get_or_insert(now);
            } else {
                self.peers.insert(name.to_owned(), old.remove(name).unwrap_or_else(Peer::new));
            }
        }
    }

    pub(crate) fn announce(&mut self, announced: Announced) {
        self.announced = announced;
    }

    /// Takes a heartbeat in. True if the sender does not yet know that we hear it: answer at once, so that two nodes
    /// that start find each other within a round trip instead of an interval.
    pub(crate) fn receive(&mut self, now: Instant, beat: &Beat) -> bool {
        self.notice_stall(now);
        let Some(peer) = self.peers.get_mut(&beat.sender) else { return false };
        if peer.incarnation != Some(beat.incarnation) {
            if peer.former.contains(&beat.incarnation) {
                return false;
            }
            if let Some(former) = peer.incarnation.replace(beat.incarnation) {
                peer.former.push_back(former);
                if peer.former.len() > REMEMBERED_INCARNATIONS {
                    peer.former.pop_front();
                }
            }
            peer.sequence = 0;
            peer.hears_us = false;
        }
        if beat.sequence <= peer.sequence {
            return false;
        }
        let is_news = peer.heard.is_none() || peer.sequence == 0;
        peer.sequence = beat.sequence;
        peer.heard = (beat.announced != Announced::Leaving).then_some(now);
        peer.announced = beat.announced;
        let is_excused = beat.echo.is_none() && self.excused_until.is_some_and(|end| now < end);
        if !is_excused {
            peer.hears_us = beat.echo == Some(self.incarnation);
        }
        peer.gossips = beat.gossips;
        is_news && beat.announced != Announced::Leaving
    }

    /// For how long we ourselves were kept from running, beyond what is usual. After that the first datagrams are those of
    /// peers that had given us up. They have to hear us first: until one beat of ours could be answered by their next one,
    /// they are what they were.
    fn notice_stall(&mut self, now: Instant) -> Duration {
        let stall = self.last_tick.map_or(Duration::ZERO, |last| {
            now.saturating_duration_since(last).saturating_sub(self.timing.interval * 2)
        });
        if !stall.is_zero() {
            self.excused_until = Some(now + self.timing.interval * 3);
        }
        stall
    }

    /// Lets time pass: silent peers go down. Call it once per interval, after all waiting datagrams were taken in.
    pub(crate) fn tick(&mut self, now: Instant) {
        // The others had no chance to be heard while we did not run.
        let stall = self.notice_stall(now);
        self.last_tick = Some(now);
        for peer in self.peers.values_mut() {
            if let Some(heard) = peer.heard {
                let heard = (heard + stall).min(now);
                peer.heard = (now.duration_since(heard) < self.timing.dead_after).then_some(heard);
            }
        }
        if let Some(declared) = self.declared
            && !self.settled
        {
            let all_up = self.peers.values().all(|peer| peer.liveness() != Liveness::Down);
            self.settled = all_up || now.saturating_duration_since(declared) >= self.timing.dead_after;
        }
    }

    /// The heartbeat for one peer.
    pub(crate) fn beat_for(&mut self, name: &str) -> Option<Beat> {
        let peer = self.peers.get(name)?;
        self.sequence += 1;
        Some(Beat {
            sender: self.name.clone(),
            incarnation: self.incarnation,
            sequence: self.sequence,
            announced: self.announced,
            echo: peer.heard.and(peer.incarnation),
            gossips: false,
        })
    }

    /// How many peers are up and have missed three beats or more.
    pub(crate) fn suspects(&self, now: Instant) -> usize {
        let is_late = |heard: Instant| now.saturating_duration_since(heard) > self.timing.interval * 4;
        let up = self.peers.values().filter(|peer| peer.liveness() != Liveness::Down);
        up.filter(|peer| peer.heard.is_some_and(is_late)).count()
    }

    /// Whether `peer` sends heartbeats and has no other way to know of us.
    pub(crate) fn needs_beats(&self, peer: &str) -> bool {
        self.peers.get(peer).is_some_and(|peer| peer.heard.is_some() && !peer.gossips)
    }

    /// Whether the view can be acted on: all peers are up, or they had the time to be.
    pub(crate) const fn is_settled(&self) -> bool {
        self.settled
    }

    pub(crate) fn view(&self) -> BTreeMap<String, Liveness> {
        self.peers.iter().map(|(name, peer)| (name.clone(), peer.liveness())).collect()
    }
}

#[cfg(test)]
mod tests;
