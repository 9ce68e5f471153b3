//! What the front is told, as plain data: a cluster in, tables out, without a kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use ingress_common::abi::{
    ABI_VERSION, Addr, Be16, Config, Mac, Node, NodeIndex, Peer, PeerKey, Uplink, VipId, VipKey4, VipKey6,
    Vlan,
};
use ingress_common::hash::NodeKey;
use ingress_common::rank::Candidate;

use super::{Cookies, Desired, Input, Places, Standing, desired};
use crate::l4::membership::{Liveness, View};
use crate::l4::neighbour::Way;
use crate::l4::owner::Handover;
use crate::model::{self, Announcement, Kind, NodeIntent, ObjectRef, Snapshot, Vip};

const OWN: Mac = Mac::new([2, 0, 0, 0, 0, 1]);
const fn mac(n: u8) -> Mac {
    Mac::new([2, 0, 0, 0, 0, n])
}

/// Three nodes a, b, c and the VIPs `192.0.2.1:80,443` and `[2001:db8::1]:80`, seen from a.
struct World {
    snapshot: Snapshot,
    view: View,
    ways: BTreeMap<String, Way>,
    path_mtus: BTreeMap<NodeIndex, u16>,
    own: Liveness,
    places: Places,
}

impl World {
    fn new() -> Self {
        let node = |name: &str| model::Node {
            name: name.into(),
            addresses: Vec::new(),
            weight: 1,
            intent: NodeIntent::Serve,
        };
        let vip = |address: &str, https: &[u16]| Vip {
            http_ports: vec![80],
            https_ports: https.to_vec(),
            ..Vip::new(address.parse().unwrap(), ObjectRef::new(Kind::AddressPool, "", "default"))
        };
        let way = |n| Way::Link { link: 7, vlan: Vlan::NONE, from: OWN, to: mac(n) };
        Self {
            snapshot: Snapshot {
                vips: vec![vip("192.0.2.1", &[443]), vip("2001:db8::1", &[])],
                nodes: vec![node("a"), node("b"), node("c")],
                ..Snapshot::default()
            },
            view: View {
                settled: true,
                peers: [("b", Liveness::Serving), ("c", Liveness::Serving)]
                    .map(|(n, l)| (n.into(), l))
                    .into(),
            },
            ways: [("b".into(), way(2)), ("c".into(), way(3))].into(),
            path_mtus: BTreeMap::new(),
            own: Liveness::Serving,
            places: Places::new(),
        }
    }

    fn desired(&mut self) -> Desired {
        let input = Input {
            own_name: "a",
            now: Instant::now(),
            own: self.own,
            snapshot: &self.snapshot,
            view: &self.view,
            returned: &BTreeSet::new(),
            ways: &self.ways,
            path_mtus: &self.path_mtus,
            uplinks: &[
                ("eth0".into(), Uplink { ifindex: 7, mac: OWN, reserved: 0 }),
                ("eth1".into(), Uplink { ifindex: 8, mac: OWN, reserved: 0 }),
            ],
            behaviour: &Config { flow_sets: 42, ..Config::default() },
            cookies: Cookies { above: 0, cpus: 2 },
        };
        desired(&input, &mut self.places, &mut established())
    }

    fn hear(&mut self, name: &str, liveness: Liveness) {
        self.view.peers.insert(name.into(), liveness);
    }
}

/// No move is delayed: the VIPs belonged to a node that is gone.
fn established() -> Handover {
    let mut handover = Handover::default();
    let gone = BTreeMap::from([("198.51.100.1".parse().unwrap(), "gone")]);
    handover.owners(Instant::now(), "a", &gone, &gone, &BTreeSet::new(), |_| false);
    handover
}

fn accepting(desired: &Desired) -> Vec<&str> {
    desired.placed.iter().filter(|n| n.standing == Standing::Serving).map(|n| n.name.as_str()).collect()
}

