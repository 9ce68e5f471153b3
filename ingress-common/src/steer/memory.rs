//! The world of the decision in plain collections, for host tests, packet tables and the simulator. Never part of the daemon
//! or of the BPF object (feature `memory`).
extern crate std;

use core::cell::{Cell, RefCell};
use std::{
    collections::{HashMap, HashSet},
    vec,
    vec::Vec,
};

use crate::abi::{
    ABI_VERSION, Addr, Be16, Config, FlowSet, Fragment, FragmentKey, Guard, Ip4, Ip6, MAX_NODES, Mac, Node,
    NodeIndex, RuleKey, SLOT_TABLES, SLOTS_LEN, Slot, SourceKey, Tunnel, TunnelEndKey, Uplink, Vip, VipId,
    VipKey4, VipKey6,
};

use crate::hash::FlowHash;

use super::{Cookie, ECHO_BURST_NS, ECHO_COST_NS, Quote, Route, Segment, Tables, Tuple};
use crate::packet::tcp::TcpFlags;
use crate::packet::{Packet, Resize, View};

/// The `FLOWS` map: as small as one likes, so that flows push each other out.
#[derive(Debug)]
pub struct Flows(Vec<FlowSet>);

impl Flows {
    /// This many sets, a power of two.
    pub fn with_sets(sets: usize) -> Self {
        Self((0..sets).map(|_| FlowSet::default()).collect())
    }

    fn set(&self, hash: FlowHash) -> Option<&FlowSet> {
        self.0.get(FlowSet::number(hash.0, self.0.len() as u32) as usize)
    }

    /// The node that is remembered for a flow.
    pub fn get(&self, hash: FlowHash) -> Option<NodeIndex> {
        self.set(hash)?.find(hash.0, false, false)
    }

    /// Remembers a flow.
    pub fn insert(&self, hash: FlowHash, node: NodeIndex) {
        if let Some(set) = self.set(hash) {
            set.correct(hash.0, None);
            set.learn(hash.0, node);
        }
    }

    /// The sets, as they are in the kernel if it has as many.
    pub fn sets(&self) -> &[FlowSet] {
        &self.0
    }

    /// Forgets everything in every set that is not `kept`.
    pub fn retain(&mut self, mut kept: impl FnMut() -> bool) {
        for set in self.0.iter_mut().filter(|_| !kept()) {
            *set = FlowSet::default();
        }
    }
}

impl FromIterator<FlowSet> for Flows {
    fn from_iter<I: IntoIterator<Item = FlowSet>>(sets: I) -> Self {
        Self(sets.into_iter().collect())
    }
}

impl Clone for Flows {
    fn clone(&self) -> Self {
        Self(self.0.iter().map(|set| FlowSet::from_words(set.words())).collect())
    }
}

/// One node's maps, sockets and clock. Fields are the maps of `abi`; what the program itself writes is in cells.
#[derive(Clone, Debug)]
pub struct Memory {
    /// `CONFIG`.
    pub config: Config,
    /// The clock.
    pub now_ns: u64,
    /// `HEARTBEAT`.
    pub heartbeat_ns: u64,
    /// `VIPS4`.
    pub vips4: HashMap<VipKey4, Vip>,
    /// `VIPS6`.
    pub vips6: HashMap<VipKey6, Vip>,
    /// `ADDRS4`.
    pub addrs4: HashMap<Ip4, Addr>,
    /// `ADDRS6`.
    pub addrs6: HashMap<Ip6, Addr>,
    /// `SLOTS`, both tables. May be shorter than in the kernel: hashes are taken modulo the length.
    pub slots: [Vec<Slot>; SLOT_TABLES],
    /// `NODES`.
    pub nodes: Vec<Node>,
    /// `TUNNELS`.
    pub tunnels: HashMap<NodeIndex, Tunnel>,
    /// `TUNNEL_ENDS`.
    pub tunnel_ends: HashMap<Ip6, NodeIndex>,
    /// What was heard of each tunnel last: `HEARD`.
    pub heard: RefCell<HashMap<NodeIndex, Option<u16>>>,
    /// `PEERS`.
    pub peers: HashMap<Mac, NodeIndex>,
    /// `FLOWS`.
    pub flows: Flows,
    /// Connections of the node's own kernel.
    pub sockets4: HashSet<Tuple<Ip4>>,
    /// Connections of the node's own kernel.
    pub sockets6: HashSet<Tuple<Ip6>>,
    /// Connections that ended here a moment ago, this end first (`TCP_TIME_WAIT`): only what ends them again is for them.
    pub time_wait4: HashSet<Tuple<Ip4>>,
    /// The router's listeners are there.
    pub listens: bool,
    /// `WALK_BUDGET`.
    pub walk_paid_until_ns: Cell<u64>,
    /// `ECHO_BUDGET`.
    pub echo_paid_until_ns: Cell<u64>,
    /// `FRAGMENTS`, without a limit.
    pub fragments: RefCell<HashMap<FragmentKey, Fragment>>,
    /// `GUARDS`.
    pub guards: HashMap<VipId, Guard>,
    /// `RULES`, by the length of their prefix in bits.
    pub rules: HashMap<(u32, RuleKey), u32>,
    /// `SOURCES`: until when each has paid.
    pub sources: RefCell<HashMap<SourceKey, u64>>,
    /// `SYN_BUDGETS`: until when each VIP has paid.
    pub syns: RefCell<HashMap<VipId, u64>>,
    /// The cookie that the kernel makes; `None`: the listeners have room.
    pub cookie: Option<Cookie>,
    /// The kernel's way to all clients.
    pub route: Option<Route>,
}

