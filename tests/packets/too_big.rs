//! Packets that don't fit into their tunnel are answered with the size that fits.

use ingress_common::{
    abi::{Be16, Ip6},
    checksum,
    steer::{HOP_STEERED, Reason},
};
use std::net::Ipv6Addr;

use super::{
    CLIENT, Case, OWN_MAC, ROUTER_MAC, VIP,
    build::{ACK, Segment, ethernet, v4, v6, words},
    gue::{ROUTED, ROUTED6, routed},
    ip6, remembered,
};

/// The answer to `packet`, with the first 68 bytes of it.
fn frag_needed(packet: &[u8], mtu: u16) -> Vec<u8> {
    let mut icmp = vec![3, 4, 0, 0, 0, 0];
    icmp.extend(mtu.to_be_bytes());
    icmp.extend(&packet[14..14 + 68]);
    let sum = checksum::over(words(&icmp));
    icmp[2..4].copy_from_slice(&sum.to_ne_bytes());
    let mut ip = vec![0x45, 0];
    ip.extend((20 + icmp.len() as u16).to_be_bytes());
    ip.extend([0, 0, 0, 0, 64, 1, 0, 0]);
    ip.extend(VIP);
    ip.extend(CLIENT);
    let sum = checksum::over(words(&ip));
    ip[10..12].copy_from_slice(&sum.to_ne_bytes());
    ip.extend(icmp);
    ethernet(OWN_MAC, ROUTER_MAC, 0x0800, &ip)
}

/// The answer to `packet`, with the first 128 bytes of it.
fn too_big(packet: &[u8], mtu: u16) -> Vec<u8> {
    let octets = |addr: Ip6| Ipv6Addr::from(addr).octets();
    let (vip, client) = (octets(ip6(super::VIP6)), octets(ip6(super::CLIENT6)));
    let mut icmp = vec![2, 0, 0, 0, 0, 0];
    icmp.extend(mtu.to_be_bytes());
    icmp.extend(&packet[14..14 + 128]);
    let len = Be16::new(icmp.len() as u16).get().to_be_bytes();
    let summed = [&vip[..], &client, &len, &[0, 58], &icmp].concat();
    let sum = checksum::over(words(&summed));
    icmp[2..4].copy_from_slice(&sum.to_ne_bytes());
    let ip = [&[0x60, 0, 0, 0][..], &len, &[58, 64], &vip, &client, &icmp].concat();
    ethernet(OWN_MAC, ROUTER_MAC, 0x86dd, &ip)
}

/// A packet of 1,500 bytes.
fn full(segment: Segment, headers: usize) -> Segment {
    segment.with(|segment| segment.payload = vec![0x5a; 1500 - headers])
}

pub(super) fn cases() -> Vec<Case> {
    let (full4, full6) = (full(v4(ACK), 40), full(v6(ACK), 60));
    // What is quoted has been on its way already.
    let (seen4, seen6) = (full4.clone().hops(HOP_STEERED).bytes(), full6.clone().hops(HOP_STEERED).bytes());
    vec![
        Case::new("too big: v4 in a tunnel over IPv4", full4.clone())
            .when(routed(ROUTED))
            .when(remembered(ROUTED))
            .transmits(Reason::TooBigAnswered, frag_needed(&seen4, 1500 - 28))
            .remembering(ROUTED),
        Case::new("too big: v4 in a tunnel over IPv6", full4)
            .when(routed(ROUTED6))
            .when(remembered(ROUTED6))
            .transmits(Reason::TooBigAnswered, frag_needed(&seen4, 1500 - 48))
            .remembering(ROUTED6),
        Case::new("too big: v6 in a tunnel over IPv4", full6.clone())
            .when(routed(ROUTED))
            .when(remembered(ROUTED))
            .transmits(Reason::TooBigAnswered, too_big(&seen6, 1500 - 28))
            .remembering(ROUTED),
        Case::new("too big: v6 in a tunnel over IPv6", full6)
            .when(routed(ROUTED6))
            .when(remembered(ROUTED6))
            .transmits(Reason::TooBigAnswered, too_big(&seen6, 1500 - 48))
            .remembering(ROUTED6),
    ]
}
