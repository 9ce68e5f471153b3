//! Gives a frame the VLAN tags of the way to its node, where it came in with others: from one VLAN into another, from none into
//! one or out of it. In the kernel a program of its own, which the others call where [`Verdict::lacks_tags`]; frames that stay in
//! their VLAN pay a comparison.

use crate::abi::{Be16, Node, Vlan};
use crate::packet::Resize;
use crate::packet::eth::{EthHdr, Link, VlanTag, ethertype};

use super::{Tables, Verdict, hand_over};

const ETH_LEN: usize = size_of::<EthHdr>();
const TAG_LEN: usize = size_of::<VlanTag>();
/// Priority and drop eligibility in a tag.
const PRIORITY: u16 = 0xf000;

/// Completes the frame of a `verdict` that [lacks tags](Verdict::lacks_tags).
#[inline(always)]
pub fn retag<P: Resize + ?Sized, T: Tables>(
    packet: &mut P,
    tables: &T,
    ifindex: u32,
    verdict: Verdict,
) -> Verdict {
    let lost = verdict.lost();
    let Some(node) = tables.node(verdict.node) else { return lost };
    if write(packet, node).is_none() {
        return lost;
    }
    hand_over::leave(node, node.vlan, ifindex, verdict)
}

/// The priority of the frame's outer tag goes on in the new ones.
#[inline(always)]
fn write<P: Resize + ?Sized>(packet: &mut P, node: &Node) -> Option<()> {
    let link = Link::parse(packet)?;
    let mut eth = *packet.at::<EthHdr>(0)?;
    let priority = if link.l3 == ETH_LEN { 0 } else { packet.at::<VlanTag>(ETH_LEN)?.tci.get() & PRIORITY };
    let (outer, inner) = (node.vlan.outer(), node.vlan.inner());
    let len = ETH_LEN + TAG_LEN * (usize::from(outer != 0) + usize::from(node.vlan != Vlan::NONE));
    if len > link.l3 {
        packet.add_head(len - link.l3)?;
    } else if len < link.l3 {
        packet.remove_head(link.l3 - len)?;
    }
    let tag = |half: u16, ethertype| VlanTag { tci: Be16::new(half & Vlan::NUMBER | priority), ethertype };
    eth.ethertype = link.ethertype;
    let mut at = ETH_LEN;
    if outer != 0 {
        *packet.at_mut(at)? = tag(outer, protocol(inner));
        eth.ethertype = protocol(outer);
        at += TAG_LEN;
    }
    if node.vlan != Vlan::NONE {
        *packet.at_mut(at)? = tag(inner, link.ethertype);
        if outer == 0 {
            eth.ethertype = protocol(inner);
        }
    }
    *packet.at_mut(0)? = eth;
    Some(())
}

#[inline(always)]
const fn protocol(half: u16) -> Be16 {
    if half & Vlan::QINQ == 0 { ethertype::VLAN } else { ethertype::QINQ }
}
