//! Map `WALK_BUDGET`: how much of its budget for walks each CPU has used. Written by the program only.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::map_type;

/// `PerCpuArray<WalkBudget>` with one element.
pub const WALK_BUDGET: &str = "WALK_BUDGET";

/// Value of [`WALK_BUDGET`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct WalkBudget {
    /// When all hand-overs so far will have been paid for, at one per `Config::walk_cost_ns` (`CLOCK_MONOTONIC`, ns).
    pub paid_until_ns: u64,
}
map_type!(WalkBudget, 8);
