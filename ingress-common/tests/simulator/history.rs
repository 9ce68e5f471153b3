//! One history: random events, and clients that hold connections through them.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    ops::AddAssign,
};

use ingress_common::{abi::Ip4, hash::FlowKey, packet::tcp::TcpFlags, steer::Tuple};

use crate::{
    cluster::{Cluster, Fate, Id, Member, SimNode, tuple},
    random::Random,
};

const STEPS: usize = 250;
/// Few clients and ports, so that ports are reused and old memories lie in wait.
const CLIENTS: usize = 20;
const PORTS: usize = 8;
const MOST_NODES: usize = 16;
/// A packet that others overtake arrives this many events later at most.
const LATEST: usize = 20;

/// How much a cluster may change in a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Growth {
    /// At most K - 1 nodes ever start or stop accepting new flows, however often, and a crash counts as a stop: a table that
    /// still has the dead node ranks it before the one that got the flow, as if the cluster had grown by it.
    WithinBound,
    /// As many crashes as come, but everybody hears of each before the next flow begins: the tables that differ then are
    /// those of joins and drains, K - 1 nodes' at most.
    CrashesHeard,
    /// As it comes.
    Any,
}

#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) opened: usize,
    pub(crate) delivered: usize,
    /// Lost on the way and delivered later, while the nodes disagreed.
    lost: usize,
    hand_overs: usize,
    /// Overtaken by others, and delivered all the same.
    late: usize,
    /// Connections whose ports an earlier one still has in time-wait on another node.
    reused: usize,
    /// FINs that went to such an earlier connection: the client sends them again.
    kept: usize,
    pub(crate) broken_outside_the_bound: usize,
    /// With the road that the refused packet took.
    pub(crate) broken_inside_the_bound: Vec<String>,
}

impl AddAssign for Outcome {
    fn add_assign(&mut self, other: Self) {
        self.opened += other.opened;
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.hand_overs += other.hand_overs;
        self.late += other.late;
        self.reused += other.reused;
        self.kept += other.kept;
        self.broken_outside_the_bound += other.broken_outside_the_bound;
        self.broken_inside_the_bound.extend(other.broken_inside_the_bound);
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { opened, reused, delivered, late, lost, kept, hand_overs, .. } = self;
        let outside = self.broken_outside_the_bound;
        let inside = self.broken_inside_the_bound.len();
        write!(
            f,
            "{opened} flows ({reused} with the ports of one in time-wait elsewhere), {delivered} packets delivered over {hand_overs} \
             hand-overs ({late} after later ones), {lost} lost on the way, {kept} FINs kept by a time-wait; broken flows on \
             healthy nodes: {inside} where the bound is 0, {outside} elsewhere"
        )
    }
}

/// Client and port.
type Name = (usize, usize);

/// A packet that arrives later than it was sent, wherever directors were then.
struct Late {
    at: usize,
    name: Name,
    birth: usize,
    flags: u8,
    director: Id,
}

pub(crate) struct History {
    random: Random,
    growth: Growth,
    k: usize,
    cluster: Cluster,
    /// Which node has the socket of each established flow.
    flows: HashMap<Name, Id>,
    /// Which of all flows so far has that name now.
    births: HashMap<Name, usize>,
    /// Packets that others overtake.
    late: Vec<Late>,
    step: usize,
    next_id: Id,
    /// Nodes that joined, and the state of the membership that made them known.
    joining: Vec<(Id, usize)>,
    /// Nodes that crashed, and the state of the membership without them.
    down: Vec<(Id, usize)>,
    /// Nodes that started or stopped accepting new flows, ever.
    unsettled: HashSet<Id>,
    /// ECMP: changes to move flows between directors. `None`: one node owns the VIP.
    ecmp: Option<u64>,
    owner: Id,
    log: Vec<String>,
    outcome: Outcome,
}

