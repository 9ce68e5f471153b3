//! The contract between the daemon (which writes) and the XDP front (which reads): one file per map.
//!
//! Called by `ingress-ebpf` (which declares the maps) and `ingress-userspace` (which fills them). Layouts are
//! `#[repr(C)]` without padding, integers that come from packets are stored as they stand in the packet (network
//! byte order, [`Be16`], [`Be32`]), everything else in host order. No `bool`, `enum` or `Option` in a map value: any
//! bit pattern that an older or newer daemon left in a pinned map must be readable.
//!
//! Rules that hold for all maps:
//! - Maps are pinned by their name. A daemon that finds a pinned [`Config`] whose `abi_version` is not
//!   [`ABI_VERSION`] must not write into those maps: it makes new ones and replaces the program through its link.
//! - Single fields of an array value may be seen half old, half new by a packet (the kernel copies with `memcpy`),
//!   so no two fields of one value depend on each other being of the same age, unless a comment says how.
//! - Fields called `reserved` are written as zero and not read.

mod addr;
mod config;
mod counter;
mod endian;
mod flow;
mod fragment;
mod guard;
mod heartbeat;
mod mac;
mod node;
mod peer;
mod program;
mod slot;
mod tunnel;
mod vip;
mod vlan;
mod walk;

pub use addr::{ADDRS4, ADDRS6, Addr, MAX_ADDRS};
pub use config::{CONFIG, Config, MAX_UPLINKS, Uplink};
pub use counter::{COUNTERS, Count, NODE_COUNTERS, REASON_SLOTS, VIP_COUNTERS};
pub use endian::{Be16, Be32, Ip4, Ip6};
pub use flow::{DEFAULT_MAX_FLOWS, FLOW_WAYS, FLOWS, FlowSet};
pub use fragment::{FRAGMENTS, Fragment, FragmentKey, MAX_FRAGMENTS};
pub use guard::{
    GUARDS, Guard, MAX_RULES, MAX_SOURCES, RULE_ALLOW, RULE_DENY, RULES, RuleKey, SOURCES, SYN_BUDGETS,
    Source, SourceKey,
};
pub use heartbeat::HEARTBEAT;
pub use mac::Mac;
pub use node::{MAX_NODES, NODES, Node, NodeIndex};
pub use peer::{MAX_PEERS, PEERS, Peer, PeerKey};
pub use program::{
    CALLED, COOKIE, DETOUR, ERRAND, Errand, FRAGMENT, ICMP, PROGRAM, PROGRAM_COOKIE, PROGRAM_DETOUR,
    PROGRAM_FRAGMENT, PROGRAM_ICMP, PROGRAM_RETAG, PROGRAM_TOO_BIG, PROGRAM_WHY, PROGRAMS, RETAG, TOO_BIG,
    Told,
};
pub use slot::{MAX_CANDIDATES, SLOT_PAGE_LEN, SLOT_PAGES, SLOT_TABLES, SLOTS, SLOTS_LEN, Slot, SlotPage};
pub use tunnel::{HEARD, Heard, MAX_TUNNEL_ENDS, TUNNEL_ENDS, TUNNELS, Tunnel, TunnelEnd, TunnelEndKey};
pub use vip::{MAX_VIPS, VIPS4, VIPS6, Vip, VipId, VipKey4, VipKey6};
pub use vlan::Vlan;
pub use walk::{ECHO_BUDGET, WALK_BUDGET, WalkBudget};

/// Version of all layouts in this module together. Raise it with every change of a layout or of a meaning.
pub const ABI_VERSION: u32 = 6;

/// Name of the read-only `u8` in the BPF object that switches logging through aya-log on (1) when it is overridden
/// before loading. Off (0), the verifier removes every trace of it.
pub const GLOBAL_LOG: &str = "BPF_LOG";

/// Declares that a type may be copied byte by byte between user and kernel space, and pins its size.
macro_rules! map_type {
    ($ty:ty, $size:expr) => {
        const _: () = assert!(size_of::<$ty>() == $size, "the size is part of the map ABI");

        // SAFETY: `Copy`, `#[repr(C)]` or `#[repr(transparent)]`, no padding (its `IntoBytes` derive proves it), and
        // any bit pattern is valid (its `FromBytes` derive proves that).
        #[cfg(feature = "user")]
        unsafe impl aya::Pod for $ty {}
    };
}
use map_type;
