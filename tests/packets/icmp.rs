//! ICMP to VIPs: echo requests are answered, errors about a flow go to the node that has the flow.

use ingress_common::{
    abi::{Ip6, NodeIndex},
    checksum,
    steer::{HOP_STEERED, HOP_WALK, Reason},
};
use std::net::Ipv6Addr;

use super::{
    CLIENT, CLIENT_PORT, CLIENT6, Case, FAR, NEAR, OWN, OWN_MAC, PORT, ROUTER_MAC, VIP, VIP6,
    build::{ethernet, words},
    connected,
    gue::{ROUTED, ROUTED6, outer_came6, port4, routed, sent4_bytes, sent6_bytes, tagged_bytes},
    ip6, mac_of, own_mac_towards, rank, remembered,
};

/// The router that reports an error.
const ROUTER: [u8; 4] = [203, 0, 113, 9];
const ROUTER6: &str = "2001:db8:f::9";

/// An ICMP message in a frame.
#[derive(Clone)]
pub(super) struct Message {
    macs: (ingress_common::abi::Mac, ingress_common::abi::Mac),
    hops: u8,
    pub(super) src: [u8; 4],
    pub(super) dst: [u8; 4],
    pub(super) src6: Ip6,
    pub(super) dst6: Ip6,
    is_v6: bool,
    /// Type and code.
    kind: [u8; 2],
    rest: Vec<u8>,
}

impl Message {
    pub(super) fn new(is_v6: bool, kind: [u8; 2], rest: Vec<u8>) -> Self {
        Self {
            macs: (ROUTER_MAC, OWN_MAC),
            hops: 61,
            src: ROUTER,
            dst: VIP,
            src6: ip6(ROUTER6),
            dst6: ip6(VIP6),
            is_v6,
            kind,
            rest,
        }
    }

    fn hops(mut self, hops: u8) -> Self {
        self.hops = hops;
        self
    }

    fn to(mut self, node: NodeIndex) -> Self {
        self.macs = (own_mac_towards(node), mac_of(node));
        self.hops(HOP_STEERED)
    }

    pub(super) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// Other bytes in the quoted packet, from `at` on.
    pub(super) fn quote(&mut self, at: usize, bytes: &[u8]) {
        self.rest[4 + at..4 + at + bytes.len()].copy_from_slice(bytes);
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut icmp = [&self.kind[..], &[0, 0], &self.rest].concat();
        let (src, dst) = (Ipv6Addr::from(self.src6).octets(), Ipv6Addr::from(self.dst6).octets());
        let len = (icmp.len() as u16).to_be_bytes();
        let pseudo = if self.is_v6 { [&src[..], &dst, &len, &[0, 58]].concat() } else { Vec::new() };
        let sum = checksum::over(words(&[pseudo, icmp.clone()].concat()));
        icmp[2..4].copy_from_slice(&sum.to_ne_bytes());
        let (ethertype, packet) = if self.is_v6 {
            (0x86dd, [&[0x60, 0, 0, 0][..], &len, &[58, self.hops], &src, &dst, &icmp].concat())
        } else {
            (0x0800, [ipv4(self.hops, 1, self.src, self.dst, icmp.len()), icmp].concat())
        };
        ethernet(self.macs.0, self.macs.1, ethertype, &packet)
    }
}

impl From<Message> for Vec<u8> {
    fn from(message: Message) -> Self {
        message.bytes()
    }
}

/// An IPv4 header in front of `len` bytes.
pub(super) fn ipv4(hops: u8, proto: u8, src: [u8; 4], dst: [u8; 4], len: usize) -> Vec<u8> {
    let mut ip = vec![0x45, 0];
    ip.extend((20 + len as u16).to_be_bytes());
    ip.extend([0x12, 0x34, 0x40, 0, hops, proto, 0, 0]);
    ip.extend(src);
    ip.extend(dst);
    let sum = checksum::over(words(&ip));
    ip[10..12].copy_from_slice(&sum.to_ne_bytes());
    ip
}

fn echo(is_v6: bool, kind: u8) -> Message {
    // Identifier, sequence number, an odd number of bytes.
    let rest = [&[0x12, 0x34, 0, 1][..], b"hello, VIP!"].concat();
    Message::new(is_v6, [kind, 0], rest).with(|message| (message.src, message.src6) = (CLIENT, ip6(CLIENT6)))
}

