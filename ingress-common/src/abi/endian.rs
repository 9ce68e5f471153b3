//! Integers and addresses as they stand in a packet. Used in map keys and by the packet views: the type says the
//! byte order, so that a port cannot be compared with its mirror image. Must not do arithmetic.

use core::net::{Ipv4Addr, Ipv6Addr};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::map_type;

/// A 16-bit integer in network byte order (a port, a length).
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
#[repr(transparent)]
pub struct Be16(u16);
map_type!(Be16, 2);

impl Be16 {
    /// From a value in host order.
    pub const fn new(host: u16) -> Self {
        Self(host.to_be())
    }

    /// The value in host order.
    pub const fn get(self) -> u16 {
        u16::from_be(self.0)
    }

    /// From the two bytes as they stand in the packet, read as a native integer.
    pub const fn from_raw(raw: u16) -> Self {
        Self(raw)
    }

    /// The two bytes as they stand in the packet, as a native integer.
    pub const fn raw(self) -> u16 {
        self.0
    }
}

/// A 32-bit integer in network byte order.
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
#[repr(transparent)]
pub struct Be32(u32);
map_type!(Be32, 4);

impl Be32 {
    /// From a value in host order.
    pub const fn new(host: u32) -> Self {
        Self(host.to_be())
    }

    /// The value in host order.
    pub const fn get(self) -> u32 {
        u32::from_be(self.0)
    }

    /// From the four bytes as they stand in the packet, read as a native integer.
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// The four bytes as they stand in the packet, as a native integer.
    pub const fn raw(self) -> u32 {
        self.0
    }
}

/// An IPv4 address as it stands in the packet.
pub type Ip4 = Be32;

impl From<Ipv4Addr> for Be32 {
    fn from(addr: Ipv4Addr) -> Self {
        Self::new(addr.to_bits())
    }
}

impl From<Ip4> for Ipv4Addr {
    fn from(addr: Ip4) -> Self {
        Self::from_bits(addr.get())
    }
}

/// An IPv6 address as it stands in the packet.
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
pub struct Ip6(pub [Be32; 4]);
map_type!(Ip6, 16);

impl From<Ipv6Addr> for Ip6 {
    fn from(addr: Ipv6Addr) -> Self {
        let bits = addr.to_bits();
        Self([96, 64, 32, 0].map(|shift| Be32::new((bits >> shift) as u32)))
    }
}

impl Ip6 {
    /// `addr` as an IPv4-mapped IPv6 address (`::ffff:a.b.c.d`).
    #[inline(always)]
    pub const fn mapped(addr: Ip4) -> Self {
        Self([Be32::new(0), Be32::new(0), Be32::new(0xffff), addr])
    }
}

impl From<Ip6> for Ipv6Addr {
    fn from(addr: Ip6) -> Self {
        let [a, b, c, d] = addr.0.map(|word| u128::from(word.get()));
        Self::from_bits(a << 96 | b << 64 | c << 32 | d)
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes as _;

    use super::*;

    #[test]
    fn bytes_stand_as_in_the_packet() {
        assert_eq!(Be16::new(443).as_bytes(), [1, 187]);
        assert_eq!(Ip4::from(Ipv4Addr::new(192, 0, 2, 7)).as_bytes(), [192, 0, 2, 7]);
        let addr: Ipv6Addr = "2001:db8:1:2:3:4:5:6".parse().expect("a good address");
        assert_eq!(Ip6::from(addr).as_bytes(), addr.octets());
        assert_eq!(Ipv6Addr::from(Ip6::from(addr)), addr);
    }
}
