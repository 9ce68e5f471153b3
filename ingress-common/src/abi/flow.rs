//! Maps `FLOWS4`, `FLOWS6`: which *other* node a flow was given to. Written by the program only; the daemon may count
//! entries. A cache: losing an entry, or finding one that is out of date, costs a walk and breaks nothing.
//!
//! Flows of the own node are not remembered: the socket itself is looked up. The VIP's number stands for destination
//! address, port and protocol, so that an IPv4 entry with the kernel's own fields fills exactly one cache line.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Be16, Ip4, Ip6, NodeIndex, VipId, map_type};

/// `LruHashMap<FlowKey4, Flow>` with per-CPU LRU lists.
pub const FLOWS4: &str = "FLOWS4";
/// `LruHashMap<FlowKey6, Flow>` with per-CPU LRU lists.
pub const FLOWS6: &str = "FLOWS6";

/// Entries of [`FLOWS4`] and of [`FLOWS6`] unless the daemon sets another size before loading (64 and 80 bytes per
/// entry, plus 16 per bucket). They are shared out among the CPUs.
pub const DEFAULT_MAX_FLOWS: u32 = 262_144;

/// Key of [`FLOWS4`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FlowKey4 {
    /// The client's address.
    pub src: Ip4,
    /// The client's port.
    pub port: Be16,
    /// What it talks to.
    pub vip: VipId,
}
map_type!(FlowKey4, 8);

/// Key of [`FLOWS6`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FlowKey6 {
    /// The client's address.
    pub src: Ip6,
    /// The client's port.
    pub port: Be16,
    /// What it talks to.
    pub vip: VipId,
}
map_type!(FlowKey6, 20);

/// Value of [`FLOWS4`] and [`FLOWS6`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Flow {
    /// The node that has the flow.
    pub node: NodeIndex,
    /// Zero.
    pub flags: u16,
    /// Zero. Room for the time of the last packet of flows without an end (UDP).
    pub reserved: u32,
}
map_type!(Flow, 8);
