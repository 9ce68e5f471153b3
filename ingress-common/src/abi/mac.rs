//! An Ethernet address. Used in map values and by the packet views.

use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute};

use super::map_type;

/// An Ethernet (MAC) address, in the order of the wire. Three 16-bit words, because the Ethernet header of a packet
/// is aligned to two bytes and the BPF target splits what it cannot prove aligned.
#[derive(
    Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Mac([u16; 3]);
map_type!(Mac, 6);

impl Mac {
    /// All ones: the address of everybody on the link.
    pub const BROADCAST: Self = Self([0xffff; 3]);

    /// From the bytes in the order of the wire.
    pub const fn new(bytes: [u8; 6]) -> Self {
        transmute!(bytes)
    }

    /// The bytes in the order of the wire.
    pub const fn octets(self) -> [u8; 6] {
        transmute!(self)
    }

    /// From three native 16-bit words as they stand in the packet.
    pub const fn from_words(words: [u16; 3]) -> Self {
        Self(words)
    }

    /// Three native 16-bit words as they stand in the packet.
    pub const fn words(self) -> [u16; 3] {
        self.0
    }
}

impl From<[u8; 6]> for Mac {
    fn from(bytes: [u8; 6]) -> Self {
        Self::new(bytes)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for byte in self.octets() {
            write!(f, "{separator}{byte:02x}")?;
            separator = ":";
        }
        Ok(())
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
