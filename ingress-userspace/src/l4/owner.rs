//! Which node answers ARP and neighbour solicitations for a VIP: rendezvous hashing over the nodes that may, with a
//! bound on the VIPs per node. A pure function of names and addresses, so that all nodes agree without talking.
//! Moving an owner breaks no connection (every node forwards), so an even spread is worth a few moves.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ingress_common::hash::{NodeKey, mix};

/// All nodes must compute the same, whatever version of Rust built them: the cluster's own hashes.
fn score(vip: IpAddr, node: &str) -> u64 {
    let bits = match vip {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    mix(mix(NodeKey::of(node).0 ^ (bits >> 64) as u64) ^ bits as u64)
}

/// The owner of each VIP. Without candidates nobody owns anything.
pub(crate) fn owners<'a>(
    vips: impl IntoIterator<Item = IpAddr>,
    candidates: &[&'a str],
) -> BTreeMap<IpAddr, &'a str> {
    let mut vips: Vec<IpAddr> = vips.into_iter().collect();
    vips.sort_unstable();
    vips.dedup();
    let mut owners = BTreeMap::new();
    if candidates.is_empty() {
        return owners;
    }
    let bound = vips.len().div_ceil(candidates.len());
    let mut owned: BTreeMap<&str, usize> = candidates.iter().map(|name| (*name, 0)).collect();
    for vip in vips {
        let mut ranked = candidates.to_vec();
        ranked.sort_by_key(|name| (std::cmp::Reverse(score(vip, name)), *name));
        // The bound times the nodes covers all VIPs, so one of them always has room.
        if let Some(owner) = ranked.into_iter().find(|name| owned[name] < bound) {
            *owned.entry(owner).or_default() += 1;
            owners.insert(vip, owner);
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::{IpAddr, Ipv4Addr};

    use proptest::prelude::*;

    use super::owners;

    fn vips(n: u8) -> Vec<IpAddr> {
        (0..n).map(|i| IpAddr::V4(Ipv4Addr::new(192, 0, 2, i))).collect()
    }

    #[test]
    fn nobody_owns_without_candidates() {
        assert!(owners(vips(3), &[]).is_empty());
    }

    #[test]
    fn the_order_of_input_does_not_matter() {
        let mut backwards = vips(9);
        backwards.reverse();
        assert_eq!(owners(vips(9), &["a", "b", "c"]), owners(backwards, &["c", "a", "b"]));
    }

    proptest! {
        #[test]
        fn every_vip_has_one_owner_and_the_spread_is_even(n in 0_u8..60, nodes in 1_usize..9) {
            let names: Vec<String> = (0..nodes).map(|i| format!("node-{i}")).collect();
            let candidates: Vec<&str> = names.iter().map(String::as_str).collect();
            let owners = owners(vips(n), &candidates);
            prop_assert_eq!(owners.len(), usize::from(n));
            let mut load = BTreeMap::new();
            for owner in owners.values() {
                *load.entry(*owner).or_insert(0_usize) += 1;
            }
            let most = usize::from(n).div_ceil(nodes);
            prop_assert!(load.values().all(|l| *l <= most), "{load:?}");
        }

        /// When a node goes, those that it owned move; few others do.
        #[test]
        fn few_vips_move_when_a_node_goes(n in 1_u8..60, nodes in 2_usize..9, gone in 0_usize..9) {
            let names: Vec<String> = (0..nodes).map(|i| format!("node-{i}")).collect();
            let before: Vec<&str> = names.iter().map(String::as_str).collect();
            let mut after = before.clone();
            let gone = after.remove(gone % nodes);
            let (old, new) = (owners(vips(n), &before), owners(vips(n), &after));
            let others_moved = old.iter().filter(|(vip, owner)| **owner != gone && new[vip] != **owner).count();
            let bound = usize::from(n).div_ceil(nodes);
            prop_assert!(others_moved <= bound * 2, "{others_moved} moved needlessly of {n} on {nodes}");
        }
    }
}
