//! What the L4 front tells of itself, for `xdp-ingress status` and the metrics. Reads the counter
//! maps and the last `Picture` of the engine; changes nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use ingress_common::abi::Count;
use ingress_common::steer::Reason;
use serde::{Deserialize, Serialize};

use super::findings::Findings;
use super::load::Attachment;
use super::maps::{self, Counters};
use super::membership::MembershipStatus;
use super::neighbour::Way;
use super::sync::{Desired, Placed, Standing};

/// A published snapshot; they count from 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

/// What the engine brought into the kernel last.
#[derive(Debug, Clone, Default)]
pub(crate) struct Picture {
    pub(crate) generation: Generation,
    pub(crate) applied_at: Option<SystemTime>,
    /// How long it took to write it.
    pub(crate) took: Duration,
    pub(crate) draining: bool,
    pub(crate) placed: Vec<Placed>,
    pub(crate) vips: Vec<(SocketAddr, u16, Option<String>)>,
    pub(crate) problem: Option<String>,
}

impl Picture {
    pub(crate) fn of(desired: &Desired) -> Self {
        let owner = |socket: &SocketAddr| desired.owners.get(&socket.ip()).cloned();
        Self {
            placed: desired.placed.clone(),
            vips: desired.vips.iter().map(|(socket, id)| (*socket, id.0, owner(socket))).collect(),
            ..Self::default()
        }
    }
}

/// Sums over all CPUs since the maps were made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Packets.
    pub packets: u64,
    /// Bytes, Ethernet headers included.
    pub bytes: u64,
    /// New flows (SYNs).
    pub flows: u64,
}

impl From<Count> for Totals {
    fn from(count: Count) -> Self {
        Self { packets: count.packets, bytes: count.bytes, flows: count.flows }
    }
}

/// All counters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Counts {
    /// What arrived, by VIP.
    vips: Vec<(SocketAddr, Totals)>,
    /// What went to each node, this one included.
    nodes: Vec<(String, Totals)>,
    /// Packets by reason of the verdict (`ingress_common::steer::Reason`).
    reasons: Vec<(&'static str, u64)>,
}

/// A node as the L4 front sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// `metadata.name`.
    pub name: String,
    /// This is the node that tells.
    pub is_self: bool,
    /// What it does for new flows.
    pub state: Standing,
    /// Share of new flows.
    pub weight: u32,
    /// How it is reached; nothing for the own node.
    pub way: Option<Way>,
    /// What this node sent there.
    #[serde(flatten)]
    pub totals: Totals,
}

/// One VIP and port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipStatus {
    /// Address and port.
    pub address: SocketAddr,
    /// Which node answers ARP and neighbour discovery for it.
    pub owner: Option<String>,
    /// What arrived here.
    #[serde(flatten)]
    pub totals: Totals,
}

/// What the L4 front does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// This node.
    pub node: String,
    /// It was asked to drain.
    pub draining: bool,
    /// Last snapshot that is in the kernel; 0: none yet.
    pub generation: Generation,
    /// When it was brought there, in milliseconds since 1970.
    pub applied_at_ms: Option<u64>,
    /// How long that took, in microseconds.
    pub took_us: u64,
    /// Interfaces with the program, its mode and why it is not native.
    pub interfaces: Vec<Attachment>,
    /// In name order.
    pub nodes: Vec<NodeStatus>,
    /// In address order.
    pub vips: Vec<VipStatus>,
    /// Packets by reason of the verdict; only those that occurred.
    pub reasons: BTreeMap<String, u64>,
    /// What does not work right now.
    pub problem: Option<String>,
    /// What this node alone sees of the VIPs.
    #[serde(default)]
    pub findings: Findings,
    /// What the nodes tell each other.
    #[serde(default)]
    pub membership: MembershipStatus,
}

/// Reads all counters. Those that cannot be read are 0.
fn counts(picture: &Picture, counters: &Counters) -> Counts {
    let total = |map, index| maps::sum(map, index).map(Totals::from).unwrap_or_default();
    Counts {
        vips: picture
            .vips
            .iter()
            .map(|(socket, id, _)| (*socket, total(&counters.vips, u32::from(*id))))
            .collect(),
        nodes: picture
            .placed
            .iter()
            .map(|node| (node.name.clone(), total(&counters.nodes, node.index.0.into())))
            .collect(),
        reasons: Reason::ALL
            .into_iter()
            .map(|reason| {
                let sum = counters.reasons.get(&reason.index(), 0).map_or(0, |cpus| cpus.iter().sum());
                (reason.name(), sum)
            })
            .collect(),
    }
}

/// What the maps and the engine say; the rest is the handle's to fill in.
pub(crate) fn status(
    node: &str,
    interfaces: &[Attachment],
    picture: &Picture,
    counters: &Counters,
) -> Status {
    let counts = counts(picture, counters);
    Status {
        node: node.to_owned(),
        draining: picture.draining,
        generation: picture.generation,
        applied_at_ms: picture
            .applied_at
            .and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok())
            .map(|since| since.as_millis() as u64),
        took_us: picture.took.as_micros() as u64,
        interfaces: interfaces.to_vec(),
        nodes: picture
            .placed
            .iter()
            .zip(counts.nodes)
            .map(|(placed, (_, totals))| NodeStatus {
                name: placed.name.clone(),
                is_self: placed.name == node,
                state: placed.standing,
                weight: placed.weight,
                way: placed.way,
                totals,
            })
            .collect(),
        vips: picture
            .vips
            .iter()
            .zip(counts.vips)
            .map(|((address, _, owner), (_, totals))| VipStatus {
                address: *address,
                owner: owner.clone(),
                totals,
            })
            .collect(),
        reasons: counts
            .reasons
            .into_iter()
            .filter(|(_, packets)| *packets > 0)
            .map(|(reason, packets)| (reason.to_owned(), packets))
            .collect(),
        problem: picture.problem.clone(),
        findings: Findings::default(),
        membership: MembershipStatus::default(),
    }
}