impl History {
    pub(crate) fn new(seed: u64, growth: Growth, k: usize) -> Self {
        let mut random = Random::new(seed);
        let count = 2 + random.below(6) as Id;
        let members = (0..count).map(|id| Member { id, draining: false }).collect();
        let ecmp = random.one_in(2).then_some(seed);
        Self {
            random,
            growth,
            k,
            cluster: Cluster::new(members, k),
            flows: HashMap::new(),
            births: HashMap::new(),
            late: Vec::new(),
            step: 0,
            next_id: count,
            joining: Vec::new(),
            down: Vec::new(),
            unsettled: HashSet::new(),
            ecmp,
            owner: 0,
            log: Vec::new(),
            outcome: Outcome::default(),
        }
    }

    pub(crate) fn play(mut self) -> Outcome {
        for step in 0..STEPS {
            self.step = step;
            self.arrive();
            self.settle();
            match self.random.below(20) {
                0 => self.change_membership(),
                1 => self.move_directors(),
                2 => self.evict(),
                3 => self.daemon_hangs_or_wakes(),
                4..=6 => self.somebody_hears(),
                7 => self.close_one(),
                8..=12 => self.open_one(),
                _ => self.talk(),
            }
        }
        self.everybody_hears();
        self.talk_all();
        self.outcome
    }

    fn up(&self) -> Vec<Id> {
        let mut up: Vec<_> =
            self.cluster.nodes.iter().filter(|(_, node)| node.up).map(|(id, _)| *id).collect();
        up.sort_unstable();
        up
    }

    fn change_membership(&mut self) {
        let mut members = self.cluster.present().clone();
        match self.random.below(5) {
            0 if members.len() < MOST_NODES => {
                let id = self.next_id;
                if !self.may_change(id) {
                    return;
                }
                self.next_id += 1;
                self.join(id, members);
            }
            1 => self.set_draining(members, true),
            2 => self.set_draining(members, false),
            3 if self.up().len() > 2 => {
                // A crash, which the others hear of; its own flows die with it.
                let Some(id) = self.random.pick(&self.up()) else { return };
                if self.growth == Growth::WithinBound && !self.may_change(id) {
                    return;
                }
                self.log.push(format!("node {id} crashes"));
                if let Some(node) = self.cluster.nodes.get_mut(&id) {
                    node.up = false;
                }
                self.flows.retain(|_, owner| *owner != id);
                self.joining.retain(|(joining, _)| *joining != id);
                members.retain(|member| member.id != id);
                self.cluster.states.push(members);
                self.down.push((id, self.cluster.states.len() - 1));
                if self.owner == id {
                    self.owner = self.random.pick(&self.up()).unwrap_or(0);
                }
                if self.growth == Growth::CrashesHeard {
                    self.everybody_hears();
                }
            }
            4 if members.len() < MOST_NODES => {
                // Starting again takes longer than the news of the crash.
                let oldest = self.oldest_state();
                let Some(at) = self.down.iter().position(|(_, state)| *state <= oldest) else { return };
                if !self.may_change(self.down[at].0) {
                    return;
                }
                let (id, _) = self.down.remove(at);
                self.join(id, members);
            }
            _ => {}
        }
    }

    /// A node that joins takes no new flows until everybody knows it: nobody could find them there.
    fn join(&mut self, id: Id, mut members: Vec<Member>) {
        self.log.push(format!("node {id} joins"));
        members.push(Member { id, draining: true });
        self.cluster.states.push(members);
        self.joining.push((id, self.cluster.states.len() - 1));
        self.cluster.start(id);
    }

    /// What everybody has heard of.
    fn oldest_state(&self) -> usize {
        self.cluster.nodes.values().filter(|node| node.up).map(|node| node.age).min().unwrap_or(0)
    }

    /// Nodes that everybody has heard of begin to take new flows.
    fn settle(&mut self) {
        let oldest =
            self.cluster.nodes.values().filter(|node| node.up).map(|node| node.age).min().unwrap_or(0);
        let (known, joining) = self.joining.iter().partition::<Vec<_>, _>(|(_, state)| *state <= oldest);
        self.joining = joining;
        for (id, _) in known {
            let mut members = self.cluster.present().clone();
            for member in members.iter_mut().filter(|member| member.id == id) {
                member.draining = false;
            }
            self.log.push(format!("node {id} takes new flows"));
            self.cluster.states.push(members);
        }
    }

