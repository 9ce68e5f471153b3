//! The decision of the XDP front about one frame: whose is it, and how does it get there?
//!
//! `ingress-ebpf` calls [`steer`] with the kernel's packet and maps, tests and the simulator with their own; it is the same
//! code. It may change headers of the frame (MAC addresses, hop limit, the answer to an ARP or neighbour request), but only
//! when the verdict is not [`Action::Pass`]: what is passed is untouched.
//!
//! # The road of a TCP packet to a VIP
//!
//! 1. A **SYN** from outside goes to the first node of its slot that accepts new flows. From a peer it stays here: the peer
//!    has decided.
//! 2. Anything else from outside goes where the **flow table** says.
//! 3. Not remembered, or handed over by a peer: if the **socket** is here, it stays.
//! 4. No socket: the **walk**. First the node that gets the slot's new flows, then the others by rank, each looking for the
//!    socket and handing on. The last one's kernel answers with a RST.
//!
//! # The hop limit carries the state of the walk
//!
//! A hand-over lowers the hop limit, always, so tables of different age can never make a loop; and by how much says what it
//! means. At most [`HOP_STEERED`]: a peer decided for you (SYN or flow table). [`HOP_WALK`]: you are the first of a walk. Less:
//! the walk is under way, go on behind your own rank. A node that got a packet because a peer's memory was out of date
//! thus knows that nobody has been asked yet, and starts the walk. Above [`HOP_STEERED`] no peer can have touched it, which
//! spares most packets the look at who sent them.

mod arp;
mod cookie;
mod detour;
mod fragment;
mod guard;
mod gue;
mod hand_over;
mod icmp;
#[cfg(feature = "memory")]
pub mod memory;
mod ndp;
mod outer;
mod reason;
mod retag;
mod slot;
mod tables;
mod tcp;
mod too_big;

pub use cookie::{Cookie, Route, cookie};
pub use detour::detour;
pub use fragment::fragment;
pub use guard::guard;
pub use gue::encapsulate;
pub use icmp::{ECHO_BURST_NS, ECHO_COST_NS, icmp};
pub use reason::Reason;
pub use retag::retag;
pub use slot::{Question, choose};
pub use tables::Tables;
pub use tcp::{Quote, Segment, Tuple};
pub use too_big::too_big;

use crate::abi::{ABI_VERSION, Addr, Config, Errand, Mac, NodeIndex, VipId};
use crate::packet::eth::{Link, ethertype};
use crate::packet::icmp as icmp_header;
use crate::packet::ipv4::Ipv4Hdr;
use crate::packet::ipv6::{Ipv6Hdr, next_header, skip_extensions};
use crate::packet::udp::{self, GUE_PORT, UdpHdr};
use crate::packet::{Packet, Resize, ndp as ndp_header, tcp as tcp_header};

/// Highest hop limit of a packet that a peer has handed over.
pub const HOP_STEERED: u8 = 32;
/// Hop limit of a packet whose walk begins at the node that gets it. Leaves room for every candidate twice.
pub const HOP_WALK: u8 = 16;

/// What happens to the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// To the node's own kernel, untouched.
    Pass,
    /// Nowhere.
    Drop,
    /// Back out of the interface that it came in by.
    Transmit,
    /// Out of the interface [`Verdict::ifindex`].
    Redirect,
    /// Into the tunnel of [`Verdict::node`]: [`encapsulate`] does it.
    Encapsulate,
    /// Not decided yet: [`detour`] does it.
    Detour,
    /// Not decided yet: [`icmp`] does it.
    Icmp,
    /// Not decided yet: [`fragment`] does it.
    Fragment,
    /// Does not fit into the tunnel of [`Verdict::node`]: [`too_big`] answers.
    TooBig,
    /// A SYN that is one too many: [`cookie`] answers, or passes it.
    Cookie,
}