#[test]
fn three_healthy_nodes() {
    let mut world = World::new();
    let desired = world.desired();
    let own = desired.nodes[&NodeIndex(0)];
    assert_eq!((own.flags, own.ifindex), (Node::ALIVE, 0), "the own node needs no way");
    let b = desired.nodes[&NodeIndex(1)];
    assert_eq!(b.flags, Node::ALIVE | Node::WAY);
    assert_eq!((b.ifindex, b.src_mac, b.dst_mac), (7, OWN, mac(2)));
    assert_eq!(u64::from(b.key[1]) << 32 | u64::from(b.key[0]), NodeKey::of("b").0);
    assert_eq!(
        desired.peers[&PeerKey { mac: mac(3), reserved: 0 }],
        Peer { node: NodeIndex(2), reserved: 0 }
    );
    assert_eq!(desired.candidates[1], Candidate::new(NodeIndex(1), NodeKey::of("b"), 1, true));
    assert_eq!((desired.config.abi_version, desired.config.own_node), (ABI_VERSION, NodeIndex(0)));
    assert_eq!(
        (desired.config.flow_sets, desired.config.uplinks[0].ifindex, desired.config.uplinks[2].ifindex),
        (42, 7, 0)
    );
    let key = |port| VipKey4 {
        addr: std::net::Ipv4Addr::new(192, 0, 2, 1).into(),
        port: Be16::new(port),
        proto: 6,
    };
    assert_eq!([desired.vips4[&key(80)].id, desired.vips4[&key(443)].id], [VipId(0), VipId(1)]);
    let v6: std::net::Ipv6Addr = "2001:db8::1".parse().unwrap();
    assert_eq!(desired.vips6[&VipKey6 { addr: v6.into(), port: Be16::new(80), proto: 6 }].id, VipId(2));
    assert_eq!((desired.vips4.len(), desired.vips6.len(), desired.addresses.len()), (2, 1, 2));
}

#[test]
fn exactly_one_node_answers_for_each_address() {
    let views: Vec<Desired> = ["a", "b", "c"]
        .map(|own| {
            let mut world = World::new();
            for name in ["a", "b", "c"].into_iter().filter(|n| *n != own) {
                world.hear(name, Liveness::Serving);
            }
            world.view.peers.remove(own);
            let input = Input {
                own_name: own,
                now: Instant::now(),
                own: Liveness::Serving,
                snapshot: &world.snapshot,
                view: &world.view,
                returned: &BTreeSet::new(),
                ways: &world.ways,
                path_mtus: &world.path_mtus,
                uplinks: &[],
                behaviour: &Config::default(),
                cookies: Cookies { above: 0, cpus: 2 },
            };
            desired(&input, &mut Places::new(), &mut established())
        })
        .into();
    for key in views[0].addrs4.keys() {
        assert_eq!(views.iter().filter(|v| v.addrs4[key].flags == Addr::OWNER).count(), 1);
    }
    for key in views[0].addrs6.keys() {
        assert_eq!(views.iter().filter(|v| v.addrs6[key].flags == Addr::OWNER).count(), 1);
    }
}

#[test]
fn a_dead_node_is_in_no_slot_but_keeps_its_place() {
    let mut world = World::new();
    world.hear("b", Liveness::Down);
    let desired = world.desired();
    assert_eq!(desired.nodes[&NodeIndex(1)].flags, Node::WAY);
    assert!(desired.candidates.iter().all(|c| c.index != NodeIndex(1)));
    assert_eq!(
        desired.nodes[&NodeIndex(2)].flags,
        Node::ALIVE | Node::WAY,
        "the others stay where they were"
    );
    assert!(desired.owners.values().all(|owner| owner != "b"));
}

#[test]
fn a_joining_node_gets_nothing_yet() {
    let mut world = World::new();
    world.hear("b", Liveness::Joining);
    let desired = world.desired();
    assert_eq!(desired.nodes[&NodeIndex(1)].flags, Node::WAY);
    assert_eq!(desired.candidates.len(), 2);
}

