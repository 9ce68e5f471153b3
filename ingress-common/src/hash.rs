//! The hashes on which all nodes must agree: of a flow (which slot), of a node's name (its place in the ranking). Used by
//! `steer` in the kernel and by `rank` in the daemon. Not cryptographic.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::abi::{Be16, Ip4, Ip6};

/// 64 bits that stand for a node's name in the ranking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeKey(pub u64);

impl NodeKey {
    /// The key of the node with this name: FNV-1a, then mixed.
    pub fn of(name: &str) -> Self {
        let fnv = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Self(mix(fnv))
    }
}

/// Spreads every bit of the input over all bits of the output, one to one (the finisher of `MurmurHash3`).
#[inline(always)]
pub const fn mix(x: u64) -> u64 {
    let x = (x ^ x >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let x = (x ^ x >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ x >> 33
}

/// What the words of a flow are mixed with: the cluster's 64-bit key, expanded. Part of [`crate::abi::Config`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct FlowKey([u32; 10]);

impl FlowKey {
    /// Of the cluster's key.
    pub fn of(key: u64) -> Self {
        Self(core::array::from_fn(|word| {
            mix(key ^ (word as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)) as u32
        }))
    }

    /// Two words of a flow: a term of NH, the universal hash inside UMAC (RFC 4418). Whoever does not know the key
    /// cannot make two flows collide but by trying 2^32. The terms are independent, so a CPU computes them at once.
    #[inline(always)]
    fn term(&self, place: usize, a: u32, b: u32) -> u64 {
        let [a, b] = [a.wrapping_add(self.0[place]), b.wrapping_add(self.0[place + 1])];
        u64::from(a).wrapping_mul(u64::from(b))
    }

    /// Hash of an IPv4 flow.
    #[inline(always)]
    pub fn flow4(&self, src: Ip4, dst: Ip4, src_port: Be16, dst_port: Be16) -> FlowHash {
        FlowHash(mix(self.term(0, src.get(), dst.get()).wrapping_add(self.ports(src_port, dst_port))))
    }

    /// Hash of an IPv6 flow.
    #[inline(always)]
    pub fn flow6(&self, src: &Ip6, dst: &Ip6, src_port: Be16, dst_port: Be16) -> FlowHash {
        let src_words = self.term(0, src.0[0].get(), src.0[1].get()).wrapping_add(self.term(
            2,
            src.0[2].get(),
            src.0[3].get(),
        ));
        let dst_words = self.term(4, dst.0[0].get(), dst.0[1].get()).wrapping_add(self.term(
            6,
            dst.0[2].get(),
            dst.0[3].get(),
        ));
        FlowHash(mix(src_words.wrapping_add(dst_words).wrapping_add(self.ports(src_port, dst_port))))
    }

    #[inline(always)]
    fn ports(&self, src_port: Be16, dst_port: Be16) -> u64 {
        self.term(8, u32::from(src_port.get()), u32::from(dst_port.get()))
    }
}

/// Hash of a flow. The upper half names its slot, the rest its place in the flow table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowHash(pub u64);

impl FlowHash {
    /// What `steer::choose` takes.
    #[inline(always)]
    pub const fn slot(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// For the outer source port of a tunnel: routers and network cards then spread tunnelled flows as they would the flows.
    #[inline(always)]
    pub const fn entropy(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nodes of different versions must agree, so these values never change.
    #[test]
    fn known_values() {
        assert_eq!(NodeKey::of("node-a"), NodeKey(0x48e8_6629_c152_a3f3));
        let (src, dst, ports) = (0x0a00_0001, 0xc000_0207, (Be16::new(40_000), Be16::new(443)));
        let key = FlowKey::of(7);
        assert_eq!(
            key.flow4(Ip4::new(src), Ip4::new(dst), ports.0, ports.1),
            FlowHash(16_780_876_499_690_966_689)
        );
        let v6 = |last| Ip6([0x2001_0db8, 0, 1, last].map(Ip4::new));
        assert_eq!(key.flow6(&v6(src), &v6(dst), ports.0, ports.1), FlowHash(11_484_466_024_060_539_221));
    }

    #[test]
    fn source_ports_of_one_client_spread_over_the_slots() {
        let mut used = [false; 256];
        for port in 0..2048 {
            let hash = FlowKey::of(0).flow4(Ip4::new(1), Ip4::new(2), Be16::new(port), Be16::new(80));
            used[(hash.slot() & 0xff) as usize] = true;
        }
        let count = used.iter().filter(|used| **used).count();
        assert!(count > 250, "only {count} of 256");
    }
}
