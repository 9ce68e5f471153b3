//! Maps `TUNNELS`, `TUNNEL_ENDS`: how peers behind a router are reached, and from whom tunnelled packets are taken. Written by
//! the daemon.
//!
//! A tunnelled packet is: outer IP, UDP to `packet::udp::GUE_PORT`, then the client's packet as it is (Generic UDP
//! Encapsulation, variant 1: an IP header follows without a header of GUE's own).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Ip6, NodeIndex, map_type};

/// `Array<Tunnel>` with [`super::MAX_NODES`] elements, by [`NodeIndex`]: for nodes with [`super::Node::GUE`].
pub const TUNNELS: &str = "TUNNELS";
/// `HashMap<TunnelEndKey, TunnelEnd>`, [`MAX_TUNNEL_ENDS`] entries: the own addresses, and those of all known peers.
pub const TUNNEL_ENDS: &str = "TUNNEL_ENDS";

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
