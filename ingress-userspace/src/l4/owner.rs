//! Which node answers ARP and neighbour solicitations for a VIP: rendezvous hashing over the nodes that may, with a
//! bound on the VIPs per node. A pure function of names and addresses, so that all nodes agree without talking.
//! Moving an owner breaks no connection (every node forwards), so an even spread is worth a few moves.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ingress_common::hash::{NodeKey, mix};

/// All nodes must compute the same, whatever version of Rust built them: the cluster's own hashes.
fn score(vip: IpAddr, node: &str) -> u64 {
    let bits = match vip {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    mix(mix(NodeKey::of(node).0 ^ (bits >> 64) as u64) ^ bits as u64)
}

/// VIPs of one source, and the names of the nodes that may own them.
#[derive(Debug, Default)]
pub(crate) struct Group<'a> {
    pub(crate) vips: Vec<IpAddr>,
    pub(crate) candidates: Vec<&'a str>,
}

/// The owner of each VIP; those of a group are spread evenly over its candidates. Without candidates nobody owns anything.
pub(crate) fn owners<'a>(groups: impl IntoIterator<Item = Group<'a>>) -> BTreeMap<IpAddr, &'a str> {
    let mut owners = BTreeMap::new();
    for Group { mut vips, candidates } in groups {
        vips.sort_unstable();
        vips.dedup();
        // Each owns as many as the others; what does not divide makes one more for some.
        let nodes = candidates.len().max(1);
        let (each, mut spare) = (vips.len() / nodes, vips.len() % nodes);
        let mut owned: BTreeMap<&str, usize> = candidates.iter().map(|name| (*name, 0)).collect();
        for vip in vips {
            let mut ranked = candidates.clone();
            ranked.sort_by_key(|name| (std::cmp::Reverse(score(vip, name)), *name));
            let has_room = |name: &&str| owned[name] < each + usize::from(spare > 0);
            // There is room for all VIPs, so one of them always has some.
            if let Some(owner) = ranked.into_iter().find(has_room) {
                let owned = owned.entry(owner).or_default();
                *owned += 1;
                spare -= usize::from(*owned > each);
                owners.insert(vip, owner);
            }
        }
    }
    owners
}

/// A new owner starts to answer this long after the change that made it one, if the former owner is alive.
const TAKE_AFTER: Duration = Duration::from_millis(500);
/// And the former owner stops then: better two that answer than none, since a client asks again only after 1 s.
const RELEASE_AFTER: Duration = Duration::from_millis(800);
/// To a node that returns from behind a partition, which has been answering all the time, it leaves a VIP sooner: two answer
/// for less time then. Should the other one have been restarted only, and have joined unseen, nobody answers for a moment,
/// which costs less than it takes until a client asks again.
const RELEASE_TO_RETURNED_AFTER: Duration = Duration::from_millis(300);
/// Returning nodes are heard one after the other, and each may move VIPs to one that was heard before.
const RETURNS_FOR: Duration = Duration::from_secs(2);

/// Delays the move of a VIP from a living node to another until the tables of all nodes are of the same age. The
/// former owner remembers the flows; the new one has to look for them along the slots' order, and while two nodes
/// have different orders such a walk can miss the node that it looks for. From a dead node a VIP moves at once.
#[derive(Debug, Default)]
pub(crate) struct Handover {
    /// Who owns what, as this node acts on it.
    current: BTreeMap<IpAddr, String>,
    /// Who shall own it, and since when that is so.
    coming: BTreeMap<IpAddr, (String, Instant)>,
    /// Who returned from behind a partition, and when.
    returned: BTreeMap<String, Instant>,
    /// This node has been there before.
    has_joined: bool,
}

impl Handover {
    /// Goes on where the daemon before left off.
    pub(crate) const fn inherit(current: BTreeMap<IpAddr, String>) -> Self {
        Self { current, coming: BTreeMap::new(), has_joined: true, returned: BTreeMap::new() }
    }

