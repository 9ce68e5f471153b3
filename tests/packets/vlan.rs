//! VLAN tags are looked behind (two at most) and stay in the frame.

use ingress_common::steer::{HOP_STEERED, HOP_WALK, Reason};

use super::{
    Case, NEAR, OWN_MAC,
    build::{ACK, SYN, Segment, v4, v6},
    connected, mac_of,
};

const TAG: [u8; 4] = [0x81, 0x00, 0x20, 0x0a];
const OUTER: [u8; 4] = [0x88, 0xa8, 0x00, 0x64];

fn tagged(segment: Segment, tags: &[[u8; 4]]) -> Segment {
    segment.with(|segment| segment.tags = tags.concat())
}

fn to_near(segment: Segment, hops: u8) -> Segment {
    segment.macs(OWN_MAC, mac_of(NEAR)).hops(hops)
}

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("VLAN: a tagged SYN keeps its tag", tagged(v4(SYN), &[TAG]))
            .transmits(Reason::ForwardNew, to_near(tagged(v4(SYN), &[TAG]), HOP_STEERED)),
        Case::new("VLAN: v6 behind two tags", tagged(v6(ACK), &[OUTER, TAG]))
            .transmits(Reason::ForwardWalk, to_near(tagged(v6(ACK), &[OUTER, TAG]), HOP_WALK))
            .remembering(NEAR),
        Case::new("VLAN: the socket is found behind a tag", tagged(v4(ACK), &[TAG]))
            .when(connected)
            .passes(Reason::LocalSocket),
        Case::new("VLAN: three tags pass", tagged(v4(SYN), &[OUTER, TAG, TAG])),
        Case::new("VLAN: cut inside the tag, passes", tagged(v4(SYN), &[TAG]).bytes()[..15].to_vec()),
    ]
}
