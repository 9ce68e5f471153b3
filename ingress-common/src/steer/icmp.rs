//! ICMP to VIPs: echo requests are answered here, errors about a flow go to the node that has the flow, so that its kernel
//! learns of a smaller path MTU; errors about our tunnels' packets are remembered (`outer`). Everything else is left to the node's
//! own kernel. In the kernel a program of its own,
//! which `detour` calls for [`Action::Icmp`].

use crate::abi::{Be16, Config};
use crate::checksum;
use crate::packet::Packet;
use crate::packet::eth::{EthHdr, Link, ethertype};
use crate::packet::icmp::{IcmpHdr, v4, v6};
use crate::packet::ipv4::Ipv4Hdr;
use crate::packet::ipv6::{Ipv6Hdr, next_header};
use crate::packet::tcp::{PROTO, Ports};

use super::detour::nothing_else;
use super::tcp::{At, Quote, Tuple, V4, V6, follow};
use super::{Action, Reason, Tables, Verdict, outer, ready};

/// What an answer to an echo request costs of a CPU's budget: at most 10,000 a second on each.
pub const ECHO_COST_NS: u64 = 100_000;
/// How much of it a quiet CPU may save: a burst of 1,000 answers.
pub const ECHO_BURST_NS: u64 = 1000 * ECHO_COST_NS;

/// Hop limit of answers.
const HOP_LIMIT: u8 = 64;

/// Types of `ICMPv6` that are answered or follow a flow.
#[inline(always)]
pub(super) const fn is_followed6(kind: u8) -> bool {
    kind == v6::ECHO || is_error6(kind)
}

#[inline(always)]
const fn is_error6(kind: u8) -> bool {
    v6::UNREACHABLE <= kind && kind <= v6::PARAMETER_PROBLEM
}

#[inline(always)]
const fn is_error4(kind: u8) -> bool {
    matches!(kind, v4::UNREACHABLE | v4::TIME_EXCEEDED | v4::PARAMETER_PROBLEM)
}

/// Decides about a frame for which [`super::detour`] said [`Action::Icmp`]: ICMP to a VIP's address, in a frame for us.
#[inline(always)]
pub fn icmp<P: Packet + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    ifindex: u32,
    in_tunnel: bool,
) -> Verdict {
    let (Some(config), Some(link)) = (ready(tables), Link::parse(packet)) else { return Verdict::NOT_OURS };
    let verdict = if link.ethertype == ethertype::IPV4 {
        icmp4(packet, tables, config, &link, ifindex, in_tunnel)
    } else {
        icmp6(packet, tables, config, &link, ifindex, in_tunnel)
    };
    nothing_else(in_tunnel, verdict)
}

#[inline(always)]
fn icmp4<P: Packet + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    config: &Config,
    link: &Link,
    ifindex: u32,
    in_tunnel: bool,
) -> Verdict {
    let Some(ip) = packet.at::<Ipv4Hdr>(link.l3) else { return Verdict::NOT_OURS };
    // Options are the kernel's business: what they ask for (a record of the route, say) is not ours to answer.
    if ip.header_len() != Some(size_of::<Ipv4Hdr>()) {
        return Verdict::NOT_OURS;
    }
    let (l3, l4) = (link.l3, link.l3 + size_of::<Ipv4Hdr>());
    let (end, hop_limit, vip) = (l3 + usize::from(ip.total_len.get()), ip.ttl, ip.dst);
    if tables.addr4(vip).is_none() {
        return if in_tunnel { Verdict::NOT_OURS } else { outer::icmp4(packet, tables, l4) };
    }
    let Some(message) = packet.at::<IcmpHdr>(l4) else { return Verdict::NOT_OURS };
    let quoted = l4 + size_of::<IcmpHdr>();
    if message.kind == v4::ECHO && !in_tunnel {
        return answer(packet, tables, end, |packet| {
            let ip = packet.at_mut::<Ipv4Hdr>(l3)?;
            (ip.src, ip.dst) = (ip.dst, ip.src);
            ip.set_ttl(HOP_LIMIT);
            reply(packet, link, l4, v4::ECHO_REPLY)
        });
    }
    if !is_error4(message.kind) {
        return Verdict::NOT_OURS;
    }
    let Some(inner) = packet.at::<Ipv4Hdr>(quoted) else { return Verdict::NOT_OURS };
    let Some(inner_len) = inner.header_len() else { return Verdict::NOT_OURS };
    if inner.proto != PROTO || { inner.src } != vip || inner.is_later_fragment() {
        return Verdict::NOT_OURS;
    }
    let client = inner.dst;
    let quote = Quote { l3: quoted, l4: quoted + inner_len };
    let Some(ports) = packet.at::<Ports>(quote.l4) else { return Verdict::NOT_OURS };
    let tuple = Tuple { src: client, dst: vip, src_port: ports.dst, dst_port: ports.src };
    let at = At { ifindex, vlan: link.vlan, l3, l4, end, hop_limit, in_tunnel };
    follow::<V4, P, T>(packet, tables, config, link, at, tuple, &quote)
}

