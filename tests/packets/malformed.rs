//! Packets that say something wrong about themselves, or that say it in an unusual way: options, extension headers.

use ingress_common::steer::{HOP_STEERED, Reason};

use super::{
    Case, NEAR, OWN_MAC,
    build::{ACK, SYN, Segment, v4, v6},
    mac_of, remembered,
};

fn to_near(segment: Segment) -> Segment {
    segment.macs(OWN_MAC, mac_of(NEAR)).hops(HOP_STEERED)
}

/// The frame with a byte changed.
fn patched(segment: &Segment, at: usize, byte: u8) -> Vec<u8> {
    let mut frame = segment.bytes();
    frame[at] = byte;
    frame
}

fn with_options(segment: Segment, next: u8, options: &[u8]) -> Segment {
    segment.with(|segment| (segment.next, segment.options) = (next, options.to_vec()))
}

/// Hop-by-hop, destination options, routing, destination options, then TCP: as many as we look behind.
const FOUR_EXTENSIONS: [u8; 40] = {
    let mut bytes = [0; 40];
    bytes[0] = 60;
    bytes[8] = 43;
    bytes[16] = 60;
    bytes[17] = 1;
    bytes[32] = 6;
    bytes
};

pub(super) fn cases() -> Vec<Case> {
    let no_operation = [1, 1, 1, 0];
    let routed = with_options(v4(ACK), 0, &no_operation.repeat(10));
    let extended = with_options(v6(SYN), 0, &FOUR_EXTENSIONS);
    let mut five = vec![0, 0, 0, 0, 0, 0, 0, 0];
    five.extend(FOUR_EXTENSIONS);
    vec![
        Case::new("IPv4 options are skipped", routed.clone())
            .when(remembered(NEAR))
            .transmits(Reason::ForwardFlow, to_near(routed))
            .remembering(NEAR),
        Case::new("IPv6 extension headers are skipped", extended.clone())
            .transmits(Reason::ForwardNew, to_near(extended)),
        Case::new("too many IPv6 extension headers pass", with_options(v6(SYN), 0, &five)),
        Case::new(
            "an IPv6 extension header behind the end passes",
            with_options(v6(SYN), 0, &[6, 200, 0, 0, 0, 0, 0, 0]),
        ),
        Case::new(
            "an IPv6 extension header with the upper layer in question passes",
            with_options(v6(SYN), 51, &[6; 8]),
        ),
        Case::new("an IPv4 header length of 4 words passes", patched(&v4(SYN), 14, 0x44)),
        Case::new("an IPv4 header length behind the end passes", patched(&v4(SYN), 14, 0x4f)),
        Case::new("an IPv4 version of 6 passes", patched(&v4(SYN), 14, 0x65)),
        Case::new("an IPv6 version of 4 passes", patched(&v6(SYN), 14, 0x45)),
        Case::new("an IPv4 length behind the end of the frame is dropped", patched(&v4(SYN), 17, 0xff))
            .drops(Reason::DropMalformed),
        Case::new("an IPv4 length inside the TCP header is dropped", patched(&v4(SYN), 17, 30))
            .drops(Reason::DropMalformed),
        Case::new("an IPv6 length behind the end of the frame is dropped", patched(&v6(SYN), 19, 0xff))
            .drops(Reason::DropMalformed),
        Case::new("an IPv6 length inside the TCP header is dropped", patched(&v6(SYN), 19, 10))
            .drops(Reason::DropMalformed),
        Case::new("a TCP header length of 4 words is dropped", patched(&v4(SYN), 14 + 20 + 12, 0x40))
            .drops(Reason::DropMalformed),
        Case::new("a TCP header length behind the end is dropped", patched(&v4(SYN), 14 + 20 + 12, 0xf0))
            .drops(Reason::DropMalformed),
        Case::new("SYN and FIN at once are dropped", v4(SYN | 0x01)).drops(Reason::DropImpossibleFlags),
        Case::new("v6: SYN and RST at once are dropped", v6(SYN | 0x04)).drops(Reason::DropImpossibleFlags),
        Case::new("no flags at all are dropped", v4(0)).drops(Reason::DropImpossibleFlags),
        Case::new("no flags but PSH are dropped", v6(0x08)).drops(Reason::DropImpossibleFlags),
        Case::new("v4: cut inside the TCP header, passes", v4(SYN).bytes()[..14 + 20 + 19].to_vec()),
        Case::new("v6: cut inside the TCP header, passes", v6(SYN).bytes()[..14 + 40 + 19].to_vec()),
        Case::new("cut inside the IPv4 header, passes", v4(SYN).bytes()[..14 + 19].to_vec()),
        Case::new("trailing bytes after the IP packet stay", [v4(SYN).bytes(), vec![7; 20]].concat())
            .transmits(Reason::ForwardNew, [to_near(v4(SYN)).bytes(), vec![7; 20]].concat()),
    ]
}
