//! Map `NODES`: every node of the cluster as this node sees it, and how to reach it. Written by the daemon from the
//! membership and from the kernel's routes and neighbours; the program makes no route look-up of its own.
//!
//! A node's place is this node's own affair (other nodes may number differently) and stays the same while the node is
//! known: slots and remembered flows name it. Do not give a place to another node while free places are left.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Mac, Vlan, map_type};

/// `Array<Node>` with [`MAX_NODES`] elements.
pub const NODES: &str = "NODES";

/// How many nodes a cluster may have.
pub const MAX_NODES: u32 = 1024;

/// Place of a node in [`NODES`] and [`super::NODE_COUNTERS`].
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(transparent)]
pub struct NodeIndex(pub u16);
map_type!(NodeIndex, 2);

impl NodeIndex {
    /// No node.
    pub const NONE: Self = Self(u16::MAX);
}

/// Value of [`NODES`]. All zeroes: nobody is here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Node {
    /// [`Node::ALIVE`], [`Node::DRAINING`], [`Node::WAY`], [`Node::GUE`]. A packet goes only to a node that is alive and
    /// has a way, or is the own one. Clearing `ALIVE` takes a dead node out at once, before any slot is
    /// rewritten; the own node has `ALIVE` too.
    pub flags: u32,
    /// Interface towards the node; where it is reached by a VLAN, the one that carries the VLAN. The packet leaves by `XDP_TX` when it came in there, else by redirect.
    pub ifindex: u32,
    /// Next hop's MAC address (on a common link the peer's own): it becomes the destination of the frame.
    pub dst_mac: Mac,
    /// MAC address of the interface `ifindex`: it becomes the source of the frame, by which the peer knows us.
    pub src_mac: Mac,
    /// `hash::NodeKey` of the node's name, low word first. Not read by the program: a restarted daemon sees by it who
    /// has which place, so that remembered flows stay right.
    pub key: [u32; 2],
    /// Tags of the frames to it.
    pub vlan: Vlan,
}
map_type!(Node, 32);

impl Node {
    /// Flag: takes part; its established flows get their packets.
    pub const ALIVE: u32 = 1;
    /// Flag: takes no new flows. Also set for a node that joins, until every node knows it: a flow that it got earlier
    /// could not be found from a node that has never heard of it (the simulator shows it).
    pub const DRAINING: u32 = 2;
    /// Flag: there is a way to it: `ifindex`, `dst_mac`, `src_mac` are filled.
    pub const WAY: u32 = 4;
    /// Flag: the way leads through a router. The packet goes as [`super::TUNNELS`] says.
    pub const GUE: u32 = 8;
}
