//! The nodes, each with its own maps, sockets and opinion about the membership, and the link between them.

use std::{collections::HashMap, net::Ipv4Addr};

use ingress_common::{
    abi::{ABI_VERSION, Be16, Config, Ip4, Mac, Node, NodeIndex, Uplink, Vip, VipKey4},
    hash::{FlowKey, NodeKey},
    packet::{
        Packet as _,
        eth::{EthHdr, ethertype},
        ipv4::Ipv4Hdr,
        tcp::{TcpFlags, TcpHdr},
    },
    rank::{Candidate, rank},
    steer::{
        Action, Reason, Tuple, Verdict,
        memory::{Flows, Memory},
        steer,
    },
};

/// Slots of the simulated tables.
const SLOTS: usize = 256;
/// Sets of the simulated flow tables: fewer places than there are flows, so that they push each other out.
const FLOW_SETS: usize = 4;
const UPLINK: u32 = 2;
const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const PORT: u16 = 443;
const ROUTER: Mac = Mac::new([2, 0xff, 0, 0, 0, 0]);
/// More hand-overs than this are a loop.
const MAX_HOPS: usize = 40;

/// A node's number in the history; never reused.
pub(crate) type Id = u16;

/// What the cluster holds of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) id: Id,
    pub(crate) draining: bool,
}

/// One state of the membership.
pub(crate) type Members = Vec<Member>;

pub(crate) struct SimNode {
    pub(crate) memory: Memory,
    /// Runs, whatever the others think.
    pub(crate) up: bool,
    /// Which state of the membership it has heard of.
    pub(crate) age: usize,
}

pub(crate) struct Cluster {
    pub(crate) nodes: HashMap<Id, SimNode>,
    /// All states of the membership, the last one is the present.
    pub(crate) states: Vec<Members>,
    /// Candidates per slot.
    k: usize,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The kernel of this node got it as a new flow's.
    Opened(Id),
    /// The kernel of this node has the socket.
    Delivered(Id),
    /// The kernel of this node took it for an earlier connection of the same ports, which waits there for its last packets.
    Kept(Id),
    /// The kernel of this node has no such socket: the client gets a RST.
    Refused(Id),
    /// Dropped, or sent to a node that is down: the client will send again.
    Lost,
}

pub(crate) fn tuple(client: u32, port: u16) -> Tuple<Ip4> {
    Tuple { src: Ip4::new(client), dst: VIP.into(), src_port: Be16::new(port), dst_port: Be16::new(PORT) }
}

fn mac(id: Id) -> Mac {
    let [high, low] = id.to_be_bytes();
    Mac::new([2, 0, 0, 0, high, low])
}

fn id_of(mac: Mac) -> Id {
    let [.., high, low] = mac.octets();
    Id::from_be_bytes([high, low])
}

/// Every node numbers the others in its own way.
fn index(observer: Id, id: Id) -> NodeIndex {
    NodeIndex((id.wrapping_mul(7).wrapping_add(observer.wrapping_mul(13))) % 1024)
}

impl Cluster {
    /// With `k` candidates per slot.
    pub(crate) fn new(members: Members, k: usize) -> Self {
        let mut cluster = Self { nodes: HashMap::new(), states: vec![members.clone()], k };
        for member in members {
            cluster.start(member.id);
        }
        cluster
    }

    /// A node starts, with empty maps, knowing the present.
    pub(crate) fn start(&mut self, id: Id) {
        let mut memory = Memory::with_slots(SLOTS);
        let mut config = Config { abi_version: ABI_VERSION, own_node: index(id, id), ..Config::default() };
        config.heartbeat_timeout_ns = 1;
        config.flow_key = FlowKey::of(0);
        config.uplinks[0] = Uplink { ifindex: UPLINK, mac: mac(id), reserved: 0 };
        memory.config = config;
        memory.flows = Flows::with_sets(FLOW_SETS);
        memory.vips4.insert(VipKey4 { addr: VIP.into(), port: Be16::new(PORT), proto: 6 }, Vip::default());
        self.nodes.insert(id, SimNode { memory, up: true, age: 0 });
        self.hear(id);
    }

    pub(crate) fn present(&self) -> &Members {
        &self.states[self.states.len() - 1]
    }

