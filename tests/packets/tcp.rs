//! TCP segments to VIPs as the director gets them: new flows, remembered flows, both IP versions.

use ingress_common::{
    abi::Node,
    steer::{HOP_STEERED, HOP_WALK, Reason, memory::Memory},
};

use super::{
    Case, DEAD, DRAINING, FAR, NEAR, OWN, OWN_MAC, ROUTER_MAC,
    build::{ACK, SYN, Segment, v4, v6},
    connected, mac_of, own_mac_towards, rank, remembered,
};
use ingress_common::abi::NodeIndex;

/// The segment as it goes on to `node` by the flow table or as a new flow.
fn steered(segment: Segment, node: NodeIndex) -> Segment {
    segment.macs(own_mac_towards(node), mac_of(node)).hops(HOP_STEERED)
}

/// This node is first, its daemon's last heartbeat is not old, but there is no listener any more. (In the kernel tests there
/// never is one.)
fn killed(world: &mut Memory) {
    rank(world, &[OWN, NEAR]);
    world.config.heartbeat_timeout_ns = u64::MAX;
    world.listens = false;
}

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new("v4: a SYN goes to the slot's first node", v4(SYN))
            .transmits(Reason::ForwardNew, steered(v4(SYN), NEAR)),
        Case::new("v6: a SYN goes to the slot's first node", v6(SYN))
            .transmits(Reason::ForwardNew, steered(v6(SYN), NEAR)),
        Case::new("a SYN with ECN flags is a SYN", v4(SYN | 0xc0))
            .transmits(Reason::ForwardNew, steered(v4(SYN | 0xc0), NEAR)),
        Case::new("a SYN to a node behind another interface is redirected", v4(SYN))
            .when(|world| rank(world, &[FAR, OWN]))
            .redirects(Reason::ForwardNew, steered(v4(SYN), FAR)),
        Case::new("a SYN of our own slot stays", v4(SYN))
            .when(|world| rank(world, &[OWN, NEAR]))
            .passes(Reason::LocalNew),
        Case::new("v6: a SYN of our own slot stays", v6(SYN))
            .when(|world| rank(world, &[OWN, NEAR]))
            .passes(Reason::LocalNew),
        Case::new("a SYN of ours forgets what was remembered of the port's last use", v4(SYN))
            .when(|world| rank(world, &[OWN, NEAR]))
            .when(remembered(FAR))
            .passes(Reason::LocalNew),
        Case::new("a SYN corrects what was remembered of the port's last use", v4(SYN))
            .when(remembered(FAR))
            .transmits(Reason::ForwardNew, steered(v4(SYN), NEAR))
            .remembering(NEAR),
        Case::new("a RST goes where the flow goes, and ends it", v4(ACK | 0x04))
            .when(remembered(FAR))
            .redirects(Reason::ForwardFlow, steered(v4(ACK | 0x04), FAR)),
        Case::new("after a FIN the flow goes on for the last packets", v4(ACK | 0x01))
            .when(remembered(FAR))
            .redirects(Reason::ForwardFlow, steered(v4(ACK | 0x01), FAR))
            .remembering(FAR),
        Case::new("a SYN passes over a draining and a dead node", v4(SYN))
            .when(|world| rank(world, &[DRAINING, DEAD, NEAR]))
            .transmits(Reason::ForwardNew, steered(v4(SYN), NEAR)),
        Case::new("a SYN goes to a draining node if all drain", v4(SYN))
            .when(|world| rank(world, &[DEAD, DRAINING]))
            .transmits(Reason::ForwardNew, steered(v4(SYN), DRAINING)),
        Case::new("a SYN stays if nobody else is there", v4(SYN))
            .when(|world| rank(world, &[DEAD]))
            .passes(Reason::LocalAlone),
        Case::new("a SYN stays if the slot is empty", v4(SYN))
            .when(|world| rank(world, &[]))
            .passes(Reason::LocalAlone),
        Case::new("a SYN passes over this node if it drains", v4(SYN))
            .when(|world| {
                rank(world, &[OWN, NEAR]);
                world.nodes[usize::from(OWN.0)].flags |= Node::DRAINING;
            })
            .transmits(Reason::ForwardNew, steered(v4(SYN), NEAR)),
        Case::new("a SYN passes over this node if its daemon is dead", v4(SYN))
            .when(|world| {
                rank(world, &[OWN, NEAR]);
                // In the kernel the clock is the machine's; it has been up for longer than a nanosecond.
                world.config.heartbeat_timeout_ns = 1;
                world.now_ns = 10;
            })
            .transmits(Reason::ForwardNew, steered(v4(SYN), NEAR)),
        Case::new("a SYN passes over this node if nobody listens here", v4(SYN))
            .when(killed)
            .transmits(Reason::ForwardNew, steered(v4(SYN), NEAR)),
        Case::new("v6: a SYN passes over this node if nobody listens here", v6(SYN))
            .when(killed)
            .transmits(Reason::ForwardNew, steered(v6(SYN), NEAR)),
        Case::new("a SYN stays where a socket takes it", v4(SYN))
            .when(killed)
            .when(connected)
            .when(|world| world.listens = true)
            .passes(Reason::LocalNew),
        Case::new("a remembered flow goes on", v4(ACK))
            .when(remembered(NEAR))
            .transmits(Reason::ForwardFlow, steered(v4(ACK), NEAR))
            .remembering(NEAR),
        Case::new("v6: a remembered flow goes on", v6(ACK))
            .when(remembered(NEAR))
            .transmits(Reason::ForwardFlow, steered(v6(ACK), NEAR))
            .remembering(NEAR),
        Case::new("a remembered flow goes on to a draining node", v4(ACK))
            .when(remembered(DRAINING))
            .transmits(Reason::ForwardFlow, steered(v4(ACK), DRAINING))
            .remembering(DRAINING),
        Case::new("a remembered flow goes on by another interface", v4(ACK))
            .when(remembered(FAR))
            .redirects(Reason::ForwardFlow, steered(v4(ACK), FAR))
            .remembering(FAR),
        Case::new("the hop limit of a remembered flow only ever falls", v4(ACK).hops(20))
            .when(remembered(NEAR))
            .transmits(Reason::ForwardFlow, steered(v4(ACK), NEAR).hops(19))
            .remembering(NEAR),
        Case::new("a hop limit of 1 cannot be handed over", v4(SYN).hops(1)).drops(Reason::DropHopLimit),
        Case::new("with few hops left memory is not asked, the ranks are", v4(ACK).hops(HOP_WALK + 1))
            .when(remembered(FAR))
            .transmits(Reason::ForwardWalk, steered(v4(ACK), NEAR).hops(HOP_WALK))
            .remembering(FAR),
        Case::new("with fewer hops left the walk starts at the first rank", v4(ACK).hops(9))
            .when(|world| rank(world, &[DRAINING, NEAR]))
            .transmits(Reason::ForwardWalk, steered(v4(ACK), DRAINING).hops(8)),
        Case::new("a flow of a dead node is looked for elsewhere", v4(ACK))
            .when(remembered(DEAD))
            .when(connected)
            .passes(Reason::LocalSocket)
            .remembering(DEAD),
        Case::new("a frame for another host's MAC address passes", v4(SYN).macs(ROUTER_MAC, mac_of(FAR)))
            .passes(Reason::PassOtherHost),
        Case::new("the address of any uplink is ours", v4(SYN).macs(ROUTER_MAC, own_mac_towards(FAR)))
            .transmits(Reason::ForwardNew, steered(v4(SYN), NEAR)),
        Case::new("maps of another version pass everything", v4(SYN))
            .when(|world| world.config.abi_version += 1)
            .passes(Reason::PassNotReady),
        Case::new("the other slot table is used when it is active", v4(SYN).macs(ROUTER_MAC, OWN_MAC))
            .when(|world| {
                world.config.active_slots = 1;
                rank(world, &[OWN]);
            })
            .passes(Reason::LocalNew),
    ]
}
