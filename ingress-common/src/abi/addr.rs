//! Maps `ADDRS4`, `ADDRS6`: the addresses of all VIPs, and which of them this node owns. Written by the daemon.
//!
//! The addresses sit on `lo` of every node, so the kernel of every node would answer ARP requests and neighbour
//! solicitations for them. The program is faster: the owner answers from here, everybody else drops the question.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::map_type;

/// `HashMap<Ip4, Addr>`, [`MAX_ADDRS`] entries.
pub const ADDRS4: &str = "ADDRS4";
/// `HashMap<Ip6, Addr>`, [`MAX_ADDRS`] entries.
pub const ADDRS6: &str = "ADDRS6";

/// How many VIP addresses of each IP version.
pub const MAX_ADDRS: u32 = 4096;

/// Value of [`ADDRS4`] and [`ADDRS6`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Addr {
    /// [`Addr::OWNER`]; from bit 8 on one bit for each of [`super::Config::uplinks`], see [`Addr::silent_on`].
    pub flags: u32,
}
map_type!(Addr, 4);

impl Addr {
    /// Flag: this node answers for the address with the MAC address of the [`super::Uplink`] that was asked.
    pub const OWNER: u32 = 1;
    const SILENT: u32 = 8;

    /// The same, but not answered for on the interface at this place in [`super::Config::uplinks`].
    #[must_use]
    pub const fn silent_on(self, place: usize) -> Self {
        Self { flags: self.flags | 1 << (Self::SILENT + place as u32) }
    }

    /// Whether it is not answered for on the interface at this place in [`super::Config::uplinks`].
    #[inline(always)]
    pub const fn is_silent_on(self, place: usize) -> bool {
        self.flags >> (Self::SILENT + place as u32) & 1 != 0
    }
}
