//! Answers a packet that does not fit into its tunnel as a router would (RFC 1191, RFC 8201), so that the client sends smaller
//! ones. Rare: clients are told a segment size that fits, when the connection opens.

use crate::abi::{Be16, Be32, Errand, Ip4, Ip6, VipId};
use crate::checksum;
use crate::packet::eth::{EthHdr, Link, ethertype};
use crate::packet::icmp::{self, IcmpHdr};
use crate::packet::ipv4::Ipv4Hdr;
use crate::packet::ipv6::{Ipv6Hdr, next_header};
use crate::packet::{Packet, Resize};

use super::{Action, Reason, Tables, Verdict, gue};

const HOP_LIMIT: u8 = 64;
/// How much of the packet is quoted: the longest IPv4 header, and the 8 bytes behind it by which its sender knows it.
const QUOTE4: usize = 68;
/// As much, with room for extension headers.
const QUOTE6: usize = 128;
const OURS4: usize = size_of::<Ipv4Hdr>() + size_of::<IcmpHdr>();
const OURS6: usize = size_of::<Ipv6Hdr>() + size_of::<IcmpHdr>();

/// Turns the packet of a verdict with [`Action::TooBig`] into the answer to its sender.
#[inline(always)]
pub fn too_big<P: Resize + ?Sized, T: Tables>(packet: &mut P, tables: &T, errand: Errand) -> Verdict {
    let vip = VipId(errand.vip);
    let mtu = match tables.tunnel(errand.node) {
        Some(tunnel) => usize::from(tunnel.mtu).saturating_sub(tunnel.overhead()) as u16,
        None => 0,
    };
    let written = Link::parse(packet).and_then(|link| {
        if link.ethertype == ethertype::IPV4 {
            answer4(packet, &link, mtu)
        } else {
            answer6(packet, &link, mtu)
        }
    });
    match written {
        Some(()) => Verdict { vip, ..Verdict::other(Action::Transmit, Reason::TooBigAnswered) },
        None => Verdict { vip, ..Verdict::other(Action::Drop, Reason::DropNoTunnel) },
    }
}

#[inline(always)]
fn answer4<P: Resize + ?Sized>(packet: &mut P, link: &Link, mtu: u16) -> Option<()> {
    let l3 = link.l3;
    let ip = packet.at::<Ipv4Hdr>(l3)?;
    let (client, vip): (Ip4, Ip4) = (ip.src, ip.dst);
    packet.add_head(OURS4)?;
    gue::move_link(packet, OURS4, 0, l3, ethertype::IPV4)?;
    packet.cut(l3 + OURS4 + QUOTE4)?;
    let mut ip = Ipv4Hdr {
        version_ihl: 0x45,
        tos: 0,
        total_len: Be16::new((OURS4 + QUOTE4) as u16),
        id: Be16::new(0),
        fragment: Be16::new(0),
        ttl: HOP_LIMIT,
        proto: icmp::PROTO,
        checksum: Be16::new(0),
        src: vip,
        dst: client,
    };
    ip.set_checksum();
    *packet.at_mut(l3)? = ip;
    let mut message = IcmpHdr {
        kind: icmp::v4::UNREACHABLE,
        code: icmp::v4::FRAGMENTATION_NEEDED,
        checksum: Be16::new(0),
        rest: Be32::new(u32::from(mtu)),
    };
    let words: [u16; 4] = zerocopy::transmute!(message);
    let quote = quoted::<P, { QUOTE4 / 2 }>(packet, l3 + OURS4)?;
    message.checksum = Be16::from_raw(checksum::fold(checksum::sum_of(&words) + quote));
    *packet.at_mut(l3 + size_of::<Ipv4Hdr>())? = message;
    send_back(packet, link)
}

#[inline(always)]
fn answer6<P: Resize + ?Sized>(packet: &mut P, link: &Link, mtu: u16) -> Option<()> {
    let l3 = link.l3;
    let ip = packet.at::<Ipv6Hdr>(l3)?;
    let (client, vip): (Ip6, Ip6) = (ip.src, ip.dst);
    packet.add_head(OURS6)?;
    gue::move_link(packet, OURS6, 0, l3, ethertype::IPV6)?;
    packet.cut(l3 + OURS6 + QUOTE6)?;
    let len = (size_of::<IcmpHdr>() + QUOTE6) as u16;
    *packet.at_mut(l3)? = Ipv6Hdr {
        version_class_flow: Be32::new(0x6000_0000),
        payload_len: Be16::new(len),
        next: next_header::ICMPV6,
        hop_limit: HOP_LIMIT,
        src: vip,
        dst: client,
    };
    let mut message =
        IcmpHdr { kind: icmp::v6::TOO_BIG, code: 0, checksum: Be16::new(0), rest: Be32::new(u32::from(mtu)) };
    let addresses: [u16; 16] = zerocopy::transmute!([vip, client]);
    let words: [u16; 4] = zerocopy::transmute!(message);
    let pseudo = [len.to_be(), u16::from(next_header::ICMPV6).to_be()];
    let quote = quoted::<P, { QUOTE6 / 2 }>(packet, l3 + OURS6)?;
    let sum = checksum::sum_of(&addresses) + checksum::sum_of(&pseudo) + checksum::sum_of(&words) + quote;
    message.checksum = Be16::from_raw(checksum::fold(sum));
    *packet.at_mut(l3 + size_of::<Ipv6Hdr>())? = message;
    send_back(packet, link)
}

/// The sum over the `WORDS` words at `offset`.
#[inline(always)]
fn quoted<P: Packet + ?Sized, const WORDS: usize>(packet: &P, offset: usize) -> Option<u32> {
    let words = packet.at::<[[u8; 2]; WORDS]>(offset)?;
    let mut sum = 0;
    for word in words {
        sum += u32::from(u16::from_ne_bytes(*word));
    }
    Some(sum)
}

#[inline(always)]
fn send_back<P: Packet + ?Sized>(packet: &mut P, link: &Link) -> Option<()> {
    let eth = packet.at_mut::<EthHdr>(0)?;
    eth.dst = link.src;
    eth.src = link.dst;
    Some(())
}
