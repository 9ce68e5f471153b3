//! Packets and what must become of them: one file per feature, each case a description, the packet that comes in, the
//! verdict and the packet that goes out. Run twice: here against `ingress-common` on plain collections, and by the kernel
//! level (`tests/kernel`) against the real BPF object. Both must say the same.

pub mod build;
mod foreign;
mod fragments;
mod gue;
mod icmp;
mod malformed;
mod neighbours;
mod outer;
mod protection;
mod tcp;
mod too_big;
mod vlan;
mod walk;

use std::collections::HashMap;

use ingress_common::{
    abi::{
        ABI_VERSION, Addr, Be16, Config, Fragment, Ip4, Ip6, Mac, Node, NodeIndex, SLOT_PAGE_LEN, Slot,
        Uplink, Vip, VipId, VipKey4, VipKey6,
    },
    hash::{FlowHash, FlowKey},
    steer::{
        Action, Reason, Tuple,
        memory::{Flows, Memory},
    },
};

/// Interface that test packets come in by: `lo`, as the kernel has it in `BPF_PROG_TEST_RUN`.
pub const UPLINK: u32 = 1;
/// The second interface of the node, where [`FAR`] is.
pub const OTHER_UPLINK: u32 = 7;
/// This node's MAC address on [`UPLINK`].
pub const OWN_MAC: Mac = Mac::new([2, 0, 0, 0, 0, 0x10]);
/// The router or client on the link.
pub const ROUTER_MAC: Mac = Mac::new([2, 0, 0, 0, 0, 0x99]);

/// This node.
pub const OWN: NodeIndex = NodeIndex(1);
/// A peer on the same interface.
pub const NEAR: NodeIndex = NodeIndex(0);
/// A peer on the other interface.
pub const FAR: NodeIndex = NodeIndex(2);
/// A peer that drains.
pub const DRAINING: NodeIndex = NodeIndex(3);
/// A peer that is dead.
pub const DEAD: NodeIndex = NodeIndex(4);

/// The client.
pub const CLIENT: [u8; 4] = [198, 51, 100, 7];
/// The VIP that this node owns.
pub const VIP: [u8; 4] = [192, 0, 2, 10];
/// A VIP that another node owns.
pub const OTHERS_VIP: [u8; 4] = [192, 0, 2, 11];
/// The client.
pub const CLIENT6: &str = "2001:db8:c::7";
/// The VIP that this node owns.
pub const VIP6: &str = "2001:db8::10";
/// A VIP that another node owns.
pub const OTHERS_VIP6: &str = "2001:db8::11";
/// The client's port.
pub const CLIENT_PORT: u16 = 40_000;
/// The VIPs' port.
pub const PORT: u16 = 8443;

/// A packet and what must become of it.
pub struct Case {
    /// What it is about; names the test.
    pub name: &'static str,
    /// The world that it comes into.
    pub world: Memory,
    /// The frame that comes in.
    pub packet: Vec<u8>,
    /// What to do with it.
    pub action: Action,
    /// Why.
    pub reason: Reason,
    /// Where a redirect goes.
    pub ifindex: u32,
    /// The frame that goes on.
    pub out: Vec<u8>,
    /// The node that the flow table remembers for the client's flow afterwards.
    pub remembers: Option<NodeIndex>,
    /// Where packets in pieces go afterwards, as far as the world did not know it before; sorted.
    pub pieces_at: Option<Vec<NodeIndex>>,
    /// What routers are known to have said of the tunnel to a node afterwards: how many bytes fit; `None`: that it is not reached.
    pub hears: HashMap<NodeIndex, Option<u16>>,
}

impl Case {
    /// In the usual [`world`], a packet that must pass untouched, as if we weren't there.
    fn new(name: &'static str, packet: impl Into<Vec<u8>>) -> Self {
        let packet = packet.into();
        let (action, reason) = (Action::Pass, Reason::NotOurs);
        Self {
            name,
            world: world(),
            out: packet.clone(),
            packet,
            action,
            reason,
            ifindex: 0,
            remembers: None,
            pieces_at: None,
            hears: HashMap::new(),
        }
    }

    /// Passes untouched for `reason`.
    fn passes(mut self, reason: Reason) -> Self {
        self.reason = reason;
        self
    }

    /// Is dropped for `reason`.
    fn drops(mut self, reason: Reason) -> Self {
        (self.action, self.reason) = (Action::Drop, reason);
        self
    }

    /// Goes out as `out` by the interface that it came in by.
    fn transmits(mut self, reason: Reason, out: impl Into<Vec<u8>>) -> Self {
        (self.action, self.reason, self.out) = (Action::Transmit, reason, out.into());
        self
    }

