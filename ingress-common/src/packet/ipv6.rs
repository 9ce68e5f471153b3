//! IPv6 header and the extension headers that may stand before TCP (RFC 8200).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Packet;
use crate::abi::{Be16, Be32, Ip6};

/// IANA protocol numbers.
pub mod next_header {
    /// Hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// TCP.
    pub const TCP: u8 = 6;
    /// Routing header.
    pub const ROUTING: u8 = 43;
    /// Fragment header.
    pub const FRAGMENT: u8 = 44;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// Destination options.
    pub const DESTINATION: u8 = 60;
}

/// How many extension headers we look behind.
pub const MAX_EXTENSIONS: usize = 4;

/// IPv6 header.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C, packed)]
pub struct Ipv6Hdr {
    /// Version, traffic class, flow label.
    pub version_class_flow: Be32,
    /// Length of what follows this header.
    pub payload_len: Be16,
    /// See [`next_header`].
    pub next: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source.
    pub src: Ip6,
    /// Destination.
    pub dst: Ip6,
}

impl Ipv6Hdr {
    /// Whether the version field says 6.
    #[inline(always)]
    pub fn is_valid(&self) -> bool {
        self.version_class_flow.raw() & const { Be32::new(0xf000_0000).raw() }
            == const { Be32::new(0x6000_0000).raw() }
    }
}

/// The common beginning of extension headers.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C, packed)]
pub struct ExtensionHdr {
    /// See [`next_header`].
    pub next: u8,
    /// Length in units of 8 bytes, the first unit not counted.
    pub len: u8,
}

/// Fragment header.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C, packed)]
pub struct FragmentHdr {
    /// See [`next_header`].
    pub next: u8,
    /// Zero.
    pub reserved: u8,
    /// Offset, two reserved bits, and "more fragments".
    pub offset: Be16,
    /// Identification.
    pub id: Be32,
}

impl FragmentHdr {
    /// Whether the packet is a piece that is not the first.
    #[inline(always)]
    pub fn is_later(&self) -> bool {
        self.offset.raw() & const { Be16::new(0xfff8).raw() } != 0
    }
}

/// The protocol behind the extension headers that are allowed in front of TCP, and its offset. At most
/// [`MAX_EXTENSIONS`] are skipped; whatever else comes is given back as it is.
#[inline(always)]
pub fn skip_extensions<P: Packet + ?Sized>(packet: &P, next: u8, offset: usize) -> Option<(u8, usize)> {
    let (mut next, mut offset) = (next, offset);
    for _ in 0..MAX_EXTENSIONS {
        if !matches!(next, next_header::HOP_BY_HOP | next_header::ROUTING | next_header::DESTINATION) {
            break;
        }
        let extension = packet.at::<ExtensionHdr>(offset)?;
        next = extension.next;
        offset += (usize::from(extension.len) + 1) * 8;
    }
    Some((next, offset))
}
