//! Tunnels: packets for peers behind a router get outer headers, packets from known peers lose theirs.

use ingress_common::{
    abi::{Be16, Be32, Ip4, Mac, Node, NodeIndex, Tunnel, Vlan},
    checksum,
    packet::{
        ipv4::Ipv4Hdr,
        ipv6::Ipv6Hdr,
        udp::{GUE_PORT, PROTO, UdpHdr},
    },
    steer::{HOP_STEERED, HOP_WALK, Reason, memory::Memory},
};
use std::net::Ipv4Addr;

use super::{
    Case, NEAR, OTHER_UPLINK, OWN, OWN_MAC, ROUTER_MAC, UPLINK,
    build::{ACK, SYN, Segment, ethernet, put, v4, v6, words},
    connected, flows, ip6, mac_of, own_mac_towards, rank, remembered,
};

/// A peer behind a router, reached over IPv4.
pub(super) const ROUTED: NodeIndex = NodeIndex(5);
/// A peer behind a router, reached over IPv6.
pub(super) const ROUTED6: NodeIndex = NodeIndex(6);
pub(super) const OWN_ADDR: [u8; 4] = [10, 1, 0, 1];
pub(super) const OWN_ADDR6: &str = "2001:db8:1::1";
pub(super) const PEER_ADDR: [u8; 4] = [10, 2, 0, 1];
pub(super) const PEER_ADDR6: &str = "2001:db8:2::1";
pub(super) const STRANGER: [u8; 4] = [10, 9, 0, 1];
const ETH_LEN: usize = 14;

/// Two peers behind the router, by whichever IP version; they come first in all slots.
pub(super) fn routed(first: NodeIndex) -> impl FnOnce(&mut Memory) {
    move |world| {
        for (node, flags) in [(ROUTED, 0), (ROUTED6, Tunnel::V6)] {
            world.nodes[usize::from(node.0)] = Node {
                flags: Node::ALIVE | Node::WAY | Node::GUE,
                ifindex: UPLINK,
                dst_mac: ROUTER_MAC,
                src_mac: OWN_MAC,
                ..Node::default()
            };
            let (src, dst) = if flags == 0 {
                (mapped(OWN_ADDR), mapped(PEER_ADDR))
            } else {
                (ip6(OWN_ADDR6), ip6(PEER_ADDR6))
            };
            world.tunnels.insert(node, Tunnel { src, dst, mtu: 1500, flags });
            world.tunnel_ends.insert(src, OWN);
            world.tunnel_ends.insert(dst, node);
        }
        rank(world, &[first, OWN, NEAR]);
    }
}

fn mapped(addr: [u8; 4]) -> ingress_common::abi::Ip6 {
    ingress_common::abi::Ip6::mapped(Ip4::from(Ipv4Addr::from(addr)))
}

/// Outer source port of the client's flow.
pub(super) fn port4() -> u16 {
    0xc000 | entropy4()
}

fn entropy6() -> u16 {
    flows()[1].entropy()
}

/// `inner`, a frame, as what a tunnel over IPv4 carries it in.
fn outer4(macs: (Mac, Mac), addrs: ([u8; 4], [u8; 4]), port: u16, inner: &[u8]) -> Vec<u8> {
    let payload = &inner[ETH_LEN..];
    let mut packet = vec![0; 28];
    put(
        &mut packet,
        0,
        Ipv4Hdr {
            version_ihl: 0x45,
            tos: 0,
            total_len: Be16::new((28 + payload.len()) as u16),
            id: Be16::new(0),
            fragment: Be16::new(0x4000),
            ttl: 64,
            proto: PROTO,
            checksum: Be16::new(0),
            src: Ipv4Addr::from(addrs.0).into(),
            dst: Ipv4Addr::from(addrs.1).into(),
        },
    );
    let sum = checksum::over(words(&packet[..20]));
    packet[10..12].copy_from_slice(&sum.to_ne_bytes());
    put(&mut packet, 20, udp(port, payload));
    packet.extend(payload);
    ethernet(macs.0, macs.1, 0x0800, &packet)
}

/// The same over IPv6.
fn outer6(macs: (Mac, Mac), addrs: (&str, &str), entropy: u16, inner: &[u8]) -> Vec<u8> {
    let payload = &inner[ETH_LEN..];
    let mut packet = vec![0; 48];
    put(
        &mut packet,
        0,
        Ipv6Hdr {
            version_class_flow: Be32::new(0x6000_0000 | u32::from(entropy)),
            payload_len: Be16::new((8 + payload.len()) as u16),
            next: PROTO,
            hop_limit: 64,
            src: ip6(addrs.0),
            dst: ip6(addrs.1),
        },
    );
    put(&mut packet, 40, udp(0xc000 | entropy, payload));
    packet.extend(payload);
    ethernet(macs.0, macs.1, 0x86dd, &packet)
}