    /// Goes out as `out` by the other interface.
    fn redirects(mut self, reason: Reason, out: impl Into<Vec<u8>>) -> Self {
        (self.action, self.reason, self.out, self.ifindex) =
            (Action::Redirect, reason, out.into(), OTHER_UPLINK);
        self
    }

    /// Passes without its outer headers, as `out`.
    fn opens(mut self, reason: Reason, out: impl Into<Vec<u8>>) -> Self {
        (self.reason, self.out) = (reason, out.into());
        self
    }

    /// It is known where other pieces of the packet go: to these.
    fn with_pieces_at(mut self, nodes: &[NodeIndex]) -> Self {
        self.pieces_at = Some(nodes.to_vec());
        self
    }

    /// Where packets in pieces must be known to go afterwards.
    pub fn expected_pieces(&self) -> Vec<NodeIndex> {
        self.pieces_at.clone().unwrap_or_else(|| pieces(self.world.fragments.borrow().values()))
    }

    /// It is known afterwards what a router said of the tunnel to `node`.
    fn hearing(mut self, node: NodeIndex, mtu: Option<u16>) -> Self {
        self.hears.insert(node, mtu);
        self
    }

    /// Something in the world is different.
    fn when(mut self, change: impl FnOnce(&mut Memory)) -> Self {
        change(&mut self.world);
        self
    }

    /// What a flow table remembers of this case's flow.
    pub fn remembered(&self, table: &Flows) -> Option<NodeIndex> {
        let is_v6 = [12, 16, 20].iter().any(|at| self.packet.get(*at..at + 2) == Some(&[0x86, 0xdd]));
        table.get(flows()[usize::from(is_v6)])
    }

    /// The flow table knows the client's flow afterwards.
    fn remembering(mut self, node: NodeIndex) -> Self {
        self.remembers = Some(node);
        self
    }
}

/// Where packets in pieces go, sorted.
pub fn pieces<'a>(fragments: impl IntoIterator<Item = &'a Fragment>) -> Vec<NodeIndex> {
    let mut nodes: Vec<_> = fragments.into_iter().map(|fragment| fragment.node).collect();
    nodes.sort();
    nodes
}

