//! Neighbour solicitations for a VIP: the owner answers from here, everybody else drops them, because the address sits on
//! every node's `lo` and the kernel would answer. All other ICMPv6 passes.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, transmute_ref};

use crate::abi::{Be16, Be32, Ip6, Mac};
use crate::checksum;
use crate::packet::Packet;
use crate::packet::eth::{EthHdr, Link};
use crate::packet::ipv6::{Ipv6Hdr, next_header};
use crate::packet::ndp::{
    ADVERTISEMENT, FLAG_OVERRIDE, FLAG_SOLICITED, HOP_LIMIT, LinkLayerOption, NeighbourHdr, SOLICITATION,
    TARGET_LINK_LAYER,
};

use super::{Action, Reason, Tables, Verdict, answering_mac, ready};

/// `::`, the sender of duplicate address detection.
const UNSPECIFIED: Ip6 = Ip6([Be32::new(0); 4]);
/// `ff02::1`, everybody on the link.
const ALL_NODES: Ip6 = Ip6([Be32::new(0xff02_0000), Be32::new(0), Be32::new(0), Be32::new(1)]);
/// Where `ff02::1` is on Ethernet.
const ALL_NODES_MAC: Mac = Mac::new([0x33, 0x33, 0, 0, 0, 1]);

/// An advertisement with the target's address, as long as a solicitation with the sender's.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C, packed)]
struct Advertisement {
    neighbour: NeighbourHdr,
    option: LinkLayerOption,
}

const ADVERTISEMENT_LEN: u16 = size_of::<Advertisement>() as u16;
const BARE_LEN: u16 = size_of::<NeighbourHdr>() as u16;

#[inline(always)]
pub(super) fn answer<P: Packet + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    ifindex: u32,
    link: &Link,
    l4: usize,
) -> Verdict {
    let Some(request) = packet.at::<NeighbourHdr>(l4) else { return Verdict::NOT_OURS };
    if request.kind != SOLICITATION || request.code != 0 {
        return Verdict::NOT_OURS;
    }
    let target = request.target;
    let Some(ip) = packet.at::<Ipv6Hdr>(link.l3) else { return Verdict::NOT_OURS };
    // RFC 4861, 7.1.1. Its checksum is not verified: the worst that a damaged request can make us say is the truth.
    if ip.hop_limit != HOP_LIMIT || ip.payload_len.get() < BARE_LEN {
        return Verdict::NOT_OURS;
    }
    let Some(addr) = tables.addr6(target) else { return Verdict::NOT_OURS };
    let Some(config) = ready(tables) else { return Verdict::other(Action::Pass, Reason::PassNotReady) };
    let mac = match answering_mac(config, addr, ifindex, Reason::NdpNotOwner) {
        Ok(mac) => mac,
        Err(reason) => return Verdict::other(Action::Drop, reason),
    };
    let written = write_advertisement(packet, link, l4, target, mac);
    debug_assert!(written.is_some(), "the headers were read before");
    Verdict::other(Action::Transmit, Reason::NdpAnswered)
}

/// Turns the solicitation into the advertisement in place. Solicitations to many carry an option of 8 bytes, which makes
/// room for ours; one that has none knows our MAC address already (it was sent to it), or only asks whether there is anybody.
#[inline(always)]
fn write_advertisement<P: Packet + ?Sized>(
    packet: &mut P,
    link: &Link,
    l4: usize,
    target: Ip6,
    mac: Mac,
) -> Option<()> {
    let ip = packet.at_mut::<Ipv6Hdr>(link.l3)?;
    let asker = ip.src;
    let duplicate_detection = asker == UNSPECIFIED;
    let room = ip.payload_len.get() >= ADVERTISEMENT_LEN;
    let dst = if duplicate_detection { ALL_NODES } else { asker };
    ip.src = target;
    ip.dst = dst;

    let flags = if duplicate_detection { FLAG_OVERRIDE } else { FLAG_OVERRIDE | FLAG_SOLICITED };
    let mut neighbour = NeighbourHdr {
        kind: ADVERTISEMENT,
        code: 0,
        checksum: Be16::new(0),
        flags: Be32::new(flags),
        target,
    };
    let option = LinkLayerOption { kind: TARGET_LINK_LAYER, len: 1, mac };
    let with_option = room && packet.at::<Advertisement>(l4).is_some();
    let len = if with_option { ADVERTISEMENT_LEN } else { BARE_LEN };
    neighbour.checksum = icmpv6_checksum(&target, &dst, len, &neighbour, with_option.then_some(&option));
    packet.at_mut::<Ipv6Hdr>(link.l3)?.payload_len = Be16::new(len);
    if with_option {
        *packet.at_mut::<Advertisement>(l4)? = Advertisement { neighbour, option };
    } else {
        *packet.at_mut::<NeighbourHdr>(l4)? = neighbour;
    }

    let eth = packet.at_mut::<EthHdr>(0)?;
    eth.dst = if duplicate_detection { ALL_NODES_MAC } else { link.src };
    eth.src = mac;
    Some(())
}

/// The checksum over the message and its pseudo header (RFC 8200, 8.1).
#[inline(always)]
fn icmpv6_checksum(
    src: &Ip6,
    dst: &Ip6,
    len: u16,
    neighbour: &NeighbourHdr,
    option: Option<&LinkLayerOption>,
) -> Be16 {
    let (src, dst): (&[u16; 8], &[u16; 8]) = (transmute_ref!(src), transmute_ref!(dst));
    let pseudo = [len.to_be(), u16::from(next_header::ICMPV6).to_be()];
    let neighbour: [u16; 12] = zerocopy::transmute!(*neighbour);
    let option: [u16; 4] = option.map_or([0; 4], |option| zerocopy::transmute!(*option));
    let addresses = checksum::sum_of(src) + checksum::sum_of(dst);
    let message = checksum::sum_of(&pseudo) + checksum::sum_of(&neighbour) + checksum::sum_of(&option);
    Be16::from_raw(checksum::fold(addresses + message))
}
