//! Announcements as bytes: gratuitous ARP (RFC 5227 section 3, RFC 826) and unsolicited neighbour advertisements
//! (RFC 4861 section 7.2.6); questions whether somebody else has a VIP, and the answers to them. Pure; tested against an
//! independent parser's checksum in the tests below.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ingress_common::abi::{Mac, Vlan};

const BROADCAST: [u8; 6] = [0xff; 6];
/// Ethernet address of `ff02::1`, all nodes (RFC 2464 section 7).
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_QINQ: u16 = 0x88a8;
const ARP_REQUEST: u16 = 1;
const ARP_REPLY: u16 = 2;
const ICMPV6: u8 = 58;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// Override: replace what you have cached.
const FLAG_OVERRIDE: u8 = 0x20;
const OPTION_SOURCE_LINK_LAYER_ADDRESS: u8 = 1;
const OPTION_TARGET_LINK_LAYER_ADDRESS: u8 = 2;

/// The frames that announce `vip` at `mac`. For IPv4 both forms that are in use: a few systems listen only to
/// requests, a few only to replies.
pub(super) fn announcements(vip: IpAddr, mac: [u8; 6]) -> Vec<Vec<u8>> {
    match vip {
        IpAddr::V4(vip) => vec![arp(vip, mac, ARP_REQUEST), arp(vip, mac, ARP_REPLY)],
        IpAddr::V6(vip) => vec![advertisement(vip, mac)],
    }
}

/// Asks the link who has `vip`, in a way that changes nobody's cache: an ARP probe (RFC 5227 section 2.1.1: its sender has no
/// address), or a neighbour solicitation from the interface's own link-local address, so that the answer comes to us alone.
/// `None`: there is no such address.
pub(super) fn question(vip: IpAddr, mac: [u8; 6], link_local: Option<Ipv6Addr>) -> Option<Vec<u8>> {
    match vip {
        IpAddr::V4(vip) => Some(arp_packet(vip, mac, ARP_REQUEST, Ipv4Addr::UNSPECIFIED, [0; 6])),
        IpAddr::V6(vip) => link_local.map(|from| solicitation(vip, mac, from)),
    }
}

/// Which address the sender of an ARP reply says is its own, in a whole frame.
pub(super) fn claim_in_arp(frame: &[u8]) -> Option<(IpAddr, Mac)> {
    let arp = frame.get(14..42)?;
    let is_reply = arp[..8] == [0, 1, 8, 0, 6, 4, 0, ARP_REPLY as u8];
    let mac: [u8; 6] = arp[8..14].try_into().ok()?;
    let address: [u8; 4] = arp[14..18].try_into().ok()?;
    is_reply.then(|| (Ipv4Addr::from(address).into(), Mac::new(mac)))
}

/// Which address the sender of a neighbour advertisement says is its own, in an ICMPv6 message. One without the option tells
/// nothing new to anybody.
pub(super) fn claim_in_advertisement(message: &[u8]) -> Option<(IpAddr, Mac)> {
    let target: [u8; 16] = message.get(8..24)?.try_into().ok()?;
    let is_advertisement = message[..2] == [NEIGHBOUR_ADVERTISEMENT, 0];
    let mut options = message.get(24..)?;
    while let [kind, len, rest @ ..] = options {
        if *kind == OPTION_TARGET_LINK_LAYER_ADDRESS && *len == 1 {
            let mac: [u8; 6] = rest.get(..6)?.try_into().ok()?;
            return is_advertisement.then(|| (Ipv6Addr::from(target).into(), Mac::new(mac)));
        }
        // An option without a length would have no end.
        let end = usize::from(*len).checked_mul(8).filter(|end| *end > 0)?;
        options = options.get(end..)?;
    }
    None
}

/// `frame` with the tags of `vlan` behind its addresses.
pub(crate) fn tagged(mut frame: Vec<u8>, vlan: Vlan) -> Vec<u8> {
    let mut tags = Vec::with_capacity(8);
    for half in [vlan.outer(), vlan.inner()].into_iter().filter(|half| *half != 0) {
        let protocol = if half & Vlan::QINQ == 0 { ETHERTYPE_VLAN } else { ETHERTYPE_QINQ };
        tags.extend_from_slice(&protocol.to_be_bytes());
        tags.extend_from_slice(&(half & Vlan::NUMBER).to_be_bytes());
    }
    frame.splice(12..12, tags);
    frame
}

