//! IPv4 header (RFC 791).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::abi::{Be16, Ip4};
use crate::checksum;

/// IPv4 header without options.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C, packed)]
pub struct Ipv4Hdr {
    /// Version and header length in 32-bit words.
    pub version_ihl: u8,
    /// DSCP and ECN.
    pub tos: u8,
    /// Length of header and payload.
    pub total_len: Be16,
    /// Identification.
    pub id: Be16,
    /// Flags and fragment offset.
    pub fragment: Be16,
    /// Hop limit.
    pub ttl: u8,
    /// What follows (IANA protocol number).
    pub proto: u8,
    /// Header checksum.
    pub checksum: Be16,
    /// Source.
    pub src: Ip4,
    /// Destination.
    pub dst: Ip4,
}

/// "More fragments" flag and fragment offset.
const FRAGMENT: Be16 = Be16::new(0x3fff);
/// Fragment offset.
const OFFSET: Be16 = Be16::new(0x1fff);

impl Ipv4Hdr {
    /// Header length in bytes with options; `None` if this is not an IPv4 header.
    #[inline(always)]
    pub fn header_len(&self) -> Option<usize> {
        let ihl = usize::from(self.version_ihl & 0x0f);
        (self.version_ihl >> 4 == 4 && ihl >= 5).then_some(ihl * 4)
    }

    /// Whether the packet is a piece of a bigger one, the first piece included.
    #[inline(always)]
    pub fn is_fragment(&self) -> bool {
        self.fragment.raw() & FRAGMENT.raw() != 0
    }

    /// Whether the packet is a piece that is not the first.
    #[inline(always)]
    pub fn is_later_fragment(&self) -> bool {
        self.fragment.raw() & OFFSET.raw() != 0
    }

    /// Sets the header checksum anew; for headers without options.
    #[inline(always)]
    pub fn set_checksum(&mut self) {
        self.checksum = Be16::new(0);
        let words: [u16; 10] = zerocopy::transmute!(*self);
        self.checksum = Be16::from_raw(checksum::fold(checksum::sum_of(&words)));
    }

    /// Sets the hop limit and corrects the header checksum for it.
    #[inline(always)]
    pub fn set_ttl(&mut self, ttl: u8) {
        let old = u16::from_ne_bytes([self.ttl, self.proto]);
        let new = u16::from_ne_bytes([ttl, self.proto]);
        self.checksum = Be16::from_raw(checksum::replace(self.checksum.raw(), old, new));
        self.ttl = ttl;
    }
}
