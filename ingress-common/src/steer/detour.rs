//! The road of what is rare: packets that come through a tunnel lose their outer headers here; pieces of packets and ICMP are
//! told apart for `fragment` and `icmp`. In the kernel a program of its own, which the front calls for [`Action::Detour`].

use crate::abi::{Config, Ip6, TunnelEndKey};
use crate::packet::eth::{Link, ethertype};
use crate::packet::ipv4::Ipv4Hdr;
use crate::packet::ipv6::{Ipv6Hdr, next_header, skip_extensions};
use crate::packet::{Packet, Resize, icmp as icmp_header, tcp as tcp_header};

use super::{Action, Reason, Tables, Verdict, gue, ready, tcp};

/// Decides about a frame for which [`super::steer`] said [`Action::Detour`].
#[inline(always)]
pub fn detour<P: Resize + ?Sized, T: Tables>(packet: &mut P, tables: &T, ifindex: u32) -> Verdict {
    let Some(config) = ready(tables) else { return Verdict::NOT_OURS };
    let Some(link) = Link::parse(packet) else { return Verdict::NOT_OURS };
    if !is_for_us(config, &link) {
        return Verdict::NOT_OURS;
    }
    let in_tunnel = gue::open(packet, tables, config).is_some();
    let Some(link) = Link::parse(packet) else { return Verdict::NOT_OURS };
    let verdict = if link.ethertype == ethertype::IPV4 {
        ipv4(packet, tables, ifindex, &link, in_tunnel)
    } else {
        ipv6(packet, tables, ifindex, &link, in_tunnel)
    };
    nothing_else(in_tunnel, verdict)
}

/// Peers send what is for VIPs through tunnels, nothing else: a way into the node's own network it is not.
#[inline(always)]
pub(super) fn nothing_else(in_tunnel: bool, verdict: Verdict) -> Verdict {
    if in_tunnel && verdict.reason == Reason::NotOurs {
        return Verdict::other(Action::Drop, Reason::DropTunnel);
    }
    verdict
}

/// An end of our tunnels.
#[inline(always)]
pub(super) fn is_own<T: Tables>(tables: &T, address: Ip6) -> bool {
    tables
        .tunnel_end(TunnelEndKey(address))
        .is_some_and(|node| tables.config().is_some_and(|config| config.own_node == node))
}

/// The frame is addressed to one of our interfaces.
#[inline(always)]
fn is_for_us(config: &Config, link: &Link) -> bool {
    config.uplinks.iter().take_while(|uplink| uplink.ifindex != 0).any(|uplink| uplink.mac == link.dst)
}

#[inline(always)]
fn ipv4<P: Packet + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    ifindex: u32,
    link: &Link,
    in_tunnel: bool,
) -> Verdict {
    let Some(ip) = packet.at::<Ipv4Hdr>(link.l3) else { return Verdict::NOT_OURS };
    let Some(header_len) = ip.header_len() else { return Verdict::NOT_OURS };
    let at = tcp::At::ipv4(ifindex, link, ip, header_len, in_tunnel);
    let (src, dst) = (ip.src, ip.dst);
    if ip.is_fragment() {
        // Other pieces for a VIP's address are for its node's own kernel, as unfragmented ones are.
        return if ip.proto == tcp_header::PROTO && tables.addr4(dst).is_some() {
            Verdict { action: Action::Fragment, detail: u32::from(in_tunnel), ..Verdict::DETOUR }
        } else {
            Verdict::NOT_OURS
        };
    }
    if ip.proto == icmp_header::PROTO && (tables.addr4(dst).is_some() || is_own(tables, Ip6::mapped(dst))) {
        return Verdict { action: Action::Icmp, detail: u32::from(in_tunnel), ..Verdict::DETOUR };
    }
    if ip.proto != tcp_header::PROTO {
        return Verdict::NOT_OURS;
    }
    tcp::steer::<tcp::V4, P, T>(packet, tables, link, at, src, dst)
}

#[inline(always)]
fn ipv6<P: Packet + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    ifindex: u32,
    link: &Link,
    in_tunnel: bool,
) -> Verdict {
    let Some(ip) = packet.at::<Ipv6Hdr>(link.l3) else { return Verdict::NOT_OURS };
    if !ip.is_valid() {
        return Verdict::NOT_OURS;
    }
    let l4 = link.l3 + size_of::<Ipv6Hdr>();
    let end = l4 + usize::from(ip.payload_len.get());
    let (src, dst, hop_limit) = (ip.src, ip.dst, ip.hop_limit);
    if ip.next == next_header::ICMPV6 {
        return if tables.addr6(dst).is_some() || is_own(tables, dst) {
            Verdict { action: Action::Icmp, detail: u32::from(in_tunnel), ..Verdict::DETOUR }
        } else {
            Verdict::NOT_OURS
        };
    }
    let Some((next, l4)) = skip_extensions(packet, ip.next, l4) else { return Verdict::NOT_OURS };
    if next == next_header::FRAGMENT && tables.addr6(dst).is_some() {
        return Verdict { action: Action::Fragment, detail: u32::from(in_tunnel), ..Verdict::DETOUR };
    }
    if next != next_header::TCP {
        return Verdict::NOT_OURS;
    }
    let at = tcp::At { ifindex, vlan: link.vlan, l3: link.l3, l4, end, hop_limit, in_tunnel };
    tcp::steer::<tcp::V6, P, T>(packet, tables, link, at, src, dst)
}
