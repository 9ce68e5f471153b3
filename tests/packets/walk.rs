//! Segments that no flow table helps with: the socket here, or the walk from candidate to candidate; and what peers hand over.

use ingress_common::{
    abi::NodeIndex,
    steer::{HOP_STEERED, HOP_WALK, Reason},
};

use super::{
    Case, DEAD, DRAINING, FAR, NEAR, OWN, OWN_MAC,
    build::{ACK, SYN, Segment, v4, v6},
    connected, mac_of, own_mac_towards, rank, remembered,
};

/// The segment as `node` hands it over to us.
fn from(node: NodeIndex, segment: Segment, hops: u8) -> Segment {
    segment.macs(mac_of(node), OWN_MAC).hops(hops)
}

/// The segment as it goes on to `node`.
fn to(node: NodeIndex, segment: Segment, hops: u8) -> Segment {
    segment.macs(own_mac_towards(node), mac_of(node)).hops(hops)
}

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("v4: the socket is here", v4(ACK)).when(connected).passes(Reason::LocalSocket),
        Case::new("v6: the socket is here", v6(ACK)).when(connected).passes(Reason::LocalSocket),
        Case::new("v4: an unknown flow walks to the first candidate", v4(ACK))
            .transmits(Reason::ForwardWalk, to(NEAR, v4(ACK), HOP_WALK))
            .remembering(NEAR),
        Case::new("v6: an unknown flow walks to the first candidate", v6(ACK))
            .transmits(Reason::ForwardWalk, to(NEAR, v6(ACK), HOP_WALK))
            .remembering(NEAR),
        Case::new("a walk starts with the node that gets new flows", v4(ACK))
            .when(|world| rank(world, &[DRAINING, OWN, NEAR]))
            .transmits(Reason::ForwardWalk, to(DRAINING, v4(ACK), HOP_WALK - 1))
            .remembering(DRAINING),
        Case::new("the first candidate itself asks the second", v4(ACK))
            .when(|world| rank(world, &[OWN, NEAR, FAR]))
            .transmits(Reason::ForwardWalk, to(NEAR, v4(ACK), HOP_WALK - 1))
            .remembering(NEAR),
        Case::new(
            "handed over by a peer's memory and not here: the walk starts",
            from(FAR, v4(ACK), HOP_STEERED),
        )
        .transmits(Reason::ForwardWalk, to(NEAR, v4(ACK), HOP_WALK)),
        Case::new("first of a walk and not here: to the best other rank", from(FAR, v4(ACK), HOP_WALK))
            .transmits(Reason::ForwardWalk, to(NEAR, v4(ACK), HOP_WALK - 1)),
        Case::new("under way: on behind the own rank", from(NEAR, v4(ACK), HOP_WALK - 1))
            .redirects(Reason::ForwardWalk, to(FAR, v4(ACK), HOP_WALK - 2)),
        Case::new("v6: under way: on behind the own rank", from(NEAR, v6(ACK), HOP_WALK - 1))
            .redirects(Reason::ForwardWalk, to(FAR, v6(ACK), HOP_WALK - 2)),
        Case::new("under way: past a dead node", from(NEAR, v4(ACK), HOP_WALK - 1))
            .when(|world| rank(world, &[NEAR, OWN, DEAD, FAR]))
            .redirects(Reason::ForwardWalk, to(FAR, v4(ACK), HOP_WALK - 2)),
        Case::new("the last candidate's kernel answers", from(NEAR, v4(ACK), HOP_WALK - 1))
            .when(|world| rank(world, &[NEAR, OWN]))
            .passes(Reason::LocalUnknown),
        Case::new("alone, the own kernel answers", v4(ACK))
            .when(|world| rank(world, &[OWN]))
            .passes(Reason::LocalUnknown),
        Case::new(
            "no candidate here any more: the walk goes to the best rank",
            from(FAR, v4(ACK), HOP_WALK - 1),
        )
        .when(|world| rank(world, &[NEAR, FAR]))
        .transmits(Reason::ForwardWalk, to(NEAR, v4(ACK), HOP_WALK - 2)),
        Case::new("a walk ends with its hop limit", from(NEAR, v4(ACK), 1)).drops(Reason::DropHopLimit),
        Case::new("under way and here: stays", from(NEAR, v4(ACK), HOP_WALK - 3))
            .when(connected)
            .passes(Reason::LocalSocket),
        Case::new("what a peer hands over is not sent on by memory", from(FAR, v4(ACK), HOP_STEERED))
            .when(remembered(FAR))
            .when(connected)
            .passes(Reason::LocalSocket)
            .remembering(FAR),
        Case::new("no budget, no walk", from(NEAR, v4(ACK), HOP_WALK - 1))
            .when(|world| {
                world.config.walk_cost_ns = 1;
                world.walk_paid_until_ns.set(u64::MAX >> 1);
            })
            .drops(Reason::DropWalkBudget),
        Case::new("a SYN from a peer stays", from(NEAR, v4(SYN), HOP_STEERED)).passes(Reason::LocalNew),
        Case::new("v6: a SYN from a peer stays", from(NEAR, v6(SYN), HOP_STEERED)).passes(Reason::LocalNew),
        Case::new(
            "a SYN from a peer goes on if the own daemon is dead",
            from(DRAINING, v4(SYN), HOP_STEERED),
        )
        .when(|world| {
            world.config.heartbeat_timeout_ns = 1;
            world.now_ns = 10;
        })
        .transmits(Reason::ForwardNew, to(NEAR, v4(SYN), HOP_WALK)),
        Case::new("a node as a client is no peer", v4(SYN).macs(mac_of(FAR), OWN_MAC))
            .transmits(Reason::ForwardNew, to(NEAR, v4(SYN), HOP_STEERED)),
        Case::new("a far client with few hops left is no peer", v4(SYN).hops(HOP_STEERED))
            .transmits(Reason::ForwardNew, to(NEAR, v4(SYN), HOP_STEERED - 1)),
        Case::new("RST and FIN walk too", v4(ACK | 0x05))
            .transmits(Reason::ForwardWalk, to(NEAR, v4(ACK | 0x05), HOP_WALK)),
    ]
}
