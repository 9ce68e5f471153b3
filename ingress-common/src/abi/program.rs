//! The programs of the object, and the map by which one calls another. The front decides about nearly all packets; what is
//! rare has programs of its own, so that it costs the others nothing.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{NodeIndex, map_type};

/// Name of the entry point in the BPF object: the XDP program that goes on every uplink.
pub const PROGRAM: &str = "xdp_front";
/// Name of the XDP program for tunnelled packets, which passes ICMP and fragments on.
pub const PROGRAM_DETOUR: &str = "xdp_detour";
/// Name of the XDP program that answers packets that are too big for their tunnel.
pub const PROGRAM_TOO_BIG: &str = "xdp_too_big";

/// Name of the XDP program for ICMP to VIPs.
pub const PROGRAM_ICMP: &str = "xdp_icmp";
/// Name of the XDP program for pieces of packets to VIPs.
pub const PROGRAM_FRAGMENT: &str = "xdp_fragment";

/// `ProgramArray`: filled by the daemon with [`CALLED`], in that order.
pub const PROGRAMS: &str = "PROGRAMS";
/// The programs in [`PROGRAMS`], each at its number.
pub const CALLED: [&str; 4] = [PROGRAM_DETOUR, PROGRAM_TOO_BIG, PROGRAM_ICMP, PROGRAM_FRAGMENT];
/// Number of [`PROGRAM_DETOUR`].
pub const DETOUR: u32 = 0;
/// Number of [`PROGRAM_TOO_BIG`].
pub const TOO_BIG: u32 = 1;
/// Number of [`PROGRAM_ICMP`].
pub const ICMP: u32 = 2;
/// Number of [`PROGRAM_FRAGMENT`].
pub const FRAGMENT: u32 = 3;

/// `PerCpuArray<Errand>` with one element: what a program tells the one that it calls.
pub const ERRAND: &str = "ERRAND";

/// Value of [`ERRAND`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Errand {
    /// For whose tunnel the packet is too big.
    pub node: NodeIndex,
    /// For which VIP.
    pub vip: u16,
    /// 1: the packet came through a tunnel, from a peer.
    pub in_tunnel: u32,
}
map_type!(Errand, 8);
