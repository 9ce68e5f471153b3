//! The task that keeps the kernel in line: waits for a change of the snapshot, the membership, the neighbours or the
//! wish to drain, works out what shall be (`sync`), writes it, and announces owned VIPs. Started by `L4::start`; ends
//! when the handle is dropped, and leaves program and maps working.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ingress_common::abi::{Config as Behaviour, NodeIndex, Uplink, Vlan};
use tokio::sync::watch;
use tokio::time::sleep_until;
use tracing::{debug, info, warn};

use super::address::Addresses;
use super::announce::{Ears, Place, Schedule, announce, ask};
use super::conflict::{Claim, Watch};
use super::findings::{Conflict, Findings, Unanswered};
use super::heartbeat::{HeartbeatThread, Pulse, now as clock_ns};
use super::legacy::Legacy;
use super::load::Takeover;
use super::maps::Heartbeat;
use super::membership::{Announced, Declared, Liveness, Membership, Road, View};
use super::neighbour::{Surroundings, Way};
use super::netlink::Netlink;
use super::owner::Handover;
use super::packet_socket::PacketSocket;
use super::path_mtu::{Unreachable, limit};
use super::status::{Generation, Picture};
use super::sync::{Cookies, Desired, Input, Places, Writer, build, desired};
use crate::model::Snapshot;

/// The engine turns at least this often.
const TURN: Duration = Duration::from_millis(500);

/// And this often while a VIP is about to move.
const HANDOVER_TURN: Duration = Duration::from_millis(25);

/// How long a node that joins waits for the hardware addresses of its peers. Without them it could not hand their
/// flows over; but a peer that never answers must not keep it away.
const RESOLVE: Duration = Duration::from_secs(2);

/// What the handle tells the engine; the latest of each counts.
#[derive(Clone, Default)]
pub(crate) struct Orders {
    pub(crate) generation: Generation,
    pub(crate) snapshot: Option<Arc<Snapshot>>,
    pub(crate) draining: bool,
    /// End, and leave everything to the next daemon of this node.
    pub(crate) hand_over: bool,
}

/// Everything the engine works with.
pub(crate) struct Engine {
    pub(crate) own_name: String,
    pub(crate) interfaces: Vec<String>,
    pub(crate) behaviour: Behaviour,
    /// Of each slot.
    pub(crate) candidates: usize,
    pub(crate) cookies: Cookies,
    pub(crate) orders: watch::Receiver<Orders>,
    pub(crate) membership: Membership,
    pub(crate) view: watch::Receiver<View>,
    pub(crate) peers: watch::Sender<Vec<Declared>>,
    pub(crate) surroundings: watch::Receiver<Surroundings>,
    pub(crate) picture: watch::Sender<Picture>,
    /// See [`super::L4::tunnelled_mtu`].
    pub(crate) tunnelled_mtu: watch::Sender<Option<u16>>,
    pub(crate) netlink: Netlink,
    pub(crate) writer: Writer,
    pub(crate) places: Places,
    pub(crate) handover: Handover,
    pub(crate) addresses: Addresses,
    pub(crate) packets: PacketSocket,
    pub(crate) schedule: Schedule,
    pub(crate) watch: Watch,
    pub(crate) ears: Ears,
    pub(crate) findings: watch::Sender<Findings>,
    pub(crate) pulse: Pulse,
    pub(crate) heartbeat: Option<Heartbeat>,
    pub(crate) started: Instant,
    /// As what the peers know this node, where a daemon has handed over: they shall not notice.
    pub(crate) inherited: Option<Announced>,
    /// Until the tables are in place for the first time, where an earlier version's program runs on.
    pub(crate) takeover: Option<Takeover>,
}

/// What is remembered from turn to turn.
#[derive(Default)]
struct Memory {
    declared: Vec<Declared>,
    roads: BTreeMap<String, Road>,
    applied: Option<Desired>,
    generation: Generation,
    announced: Option<Announced>,
    /// When the tables were in place for the first time.
    in_place: Option<Instant>,
    liveness: BTreeMap<String, Liveness>,
    unanswered: Unanswered,
    heartbeat: Option<HeartbeatThread>,
    unreachable: Unreachable,
    has_failed: bool,
}