#[inline(always)]
fn icmp6<P: Packet + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    config: &Config,
    link: &Link,
    ifindex: u32,
    in_tunnel: bool,
) -> Verdict {
    let (l3, l4) = (link.l3, link.l3 + size_of::<Ipv6Hdr>());
    let Some(ip) = packet.at::<Ipv6Hdr>(l3) else { return Verdict::NOT_OURS };
    let (end, hop_limit, vip) = (l4 + usize::from(ip.payload_len.get()), ip.hop_limit, ip.dst);
    if tables.addr6(vip).is_none() {
        return if in_tunnel { Verdict::NOT_OURS } else { outer::icmp6(packet, tables, l4) };
    }
    let Some(message) = packet.at::<IcmpHdr>(l4) else { return Verdict::NOT_OURS };
    let quoted = l4 + size_of::<IcmpHdr>();
    if message.kind == v6::ECHO && !in_tunnel {
        return answer(packet, tables, end, |packet| {
            let ip = packet.at_mut::<Ipv6Hdr>(l3)?;
            (ip.src, ip.dst) = (ip.dst, ip.src);
            ip.hop_limit = HOP_LIMIT;
            reply(packet, link, l4, v6::ECHO_REPLY)
        });
    }
    if !is_error6(message.kind) {
        return Verdict::NOT_OURS;
    }
    let Some(inner) = packet.at::<Ipv6Hdr>(quoted) else { return Verdict::NOT_OURS };
    // Our TCP sends no extension headers.
    if !inner.is_valid() || inner.next != next_header::TCP || { inner.src } != vip {
        return Verdict::NOT_OURS;
    }
    let client = inner.dst;
    let quote = Quote { l3: quoted, l4: quoted + size_of::<Ipv6Hdr>() };
    let Some(ports) = packet.at::<Ports>(quote.l4) else { return Verdict::NOT_OURS };
    let tuple = Tuple { src: client, dst: vip, src_port: ports.dst, dst_port: ports.src };
    let at = At { ifindex, vlan: link.vlan, l3, l4, end, hop_limit, in_tunnel };
    follow::<V6, P, T>(packet, tables, config, link, at, tuple, &quote)
}

/// An echo request that ends at `end`, turned into its answer by `write`, if there is budget for it.
#[inline(always)]
fn answer<P: Packet + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    end: usize,
    write: impl FnOnce(&mut P) -> Option<()>,
) -> Verdict {
    if end > packet.len() {
        return Verdict::other(Action::Drop, Reason::DropMalformed);
    }
    if !tables.take_echo() {
        return Verdict::other(Action::Drop, Reason::DropEchoRate);
    }
    let written = write(packet);
    debug_assert!(written.is_some(), "the headers were read before");
    Verdict::other(Action::Transmit, Reason::EchoAnswered)
}

/// Makes the message at `l4` the reply, and sends the frame back to where it came from. The addresses have changed places, which
/// the checksum (`ICMPv6` covers them) does not notice.
#[inline(always)]
fn reply<P: Packet + ?Sized>(packet: &mut P, link: &Link, l4: usize, kind: u8) -> Option<()> {
    let message = packet.at_mut::<IcmpHdr>(l4)?;
    let old = u16::from_ne_bytes([message.kind, message.code]);
    let new = u16::from_ne_bytes([kind, message.code]);
    message.kind = kind;
    message.checksum = Be16::from_raw(checksum::replace(message.checksum.raw(), old, new));
    let eth = packet.at_mut::<EthHdr>(0)?;
    (eth.dst, eth.src) = (link.src, link.dst);
    Some(())
}