#[test]
fn while_it_joins_a_node_is_in_its_own_slots_but_owns_nothing() {
    let mut world = World::new();
    world.own = Liveness::Joining;
    let desired = world.desired();
    assert_eq!(
        desired.nodes[&NodeIndex(0)].flags & (Node::ALIVE | Node::DRAINING),
        Node::ALIVE | Node::DRAINING
    );
    assert_eq!((desired.candidates.len(), accepting(&desired).len()), (3, 2));
    assert!(desired.owners.values().all(|owner| owner != "a"));
    // Also where nobody serves yet: all start at once, and each would take all VIPs.
    world.hear("b", Liveness::Joining);
    world.hear("c", Liveness::Down);
    assert!(world.desired().owners.is_empty());
}

#[test]
fn draining_by_its_own_wish_by_the_administrators_or_by_weight() {
    let mut own = World::new();
    own.own = Liveness::Draining;
    let mut announced = World::new();
    announced.hear("b", Liveness::Draining);
    let mut cordoned = World::new();
    cordoned.snapshot.nodes[1].intent = NodeIntent::Drain;
    for (what, mut world, who) in [("own", own, 0), ("announced", announced, 1), ("cordoned", cordoned, 1)] {
        let desired = world.desired();
        let flags = desired.nodes[&NodeIndex(who)].flags;
        assert_eq!(flags & (Node::ALIVE | Node::DRAINING), Node::ALIVE | Node::DRAINING, "{what}");
        assert_eq!(desired.candidates.len(), 3, "{what}: it stays in the slots for its flows");
        assert_eq!(accepting(&desired).len(), 2, "{what}");
        let name = &desired.placed[usize::from(who)].name;
        assert!(desired.owners.values().all(|owner| owner != name), "{what}: its VIPs move");
    }
    let mut weightless = World::new();
    weightless.snapshot.nodes[1].weight = 0;
    let desired = weightless.desired();
    assert_eq!(desired.candidates[1], Candidate::new(NodeIndex(1), NodeKey::of("b"), 0, false));
    assert_ne!(desired.nodes[&NodeIndex(1)].flags & Node::DRAINING, 0);
}

#[test]
fn the_last_node_answers_even_while_it_drains() {
    let mut world = World::new();
    world.own = Liveness::Draining;
    world.hear("b", Liveness::Down);
    world.hear("c", Liveness::Joining);
    let desired = world.desired();
    assert!(desired.owners.values().all(|owner| owner == "a"));
}

#[test]
fn without_a_way_there_is_no_mode_flag() {
    for way in [Way::Unresolved, Way::NoRoute, Way::Routed { gateway: "192.0.2.254".parse().unwrap() }] {
        let mut world = World::new();
        world.ways.insert("b".into(), way);
        let desired = world.desired();
        assert_eq!(desired.nodes[&NodeIndex(1)].flags, Node::ALIVE, "{way:?}");
        assert_eq!(desired.peers.len(), 1);
        assert_eq!(desired.candidates.len(), 3, "{way:?}: the table is the same on every node");
    }
}

#[test]
fn places_stay_when_others_come_and_go() {
    let mut world = World::new();
    world.desired();
    world.snapshot.nodes.remove(1);
    world.snapshot.vips[0].http_ports = vec![8080];
    let desired = world.desired();
    assert_eq!(desired.nodes.keys().copied().collect::<Vec<_>>(), [NodeIndex(0), NodeIndex(2)]);
    let ids: BTreeMap<SocketAddr, VipId> = desired.vips.iter().copied().collect();
    assert_eq!(ids[&"192.0.2.1:443".parse().unwrap()], VipId(1));
    assert_eq!(ids[&"192.0.2.1:8080".parse().unwrap()], VipId(3), "not the number that was just freed");
}