    /// Whether this node may stop or start accepting new flows. In a bounded history only K - 1 nodes ever do: no more can come
    /// to rank before the one that got a flow.
    fn may_change(&mut self, id: Id) -> bool {
        let limit = if self.growth == Growth::Any { usize::MAX } else { self.k - 1 };
        if self.unsettled.len() >= limit && !self.unsettled.contains(&id) {
            return false;
        }
        self.unsettled.insert(id);
        true
    }

    fn set_draining(&mut self, mut members: Vec<Member>, draining: bool) {
        let joining = |id| self.joining.iter().any(|(joining, _)| *joining == id);
        let others: Vec<_> = members
            .iter()
            .filter(|member| member.draining != draining && !joining(member.id))
            .map(|member| member.id)
            .collect();
        if draining && others.len() < 2 {
            return;
        }
        let Some(id) = self.random.pick(&others) else { return };
        if !self.may_change(id) {
            return;
        }
        for member in members.iter_mut().filter(|member| member.id == id) {
            member.draining = draining;
        }
        self.log.push(format!("node {id} draining: {draining}"));
        self.cluster.states.push(members);
    }

    fn move_directors(&mut self) {
        if self.ecmp.is_some() {
            self.ecmp = Some(self.random.next());
        } else {
            self.owner = self.random.pick(&self.up()).unwrap_or(self.owner);
        }
        self.log.push(format!("directors move (owner {})", self.owner));
    }

    /// Somebody's flow table loses entries.
    fn evict(&mut self) {
        if let Some(id) = self.random.pick(&self.up())
            && let Some(node) = self.cluster.nodes.get_mut(&id)
        {
            let keep = self.random.below(3);
            if keep == 0 {
                node.memory.time_wait4.clear();
            }
            let mut at = 0;
            node.memory.flows.retain(|| {
                at += 1;
                at % 3 < keep
            });
        }
    }

    /// A daemon hangs: its sockets stay, its heartbeat does not.
    fn daemon_hangs_or_wakes(&mut self) {
        let Some(id) = self.random.pick(&self.up()) else { return };
        let hangs = self.random.one_in(3);
        if hangs && !self.may_change(id) {
            return;
        }
        self.log.push(format!("daemon of node {id} hangs: {hangs}"));
        if let Some(node) = self.cluster.nodes.get_mut(&id) {
            node.memory.now_ns = if hangs { 100 } else { 0 };
        }
    }

    fn somebody_hears(&mut self) {
        if let Some(id) = self.random.pick(&self.up()) {
            self.cluster.hear(id);
        }
    }

    fn everybody_hears(&mut self) {
        for id in self.up() {
            self.cluster.hear(id);
        }
    }

    fn director(&self, flow: &Tuple<Ip4>) -> Id {
        let Some(salt) = self.ecmp else { return self.owner };
        let up = self.up();
        let hash = FlowKey::of(salt).flow4(flow.src, flow.dst, flow.src_port, flow.dst_port);
        up[hash.slot() as usize % up.len()]
    }

    fn open_one(&mut self) {
        let name = (self.random.below(CLIENTS), self.random.below(PORTS));
        if self.flows.contains_key(&name) {
            return;
        }
        let flow = flow(name);
        let director = self.director(&flow);
        let max_hops = self.loses();
        let (fate, road) = self.cluster.send(&flow, TcpFlags::SYN, director, max_hops);
        self.outcome.hand_overs += road.len().saturating_sub(1);
        if let Fate::Opened(id) = fate {
            // Everybody else drains or hangs, so a node that joins got it, which not all know yet. In the product nobody gives
            // anything to a node before it serves; here it is not held, since it stands for no flow that could be.
            if self.joining.iter().any(|(joining, _)| *joining == id) {
                return;
            }
            if let Some(node) = self.cluster.nodes.get_mut(&id) {
                node.memory.sockets4.insert(flow);
                // A SYN takes the place of what waits here.
                node.memory.time_wait4.remove(&flow);
            }
            let waits = |node: &SimNode| node.up && node.memory.time_wait4.contains(&flow);
            self.outcome.reused += usize::from(self.cluster.nodes.values().any(waits));
            self.flows.insert(name, id);
            self.outcome.opened += 1;
            self.births.insert(name, self.outcome.opened);
        }
    }

