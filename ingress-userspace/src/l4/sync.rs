//! From what is declared (Snapshot), alive (membership) and reachable (neighbours) to what the maps shall hold. Pure:
//! the same inputs give the same `Desired`. `write` brings it into the kernel; `engine` calls both.

mod protection;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use ingress_common::abi::{
    ABI_VERSION, Addr, Config, Guard, Ip4, Ip6, MAX_NODES, MAX_VIPS, Node, NodeIndex, Peer, PeerKey, RuleKey,
    Tunnel, TunnelEnd, TunnelEndKey, Uplink, Vip, VipId, VipKey4, VipKey6,
};
use ingress_common::hash::NodeKey;
use ingress_common::rank::Candidate;
use tracing::warn;

use super::membership::{Liveness, View};
use super::neighbour::Way;
use super::numbers::Numbers;
use super::owner::{Group, Handover, owners};
use crate::model::{NodeIntent, ObjectRef, Protection, Snapshot, Vip as VipIntent};

pub(crate) use protection::Cookies;
pub(crate) use write::{Writer, build};

/// IP protocol number of TCP.
const TCP: u16 = 6;

/// What a node does for new flows, seen from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// Not heard.
    Down,
    /// Heard, not ready yet.
    Joining,
    /// Takes new flows.
    Serving,
    /// Keeps its flows and VIPs, takes no new flows while others do: Kubernetes holds it for not ready.
    Unready,
    /// Keeps its flows, takes no new ones.
    Draining,
}

impl Standing {
    /// It has flows, or may have.
    const fn is_up(self) -> bool {
        !matches!(self, Self::Down | Self::Joining)
    }
}

impl std::fmt::Display for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Down => "down",
            Self::Joining => "joining",
            Self::Serving => "serving",
            Self::Unready => "unready",
            Self::Draining => "draining",
        })
    }
}

/// Everything that the maps depend on.
#[derive(Debug)]
pub(crate) struct Input<'a> {
    pub(crate) own_name: &'a str,
    pub(crate) now: Instant,
    /// What this node does. While it joins, its tables are complete and it serves what peers hand over, but it owns no
    /// VIP: nobody may take it for a way in before it knows all who serve.
    pub(crate) own: Liveness,
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) view: &'a View,
    /// Peers that were down and serve now without having joined: they have been serving all the time, behind a partition.
    pub(crate) returned: &'a BTreeSet<String>,
    pub(crate) ways: &'a BTreeMap<String, Way>,
    /// Path MTUs that routers have said, by the node at the tunnel's other end.
    pub(crate) path_mtus: &'a BTreeMap<NodeIndex, u16>,
    /// By name.
    pub(crate) uplinks: &'a [(String, Uplink)],
    pub(crate) behaviour: &'a Config,
    pub(crate) cookies: Cookies,
}

/// The numbers that are given out on this node.
#[derive(Debug)]
pub(crate) struct Places {
    /// By [`NodeKey`].
    pub(crate) nodes: Numbers<u64>,
    pub(crate) vips: Numbers<SocketAddr>,
}

impl Places {
    pub(crate) const fn new() -> Self {
        Self { nodes: Numbers::new(MAX_NODES as u16), vips: Numbers::new(MAX_VIPS as u16) }
    }
}

/// One node in `status`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Placed {
    pub(crate) name: String,
    pub(crate) index: NodeIndex,
    pub(crate) standing: Standing,
    pub(crate) weight: u32,
    pub(crate) way: Option<Way>,
}

/// What the maps, `lo` and the announcements shall be.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Desired {
    /// `active_slots` is the writer's to choose.
    pub(crate) config: Config,
    pub(crate) nodes: BTreeMap<NodeIndex, Node>,
    pub(crate) peers: BTreeMap<PeerKey, Peer>,
    /// For nodes with [`Node::GUE`].
    pub(crate) tunnels: BTreeMap<NodeIndex, Tunnel>,
    pub(crate) tunnel_ends: BTreeMap<TunnelEndKey, TunnelEnd>,
    pub(crate) candidates: Vec<Candidate>,
    pub(crate) vips4: BTreeMap<VipKey4, Vip>,
    pub(crate) vips6: BTreeMap<VipKey6, Vip>,
    pub(crate) addrs4: BTreeMap<Ip4, Addr>,
    pub(crate) addrs6: BTreeMap<Ip6, Addr>,
    pub(crate) guards: BTreeMap<VipId, Guard>,
    /// By the length of their prefix in bits.
    pub(crate) rules: BTreeMap<(u32, RuleKey), u32>,
    /// For `lo`.
    pub(crate) addresses: BTreeSet<IpAddr>,
    pub(crate) owners: BTreeMap<IpAddr, String>,
    /// Indices of uplinks on which a VIP is not announced; VIPs that are announced everywhere are not listed.
    pub(crate) silent: BTreeMap<IpAddr, BTreeSet<u32>>,
    /// For `status`: who has which number.
    pub(crate) placed: Vec<Placed>,
    pub(crate) vips: Vec<(SocketAddr, VipId)>,
}