impl Engine {
    /// Runs until the handle is dropped, or until all is to be handed over; then it gives what the next daemon needs.
    pub(crate) async fn run(mut self) -> Option<Legacy> {
        let mut memory = Memory { announced: self.inherited, ..Memory::default() };
        // An earlier version's maps are not ours; ours are filled later.
        if self.inherited.is_some() && self.takeover.is_none() {
            self.start_heartbeat(&mut memory);
        }
        loop {
            self.pulse.beat();
            self.turn(&mut memory).await;
            if self.join(&mut memory) {
                continue;
            }
            self.announce_due(&memory);
            self.ask_due(&memory).await;
            self.tell_findings(&memory);
            let longest = if self.handover.is_waiting() { HANDOVER_TURN } else { TURN };
            let next = self.schedule.next().into_iter().chain(self.watch.next()).min();
            let until_due = next.map(|at| at.saturating_duration_since(Instant::now()));
            let wake_at = Instant::now() + until_due.map_or(longest, |until| until.min(longest));
            let is_over = tokio::select! {
                changed = self.orders.changed() => changed.is_err(),
                _ = self.view.changed() => false,
                _ = self.surroundings.changed() => false,
                claim = self.ears.next() => {
                    self.hear(claim, &memory);
                    false
                }
                () = sleep_until(wake_at.into()) => false,
            };
            if is_over && self.orders.borrow().hand_over {
                return self.hand_over(memory).await;
            }
            if is_over {
                self.stop(memory).await;
                return None;
            }
        }
    }

    async fn turn(&mut self, memory: &mut Memory) {
        let orders = self.orders.borrow_and_update().clone();
        let Some(snapshot) = orders.snapshot else { return };
        self.declare(memory, &snapshot);
        if orders.draining && memory.announced == Some(Announced::Serving) {
            self.tell(memory, Announced::Draining);
        }
        let surroundings = self.surroundings.borrow_and_update().clone();
        self.tell_roads(memory, &surroundings);
        let view = self.view.borrow_and_update().clone();
        if !view.settled {
            return;
        }
        if self.inherited.is_some()
            && memory.applied.is_none()
            && self.started.elapsed() < RESOLVE
            && surroundings.lack_a_way(&view.peers)
        {
            // What the maps hold still is good.
            return;
        }
        let uplinks = self.uplinks(&surroundings);
        let returned = returned(&memory.liveness, &view.peers);
        let path_mtus = self.path_mtus(memory);
        let input = Input {
            own_name: &self.own_name,
            now: Instant::now(),
            own: match memory.announced {
                _ if orders.draining => Liveness::Draining,
                None => Liveness::Joining,
                Some(_) => Liveness::Serving,
            },
            snapshot: &snapshot,
            view: &view,
            returned: &returned,
            ways: &surroundings.ways,
            path_mtus: &path_mtus,
            uplinks: &uplinks,
            behaviour: &self.behaviour,
            cookies: self.cookies,
        };
        let desired = desired(&input, &mut self.places, &mut self.handover);
        let is_known = memory.applied.as_ref() == Some(&desired) && memory.generation == orders.generation;
        if is_known && !memory.has_failed {
            return;
        }
        // Before packets go into the tunnels.
        let mtu = desired.tunnelled_mtu();
        self.tunnelled_mtu.send_if_modified(|before| std::mem::replace(before, mtu) != mtu);
        let start = Instant::now();
        let mut problem = self.apply(&desired).await;
        memory.has_failed = problem.is_some();
        if let Some(problem) = &problem {
            warn!(problem, "the L4 tables are not up to date; trying again");
        }

        let has_changed = view.peers != memory.liveness;
        memory.liveness = view.peers;
        let now = Instant::now();
        self.schedule.own(now, desired.owned_by(&self.own_name), has_changed);
        self.watch.own(now, desired.owned_by(&self.own_name), has_changed);
        self.ears.listen(&uplinks);
        self.ears.own(desired.owned_by(&self.own_name).collect());
        memory.unanswered.update(now, &snapshot, &desired, &self.own_name, uplinks.len());
        self.tell_owners(memory.applied.as_ref(), &desired, start.elapsed());
        self.start_heartbeat(memory);
        if problem.is_none()
            && let Some(takeover) = self.takeover.take()
        {
            problem = takeover.complete().err();
        }
        memory.in_place.get_or_insert(start);
        if orders.draining {
            self.tell(memory, Announced::Draining);
        } else if memory.announced.is_some() {
            self.tell(memory, Announced::Serving);
        }
        let took = start.elapsed();
        debug!(generation = orders.generation.0, ?took, "applied");
        self.picture.send_replace(Picture {
            generation: orders.generation,
            applied_at: Some(SystemTime::now()),
            took,
            draining: orders.draining,
            problem,
            ..Picture::of(&desired)
        });
        memory.generation = orders.generation;
        memory.applied = Some(desired);
    }

