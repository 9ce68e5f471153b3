//! The headers of ICMP (RFC 792) and `ICMPv6` (RFC 4443) messages that the front answers, sends or follows.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::abi::{Be16, Be32};

/// IANA protocol number of ICMP.
pub const PROTO: u8 = 1;

/// ICMP types.
pub mod v4 {
    /// Answer to an echo request.
    pub const ECHO_REPLY: u8 = 0;
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 3;
    /// Code of [`UNREACHABLE`]: too big, and must not be fragmented. The next hop's MTU is in the rest of the header.
    pub const FRAGMENTATION_NEEDED: u8 = 4;
    /// Echo request.
    pub const ECHO: u8 = 8;
    /// Hop limit used up.
    pub const TIME_EXCEEDED: u8 = 11;
    /// A field of the header is wrong.
    pub const PARAMETER_PROBLEM: u8 = 12;
}

/// `ICMPv6` types.
pub mod v6 {
    /// Destination unreachable: the first type that is an error about a packet.
    pub const UNREACHABLE: u8 = 1;
    /// Packet too big. The next hop's MTU is in the rest of the header.
    pub const TOO_BIG: u8 = 2;
    /// A field of a header is wrong: the last type that is an error about a packet.
    pub const PARAMETER_PROBLEM: u8 = 4;
    /// Echo request.
    pub const ECHO: u8 = 128;
    /// Answer to an echo request.
    pub const ECHO_REPLY: u8 = 129;
}

/// The common beginning, and the four bytes that differ from type to type.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C, packed)]
pub struct IcmpHdr {
    /// See [`v4`] and [`v6`].
    pub kind: u8,
    /// Refines the type.
    pub code: u8,
    /// Checksum, in `ICMPv6` with the pseudo header.
    pub checksum: Be16,
    /// An MTU, or identifier and sequence number.
    pub rest: Be32,
}
