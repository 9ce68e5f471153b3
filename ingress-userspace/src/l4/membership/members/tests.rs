//! A cluster in memory, with a clock of its own: heartbeats and gossip of a hundred nodes, lost datagrams, nodes that
//! crash, freeze and are cut off. The same seed gives the same history.

mod ownership;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::super::machine::{Announced, Incarnation, Liveness, Timing};
use super::Members;

const STEP: Duration = Duration::from_millis(5);
const TIMING: Timing =
    Timing { interval: Duration::from_millis(100), dead_after: Duration::from_millis(700) };
/// More nodes than this gossip.
const THRESHOLD: usize = 32;

/// Datagrams take one step; those from or to the absent are lost.
struct World {
    now: Instant,
    steps: u64,
    nodes: BTreeMap<String, Members>,
    frozen: BTreeSet<String>,
    /// Whoever is in here hears only others in here.
    island: BTreeSet<String>,
    /// One of so many datagrams is lost; 0: none.
    loss: u64,
    random: u64,
    sent: u64,
    beats: Vec<(String, super::Beat)>,
    gossip: Vec<(String, String, Vec<u8>)>,
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("node-{i:03}")).collect()
}

impl World {
    fn new(count: usize, seed: u64) -> Self {
        let mut world = Self {
            now: Instant::now(),
            steps: 0,
            nodes: BTreeMap::new(),
            frozen: BTreeSet::new(),
            island: BTreeSet::new(),
            loss: 0,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            sent: 0,
            beats: Vec::new(),
            gossip: Vec::new(),
        };
        for name in names(count) {
            world.start(&name, count);
        }
        world
    }

    fn start(&mut self, name: &str, count: usize) {
        let incarnation = Incarnation(self.draw());
        let started = 1_000_000 + self.steps;
        let mut node = Members::new(name.to_owned(), incarnation, TIMING, THRESHOLD, started);
        let all = names(count);
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        node.announce(self.now, Announced::Serving);
        node.declare(self.now, &all);
        self.nodes.insert(name.to_owned(), node);
    }

    fn draw(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    fn arrives(&mut self, from: &str, to: &str) -> bool {
        let lost = self.loss > 0 && self.draw().is_multiple_of(self.loss);
        !lost && self.island.contains(from) == self.island.contains(to)
    }

    fn step(&mut self) {
        self.now += STEP;
        self.steps += 1;
        let now = self.now;
        let is_frozen = |name: &String, frozen: &BTreeSet<String>| frozen.contains(name);
        // What waits for a frozen node stays in its socket.
        let (beats, wait): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.beats).into_iter().partition(|(to, _)| !is_frozen(to, &self.frozen));
        self.beats = wait;
        for (to, beat) in beats {
            if !self.arrives(&beat.sender.clone(), &to) {
                continue;
            }
            let Some(node) = self.nodes.get_mut(&to) else { continue };
            if node.receive(now, &beat)
                && let Some(answer) = node.beat_for(&beat.sender)
            {
                self.beats.push((beat.sender, answer));
            }
        }
        let (gossip, wait): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.gossip).into_iter().partition(|(_, to, _)| !is_frozen(to, &self.frozen));
        self.gossip = wait;
        for (from, to, data) in gossip {
            if self.arrives(&from, &to)
                && let Some(node) = self.nodes.get_mut(&to)
            {
                node.gossip(now, &data);
            }
        }
        let beats_now = self.steps.is_multiple_of(20);
        for (name, node) in self.nodes.iter_mut().filter(|(name, _)| !self.frozen.contains(*name)) {
            node.tick_gossip(now);
            if beats_now {
                node.tick(now);
                for peer in node.view().into_keys() {
                    if node.beats(now, &peer)
                        && let Some(beat) = node.beat_for(&peer)
                    {
                        self.beats.push((peer, beat));
                        self.sent += 1;
                    }
                }
            }
            for (to, data) in node.take_messages() {
                assert!(data.len() <= super::super::swim::MAX_MESSAGE);
                self.gossip.push((name.clone(), to, data));
                self.sent += 1;
            }
        }
    }

    fn run(&mut self, time: Duration) {
        for _ in 0..time.as_millis() / STEP.as_millis() {
            self.step();
        }
    }

    /// Steps until `wanted`; the time that it took, `None` if it did not come within `at_most`.
    fn until(&mut self, at_most: Duration, wanted: impl Fn(&Self) -> bool) -> Option<Duration> {
        let start = self.now;
        while !wanted(self) {
            if self.now - start > at_most {
                return None;
            }
            self.step();
        }
        Some(self.now - start)
    }

    /// All who live hold exactly each other for serving.
    fn agrees(&self) -> bool {
        self.nodes.values().all(|node| {
            node.view()
                .iter()
                .all(|(name, liveness)| (*liveness == Liveness::Serving) == self.nodes.contains_key(name))
        })
    }

    fn nobody_has(&self, name: &str) -> bool {
        self.nodes.values().all(|node| node.view().get(name) == Some(&Liveness::Down))
    }
}

