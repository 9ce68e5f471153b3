//! Builds frames for the tables: readable at the place of use, with right lengths and checksums unless told otherwise.

use ingress_common::{
    abi::{Be16, Be32, Ip6, Mac},
    checksum,
    packet::{
        Packet as _,
        eth::EthHdr,
        ipv4::Ipv4Hdr,
        ipv6::Ipv6Hdr,
        tcp::{TcpFlags, TcpHdr},
    },
};
use std::net::{Ipv4Addr, Ipv6Addr};

use super::{CLIENT, CLIENT_PORT, CLIENT6, OWN_MAC, PORT, ROUTER_MAC, VIP, VIP6, ip6};

/// TCP flags.
pub const SYN: u8 = TcpFlags::SYN;
/// TCP flags.
pub const ACK: u8 = TcpFlags::ACK;

/// A TCP segment in a frame, from the router to this node unless told otherwise.
#[derive(Clone)]
pub struct Segment {
    /// Destination MAC address.
    pub dst_mac: Mac,
    /// Source MAC address.
    pub src_mac: Mac,
    /// What stands between the MAC addresses and the last Ethertype (VLAN tags).
    pub tags: Vec<u8>,
    /// Hop limit.
    pub hops: u8,
    /// IPv4 options, or IPv6 extension headers.
    pub options: Vec<u8>,
    /// IPv6: what the fixed header says comes next.
    pub next: u8,
    /// IPv4 flags and fragment offset.
    pub fragment: u16,
    /// TCP flags.
    pub flags: u8,
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Destination address.
    pub dst: [u8; 4],
    /// Destination address.
    pub dst6: Ip6,
    /// What the segment carries.
    pub payload: Vec<u8>,
    version: u8,
}

/// A segment of the client's to [`VIP`].
pub fn v4(flags: u8) -> Segment {
    segment(4, flags)
}

/// A segment of the client's to [`VIP6`].
pub fn v6(flags: u8) -> Segment {
    segment(6, flags)
}

fn segment(version: u8, flags: u8) -> Segment {
    Segment {
        dst_mac: OWN_MAC,
        src_mac: ROUTER_MAC,
        tags: Vec::new(),
        hops: 61,
        options: Vec::new(),
        next: 6,
        fragment: 0x4000,
        flags,
        src_port: CLIENT_PORT,
        dst_port: PORT,
        dst: VIP,
        dst6: ip6(VIP6),
        payload: b"hello".to_vec(),
        version,
    }
}

impl Segment {
    /// From this to that MAC address.
    #[must_use]
    pub fn macs(mut self, src: Mac, dst: Mac) -> Self {
        (self.src_mac, self.dst_mac) = (src, dst);
        self
    }

    /// With this hop limit.
    #[must_use]
    pub fn hops(mut self, hops: u8) -> Self {
        self.hops = hops;
        self
    }

    /// With a field changed.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// The frame.
    pub fn bytes(&self) -> Vec<u8> {
        let mut frame = Vec::new();
        frame.extend(self.dst_mac.octets());
        frame.extend(self.src_mac.octets());
        frame.extend(&self.tags);
        if self.version == 4 {
            self.ipv4(&mut frame);
        } else {
            self.ipv6(&mut frame);
        }
        frame
    }

    fn ipv4(&self, frame: &mut Vec<u8>) {
        frame.extend([0x08, 0x00]);
        let (start, header) = (frame.len(), 20 + self.options.len());
        frame.resize(start + header, 0);
        frame[start + 20..].copy_from_slice(&self.options);
        let len = header + 20 + self.payload.len();
        put(
            frame,
            start,
            Ipv4Hdr {
                version_ihl: 0x40 | (header / 4) as u8,
                tos: 0,
                total_len: Be16::new(len as u16),
                id: Be16::new(0x1234),
                fragment: Be16::new(self.fragment),
                ttl: self.hops,
                proto: 6,
                checksum: Be16::new(0),
                src: Ipv4Addr::from(CLIENT).into(),
                dst: Ipv4Addr::from(self.dst).into(),
            },
        );
        let sum = checksum::over(words(&frame[start..]));
        frame[start + 10..start + 12].copy_from_slice(&sum.to_ne_bytes());
        let pseudo = [&CLIENT[..], &self.dst[..]].concat();
        self.tcp(frame, &pseudo);
    }

