//! Choosing among the candidates of a slot.

use crate::abi::{Config, MAX_CANDIDATES, Node, NodeIndex, Slot};

use super::Tables;

/// A node's state as the flags in `NODES` say.
impl Node {
    /// Alive, and there is a way to it.
    #[inline(always)]
    pub(super) fn is_reachable(&self) -> bool {
        self.flags & (Self::ALIVE | Self::WAY) == Self::ALIVE | Self::WAY
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

/// What is asked of a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Question {
    /// Who gets new flows: the first candidate that accepts them; if none does, the first that is there at all.
    NewFlow = 0,
    /// As [`Self::NewFlow`], but this node's own daemon is dead, so it is not in question.
    NewFlowElsewhere = 1,
    /// The first other node by rank.
    FirstOther = 2,
    /// The first other node that ranks behind this one; if this one is no candidate, the first of all.
    BehindOwn = 3,
}

impl Question {
    /// The question with this number.
    #[inline(always)]
    pub const fn from_number(number: u32) -> Self {
        match number {
            0 => Self::NewFlow,
            1 => Self::NewFlowElsewhere,
            2 => Self::FirstOther,
            _ => Self::BehindOwn,
        }
    }
}

/// The node that answers `question` in the slot of the flow hash `hash`, or [`NodeIndex::NONE`].
#[inline(always)]
pub fn choose<T: Tables>(tables: &T, hash: u32, question: Question) -> NodeIndex {
    let Some(config) = tables.config() else { return NodeIndex::NONE };
    let own = config.own_node;
    let Some(slot) = tables.slot(config.active_slots, hash) else { return NodeIndex::NONE };
    match question {
        Question::NewFlow => for_new_flow(tables, slot, own, true),
        Question::NewFlowElsewhere => for_new_flow(tables, slot, own, false),
        Question::FirstOther => next(tables, slot, own, false),
        Question::BehindOwn => next(tables, slot, own, true),
    }
}

#[inline(always)]
fn for_new_flow<T: Tables>(tables: &T, slot: &Slot, own: NodeIndex, own_serves: bool) -> NodeIndex {
    let mut second_best = NodeIndex::NONE;
    for place in 0..MAX_CANDIDATES {
        let index = slot.order[place];
        let Some(node) = tables.node(index) else { break };
        let usable = if index == own { own_serves } else { node.is_reachable() };
        if !usable {
            continue;
        }
        if node.accepts() {
            return index;
        }
        if second_best == NodeIndex::NONE {
            second_best = index;
        }
    }
    second_best
}

#[inline(always)]
fn next<T: Tables>(tables: &T, slot: &Slot, own: NodeIndex, behind_own: bool) -> NodeIndex {
    let mut first = NodeIndex::NONE;
    for place in 0..MAX_CANDIDATES {
        let index = slot.order[place];
        if index == own {
            if behind_own {
                first = NodeIndex::NONE;
            }
            continue;
        }
        let Some(node) = tables.node(index) else { break };
        if first == NodeIndex::NONE && node.is_reachable() {
            first = index;
        }
    }
    first
}
