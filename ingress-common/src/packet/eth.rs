//! Ethernet II header and 802.1Q / 802.1ad tags.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Packet;
use crate::abi::{Be16, Mac, Vlan};

/// What the frame carries (IEEE 802 numbers), in network byte order.
pub mod ethertype {
    use crate::abi::Be16;

    /// IPv4.
    pub const IPV4: Be16 = Be16::new(0x0800);
    /// ARP.
    pub const ARP: Be16 = Be16::new(0x0806);
    /// IPv6.
    pub const IPV6: Be16 = Be16::new(0x86dd);
    /// 802.1Q tag.
    pub const VLAN: Be16 = Be16::new(0x8100);
    /// 802.1ad outer tag.
    pub const QINQ: Be16 = Be16::new(0x88a8);
}

/// Ethernet header.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C, packed)]
pub struct EthHdr {
    /// Destination.
    pub dst: Mac,
    /// Source.
    pub src: Mac,
    /// See [`ethertype`].
    pub ethertype: Be16,
}

/// The four bytes of a tag, shifted: tag control information, then the next [`ethertype`].
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C, packed)]
pub struct VlanTag {
    /// Priority and VLAN number.
    pub tci: Be16,
    /// What follows.
    pub ethertype: Be16,
}

/// The outer layer of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Destination.
    pub dst: Mac,
    /// Source.
    pub src: Mac,
    /// What follows the last tag.
    pub ethertype: Be16,
    /// Where it follows: 14, 18 or 22.
    pub l3: usize,
    /// Its tags.
    pub vlan: Vlan,
}

impl Link {
    /// Reads the Ethernet header and up to two tags.
    #[inline(always)]
    pub fn parse<P: Packet + ?Sized>(packet: &P) -> Option<Self> {
        let eth = packet.at::<EthHdr>(0)?;
        let mut link = Self {
            dst: eth.dst,
            src: eth.src,
            ethertype: eth.ethertype,
            l3: size_of::<EthHdr>(),
            vlan: Vlan::NONE,
        };
        for _ in 0..Vlan::MAX_TAGS {
            if link.ethertype != ethertype::VLAN && link.ethertype != ethertype::QINQ {
                break;
            }
            let tag = packet.at::<VlanTag>(link.l3)?;
            link.vlan = link.vlan.with(tag.tci, link.ethertype == ethertype::QINQ);
            link.ethertype = tag.ethertype;
            link.l3 += size_of::<VlanTag>();
        }
        Some(link)
    }
}