impl Desired {
    /// How many bytes a client's packet may have so that it fits into each tunnel; `None` without tunnels.
    pub(crate) fn tunnelled_mtu(&self) -> Option<u16> {
        let inner = |tunnel: &Tunnel| tunnel.mtu.saturating_sub(tunnel.overhead() as u16);
        self.tunnels.values().map(inner).min()
    }

    /// VIPs for which `node` answers.
    pub(crate) fn owned_by<'a>(&'a self, node: &'a str) -> impl Iterator<Item = IpAddr> + 'a {
        self.owners.iter().filter(move |(_, owner)| *owner == node).map(|(vip, _)| *vip)
    }
}

/// What the maps shall hold.
pub(crate) fn desired(input: &Input<'_>, places: &mut Places, handover: &mut Handover) -> Desired {
    let mut desired = Desired::default();
    place_nodes(input, places, &mut desired);
    place_vips(input, places, handover, &mut desired);
    let mut config = *input.behaviour;
    config.abi_version = ABI_VERSION;
    config.segment_size = protection::segment_size(desired.tunnelled_mtu());
    config.own_node = desired
        .placed
        .iter()
        .find(|node| node.name == input.own_name)
        .map_or(NodeIndex::NONE, |own| own.index);
    for (entry, (_, uplink)) in config.uplinks.iter_mut().zip(input.uplinks) {
        *entry = *uplink;
    }
    desired.config = config;
    desired
}

fn standing(input: &Input<'_>, name: &str, intent: NodeIntent) -> Standing {
    let liveness = if name == input.own_name {
        input.own
    } else {
        input.view.peers.get(name).copied().unwrap_or(Liveness::Down)
    };
    match (liveness, intent) {
        (Liveness::Down, _) => Standing::Down,
        (Liveness::Joining, _) => Standing::Joining,
        (Liveness::Serving, NodeIntent::Serve) => Standing::Serving,
        (Liveness::Serving, NodeIntent::Avoid) => Standing::Unready,
        (Liveness::Serving, NodeIntent::Drain) | (Liveness::Draining, _) => Standing::Draining,
    }
}

fn place_nodes(input: &Input<'_>, places: &mut Places, desired: &mut Desired) {
    let keys: BTreeSet<u64> = input.snapshot.nodes.iter().map(|node| NodeKey::of(&node.name).0).collect();
    places.nodes.keep(|key| keys.contains(key));
    for node in &input.snapshot.nodes {
        let key = NodeKey::of(&node.name);
        let Some(index) = places.nodes.of(&key.0).map(NodeIndex) else {
            warn!(node = node.name, max = MAX_NODES, "too many nodes: this one is left out");
            continue;
        };
        let standing = standing(input, &node.name, node.intent);
        let mut way = (node.name != input.own_name)
            .then(|| input.ways.get(&node.name).copied().unwrap_or(Way::NoRoute));
        if let Some(Way::Tunnel { mtu, .. }) = &mut way
            && let Some(said) = input.path_mtus.get(&index)
        {
            *mtu = (*mtu).min(*said);
        }
        let mut entry = Node { key: [key.0 as u32, (key.0 >> 32) as u32], ..Node::default() };
        if standing.is_up() || node.name == input.own_name {
            entry.flags |= Node::ALIVE;
            let accepts = standing == Standing::Serving && node.weight > 0;
            if !accepts {
                entry.flags |= Node::DRAINING;
            }
            let weight = u16::try_from(node.weight).unwrap_or(u16::MAX);
            desired.candidates.push(Candidate::new(index, key, weight, accepts));
        }
        for &address in &node.addresses {
            desired.tunnel_ends.insert(TunnelEndKey(outer(address)), TunnelEnd { node: index, reserved: 0 });
        }
        if let Some(Way::Tunnel { link, vlan, from, to, remote, mtu, .. }) = way
            && let Some(own) = own_address_like(input, remote)
        {
            entry.flags |= Node::WAY | Node::GUE;
            entry.ifindex = link;
            entry.vlan = vlan;
            entry.src_mac = from;
            entry.dst_mac = to;
            let flags = if remote.is_ipv6() { Tunnel::V6 } else { 0 };
            desired.tunnels.insert(index, Tunnel { src: outer(own), dst: outer(remote), mtu, flags });
        }
        if let Some(Way::Link { link, vlan, from, to }) = way {
            entry.flags |= Node::WAY;
            entry.ifindex = link;
            entry.vlan = vlan;
            entry.src_mac = from;
            entry.dst_mac = to;
            desired.peers.insert(PeerKey { mac: to, reserved: 0 }, Peer { node: index, reserved: 0 });
        }
        desired.nodes.insert(index, entry);
        desired.placed.push(Placed { name: node.name.clone(), index, standing, weight: node.weight, way });
    }
}