/// All cases of all files.
pub fn cases() -> Vec<Case> {
    [
        tcp::cases(),
        walk::cases(),
        neighbours::cases(),
        vlan::cases(),
        malformed::cases(),
        foreign::cases(),
        gue::cases(),
        too_big::cases(),
        icmp::cases(),
        outer::cases(),
        fragments::cases(),
        protection::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// MAC address of a peer.
pub fn mac_of(node: NodeIndex) -> Mac {
    Mac::new([2, 0, 0, 0, 1, node.0 as u8])
}

/// The address of our interface towards a peer.
pub fn own_mac_towards(node: NodeIndex) -> Mac {
    if node == FAR { Mac::new([2, 0, 0, 0, 0, 0x11]) } else { OWN_MAC }
}

/// A node with four peers; every slot ranks NEAR, OWN, FAR.
pub fn world() -> Memory {
    let mut world = Memory::with_slots(SLOT_PAGE_LEN);
    let mut config = Config { abi_version: ABI_VERSION, own_node: OWN, ..Config::default() };
    config.uplinks[0] = Uplink { ifindex: UPLINK, mac: OWN_MAC, reserved: 0 };
    config.uplinks[1] = Uplink { ifindex: OTHER_UPLINK, mac: own_mac_towards(FAR), reserved: 0 };
    config.flow_key = FlowKey::of(FLOW_KEY);
    config.flow_sets = FLOW_SETS as u32;
    world.flows = Flows::with_sets(FLOW_SETS);
    world.config = config;
    for (id, vip) in [(3, VIP), (4, OTHERS_VIP)] {
        let (addr, id) = (Ip4::from(std::net::Ipv4Addr::from(vip)), VipId(id));
        world.vips4.insert(VipKey4 { addr, port: Be16::new(PORT), proto: 6 }, Vip { id, ..Vip::default() });
        world.addrs4.insert(addr, Addr { flags: if vip == VIP { Addr::OWNER } else { 0 } });
    }
    for (id, vip) in [(5, VIP6), (6, OTHERS_VIP6)] {
        let (addr, id) = (ip6(vip), VipId(id));
        world.vips6.insert(VipKey6 { addr, port: Be16::new(PORT), proto: 6 }, Vip { id, ..Vip::default() });
        world.addrs6.insert(addr, Addr { flags: if vip == VIP6 { Addr::OWNER } else { 0 } });
    }
    for (node, flags) in [
        (NEAR, Node::ALIVE | Node::WAY),
        (OWN, Node::ALIVE),
        (FAR, Node::ALIVE | Node::WAY),
        (DRAINING, Node::ALIVE | Node::DRAINING | Node::WAY),
        (DEAD, Node::WAY),
    ] {
        let (dst_mac, src_mac) = (mac_of(node), own_mac_towards(node));
        let ifindex = if node == FAR { OTHER_UPLINK } else { UPLINK };
        world.nodes[usize::from(node.0)] = Node { flags, ifindex, dst_mac, src_mac, ..Node::default() };
        if node != OWN {
            world.peers.insert(mac_of(node), node);
        }
    }
    rank(&mut world, &[NEAR, OWN, FAR]);
    world
}

/// Gives every slot these candidates.
pub fn rank(world: &mut Memory, nodes: &[NodeIndex]) {
    let mut slot = Slot::EMPTY;
    slot.order[..nodes.len()].copy_from_slice(nodes);
    world.slots[world.config.active_slots as usize].fill(slot);
}

/// The client's connection to the VIP is in this node's kernel.
fn connected(world: &mut Memory) {
    world.sockets4.insert(tuple4());
    world.sockets6.insert(tuple6());
}

/// The flow table knows `node` for the client's flow.
fn remembered(node: NodeIndex) -> impl FnOnce(&mut Memory) {
    move |world| {
        for hash in flows() {
            world.flows.insert(hash, node);
        }
    }
}

/// The hash key of the [`world`].
pub const FLOW_KEY: u64 = 0x1234_5678_9abc_def0;
/// Sets of the flow table in the [`world`].
pub const FLOW_SETS: usize = 64;

/// The client's flows to [`VIP`] and [`VIP6`].
fn flows() -> [FlowHash; 2] {
    let (key, v4, v6) = (FlowKey::of(FLOW_KEY), tuple4(), tuple6());
    [
        key.flow4(v4.src, v4.dst, v4.src_port, v4.dst_port),
        key.flow6(&v6.src, &v6.dst, v6.src_port, v6.dst_port),
    ]
}

/// The client's flow to [`VIP`].
pub fn tuple4() -> Tuple<Ip4> {
    Tuple {
        src: std::net::Ipv4Addr::from(CLIENT).into(),
        dst: std::net::Ipv4Addr::from(VIP).into(),
        src_port: Be16::new(CLIENT_PORT),
        dst_port: Be16::new(PORT),
    }
}

/// The client's flow to [`VIP6`].
pub fn tuple6() -> Tuple<Ip6> {
    Tuple { src: ip6(CLIENT6), dst: ip6(VIP6), src_port: Be16::new(CLIENT_PORT), dst_port: Be16::new(PORT) }
}

/// An address that is known to be good.
pub fn ip6(text: &str) -> Ip6 {
    text.parse::<std::net::Ipv6Addr>().map_or(Ip6::default(), Ip6::from)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use ingress_common::steer::front;

    use super::*;

    #[test]
    fn the_decision_agrees_on_the_host() {
        let cases = cases();
        assert!(cases.len() > 40, "only {} cases", cases.len());
        for case in cases {
            let mut packet = case.packet.clone();
            let expected = case.expected_pieces();
            let verdict = front(&mut packet, &case.world, UPLINK);
            assert_eq!(verdict.reason, case.reason, "{}", case.name);
            assert_eq!(verdict.action, case.action, "{}", case.name);
            assert_eq!(verdict.ifindex, case.ifindex, "{}", case.name);
            if case.action != Action::Drop {
                assert_eq!(packet, case.out, "{}", case.name);
            }
            assert_eq!(case.remembered(&case.world.flows), case.remembers, "{}", case.name);
            assert_eq!(pieces(case.world.fragments.borrow().values()), expected, "{}", case.name);
            assert_eq!(*case.world.heard.borrow(), case.hears, "{}", case.name);
        }
    }

    #[test]
    fn names_are_unique() {
        let mut names = HashSet::new();
        for case in cases() {
            assert!(names.insert(case.name), "two cases are called {}", case.name);
        }
    }

    /// `docs/katran.md` says which case of Katran's is which of ours.
    #[test]
    fn katrans_table_names_cases_that_exist() {
        let table = include_str!("../docs/katran.md");
        let ours: HashSet<&str> = cases().iter().map(|case| case.name).collect();
        let named: Vec<&str> =
            table.split('`').skip(1).step_by(2).filter_map(|code| code.strip_prefix("packets::")).collect();
        assert!(named.len() > 30, "only {} cases are named", named.len());
        for name in named {
            assert!(ours.contains(name), "docs/katran.md names a case that is not there: {name}");
        }
    }

    /// Whatever the headers say: no panic, no change of what is passed.
    #[test]
    fn cut_anywhere_nothing_breaks() {
        for case in cases() {
            for len in 0..case.packet.len() {
                let mut packet = case.packet[..len].to_vec();
                let verdict = front(&mut packet, &case.world, UPLINK);
                if verdict.action == Action::Pass && packet.len() == len {
                    assert_eq!(packet, case.packet[..len], "{} cut to {len}", case.name);
                }
            }
        }
    }
}