    fn ipv6(&self, frame: &mut Vec<u8>) {
        frame.extend([0x86, 0xdd]);
        let start = frame.len();
        frame.resize(start + 40, 0);
        put(
            frame,
            start,
            Ipv6Hdr {
                version_class_flow: Be32::new(0x6000_1234),
                payload_len: Be16::new((self.options.len() + 20 + self.payload.len()) as u16),
                next: self.next,
                hop_limit: self.hops,
                src: ip6(CLIENT6),
                dst: self.dst6,
            },
        );
        frame.extend(&self.options);
        let pseudo = [Ipv6Addr::from(ip6(CLIENT6)).octets(), Ipv6Addr::from(self.dst6).octets()].concat();
        self.tcp(frame, &pseudo);
    }

    fn tcp(&self, frame: &mut Vec<u8>, addresses: &[u8]) {
        let start = frame.len();
        frame.resize(start + 20, 0);
        put(
            frame,
            start,
            TcpHdr {
                src: Be16::new(self.src_port),
                dst: Be16::new(self.dst_port),
                seq: Be32::new(1000),
                ack: Be32::new(2000),
                offset: 0x50,
                flags: TcpFlags(self.flags),
                window: Be16::new(64_000),
                checksum: Be16::new(0),
                urgent: Be16::new(0),
            },
        );
        frame.extend(&self.payload);
        let mut summed = addresses.to_vec();
        summed.extend([0, 6]);
        summed.extend(((20 + self.payload.len()) as u16).to_be_bytes());
        summed.extend(&frame[start..]);
        let sum = checksum::over(words(&summed));
        frame[start + 16..start + 18].copy_from_slice(&sum.to_ne_bytes());
    }
}

impl From<Segment> for Vec<u8> {
    fn from(segment: Segment) -> Self {
        segment.bytes()
    }
}

/// 16-bit words as they stand in memory, a last odd byte padded.
pub fn words(bytes: &[u8]) -> impl Iterator<Item = u16> {
    bytes.chunks(2).map(|pair| u16::from_ne_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))
}

pub(super) fn put<T: ingress_common::packet::View>(frame: &mut [u8], offset: usize, header: T) {
    if let Some(place) = frame.at_mut(offset) {
        *place = header;
    }
}

/// An Ethernet header in front of `payload`.
pub fn ethernet(src: Mac, dst: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; size_of::<EthHdr>()];
    put(&mut frame, 0, EthHdr { dst, src, ethertype: Be16::new(ethertype) });
    frame.extend(payload);
    frame
}

#[cfg(test)]
mod tests {
    use etherparse::{NetHeaders, PacketHeaders, TransportHeader};

    use super::*;

    /// The builder's checksums and lengths are what an independent implementation says.
    #[test]
    fn etherparse_agrees() {
        for segment in [v4(ACK), v6(ACK)] {
            let bytes = segment.bytes();
            let parsed = PacketHeaders::from_ethernet_slice(&bytes).unwrap();
            let Some(TransportHeader::Tcp(tcp)) = parsed.transport else { panic!("no TCP header") };
            let want = match parsed.net {
                Some(NetHeaders::Ipv4(ip, _)) => {
                    assert_eq!(ip.header_checksum, ip.calc_header_checksum());
                    tcp.calc_checksum_ipv4(&ip, b"hello").unwrap()
                }
                Some(NetHeaders::Ipv6(ip, _)) => tcp.calc_checksum_ipv6(&ip, b"hello").unwrap(),
                _ => panic!("no IP header"),
            };
            assert_eq!(tcp.checksum, want);
        }
    }
}
