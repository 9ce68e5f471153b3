//! Map `SLOTS`: two tables of ranked candidates, one in use, one to write into. Written by the daemon from
//! `rank::build_table`; [`super::Config::active_slots`] says which one packets use.
//!
//! Table `t`, slot `s` (`hash & 0xffff`) is element `s % 256` of page `t * 256 + s / 256`, so a whole table takes 256
//! map updates (or one batch update), and a page that did not change need not be written to a table that has it.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{NodeIndex, map_type};

/// `Array<SlotPage>` with [`SLOT_TABLES`] × [`SLOT_PAGES`] elements.
pub const SLOTS: &str = "SLOTS";

/// Slots of one table.
pub const SLOTS_LEN: usize = 65_536;
/// Slots of one page (one map element).
pub const SLOT_PAGE_LEN: usize = 256;
/// Pages of one table.
pub const SLOT_PAGES: usize = SLOTS_LEN / SLOT_PAGE_LEN;
/// Tables in the map.
pub const SLOT_TABLES: usize = 2;
/// Room for candidates in a slot. How many of them are used (K) is the daemon's choice.
pub const MAX_CANDIDATES: usize = 8;

/// The candidates of a slot, best rank first; draining nodes included, dead ones left out. Unused places last,
/// [`NodeIndex::NONE`]. New flows go to the first that is alive and not draining by [`super::NODES`] (so a drain needs no
/// new table), walks go along the ranks: any two nodes stand in the same order in every table, whatever its age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Slot {
    /// Places in [`super::NODES`].
    pub order: [NodeIndex; MAX_CANDIDATES],
}
map_type!(Slot, 2 * MAX_CANDIDATES);

impl Slot {
    /// A slot without candidates: its packets stay on the node that gets them.
    pub const EMPTY: Self = Self { order: [NodeIndex::NONE; MAX_CANDIDATES] };
}

impl Default for Slot {
    fn default() -> Self {
        Self::EMPTY
    }
}

/// One element of [`SLOTS`].
pub type SlotPage = [Slot; SLOT_PAGE_LEN];

const _: () = assert!(size_of::<SlotPage>() == 4096, "the size is part of the map ABI");