fn ethernet(to: [u8; 6], from: [u8; 6], ethertype: u16) -> Vec<u8> {
    let mut frame = Vec::with_capacity(86);
    frame.extend_from_slice(&to);
    frame.extend_from_slice(&from);
    frame.extend_from_slice(&ethertype.to_be_bytes());
    frame
}

fn arp(vip: Ipv4Addr, mac: [u8; 6], operation: u16) -> Vec<u8> {
    arp_packet(vip, mac, operation, vip, if operation == ARP_REPLY { mac } else { [0; 6] })
}

/// To everybody, about `vip`.
fn arp_packet(vip: Ipv4Addr, mac: [u8; 6], operation: u16, sender: Ipv4Addr, target: [u8; 6]) -> Vec<u8> {
    let mut frame = ethernet(BROADCAST, mac, ETHERTYPE_ARP);
    // Ethernet (1), IPv4 (0x0800), address lengths.
    frame.extend_from_slice(&[0, 1, 8, 0, 6, 4]);
    frame.extend_from_slice(&operation.to_be_bytes());
    frame.extend_from_slice(&mac);
    frame.extend_from_slice(&sender.octets());
    frame.extend_from_slice(&target);
    frame.extend_from_slice(&vip.octets());
    frame
}

fn advertisement(vip: Ipv6Addr, mac: [u8; 6]) -> Vec<u8> {
    let option = OPTION_TARGET_LINK_LAYER_ADDRESS;
    let message = neighbour(NEIGHBOUR_ADVERTISEMENT, FLAG_OVERRIDE, vip, option, mac);
    icmpv6(ALL_NODES_MAC, mac, vip, ALL_NODES, message)
}

fn solicitation(vip: Ipv6Addr, mac: [u8; 6], from: Ipv6Addr) -> Vec<u8> {
    let [.., a, b, c] = vip.octets();
    // The solicited-node group (RFC 4291 section 2.7.1).
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
    let message = neighbour(NEIGHBOUR_SOLICITATION, 0, vip, OPTION_SOURCE_LINK_LAYER_ADDRESS, mac);
    icmpv6([0x33, 0x33, 0xff, a, b, c], mac, from, group, message)
}

/// A neighbour message with one option, its checksum still zero.
fn neighbour(kind: u8, flags: u8, vip: Ipv6Addr, option: u8, mac: [u8; 6]) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, flags, 0, 0, 0];
    message.extend_from_slice(&vip.octets());
    message.extend_from_slice(&[option, 1]);
    message.extend_from_slice(&mac);
    message
}

