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
/// Name of the XDP program that answers SYNs with cookies.
pub const PROGRAM_COOKIE: &str = "xdp_cookie";

/// Name of the XDP program that decides as the front does and only tells: attached nowhere, run by `xdp-ingress why`.
pub const PROGRAM_WHY: &str = "xdp_why";

/// Name of the XDP program for ICMP to VIPs.
pub const PROGRAM_ICMP: &str = "xdp_icmp";
/// Name of the XDP program for pieces of packets to VIPs.
pub const PROGRAM_FRAGMENT: &str = "xdp_fragment";

/// Name of the XDP program that gives frames the VLAN tags of the way to their node.
pub const PROGRAM_RETAG: &str = "xdp_retag";

/// `ProgramArray`: filled by the daemon with [`CALLED`], in that order.
pub const PROGRAMS: &str = "PROGRAMS";
/// The programs in [`PROGRAMS`], each at its number.
pub const CALLED: [&str; 6] =
    [PROGRAM_DETOUR, PROGRAM_TOO_BIG, PROGRAM_ICMP, PROGRAM_FRAGMENT, PROGRAM_COOKIE, PROGRAM_RETAG];
/// Number of [`PROGRAM_DETOUR`].
pub const DETOUR: u32 = 0;
/// Number of [`PROGRAM_TOO_BIG`].
pub const TOO_BIG: u32 = 1;
/// Number of [`PROGRAM_ICMP`].
pub const ICMP: u32 = 2;
/// Number of [`PROGRAM_FRAGMENT`].
pub const FRAGMENT: u32 = 3;
/// Number of [`PROGRAM_COOKIE`].
pub const COOKIE: u32 = 4;
/// Number of [`PROGRAM_RETAG`].
pub const RETAG: u32 = 5;

/// `PerCpuArray<Errand>` with one element: what a program tells the one that it calls.
pub const ERRAND: &str = "ERRAND";

/// Value of [`ERRAND`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Errand {
    /// For whose tunnel the packet is too big; who would take the SYN; to whom the frame goes.
    pub node: NodeIndex,
    /// For which VIP.
    pub vip: u16,
    /// 1: the packet came through a tunnel, from a peer.
    pub in_tunnel: u32,
}
map_type!(Errand, 8);

/// What the program [`PROGRAM_WHY`] returns, packed into the number that a test run gives back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Number of a `steer::Reason`.
    pub reason: u32,
    /// The node that would get the packet, or [`NodeIndex::NONE`].
    pub node: NodeIndex,
    /// It is a SYN that is one too many.
    pub is_cookie: bool,
}

impl Told {
    const COOKIE: u32 = 1 << 24;

    /// As one number.
    #[inline(always)]
    pub const fn pack(self) -> u32 {
        self.reason & 0xff | (self.node.0 as u32) << 8 | if self.is_cookie { Self::COOKIE } else { 0 }
    }

    /// From that number.
    pub const fn unpack(number: u32) -> Self {
        Self {
            reason: number & 0xff,
            node: NodeIndex((number >> 8) as u16),
            is_cookie: number & Self::COOKIE != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked() {
        for told in [
            Told { reason: 0, node: NodeIndex::NONE, is_cookie: false },
            Told { reason: 63, node: NodeIndex(1023), is_cookie: true },
        ] {
            assert_eq!(Told::unpack(told.pack()), told);
        }
    }
}
