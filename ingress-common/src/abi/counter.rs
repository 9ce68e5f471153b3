//! Maps `COUNTERS`, `VIP_COUNTERS`, `NODE_COUNTERS`: what happened, per CPU. Written by the program, read and summed up
//! by the daemon. Counters only grow; they are not reset while the maps live.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::map_type;

/// `PerCpuArray<u64>` with [`REASON_SLOTS`] elements: packets by `steer::Reason` (its number is the index).
pub const COUNTERS: &str = "COUNTERS";
/// `PerCpuArray<Count>` with [`super::MAX_VIPS`] elements, by [`super::VipId`]: what arrived for the VIP.
pub const VIP_COUNTERS: &str = "VIP_COUNTERS";
/// `PerCpuArray<Count>` with [`super::MAX_NODES`] elements, by [`super::NodeIndex`]: what went to the node, the own one
/// included.
pub const NODE_COUNTERS: &str = "NODE_COUNTERS";

/// Room for reasons.
pub const REASON_SLOTS: u32 = 64;

/// Value of [`VIP_COUNTERS`] and [`NODE_COUNTERS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes of those packets, Ethernet header included, as they came in.
    pub bytes: u64,
    /// New flows (SYNs).
    pub flows: u64,
    /// Zero.
    pub reserved: u64,
}
map_type!(Count, 32);