    fn close_one(&mut self) {
        let mut names: Vec<_> = self.flows.keys().copied().collect();
        names.sort_unstable();
        let Some(name) = self.random.pick(&names) else { return };
        // The node closed it first, or the client did.
        if self.random.one_in(2)
            && let Some(node) = self.flows.get(&name).and_then(|id| self.cluster.nodes.get_mut(id))
        {
            node.memory.time_wait4.insert(flow(name));
        }
        self.forget(name);
    }

    fn forget(&mut self, name: Name) {
        if let Some(id) = self.flows.remove(&name)
            && let Some(node) = self.cluster.nodes.get_mut(&id)
        {
            node.memory.sockets4.remove(&flow(name));
        }
    }

    /// A few flows send a packet.
    fn talk(&mut self) {
        let mut names: Vec<_> = self.flows.keys().copied().collect();
        names.sort_unstable();
        for _ in 0..10 {
            if let Some(name) = self.random.pick(&names) {
                self.send(name, false);
            }
        }
    }

    fn talk_all(&mut self) {
        let mut names: Vec<_> = self.flows.keys().copied().collect();
        names.sort_unstable();
        for name in names {
            self.send(name, true);
        }
    }

    /// After how many hops a packet is lost, now and then.
    fn loses(&mut self) -> Option<usize> {
        self.random.one_in(15).then(|| self.random.below(4))
    }

    fn send(&mut self, name: Name, is_last: bool) {
        let flow = flow(name);
        let director = self.director(&flow);
        let flags =
            if !is_last && self.random.one_in(20) { TcpFlags::ACK | TcpFlags::FIN } else { TcpFlags::ACK };
        if !is_last && self.random.one_in(10) {
            let at = self.step + 1 + self.random.below(LATEST);
            let birth = self.births.get(&name).copied().unwrap_or(0);
            self.late.push(Late { at, name, birth, flags, director });
            return;
        }
        let max_hops = if is_last { None } else { self.loses() };
        self.deliver(name, flags, director, max_hops);
    }

    /// What was overtaken arrives. If its flow has ended since, it may find anything: no client listens to the answer.
    fn arrive(&mut self) {
        let step = self.step;
        let due: Vec<_> = self.late.extract_if(.., |late| late.at <= step).collect();
        for Late { name, birth, flags, director, .. } in due {
            let is_up = self.cluster.nodes.get(&director).is_some_and(|node| node.up);
            if !is_up || !self.flows.contains_key(&name) || self.births.get(&name) != Some(&birth) {
                self.cluster.send(&flow(name), flags, director, None);
                continue;
            }
            let before = self.outcome.delivered;
            self.deliver(name, flags, director, None);
            self.outcome.late += self.outcome.delivered - before;
        }
    }

    fn deliver(&mut self, name: Name, flags: u8, director: Id, max_hops: Option<usize>) {
        let Some(owner) = self.flows.get(&name).copied() else { return };
        let flow = flow(name);
        let (fate, road) = self.cluster.send(&flow, flags, director, max_hops);
        self.outcome.hand_overs += road.len().saturating_sub(1);
        match fate {
            Fate::Delivered(id) if id == owner => {
                self.outcome.delivered += 1;
                return;
            }
            Fate::Kept(_) => {
                self.outcome.kept += 1;
                return;
            }
            Fate::Lost if max_hops.is_some() || !self.cluster.agrees() => {
                self.outcome.lost += 1;
                return;
            }
            _ => {}
        }
        if self.cluster.is_candidate_everywhere(&flow, owner) {
            self.outcome.broken_inside_the_bound.push(format!(
                "{name:?} on node {owner}: {fate:?} by way of\n  {}\nafter\n  {}",
                road.join("\n  "),
                self.log.join("\n  ")
            ));
        } else {
            self.outcome.broken_outside_the_bound += 1;
        }
        self.forget(name);
    }
}

fn flow((client, port): Name) -> Tuple<Ip4> {
    tuple(0xc633_6400 + client as u32, 40_000 + port as u16)
}
