//! Packets in pieces: the first piece, which has the ports, is steered as any segment; the others follow it.

use ingress_common::{
    abi::{Fragment, FragmentKey, Ip4, Ip6, NodeIndex},
    steer::{HOP_STEERED, HOP_WALK, Reason, memory::Memory},
};
use std::net::Ipv4Addr;

use super::{
    CLIENT, CLIENT6, Case, DEAD, FAR, NEAR, OWN, OWN_MAC, ROUTER_MAC, VIP, VIP6,
    build::{ACK, SYN, Segment, v4, v6},
    connected,
    gue::{ROUTED, came4, entropy4, port4, routed, sent4},
    ip6, mac_of, own_mac_towards, rank, remembered,
};

const MORE: u16 = 0x2000;

/// The first piece.
fn first4(flags: u8) -> Segment {
    v4(flags).with(|segment| segment.fragment = MORE)
}

/// A piece from the middle: what stands at the place of the ports is data.
fn later4() -> Segment {
    v4(0xff).with(|segment| (segment.fragment, segment.src_port, segment.dst_port) = (MORE | 0x00b9, 1, 2))
}

fn last4() -> Segment {
    later4().with(|segment| segment.fragment = 370)
}

fn piece6(flags: u8, offset: u16) -> Segment {
    let [high, low] = offset.to_be_bytes();
    v6(flags).with(|segment| (segment.next, segment.options) = (44, vec![6, 0, high, low, 0, 0, 0, 7]))
}

fn first6(flags: u8) -> Segment {
    piece6(flags, 1)
}

fn later6() -> Segment {
    piece6(0xff, 185 << 3).with(|segment| (segment.src_port, segment.dst_port) = (1, 2))
}

/// The first piece went to `node`.
fn known(node: NodeIndex) -> impl FnOnce(&mut Memory) {
    let mapped = |addr: [u8; 4]| Ip6::mapped(Ip4::from(Ipv4Addr::from(addr)));
    move |world| {
        let key4 = FragmentKey { src: mapped(CLIENT), dst: mapped(VIP), id: 0x1234, proto: 6 };
        let key6 = FragmentKey { src: ip6(CLIENT6), dst: ip6(VIP6), id: 7_u32.to_be(), proto: 6 };
        for key in [key4, key6] {
            let fragment = Fragment { node, vip: 3, entropy: u32::from(entropy4()) };
            world.fragments.borrow_mut().insert(key, fragment);
        }
    }
}

fn to(segment: Segment, node: NodeIndex) -> Segment {
    segment.macs(own_mac_towards(node), mac_of(node)).hops(HOP_STEERED)
}

fn from_near(segment: Segment) -> Segment {
    segment.macs(mac_of(NEAR), OWN_MAC).hops(HOP_STEERED)
}

pub(super) fn cases() -> Vec<Case> {
    first_pieces().into_iter().chain(others()).collect()
}

