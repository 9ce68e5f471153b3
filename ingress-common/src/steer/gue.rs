//! Tunnels to peers behind a router: Generic UDP Encapsulation, variant 1, where the client's packet follows the UDP header as
//! it is. The inner hop limit carries the state of the walk, as on a common link; routers lower the outer one only.

use crate::abi::{Be16, Be32, Config, Ip6, Node, Tunnel, TunnelEndKey};
use crate::packet::eth::{EthHdr, Link, VlanTag, ethertype};
use crate::packet::ipv4::Ipv4Hdr;
use crate::packet::ipv6::Ipv6Hdr;
use crate::packet::udp::{GUE_PORT, PROTO, UdpHdr};
use crate::packet::{Packet, Resize};

use super::{Action, Tables, Verdict, hand_over};

const ETH_LEN: usize = size_of::<EthHdr>();
const ONE_TAG: usize = ETH_LEN + size_of::<VlanTag>();
const TWO_TAGS: usize = ONE_TAG + size_of::<VlanTag>();
/// Hop limit of the outer header.
const HOP_LIMIT: u8 = 64;
/// Outer source ports are taken from the ephemeral ones (RFC 6335): 49,152 and up.
pub(super) const FIRST_PORT: u16 = 0xc000;
/// "Don't fragment": a router that cannot send the outer packet on shall not cut it, nobody would put it together again.
const DONT_FRAGMENT: Be16 = Be16::new(0x4000);
/// DSCP of an IPv4 packet's second byte. ECN is not copied to the outer header: a router that is congested then drops the
/// packet, and no mark is lost when the outer header is taken off (RFC 6040, compatibility mode).
const DSCP: u8 = 0xfc;

/// Does what a verdict with [`Action::Encapsulate`] says: puts the packet into the tunnel of the verdict's node.
#[inline(always)]
pub fn encapsulate<P: Resize + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    ifindex: u32,
    verdict: Verdict,
) -> Verdict {
    let lost = verdict.lost();
    let (Some(node), Some(tunnel)) = (tables.node(verdict.node), tables.tunnel(verdict.node)) else {
        return lost;
    };
    let (Some(link), Some(inner)) = (Link::parse(packet), inner(packet)) else { return lost };
    if inner.len + tunnel.overhead() > usize::from(tunnel.mtu) {
        return Verdict { action: Action::TooBig, ..verdict };
    }
    if wrap(packet, node, tunnel, &link, &inner, verdict.detail as u16).is_none() {
        return lost;
    }
    hand_over::leave(node, link.vlan, ifindex, verdict)
}

/// The client's packet.
struct Inner {
    /// Bytes, IP header included.
    len: usize,
    /// DSCP, where an IPv4 header has it.
    dscp: u8,
}

#[inline(always)]
fn inner<P: Packet + ?Sized>(packet: &P) -> Option<Inner> {
    let link = Link::parse(packet)?;
    if link.ethertype == ethertype::IPV4 {
        let ip = packet.at::<Ipv4Hdr>(link.l3)?;
        Some(Inner { len: usize::from(ip.total_len.get()), dscp: ip.tos & DSCP })
    } else {
        let ip = packet.at::<Ipv6Hdr>(link.l3)?;
        let len = usize::from(ip.payload_len.get()) + size_of::<Ipv6Hdr>();
        Some(Inner { len, dscp: (ip.version_class_flow.get() >> 20) as u8 & DSCP })
    }
}

