//! The membership over real sockets, many nodes of it on addresses of the loopback network: crashes, and nodes that the
//! machine does not let run.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::super::{Config, Declared, Key, Liveness, View};
use super::{Announced, Membership};

const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";
/// On a machine that is not starved all of this takes well under a second.
const PATIENCE: Duration = Duration::from_secs(30);

fn config(port: u16, key: &[u8]) -> Config {
    Config { port, key: Key::new(key), ..Config::default() }
}

/// `count` "nodes" on addresses of their own, in the net of that number.
fn nodes(net: u8, count: u8) -> Vec<Declared> {
    (1..=count)
        .map(|i| Declared {
            name: format!("n{i}"),
            addresses: vec![IpAddr::V4(Ipv4Addr::new(127, 77, net, i))],
        })
        .collect()
}

fn sees(view: &View, name: &str, liveness: Liveness) -> bool {
    view.peers.get(name) == Some(&liveness)
}

async fn until(membership: &Membership, what: impl Fn(&View) -> bool) {
    let mut view = membership.view();
    let found = tokio::time::timeout(PATIENCE, view.wait_for(|v| what(v))).await;
    assert!(found.is_ok(), "view stays {:?}", membership.view().borrow());
}

/// Running nodes, by name.
struct World {
    port: u16,
    declared: Vec<Declared>,
    running: BTreeMap<String, Membership>,
}

impl World {
    async fn start(net: u8, count: u8) -> Self {
        let port = 41_000 + u16::from(net);
        let mut world = Self { port, declared: nodes(net, count), running: BTreeMap::new() };
        for node in world.declared.clone() {
            world.launch(&node.name);
        }
        world.agree().await;
        world
    }

    fn launch(&mut self, name: &str) {
        let membership = Membership::start(name.to_owned(), config(self.port, KEY), None).unwrap();
        membership.declare(self.declared.clone());
        membership.announce(Announced::Serving);
        self.running.insert(name.to_owned(), membership);
    }

    /// Waits until all who run hold all others who run for serving.
    async fn agree(&self) {
        for membership in self.running.values() {
            let others = self.running.len() - 1;
            until(membership, |view| {
                let serving = view.peers.values().filter(|liveness| **liveness == Liveness::Serving);
                view.settled && serving.count() == others
            })
            .await;
        }
    }

    /// These die without a word; how long each was in anybody's view after that.
    async fn crash(&mut self, victims: &[String]) -> Vec<Duration> {
        let died: Vec<(String, Instant)> = victims
            .iter()
            .map(|name| {
                self.running.remove(name).unwrap().vanish();
                (name.clone(), Instant::now())
            })
            .collect();
        let mut times = Vec::new();
        let mut watchers = tokio::task::JoinSet::new();
        for membership in self.running.values() {
            let (mut view, died) = (membership.view(), died.clone());
            watchers.spawn(async move {
                let mut gone = BTreeMap::new();
                while gone.len() < died.len() {
                    for (name, at) in &died {
                        if sees(&view.borrow_and_update(), name, Liveness::Down) {
                            gone.entry(name.clone()).or_insert_with(|| at.elapsed());
                        }
                    }
                    if gone.len() < died.len() {
                        tokio::time::timeout(PATIENCE, view.changed()).await.expect("it stays").unwrap();
                    }
                }
                gone
            });
        }
        let seen = watchers.join_all().await;
        for name in victims {
            times.extend(seen.iter().map(|gone| gone[name]).max());
        }
        times
    }
}

/// 50 crashes, five at a time, of nodes that are told by the round; the times until each was out of all tables, sorted.
async fn crashes(net: u8, count: u8) -> Vec<Duration> {
    let mut world = World::start(net, count).await;
    let mut times = Vec::new();
    for round in 0..10_usize {
        // At another moment of the others' periods each time.
        tokio::time::sleep(Duration::from_millis(37 * (round as u64 % 4))).await;
        let victims: Vec<String> = (0..5)
            .map(|i| world.declared[(round * 5 + i * 7) % world.declared.len()].name.clone())
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect();
        times.extend(world.crash(&victims).await);
        for name in &victims {
            world.launch(name);
        }
        world.agree().await;
    }
    times.sort_unstable();
    times
}

