//! Handing a packet over to another node: on the same link by rewriting its MAC addresses, else through a tunnel. The payload
//! and everything above the hop limit stay as the client sent them, so the node that has the socket sees client and VIP.

use crate::abi::{Node, Vlan};
use crate::packet::Packet;
use crate::packet::eth::EthHdr;

use super::tcp::At;
use super::{Action, Verdict};

/// Completes `verdict` about the packet `at`, which goes to `node`: out of the right interface, or into the tunnel. The caller
/// has set the hop limit.
#[inline(always)]
pub(super) fn to<P: Packet + ?Sized>(
    packet: &mut P,
    node: &Node,
    at: &At,
    entropy: u32,
    verdict: Verdict,
) -> Verdict {
    if node.flags & Node::GUE != 0 {
        return Verdict { action: Action::Encapsulate, detail: entropy, ..verdict };
    }
    let written = l2(packet, node);
    debug_assert!(written.is_some(), "the headers were read before");
    leave(node, at.vlan, at.ifindex, verdict)
}

/// Completes `verdict` about a frame that is as `node` shall get it but for its tags, which are those of `vlan`.
#[inline(always)]
pub(super) fn leave(node: &Node, vlan: Vlan, ifindex: u32, verdict: Verdict) -> Verdict {
    let detail = node.vlan.0 ^ vlan.0;
    if node.ifindex == ifindex {
        Verdict { action: Action::Transmit, detail, ..verdict }
    } else {
        Verdict { action: Action::Redirect, ifindex: node.ifindex, detail, ..verdict }
    }
}

#[inline(always)]
fn l2<P: Packet + ?Sized>(packet: &mut P, node: &Node) -> Option<()> {
    let eth = packet.at_mut::<EthHdr>(0)?;
    eth.dst = node.dst_mac;
    eth.src = node.src_mac;
    Some(())
}
