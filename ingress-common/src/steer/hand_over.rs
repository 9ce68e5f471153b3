//! Handing a packet over to another node: on the same link by rewriting its MAC addresses, else through a tunnel. The payload
//! and everything above the hop limit stay as the client sent them, so the node that has the socket sees client and VIP.

use crate::abi::Node;
use crate::packet::Packet;
use crate::packet::eth::EthHdr;

use super::{Action, Verdict};

/// Completes `verdict` about a packet that came in by `ifindex` and goes to `node`: out of the right interface, or into the
/// tunnel. The caller has set the hop limit.
#[inline(always)]
pub(super) fn to<P: Packet + ?Sized>(
    packet: &mut P,
    node: &Node,
    ifindex: u32,
    entropy: u32,
    verdict: Verdict,
) -> Verdict {
    if node.flags & Node::GUE != 0 {
        return Verdict { action: Action::Encapsulate, detail: entropy, ..verdict };
    }
    let written = l2(packet, node);
    debug_assert!(written.is_some(), "the headers were read before");
    if node.ifindex == ifindex {
        Verdict { action: Action::Transmit, ..verdict }
    } else {
        Verdict { action: Action::Redirect, ifindex: node.ifindex, ..verdict }
    }
}

#[inline(always)]
fn l2<P: Packet + ?Sized>(packet: &mut P, node: &Node) -> Option<()> {
    let eth = packet.at_mut::<EthHdr>(0)?;
    eth.dst = node.dst_mac;
    eth.src = node.src_mac;
    Some(())
}
