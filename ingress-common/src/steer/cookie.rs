//! Answers a SYN with a cookie (RFC 4987, 3.6): nothing is remembered of it until its sender has shown that it gets answers.
//!
//! The cookie is the one that this node's kernel would send, and it is made only where the kernel would send one, that is,
//! where the listener's queue is full (`bpf_tcp_gen_syncookie`; it also marks the listener, without which the kernel would
//! refuse the ACK). So no sysctl has to change, and the stack is not woken. The ACK finds its way as any first packet
//! of an unknown flow does. The answer asks for a segment size and for nothing else: the kernel would read scale, SACK and
//! timestamps out of a timestamp with an offset that only it knows.

use crate::abi::{Be16, Be32, Errand, Ip4, Ip6, Mac, NodeIndex, VipId, Vlan};
use crate::checksum;
use crate::packet::eth::{EthHdr, Link, ethertype};
use crate::packet::ipv4::Ipv4Hdr;
use crate::packet::ipv6::{Ipv6Hdr, next_header};
use crate::packet::tcp::{PROTO, TcpFlags, TcpHdr};
use crate::packet::{Packet, Resize};

use super::{Action, Reason, Segment, Tables, Tuple, Verdict};

const HOP_LIMIT: u8 = 64;
const DONT_FRAGMENT: Be16 = Be16::new(0x4000);
const TCP_LEN: usize = size_of::<TcpHdr>();
/// The option "maximum segment size" with its value.
const OPTION_LEN: usize = 4;
/// The first two bytes of that option.
const MSS_OPTION: u32 = 0x0204_0000;
/// What a client may send before it hears more from us: ten full segments, as it may by itself (RFC 6928).
const WINDOW: u16 = 14_600;

/// What stands in the answer in place of an initial sequence number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie(pub u32);

/// The first hop of a way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Interface to send by.
    pub ifindex: u32,
    /// Its MAC address.
    pub src_mac: Mac,
    /// The next hop's.
    pub dst_mac: Mac,
}

/// Turns the SYN of a verdict with [`Action::Cookie`] into the answer to its sender, or passes it untouched: where there is
/// no cookie for it, where its headers are unusual, or no way back is known. `ifindex`: where it came in.
#[inline(always)]
pub fn cookie<P: Resize + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    ifindex: u32,
    errand: Errand,
) -> Verdict {
    let Errand { node, vip, .. } = errand;
    let passed = passed(node, VipId(vip));
    let Some(link) = Link::parse(packet) else { return passed };
    let answered = if link.ethertype == ethertype::IPV4 {
        answer4(packet, tables, ifindex, &link)
    } else {
        answer6(packet, tables, ifindex, &link)
    };
    let Some(route) = answered else { return passed };
    let back = route.ifindex == ifindex;
    Verdict {
        action: if back { Action::Transmit } else { Action::Redirect },
        ifindex: if back { 0 } else { route.ifindex },
        reason: Reason::CookieSent,
        ..passed
    }
}

#[inline(always)]
fn passed(node: NodeIndex, vip: VipId) -> Verdict {
    Verdict { vip, node, new_flow: true, ..Verdict::other(Action::Pass, Reason::LocalNew) }
}

#[inline(always)]
fn answer4<P: Resize + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    ifindex: u32,
    link: &Link,
) -> Option<Route> {
    let l3 = link.l3;
    let l4 = l3 + size_of::<Ipv4Hdr>();
    let ip = packet.at::<Ipv4Hdr>(l3)?;
    if ip.version_ihl != 0x45 || ip.proto != PROTO {
        return None;
    }
    let (client, vip): (Ip4, Ip4) = (ip.src, ip.dst);
    let syn = Syn::read(packet, l4)?;
    let tuple = Tuple { src: client, dst: vip, src_port: syn.src, dst_port: syn.dst };
    let route = match tables.peer(link.src) {
        None => straight_back(ifindex, link),
        Some(_) => untagged(tables, link, tables.route4(vip, client)?)?,
    };
    let cookie = tables.cookie4(&tuple, &Segment { l3, l4, flags: syn.flags })?;
    let size = tables.config()?.segment_size;
    let tcp_len = syn.answer_len(size);
    let mut ip = Ipv4Hdr {
        version_ihl: 0x45,
        tos: 0,
        total_len: Be16::new((size_of::<Ipv4Hdr>() + tcp_len) as u16),
        id: Be16::new(0),
        fragment: DONT_FRAGMENT,
        ttl: HOP_LIMIT,
        proto: PROTO,
        checksum: Be16::new(0),
        src: vip,
        dst: client,
    };
    ip.set_checksum();
    let addresses: [u16; 4] = zerocopy::transmute!([vip, client]);
    packet.cut(l4 + tcp_len)?;
    *packet.at_mut(l3)? = ip;
    syn.answer(packet, l4, cookie, size, tcp_len, checksum::sum_of(&addresses))?;
    send(packet, &route)?;
    Some(route)
}