    /// The owners to act on. `target` is what [`owners`] says; `without_self` what it says without this node: a node
    /// that has just come finds its VIPs in others' hands. `returned`: who was behind a
    /// partition until now. `is_up`: whether a node still forwards.
    pub(crate) fn owners(
        &mut self,
        now: Instant,
        own_name: &str,
        target: &BTreeMap<IpAddr, &str>,
        without_self: &BTreeMap<IpAddr, &str>,
        returned: &BTreeSet<String>,
        is_up: impl Fn(&str) -> bool,
    ) -> BTreeMap<IpAddr, String> {
        let is_first = !std::mem::replace(&mut self.has_joined, true);
        self.returned.retain(|_, at| now.saturating_duration_since(*at) < RETURNS_FOR);
        self.returned.extend(returned.iter().map(|name| (name.clone(), now)));
        let mut before = std::mem::take(&mut self.current);
        let mut waiting = std::mem::take(&mut self.coming);
        for (&vip, &owner) in target {
            let former = before
                .remove(&vip)
                .or_else(|| without_self.get(&vip).filter(|_| is_first).map(|former| (*former).to_owned()));
            let Some(former) = former.filter(|former| former != owner && is_up(former)) else {
                self.current.insert(vip, owner.to_owned());
                continue;
            };
            let since =
                waiting.remove(&vip).filter(|(coming, _)| coming == owner).map_or(now, |(_, since)| since);
            let delay = match former == own_name {
                true if self.returned.contains_key(owner) => RELEASE_TO_RETURNED_AFTER,
                true => RELEASE_AFTER,
                false => TAKE_AFTER,
            };
            if now.saturating_duration_since(since) >= delay {
                self.current.insert(vip, owner.to_owned());
            } else {
                self.coming.insert(vip, (owner.to_owned(), since));
                self.current.insert(vip, former);
            }
        }
        self.current.clone()
    }

    /// Whether a move waits for its time.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.coming.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::{Group, Handover};

    fn vips(n: u8) -> Vec<IpAddr> {
        (0..n).map(|i| IpAddr::V4(Ipv4Addr::new(192, 0, 2, i))).collect()
    }

