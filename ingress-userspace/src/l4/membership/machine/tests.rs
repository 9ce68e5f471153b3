//! The membership machine against its rules, without sockets and clocks.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::{Announced, Beat, Incarnation, Liveness, Machine, Timing};

const INTERVAL: Duration = Duration::from_millis(100);
const TIMING: Timing = Timing { interval: INTERVAL, dead_after: Duration::from_millis(700) };

/// Nodes on a network whose links can be cut, one direction at a time, in steps of one interval.
struct World {
    now: Instant,
    nodes: BTreeMap<String, Machine>,
    cut: Vec<(String, String)>,
    frozen: Vec<String>,
    recorded: Vec<(String, Beat)>,
}

impl World {
    fn new(names: &[&str]) -> Self {
        let now = Instant::now();
        let mut nodes = BTreeMap::new();
        for (i, name) in names.iter().enumerate() {
            let mut machine = Machine::new((*name).to_owned(), Incarnation(i as u64 + 1), TIMING);
            machine.declare(now, names.iter().copied());
            machine.announce(Announced::Serving);
            nodes.insert((*name).to_owned(), machine);
        }
        Self { now, nodes, cut: Vec::new(), frozen: Vec::new(), recorded: Vec::new() }
    }

    fn deliver(&mut self, to: &str, beat: &Beat) {
        self.recorded.push((to.to_owned(), beat.clone()));
        let is_cut = self.cut.iter().any(|(a, b)| *a == beat.sender && b == to);
        if is_cut || self.frozen.iter().any(|f| f == to) {
            return;
        }
        let Some(receiver) = self.nodes.get_mut(to) else { return };
        if receiver.receive(self.now, beat)
            && let Some(answer) = receiver.beat_for(&beat.sender)
        {
            let back = beat.sender.clone();
            self.deliver(&back, &answer);
        }
    }

    fn step(&mut self) {
        self.now += INTERVAL;
        let names: Vec<String> = self.nodes.keys().filter(|n| !self.frozen.contains(n)).cloned().collect();
        for from in &names {
            let peers: Vec<String> = self.nodes[from].view().into_keys().collect();
            for to in peers {
                let beat = self.nodes.get_mut(from).unwrap().beat_for(&to).unwrap();
                self.deliver(&to, &beat);
            }
        }
        for name in &names {
            self.nodes.get_mut(name).unwrap().tick(self.now);
        }
    }

    fn steps(&mut self, n: usize) {
        (0..n).for_each(|_| self.step());
    }

    fn sees(&self, who: &str, whom: &str) -> Liveness {
        self.nodes[who].view()[whom]
    }
}

#[test]
fn nodes_find_each_other_within_one_interval() {
    let mut world = World::new(&["a", "b", "c"]);
    world.step();
    for (who, whom) in [("a", "b"), ("b", "a"), ("a", "c"), ("c", "b")] {
        assert_eq!(world.sees(who, whom), Liveness::Serving, "{who} sees {whom}");
    }
    assert!(world.nodes["a"].is_settled());
}

#[test]
fn a_silent_node_is_down_after_the_time_and_not_before() {
    let mut world = World::new(&["a", "b", "c"]);
    world.steps(3);
    world.nodes.remove("c");
    world.steps(6);
    assert_eq!(world.sees("a", "c"), Liveness::Serving);
    world.steps(1);
    assert_eq!(world.sees("a", "c"), Liveness::Down);
    assert_eq!(world.sees("a", "b"), Liveness::Serving);
}

#[test]
fn a_link_broken_in_one_direction_is_down_at_both_ends() {
    let mut world = World::new(&["a", "b", "c"]);
    world.steps(3);
    world.cut.push(("a".into(), "b".into()));
    world.steps(9);
    assert_eq!(world.sees("b", "a"), Liveness::Down);
    assert_eq!(world.sees("a", "b"), Liveness::Down);
    assert_eq!(world.sees("a", "c"), Liveness::Serving);
    world.cut.clear();
    world.steps(2);
    assert_eq!(world.sees("b", "a"), Liveness::Serving);
    assert_eq!(world.sees("a", "b"), Liveness::Serving);
}

#[test]
fn draining_and_leaving_are_seen_at_the_next_beat() {
    let mut world = World::new(&["a", "b"]);
    world.steps(2);
    world.nodes.get_mut("b").unwrap().announce(Announced::Draining);
    world.step();
    assert_eq!(world.sees("a", "b"), Liveness::Draining);
    world.nodes.get_mut("b").unwrap().announce(Announced::Leaving);
    world.step();
    assert_eq!(world.sees("a", "b"), Liveness::Down);
}

#[test]
fn own_stall_is_not_the_others_silence() {
    let mut world = World::new(&["a", "b"]);
    world.steps(3);
    // `a` does not run for 3 s; nothing is in its socket when it wakes.
    world.frozen.push("a".into());
    world.steps(30);
    world.frozen.clear();
    world.now += INTERVAL;
    let now = world.now;
    world.nodes.get_mut("a").unwrap().tick(now);
    assert_eq!(world.sees("a", "b"), Liveness::Serving);
    world.steps(2);
    assert_eq!(world.sees("a", "b"), Liveness::Serving);
    assert_eq!(world.sees("b", "a"), Liveness::Serving);
}