#[inline(always)]
fn answer6<P: Resize + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    ifindex: u32,
    link: &Link,
) -> Option<Route> {
    let l3 = link.l3;
    let l4 = l3 + size_of::<Ipv6Hdr>();
    let ip = packet.at::<Ipv6Hdr>(l3)?;
    if !ip.is_valid() || ip.next != next_header::TCP {
        return None;
    }
    let (client, vip): (Ip6, Ip6) = (ip.src, ip.dst);
    let syn = Syn::read(packet, l4)?;
    let tuple = Tuple { src: client, dst: vip, src_port: syn.src, dst_port: syn.dst };
    let route = match tables.peer(link.src) {
        None => straight_back(ifindex, link),
        Some(_) => untagged(tables, link, tables.route6(vip, client)?)?,
    };
    let cookie = tables.cookie6(&tuple, &Segment { l3, l4, flags: syn.flags })?;
    let size = tables.config()?.segment_size.saturating_sub(20);
    let tcp_len = syn.answer_len(size);
    let addresses: [u16; 16] = zerocopy::transmute!([vip, client]);
    packet.cut(l4 + tcp_len)?;
    *packet.at_mut(l3)? = Ipv6Hdr {
        version_class_flow: Be32::new(0x6000_0000),
        payload_len: Be16::new(tcp_len as u16),
        next: next_header::TCP,
        hop_limit: HOP_LIMIT,
        src: vip,
        dst: client,
    };
    syn.answer(packet, l4, cookie, size, tcp_len, checksum::sum_of(&addresses))?;
    send(packet, &route)?;
    Some(route)
}

/// A SYN from outside is answered the way it came: whoever brought it knows its sender.
#[inline(always)]
fn straight_back(ifindex: u32, link: &Link) -> Route {
    Route { ifindex, src_mac: link.dst, dst_mac: link.src }
}

/// A route of the kernel's that leaves by an uplink as the frame is: what it does by VLANs is the stack's to answer.
#[inline(always)]
fn untagged<T: Tables>(tables: &T, link: &Link, route: Route) -> Option<Route> {
    let mut uplinks = tables.config()?.uplinks.iter().take_while(|uplink| uplink.ifindex != 0);
    let is_plain = link.vlan == Vlan::NONE && uplinks.any(|uplink| uplink.ifindex == route.ifindex);
    is_plain.then_some(route)
}

#[inline(always)]
fn send<P: Packet + ?Sized>(packet: &mut P, route: &Route) -> Option<()> {
    let eth = packet.at_mut::<EthHdr>(0)?;
    (eth.dst, eth.src) = (route.dst_mac, route.src_mac);
    Some(())
}

/// What the answer needs of the SYN.
struct Syn {
    src: Be16,
    dst: Be16,
    seq: u32,
    flags: TcpFlags,
    /// It has options, so the answer may have one.
    has_options: bool,
}

impl Syn {
    #[inline(always)]
    fn read<P: Packet + ?Sized>(packet: &P, l4: usize) -> Option<Self> {
        let tcp = packet.at::<TcpHdr>(l4)?;
        let has_options =
            tcp.header_len() >= TCP_LEN + OPTION_LEN && packet.at::<[u8; TCP_LEN + OPTION_LEN]>(l4).is_some();
        Some(Self { src: tcp.src, dst: tcp.dst, seq: tcp.seq.get(), flags: tcp.flags, has_options })
    }

    #[inline(always)]
    fn answer_len(&self, size: u16) -> usize {
        if self.has_options && size != 0 { TCP_LEN + OPTION_LEN } else { TCP_LEN }
    }

    /// Writes the TCP header at `l4`, `len` bytes of it. `addresses`: the sum over those of the pseudo header.
    #[inline(always)]
    fn answer<P: Packet + ?Sized>(
        &self,
        packet: &mut P,
        l4: usize,
        cookie: Cookie,
        size: u16,
        len: usize,
        addresses: u32,
    ) -> Option<()> {
        let has_option = len > TCP_LEN;
        let option = Be32::new(if has_option { MSS_OPTION | u32::from(size) } else { 0 });
        let mut tcp = TcpHdr {
            src: self.dst,
            dst: self.src,
            seq: Be32::new(cookie.0),
            ack: Be32::new(self.seq.wrapping_add(1)),
            offset: if has_option { 0x60 } else { 0x50 },
            flags: TcpFlags(TcpFlags::SYN | TcpFlags::ACK),
            window: Be16::new(WINDOW),
            checksum: Be16::new(0),
            urgent: Be16::new(0),
        };
        let words: [u16; TCP_LEN / 2] = zerocopy::transmute!(tcp);
        let option_words: [u16; 2] = zerocopy::transmute!(option);
        let pseudo = [(len as u16).to_be(), u16::from(PROTO).to_be()];
        let sum = addresses
            + checksum::sum_of(&words)
            + checksum::sum_of(&option_words)
            + checksum::sum_of(&pseudo);
        tcp.checksum = Be16::from_raw(checksum::fold(sum));
        *packet.at_mut(l4)? = tcp;
        if has_option {
            // As bytes: the place has no alignment.
            let bytes: [u8; OPTION_LEN] = zerocopy::transmute!(option);
            *packet.at_mut(l4 + TCP_LEN)? = bytes;
        }
        Some(())
    }
}
