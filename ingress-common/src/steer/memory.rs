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
    Addr, Config, Flow, FlowKey4, FlowKey6, Ip4, Ip6, MAX_NODES, Mac, Node, NodeIndex, SLOT_TABLES,
    SLOTS_LEN, Slot, Vip, VipKey4, VipKey6,
};

use super::{Segment, Tables, Tuple};

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
    /// `PEERS`.
    pub peers: HashMap<Mac, NodeIndex>,
    /// `FLOWS4`, without eviction.
    pub flows4: RefCell<HashMap<FlowKey4, Flow>>,
    /// `FLOWS6`, without eviction.
    pub flows6: RefCell<HashMap<FlowKey6, Flow>>,
    /// Connections of the node's own kernel.
    pub sockets4: HashSet<Tuple<Ip4>>,
    /// Connections of the node's own kernel.
    pub sockets6: HashSet<Tuple<Ip6>>,
    /// `WALK_BUDGET`.
    pub walk_paid_until_ns: Cell<u64>,
}

impl Memory {
    /// A fresh node: empty maps, no sockets.
    pub fn new() -> Self {
        Self::with_slots(SLOTS_LEN)
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
            peers: HashMap::new(),
            flows4: RefCell::default(),
            flows6: RefCell::default(),
            sockets4: HashSet::new(),
            sockets6: HashSet::new(),
            walk_paid_until_ns: Cell::new(0),
        }
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

    fn peer(&self, mac: Mac) -> Option<NodeIndex> {
        self.peers.get(&mac).copied()
    }

    fn flow4(&self, key: FlowKey4) -> Option<Flow> {
        self.flows4.borrow().get(&key).copied()
    }

    fn learn4(&self, key: FlowKey4, flow: Flow) {
        self.flows4.borrow_mut().insert(key, flow);
    }

    fn forget4(&self, key: FlowKey4) {
        self.flows4.borrow_mut().remove(&key);
    }

    fn flow6(&self, key: FlowKey6) -> Option<Flow> {
        self.flows6.borrow().get(&key).copied()
    }

    fn learn6(&self, key: FlowKey6, flow: Flow) {
        self.flows6.borrow_mut().insert(key, flow);
    }

    fn forget6(&self, key: FlowKey6) {
        self.flows6.borrow_mut().remove(&key);
    }

    fn has_socket4(&self, tuple: &Tuple<Ip4>, _segment: &Segment) -> bool {
        self.sockets4.contains(tuple)
    }

    fn has_socket6(&self, tuple: &Tuple<Ip6>, _segment: &Segment) -> bool {
        self.sockets6.contains(tuple)
    }

    fn take_walk(&self, cost_ns: u64, burst_ns: u64) -> bool {
        self.walk_paid_until_ns.set(
            match super::charge(self.walk_paid_until_ns.get(), self.now_ns, cost_ns, burst_ns) {
                Some(paid_until) => paid_until,
                None => return false,
            },
        );
        true
    }
}
