//! The pinned maps, each with its type. Opened by `load`, written by `sync`, `heartbeat` and `engine`, read for
//! status and metrics. Names, types and rules are `ingress_common::abi`'s; nothing is decided here.

use std::collections::BTreeMap;
use std::hash::Hash;

use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray};
use aya::{Ebpf, Pod};
use ingress_common::abi::{
    self, Addr, Config, Count, Guard, Heard, Ip4, Ip6, MAX_NODES, Node, NodeIndex, Peer, PeerKey, RuleKey,
    SLOT_PAGES, SlotPage, Source, SourceKey, Tunnel, TunnelEnd, TunnelEndKey, Vip, VipKey4, VipKey6,
};

/// What the daemon writes.
pub(crate) struct Maps {
    pub(crate) config: Array<MapData, Config>,
    pub(crate) nodes: Array<MapData, Node>,
    pub(crate) slots: Array<MapData, SlotPage>,
    pub(crate) peers: HashMap<MapData, PeerKey, Peer>,
    pub(crate) tunnels: Array<MapData, Tunnel>,
    pub(crate) tunnel_ends: HashMap<MapData, TunnelEndKey, TunnelEnd>,
    pub(crate) vips4: HashMap<MapData, VipKey4, Vip>,
    pub(crate) vips6: HashMap<MapData, VipKey6, Vip>,
    pub(crate) addrs4: HashMap<MapData, Ip4, Addr>,
    pub(crate) addrs6: HashMap<MapData, Ip6, Addr>,
    pub(crate) guards: Array<MapData, Guard>,
    pub(crate) rules: LpmTrie<MapData, RuleKey, u32>,
    /// Only read.
    pub(crate) heard: Array<MapData, Heard>,
}

/// What the program counts.
pub(crate) struct Counters {
    pub(crate) reasons: PerCpuArray<MapData, u64>,
    pub(crate) vips: PerCpuArray<MapData, Count>,
    pub(crate) nodes: PerCpuArray<MapData, Count>,
}

/// The map of the daemon's sign of life.
pub(crate) type Heartbeat = Array<MapData, u64>;

/// A map of the object is missing or of another type than the ABI says.
#[derive(Debug, thiserror::Error)]
#[error("map {name} of the BPF object: {problem}")]
pub(crate) struct WrongMap {
    name: &'static str,
    problem: String,
}

/// Takes all maps out of the loaded object.
pub(crate) fn take(ebpf: &mut Ebpf) -> Result<(Maps, Counters, Heartbeat), WrongMap> {
    let maps = Maps {
        config: one(ebpf, abi::CONFIG)?,
        nodes: one(ebpf, abi::NODES)?,
        slots: one(ebpf, abi::SLOTS)?,
        peers: one(ebpf, abi::PEERS)?,
        tunnels: one(ebpf, abi::TUNNELS)?,
        tunnel_ends: one(ebpf, abi::TUNNEL_ENDS)?,
        vips4: one(ebpf, abi::VIPS4)?,
        vips6: one(ebpf, abi::VIPS6)?,
        addrs4: one(ebpf, abi::ADDRS4)?,
        addrs6: one(ebpf, abi::ADDRS6)?,
        guards: one(ebpf, abi::GUARDS)?,
        rules: one(ebpf, abi::RULES)?,
        heard: one(ebpf, abi::HEARD)?,
    };
    let counters = Counters {
        reasons: one(ebpf, abi::COUNTERS)?,
        vips: one(ebpf, abi::VIP_COUNTERS)?,
        nodes: one(ebpf, abi::NODE_COUNTERS)?,
    };
    Ok((maps, counters, one(ebpf, abi::HEARTBEAT)?))
}

fn one<M: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, WrongMap> {
    let map = ebpf.take_map(name).ok_or_else(|| WrongMap { name, problem: "is missing".to_owned() })?;
    M::try_from(map).map_err(|error| WrongMap { name, problem: error.to_string() })
}

