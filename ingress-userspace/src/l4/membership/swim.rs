//! Who is alive in a big cluster: SWIM (foca) without IO or clock. Each node probes one other at a time, asks others to
//! try when that fails, and tells what it learnt along with its next messages; so the cost per node stays the same
//! however many there are. Used by `members` next to the heartbeat `machine`; tests run a hundred of them in memory.
//!
//! What a node says of itself travels in its identity: a change of state is a new identity of the same name, which wins
//! over the older one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::num::{NonZeroU8, NonZeroUsize};
use std::time::{Duration, Instant};

use foca::{
    AccumulatingRuntime, Config, Foca, Identity, NoCustomBroadcast, PeriodicParams, PostcardCodec, State,
    Timer,
};
use rand::SeedableRng as _;
use rand::rngs::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};
use tracing::debug;

use super::machine::{Announced, Liveness};

/// Longest message: with the sealed header it fits into one packet of 1,500 bytes.
pub(crate) const MAX_MESSAGE: usize = 1150;
/// A node is probed by somebody every [`PROBE_PERIOD`] on average. With `SUSPECT_FOR` this makes a dead node known to
/// all in 0.9 s (99 of 100 times), and lets a living one be silent for half a second. The simulation below measures it.
const PROBE_PERIOD: Duration = Duration::from_millis(50);
/// Others are asked to probe after this.
const PROBE_RTT: Duration = Duration::from_millis(20);
/// A suspect that does not object is down.
const SUSPECT_FOR: Duration = Duration::from_millis(500);
/// News are told this often, to [`GOSSIP_TO`] nodes.
const GOSSIP_PERIOD: Duration = Duration::from_millis(50);
const GOSSIP_TO: usize = 4;
/// Declared nodes that are not members are called this often, [`CALLS`] at a time.
const CALL_PERIOD: Duration = Duration::from_millis(100);
const CALLS: usize = 8;
/// If we ourselves did not run for longer, the others had no chance to answer.
const STALL: Duration = Duration::from_millis(100);
/// A renewed identity must win over whatever the others hold: milliseconds by which the first renewal jumps ahead;
/// each further one jumps twice as far, so a clock that went back by a year is made up for after some 20.
const RENEWAL: u64 = 60_000;

/// A node, as the members know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Id {
    name: String,
    /// Milliseconds since 1970 when the daemon started, plus one for each change: the later one wins.
    version: u64,
    /// How often it was renewed.
    renewals: u8,
    state: u8,
}

impl Identity for Id {
    type Addr = String;

    fn renew(&self) -> Option<Self> {
        let jump = RENEWAL << self.renewals.min(32);
        Some(Self {
            version: self.version.saturating_add(jump),
            renewals: self.renewals.saturating_add(1),
            ..self.clone()
        })
    }

    fn addr(&self) -> String {
        self.name.clone()
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.version > adversary.version
    }
}

impl Id {
    /// Somebody of whom we only know the name.
    fn named(name: &str) -> Self {
        Self { name: name.to_owned(), version: 0, renewals: 0, state: Announced::Joining.to_byte() }
    }

    fn liveness(&self) -> Liveness {
        match Announced::from_byte(self.state) {
            Some(Announced::Joining) => Liveness::Joining,
            Some(Announced::Serving) => Liveness::Serving,
            Some(Announced::Draining) => Liveness::Draining,
            Some(Announced::Leaving) | None => Liveness::Down,
        }
    }
}

/// A timer of foca's; the heap gives the earliest first, equal ones in foca's own order.
#[derive(Debug, PartialEq, Eq)]
struct Due {
    at: Instant,
    timer: Timer<Id>,
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at).then_with(|| self.timer.cmp(&other.timer))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// One node's part of the gossip.
pub(crate) struct Swim {
    foca: Foca<Id, PostcardCodec, Xoshiro256PlusPlus, NoCustomBroadcast>,
    runtime: AccumulatingRuntime<Id>,
    timers: BinaryHeap<Reverse<Due>>,
    name: String,
    declared: BTreeSet<String>,
    /// Where the calls go on, among the declared.
    called: Option<String>,
    next_call: Option<Instant>,
    last_run: Option<Instant>,
    outbox: Vec<(String, Vec<u8>)>,
}

impl std::fmt::Debug for Swim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Swim").field("identity", self.foca.identity()).finish_non_exhaustive()
    }
}

fn config() -> Config {
    let count = |n: usize| NonZeroUsize::new(n).unwrap_or(NonZeroUsize::MIN);
    Config {
        probe_period: PROBE_PERIOD,
        probe_rtt: PROBE_RTT,
        num_indirect_probes: count(3),
        max_transmissions: NonZeroU8::new(12).unwrap_or(NonZeroU8::MIN),
        suspect_to_down_after: SUSPECT_FOR,
        remove_down_after: Some(Duration::from_hours(24)),
        max_packet_size: count(MAX_MESSAGE),
        notify_down_members: true,
        periodic_announce: None,
        // `call` does it: it knows who is declared.
        periodic_announce_to_down_members: None,
        periodic_gossip: Some(PeriodicParams { frequency: GOSSIP_PERIOD, num_members: count(GOSSIP_TO) }),
    }
}