#[test]
fn a_node_that_is_not_declared_takes_no_part() {
    let mut world = World::new();
    world.snapshot.nodes.remove(0);
    let desired = world.desired();
    assert_eq!(desired.config.own_node, NodeIndex::NONE);
    assert!(desired.owners.values().all(|owner| owner != "a"));
}

fn selecting(world: &mut World, announcement: Announcement) {
    let announcement = Arc::new(announcement);
    for vip in &mut world.snapshot.vips {
        vip.announcement.clone_from(&announcement);
    }
}

#[test]
fn only_selected_nodes_own_and_nobody_does_while_none_of_them_lives() {
    let mut world = World::new();
    selecting(&mut world, Announcement { nodes: Some(["b".into()].into()), ..Announcement::default() });
    assert!(world.desired().owners.values().all(|owner| owner == "b"));
    world.hear("b", Liveness::Draining);
    assert!(world.desired().owners.values().all(|owner| owner == "b"), "the last one, even while it drains");
    world.hear("b", Liveness::Down);
    let desired = world.desired();
    assert!(desired.owners.is_empty());
    assert!(desired.addrs4.values().all(|addr| addr.flags & Addr::OWNER == 0));
    assert_eq!(desired.candidates.len(), 2, "who announces says nothing about who serves");
}

#[test]
fn a_vip_is_silent_on_uplinks_that_are_not_selected() {
    let mut world = World::new();
    assert!(world.desired().silent.is_empty());
    selecting(&mut world, Announcement { nodes: None, interfaces: ["eth1".into()].into() });
    let desired = world.desired();
    assert!(desired.silent.len() == 2 && desired.silent.values().all(|on| *on == [7].into()));
    assert!(desired.addrs4.values().all(|addr| addr.is_silent_on(0) && !addr.is_silent_on(1)));
}

/// Kubernetes holds b for not ready, and it answers our heartbeats.
#[test]
fn a_node_that_is_not_ready_keeps_its_flows_and_vips_and_gets_no_new_flows() {
    let mut world = World::new();
    let before = world.desired();
    world.snapshot.nodes[1].intent = NodeIntent::Avoid;
    let desired = world.desired();
    assert_eq!(
        desired.nodes[&NodeIndex(1)].flags & (Node::ALIVE | Node::DRAINING),
        Node::ALIVE | Node::DRAINING
    );
    assert_eq!((desired.candidates.len(), accepting(&desired).len()), (3, 2));
    assert_eq!(desired.owners, before.owners, "it may not know what Kubernetes thinks");
}

#[test]
fn a_tunnel_has_the_tags_of_its_way_and_the_mtu_of_its_path() {
    let mut world = World::new();
    for (net, node) in (1..).zip(&mut world.snapshot.nodes) {
        node.addresses = vec![[10, 0, net, 1].into()];
    }
    let (gateway, remote) = ([10, 0, 1, 254].into(), [10, 0, 2, 1].into());
    let vlan = Vlan::NONE.with(Be16::new(5), false);
    let tunnel = |mtu| Way::Tunnel { link: 7, vlan, from: OWN, to: mac(9), gateway, remote, mtu };
    world.ways.insert("b".into(), tunnel(1500));
    let before = world.desired();
    assert_eq!((before.tunnels[&NodeIndex(1)].mtu, before.tunnelled_mtu()), (1500, Some(1472)));
    assert_eq!((before.nodes[&NodeIndex(1)].ifindex, before.nodes[&NodeIndex(1)].vlan), (7, vlan));
    world.path_mtus = [(NodeIndex(1), 1400), (NodeIndex(2), 1300)].into();
    let after = world.desired();
    assert_eq!((after.tunnels[&NodeIndex(1)].mtu, after.tunnelled_mtu()), (1400, Some(1372)));
    assert_eq!(after.placed[1].way, Some(tunnel(1400)), "status shows it");
    world.path_mtus = [(NodeIndex(1), 9000)].into();
    assert_eq!(world.desired().tunnels[&NodeIndex(1)].mtu, 1500, "no path is wider than its first link");
}
