//! Views of packet headers: fixed layouts over the bytes of a frame, nothing copied, nothing trusted.
//!
//! [`Packet`] is what the decision knows of a frame: "give me a header at this offset, if it is there". The XDP program
//! implements it over the kernel's buffer, tests over a byte slice. Nothing here panics on any bytes.

pub mod arp;
pub mod eth;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod ndp;
pub mod tcp;
pub mod udp;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What a header view must be: any bytes are a valid value, at any address.
pub trait View: FromBytes + IntoBytes + KnownLayout + Immutable + Unaligned {}
impl<T: FromBytes + IntoBytes + KnownLayout + Immutable + Unaligned> View for T {}

/// The bytes of a frame, from the Ethernet header on.
pub trait Packet {
    /// Length of the frame in bytes.
    fn len(&self) -> usize;

    /// Whether there is no byte at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The header at `offset`, if the frame is long enough for it.
    fn at<T: View>(&self, offset: usize) -> Option<&T>;

    /// The header at `offset` to write to, if the frame is long enough for it.
    fn at_mut<T: View>(&mut self, offset: usize) -> Option<&mut T>;
}

/// A frame that can grow and shrink.
pub trait Resize: Packet {
    /// Adds `bytes` bytes in front, with any content. `None`: there is no room, and nothing has changed.
    fn add_head(&mut self, bytes: usize) -> Option<()>;

    /// Removes `bytes` bytes in front. `None`: there are not as many, and nothing has changed.
    fn remove_head(&mut self, bytes: usize) -> Option<()>;

    /// Keeps the first `len` bytes. `None`: there are not as many, and nothing has changed.
    fn cut(&mut self, len: usize) -> Option<()>;
}

impl Packet for [u8] {
    fn len(&self) -> usize {
        self.len()
    }

    fn at<T: View>(&self, offset: usize) -> Option<&T> {
        T::ref_from_prefix(self.get(offset..)?).ok().map(|(view, _)| view)
    }

    fn at_mut<T: View>(&mut self, offset: usize) -> Option<&mut T> {
        T::mut_from_prefix(self.get_mut(offset..)?).ok().map(|(view, _)| view)
    }
}
