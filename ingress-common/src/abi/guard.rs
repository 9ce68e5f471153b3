//! Maps of the protection of VIPs. Written by the daemon: `GUARDS` (limits by VIP) and `RULES` (whose packets a VIP takes).
//! Written by the program: `SOURCES` (what each source has used of its limit) and `SYN_BUDGETS` (what each VIP has used of what
//! it takes before SYNs are answered with cookies). None is asked for a VIP without the flag for it (`Vip::flags`).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Ip6, map_type};

/// `Array<Guard>` with [`super::MAX_VIPS`] elements, by [`super::VipId`].
pub const GUARDS: &str = "GUARDS";
/// `LpmTrie<RuleKey, u32>`, [`MAX_RULES`] entries: [`RULE_ALLOW`] or [`RULE_DENY`]. What the longest prefix says, counts.
pub const RULES: &str = "RULES";
/// `LruHashMap<SourceKey, Source>`, [`MAX_SOURCES`] entries.
pub const SOURCES: &str = "SOURCES";
/// `PerCpuArray<WalkBudget>` with [`super::MAX_VIPS`] elements, by [`super::VipId`].
pub const SYN_BUDGETS: &str = "SYN_BUDGETS";

/// Networks in the lists of all VIPs together. Memory is taken as they are written (about 64 bytes each).
pub const MAX_RULES: u32 = 1 << 17;
/// Sources that are remembered at once; the one that was quiet for longest is forgotten.
pub const MAX_SOURCES: u32 = 1 << 16;

/// Value of [`RULES`]: packets from there are taken.
pub const RULE_ALLOW: u32 = 1;
/// Value of [`RULES`]: packets from there are dropped.
pub const RULE_DENY: u32 = 2;

/// Value of [`GUARDS`]. A cost of 0: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Guard {
    /// What a new connection costs its source: 1e9 / (connections per second), in ns.
    pub flow_cost_ns: u64,
    /// How much a quiet source may have saved, in ns.
    pub flow_burst_ns: u64,
    /// What a SYN costs its VIP on each CPU: 1e9 × CPUs / (SYNs per second), in ns.
    pub syn_cost_ns: u64,
    /// How much a quiet VIP may have saved on each CPU, in ns.
    pub syn_burst_ns: u64,
}
map_type!(Guard, 32);

/// Key of [`RULES`], behind the length of its prefix in bits: the VIP's 32 and the network's.
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
pub struct RuleKey {
    /// [`super::VipId`].
    pub vip: u32,
    /// The network; an IPv4 one mapped, with 96 bits more.
    pub addr: Ip6,
}
map_type!(RuleKey, 20);

impl RuleKey {
    /// Bits of the key in front of the address.
    pub const VIP_BITS: u32 = 32;
    /// Bits of a whole key.
    pub const BITS: u32 = Self::VIP_BITS + 128;
}

/// Key of [`SOURCES`].
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
pub struct SourceKey {
    /// [`super::VipId`].
    pub vip: u32,
    /// Zero.
    pub reserved: u32,
    /// An IPv4 address, mapped; of an IPv6 address the first 64 bits: whoever has one address there has them all.
    pub addr: Ip6,
}
map_type!(SourceKey, 24);

/// Value of [`SOURCES`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Source {
    /// When all its connections so far will have been paid for (`CLOCK_MONOTONIC`, ns).
    pub paid_until_ns: u64,
}
map_type!(Source, 8);
