//! ICMP errors about the outer packets of our tunnels, from routers between the nodes: no socket of the kernel's has sent what
//! they quote, so nobody else would listen. A smaller path MTU is remembered (RFC 1191, RFC 8201): packets that do not fit any
//! more are answered by `too_big`, and the daemon tells clients a smaller segment size. The one that was lost is sent again by
//! its client. Called by `icmp`.

use crate::abi::{Ip6, NodeIndex, TunnelEndKey};
use crate::packet::Packet;
use crate::packet::icmp::{IcmpHdr, v4, v6};
use crate::packet::ipv4::Ipv4Hdr;
use crate::packet::ipv6::Ipv6Hdr;
use crate::packet::udp::{GUE_PORT, PROTO};

use super::{Action, Reason, Tables, Verdict, detour, gue};

/// No path is narrower: IPv4 hosts take that much in pieces at least (RFC 1122, 3.3.2). Who forges such messages can slow our
/// tunnels down, no more.
const LEAST4: u32 = 576;
/// As IPv6 promises (RFC 8200, 5).
const LEAST6: u32 = 1280;

/// The ICMP message at `l4`, sent to an end of our tunnels.
#[inline(always)]
pub(super) fn icmp4<P: Packet + ?Sized, T: Tables>(packet: &P, tables: &T, l4: usize) -> Verdict {
    let Some(message) = packet.at::<IcmpHdr>(l4) else { return Verdict::NOT_OURS };
    let quoted = l4 + size_of::<IcmpHdr>();
    let Some(ip) = packet.at::<Ipv4Hdr>(quoted) else { return Verdict::NOT_OURS };
    // We send no options.
    if message.kind != v4::UNREACHABLE || ip.version_ihl != 0x45 || ip.proto != PROTO {
        return Verdict::NOT_OURS;
    }
    let (src, dst) = (Ip6::mapped(ip.src), Ip6::mapped(ip.dst));
    let Some(node) = node(packet, tables, quoted + size_of::<Ipv4Hdr>(), src, dst) else {
        return Verdict::NOT_OURS;
    };
    let mtu = { message.rest }.get() & 0xffff;
    let is_too_big = message.code == v4::FRAGMENTATION_NEEDED;
    // Routers of before RFC 1191 say no size.
    if !(is_too_big && mtu == 0) {
        tables.hear_of_tunnel(node, is_too_big.then_some(bounded(mtu, LEAST4)));
    }
    Verdict::other(Action::Pass, Reason::LocalTunnelIcmp)
}

/// The `ICMPv6` message at `l4`, sent to an end of our tunnels.
#[inline(always)]
pub(super) fn icmp6<P: Packet + ?Sized, T: Tables>(packet: &P, tables: &T, l4: usize) -> Verdict {
    let Some(message) = packet.at::<IcmpHdr>(l4) else { return Verdict::NOT_OURS };
    let quoted = l4 + size_of::<IcmpHdr>();
    let Some(ip) = packet.at::<Ipv6Hdr>(quoted) else { return Verdict::NOT_OURS };
    if !matches!(message.kind, v6::UNREACHABLE | v6::TOO_BIG) || !ip.is_valid() || ip.next != PROTO {
        return Verdict::NOT_OURS;
    }
    let (src, dst) = (ip.src, ip.dst);
    let Some(node) = node(packet, tables, quoted + size_of::<Ipv6Hdr>(), src, dst) else {
        return Verdict::NOT_OURS;
    };
    let is_too_big = message.kind == v6::TOO_BIG;
    tables.hear_of_tunnel(node, is_too_big.then_some(bounded({ message.rest }.get(), LEAST6)));
    Verdict::other(Action::Pass, Reason::LocalTunnelIcmp)
}

/// The node to which the quoted packet went, if it is one of our tunnels': `l4` is where its UDP header is quoted.
#[inline(always)]
fn node<P: Packet + ?Sized, T: Tables>(
    packet: &P,
    tables: &T,
    l4: usize,
    src: Ip6,
    dst: Ip6,
) -> Option<NodeIndex> {
    let [src_port, dst_port] = *packet.at::<[[u8; 2]; 2]>(l4)?;
    let (src_port, dst_port) = (u16::from_be_bytes(src_port), u16::from_be_bytes(dst_port));
    if src_port < gue::FIRST_PORT || dst_port != GUE_PORT.get() || !detour::is_own(tables, src) {
        return None;
    }
    tables.tunnel_end(TunnelEndKey(dst))
}

#[inline(always)]
const fn bounded(mtu: u32, least: u32) -> u16 {
    if mtu < least {
        least as u16
    } else if mtu > 0xffff {
        0xffff
    } else {
        mtu as u16
    }
}