fn udp(port: u16, payload: &[u8]) -> UdpHdr {
    let len = Be16::new((8 + payload.len()) as u16);
    UdpHdr { src: Be16::new(port), dst: GUE_PORT, len, checksum: Be16::new(0) }
}

/// What goes to the peer over IPv4.
pub(super) fn sent4(inner: &Segment, entropy_port: u16) -> Vec<u8> {
    sent4_bytes(&inner.bytes(), entropy_port)
}

/// `inner`, a frame, as it goes to the peer over IPv4.
pub(super) fn sent4_bytes(inner: &[u8], entropy_port: u16) -> Vec<u8> {
    outer4((OWN_MAC, ROUTER_MAC), (OWN_ADDR, PEER_ADDR), entropy_port, inner)
}

/// The same for the client's IPv6 flow over IPv6.
pub(super) fn sent6_bytes(inner: &[u8]) -> Vec<u8> {
    outer6((OWN_MAC, ROUTER_MAC), (OWN_ADDR6, PEER_ADDR6), entropy6(), inner)
}

fn sent6(inner: &Segment, entropy: u16) -> Vec<u8> {
    outer6((OWN_MAC, ROUTER_MAC), (OWN_ADDR6, PEER_ADDR6), entropy, &inner.bytes())
}

/// What the peer sends over IPv4.
pub(super) fn came4(inner: &Segment) -> Vec<u8> {
    outer4((ROUTER_MAC, OWN_MAC), (PEER_ADDR, OWN_ADDR), 50_000, &inner.bytes())
}

fn came6(inner: &Segment) -> Vec<u8> {
    outer_came6(&inner.bytes())
}

/// `inner`, a frame, as the peer sends it over IPv6.
pub(super) fn outer_came6(inner: &[u8]) -> Vec<u8> {
    outer6((ROUTER_MAC, OWN_MAC), (PEER_ADDR6, OWN_ADDR6), 77, inner)
}

pub(super) fn cases() -> Vec<Case> {
    sending().into_iter().chain(receiving()).collect()
}

fn sending() -> Vec<Case> {
    vec![
        Case::new("gue: v4 SYN over IPv4", v4(SYN))
            .when(routed(ROUTED))
            .transmits(Reason::ForwardNew, sent4(&v4(SYN).hops(HOP_STEERED), port4())),
        Case::new("gue: v6 SYN over IPv4", v6(SYN))
            .when(routed(ROUTED))
            .transmits(Reason::ForwardNew, sent4(&v6(SYN).hops(HOP_STEERED), 0xc000 | entropy6())),
        Case::new("gue: v6 SYN over IPv6", v6(SYN))
            .when(routed(ROUTED6))
            .transmits(Reason::ForwardNew, sent6(&v6(SYN).hops(HOP_STEERED), entropy6())),
        Case::new("gue: v4 SYN over IPv6", v4(SYN))
            .when(routed(ROUTED6))
            .transmits(Reason::ForwardNew, sent6(&v4(SYN).hops(HOP_STEERED), entropy4())),
        Case::new("gue: v4, DSCP goes to the outer header", marked4(v4(SYN).bytes(), EXPEDITED | ECN))
            .when(routed(ROUTED))
            .transmits(Reason::ForwardNew, {
                let inner = marked4(v4(SYN).hops(HOP_STEERED).bytes(), EXPEDITED | ECN);
                marked4(sent4_bytes(&inner, port4()), EXPEDITED)
            }),
        Case::new("gue: v6, DSCP goes to the outer header", marked6(v6(SYN).bytes(), EXPEDITED | ECN))
            .when(routed(ROUTED6))
            .transmits(Reason::ForwardNew, {
                let inner = marked6(v6(SYN).hops(HOP_STEERED).bytes(), EXPEDITED | ECN);
                marked6(sent6_bytes(&inner), EXPEDITED)
            }),
        Case::new("gue: a remembered flow", v4(ACK))
            .when(routed(NEAR))
            .when(remembered(ROUTED))
            .transmits(Reason::ForwardFlow, sent4(&v4(ACK).hops(HOP_STEERED), port4()))
            .remembering(ROUTED),
        Case::new("gue: a walk begins behind the router", v4(ACK))
            .when(routed(ROUTED))
            .transmits(Reason::ForwardWalk, sent4(&v4(ACK).hops(HOP_WALK), port4()))
            .remembering(ROUTED),
        Case::new("gue: to a peer behind a router on another interface", v4(SYN))
            .when(routed(ROUTED))
            .when(|world| world.nodes[usize::from(ROUTED.0)].ifindex = OTHER_UPLINK)
            .redirects(Reason::ForwardNew, sent4(&v4(SYN).hops(HOP_STEERED), port4())),
        Case::new("gue: tags stay in front", tagged(v4(SYN)))
            .when(routed(ROUTED))
            .when(|world| world.nodes[usize::from(ROUTED.0)].vlan = Vlan(10))
            .transmits(Reason::ForwardNew, tagged_bytes(&sent4(&v4(SYN).hops(HOP_STEERED), port4()))),
        Case::new("gue: a full packet just fits", sized(1500 - 28))
            .when(routed(ROUTED))
            .when(remembered(ROUTED))
            .transmits(Reason::ForwardFlow, sent4(&sized(1500 - 28).hops(HOP_STEERED), port4()))
            .remembering(ROUTED),
        Case::new("gue: no tunnel known, dropped", v4(SYN))
            .when(routed(ROUTED))
            .when(|world| world.tunnels.clear())
            .drops(Reason::DropNoTunnel),
    ]
}

