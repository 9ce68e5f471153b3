//! Maps `TUNNELS`, `TUNNEL_ENDS`: how peers behind a router are reached, and from whom tunnelled packets are taken. Written by
//! the daemon. Map `HEARD`: what routers say of tunnelled packets.
//!
//! A tunnelled packet is: outer IP, UDP to `packet::udp::GUE_PORT`, then the client's packet as it is (Generic UDP
//! Encapsulation, variant 1: an IP header follows without a header of GUE's own).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Ip6, NodeIndex, map_type};

/// `Array<Tunnel>` with [`super::MAX_NODES`] elements, by [`NodeIndex`]: for nodes with [`super::Node::GUE`].
pub const TUNNELS: &str = "TUNNELS";
/// `HashMap<TunnelEndKey, TunnelEnd>`, [`MAX_TUNNEL_ENDS`] entries: the own addresses, and those of all known peers.
pub const TUNNEL_ENDS: &str = "TUNNEL_ENDS";

/// `Array<Heard>` with [`super::MAX_NODES`] elements, by [`NodeIndex`]: what routers on the way to the node said. Written by the
/// program only, which also lowers [`Tunnel::mtu`] at once: nothing has to be lost until the daemon has read it.
pub const HEARD: &str = "HEARD";

/// How many addresses of nodes: both IP versions of each.
pub const MAX_TUNNEL_ENDS: u32 = 4096;

/// Value of [`TUNNELS`]. IPv4 addresses are IPv4-mapped IPv6 ones (`::ffff:a.b.c.d`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Tunnel {
    /// Our outer address: one by which the peer knows us.
    pub src: Ip6,
    /// The peer's outer address.
    pub dst: Ip6,
    /// How many bytes an outer packet may have, its IP header included.
    pub mtu: u16,
    /// [`Tunnel::V6`].
    pub flags: u16,
}
map_type!(Tunnel, 36);

impl Tunnel {
    /// Flag: the outer header is IPv6.
    pub const V6: u16 = 1;
    /// What a tunnel over IPv4 adds to a packet: IPv4 and UDP header.
    pub const OVERHEAD4: usize = 28;
    /// What a tunnel over IPv6 adds to a packet: IPv6 and UDP header.
    pub const OVERHEAD6: usize = 48;

    /// What the tunnel adds to a packet, in bytes.
    #[inline(always)]
    pub const fn overhead(&self) -> usize {
        if self.flags & Self::V6 == 0 { Self::OVERHEAD4 } else { Self::OVERHEAD6 }
    }
}

/// Value of [`HEARD`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Heard {
    /// When a router last said that an outer packet is too big (`CLOCK_MONOTONIC`, ns).
    pub too_big_ns: u64,
    /// How many bytes it lets pass, the outer IP header included; 0: none has said anything.
    pub mtu: u32,
    /// How many times a router or the peer itself said that outer packets do not arrive.
    pub unreachable: u32,
}
map_type!(Heard, 16);

/// Key of [`TUNNEL_ENDS`]: an outer address, an IPv4 one IPv4-mapped. Aligned as the verifier wants it on the stack, where the
/// compiler writes two words at once.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C, align(8))]
pub struct TunnelEndKey(pub Ip6);
map_type!(TunnelEndKey, 16);

/// Value of [`TUNNEL_ENDS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TunnelEnd {
    /// Whose address this is, the own node included.
    pub node: NodeIndex,
    /// Zero.
    pub reserved: u16,
}
map_type!(TunnelEnd, 4);
