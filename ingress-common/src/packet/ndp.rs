//! Neighbour solicitation and advertisement (RFC 4861, section 4.3 and 4.4).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::abi::{Be16, Be32, Ip6, Mac};

/// ICMPv6 type of a neighbour solicitation.
pub const SOLICITATION: u8 = 135;
/// ICMPv6 type of a neighbour advertisement.
pub const ADVERTISEMENT: u8 = 136;
/// Hop limit that proves a neighbour: no router has forwarded the packet.
pub const HOP_LIMIT: u8 = 255;
/// Advertisement flag: answers a solicitation that had a sender.
pub const FLAG_SOLICITED: u32 = 0x4000_0000;
/// Advertisement flag: replaces what the receiver has in its cache.
pub const FLAG_OVERRIDE: u32 = 0x2000_0000;
/// Option type: link-layer address of the target.
pub const TARGET_LINK_LAYER: u8 = 2;

/// Solicitation or advertisement, without options.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C, packed)]
pub struct NeighbourHdr {
    /// [`SOLICITATION`] or [`ADVERTISEMENT`].
    pub kind: u8,
    /// Zero.
    pub code: u8,
    /// Checksum with the pseudo header.
    pub checksum: Be16,
    /// Flags of an advertisement, else zero.
    pub flags: Be32,
    /// Whom it is about.
    pub target: Ip6,
}

/// The option that carries a MAC address.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C, packed)]
pub struct LinkLayerOption {
    /// [`TARGET_LINK_LAYER`].
    pub kind: u8,
    /// Length in units of 8 bytes: 1.
    pub len: u8,
    /// The address.
    pub mac: Mac,
}
