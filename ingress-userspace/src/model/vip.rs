//! Ingress VIPs.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::{Downstream, ObjectRef};

/// A virtual address that ends at the router of some node (TCP).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vip {
    /// The address that clients use.
    pub address: IpAddr,
    /// Ports that speak plain HTTP (80 unless the class says otherwise).
    pub http_ports: Vec<u16>,
    /// Ports that speak TLS (443 unless the class says otherwise).
    pub https_ports: Vec<u16>,
    /// Whom it serves, and how much of it.
    pub protection: Protection,
    /// How its clients are understood. `None`: as everywhere.
    pub downstream: Option<Arc<Downstream>>,
    /// The AddressPool that has it, or else the class or Ingress that names it: what is wrong with it is told there, and the
    /// VIPs of one source are spread evenly over the nodes.
    pub source: ObjectRef,
    /// Who answers for it; shared by all VIPs of a source.
    pub announcement: Arc<Announcement>,
}

/// Who may answer for a VIP on the link (ARP, neighbour discovery), and where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Announcement {
    /// Names of the nodes; `None`: all.
    pub nodes: Option<BTreeSet<String>>,
    /// Names of interfaces; empty: all uplinks.
    pub interfaces: BTreeSet<String>,
}

impl Announcement {
    /// Whether the node of this name may answer.
    pub fn allows(&self, node: &str) -> bool {
        self.nodes.as_ref().is_none_or(|nodes| nodes.contains(node))
    }

    /// Whether it is answered for on the interface of this name.
    pub fn is_on(&self, interface: &str) -> bool {
        self.interfaces.is_empty() || self.interfaces.contains(interface)
    }
}

/// What the XDP front keeps away from a VIP.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Protection {
    /// Sources that are not served, whatever `allow` says.
    pub deny: Vec<IpNet>,
    /// If it is there, the only sources that are served.
    pub allow: Option<Vec<IpNet>>,
    /// New connections of one source.
    pub new_connections: Option<Rate>,
    /// SYNs per second on a node above which they are answered with cookies; 0: never. `None`: as the daemon's flags say.
    pub syn_cookies_above: Option<u32>,
}

/// A token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Tokens that are added per second, at least 1.
    pub per_second: u32,
    /// Tokens that it holds, at least 1.
    pub burst: u32,
}

impl Vip {
    /// Without ports and protection yet, and announced everywhere.
    pub fn new(address: IpAddr, source: ObjectRef) -> Self {
        Self {
            address,
            http_ports: Vec::new(),
            https_ports: Vec::new(),
            protection: Protection::default(),
            downstream: None,
            source,
            announcement: Arc::default(),
        }
    }

    /// All its TCP ports, plain ones first.
    pub fn ports(&self) -> impl Iterator<Item = u16> + '_ {
        self.http_ports.iter().chain(&self.https_ports).copied()
    }
}
