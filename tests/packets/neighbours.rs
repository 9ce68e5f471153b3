//! ARP and neighbour discovery for VIPs: the owner answers, the others are silent, everything else passes.

use ingress_common::{abi::Mac, checksum, steer::Reason};
use std::net::Ipv6Addr;

use super::{
    CLIENT, CLIENT6, Case, OTHERS_VIP, OTHERS_VIP6, OWN_MAC, ROUTER_MAC, VIP, VIP6,
    build::{ethernet, words},
    ip6,
};

const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;

/// An ARP packet; `operation` 1 asks, 2 answers.
fn arp(operation: u8, sender: (Mac, [u8; 4]), target: (Mac, [u8; 4])) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, operation];
    for (mac, ip) in [sender, target] {
        packet.extend(mac.octets());
        packet.extend(ip);
    }
    packet
}

fn who_has(target: [u8; 4]) -> Vec<u8> {
    let request = arp(1, (ROUTER_MAC, CLIENT), (Mac::default(), target));
    // Padded to the shortest frame of Ethernet, as real ones are.
    ethernet(ROUTER_MAC, Mac::BROADCAST, ARP, &[request, vec![0; 18]].concat())
}

/// A neighbour message: addresses, type, flags, target, options.
fn neighbour(src: &str, dst: &str, kind: u8, flags: u8, target: &str, options: &[u8], hops: u8) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, flags, 0, 0, 0];
    message.extend(octets(target));
    message.extend(options);
    let len = message.len() as u16;
    let mut summed = [octets(src), octets(dst)].concat();
    summed.extend(len.to_be_bytes());
    summed.extend([0, 58]);
    summed.extend(&message);
    message[2..4].copy_from_slice(&checksum::over(words(&summed)).to_ne_bytes());
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(len.to_be_bytes());
    packet.extend([58, hops]);
    packet.extend([octets(src), octets(dst)].concat());
    packet.extend(message);
    packet
}

fn octets(addr: &str) -> [u8; 16] {
    Ipv6Addr::from(ip6(addr)).octets()
}

/// The option that carries a MAC address: 1 the asker's, 2 the target's.
fn link_layer(kind: u8, mac: Mac) -> Vec<u8> {
    [&[kind, 1][..], &mac.octets()].concat()
}

const GROUP: &str = "ff02::1:ff00:10";
const GROUP_MAC: Mac = Mac::new([0x33, 0x33, 0xff, 0, 0, 0x10]);
const ALL_NODES_MAC: Mac = Mac::new([0x33, 0x33, 0, 0, 0, 1]);
const SOLICITED_OVERRIDE: u8 = 0x60;
const OVERRIDE: u8 = 0x20;

fn solicitation(target: &str) -> Vec<u8> {
    neighbour(CLIENT6, GROUP, 135, 0, target, &link_layer(1, ROUTER_MAC), 255)
}

