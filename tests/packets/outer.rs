//! ICMP errors about the outer packets of tunnels, from routers between the nodes.

use std::net::Ipv6Addr;

use ingress_common::{abi::NodeIndex, packet::udp::GUE_PORT, steer::Reason};

use super::{
    Case, VIP, VIP6,
    gue::{OWN_ADDR, OWN_ADDR6, PEER_ADDR, PEER_ADDR6, ROUTED, ROUTED6, STRANGER, routed, tagged_bytes},
    icmp::{Message, ipv4},
    ip6,
};

/// The source port of tunnelled packets begins here.
const PORT: u16 = 0xc123;

/// What a router says of a packet to the peer over IPv4: type and code, what stands behind the checksum, the quoted ports.
fn said4(kind: [u8; 2], rest: u32, ports: [u16; 2]) -> Message {
    let mut quote = rest.to_be_bytes().to_vec();
    quote.extend(ipv4(63, 17, OWN_ADDR, PEER_ADDR, 1480));
    quote.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
    quote.extend([0x05, 0xc8, 0, 0]);
    Message::new(false, kind, quote).with(|message| message.dst = OWN_ADDR)
}

/// The same over IPv6.
fn said6(kind: [u8; 2], rest: u32, ports: [u16; 2]) -> Message {
    let octets = |text| Ipv6Addr::from(ip6(text)).octets();
    let mut quote = rest.to_be_bytes().to_vec();
    quote.extend([0x60, 0, 0, 0, 0x05, 0xb4, 17, 63]);
    quote.extend([octets(OWN_ADDR6), octets(PEER_ADDR6)].concat());
    quote.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
    quote.extend([0x05, 0xb4, 0, 0]);
    Message::new(true, kind, quote).with(|message| message.dst6 = ip6(OWN_ADDR6))
}

fn ours() -> [u16; 2] {
    [PORT, GUE_PORT.get()]
}

pub(super) fn cases() -> Vec<Case> {
    let heard = |name, message: Message, node: NodeIndex, mtu| {
        Case::new(name, message).when(routed(node)).passes(Reason::LocalTunnelIcmp).hearing(node, mtu)
    };
    let unheard = |name, message: Message| Case::new(name, message).when(routed(ROUTED));
    vec![
        heard("outer: too big is remembered", said4([3, 4], 1400, ours()), ROUTED, Some(1400)),
        heard("outer: v6 too big is remembered", said6([2, 0], 1400, ours()), ROUTED6, Some(1400)),
        heard("outer: no router is narrower than that", said4([3, 4], 68, ours()), ROUTED, Some(576)),
        heard("outer: v6 no router is narrower than that", said6([2, 0], 68, ours()), ROUTED6, Some(1280)),
        heard("outer: v6 more than fits a packet", said6([2, 0], 70_000, ours()), ROUTED6, Some(0xffff)),
        heard("outer: unreachable is counted", said4([3, 1], 0, ours()), ROUTED, None),
        heard("outer: v6 unreachable is counted", said6([1, 4], 0, ours()), ROUTED6, None),
        Case::new("outer: behind a tag", tagged_bytes(&said4([3, 4], 1400, ours()).bytes()))
            .when(routed(ROUTED))
            .passes(Reason::LocalTunnelIcmp)
            .hearing(ROUTED, Some(1400)),
        Case::new("outer: too big, but no size, teaches nothing", said4([3, 4], 0, ours()))
            .when(routed(ROUTED))
            .passes(Reason::LocalTunnelIcmp),
        unheard("outer: about another port, passes", said4([3, 4], 1400, [PORT, 53])),
        unheard("outer: from a port that is not ours, passes", said4([3, 4], 1400, [5353, GUE_PORT.get()])),
        unheard("outer: v6 about another port, passes", said6([2, 0], 1400, [PORT, 53])),
        unheard("outer: a ping to the node passes", said4([8, 0], 1, ours())),
        unheard("outer: v6 a ping to the node passes", said6([128, 0], 1, ours())),
        unheard("outer: time exceeded passes", said4([11, 0], 0, ours())),
        unheard("outer: about a packet to a stranger, passes", {
            said4([3, 4], 1400, ours()).with(|message| message.quote(16, &STRANGER))
        }),
        unheard("outer: about a packet that is not ours, passes", {
            said4([3, 4], 1400, ours()).with(|message| message.quote(12, &STRANGER))
        }),
        unheard("outer: for a VIP, about a packet in a tunnel, passes", {
            said4([3, 4], 1400, ours()).with(|message| (message.dst, message.dst6) = (VIP, ip6(VIP6)))
        }),
    ]
}