/// Crashes nodes one after the other; the times until nobody has them in the tables, sorted.
fn crashes(count: usize, rounds: usize, seed: u64) -> Vec<Duration> {
    let mut world = World::new(count, seed);
    assert!(world.until(Duration::from_secs(10), World::agrees).is_some(), "they do not find each other");
    world.run(Duration::from_secs(4));
    let mut times: Vec<Duration> = (0..rounds)
        .map(|_| {
            let pause = world.draw() % 300;
            world.run(Duration::from_millis(pause));
            let victim = names(count)[world.draw() as usize % count].clone();
            world.nodes.remove(&victim);
            let time = world.until(Duration::from_secs(5), |world| world.nobody_has(&victim));
            let time = time.expect("the dead node stays in somebody's table");
            assert!(world.agrees(), "a living node went down with {victim}");
            world.start(&victim, count);
            let back = world.until(Duration::from_secs(5), World::agrees);
            assert!(back.is_some(), "{victim} does not come back");
            time
        })
        .collect();
    times.sort_unstable();
    times
}

#[test]
fn a_crash_is_known_to_all_of_a_hundred_in_under_a_second() {
    let times = crashes(100, 50, 1);
    println!(
        "100 nodes, gossip, 50 crashes: out of all tables after {:?} (p50), {:?} (p99)",
        times[times.len() / 2],
        times[times.len() - 1]
    );
    assert!(times[times.len() - 1] < Duration::from_secs(1), "{times:?}");
}

#[test]
fn a_crash_is_known_to_all_of_a_few_in_under_a_second() {
    let times = crashes(8, 50, 2);
    println!(
        "8 nodes, heartbeats, 50 crashes: out of all tables after {:?} (p50), {:?} (p99)",
        times[times.len() / 2],
        times[times.len() - 1]
    );
    assert!(times[times.len() - 1] < Duration::from_secs(1), "{times:?}");
}

#[test]
fn gossip_costs_less_than_heartbeats_of_a_hundred() {
    let mut world = World::new(100, 3);
    world.run(Duration::from_secs(6));
    let before = world.sent;
    world.run(Duration::from_secs(2));
    let per_node = (world.sent - before) / 2 / 100;
    println!("100 nodes: {per_node} datagrams per second and node (heartbeats: 990)");
    assert!(per_node < 150, "{per_node}");
}

