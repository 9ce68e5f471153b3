//! Map `FRAGMENTS`: where the first piece of a packet went, for the other pieces, which have no ports. Written by the program
//! only. A cache: a piece whose first one is not known is dropped, and its sender's TCP sends the data again.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Ip6, NodeIndex, map_type};

/// `LruHashMap<FragmentKey, Fragment>`, [`MAX_FRAGMENTS`] entries.
pub const FRAGMENTS: &str = "FRAGMENTS";

/// How many packets in pieces are remembered. Whoever sends more at once pushes out others' pieces, nothing else.
pub const MAX_FRAGMENTS: u32 = 4096;

/// What pieces of one packet have in common (RFC 791, RFC 8200). Aligned as the verifier wants it on the stack, where the
/// compiler writes two words at once.
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
#[repr(C, align(8))]
pub struct FragmentKey {
    /// Sender. IPv4 addresses are IPv4-mapped ones.
    pub src: Ip6,
    /// The VIP.
    pub dst: Ip6,
    /// Identification as it stands in the packet, an IPv4 one as a number.
    pub id: u32,
    /// IP protocol number of what is in pieces.
    pub proto: u32,
}
map_type!(FragmentKey, 40);

/// Value of [`FRAGMENTS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Fragment {
    /// Where the first piece went, the own node included.
    pub node: NodeIndex,
    /// `VipId` of the VIP, or none.
    pub vip: u16,
    /// What the tunnel's source port is made from (`Verdict::detail`).
    pub entropy: u32,
}
map_type!(Fragment, 8);