impl Memory {
    /// A fresh node: empty maps, no sockets.
    pub fn new() -> Self {
        Self::with_slots(SLOTS_LEN)
    }

    /// A node that owns 1.1.1.1 and 101:101:101:101:101:101:101:101, where TCP port 80 is served, with interface 1 and one
    /// peer, which takes all new flows.
    pub fn with_one_peer(mac: Mac) -> Self {
        let mut world = Self::with_slots(1);
        world.config = Config { abi_version: ABI_VERSION, own_node: NodeIndex(0), ..Config::default() };
        world.config.uplinks[0] = Uplink { ifindex: 1, mac, reserved: 0 };
        let (ip4, ip6) = (Ip4::new(0x0101_0101), Ip6([Ip4::new(0x0101_0101); 4]));
        world.vips4.insert(VipKey4 { addr: ip4, port: Be16::new(80), proto: 6 }, Vip::default());
        world.vips6.insert(VipKey6 { addr: ip6, port: Be16::new(80), proto: 6 }, Vip::default());
        world.addrs4.insert(ip4, Addr { flags: Addr::OWNER });
        world.addrs6.insert(ip6, Addr { flags: Addr::OWNER });
        world.nodes[0].flags = Node::ALIVE;
        world.nodes[1] = Node { flags: Node::ALIVE | Node::WAY, ifindex: 1, ..Node::default() };
        let mut slot = Slot::EMPTY;
        slot.order[0] = NodeIndex(1);
        world.slots[0].fill(slot);
        world
    }

    /// As [`Self::new`], with shorter slot tables: cheaper where many nodes are simulated.
    pub fn with_slots(len: usize) -> Self {
        Self {
            config: Config::default(),
            now_ns: 0,
            heartbeat_ns: 0,
            vips4: HashMap::new(),
            vips6: HashMap::new(),
            addrs4: HashMap::new(),
            addrs6: HashMap::new(),
            slots: [const { Slot::EMPTY }; SLOT_TABLES].map(|slot| vec![slot; len]),
            nodes: vec![Node::default(); MAX_NODES as usize],
            tunnels: HashMap::new(),
            tunnel_ends: HashMap::new(),
            heard: RefCell::default(),
            peers: HashMap::new(),
            flows: Flows::with_sets(64),
            sockets4: HashSet::new(),
            sockets6: HashSet::new(),
            time_wait4: HashSet::new(),
            listens: true,
            walk_paid_until_ns: Cell::new(0),
            echo_paid_until_ns: Cell::new(0),
            fragments: RefCell::default(),
            guards: HashMap::new(),
            rules: HashMap::new(),
            sources: RefCell::default(),
            syns: RefCell::default(),
            cookie: None,
            route: None,
        }
    }
}

impl Memory {
    fn take(&self, paid_until_ns: &Cell<u64>, cost_ns: u64, burst_ns: u64) -> bool {
        let paid = super::charge(paid_until_ns.get(), self.now_ns, cost_ns, burst_ns);
        paid.is_some_and(|paid| {
            paid_until_ns.set(paid);
            true
        })
    }
}

impl Packet for Vec<u8> {
    fn len(&self) -> usize {
        self.as_slice().len()
    }

    fn at<T: View>(&self, offset: usize) -> Option<&T> {
        self.as_slice().at(offset)
    }

    fn at_mut<T: View>(&mut self, offset: usize) -> Option<&mut T> {
        self.as_mut_slice().at_mut(offset)
    }
}

impl Resize for Vec<u8> {
    fn add_head(&mut self, bytes: usize) -> Option<()> {
        self.splice(..0, vec![0; bytes]);
        Some(())
    }

    fn remove_head(&mut self, bytes: usize) -> Option<()> {
        (bytes <= self.as_slice().len()).then(|| drop(self.drain(..bytes)))
    }