    /// Once, as soon as the maps are filled.
    fn start_heartbeat(&mut self, memory: &mut Memory) {
        if memory.heartbeat.is_none()
            && let Some(map) = self.heartbeat.take()
        {
            match HeartbeatThread::start(map, self.pulse.clone()) {
                Ok(thread) => memory.heartbeat = Some(thread),
                Err(error) => warn!(%error, "cannot start the heartbeat: new flows go to the other nodes"),
            }
        }
    }

    /// Second half of joining: the tables are in place, and name all who serve by now, with a way to each. True if this
    /// node has just told the others that it serves; then it is time to take its part of the VIPs.
    fn join(&self, memory: &mut Memory) -> bool {
        let Some(in_place) = memory.in_place.filter(|_| memory.announced.is_none()) else { return false };
        let Ok(view_changed) = self.view.has_changed() else { return false };
        let surroundings = self.surroundings.borrow();
        let lacks_a_way =
            surroundings.lack_a_way(&memory.liveness) || self.surroundings.has_changed().is_ok_and(|has| has);
        if view_changed || lacks_a_way && in_place.elapsed() < RESOLVE {
            return false;
        }
        self.tell(memory, Announced::Serving);
        true
    }

    /// Writes maps and addresses in the order that `sync::write` asks for. What failed, if anything.
    async fn apply(&mut self, desired: &Desired) -> Option<String> {
        if let Err(error) = self.writer.write_nodes(desired) {
            return Some(format!("cannot write the node map: {error}"));
        }
        let table = if self.writer.needs_table(desired) {
            let candidates = desired.candidates.clone();
            let count = self.candidates;
            match tokio::task::spawn_blocking(move || build(&candidates, count)).await {
                Ok(table) => Some(table),
                Err(error) => return Some(format!("cannot build the slot table: {error}")),
            }
        } else {
            None
        };
        if let Err(error) = self.writer.write_before_addresses(desired, table) {
            return Some(format!("cannot write the maps: {error}"));
        }
        let is_on_lo = self.addresses.apply(&self.netlink, &desired.addresses).await;
        if let Err(error) = self.writer.write_after_addresses(desired) {
            return Some(format!("cannot write the maps: {error}"));
        }
        (!is_on_lo).then(|| "not all VIPs are on lo".to_owned())
    }

    fn declare(&self, memory: &mut Memory, snapshot: &Snapshot) {
        let declared: Vec<Declared> = snapshot
            .nodes
            .iter()
            .map(|node| Declared { name: node.name.clone(), addresses: node.addresses.clone() })
            .collect();
        if declared == memory.declared {
            return;
        }
        if !declared.iter().any(|node| node.name == self.own_name) {
            warn!(
                node = self.own_name,
                "this node is not among the declared nodes, so it takes no part: create its Node object or correct \
                 `--node-name`"
            );
        }
        self.membership.declare(declared.clone());
        self.peers.send_replace(declared.iter().filter(|node| node.name != self.own_name).cloned().collect());
        memory.declared = declared;
    }