#[test]
fn peers_that_gave_a_stalled_node_up_stay_up_for_it() {
    let mut world = World::new(&["a", "b", "c"]);
    world.steps(3);
    world.frozen.push("a".into());
    world.steps(20);
    assert_eq!(world.sees("b", "a"), Liveness::Down);
    // `a` wakes to what waits in its socket: beats of peers that hear nobody of its name.
    let waiting: Vec<(String, Beat)> = world
        .recorded
        .iter()
        .rev()
        .take(40)
        .filter(|(to, beat)| to == "a" && beat.echo.is_none())
        .cloned()
        .collect();
    assert!(!waiting.is_empty());
    world.frozen.clear();
    world.now += INTERVAL;
    for (to, beat) in waiting.iter().rev() {
        world.deliver(to, beat);
        assert_eq!(world.sees("a", &beat.sender), Liveness::Serving);
    }
    let now = world.now;
    world.nodes.get_mut("a").unwrap().tick(now);
    for _ in 0..8 {
        assert_eq!(world.sees("a", "b"), Liveness::Serving);
        assert_eq!(world.sees("a", "c"), Liveness::Serving);
        world.step();
    }
    assert_eq!(world.sees("b", "a"), Liveness::Serving);
}

#[test]
fn the_excuse_of_a_stall_ends() {
    let mut world = World::new(&["a", "b"]);
    world.steps(3);
    world.frozen.push("a".into());
    world.steps(20);
    world.frozen.clear();
    world.cut.push(("a".into(), "b".into()));
    world.steps(6);
    assert_eq!(world.sees("a", "b"), Liveness::Down, "b can't hear a: both ends say so");
}

#[test]
fn replayed_heartbeats_wake_nobody() {
    let mut world = World::new(&["a", "b"]);
    world.steps(3);
    world.nodes.remove("b");
    world.steps(8);
    assert_eq!(world.sees("a", "b"), Liveness::Down);
    for (to, beat) in world.recorded.clone() {
        world.deliver(&to, &beat);
    }
    world.step();
    assert_eq!(world.sees("a", "b"), Liveness::Down);

    // Nor of an earlier run, once the node was started anew, nor towards a newly started receiver.
    let mut again = Machine::new("b".into(), Incarnation(77), TIMING);
    again.declare(world.now, ["a", "b"]);
    again.announce(Announced::Joining);
    world.nodes.insert("b".into(), again);
    world.steps(2);
    assert_eq!(world.sees("a", "b"), Liveness::Joining);
    for (to, beat) in world.recorded.clone() {
        if to == "a" && beat.incarnation == Incarnation(2) {
            world.deliver(&to, &beat);
        }
    }
    assert_eq!(world.sees("a", "b"), Liveness::Joining);
    let mut fresh = Machine::new("a".into(), Incarnation(99), TIMING);
    fresh.declare(world.now, ["a", "b"]);
    for (to, beat) in &world.recorded {
        if to == "a" {
            fresh.receive(world.now, beat);
        }
    }
    assert_eq!(fresh.view()["b"], Liveness::Down);
}

#[test]
fn only_declared_nodes_take_part() {
    let mut world = World::new(&["a", "b", "c"]);
    world.steps(2);
    let now = world.now;
    world.nodes.get_mut("a").unwrap().declare(now, ["a", "b"]);
    world.steps(8);
    assert!(!world.nodes["a"].view().contains_key("c"));
    assert_eq!(world.sees("c", "a"), Liveness::Down);
}

#[test]
fn an_unreachable_peer_delays_settling_but_not_for_ever() {
    let mut world = World::new(&["a", "b"]);
    world.nodes.remove("b");
    world.steps(3);
    assert!(!world.nodes["a"].is_settled());
    world.steps(5);
    assert!(world.nodes["a"].is_settled());
}

#[test]
fn a_node_that_is_not_declared_itself_does_not_settle() {
    let mut world = World::new(&["a", "b"]);
    let late = Machine::new("late".to_owned(), Incarnation(9), TIMING);
    world.nodes.insert("late".to_owned(), late);
    let now = world.now;
    world.nodes.get_mut("late").unwrap().declare(now, ["a", "b"]);
    world.steps(20);
    assert!(!world.nodes["late"].is_settled(), "nobody speaks to it, so it can't know who is there");
    let now = world.now;
    for machine in world.nodes.values_mut() {
        machine.declare(now, ["a", "b", "late"]);
    }
    world.steps(2);
    assert!(world.nodes["late"].is_settled());
    assert_eq!(world.sees("late", "a"), Liveness::Serving);
}

proptest! {
    /// One lost datagram in three, nodes that come and go: whenever the loss stops, everybody agrees within two beats.
    #[test]
    fn views_converge_when_loss_stops(seed in any::<u64>(), rounds in 1_usize..40) {
        let names = ["a", "b", "c", "d", "e"];
        let mut world = World::new(&names);
        let mut random = seed | 1;
        for _ in 0..rounds {
            world.cut.clear();
            for from in names {
                for to in names {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    if random % 3 == 0 {
                        world.cut.push((from.into(), to.into()));
                    }
                }
            }
            world.step();
        }
        world.cut.clear();
        world.steps(2);
        for who in names {
            for whom in names.into_iter().filter(|n| *n != who) {
                prop_assert_eq!(world.sees(who, whom), Liveness::Serving, "{} sees {}", who, whom);
            }
        }
    }
}