pub(super) fn entropy4() -> u16 {
    flows()[0].entropy()
}

/// DSCP "expedited forwarding" (RFC 3246).
const EXPEDITED: u8 = 46 << 2;
/// "ECN-capable transport".
const ECN: u8 = 0b01;

/// The IPv4 packet in `frame` with another second byte.
fn marked4(mut frame: Vec<u8>, tos: u8) -> Vec<u8> {
    let ip = &mut frame[ETH_LEN..ETH_LEN + size_of::<Ipv4Hdr>()];
    ip[1] = tos;
    ip[10..12].fill(0);
    let sum = checksum::over(words(ip));
    ip[10..12].copy_from_slice(&sum.to_ne_bytes());
    frame
}

/// The IPv6 packet in `frame` with another traffic class.
fn marked6(mut frame: Vec<u8>, class: u8) -> Vec<u8> {
    frame[ETH_LEN] = 0x60 | class >> 4;
    frame[ETH_LEN + 1] = class << 4 | frame[ETH_LEN + 1] & 0xf;
    frame
}

const TAG: [u8; 4] = [0x81, 0x00, 0x20, 0x0a];

fn tagged(segment: Segment) -> Segment {
    segment.with(|segment| segment.tags = TAG.to_vec())
}

/// The frame with a tag.
pub(super) fn tagged_bytes(frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &TAG, &frame[12..]].concat()
}

/// An IPv4 packet of `len` bytes.
fn sized(len: usize) -> Segment {
    v4(ACK).with(|segment| segment.payload = vec![0xab; len - 40])
}

fn receiving() -> Vec<Case> {
    let from_peer = |segment: Segment| segment.macs(ROUTER_MAC, OWN_MAC).hops(HOP_STEERED);
    let to_near = |segment: Segment, hops| segment.macs(own_mac_towards(NEAR), mac_of(NEAR)).hops(hops);
    vec![
        Case::new("gue: a SYN from a peer stays", came4(&from_peer(v4(SYN))))
            .when(routed(ROUTED))
            .opens(Reason::LocalNew, from_peer(v4(SYN))),
        Case::new("gue: v6 in IPv4 from a peer stays", came4(&from_peer(v6(SYN))))
            .when(routed(ROUTED))
            .opens(Reason::LocalNew, from_peer(v6(SYN))),
        Case::new("gue: v6 in IPv6 from a peer stays", came6(&from_peer(v6(SYN))))
            .when(routed(ROUTED))
            .opens(Reason::LocalNew, from_peer(v6(SYN))),
        Case::new("gue: the socket is here", came6(&from_peer(v4(ACK))))
            .when(routed(ROUTED))
            .when(connected)
            .opens(Reason::LocalSocket, from_peer(v4(ACK))),
        Case::new("gue: under way, on to a peer on the link", came4(&from_peer(v4(ACK)).hops(HOP_WALK - 1)))
            .when(routed(ROUTED))
            .transmits(Reason::ForwardWalk, to_near(v4(ACK), HOP_WALK - 2)),
        Case::new("gue: a tag stays in front", tagged_bytes(&came4(&from_peer(v4(SYN)))))
            .when(routed(ROUTED))
            .opens(Reason::LocalNew, tagged(from_peer(v4(SYN)))),
        Case::new("gue: not for a VIP, dropped", came4(&from_peer(v4(SYN)).with(|s| s.dst_port = 22)))
            .when(routed(ROUTED))
            .drops(Reason::DropTunnel),
        Case::new(
            "gue: from a stranger, passes as it is",
            outer4((ROUTER_MAC, OWN_MAC), (STRANGER, OWN_ADDR), 50_000, &v4(SYN).bytes()),
        )
        .when(routed(ROUTED)),
        Case::new(
            "gue: to somebody else, passes as it is",
            outer4((ROUTER_MAC, OWN_MAC), (PEER_ADDR, STRANGER), 50_000, &v4(SYN).bytes()),
        )
        .when(routed(ROUTED)),
    ]
}
