//! Maps `WALK_BUDGET`, `ECHO_BUDGET`: how much of its budgets each CPU has used, for walks and for answers to ICMP echo
//! requests. Written by the program only.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::map_type;

/// `PerCpuArray<WalkBudget>` with one element.
pub const WALK_BUDGET: &str = "WALK_BUDGET";

/// `PerCpuArray<WalkBudget>` with one element: the same for answers to echo requests.
pub const ECHO_BUDGET: &str = "ECHO_BUDGET";

/// Value of [`WALK_BUDGET`] and [`ECHO_BUDGET`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct WalkBudget {
    /// When all hand-overs so far will have been paid for, at one per `Config::walk_cost_ns` (`CLOCK_MONOTONIC`, ns); all answers,
    /// at one per `steer::ECHO_COST_NS`.
    pub paid_until_ns: u64,
}
map_type!(WalkBudget, 8);
