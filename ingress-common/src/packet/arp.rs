//! ARP for IPv4 over Ethernet (RFC 826).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::eth::ethertype;
use crate::abi::{Be16, Ip4, Mac};

/// Operation: who has this address?
pub const REQUEST: Be16 = Be16::new(1);
/// Operation: I have it.
pub const REPLY: Be16 = Be16::new(2);

const ETHERNET: Be16 = Be16::new(1);

/// ARP packet for IPv4 over Ethernet.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C, packed)]
pub struct ArpHdr {
    /// Hardware type.
    pub hardware: Be16,
    /// Protocol type.
    pub protocol: Be16,
    /// Length of a hardware address.
    pub hardware_len: u8,
    /// Length of a protocol address.
    pub protocol_len: u8,
    /// [`REQUEST`] or [`REPLY`].
    pub operation: Be16,
    /// Who speaks.
    pub sender_mac: Mac,
    /// Who speaks.
    pub sender_ip: Ip4,
    /// Whom it is about.
    pub target_mac: Mac,
    /// Whom it is about.
    pub target_ip: Ip4,
}

impl ArpHdr {
    /// A well-formed request for IPv4 over Ethernet.
    #[inline(always)]
    pub fn is_request(&self) -> bool {
        let Self { hardware, protocol, hardware_len, protocol_len, operation, .. } = *self;
        hardware == ETHERNET
            && protocol == ethertype::IPV4
            && hardware_len == 6
            && protocol_len == 4
            && operation == REQUEST
    }
}