fn first_pieces() -> Vec<Case> {
    vec![
        Case::new("fragments: the first piece of a new flow", first4(SYN))
            .transmits(Reason::ForwardNew, to(first4(SYN), NEAR))
            .with_pieces_at(&[NEAR]),
        Case::new("fragments: v6, the first piece of a new flow", first6(SYN))
            .transmits(Reason::ForwardNew, to(first6(SYN), NEAR))
            .with_pieces_at(&[NEAR]),
        Case::new("fragments: the first piece of a remembered flow", first4(ACK))
            .when(remembered(FAR))
            .redirects(Reason::ForwardFlow, to(first4(ACK), FAR))
            .remembering(FAR)
            .with_pieces_at(&[FAR]),
        Case::new("fragments: the first piece of a flow of ours", first4(ACK))
            .when(connected)
            .passes(Reason::LocalSocket)
            .with_pieces_at(&[OWN]),
        Case::new("fragments: v6, the first piece of a flow of ours", first6(ACK))
            .when(connected)
            .passes(Reason::LocalSocket)
            .with_pieces_at(&[OWN]),
        Case::new("fragments: v6, a packet in one piece", piece6(SYN, 0))
            .transmits(Reason::ForwardNew, to(piece6(SYN, 0), NEAR))
            .with_pieces_at(&[NEAR]),
        Case::new("fragments: a first piece walks", first4(ACK))
            .transmits(Reason::ForwardWalk, to(first4(ACK), NEAR).hops(HOP_WALK))
            .remembering(NEAR)
            .with_pieces_at(&[NEAR]),
        Case::new("fragments: a first piece from a peer stays", from_near(first4(SYN)))
            .passes(Reason::LocalNew)
            .with_pieces_at(&[OWN]),
        Case::new("fragments: a first piece to another port stays", first4(SYN).with(|s| s.dst_port = 22))
            .with_pieces_at(&[OWN]),
        Case::new("fragments: a first piece into a tunnel", first4(SYN))
            .when(routed(ROUTED))
            .transmits(Reason::ForwardNew, sent4(&first4(SYN).hops(HOP_STEERED), port4()))
            .with_pieces_at(&[ROUTED]),
        Case::new("fragments: a first piece out of a tunnel", came4(&first4(SYN).hops(HOP_STEERED)))
            .when(routed(ROUTED))
            .opens(Reason::LocalNew, first4(SYN).hops(HOP_STEERED).macs(ROUTER_MAC, OWN_MAC))
            .with_pieces_at(&[OWN]),
    ]
}

fn others() -> Vec<Case> {
    vec![
        Case::new("fragments: a later piece follows", later4())
            .when(known(NEAR))
            .transmits(Reason::ForwardFragment, to(later4(), NEAR)),
        Case::new("fragments: the last piece follows to another interface", last4())
            .when(known(FAR))
            .redirects(Reason::ForwardFragment, to(last4(), FAR)),
        Case::new("fragments: v6, a later piece follows", later6())
            .when(known(NEAR))
            .transmits(Reason::ForwardFragment, to(later6(), NEAR)),
        Case::new("fragments: a later piece stays", later4()).when(known(OWN)).passes(Reason::LocalFragment),
        Case::new("fragments: v6, a later piece stays", later6())
            .when(known(OWN))
            .passes(Reason::LocalFragment),
        Case::new("fragments: a later piece follows into a tunnel", later4())
            .when(routed(ROUTED))
            .when(known(ROUTED))
            .transmits(Reason::ForwardFragment, sent4(&later4().hops(HOP_STEERED), port4())),
        Case::new("fragments: a later piece out of a tunnel stays", came4(&later4().hops(HOP_STEERED)))
            .when(routed(ROUTED))
            .when(known(OWN))
            .opens(Reason::LocalFragment, later4().hops(HOP_STEERED).macs(ROUTER_MAC, OWN_MAC)),
        Case::new("fragments: a later piece without a first one", later4()).drops(Reason::DropFragment),
        Case::new("fragments: v6, a later piece without a first one", later6()).drops(Reason::DropFragment),
        Case::new("fragments: another packet's piece", later4().with(|s| s.dst = super::OTHERS_VIP))
            .when(known(NEAR))
            .drops(Reason::DropFragment),
        Case::new("fragments: a later piece for a node that died", later4())
            .when(known(DEAD))
            .drops(Reason::DropFragment),
        Case::new("fragments: a later piece with no hops left", later4().hops(1))
            .when(known(NEAR))
            .drops(Reason::DropHopLimit),
        Case::new(
            "fragments: a later piece to no VIP passes",
            later4().with(|segment| segment.dst = [192, 0, 2, 200]),
        ),
        Case::new("fragments: pieces of UDP pass", {
            let mut frame = later4().bytes();
            frame[14 + 9] = 17;
            frame
        }),
        Case::new("fragments: for another host's MAC address pass", later4().macs(ROUTER_MAC, mac_of(FAR)))
            .when(|world| rank(world, &[OWN])),
    ]
}