    /// Peers on the link are heard there, should UDP fail.
    fn tell_roads(&self, memory: &mut Memory, surroundings: &Surroundings) {
        let roads = surroundings.roads();
        if roads != memory.roads {
            self.membership.set_roads(roads.clone());
            memory.roads = roads;
        }
    }

    fn tell(&self, memory: &mut Memory, announced: Announced) {
        if memory.announced != Some(announced) {
            self.membership.announce(announced);
            memory.announced = Some(announced);
        }
    }

    /// What routers said of the tunnels; the operator hears of those whose packets do not arrive.
    fn path_mtus(&self, memory: &mut Memory) -> BTreeMap<NodeIndex, u16> {
        let (heard, now) = (self.writer.heard(), Instant::now());
        for (index, heard) in &heard {
            let placed = memory.applied.iter().flat_map(|applied| &applied.placed);
            if memory.unreachable.is_news(*index, heard.unreachable, now)
                && let Some(node) = placed.into_iter().find(|node| node.index == *index)
            {
                warn!(
                    node = node.name,
                    "packets in the tunnel to this node do not arrive (ICMP unreachable): open UDP port 6080 between the \
                     nodes, and see whether the XDP front runs there"
                );
            }
        }
        let now_ns = clock_ns();
        heard.into_iter().filter_map(|(index, heard)| Some((index, limit(heard, now_ns)?))).collect()
    }

    /// The configured interfaces that are there, by name.
    fn uplinks(&self, surroundings: &Surroundings) -> Vec<(String, Uplink)> {
        self.interfaces
            .iter()
            .filter_map(|name| {
                let link = surroundings.links.iter().find(|link| link.name == *name)?;
                Some((name.clone(), Uplink { ifindex: link.index, mac: link.mac?, reserved: 0 }))
            })
            .collect()
    }

    fn announce_due(&mut self, memory: &Memory) {
        for vip in self.schedule.due(Instant::now()) {
            self.announce(vip, memory);
        }
    }

    fn announce(&self, vip: IpAddr, memory: &Memory) {
        // Where the nodes are in a VLAN, clients or their router may be too.
        let vlans: BTreeSet<Place> = self.surroundings.borrow().ways.values().filter_map(Way::vlan).collect();
        for uplink in self.announced_on(vip, memory) {
            let untagged = Place { link: uplink.ifindex, vlan: Vlan::NONE.0, mac: uplink.mac };
            announce(&self.packets, vip, untagged);
            for place in vlans.iter().filter(|place| place.link == uplink.ifindex) {
                announce(&self.packets, vip, *place);
            }
        }
    }

    /// The uplinks on which this node answers for a VIP of its own.
    fn announced_on(&self, vip: IpAddr, memory: &Memory) -> Vec<Uplink> {
        let silent = memory.applied.as_ref().and_then(|applied| applied.silent.get(&vip));
        let uplinks = self.uplinks(&self.surroundings.borrow()).into_iter().map(|(_, uplink)| uplink);
        uplinks.filter(|uplink| !silent.is_some_and(|on| on.contains(&uplink.ifindex))).collect()
    }

    /// Asks the link who else has the VIPs of this node.
    async fn ask_due(&mut self, memory: &Memory) {
        let mut link_locals = BTreeMap::new();
        for vip in self.watch.due(Instant::now()) {
            for uplink in self.announced_on(vip, memory) {
                let link = uplink.ifindex;
                if vip.is_ipv6() && !link_locals.contains_key(&link) {
                    // One that cannot be read is as good as none: IPv6 is not asked about there.
                    link_locals.insert(link, self.netlink.link_local(link).await.ok().flatten());
                }
                let link_local = link_locals.get(&link).copied().flatten();
                ask(&self.packets, vip, link, uplink.mac, link_local);
            }
        }
    }

    /// Somebody else answers for a VIP of this node.
    fn hear(&mut self, claim: Claim, memory: &Memory) {
        let mut next = Some(claim);
        while let Some(claim) = next {
            if self.watch.heard(Instant::now(), claim) {
                self.announce(claim.vip, memory);
            }
            next = self.ears.another();
        }
    }

