//! Choosing among the candidates of a slot.

use crate::abi::{Config, MAX_CANDIDATES, Node, NodeIndex, Slot};

use super::Tables;

/// A node's state as the flags in `NODES` say.
impl Node {
    /// Alive, and there is a way to it.
    #[inline(always)]
    pub(super) fn is_reachable(&self) -> bool {
        self.flags & (Self::ALIVE | Self::L2) == Self::ALIVE | Self::L2
    }

    /// Takes new flows.
    #[inline(always)]
    pub(super) fn accepts(&self) -> bool {
        self.flags & (Self::ALIVE | Self::DRAINING) == Self::ALIVE
    }
}

/// The daemon of this node is at work: its router can take new flows.
#[inline(always)]
pub(super) fn own_daemon_lives<T: Tables>(tables: &T, config: &Config) -> bool {
    config.heartbeat_timeout_ns == 0
        || tables.now_ns().saturating_sub(tables.heartbeat_ns()) <= config.heartbeat_timeout_ns
}

/// Where a new flow goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Choice {
    /// This node.
    Own,
    /// Another one.
    Peer(NodeIndex),
    /// There is nobody.
    Nobody,
}

/// The first candidate that accepts new flows; if none does, the first that is there at all. The own node is in question
/// only if `own_serves`.
#[inline(always)]
pub(super) fn for_new_flow<T: Tables>(tables: &T, slot: &Slot, own: NodeIndex, own_serves: bool) -> Choice {
    let mut second_best = Choice::Nobody;
    for place in 0..MAX_CANDIDATES {
        let index = slot.order[place];
        let Some(node) = tables.node(index) else { break };
        let choice = if index == own { Choice::Own } else { Choice::Peer(index) };
        let usable = if index == own { own_serves } else { node.is_reachable() };
        if !usable {
            continue;
        }
        if node.accepts() {
            return choice;
        }
        if second_best == Choice::Nobody {
            second_best = choice;
        }
    }
    second_best
}

/// The first other candidate that can be reached, by rank; `after_own`: only those that rank behind this node, if it is a
/// candidate itself.
#[inline(always)]
pub(super) fn next<T: Tables>(tables: &T, slot: &Slot, own: NodeIndex, after_own: bool) -> Option<NodeIndex> {
    let mut first = None;
    for place in 0..MAX_CANDIDATES {
        let index = slot.order[place];
        if index == own {
            if after_own {
                first = None;
            }
            continue;
        }
        let Some(node) = tables.node(index) else { break };
        if first.is_none() && node.is_reachable() {
            first = Some(index);
        }
    }
    first
}
