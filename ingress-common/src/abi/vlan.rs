//! The VLAN of a frame or of a way, in map values ([`super::Node`]) and in what is read of a frame.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Be16, map_type};

/// Up to two tags, the inner one in the low half; zero: none. A half is the tag's VLAN number, with [`Vlan::QINQ`] for a tag
/// of 802.1ad. Priorities are not in it: they are the frame's affair. A tag with number 0 (only a priority) counts as none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Vlan(pub u32);
map_type!(Vlan, 4);

impl Vlan {
    /// Untagged.
    pub const NONE: Self = Self(0);
    /// Flag of a half: the tag's Ethertype is that of 802.1ad, not 802.1Q.
    pub const QINQ: u16 = 0x8000;
    /// The VLAN number's bits.
    pub const NUMBER: u16 = 0x0fff;
    /// How many tags fit.
    pub const MAX_TAGS: usize = 2;

    /// With one more tag, inside of those that are there: its tag control information, and whether it is 802.1ad's.
    #[inline(always)]
    #[must_use]
    pub const fn with(self, tci: Be16, is_qinq: bool) -> Self {
        let number = tci.get() & Self::NUMBER;
        Self(self.0 << 16 | (number | if is_qinq { Self::QINQ } else { 0 }) as u32)
    }

    /// The outer of two tags, or 0.
    #[inline(always)]
    pub const fn outer(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// The inner of two tags, or the only one, or 0.
    #[inline(always)]
    pub const fn inner(self) -> u16 {
        self.0 as u16
    }
}