pub(super) fn cases() -> Vec<Case> {
    let reply = [arp(2, (OWN_MAC, VIP), (ROUTER_MAC, CLIENT)), vec![0; 18]].concat();
    let advertisement =
        |options: &[u8]| neighbour(VIP6, CLIENT6, 136, SOLICITED_OVERRIDE, VIP6, options, 255);
    let with_mac = advertisement(&link_layer(2, OWN_MAC));
    let nonce = [14, 1, 1, 2, 3, 4, 5, 6];
    let mut wrong_code = solicitation(VIP6);
    wrong_code[41] = 1;
    vec![
        Case::new("ARP: the owner answers", who_has(VIP))
            .transmits(Reason::ArpAnswered, ethernet(OWN_MAC, ROUTER_MAC, ARP, &reply)),
        Case::new("ARP: nobody else answers", who_has(OTHERS_VIP)).drops(Reason::ArpNotOwner),
        Case::new("ARP: the owner is silent where the pool is not announced", who_has(VIP))
            .when(|world| world.addrs4.values_mut().for_each(|addr| *addr = addr.silent_on(0)))
            .drops(Reason::ArpNotOwner),
        Case::new("ARP: the owner answers on another uplink than those where it is silent", who_has(VIP))
            .when(|world| world.addrs4.values_mut().for_each(|addr| *addr = addr.silent_on(1)))
            .transmits(Reason::ArpAnswered, ethernet(OWN_MAC, ROUTER_MAC, ARP, &reply)),
        Case::new(
            "NDP: the owner is silent where the pool is not announced",
            ethernet(ROUTER_MAC, GROUP_MAC, IPV6, &solicitation(VIP6)),
        )
        .when(|world| world.addrs6.values_mut().for_each(|addr| *addr = addr.silent_on(0)))
        .drops(Reason::NdpNotOwner),
        Case::new("ARP: other addresses pass", who_has([192, 0, 2, 1])),
        Case::new(
            "ARP: answers of others pass",
            ethernet(ROUTER_MAC, OWN_MAC, ARP, &arp(2, (ROUTER_MAC, VIP), (OWN_MAC, CLIENT))),
        ),
        Case::new("ARP: cut short, passes", who_has(VIP)[..14 + 27].to_vec()),
        Case::new("ARP: not about IPv4, passes", {
            let mut packet = who_has(VIP);
            packet[16] = 0x86;
            packet
        }),
        Case::new("ARP: no answer on an interface that is no uplink", who_has(VIP))
            .when(|world| world.config.uplinks[0].ifindex = 99)
            .drops(Reason::DropNoUplink),
        Case::new("ARP: no answer before the daemon has written the maps", who_has(VIP))
            .when(|world| world.config.abi_version = 0)
            .passes(Reason::PassNotReady),
        Case::new("NDP: the owner answers", ethernet(ROUTER_MAC, GROUP_MAC, IPV6, &solicitation(VIP6)))
            .transmits(Reason::NdpAnswered, ethernet(OWN_MAC, ROUTER_MAC, IPV6, &with_mac)),
        Case::new(
            "NDP: nobody else answers",
            ethernet(ROUTER_MAC, GROUP_MAC, IPV6, &solicitation(OTHERS_VIP6)),
        )
        .drops(Reason::NdpNotOwner),
        Case::new(
            "NDP: other addresses pass",
            ethernet(ROUTER_MAC, GROUP_MAC, IPV6, &solicitation("2001:db8::99")),
        ),
        Case::new(
            "NDP: a probe of the cache has no room for the option and needs none",
            ethernet(ROUTER_MAC, OWN_MAC, IPV6, &neighbour(CLIENT6, VIP6, 135, 0, VIP6, &[], 255)),
        )
        .transmits(Reason::NdpAnswered, ethernet(OWN_MAC, ROUTER_MAC, IPV6, &advertisement(&[]))),
        Case::new(
            "NDP: duplicate address detection hears of us, with everybody else",
            ethernet(ROUTER_MAC, GROUP_MAC, IPV6, &neighbour("::", GROUP, 135, 0, VIP6, &nonce, 255)),
        )
        .transmits(
            Reason::NdpAnswered,
            ethernet(
                OWN_MAC,
                ALL_NODES_MAC,
                IPV6,
                &neighbour(VIP6, "ff02::1", 136, OVERRIDE, VIP6, &link_layer(2, OWN_MAC), 255),
            ),
        ),
        Case::new(
            "NDP: further options are cut off",
            ethernet(
                ROUTER_MAC,
                GROUP_MAC,
                IPV6,
                &neighbour(
                    CLIENT6,
                    GROUP,
                    135,
                    0,
                    VIP6,
                    &[link_layer(1, ROUTER_MAC), nonce.to_vec()].concat(),
                    255,
                ),
            ),
        )
        .transmits(
            Reason::NdpAnswered,
            [ethernet(OWN_MAC, ROUTER_MAC, IPV6, &with_mac), nonce.to_vec()].concat(),
        ),
        Case::new(
            "NDP: from behind a router, passes",
            ethernet(ROUTER_MAC, GROUP_MAC, IPV6, &neighbour(CLIENT6, GROUP, 135, 0, VIP6, &[], 254)),
        ),
        Case::new("NDP: a code that is not 0 passes", ethernet(ROUTER_MAC, GROUP_MAC, IPV6, &wrong_code)),
        Case::new(
            "NDP: advertisements of others pass",
            ethernet(
                ROUTER_MAC,
                ALL_NODES_MAC,
                IPV6,
                &neighbour(VIP6, "ff02::1", 136, OVERRIDE, VIP6, &[], 255),
            ),
        ),
        Case::new(
            "NDP: cut short, passes",
            ethernet(ROUTER_MAC, GROUP_MAC, IPV6, &solicitation(VIP6)[..40 + 23]),
        ),
    ]
}
