//! Pieces of TCP packets for VIPs: the first one has the ports and is steered as any segment; the others follow it. In the
//! kernel a program of its own, which `detour` calls for [`Action::Fragment`].

use crate::abi::{Be16, Config, Fragment, FragmentKey, Ip6, VipId};
use crate::packet::Packet;
use crate::packet::eth::{Link, ethertype};
use crate::packet::ipv4::Ipv4Hdr;
use crate::packet::ipv6::{FragmentHdr, Ipv6Hdr, next_header, skip_extensions};

use super::detour::nothing_else;
use super::tcp::{At, Family, V4, V6};
use super::{Action, HOP_STEERED, Reason, Tables, Verdict, hand_over, ready, tcp};

/// Decides about a frame for which [`super::detour`] said [`Action::Fragment`]: a piece of something to a VIP's address, in a
/// frame for us.
#[inline(always)]
pub fn fragment<P: Packet + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    ifindex: u32,
    in_tunnel: bool,
) -> Verdict {
    let (Some(config), Some(link)) = (ready(tables), Link::parse(packet)) else { return Verdict::NOT_OURS };
    let verdict = if link.ethertype == ethertype::IPV4 {
        fragment4(packet, tables, config, &link, ifindex, in_tunnel)
    } else {
        fragment6(packet, tables, config, &link, ifindex, in_tunnel)
    };
    nothing_else(in_tunnel, verdict)
}

#[inline(always)]
fn fragment4<P: Packet + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    config: &Config,
    link: &Link,
    ifindex: u32,
    in_tunnel: bool,
) -> Verdict {
    let Some(ip) = packet.at::<Ipv4Hdr>(link.l3) else { return Verdict::NOT_OURS };
    let Some(header_len) = ip.header_len() else { return Verdict::NOT_OURS };
    let (src, dst) = (ip.src, ip.dst);
    let at = At::ipv4(ifindex, link, ip, header_len, in_tunnel);
    let key = FragmentKey {
        src: Ip6::mapped(src),
        dst: Ip6::mapped(dst),
        id: u32::from(Be16::get(ip.id)),
        proto: u32::from(ip.proto),
    };
    if ip.is_later_fragment() {
        return later::<V4, P, T>(packet, tables, config, &at, &key);
    }
    let verdict = tcp::steer::<V4, P, T>(packet, tables, link, at, src, dst);
    remember(tables, config, &key, &verdict);
    verdict
}

#[inline(always)]
fn fragment6<P: Packet + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    config: &Config,
    link: &Link,
    ifindex: u32,
    in_tunnel: bool,
) -> Verdict {
    let Some(ip) = packet.at::<Ipv6Hdr>(link.l3) else { return Verdict::NOT_OURS };
    let (src, dst, hop_limit) = (ip.src, ip.dst, ip.hop_limit);
    let start = link.l3 + size_of::<Ipv6Hdr>();
    let end = start + usize::from(ip.payload_len.get());
    let Some((_, offset)) = skip_extensions(packet, ip.next, start) else { return Verdict::NOT_OURS };
    let Some(piece) = packet.at::<FragmentHdr>(offset) else { return Verdict::NOT_OURS };
    // All headers must stand in the first piece (RFC 7112), and TCP's follows: what we look behind stands in front.
    if piece.next != next_header::TCP {
        return Verdict::NOT_OURS;
    }
    let key = FragmentKey { src, dst, id: { piece.id }.raw(), proto: u32::from(next_header::TCP) };
    let at = At {
        ifindex,
        vlan: link.vlan,
        l3: link.l3,
        l4: offset + size_of::<FragmentHdr>(),
        end,
        hop_limit,
        in_tunnel,
    };
    if piece.is_later() {
        return later::<V6, P, T>(packet, tables, config, &at, &key);
    }
    let verdict = tcp::steer::<V6, P, T>(packet, tables, link, at, src, dst);
    remember(tables, config, &key, &verdict);
    verdict
}

/// A first piece that is dropped is not remembered, so the others will be dropped too.
#[inline(always)]
fn remember<T: Tables>(tables: &T, config: &Config, key: &FragmentKey, verdict: &Verdict) {
    let node = if verdict.action == Action::Pass { config.own_node } else { verdict.node };
    if verdict.action != Action::Drop {
        tables.remember_fragment(key, Fragment { node, vip: verdict.vip.0, entropy: verdict.detail });
    }
}

/// A piece that is not the first.
#[inline(always)]
fn later<F: Family, P: Packet + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    config: &Config,
    at: &At,
    key: &FragmentKey,
) -> Verdict {
    let Some(first) = tables.fragment(key) else {
        return Verdict::other(Action::Drop, Reason::DropFragment);
    };
    let vip = VipId(first.vip);
    let verdict = Verdict { vip, node: first.node, ..Verdict::other(Action::Pass, Reason::LocalFragment) };
    if first.node == config.own_node {
        return verdict;
    }
    let Some(node) = tables.node(first.node).filter(|node| node.is_reachable()) else {
        return Verdict { action: Action::Drop, reason: Reason::DropFragment, ..verdict };
    };
    if at.hop_limit <= 1 {
        return Verdict { action: Action::Drop, reason: Reason::DropHopLimit, ..verdict };
    }
    let lowered = F::set_hop_limit(packet, at.l3, HOP_STEERED.min(at.hop_limit - 1));
    debug_assert!(lowered.is_some(), "the headers were read before");
    let verdict = Verdict { reason: Reason::ForwardFragment, ..verdict };
    hand_over::to(packet, node, at, first.entropy, verdict)
}