/// An address of a node as tunnels have it.
fn outer(address: IpAddr) -> Ip6 {
    match address {
        IpAddr::V4(v4) => Ip6::mapped(v4.into()),
        IpAddr::V6(v6) => v6.into(),
    }
}

/// The address by which peers know this node: they take tunnelled packets from no other.
fn own_address_like(input: &Input<'_>, remote: IpAddr) -> Option<IpAddr> {
    let own = input.snapshot.nodes.iter().find(|node| node.name == input.own_name)?;
    own.addresses.iter().copied().find(|address| address.is_ipv4() == remote.is_ipv4())
}

fn place_vips(input: &Input<'_>, places: &mut Places, handover: &mut Handover, desired: &mut Desired) {
    let sockets: BTreeSet<SocketAddr> = input
        .snapshot
        .vips
        .iter()
        .flat_map(|vip| vip.ports().map(|port| SocketAddr::new(vip.address, port)))
        .collect();
    let protections: BTreeMap<IpAddr, &Protection> =
        input.snapshot.vips.iter().map(|vip| (vip.address, &vip.protection)).collect();
    places.vips.keep(|socket| sockets.contains(socket));
    for socket in sockets {
        let Some(id) = places.vips.of(&socket).map(VipId) else {
            warn!(vip = %socket, max = MAX_VIPS, "too many VIPs: this one is left out");
            continue;
        };
        let protection = protections.get(&socket.ip()).copied();
        let flags = protection.map_or(0, |protection| protection::place(input, id, protection, desired));
        let value = Vip { id, flags, reserved: 0 };
        let port = ingress_common::abi::Be16::new(socket.port());
        match socket.ip() {
            IpAddr::V4(v4) => {
                desired.vips4.insert(VipKey4 { addr: v4.into(), port, proto: TCP }, value);
            }
            IpAddr::V6(v6) => {
                desired.vips6.insert(VipKey6 { addr: v6.into(), port, proto: TCP }, value);
            }
        }
        desired.vips.push((socket, id));
        desired.addresses.insert(socket.ip());
    }
    let target = groups(input, desired, |_| true);
    let without_self = groups(input, desired, |name| name != input.own_name);
    let is_up = |owner: &str| {
        let its = desired.placed.iter().find(|node| node.name == owner);
        its.is_some_and(|node| node.standing.is_up())
    };
    let owners = handover.owners(
        input.now,
        input.own_name,
        &owners(target),
        &owners(without_self),
        input.returned,
        is_up,
    );
    let sources: BTreeMap<IpAddr, &VipIntent> =
        input.snapshot.vips.iter().map(|vip| (vip.address, vip)).collect();
    for &address in &desired.addresses {
        let is_owner = owners.get(&address).is_some_and(|owner| owner == input.own_name);
        let mut value = Addr { flags: if is_owner { Addr::OWNER } else { 0 } };
        for (place, (name, uplink)) in input.uplinks.iter().enumerate() {
            if sources.get(&address).is_some_and(|vip| !vip.announcement.is_on(name)) {
                value = value.silent_on(place);
                desired.silent.entry(address).or_default().insert(uplink.ifindex);
            }
        }
        match address {
            IpAddr::V4(v4) => {
                desired.addrs4.insert(v4.into(), value);
            }
            IpAddr::V6(v6) => {
                desired.addrs6.insert(v6.into(), value);
            }
        }
    }
    desired.owners = owners;
}

/// The VIPs of each source, with the nodes that may own them: of those that its pool selects and that are `allowed`, those that
/// serve. A draining node hands its VIPs over as well, unless there is nobody else.
fn groups<'a>(input: &Input<'_>, desired: &'a Desired, allowed: impl Fn(&str) -> bool) -> Vec<Group<'a>> {
    let mut by_source: BTreeMap<&ObjectRef, Vec<&VipIntent>> = BTreeMap::new();
    for vip in input.snapshot.vips.iter().filter(|vip| desired.addresses.contains(&vip.address)) {
        by_source.entry(&vip.source).or_default().push(vip);
    }
    by_source
        .into_values()
        .map(|vips| {
            let with = |wanted: &[Standing]| -> Vec<&str> {
                let selected = desired.placed.iter().filter(|node| {
                    wanted.contains(&node.standing)
                        && allowed(&node.name)
                        && vips.iter().all(|vip| vip.announcement.allows(&node.name))
                });
                selected.map(|node| node.name.as_str()).collect()
            };
            // One that is not ready may be cut off from the API server, and believe that it owns what it did.
            let mut candidates = with(&[Standing::Serving, Standing::Unready]);
            if candidates.is_empty() {
                candidates = with(&[Standing::Draining]);
            }
            Group { vips: vips.iter().map(|vip| vip.address).collect(), candidates }
        })
        .collect()
}

#[cfg(test)]
mod tests;