/// The decision, and what to count it under. All fields always have a value: the verifier wants to see what a register
/// holds, also where nobody looks at it. In an order in which neighbours make aligned words: compilers write two at once, and
/// the verifier wants that aligned.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Verdict {
    /// Why.
    pub reason: Reason,
    /// Where to redirect to, else 0.
    pub ifindex: u32,
    /// For [`Action::Encapsulate`]: 16 bits that differ from flow to flow. For [`Action::Icmp`] and [`Action::Fragment`]: 1 if the
    /// packet came through a tunnel. For [`Action::Transmit`] and [`Action::Redirect`]: 0 if its VLAN tags are right.
    pub detail: u32,
    /// For which VIP, or [`VipId::NONE`].
    pub vip: VipId,
    /// The node that gets it (the own one included), or [`NodeIndex::NONE`].
    pub node: NodeIndex,
    /// What to do.
    pub action: Action,
    /// The packet opens a flow.
    pub new_flow: bool,
}

impl Verdict {
    /// It cannot be brought into the form in which its node wants it, so it is dropped.
    #[inline(always)]
    const fn lost(self) -> Self {
        Self { action: Action::Drop, reason: Reason::DropNoTunnel, ..self }
    }

    /// The frame needs other VLAN tags before it leaves: [`retag`] writes them. Asked once, at the very end: the verifier follows
    /// all that comes behind a question twice.
    #[inline(always)]
    pub const fn lacks_tags(&self) -> bool {
        self.detail != 0 && matches!(self.action, Action::Transmit | Action::Redirect)
    }

    /// A verdict about something that is no flow of a VIP.
    #[inline(always)]
    const fn other(action: Action, reason: Reason) -> Self {
        Self {
            action,
            ifindex: 0,
            reason,
            vip: VipId::NONE,
            node: NodeIndex::NONE,
            new_flow: false,
            detail: 0,
        }
    }

    /// None of our business.
    pub const NOT_OURS: Self = Self::other(Action::Pass, Reason::NotOurs);
    /// For [`detour`] to decide. The reason holds if it is not there.
    const DETOUR: Self = Self::other(Action::Detour, Reason::PassNotReady);
}

/// All steps that a frame needs, one after the other, as the programs of `ingress-ebpf` take them.
#[inline(always)]
pub fn front<P: Resize + ?Sized, T: Tables>(packet: &mut P, tables: &T, ifindex: u32) -> Verdict {
    let mut verdict = steer(packet, tables, ifindex);
    if verdict.action == Action::Detour {
        verdict = detour(packet, tables, ifindex);
    }
    if verdict.action == Action::Icmp {
        verdict = icmp(packet, tables, ifindex, verdict.detail != 0);
    }
    if verdict.action == Action::Fragment {
        verdict = fragment(packet, tables, ifindex, verdict.detail != 0);
    }
    if verdict.action == Action::Encapsulate {
        verdict = encapsulate(packet, tables, ifindex, verdict);
    }
    if verdict.action == Action::TooBig {
        verdict = too_big(packet, tables, Errand { node: verdict.node, vip: verdict.vip.0, in_tunnel: 0 });
    }
    if verdict.action == Action::Cookie {
        verdict =
            cookie(packet, tables, ifindex, Errand { node: verdict.node, vip: verdict.vip.0, in_tunnel: 0 });
    }
    if verdict.lacks_tags() {
        verdict = retag(packet, tables, ifindex, verdict);
    }
    verdict
}

/// Decides about the frame `packet` that came in by the interface `ifindex`; for what is rare, that [`detour`] shall.
#[inline(always)]
pub fn steer<P: Packet + ?Sized, T: Tables>(packet: &mut P, tables: &T, ifindex: u32) -> Verdict {
    let Some(link) = Link::parse(packet) else { return Verdict::NOT_OURS };
    if link.ethertype == ethertype::IPV4 {
        ipv4(packet, tables, ifindex, &link)
    } else if link.ethertype == ethertype::IPV6 {
        ipv6(packet, tables, ifindex, &link)
    } else if link.ethertype == ethertype::ARP {
        arp::answer(packet, tables, ifindex, &link)
    } else {
        Verdict::NOT_OURS
    }
}

