//! VLAN tags: they are looked behind (two at most), and a frame leaves with those of the way to its node.

use ingress_common::{
    abi::{Be16, NodeIndex, Vlan},
    steer::{HOP_STEERED, HOP_WALK, Reason, memory::Memory},
};

use super::{
    Case, FAR, NEAR, OWN_MAC,
    build::{ACK, SYN, Segment, v4, v6},
    connected,
    gue::{ROUTED, port4, routed, sent4_bytes},
    mac_of, own_mac_towards, rank,
};

/// VLAN 10, priority 1.
const TAG: [u8; 4] = [0x81, 0x00, 0x20, 0x0a];
/// VLAN 20, with the priority of [`TAG`].
const OTHER: [u8; 4] = [0x81, 0x00, 0x20, 0x14];
/// VLAN 20, no priority.
const OTHER_PLAIN: [u8; 4] = [0x81, 0x00, 0x00, 0x14];
/// 802.1ad, VLAN 100.
const OUTER: [u8; 4] = [0x88, 0xa8, 0x00, 0x64];
/// Only a priority.
const PRIORITY: [u8; 4] = [0x81, 0x00, 0x60, 0x00];

fn tagged(segment: Segment, tags: &[[u8; 4]]) -> Segment {
    segment.with(|segment| segment.tags = tags.concat())
}

fn to(node: NodeIndex, segment: Segment, hops: u8) -> Segment {
    segment.macs(own_mac_towards(node), mac_of(node)).hops(hops)
}

fn vlan(number: u16) -> Vlan {
    Vlan::NONE.with(Be16::new(number), false)
}

/// VLAN `number` inside of VLAN 100 of 802.1ad.
fn stacked(number: u16) -> Vlan {
    Vlan::NONE.with(Be16::new(100), true).with(Be16::new(number), false)
}

/// `node` is reached by this VLAN.
fn by(node: NodeIndex, vlan: Vlan) -> impl FnOnce(&mut Memory) {
    move |world| world.nodes[usize::from(node.0)].vlan = vlan
}

pub(super) fn cases() -> Vec<Case> {
    let near = |segment, tags: &[[u8; 4]]| to(NEAR, tagged(segment, tags), HOP_STEERED);
    vec![
        Case::new("VLAN: a tagged SYN keeps its tag in its VLAN", tagged(v4(SYN), &[TAG]))
            .when(by(NEAR, vlan(10)))
            .transmits(Reason::ForwardNew, near(v4(SYN), &[TAG])),
        Case::new("VLAN: v6 behind two tags", tagged(v6(ACK), &[OUTER, TAG]))
            .when(by(NEAR, stacked(10)))
            .transmits(Reason::ForwardWalk, to(NEAR, tagged(v6(ACK), &[OUTER, TAG]), HOP_WALK))
            .remembering(NEAR),
        Case::new("VLAN: the socket is found behind a tag", tagged(v4(ACK), &[TAG]))
            .when(connected)
            .passes(Reason::LocalSocket),
        Case::new("VLAN: three tags pass", tagged(v4(SYN), &[OUTER, TAG, TAG])),
        Case::new("VLAN: cut inside the tag, passes", tagged(v4(SYN), &[TAG]).bytes()[..15].to_vec()),
        Case::new("VLAN: from none into one", v4(SYN))
            .when(by(NEAR, vlan(20)))
            .transmits(Reason::ForwardNew, near(v4(SYN), &[OTHER_PLAIN])),
        Case::new("VLAN: v6 from one into another, the priority goes on", tagged(v6(SYN), &[TAG]))
            .when(by(NEAR, vlan(20)))
            .transmits(Reason::ForwardNew, near(v6(SYN), &[OTHER])),
        Case::new("VLAN: out of one", tagged(v4(SYN), &[TAG]))
            .transmits(Reason::ForwardNew, near(v4(SYN), &[])),
        Case::new("VLAN: out of two", tagged(v6(ACK), &[OUTER, TAG]))
            .transmits(Reason::ForwardWalk, to(NEAR, v6(ACK), HOP_WALK))
            .remembering(NEAR),
        Case::new("VLAN: from none into two", v4(SYN))
            .when(by(NEAR, stacked(20)))
            .transmits(Reason::ForwardNew, near(v4(SYN), &[OUTER, OTHER_PLAIN])),
        Case::new("VLAN: from two into one", tagged(v4(SYN), &[OUTER, TAG]))
            .when(by(NEAR, vlan(20)))
            .transmits(Reason::ForwardNew, near(v4(SYN), &[OTHER_PLAIN])),
        Case::new("VLAN: into one on another interface", v4(SYN))
            .when(|world| rank(world, &[FAR]))
            .when(by(FAR, vlan(20)))
            .redirects(Reason::ForwardNew, to(FAR, tagged(v4(SYN), &[OTHER_PLAIN]), HOP_STEERED)),
        Case::new("VLAN: a tag with a priority only is none", tagged(v4(SYN), &[PRIORITY]))
            .transmits(Reason::ForwardNew, near(v4(SYN), &[PRIORITY])),
        Case::new("VLAN: a tunnel goes by one", v4(SYN))
            .when(routed(ROUTED))
            .when(by(ROUTED, vlan(20)))
            .transmits(
                Reason::ForwardNew,
                in_vlan(&sent4_bytes(&v4(SYN).hops(HOP_STEERED).bytes(), port4())),
            ),
        Case::new("VLAN: for another host's MAC address, passes", {
            tagged(v4(SYN), &[TAG]).macs(OWN_MAC, mac_of(FAR))
        })
        .passes(Reason::PassOtherHost),
    ]
}

/// `frame` with the tag of VLAN 20.
fn in_vlan(frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &OTHER_PLAIN, &frame[12..]].concat()
}