impl Swim {
    /// `started_ms`: milliseconds since 1970; a later run of a node must have a greater value.
    pub(crate) fn new(name: &str, started_ms: u64, announced: Announced, seed: u64) -> Self {
        let id = Id { version: started_ms, state: announced.to_byte(), ..Id::named(name) };
        Self {
            foca: Foca::new(id, config(), Xoshiro256PlusPlus::seed_from_u64(seed), PostcardCodec),
            runtime: AccumulatingRuntime::new(),
            timers: BinaryHeap::new(),
            name: name.to_owned(),
            declared: BTreeSet::new(),
            called: None,
            next_call: None,
            last_run: None,
            outbox: Vec::new(),
        }
    }

    /// Only these count; this node may be among them.
    pub(crate) fn declare<'a>(&mut self, names: impl IntoIterator<Item = &'a str>) {
        self.declared = names.into_iter().filter(|name| *name != self.name).map(str::to_owned).collect();
    }

    /// Says it to all members at once, not only to those whom gossip reaches first: a node that drains is waited for.
    pub(crate) fn announce(&mut self, now: Instant, announced: Announced) {
        let old = self.foca.identity();
        if old.state == announced.to_byte() {
            return;
        }
        let id = Id { version: old.version + 1, state: announced.to_byte(), ..old.clone() };
        let members: Vec<Id> = self.foca.iter_members().map(|member| member.id().clone()).collect();
        let changed = self.foca.change_identity(id, &mut self.runtime);
        self.settle(now, "change of state", changed);
        for member in members {
            let told = self.foca.announce(member, &mut self.runtime);
            self.settle(now, "announcement", told);
        }
    }

    /// Takes in what another node sent.
    pub(crate) fn receive(&mut self, now: Instant, message: &[u8]) {
        let taken = self.foca.handle_data(message, &mut self.runtime);
        self.settle(now, "message", taken);
    }

    /// Lets time pass. Call it at [`Swim::next`], after all waiting messages were taken in.
    pub(crate) fn tick(&mut self, now: Instant) {
        let stall = self.next().map_or(Duration::ZERO, |due| now.saturating_duration_since(due));
        if stall > STALL && self.last_run.is_some() {
            let late = std::mem::take(&mut self.timers);
            self.timers = late
                .into_iter()
                .map(|Reverse(Due { at, timer })| Reverse(Due { at: at + stall, timer }))
                .collect();
        }
        self.last_run = Some(now);
        while self.timers.peek().is_some_and(|Reverse(due)| due.at <= now) {
            let Some(Reverse(due)) = self.timers.pop() else { break };
            let handled = self.foca.handle_timer(due.timer, &mut self.runtime);
            self.settle(now, "timer", handled);
        }
        if self.next_call.is_none_or(|at| at <= now) {
            self.next_call = Some(now + CALL_PERIOD);
            self.call(now);
        }
    }

    /// When [`Swim::tick`] has something to do.
    pub(crate) fn next(&self) -> Option<Instant> {
        let timer = self.timers.peek().map(|Reverse(due)| due.at);
        timer.into_iter().chain(self.next_call).min()
    }

    /// What must be sent, to whom.
    pub(crate) fn take_messages(&mut self) -> Vec<(String, Vec<u8>)> {
        std::mem::take(&mut self.outbox)
    }

    /// How many members somebody holds for dead, and who have not objected yet.
    pub(crate) fn suspects(&self) -> usize {
        self.foca.iter_membership_state().filter(|member| member.state() == State::Suspect).count()
    }

    /// The declared nodes.
    pub(crate) fn view(&self) -> BTreeMap<String, Liveness> {
        let mut view: BTreeMap<String, Liveness> =
            self.declared.iter().map(|name| (name.clone(), Liveness::Down)).collect();
        for member in self.foca.iter_members() {
            if let Some(liveness) = view.get_mut(&member.id().name) {
                *liveness = member.id().liveness();
            }
        }
        view
    }

    /// Calls some of the declared nodes that are not members: that is how a node joins, and how the halves of a cluster
    /// find each other after a partition.
    fn call(&mut self, now: Instant) {
        let members: BTreeSet<&str> =
            self.foca.iter_members().map(|member| member.id().name.as_str()).collect();
        let missing: Vec<&String> =
            self.declared.iter().filter(|name| !members.contains(name.as_str())).collect();
        let start = self.called.as_ref().map_or(0, |called| missing.partition_point(|name| *name <= called));
        let chosen: Vec<String> = missing
            .iter()
            .cycle()
            .skip(start)
            .take(CALLS.min(missing.len()))
            .map(|name| (*name).clone())
            .collect();
        self.called = chosen.last().cloned();
        for name in chosen {
            let called = self.foca.announce(Id::named(&name), &mut self.runtime);
            self.settle(now, "call", called);
        }
    }

    /// Carries out what foca asked for. Its errors are about single messages (somebody of another version, a late
    /// timer) and change nothing.
    fn settle(&mut self, now: Instant, what: &str, result: Result<(), foca::Error>) {
        if let Err(error) = result {
            debug!(what, %error, "gossip");
        }
        while let Some((to, data)) = self.runtime.to_send() {
            self.outbox.push((to.name, data.to_vec()));
        }
        while let Some((after, timer)) = self.runtime.to_schedule() {
            self.timers.push(Reverse(Due { at: now + after, timer }));
        }
        while self.runtime.to_notify().is_some() {}
    }
}