/// What answers `request`.
fn answered(request: &Message, kind: u8) -> Message {
    request.clone().hops(64).with(|reply| {
        reply.kind = [kind, 0];
        reply.macs = (OWN_MAC, ROUTER_MAC);
        (reply.src, reply.dst) = (reply.dst, reply.src);
        (reply.src6, reply.dst6) = (reply.dst6, reply.src6);
    })
}

/// What a router quotes of a segment of the VIP's to the client: its IP header and `more` bytes.
fn quote(is_v6: bool, more: usize) -> Vec<u8> {
    let mut tcp = Vec::new();
    tcp.extend(PORT.to_be_bytes());
    tcp.extend(CLIENT_PORT.to_be_bytes());
    tcp.extend([0; 16]);
    tcp.truncate(more);
    if is_v6 {
        let (src, dst) = (Ipv6Addr::from(ip6(VIP6)).octets(), Ipv6Addr::from(ip6(CLIENT6)).octets());
        [&[0x60, 0, 0, 0, 0x05, 0x8c, 6, 60][..], &src, &dst, &tcp].concat()
    } else {
        [ipv4(60, 6, VIP, CLIENT, 1460), tcp].concat()
    }
}

/// An error with this type and code about the VIP's flow, with as little of the segment as RFC 792 allows.
fn error(is_v6: bool, kind: [u8; 2]) -> Message {
    Message::new(is_v6, kind, [&[0, 0, 5, 0x14][..], &quote(is_v6, 8)].concat())
}

/// "Fragmentation needed", and its twin.
fn too_big(is_v6: bool) -> Message {
    error(is_v6, if is_v6 { [2, 0] } else { [3, 4] })
}

pub(super) fn cases() -> Vec<Case> {
    [echoes(), errors(), tunnelled(), others()].into_iter().flatten().collect()
}

fn echoes() -> Vec<Case> {
    let (v4, v6) = (echo(false, 8), echo(true, 128));
    let spent = |world: &mut super::Memory| world.echo_paid_until_ns.set(u64::MAX / 2);
    let cut = |message: &Message| {
        let bytes = message.bytes();
        bytes[..bytes.len() - 1].to_vec()
    };
    vec![
        Case::new("echo: v4, answered", v4.clone()).transmits(Reason::EchoAnswered, answered(&v4, 0)),
        Case::new("echo: v6, answered", v6.clone()).transmits(Reason::EchoAnswered, answered(&v6, 129)),
        Case::new("echo: answered behind a tag", tagged_bytes(&v4.bytes()))
            .transmits(Reason::EchoAnswered, tagged_bytes(&answered(&v4, 0).bytes())),
        Case::new("echo: v4, the budget is spent", v4.clone()).when(spent).drops(Reason::DropEchoRate),
        Case::new("echo: v6, the budget is spent", v6.clone()).when(spent).drops(Reason::DropEchoRate),
        Case::new("echo: v4, cut, is dropped", cut(&v4)).drops(Reason::DropMalformed),
        Case::new("echo: v6, cut, is dropped", cut(&v6)).drops(Reason::DropMalformed),
        Case::new("echo: to no VIP, passes", v4.clone().with(|m| m.dst = [192, 0, 2, 200])),
        Case::new("echo: v6, to no VIP, passes", v6.with(|m| m.dst6 = ip6("2001:db8::200"))),
        Case::new("echo: for another host's MAC address, passes", v4.with(|m| m.macs.1 = mac_of(FAR))),
        Case::new("echo: a reply passes", echo(false, 0)),
        Case::new("echo: v6, a reply passes", echo(true, 129)),
    ]
}

