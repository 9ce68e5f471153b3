//! The hashes on which all nodes must agree: of a flow (which slot), of a node's name (its place in the ranking). Used by
//! `steer` in the kernel and by `rank` in the daemon. Not cryptographic.

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

/// Hash of an IPv4 flow under the cluster's key.
#[inline(always)]
pub fn flow4(key: u64, src: Ip4, dst: Ip4, src_port: Be16, dst_port: Be16) -> u32 {
    let hash = mix(key ^ pair(src.get(), dst.get()));
    finish(key, hash, src_port, dst_port)
}

/// Hash of an IPv6 flow under the cluster's key.
#[inline(always)]
pub fn flow6(key: u64, src: &Ip6, dst: &Ip6, src_port: Be16, dst_port: Be16) -> u32 {
    let hash = mix(key ^ pair(src.0[0].get(), src.0[1].get()));
    let hash = mix(hash ^ pair(src.0[2].get(), src.0[3].get()));
    let hash = mix(hash ^ pair(dst.0[0].get(), dst.0[1].get()));
    let hash = mix(hash ^ pair(dst.0[2].get(), dst.0[3].get()));
    finish(key, hash, src_port, dst_port)
}

#[inline(always)]
fn finish(key: u64, hash: u64, src_port: Be16, dst_port: Be16) -> u32 {
    let ports = u64::from(src_port.get()) << 16 | u64::from(dst_port.get());
    (mix(hash ^ ports.wrapping_add(key.rotate_left(32))) >> 32) as u32
}

#[inline(always)]
fn pair(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nodes of different versions must agree, so these values never change.
    #[test]
    fn known_values() {
        assert_eq!(NodeKey::of("node-a"), NodeKey(0x48e8_6629_c152_a3f3));
        let hash = flow4(7, Ip4::new(0x0a00_0001), Ip4::new(0xc000_0207), Be16::new(40_000), Be16::new(443));
        assert_eq!(hash, 0xc7f0_b67d);
    }

    #[test]
    fn source_ports_of_one_client_spread_over_the_slots() {
        let mut used = [false; 256];
        for port in 0..2048 {
            let hash = flow4(0, Ip4::new(1), Ip4::new(2), Be16::new(port), Be16::new(80));
            used[(hash & 0xff) as usize] = true;
        }
        let count = used.iter().filter(|used| **used).count();
        assert!(count > 250, "only {count} of 256");
    }
}