    /// Brings up to date what only this node sees.
    fn tell_findings(&self, memory: &Memory) {
        let surroundings = self.surroundings.borrow();
        let conflict = |claim: Claim| {
            let link = surroundings.links.iter().find(|link| link.index == claim.link);
            let is_its = |way: &Way| matches!(way, Way::Link { to, .. } if *to == claim.mac);
            let node = surroundings.ways.iter().find(|(_, way)| is_its(way));
            Conflict {
                vip: claim.vip,
                mac: claim.mac.to_string(),
                interface: link.map_or_else(|| claim.link.to_string(), |link| link.name.clone()),
                node: node.map(|(name, _)| name.clone()),
            }
        };
        let conflicts: Vec<Conflict> = self.watch.conflicts().into_iter().map(conflict).collect();
        let problems = memory.unanswered.problems(Instant::now(), &self.own_name, &conflicts);
        self.findings.send_if_modified(|findings| {
            let found = Findings { conflicts, problems, claims: self.watch.claims(), ..findings.clone() };
            let is_new = *findings != found;
            *findings = found;
            is_new
        });
    }

    fn tell_owners(&self, before: Option<&Desired>, now: &Desired, took: Duration) {
        let mut takeovers = 0;
        for (vip, owner) in &now.owners {
            let former = before.and_then(|before| before.owners.get::<IpAddr>(vip));
            if former != Some(owner) {
                info!(%vip, owner, is_self = *owner == self.own_name, "owner of the VIP");
                takeovers += u64::from(former.is_some() && *owner == self.own_name);
            }
        }
        if takeovers > 0 {
            self.findings.send_modify(|findings| {
                findings.takeovers += takeovers;
                findings.last_takeover_us = took.as_micros() as u64;
            });
        }
    }

    /// Ends and changes nothing: the tables stay as they are, the peers hear no farewell.
    async fn hand_over(self, memory: Memory) -> Option<Legacy> {
        let (membership, heartbeat) = (self.membership, memory.heartbeat);
        // Both wait for threads.
        let ended = tokio::task::spawn_blocking(move || {
            let legacy = membership.hand_over();
            if let Some(heartbeat) = heartbeat {
                heartbeat.leave();
            }
            legacy
        });
        let membership = ended.await.ok().flatten();
        Some(Legacy { membership, owners: memory.applied.map(|applied| applied.owners).unwrap_or_default() })
    }

    /// Hands everything over to the peers: their tables leave this node out as soon as they hear of it, and this one
    /// answers for no VIP any more unless it is alone.
    async fn stop(mut self, memory: Memory) {
        let view = self.view.borrow().clone();
        if view.peers.values().any(|liveness| *liveness == Liveness::Serving)
            && let Some(mut desired) = memory.applied
        {
            for addr in desired.addrs4.values_mut().chain(desired.addrs6.values_mut()) {
                addr.flags = 0;
            }
            if let Err(error) = self.writer.write_before_addresses(&desired, None) {
                warn!(%error, "cannot give up the VIPs");
            }
        }
        // The membership says farewell and the heartbeat its last word when they are dropped; both wait for threads.
        let membership = self.membership;
        let ended = tokio::task::spawn_blocking(move || {
            drop(membership);
            drop(memory.heartbeat);
        });
        if ended.await.is_err() {
            warn!("the membership did not end cleanly");
        }
    }
}

/// Peers that were down before and serve now: one that starts joins first, so these have been serving all the time.
pub(crate) fn returned(
    before: &BTreeMap<String, Liveness>,
    now: &BTreeMap<String, Liveness>,
) -> BTreeSet<String> {
    let was_down = |name: &String| before.get(name) == Some(&Liveness::Down);
    let serving = now.iter().filter(|(_, liveness)| **liveness == Liveness::Serving);
    serving.map(|(name, _)| name).filter(|name| was_down(name)).cloned().collect()
}
