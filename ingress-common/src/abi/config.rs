//! Map `CONFIG`: what the program must know about its own node and how to behave. One value, written by the daemon.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Mac, NodeIndex, map_type};
use crate::hash::FlowKey;

/// `Array<Config>` with one element.
pub const CONFIG: &str = "CONFIG";

/// How many interfaces of a node the program can be attached to.
pub const MAX_UPLINKS: usize = 8;

/// An interface that carries the program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Uplink {
    /// Interface index in the node's network namespace; 0: this entry is not used, nor are those behind it.
    pub ifindex: u32,
    /// Address of the interface. Frames for another address are none of our business (a switch may flood them), and
    /// ARP and neighbour answers carry it.
    pub mac: Mac,
    /// Zero.
    pub reserved: u16,
}
map_type!(Uplink, 12);

/// The value of [`CONFIG`]. All zeroes (a fresh map) means: pass everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Config {
    /// [`super::ABI_VERSION`] of the daemon that wrote the maps. The program passes every packet while this is
    /// another version than its own, so write it last, when the other maps are filled.
    pub abi_version: u32,
    /// Which of the [`super::SLOT_TABLES`] tables in [`super::SLOTS`] packets use: 0 or 1. Write the pages of the
    /// other table, then this. Afterwards leave the old table alone for a millisecond: a packet may still be in it.
    pub active_slots: u32,
    /// This node's own place in [`super::NODES`].
    pub own_node: NodeIndex,
    /// Bytes of a TCP segment that answers to SYNs ask IPv4 clients for at most; IPv6 ones 20 less. 0: nothing is asked for.
    pub segment_size: u16,
    /// [`Config::LOG`].
    pub flags: u32,
    /// Key of the flow hash. The same on every node of the cluster, and secret if clients should not be able to choose
    /// their slot. Changing it moves every flow: established ones without a flow-table entry may lose their way.
    pub flow_key: FlowKey,
    /// Own node counts as dead for new flows when [`super::HEARTBEAT`] is older than this (ns). 0: never.
    pub heartbeat_timeout_ns: u64,
    /// Walk budget per CPU: nanoseconds that one hand-over inside a walk costs, that is 1e9 × CPUs / (hand-overs per
    /// second of the node). 0: no limit.
    pub walk_cost_ns: u64,
    /// Walk budget per CPU: how much a quiet CPU may have saved, in ns (`walk_cost_ns` × burst of hand-overs).
    pub walk_burst_ns: u64,
    /// Sets in [`super::FLOWS`], a power of two; 0: the first one for all.
    pub flow_sets: u32,
    /// Zero.
    pub reserved2: u32,
    /// The interfaces that carry the program; unused entries last.
    pub uplinks: [Uplink; MAX_UPLINKS],
}
map_type!(Config, 88 + 12 * MAX_UPLINKS);

impl Config {
    /// Flag: log every verdict about a VIP through aya-log. Needs the program loaded with [`super::GLOBAL_LOG`] on.
    pub const LOG: u32 = 1;
}
