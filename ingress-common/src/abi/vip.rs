//! Maps `VIPS4`, `VIPS6`: which (address, port, protocol) is a virtual service address. Written by the daemon.
//! A packet whose destination is not here passes untouched.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Be16, Ip4, Ip6, map_type};

/// `HashMap<VipKey4, Vip>`, [`MAX_VIPS`] entries.
pub const VIPS4: &str = "VIPS4";
/// `HashMap<VipKey6, Vip>`, [`MAX_VIPS`] entries.
pub const VIPS6: &str = "VIPS6";

/// How many VIPs of each IP version, and how many [`VipId`]s.
pub const MAX_VIPS: u32 = 4096;

/// Number of a VIP on this node: names its counters and its flows. IPv4 and IPv6 share one number space. Below
/// [`MAX_VIPS`]. Do not reuse a number while others are free: flows of the old VIP may still be remembered under it
/// (nothing breaks then, but their packets take a detour).
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
#[repr(transparent)]
pub struct VipId(pub u16);
map_type!(VipId, 2);

impl VipId {
    /// No VIP.
    pub const NONE: Self = Self(u16::MAX);
}

/// Key of [`VIPS4`].
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
#[repr(C)]
pub struct VipKey4 {
    /// Destination address.
    pub addr: Ip4,
    /// Destination port.
    pub port: Be16,
    /// IP protocol number; 6 (TCP) is the only one that the program looks at.
    pub proto: u16,
}
map_type!(VipKey4, 8);

/// Key of [`VIPS6`].
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
#[repr(C)]
pub struct VipKey6 {
    /// Destination address.
    pub addr: Ip6,
    /// Destination port.
    pub port: Be16,
    /// IP protocol number; 6 (TCP) is the only one that the program looks at.
    pub proto: u16,
}
map_type!(VipKey6, 20);

/// Value of [`VIPS4`] and [`VIPS6`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Vip {
    /// Names the counters and the flows of this VIP.
    pub id: VipId,
    /// [`Vip::LISTS`] and the others.
    pub flags: u16,
    /// Zero.
    pub reserved: u32,
}
map_type!(Vip, 8);

impl Vip {
    /// Flag: `RULES` has entries for it.
    pub const LISTS: u16 = 1;
    /// Flag, with [`Self::LISTS`]: who is in no entry is not let in.
    pub const ALLOWED_ONLY: u16 = 2;
    /// Flag: new connections of one source are limited, as `GUARDS` says.
    pub const SOURCE_LIMIT: u16 = 4;
    /// Flag: where more SYNs arrive than `GUARDS` says, they are answered with cookies.
    pub const COOKIES: u16 = 8;
    /// Flags that [`crate::steer::guard`] is for.
    pub const GUARDED: u16 = Self::LISTS | Self::SOURCE_LIMIT;
}