/// The bound is wide, for machines that do other things as well; the figures are what counts.
fn is_quick(what: &str, times: &[Duration]) {
    let (median, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    println!("{what}: {} crashes, out of all tables after {median:.0?} (p50), {p99:.0?} (p99)", times.len());
    assert!(
        times.len() >= 45 && median < Duration::from_secs(2) && p99 < Duration::from_secs(5),
        "{times:?}"
    );
}

#[tokio::test]
async fn three_nodes_meet_drain_and_leave_over_real_sockets() {
    let port = 40_947;
    let start = |name: &str, key: &[u8]| {
        let membership = Membership::start(name.to_owned(), config(port, key), None).unwrap();
        membership.declare(nodes(0, 3));
        membership.announce(Announced::Serving);
        membership
    };
    let (one, two, stranger) =
        (start("n1", KEY), start("n2", KEY), start("n3", b"another key, but the same port.."));
    until(&one, |v| sees(v, "n2", Liveness::Serving)).await;
    until(&two, |v| sees(v, "n1", Liveness::Serving)).await;
    assert_eq!(one.view().borrow().peers["n3"], Liveness::Down);
    two.announce(Announced::Draining);
    until(&one, |v| sees(v, "n2", Liveness::Draining)).await;
    drop(two);
    until(&one, |v| sees(v, "n2", Liveness::Down) && v.settled).await;
    drop(stranger);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn crashes_over_real_sockets_with_heartbeats() {
    is_quick("12 nodes, real sockets, heartbeats", &crashes(1, 12).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn crashes_over_real_sockets_with_gossip() {
    is_quick("34 nodes, real sockets, gossip", &crashes(2, 34).await);
}

/// More threads that compute than the machine has CPUs, and nodes that stand still for most of the detection time again and
/// again, as under a CPU quota: nobody is ever taken for dead.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn starved_nodes_do_not_flap_over_real_sockets() {
    static IS_OVER: AtomicBool = AtomicBool::new(false);
    let world = World::start(3, 8).await;
    let busy: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(|| {
                while !IS_OVER.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        })
        .collect();
    let mut flaps = tokio::task::JoinSet::new();
    for (own, membership) in &world.running {
        let (mut view, own) = (membership.view(), own.clone());
        flaps.spawn(async move {
            let mut seen = Vec::new();
            while !IS_OVER.load(Ordering::Relaxed) {
                let _ = tokio::time::timeout(Duration::from_millis(50), view.changed()).await;
                let view = view.borrow_and_update();
                seen.extend(
                    view.peers
                        .iter()
                        .filter(|(_, liveness)| **liveness != Liveness::Serving)
                        .map(|(peer, now)| format!("{own} holds {peer} for {now:?}")),
                );
            }
            seen
        });
    }
    for round in 0..8_u64 {
        for (place, membership) in world.running.values().enumerate() {
            if (place as u64 + round).is_multiple_of(3) {
                membership.freeze(Duration::from_millis(250 + 25 * (round % 4)));
            }
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    IS_OVER.store(true, Ordering::Relaxed);
    let seen = flaps.join_all().await.concat();
    for thread in busy {
        thread.join().unwrap();
    }
    println!("8 nodes, real sockets, starved for 4 s: {} flaps", seen.len());
    assert!(seen.is_empty(), "{seen:?}");
}

/// Whoever stood still for longer than the detection time was dead to the others, and rightly; but nobody is dead to it when
/// it wakes, and the others have it back at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_node_that_stood_still_takes_nobody_for_dead() {
    let world = World::start(4, 4).await;
    let slept = &world.running["n1"];
    let mut view = slept.view();
    view.mark_unchanged();
    slept.freeze(Duration::from_millis(2500));
    until(&world.running["n2"], |view| sees(view, "n1", Liveness::Down)).await;
    until(&world.running["n2"], |view| sees(view, "n1", Liveness::Serving)).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let changed = view.has_changed().unwrap();
    assert!(!changed, "it held somebody for dead: {:?}", view.borrow());
}

/// Another daemon of the node goes on where one left off: the peer sees nothing, though the pause is a while.
#[tokio::test]
async fn a_daemon_that_takes_over_is_the_same_node_to_its_peers() {
    let start = |name: &str, legacy| {
        let membership = Membership::start(name.to_owned(), config(40_948, KEY), legacy).unwrap();
        membership.declare(nodes(9, 2));
        membership
    };
    let (one, two) = (start("n1", None), start("n2", None));
    one.announce(Announced::Serving);
    two.announce(Announced::Serving);
    until(&one, |v| sees(v, "n2", Liveness::Serving) && v.settled).await;
    until(&two, |v| sees(v, "n1", Liveness::Serving)).await;
    let mut view = one.view();
    view.borrow_and_update();
    let legacy = serde_json::to_string(&two.hand_over().unwrap()).unwrap();
    let two = start("n2", Some(serde_json::from_str(&legacy).unwrap()));
    // Longer than silence is forgiven.
    until(&two, |v| sees(v, "n1", Liveness::Serving) && v.settled).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!view.has_changed().unwrap(), "n1 noticed: {:?}", view.borrow());
    // And it hears what the new one says.
    two.announce(Announced::Draining);
    until(&one, |v| sees(v, "n2", Liveness::Draining)).await;
}

/// The same in a cluster that gossips, one node of which is dead: the heir has a gossip of its own, under a later identity
/// that says the same, and nobody sees the node go or come.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_daemon_that_takes_over_a_gossip_is_the_same_node_to_all() {
    let mut world = World::start(5, 36).await;
    world.crash(&["n36".to_owned()]).await;
    // No heartbeats any more: the gossip alone says who lives.
    tokio::time::sleep(Duration::from_secs(4)).await;
    world.agree().await;
    let heir = "n2";
    let old = world.running.remove(heir).unwrap();
    let mut watchers = tokio::task::JoinSet::new();
    let (end, over) = tokio::sync::watch::channel(());
    for (own, membership) in &world.running {
        let (mut view, mut over, own) = (membership.view(), over.clone(), own.clone());
        view.mark_unchanged();
        watchers.spawn(async move {
            let mut noticed = Vec::new();
            loop {
                tokio::select! {
                    changed = view.changed() => assert!(changed.is_ok(), "{own} ended"),
                    _ = over.changed() => return noticed,
                }
                let now = view.borrow_and_update().peers[heir];
                if now != Liveness::Serving {
                    noticed.push(format!("{own} holds it for {now:?}"));
                }
            }
        });
    }
    let legacy = serde_json::to_string(&old.hand_over().unwrap()).unwrap();
    let since = Instant::now();
    let new = Membership::start(heir.to_owned(), config(world.port, KEY), serde_json::from_str(&legacy).ok())
        .unwrap();
    new.declare(world.declared.clone());
    until(&new, |view| view.settled).await;
    let settled = since.elapsed();
    assert_eq!(new.view().borrow().peers["n36"], Liveness::Down);
    world.running.insert(heir.to_owned(), new);
    world.agree().await;
    // Longer than a suspicion lasts.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    drop(end);
    let noticed = watchers.join_all().await.concat();
    println!(
        "36 nodes, one of them dead, real sockets, gossip: an heir has settled after {settled:.0?}; noticed: {noticed:?}"
    );
    assert!(noticed.is_empty(), "{noticed:?}");
    // Without what the daemon before left, nobody could be sure of the dead one before two seconds are over.
    assert!(settled < Duration::from_secs(2), "{settled:?}");
    // And they hear what the new one says.
    world.running[heir].announce(Announced::Draining);
    for membership in world.running.iter().filter(|(name, _)| *name != heir).map(|(_, membership)| membership)
    {
        until(membership, |view| sees(view, heir, Liveness::Draining)).await;
    }
}
