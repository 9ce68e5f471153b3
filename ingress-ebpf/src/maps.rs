//! The maps of the XDP front, named and typed as `ingress_common::abi` lays down. Used by `env.rs` only.
//!
//! Declared without pinning: the daemon says where each one is pinned when it loads the object, and may change the
//! size of the flow tables.

use aya_ebpf::{
    Global,
    bindings::BPF_F_MMAPABLE,
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray},
    macros::btf_map,
};
use ingress_common::abi::{
    Addr, CALLED, Config, Count, DEFAULT_MAX_FLOWS, Errand, FLOW_WAYS, Fragment, FragmentKey, Guard, Heard,
    Ip4, Ip6, MAX_ADDRS, MAX_FRAGMENTS, MAX_NODES, MAX_PEERS, MAX_RULES, MAX_SOURCES, MAX_TUNNEL_ENDS,
    MAX_VIPS, Node, Peer, PeerKey, REASON_SLOTS, RuleKey, SLOT_PAGES, SLOT_TABLES, SlotPage, Source,
    SourceKey, Tunnel, TunnelEnd, TunnelEndKey, Vip, VipKey4, VipKey6, WalkBudget,
};

const FLOW_SETS: usize = DEFAULT_MAX_FLOWS as usize / FLOW_WAYS;
/// Elements begin at a page's beginning.
const PAGE_ALIGNED: usize = BPF_F_MMAPABLE as usize;

#[btf_map]
pub(crate) static CONFIG: Array<Config, 1> = Array::new();
#[btf_map]
pub(crate) static HEARTBEAT: Array<u64, 1> = Array::new();
#[btf_map]
pub(crate) static VIPS4: HashMap<VipKey4, Vip, { MAX_VIPS as usize }> = HashMap::new();
#[btf_map]
pub(crate) static VIPS6: HashMap<VipKey6, Vip, { MAX_VIPS as usize }> = HashMap::new();
#[btf_map]
pub(crate) static ADDRS4: HashMap<Ip4, Addr, { MAX_ADDRS as usize }> = HashMap::new();
#[btf_map]
pub(crate) static ADDRS6: HashMap<Ip6, Addr, { MAX_ADDRS as usize }> = HashMap::new();
#[btf_map]
pub(crate) static SLOTS: Array<SlotPage, { SLOT_TABLES * SLOT_PAGES }> = Array::new();
#[btf_map]
pub(crate) static NODES: Array<Node, { MAX_NODES as usize }> = Array::new();
#[btf_map]
pub(crate) static PEERS: HashMap<PeerKey, Peer, { MAX_PEERS as usize }> = HashMap::new();
#[btf_map]
pub(crate) static TUNNELS: Array<Tunnel, { MAX_NODES as usize }> = Array::new();
#[btf_map]
pub(crate) static TUNNEL_ENDS: HashMap<TunnelEndKey, TunnelEnd, { MAX_TUNNEL_ENDS as usize }> =
    HashMap::new();
#[btf_map]
pub(crate) static HEARD: Array<Heard, { MAX_NODES as usize }> = Array::new();
#[btf_map]
pub(crate) static PROGRAMS: ProgramArray<{ CALLED.len() }> = ProgramArray::new();
#[btf_map]
pub(crate) static ERRAND: PerCpuArray<Errand, 1> = PerCpuArray::new();
#[btf_map]
pub(crate) static FLOWS: Array<[u64; FLOW_WAYS], FLOW_SETS, PAGE_ALIGNED> = Array::new();
#[btf_map]
pub(crate) static COUNTERS: PerCpuArray<u64, { REASON_SLOTS as usize }> = PerCpuArray::new();
#[btf_map]
pub(crate) static VIP_COUNTERS: PerCpuArray<Count, { MAX_VIPS as usize }> = PerCpuArray::new();
#[btf_map]
pub(crate) static NODE_COUNTERS: PerCpuArray<Count, { MAX_NODES as usize }> = PerCpuArray::new();
#[btf_map]
pub(crate) static WALK_BUDGET: PerCpuArray<WalkBudget, 1> = PerCpuArray::new();
#[btf_map]
pub(crate) static ECHO_BUDGET: PerCpuArray<WalkBudget, 1> = PerCpuArray::new();
#[btf_map]
pub(crate) static FRAGMENTS: LruHashMap<FragmentKey, Fragment, { MAX_FRAGMENTS as usize }> =
    LruHashMap::new();
#[btf_map]
pub(crate) static GUARDS: Array<Guard, { MAX_VIPS as usize }> = Array::new();
#[btf_map]
pub(crate) static RULES: LpmTrie<RuleKey, u32, { MAX_RULES as usize }> = LpmTrie::new();
#[btf_map]
pub(crate) static SOURCES: LruHashMap<SourceKey, Source, { MAX_SOURCES as usize }> = LruHashMap::new();
#[btf_map]
pub(crate) static SYN_BUDGETS: PerCpuArray<WalkBudget, { MAX_VIPS as usize }> = PerCpuArray::new();
/// Where `xdp_why` looks at a set of the flow table: a copy, so that a question changes nothing. Not pinned.
#[btf_map]
pub(crate) static QUESTION_SET: PerCpuArray<[u64; FLOW_WAYS], 1> = PerCpuArray::new();

/// Logging through aya-log: off (0) unless the daemon overrides it before loading. Read-only, so that the verifier
/// removes what it guards.
#[unsafe(no_mangle)]
pub(crate) static BPF_LOG: Global<u8> = Global::new(0);