    fn owners<'a>(vips: Vec<IpAddr>, candidates: &[&'a str]) -> BTreeMap<IpAddr, &'a str> {
        super::owners([Group { vips, candidates: candidates.to_vec() }])
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

    const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    /// Who owns the VIP `ms` after the start, as node `own` acts on it, when `target` shall.
    fn step(
        handover: &mut Handover,
        start: Instant,
        ms: u64,
        own: &str,
        target: &str,
        up: &[&str],
    ) -> String {
        let now = start + Duration::from_millis(ms);
        let others = if target == own { BTreeMap::new() } else { BTreeMap::from([(VIP, target)]) };
        let owners =
            handover.owners(now, own, &BTreeMap::from([(VIP, target)]), &others, &BTreeSet::new(), |node| {
                up.contains(&node)
            });
        owners[&VIP].clone()
    }

    #[test]
    fn a_vip_leaves_a_living_node_late_and_with_an_overlap() {
        let start = Instant::now();
        let (mut old, mut new) = (Handover::default(), Handover::default());
        let up = ["a", "b"];
        assert_eq!(step(&mut old, start, 0, "a", "a", &up), "a");
        assert_eq!(step(&mut new, start, 0, "b", "a", &up), "a");
        for (ms, at_old, at_new) in
            [(1000, "a", "a"), (1499, "a", "a"), (1500, "a", "b"), (1799, "a", "b"), (1800, "b", "b")]
        {
            assert_eq!(step(&mut old, start, ms, "a", "b", &up), at_old, "old at {ms}");
            assert_eq!(step(&mut new, start, ms, "b", "b", &up), at_new, "new at {ms}");
        }
        assert!(!old.is_waiting() && !new.is_waiting());
    }

    #[test]
    fn a_dead_nodes_vip_moves_at_once_and_a_change_of_mind_costs_nothing() {
        let start = Instant::now();
        let mut handover = Handover::default();
        step(&mut handover, start, 0, "b", "a", &["a", "b"]);
        assert_eq!(step(&mut handover, start, 10, "b", "b", &["a", "b"]), "a");
        assert!(handover.is_waiting());
        assert_eq!(step(&mut handover, start, 20, "b", "a", &["a", "b"]), "a");
        assert!(!handover.is_waiting());
        assert_eq!(step(&mut handover, start, 30, "b", "b", &["b"]), "b");
    }

    #[test]
    fn a_node_that_has_just_come_finds_its_vips_in_others_hands() {
        let (start, mut handover) = (Instant::now(), Handover::default());
        let target = BTreeMap::from([(VIP, "new")]);
        let others = BTreeMap::from([(VIP, "old")]);
        let at = |handover: &mut Handover, ms| {
            handover.owners(
                start + Duration::from_millis(ms),
                "new",
                &target,
                &others,
                &BTreeSet::new(),
                |_| true,
            )[&VIP]
                .clone()
        };
        assert_eq!(at(&mut handover, 0), "old");
        assert_eq!(at(&mut handover, 500), "new");
        let mut alone = Handover::default();
        assert_eq!(step(&mut alone, start, 0, "new", "new", &["new"]), "new");
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

        /// Each pool is spread evenly over the nodes that it selects, however many others there are, and no other node owns
        /// any of it.
        #[test]
        fn every_pool_is_spread_over_its_own_nodes(
            pools in proptest::collection::vec((0_u8..20, 1_usize..200), 1..6),
            nodes in 1_usize..9,
        ) {
            let names: Vec<String> = (0..nodes).map(|i| format!("node-{i}")).collect();
            let mut groups = Vec::new();
            for (pool, (count, selector)) in pools.iter().enumerate() {
                let vips = (0..*count).map(|i| IpAddr::V4(Ipv4Addr::new(192, 0, pool as u8, i))).collect();
                let selected = names.iter().enumerate().filter(|(i, _)| selector >> i & 1 == 1);
                groups.push(Group { vips, candidates: selected.map(|(_, name)| name.as_str()).collect() });
            }
            let expected: Vec<(Vec<IpAddr>, Vec<&str>)> =
                groups.iter().map(|group| (group.vips.clone(), group.candidates.clone())).collect();
            let owners = super::owners(groups);
            for (vips, candidates) in expected {
                let mut load: BTreeMap<&str, usize> = BTreeMap::new();
                for vip in &vips {
                    match owners.get(vip) {
                        Some(owner) => *load.entry(owner).or_default() += 1,
                        None => prop_assert!(candidates.is_empty(), "nobody owns {vip}"),
                    }
                }
                prop_assert!(load.keys().all(|owner| candidates.contains(owner)), "{load:?} of {candidates:?}");
                let nodes = candidates.len().max(1);
                for name in &candidates {
                    let owned = load.get(name).copied().unwrap_or_default();
                    prop_assert!(owned >= vips.len() / nodes && owned <= vips.len().div_ceil(nodes), "{load:?}");
                }
            }
        }
    }

    /// When a node goes, those that it owned move; few others do: as many as keep the spread even.
    #[test]
    fn few_vips_move_when_a_node_goes() {
        let (mut all, mut needless) = (0, 0);
        for nodes in 2..9 {
            let names: Vec<String> = (0..nodes).map(|i| format!("node-{i}")).collect();
            let before: Vec<&str> = names.iter().map(String::as_str).collect();
            for (n, gone) in (1..60).flat_map(|n| (0..nodes).map(move |gone| (n, gone))) {
                let mut after = before.clone();
                let gone = after.remove(gone);
                let (old, new) = (owners(vips(n), &before), owners(vips(n), &after));
                all += old.len();
                needless += old.iter().filter(|(vip, owner)| **owner != gone && new[vip] != **owner).count();
            }
        }
        println!("one node of 2 to 8 goes: {needless} of {all} VIPs move that were not its own");
        assert!(needless * 5 <= all, "{needless} of {all} move needlessly");
    }
}