    fn cut(&mut self, len: usize) -> Option<()> {
        (len <= self.as_slice().len()).then(|| self.truncate(len))
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Tables for Memory {
    fn config(&self) -> Option<&Config> {
        Some(&self.config)
    }

    fn now_ns(&self) -> u64 {
        self.now_ns
    }

    fn heartbeat_ns(&self) -> u64 {
        self.heartbeat_ns
    }

    fn vip4(&self, key: VipKey4) -> Option<Vip> {
        self.vips4.get(&key).copied()
    }

    fn vip6(&self, key: VipKey6) -> Option<Vip> {
        self.vips6.get(&key).copied()
    }

    fn addr4(&self, addr: Ip4) -> Option<Addr> {
        self.addrs4.get(&addr).copied()
    }

    fn addr6(&self, addr: Ip6) -> Option<Addr> {
        self.addrs6.get(&addr).copied()
    }

    fn slot(&self, table: u32, hash: u32) -> Option<&Slot> {
        let slots = self.slots.get(table as usize)?;
        slots.get((hash & 0xffff) as usize % slots.len())
    }

    fn node(&self, index: NodeIndex) -> Option<&Node> {
        self.nodes.get(usize::from(index.0))
    }

    fn tunnel(&self, index: NodeIndex) -> Option<&Tunnel> {
        self.tunnels.get(&index)
    }

    fn tunnel_end(&self, addr: TunnelEndKey) -> Option<NodeIndex> {
        self.tunnel_ends.get(&addr.0).copied()
    }

    fn hear_of_tunnel(&self, node: NodeIndex, mtu: Option<u16>) {
        self.heard.borrow_mut().insert(node, mtu);
    }

    fn peer(&self, mac: Mac) -> Option<NodeIndex> {
        self.peers.get(&mac).copied()
    }

    fn flow_set(&self, hash: FlowHash, _sets: u32) -> Option<&FlowSet> {
        self.flows.set(hash)
    }

    fn has_socket4(&self, tuple: &Tuple<Ip4>, segment: &Segment) -> bool {
        let ends = segment.flags.has(TcpFlags::FIN | TcpFlags::RST);
        self.sockets4.contains(tuple) || ends && self.time_wait4.contains(tuple)
    }

    fn has_socket6(&self, tuple: &Tuple<Ip6>, _segment: &Segment) -> bool {
        self.sockets6.contains(tuple)
    }

    fn listens4(&self, _tuple: &Tuple<Ip4>, _segment: &Segment) -> bool {
        self.listens
    }

    fn listens6(&self, _tuple: &Tuple<Ip6>, _segment: &Segment) -> bool {
        self.listens
    }

    fn is_quoted4(&self, tuple: &Tuple<Ip4>, _quote: &Quote) -> bool {
        self.sockets4.contains(tuple)
    }

    fn is_quoted6(&self, tuple: &Tuple<Ip6>, _quote: &Quote) -> bool {
        self.sockets6.contains(tuple)
    }

    fn fragment(&self, key: &FragmentKey) -> Option<Fragment> {
        self.fragments.borrow().get(key).copied()
    }

    fn remember_fragment(&self, key: &FragmentKey, fragment: Fragment) {
        self.fragments.borrow_mut().insert(*key, fragment);
    }

    fn take_echo(&self) -> bool {
        self.take(&self.echo_paid_until_ns, ECHO_COST_NS, ECHO_BURST_NS)
    }

    fn take_walk(&self, cost_ns: u64, burst_ns: u64) -> bool {
        self.take(&self.walk_paid_until_ns, cost_ns, burst_ns)
    }

    fn guard_of(&self, vip: VipId) -> Option<&Guard> {
        self.guards.get(&vip)
    }

    fn rule(&self, vip: VipId, source: Ip6) -> Option<u32> {
        let bits = |addr: Ip6| std::net::Ipv6Addr::from(addr).to_bits();
        let matches = |(len, key): &(u32, RuleKey)| {
            let net = len - RuleKey::VIP_BITS;
            key.vip == u32::from(vip.0)
                && (net == 0 || bits(key.addr) >> (128 - net) == bits(source) >> (128 - net))
        };
        let longest = self.rules.iter().filter(|(key, _)| matches(key)).max_by_key(|((len, _), _)| *len);
        longest.map(|(_, rule)| *rule)
    }

    fn take_source(&self, source: SourceKey, cost_ns: u64, burst_ns: u64) -> bool {
        let mut sources = self.sources.borrow_mut();
        let paid_until = sources.entry(source).or_default();
        let paid = super::charge(*paid_until, self.now_ns, cost_ns, burst_ns);
        paid.inspect(|paid| *paid_until = *paid).is_some()
    }

    fn take_syn(&self, vip: VipId) -> bool {
        let Some(guard) = self.guards.get(&vip) else { return true };
        let mut syns = self.syns.borrow_mut();
        let paid_until = syns.entry(vip).or_default();
        let paid = super::charge(*paid_until, self.now_ns, guard.syn_cost_ns, guard.syn_burst_ns);
        paid.inspect(|paid| *paid_until = *paid).is_some()
    }

    fn cookie4(&self, _tuple: &Tuple<Ip4>, _segment: &Segment) -> Option<Cookie> {
        self.cookie
    }

    fn cookie6(&self, _tuple: &Tuple<Ip6>, _segment: &Segment) -> Option<Cookie> {
        self.cookie
    }

    fn route4(&self, _src: Ip4, _dst: Ip4) -> Option<Route> {
        self.route
    }

    fn route6(&self, _src: Ip6, _dst: Ip6) -> Option<Route> {
        self.route
    }
}
