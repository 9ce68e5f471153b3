//! Handing a packet over to another node: on the same link by rewriting its MAC addresses. The payload and everything above
//! the hop limit stay as the client sent them, so the node that has the socket sees client and VIP.

use crate::abi::Node;
use crate::packet::Packet;
use crate::packet::eth::EthHdr;

/// Rewrites the frame for `node`. The caller has set the hop limit.
#[inline(always)]
pub(super) fn l2<P: Packet + ?Sized>(packet: &mut P, node: &Node) -> Option<()> {
    let eth = packet.at_mut::<EthHdr>(0)?;
    eth.dst = node.dst_mac;
    eth.src = node.src_mac;
    Some(())
}
