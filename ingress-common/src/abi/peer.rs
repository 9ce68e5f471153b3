//! Map `PEERS`: by which source MAC addresses packets come that another node of the cluster has handed over. Written
//! by the daemon: every MAC address that a peer may use as [`super::Node::src_mac`] towards us.
//!
//! Handing over rewrites the source MAC address to the sending node's, and lowers the hop limit to at most
//! `steer::HOP_STEERED`; a packet with a higher one is never taken for a peer's, so hosts that happen to be nodes too may
//! be clients.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Mac, NodeIndex, map_type};

/// `HashMap<PeerKey, Peer>`, [`MAX_PEERS`] entries.
pub const PEERS: &str = "PEERS";

/// How many MAC addresses of peers: several uplinks per node.
pub const MAX_PEERS: u32 = 4096;

/// Key of [`PEERS`].
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
#[repr(C)]
pub struct PeerKey {
    /// Source address of the frame.
    pub mac: Mac,
    /// Zero.
    pub reserved: u16,
}
map_type!(PeerKey, 8);

/// Value of [`PEERS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Peer {
    /// Whose address this is.
    pub node: NodeIndex,
    /// Zero.
    pub reserved: u16,
}
map_type!(Peer, 4);
