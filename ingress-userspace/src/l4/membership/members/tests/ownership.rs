//! What a partition does to the owners of VIPs: each half answers for all of them, and when it ends, two that answer for one
//! are soon one again, without a moment in which nobody does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use super::{Liveness, World, names};
use crate::l4::engine::returned;
use crate::l4::owner::{Group, Handover, owners};

/// One node as `engine` and `sync` act on what the membership says.
#[derive(Default)]
struct Owner {
    handover: Handover,
    before: Option<BTreeMap<String, Liveness>>,
    owners: BTreeMap<IpAddr, String>,
}

fn vips() -> Vec<IpAddr> {
    (0..12).map(|i| IpAddr::from([192, 0, 2, i])).collect()
}

struct Cluster {
    world: World,
    nodes: BTreeMap<String, Owner>,
}

impl Cluster {
    fn step(&mut self) {
        self.world.step();
        for (own, members) in &self.world.nodes {
            let view = members.view();
            let node = self.nodes.entry(own.clone()).or_default();
            if node.before.as_ref() == Some(&view) && !node.handover.is_waiting() {
                continue;
            }
            let before = node.before.take().unwrap_or_default();
            let peers = view.iter().filter(|(_, liveness)| **liveness == Liveness::Serving);
            let others: Vec<&str> = peers.map(|(name, _)| name.as_str()).collect();
            let all = [others.clone(), vec![own]].concat();
            let group = |candidates| owners([Group { vips: vips(), candidates }]);
            let returned = returned(&before, &view);
            node.owners =
                node.handover.owners(self.world.now, own, &group(all), &group(others), &returned, |name| {
                    name == own || view.get(name).is_some_and(|liveness| *liveness != Liveness::Down)
                });
            node.before = Some(view);
        }
    }

    /// How many of these nodes answer for each VIP.
    fn answering(&self, among: impl Fn(&str) -> bool) -> Vec<usize> {
        let is_its = |(own, node): &(&String, &Owner), vip| among(own) && node.owners.get(vip) == Some(own);
        vips().iter().map(|vip| self.nodes.iter().filter(|node| is_its(node, vip)).count()).collect()
    }

    fn run(&mut self, time: Duration) {
        let end = self.world.now + time;
        while self.world.now < end {
            self.step();
        }
    }
}

/// After the end of a partition: for how long at a time two answered for a VIP, and for how long nobody did.
fn heal(count: usize, seed: u64) -> (Duration, Duration) {
    let mut cluster = Cluster { world: World::new(count, seed), nodes: BTreeMap::new() };
    cluster.run(Duration::from_secs(6));
    assert!(cluster.answering(|_| true).iter().all(|answer| *answer == 1));
    let island: BTreeSet<String> = names(count).into_iter().take(count / 2).collect();
    cluster.world.island.clone_from(&island);
    cluster.run(Duration::from_secs(4));
    for half in [true, false] {
        let answering = cluster.answering(|name| island.contains(name) == half);
        assert!(answering.iter().all(|answer| *answer == 1), "a half that cannot be reached: {answering:?}");
    }
    cluster.world.island.clear();
    let mut since = vec![Some(cluster.world.now); vips().len()];
    let (mut two, mut nobody) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..1000 {
        let before = cluster.world.now;
        cluster.step();
        let answering = cluster.answering(|_| true);
        for (since, answer) in since.iter_mut().zip(&answering) {
            *since = since.or(Some(before)).filter(|_| *answer > 1);
            two = two.max(since.map_or(Duration::ZERO, |since| cluster.world.now - since));
        }
        if answering.contains(&0) {
            nobody += cluster.world.now - before;
        }
    }
    assert!(cluster.answering(|_| true).iter().all(|answer| *answer == 1));
    (two, nobody)
}

#[test]
fn a_healed_partition_leaves_no_two_owners_for_longer_than_the_detection_takes() {
    // By heartbeats, and by gossip.
    for (count, seeds, detection) in [(5, 5, 700), (33, 1, 900)] {
        let results: Vec<(Duration, Duration)> = (0..seeds).map(|seed| heal(count, seed)).collect();
        let two = results.iter().map(|(two, _)| *two).max().unwrap_or_default();
        let nobody = results.iter().map(|(_, nobody)| *nobody).max().unwrap_or_default();
        println!("{count} nodes, a partition ends: two owners for {two:?} at a time, nobody for {nobody:?}");
        assert!(two <= Duration::from_millis(detection), "{count} nodes: {two:?}");
        assert_eq!(nobody, Duration::ZERO, "{count} nodes");
    }
}