#[inline(always)]
fn ipv4<P: Packet + ?Sized, T: Tables>(packet: &mut P, tables: &T, ifindex: u32, link: &Link) -> Verdict {
    let Some(ip) = packet.at::<Ipv4Hdr>(link.l3) else { return Verdict::NOT_OURS };
    let Some(header_len) = ip.header_len() else { return Verdict::NOT_OURS };
    if ip.proto != tcp_header::PROTO || ip.is_fragment() {
        return not_tcp(packet, ip.proto, ip.is_fragment(), link.l3 + header_len);
    }
    let at = tcp::At::ipv4(ifindex, link, ip, header_len, false);
    let (src, dst) = (ip.src, ip.dst);
    tcp::steer::<tcp::V4, P, T>(packet, tables, link, at, src, dst)
}

#[inline(always)]
fn ipv6<P: Packet + ?Sized, T: Tables>(packet: &mut P, tables: &T, ifindex: u32, link: &Link) -> Verdict {
    let Some(ip) = packet.at::<Ipv6Hdr>(link.l3) else { return Verdict::NOT_OURS };
    if !ip.is_valid() {
        return Verdict::NOT_OURS;
    }
    let l4 = link.l3 + size_of::<Ipv6Hdr>();
    if ip.next == next_header::ICMPV6 {
        return match packet.at::<u8>(l4) {
            Some(&ndp_header::SOLICITATION) => ndp::answer(packet, tables, ifindex, link, l4),
            Some(&kind) if icmp::is_followed6(kind) => Verdict::DETOUR,
            _ => Verdict::NOT_OURS,
        };
    }
    let end = l4 + usize::from(ip.payload_len.get());
    let (src, dst, hop_limit) = (ip.src, ip.dst, ip.hop_limit);
    let Some((next, l4)) = skip_extensions(packet, ip.next, l4) else { return Verdict::NOT_OURS };
    if next != next_header::TCP {
        return not_tcp(packet, next, next == next_header::FRAGMENT, l4);
    }
    let at = tcp::At { ifindex, vlan: link.vlan, l3: link.l3, l4, end, hop_limit, in_tunnel: false };
    tcp::steer::<tcp::V6, P, T>(packet, tables, link, at, src, dst)
}

/// What is not for us for sure is told apart here, without a call.
#[inline(always)]
fn not_tcp<P: Packet + ?Sized>(packet: &P, proto: u8, is_fragment: bool, l4: usize) -> Verdict {
    let is_rare = is_fragment
        || proto == icmp_header::PROTO
        || proto == udp::PROTO && packet.at::<UdpHdr>(l4).is_some_and(|udp| { udp.dst } == GUE_PORT);
    if is_rare { Verdict::DETOUR } else { Verdict::NOT_OURS }
}

/// Takes a hand-over worth `cost_ns` out of a walk budget that is paid for until `paid_until_ns`, of which `burst_ns` may
/// have been saved up: gives back until when it is paid for then, or `None` if there is nothing left. A cost of 0 means
/// that there is no limit.
#[inline(always)]
pub fn charge(paid_until_ns: u64, now_ns: u64, cost_ns: u64, burst_ns: u64) -> Option<u64> {
    if cost_ns == 0 {
        return Some(paid_until_ns);
    }
    let paid_until_ns = if paid_until_ns > now_ns { paid_until_ns } else { now_ns };
    (paid_until_ns - now_ns <= burst_ns).then(|| paid_until_ns.wrapping_add(cost_ns))
}

/// The configuration, if a daemon of our version has written it.
#[inline(always)]
fn ready<T: Tables>(tables: &T) -> Option<&Config> {
    tables.config().filter(|config| config.abi_version == ABI_VERSION)
}

/// How this node answers on its interface `ifindex` a question for the hardware address of `addr`, which it owns: with which
/// address, or why not.
#[inline(always)]
fn answering_mac(config: &Config, addr: Addr, ifindex: u32, not_owner: Reason) -> Result<Mac, Reason> {
    if addr.flags & Addr::OWNER == 0 {
        return Err(not_owner);
    }
    for (place, uplink) in config.uplinks.iter().enumerate() {
        if uplink.ifindex == 0 {
            break;
        }
        if uplink.ifindex == ifindex {
            return if addr.is_silent_on(place) { Err(not_owner) } else { Ok(uplink.mac) };
        }
    }
    Err(Reason::DropNoUplink)
}

#[cfg(test)]
mod tests;