fn errors() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, is_v6, kind) in [
        ("errors: v4, frag needed", false, [3, 4]),
        ("errors: v4, unreachable", false, [3, 1]),
        ("errors: v4, time exceeded", false, [11, 0]),
        ("errors: v4, parameter problem", false, [12, 0]),
        ("errors: v6, unreachable", true, [1, 3]),
        ("errors: v6, too big", true, [2, 0]),
        ("errors: v6, time exceeded", true, [3, 0]),
        ("errors: v6, parameter problem", true, [4, 1]),
    ] {
        let message = error(is_v6, kind);
        cases.push(
            Case::new(name, message.clone())
                .when(remembered(NEAR))
                .transmits(Reason::ForwardIcmp, message.to(NEAR))
                .remembering(NEAR),
        );
    }
    for is_v6 in [false, true] {
        let name = |v4, v6| if is_v6 { v6 } else { v4 };
        let message = too_big(is_v6);
        let from_near = message.clone().with(|message| message.macs.0 = mac_of(NEAR));
        cases.extend([
            Case::new(
                name("errors: to another interface", "errors: v6, to another interface"),
                message.clone(),
            )
            .when(remembered(FAR))
            .redirects(Reason::ForwardIcmp, message.clone().to(FAR))
            .remembering(FAR),
            Case::new(
                name("errors: about a flow of ours", "errors: v6, about a flow of ours"),
                message.clone(),
            )
            .when(connected)
            .passes(Reason::LocalIcmp),
            Case::new(name("errors: walk, and teach nothing", "errors: v6, walk"), message.clone())
                .transmits(Reason::ForwardIcmp, message.clone().to(NEAR).hops(HOP_WALK)),
            Case::new(
                name("errors: from a peer, walk on", "errors: v6, from a peer, walk on"),
                from_near.clone().hops(HOP_WALK - 1),
            )
            .redirects(Reason::ForwardIcmp, message.clone().to(FAR).hops(HOP_WALK - 2)),
            Case::new(
                name("errors: from a peer, ours", "errors: v6, from a peer, ours"),
                from_near.clone().hops(HOP_STEERED),
            )
            .when(connected)
            .passes(Reason::LocalIcmp),
            Case::new(
                name("errors: nobody is left to ask", "errors: v6, nobody is left to ask"),
                from_near.hops(5),
            )
            .when(|world| rank(world, &[NEAR, OWN]))
            .passes(Reason::LocalIcmp),
            Case::new(
                name("errors: the whole header is quoted", "errors: v6, the whole header is quoted"),
                message.clone().with(|m| m.rest = [&[0, 0, 5, 0x14][..], &quote(is_v6, 20)].concat()),
            )
            .when(connected)
            .passes(Reason::LocalIcmp),
            Case::new(
                name("errors: the quote is too short", "errors: v6, the quote is too short"),
                message.clone().with(|m| m.rest = [&[0, 0, 5, 0x14][..], &quote(is_v6, 3)].concat()),
            ),
            Case::new(
                name("errors: about another port", "errors: v6, about another port"),
                message.clone().with(|m| {
                    let at = m.rest.len() - 8;
                    m.rest[at..at + 2].copy_from_slice(&22_u16.to_be_bytes());
                }),
            ),
            Case::new(
                name("errors: about somebody else's packet", "errors: v6, about somebody else's packet"),
                message.with(|m| {
                    let source = if is_v6 { 4 + 8 + 15 } else { 4 + 12 + 3 };
                    m.rest[source] ^= 0x55;
                }),
            ),
        ]);
    }
    cases
}

fn tunnelled() -> Vec<Case> {
    let (v4, v6) = (too_big(false), too_big(true));
    let (in4, in6) = (v4.clone().hops(HOP_STEERED), v6.clone().hops(HOP_STEERED));
    vec![
        Case::new("errors: into a tunnel", v4.clone())
            .when(routed(ROUTED))
            .when(remembered(ROUTED))
            .transmits(Reason::ForwardIcmp, sent4_bytes(&in4.bytes(), port4()))
            .remembering(ROUTED),
        Case::new("errors: v6, into a tunnel", v6)
            .when(routed(ROUTED6))
            .when(remembered(ROUTED6))
            .transmits(Reason::ForwardIcmp, sent6_bytes(&in6.bytes()))
            .remembering(ROUTED6),
        Case::new("errors: out of a tunnel, ours", outer_came6(&in4.bytes()))
            .when(routed(ROUTED))
            .when(connected)
            .opens(Reason::LocalIcmp, in4.bytes()),
        Case::new("errors: v6, out of a tunnel, ours", outer_came6(&in6.bytes()))
            .when(routed(ROUTED))
            .when(connected)
            .opens(Reason::LocalIcmp, in6.bytes()),
        Case::new("echo: out of a tunnel, dropped", outer_came6(&echo(false, 8).bytes()))
            .when(routed(ROUTED))
            .drops(Reason::DropTunnel),
    ]
}

fn others() -> Vec<Case> {
    vec![
        Case::new("other ICMP to a VIP passes", Message::new(false, [13, 0], vec![0; 16])),
        Case::new("other ICMPv6 to a VIP passes", Message::new(true, [130, 0], vec![0; 20])),
        Case::new("a redirect to a VIP passes", error(false, [5, 1])),
    ]
}