/// Key size, value size, entries of each pinned map; 0 entries: as the object or the operator says.
pub(crate) const LAYOUT: &[(&str, usize, usize, u32)] = &[
    layout::<u32, Config>(abi::CONFIG, 1),
    layout::<u32, Node>(abi::NODES, MAX_NODES),
    layout::<u32, SlotPage>(abi::SLOTS, (abi::SLOT_TABLES * SLOT_PAGES) as u32),
    layout::<PeerKey, Peer>(abi::PEERS, abi::MAX_PEERS),
    layout::<u32, Tunnel>(abi::TUNNELS, MAX_NODES),
    layout::<u32, Heard>(abi::HEARD, MAX_NODES),
    layout::<TunnelEndKey, TunnelEnd>(abi::TUNNEL_ENDS, abi::MAX_TUNNEL_ENDS),
    layout::<u32, u32>(abi::PROGRAMS, abi::CALLED.len() as u32),
    layout::<u32, abi::Errand>(abi::ERRAND, 1),
    layout::<VipKey4, Vip>(abi::VIPS4, abi::MAX_VIPS),
    layout::<VipKey6, Vip>(abi::VIPS6, abi::MAX_VIPS),
    layout::<Ip4, Addr>(abi::ADDRS4, abi::MAX_ADDRS),
    layout::<Ip6, Addr>(abi::ADDRS6, abi::MAX_ADDRS),
    layout::<u32, u64>(abi::HEARTBEAT, 1),
    layout::<u32, u64>(abi::COUNTERS, abi::REASON_SLOTS),
    layout::<u32, Count>(abi::VIP_COUNTERS, abi::MAX_VIPS),
    layout::<u32, Count>(abi::NODE_COUNTERS, MAX_NODES),
    layout::<u32, abi::FlowSet>(abi::FLOWS, 0),
    layout::<u32, abi::WalkBudget>(abi::WALK_BUDGET, 1),
    layout::<u32, abi::WalkBudget>(abi::ECHO_BUDGET, 1),
    layout::<abi::FragmentKey, abi::Fragment>(abi::FRAGMENTS, abi::MAX_FRAGMENTS),
    layout::<u32, Guard>(abi::GUARDS, abi::MAX_VIPS),
    layout::<Key<RuleKey>, u32>(abi::RULES, abi::MAX_RULES),
    layout::<SourceKey, Source>(abi::SOURCES, abi::MAX_SOURCES),
    layout::<u32, abi::WalkBudget>(abi::SYN_BUDGETS, abi::MAX_VIPS),
];

const fn layout<K, V>(name: &'static str, entries: u32) -> (&'static str, usize, usize, u32) {
    (name, size_of::<K>(), size_of::<V>(), entries)
}

/// All entries of a hash map. Entries that vanish meanwhile are left out.
pub(crate) fn entries<K: Pod + Ord + Hash, V: Pod>(
    map: &HashMap<MapData, K, V>,
) -> Result<BTreeMap<K, V>, MapError> {
    map.iter().collect()
}

/// All rules, by the length of their prefix in bits.
pub(crate) fn rules(map: &LpmTrie<MapData, RuleKey, u32>) -> Result<BTreeMap<(u32, RuleKey), u32>, MapError> {
    map.iter().map(|rule| rule.map(|(key, rule)| ((key.prefix_len(), key.data()), rule))).collect()
}

/// The nodes that have a place.
pub(crate) fn nodes(map: &Array<MapData, Node>) -> Result<BTreeMap<NodeIndex, Node>, MapError> {
    let mut nodes = BTreeMap::new();
    for (index, node) in map.iter().enumerate() {
        let node = node?;
        if node != Node::default() {
            nodes.insert(NodeIndex(index as u16), node);
        }
    }
    Ok(nodes)
}

/// Sum over all CPUs.
pub(crate) fn sum(map: &PerCpuArray<MapData, Count>, index: u32) -> Result<Count, MapError> {
    Ok(map.get(&index, 0)?.iter().fold(Count::default(), |sum, cpu| Count {
        packets: sum.packets + cpu.packets,
        bytes: sum.bytes + cpu.bytes,
        flows: sum.flows + cpu.flows,
        reserved: 0,
    }))
}
