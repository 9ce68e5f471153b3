//! UDP header (RFC 768), as the outer header of a tunnel.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::abi::Be16;

/// IANA protocol number of UDP.
pub const PROTO: u8 = 17;
/// IANA port of Generic UDP Encapsulation.
pub const GUE_PORT: Be16 = Be16::new(6080);

/// UDP header.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C, packed)]
pub struct UdpHdr {
    /// Source port.
    pub src: Be16,
    /// Destination port.
    pub dst: Be16,
    /// Length of header and payload.
    pub len: Be16,
    /// Checksum; 0: none.
    pub checksum: Be16,
}