fn icmpv6(to_mac: [u8; 6], mac: [u8; 6], from: Ipv6Addr, to: Ipv6Addr, mut message: Vec<u8>) -> Vec<u8> {
    let checksum = icmpv6_checksum(from, to, &message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    let mut frame = ethernet(to_mac, mac, ETHERTYPE_IPV6);
    frame.extend_from_slice(&[0x60, 0, 0, 0]);
    frame.extend_from_slice(&(message.len() as u16).to_be_bytes());
    // Hop limit 255: receivers refuse any other (RFC 4861 section 7.1).
    frame.extend_from_slice(&[ICMPV6, 255]);
    frame.extend_from_slice(&from.octets());
    frame.extend_from_slice(&to.octets());
    frame.extend_from_slice(&message);
    frame
}

/// RFC 4443 section 2.3. `message` has an even length and a zero where the checksum goes.
fn icmpv6_checksum(from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> u16 {
    let words = |bytes: &[u8]| {
        bytes.chunks_exact(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum::<u32>()
    };
    let mut sum = words(&from.octets())
        + words(&to.octets())
        + words(message)
        + message.len() as u32
        + u32::from(ICMPV6);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use ingress_common::abi::{Be16, Mac as Address};
    use proptest::prelude::*;

    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

    #[test]
    fn gratuitous_arp_in_both_forms() {
        let frames = announcements("192.0.2.1".parse().unwrap(), MAC);
        let head = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 7, 8, 6, 0, 1, 8, 0, 6, 4, 0];
        let vip = [192, 0, 2, 1];
        let request = [&head[..], &[1], &MAC, &vip, &[0; 6], &vip].concat();
        let reply = [&head[..], &[2], &MAC, &vip, &MAC, &vip].concat();
        assert_eq!(frames, [request, reply]);
    }

    #[test]
    fn tags_stand_behind_the_addresses() {
        let vlan = Vlan::NONE.with(Be16::new(100), true).with(Be16::new(5), false);
        let frame = vec![7; 20];
        assert_eq!(tagged(frame.clone(), Vlan::NONE), frame);
        assert_eq!(
            tagged(frame, vlan),
            [&[7; 12][..], &[0x88, 0xa8, 0, 100, 0x81, 0, 0, 5], &[7; 8]].concat()
        );
    }

    #[test]
    fn advertisement_is_well_formed() {
        let frames = announcements("2001:db8::1".parse().unwrap(), MAC);
        let [frame] = &frames[..] else { panic!("one frame") };
        assert_eq!(frame.len(), 86);
        assert_eq!(frame[..14], [0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 7, 0x86, 0xdd]);
        assert_eq!(frame[14..22], [0x60, 0, 0, 0, 0, 32, 58, 255]);
        assert_eq!(frame[54..56], [136, 0]);
        assert_eq!(frame[58], 0x20, "override, not solicited");
        assert_eq!(frame[78..], [2, 1, 2, 0, 0, 0, 0, 7]);
        // A message with its checksum in place sums up to zero.
        let sum = icmpv6_checksum("2001:db8::1".parse().unwrap(), "ff02::1".parse().unwrap(), &frame[54..]);
        assert_eq!(sum, 0);
    }

    #[test]
    fn questions_change_nobodys_cache() {
        let arp = question("192.0.2.1".parse().unwrap(), MAC, None).unwrap();
        assert_eq!(arp[20..22], [0, 1], "a request");
        assert_eq!((&arp[28..32], &arp[38..42]), (&[0; 4][..], &[192, 0, 2, 1][..]), "from nobody");
        let from = "fe80::7".parse().unwrap();
        assert_eq!(question("2001:db8::1:2:3".parse().unwrap(), MAC, None), None);
        let asked = question("2001:db8::1:a2:b3c4".parse().unwrap(), MAC, Some(from)).unwrap();
        assert_eq!(asked[..6], [0x33, 0x33, 0xff, 0xa2, 0xb3, 0xc4]);
        assert_eq!(asked[54..56], [135, 0]);
        let group = "ff02::1:ffa2:b3c4".parse().unwrap();
        assert_eq!(asked[38..54], Ipv6Addr::octets(&group));
        assert_eq!(icmpv6_checksum(from, group, &asked[54..]), 0);
    }

    #[test]
    fn what_we_announce_is_a_claim_and_what_we_ask_is_none() {
        for vip in ["192.0.2.1", "2001:db8::1"] {
            let vip: IpAddr = vip.parse().unwrap();
            let claim = |frame: &[u8]| claim_in_arp(frame).or_else(|| claim_in_advertisement(&frame[54..]));
            let last = announcements(vip, MAC).pop().unwrap();
            assert_eq!(claim(&last), Some((vip, Address::new(MAC))));
            let question = question(vip, MAC, Some("fe80::1".parse().unwrap())).unwrap();
            let padded = [question, vec![0; 18]].concat();
            assert_eq!(claim(&padded), None);
        }
        // Other options in front, and one without a length.
        let vip: IpAddr = "2001:db8::1".parse().unwrap();
        let mut message = announcements(vip, MAC).pop().unwrap().split_off(54);
        message.splice(24..24, [14, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(claim_in_advertisement(&message), Some((vip, Address::new(MAC))));
        message[25] = 0;
        assert_eq!(claim_in_advertisement(&message), None);
    }

    proptest! {
        #[test]
        fn no_bytes_from_the_link_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            claim_in_arp(&bytes);
            claim_in_advertisement(&bytes);
        }
    }
}