#[inline(always)]
fn wrap<P: Resize + ?Sized>(
    packet: &mut P,
    node: &Node,
    tunnel: &Tunnel,
    link: &Link,
    inner: &Inner,
    entropy: u16,
) -> Option<()> {
    let l3 = link.l3;
    let udp_len = (inner.len + size_of::<UdpHdr>()) as u16;
    let udp = UdpHdr {
        src: Be16::new(FIRST_PORT | entropy),
        dst: GUE_PORT,
        len: Be16::new(udp_len),
        // Allowed for tunnels, over IPv6 too (RFC 6935): the inner packet has checksums of its own.
        checksum: Be16::new(0),
    };
    if tunnel.flags & Tunnel::V6 == 0 {
        packet.add_head(Tunnel::OVERHEAD4)?;
        move_link(packet, Tunnel::OVERHEAD4, 0, l3, ethertype::IPV4)?;
        let mut ip = Ipv4Hdr {
            version_ihl: 0x45,
            tos: inner.dscp,
            total_len: Be16::new(udp_len + size_of::<Ipv4Hdr>() as u16),
            id: Be16::new(0),
            fragment: DONT_FRAGMENT,
            ttl: HOP_LIMIT,
            proto: PROTO,
            checksum: Be16::new(0),
            src: tunnel.src.0[3],
            dst: tunnel.dst.0[3],
        };
        ip.set_checksum();
        *packet.at_mut(l3)? = ip;
        *packet.at_mut(l3 + size_of::<Ipv4Hdr>())? = udp;
    } else {
        packet.add_head(Tunnel::OVERHEAD6)?;
        move_link(packet, Tunnel::OVERHEAD6, 0, l3, ethertype::IPV6)?;
        let class_flow = u32::from(inner.dscp) << 20 | u32::from(entropy);
        *packet.at_mut(l3)? = Ipv6Hdr {
            version_class_flow: Be32::new(0x6000_0000 | class_flow),
            payload_len: Be16::new(udp_len),
            next: PROTO,
            hop_limit: HOP_LIMIT,
            src: tunnel.src,
            dst: tunnel.dst,
        };
        *packet.at_mut(l3 + size_of::<Ipv6Hdr>())? = udp;
    }
    let eth = packet.at_mut::<EthHdr>(0)?;
    eth.dst = node.dst_mac;
    eth.src = node.src_mac;
    Some(())
}

/// Takes the outer headers off a packet that a known node sent to this one. `None`: it is none, and is untouched.
#[inline(always)]
pub(super) fn open<P: Resize + ?Sized, T: Tables>(packet: &mut P, tables: &T, config: &Config) -> Option<()> {
    let link = Link::parse(packet)?;
    let (src, dst, header) = if link.ethertype == ethertype::IPV4 {
        let ip = packet.at::<Ipv4Hdr>(link.l3)?;
        // We send no options and no pieces.
        if ip.version_ihl != 0x45 || ip.proto != PROTO || ip.is_fragment() {
            return None;
        }
        (TunnelEndKey(Ip6::mapped(ip.src)), TunnelEndKey(Ip6::mapped(ip.dst)), size_of::<Ipv4Hdr>())
    } else if link.ethertype == ethertype::IPV6 {
        let ip = packet.at::<Ipv6Hdr>(link.l3)?;
        if !ip.is_valid() || ip.next != PROTO {
            return None;
        }
        (TunnelEndKey(ip.src), TunnelEndKey(ip.dst), size_of::<Ipv6Hdr>())
    } else {
        return None;
    };
    let udp = packet.at::<UdpHdr>(link.l3 + header)?;
    if { udp.dst } != GUE_PORT {
        return None;
    }
    let to = tables.tunnel_end(dst)?;
    let from = tables.tunnel_end(src)?;
    if to != config.own_node || from == config.own_node {
        return None;
    }
    let version = *packet.at::<u8>(link.l3 + header + size_of::<UdpHdr>())? >> 4;
    let ethertype = match version {
        4 => ethertype::IPV4,
        6 => ethertype::IPV6,
        // A header of GUE's own, which nobody of us sends.
        _ => return None,
    };
    if header == size_of::<Ipv4Hdr>() {
        move_link(packet, 0, Tunnel::OVERHEAD4, link.l3, ethertype)?;
        packet.remove_head(Tunnel::OVERHEAD4)
    } else {
        move_link(packet, 0, Tunnel::OVERHEAD6, link.l3, ethertype)?;
        packet.remove_head(Tunnel::OVERHEAD6)
    }
}

/// Copies Ethernet header and tags, which end at `l3`, from one offset to another where they do not overlap, and says what
/// follows them there.
#[inline(always)]
pub(super) fn move_link<P: Packet + ?Sized>(
    packet: &mut P,
    from: usize,
    to: usize,
    l3: usize,
    ethertype: Be16,
) -> Option<()> {
    let mut eth = *packet.at::<EthHdr>(from)?;
    if l3 == ETH_LEN {
        eth.ethertype = ethertype;
    }
    *packet.at_mut::<EthHdr>(to)? = eth;
    if l3 >= ONE_TAG {
        let mut tag = *packet.at::<VlanTag>(from + ETH_LEN)?;
        if l3 == ONE_TAG {
            tag.ethertype = ethertype;
        }
        *packet.at_mut::<VlanTag>(to + ETH_LEN)? = tag;
    }
    if l3 >= TWO_TAGS {
        let tci = packet.at::<VlanTag>(from + ONE_TAG)?.tci;
        *packet.at_mut::<VlanTag>(to + ONE_TAG)? = VlanTag { tci, ethertype };
    }
    Some(())
}
