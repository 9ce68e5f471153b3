//! The task that keeps the kernel in line: waits for a change of the snapshot, the membership, the neighbours or the
//! wish to drain, works out what shall be (`sync`), writes it, and announces owned VIPs. Started by `L4::start`; ends
//! when the handle is dropped, and leaves program and maps working.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ingress_common::abi::{Config as Behaviour, Uplink};
use tokio::sync::watch;
use tokio::time::sleep_until;
use tracing::{debug, info, warn};

use super::address::Addresses;
use super::announce::{PacketSocket, Schedule, announce};
use super::heartbeat::{HeartbeatThread, Pulse};
use super::load::Takeover;
use super::maps::Heartbeat;
use super::membership::{Announced, Declared, Liveness, Membership, View};
use super::neighbour::{Surroundings, Way};
use super::netlink::Netlink;
use super::owner::Handover;
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
    pub(crate) pulse: Pulse,
    pub(crate) heartbeat: Option<Heartbeat>,
    /// Until the tables are in place for the first time, where an earlier version's program runs on.
    pub(crate) takeover: Option<Takeover>,
}

/// What is remembered from turn to turn.
#[derive(Default)]
struct Memory {
    declared: Vec<Declared>,
    applied: Option<Desired>,
    generation: Generation,
    announced: Option<Announced>,
    /// When the tables were in place for the first time.
    in_place: Option<Instant>,
    liveness: BTreeMap<String, Liveness>,
    heartbeat: Option<HeartbeatThread>,
    has_failed: bool,
}

impl Engine {
    /// Runs until the handle is dropped.
    pub(crate) async fn run(mut self) {
        let mut memory = Memory::default();
        loop {
            self.pulse.beat();
            self.turn(&mut memory).await;
            if self.join(&mut memory) {
                continue;
            }
            self.announce_due(&memory);
            let longest = if self.handover.is_waiting() { HANDOVER_TURN } else { TURN };
            let until_due = self.schedule.next().map(|at| at.saturating_duration_since(Instant::now()));
            let wake_at = Instant::now() + until_due.map_or(longest, |until| until.min(longest));
            let is_over = tokio::select! {
                changed = self.orders.changed() => changed.is_err(),
                _ = self.view.changed() => false,
                _ = self.surroundings.changed() => false,
                () = sleep_until(wake_at.into()) => false,
            };
            if is_over {
                return self.stop(memory).await;
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
        let view = self.view.borrow_and_update().clone();
        if !view.settled {
            return;
        }
        let surroundings = self.surroundings.borrow_and_update().clone();
        let uplinks = self.uplinks(&surroundings);
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
            ways: &surroundings.ways,
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
        self.schedule.own(Instant::now(), desired.owned_by(&self.own_name), has_changed);
        self.log_owners(memory.applied.as_ref(), &desired);
        if memory.heartbeat.is_none()
            && let Some(map) = self.heartbeat.take()
        {
            match HeartbeatThread::start(map, self.pulse.clone()) {
                Ok(thread) => memory.heartbeat = Some(thread),
                Err(error) => warn!(%error, "cannot start the heartbeat: new flows go to the other nodes"),
            }
        }
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

    /// Second half of joining: the tables are in place, and name all who serve by now, with a way to each. True if this
    /// node has just told the others that it serves; then it is time to take its part of the VIPs.
    fn join(&self, memory: &mut Memory) -> bool {
        let Some(in_place) = memory.in_place.filter(|_| memory.announced.is_none()) else { return false };
        let Ok(view_changed) = self.view.has_changed() else { return false };
        let surroundings = self.surroundings.borrow();
        let is_unresolved = |name: &String| surroundings.ways.get(name).is_none_or(Way::is_unresolved);
        let mut serving = memory.liveness.iter().filter(|(_, liveness)| **liveness != Liveness::Down);
        let lacks_a_way = serving.any(|(name, _)| is_unresolved(name))
            || self.surroundings.has_changed().is_ok_and(|has| has);
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

    fn tell(&self, memory: &mut Memory, announced: Announced) {
        if memory.announced != Some(announced) {
            self.membership.announce(announced);
            memory.announced = Some(announced);
        }
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
        let due = self.schedule.due(Instant::now());
        if due.is_empty() {
            return;
        }
        let uplinks = self.uplinks(&self.surroundings.borrow());
        let silent = memory.applied.as_ref().map(|applied| &applied.silent);
        for vip in due {
            let is_on = |uplink: &&(String, Uplink)| {
                !silent.and_then(|silent| silent.get(&vip)).is_some_and(|on| on.contains(&uplink.1.ifindex))
            };
            for (_, uplink) in uplinks.iter().filter(is_on) {
                announce(&self.packets, vip, uplink.ifindex, uplink.mac);
            }
        }
    }

    fn log_owners(&self, before: Option<&Desired>, now: &Desired) {
        for (vip, owner) in &now.owners {
            let former = before.and_then(|before| before.owners.get::<IpAddr>(vip));
            if former != Some(owner) {
                info!(%vip, owner, is_self = *owner == self.own_name, "owner of the VIP");
            }
        }
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