    /// The node hears of the present state, and its daemon rewrites the maps.
    pub(crate) fn hear(&mut self, id: Id) {
        let k = self.k;
        let (age, members) = (self.states.len() - 1, self.present().clone());
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.age = age;
        let memory = &mut node.memory;
        memory.nodes.fill(Node::default());
        memory.peers.clear();
        for member in &members {
            let draining = if member.draining { Node::DRAINING } else { 0 };
            memory.nodes[usize::from(index(id, member.id).0)] = Node {
                flags: Node::ALIVE | Node::WAY | draining,
                ifindex: UPLINK,
                dst_mac: mac(member.id),
                src_mac: mac(id),
                ..Node::default()
            };
            if member.id != id {
                memory.peers.insert(mac(member.id), index(id, member.id));
            }
        }
        let candidates: Vec<_> = members
            .iter()
            .map(|member| {
                Candidate::new(index(id, member.id), key(member.id), weight(member.id), !member.draining)
            })
            .collect();
        let table = 1 - memory.config.active_slots;
        for (number, slot) in (0..).zip(&mut memory.slots[table as usize]) {
            *slot = rank(&candidates, k, number);
        }
        memory.config.active_slots = table;
    }

    /// Whether `id` is among the best K of the flow's slot, in the eyes of every node that is up.
    pub(crate) fn is_candidate_everywhere(&self, flow: &Tuple<Ip4>, id: Id) -> bool {
        let hash = FlowKey::of(0).flow4(flow.src, flow.dst, flow.src_port, flow.dst_port).slot();
        self.nodes.iter().filter(|(_, node)| node.up).all(|(observer, node)| {
            let table = &node.memory.slots[node.memory.config.active_slots as usize];
            let slot = &table[(hash & 0xffff) as usize % SLOTS];
            slot.order[..self.k].contains(&index(*observer, id))
        })
    }

    /// Everybody who is up knows the present.
    pub(crate) fn agrees(&self) -> bool {
        self.nodes.values().all(|node| !node.up || node.age == self.states.len() - 1)
    }

    /// Sends a segment of the flow to `director` and follows it over the link, which loses it after `max_hops`.
    pub(crate) fn send(
        &mut self,
        flow: &Tuple<Ip4>,
        flags: u8,
        director: Id,
        max_hops: Option<usize>,
    ) -> (Fate, Vec<String>) {
        let mut frame = frame(flow, flags, director);
        let mut at = director;
        let mut road = Vec::new();
        for hop in 0..MAX_HOPS {
            if max_hops.is_some_and(|max| hop >= max) {
                return (Fate::Lost, road);
            }
            let Some(node) = self.nodes.get(&at).filter(|node| node.up) else {
                road.push(format!("node {at} is down"));
                return (Fate::Lost, road);
            };
            let Verdict { action, reason, .. } = steer(frame.as_mut_slice(), &node.memory, UPLINK);
            road.push(format!("node {at} (state {}): {}", node.age, reason.name()));
            match action {
                Action::Pass if flags == TcpFlags::SYN => return (Fate::Opened(at), road),
                Action::Pass if node.memory.sockets4.contains(flow) => {
                    assert_eq!(reason, Reason::LocalSocket);
                    return (Fate::Delivered(at), road);
                }
                Action::Pass if reason == Reason::LocalSocket => return (Fate::Kept(at), road),
                Action::Pass => return (Fate::Refused(at), road),
                Action::Drop => return (Fate::Lost, road),
                Action::Encapsulate
                | Action::Detour
                | Action::Icmp
                | Action::Fragment
                | Action::TooBig
                | Action::Cookie => {
                    panic!("whole TCP segments on one link")
                }
                Action::Transmit | Action::Redirect => {
                    at = id_of(frame.at::<EthHdr>(0).expect("a whole frame").dst);
                }
            }
        }
        panic!("a loop:\n{}", road.join("\n"));
    }
}

/// Nodes of one, two and three times the share.
fn weight(id: Id) -> u16 {
    1 + id % 3
}

pub(crate) fn key(id: Id) -> NodeKey {
    NodeKey::of(&format!("node-{id}"))
}

fn frame(flow: &Tuple<Ip4>, flags: u8, director: Id) -> Vec<u8> {
    let mut frame = vec![0; 14 + 20 + 20];
    let eth = EthHdr { dst: mac(director), src: ROUTER, ethertype: ethertype::IPV4 };
    *frame.at_mut::<EthHdr>(0).expect("room") = eth;
    let ip = frame.at_mut::<Ipv4Hdr>(14).expect("room");
    ip.version_ihl = 0x45;
    ip.total_len = Be16::new(40);
    ip.ttl = 60;
    ip.proto = 6;
    (ip.src, ip.dst) = (flow.src, flow.dst);
    let tcp = frame.at_mut::<TcpHdr>(34).expect("room");
    (tcp.src, tcp.dst) = (flow.src_port, flow.dst_port);
    tcp.offset = 0x50;
    tcp.flags = TcpFlags(flags);
    frame
}