#[test]
fn a_state_reaches_all_at_once() {
    let mut world = World::new(60, 4);
    world.run(Duration::from_secs(5));
    let now = world.now;
    world.nodes.get_mut("node-007").unwrap().announce(now, Announced::Draining);
    let drains = |world: &World| {
        let mut others = world.nodes.iter().filter(|(name, _)| *name != "node-007");
        others.all(|(_, node)| node.view()["node-007"] == Liveness::Draining)
    };
    let took = world.until(Duration::from_secs(3), drains).expect("not all hear of the drain");
    assert!(took <= Duration::from_millis(100), "{took:?}");
    world.run(Duration::from_secs(1));
    assert!(drains(&world), "old news came after new ones");
    let now = world.now;
    world.nodes.get_mut("node-007").unwrap().announce(now, Announced::Leaving);
    let took = world.until(Duration::from_secs(1), |world| {
        let mut others = world.nodes.iter().filter(|(name, _)| *name != "node-007");
        others.all(|(_, node)| node.view()["node-007"] == Liveness::Down)
    });
    assert!(took.is_some_and(|took| took <= Duration::from_millis(100)), "{took:?}");
}

/// CPU-starved nodes stand still for up to 400 ms again and again, and some datagrams are lost: nobody goes down.
#[test]
fn starved_nodes_do_not_flap() {
    for count in [8, 60] {
        let mut world = World::new(count, 5);
        world.run(Duration::from_secs(5));
        world.loss = 100;
        let all = names(count);
        for round in 0..60 {
            let victims: Vec<String> = (0..3).map(|_| all[world.draw() as usize % count].clone()).collect();
            let pause = 100 + world.draw() % 300;
            world.frozen = victims.into_iter().collect();
            world.run(Duration::from_millis(pause));
            world.frozen.clear();
            for _ in 0..6 {
                world.run(STEP * 5);
                assert!(world.agrees(), "{count} nodes, round {round}: somebody flapped");
            }
        }
    }
}

/// Two halves: each holds the other for dead within the detection time; when the partition ends they agree again.
#[test]
fn a_partition_heals() {
    for count in [8, 60] {
        let mut world = World::new(count, 6);
        world.run(Duration::from_secs(5));
        world.island = names(count).into_iter().take(count / 2).collect();
        let halves = |world: &World| {
            world.nodes.iter().all(|(own, node)| {
                let is_in = |name: &String| world.island.contains(name);
                node.view().iter().all(|(name, l)| (*l == Liveness::Serving) == (is_in(name) == is_in(own)))
            })
        };
        let split = world.until(Duration::from_secs(10), halves).expect("the halves do not part");
        world.run(Duration::from_secs(3));
        assert!(halves(&world));
        world.island.clear();
        let healed =
            world.until(Duration::from_secs(5), World::agrees).expect("the halves do not join again");
        println!("{count} nodes: partition known after {split:?}, healed after {healed:?}");
        assert!(healed < Duration::from_secs(2), "{healed:?}");
    }
}

/// The cluster grows past the threshold and shrinks again; not all hear of it at the same time.
#[test]
fn the_switch_between_the_two_ways_takes_nobody_down() {
    let count = THRESHOLD + 1;
    let mut world = World::new(count, 7);
    let all = names(count);
    let most: Vec<&str> = all.iter().map(String::as_str).take(THRESHOLD).collect();
    let every: Vec<&str> = all.iter().map(String::as_str).collect();
    world.nodes.remove(&all[THRESHOLD]);
    let now = world.now;
    world.nodes.values_mut().for_each(|node| node.declare(now, &most));
    world.run(Duration::from_secs(2));
    for declared in [&every, &most, &every] {
        for (index, name) in most.iter().enumerate() {
            if index % 8 == 0 {
                world.run(Duration::from_millis(1500));
            }
            let now = world.now;
            world.nodes.get_mut(*name).unwrap().declare(now, declared);
            let is_up = |node: &Members| {
                most.iter().all(|n| node.view().get(*n).is_none_or(|l| *l == Liveness::Serving))
            };
            assert!(world.nodes.values().all(is_up), "after {name} heard of it");
        }
        for _ in 0..120 {
            world.run(STEP * 10);
            assert!(world.nodes.values().all(|node| {
                most.iter().all(|n| node.view().get(*n).is_none_or(|l| *l == Liveness::Serving))
            }));
        }
    }
}
